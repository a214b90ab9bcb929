//! Limits of one operation of a user.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use query::{Budget, Limits, MemoryPool};
use store::WriteLimits;

/// The maximum number of steps of one operation, far beyond what its time allows: a bound that
/// does not depend on the machine.
const STEPS: u64 = 1 << 34;

/// Memory in bytes that the operations of all users may hold between two stages, in addition to
/// the 4 MB that each may always hold.
static MEMORY: MemoryPool = MemoryPool::new(1024 * 1024 * 1024);

/// The limits of one operation of a user. Calls as the system user have none.
///
/// ```
/// use backend::OperationLimits;
///
/// let limits = OperationLimits { documents: 100, ..OperationLimits::default() };
/// assert_eq!(limits.time.as_secs(), 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationLimits {
    /// Maximum duration (`maxTimeMS`); a longer operation fails with MongoDB's code 50.
    pub time: Duration,
    /// Maximum number of documents in an answer (`maxDocuments`); more of them fail with
    /// `ReadSizeLimitExceeded`
    /// (<https://www.mongodb.com/docs/atlas/app-services/reference/service-limitations/>).
    pub documents: usize,
    /// Maximum size of an answer in bytes of BSON (`maxAnswerBytes`); a larger one fails with
    /// `ReadSizeLimitExceeded`.
    pub answer_bytes: usize,
    /// Maximum number of documents that a write may change (`maxWriteDocuments`); a write to more
    /// of them fails with `ReadSizeLimitExceeded` and changes nothing.
    pub write_documents: usize,
    /// Maximum size in bytes of the documents that a write may change; a larger write fails with
    /// `ReadSizeLimitExceeded` and changes nothing.
    pub write_bytes: usize,
    /// Maximum memory in bytes that an operation may hold between two stages; beyond it, the
    /// operation fails with MongoDB's code 292.
    pub memory: usize,
}

impl Default for OperationLimits {
    /// 10 s; 50 000 documents or 32 MB in an answer; 10 000 documents or 32 MB in a write; 100 MB
    /// between two stages.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            documents: 50_000,
            answer_bytes: 32 * 1024 * 1024,
            write_documents: 10_000,
            write_bytes: 32 * 1024 * 1024,
            memory: 100 * 1024 * 1024,
        }
    }
}

impl OperationLimits {
    /// Returns the budget of one operation of a user. It ends at `until`, or after
    /// [`time`](Self::time) from now.
    pub(crate) fn budget(&self, user: &Arc<str>, until: Option<Instant>) -> Budget {
        let time = until.map_or(self.time, |until| until.saturating_duration_since(Instant::now()));
        let limits = Limits { time: Some(time), steps: Some(STEPS), bytes: Some(self.memory) };
        Budget::owned(limits, Arc::clone(user), &MEMORY)
    }

    /// Returns the limits of one write.
    pub(crate) fn of_write(&self) -> WriteLimits {
        WriteLimits { documents: self.write_documents, bytes: self.write_bytes }
    }
}
