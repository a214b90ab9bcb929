//! The entries that wait to be written.

use std::{collections::VecDeque, time::Instant};

use bson::{oid::ObjectId, raw::RawDocumentBuf};

/// The maximum number and size of waiting entries. Further ones are dropped and counted.
const MOST_WAITING: usize = 10_000;
const MOST_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// The maximum size of a batch in bytes. A commit of more would hold the store's writer.
const BATCH_BYTES: usize = 512 * 1024;

/// The number of entries about requests without a user that may come at once, and how many more
/// each second. Any client on the network can cause such entries, and must not displace others.
const ANONYMOUS_BURST: f64 = 1000.0;
const ANONYMOUS_PER_SECOND: f64 = 10.0;

/// The queue of a log.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<(ObjectId, RawDocumentBuf)>,
    bytes: usize,
    /// The number of entries that were dropped since the start.
    pub(super) dropped: u64,
    /// The number of them that [`take_batch`](Self::take_batch) has reported.
    reported: u64,
    /// True if a task writes the entries.
    pub(super) is_writing: bool,
    /// The number of entries without a user that may still come, at a time.
    anonymous: (f64, Instant),
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            reported: 0,
            is_writing: false,
            anonymous: (ANONYMOUS_BURST, Instant::now()),
        }
    }
}

impl Queue {
    /// Adds an entry, or drops it beyond the bounds. Returns true if a task must be started that
    /// writes it.
    pub(super) fn push(&mut self, id: ObjectId, entry: RawDocumentBuf, is_anonymous: bool) -> bool {
        let bytes = entry.as_bytes().len();
        let has_room = self.entries.len() < MOST_WAITING && self.bytes + bytes <= MOST_WAITING_BYTES;
        if !has_room || (is_anonymous && !self.allows_anonymous()) {
            self.dropped += 1;
            return false;
        }
        self.bytes += bytes;
        self.entries.push_back((id, entry));
        self.must_start()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns true if entries wait and no task writes them, which must be started then.
    pub(super) fn must_start(&mut self) -> bool {
        !self.entries.is_empty() && !std::mem::replace(&mut self.is_writing, true)
    }

    fn allows_anonymous(&mut self) -> bool {
        let (left, at) = self.anonymous;
        let now = Instant::now();
        let left = ANONYMOUS_BURST.min(left + (now - at).as_secs_f64() * ANONYMOUS_PER_SECOND);
        let is_allowed = left >= 1.0;
        self.anonymous = (if is_allowed { left - 1.0 } else { left }, now);
        is_allowed
    }

    /// Takes the entries of the next commit, and the number of entries that were dropped since the
    /// last call.
    pub(super) fn take_batch(&mut self) -> (Vec<(ObjectId, RawDocumentBuf)>, u64) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((_, entry)) = self.entries.front() {
            bytes += entry.as_bytes().len();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            self.bytes -= entry.as_bytes().len();
            batch.extend(self.entries.pop_front());
        }
        let dropped = self.dropped - std::mem::replace(&mut self.reported, self.dropped);
        (batch, dropped)
    }

    /// Notes that the task ends if no entry waits. Returns true if so.
    pub(super) fn stop_if_empty(&mut self) -> bool {
        if self.entries.is_empty() {
            self.is_writing = false;
        }
        self.entries.is_empty()
    }
}
