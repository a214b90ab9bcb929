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

use query::Environment;
use tokio::sync::oneshot;

use super::{
    Durability, Location, Shared,
    catalog::Collection,
    connection::Session,
    lock,
    write::{self, Failure},
};
use crate::{Error, Index, Namespace, Outcome, Result, Write};

/// How often is looked for documents whose time has come, as the server does.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How many of them are removed in one commit: a few milliseconds' work.
const SWEPT_AT_ONCE: usize = 100;

/// How long others have the file between two such commits.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// How long after a commit the disk may not have it, where it need not have it at once.
const SYNC_DELAY: Duration = Duration::from_millis(80);

/// How many jobs go into one commit at most.
const GROUP: usize = 256;

pub(super) type Reply = oneshot::Sender<Result<Vec<Outcome>>>;

pub(super) enum Job {
    Write { writes: Vec<Write>, reply: Reply },
    EnsureIndexes { namespace: Namespace, indexes: Vec<Index>, reply: Reply },
    DropIndex { namespace: Namespace, name: String, reply: Reply },
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
            None => Some(Session::open_for_writing(&shared.location, shared.durability)?),
        };
        let log = match (&shared.location, shared.durability) {
            (Location::File(path), Durability::Process) => Some(Log::of(path)),
            _ => None,
        };
        let (jobs, queue) = channel();
        let (done, finished) = oneshot::channel();
        let environment = Arc::clone(&shared.environment);
        // The thread does not keep the store: it ends when the store, and with it the sender, is dropped.
        let memory = Arc::downgrade(shared);
        std::thread::Builder::new()
            .name("userkeep-writer".into())
            .spawn(move || {
                run(session, log, &memory, &*environment, &queue);
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

fn run(
    mut session: Option<Session>,
    mut log: Option<Log>,
    shared: &Weak<Shared>,
    environment: &dyn Environment,
    queue: &Receiver<Job>,
) {
    let mut next_sweep = Instant::now() + SWEEP_INTERVAL;
    loop {
        let mut group = Vec::new();
        let next = log.as_ref().and_then(Log::due).map_or(next_sweep, |due| due.min(next_sweep));
        match queue.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(first) => group.push(first),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(log) = &mut log {
                    log.sync_if(|_| true, shared);
                }
                return;
            }
        }
        if let Some(log) = &mut log {
            log.sync_if(|due| due <= Instant::now(), shared);
        }
        while group.len() < GROUP {
            match queue.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        // Who has gone away before the work began wants none of it.
        group.retain(|job| !job.reply().is_closed());
        if let Some(why) = log.as_ref().and_then(|log| log.failure.clone()) {
            let error = Error::Engine(format!("the disk cannot be synced: {why}"));
            fail(group.drain(..).map(Job::into_reply), &error);
        }
        let sweeps = Instant::now() >= next_sweep;
        if let Some(log) = log.as_mut().filter(|_| sweeps || !group.is_empty()) {
            log.note();
        }
        let work = |session: &mut Session| {
            if !group.is_empty() {
                commit(session, environment, group);
            }
            // What goes wrong with it is tried again the next time.
            sweeps && sweep(session, environment).is_ok_and(|swept| swept == SWEPT_AT_ONCE)
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

/// The write-ahead log, as far as the disk may not have it yet.
struct Log {
    path: PathBuf,
    /// When the first commit was begun that has not been synced.
    unsynced_since: Option<Instant>,
    /// Why it could not be synced, until it can. What is written meanwhile would not survive what it must.
    failure: Option<String>,
    is_new: bool,
}

impl Log {
    fn of(store: &Path) -> Self {
        let mut path = store.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), unsynced_since: None, failure: None, is_new: true }
    }

    /// When it is to be synced.
    fn due(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + SYNC_DELAY)
    }

    /// Notes that something is about to be committed.
    fn note(&mut self) {
        self.unsynced_since.get_or_insert_with(Instant::now);
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

/// Removes some documents whose time has come, in a commit of its own; how many there were.
pub(super) fn sweep(session: &mut Session, environment: &dyn Environment) -> Result<usize> {
    session.catalog.refresh(&session.connection)?;
    let expires = |collection: &Collection| collection.indexes.iter().any(|held| held.index.expire_after.is_some());
    if !session.catalog.collections().any(expires) {
        return Ok(0);
    }
    session.connection.execute_batch("BEGIN IMMEDIATE")?;
    let swept = session
        .catalog
        .refresh(&session.connection)
        .and_then(|()| protected(|| write::sweep(session, environment.now(), SWEPT_AT_ONCE)))
        .and_then(|swept| session.connection.execute_batch("COMMIT").map(|()| swept).map_err(Error::from));
    if swept.is_err() {
        let _ = session.connection.execute_batch("ROLLBACK");
    }
    swept
}

fn commit(session: &mut Session, environment: &dyn Environment, group: Vec<Job>) {
    let mut done = Vec::with_capacity(group.len());
    let begun = session
        .connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(Error::from)
        .and_then(|()| session.catalog.refresh(&session.connection));
    if let Err(error) = begun {
        let _ = session.connection.execute_batch("ROLLBACK");
        return fail(group.into_iter().map(|job| job.into_reply()), &error);
    }
    for job in group {
        done.push(run_job(session, environment, job));
    }
    match session.connection.execute_batch("COMMIT") {
        // Only now may anybody hear that it happened.
        Ok(()) => done.into_iter().for_each(|(reply, answer)| {
            let _ = reply.send(answer);
        }),
        Err(error) => {
            let _ = session.connection.execute_batch("ROLLBACK");
            session.catalog.forget();
            fail(done.into_iter().map(|(reply, _)| reply), &error.into());
        }
    }
}

fn run_job(session: &mut Session, environment: &dyn Environment, job: Job) -> (Reply, Result<Vec<Outcome>>) {
    if let Err(error) = session.connection.execute_batch("SAVEPOINT job") {
        return (job.into_reply(), Err(error.into()));
    }
    let (reply, ran) = match job {
        Job::Write { writes, reply } => (reply, protected(|| write::all(session, environment, writes))),
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
    };
    let (sql, answer) = match ran {
        Ok(outcomes) => ("RELEASE job", Ok(outcomes)),
        Err(Failure { error, keep: true }) => ("RELEASE job", Err(error)),
        Err(Failure { error, keep: false }) => {
            session.catalog.forget();
            ("ROLLBACK TO job; RELEASE job", Err(error))
        }
    };
    let ended = session
        .connection
        .execute_batch(sql)
        .map_err(Error::from)
        .and_then(|()| session.catalog.refresh(&session.connection));
    (reply, ended.and(answer))
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
    fn reply(&self) -> &Reply {
        match self {
            Self::Write { reply, .. } | Self::EnsureIndexes { reply, .. } | Self::DropIndex { reply, .. } => reply,
        }
    }

    fn into_reply(self) -> Reply {
        match self {
            Self::Write { reply, .. } | Self::EnsureIndexes { reply, .. } | Self::DropIndex { reply, .. } => reply,
        }
    }
}
