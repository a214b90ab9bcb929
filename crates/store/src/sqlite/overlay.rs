//! The writes of a transaction before its commit: the documents that it has written, each with the
//! version of the transaction's snapshot.
//!
//! The written documents have index entries of their own, so a read finds them by the same plan as
//! the stored ones.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};
use query::{IndexKeys, KeyRange, encode_key, get};
use rusqlite::{Connection, OptionalExtension};

use super::{
    catalog::Collection,
    documents,
    plan::{AccessPath, Source},
    write,
};
use crate::{ChangeKind, Namespace, Result, TransactionLimits, guarded::Planned, transaction};

/// The row id of the first document that a transaction inserts: beyond all stored ones.
const FIRST_PLACE: i64 = 1 << 62;

/// The limit of the memory of all versions and index entries, as a multiple of the limit of the
/// writes themselves.
const HELD_FACTOR: usize = 4;

/// Bytes that a written document takes besides its versions.
const DOCUMENT_BYTES: usize = 64;

/// The keys of written documents in one index, with their row ids.
type Entries = BTreeSet<(Vec<u8>, i64)>;

/// The writes of a transaction.
pub(super) struct Overlay {
    limits: TransactionLimits,
    collections: HashMap<Namespace, Written>,
    /// The number of documents written so far, which orders their changes.
    count: u64,
    size: Size,
}

/// The size of writes, in bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    /// The new versions, and the `_id`s of deleted documents.
    written: usize,
    /// Everything that is kept in memory.
    held: usize,
}

/// The writes of a transaction to one collection.
pub(super) struct Written {
    /// The collection of the snapshot. Its indexes are multikey if a written document makes them
    /// so.
    collection: Collection,
    documents: BTreeMap<i64, WrittenDocument>,
    /// The `_id`s of the current versions.
    ids: Entries,
    /// The keys of the current versions in each index of the collection.
    entries: Vec<Entries>,
}

/// A document that a transaction has written.
#[derive(Debug)]
pub(super) struct WrittenDocument {
    /// Orders the changes of a transaction.
    pub(super) order: u64,
    pub(super) kind: ChangeKind,
    /// The version of the snapshot; `None` if the transaction has inserted the document.
    pub(super) before: Option<RawDocumentBuf>,
    /// The current version; `None` if the transaction has deleted the document.
    pub(super) after: Option<RawDocumentBuf>,
}

impl Overlay {
    /// Returns an overlay without writes.
    pub(super) fn new(limits: TransactionLimits) -> Self {
        Self { limits, collections: HashMap::new(), count: 0, size: Size::default() }
    }

    /// Returns the writes to a collection.
    pub(super) fn written(&self, namespace: &Namespace) -> Option<&Written> {
        self.collections.get(namespace)
    }

    /// Returns the size of the writes in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.size.held
    }

    /// Returns the written collections with their changes.
    pub(super) fn into_changes(self) -> impl Iterator<Item = (Collection, Vec<(i64, WrittenDocument)>)> {
        let all = self.collections.into_values();
        all.map(|written| (written.collection, written.documents.into_iter().collect()))
    }

    /// Inserts a prepared document, and returns its `_id`.
    ///
    /// # Errors
    /// `DuplicateKey` if the `_id` or a key of a unique index exists, `TransactionTooLarge` (257)
    /// beyond the limit of bytes, or the error of an index that cannot hold the document.
    pub(super) fn insert(
        &mut self,
        connection: &Connection,
        collection: &Collection,
        document: RawDocumentBuf,
    ) -> Result<RawBson> {
        let written = writes_to(&mut self.collections, collection);
        let keys = written.keys_of(&document)?;
        written.check_unique(connection, None, &[], &keys, &document)?;
        let id = get(&document, "_id").map_or(RawBson::Null, RawBson::from);
        if written.has_id(connection, &encode_key(id.as_raw_bson_ref()))? {
            return Err(write::duplicate_id(&written.collection, id.as_raw_bson_ref()));
        }
        let place = FIRST_PLACE.saturating_add_unsigned(self.count);
        let size = Size::of(None, Some(&document), &keys);
        written.add(place, &document, keys);
        let (kind, order) = (ChangeKind::Insert, self.count);
        written.documents.insert(place, WrittenDocument { order, kind, before: None, after: Some(document) });
        self.count += 1;
        self.grow(size)?;
        Ok(id)
    }

    /// Applies the planned change of a document, whose current version is `before`.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn change(
        &mut self,
        connection: &Connection,
        collection: &Collection,
        place: i64,
        before: RawDocumentBuf,
        planned: Planned,
        kind: ChangeKind,
    ) -> Result<()> {
        let after = match planned {
            Planned::Unchanged(_) => return Ok(()),
            Planned::Delete => None,
            Planned::Become(after) => Some(after),
        };
        let written = writes_to(&mut self.collections, collection);
        let (old, new) = (written.keys_of(&before)?, after.as_ref().map(|after| written.keys_of(after)).transpose()?);
        if let (Some(after), Some(new)) = (&after, &new) {
            written.check_unique(connection, Some(place), &old, new, after)?;
        }
        let earlier = written.documents.remove(&place);
        if let Some(earlier) = &earlier {
            written.remove(place, &before, &old);
            self.size.shrink(Size::of(earlier.before.as_ref(), earlier.after.as_ref(), &old));
        }
        let (order, first) = match earlier {
            Some(earlier) => (earlier.order, earlier.before.map(|first| (first, earlier.kind))),
            None => {
                self.count += 1;
                (self.count - 1, Some((before, kind)))
            }
        };
        let size = Size::of(first.as_ref().map(|(before, _)| before), after.as_ref(), new.as_deref().unwrap_or(&[]));
        if let (Some(after), Some(new)) = (&after, new) {
            written.add(place, after, new);
        }
        let kind = match (&first, &after) {
            (None, _) => ChangeKind::Insert,
            (Some(_), None) => ChangeKind::Delete,
            (Some((_, ChangeKind::Replace)), Some(_)) => ChangeKind::Replace,
            (Some(_), Some(_)) => kind,
        };
        let before = first.map(|(before, _)| before);
        // A document that the transaction has inserted and deleted leaves nothing to commit.
        if before.is_some() || after.is_some() {
            written.documents.insert(place, WrittenDocument { order, kind, before, after });
            self.grow(size)?;
        }
        Ok(())
    }

    fn grow(&mut self, size: Size) -> Result<()> {
        self.size.written += size.written;
        self.size.held += size.held;
        let most = self.limits.bytes;
        if self.size.written > most || self.size.held > most.saturating_mul(HELD_FACTOR) {
            return Err(transaction::too_large(most));
        }
        Ok(())
    }
}

