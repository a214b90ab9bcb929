use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The progress of a long-running operation. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Stage>);

#[derive(Debug, Default)]
struct Stage {
    stage: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Starts a stage of the operation, with an estimate of its number of steps (0 if unknown).
    pub fn begin(&self, stage: impl Into<String>, total: u64) {
        *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage.into();
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Sets the number of completed steps of the current stage.
    pub fn reach(&self, done: u64) {
        self.0.done.store(done, Ordering::Relaxed);
    }

    /// Returns the current stage, its completed steps and its total steps.
    pub fn read(&self) -> (String, u64, u64) {
        let stage = self.0.stage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (stage, self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }
}
