//! The commit of a transaction: one conditional write on the writer thread, which is applied only
//! if no written document has changed since the transaction's snapshot.

use std::sync::Arc;

use query::Environment;

use super::{
    catalog::Collection,
    connection::StoreConnection,
    effects::Effects,
    overlay::{Overlay, WrittenDocument},
    write::{Failure, Place},
};
use crate::{ChangeKind, Error, Outcome, Result, guarded, transaction};

/// The writes of a transaction, with their effects, ready for the writer thread.
pub(super) struct Commit {
    /// The written collections of the snapshot.
    collections: Vec<Collection>,
    /// The changes in the order in which the transaction has made them.
    changes: Vec<CommittedChange>,
}

struct CommittedChange {
    /// The position of the collection in [`Commit::collections`].
    collection: usize,
    seq: i64,
    document: WrittenDocument,
    /// The effects; `None` if the collection did not exist in the snapshot.
    effects: Option<Effects>,
}

impl Commit {
    /// Computes the effects of the writes.
    ///
    /// # Errors
    /// If an index cannot hold a document.
    pub(super) fn new(overlay: Overlay) -> Result<Self> {
        let (mut collections, mut changes) = (Vec::new(), Vec::new());
        for (collection, documents) in overlay.into_changes() {
            for (seq, document) in documents {
                let WrittenDocument { kind, before, after, .. } = &document;
                let effects = || Effects::new(&collection, *kind, before.as_deref(), after.as_deref());
                let effects = collection.exists().then(effects).transpose()?;
                changes.push(CommittedChange { collection: collections.len(), seq, document, effects });
            }
            collections.push(collection);
        }
        changes.sort_unstable_by_key(|change| change.document.order);
        Ok(Self { collections, changes })
    }

    /// True if there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.collections.iter().all(Collection::exists)
    }
}

/// Applies the writes of a transaction, inside the writer's transaction.
///
/// # Errors
/// `WriteConflict` (112) if a written document has changed since the snapshot, if another document
/// has the `_id` or a unique key of a new one, or if the indexes have changed.
pub(super) fn carry_out(
    session: &mut StoreConnection,
    environment: &dyn Environment,
    commit: &Commit,
) -> Result<Vec<Outcome>, Failure> {
    apply(session, environment, commit).map_err(|error| match error {
        // The transaction has checked the keys on its snapshot, so another write has taken them.
        Error::DuplicateKey { .. } => transaction::conflict().into(),
        error if guarded::is_conflict(&error) => transaction::conflict().into(),
        error => Failure::from(error),
    })?;
    Ok(Vec::new())
}

fn apply(session: &mut StoreConnection, environment: &dyn Environment, commit: &Commit) -> Result<()> {
    let mut collections: Vec<Arc<Collection>> = Vec::with_capacity(commit.collections.len());
    for collection in &commit.collections {
        collections.push(session.catalog.make_collection(&session.connection, &collection.namespace)?);
    }
    let places: Vec<Place<'_>> =
        collections.iter().map(|collection| Place::new(session, collection, environment)).collect();
    let all = || commit.changes.iter().filter_map(|change| Some((places.get(change.collection)?, change)));
    for (place, CommittedChange { seq, document, .. }) in all() {
        if let Some(before) = &document.before
            && !place.still_is(*seq, before)?
        {
            return Err(transaction::conflict());
        }
    }
    // All old entries are removed before the first new one is added: documents of the transaction
    // may exchange their `_id`s and unique keys.
    for (place, CommittedChange { seq, document, effects, .. }) in all() {
        let WrittenDocument { kind, before: Some(before), after, .. } = document else { continue };
        let effects = place.effects(effects.as_ref(), *kind, Some(before), after.as_deref())?;
        match after {
            None => place.remove(*seq, &effects)?,
            Some(_) => place.remove_entries(*seq, &effects)?,
        }
    }
    for (place, change) in all() {
        add(place, change)?;
    }
    Ok(())
}

/// Stores the new version of a document, and records the change.
fn add(place: &Place<'_>, change: &CommittedChange) -> Result<()> {
    let CommittedChange { seq, document: WrittenDocument { kind, before, after, .. }, effects, .. } = change;
    match (before, after) {
        (None, None) => Ok(()),
        (None, Some(after)) => place.insert(after, effects.as_ref()).map(|_| ()),
        (Some(before), None) => {
            let effects = place.effects(effects.as_ref(), *kind, Some(before), None)?;
            place.record(ChangeKind::Delete, before, &effects)
        }
        // The transaction has changed the document back.
        (Some(before), Some(after)) if before.as_bytes() == after.as_bytes() => Ok(()),
        (Some(before), Some(after)) => {
            let effects = place.effects(effects.as_ref(), *kind, Some(before), Some(after))?;
            place.put(*seq, after, *kind, &effects)
        }
    }
}
