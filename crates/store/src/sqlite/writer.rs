//! The thread that writes. What waits when it is ready goes into one commit, each job in a savepoint of its own, so
//! that one that fails does not take its neighbours with it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        mpsc::{Receiver, Sender, channel},
    },
};

use query::Environment;
use tokio::sync::oneshot;

use super::{
    Shared,
    connection::Session,
    lock,
    write::{self, Failure},
};
use crate::{Error, Index, Namespace, Outcome, Result, Write};

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
        let session = if shared.memory.is_some() { None } else { Some(Session::open_for_writing(&shared.location)?) };
        let (jobs, queue) = channel();
        let (done, finished) = oneshot::channel();
        let environment = Arc::clone(&shared.environment);
        // The thread does not keep the store: it ends when the store, and with it the sender, is dropped.
        let memory = Arc::downgrade(shared);
        std::thread::Builder::new()
            .name("userkeep-writer".into())
            .spawn(move || {
                run(session, &memory, &*environment, &queue);
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

fn run(mut session: Option<Session>, shared: &Weak<Shared>, environment: &dyn Environment, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match queue.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        // Who has gone away before the work began wants none of it.
        group.retain(|job| !job.reply().is_closed());
        if group.is_empty() {
            continue;
        }
        match &mut session {
            Some(session) => commit(session, environment, group),
            None => {
                let Some(shared) = shared.upgrade() else { return };
                if let Some(memory) = &shared.memory {
                    commit(&mut lock(memory), environment, group);
                }
            }
        }
    }
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

/// A panic in a job is a failure of that job alone.
fn protected(run: impl FnOnce() -> Result<Vec<Outcome>, Failure>) -> Result<Vec<Outcome>, Failure> {
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
