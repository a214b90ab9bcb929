//! The cache of recently confirmed sessions, and the pending reads that confirm sessions.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bson::oid::ObjectId;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use quick_cache::sync::Cache;

use super::sessions::Caller;
use crate::Result;

/// Time in milliseconds for which a read confirms a session or a user, counted from when the read
/// was sent. A request 5 s after the response to a log-out therefore never relies on a read from
/// before the log-out.
pub(super) const SESSION_CACHE_TTL: i64 = 4_000;

/// Time in milliseconds for which a confirmed session is assumed to be open.
const KNOWN_FOR: i64 = 60_000;

/// True if a read sent at `at` confirms a request made at `now`, both in milliseconds since the
/// Unix epoch.
pub(super) fn is_recent(at: i64, now: i64) -> bool {
    (0..SESSION_CACHE_TTL).contains(&now.saturating_sub(at))
}

/// A caller whose session was open and whose user was enabled at the time `at`.
#[derive(Debug, Clone)]
pub(crate) struct CachedSession {
    pub(crate) caller: Caller,
    /// The time at which the confirming read was sent, in milliseconds since the Unix epoch.
    pub(crate) at: i64,
}

/// The session and the user that a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) session_id: ObjectId,
    pub(super) user_id: ObjectId,
}

type Answer = BoxFuture<'static, Result<CachedSession>>;

/// A pending read. It is registered until it ends, is replaced or invalidated, or until all
/// requests that wait for it have been dropped.
struct Read {
    number: u64,
    at: i64,
    answer: WeakShared<Answer>,
}

/// Confirmed sessions. Concurrent requests of one session share a read.
pub(super) struct Confirmations {
    confirmed: Cache<ObjectId, CachedSession>,
    /// The last times at which sessions were open, in milliseconds since the Unix epoch. These
    /// times alone authorize no request.
    known: Cache<ObjectId, i64>,
    reads: Mutex<HashMap<Key, Read>>,
    count: AtomicU64,
}

