//! Writes that are computed before the writer's turn, and written on the condition that nothing has changed meanwhile.
//!
//! The writer thread has time for small work only. A write that takes more is planned on a reader's snapshot; the writer
//! then compares each document with the one that the plan was made from, byte by byte, and writes.

use bson::raw::RawDocumentBuf;
use query::Environment;

use super::{
    changes,
    connection::Session,
    read::{document, sees},
    write::{self, Failure, Place},
};
use crate::{
    ChangeKind, Modify, Namespace, Operation, Outcome, Result, Write,
    guarded::{self, Planned},
};

/// A write that is planned and not carried out yet.
pub(super) struct Conditional {
    namespace: Namespace,
    work: Work,
    /// The answer, but for what the writer counts.
    outcome: Outcome,
}

enum Work {
    /// Documents to be inserted.
    Insert(Vec<RawDocumentBuf>),
    /// Documents to be changed: their places, what they must be, and what becomes of them.
    Change(ChangeKind, Vec<(i64, RawDocumentBuf, Planned)>),
    /// A document to be inserted if nothing that matches has come since the newest change.
    Upsert(RawDocumentBuf, i64),
}

impl Conditional {
    /// The answer, if there is nothing to write.
    pub(super) fn answer(&self) -> Option<&Outcome> {
        let is_unchanged = |(_, _, planned): &(i64, RawDocumentBuf, Planned)| matches!(planned, Planned::Unchanged(_));
        match &self.work {
            Work::Change(_, changes) if changes.iter().all(is_unchanged) => Some(&self.outcome),
            _ => None,
        }
    }
}

/// Plans a write on the reader's snapshot.
///
/// # Errors
/// The guard's refusal, what the update does not allow, and limits that are exceeded.
pub(super) fn plan(session: Option<&mut Session>, environment: &dyn Environment, write: &Write) -> Result<Conditional> {
    let Write { namespace, operation, guard, .. } = write;
    match operation {
        Operation::Insert(documents) => {
            let work = Work::Insert(guarded::prepared(documents, guard.as_deref(), environment)?);
            Ok(Conditional { namespace: namespace.clone(), work, outcome: Outcome::default() })
        }
        Operation::Modify(modify) => match session {
            Some(session) => session.at_one_moment(|session| plan_change(Some(session), environment, write, modify)),
            None => plan_change(None, environment, write, modify),
        },
    }
}

fn plan_change(
    session: Option<&mut Session>,
    environment: &dyn Environment,
    write: &Write,
    modify: &Modify,
) -> Result<Conditional> {
    let Write { namespace, guard, limits, .. } = write;
    let guard = guard.as_deref();
    let (mut newest, mut targets) = (0, Vec::new());
    if let Some(session) = session {
        session.catalog.refresh(&session.connection)?;
        newest = changes::newest(&session.connection)?;
        if let Some(collection) = session.catalog.collection(namespace) {
            targets = write::targets(&session.connection, &collection, modify, guard, *limits)?;
        }
    }
    let mut outcome = Outcome { matched: targets.len() as u64, ..Outcome::default() };
    if targets.is_empty()
        && let Some(made) = guarded::upserted_document(modify, guard, environment)?
    {
        guarded::note_upserted(&mut outcome, modify, guard, made.clone())?;
        return Ok(Conditional { namespace: namespace.clone(), work: Work::Upsert(made, newest), outcome });
    }
    let mut bytes = 0;
    let mut planned_changes = Vec::with_capacity(targets.len());
    for (seq, before) in targets {
        let planned = guarded::plan(modify, guard, &before, environment)?;
        if let Some(limits) = limits {
            bytes += planned.after().map_or(0, |after| after.as_bytes().len());
            limits.check(1, bytes)?;
        }
        planned_changes.push((seq, before, planned));
    }
    // One document at most is returned: of several, none is.
    if let Some((_, before, planned)) = planned_changes.last() {
        guarded::note_changed(&mut outcome, modify, guard, before.clone(), planned.after())?;
    }
    let work = Work::Change(write::kind_of(modify), planned_changes);
    Ok(Conditional { namespace: namespace.clone(), work, outcome })
}

/// Carries a planned write out, inside the writer's transaction.
///
/// # Errors
/// `WriteConflict` (112) if something has changed since it was planned; then nothing is written.
pub(super) fn carry_out(
    session: &mut Session,
    environment: &dyn Environment,
    conditional: &Conditional,
    write: &Write,
) -> Result<Vec<Outcome>, Failure> {
    let Conditional { namespace, work, outcome } = conditional;
    let mut outcome = outcome.clone();
    match work {
        Work::Insert(documents) => outcome = write::insert(session, environment, namespace, documents, true)?,
        Work::Upsert(made, newest) => {
            if has_match_since(session, namespace, *newest, write)? {
                return Err(guarded::conflict().into());
            }
            write::insert(session, environment, namespace, std::slice::from_ref(made), false)?;
        }
        Work::Change(kind, changes) => {
            let collection = session.catalog.collection(namespace).ok_or_else(guarded::conflict)?;
            let place = Place::new(session, &collection, environment);
            for (seq, before, planned) in changes {
                if !place.still_is(*seq, before)? {
                    return Err(guarded::conflict().into());
                }
                place.carry_out(*seq, before, planned, *kind, &mut outcome)?;
            }
        }
    }
    Ok(vec![outcome])
}

/// True if something that an upsert would have changed instead has come into a collection since a change: a document that
/// matches and that the caller may see. Also true if the changes are not kept that would tell.
fn has_match_since(session: &Session, namespace: &Namespace, newest: i64, write: &Write) -> Result<bool> {
    let Some(collection) = session.catalog.collection(namespace) else { return Ok(false) };
    if !collection.is_watched || !changes::are_kept_after(&session.connection, newest)? {
        return Ok(true);
    }
    let Operation::Modify(modify) = &write.operation else { return Ok(false) };
    // Of a deletion there is nothing left to match.
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
