//! The writer thread. It groups waiting jobs into one commit, each in its own savepoint, so
//! that a failed job does not affect the others.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use query::{Budget, Environment};
use tokio::sync::oneshot;

use super::{
    BUSY_TIMEOUT, Durability, LOG_LIMIT, Location, Retention, Settings, Shared, SyncLog,
    change_feed::ChangeFeed,
    changes::{self, Amount, Trimmed},
    check,
    commit::{self, Commit},
    conditional::{self, Conditional},
    connection::StoreConnection,
    lines::Lines,
    lock,
    place::FilePlace,
    write::{self, Failure},
};
use crate::{Error, Index, Namespace, Outcome, Result, Write};

/// Interval between two sweeps for expired documents, as on the server.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum number of expired documents removed in one commit: a few milliseconds of work.
const SWEPT_AT_ONCE: usize = 100;

/// The maximum size of expired documents removed in one commit, in bytes. One larger document is
/// removed alone.
const SWEPT_BYTES: i64 = 1024 * 1024;

/// The maximum amount of expired changes removed in one commit. They are rows without index
/// entries.
const TRIMMED_AT_ONCE: Amount = Amount { changes: 500, bytes: SWEPT_BYTES };

/// The amount of expired changes removed with a commit, in addition to twice the amount it adds.
const TRIMMED_BESIDE: Amount = Amount { changes: 8, bytes: 128 * 1024 };

/// Pause between two commits of a sweep, in which other writes run.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// Time after a commit until the disk is synced, if the durability allows it.
const SYNC_DELAY: Duration = Duration::from_millis(80);

/// The number of commits between two checks of the size of the log.
const LOOKED_AT_EVERY: u32 = 64;

/// Time that the writer waits for readers when the log is too long.
const LOG_PATIENCE: Duration = Duration::from_millis(50);

/// Minimum time between two such waits, after one that ended without success.
const LOG_RETRY: Duration = Duration::from_secs(2);

/// The maximum number of jobs in one commit.
const GROUP: usize = 256;

/// Time after which a commit takes no further job, so that the jobs in it do not wait for many
/// others.
const GROUP_TIME: Duration = Duration::from_millis(15);

pub(super) type Reply = oneshot::Sender<Result<Vec<Outcome>>>;

pub(super) enum Job {
    /// Applies writes within a budget, which may be that of one attempt.
    Write {
        writes: Arc<[Write]>,
        budget: Budget,
        reply: Reply,
    },
    /// Applies a write that was planned before.
    CarryOut {
        conditional: Box<Conditional>,
        writes: Arc<[Write]>,
        budget: Budget,
        reply: Reply,
    },
    /// Applies the writes of a transaction.
    Commit {
        commit: Box<Commit>,
        budget: Budget,
        reply: Reply,
    },
    EnsureIndexes {
        namespace: Namespace,
        indexes: Vec<Index>,
        reply: Reply,
    },
    DropIndex {
        namespace: Namespace,
        name: String,
        reply: Reply,
    },
    /// Creates collections, whatever their names are.
    CreateCollections {
        namespaces: Vec<Namespace>,
        reply: Reply,
    },
    /// Rebuilds all indexes.
    Repair {
        reply: Reply,
    },
}

pub(super) struct Writer {
    jobs: Sender<Job>,
    finished: oneshot::Receiver<()>,
}

impl Writer {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self> {
        // A store in memory has only one connection, which the writer shares.
        let session = match &shared.memory {
            Some(_) => None,
            None => {
                // A file that was removed is not created again under the readers of the old one.
                shared.note_opened(false)?;
                let session = StoreConnection::open_for_writing(&shared.location, &shared.settings)?;
                shared.note_opened(true)?;
                Some(session)
            }
        };
        let log = match &shared.location {
            Location::File(path) => Some(Log::of(path, &shared.settings)),
            Location::Memory => None,
        };
        let (jobs, queue) = channel();
        let (done, finished) = oneshot::channel();
        let keeper = Keeper {
            environment: Arc::clone(&shared.environment),
            retention: shared.settings.retention,
            feed: Arc::clone(&shared.feed),
            place: shared.place.clone(),
        };
        // The thread holds a weak reference: it ends when the store, and with it the sender, is
        // dropped.
        let memory = Arc::downgrade(shared);
        std::thread::Builder::new()
            .name("userkeep-writer".into())
            .spawn(move || {
                run(session, log, &memory, &keeper, &queue);
                let _ = done.send(());
            })
            .map_err(|error| Error::Engine(format!("cannot start the writer's thread: {error}")))?;
        Ok(Self { jobs, finished })
    }

