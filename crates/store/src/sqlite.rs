//! The embedded store: documents as BSON in SQLite (<https://sqlite.org/wal.html>), a table for each collection and one
//! for each index. One thread writes, and puts what waits for it into one commit; readers have connections of their own.

mod aggregate;
mod backup;
mod catalog;
mod change_feed;
mod changes;
mod check;
mod claim;
mod conditional;
mod connection;
mod effects;
mod lines;
mod plan;
mod read;
mod write;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, TryLockError, atomic::AtomicU64},
    time::Duration,
};

use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{self, BoxFuture, FutureExt};
use query::{Budget, Environment, Variables};
use rusqlite::{Connection, config::DbConfig};

use crate::{
    Aggregate, ChangeStream, Count, Error, Explanation, Find, Finding, Index, Namespace, Operation, Outcome, Page,
    Progress, Result, Store, Watch, Write, guarded,
    workers::{self, Turn},
};
use change_feed::ChangeFeed;
pub use changes::Retention;
use connection::StoreConnection;
use writer::{Job, Writer};

/// Steps that a limited write may take in the writer's turn, before it is computed elsewhere: some milliseconds.
const WRITER_STEPS: u64 = 60_000;

/// The most idle reading connections that are kept.
const IDLE_READERS: usize = 8;

/// Idle reading connections that are left for reads on the event loop, which open none.
const RESERVED_READERS: usize = 4;

/// Planned attempts of a limited write, after which it may take [`LONG_WRITER_STEPS`] in the writer's turn.
const PLANNED_ATTEMPTS: usize = 4;

/// Steps that such a write may take in the writer's turn: some tens of milliseconds.
const LONG_WRITER_STEPS: u64 = 400_000;

/// How large the log may become before the writer waits for readers to let go of it, in bytes.
const LOG_LIMIT: i64 = 32 * 1024 * 1024;

/// How long one process waits for another's commit.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where an embedded store keeps its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file, made by the first write.
    File(PathBuf),
    /// Nowhere: they are gone with the store.
    Memory,
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// The death of the process, at once; a power cut within 100 ms: the disk is synced so long after the first commit that it does
    /// not have yet.
    #[default]
    Process,
    /// A power cut too, at once: each commit is synced.
    Full,
}

/// How a store keeps what it is given.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What writes survive.
    pub durability: Durability,
    /// How long change events are kept.
    pub retention: Retention,
    /// Databases whose names begin so are nobody's to watch: their changes are not kept.
    pub unwatched: Option<&'static str>,
    /// How the log is synced; by the system if not said.
    pub sync: Option<SyncLog>,
}

/// Another way to sync the file of the log: for tests, which take the power away.
#[derive(Clone)]
pub struct SyncLog(Arc<SyncFn>);

type SyncFn = dyn Fn(&Path) -> std::io::Result<()> + Send + Sync;

impl SyncLog {
    /// What is called with the path of the log, instead of syncing it.
    pub fn new(sync: impl Fn(&Path) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(sync))
    }
}

impl std::fmt::Debug for SyncLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SyncLog")
    }
}

impl Settings {
    /// Whether the changes of a collection are kept.
    fn keeps_changes_of(&self, namespace: &Namespace) -> bool {
        self.unwatched.is_none_or(|prefix| !namespace.database.to_ascii_lowercase().starts_with(prefix))
    }
}

/// A store on one SQLite file, or in memory. Clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    location: Location,
    settings: Settings,
    /// How often the writer has synced the disk.
    syncs: AtomicU64,
    environment: Arc<dyn Environment + Send + Sync>,
    state: Mutex<OpenState>,
    /// The one connection of a store in memory, which nobody else can open.
    memory: Option<Mutex<StoreConnection>>,
    feed: Arc<ChangeFeed>,
}

