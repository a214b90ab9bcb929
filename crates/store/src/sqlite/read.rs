//! Reading: by `_id`, by an index, or through the whole collection.

use std::ops::ControlFlow;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Filter, encode_key};
use rusqlite::Connection;

use super::{
    catalog::{Collection, HeldIndex},
    connection::Session,
};
use crate::{Aggregate, Count, Error, Find, Guard, Result};

/// How many documents may be read where the event loop waits.
const FEW: usize = 16;

/// How the documents that a filter can match are found.
enum Plan<'a> {
    Id(Vec<u8>),
    Index(&'a HeldIndex, Vec<u8>),
    Scan,
}

impl<'a> Plan<'a> {
    fn choose(filter: &Filter, collection: &'a Collection) -> Self {
        let equalities = filter.equalities();
        if let Some((_, id)) = equalities.iter().find(|(path, _)| path.as_str() == "_id") {
            return Self::Id(encode_key(id.as_raw_bson_ref()));
        }
        // Null also matches what an index does not tell from null.
        let usable = |value: &RawBson| !matches!(value, RawBson::Null | RawBson::Array(_));
        let of = |held: &'a HeldIndex| {
            let (_, value) = equalities.iter().find(|(path, value)| **path == held.index.path && usable(value))?;
            Some((held, encode_key(value.as_raw_bson_ref())))
        };
        let candidates = || collection.indexes.iter().filter_map(of);
        let chosen = candidates().find(|(held, _)| held.index.unique).or_else(|| candidates().next());
        chosen.map_or(Self::Scan, |(held, key)| Self::Index(held, key))
    }
}

