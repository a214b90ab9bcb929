//! Writes, inside the transaction of the writer thread.

use std::{borrow::Cow, ops::ControlFlow, sync::Arc};

use bson::{
    DateTime, RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Environment, Filter, Update, encode_key, get};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::{
    catalog::{Catalog, Collection, HeldIndex},
    changes::Recorder,
    connection::StoreConnection,
    documents::Documents,
    effects::{self, Effects},
    read::{self, text},
};
use crate::{
    Change, ChangeKind, Error, Guard, Index, Modify, Namespace, Operation, Outcome, Result, Write, WriteLimits,
    guarded::{self, ChangedSize, Planned, Targets},
};

/// The number of steps charged for writing a document, in addition to those for its bytes.
const DOCUMENT_STEPS: u64 = 32;

/// The error of a write, and whether its earlier effects stay.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) keep: bool,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), keep: false }
    }
}

/// Applies writes, of which either all succeed or none.
pub(super) fn all(
    session: &mut StoreConnection,
    environment: &dyn Environment,
    writes: &[Write],
) -> Result<Vec<Outcome>, Failure> {
    let alone = writes.len() == 1;
    let mut outcomes = Vec::with_capacity(writes.len());
    for Write { namespace, operation, guard, limits, .. } in writes {
        let guard = guard.as_deref();
        outcomes.push(match operation {
            Operation::Insert(documents) => {
                let documents = guarded::prepared(documents, guard, environment)?;
                insert(session, environment, namespace, &documents, None, alone)?
            }
            Operation::Modify(modify) => change(session, environment, namespace, modify, guard, *limits)?,
        });
    }
    Ok(outcomes)
}

/// Inserts prepared documents in their order, with their effects if those were computed before.
/// With `keep_before_failure`, the documents before a duplicate stay.
pub(super) fn insert(
    session: &mut StoreConnection,
    environment: &dyn Environment,
    namespace: &Namespace,
    documents: &[RawDocumentBuf],
    effects: Option<&[Effects]>,
    keep_before_failure: bool,
) -> Result<Outcome, Failure> {
    let collection = session.catalog.make_collection(&session.connection, namespace)?;
    let place = Place::new(session, &collection, environment);
    let mut outcome = Outcome::default();
    for (index, document) in documents.iter().enumerate() {
        match place.insert(document, effects.and_then(|effects| effects.get(index))) {
            Ok(id) => outcome.inserted_ids.push(id),
            Err(error) => {
                // The earlier documents stay only if this one was rejected before anything of it
                // was written.
                let is_refused = match &error {
                    Error::DuplicateKey { .. } => true,
                    Error::Query(error) => !is_of_budget(error),
                    _ => false,
                };
                return Err(Failure { error, keep: keep_before_failure && is_refused });
            }
        }
    }
    Ok(outcome)
}

/// True for the error of an exhausted budget.
pub(super) fn is_of_budget(error: &query::Error) -> bool {
    matches!(error.code, query::ErrorCode::MaxTimeMsExpired | query::ErrorCode::Interrupted)
}

fn change(
    session: &mut StoreConnection,
    environment: &dyn Environment,
    namespace: &Namespace,
    modify: &Modify,
    guard: Option<&dyn Guard>,
    limits: Option<WriteLimits>,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    if let Some(collection) = session.catalog.collection(namespace) {
        let stored = Documents::stored(&session.connection, &collection);
        let targets = targets(stored, modify, guard, limits)?;
        outcome.matched = targets.len() as u64;
        let place = Place::new(session, &collection, environment);
        let mut size = ChangedSize::new(limits);
        for (seq, before) in targets {
            let planned = guarded::plan(modify, guard, &before, environment)?;
            size.add(&planned)?;
            place.carry_out(seq, &before, &planned, kind_of(modify), None, &mut outcome)?;
            guarded::note_changed(&mut outcome, modify, guard, before, planned.after())?;
        }
    }
    if outcome.matched == 0
        && let Some(document) = guarded::upserted_document(modify, guard, environment)?
    {
        insert(session, environment, namespace, std::slice::from_ref(&document), None, false)?;
        guarded::note_upserted(&mut outcome, modify, guard, document)?;
    }
    Ok(outcome)
}

/// Returns the kind of the event that a change causes.
pub(super) fn kind_of(modify: &Modify) -> ChangeKind {
    match &modify.change {
        Change::Delete => ChangeKind::Delete,
        Change::Update { update: Update::Replacement(_), .. } => ChangeKind::Replace,
        Change::Update { .. } => ChangeKind::Update,
    }
}

