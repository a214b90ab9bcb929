//! Hooks: the functions that the backend calls itself, during log-ins and registrations
//! (<https://www.mongodb.com/docs/atlas/app-services/authentication/>).
//!
//! A hook runs as the system user, whatever its entry in the manifest says, because its caller is
//! not logged in yet. For the same reason, all hooks share the limits of one user.

use std::{sync::Arc, time::Duration};

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr},
};
use store::{Replaying, TransactionLimits};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Invocation,
    call::{record_of, run, system_user},
    hook_secrets::{HookSecrets, cut},
    transactions::Transactions,
};
use crate::{Error, ErrorCode, RequestContext, Result, auth::AttemptShare, context::Context};

/// The id of the user to whom the limits of all hooks apply. No user has it.
const ALL_HOOKS: ObjectId = ObjectId::from_bytes([0; 12]);

/// The purpose of a function that the backend calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// The function of the provider `custom-function`.
    Authentication,
    /// The function that confirms a registration.
    Confirmation,
    /// The function that resets a password.
    PasswordReset,
    /// The function that runs before a user is created.
    UserCreation,
}

impl Hook {
    /// Returns the name for the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Confirmation => "confirmation",
            Self::PasswordReset => "password reset",
            Self::UserCreation => "user creation",
        }
    }

    /// Returns the time limit, if it is shorter than that of other functions. A creation function
    /// runs in a transaction.
    fn time_limit(self) -> Option<Duration> {
        (self == Self::UserCreation).then(|| TransactionLimits::default().time)
    }
}

/// The transaction around the operations of a hook, and its place among the others.
#[derive(Debug)]
pub(crate) struct Enclosing {
    pub(crate) transaction: Arc<Replaying>,
    pub(crate) permit: Arc<OwnedSemaphorePermit>,
}

/// The part of a call that only hooks have. The bounds of its request and of its transaction apply
/// until the call ends, also if the client disconnects before.
#[derive(Debug)]
pub(crate) struct HookCall {
    /// The secrets in the arguments, which the log does not show.
    pub(super) secrets: HookSecrets,
    _share: Option<Arc<AttemptShare>>,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

#[cfg(test)]
impl HookCall {
    /// Creates the part of a hook without bounds and secrets.
    pub(super) fn of_nothing() -> Self {
        Self { secrets: HookSecrets::of(Hook::UserCreation, &RawArrayBuf::new()), _share: None, _permit: None }
    }
}

/// The answer of a confirmation or reset function: `{ status }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// `success`: the action takes effect now.
    Success,
    /// `pending`: the action takes effect when the user presents the token.
    Pending,
    /// `fail`, an error, or any other answer: the action is refused.
    Fail,
}

/// Runs the function `name` of the definition as a hook. `enclosing` is the transaction that
/// contains its writes, if there is one. If the returned future is dropped, the function is
/// stopped.
///
/// # Errors
/// `FunctionNotFound` if the definition has no such function, the error of the function,
/// `ExecutionTimeLimitExceeded`, and an error if too many calls wait.
pub(crate) async fn run_hook(
    context: &Arc<Context>,
    hook: Hook,
    name: &str,
    arguments: RawArrayBuf,
    circumstances: &RequestContext,
    enclosing: Option<Enclosing>,
) -> Result<RawBson> {
    let secrets = HookSecrets::of(hook, &arguments);
    let answer = run_hook_uncut(context, hook, name, arguments, secrets.clone(), circumstances, enclosing).await;
    answer.map_err(|error| {
        let logged = Some(secrets.hide(&error.message));
        Error { message: cut(&error.message).into(), logged, ..error }
    })
}

/// Runs a hook as [`run_hook`] does, with the whole text of the error. `secrets` are those in the
/// arguments.
async fn run_hook_uncut(
    context: &Arc<Context>,
    hook: Hook,
    name: &str,
    arguments: RawArrayBuf,
    secrets: HookSecrets,
    circumstances: &RequestContext,
    enclosing: Option<Enclosing>,
) -> Result<RawBson> {
    if context.definition.functions.get(name).is_none() {
        tracing::warn!(function = name, hook = hook.name(), "the function of a hook is not in the definition");
        return Err(Error::new(ErrorCode::FunctionNotFound, format!("function not found: '{name}'")));
    }
    let (transaction, permit) = enclosing.map(|enclosing| (enclosing.transaction, enclosing.permit)).unzip();
    let invocation = Invocation {
        name: name.to_owned(),
        arguments,
        user: system_user(),
        request: circumstances.http.as_deref().map(|request| with_action(request, name)),
        caller: None,
        payer: Some(ALL_HOOKS),
        is_system: true,
        time_limit: hook.time_limit(),
        hook: Some(HookCall { secrets, _share: circumstances.share.clone(), _permit: permit }),
        transactions: Transactions::inside(transaction),
        record: record_of(circumstances).by(hook.name()),
        context: Arc::clone(context),
    };
    run(&Arc::new(invocation)).await
}