/// Visits, in the order of insertion, the documents that the filter may match, by their place in the collection.
pub(super) fn visit(
    connection: &Connection,
    collection: &Collection,
    filter: &Filter,
    mut visit: impl FnMut(i64, &RawDocument) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let table = collection.id;
    let (sql, key) = match Plan::choose(filter, collection) {
        Plan::Id(key) => (format!("SELECT seq, body FROM documents_{table} WHERE id = ?1"), Some(key)),
        Plan::Index(held, key) => (
            format!(
                "SELECT entry.seq, document.body FROM entries_{} AS entry CROSS JOIN documents_{table} AS document ON document.seq = entry.seq
                 WHERE entry.key = ?1 ORDER BY entry.seq",
                held.id
            ),
            Some(key),
        ),
        Plan::Scan => (format!("SELECT seq, body FROM documents_{table} ORDER BY seq"), None),
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = match &key {
        Some(key) => statement.query([key])?,
        None => statement.query([])?,
    };
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        let body = row.get_ref(1)?.as_blob().map_err(|error| Error::Engine(error.to_string()))?;
        let document = RawDocument::from_bytes(body)
            .map_err(|error| Error::Engine(format!("a document of {} is damaged: {error}", collection.namespace)))?;
        if visit(seq, document)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Whether a document matches and may be seen. The guard is asked first where the filter can fail: an error must not tell
/// of a document that may not be seen.
fn sees(guard: Option<&dyn Guard>, filter: &Filter, document: &RawDocument) -> Result<bool> {
    let may_see = || guard.is_none_or(|guard| guard.may_see(document));
    Ok(if filter.is_fallible() {
        may_see() && filter.try_matches(document)?
    } else {
        filter.matches(document) && may_see()
    })
}

/// Whether a query asks for what one key holds, without a sort that would need all of it.
pub(super) fn is_point_read(find: &Find) -> bool {
    find.sort.is_none()
        && find.filter.equalities().iter().any(|(_, value)| !matches!(value, RawBson::Null | RawBson::Array(_)))
}

/// The answer to a point read, `None` where it turns out to be more than a few documents or a scan.
pub(super) fn find_few(session: &mut Session, find: &Find) -> Result<Option<Vec<RawDocumentBuf>>> {
    match session.catalog.known(&session.connection, &find.namespace)? {
        Some(collection) => few(&session.connection, &collection, find, || Ok(())),
        None => Ok(Some(Vec::new())),
    }
}

/// The answers to two point reads at one moment. The second is asked while the first one's row is open, which keeps
/// SQLite on its snapshot without the price of a transaction; without a row there is nothing to be at one moment with.
pub(super) fn find_few_both(session: &mut Session, finds: &[Find; 2]) -> Result<Option<[Vec<RawDocumentBuf>; 2]>> {
    let [first, second] = finds;
    let Some(collection) = session.catalog.known(&session.connection, &first.namespace)? else {
        return Ok(find_few(session, second)?.map(|second| [Vec::new(), second]));
    };
    let other = session.catalog.known(&session.connection, &second.namespace)?;
    let connection = &session.connection;
    let ask = || match &other {
        Some(other) => few(connection, other, second, || Ok(())),
        None => Ok(Some(Vec::new())),
    };
    let mut answer = None;
    let found = few(connection, &collection, first, || {
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
    mut at_each: impl FnMut() -> Result<()>,
) -> Result<Option<Vec<RawDocumentBuf>>> {
    if matches!(Plan::choose(&find.filter, collection), Plan::Scan) {
        return Ok(None);
    }
    let limit = find.limit.unwrap_or(usize::MAX);
    let mut visited = 0;
    let mut found = Vec::new();
    visit(connection, collection, &find.filter, |_, document| {
        visited += 1;
        at_each()?;
        if visited <= FEW && sees(find.guard.as_deref(), &find.filter, document)? {
            found.push(project(find, document)?);
            check_count(found.len(), find.at_most)?;
        }
        Ok(if visited > FEW || found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok((visited <= FEW).then_some(found))
}

pub(super) fn find_in(session: Option<&mut Session>, find: &Find) -> Result<Vec<RawDocumentBuf>> {
    let Some(session) = session else { return Ok(Vec::new()) };
    session.catalog.refresh(&session.connection)?;
    let Some(collection) = session.catalog.collection(&find.namespace) else { return Ok(Vec::new()) };
    let limit = find.limit.unwrap_or(usize::MAX);
    let sort = find.sort.as_ref().filter(|sort| !sort.is_empty());
    // A sort needs all that matches before it knows which come first; the limit is applied after it.
    let stop_at = if sort.is_some() { usize::MAX } else { limit };
    let mut found: Vec<RawDocumentBuf> = Vec::new();
    if stop_at == 0 {
        return Ok(found);
    }
    visit(&session.connection, &collection, &find.filter, |_, document| {
        if sees(find.guard.as_deref(), &find.filter, document)? {
            found.push(if sort.is_some() { document.to_owned() } else { project(find, document)? });
            check_count(found.len().min(limit), find.at_most)?;
        }
        Ok(if found.len() >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if let Some(sort) = sort {
        sort.sort(&mut found);
        found.truncate(limit);
        found = found.iter().map(|document| project(find, document)).collect::<Result<_>>()?;
    }
    Ok(found)
}

pub(super) fn count(session: &mut Session, count: &Count) -> Result<u64> {
    session.catalog.refresh(&session.connection)?;
    let Some(collection) = session.catalog.collection(&count.namespace) else { return Ok(0) };
    let limit = count.limit.map_or(u64::MAX, |limit| limit as u64);
    let mut counted = 0;
    visit(&session.connection, &collection, &count.filter, |_, document| {
        counted += u64::from(sees(count.guard.as_deref(), &count.filter, document)?);
        Ok(if counted >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(counted)
}

pub(super) fn aggregate(session: Option<&mut Session>, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
    let Aggregate { namespace, pipeline, at_most, guard } = aggregate;
    let (filter, pipeline) = pipeline.split_match();
    let mut input = Vec::new();
    if let Some(session) = session {
        session.catalog.refresh(&session.connection)?;
        if let Some(collection) = session.catalog.collection(&namespace) {
            visit(&session.connection, &collection, &filter, |_, document| {
                if sees(guard.as_deref(), &filter, document)? {
                    input.push(document.to_owned());
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
    }
    let mut answer = Vec::new();
    for document in pipeline.run(input.into_iter()) {
        answer.push(document?);
        check_count(answer.len(), at_most)?;
    }
    Ok(answer)
}

fn check_count(count: usize, at_most: Option<usize>) -> Result<()> {
    match at_most {
        Some(limit) if count > limit => Err(Error::TooManyDocuments { limit }),
        _ => Ok(()),
    }
}

fn project(find: &Find, document: &RawDocument) -> Result<RawDocumentBuf> {
    match &find.projection {
        Some(projection) => Ok(projection.apply(document, &find.filter)?),
        None => Ok(document.to_owned()),
    }
}

/// A key's value for an error message.
pub(super) fn text(value: Option<RawBsonRef<'_>>) -> String {
    let value =
        value.map_or(bson::Bson::Null, |value| bson::Bson::try_from(RawBson::from(value)).unwrap_or(bson::Bson::Null));
    value.to_string()
}