/// Returns the documents to change, with their row ids.
pub(super) fn targets(
    documents: Documents<'_>,
    modify: &Modify,
    guard: Option<&dyn Guard>,
    limits: Option<WriteLimits>,
) -> Result<Vec<(i64, RawDocumentBuf)>> {
    let denied = guarded::denied_filter(modify, guard);
    let (reach, of_use) = match &denied {
        Some(denied) => (denied, None),
        None => (&modify.filter, guard),
    };
    let mut targets = Targets::new(modify, guard, limits, denied.as_ref());
    documents.visit(reach, of_use, |seq, document| targets.offer(seq, document))?;
    targets.finish()
}

/// A writer for the documents of one collection, their index entries and the record of changes.
pub(super) struct Place<'s> {
    connection: &'s Connection,
    recorder: &'s Recorder,
    collection: &'s Collection,
    environment: &'s dyn Environment,
}

impl<'s> Place<'s> {
    pub(super) fn new(
        session: &'s StoreConnection,
        collection: &'s Collection,
        environment: &'s dyn Environment,
    ) -> Self {
        Self { connection: &session.connection, recorder: &session.recorder, collection, environment }
    }

    /// Applies the planned change of a document. Computes the effects if they were not computed
    /// before.
    pub(super) fn carry_out(
        &self,
        seq: i64,
        before: &RawDocument,
        planned: &Planned,
        kind: ChangeKind,
        effects: Option<&Effects>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        query::budget::charge(DOCUMENT_STEPS)?;
        match planned {
            Planned::Unchanged(_) => {}
            Planned::Delete => {
                self.delete(seq, before, &*self.effects(effects, kind, Some(before), None)?)?;
                outcome.deleted += 1;
            }
            Planned::Become(after) => {
                self.replace(seq, after, kind, &*self.effects(effects, kind, Some(before), Some(after))?)?;
                outcome.modified += 1;
            }
        }
        Ok(())
    }

    /// Returns the effects of a change: those computed before, if the collection still has the
    /// same indexes.
    ///
    /// # Errors
    /// `WriteConflict` (112) if the indexes have changed.
    pub(super) fn effects<'e>(
        &self,
        known: Option<&'e Effects>,
        kind: ChangeKind,
        before: Option<&RawDocument>,
        after: Option<&RawDocument>,
    ) -> Result<Cow<'e, Effects>> {
        match known {
            Some(effects) if effects.are_of(self.collection) => Ok(Cow::Borrowed(effects)),
            Some(_) => Err(guarded::conflict()),
            None => Effects::new(self.collection, kind, before, after).map(Cow::Owned),
        }
    }

    /// True if a document still exists and is the same, byte for byte.
    pub(super) fn still_is(&self, seq: i64, before: &RawDocument) -> Result<bool> {
        let sql = format!("SELECT body = ?2 FROM documents_{} WHERE seq = ?1", self.collection.id);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let is_same: Option<bool> = statement.query_row((seq, before.as_bytes()), |row| row.get(0)).optional()?;
        Ok(is_same.unwrap_or(false))
    }

    fn replace(&self, seq: i64, after: &RawDocument, kind: ChangeKind, effects: &Effects) -> Result<()> {
        // The added keys may equal removed keys of the same document.
        self.remove_entries(seq, effects)?;
        self.put(seq, after, kind, effects)
    }

    /// Removes the index entries that a change removes.
    pub(super) fn remove_entries(&self, seq: i64, effects: &Effects) -> Result<()> {
        let mut all = self.collection.indexes.iter().zip(&effects.entries);
        all.try_for_each(|(held, entries)| entries.remove(self.connection, held, seq))
    }

    /// Stores the new version of a document whose removed index entries are gone.
    pub(super) fn put(&self, seq: i64, after: &RawDocument, kind: ChangeKind, effects: &Effects) -> Result<()> {
        self.connection
            .prepare_cached(&format!("UPDATE documents_{} SET body = ?1 WHERE seq = ?2", self.collection.id))?
            .execute((after.as_bytes(), seq))?;
        for (held, entries) in self.collection.indexes.iter().zip(&effects.entries) {
            check_unique(self.connection, self.collection, held, entries.added(), after)?;
            entries.add(self.connection, held, seq)?;
        }
        self.record(kind, after, effects)
    }

    fn delete(&self, seq: i64, before: &RawDocument, effects: &Effects) -> Result<()> {
        self.remove(seq, effects)?;
        self.record(ChangeKind::Delete, before, effects)
    }

    /// Removes a document and its index entries, without recording the change.
    pub(super) fn remove(&self, seq: i64, effects: &Effects) -> Result<()> {
        let sql = format!("DELETE FROM documents_{} WHERE seq = ?1", self.collection.id);
        self.connection.prepare_cached(&sql)?.execute([seq])?;
        self.remove_entries(seq, effects)
    }

    pub(super) fn insert(&self, document: &RawDocument, effects: Option<&Effects>) -> Result<RawBson> {
        let Self { connection, collection, .. } = self;
        query::budget::charge(DOCUMENT_STEPS)?;
        query::budget::charge_bytes(document.as_bytes().len())?;
        let id = get(document, "_id").map_or(RawBson::Null, RawBson::from);
        let effects = self.effects(effects, ChangeKind::Insert, None, Some(document))?;
        // Check before anything is written: an ordered insert keeps the documents before a
        // failure.
        for (held, entries) in collection.indexes.iter().zip(&effects.entries) {
            check_unique(connection, collection, held, entries.added(), document)?;
        }
        let inserted = connection
            .prepare_cached(&format!("INSERT INTO documents_{} (id, body) VALUES (?1, ?2)", collection.id))?
            .execute((encode_key(id.as_raw_bson_ref()), document.as_bytes()));
        match inserted {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                return Err(duplicate_id(collection, id.as_raw_bson_ref()));
            }
            other => other?,
        };
        let seq = connection.last_insert_rowid();
        for (held, entries) in collection.indexes.iter().zip(&effects.entries) {
            entries.add(connection, held, seq)?;
        }
        self.record(ChangeKind::Insert, document, &effects)?;
        Ok(id)
    }

    /// Records a change for change streams. `document` is the new version or, for a deletion, the
    /// last one.
    pub(super) fn record(&self, kind: ChangeKind, document: &RawDocument, effects: &Effects) -> Result<()> {
        if !self.collection.is_watched {
            return Ok(());
        }
        let description = effects.description.as_ref().map(|description| description.as_bytes());
        let now = self.environment.now();
        self.recorder.record(self.connection, self.collection, now, kind, document.as_bytes(), description)
    }
}