/// Returns a request as `context.request` of a function.
fn with_action(request: &RawDocument, function: &str) -> RawDocumentBuf {
    let mut described = RawDocumentBuf::new();
    for (key, value) in query::elements(request).filter(|(key, _)| *key != "action") {
        query::append(&mut described, key, value);
    }
    described.append(cstr!("action"), function);
    described
}

/// Runs a confirmation or reset function. The log has the reason if it fails in another way than
/// by its status.
///
/// # Errors
/// Errors that are not the function's: too many calls wait, or the backend fails.
pub(crate) async fn run_status_hook(
    context: &Arc<Context>,
    hook: Hook,
    name: &str,
    arguments: RawArrayBuf,
    circumstances: &RequestContext,
) -> Result<Status> {
    let secrets = HookSecrets::of(hook, &arguments);
    let reason = match run_hook_uncut(context, hook, name, arguments, secrets.clone(), circumstances, None).await {
        Err(error) if !is_of_function(&error) => return Err(error),
        Err(error) => error.message.into_owned(),
        Ok(answer) => match status_of(&answer) {
            Ok(status) => return Ok(status),
            Err(reason) => reason,
        },
    };
    let reason = secrets.hide(&reason);
    tracing::warn!(function = name, hook = hook.name(), reason, "the function of a hook failed");
    Ok(Status::Fail)
}

/// True if an error is the function's own, and not one of the backend or of its limits.
pub(crate) fn is_of_function(error: &Error) -> bool {
    let is_temporary = error.retry_after.is_some() || error.is_transient || error.is_of_thread;
    !is_temporary && error.code != ErrorCode::InternalServerError
}

fn status_of(answer: &RawBson) -> Result<Status, String> {
    let status = match answer {
        RawBson::Document(answer) => answer.get("status").ok().flatten(),
        other => return Err(format!("it returned {}, and not {{ status }}", kind(other.as_raw_bson_ref()))),
    };
    match status {
        Some(RawBsonRef::String("success")) => Ok(Status::Success),
        Some(RawBsonRef::String("pending")) => Ok(Status::Pending),
        Some(RawBsonRef::String("fail")) => Ok(Status::Fail),
        Some(RawBsonRef::String(_)) => Err("its status is not 'success', 'pending' or 'fail'".to_owned()),
        Some(other) => Err(format!("its status is {}, and not a string", kind(other))),
        None => Err("its answer has no status".to_owned()),
    }
}

/// Returns the type of a value for a message.
pub(crate) fn kind(value: RawBsonRef<'_>) -> &'static str {
    match value {
        RawBsonRef::Undefined => "nothing",
        RawBsonRef::Null => "null",
        RawBsonRef::String(_) => "a string",
        RawBsonRef::Document(_) => "an object",
        RawBsonRef::Array(_) => "an array",
        RawBsonRef::Boolean(_) => "a boolean",
        RawBsonRef::ObjectId(_) => "an ObjectId",
        RawBsonRef::DateTime(_) => "a date",
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => "a number",
        _ => "a value of another type",
    }
}

/// Returns the arguments of a hook: one document, and more values if there are any.
pub(crate) fn arguments(first: &RawDocument, more: impl IntoIterator<Item = RawBson>) -> RawArrayBuf {
    let mut arguments = RawArrayBuf::new();
    arguments.push(first.to_owned());
    more.into_iter().for_each(|argument| arguments.push(argument));
    arguments
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn only_the_three_statuses_are_accepted() {
        let status = |text: &str| status_of(&RawBson::Document(rawdoc! { "status": text, "more": 1 }));
        assert_eq!(status("success"), Ok(Status::Success));
        assert_eq!(status("pending"), Ok(Status::Pending));
        assert_eq!(status("fail"), Ok(Status::Fail));
        for wrong in ["Success", "", "successful"] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_answers_are_named() {
        let reason = |answer| status_of(&answer).unwrap_err();
        assert_eq!(reason(RawBson::Undefined), "it returned nothing, and not { status }");
        assert_eq!(reason(RawBson::Boolean(true)), "it returned a boolean, and not { status }");
        assert_eq!(reason(rawdoc! { "status": true }.into()), "its status is a boolean, and not a string");
        assert_eq!(reason(rawdoc! {}.into()), "its answer has no status");
    }
}
