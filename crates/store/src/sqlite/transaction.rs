//! Transactions of the embedded store. A transaction reads from one snapshot, keeps its writes in
//! memory, and never holds the writer.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bson::raw::RawDocumentBuf;
use futures_util::future::{BoxFuture, FutureExt};
use query::{Budget, Environment};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    RESERVED_READERS, Shared, SqliteStore, aggregate,
    catalog::Collection,
    commit::Commit,
    conditional::{self, PlannedModify},
    connection::StoreConnection,
    documents::{Documents, FEW, FEW_BYTES},
    lock,
    overlay::Overlay,
    read,
    writer::Job,
};
use crate::{
    Aggregate, Count, Error, Find, Namespace, Operation, Outcome, Result, Transaction, TransactionLimits, Write,
    guarded::{self, Planned},
    transaction::{self, Core, End, Turn},
    workers,
};

/// The maximum number of transactions of a store that are open at once. Each has a connection.
/// More wait for their turn.
const MOST_OPEN: usize = 32;

/// The size of writes up to which a commit is prepared on the calling thread, in bytes.
const SMALL_COMMIT: usize = 16 * 1024;

/// The open transactions of a store.
pub(super) struct Transactions {
    permits: Arc<Semaphore>,
    open: std::sync::Mutex<Vec<Weak<Core<Snapshot>>>>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MOST_OPEN)), open: std::sync::Mutex::default() }
    }
}

impl Transactions {
    fn add(&self, core: &Arc<Core<Snapshot>>) {
        let mut open = lock(&self.open);
        open.retain(|core| core.strong_count() > 0);
        open.push(Arc::downgrade(core));
    }

    /// Aborts all transactions, when the store is closed.
    pub(super) fn stop(&self) {
        self.permits.close();
        let open = std::mem::take(&mut *lock(&self.open));
        open.iter().filter_map(Weak::upgrade).for_each(|core| core.stop_now());
    }
}

/// The permit of an open transaction, which is returned when dropped.
struct Permit {
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Permit {
    /// Waits until a transaction may begin.
    ///
    /// # Errors
    /// [`Error::TooManyTransactions`] if none has ended in `limit`, and [`Error::Closed`].
    async fn take(shared: &Arc<Shared>, limit: Duration) -> Result<Self> {
        let permits = Arc::clone(&shared.transactions.permits);
        match tokio::time::timeout(limit, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Self { shared: Arc::clone(shared), _permit: permit }),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::TooManyTransactions { limit: MOST_OPEN }),
        }
    }
}

/// The snapshot of a transaction, and its writes.
pub(super) struct Snapshot {
    permit: Permit,
    /// The connection, with an open read transaction. `None` only while this is being dropped.
    session: Option<StoreConnection>,
    /// True if the connection reads the file, false if it has a copy of a store in memory.
    is_reader: bool,
    overlay: Overlay,
    /// The owner of the writes, whose turn the commit takes.
    owner: Option<Arc<str>>,
}

/// A write whose changes are planned but not part of the transaction yet.
enum PlannedWrite {
    Insert(Vec<RawDocumentBuf>),
    Modify(PlannedModify),
}

impl Shared {
    /// Opens the connection of a snapshot: to the file or, in memory, to a copy of the database.
    /// The second value is true for a connection to the file.
    fn connection_for_snapshot(&self) -> Result<(StoreConnection, bool)> {
        if let Some(memory) = &self.memory {
            self.check_open()?;
            return Ok((StoreConnection::copy_of(&lock(memory), &self.settings)?, false));
        }
        if let Some(session) = self.idle_reader(RESERVED_READERS)? {
            return Ok((session, true));
        }
        let session = StoreConnection::open_existing(&self.location, &self.settings)?;
        self.note_opened(session.is_some())?;
        match session {
            Some(session) => Ok((session, true)),
            // A file that does not exist yet reads as an empty store.
            None => Ok((StoreConnection::memory(&self.settings)?, false)),
        }
    }
}