/// Removes expired documents by the TTL indexes, up to a number and a size in bytes; one larger
/// document is removed alone. Returns the number of documents, and true if there may be more.
pub(super) fn sweep(
    session: &StoreConnection,
    environment: &dyn Environment,
    most: usize,
    most_bytes: usize,
) -> Result<(usize, bool)> {
    let (mut swept, mut bytes) = (0, 0);
    let now = environment.now();
    for collection in session.catalog.collections() {
        let place = Place::new(session, collection, environment);
        for held in &collection.indexes {
            let Some(seconds) = held.index.expire_after else { continue };
            let expired = DateTime::from_millis(now.timestamp_millis().saturating_sub(seconds.saturating_mul(1000)));
            let left = (most - swept, most_bytes - bytes);
            let stored = Documents::stored(&session.connection, collection);
            for (seq, document) in read::expired(stored, held, expired, left)? {
                place.delete(seq, &document, &Effects::new(collection, ChangeKind::Delete, Some(&document), None)?)?;
                swept += 1;
                bytes += document.as_bytes().len();
            }
            if swept >= most || bytes >= most_bytes {
                return Ok((swept, true));
            }
        }
    }
    Ok((swept, false))
}

pub(super) fn add_entry(connection: &Connection, held: &HeldIndex, key: &[u8], seq: i64) -> Result<()> {
    query::budget::charge(effects::ENTRY_STEPS)?;
    connection
        .prepare_cached(&format!("INSERT INTO entries_{} (key, seq) VALUES (?1, ?2)", held.id))?
        .execute((key, seq))?;
    Ok(())
}

