//! The entries that wait to be written.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bson::{oid::ObjectId, raw::RawDocumentBuf};

use super::clients::{Clients, Note, Source};

/// The maximum number and size of waiting entries. Further ones are dropped and counted.
const MOST_WAITING: usize = 10_000;
const MOST_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// The maximum size of a batch in bytes. A commit of more would hold the store's writer.
const BATCH_BYTES: usize = 512 * 1024;

/// The minimum time between two reports of dropped entries.
const REPORT_EACH: Duration = Duration::from_secs(60);

/// The queue of a log.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<(ObjectId, RawDocumentBuf)>,
    bytes: usize,
    /// The number of entries that were dropped since the start.
    pub(super) dropped: u64,
    /// The number of them that [`take_batch`](Self::take_batch) has reported, and the time of the
    /// last report.
    reported: (u64, Option<Instant>),
    /// True if a task writes the entries.
    pub(super) is_writing: bool,
    /// True if the log takes no more entries.
    pub(super) is_closed: bool,
    clients: Clients,
}

/// The fate of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pushed {
    /// True if the entry waits, and false if it was dropped.
    pub(super) is_kept: bool,
    /// True if a task must be started that writes the entries.
    pub(super) must_start: bool,
}

impl Queue {
    /// Creates the queue of a log of up to `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            reported: (0, None),
            is_writing: false,
            is_closed: false,
            clients: Clients::new(bytes),
        }
    }

    /// Adds an entry, or drops it beyond the bounds and beyond the share of the client who caused
    /// it over a network.
    pub(super) fn push(&mut self, id: ObjectId, entry: RawDocumentBuf, source: Option<&Source>) -> Pushed {
        let bytes = entry.as_bytes().len();
        let has_room = self.entries.len() < MOST_WAITING && self.bytes + bytes <= MOST_WAITING_BYTES;
        let is_allowed = source.is_none_or(|source| self.clients.allow(source, bytes, Instant::now()));
        let is_kept = has_room && is_allowed && !self.is_closed;
        if is_kept {
            self.bytes += bytes;
            self.entries.push_back((id, entry));
        } else {
            self.dropped += 1;
        }
        Pushed { is_kept, must_start: self.must_start() }
    }

    /// True if no entry waits, and none is to be noted as left out.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.clients.must_note()
    }

    /// Returns true if entries wait and no task writes them, which must be started then.
    pub(super) fn must_start(&mut self) -> bool {
        !self.is_empty() && !self.is_closed && !std::mem::replace(&mut self.is_writing, true)
    }

    /// Takes the notes of left-out entries that are due, or all of them.
    pub(super) fn take_notes(&mut self, takes_all: bool) -> Vec<Note> {
        self.clients.take_notes(Instant::now(), takes_all)
    }

    /// Takes the entries of the next commit, and the number of dropped entries to report.
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
        (batch, self.take_report(Instant::now()))
    }

    fn take_report(&mut self, now: Instant) -> u64 {
        let (reported, at) = self.reported;
        if self.dropped == reported || at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EACH) {
            return 0;
        }
        self.reported = (self.dropped, Some(now));
        self.dropped - reported
    }

    /// Notes that the task ends if no entry waits. Returns true if so.
    pub(super) fn stop_if_empty(&mut self) -> bool {
        if self.is_empty() || self.is_closed {
            self.is_writing = false;
        }
        !self.is_writing
    }
}
