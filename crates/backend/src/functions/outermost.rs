//! The end of each outermost call of a function: by a client, or as a hook. Functions that a
//! function executes are part of its call.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bson::{RawBson, oid::ObjectId};

use super::{Hook, Invocation};
use crate::{Result, context::Context};

/// The cause of an outermost call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A user called the function.
    Client,
    /// The backend called the function itself.
    Hook(Hook),
}

/// Runs an outermost call to its end.
///
/// # Errors
/// The error of the call.
pub(super) async fn run(context: &Context, cause: Cause, invocation: Arc<Invocation>) -> Result<RawBson> {
    let begun = Instant::now();
    let result = context.functions.call(Arc::clone(&invocation)).await;
    ended(cause, &invocation, begun.elapsed(), &result);
    result
}

/// Notes that an outermost call has ended. This is the place for everything that is recorded about
/// calls.
fn ended(cause: Cause, invocation: &Invocation, duration: Duration, result: &Result<RawBson>) {
    let (function, user) = (&*invocation.name, invocation.caller.map(ObjectId::to_hex));
    let hook = match cause {
        Cause::Client => None,
        Cause::Hook(hook) => Some(hook.name()),
    };
    let error = result.as_ref().err().map(|error| &*error.message);
    tracing::debug!(function, hook, user, duration_ms = duration.as_millis(), error, "function call ended");
}
