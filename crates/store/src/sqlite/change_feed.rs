//! The change feed: follows the table of changes for all watchers of a store.
//!
//! While there are watchers, one thread polls for new changes, including those of other processes,
//! and keeps the latest in memory. A watcher reads from memory or, if it is further behind, from
//! the table. So a slow watcher costs nothing but its position, and ends when its next change is
//! no longer kept.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use query::Budget;
use rusqlite::Connection;
use tokio::sync::watch;

use super::{
    Shared, SqliteStore,
    changes::{self, Page},
    connection::StoreConnection,
    lock,
};
use crate::{ChangeEvent, ChangeStream, Error, Namespace, Result, ResumeToken};

/// Interval between two polls for changes of other processes.
const POLL: Duration = Duration::from_millis(10);

/// Limits of the changes in memory: number and bytes.
const KEPT: usize = 4096;
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// Limits of the changes that a stream returns at once, in changes and (approximately) in bytes:
/// streams hold them until their clients have read.
const BATCH: usize = 500;
pub(super) const BATCH_BYTES: usize = 128 * 1024;

/// Time that the thread waits before it retries after an error.
const RETRY: Duration = Duration::from_millis(200);

/// The state that the watchers of a store share.
pub(super) struct ChangeFeed {
    state: Mutex<FeedState>,
    wake: Condvar,
    /// A counter that increases when there may be new changes, and when the store is closed.
    moved: watch::Sender<u64>,
    /// The position of a store in memory, whose only connection may be in use.
    memory: Option<MemoryPosition>,
}

struct MemoryPosition {
    history: i64,
    /// The id of the newest committed change.
    newest: AtomicI64,
}

#[derive(Default)]
struct FeedState {
    watchers: usize,
    is_running: bool,
    /// True if this process has written since the last poll.
    is_stale: bool,
    recent: Option<Recent>,
}

/// The latest changes, in memory.
struct Recent {
    /// The changes after this id are complete, up to `newest`.
    after: i64,
    newest: i64,
    changes: VecDeque<(i64, Arc<ChangeEvent>)>,
    bytes: usize,
}

impl Default for ChangeFeed {
    fn default() -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), moved: watch::Sender::new(0), memory: None }
    }
}

impl ChangeFeed {
    /// Creates the feed of a new store in memory.
    pub(super) fn in_memory(connection: &Connection) -> Result<Self> {
        let (history, newest) = (changes::history(connection)?, changes::newest(connection)?.into());
        Ok(Self { memory: Some(MemoryPosition { history, newest }), ..Self::default() })
    }

    /// Records the newest change after a commit. Called before the writes are acknowledged.
    pub(super) fn note_newest(&self, session: &StoreConnection) {
        if let Some(memory) = &self.memory
            && let Ok(newest) = session.recorder.newest(&session.connection)
        {
            memory.newest.store(newest, Ordering::Release);
        }
    }

    /// Returns the position of a store in memory and the id of its history, without waiting.
    pub(super) fn place_in_memory(&self) -> Option<(i64, Option<i64>)> {
        self.memory.as_ref().map(|memory| (memory.newest.load(Ordering::Acquire), Some(memory.history)))
    }

    /// Reports that this process has committed a write.
    pub(super) fn committed(&self) {
        let mut state = lock(&self.state);
        if state.is_running {
            state.is_stale = true;
            self.wake.notify_all();
        }
    }

    /// Reports that the store is closed.
    pub(super) fn closed(&self) {
        lock(&self.state).is_stale = true;
        self.wake.notify_all();
        self.move_on();
    }

