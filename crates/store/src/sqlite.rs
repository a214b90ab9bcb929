//! The embedded store: BSON documents in SQLite (<https://sqlite.org/wal.html>), with one table
//! for each collection and one for each index.
//!
//! One writer thread groups waiting writes into commits. Readers have their own connections.

mod aggregate;
mod backup;
mod catalog;
mod change_feed;
mod changes;
mod check;
mod claim;
mod commit;
mod conditional;
mod connection;
mod documents;
mod effects;
mod lines;
mod overlay;
mod place;
mod plan;
mod read;
mod transaction;
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
    Aggregate, ChangeStream, Count, Error, Explanation, Find, Finding, Index, Maintenance, Namespace, Operation,
    Outcome, Page, Progress, Result, Store, Transaction, TransactionLimits, Watch, Write, guarded,
    workers::{self, Turn},
};
use change_feed::ChangeFeed;
pub use changes::Retention;
use connection::StoreConnection;
use place::FilePlace;
use transaction::Transactions;
use writer::{Job, Writer};

/// The number of steps that a limited write may take on the writer thread, before it is planned
/// elsewhere: some milliseconds.
const WRITER_STEPS: u64 = 60_000;

/// The maximum number of idle reader connections.
const IDLE_READERS: usize = 8;

/// The number of idle reader connections that are reserved for reads on the event loop, which open
/// none.
const RESERVED_READERS: usize = 4;

/// The number of planned attempts of a limited write, after which it may take
/// [`LONG_WRITER_STEPS`] on the writer thread.
const PLANNED_ATTEMPTS: usize = 4;

/// The number of steps that such a write may take on the writer thread: some tens of milliseconds.
const LONG_WRITER_STEPS: u64 = 400_000;

/// The size of the write-ahead log, in bytes, beyond which the writer waits for readers so that
/// the log can restart.
const LOG_LIMIT: i64 = 32 * 1024 * 1024;

/// Time that one process waits for the commit of another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The location of an embedded store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file, created by the first write.
    File(PathBuf),
    /// Memory: the documents are gone when the store is dropped.
    Memory,
}

/// The failures that an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// A crash of the process. The disk is synced within 100 ms after a commit, so a power failure
    /// can lose the writes of that time.
    #[default]
    Process,
    /// A power failure too: each commit is synced.
    Full,
}

/// The settings of an embedded store.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The failures that acknowledged writes survive.
    pub durability: Durability,
    /// The limits of the change history.
    pub retention: Retention,
    /// The prefix of databases that cannot be watched, in lower case: their changes are not
    /// recorded.
    pub unwatched: Option<&'static str>,
    /// A replacement for syncing the write-ahead log; `None` syncs it with the operating system.
    pub sync: Option<SyncLog>,
}

/// A replacement for syncing the write-ahead log, for tests that simulate a power failure.
#[derive(Clone)]
pub struct SyncLog(Arc<SyncFn>);

type SyncFn = dyn Fn(&Path) -> std::io::Result<()> + Send + Sync;

impl SyncLog {
    /// Uses `sync`, called with the path of the log, instead of syncing the log.
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
    /// True if the changes of a collection are recorded.
    fn keeps_changes_of(&self, namespace: &Namespace) -> bool {
        self.unwatched.is_none_or(|prefix| !namespace.database.to_ascii_lowercase().starts_with(prefix))
    }
}

