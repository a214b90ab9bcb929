//! Sessions for retryable write commands.
//!
//! The server carries out a write once for each session and transaction number. The driver counts the numbers of its own
//! writes in each of its sessions, and cannot be told of numbers that were used beside it. A session that was numbered
//! here must therefore not return to the driver's pool while the server still knows it: the server would reject the
//! driver's next write in it, whose number is lower.

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

/// The first transaction number, above all that the driver counts to. A new session may be one in which the driver has
/// written before.
const FIRST_NUMBER: i64 = 1 << 40;

/// The sessions of a client in which write commands are numbered: as many as operations have been admitted at once.
pub(super) struct NumberedSessions {
    next: AtomicI64,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    /// Sessions for the next commands; the one that was used last is the last.
    usable: Vec<Parked>,
    /// Sessions that are kept until the server has forgotten them: idle for too long, or with a command whose end is
    /// unknown. The driver discards a session that is dropped after that.
    retired: Vec<Parked>,
}

struct Parked {
    session: ClientSession,
    since: Instant,
}

impl NumberedSessions {
    pub(super) fn new() -> Self {
        Self { next: AtomicI64::new(FIRST_NUMBER), pool: Mutex::default() }
    }

    /// A session for one write, and the number of the write. `timeout` is the time after which the server forgets an
    /// idle session; `start` makes a new session if there is none.
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

    fn take(&self, timeout: Duration) -> Option<ClientSession> {
        let mut pool = lock(&self.pool);
        let Pool { usable, retired } = &mut *pool;
        // Well before the timeout: the server must still know the session when a write is sent for the second time.
        let is_old = |parked: &&Parked| parked.since.elapsed() >= timeout / 3 * 2;
        let old = usable.iter().take_while(is_old).count();
        retired.extend(usable.drain(..old));
        // The server takes some time to forget what has expired.
        retired.retain(|parked| parked.since.elapsed() < timeout * 2);
        usable.pop().map(|parked| parked.session)
    }

    /// Drops all sessions, when their client is shut down.
    pub(super) fn clear(&self) {
        *lock(&self.pool) = Pool::default();
    }
}

/// A session for one write command.
pub(super) struct NumberedSession<'s> {
    sessions: &'s NumberedSessions,
    /// Nothing only while it is dropped.
    pub(super) session: Option<ClientSession>,
    /// The transaction number of the command.
    pub(super) number: i64,
    /// True while a command is under way; it stays true if the caller gives up.
    is_busy: bool,
    /// True if an answer was lost.
    is_lost: bool,
}

impl NumberedSession<'_> {
    /// Notes that a command is sent.
    pub(super) fn begin(&mut self) {
        self.is_busy = true;
    }

    /// Notes that a command has ended, with an answer or with the loss of its connection.
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
