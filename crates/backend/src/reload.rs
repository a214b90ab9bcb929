//! Reloads the definition when its files change, for development.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Mutex as AsyncMutex;

use crate::{
    Result, Secrets,
    context::{Context, Current},
    definition::{Definition, DefinitionError, Fingerprint},
};

/// The state of the files of a definition, as the last calls found it.
#[derive(Debug)]
pub(crate) struct Reload {
    files: Mutex<Seen>,
    /// One definition is put in force at a time.
    applying: AsyncMutex<()>,
}

#[derive(Debug)]
struct Seen {
    /// The files that were read last.
    read: Fingerprint,
    /// The files at the last call, if they differ from those that were read.
    changed: Option<Fingerprint>,
}

impl Reload {
    pub(crate) fn new(definition: &Definition) -> Self {
        let seen = Seen { read: definition.fingerprint, changed: None };
        Self { files: Mutex::new(seen), applying: AsyncMutex::default() }
    }

    /// Reads the definition if its files have changed since they were read, but not since the last
    /// call.
    pub(crate) fn poll(&self, directory: &Path, secrets: &Secrets) -> Result<Option<Definition>, DefinitionError> {
        let mut seen = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Fingerprint::of(directory);
        if now == seen.read {
            seen.changed = None;
            return Ok(None);
        }
        if seen.changed.replace(now) != Some(now) {
            return Ok(None);
        }
        let read = Definition::load(directory, secrets);
        // A file that changed in the meantime may have been read in part.
        if Fingerprint::of(directory) != now {
            return Ok(None);
        }
        *seen = Seen { read: now, changed: None };
        read.map(Some)
    }

    /// Puts a definition in force. Returns the changes that need a restart.
    pub(crate) async fn apply(&self, current: &Current, definition: Definition) -> Result<Vec<String>> {
        let _applying = self.applying.lock().await;
        let before = current.get();
        let next = Arc::new(before.with_definition(definition)?);
        // Otherwise the first request creates the indexes, also those of the definition before.
        if before.is_prepared() {
            next.prepare().await?;
        }
        let notes = restarts(&before, &next);
        current.replace(next);
        Ok(notes)
    }
}

/// Returns the differences of two definitions that only a restart puts in force.
fn restarts(before: &Context, next: &Context) -> Vec<String> {
    let mut notes = Vec::new();
    let (old, new) = (&before.definition.app_id, &next.definition.app_id);
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        notes.push(format!("the app's id changed from '{old}' to '{new}', which needs a restart"));
    }
    notes
}