impl Snapshot {
    fn begin(permit: Permit, mut session: StoreConnection, is_reader: bool, limits: TransactionLimits) -> Result<Self> {
        session.run("BEGIN")?;
        // This read takes the snapshot.
        session.catalog.refresh(&session.connection)?;
        Ok(Self { permit, session: Some(session), is_reader, overlay: Overlay::new(limits), owner: None })
    }

    fn session(&self) -> Result<&StoreConnection> {
        match &self.session {
            Some(session) if !session.connection.is_autocommit() => Ok(session),
            _ => Err(Error::Engine("the snapshot of a transaction was lost".to_owned())),
        }
    }

    /// Runs an operation under a budget, which also interrupts SQLite itself.
    fn within<T>(&mut self, budget: &Budget, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.session()?;
        if let Some(session) = &mut self.session {
            session.watch(budget)?;
        }
        let answer = run(self);
        if let Some(session) = &mut self.session {
            session.unwatch()?;
        }
        budget.check()?;
        answer
    }

    /// Passes on the documents of a collection as the transaction sees them; `None` if it does not
    /// exist.
    fn among<T>(&self, namespace: &Namespace, read: impl FnOnce(Option<Documents<'_>>) -> Result<T>) -> Result<T> {
        let session = self.session()?;
        if let Some(written) = self.overlay.written(namespace) {
            return read(Some(Documents::with(&session.connection, written)));
        }
        let collection = session.catalog.collection(namespace);
        read(collection.as_deref().map(|collection| Documents::stored(&session.connection, collection)))
    }

    fn find_few(&self, find: &Find) -> Result<Option<Vec<RawDocumentBuf>>> {
        self.among(&find.namespace, |documents| match documents {
            Some(documents) => read::few(documents, find, false, || Ok(())),
            None => Ok(Some(Vec::new())),
        })
    }

    fn find(&self, find: &Find) -> Result<Vec<RawDocumentBuf>> {
        self.among(&find.namespace, |documents| match documents {
            Some(documents) => Ok(read::find_among(documents, find)?.0),
            None => Ok(Vec::new()),
        })
    }

    fn count(&self, count: &Count) -> Result<u64> {
        self.among(&count.namespace, |documents| {
            documents.map_or(Ok(0), |documents| read::count_among(documents, count))
        })
    }

    fn aggregate(&self, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
        let namespace = aggregate.namespace.clone();
        self.among(&namespace, |documents| aggregate::aggregate_among(documents, aggregate))
    }

    /// Plans a write on the snapshot and the writes so far, without changing them.
    fn plan(&self, write: &Write) -> Result<PlannedWrite> {
        let environment: &dyn Environment = &*self.permit.shared.environment;
        let Write { namespace, operation, guard, limits, .. } = write;
        let guard = guard.as_deref();
        match operation {
            Operation::Insert(documents) => {
                let bytes = documents.iter().map(|document| document.as_bytes().len()).sum();
                limits.map_or(Ok(()), |limits| limits.check(documents.len(), bytes))?;
                guarded::prepared(documents, guard, environment).map(PlannedWrite::Insert)
            }
            Operation::Modify(modify) => self.among(namespace, |documents| {
                conditional::plan_modify(documents, environment, modify, guard, *limits).map(PlannedWrite::Modify)
            }),
        }
    }

    /// Makes a planned write part of the transaction.
    fn apply(&mut self, write: &Write, planned: PlannedWrite) -> Result<Outcome> {
        let namespace = &write.namespace;
        let known = self.session()?.catalog.collection(namespace);
        let collection = match known {
            Some(collection) => collection,
            None => Arc::new(Collection::missing(namespace, true)),
        };
        self.owner = write.budget.owner().cloned();
        match planned {
            PlannedWrite::Insert(documents) => self.insert(&collection, documents, Outcome::default()),
            PlannedWrite::Modify(PlannedModify { upserted: Some(made), outcome, .. }) => {
                let inserted = self.insert(&collection, vec![made], Outcome::default());
                inserted.map(|_| outcome)
            }
            PlannedWrite::Modify(PlannedModify { kind, changes, mut outcome, .. }) => {
                for (seq, before, planned) in changes {
                    query::budget::charge(1)?;
                    match &planned {
                        Planned::Unchanged(_) => {}
                        Planned::Delete => outcome.deleted += 1,
                        Planned::Become(_) => outcome.modified += 1,
                    }
                    let Some(session) = &self.session else { return Err(Error::Closed) };
                    self.overlay.change(&session.connection, &collection, seq, before, planned, kind)?;
                }
                Ok(outcome)
            }
        }
    }

    fn insert(
        &mut self,
        collection: &Collection,
        documents: Vec<RawDocumentBuf>,
        mut outcome: Outcome,
    ) -> Result<Outcome> {
        let Some(session) = &self.session else { return Err(Error::Closed) };
        if !collection.exists() {
            session.catalog.check_name(&collection.namespace)?;
        }
        for document in documents {
            query::budget::charge(1)?;
            outcome.inserted_ids.push(self.overlay.insert(&session.connection, collection, document)?);
        }
        Ok(outcome)
    }

    /// Releases the snapshot, and returns the writes and their owner.
    fn release(mut self) -> (Overlay, Option<Arc<str>>) {
        let none = Overlay::new(TransactionLimits::default());
        (std::mem::replace(&mut self.overlay, none), self.owner.take())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        // A connection that does not leave the snapshot is closed.
        if session.unwatch().is_ok() && session.run("ROLLBACK").is_ok() && self.is_reader {
            self.permit.shared.keep_reader(session);
        }
    }
}

/// A transaction of the embedded store.
#[derive(Debug)]
struct SqliteTransaction {
    store: SqliteStore,
    core: Arc<Core<Snapshot>>,
}

/// Begins a transaction.
pub(super) async fn begin(store: SqliteStore, limits: TransactionLimits) -> Result<Arc<dyn Transaction>> {
    let permit = Permit::take(&store.shared, limits.time).await?;
    // A store in memory has no idle readers.
    let snapshot = match store.shared.idle_reader(RESERVED_READERS)? {
        Some(session) => Snapshot::begin(permit, session, true, limits)?,
        None => {
            let begin = move || {
                let (session, is_reader) = permit.shared.connection_for_snapshot()?;
                Snapshot::begin(permit, session, is_reader, limits)
            };
            workers::run(&Budget::default(), begin).await??
        }
    };
    let core = Core::begin(snapshot, limits);
    store.shared.transactions.add(&core);
    // The store may have been closed in the meantime.
    store.shared.check_open().inspect_err(|_| core.stop_now())?;
    Ok(Arc::new(SqliteTransaction { store, core }))
}

/// True if a write can be planned on the event loop in most cases.
fn may_be_small(write: &Write) -> bool {
    match &write.operation {
        Operation::Insert(documents) => {
            documents.len() <= FEW
                && documents.iter().map(|document| document.as_bytes().len()).sum::<usize>() <= FEW_BYTES
        }
        Operation::Modify(modify) => !modify.multi && modify.sort.is_none() && !modify.filter.equalities().is_empty(),
    }
}

/// Runs an operation on a worker thread.
async fn on_a_thread<T: Send + 'static>(
    mut turn: Turn<Snapshot>,
    run: impl FnOnce(&mut Snapshot) -> Result<T> + Send + 'static,
) -> Result<T> {
    let budget = turn.budget().clone();
    let within = budget.clone();
    let work = move || {
        let answer = turn.open().and_then(|snapshot| snapshot.within(&within, run));
        (turn, answer)
    };
    let (turn, answer) = workers::run(&budget, work).await?;
    turn.settle(answer)
}

