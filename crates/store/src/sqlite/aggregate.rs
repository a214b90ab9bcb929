//! Aggregation. The pipeline pulls documents from the collection, so that the collection is never
//! in memory as a whole.

use std::{cell::RefCell, collections::VecDeque, ops::ControlFlow};

use bson::raw::{RawDocument, RawDocumentBuf};
use query::Filter;

use super::{
    connection::StoreConnection,
    documents::{Documents, sees},
    plan::{Plan, QueryShape},
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
    let Some(session) = session else { return aggregate_among(None, aggregate) };
    session.at_one_moment(|session| {
        session.catalog.refresh(&session.connection)?;
        let collection = session.catalog.collection(&aggregate.namespace);
        let documents = collection.as_deref().map(|collection| Documents::stored(&session.connection, collection));
        aggregate_among(documents, aggregate)
    })
}

/// Runs a pipeline over documents; `None` if the collection does not exist.
///
/// # Errors
/// As [`aggregate`].
pub(super) fn aggregate_among(from: Option<Documents<'_>>, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
    let Aggregate { pipeline, at_most, most_bytes, guard, .. } = aggregate;
    let (filter, pipeline) = pipeline.split_match();
    let failure = RefCell::new(None);
    let input = from.map(|documents| Input::new(documents, &filter, guard.as_deref(), &failure)).transpose()?;
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
    documents: Documents<'s>,
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
        documents: Documents<'s>,
        filter: &'s Filter,
        guard: Option<&'s dyn Guard>,
        failure: &'s RefCell<Option<Error>>,
    ) -> Result<Self> {
        let shape = QueryShape { filter, guard, sort: None, limit: None, all_multikey: false };
        let plan = Plan::choose(shape, documents.collection);
        let places = match documents.places(&plan)? {
            Some(places) => Places::Listed(places.into_iter()),
            None => Places::After(i64::MIN),
        };
        Ok(Self { documents, filter, guard, places, ahead: VecDeque::new(), failure })
    }

    fn read_ahead(&mut self) -> Result<()> {
        let Self { documents, filter, guard, places, ahead, .. } = self;
        let mut bytes = 0;
        let mut add = |document: &RawDocument| -> Result<bool> {
            bytes += document.as_bytes().len();
            if sees(*guard, filter, document)? {
                ahead.push_back(document.to_owned());
            }
            Ok(ahead.len() >= AHEAD || bytes >= AHEAD_BYTES)
        };
        let mut is_full = false;
        match places {
            Places::End => return Ok(()),
            Places::After(place) => documents.visit_after(*place, |seq, document| {
                *place = seq;
                is_full = add(document)?;
                Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?,
            Places::Listed(places) => {
                for place in places {
                    if let Some(document) = documents.read(place)? {
                        is_full = add(&document)?;
                    }
                    if is_full {
                        break;
                    }
                }
            }
        }
        if !is_full {
            self.places = Places::End;
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