    pub(super) fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::Closed)
    }

    /// Drops the sender, so that the thread ends after the jobs that it has received. The receiver
    /// reports the end.
    pub(super) fn finish(self) -> oneshot::Receiver<()> {
        self.finished
    }
}

/// The parts of the store that the writer thread needs.
pub(super) struct Keeper {
    pub(super) environment: Arc<dyn Environment + Send + Sync>,
    pub(super) retention: Retention,
    pub(super) feed: Arc<ChangeFeed>,
    /// `None` for a store in memory.
    pub(super) place: Option<Arc<FilePlace>>,
}

impl Keeper {
    fn check_file(&self) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| place.check())
    }
}

fn run(
    mut session: Option<StoreConnection>,
    mut log: Option<Log>,
    shared: &Weak<Shared>,
    keeper: &Keeper,
    queue: &Receiver<Job>,
) {
    let mut next_sweep = Instant::now() + SWEEP_INTERVAL;
    let mut lines = Lines::default();
    loop {
        let next = log.as_ref().and_then(Log::due).map_or(next_sweep, |due| due.min(next_sweep));
        if lines.is_empty() {
            match queue.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(first) => lines.push(first.owner(), first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(log) = &mut log {
                        log.sync_if(|_| true, shared);
                    }
                    return;
                }
            }
        }
        if let Some(log) = &mut log {
            log.sync_if(|due| due <= Instant::now(), shared);
        }
        queue.try_iter().for_each(|job| lines.push(job.owner(), job));
        if let Some(why) = log.as_ref().and_then(|log| log.failure.clone()) {
            let error = Error::Engine(format!("the disk cannot be synced: {why}"));
            fail(lines.drain().map(Job::into_reply), &error);
        }
        let sweeps = Instant::now() >= next_sweep;
        // Writes to a file without a name would be acknowledged and lost.
        if let (true, Err(Error::FileReplaced { path })) = (sweeps || !lines.is_empty(), keeper.check_file()) {
            for reply in lines.drain().map(Job::into_reply) {
                let _ = reply.send(Err(Error::FileReplaced { path: path.clone() }));
            }
        }
        let is_busy = !lines.is_empty();
        if let Some(log) = log.as_mut().filter(|_| is_busy) {
            log.note();
        }
        let log = &mut log;
        let work = |session: &mut StoreConnection| {
            if is_busy {
                commit(session, keeper, &mut lines);
                if let Some(log) = log {
                    log.keep_short(session);
                }
            }
            // A failed sweep is tried again the next time.
            let Some(swept) = sweeps.then(|| sweep(session, keeper).ok()).flatten() else { return false };
            if let (Some(log), true) = (log, swept.is_any()) {
                log.note();
            }
            swept.has_more
        };
        let has_more = match &mut session {
            Some(session) => work(session),
            None => {
                let Some(shared) = shared.upgrade() else { return };
                shared.memory.as_ref().is_some_and(|memory| work(&mut lock(memory)))
            }
        };
        if sweeps {
            // The sweep works in small parts, so that other writes can run in between.
            next_sweep = Instant::now() + if has_more { SWEEP_PAUSE } else { SWEEP_INTERVAL };
        }
    }
}

/// The state of the write-ahead log: its unsynced part and its size.
struct Log {
    path: PathBuf,
    /// True if SQLite syncs each commit.
    is_synced: bool,
    commits: u32,
    /// The end of the time in which the log may be too long.
    patient_until: Instant,
    /// The start of the first commit that is not synced yet.
    unsynced_since: Option<Instant>,
    /// The error of the last sync, until one succeeds. Writes are rejected meanwhile, because they
    /// might not survive a power failure.
    failure: Option<String>,
    is_new: bool,
    /// A replacement for syncing the log, for tests.
    other: Option<SyncLog>,
}

impl Log {
    fn of(store: &Path, settings: &Settings) -> Self {
        let mut path = store.as_os_str().to_owned();
        path.push("-wal");
        let is_synced = settings.durability == Durability::Full;
        let other = settings.sync.clone();
        let patient_until = Instant::now();
        Self {
            path: path.into(),
            is_synced,
            commits: 0,
            patient_until,
            unsynced_since: None,
            failure: None,
            is_new: true,
            other,
        }
    }

