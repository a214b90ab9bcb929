use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// How far something is that takes long. Clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Stage>);

#[derive(Debug, Default)]
struct Stage {
    stage: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Begins a part of the work, of about so many steps.
    pub fn begin(&self, stage: impl Into<String>, total: u64) {
        *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage.into();
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Says how many of the steps are done.
    pub fn reach(&self, done: u64) {
        self.0.done.store(done, Ordering::Relaxed);
    }

    /// What is being done, and how many of how many steps of it.
    pub fn read(&self) -> (String, u64, u64) {
        let stage = self.0.stage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (stage, self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }
}
