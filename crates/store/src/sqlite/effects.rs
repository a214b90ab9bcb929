//! The effects of a change in addition to the document itself: its index entries, and the
//! description in the change event.
//!
//! Effects are computed from the documents alone, so that a large write can compute them before
//! the writer's turn.

use bson::raw::{RawDocument, RawDocumentBuf};
use query::IndexKeys;
use rusqlite::Connection;

use super::catalog::{Catalog, Collection, HeldIndex};
use crate::{ChangeKind, Result};

/// The number of steps charged for an index entry.
pub(super) const ENTRY_STEPS: u64 = 16;

/// The effects of the change of one document.
#[derive(Debug, Clone)]
pub(super) struct Effects {
    /// The entries of each index of the collection, in the order of its indexes.
    pub(super) entries: Vec<Entries>,
    /// The `{ updatedFields, removedFields }` of an update.
    pub(super) description: Option<RawDocumentBuf>,
}

/// The entries of one index that a change removes and adds.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    index: i64,
    removed: Vec<Vec<u8>>,
    added: Vec<Vec<u8>>,
    is_multikey: bool,
}

impl Effects {
    /// Computes the effects of a change from the document before and after it.
    ///
    /// # Errors
    /// If an index cannot hold the document.
    pub(super) fn new(
        collection: &Collection,
        kind: ChangeKind,
        before: Option<&RawDocument>,
        after: Option<&RawDocument>,
    ) -> Result<Self> {
        let entries = collection.indexes.iter().map(|held| Entries::new(held, before, after)).collect::<Result<_>>()?;
        let description = match (kind, before, after) {
            (ChangeKind::Update, Some(before), Some(after)) if collection.is_watched => {
                Some(query::difference(before, after))
            }
            _ => None,
        };
        Ok(Self { entries, description })
    }

    /// True if the effects were computed for the current indexes of a collection.
    pub(super) fn are_of(&self, collection: &Collection) -> bool {
        let ids = collection.indexes.iter().map(|held| held.id);
        self.entries.iter().map(|entries| entries.index).eq(ids)
    }

    /// Returns the number of added entries.
    pub(super) fn added(&self) -> usize {
        self.entries.iter().map(|entries| entries.added.len()).sum()
    }

    /// Returns the number of removed entries.
    pub(super) fn removed(&self) -> usize {
        self.entries.iter().map(|entries| entries.removed.len()).sum()
    }

    /// Returns the size of the effects in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let keys = self.entries.iter().flat_map(|entries| entries.removed.iter().chain(&entries.added));
        let keys: usize = keys.map(|key| key.len() + size_of::<Vec<u8>>()).sum();
        keys + self.description.as_ref().map_or(0, |description| description.as_bytes().len())
    }
}

impl Entries {
    fn new(held: &HeldIndex, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<Self> {
        let keys = |document: Option<&RawDocument>| document.map(|document| held.index.keys_of(document)).transpose();
        let (old, new) = (keys(before)?, keys(after)?);
        let is_multikey = new.as_ref().is_some_and(|keys| keys.is_multikey);
        let (removed, added) = match (old, new) {
            (Some(old), Some(new)) if old == new => (Vec::new(), Vec::new()),
            (Some(old), Some(new)) => {
                // Keys are sorted, without duplicates.
                let has = |keys: &[Vec<u8>], key: &Vec<u8>| keys.binary_search(key).is_ok();
                let bytes = |keys: IndexKeys| keys.keys.into_iter().map(|key| key.bytes).collect::<Vec<_>>();
                let (mut old, mut new) = (bytes(old), bytes(new));
                query::budget::charge((old.len() + new.len()) as u64)?;
                let kept: Vec<Vec<u8>> = old.iter().filter(|key| has(&new, key)).cloned().collect();
                old.retain(|key| !has(&kept, key));
                new.retain(|key| !has(&kept, key));
                (old, new)
            }
            (old, new) => {
                let all = |keys: Option<IndexKeys>| {
                    keys.into_iter().flat_map(|keys| keys.keys).map(|key| key.bytes).collect()
                };
                (all(old), all(new))
            }
        };
        Ok(Self { index: held.id, removed, added, is_multikey })
    }

    /// Returns the added keys.
    pub(super) fn added(&self) -> impl Iterator<Item = &[u8]> {
        self.added.iter().map(Vec::as_slice)
    }

    /// Deletes the removed entries from the index.
    pub(super) fn remove(&self, connection: &Connection, held: &HeldIndex, seq: i64) -> Result<()> {
        let sql = || format!("DELETE FROM entries_{} WHERE key = ?1 AND seq = ?2", held.id);
        execute_each(connection, sql, &self.removed, seq)
    }

    /// Inserts the added entries into the index.
    pub(super) fn add(&self, connection: &Connection, held: &HeldIndex, seq: i64) -> Result<()> {
        if self.is_multikey && !held.is_multikey {
            Catalog::mark_multikey(connection, held)?;
        }
        execute_each(
            connection,
            || format!("INSERT INTO entries_{} (key, seq) VALUES (?1, ?2)", held.id),
            &self.added,
            seq,
        )
    }
}

fn execute_each(connection: &Connection, sql: impl Fn() -> String, keys: &[Vec<u8>], seq: i64) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(&sql())?;
    for key in keys {
        query::budget::charge(ENTRY_STEPS)?;
        statement.execute((key.as_slice(), seq))?;
    }
    Ok(())
}
