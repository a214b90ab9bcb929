//! Conditional writes: planned on a reader's snapshot, and applied if nothing has changed since.
//!
//! The writer thread has time for small work only. A larger write is planned on another thread.
//! The writer thread then compares each document with the one that the plan was made from, byte by
//! byte, and applies the plan.

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Environment, budget::Held};

use super::{
    catalog::Collection,
    changes,
    connection::StoreConnection,
    documents::{Documents, document, sees},
    effects::Effects,
    write::{self, Failure, Place},
};
use crate::{
    ChangeKind, Error, Guard, Modify, Namespace, Operation, Outcome, Result, Write, WriteLimits,
    guarded::{self, ChangedSize, Planned},
};

/// The maximum number of index entries that a limited write may add and remove, in addition to
/// [`ENTRIES_A_DOCUMENT`] for each document. A larger write would block the writer for too long,
/// and is rejected.
const MOST_ENTRIES: usize = 10_000;

/// See [`MOST_ENTRIES`].
const ENTRIES_A_DOCUMENT: usize = 10;

/// A write that is planned but not applied yet.
pub(super) struct Conditional {
    namespace: Namespace,
    work: Work,
    /// The result, except the counts of the writer.
    outcome: Outcome,
    /// The memory of the plan, charged to the budget.
    _held: Held,
}

enum Work {
    /// Documents to insert, with their effects.
    Insert(Vec<RawDocumentBuf>, Vec<Effects>),
    /// Documents to change.
    Change(ChangeKind, Vec<PlannedChange>),
    /// A document to insert if no match has been added since the newest change of the snapshot.
    Upsert(RawDocumentBuf, Effects, i64),
}

/// The planned change of one document.
struct PlannedChange {
    seq: i64,
    /// The version that must still be stored.
    before: RawDocumentBuf,
    planned: Planned,
    effects: Effects,
}

impl Conditional {
    /// Returns the result, if there is nothing to write.
    pub(super) fn answer(&self) -> Option<&Outcome> {
        let is_unchanged = |change: &PlannedChange| matches!(change.planned, Planned::Unchanged(_));
        match &self.work {
            Work::Change(_, changes) if changes.iter().all(is_unchanged) => Some(&self.outcome),
            _ => None,
        }
    }
}

/// Plans a write on the reader's snapshot.
///
/// # Errors
/// The guard's refusal, the error of the update, or the error of an exceeded limit.
pub(super) fn plan(
    session: Option<&mut StoreConnection>,
    environment: &dyn Environment,
    write: &Write,
) -> Result<Conditional> {
    match session {
        Some(session) => session.at_one_moment(|session| plan_at_once(Some(session), environment, write)),
        None => plan_at_once(None, environment, write),
    }
}

fn plan_at_once(
    mut session: Option<&mut StoreConnection>,
    environment: &dyn Environment,
    write: &Write,
) -> Result<Conditional> {
    let Write { namespace, operation, guard, .. } = write;
    if let Some(session) = &mut session {
        session.catalog.refresh(&session.connection)?;
    }
    // A collection that does not exist yet has no indexes.
    let known = session.as_ref().and_then(|session| session.catalog.collection(namespace));
    let missing = Collection::missing(namespace, true);
    let mut effects = EffectsOf {
        collection: known.as_deref().unwrap_or(&missing),
        write,
        documents: 0,
        entries: 0,
        held: query::budget::hold(0)?,
    };
    match operation {
        Operation::Insert(documents) => {
            let documents = guarded::prepared(documents, guard.as_deref(), environment)?;
            let all = documents.iter().map(|document| effects.of(ChangeKind::Insert, None, Some(document)));
            let all = all.collect::<Result<_>>()?;
            let work = Work::Insert(documents, all);
            effects.into_conditional(work, Outcome::default())
        }
        Operation::Modify(modify) => {
            let newest = session.as_ref().map_or(Ok(0), |session| changes::newest(&session.connection))?;
            let session = session.filter(|_| known.is_some());
            plan_change(session.as_deref(), environment, modify, effects, newest)
        }
    }
}

/// Computes effects, and counts them for the limits of a write.
struct EffectsOf<'w> {
    collection: &'w Collection,
    write: &'w Write,
    documents: usize,
    entries: usize,
    held: Held,
}

impl EffectsOf<'_> {
    fn of(&mut self, kind: ChangeKind, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<Effects> {
        let effects = Effects::new(self.collection, kind, before, after)?;
        self.documents += 1;
        // The entries that a single document loses do not count: a user can delete a document of
        // the operator, however many entries it has.
        self.entries += if self.documents == 1 { effects.added() } else { effects.added() + effects.removed() };
        let documents = [before, after].into_iter().flatten().map(|document| document.as_bytes().len());
        self.held.grow(documents.sum::<usize>() + effects.size())?;
        Ok(effects)
    }

    /// Returns the planned write, if it is within the limits.
    fn into_conditional(self, work: Work, outcome: Outcome) -> Result<Conditional> {
        let limit = MOST_ENTRIES + ENTRIES_A_DOCUMENT * self.documents;
        if self.write.limits.is_some() && self.entries > limit {
            return Err(Error::TooManyEntries { limit });
        }
        Ok(Conditional { namespace: self.write.namespace.clone(), work, outcome, _held: self.held })
    }
}

