//! The size limit of the log.
//!
//! A process knows the sizes of the entries that it wrote, in segments from the oldest to the
//! newest. It reads the sizes of all entries before its first deletion, and again after it has
//! written a part of the limit, because other processes write to the same log and delete from it.

use std::collections::VecDeque;

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawBsonRef, RawDocument},
    rawdoc,
};
use query::{Filter, Projection, Sort};
use store::Find;

use super::{Shared, entry::SIZE};
use crate::Result;

/// The size of a segment, as a part of the limit.
const SEGMENTS: u64 = 64;

/// The part of the limit after which the sizes are read again.
const READ_AGAIN: u64 = 4;

/// The number of sizes that are read at once.
const PAGE: usize = 1000;

/// The stored entries in segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// The `_id` of the newest entry of each segment, and its bytes. The oldest segment is first.
    segments: VecDeque<(ObjectId, u64)>,
    bytes: u64,
    /// The bytes that were written since the sizes were read; `None` before the first time.
    since_read: Option<u64>,
    limit: u64,
}

impl Segments {
    /// Adds the bytes of entries up to `last`, the newest.
    pub(super) fn add(&mut self, last: ObjectId, bytes: u64) {
        self.bytes += bytes;
        self.since_read = self.since_read.map(|before| before + bytes);
        let most = self.limit / SEGMENTS;
        match self.segments.back_mut() {
            Some((id, segment)) if *segment + bytes <= most => {
                (*id, *segment) = (last, *segment + bytes);
            }
            _ => self.segments.push_back((last, bytes)),
        }
    }

    fn must_read(&self) -> bool {
        self.since_read.is_none_or(|bytes| bytes > self.limit / READ_AGAIN)
    }

    /// Removes the oldest segments beyond the limit. Returns the `_id` of the newest entry to
    /// delete.
    fn remove_beyond_limit(&mut self) -> Option<ObjectId> {
        let mut last = None;
        while self.bytes > self.limit {
            let Some((id, bytes)) = self.segments.pop_front() else { break };
            self.bytes -= bytes;
            last = Some(id);
        }
        last
    }
}

impl Shared {
    /// Deletes the oldest entries while all of them together exceed the limit.
    pub(super) async fn trim(&self, segments: &mut Segments) -> Result<()> {
        segments.limit = self.retention.bytes;
        if segments.must_read() {
            *segments = self.read_segments().await?;
        }
        if let Some(last) = segments.remove_beyond_limit() {
            let old = Filter::parse(&rawdoc! { "_id": { "$lte": last } })?;
            self.collection.write(self.collection.deletion_of_all(old)).await?;
        }
        Ok(())
    }

    /// Reads the sizes of all entries.
    async fn read_segments(&self) -> Result<Segments> {
        let mut segments = Segments { limit: self.retention.bytes, since_read: Some(0), ..Segments::default() };
        let mut after = None;
        loop {
            let page = self.collection.store().find(self.sizes(after)?).await?;
            let is_last = page.len() < PAGE;
            for entry in &page {
                let Some((id, bytes)) = id_and_size(entry) else { continue };
                segments.add(id, bytes);
                after = Some(id);
            }
            if is_last {
                segments.since_read = Some(0);
                return Ok(segments);
            }
        }
    }

    /// Returns the query for the sizes of the entries after an `_id`.
    pub(super) fn sizes(&self, after: Option<ObjectId>) -> Result<Find> {
        let after = after.unwrap_or(ObjectId::from_bytes([0; 12]));
        let filter = Filter::parse(&rawdoc! { "_id": { "$gt": RawBson::ObjectId(after) } })?;
        Ok(Find {
            sort: Some(Sort::parse(&rawdoc! { "_id": 1 })?),
            projection: Some(Projection::parse(&rawdoc! { "size": 1 })?),
            limit: Some(PAGE),
            ..self.collection.query(filter)
        })
    }
}

fn id_and_size(entry: &RawDocument) -> Option<(ObjectId, u64)> {
    let RawBsonRef::ObjectId(id) = entry.get("_id").ok()?? else { return None };
    let bytes = entry.get(SIZE).ok().flatten().and_then(query::integer).unwrap_or_default();
    Some((id, u64::try_from(bytes).unwrap_or_default()))
}