    fn move_on(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn leave(&self) {
        let mut state = lock(&self.state);
        state.watchers -= 1;
        state.is_stale |= state.watchers == 0;
        self.wake.notify_all();
    }

    /// Waits until this process has written, or until the timeout. Returns true after a write, and
    /// `None` if there are no watchers any more.
    fn wait(&self, timeout: Option<Duration>) -> Option<bool> {
        let mut state = lock(&self.state);
        if !state.is_stale && state.watchers > 0 {
            state = match timeout {
                Some(timeout) => self.wake.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let is_stale = std::mem::take(&mut state.is_stale);
        if state.watchers == 0 {
            (state.is_running, state.recent) = (false, None);
            return None;
        }
        Some(is_stale)
    }

    fn add(&self, page: Page) {
        let mut state = lock(&self.state);
        let recent = state.recent.get_or_insert_with(|| Recent {
            after: page.upto,
            newest: page.upto,
            changes: VecDeque::new(),
            bytes: 0,
        });
        recent.newest = page.upto;
        for (id, event) in page.changes {
            recent.bytes += event.size();
            recent.changes.push_back((id, event));
        }
        while recent.changes.len() > KEPT || recent.bytes > KEPT_BYTES {
            let Some((id, event)) = recent.changes.pop_front() else { break };
            recent.bytes -= event.size();
            recent.after = id;
        }
        drop(state);
        self.move_on();
    }

    /// Returns the id up to which all changes are known; `None` before the first poll.
    fn newest(&self) -> Option<i64> {
        lock(&self.state).recent.as_ref().map(|recent| recent.newest)
    }

    /// Returns the changes of a collection after an id from memory; `None` if memory does not have
    /// all of them.
    fn after(&self, id: i64, namespace: &Namespace) -> Option<Page> {
        let state = lock(&self.state);
        let recent = state.recent.as_ref().filter(|recent| id >= recent.after)?;
        let mut page = Page { upto: recent.newest.max(id), ..Page::default() };
        let from = recent.changes.partition_point(|(other, _)| *other <= id);
        let mut bytes = 0;
        for (id, event) in recent.changes.range(from..) {
            if event.namespace != *namespace {
                continue;
            }
            bytes += event.size();
            page.changes.push((*id, Arc::clone(event)));
            if page.changes.len() >= BATCH || bytes >= BATCH_BYTES {
                (page.upto, page.is_full) = (*id, true);
                break;
            }
        }
        Some(page)
    }
}

/// The loop of the thread. It ends with the store, or with the last watcher.
fn follow(feed: &ChangeFeed, store: &Weak<Shared>) {
    let mut poller = ChangePoller::default();
    // The first poll reads the changes that exist already.
    let mut must_look = true;
    loop {
        let Some(shared) = store.upgrade() else { return };
        let is_shared = shared.memory.is_none();
        let timeout = match poller.look(feed, &shared, must_look) {
            Ok(Some(page)) => {
                must_look = page.is_full;
                feed.add(page);
                if must_look {
                    continue;
                }
                POLL
            }
            Ok(None) => {
                must_look = false;
                POLL
            }
            Err(Error::Closed) => {
                lock(&feed.state).is_running = false;
                return;
            }
            Err(_) => {
                // The watchers read the table and get the error themselves. Memory may have a gap.
                lock(&feed.state).recent = None;
                feed.move_on();
                (poller, must_look) = (ChangePoller::default(), true);
                RETRY
            }
        };
        drop(shared);
        // A store in memory has no other writers, so it needs no timeout.
        match feed.wait((is_shared || must_look).then_some(timeout)) {
            Some(is_stale) => must_look |= is_stale,
            None => return,
        }
    }
}

/// The connection of the thread, which polls for changes.
#[derive(Default)]
struct ChangePoller {
    session: Option<StoreConnection>,
    /// SQLite's `data_version`, which changes with each commit of another connection. This
    /// connection never writes.
    version: Option<i64>,
}

impl ChangePoller {
    /// Returns the changes since the last poll; `None` if there was no commit.
    fn look(&mut self, feed: &ChangeFeed, shared: &Shared, must_look: bool) -> Result<Option<Page>> {
        if shared.memory.is_some() {
            return shared.read(|session| session.map(|session| newer(feed, session)).transpose());
        }
        shared.check_open()?;
        if self.session.is_none() {
            self.session = StoreConnection::open_existing(&shared.location, &shared.settings)?;
        }
        let Some(session) = &mut self.session else { return Ok(None) };
        let version =
            session.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0)).map(Some)?;
        if !must_look && self.version == version {
            return Ok(None);
        }
        let page = newer(feed, session)?;
        self.version = version;
        Ok(Some(page))
    }
}

fn newer(feed: &ChangeFeed, session: &mut StoreConnection) -> Result<Page> {
    match feed.newest() {
        Some(newest) => changes::after(session, newest, None),
        None => Ok(Page { upto: changes::newest(&session.connection)?, ..Page::default() }),
    }
}

/// Returns the position at which a watcher begins, and the id of the history; `None` if the store
/// is still empty.
///
/// # Errors
/// If the token is not valid, or the changes after it are no longer kept.
pub(super) fn place(session: Option<&mut StoreConnection>, after: Option<&ResumeToken>) -> Result<(i64, Option<i64>)> {
    let Some(session) = session else { return Ok((0, None)) };
    session.at_one_moment(|session| {
        let place = match after {
            Some(token) => changes::place(&session.connection, token)?,
            None => changes::newest(&session.connection)?,
        };
        Ok((place, Some(changes::history(&session.connection)?)))
    })
}

/// Starts to watch after a position.
pub(super) fn watch(
    store: &SqliteStore,
    namespace: Namespace,
    owner: Option<Arc<str>>,
    (place, history): (i64, Option<i64>),
) -> Result<Stream> {
    let shared = &store.shared;
    let feed = &shared.feed;
    let mut state = lock(&feed.state);
    state.watchers += 1;
    let stream =
        Stream { store: store.clone(), namespace, owner, reading: None, place, history, moved: feed.moved.subscribe() };
    if !state.is_running {
        let (feed, store) = (Arc::clone(feed), Arc::downgrade(shared));
        let thread = std::thread::Builder::new().name("userkeep-changes".into());
        let started = thread.spawn(move || follow(&feed, &store));
        state.is_running = started.is_ok();
        // Dropping the stream takes the same lock.
        drop(state);
        started.map_err(|error| Error::Engine(format!("cannot start the thread that follows changes: {error}")))?;
    }
    Ok(stream)
}

/// The stream of one watcher.
pub(super) struct Stream {
    store: SqliteStore,
    namespace: Namespace,
    owner: Option<Arc<str>>,
    /// A pending read of the table.
    reading: Option<BoxFuture<'static, Result<Page>>>,
    /// The id of the last change that the watcher has seen.
    place: i64,
    history: Option<i64>,
    moved: watch::Receiver<u64>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Stream")
            .field("namespace", &self.namespace)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.store.shared.feed.leave();
    }
}

