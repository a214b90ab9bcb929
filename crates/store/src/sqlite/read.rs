//! Reads: by `_id`, by an index, or by a scan of the collection.

use std::ops::ControlFlow;

use bson::{
    DateTime, RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Filter, PathFilter, Predicate};

use super::{
    catalog::HeldIndex,
    connection::StoreConnection,
    documents::{Documents, FEW, FEW_BYTES, document, sees},
    plan::{AccessPath, Plan, QueryShape, Source},
};
use crate::{
    Count, Error, Explanation, Find, Namespace, Page, Result,
    results::{Results, Sorter, check_count},
};

/// Returns documents that an index holds under a time up to `time`, with their row ids. The number
/// of documents is limited; so are the bytes, beyond which no further document is added.
pub(super) fn expired(
    documents: Documents<'_>,
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
        documents.visit_plan(&plan, usize::MAX, |seq, document| {
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
                Some(collection) => few(Documents::stored(&session.connection, &collection), find, false, || Ok(())),
                None => Ok(Some(Vec::new())),
            }
        });
    }
    let answer = match session.catalog.known(&session.connection, &find.namespace)? {
        Some(collection) => few(Documents::stored(&session.connection, &collection), find, true, || Ok(())),
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
        Some(other) => few(Documents::stored(connection, other), second, true, || Ok(())),
        None => Ok(Some(Vec::new())),
    };
    let mut answer = None;
    // The cached catalog may be old.
    let found = few(Documents::stored(connection, &collection), first, true, || {
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

/// Returns the result of a query for a few documents; `None` if there are more, or it needs a
/// scan.
pub(super) fn few(
    documents: Documents<'_>,
    find: &Find,
    all_multikey: bool,
    mut at_each: impl FnMut() -> Result<()>,
) -> Result<Option<Vec<RawDocumentBuf>>> {
    let guard = find.guard.as_deref();
    let shape = QueryShape { filter: &find.filter, guard, sort: None, limit: find.limit, all_multikey };
    let plan = Plan::choose(shape, documents.collection);
    if matches!(plan.access, AccessPath::Scan) {
        return Ok(None);
    }
    let limit = find.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Some(Vec::new()));
    }
    let (mut visited, mut bytes) = (0, 0);
    let mut answer = Results::new(find.at_most, find.most_bytes);
    let all = documents.visit_plan(&plan, FEW, |_, document| {
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
    match session.catalog.collection(&find.namespace) {
        Some(collection) => find_among(Documents::stored(&session.connection, &collection), find),
        None => Ok((Vec::new(), Explanation::default())),
    }
}

/// Returns the result of a query, and its plan and counters.
pub(super) fn find_among(documents: Documents<'_>, find: &Find) -> Result<(Vec<RawDocumentBuf>, Explanation)> {
    let limit = find.limit.unwrap_or(usize::MAX);
    let (guard, sort) = (find.guard.as_deref(), find.sort.as_ref());
    let shape = QueryShape { filter: &find.filter, guard, sort, limit: find.limit, all_multikey: false };
    let plan = Plan::choose(shape, documents.collection);
    let mut explanation = plan.explain();
    let sort = sort.filter(|sort| !sort.is_empty() && !plan.is_sorted);
    let mut answer = Results::new(find.at_most, find.most_bytes);
    if limit == 0 {
        return Ok((answer.documents, explanation));
    }
    // A sort needs all matches before it knows the first ones, so the limit applies after it.
    let mut sorter = sort.map(|sort| Sorter::new(sort, limit)).transpose()?;
    documents.visit_plan(&plan, usize::MAX, |_, document| {
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
    session.at_one_moment(|session| {
        session.catalog.refresh(&session.connection)?;
        match session.catalog.collection(&count.namespace) {
            Some(collection) => count_among(Documents::stored(&session.connection, &collection), count),
            None => Ok(0),
        }
    })
}

/// Counts the documents that match and are visible.
pub(super) fn count_among(documents: Documents<'_>, count: &Count) -> Result<u64> {
    let limit = count.limit.map_or(u64::MAX, |limit| limit as u64);
    let mut counted = 0;
    let guard = count.guard.as_deref();
    documents.visit(&count.filter, guard, |_, document| {
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
