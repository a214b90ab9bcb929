//! Delivers results and log lines to the thread of an environment.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use backend::{
    Backend,
    functions::{CallId, HostId},
};
use client::Error;
use logging::Level;
use napi::{
    Env,
    bindgen_prelude::{BufferSlice, FnArgs, Function, ToNapiValue},
    sys,
};

use crate::{
    errors::ErrorObject,
    functions::{CallObject, CommandObject},
    log::LogLine,
    wake::Wake,
};

/// The result of an operation: bytes (a BSON document), nothing, or an error.
pub(crate) type Outcome = Result<Option<Vec<u8>>, Error>;

/// The arguments of the JavaScript function that receives results: their ids, the results, the
/// concatenated bytes of the small ones, log lines, calls of functions to run, and commands about
/// the threads that run functions.
pub(crate) type Delivery = FnArgs<(Vec<u32>, Vec<Delivered>, Bytes, Vec<LogLine>, Vec<CallObject>, Vec<CommandObject>)>;

/// The maximum size in bytes of data that is copied into Node's memory. For small data, a copy is
/// cheaper than an external buffer.
const COPIED: usize = 64 * 1024;

/// Bytes that become a `Buffer`.
pub(crate) struct Bytes(pub Vec<u8>);

/// The return value of a call.
pub(crate) enum Started {
    /// The id under which the result will be delivered.
    Pending(u32),
    /// The result.
    Bytes(Bytes),
    /// The error.
    Error(ErrorObject),
    /// The call is complete and has no result.
    Done,
}

/// A result that is delivered later.
pub(crate) enum Delivered {
    /// The length of the result in the buffer that all small results share.
    Small(u32),
    /// A large result.
    Bytes(Bytes),
    /// The error.
    Error(ErrorObject),
    /// The operation is complete and has no result.
    Done,
}

impl ToNapiValue for Bytes {
    #[allow(unsafe_code, reason = "the conversion to a value is an unsafe function of napi-rs")]
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        let environment = Env::from_raw(env);
        let Self(bytes) = value;
        let slice = if bytes.len() <= COPIED {
            BufferSlice::copy_from(&environment, bytes)
        } else {
            BufferSlice::from_data(&environment, bytes)
        }?;
        // SAFETY: `env` is the environment of this call, and the slice was created in it.
        unsafe { BufferSlice::to_napi_value(env, slice) }
    }
}

/// Implements the conversion of an enum to the value of its variant: a number, a buffer, an error
/// object, or `undefined`.
macro_rules! to_value {
    ($name:ident, $number:ident) => {
        impl ToNapiValue for $name {
            #[allow(unsafe_code, reason = "the conversion to a value is an unsafe function of napi-rs")]
            unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
                // SAFETY: `env` is the environment of this call.
                unsafe {
                    match value {
                        Self::$number(number) => u32::to_napi_value(env, number),
                        Self::Bytes(bytes) => Bytes::to_napi_value(env, bytes),
                        Self::Error(error) => ErrorObject::to_napi_value(env, error),
                        Self::Done => <()>::to_napi_value(env, ()),
                    }
                }
            }
        }
    };
}

to_value!(Started, Pending);
to_value!(Delivered, Small);

impl From<Outcome> for Started {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(Some(bytes)) => Self::Bytes(Bytes(bytes)),
            Ok(None) => Self::Done,
            Err(error) => Self::Error(error.into()),
        }
    }
}

impl Delivered {
    /// Moves a small result into `together`, because one external buffer per small result would be
    /// expensive for Node.
    fn new(outcome: Outcome, together: &mut Vec<u8>) -> Self {
        match outcome {
            Ok(Some(bytes)) if bytes.len() <= COPIED => {
                together.extend(&bytes);
                Self::Small(bytes.len() as u32)
            }
            Ok(Some(bytes)) => Self::Bytes(Bytes(bytes)),
            Ok(None) => Self::Done,
            Err(error) => Self::Error(error.into()),
        }
    }
}

/// The queue of results and log lines for the environment's thread.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Keeps the process alive only while an operation is pending.
    wake: OnceLock<Wake<Delivery>>,
    /// The number of unanswered operations. Only the environment's thread changes it.
    pending: AtomicU32,
    log_level: Mutex<Level>,
    /// The backends whose functions this environment runs, by their numbers.
    hosts: Mutex<HashMap<u32, HostOf>>,
}

/// The environment as a thread that runs the functions of a backend.
pub(crate) struct HostOf {
    pub backend: Arc<Backend>,
    pub host: HostId,
}

