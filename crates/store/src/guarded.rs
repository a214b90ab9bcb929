//! Guarded writes, as far as they are independent of the store: selecting the targets, planning
//! the change of each, building the document of an upsert, and choosing the version to return.
//!
//! Both stores use this module, and add how a check and its write are atomic.

use std::ops::ControlFlow;

use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};
use query::{Environment, ErrorCode, Filter, SortKey, get};

use crate::{Change, Denied, Error, Guard, Modify, Outcome, Result, Returning, WriteLimits};

/// The maximum number of attempts of a write that conflicts with other writes.
pub(crate) const ATTEMPTS: usize = 20;

/// The planned change of one document, after the guard has allowed it.
#[derive(Debug)]
pub(crate) enum Planned {
    /// The document is deleted.
    Delete,
    /// The document stays the same.
    Unchanged(RawDocumentBuf),
    /// The document is replaced by this version.
    Become(RawDocumentBuf),
}

impl Planned {
    /// Returns the document after the write; `None` if it is deleted.
    pub(crate) fn after(&self) -> Option<&RawDocumentBuf> {
        match self {
            Self::Delete => None,
            Self::Unchanged(after) | Self::Become(after) => Some(after),
        }
    }
}

/// Prepares documents for insertion: completes them and checks each with the guard.
pub(crate) fn prepared(
    documents: &[RawDocumentBuf],
    guard: Option<&dyn Guard>,
    environment: &dyn Environment,
) -> Result<Vec<RawDocumentBuf>> {
    let prepared = |document: &RawDocumentBuf| -> Result<RawDocumentBuf> {
        query::budget::charge(1)?;
        let document = query::prepare_insert(document, environment)?;
        if let Some(guard) = guard {
            guard.check_write(None, Some(&document))?;
        }
        Ok(document)
    };
    documents.iter().map(prepared).collect()
}

/// The size of a write so far, which is checked against its limits.
pub(crate) struct ChangedSize {
    limits: Option<WriteLimits>,
    bytes: usize,
}

impl ChangedSize {
    pub(crate) fn new(limits: Option<WriteLimits>) -> Self {
        Self { limits, bytes: 0 }
    }

    /// Adds a planned change.
    ///
    /// # Errors
    /// [`Error::WriteTooLarge`] if the write exceeds its limits.
    pub(crate) fn add(&mut self, planned: &Planned) -> Result<()> {
        self.bytes += planned.after().map_or(0, |after| after.as_bytes().len());
        // The number of documents was checked when they were selected.
        self.limits.map_or(Ok(()), |limits| limits.check(1, self.bytes))
    }
}

/// Plans the change of one target.
///
/// # Errors
/// The guard's refusal, or the error of the update.
pub(crate) fn plan(
    modify: &Modify,
    guard: Option<&dyn Guard>,
    before: &RawDocument,
    environment: &dyn Environment,
) -> Result<Planned> {
    let check = |after| guard.map_or(Ok(()), |guard| guard.check_write(Some(before), after));
    match &modify.change {
        Change::Delete => {
            check(None)?;
            Ok(Planned::Delete)
        }
        Change::Update { update, .. } => {
            let after = update.apply(before, &modify.filter, environment)?;
            check(Some(&after))?;
            let is_same = after.as_bytes() == before.as_bytes();
            Ok(if is_same { Planned::Unchanged(after) } else { Planned::Become(after) })
        }
    }
}

/// Returns the document that an upsert inserts if no visible document matches; `None` if the write
/// is not an upsert.
///
/// Hidden documents play no part, because the result must not reveal their contents. Only `_id`
/// and unique indexes can reject the insert, as they can reject any other.
///
/// # Errors
/// The guard's refusal of the insert, or the error of the update.
pub(crate) fn upserted_document(
    modify: &Modify,
    guard: Option<&dyn Guard>,
    environment: &dyn Environment,
) -> Result<Option<RawDocumentBuf>> {
    let Change::Update { update, upsert: true } = &modify.change else { return Ok(None) };
    let made = update.upsert(&modify.filter, environment)?;
    if let Some(guard) = guard {
        guard.check_write(None, Some(&made))?;
    }
    Ok(Some(made))
}

/// Records the document that an upsert has inserted, and returns it in the outcome if the caller
/// asked for it.
///
/// # Errors
/// The error of the projection.
pub(crate) fn note_upserted(
    outcome: &mut Outcome,
    modify: &Modify,
    guard: Option<&dyn Guard>,
    made: RawDocumentBuf,
) -> Result<()> {
    outcome.upserted_id = Some(get(&made, "_id").map_or(RawBson::Null, RawBson::from));
    let is_wanted = modify.returning == Returning::After;
    let document = Some(made).filter(|made| is_wanted && guard.is_none_or(|guard| guard.may_see(made)));
    outcome.document = projected(modify, document)?;
    Ok(())
}

