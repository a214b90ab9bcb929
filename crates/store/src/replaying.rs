//! A transaction whose writes are repeated after a conflict, without the code that made them.
//!
//! It keeps its writes with their outcomes. After an error, a new transaction of the store begins
//! and repeats them. Reads are not repeated, so that a conflict of a document that was only read
//! is not noticed.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{BoxFuture, FutureExt};
use query::Filter;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    Aggregate, Count, Error, Find, Namespace, Operation, Outcome, Result, Returning, Store, Transaction,
    TransactionLimits, Write,
};

/// The maximum number of attempts of one operation or commit.
const MOST_ATTEMPTS: u32 = 20;

/// The maximum number of writes that one transaction repeats, in all attempts together.
const MOST_REPEATED: usize = 20_000;

/// The maximum pause before an attempt.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A transaction that repeats its writes after a conflict. It begins with its first operation, and
/// so does its time.
///
/// On a standalone server, which has no transactions, each operation takes effect at once.
///
/// ```
/// # use std::sync::Arc;
/// # use bson::rawdoc;
/// # use store::{Location, Namespace, Operation, Replaying, SqliteStore, Store, SystemEnvironment};
/// # use store::{Transaction, TransactionLimits, Write};
/// # #[tokio::main]
/// # async fn main() -> store::Result<()> {
/// let store: Arc<dyn Store> = Arc::new(SqliteStore::open(Location::Memory, Arc::new(SystemEnvironment))?);
/// let transaction = Arc::new(Replaying::new(store, TransactionLimits::default()));
/// let people = Namespace::new("app", "people");
/// transaction.write(Write::new(people, Operation::Insert(vec![rawdoc! { "_id": 1 }]))).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
pub struct Replaying {
    store: Arc<dyn Store>,
    limits: TransactionLimits,
    /// The end of its time, which begins with the first operation.
    deadline: OnceLock<Instant>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The transaction of the store, which contains all the writes. `None` while an operation
    /// runs, so that a dropped operation leaves none.
    open: Option<Place>,
    writes: Vec<Repeatable>,
    /// The number of parts that have begun.
    parts: u64,
    /// The number of writes that were repeated.
    repeated: usize,
    /// True after the commit, the abort, or a conflict that repeating cannot solve.
    is_ended: bool,
    is_committed: bool,
}

/// The place where operations run.
#[derive(Clone)]
enum Place {
    Transaction(Arc<dyn Transaction>),
    /// The store itself, which has no transactions.
    Store(Arc<dyn Store>),
}

/// A write that was applied.
struct Repeatable {
    /// The part that it belongs to; 0 for none.
    part: u64,
    step: Step,
}

enum Step {
    /// A write, which must have the same outcome again.
    Write(Box<Write>, Outcome),
    /// An upsert that inserted a document, whose id must stay. If another transaction has inserted
    /// it, the upsert updates it, unless its caller `has_seen` that there was none; no other
    /// document may match.
    Upsert { write: Box<Write>, filter: Filter, document: RawDocumentBuf, has_seen: bool },
}

impl std::fmt::Debug for Replaying {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Replaying").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Place {
    async fn find(&self, find: Find) -> Result<Vec<RawDocumentBuf>> {
        match self {
            Self::Transaction(transaction) => transaction.find(find).await,
            Self::Store(store) => store.find(find).await,
        }
    }

    async fn count(&self, count: Count) -> Result<u64> {
        match self {
            Self::Transaction(transaction) => transaction.count(count).await,
            Self::Store(store) => store.count(count).await,
        }
    }

    async fn aggregate(&self, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
        match self {
            Self::Transaction(transaction) => transaction.aggregate(aggregate).await,
            Self::Store(store) => store.aggregate(aggregate).await,
        }
    }

    async fn write(&self, write: Write) -> Result<Outcome> {
        match self {
            Self::Transaction(transaction) => transaction.write(write).await,
            Self::Store(store) => Ok(store.write(vec![write]).await?.pop().unwrap_or_default()),
        }
    }

    async fn commit(&self) -> Result<()> {
        match self {
            Self::Transaction(transaction) => transaction.commit().await,
            Self::Store(_) => Ok(()),
        }
    }

    /// Repeats a write.
    async fn repeat(&self, step: &Step) -> Result<()> {
        match step {
            Step::Write(write, before) => {
                let outcome = self.write((**write).clone()).await?;
                if is_same(&outcome, before) { Ok(()) } else { Err(changed()) }
            }
            Step::Upsert { write, filter, document, has_seen } => {
                let namespace = &write.namespace;
                let matching = Find { limit: Some(1), ..Find::new(namespace.clone(), filter.clone()) };
                match self.find(matching).await?.first() {
                    None => {
                        let insertion = Operation::Insert(vec![document.clone()]);
                        self.write(Write::new(namespace.clone(), insertion)).await.map(|_| ())
                    }
                    Some(found) if !has_seen && query::get(found, "_id") == query::get(document, "_id") => {
                        self.write((**write).clone()).await.map(|_| ())
                    }
                    Some(_) => Err(changed()),
                }
            }
        }
    }
}

