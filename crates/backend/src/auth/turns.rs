//! Requests that take turns, such as log-ins that would create the same user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

use crate::{Error, Result};

/// The maximum number of requests that wait for the same turn.
const MOST_WAITING: usize = 64;

/// Seconds after which a client should try again if too many requests wait.
const RETRY_AFTER: u64 = 2;

/// The turns of this process, by name. One that is not used is removed.
#[derive(Debug, Default, Clone)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Arc<Lock<()>>>>>);

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    all: Turns,
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Lock<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other request has the turn `name`.
    ///
    /// # Errors
    /// An error to try again later if too many requests wait for it, or it takes longer than
    /// `limit`.
    pub(super) async fn enter(&self, name: String, limit: Duration) -> Result<Turn> {
        let full = || Error::retry_later("too many requests for the same user; try again later", RETRY_AFTER);
        let lock = {
            let mut all = self.all();
            let lock = all.entry(name.clone()).or_default();
            if Arc::strong_count(lock) > MOST_WAITING {
                return Err(full());
            }
            Arc::clone(lock)
        };
        // Made before the wait, so that a request which ends in the meantime leaves nothing.
        let mut turn = Turn { all: self.clone(), name, guard: None };
        turn.guard = Some(tokio::time::timeout(limit, lock.lock_owned()).await.map_err(|_| full())?);
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.all.all();
        self.guard = None;
        if all.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_turn_waits_for_the_one_before_and_leaves_nothing() {
        let turns = Turns::default();
        let first = turns.enter("a".to_owned(), LONG).await.unwrap();
        let other = turns.enter("b".to_owned(), LONG).await.unwrap();
        assert!(turns.enter("a".to_owned(), Duration::from_millis(20)).await.is_err());
        let again = turns.clone();
        let next = tokio::spawn(async move { again.enter("a".to_owned(), LONG).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!next.is_finished());
        drop(first);
        next.await.unwrap().unwrap();
        drop(other);
        assert!(turns.all().is_empty());
    }

    #[tokio::test]
    async fn the_number_of_requests_that_wait_is_bounded() {
        let turns = Turns::default();
        let first = turns.enter("a".to_owned(), LONG).await.unwrap();
        let waiting = (0..MOST_WAITING + 10).map(|_| turns.enter("a".to_owned(), Duration::from_millis(50)));
        let refused = futures_util::future::join_all(waiting).await;
        assert!(refused.iter().all(|turn| turn.as_ref().unwrap_err().retry_after == Some(RETRY_AFTER)));
        drop((first, refused));
        assert!(turns.all().is_empty());
    }
}