/// Sets the requested version of a changed document in the outcome.
///
/// # Errors
/// The error of the projection.
pub(crate) fn note_changed(
    outcome: &mut Outcome,
    modify: &Modify,
    guard: Option<&dyn Guard>,
    before: RawDocumentBuf,
    after: Option<&RawDocumentBuf>,
) -> Result<()> {
    let document = match modify.returning {
        Returning::Nothing => None,
        Returning::Before => Some(before),
        // The guard may hide the new version from the caller.
        Returning::After => after.filter(|after| guard.is_none_or(|guard| guard.may_see(after))).cloned(),
    };
    outcome.document = projected(modify, document)?;
    Ok(())
}

fn projected(modify: &Modify, document: Option<RawDocumentBuf>) -> Result<Option<RawDocumentBuf>> {
    match (&modify.projection, document) {
        (Some(projection), Some(document)) => Ok(Some(projection.apply(&document, &modify.filter)?)),
        (_, document) => Ok(document),
    }
}

/// True if a hidden document is denied instead of skipped: only if the filter is on one `_id`
/// alone and the write is no upsert. A duplicate key error of an insert reveals as much.
pub(crate) fn denies_hidden(modify: &Modify) -> bool {
    !matches!(modify.change, Change::Update { upsert: true, .. }) && modify.filter.is_of_id_alone()
}

/// Returns the refusal of a write to a hidden document.
pub(crate) fn denial_of_hidden(modify: &Modify, guard: &dyn Guard, hidden: &RawDocument) -> Denied {
    let after = matches!(modify.change, Change::Update { .. }).then_some(hidden);
    match guard.check_write(Some(hidden), after) {
        Err(denied) => denied,
        Ok(()) => Denied("not permitted".into()),
    }
}

/// Selects the targets of a write from candidates.
///
/// A hidden document does not match, so that a filter reveals nothing about it. The one exception
/// is [`denies_hidden`].
pub(crate) struct Targets<'m, P> {
    modify: &'m Modify,
    guard: Option<&'m dyn Guard>,
    limits: Option<WriteLimits>,
    found: Vec<(P, RawDocumentBuf)>,
    /// The sort key of the best target so far, if the write changes the first document of an
    /// order.
    least: Option<SortKey>,
    bytes: usize,
    /// The filter whose hidden matches are denied.
    denied: Option<&'m Filter>,
    hidden: Option<RawDocumentBuf>,
}

/// Returns the filter whose hidden matches are denied, if there is one. It then selects the
/// candidates, so that an index for another condition does not leave out a hidden match.
pub(crate) fn denied_filter(modify: &Modify, guard: Option<&dyn Guard>) -> Option<Filter> {
    (guard.is_some() && denies_hidden(modify)).then(|| modify.filter.demanded())
}

impl<'m, P> Targets<'m, P> {
    /// Starts a selection without targets; `denied` is the [`denied_filter`].
    pub(crate) fn new(
        modify: &'m Modify,
        guard: Option<&'m dyn Guard>,
        limits: Option<WriteLimits>,
        denied: Option<&'m Filter>,
    ) -> Self {
        Self { modify, guard, limits, found: Vec::new(), least: None, bytes: 0, denied, hidden: None }
    }

    /// Offers a candidate, which may match or not.
    ///
    /// # Errors
    /// If the filter fails to evaluate, or if the targets exceed the limits of the write.
    pub(crate) fn offer(&mut self, place: P, document: &RawDocument) -> Result<ControlFlow<()>> {
        if self.guard.is_some_and(|guard| !guard.may_see(document)) {
            if self.hidden.is_none() && self.denied.is_some_and(|denied| denied.matches(document)) {
                self.hidden = Some(document.to_owned());
            }
            return Ok(ControlFlow::Continue(()));
        }
        if !self.modify.filter.try_matches(document)? {
            return Ok(ControlFlow::Continue(()));
        }
        match (&self.modify.sort, self.modify.multi) {
            (Some(sort), false) => {
                let key = sort.key(document);
                // The first of equal documents wins.
                if self.least.as_ref().is_none_or(|least| key < *least) {
                    self.least = Some(key);
                    self.found = vec![(place, document.to_owned())];
                }
            }
            _ => {
                self.bytes += document.as_bytes().len();
                if let Some(limits) = self.limits {
                    limits.check(self.found.len() + 1, self.bytes)?;
                }
                self.found.push((place, document.to_owned()));
            }
        }
        let is_enough = !self.modify.multi && self.modify.sort.is_none();
        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Returns the targets in the order in which they are changed.
    ///
    /// # Errors
    /// The refusal of a hidden document, if there is no visible target.
    pub(crate) fn finish(mut self) -> Result<Vec<(P, RawDocumentBuf)>> {
        if let (true, Some(hidden), Some(guard)) = (self.found.is_empty(), &self.hidden, self.guard) {
            return Err(denial_of_hidden(self.modify, guard, hidden).into());
        }
        if let (Some(sort), true) = (&self.modify.sort, self.modify.multi) {
            self.found.sort_by_cached_key(|(_, document)| sort.key(document));
        }
        Ok(self.found)
    }
}

/// Returns the error of a write that conflicted with other writes in every attempt.
pub(crate) fn conflict() -> Error {
    let message = "other writes changed the documents during every attempt; nothing was written".to_owned();
    Error::Query(query::Error { code: ErrorCode::WriteConflict, message })
}

/// True for the error of [`conflict`].
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Query(error) if error.code == ErrorCode::WriteConflict)
}
