//! The functions of an app: JavaScript of the operator, which runs in threads of Node
//! (<https://www.mongodb.com/docs/atlas/app-services/functions/>).
//!
//! This crate does not run JavaScript. An open app adds itself to the [`FunctionPool`] as a
//! [`HostStarter`], and starts threads that take calls as [`FunctionHost`]s.

mod pool;

use std::time::Duration;

use bson::{
    oid::ObjectId,
    raw::{RawArrayBuf, RawDocumentBuf},
};

pub use pool::{CallId, FunctionHost, FunctionPool, HostEnd, HostId, HostStarter};

/// The options of functions.
///
/// ```
/// use backend::functions::FunctionOptions;
///
/// let options = FunctionOptions::default();
/// assert_eq!((options.threads, options.time_limit.as_secs(), options.memory_limit), (1, 300, 350));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FunctionOptions {
    /// The number of threads. Up to as many more start while others do not yield. 0 runs functions
    /// on the thread of the application, without limits, for debugging.
    pub threads: u32,
    /// Time limit of a call, also while it waits for a thread.
    pub time_limit: Duration,
    /// Memory limit of a thread, in MB.
    pub memory_limit: u32,
}

impl Default for FunctionOptions {
    fn default() -> Self {
        Self { threads: 1, time_limit: Duration::from_secs(300), memory_limit: 350 }
    }
}

/// A call of a function.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The name of the function.
    pub name: String,
    /// The arguments.
    pub arguments: RawArrayBuf,
    /// The user as `context.user`.
    pub user: RawDocumentBuf,
    /// The request as `context.request`; `None` if no request caused the call.
    pub request: Option<RawDocumentBuf>,
    /// The user whose rules apply; `None` for the system user.
    pub caller: Option<ObjectId>,
    /// True if the function is privileged, so that no rules apply.
    pub is_system: bool,
}

impl Invocation {
    fn bytes(&self) -> usize {
        self.arguments.as_bytes().len() + self.user.as_bytes().len()
    }

    fn caller_id(&self) -> Option<ObjectId> {
        self.caller
    }
}