impl SqliteTransaction {
    async fn enter(&self, budget: &Budget) -> Result<Turn<Snapshot>> {
        self.store.shared.check_open()?;
        self.core.enter(budget).await
    }

    /// Plans and applies a write: on the calling thread if it is small, else on a worker thread.
    async fn write_in(&self, mut turn: Turn<Snapshot>, write: Write) -> Result<Outcome> {
        if may_be_small(&write) {
            let attempt = turn.budget().attempt(workers::INLINE_STEPS);
            let planned = attempt.enter(|| turn.open()?.plan(&write));
            if !attempt.is_exhausted() {
                let answer = planned.and_then(|planned| turn.open()?.apply(&write, planned));
                return turn.settle(answer);
            }
        }
        let run = move |snapshot: &mut Snapshot| {
            let planned = snapshot.plan(&write)?;
            snapshot.apply(&write, planned)
        };
        on_a_thread(turn, run).await
    }

    async fn commit_in(&self, snapshot: Snapshot) -> Result<()> {
        let (overlay, owner) = snapshot.release();
        let is_small = overlay.bytes() <= SMALL_COMMIT;
        let budget = Budget::unlimited(owner);
        let commit = if is_small {
            Commit::new(overlay)?
        } else {
            workers::run(&budget, move || Commit::new(overlay)).await??
        };
        if commit.is_empty() {
            return Ok(());
        }
        let commit = Box::new(commit);
        self.store.submit(|reply| Job::Commit { commit, budget, reply }).await.map(|_| ())
    }
}