/// Checks that a unique index has none of the keys for another document.
fn check_unique<'k>(
    connection: &Connection,
    collection: &Collection,
    held: &HeldIndex,
    keys: impl IntoIterator<Item = &'k [u8]>,
    document: &RawDocument,
) -> Result<()> {
    if !held.index.unique {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(&format!("SELECT 1 FROM entries_{} WHERE key = ?1", held.id))?;
    for key in keys {
        if statement.exists([key])? {
            return Err(duplicate_key(collection, held, document));
        }
    }
    Ok(())
}

/// Returns the error for an `_id` that another document has.
pub(super) fn duplicate_id(collection: &Collection, id: RawBsonRef<'_>) -> Error {
    Error::DuplicateKey {
        namespace: collection.namespace.clone(),
        index: "_id_".into(),
        key: format!("{{ _id: {} }}", text(Some(id))),
    }
}

/// Returns the error for a key of a unique index that another document has.
pub(super) fn duplicate_key(collection: &Collection, held: &HeldIndex, document: &RawDocument) -> Error {
    Error::DuplicateKey {
        namespace: collection.namespace.clone(),
        index: held.index.name.clone(),
        key: key_text(&held.index, document),
    }
}

/// Formats the fields of an index and a document's values, for an error message.
fn key_text(index: &Index, document: &RawDocument) -> String {
    let field = |path: &query::Path| format!("{}: {}", path.as_str(), text(path.value_in(document)));
    let fields: Vec<String> = index.keys.fields().iter().map(|(path, _)| field(path)).collect();
    format!("{{ {} }}", fields.join(", "))
}

/// The maximum number of indexes of a collection
/// (<https://www.mongodb.com/docs/manual/reference/limits/#indexes>).
const MOST_INDEXES: usize = 64;

/// Creates the missing indexes, and fills them from the documents of the collection.
pub(super) fn ensure_indexes(session: &mut StoreConnection, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
    let connection = &session.connection;
    let mut collection: Arc<Collection> = session.catalog.make_collection(connection, namespace)?;
    for index in indexes {
        if exists(&collection, index)? {
            continue;
        }
        // The index on `_id` counts too.
        if collection.indexes.len() + 1 >= MOST_INDEXES {
            let message = format!("add index fails, too many indexes for {namespace}: it has {MOST_INDEXES}");
            return Err(query::Error { code: query::ErrorCode::CannotCreateIndex, message }.into());
        }
        let (with_index, held) = session.catalog.make_index(connection, &collection, index)?;
        collection = with_index;
        let mut is_multikey = false;
        Documents::stored(connection, &collection).visit(&Filter::all(), None, |seq, document| {
            let keys = index.keys_of(document)?;
            is_multikey |= keys.is_multikey;
            let keys = || keys.keys.iter().map(|key| &*key.bytes);
            check_unique(connection, &collection, &held, keys(), document)?;
            keys().try_for_each(|key| add_entry(connection, &held, key, seq))?;
            Ok(ControlFlow::Continue(()))
        })?;
        if is_multikey {
            Catalog::mark_multikey(connection, &held)?;
            session.catalog.refresh(connection)?;
            collection = session.catalog.make_collection(connection, namespace)?;
        }
    }
    Ok(())
}

fn json(document: &RawDocument) -> String {
    text(Some(bson::raw::RawBsonRef::Document(document)))
}

/// True if a collection has an index already.
fn exists(collection: &Collection, index: &Index) -> Result<bool> {
    let wrong = |code, message: String| Err(query::Error { code, message }.into());
    if index.keys == query::KeyPattern::of(query::Path::new("_id")) {
        // Every collection has the index on `_id`.
        return Ok(true);
    }
    if let [(path, _)] = index.keys.fields()
        && *path == query::Path::new("_id")
    {
        let message = "the index on _id alone is ascending, and every collection has it".to_owned();
        return wrong(query::ErrorCode::BadValue, message);
    }
    if index.name == "_id_" {
        return wrong(query::ErrorCode::BadValue, "the index name '_id_' is for the index on _id alone".into());
    }
    for held in &collection.indexes {
        let same_name = held.index.name == index.name;
        let renamed = Index { name: index.name.clone(), ..held.index.clone() };
        if same_name && held.index == *index {
            return Ok(true);
        }
        if same_name {
            let message = format!(
                "An existing index has the same name as the requested index. When index names are not specified, they are auto generated and can cause conflicts. Please refer to our documentation. Requested index: {}, existing index: {}",
                json(&index.to_document()),
                json(&held.index.to_document())
            );
            return wrong(query::ErrorCode::IndexKeySpecsConflict, message);
        }
        let options = |index: &Index| (index.keys.clone(), index.partial.clone(), index.unique, index.sparse);
        if options(&held.index) == options(index) {
            let message = if renamed == *index {
                format!("Index already exists with a different name: {}", held.index.name)
            } else {
                format!("An equivalent index already exists with a different name and options: {}", held.index.name)
            };
            return wrong(query::ErrorCode::IndexOptionsConflict, message);
        }
    }
    Ok(false)
}

/// Removes an index by its name.
pub(super) fn drop_index(session: &mut StoreConnection, namespace: &Namespace, name: &str) -> Result<()> {
    let not_found = || {
        crate::Error::from(query::Error {
            code: query::ErrorCode::IndexNotFound,
            message: format!("index not found with name [{name}]"),
        })
    };
    if name == "_id_" {
        let code = query::ErrorCode::InvalidOptions;
        return Err(query::Error { code, message: "cannot drop _id index".into() }.into());
    }
    let collection = session.catalog.collection(namespace).ok_or_else(not_found)?;
    let held = collection.indexes.iter().find(|held| held.index.name == name).ok_or_else(not_found)?;
    session.catalog.drop_index(&session.connection, namespace, held)
}
