//! Sessions for retryable write commands.
//!
//! The server executes a write once for each session and transaction number. The driver counts the
//! numbers of its own writes in each of its sessions, and does not learn of numbers that other
//! code has used. A session with numbers from this module must therefore not return to the
//! driver's pool while the server still knows it. Otherwise the server would reject the driver's
//! next write in that session, because its number is lower.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::ClientSession;

use super::connect::lock;
use crate::Result;

/// The first transaction number, above all numbers that the driver reaches. A new session may be
/// one in which the driver has written before.
const FIRST_NUMBER: i64 = 1 << 40;

/// The sessions of a client for numbered write commands. There are as many as operations have been
/// admitted at once.
pub(super) struct NumberedSessions {
    next: AtomicI64,
    pool: Mutex<Pool>,
}

/// The sessions that no command uses at the moment.
#[derive(Default)]
struct Pool {
    /// Sessions for the next commands; the most recently used one is last.
    usable: Vec<Parked>,
    /// Sessions that are kept until the server has forgotten them: idle for too long, or with a
    /// command whose result is unknown. The driver discards a session that is dropped after that.
    retired: Vec<Parked>,
}

/// A session that no command uses, and the time since then.
struct Parked {
    session: ClientSession,
    since: Instant,
}

impl NumberedSessions {
    pub(super) fn new() -> Self {
        Self { next: AtomicI64::new(FIRST_NUMBER), pool: Mutex::default() }
    }

    /// Returns a session for one write, and the transaction number of the write. `timeout` is the
    /// time after which the server forgets an idle session; `start` opens a new session if the
    /// pool is empty.
    pub(super) async fn lease(
        &self,
        timeout: Duration,
        start: impl Future<Output = Result<ClientSession>>,
    ) -> Result<NumberedSession<'_>> {
        let session = match self.take(timeout) {
            Some(session) => session,
            None => start.await?,
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(NumberedSession { sessions: self, session: Some(session), number, is_busy: false, is_lost: false })
    }

    /// Takes the most recently used session, and retires the sessions that have been idle for too
    /// long.
    fn take(&self, timeout: Duration) -> Option<ClientSession> {
        let mut pool = lock(&self.pool);
        let Pool { usable, retired } = &mut *pool;
        // Well before the timeout: the server must still know the session when a write is retried.
        let is_old = |parked: &&Parked| parked.since.elapsed() >= timeout / 3 * 2;
        let old = usable.iter().take_while(is_old).count();
        retired.extend(usable.drain(..old));
        // The server takes some time to remove expired sessions.
        retired.retain(|parked| parked.since.elapsed() < timeout * 2);
        usable.pop().map(|parked| parked.session)
    }

    /// Drops all sessions. Called when their client shuts down.
    pub(super) fn clear(&self) {
        *lock(&self.pool) = Pool::default();
    }
}

/// A session that is leased for one write command.
pub(super) struct NumberedSession<'s> {
    sessions: &'s NumberedSessions,
    /// `None` only while the lease is being dropped.
    pub(super) session: Option<ClientSession>,
    /// The transaction number of the command.
    pub(super) number: i64,
    /// True while a command is running; stays true if the caller is dropped meanwhile.
    is_busy: bool,
    /// True if a reply was lost.
    is_lost: bool,
}

impl NumberedSession<'_> {
    /// Notes that a command is sent.
    pub(super) fn begin(&mut self) {
        self.is_busy = true;
    }

    /// Notes that a command has ended: with a reply, or with the loss of its connection.
    pub(super) fn end(&mut self, is_lost: bool) {
        self.is_busy = false;
        self.is_lost |= is_lost;
    }
}

impl Drop for NumberedSession<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let parked = Parked { session, since: Instant::now() };
        let mut pool = lock(&self.sessions.pool);
        let is_usable = !self.is_busy && !self.is_lost;
        if is_usable { pool.usable.push(parked) } else { pool.retired.push(parked) }
    }
}