/// True if the code that made a write would have seen the same outcome.
fn is_same(outcome: &Outcome, before: &Outcome) -> bool {
    let numbers = |outcome: &Outcome| (outcome.matched, outcome.modified, outcome.deleted);
    numbers(outcome) == numbers(before)
        && outcome.inserted_ids == before.inserted_ids
        && outcome.upserted_id == before.upserted_id
        && outcome.document == before.document
}

/// Returns the error of a transaction whose writes have other outcomes than before.
fn changed() -> Error {
    let message = "another write has changed a document of the transaction, and its writes cannot be repeated; \
                   nothing was written"
        .to_owned();
    Error::Query(query::Error { code: query::ErrorCode::WriteConflict, message })
}

/// Gives the inserted documents of a write their ids, so that they keep them when it is repeated.
fn with_ids(write: &mut Write) {
    let Operation::Insert(documents) = &mut write.operation else { return };
    for document in documents.iter_mut().filter(|document| !matches!(document.get("_id"), Ok(Some(_)))) {
        let mut complete = RawDocumentBuf::new();
        query::append(&mut complete, "_id", bson::oid::ObjectId::new());
        for (key, value) in query::elements(document) {
            query::append(&mut complete, key, value);
        }
        *document = complete;
    }
}

async fn pause(attempt: u32) {
    let longest = LONGEST_PAUSE.min(Duration::from_millis(1 << attempt.min(10)));
    // Two transactions that conflict must not pause for the same time.
    let random = u64::from(bson::oid::ObjectId::new().bytes()[11]).wrapping_mul(97) % 256;
    tokio::time::sleep(longest.mul_f64(0.25 + random as f64 / 341.0)).await;
}

impl Replaying {
    /// Creates a transaction.
    pub fn new(store: Arc<dyn Store>, limits: TransactionLimits) -> Self {
        Self { store, limits, deadline: OnceLock::new(), state: Mutex::default() }
    }

    fn deadline(&self) -> Instant {
        *self.deadline.get_or_init(|| Instant::now() + self.limits.time)
    }

    /// True if no operation has begun, so that there is nothing to commit.
    pub async fn is_unused(&self) -> bool {
        let state = self.state.lock().await;
        state.open.is_none() && state.writes.is_empty() && !state.is_ended
    }

    /// Begins a part: a transaction within this one. Its writes are part of this transaction, and
    /// its abort removes them from it. Its commit has no effect of its own.
    ///
    /// # Errors
    /// [`Error::NeedsTransaction`] on a standalone server.
    pub async fn begin_part(self: &Arc<Self>) -> Result<Arc<dyn Transaction>> {
        let mut state = self.lock().await?;
        let place = self.open(&mut state).await?;
        if let Place::Store(_) = place {
            state.open = Some(place);
            return Err(Error::NeedsTransaction);
        }
        state.open = Some(place);
        state.parts += 1;
        Ok(Arc::new(Part { whole: Arc::clone(self), number: state.parts }))
    }

