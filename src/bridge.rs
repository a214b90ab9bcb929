//! The state of one JavaScript environment (the main thread or a worker): its open apps, and the
//! delivery of results to its thread.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use backend::Progress;
use client::{
    App, EXIT_PATIENCE, Error, Event,
    connection::{Connection, Embedded},
};
use futures_util::future::{BoxFuture, FutureExt};
use napi::{
    Env,
    bindgen_prelude::{BufferSlice, Either4, External, FnArgs, Function, ToNapiValue},
    sys,
};
use napi_derive::napi;
use server::Server;
use tokio::runtime::{Handle, Runtime};

use crate::{
    errors::ErrorObject,
    log,
    log::LogLine,
    wake::Wake,
    watch::{OpenSubscription, Streams},
};

/// The result of an operation: bytes (a BSON document), nothing, or an error.
pub type Outcome = Result<Option<Vec<u8>>, Error>;

/// A result on its way to JavaScript. A number is the length of its bytes in the buffer that all
/// small results share.
type Delivered = Either4<Bytes, ErrorObject, (), u32>;

/// The arguments of the JavaScript function that receives results: their ids, the results, the
/// concatenated bytes of the small ones, and log lines.
type Delivery = FnArgs<(Vec<u32>, Vec<Delivered>, Bytes, Vec<LogLine>)>;

/// The maximum size in bytes of data that is copied into memory of Node's own, which costs less
/// than handing over memory of Rust's.
const COPIED: usize = 64 * 1024;

/// Bytes that become a `Buffer`.
pub struct Bytes(Vec<u8>);

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

/// An open app, or an operator's handle, which has no users.
pub struct Opened {
    pub connection: Arc<dyn Connection>,
    /// The same connection, if the backend is in this process.
    embedded: Option<Arc<Embedded>>,
    pub app: Option<App>,
    /// Events that operations caused before their call returned. Listeners are called for them at
    /// once, and for later events later.
    at_once: Mutex<Vec<Event>>,
    /// The HTTP server of the backend, if it listens.
    server: OnceLock<Arc<Server>>,
    streams: Mutex<Streams>,
    progress: Progress,
}

impl Opened {
    pub fn new(connection: Arc<dyn Connection>, embedded: Option<Arc<Embedded>>, app: Option<App>) -> Self {
        Self {
            connection,
            embedded,
            app,
            at_once: Mutex::default(),
            server: OnceLock::new(),
            streams: Mutex::default(),
            progress: Progress::default(),
        }
    }

    /// Returns the backend of this process, for its operator.
    pub fn embedded(&self) -> Result<&Arc<Embedded>, Error> {
        self.embedded.as_ref().ok_or_else(|| Error::custom("the backend is not in this process"))
    }

    /// True if some calls complete at once, so that polling them on the environment's own thread
    /// is worthwhile.
    pub fn may_answer_at_once(&self) -> bool {
        self.embedded.as_ref().is_some_and(|embedded| embedded.may_answer_at_once())
    }

    pub fn set_server(&self, server: Server) {
        let _ = self.server.set(Arc::new(server));
    }

    pub fn server(&self) -> Option<Arc<Server>> {
        self.server.get().cloned()
    }

    /// Returns the progress of the current maintenance task.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub fn add_watched(&self, watched: OpenSubscription) -> u32 {
        lock(&self.streams).add(watched)
    }

    pub fn watched(&self, stream: u32) -> Option<Arc<OpenSubscription>> {
        lock(&self.streams).get(stream)
    }

    pub fn remove_watched(&self, stream: u32) {
        lock(&self.streams).remove(stream);
    }

    /// Ends all streams.
    pub fn stop_watching(&self) {
        lock(&self.streams).remove_all();
    }

    fn note_events(&self) {
        if let Some(app) = &self.app {
            lock(&self.at_once).extend(app.take_events());
        }
    }

    /// Takes the events that listeners have not been called for: all, or only those that occurred
    /// before the last call returned.
    pub fn take_events(&self, all: bool) -> Vec<Event> {
        if all {
            self.note_events();
        }
        std::mem::take(&mut *lock(&self.at_once))
    }
}

