//! The documents of a collection as one reader sees them: those that are stored and, inside a
//! transaction, the transaction's own writes over them.

use std::{borrow::Cow, ops::ControlFlow};

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Filter, KeyRange};
use rusqlite::{Connection, types::ValueRef};

use super::{
    catalog::Collection,
    overlay::Written,
    plan::{AccessPath, Plan, QueryShape, Source},
};
use crate::{Error, Guard, Result};

/// Limits of a read on the event loop, in documents and in bytes. One larger document is allowed.
/// For a read within them, waking another thread would take longer than the read.
pub(super) const FEW: usize = 128;
pub(super) const FEW_BYTES: usize = 64 * 1024;

/// The number of steps charged for reading a document, in addition to those for its bytes.
const DOCUMENT_STEPS: u64 = 8;

/// The body of a document if it is small enough to be read on the event loop. SQLite copies a
/// large body as a whole before the budget can be charged.
const SMALL_BODY: &str = "CASE WHEN length(document.body) <= 65536 THEN document.body END";

/// A function that visits documents with their row ids.
type Visit<'v> = &'v mut dyn FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>;

/// The documents of a collection.
#[derive(Clone, Copy)]
pub(super) struct Documents<'s> {
    pub(super) connection: &'s Connection,
    pub(super) collection: &'s Collection,
    /// The writes of the reader's transaction.
    written: Option<&'s Written>,
}

impl<'s> Documents<'s> {
    /// Returns the stored documents of a collection.
    pub(super) fn stored(connection: &'s Connection, collection: &'s Collection) -> Self {
        Self { connection, collection, written: None }
    }

    /// Returns the documents of a collection with the writes of a transaction over them.
    pub(super) fn with(connection: &'s Connection, written: &'s Written) -> Self {
        Self { connection, collection: written.collection(), written: Some(written) }
    }

