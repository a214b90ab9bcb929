//! Reads: by `_id`, by an index, or by a scan of the collection.

use std::ops::ControlFlow;

use bson::{
    DateTime, RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Filter, KeyRange, PathFilter, Predicate};
use rusqlite::{Connection, types::ValueRef};

use super::{
    catalog::{Collection, HeldIndex},
    connection::StoreConnection,
    plan::{AccessPath, Plan, QueryShape, Source},
};
use crate::{
    Count, Error, Explanation, Find, Guard, Namespace, Page, Result,
    results::{Results, Sorter, check_count},
};

/// Limits of a read on the event loop, in documents and in bytes. One larger document is allowed.
/// For a read within them, waking another thread would take longer than the read.
const FEW: usize = 128;
const FEW_BYTES: usize = 64 * 1024;

/// The number of steps charged for reading a document, in addition to those for its bytes.
const DOCUMENT_STEPS: u64 = 8;

/// Visits the documents that a plan finds, with their row ids (`seq`): in the order of insertion,
/// unless the plan has another order.
///
/// Returns false if not everything was visited. If the plan has ranges with more than `most`
/// documents, nothing is visited.
fn visit_plan(
    connection: &Connection,
    collection: &Collection,
    plan: &Plan<'_>,
    most: usize,
    mut visit: impl FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
) -> Result<bool> {
    let table = collection.id;
    let body = if most <= FEW { SMALL_BODY } else { "document.body" };
    let (sql, key) = match &plan.access {
        AccessPath::Scan => (format!("SELECT seq, body FROM documents_{table} ORDER BY seq"), None),
        AccessPath::Point(Source::Id, key) => {
            (format!("SELECT seq, {body} FROM documents_{table} AS document WHERE id = ?1"), Some(key))
        }
        AccessPath::Point(Source::Index(held), key) => (
            format!(
                "SELECT entry.seq, {body} FROM entries_{} AS entry CROSS JOIN documents_{table} AS document ON document.seq = entry.seq
                 WHERE entry.key = ?1 ORDER BY entry.seq",
                held.id
            ),
            Some(key),
        ),
        AccessPath::Ranges(ranges) if most <= FEW => {
            // A few documents are read together with their keys, and sorted here.
            let mut found: Vec<(i64, RawDocumentBuf)> = Vec::new();
            let mut bytes = 0;
            for (source, (from, to)) in each(ranges) {
                let sql = match source {
                    Source::Id => format!("SELECT seq, {SMALL_BODY} FROM documents_{table} AS document WHERE id >= ?1 AND id < ?2"),
                    Source::Index(held) => format!(
                        "SELECT entry.seq, {SMALL_BODY} FROM entries_{} AS entry CROSS JOIN documents_{table} AS document
                         ON document.seq = entry.seq WHERE entry.key >= ?1 AND entry.key < ?2",
                        held.id
                    ),
                };
                let mut statement = connection.prepare_cached(&sql)?;
                let mut rows = statement.query([from, to])?;
                while let Some(row) = rows.next()? {
                    let Some(document) = small_document(collection, row.get_ref(1)?)? else { return Ok(false) };
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
            return Ok(true);
        }
        AccessPath::Ranges(ranges) => {
            let places = places_in(connection, ranges, table)?;
            visit_places(connection, collection, places.into_iter().map(Ok), &mut visit)?;
            return Ok(true);
        }
        AccessPath::Ordered { source, range, backwards } => {
            let direction = if *backwards { "DESC" } else { "ASC" };
            let bounds = if range.is_some() { "WHERE key >= ?1 AND key < ?2" } else { "" };
            let sql = format!(
                "SELECT seq FROM {} {bounds} ORDER BY key {direction}, seq ASC",
                keys_of(*source, table)
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let bound: Vec<&Vec<u8>> = range.iter().flat_map(|(from, to)| [from, to]).collect();
            let rows = statement.query_map(rusqlite::params_from_iter(bound), |row| row.get(0))?;
            visit_places(connection, collection, rows, &mut visit)?;
            return Ok(true);
        }
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = match key {
        Some(key) => statement.query([key])?,
        None => statement.query([])?,
    };
    while let Some(row) = rows.next()? {
        let Some(document) = small_document(collection, row.get_ref(1)?)? else { return Ok(false) };
        if visit(row.get(0)?, document)?.is_break() {
            break;
        }
    }
    Ok(true)
}

/// Returns the row ids of all documents that a plan finds, in the order of insertion. Returns
/// `None` for a scan, which finds all documents.
pub(super) fn places(connection: &Connection, collection: &Collection, plan: &Plan<'_>) -> Result<Option<Vec<i64>>> {
    let table = collection.id;
    let (source, range) = match &plan.access {
        AccessPath::Scan | AccessPath::Ordered { range: None, .. } => return Ok(None),
        AccessPath::Ranges(ranges) => return places_in(connection, ranges, table).map(Some),
        AccessPath::Ordered { source, range: Some(range), .. } => {
            return places_in(connection, &[(*source, vec![range.clone()])], table).map(Some);
        }
        AccessPath::Point(source, key) => (source, key),
    };
    let sql = format!("SELECT seq FROM {} WHERE key = ?1 ORDER BY seq", keys_of(*source, table));
    let mut statement = connection.prepare_cached(&sql)?;
    let places = statement.query_map([range], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Some(places))
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
fn each<'a, 'c>(ranges: &'a [(Source<'c>, Vec<KeyRange>)]) -> impl Iterator<Item = (&'a Source<'c>, &'a KeyRange)> {
    ranges.iter().flat_map(|(source, all)| all.iter().map(move |one| (source, one)))
}

/// Returns a table expression for the keys of a source, with the columns `key` and `seq`.
fn keys_of(source: Source<'_>, table: i64) -> String {
    match source {
        Source::Id => format!("(SELECT id AS key, seq FROM documents_{table})"),
        Source::Index(held) => format!("entries_{}", held.id),
    }
}

fn visit_places(
    connection: &Connection,
    collection: &Collection,
    places: impl Iterator<Item = rusqlite::Result<i64>>,
    visit: &mut dyn FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT body FROM documents_{} WHERE seq = ?1", collection.id))?;
    for place in places {
        let place = place?;
        let mut rows = statement.query([place])?;
        if let Some(row) = rows.next()?
            && visit(place, document(collection, row.get_ref(0)?)?)?.is_break()
        {
            break;
        }
    }
    Ok(())
}

/// The body of a document if it is small enough to be read on the event loop. SQLite copies a
/// large body as a whole before the budget can be charged.
const SMALL_BODY: &str = "CASE WHEN length(document.body) <= 65536 THEN document.body END";

/// Returns the document of a row; `None` if the row has [`SMALL_BODY`] and the body is larger.
fn small_document<'r>(collection: &Collection, body: ValueRef<'r>) -> Result<Option<&'r RawDocument>> {
    if matches!(body, ValueRef::Null) { Ok(None) } else { document(collection, body).map(Some) }
}

pub(super) fn document<'r>(collection: &Collection, body: ValueRef<'r>) -> Result<&'r RawDocument> {
    let body = body.as_blob().map_err(|error| Error::Engine(error.to_string()))?;
    query::budget::charge(DOCUMENT_STEPS)?;
    query::budget::charge_bytes(body.len())?;
    RawDocument::from_bytes(body)
        .map_err(|error| Error::Engine(format!("a document of {} is damaged: {error}", collection.namespace)))
}