/// A store in one SQLite file, or in memory. Clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    location: Location,
    /// `None` for a store in memory.
    place: Option<Arc<FilePlace>>,
    settings: Settings,
    /// The number of syncs by the writer.
    syncs: AtomicU64,
    environment: Arc<dyn Environment + Send + Sync>,
    state: Mutex<OpenState>,
    /// The only connection of a store in memory.
    memory: Option<Mutex<StoreConnection>>,
    feed: Arc<ChangeFeed>,
    transactions: Transactions,
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
    /// Opens a store. An existing file is only checked; a missing one is created by the first
    /// write.
    ///
    /// # Errors
    /// If the file is not a store, has a newer format, or cannot be read.
    pub fn open(location: Location, environment: Arc<dyn Environment + Send + Sync>) -> Result<Self> {
        Self::open_with(location, environment, Settings::default())
    }

    /// Opens a store with other settings than the default.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        location: Location,
        environment: Arc<dyn Environment + Send + Sync>,
        settings: Settings,
    ) -> Result<Self> {
        let (memory, place, feed) = match &location {
            Location::Memory => {
                let session = StoreConnection::memory(&settings)?;
                let feed = ChangeFeed::in_memory(&session.connection)?;
                (Some(Mutex::new(session)), None, feed)
            }
            Location::File(path) => {
                let failed = |error: std::io::Error| Error::Open { path: path.clone(), reason: error.to_string() };
                files::refuse_network(directory_of(path)).map_err(failed)?;
                (None, Some(Arc::new(FilePlace::new(path))), ChangeFeed::default())
            }
        };
        let state = Mutex::new(OpenState::Open { writer: None, readers: Vec::new() });
        let store = Self {
            shared: Arc::new(Shared {
                location,
                place,
                settings,
                syncs: AtomicU64::new(0),
                environment,
                state,
                memory,
                feed: Arc::new(feed),
                transactions: Transactions::default(),
            }),
        };
        // An unusable file is reported now instead of at the first operation.
        store.shared.read(|_| Ok(()))?;
        Ok(store)
    }

    /// Runs a read on a worker thread, without limits. It stops soon after the future is dropped.
    fn on_a_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        self.on_a_thread_within(Budget::default(), read)
    }

    /// Runs a read on a worker thread, within a budget. It stops soon after the future is dropped.
    fn on_a_thread_within<T: Send + 'static>(
        &self,
        budget: Budget,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        self.on_a_thread_and_keep(budget, read).map(|answer| answer.map(|(answer, _)| answer)).boxed()
    }

    /// Runs a read like [`on_a_thread_within`](Self::on_a_thread_within), and returns the turn
    /// with the result.
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

    /// Runs a small read on the event loop. Returns `None` if the read is not small or would have
    /// to wait, and belongs on another thread.
    fn inline<T>(
        &self,
        budget: &Budget,
        read: impl FnOnce(Option<&mut StoreConnection>) -> Result<Option<T>>,
    ) -> Option<Result<T>> {
        let attempt = budget.attempt(workers::INLINE_STEPS);
        let answer = attempt.enter(|| self.shared.read_at_once(read));
        // The result of an exhausted attempt is not complete.
        if attempt.is_exhausted() { None } else { answer.transpose() }
    }

    /// Applies a limited write: on the writer thread if it is small, else planned on another
    /// thread first.
    async fn write_limited(self, writes: Arc<[Write]>) -> Result<Vec<Outcome>> {
        let [write] = &*writes else { return Err(Error::Engine("a limited write must be the only one".into())) };
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
                // The plans conflict with other writes again and again: one longer attempt on the
                // writer thread.
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
            // Keep the turn until the plan is applied, because plans take memory.
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

    /// Computes and applies writes on the writer thread, within a budget.
    async fn write_in_turn(&self, writes: &Arc<[Write]>, budget: &Budget) -> Result<Vec<Outcome>> {
        let waiting = budget.cancel_on_drop();
        let (writes, within) = (Arc::clone(writes), budget.clone());
        let answer = self.submit(|reply| Job::Write { writes, budget: within, reply }).await;
        waiting.disarm();
        answer
    }

    /// Returns the values of the variables for an operation that begins now.
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

/// True if an attempt was rolled back because its budget was exhausted, so that it can be
/// repeated.
fn is_undone(answer: &Result<Vec<Outcome>>, attempt: &Budget) -> bool {
    let is_of_budget = |error: &Error| matches!(error, Error::Query(error) if write::is_of_budget(error));
    answer.as_ref().is_err_and(is_of_budget) && attempt.is_exhausted()
}

impl Shared {
    /// Runs a read on an idle connection or a new one. The read gets `None` if the file does not
    /// exist yet.
    pub(crate) fn read<T>(&self, read: impl FnOnce(Option<&mut StoreConnection>) -> Result<T>) -> Result<T> {
        if let Some(memory) = &self.memory {
            self.check_open()?;
            return read(Some(&mut lock(memory)));
        }
        let session = match self.idle_reader(RESERVED_READERS)? {
            Some(session) => Some(session),
            None => {
                let session = StoreConnection::open_existing(&self.location, &self.settings)?;
                self.note_opened(session.is_some())?;
                session
            }
        };
        let Some(mut session) = session else { return read(None) };
        let answer = read(Some(&mut session));
        self.keep_reader(session);
        answer
    }

    /// Takes an idle reader connection if there are more than `reserved`.
    fn idle_reader(&self, reserved: usize) -> Result<Option<StoreConnection>> {
        match &mut *lock(&self.state) {
            OpenState::Open { readers, .. } => Ok(if readers.len() > reserved { readers.pop() } else { None }),
            OpenState::Closed => Err(Error::Closed),
        }
    }

    /// Returns the finding about a file that exists, but has no store in it yet.
    fn empty_file(&self) -> Option<Finding> {
        let Location::File(path) = &self.location else { return None };
        let what = format!("{} is empty, and not a Userkeep store", path.display());
        path.exists().then_some(Finding { what, is_of_index: false })
    }

    /// Checks that a new connection uses the file of the earlier ones. Without one, checks that
    /// there never was a file.
    fn note_opened(&self, is_open: bool) -> Result<()> {
        match &self.place {
            Some(place) if is_open => place.note_opened(),
            Some(place) => place.check(),
            None => Ok(()),
        }
    }

    fn keep_reader(&self, session: StoreConnection) {
        if let OpenState::Open { readers, .. } = &mut *lock(&self.state)
            && readers.len() < IDLE_READERS
        {
            readers.push(session);
        }
    }

    /// Runs a read on the event loop. Returns `None` if the read would have to open a connection
    /// or, in memory, if another operation has the only connection.
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

    fn begin(&self, limits: TransactionLimits) -> BoxFuture<'_, Result<Arc<dyn Transaction>>> {
        transaction::begin(self.clone(), limits).boxed()
    }

    fn ensure_indexes(&self, namespace: Namespace, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        let exist = self.shared.read_at_once(|session| match session {
            Some(session) => session.has_indexes(&namespace, &indexes).map(Some),
            None => Ok(Some(false)),
        });
        match exist {
            Ok(Some(true)) => future::ready(Ok(())).boxed(),
            // The writer checks again.
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
        // Without a token, the position is always found immediately, so that the stream has every
        // write after this call: in a file if necessary on a new connection.
        let read = |session: Option<&mut StoreConnection>| at_once(session).map(Some);
        let found = match self.shared.feed.place_in_memory() {
            Some(place) if watch.after.is_none() => self.shared.check_open().map(|()| Some(place)),
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

    fn adopt_collections(&self, namespaces: Vec<Namespace>) -> BoxFuture<'_, Result<()>> {
        self.submit(|reply| Job::CreateCollections { namespaces, reply }).map(|done| done.map(|_| ())).boxed()
    }

    fn identity(&self) -> Option<String> {
        let Location::File(path) = &self.shared.location else { return None };
        let canonical = || {
            let directory = directory_of(path).canonicalize().ok()?;
            Some(directory.join(path.file_name()?))
        };
        Some(match files::FileId::of(path) {
            Ok(Some(file)) => format!("{file:?}"),
            _ => path.canonicalize().ok().or_else(canonical).as_ref().unwrap_or(path).display().to_string(),
        })
    }

    fn page(&self, namespace: Namespace, after: Option<RawBson>) -> BoxFuture<'_, Result<Page>> {
        let after = after.and_then(|place| place.as_i64()).unwrap_or(0);
        self.on_a_thread(move |session| {
            session.map_or(Ok(Page::default()), |session| read::page(session, &namespace, after))
        })
    }

    fn maintenance(&self) -> Option<&dyn Maintenance> {
        Some(self)
    }

    fn check_file(&self) -> Result<()> {
        self.shared.place.as_ref().map_or(Ok(()), |place| place.check())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let state = std::mem::replace(&mut *lock(&self.shared.state), OpenState::Closed);
        self.shared.feed.closed();
        self.shared.transactions.stop();
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

impl Maintenance for SqliteStore {
    fn backup(&self, file: PathBuf, progress: Progress) -> BoxFuture<'_, Result<()>> {
        self.on_a_thread(move |session| match session {
            Some(session) => backup::backup(session, &file, &progress),
            None => Err(Error::Backup { path: file, reason: "nothing has been written to the store yet".into() }),
        })
    }

    fn check(&self, repair: bool, progress: Progress) -> BoxFuture<'_, Result<Vec<Finding>>> {
        async move {
            let (seen, shared) = (progress.clone(), Arc::clone(&self.shared));
            let check = move |session: Option<&mut StoreConnection>| match session {
                Some(session) => check::check(session, &seen),
                None => Ok(shared.empty_file().into_iter().collect()),
            };
            let findings = self.on_a_thread(check.clone()).await?;
            if !repair || !findings.iter().any(|finding| finding.is_of_index) {
                return Ok(findings);
            }
            progress.begin("rebuilding indexes", 0);
            self.submit(|reply| Job::Repair { reply }).await?;
            self.on_a_thread(check).await
        }
        .boxed()
    }
}

/// Returns the directory of a file, which may not exist yet.
fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns a future that is ready with an error.
fn failed<T: Send + 'static>(error: query::Error) -> BoxFuture<'static, Result<T>> {
    future::ready(Err(error.into())).boxed()
}

/// Locks a mutex even if it is poisoned: every change to the data is one assignment, so a panic
/// leaves the data consistent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn configure(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Without this, SQLite prepares a statement again for each bound value, which costs more than
    // running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // A commit reaches the file immediately and survives a crash of the process. The disk is
    // synced at checkpoints.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // The size to which a restarted log is truncated.
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    // No memory-mapped file: each commit would make every reader map it again, on its own thread.
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(())
}

#[cfg(test)]
mod tests;
