//! What one operation of a user may cost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use query::{Budget, Limits, MemoryPool};
use store::WriteLimits;

/// Steps of one operation, far beyond what its time allows: a bound that does not depend on the machine.
const STEPS: u64 = 1 << 34;

/// Bytes that the operations of all users of the process may hold between two stages, beside 4 MB of each.
static MEMORY: MemoryPool = MemoryPool::new(1024 * 1024 * 1024);

/// The limits of one operation of a user. The operator and system functions have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperationLimits {
    /// How long an operation may take (`maxTimeMS`); beyond it, it fails with MongoDB's code 50.
    pub time: Duration,
    /// How many documents an answer may have (`maxDocuments`); beyond it, `ReadSizeLimitExceeded`
    /// (<https://www.mongodb.com/docs/atlas/app-services/reference/service-limitations/>).
    pub documents: usize,
    /// How many bytes of BSON an answer may have (`maxAnswerBytes`); beyond it, `ReadSizeLimitExceeded`.
    pub answer_bytes: usize,
    /// How many documents a write may change (`maxWriteDocuments`); beyond it, `ReadSizeLimitExceeded`, and nothing is
    /// written.
    pub write_documents: usize,
    /// How many bytes of documents a write may change; beyond it, `ReadSizeLimitExceeded`, and nothing is written.
    pub write_bytes: usize,
    /// How many bytes an operation may hold between two stages; beyond it, it fails with MongoDB's code 292.
    pub memory: usize,
}

impl Default for OperationLimits {
    /// 10 s; 50 000 documents or 32 MB in an answer; 10 000 documents or 32 MB in a write; 100 MB between two stages.
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
    /// A budget for one operation of a user, whose time ends at `until`, or else begins now.
    pub(crate) fn budget(&self, user: &Arc<str>, until: Option<Instant>) -> Budget {
        let time = until.map_or(self.time, |until| until.saturating_duration_since(Instant::now()));
        let limits = Limits { time: Some(time), steps: Some(STEPS), bytes: Some(self.memory) };
        Budget::owned(limits, Arc::clone(user), &MEMORY)
    }

    /// The limits of one write.
    pub(crate) fn of_write(&self) -> WriteLimits {
        WriteLimits { documents: self.write_documents, bytes: self.write_bytes }
    }
}