#[derive(Default)]
struct Waiting {
    answers: Vec<(u32, Outcome)>,
    lines: Vec<LogLine>,
    commands: Vec<CommandObject>,
    /// The calls of functions whose results are not wanted any more, with their backends.
    cancelled: Vec<(u32, CallId)>,
}

/// The maximum number of log lines of one delivery, so that it does not hold the event loop.
const MOST_LINES: usize = 256;

impl Waiting {
    /// Takes everything except log lines beyond [`MOST_LINES`].
    fn take(&mut self) -> Self {
        let rest = self.lines.split_off(self.lines.len().min(MOST_LINES));
        std::mem::replace(self, Self { lines: rest, ..Self::default() })
    }

    fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.lines.is_empty() && self.commands.is_empty() && self.cancelled.is_empty()
    }
}

impl Outbox {
    /// Sets the function that receives the results of `inbox`.
    pub(crate) fn set_receiver(
        &self,
        env: &Env,
        deliver: &Function<Delivery, ()>,
        inbox: Weak<Self>,
    ) -> napi::Result<()> {
        let wake = Wake::new(env, deliver, move |env| match inbox.upgrade() {
            Some(outbox) => outbox.take(env),
            None => (vec![], vec![], Bytes(vec![]), vec![], vec![], vec![]).into(),
        })?;
        let _ = self.wake.set(wake);
        Ok(())
    }

    /// Counts an operation whose result will be pushed. Must be called on the environment's
    /// thread.
    pub(crate) fn begin(&self, env: &Env) {
        if self.pending.fetch_add(1, Ordering::AcqRel) == 0 {
            self.keep_alive(env, true);
        }
    }

    /// Adds the result of an operation.
    pub(crate) fn finish(&self, id: u32, outcome: Outcome) {
        self.push(|waiting| waiting.answers.push((id, outcome)));
    }

    pub(crate) fn log_level(&self) -> Level {
        *lock(&self.log_level)
    }

    pub(crate) fn set_log_level(&self, level: Level) {
        *lock(&self.log_level) = level;
    }

    /// Adds a log line.
    pub(crate) fn log(&self, line: LogLine) {
        self.push(|waiting| waiting.lines.push(line));
    }

    /// Adds a command about the threads that run functions.
    pub(crate) fn command(&self, command: CommandObject) {
        self.push(|waiting| waiting.commands.push(command));
    }

    /// Asks the environment to stop a call of a function.
    pub(crate) fn cancel(&self, backend: u32, call: CallId) {
        self.push(|waiting| waiting.cancelled.push((backend, call)));
    }

    /// Asks the environment to take a call of a function.
    pub(crate) fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.call();
        }
    }

    /// Releases the environment's function. Nothing is delivered or logged afterwards.
    pub(crate) fn release(&self) {
        self.set_log_level(Level::default());
        if let Some(wake) = self.wake.get() {
            wake.release();
        }
    }

    fn push(&self, add: impl FnOnce(&mut Waiting)) {
        let first = {
            let mut waiting = lock(&self.waiting);
            let first = waiting.is_empty();
            add(&mut waiting);
            first
        };
        // One call delivers everything that is in the queue when it runs.
        if let (true, Some(wake)) = (first, self.wake.get()) {
            wake.call();
        }
    }

    fn take(&self, env: &Env) -> Delivery {
        let Waiting { answers, lines, commands, cancelled } = lock(&self.waiting).take();
        if !lock(&self.waiting).lines.is_empty() {
            self.wake();
        }
        let count = answers.len() as u32;
        if count > 0 && self.pending.fetch_sub(count, Ordering::AcqRel) == count {
            self.keep_alive(env, false);
        }
        let mut together = Vec::new();
        let (ids, answers) =
            answers.into_iter().map(|(id, answer)| (id, Delivered::new(answer, &mut together))).unzip();
        let mut calls: Vec<CallObject> = cancelled.into_iter().map(CallObject::cancelled).collect();
        let hosts = lock(&self.hosts);
        let taken = hosts.iter().filter_map(|(backend, held)| {
            let (id, invocation) = held.backend.functions().take(held.host)?;
            Some(CallObject::new(*backend, id, &invocation))
        });
        calls.extend(taken);
        (ids, answers, Bytes(together), lines, calls, commands).into()
    }

    /// The backends whose functions this environment runs.
    pub(crate) fn hosts(&self) -> MutexGuard<'_, HashMap<u32, HostOf>> {
        lock(&self.hosts)
    }

    /// Sets whether the function keeps the process alive. Must be called on the environment's
    /// thread.
    fn keep_alive(&self, env: &Env, keep: bool) {
        if let Some(wake) = self.wake.get() {
            wake.keep_alive(env, keep);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
