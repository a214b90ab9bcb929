//! The state of one JavaScript environment (the main thread or a worker): its open apps and its
//! pending operations.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use client::{EXIT_TIMEOUT, Error};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use napi::{
    Env,
    bindgen_prelude::{External, Function},
};
use napi_derive::napi;
use tokio::{
    runtime::{Handle, Runtime},
    sync::watch,
};

use crate::{
    functions, log,
    opened::Opened,
    outbox::{Delivery, Outbox, Outcome, Started, lock},
};

pub(crate) struct Bridge {
    outbox: Arc<Outbox>,
    next_id: AtomicU32,
    next_handle: AtomicU32,
    /// The open apps by handle. A handle is not reused: JavaScript may hold that of a closed app.
    opened: Mutex<HashMap<u32, Arc<Opened>>>,
    /// Becomes true when the environment has ended.
    ended: watch::Sender<bool>,
}

impl Bridge {
    /// Writes the results of refreshes to the session files of all open apps, within
    /// [`EXIT_TIMEOUT`] in total if other processes hold the files.
    ///
    /// Also writes the log entries that still wait.
    fn write_snapshots(&self) {
        let deadline = Instant::now() + EXIT_TIMEOUT;
        self.flush_logs();
        for app in lock(&self.opened).values().filter_map(|opened| opened.app.as_ref()) {
            app.write_snapshots(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Bridge {
    /// Writes the log entries of the backends in this process that still wait, within
    /// [`EXIT_TIMEOUT`] in total.
    fn flush_logs(&self) {
        let opened: Vec<_> = lock(&self.opened).values().cloned().collect();
        let backends: Vec<_> = opened.iter().filter_map(|opened| Some(opened.embedded().ok()?.backend())).collect();
        if backends.is_empty() {
            return;
        }
        if let Ok(runtime) = runtime() {
            let flushed = async {
                for backend in &backends {
                    backend.flush_log().await;
                }
            };
            let _ = runtime.block_on(async { tokio::time::timeout(EXIT_TIMEOUT, flushed).await });
        }
    }
}

impl Drop for Bridge {
    /// Ends the environment's servers, streams and operations, which would otherwise keep their
    /// stores open. Runs when the environment ends, also if a worker is terminated, but not on
    /// `process.exit()`. JavaScript code cannot run any more at this point.
    fn drop(&mut self) {
        self.write_snapshots();
        functions::detach(&self.outbox);
        for opened in lock(&self.opened).drain().map(|(_, opened)| opened) {
            opened.stop_watching();
            // The rest is dropped on this thread: stores are closed when the environment ends.
            if let (Some(server), Ok(runtime)) = (opened.server().cloned(), runtime()) {
                runtime.spawn(async move { server.close().await });
            }
        }
        self.ended.send_replace(true);
    }
}

fn runtime() -> napi::Result<&'static Handle> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("userkeep").enable_all().build().ok()
    });
    runtime.as_ref().map(Runtime::handle).ok_or_else(|| napi::Error::from_reason("Userkeep cannot start its threads"))
}

/// Creates the bridge of an environment, which calls `deliver` with results.
#[napi]
pub(crate) fn create_bridge(env: &Env, deliver: Function<Delivery, ()>) -> napi::Result<External<Bridge>> {
    let outbox = Arc::new(Outbox::default());
    outbox.set_receiver(env, &deliver, Arc::downgrade(&outbox))?;
    log::add(&outbox);
    let (next_id, next_handle) = (AtomicU32::new(1), AtomicU32::new(1));
    let (opened, ended) = (Mutex::default(), watch::Sender::new(false));
    Ok(External::new(Bridge { outbox, next_id, next_handle, opened, ended }))
}

/// Writes the results of refreshes to the session files, and releases the environment's function,
/// because Node counts it as an open handle. Called when no app is open and no operation is
/// pending, or when the process is about to exit. Nothing is delivered or logged afterwards.
#[napi]
pub(crate) fn release_bridge(bridge: &External<Bridge>) {
    bridge.write_snapshots();
    bridge.outbox.release();
}

impl Bridge {
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(crate) fn add(&self, opened: Opened) -> u32 {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        lock(&self.opened).insert(handle, Arc::new(opened));
        handle
    }

    pub(crate) fn opened(&self, handle: u32) -> napi::Result<Arc<Opened>> {
        let opened = lock(&self.opened).get(&handle).cloned();
        opened.ok_or_else(|| napi::Error::from_reason("The app has been closed"))
    }

    pub(crate) fn remove(&self, handle: u32) -> Option<Arc<Opened>> {
        lock(&self.opened).remove(&handle)
    }

    /// Creates an operation on an open app with `make`, and starts it with [`start`](Self::start).
    pub(crate) fn run<F: Future<Output = Outcome> + Send + 'static>(
        &self,
        env: &Env,
        handle: u32,
        inline: bool,
        make: impl FnOnce(Arc<Opened>) -> F,
    ) -> napi::Result<Started> {
        let opened = self.opened(handle)?;
        self.start(env, Some(&opened), make(Arc::clone(&opened)).boxed(), inline)
    }

    /// Starts an operation. If `inline` is true, polls it once on this thread. An operation that
    /// is not complete then continues on the runtime's threads until the environment ends.
    pub(crate) fn start(
        &self,
        env: &Env,
        opened: Option<&Opened>,
        mut operation: BoxFuture<'static, Outcome>,
        inline: bool,
    ) -> napi::Result<Started> {
        let runtime = runtime()?;
        if inline {
            let _entered = runtime.enter();
            let poll = || operation.poll_unpin(&mut Context::from_waker(Waker::noop()));
            let polled = std::panic::catch_unwind(AssertUnwindSafe(poll));
            opened.inspect(|opened| opened.note_events());
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(outcome)) => return Ok(outcome.into()),
                Err(_) => return Ok(Err(unexpected()).into()),
            }
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.outbox.begin(env);
        let (outbox, mut ended) = (Arc::clone(&self.outbox), self.ended.subscribe());
        runtime.spawn(async move {
            let ending = std::pin::pin!(ended.wait_for(|ended| *ended));
            let outcome = AssertUnwindSafe(operation).catch_unwind();
            if let Either::Left((outcome, _)) = select(outcome, ending).await {
                outbox.finish(id, outcome.unwrap_or_else(|_| Err(unexpected())));
            }
        });
        Ok(Started::Pending(id))
    }
}

fn unexpected() -> Error {
    Error::custom("the operation failed in an unexpected way")
}