    /// Waits for the operations before this one.
    async fn lock(&self) -> Result<MutexGuard<'_, State>> {
        let waited = tokio::time::timeout_at(self.deadline().into(), self.state.lock()).await;
        let state = waited.map_err(|_| self.expired())?;
        if state.is_ended {
            return Err(ended(state.is_committed));
        }
        if Instant::now() >= self.deadline() {
            return Err(self.expired());
        }
        Ok(state)
    }

    fn expired(&self) -> Error {
        let message = format!("the transaction was open for more than {} s", self.limits.time.as_secs_f32());
        Error::Query(query::Error { code: query::ErrorCode::NoSuchTransaction, message })
    }

    /// Takes the place of the next operation: the open transaction, or a new one with all the
    /// writes so far.
    async fn open(&self, state: &mut State) -> Result<Place> {
        if let Some(open) = state.open.take() {
            return Ok(open);
        }
        let time = self.deadline().saturating_duration_since(Instant::now());
        let place = match self.store.begin(TransactionLimits { time, ..self.limits }).await {
            Ok(transaction) => Place::Transaction(transaction),
            // The writes so far have taken effect.
            Err(Error::NeedsTransaction) => return Ok(Place::Store(Arc::clone(&self.store))),
            Err(error) => return Err(error),
        };
        state.repeated += state.writes.len();
        if state.repeated > MOST_REPEATED {
            state.is_ended = true;
            return Err(changed());
        }
        for written in &state.writes {
            if let Err(error) = place.repeat(&written.step).await {
                // A new attempt may succeed only after a conflict.
                state.is_ended = !matches!(error, Error::TransientTransaction(_));
                return Err(error);
            }
        }
        Ok(place)
    }

    /// Runs an operation, again after a conflict.
    async fn run<T>(
        &self,
        state: &mut State,
        operation: impl Fn(Place) -> BoxFuture<'static, Result<T>> + Send,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            let done = match self.open(state).await {
                Ok(place) => {
                    let done = operation(place.clone()).await;
                    if done.is_ok() || matches!(place, Place::Store(_)) {
                        state.open = Some(place);
                    }
                    done
                }
                Err(error) => Err(error),
            };
            attempt += 1;
            match done {
                Err(Error::TransientTransaction(error)) => {
                    if attempt >= MOST_ATTEMPTS || Instant::now() >= self.deadline() {
                        return Err(*error);
                    }
                    pause(attempt).await;
                }
                done => return done,
            }
        }
    }

    async fn write_as(&self, part: u64, mut write: Write) -> Result<Outcome> {
        with_ids(&mut write);
        let mut state = self.lock().await?;
        let operation = |place: Place| {
            let write = write.clone();
            async move { place.write(write).await }.boxed()
        };
        let outcome = self.run(&mut state, operation).await?;
        if let Some(Place::Transaction(_)) = &state.open {
            let write = Box::new(Write { budget: query::Budget::default(), ..write });
            let step = match (&write.operation, &outcome.upserted_id) {
                (Operation::Modify(modify), Some(id)) => {
                    let document = self.upserted(&mut state, &write.namespace, id).await?;
                    // A caller that has asked for the document has seen that there was none.
                    let has_seen = modify.returning != Returning::Nothing;
                    Step::Upsert { filter: modify.filter.clone(), write, document, has_seen }
                }
                _ => Step::Write(write, outcome.clone()),
            };
            state.writes.push(Repeatable { part, step });
        }
        Ok(outcome)
    }

    /// Returns the document that an upsert has inserted.
    async fn upserted(&self, state: &mut State, namespace: &Namespace, id: &RawBson) -> Result<RawDocumentBuf> {
        let find = Find { limit: Some(1), ..Find::new(namespace.clone(), Filter::equals("_id", id.clone())) };
        let place = self.open(state).await?;
        let found = place.find(find).await?.pop();
        state.open = Some(place);
        found.ok_or_else(changed)
    }

    /// Removes the writes of a part.
    async fn abort_part(&self, part: u64) {
        let mut state = self.state.lock().await;
        let before = state.writes.len();
        state.writes.retain(|written| written.part != part);
        if state.writes.len() < before && !state.is_ended {
            state.open = None;
        }
    }

    async fn commit_all(&self) -> Result<()> {
        let mut state = self.lock().await?;
        let operation = |place: Place| async move { place.commit().await }.boxed();
        let done = self.run(&mut state, operation).await;
        state.is_ended = true;
        state.is_committed = done.is_ok();
        state.open = None;
        done
    }
}

fn ended(is_committed: bool) -> Error {
    let (code, what) = if is_committed {
        (query::ErrorCode::TransactionCommitted, "committed")
    } else {
        (query::ErrorCode::NoSuchTransaction, "aborted")
    };
    Error::Query(query::Error { code, message: format!("the transaction has been {what}") })
}

impl Transaction for Replaying {
    fn find(&self, find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        async move {
            let mut state = self.lock().await?;
            let operation = move |place: Place| {
                let find = find.clone();
                async move { place.find(find).await }.boxed()
            };
            self.run(&mut state, operation).await
        }
        .boxed()
    }

    fn count(&self, count: Count) -> BoxFuture<'_, Result<u64>> {
        async move {
            let mut state = self.lock().await?;
            let operation = move |place: Place| {
                let count = count.clone();
                async move { place.count(count).await }.boxed()
            };
            self.run(&mut state, operation).await
        }
        .boxed()
    }

    fn aggregate(&self, aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        async move {
            let mut state = self.lock().await?;
            let operation = move |place: Place| {
                let aggregate = aggregate.clone();
                async move { place.aggregate(aggregate).await }.boxed()
            };
            self.run(&mut state, operation).await
        }
        .boxed()
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<Outcome>> {
        self.write_as(0, write).boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        self.commit_all().boxed()
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut state = self.state.lock().await;
            state.is_ended = true;
            state.open = None;
            Ok(())
        }
        .boxed()
    }
}

/// A transaction within a [`Replaying`] one.
#[derive(Debug)]
struct Part {
    whole: Arc<Replaying>,
    number: u64,
}

impl Transaction for Part {
    fn find(&self, find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        self.whole.find(find)
    }

    fn count(&self, count: Count) -> BoxFuture<'_, Result<u64>> {
        self.whole.count(count)
    }

    fn aggregate(&self, aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        self.whole.aggregate(aggregate)
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<Outcome>> {
        self.whole.write_as(self.number, write).boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        std::future::ready(Ok(())).boxed()
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.whole.abort_part(self.number).await;
            Ok(())
        }
        .boxed()
    }
}