    /// Returns the time at which the log must be synced.
    fn due(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + SYNC_DELAY)
    }

    /// Records that a commit is about to begin.
    fn note(&mut self) {
        if !self.is_synced {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
    }

    /// Restarts the log when it is too long. SQLite restarts the log only while there are no
    /// readers, which may never happen if there are many. So the writer sometimes waits a moment
    /// for the readers, less often if a reader stays long, as a backup does.
    fn keep_short(&mut self, session: &StoreConnection) {
        self.commits = self.commits.wrapping_add(1);
        let is_long = || std::fs::metadata(&self.path).is_ok_and(|log| log.len() > LOG_LIMIT.unsigned_abs());
        if !self.commits.is_multiple_of(LOOKED_AT_EVERY) || self.patient_until > Instant::now() || !is_long() {
            return;
        }
        let begin_anew = || -> rusqlite::Result<bool> {
            session.connection.busy_timeout(LOG_PATIENCE)?;
            session.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
        };
        let is_held = begin_anew().unwrap_or(true);
        let _ = session.connection.busy_timeout(BUSY_TIMEOUT);
        if is_held {
            self.patient_until = Instant::now() + LOG_RETRY;
        }
    }

    fn sync_if(&mut self, is_time: impl FnOnce(Instant) -> bool, shared: &Weak<Shared>) {
        if !self.due().is_some_and(is_time) {
            return;
        }
        match self.sync() {
            Ok(()) => {
                (self.unsynced_since, self.failure) = (None, None);
                if let Some(shared) = shared.upgrade() {
                    shared.syncs.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                self.unsynced_since = Some(Instant::now());
                self.failure = Some(error.to_string());
            }
        }
    }

    /// Syncs the log and, the first time that the file exists, its directory.
    fn sync(&mut self) -> std::io::Result<()> {
        if let Some(SyncLog(sync)) = &self.other {
            return sync(&self.path);
        }
        // SQLite holds no locks on the log that closing this descriptor could release.
        match File::open(&self.path) {
            Ok(log) => log.sync_data()?,
            // SQLite has synced the store before it removed the log.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.is_new {
            files::sync_directory_of(&self.path)?;
            self.is_new = false;
        }
        Ok(())
    }
}

/// The result of one sweep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) documents: usize,
    changes: bool,
    /// True if more expired documents or changes are left.
    has_more: bool,
}

impl Swept {
    fn is_any(&self) -> bool {
        self.documents > 0 || self.changes
    }
}

/// Removes some expired documents and changes, in their own commit.
pub(super) fn sweep(session: &mut StoreConnection, keeper: &Keeper) -> Result<Swept> {
    session.run("BEGIN IMMEDIATE")?;
    session.recorder.forget();
    let swept = session
        .catalog
        .refresh(&session.connection)
        .and_then(|()| {
            protected(|| {
                let (documents, are_more) =
                    write::sweep(session, &*keeper.environment, SWEPT_AT_ONCE, SWEPT_BYTES as usize)?;
                let trimmed = trim(session, keeper, TRIMMED_AT_ONCE)?;
                let has_more = are_more || trimmed == Trimmed::Some;
                Ok(Swept { documents, changes: trimmed != Trimmed::Nothing, has_more })
            })
        })
        .and_then(|swept| session.run("COMMIT").map(|()| swept));
    match &swept {
        Ok(swept) if swept.is_any() => {
            keeper.feed.note_newest(session);
            keeper.feed.committed();
        }
        Ok(_) => {}
        Err(_) => drop(session.run("ROLLBACK")),
    }
    swept
}

fn trim(session: &StoreConnection, keeper: &Keeper, most: Amount) -> Result<Trimmed> {
    changes::trim(&session.connection, keeper.retention, keeper.environment.now(), most)
}

/// Applies jobs in one commit, in the turns of their owners.
fn commit(session: &mut StoreConnection, keeper: &Keeper, lines: &mut Lines<Job>) {
    session.recorder.forget();
    let begun = session.run("BEGIN IMMEDIATE").and_then(|()| session.catalog.refresh(&session.connection));
    if let Err(error) = begun {
        let _ = session.run("ROLLBACK");
        return fail(lines.drain().map(Job::into_reply), &error);
    }
    let (begun, mut done) = (Instant::now(), Vec::new());
    while done.len() < GROUP && begun.elapsed() < GROUP_TIME {
        let run = |job: Job| {
            // Skip a job whose caller has gone before it began.
            if job.reply().is_closed() {
                return (None, Duration::ZERO);
            }
            let begun = Instant::now();
            (Some(run_job(session, &*keeper.environment, job)), begun.elapsed())
        };
        match lines.run_next(run) {
            Some(answer) => done.extend(answer),
            None => break,
        }
    }
    // A commit removes more old changes than it adds, so that the table does not outgrow the
    // retention.
    let Amount { changes, bytes } = session.recorder.take_recorded();
    let most = Amount { changes: 2 * changes + TRIMMED_BESIDE.changes, bytes: 2 * bytes + TRIMMED_BESIDE.bytes };
    let trimmed = if changes > 0 { trim(session, keeper, most).map(|_| ()) } else { Ok(()) };
    match trimmed.and_then(|()| session.run("COMMIT")) {
        // Reply only after the commit has succeeded.
        Ok(()) => {
            keeper.feed.note_newest(session);
            done.into_iter().for_each(|(reply, answer)| {
                let _ = reply.send(answer);
            });
            keeper.feed.committed();
        }
        Err(error) => {
            let _ = session.run("ROLLBACK");
            session.catalog.forget();
            fail(done.into_iter().map(|(reply, _)| reply), &error);
        }
    }
}