/// Reads changes from the table, in the turn of the stream's owner.
fn read_after(
    store: &SqliteStore,
    owner: &Option<Arc<str>>,
    place: i64,
    namespace: &Namespace,
) -> BoxFuture<'static, Result<Page>> {
    let (budget, namespace) = (Budget::unlimited(owner.clone()), namespace.clone());
    store.on_a_thread_within(budget, move |session| match session {
        Some(session) => changes::after(session, place, Some(&namespace)),
        None => Ok(Page::default()),
    })
}

impl Stream {
    async fn advance(&mut self) -> Result<Vec<Arc<ChangeEvent>>> {
        loop {
            // Mark the counter as seen before reading, so that a change during the read is not
            // missed.
            self.moved.borrow_and_update();
            self.store.shared.check_open()?;
            let page = match self.store.shared.feed.after(self.place, &self.namespace) {
                Some(page) => {
                    self.reading = None;
                    page
                }
                None => {
                    // The read is kept if this future is dropped, so that it keeps its position in
                    // the queue.
                    let reading = self
                        .reading
                        .get_or_insert_with(|| read_after(&self.store, &self.owner, self.place, &self.namespace));
                    let page = reading.await;
                    self.reading = None;
                    page?
                }
            };
            self.place = page.upto;
            if !page.changes.is_empty() {
                return Ok(page.changes.into_iter().map(|(_, event)| event).collect());
            }
            if !page.is_full && self.moved.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }
}

impl ChangeStream for Stream {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<ChangeEvent>>>> {
        self.advance().boxed()
    }

    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn position(&self) -> Option<ResumeToken> {
        let known = self.history.or_else(|| {
            let read = |session: Option<&mut StoreConnection>| {
                session.map(|session| changes::history(&session.connection)).transpose()
            };
            self.store.shared.read(read).ok().flatten()
        });
        known.map(|history| changes::token(history, self.place))
    }
}
