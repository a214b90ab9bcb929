//! Worker threads for work that would block an HTTP thread too long, such as parsing large bodies
//! and serializing large responses.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::answer::Answer;

/// Runs computations on worker threads, at most one per CPU core at a time.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<Semaphore>);

impl Workers {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Runs a computation on a worker thread, and drops its captured values there.
    ///
    /// # Errors
    /// An internal error if the computation panics.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Answer> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| Answer::unexpected())?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        task.await.map_err(|_| Answer::unexpected())
    }
}