fn run_job(session: &mut StoreConnection, environment: &dyn Environment, job: Job) -> (Reply, Result<Vec<Outcome>>) {
    if let Err(error) = session.run("SAVEPOINT job") {
        return (job.into_reply(), Err(error));
    }
    let (reply, ran) = match job {
        Job::Write { writes, budget, reply } => (reply, within(&budget, || write::all(session, environment, &writes))),
        Job::CarryOut { conditional, writes, budget, reply } => {
            let carry_out = || conditional::carry_out(session, environment, &conditional, &writes[0]);
            (reply, within(&budget, carry_out))
        }
        Job::Commit { commit, budget, reply } => {
            (reply, within(&budget, || commit::carry_out(session, environment, &commit)))
        }
        Job::EnsureIndexes { namespace, indexes, reply } => (
            reply,
            protected(|| {
                write::ensure_indexes(session, &namespace, &indexes).map(|()| Vec::new()).map_err(Failure::from)
            }),
        ),
        Job::DropIndex { namespace, name, reply } => (
            reply,
            protected(|| write::drop_index(session, &namespace, &name).map(|()| Vec::new()).map_err(Failure::from)),
        ),
        Job::CreateCollections { namespaces, reply } => {
            let create = || {
                namespaces.iter().try_for_each(|namespace| {
                    session.catalog.adopt_collection(&session.connection, namespace).map(|_| ())
                })?;
                Ok(Vec::new())
            };
            (reply, protected(create))
        }
        Job::Repair { reply } => {
            (reply, protected(|| check::repair(session).map(|()| Vec::new()).map_err(Failure::from)))
        }
    };
    let (undone, answer) = match ran {
        Ok(outcomes) => (Ok(()), Ok(outcomes)),
        Err(Failure { error, keep: true }) => (Ok(()), Err(error)),
        Err(Failure { error, keep: false }) => {
            session.catalog.forget();
            session.recorder.forget();
            (session.run("ROLLBACK TO job"), Err(error))
        }
    };
    let ended =
        undone.and_then(|()| session.run("RELEASE job")).and_then(|()| session.catalog.refresh(&session.connection));
    (reply, ended.and(answer))
}

/// Runs a job within its budget. If the budget is exhausted, everything is rolled back, even the
/// documents that an ordered insert would keep before a failure: the whole job may run again.
fn within<T>(budget: &Budget, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    budget.check()?;
    let done = protected(|| budget.enter(run));
    budget.check()?;
    done
}

/// Turns a panic in a job or a sweep into an error of that job or sweep.
fn protected<T, E: From<Error>>(run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Error::Engine("a write failed in an unexpected way".into()).into()))
}

fn fail(replies: impl Iterator<Item = Reply>, error: &Error) {
    for reply in replies {
        let _ = reply.send(Err(Error::Engine(error.to_string())));
    }
}

impl Job {
    /// Returns the owner of the job; `None` for a job of the operator or of the backend itself.
    fn owner(&self) -> Option<Arc<str>> {
        match self {
            Self::Write { budget, .. } | Self::CarryOut { budget, .. } | Self::Commit { budget, .. } => {
                budget.owner().cloned()
            }
            Self::EnsureIndexes { .. }
            | Self::DropIndex { .. }
            | Self::CreateCollections { .. }
            | Self::Repair { .. } => None,
        }
    }

    fn reply(&self) -> &Reply {
        match self {
            Self::Write { reply, .. }
            | Self::CarryOut { reply, .. }
            | Self::Commit { reply, .. }
            | Self::EnsureIndexes { reply, .. }
            | Self::DropIndex { reply, .. }
            | Self::CreateCollections { reply, .. }
            | Self::Repair { reply } => reply,
        }
    }

    fn into_reply(self) -> Reply {
        match self {
            Self::Write { reply, .. }
            | Self::CarryOut { reply, .. }
            | Self::Commit { reply, .. }
            | Self::EnsureIndexes { reply, .. }
            | Self::DropIndex { reply, .. }
            | Self::CreateCollections { reply, .. }
            | Self::Repair { reply } => reply,
        }
    }
}