enum OpenState {
    Open { writer: Option<Writer>, readers: Vec<StoreConnection> },
    Closed,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SqliteStore").field("location", &self.shared.location).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens a store. Touches a file only to see whether one that exists can be read.
    ///
    /// # Errors
    /// Where the file is not a store, or of a newer format, or cannot be read.
    pub fn open(location: Location, environment: Arc<dyn Environment + Send + Sync>) -> Result<Self> {
        Self::open_with(location, environment, Settings::default())
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        location: Location,
        environment: Arc<dyn Environment + Send + Sync>,
        settings: Settings,
    ) -> Result<Self> {
        let memory = match &location {
            Location::Memory => Some(Mutex::new(StoreConnection::memory(&settings)?)),
            Location::File(path) => {
                let failed = |error: std::io::Error| Error::Open { path: path.clone(), reason: error.to_string() };
                files::refuse_network(directory_of(path)).map_err(failed)?;
                None
            }
        };
        let state = Mutex::new(OpenState::Open { writer: None, readers: Vec::new() });
        let store = Self {
            shared: Arc::new(Shared {
                location,
                settings,
                syncs: AtomicU64::new(0),
                environment,
                state,
                memory,
                feed: Arc::default(),
            }),
        };
        // An existing file that cannot be used is told now, not at the first call.
        store.shared.read(|_| Ok(()))?;
        Ok(store)
    }

    /// Runs a read on a thread of its own, without limits. It stops soon after its future is dropped.
    fn on_a_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        self.on_a_thread_within(Budget::default(), read)
    }

    /// Runs a read on a thread of its own, within a budget. It stops soon after its future is dropped.
    fn on_a_thread_within<T: Send + 'static>(
        &self,
        budget: Budget,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        self.on_a_thread_and_keep(budget, read).map(|answer| answer.map(|(answer, _)| answer)).boxed()
    }

    /// As [`on_a_thread_within`](Self::on_a_thread_within), and returns the turn in which it was run.
    fn on_a_thread_and_keep<T: Send + 'static>(
        &self,
        budget: Budget,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<(T, Option<Turn>)>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let within = budget.clone();
            let read = move || {
                shared.read(|session| match session {
                    Some(session) => session.within(&within, |session| read(Some(session))),
                    None => read(None),
                })
            };
            let (answer, turn) = workers::run_and_keep(&budget, read).await?;
            budget.check()?;
            Ok((answer?, turn))
        }
        .boxed()
    }

    /// Runs a small read where the event loop waits. Without an answer it is not small, or it would have to wait, and
    /// belongs on another thread.
    fn inline<T>(
        &self,
        budget: &Budget,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<Option<T>>,
    ) -> Option<Result<T>> {
        let attempt = budget.attempt(workers::INLINE_STEPS);
        let answer = attempt.enter(|| self.shared.read_at_once(read));
        // What an exhausted attempt found is of no use.
        if attempt.is_exhausted() { None } else { answer.transpose() }
    }

    /// Writes under limits: in the writer's turn if that is a small matter, else computed before it.
    async fn write_limited(self, writes: Arc<[Write]>) -> Result<Vec<Outcome>> {
        let [write] = &*writes else { return Err(Error::Engine("a limited write stands alone".into())) };
        let budget = write.budget.clone();
        if let (Operation::Insert(documents), Some(limits)) = (&write.operation, write.limits) {
            let bytes = documents.iter().map(|document| document.as_bytes().len()).sum();
            limits.check(documents.len(), bytes)?;
        }
        let attempt = budget.attempt(WRITER_STEPS);
        let answer = self.write_in_turn(&writes, &attempt).await;
        if !is_undone(&answer, &attempt) {
            return answer;
        }
        budget.check()?;
        for number in 0..guarded::ATTEMPTS {
            if number == PLANNED_ATTEMPTS {
                // Other writes are faster again and again: once, it has a longer turn.
                let attempt = budget.attempt(LONG_WRITER_STEPS);
                let answer = self.write_in_turn(&writes, &attempt).await;
                if !is_undone(&answer, &attempt) {
                    return answer;
                }
                budget.check()?;
            }
            let (planned, environment) = (Arc::clone(&writes), Arc::clone(&self.shared.environment));
            let plan =
                move |session: Option<&mut StoreConnection>| conditional::plan(session, &*environment, &planned[0]);
            // The turn is kept until the plan is carried out: plans take memory.
            let (conditional, _turn) = self.on_a_thread_and_keep(budget.clone(), plan).await?;
            if let Some(answer) = conditional.answer() {
                return Ok(vec![answer.clone()]);
            }
            let waiting = budget.cancel_on_drop();
            let (writes, within) = (Arc::clone(&writes), budget.clone());
            let answer = self
                .submit(|reply| Job::CarryOut { conditional: Box::new(conditional), writes, budget: within, reply })
                .await;
            waiting.disarm();
            match answer {
                Err(error) if guarded::is_conflict(&error) => {}
                answer => return answer,
            }
        }
        Err(guarded::conflict())
    }

    /// Computes and writes in the writer's turn, within a budget.
    async fn write_in_turn(&self, writes: &Arc<[Write]>, budget: &Budget) -> Result<Vec<Outcome>> {
        let waiting = budget.cancel_on_drop();
        let (writes, within) = (Arc::clone(writes), budget.clone());
        let answer = self.submit(|reply| Job::Write { writes, budget: within, reply }).await;
        waiting.disarm();
        answer
    }

    /// What variables stand for in an operation that begins now.
    fn variables(&self) -> Variables {
        Variables::at(self.shared.environment.now())
    }

    fn submit(&self, make: impl FnOnce(writer::Reply) -> Job) -> BoxFuture<'static, Result<Vec<Outcome>>> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        if let Err(error) = self.shared.with_writer(|writer| writer.send(make(reply))) {
            return future::ready(Err(error)).boxed();
        }
        async move { answer.await.unwrap_or(Err(Error::Closed)) }.boxed()
    }
}