/// Plans a change; `session` is `None` if the collection does not exist. `newest` is the newest
/// change of the snapshot.
fn plan_change(
    session: Option<&StoreConnection>,
    environment: &dyn Environment,
    modify: &Modify,
    mut effects: EffectsOf<'_>,
    newest: i64,
) -> Result<Conditional> {
    let Write { guard, limits, .. } = effects.write;
    let guard = guard.as_deref();
    let documents = session.map(|session| Documents::stored(&session.connection, effects.collection));
    let planned = plan_modify(documents, environment, modify, guard, *limits)?;
    let PlannedModify { kind, changes, upserted, outcome } = planned;
    if let Some(made) = upserted {
        let of_made = effects.of(ChangeKind::Insert, None, Some(&made))?;
        return effects.into_conditional(Work::Upsert(made, of_made, newest), outcome);
    }
    let mut planned_changes = Vec::with_capacity(changes.len());
    for (seq, before, planned) in changes {
        let effects = match &planned {
            Planned::Unchanged(_) => effects.of(kind, None, None)?,
            planned => effects.of(kind, Some(&before), planned.after().map(|after| &**after))?,
        };
        planned_changes.push(PlannedChange { seq, before, planned, effects });
    }
    effects.into_conditional(Work::Change(kind, planned_changes), outcome)
}

/// The planned change of the documents that a filter matches.
pub(super) struct PlannedModify {
    pub(super) kind: ChangeKind,
    /// The row id, the current version and the change of each target.
    pub(super) changes: Vec<(i64, RawDocumentBuf, Planned)>,
    /// The document to insert, for an upsert without a target.
    pub(super) upserted: Option<RawDocumentBuf>,
    /// The result, except the number of changed documents.
    pub(super) outcome: Outcome,
}

/// Plans a change without making it. `documents` is `None` if the collection does not exist.
///
/// # Errors
/// The guard's refusal, the error of the update, or the error of an exceeded limit.
pub(super) fn plan_modify(
    documents: Option<Documents<'_>>,
    environment: &dyn Environment,
    modify: &Modify,
    guard: Option<&dyn Guard>,
    limits: Option<WriteLimits>,
) -> Result<PlannedModify> {
    let targets = documents.map_or(Ok(Vec::new()), |documents| write::targets(documents, modify, guard, limits))?;
    let mut outcome = Outcome { matched: targets.len() as u64, ..Outcome::default() };
    let mut upserted = None;
    if targets.is_empty() {
        upserted = guarded::upserted_document(modify, guard, environment)?;
        if let Some(made) = &upserted {
            guarded::note_upserted(&mut outcome, modify, guard, made.clone())?;
        }
    }
    let mut size = ChangedSize::new(limits);
    let mut changes = Vec::with_capacity(targets.len());
    for (seq, before) in targets {
        let planned = guarded::plan(modify, guard, &before, environment)?;
        size.add(&planned)?;
        changes.push((seq, before, planned));
    }
    // Only a change of a single document returns one.
    if let Some((_, before, planned)) = changes.last() {
        guarded::note_changed(&mut outcome, modify, guard, before.clone(), planned.after())?;
    }
    Ok(PlannedModify { kind: write::kind_of(modify), changes, upserted, outcome })
}

/// Applies a planned write, inside the writer's transaction.
///
/// # Errors
/// `WriteConflict` (112) if something has changed since the plan was made; nothing is written
/// then.
pub(super) fn carry_out(
    session: &mut StoreConnection,
    environment: &dyn Environment,
    conditional: &Conditional,
    write: &Write,
) -> Result<Vec<Outcome>, Failure> {
    let Conditional { namespace, work, outcome, .. } = conditional;
    let mut outcome = outcome.clone();
    match work {
        Work::Insert(documents, effects) => {
            outcome = write::insert(session, environment, namespace, documents, Some(effects), true)?;
        }
        Work::Upsert(made, effects, newest) => {
            if has_match_since(session, namespace, *newest, write)? {
                return Err(guarded::conflict().into());
            }
            let (made, effects) = (std::slice::from_ref(made), std::slice::from_ref(effects));
            write::insert(session, environment, namespace, made, Some(effects), false)?;
        }
        Work::Change(kind, changes) => {
            let collection = session.catalog.collection(namespace).ok_or_else(guarded::conflict)?;
            let place = Place::new(session, &collection, environment);
            for PlannedChange { seq, before, planned, effects } in changes {
                if !place.still_is(*seq, before)? {
                    return Err(guarded::conflict().into());
                }
                place.carry_out(*seq, before, planned, *kind, Some(effects), &mut outcome)?;
            }
        }
    }
    Ok(vec![outcome])
}

/// True if a change since `newest` has added a document that an upsert would have updated instead:
/// a visible match. Also true if those changes are no longer kept.
fn has_match_since(session: &StoreConnection, namespace: &Namespace, newest: i64, write: &Write) -> Result<bool> {
    let Some(collection) = session.catalog.collection(namespace) else { return Ok(false) };
    if !collection.is_watched || !changes::are_kept_after(&session.connection, newest)? {
        return Ok(true);
    }
    let Operation::Modify(modify) = &write.operation else { return Ok(false) };
    // A deleted document cannot match.
    let sql = "SELECT document FROM changes WHERE id > ?1 AND collection = ?2 AND kind <> ?3";
    let mut statement = session.connection.prepare_cached(sql)?;
    let mut rows = statement.query([newest, collection.id, changes::number(ChangeKind::Delete)])?;
    while let Some(row) = rows.next()? {
        if sees(write.guard.as_deref(), &modify.filter, document(&collection, row.get_ref(0)?)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}
