//! Writes under a guard, as far as they need no store: which documents are the targets, what becomes of each, what an
//! upsert makes, and which version is returned. Both stores call this, and add how a check and its write are one.

use std::ops::ControlFlow;

use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};
use query::{Environment, ErrorCode, Filter, SortKey, get};

use crate::{Change, Denied, Error, Guard, Modify, Outcome, Result, Returning, WriteLimits};

/// The most attempts of a write that other writes are faster than.
pub(crate) const ATTEMPTS: usize = 20;

/// What becomes of a document that a write changes, after the guard has allowed it.
#[derive(Debug)]
pub(crate) enum Planned {
    /// It is deleted.
    Delete,
    /// The write changes nothing about it.
    Unchanged(RawDocumentBuf),
    /// It becomes this one.
    Become(RawDocumentBuf),
}

impl Planned {
    /// The document after the write; none if it is deleted.
    pub(crate) fn after(&self) -> Option<&RawDocumentBuf> {
        match self {
            Self::Delete => None,
            Self::Unchanged(after) | Self::Become(after) => Some(after),
        }
    }
}

/// Documents as they are inserted, after the guard has allowed it.
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

/// Counts the documents that a write changes, as they become, for its limits.
pub(crate) struct ChangedSize {
    limits: Option<WriteLimits>,
    bytes: usize,
}

impl ChangedSize {
    pub(crate) fn new(limits: Option<WriteLimits>) -> Self {
        Self { limits, bytes: 0 }
    }

    /// Counts what a document becomes.
    ///
    /// # Errors
    /// [`Error::WriteTooLarge`] if the write changes more than it may.
    pub(crate) fn add(&mut self, planned: &Planned) -> Result<()> {
        self.bytes += planned.after().map_or(0, |after| after.as_bytes().len());
        // The number of documents was checked when they were found.
        self.limits.map_or(Ok(()), |limits| limits.check(1, self.bytes))
    }
}

/// Plans what becomes of one target.
///
/// # Errors
/// The guard's refusal, and what the update does not allow.
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

/// The document that an upsert inserts when nothing matches that the caller may see; none if the write is no upsert.
///
/// Documents that the caller may not see play no part: the answer must not tell what they hold. Only `_id` and unique
/// indexes can stop the insert, as they stop any other.
///
/// # Errors
/// The guard's refusal of the insert, and what the update does not allow.
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

/// Notes the document that an upsert has inserted, and returns it if the caller asked for it.
///
/// # Errors
/// What the projection does not allow.
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

/// Puts the version of a changed document into the outcome that the caller asked for.
///
/// # Errors
/// What the projection does not allow.
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
        // The new version may be one that the caller may not see.
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

/// True if a hidden document is denied instead of passed over: only when the filter asks for its `_id` alone, and nothing
/// is inserted in its place. A duplicate key shows as much.
pub(crate) fn denies_hidden(modify: &Modify) -> bool {
    !matches!(modify.change, Change::Update { upsert: true, .. }) && modify.filter.is_of_id_alone()
}

/// The refusal of a write to a document that the caller may not see.
pub(crate) fn denial_of_hidden(modify: &Modify, guard: &dyn Guard, hidden: &RawDocument) -> Denied {
    let after = matches!(modify.change, Change::Update { .. }).then_some(hidden);
    match guard.check_write(Some(hidden), after) {
        Err(denied) => denied,
        Ok(()) => Denied("not permitted".into()),
    }
}

/// Collects the targets of a write from candidates. A document that the caller may not see does not match, so that a
/// filter tells nothing about it; the one exception is [`denies_hidden`].
pub(crate) struct Targets<'m, P> {
    modify: &'m Modify,
    guard: Option<&'m dyn Guard>,
    limits: Option<WriteLimits>,
    found: Vec<(P, RawDocumentBuf)>,
    /// The sort key of the only one that is found so far, if one of several is wanted.
    least: Option<SortKey>,
    bytes: usize,
    /// The filter whose matches are denied if they are hidden.
    denied: Option<&'m Filter>,
    hidden: Option<RawDocumentBuf>,
}

/// The filter whose matches are denied to the caller if they are hidden, if there is one. Candidates are then looked up
/// by it, so that no index leaves a hidden one out for another condition.
pub(crate) fn denied_filter(modify: &Modify, guard: Option<&dyn Guard>) -> Option<Filter> {
    (guard.is_some() && denies_hidden(modify)).then(|| modify.filter.demanded())
}

impl<'m, P> Targets<'m, P> {
    /// No targets yet; `denied` is the [`denied_filter`].
    pub(crate) fn new(
        modify: &'m Modify,
        guard: Option<&'m dyn Guard>,
        limits: Option<WriteLimits>,
        denied: Option<&'m Filter>,
    ) -> Self {
        Self { modify, guard, limits, found: Vec::new(), least: None, bytes: 0, denied, hidden: None }
    }

    /// Takes a candidate, which matches or not.
    ///
    /// # Errors
    /// Where the filter cannot be computed, or the targets are more than the write may change.
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
                // Of equal ones the first counts.
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

    /// The targets, in the order in which they are changed.
    ///
    /// # Errors
    /// The refusal of a hidden document, where there is no other.
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

/// The error of a write that others were faster than.
pub(crate) fn conflict() -> Error {
    let message = "the documents were changed by others again and again; nothing was written".to_owned();
    Error::Query(query::Error { code: ErrorCode::WriteConflict, message })
}

/// True for [`conflict`].
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Query(error) if error.code == ErrorCode::WriteConflict)
}