/// True if the budget of an attempt has undone it, so that it may be done again.
fn is_undone(answer: &Result<Vec<Outcome>>, attempt: &Budget) -> bool {
    let is_of_budget = |error: &Error| matches!(error, Error::Query(error) if write::is_of_budget(error));
    answer.as_ref().is_err_and(is_of_budget) && attempt.is_exhausted()
}

impl Shared {
    /// Runs a read on an idle connection or a new one. `None` stands for a file that no write has made yet.
    pub(crate) fn read<T>(&self, read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T>) -> Result<T> {
        if let Some(memory) = &self.memory {
            self.check_open()?;
            return read(Some(&mut lock(memory)));
        }
        let session = match self.idle_reader(RESERVED_READERS)? {
            Some(session) => Some(session),
            None => StoreConnection::open_existing(&self.location, &self.settings)?,
        };
        let Some(mut session) = session else { return read(None) };
        let answer = read(Some(&mut session));
        self.keep_reader(session);
        answer
    }

    /// Takes an idle reading connection if there are more than `reserved`.
    fn idle_reader(&self, reserved: usize) -> Result<Option<StoreConnection>> {
        match &mut *lock(&self.state) {
            OpenState::Open { readers, .. } => Ok(if readers.len() > reserved { readers.pop() } else { None }),
            OpenState::Closed => Err(Error::Closed),
        }
    }

    fn keep_reader(&self, session: StoreConnection) {
        if let OpenState::Open { readers, .. } = &mut *lock(&self.state)
            && readers.len() < IDLE_READERS
        {
            readers.push(session);
        }
    }

    /// Runs a read where the event loop waits. There is no answer if the read would have to open a connection, or, in
    /// memory, if another operation has the one connection.
    fn read_at_once<T>(
        &self,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        match &self.memory {
            Some(memory) => {
                self.check_open()?;
                match memory.try_lock() {
                    Ok(mut session) => read(Some(&mut session)),
                    Err(TryLockError::Poisoned(poisoned)) => read(Some(&mut poisoned.into_inner())),
                    Err(TryLockError::WouldBlock) => Ok(None),
                }
            }
            None => {
                let Some(mut session) = self.idle_reader(0)? else { return Ok(None) };
                let answer = read(Some(&mut session));
                self.keep_reader(session);
                answer
            }
        }
    }

    fn check_open(&self) -> Result<()> {
        match &*lock(&self.state) {
            OpenState::Open { .. } => Ok(()),
            OpenState::Closed => Err(Error::Closed),
        }
    }