    /// Returns the writes of the transaction if they can change the result of a read.
    fn overlay(&self) -> Option<&'s Written> {
        self.written.filter(|written| !written.is_empty() || !written.collection().exists())
    }

    /// Visits the documents that the filter may match, with their row ids, in the order of
    /// insertion. With a guard, some or all hidden documents are skipped.
    pub(super) fn visit(
        self,
        filter: &Filter,
        guard: Option<&dyn Guard>,
        visit: impl FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let shape = QueryShape { filter, guard, sort: None, limit: None, all_multikey: false };
        self.visit_plan(&Plan::choose(shape, self.collection), usize::MAX, visit).map(|_| ())
    }

    /// Visits the documents that a plan finds, with their row ids (`seq`): in the order of
    /// insertion, unless the plan has another order.
    ///
    /// Returns false if not everything was visited. If the plan has ranges with more than `most`
    /// documents, nothing is visited.
    pub(super) fn visit_plan(
        self,
        plan: &Plan<'_>,
        most: usize,
        mut visit: impl FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
    ) -> Result<bool> {
        let Some(written) = self.overlay() else { return self.visit_stored(plan, most, &mut visit) };
        if let AccessPath::Ordered { source, range, backwards } = &plan.access {
            self.visit_ordered_with(written, *source, range.as_ref(), *backwards, &mut visit)?;
            return Ok(true);
        }
        let own = written.places(&plan.access).into_iter();
        merge(written, own, &mut visit, |visit| self.visit_stored(plan, most, visit))
    }

    /// Visits the documents after a row id in the order of insertion.
    pub(super) fn visit_after(
        self,
        after: i64,
        mut visit: impl FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some(written) = self.overlay() else { return self.visit_stored_after(after, &mut visit) };
        let own = written.places_after(after);
        merge(written, own, &mut visit, |visit| self.visit_stored_after(after, visit).map(|()| true)).map(|_| ())
    }

    fn visit_stored_after(self, after: i64, visit: Visit<'_>) -> Result<()> {
        if !self.collection.exists() {
            return Ok(());
        }
        let sql = format!("SELECT seq, body FROM documents_{} WHERE seq > ?1 ORDER BY seq", self.collection.id);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            if visit(row.get(0)?, document(self.collection, row.get_ref(1)?)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn visit_stored(self, plan: &Plan<'_>, most: usize, visit: Visit<'_>) -> Result<bool> {
        if !self.collection.exists() {
            return Ok(true);
        }
        let table = self.collection.id;
        let body = if most <= FEW { SMALL_BODY } else { "document.body" };
        match &plan.access {
            AccessPath::Scan => {
                let sql = format!("SELECT seq, {body} FROM documents_{table} AS document ORDER BY seq");
                self.visit_rows(&sql, None, visit)
            }
            AccessPath::Point(Source::Id, key) => {
                let sql = format!("SELECT seq, {body} FROM documents_{table} AS document WHERE id = ?1");
                self.visit_rows(&sql, Some(key), visit)
            }
            AccessPath::Point(Source::Index(held), key) => {
                let sql = format!(
                    "SELECT entry.seq, {body} FROM entries_{} AS entry CROSS JOIN documents_{table} AS document ON document.seq = entry.seq
                     WHERE entry.key = ?1 ORDER BY entry.seq",
                    held.id
                );
                self.visit_rows(&sql, Some(key), visit)
            }
            // A few documents are read together with their keys, and sorted here.
            AccessPath::Ranges(ranges) if most <= FEW => self.visit_few_in(ranges, most, visit),
            AccessPath::Ranges(ranges) => {
                let places = places_in(self.connection, ranges, table)?;
                self.visit_places(places.into_iter().map(Ok), visit).map(|()| true)
            }
            AccessPath::Ordered { source, range, backwards } => {
                let sql = ordered_sql("seq", *source, range.as_ref(), *backwards, table);
                let mut statement = self.connection.prepare_cached(&sql)?;
                let rows = statement.query_map(rusqlite::params_from_iter(bound(range.as_ref())), |row| row.get(0))?;
                self.visit_places(rows, visit).map(|()| true)
            }
        }
    }

    /// Visits the rows of a statement. Returns false at a row with [`SMALL_BODY`] whose body is
    /// larger.
    fn visit_rows(self, sql: &str, key: Option<&Vec<u8>>, visit: Visit<'_>) -> Result<bool> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(key))?;
        while let Some(row) = rows.next()? {
            let Some(document) = small_document(self.collection, row.get_ref(1)?)? else { return Ok(false) };
            if visit(row.get(0)?, document)?.is_break() {
                break;
            }
        }
        Ok(true)
    }

    fn visit_few_in(self, ranges: &[(Source<'_>, Vec<KeyRange>)], most: usize, visit: Visit<'_>) -> Result<bool> {
        let table = self.collection.id;
        let mut found: Vec<(i64, RawDocumentBuf)> = Vec::new();
        let mut bytes = 0;
        for (source, (from, to)) in each(ranges) {
            let sql = match source {
                Source::Id => {
                    format!("SELECT seq, {SMALL_BODY} FROM documents_{table} AS document WHERE id >= ?1 AND id < ?2")
                }
                Source::Index(held) => format!(
                    "SELECT entry.seq, {SMALL_BODY} FROM entries_{} AS entry CROSS JOIN documents_{table} AS document
                     ON document.seq = entry.seq WHERE entry.key >= ?1 AND entry.key < ?2",
                    held.id
                ),
            };
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([from, to])?;
            while let Some(row) = rows.next()? {
                let Some(document) = small_document(self.collection, row.get_ref(1)?)? else { return Ok(false) };
                bytes += document.as_bytes().len();
                if found.len() == most || bytes > FEW_BYTES {
                    return Ok(false);
                }
                found.push((row.get(0)?, document.to_owned()));
            }
        }
        found.sort_unstable_by_key(|(seq, _)| *seq);
        found.dedup_by_key(|(seq, _)| *seq);
        for (seq, document) in &found {
            if visit(*seq, document)?.is_break() {
                break;
            }
        }
        Ok(true)
    }

    /// Visits the documents in the order of an index: the stored ones and the written ones, each
    /// at the place of its key.
    fn visit_ordered_with(
        self,
        written: &Written,
        source: Source<'_>,
        range: Option<&KeyRange>,
        backwards: bool,
        visit: Visit<'_>,
    ) -> Result<()> {
        let mut own = written.ordered(source, range, backwards).peekable();
        let precedes = |own: &(&[u8], i64), key: &[u8], seq: i64| {
            let order = if backwards { key.cmp(own.0) } else { own.0.cmp(key) };
            order.then(own.1.cmp(&seq)).is_lt()
        };
        if self.collection.exists() {
            let sql = ordered_sql("seq, key", source, range, backwards, self.collection.id);
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(bound(range)))?;
            while let Some(row) = rows.next()? {
                let seq = row.get(0)?;
                let key = row.get_ref(1)?.as_blob().map_err(|error| Error::Engine(error.to_string()))?;
                while let Some((_, place)) = own.next_if(|own| precedes(own, key, seq)) {
                    if written.visit(place, visit)?.is_break() {
                        return Ok(());
                    }
                }
                let stored = if written.covers(seq) { None } else { self.read(seq)? };
                if let Some(stored) = stored
                    && visit(seq, &stored)?.is_break()
                {
                    return Ok(());
                }
            }
        }
        for (_, place) in own {
            if written.visit(place, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn visit_places(self, places: impl Iterator<Item = rusqlite::Result<i64>>, visit: Visit<'_>) -> Result<()> {
        let sql = format!("SELECT body FROM documents_{} WHERE seq = ?1", self.collection.id);
        let mut statement = self.connection.prepare_cached(&sql)?;
        for place in places {
            let place = place?;
            let mut rows = statement.query([place])?;
            if let Some(row) = rows.next()?
                && visit(place, document(self.collection, row.get_ref(0)?)?)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Returns the row ids of all documents that a plan finds, in the order of insertion. Returns
    /// `None` for a scan, which finds all documents.
    pub(super) fn places(self, plan: &Plan<'_>) -> Result<Option<Vec<i64>>> {
        let Some(mut places) = self.stored_places(plan)? else { return Ok(None) };
        let Some(written) = self.overlay() else { return Ok(Some(places)) };
        places.retain(|place| !written.covers(*place));
        places.extend(written.places(&plan.access));
        places.sort_unstable();
        Ok(Some(places))
    }

    fn stored_places(self, plan: &Plan<'_>) -> Result<Option<Vec<i64>>> {
        let (connection, table) = (self.connection, self.collection.id);
        let (source, key) = match &plan.access {
            AccessPath::Scan | AccessPath::Ordered { range: None, .. } => return Ok(None),
            _ if !self.collection.exists() => return Ok(Some(Vec::new())),
            AccessPath::Ranges(ranges) => return places_in(connection, ranges, table).map(Some),
            AccessPath::Ordered { source, range: Some(range), .. } => {
                return places_in(connection, &[(*source, vec![range.clone()])], table).map(Some);
            }
            AccessPath::Point(source, key) => (source, key),
        };
        let sql = format!("SELECT seq FROM {} WHERE key = ?1 ORDER BY seq", keys_of(*source, table));
        let mut statement = connection.prepare_cached(&sql)?;
        let places = statement.query_map([key], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(Some(places))
    }

    /// Returns the document at a row id; `None` if there is none.
    pub(super) fn read(self, place: i64) -> Result<Option<Cow<'s, RawDocument>>> {
        if let Some(written) = self.written.filter(|written| written.covers(place)) {
            let own = written.document(place);
            own.map_or(Ok(()), charge)?;
            return Ok(own.map(Cow::Borrowed));
        }
        let sql = format!("SELECT body FROM documents_{} WHERE seq = ?1", self.collection.id);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([place])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some(Cow::Owned(document(self.collection, row.get_ref(0)?)?.to_owned())))
    }
}

/// Visits stored documents and the written ones at `own`, which is ascending, in the order of
/// their row ids. `stored` visits the stored ones; the written ones replace them.
fn merge(
    written: &Written,
    own: impl Iterator<Item = i64>,
    visit: Visit<'_>,
    stored: impl FnOnce(Visit<'_>) -> Result<bool>,
) -> Result<bool> {
    let mut own = own.peekable();
    let mut is_over = false;
    let is_complete = stored(&mut |seq, document| {
        while let Some(place) = own.next_if(|place| *place < seq) {
            if written.visit(place, visit)?.is_break() {
                is_over = true;
                return Ok(ControlFlow::Break(()));
            }
        }
        if written.covers(seq) {
            return Ok(ControlFlow::Continue(()));
        }
        let step = visit(seq, document)?;
        is_over = step.is_break();
        Ok(step)
    })?;
    if is_complete && !is_over {
        for place in own {
            if written.visit(place, visit)?.is_break() {
                break;
            }
        }
    }
    Ok(is_complete)
}

/// Returns the statement that reads the keys of a source in their order.
fn ordered_sql(columns: &str, source: Source<'_>, range: Option<&KeyRange>, backwards: bool, table: i64) -> String {
    let direction = if backwards { "DESC" } else { "ASC" };
    let bounds = if range.is_some() { "WHERE key >= ?1 AND key < ?2" } else { "" };
    format!("SELECT {columns} FROM {} {bounds} ORDER BY key {direction}, seq ASC", keys_of(source, table))
}

/// Returns the ends of a range as parameters.
fn bound(range: Option<&KeyRange>) -> impl Iterator<Item = &Vec<u8>> {
    range.into_iter().flat_map(|(from, to)| [from, to])
}

/// Returns the row ids of the keys in some ranges, each once, in the order of insertion.
fn places_in(connection: &Connection, ranges: &[(Source<'_>, Vec<KeyRange>)], table: i64) -> Result<Vec<i64>> {
    let mut places = Vec::new();
    for (source, (from, to)) in each(ranges) {
        let sql = format!("SELECT seq FROM {} WHERE key >= ?1 AND key < ?2", keys_of(*source, table));
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([from, to])?;
        while let Some(row) = rows.next()? {
            query::budget::charge(1)?;
            places.push(row.get(0)?);
        }
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// Iterates over the ranges, each with its source.
pub(super) fn each<'a, 'c>(
    ranges: &'a [(Source<'c>, Vec<KeyRange>)],
) -> impl Iterator<Item = (&'a Source<'c>, &'a KeyRange)> {
    ranges.iter().flat_map(|(source, all)| all.iter().map(move |one| (source, one)))
}

/// Returns a table expression for the keys of a source, with the columns `key` and `seq`.
fn keys_of(source: Source<'_>, table: i64) -> String {
    match source {
        Source::Id => format!("(SELECT id AS key, seq FROM documents_{table})"),
        Source::Index(held) => format!("entries_{}", held.id),
    }
}

/// Returns the document of a row; `None` if the row has [`SMALL_BODY`] and the body is larger.
fn small_document<'r>(collection: &Collection, body: ValueRef<'r>) -> Result<Option<&'r RawDocument>> {
    if matches!(body, ValueRef::Null) { Ok(None) } else { document(collection, body).map(Some) }
}

/// Returns the document in the column `body` of a row.
pub(super) fn document<'r>(collection: &Collection, body: ValueRef<'r>) -> Result<&'r RawDocument> {
    let body = body.as_blob().map_err(|error| Error::Engine(error.to_string()))?;
    charge_bytes(body)?;
    RawDocument::from_bytes(body)
        .map_err(|error| Error::Engine(format!("a document of {} is damaged: {error}", collection.namespace)))
}

/// Charges the budget for the read of a document.
pub(super) fn charge(document: &RawDocument) -> Result<()> {
    charge_bytes(document.as_bytes())
}

fn charge_bytes(body: &[u8]) -> Result<()> {
    query::budget::charge(DOCUMENT_STEPS)?;
    Ok(query::budget::charge_bytes(body.len())?)
}

/// True if a document matches and is visible. The guard is asked first if the filter can fail,
/// because an error must not reveal anything about a hidden document.
pub(super) fn sees(guard: Option<&dyn Guard>, filter: &Filter, document: &RawDocument) -> Result<bool> {
    let may_see = || guard.is_none_or(|guard| guard.may_see(document));
    Ok(if filter.is_fallible() {
        may_see() && filter.try_matches(document)?
    } else {
        filter.matches(document) && may_see()
    })
}