pub struct Bridge {
    outbox: Arc<Outbox>,
    next_id: AtomicU32,
    opened: Mutex<Vec<Option<Arc<Opened>>>>,
}

impl Bridge {
    /// Writes the results of refreshes to the session files of all open apps, within
    /// [`EXIT_PATIENCE`] in total if other processes hold the files.
    fn write_snapshots(&self) {
        let deadline = Instant::now() + EXIT_PATIENCE;
        for app in lock(&self.opened).iter().flatten().filter_map(|opened| opened.app.as_ref()) {
            app.write_snapshots(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for Bridge {
    /// Runs when the environment ends, also if a worker is terminated, but not on
    /// `process.exit()`. Operations under way still hold their apps then, so dropping the apps
    /// would not be enough.
    fn drop(&mut self) {
        self.write_snapshots();
    }
}

/// Writes the results of refreshes to the session files. Called when the process is about to exit.
#[napi]
pub fn write_snapshots(bridge: &External<Bridge>) {
    bridge.write_snapshots();
}

/// Results and log lines that wait for delivery on the environment's thread.
pub struct Outbox {
    waiting: Mutex<Waiting>,
    /// Keeps the process alive only while an operation is pending.
    wake: OnceLock<Wake<Delivery>>,
    /// The number of unanswered operations. Only the environment's thread changes it.
    pending: AtomicU32,
    /// The environment's log level, as an index of the levels.
    pub log_level: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    answers: Vec<(u32, Outcome)>,
    lines: Vec<LogLine>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> napi::Result<&'static Handle> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("userkeep").enable_all().build().ok()
    });
    runtime.as_ref().map(Runtime::handle).ok_or_else(|| napi::Error::from_reason("Userkeep cannot start its threads"))
}

/// Creates the bridge of an environment. `deliver` is called with results.
#[napi]
pub fn create_bridge(env: &Env, deliver: Function<Delivery, ()>) -> napi::Result<External<Bridge>> {
    let outbox = Arc::new(Outbox {
        waiting: Mutex::default(),
        wake: OnceLock::new(),
        pending: AtomicU32::new(0),
        log_level: AtomicUsize::new(0),
    });
    let inbox = Arc::downgrade(&outbox);
    let wake = Wake::new(env, &deliver, move |env| {
        inbox
            .upgrade()
            .map_or_else(|| (vec![], vec![], Bytes(vec![]), vec![]).into(), |outbox: Arc<Outbox>| outbox.take(env))
    })?;
    let _ = outbox.wake.set(wake);
    log::add(&outbox);
    Ok(External::new(Bridge { outbox, next_id: AtomicU32::new(1), opened: Mutex::default() }))
}

/// Releases the environment's function when no app is open and no operation is pending, because
/// Node counts it as an open handle. Nothing is delivered or logged afterwards.
#[napi]
pub fn release_bridge(bridge: &External<Bridge>) {
    bridge.outbox.release();
}

impl Outbox {
    fn push(&self, add: impl FnOnce(&mut Waiting)) {
        let first = {
            let mut waiting = lock(&self.waiting);
            let first = waiting.answers.is_empty() && waiting.lines.is_empty();
            add(&mut waiting);
            first
        };
        // One call delivers everything that has gathered until it runs.
        if let (true, Some(wake)) = (first, self.wake.get()) {
            wake.call();
        }
    }

    fn release(&self) {
        self.log_level.store(0, Ordering::Relaxed);
        if let Some(wake) = self.wake.get() {
            wake.release();
        }
    }

    pub fn log(&self, line: LogLine) {
        self.push(|waiting| waiting.lines.push(line));
    }

    fn take(&self, env: &Env) -> Delivery {
        let Waiting { answers, lines } = std::mem::take(&mut *lock(&self.waiting));
        let count = answers.len() as u32;
        if count > 0 && self.pending.fetch_sub(count, Ordering::AcqRel) == count {
            self.keep_alive(env, false);
        }
        let mut together = Vec::new();
        let (ids, answers) = answers.into_iter().map(|(id, answer)| (id, deliver(answer, &mut together))).unzip();
        (ids, answers, Bytes(together), lines).into()
    }

    /// Sets whether the function keeps the process alive. Must be called on the environment's
    /// thread.
    fn keep_alive(&self, env: &Env, keep: bool) {
        if let Some(wake) = self.wake.get() {
            wake.keep_alive(env, keep);
        }
    }
}

/// Moves a small result into `together`: one external buffer for each small result would cost Node
/// more than it is worth.
fn deliver(answer: Outcome, together: &mut Vec<u8>) -> Delivered {
    match answer {
        Ok(Some(bytes)) if bytes.len() <= COPIED => {
            together.extend(&bytes);
            Either4::D(bytes.len() as u32)
        }
        Ok(Some(bytes)) => Either4::A(Bytes(bytes)),
        Ok(None) => Either4::C(()),
        Err(error) => Either4::B(error.into()),
    }
}

/// The return value of a call: the id under which its result will be delivered, or the result
/// itself.
pub type Started = Either4<u32, Bytes, ErrorObject, ()>;

impl Bridge {
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub fn add(&self, opened: Opened) -> u32 {
        let mut all = lock(&self.opened);
        all.push(Some(Arc::new(opened)));
        (all.len() - 1) as u32
    }

    pub fn opened(&self, handle: u32) -> napi::Result<Arc<Opened>> {
        let opened = lock(&self.opened).get(handle as usize).cloned().flatten();
        opened.ok_or_else(|| napi::Error::from_reason("The app has been closed"))
    }

    pub fn remove(&self, handle: u32) -> Option<Arc<Opened>> {
        lock(&self.opened).get_mut(handle as usize)?.take()
    }

    /// Creates an operation on an open app with `make`, and starts it with [`start`](Self::start).
    pub fn run<F: Future<Output = Outcome> + Send + 'static>(
        &self,
        env: &Env,
        handle: u32,
        inline: bool,
        make: impl FnOnce(Arc<Opened>) -> F,
    ) -> napi::Result<Started> {
        let opened = self.opened(handle)?;
        self.start(env, &opened, make(Arc::clone(&opened)).boxed(), inline)
    }

    /// Starts an operation. If `inline` is true, it is polled once on this thread. If it is not
    /// done then, it continues on the runtime's threads.
    pub fn start(
        &self,
        env: &Env,
        opened: &Opened,
        mut operation: BoxFuture<'static, Outcome>,
        inline: bool,
    ) -> napi::Result<Started> {
        let runtime = runtime()?;
        if inline {
            let _entered = runtime.enter();
            let poll = || operation.poll_unpin(&mut Context::from_waker(Waker::noop()));
            let polled = std::panic::catch_unwind(AssertUnwindSafe(poll));
            opened.note_events();
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(answer)) => {
                    return Ok(match answer {
                        Ok(Some(bytes)) => Either4::B(Bytes(bytes)),
                        Ok(None) => Either4::D(()),
                        Err(error) => Either4::C(error.into()),
                    });
                }
                Err(_) => return Ok(Either4::C(unexpected().into())),
            }
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if self.outbox.pending.fetch_add(1, Ordering::AcqRel) == 0 {
            self.outbox.keep_alive(env, true);
        }
        let outbox = Arc::clone(&self.outbox);
        runtime.spawn(async move {
            let answer = AssertUnwindSafe(operation).catch_unwind().await.unwrap_or_else(|_| Err(unexpected()));
            outbox.push(|waiting| waiting.answers.push((id, answer)));
        });
        Ok(Either4::A(id))
    }
}

fn unexpected() -> Error {
    Error::custom("the operation failed in an unexpected way")
}