    fn with_writer(self: &Arc<Self>, send: impl FnOnce(&Writer) -> Result<()>) -> Result<()> {
        match &mut *lock(&self.state) {
            OpenState::Open { writer, .. } => {
                if writer.is_none() {
                    *writer = Some(Writer::start(self)?);
                }
                writer.as_ref().map_or(Err(Error::Closed), send)
            }
            OpenState::Closed => Err(Error::Closed),
        }
    }
}

impl Store for SqliteStore {
    fn find(&self, mut find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        if let Err(error) = find.bind(&self.variables()) {
            return failed(error);
        }
        if read::may_be_few(&find) {
            let few = |session: Option<&mut StoreConnection>| match session {
                Some(session) => read::find_few(session, &find),
                None => Ok(Some(Vec::new())),
            };
            if let Some(answer) = self.inline(&find.budget, few) {
                return future::ready(answer).boxed();
            }
        }
        self.on_a_thread_within(find.budget.clone(), move |session| read::find_in(session, &find))
    }

    fn find_both(&self, mut finds: [Find; 2]) -> BoxFuture<'_, Result<[Vec<RawDocumentBuf>; 2]>> {
        let variables = self.variables();
        if let Err(error) = finds.iter_mut().try_for_each(|find| find.bind(&variables)) {
            return failed(error);
        }
        if finds.iter().all(read::may_be_few) {
            let few = |session: Option<&mut StoreConnection>| match session {
                Some(session) => read::find_few_both(session, &finds),
                None => Ok(Some([Vec::new(), Vec::new()])),
            };
            if let Some(answer) = self.inline(&finds[1].budget, few) {
                return future::ready(answer).boxed();
            }
        }
        self.on_a_thread_within(finds[1].budget.clone(), move |session| match session {
            Some(session) => session.at_one_moment(|session| {
                Ok([read::find_in(Some(session), &finds[0])?, read::find_in(Some(session), &finds[1])?])
            }),
            None => Ok([Vec::new(), Vec::new()]),
        })
    }

    fn count(&self, mut count: Count) -> BoxFuture<'_, Result<u64>> {
        if let Err(error) = count.filter.bind(&self.variables()) {
            return failed(error);
        }
        let budget = count.budget.clone();
        self.on_a_thread_within(budget, move |session| session.map_or(Ok(0), |session| read::count(session, &count)))
    }

    fn aggregate(&self, mut aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        if let Err(error) = aggregate.pipeline.bind(&self.variables()) {
            return failed(error);
        }
        let budget = aggregate.budget.clone();
        self.on_a_thread_within(budget, move |session| aggregate::aggregate(session, aggregate))
    }

    fn write(&self, mut writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        let variables = self.variables();
        let bound = writes.iter_mut().try_for_each(|write| match &mut write.operation {
            Operation::Modify(modify) => modify.bind(&variables),
            Operation::Insert(_) => Ok(()),
        });
        if let Err(error) = bound {
            return failed(error);
        }
        let writes: Arc<[Write]> = writes.into();
        if let [Write { limits: Some(_), .. }] = &*writes {
            return self.clone().write_limited(writes).boxed();
        }
        let budget = writes.first().map(|write| write.budget.clone()).unwrap_or_default();
        self.submit(|reply| Job::Write { writes, budget, reply })
    }

    fn ensure_indexes(&self, namespace: Namespace, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        let exist = self.shared.read_at_once(|session| match session {
            Some(session) => session.has_indexes(&namespace, &indexes).map(Some),
            None => Ok(Some(false)),
        });
        match exist {
            Ok(Some(true)) => future::ready(Ok(())).boxed(),
            // The writer looks again.
            Ok(Some(false) | None) => self
                .submit(|reply| Job::EnsureIndexes { namespace, indexes, reply })
                .map(|done| done.map(|_| ()))
                .boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn indexes(&self, namespace: Namespace) -> BoxFuture<'_, Result<Option<Vec<Index>>>> {
        self.on_a_thread(move |session| session.map_or(Ok(None), |session| session.indexes(&namespace)))
    }

    fn drop_index(&self, namespace: Namespace, name: String) -> BoxFuture<'_, Result<()>> {
        self.submit(|reply| Job::DropIndex { namespace, name, reply }).map(|done| done.map(|_| ())).boxed()
    }

    fn explain(&self, mut find: Find) -> BoxFuture<'_, Result<Explanation>> {
        if let Err(error) = find.bind(&self.variables()) {
            return failed(error);
        }
        self.on_a_thread(move |session| read::explain(session, &find))
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Box<dyn ChangeStream>>> {
        let after = watch.after.clone();
        let place = move |session: Option<&mut StoreConnection>| change_feed::place(session, after.as_ref());
        let begin = |store: &Self, place| {
            change_feed::watch(store, watch.namespace, watch.owner, place)
                .map(|stream| Box::new(stream) as Box<dyn ChangeStream>)
        };
        let at_once = place.clone();
        // A file's place is always read at once, on a new connection if need be: the stream has every write after the call.
        let read = |session: Option<&mut StoreConnection>| at_once(session).map(Some);
        let found = match &self.shared.memory {
            Some(_) => self.shared.read_at_once(read),
            None => self.shared.read(read),
        };
        match found {
            Ok(Some(place)) => future::ready(begin(self, place)).boxed(),
            Ok(None) => {
                let (store, place) = (self.clone(), self.on_a_thread(place));
                async move { place.await.and_then(|place| begin(&store, place)) }.boxed()
            }
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn collections(&self) -> BoxFuture<'_, Result<Vec<Namespace>>> {
        self.on_a_thread(|session| session.map_or(Ok(Vec::new()), StoreConnection::namespaces))
    }

    fn page(&self, namespace: Namespace, after: Option<RawBson>) -> BoxFuture<'_, Result<Page>> {
        let after = after.and_then(|place| place.as_i64()).unwrap_or(0);
        self.on_a_thread(move |session| {
            session.map_or(Ok(Page::default()), |session| read::page(session, &namespace, after))
        })
    }

    fn backup(&self, file: PathBuf, progress: Progress) -> BoxFuture<'_, Result<()>> {
        self.on_a_thread(move |session| match session {
            Some(session) => backup::backup(session, &file, &progress),
            None => Err(Error::Backup { path: file, reason: "nothing has been written to the store yet".into() }),
        })
    }

    fn check(&self, repair: bool, progress: Progress) -> BoxFuture<'_, Result<Vec<Finding>>> {
        async move {
            let seen = progress.clone();
            let check = move |session: Option<&mut StoreConnection>| match session {
                Some(session) => check::check(session, &seen),
                None => Ok(Vec::new()),
            };
            let findings = self.on_a_thread(check.clone()).await?;
            if !repair || !findings.iter().any(|finding| finding.is_of_index) {
                return Ok(findings);
            }
            progress.begin("making indexes anew", 0);
            self.submit(|reply| Job::Repair { reply }).await?;
            self.on_a_thread(check).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let state = std::mem::replace(&mut *lock(&self.shared.state), OpenState::Closed);
        self.shared.feed.closed();
        let OpenState::Open { writer, readers } = state else { return future::ready(()).boxed() };
        drop(readers);
        let Some(writer) = writer else { return future::ready(()).boxed() };
        let finished = writer.finish();
        async move {
            let _ = finished.await;
        }
        .boxed()
    }
}

/// The directory that a file is in, or is to be made in.
fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The answer to a request that cannot be carried out.
fn failed<T: Send + 'static>(error: query::Error) -> BoxFuture<'static, Result<T>> {
    future::ready(Err(error.into())).boxed()
}

/// A lock whose holder panicked still guards data that is whole: every change to it is a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn configure(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Otherwise a statement is prepared again for each value that it is given, which costs more than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Commits reach the file at once and survive the process; the disk is synced at checkpoints.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // What a log may keep of its size when it begins anew.
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    // Without a map of the file: each commit makes every reader unmap and map it again, on whichever thread it reads.
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(())
}

#[cfg(test)]
mod tests;
