//! Reloads the definition when its files change, for development.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Mutex as AsyncMutex;

use crate::{
    Result, Secrets,
    context::{Context, Current},
    definition::{Definition, DefinitionError, Fingerprint},
};

/// The time in which the files must not change before they are read.
const QUIET: Duration = Duration::from_millis(150);

/// The time after which a definition is put in force again that could not be, for example because
/// a store was not available.
const RETRY: Duration = Duration::from_secs(2);

/// The state of the files of a definition, as the last calls found it.
#[derive(Debug)]
pub(crate) struct Reload {
    files: Mutex<Seen>,
    /// One definition is put in force at a time. The number is that of the last one.
    applying: AsyncMutex<u64>,
}

#[derive(Debug)]
struct Seen {
    /// The files that were read last.
    read: Fingerprint,
    /// The files at the last call, if they differ from those that were read, and the time since
    /// which they are so.
    changed: Option<(Fingerprint, Instant)>,
    /// The number of times that the definition was read.
    readings: u64,
    /// The time before which the files are not read.
    paused_until: Option<Instant>,
}

impl Reload {
    pub(crate) fn new(definition: &Definition) -> Self {
        let seen = Seen { read: definition.fingerprint, changed: None, readings: 0, paused_until: None };
        Self { files: Mutex::new(seen), applying: AsyncMutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the definition if its files have changed since they were read, but not in the last
    /// 150 ms, however many callers look at them.
    pub(crate) fn poll(&self, directory: &Path, secrets: &Secrets) -> Result<Option<Definition>, DefinitionError> {
        let mut seen = self.seen();
        let now = Fingerprint::of(directory);
        if now == seen.read {
            seen.changed = None;
            return Ok(None);
        }
        let since = match seen.changed {
            Some((files, since)) if files == now => since,
            _ => seen.changed.insert((now, Instant::now())).1,
        };
        if since.elapsed() < QUIET || seen.paused_until.is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        let read = Definition::load(directory, secrets);
        // A file that changed in the meantime may have been read in part.
        if Fingerprint::of(directory) != now {
            return Ok(None);
        }
        let reading = seen.readings + 1;
        *seen = Seen { read: now, changed: None, readings: reading, paused_until: None };
        read.map(|definition| Some(Definition { reading, ..definition }))
    }

    /// Puts a definition in force, unless a newer one is. Returns the changes that need a restart.
    pub(crate) async fn apply(&self, current: &Current, definition: Definition) -> Result<Vec<String>> {
        let mut last = self.applying.lock().await;
        let (reading, files) = (definition.reading, definition.fingerprint);
        if reading > 0 && reading < *last {
            return Ok(Vec::new());
        }
        let applied = Self::replace(current, definition).await;
        match &applied {
            Ok(_) => *last = reading.max(*last),
            Err(error) if error.is_transient => self.try_again(files),
            Err(_) => {}
        }
        applied
    }

    async fn replace(current: &Current, definition: Definition) -> Result<Vec<String>> {
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

    /// Lets the next calls of [`poll`](Self::poll) read files again that were read before.
    fn try_again(&self, files: Fingerprint) {
        let mut seen = self.seen();
        if seen.read == files {
            seen.read = Fingerprint::default();
            seen.paused_until = Some(Instant::now() + RETRY);
        }
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

#[cfg(test)]
mod tests;