/// Returns the writes to a collection, without any before the first one.
fn writes_to<'o>(collections: &'o mut HashMap<Namespace, Written>, collection: &Collection) -> &'o mut Written {
    collections.entry(collection.namespace.clone()).or_insert_with(|| Written {
        entries: vec![Entries::new(); collection.indexes.len()],
        collection: collection.clone(),
        documents: BTreeMap::new(),
        ids: Entries::new(),
    })
}

impl Size {
    fn of(before: Option<&RawDocumentBuf>, after: Option<&RawDocumentBuf>, keys: &[IndexKeys]) -> Self {
        let bytes = |document: Option<&RawDocumentBuf>| document.map_or(0, |document| document.as_bytes().len());
        let keys = keys.iter().flat_map(|keys| &keys.keys);
        let keys: usize = keys.map(|key| key.bytes.len() + size_of::<(Vec<u8>, i64)>()).sum();
        let written = bytes(after) + DOCUMENT_BYTES;
        Self { written, held: written + bytes(before) + keys }
    }

    fn shrink(&mut self, other: Self) {
        self.written = self.written.saturating_sub(other.written);
        self.held = self.held.saturating_sub(other.held);
    }
}

impl Written {
    /// Returns the collection as the transaction sees it.
    pub(super) fn collection(&self) -> &Collection {
        &self.collection
    }

    /// True if there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// True if the transaction has written the document at a row id, so that its stored version
    /// does not count.
    pub(super) fn covers(&self, place: i64) -> bool {
        self.documents.contains_key(&place)
    }

    /// Returns the current version of the document at a row id; `None` if it is deleted.
    pub(super) fn document(&self, place: i64) -> Option<&RawDocument> {
        self.documents.get(&place)?.after.as_deref()
    }

    /// Visits the document at a row id, unless it is deleted.
    pub(super) fn visit(
        &self,
        place: i64,
        visit: &mut dyn FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let Some(document) = self.document(place) else { return Ok(ControlFlow::Continue(())) };
        documents::charge(document)?;
        visit(place, document)
    }

    /// Returns the row ids of the written documents that a plan finds, in the order of insertion.
    pub(super) fn places(&self, access: &AccessPath<'_>) -> Vec<i64> {
        let mut places: Vec<i64> = match access {
            AccessPath::Scan => return self.places_after(i64::MIN).collect(),
            AccessPath::Point(source, key) => {
                let range = (key.clone(), i64::MIN)..=(key.clone(), i64::MAX);
                self.entries_of(*source)
                    .into_iter()
                    .flat_map(|all| all.range(range.clone()))
                    .map(|(_, at)| *at)
                    .collect()
            }
            AccessPath::Ranges(ranges) => documents::each(ranges)
                .flat_map(|(source, range)| self.ordered(*source, Some(range), false))
                .map(|(_, place)| place)
                .collect(),
            AccessPath::Ordered { source, range, .. } => {
                self.ordered(*source, range.as_ref(), false).map(|(_, place)| place).collect()
            }
        };
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Returns the row ids after one, in the order of insertion.
    pub(super) fn places_after(&self, after: i64) -> impl Iterator<Item = i64> {
        let later = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.documents.range(later).map(|(place, _)| *place)
    }

    /// Iterates over the keys of an index in a range, or over all, with their row ids in the order
    /// in which a plan reads them.
    pub(super) fn ordered(
        &self,
        source: Source<'_>,
        range: Option<&KeyRange>,
        backwards: bool,
    ) -> Box<dyn Iterator<Item = (&[u8], i64)> + '_> {
        let Some(entries) = self.entries_of(source) else { return Box::new(std::iter::empty()) };
        let all = match range {
            // An empty range would make the search panic.
            Some((from, to)) if from >= to => return Box::new(std::iter::empty()),
            Some((from, to)) => entries.range((from.clone(), i64::MIN)..(to.clone(), i64::MIN)),
            None => entries.range::<(Vec<u8>, i64), _>(..),
        };
        let all = all.map(|(key, place)| (key.as_slice(), *place));
        if backwards { Box::new(by_key_backwards(all)) } else { Box::new(all) }
    }