/// Returns documents that an index holds under a time up to `time`, with their row ids. The number
/// of documents is limited; so are the bytes, beyond which no further document is added.
pub(super) fn expired(
    connection: &Connection,
    collection: &Collection,
    held: &HeldIndex,
    time: DateTime,
    (most, most_bytes): (usize, usize),
) -> Result<Vec<(i64, RawDocumentBuf)>> {
    let Some((path, _)) = held.index.keys.fields().first() else { return Ok(Vec::new()) };
    let predicate = Predicate::Lte(RawBson::DateTime(time));
    let filter = Filter::Path(PathFilter { path: path.clone(), predicate });
    let (mut found, mut bytes) = (Vec::new(), 0);
    for range in held.index.keys.bounds(&filter, true).map(|bounds| bounds.ranges).unwrap_or_default() {
        let access = AccessPath::Ordered { source: Source::Index(held), range: Some(range), backwards: false };
        let plan = Plan { access, is_sorted: true };
        visit_plan(connection, collection, &plan, usize::MAX, |seq, document| {
            let is_enough = |count: usize, bytes: usize| count >= most || bytes >= most_bytes;
            if !is_enough(found.len(), bytes) && found.iter().all(|(other, _)| *other != seq) {
                bytes += document.as_bytes().len();
                found.push((seq, document.to_owned()));
            }
            Ok(if is_enough(found.len(), bytes) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(found)
}

/// Visits the documents that the filter may match, with their row ids, in the order of insertion.
/// With a guard, some or all hidden documents are skipped.
pub(super) fn visit(
    connection: &Connection,
    collection: &Collection,
    filter: &Filter,
    guard: Option<&dyn Guard>,
    visit: impl FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let shape = QueryShape { filter, guard, sort: None, limit: None, all_multikey: false };
    visit_plan(connection, collection, &Plan::choose(shape, collection), usize::MAX, visit).map(|_| ())
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

/// True if a query may find few documents by an index, without a sort that needs all of them.
pub(super) fn may_be_few(find: &Find) -> bool {
    find.sort.is_none() && demands(find, |filter| !filter.conditions().0.is_empty()) && is_cheap(find)
}

/// True if a condition holds for the filter of a query, or for the filter of its guard.
fn demands(find: &Find, is_true: impl Fn(&Filter) -> bool) -> bool {
    let seen = || find.guard.as_ref().and_then(|guard| guard.filters()).map(|filters| &filters.seen);
    is_true(&find.filter) || seen().is_some_and(is_true)
}

/// True if evaluating a document takes no longer than reading it. Operators that compute may take
/// a thousand times as long.
fn is_cheap(find: &Find) -> bool {
    let mut is_cheap = true;
    find.filter.operators(&mut |name| is_cheap &= !matches!(name, "$expr" | "$jsonSchema" | "$regex"));
    if let Some(projection) = &find.projection {
        projection.operators(&mut |_| is_cheap = false);
    }
    is_cheap
}

/// True if a query, or its guard, has an equality with a value other than null or an array.
pub(super) fn has_one_key(find: &Find) -> bool {
    let is_one = |value: &RawBson| !matches!(value, RawBson::Null | RawBson::Array(_));
    demands(find, |filter| filter.equalities().iter().any(|(_, value)| is_one(value)))
}

/// Returns the result of a query for a few documents; `None` if there are more, or it needs a
/// scan.
pub(super) fn find_few(session: &mut StoreConnection, find: &Find) -> Result<Option<Vec<RawDocumentBuf>>> {
    if !has_one_key(find) {
        // Both ends of a range apply only if the index is known not to be multikey.
        return session.at_one_moment(|session| {
            session.catalog.refresh(&session.connection)?;
            match session.catalog.collection(&find.namespace) {
                Some(collection) => few(&session.connection, &collection, find, false, || Ok(())),
                None => Ok(Some(Vec::new())),
            }
        });
    }
    let answer = match session.catalog.known(&session.connection, &find.namespace)? {
        Some(collection) => few(&session.connection, &collection, find, true, || Ok(())),
        None => Ok(Some(Vec::new())),
    };
    or_forget(session, answer)
}

/// Returns a result, or `None` if SQLite rejects the statement, because a cached index no longer
/// exists. The catalog is forgotten then.
fn or_forget<T>(session: &mut StoreConnection, answer: Result<Option<T>>) -> Result<Option<T>> {
    match answer {
        Err(Error::Sqlite(error)) if error.is_of_statement() => {
            session.catalog.forget();
            Ok(None)
        }
        answer => answer,
    }
}

/// Returns the results of two such queries on one snapshot.
///
/// The second query runs while a row of the first is open, which keeps SQLite on one snapshot
/// without the cost of a transaction. If the first query has no row, any snapshot is right.
pub(super) fn find_few_both(
    session: &mut StoreConnection,
    finds: &[Find; 2],
) -> Result<Option<[Vec<RawDocumentBuf>; 2]>> {
    if !finds.iter().all(has_one_key) {
        return session.at_one_moment(|session| {
            let [first, second] = finds;
            Ok(find_few(session, first)?.zip(find_few(session, second)?).map(|(first, second)| [first, second]))
        });
    }
    let answer = few_both(session, finds);
    or_forget(session, answer)
}

fn few_both(session: &mut StoreConnection, finds: &[Find; 2]) -> Result<Option<[Vec<RawDocumentBuf>; 2]>> {
    let [first, second] = finds;
    let Some(collection) = session.catalog.known(&session.connection, &first.namespace)? else {
        return Ok(find_few(session, second)?.map(|second| [Vec::new(), second]));
    };
    let other = session.catalog.known(&session.connection, &second.namespace)?;
    let connection = &session.connection;
    let ask = || match &other {
        Some(other) => few(connection, other, second, true, || Ok(())),
        None => Ok(Some(Vec::new())),
    };
    let mut answer = None;
    // The cached catalog may be old.
    let found = few(connection, &collection, first, true, || {
        if answer.is_none() {
            answer = Some(ask()?);
        }
        Ok(())
    })?;
    let second = match answer {
        Some(answer) => answer,
        None => ask()?,
    };
    Ok(found.zip(second).map(|(first, second)| [first, second]))
}

fn few(
    connection: &Connection,
    collection: &Collection,
    find: &Find,
    all_multikey: bool,
    mut at_each: impl FnMut() -> Result<()>,
) -> Result<Option<Vec<RawDocumentBuf>>> {
    let guard = find.guard.as_deref();
    let shape = QueryShape { filter: &find.filter, guard, sort: None, limit: find.limit, all_multikey };
    let plan = Plan::choose(shape, collection);
    if matches!(plan.access, AccessPath::Scan) {
        return Ok(None);
    }
    let limit = find.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Some(Vec::new()));
    }
    let (mut visited, mut bytes) = (0, 0);
    let mut answer = Results::new(find.at_most, find.most_bytes);
    let all = visit_plan(connection, collection, &plan, FEW, |_, document| {
        visited += 1;
        bytes += document.as_bytes().len();
        if bytes > FEW_BYTES && visited > 1 {
            visited = FEW + 1;
        }
        at_each()?;
        if visited <= FEW && sees(guard, &find.filter, document)? {
            answer.push(project(find, document)?)?;
        }
        let is_enough = visited > FEW || answer.len() >= limit;
        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok((all && visited <= FEW).then_some(answer.documents))
}

pub(super) fn find_in(session: Option<&mut StoreConnection>, find: &Find) -> Result<Vec<RawDocumentBuf>> {
    let Some(session) = session else { return Ok(Vec::new()) };
    session.at_one_moment(|session| Ok(find_and_tell(session, find)?.0))
}

/// Returns the plan and the counters of a query. The documents are counted and dropped.
pub(super) fn explain(session: Option<&mut StoreConnection>, find: &Find) -> Result<Explanation> {
    match session {
        Some(session) => session.at_one_moment(|session| Ok(find_and_tell(session, find)?.1)),
        None => Ok(Explanation::default()),
    }
}

fn find_and_tell(session: &mut StoreConnection, find: &Find) -> Result<(Vec<RawDocumentBuf>, Explanation)> {
    session.catalog.refresh(&session.connection)?;
    let Some(collection) = session.catalog.collection(&find.namespace) else {
        return Ok((Vec::new(), Explanation::default()));
    };
    let limit = find.limit.unwrap_or(usize::MAX);
    let (guard, sort) = (find.guard.as_deref(), find.sort.as_ref());
    let shape = QueryShape { filter: &find.filter, guard, sort, limit: find.limit, all_multikey: false };
    let plan = Plan::choose(shape, &collection);
    let mut explanation = plan.explain();
    let sort = sort.filter(|sort| !sort.is_empty() && !plan.is_sorted);
    let mut answer = Results::new(find.at_most, find.most_bytes);
    if limit == 0 {
        return Ok((answer.documents, explanation));
    }
    // A sort needs all matches before it knows the first ones, so the limit applies after it.
    let mut sorter = sort.map(|sort| Sorter::new(sort, limit)).transpose()?;
    visit_plan(&session.connection, &collection, &plan, usize::MAX, |_, document| {
        explanation.examined += 1;
        if sees(guard, &find.filter, document)? {
            match &mut sorter {
                Some(sorter) => {
                    sorter.add(document)?;
                    check_count(sorter.len(), find.at_most)?;
                }
                None => answer.push(project(find, document)?)?,
            }
        }
        Ok(if answer.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if let Some(sorter) = sorter {
        for document in sorter.finish() {
            answer.push(project(find, &document)?)?;
        }
    }
    explanation.returned = answer.len() as u64;
    Ok((answer.documents, explanation))
}

pub(super) fn count(session: &mut StoreConnection, count: &Count) -> Result<u64> {
    session.at_one_moment(|session| count_at_once(session, count))
}

fn count_at_once(session: &mut StoreConnection, count: &Count) -> Result<u64> {
    session.catalog.refresh(&session.connection)?;
    let Some(collection) = session.catalog.collection(&count.namespace) else { return Ok(0) };
    let limit = count.limit.map_or(u64::MAX, |limit| limit as u64);
    let mut counted = 0;
    let guard = count.guard.as_deref();
    visit(&session.connection, &collection, &count.filter, guard, |_, document| {
        counted += u64::from(sees(guard, &count.filter, document)?);
        Ok(if counted >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(counted)
}

/// Limits of one page of a collection, in documents and in bytes.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Returns the page of a collection after a row id.
pub(super) fn page(session: &mut StoreConnection, namespace: &Namespace, after: i64) -> Result<Page> {
    session.at_one_moment(|session| {
        session.catalog.refresh(&session.connection)?;
        let Some(collection) = session.catalog.collection(namespace) else { return Ok(Page::default()) };
        let table = collection.id;
        let mut page = Page::default();
        let (mut bytes, mut last) = (0, after);
        let sql = format!("SELECT seq, body FROM documents_{table} WHERE seq > ?1 ORDER BY seq");
        let mut statement = session.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            if page.documents.len() >= PAGE || bytes >= PAGE_BYTES {
                page.next = Some(RawBson::Int64(last));
                break;
            }
            last = row.get(0)?;
            let document = document(&collection, row.get_ref(1)?)?.to_owned();
            bytes += document.as_bytes().len();
            page.documents.push(document);
        }
        let sql = format!("SELECT max(seq) FROM documents_{table}");
        let end: Option<i64> = session.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        page.reached = (last.unsigned_abs(), end.unwrap_or(last).unsigned_abs());
        Ok(page)
    })
}

fn project(find: &Find, document: &RawDocument) -> Result<RawDocumentBuf> {
    match &find.projection {
        Some(projection) => Ok(projection.apply(document, &find.filter)?),
        None => Ok(document.to_owned()),
    }
}

/// Formats a value of a key for an error message.
pub(super) fn text(value: Option<RawBsonRef<'_>>) -> String {
    let value =
        value.map_or(bson::Bson::Null, |value| bson::Bson::try_from(RawBson::from(value)).unwrap_or(bson::Bson::Null));
    value.to_string()
}