impl Transaction for SqliteTransaction {
    fn find(&self, mut find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        let bound = find.bind(&self.store.variables());
        async move {
            let mut turn = self.enter(&find.budget).await?;
            if let Err(error) = bound {
                return turn.settle(Err(error.into()));
            }
            if read::may_be_few(&find) {
                let attempt = turn.budget().attempt(workers::INLINE_STEPS);
                let answer = attempt.enter(|| turn.open()?.find_few(&find));
                if let (false, Some(answer)) = (attempt.is_exhausted(), answer.transpose()) {
                    return turn.settle(answer);
                }
            }
            on_a_thread(turn, move |snapshot| snapshot.find(&find)).await
        }
        .boxed()
    }

    fn count(&self, mut count: Count) -> BoxFuture<'_, Result<u64>> {
        let bound = count.filter.bind(&self.store.variables());
        async move {
            let turn = self.enter(&count.budget).await?;
            match bound {
                Ok(()) => on_a_thread(turn, move |snapshot| snapshot.count(&count)).await,
                Err(error) => turn.settle(Err(error.into())),
            }
        }
        .boxed()
    }

    fn aggregate(&self, mut aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        let bound = aggregate.pipeline.bind(&self.store.variables());
        async move {
            let turn = self.enter(&aggregate.budget).await?;
            match bound {
                Ok(()) => on_a_thread(turn, move |snapshot| snapshot.aggregate(aggregate)).await,
                Err(error) => turn.settle(Err(error.into())),
            }
        }
        .boxed()
    }

    fn write(&self, mut write: Write) -> BoxFuture<'_, Result<Outcome>> {
        let bound = match &mut write.operation {
            Operation::Modify(modify) => modify.bind(&self.store.variables()),
            Operation::Insert(_) => Ok(()),
        };
        async move {
            let turn = self.enter(&write.budget).await?;
            match bound {
                Ok(()) => self.write_in(turn, write).await,
                Err(error) => turn.settle(Err(error.into())),
            }
        }
        .boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut turn = match self.enter(&Budget::default()).await {
                Err(error) if transaction::is_committed(&error) => return Ok(()),
                turn => turn?,
            };
            let answer = match turn.take() {
                Ok(snapshot) => self.commit_in(snapshot).await,
                Err(error) => Err(error),
            };
            turn.settle_commit(answer)
        }
        .boxed()
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.core.stop(End::Aborted).await;
            Ok(())
        }
        .boxed()
    }
}