    fn entries_of(&self, source: Source<'_>) -> Option<&Entries> {
        match source {
            Source::Id => Some(&self.ids),
            Source::Index(held) => {
                let number = self.collection.indexes.iter().position(|other| other.id == held.id)?;
                self.entries.get(number)
            }
        }
    }

    fn keys_of(&self, document: &RawDocument) -> Result<Vec<IndexKeys>> {
        let keys = self.collection.indexes.iter().map(|held| held.index.keys_of(document));
        keys.collect()
    }

    /// Adds the entries of a document.
    fn add(&mut self, place: i64, document: &RawDocument, keys: Vec<IndexKeys>) {
        self.ids.insert((id_key(document), place));
        for ((held, entries), keys) in self.collection.indexes.iter_mut().zip(&mut self.entries).zip(keys) {
            held.is_multikey |= keys.is_multikey;
            entries.extend(keys.keys.into_iter().map(|key| (key.bytes, place)));
        }
    }

    /// Removes the entries of a document.
    fn remove(&mut self, place: i64, document: &RawDocument, keys: &[IndexKeys]) {
        self.ids.remove(&(id_key(document), place));
        for (entries, keys) in self.entries.iter_mut().zip(keys) {
            for key in &keys.keys {
                entries.remove(&(key.bytes.clone(), place));
            }
        }
    }

    /// True if a document has an `_id`, given by its key.
    fn has_id(&self, connection: &Connection, key: &[u8]) -> Result<bool> {
        if self.ids.range((key.to_vec(), i64::MIN)..=(key.to_vec(), i64::MAX)).next().is_some() {
            return Ok(true);
        }
        if !self.collection.exists() {
            return Ok(false);
        }
        let sql = format!("SELECT seq FROM documents_{} WHERE id = ?1", self.collection.id);
        let place: Option<i64> = connection.prepare_cached(&sql)?.query_row([key], |row| row.get(0)).optional()?;
        Ok(place.is_some_and(|place| !self.covers(place)))
    }

    /// Checks that no other document has a key of `document` in a unique index. `old` has the keys
    /// of its current version, which are its own.
    fn check_unique(
        &self,
        connection: &Connection,
        place: Option<i64>,
        old: &[IndexKeys],
        new: &[IndexKeys],
        document: &RawDocument,
    ) -> Result<()> {
        for (number, held) in self.collection.indexes.iter().enumerate().filter(|(_, held)| held.index.unique) {
            let added = |key: &&query::IndexKey| {
                old.get(number).is_none_or(|old| old.keys.binary_search_by(|own| own.bytes.cmp(&key.bytes)).is_err())
            };
            let sql = format!("SELECT seq FROM entries_{} WHERE key = ?1", held.id);
            let mut statement = connection.prepare_cached(&sql)?;
            for key in new.get(number).into_iter().flat_map(|keys| &keys.keys).filter(added) {
                let of_key = (key.bytes.clone(), i64::MIN)..=(key.bytes.clone(), i64::MAX);
                let mut is_taken = self.entries.get(number).is_some_and(|all| all.range(of_key).next().is_some());
                let mut rows = statement.query([&key.bytes])?;
                while let (false, Some(row)) = (is_taken, rows.next()?) {
                    let other: i64 = row.get(0)?;
                    is_taken = !self.covers(other) && Some(other) != place;
                }
                if is_taken {
                    return Err(write::duplicate_key(&self.collection, held, document));
                }
            }
        }
        Ok(())
    }
}

/// Reverses the order of the keys. The row ids of one key stay in their order.
fn by_key_backwards<'e>(
    entries: impl DoubleEndedIterator<Item = (&'e [u8], i64)>,
) -> impl Iterator<Item = (&'e [u8], i64)> {
    let (mut entries, mut of_key) = (entries.rev().peekable(), Vec::new());
    std::iter::from_fn(move || {
        if of_key.is_empty() {
            let first = entries.next()?;
            of_key.push(first);
            while let Some(other) = entries.next_if(|other| other.0 == first.0) {
                of_key.push(other);
            }
        }
        of_key.pop()
    })
}

fn id_key(document: &RawDocument) -> Vec<u8> {
    encode_key(get(document, "_id").unwrap_or(bson::raw::RawBsonRef::Null))
}
