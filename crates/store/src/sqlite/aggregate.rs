//! Aggregation. The pipeline pulls documents from the collection, so that the collection is never
//! in memory as a whole.

use std::{cell::RefCell, collections::VecDeque};

use bson::raw::RawDocumentBuf;
use query::Filter;
use rusqlite::Connection;

use super::{
    catalog::Collection,
    connection::StoreConnection,
    plan::{Plan, QueryShape},
    read::{self, sees},
};
use crate::{Aggregate, Error, Guard, Result, results::Results};

/// Limits of the documents that are read ahead, in documents and in bytes.
const AHEAD: usize = 256;
const AHEAD_BYTES: usize = 1024 * 1024;

/// Runs a pipeline over the documents of a collection that the guard allows to see.
///
/// # Errors
/// The error of a document or a stage, or of an exceeded limit of the result.
pub(super) fn aggregate(session: Option<&mut StoreConnection>, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
    let Some(session) = session else { return run(None, aggregate) };
    session.at_one_moment(|session| {
        session.catalog.refresh(&session.connection)?;
        let collection = session.catalog.collection(&aggregate.namespace);
        run(collection.as_deref().map(|collection| (&session.connection, collection)), aggregate)
    })
}

fn run(from: Option<(&Connection, &Collection)>, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
    let Aggregate { pipeline, at_most, most_bytes, guard, .. } = aggregate;
    let (filter, pipeline) = pipeline.split_match();
    let failure = RefCell::new(None);
    let input = match from {
        Some((connection, collection)) => {
            Some(Input::new(connection, collection, &filter, guard.as_deref(), &failure)?)
        }
        None => None,
    };
    let mut answer = Results::new(at_most, most_bytes);
    for document in pipeline.run(input.into_iter().flatten()) {
        if failure.borrow().is_some() {
            break;
        }
        answer.push(document?)?;
    }
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(answer.documents),
    }
}

/// The documents of a collection that match and are visible.
struct Input<'s> {
    connection: &'s Connection,
    collection: &'s Collection,
    filter: &'s Filter,
    guard: Option<&'s dyn Guard>,
    places: Places,
    ahead: VecDeque<RawDocumentBuf>,
    /// The error that ended the input early.
    failure: &'s RefCell<Option<Error>>,
}

/// The row ids of the next documents.
enum Places {
    /// All row ids after this one.
    After(i64),
    /// These row ids.
    Listed(std::vec::IntoIter<i64>),
    /// No more documents.
    End,
}

impl<'s> Input<'s> {
    fn new(
        connection: &'s Connection,
        collection: &'s Collection,
        filter: &'s Filter,
        guard: Option<&'s dyn Guard>,
        failure: &'s RefCell<Option<Error>>,
    ) -> Result<Self> {
        let shape = QueryShape { filter, guard, sort: None, limit: None, all_multikey: false };
        let plan = Plan::choose(shape, collection);
        let places = match read::places(connection, collection, &plan)? {
            Some(places) => Places::Listed(places.into_iter()),
            None => Places::After(i64::MIN),
        };
        Ok(Self { connection, collection, filter, guard, places, ahead: VecDeque::new(), failure })
    }

    fn read_ahead(&mut self) -> Result<()> {
        let table = self.collection.id;
        let mut bytes = 0;
        match &mut self.places {
            Places::End => {}
            Places::After(place) => {
                let sql = format!("SELECT seq, body FROM documents_{table} WHERE seq > ?1 ORDER BY seq");
                let mut statement = self.connection.prepare_cached(&sql)?;
                let mut rows = statement.query([*place])?;
                while self.ahead.len() < AHEAD && bytes < AHEAD_BYTES {
                    let Some(row) = rows.next()? else {
                        self.places = Places::End;
                        break;
                    };
                    *place = row.get(0)?;
                    let document = read::document(self.collection, row.get_ref(1)?)?;
                    bytes += document.as_bytes().len();
                    if sees(self.guard, self.filter, document)? {
                        self.ahead.push_back(document.to_owned());
                    }
                }
            }
            Places::Listed(places) => {
                let sql = format!("SELECT body FROM documents_{table} WHERE seq = ?1");
                let mut statement = self.connection.prepare_cached(&sql)?;
                while self.ahead.len() < AHEAD && bytes < AHEAD_BYTES {
                    let Some(place) = places.next() else {
                        self.places = Places::End;
                        break;
                    };
                    let mut rows = statement.query([place])?;
                    let Some(row) = rows.next()? else { continue };
                    let document = read::document(self.collection, row.get_ref(0)?)?;
                    bytes += document.as_bytes().len();
                    if sees(self.guard, self.filter, document)? {
                        self.ahead.push_back(document.to_owned());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Input<'_> {
    type Item = RawDocumentBuf;

    fn next(&mut self) -> Option<RawDocumentBuf> {
        loop {
            if let Some(document) = self.ahead.pop_front() {
                return Some(document);
            }
            if matches!(self.places, Places::End) {
                return None;
            }
            if let Err(error) = self.read_ahead() {
                *self.failure.borrow_mut() = Some(error);
                self.places = Places::End;
                self.ahead.clear();
            }
        }
    }
}
