//! Threads for what takes too long for an HTTP thread: parsing large bodies, and writing large answers.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::answer::Answer;

/// Runs computations on threads of their own, as many at once as there are cores.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<Semaphore>);

impl Workers {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Runs a computation; what it takes with it is dropped there too.
    ///
    /// # Errors
    /// If it panics.
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