impl Confirmations {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            confirmed: Cache::new(capacity),
            known: Cache::new(capacity),
            reads: Mutex::default(),
            count: AtomicU64::new(0),
        }
    }

    /// Returns the session from the cache, or the result of `read`.
    ///
    /// A request joins a pending read that was sent less than [`SESSION_CACHE_TTL`] ago. The age
    /// of a result counts from when the read was sent, because a slow database may have read the
    /// session long before it responds.
    ///
    /// # Errors
    /// The errors of `read`.
    pub(super) async fn confirm<F>(
        self: &Arc<Self>,
        key: Key,
        now: i64,
        read: impl FnOnce() -> F,
    ) -> Result<CachedSession>
    where
        F: Future<Output = Result<Caller>> + Send + 'static,
    {
        if let Some(confirmed) = self.confirmed.get(&key.session_id)
            && confirmed.caller.user_id == key.user_id
            && is_recent(confirmed.at, now)
        {
            return Ok(confirmed);
        }
        self.join(key, now, read).await
    }

    fn join<F>(self: &Arc<Self>, key: Key, now: i64, read: impl FnOnce() -> F) -> Shared<Answer>
    where
        F: Future<Output = Result<Caller>> + Send + 'static,
    {
        let mut reads = self.lock();
        let recent = reads.get(&key).filter(|read| is_recent(read.at, now));
        if let Some(answer) = recent.and_then(|read| read.answer.upgrade()) {
            return answer;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let registered = Registered { confirmations: Arc::clone(self), key, number };
        let answer = read();
        let answer = async move {
            let caller = answer.await.inspect_err(|error| {
                if error.is_invalid_session() {
                    registered.confirmations.confirmed.remove(&key.session_id);
                    registered.confirmations.known.remove(&key.session_id);
                }
            })?;
            let confirmed = CachedSession { caller, at: now };
            registered.note(&confirmed);
            Ok(confirmed)
        };
        let answer = answer.boxed().shared();
        if let Some(weak) = answer.downgrade() {
            reads.insert(key, Read { number, at: now, answer: weak });
        }
        answer
    }

    /// True if a session was open within the last minute, and has not been found closed since.
    pub(super) fn is_known(&self, session_id: ObjectId, now: i64) -> bool {
        self.known.get(&session_id).is_some_and(|at| (0..KNOWN_FOR).contains(&now.saturating_sub(at)))
    }

    /// Records that a session was open.
    pub(super) fn note_known(&self, session_id: ObjectId, now: i64) {
        self.known.insert(session_id, now);
    }

    /// Removes a session that ends on this node. Invalidates a pending read of it: its result is
    /// not cached, and later requests start another read.
    pub(super) fn forget(&self, key: Key) {
        self.lock().remove(&key);
        self.confirmed.remove(&key.session_id);
        self.known.remove(&key.session_id);
    }

    /// Removes all sessions of a user, as [`Self::forget`] does.
    pub(super) fn forget_user(&self, user_id: ObjectId) {
        self.lock().retain(|key, _| key.user_id != user_id);
        self.confirmed.retain(|session_id, confirmed| {
            let stays = confirmed.caller.user_id != user_id;
            if !stays {
                self.known.remove(session_id);
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Read>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registration of a pending read. Dropping it removes the read.
struct Registered {
    confirmations: Arc<Confirmations>,
    key: Key,
    number: u64,
}

impl Registered {
    /// Caches the result, unless the read was invalidated or replaced by a newer one.
    fn note(&self, confirmed: &CachedSession) {
        // Under the lock, so that an invalidation either finds the result in the cache or prevents
        // it from being cached.
        let reads = self.confirmations.lock();
        if reads.get(&self.key).is_some_and(|read| read.number == self.number) {
            self.confirmations.confirmed.insert(self.key.session_id, confirmed.clone());
            self.confirmations.note_known(self.key.session_id, confirmed.at);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut reads = self.confirmations.lock();
        if reads.get(&self.key).is_some_and(|read| read.number == self.number) {
            reads.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::{FutureExt, future::join_all};
    use tokio::sync::oneshot;

    use super::*;
    use crate::Error;

    struct World {
        confirmations: Arc<Confirmations>,
        key: Key,
        reads: AtomicUsize,
    }

    impl World {
        fn new() -> Self {
            let key = Key { session_id: ObjectId::new(), user_id: ObjectId::new() };
            Self { confirmations: Arc::new(Confirmations::new(100)), key, reads: AtomicUsize::new(0) }
        }

        /// A request at the time `now`. If it starts a read, `answer` is the result.
        fn request(&self, now: i64, answer: oneshot::Receiver<bool>) -> impl Future<Output = Result<CachedSession>> {
            let Key { session_id, user_id } = self.key;
            self.confirmations.confirm(self.key, now, move || {
                self.reads.fetch_add(1, Ordering::Relaxed);
                async move {
                    match answer.await {
                        Ok(true) => Ok(Caller { user_id, session_id, device_id: String::new(), needs_touch: false }),
                        _ => Err(Error::invalid_session("ended")),
                    }
                }
            })
        }

        /// A request at the time `now`. If it starts a read, the read completes immediately.
        async fn answered(&self, now: i64, is_open: bool) -> Result<i64> {
            let (send, answer) = oneshot::channel();
            send.send(is_open).unwrap();
            self.request(now, answer).await.map(|confirmed| confirmed.at)
        }

        fn reads(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }

        fn under_way(&self) -> usize {
            self.confirmations.lock().len()
        }
    }

    #[tokio::test]
    async fn concurrent_requests_share_a_read_whose_age_counts_from_its_start() {
        let world = World::new();
        let (send, answer) = oneshot::channel();
        let mut first = Box::pin(world.request(1_000, answer));
        assert!(first.as_mut().now_or_never().is_none());
        let others = join_all((0..50).map(|_| world.answered(4_999, false)));
        let answering = async { send.send(true).unwrap() };
        let (first, others, ()) = tokio::join!(first, others, answering);
        assert_eq!(first.unwrap().at, 1_000);
        assert!(others.into_iter().all(|other| other == Ok(1_000)));
        assert_eq!((world.reads(), world.under_way()), (1, 0));

        assert_eq!(world.answered(4_999, false).await, Ok(1_000), "from the cache");
        assert!(world.answered(5_000, false).await.is_err(), "4 s after it was sent, not after the answer");
        assert_eq!(world.reads(), 2);
    }

    #[tokio::test]
    async fn a_request_does_not_join_a_read_that_was_sent_too_long_ago() {
        let world = World::new();
        let (send, answer) = oneshot::channel();
        let mut slow = Box::pin(world.request(0, answer));
        assert!(slow.as_mut().now_or_never().is_none());
        assert_eq!(world.answered(4_000, true).await, Ok(4_000));
        send.send(true).unwrap();
        assert_eq!(slow.await.unwrap().at, 0, "a waiting request gets its result");
        assert_eq!(world.answered(7_999, false).await, Ok(4_000), "the older result does not replace the newer one");
        assert!(world.answered(8_000, false).await.is_err());
    }

    #[tokio::test]
    async fn ending_a_session_invalidates_reads_under_way() {
        let forgets: [fn(&World); 2] =
            [|world| world.confirmations.forget(world.key), |world| world.confirmations.forget_user(world.key.user_id)];
        for forget in forgets {
            let world = World::new();
            assert_eq!(world.answered(0, true).await, Ok(0));
            let (send, answer) = oneshot::channel();
            let mut before = Box::pin(world.request(4_000, answer));
            assert!(before.as_mut().now_or_never().is_none());
            forget(&world);
            assert!(world.answered(4_001, false).await.is_err(), "a later request does not join it");
            send.send(true).unwrap();
            assert!(before.await.is_ok());
            assert!(world.answered(4_002, false).await.is_err(), "its result is not cached");

            assert_eq!(world.answered(4_003, true).await, Ok(4_003));
            forget(&world);
            assert!(world.answered(4_004, false).await.is_err(), "an earlier result is not cached either");
        }
    }

    #[tokio::test]
    async fn failed_and_abandoned_reads_leave_nothing_behind() {
        let world = World::new();
        assert!(world.answered(0, false).await.is_err());
        let (_send, answer) = oneshot::channel();
        let mut abandoned = Box::pin(world.request(0, answer));
        assert!(abandoned.as_mut().now_or_never().is_none());
        assert_eq!(world.under_way(), 1);
        drop(abandoned);
        assert_eq!(world.under_way(), 0);
        assert_eq!(world.answered(1, true).await, Ok(1));
        assert_eq!(world.reads(), 3);
    }
}
