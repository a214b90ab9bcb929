//! The thread that writes. What waits when it is ready goes into one commit, each job in a savepoint of its own, so
//! that one that fails does not take its neighbours with it.

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
    conditional::{self, Conditional},
    connection::StoreConnection,
    lines::Lines,
    lock,
    write::{self, Failure},
};
use crate::{Error, Index, Namespace, Outcome, Result, Write};

/// How often is looked for documents whose time has come, as the server does.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How many of them are removed in one commit: a few milliseconds' work.
const SWEPT_AT_ONCE: usize = 100;

/// And how many bytes of them, or one that has more.
const SWEPT_BYTES: i64 = 1024 * 1024;

/// The same for changes, which are rows without entries in indexes.
const TRIMMED_AT_ONCE: Amount = Amount { changes: 500, bytes: SWEPT_BYTES };

/// How many of them go with a commit beside as many as it brings.
const TRIMMED_BESIDE: Amount = Amount { changes: 8, bytes: 128 * 1024 };

/// How long others have the file between two such commits.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// How long after a commit the disk may not have it, where it need not have it at once.
const SYNC_DELAY: Duration = Duration::from_millis(80);

/// After how many commits is looked how long the log is.
const LOOKED_AT_EVERY: u32 = 64;

/// How long those who write wait for readers, where it is too long.
const LOG_PATIENCE: Duration = Duration::from_millis(50);

/// And how long not, after they have waited for nothing.
const LOG_RETRY: Duration = Duration::from_secs(2);

/// The most jobs of one commit.
const GROUP: usize = 256;

/// Time after which a commit takes no further job, so that those that are in it do not wait for many.
const GROUP_TIME: Duration = Duration::from_millis(15);

pub(super) type Reply = oneshot::Sender<Result<Vec<Outcome>>>;

pub(super) enum Job {
    /// Carries out writes within a budget, which may be that of an attempt.
    Write {
        writes: Arc<[Write]>,
        budget: Budget,
        reply: Reply,
    },
    /// Carries out a write that was planned before.
    CarryOut {
        conditional: Box<Conditional>,
        writes: Arc<[Write]>,
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
    /// Makes all indexes anew.
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
        // A store in memory is written through its one connection.
        let session = match &shared.memory {
            Some(_) => None,
            None => Some(StoreConnection::open_for_writing(&shared.location, &shared.settings)?),
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
        };
        // The thread does not keep the store: it ends when the store, and with it the sender, is dropped.
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

    /// Lets the thread finish what it has been sent.
    pub(super) fn finish(self) -> oneshot::Receiver<()> {
        self.finished
    }
}

/// What the thread has of its store.
pub(super) struct Keeper {
    pub(super) environment: Arc<dyn Environment + Send + Sync>,
    pub(super) retention: Retention,
    pub(super) feed: Arc<ChangeFeed>,
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
            // What goes wrong with it is tried again the next time.
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
            // In small parts, between which others write.
            next_sweep = Instant::now() + if has_more { SWEEP_PAUSE } else { SWEEP_INTERVAL };
        }
    }
}

/// The write-ahead log: as far as the disk may not have it yet, and how long it is.
struct Log {
    path: PathBuf,
    /// Whether each commit is synced by SQLite.
    is_synced: bool,
    commits: u32,
    /// Until when it may be long.
    patient_until: Instant,
    /// When the first commit was begun that has not been synced.
    unsynced_since: Option<Instant>,
    /// Why it could not be synced, until it can. What is written meanwhile would not survive what it must.
    failure: Option<String>,
    is_new: bool,
    /// How it is synced, if not by the system.
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

    /// When it is to be synced.
    fn due(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + SYNC_DELAY)
    }

    /// Notes that something is about to be committed.
    fn note(&mut self) {
        if !self.is_synced {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
    }

    /// Lets the log begin anew when it is too long. By itself it does only when nobody reads, which among many readers may be
    /// never; so now and then those who come wait a moment for those who are there. Where somebody reads for long, as a backup does,
    /// they do so seldom.
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

    /// The log, and the first time that there is one.
    fn sync(&mut self) -> std::io::Result<()> {
        if let Some(SyncLog(sync)) = &self.other {
            return sync(&self.path);
        }
        // The log has no locks that closing it could let go of.
        match File::open(&self.path) {
            Ok(log) => log.sync_data()?,
            // Whoever put it away has synced the store with what it held.
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

/// What one sweep has removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) documents: usize,
    changes: bool,
    /// Whether more of anything waits.
    has_more: bool,
}

impl Swept {
    fn is_any(&self) -> bool {
        self.documents > 0 || self.changes
    }
}

/// Removes some documents and changes whose time has come, in a commit of its own.
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
        Ok(swept) if swept.is_any() => keeper.feed.committed(),
        Ok(_) => {}
        Err(_) => drop(session.run("ROLLBACK")),
    }
    swept
}

fn trim(session: &StoreConnection, keeper: &Keeper, most: Amount) -> Result<Trimmed> {
    changes::trim(&session.connection, keeper.retention, keeper.environment.now(), most)
}

/// Carries out jobs in one commit, in the turn of their owners.
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
            // A job whose caller has gone away before it began is not carried out.
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
    // More old changes go than new ones come, so that the table never grows beyond what is kept.
    let Amount { changes, bytes } = session.recorder.take_recorded();
    let most = Amount { changes: 2 * changes + TRIMMED_BESIDE.changes, bytes: 2 * bytes + TRIMMED_BESIDE.bytes };
    let trimmed = if changes > 0 { trim(session, keeper, most).map(|_| ()) } else { Ok(()) };
    match trimmed.and_then(|()| session.run("COMMIT")) {
        // Only now may anybody hear that it happened.
        Ok(()) => {
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

/// Runs a job under its budget. What it did beyond it is undone, also what an ordered insert would keep before a failure:
/// the job may be carried out again as a whole.
fn within<T>(budget: &Budget, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    budget.check()?;
    let done = protected(|| budget.enter(run));
    budget.check()?;
    done
}

/// A panic in a job, or a sweep, is a failure of that alone.
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
    /// The owner of the job; none if it is the operator's or the backend's own.
    fn owner(&self) -> Option<Arc<str>> {
        match self {
            Self::Write { budget, .. } | Self::CarryOut { budget, .. } => budget.owner().cloned(),
            Self::EnsureIndexes { .. } | Self::DropIndex { .. } | Self::Repair { .. } => None,
        }
    }

    fn reply(&self) -> &Reply {
        match self {
            Self::Write { reply, .. }
            | Self::CarryOut { reply, .. }
            | Self::EnsureIndexes { reply, .. }
            | Self::DropIndex { reply, .. }
            | Self::Repair { reply } => reply,
        }
    }

    fn into_reply(self) -> Reply {
        match self {
            Self::Write { reply, .. }
            | Self::CarryOut { reply, .. }
            | Self::EnsureIndexes { reply, .. }
            | Self::DropIndex { reply, .. }
            | Self::Repair { reply } => reply,
        }
    }
}
