//! Writes refreshed access tokens and custom data into the session file: after a delay, all users
//! in one write.
//!
//! A refresh itself writes nothing, because everything that must survive is in the file since the
//! log-in.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, TryLockError},
    time::{Duration, Instant},
};

use super::lock;
use crate::{
    Error, Handle, Result, UserState,
    session_file::{Kept, LOCK_PATIENCE, SessionFile},
    state::{ClientState, User},
};

/// Time between a refresh and the write of its snapshot.
const WRITE_DELAY: Duration = Duration::from_secs(1);

/// Time between two attempts to begin a write while another one is pending.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The snapshots of an app's users that the session file does not have yet.
#[derive(Debug)]
pub(super) struct Snapshots {
    file: Arc<SessionFile>,
    state: Arc<Mutex<ClientState>>,
    unwritten: Mutex<Unwritten>,
    /// Held during a write, so that a caller of [`write`](Self::write) waits for a pending one.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Unwritten {
    users: HashSet<Handle>,
    is_scheduled: bool,
}

impl Snapshots {
    pub(super) fn new(file: Arc<SessionFile>, state: Arc<Mutex<ClientState>>) -> Arc<Self> {
        Arc::new(Self { file, state, unwritten: Mutex::default(), writing: Mutex::default() })
    }

    /// Schedules the write of a user's snapshot. Must be called within a Tokio runtime.
    pub(super) fn write_later(self: &Arc<Self>, handle: Handle) {
        {
            let mut unwritten = lock(&self.unwritten);
            unwritten.users.insert(handle);
            if std::mem::replace(&mut unwritten.is_scheduled, true) {
                return;
            }
        }
        let snapshots = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(WRITE_DELAY).await;
            // A dropped app has already written its snapshots.
            if let Some(snapshots) = snapshots.upgrade() {
                // A failed write is repeated after the next refresh, and when the app closes.
                tokio::task::spawn_blocking(move || snapshots.write(LOCK_PATIENCE));
            }
        });
    }

    /// Writes the snapshots that the file does not have yet. Waits up to `patience` for a pending
    /// write and for other processes that change the file.
    ///
    /// # Errors
    /// If the file cannot be read or written in this time; the snapshots then remain unwritten.
    pub(super) fn write(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let _writing = loop {
            match self.writing.try_lock() {
                Ok(writing) => break writing,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY_INTERVAL),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::custom("the session file is being written; the pending changes are not in it"));
                }
            }
        };
        let users = {
            let mut unwritten = lock(&self.unwritten);
            unwritten.is_scheduled = false;
            std::mem::take(&mut unwritten.users)
        };
        if users.is_empty() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let written = self.file.update_existing(left, |kept| merge(&lock(&self.state), &users, kept));
        if written.is_err() {
            lock(&self.unwritten).users.extend(users);
        }
        written
    }

    /// Writes the snapshots of a process that ends like [`write`](Self::write), and gives them up
    /// if that takes too long, so that nothing waits for them again.
    pub(super) fn write_last(&self, patience: Duration) {
        let begun = Instant::now();
        if self.write(patience).is_err() && begun.elapsed() >= patience {
            lock(&self.unwritten).users.clear();
        }
    }
}

/// Puts the snapshots of users into the contents of the file. Returns true if that changes
/// anything.
fn merge(state: &ClientState, users: &HashSet<Handle>, kept: &mut Kept) -> bool {
    let fresh: HashMap<&str, &User> = users
        .iter()
        .filter_map(|handle| state.get(*handle).ok())
        .filter(|user| user.state == UserState::LoggedIn)
        .map(|user| (user.id.as_str(), user))
        .collect();
    let mut is_changed = false;
    for old in &mut kept.users {
        let Some(user) = fresh.get(old.id.as_str()) else { continue };
        // Another process may have logged the user out, or in again.
        let is_same_session =
            old.state == UserState::LoggedIn && old.refresh_token.expose() == user.refresh_token.expose();
        let is_written = old.access_token.expose() == user.access_token.expose() && old.custom_data == user.custom_data;
        if is_same_session && !is_written {
            old.access_token = user.access_token.clone();
            old.custom_data.clone_from(&user.custom_data);
            is_changed = true;
        }
    }
    is_changed
}
