//! Transactions: several operations on one snapshot, committed as a whole or not at all
//! (<https://www.mongodb.com/docs/manual/core/transactions/>).
//!
//! Both stores use [`Core`], which runs the operations of a transaction one after the other and
//! ends the transaction when its time is over or an operation fails.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bson::raw::RawDocumentBuf;
use futures_util::future::BoxFuture;
use query::{Budget, ErrorCode};
use tokio::{sync::OwnedMutexGuard, task::AbortHandle};

use crate::{Aggregate, Count, Error, Find, Outcome, Result, Write};

/// The limits of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionLimits {
    /// The maximum time from the beginning to the commit. A transaction that is open for longer is
    /// aborted.
    pub time: Duration,
    /// The maximum size of all writes, in bytes. A write that exceeds it aborts the transaction.
    pub bytes: usize,
}

impl Default for TransactionLimits {
    /// Returns 60 seconds and 16 MB.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), bytes: 16 * 1024 * 1024 }
    }
}

/// A transaction of a store, begun with [`Store::begin`](crate::Store::begin).
///
/// All reads see one snapshot of the store and the transaction's own writes. Other readers see the
/// writes after the commit. Operations run one after the other, in the order of their first polls.
///
/// An operation that fails aborts the transaction, as on MongoDB. Dropping the transaction or the
/// future of an operation aborts it too.
///
/// # Errors
/// Every operation of a transaction that has ended fails with `NoSuchTransaction` (251), or
/// `TransactionCommitted` (256) after the commit. Errors after which the same operations may
/// succeed in a new transaction are [`Error::TransientTransaction`].
pub trait Transaction: Send + Sync + std::fmt::Debug {
    /// Returns the documents that a filter matches and that the guard allows to see.
    ///
    /// # Errors
    /// As [`Store::find`](crate::Store::find), and those of the transaction.
    fn find(&self, find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// Counts the documents that a filter matches and that the guard allows to see.
    ///
    /// # Errors
    /// As [`Store::count`](crate::Store::count), and those of the transaction.
    fn count(&self, count: Count) -> BoxFuture<'_, Result<u64>>;

    /// Runs an aggregation pipeline over the documents that the guard allows to see.
    ///
    /// # Errors
    /// As [`Store::aggregate`](crate::Store::aggregate), and those of the transaction.
    fn aggregate(&self, aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// Applies a write, as a whole or not at all.
    ///
    /// # Errors
    /// As [`Store::write`](crate::Store::write), and those of the transaction.
    /// `TransactionTooLarge` (257) if the writes exceed the limit of bytes.
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Outcome>>;

    /// Applies all writes at once. A repeated commit returns the result of the first.
    ///
    /// # Errors
    /// `WriteConflict` (112) if a written document has changed since the snapshot, or if another
    /// write has taken an `_id` or a key of a unique index; nothing is written then.
    /// [`Error::Unavailable`] if the result is unknown, because the connection was lost.
    fn commit(&self) -> BoxFuture<'_, Result<()>>;

    /// Ends the transaction without writing anything. It does nothing if the transaction has ended
    /// already.
    ///
    /// # Errors
    /// None so far: a server that cannot be reached aborts the transaction itself.
    fn abort(&self) -> BoxFuture<'_, Result<()>>;
}

/// Returns the error of a transaction whose writes exceed `most` bytes.
pub(crate) fn too_large(most: usize) -> Error {
    let message = format!("the writes of the transaction exceed {most} bytes; nothing was written");
    Error::Query(query::Error { code: ErrorCode::TransactionTooLarge, message })
}

/// Returns the error of a transaction that conflicts with another write.
pub(crate) fn conflict() -> Error {
    let message = "another write has changed a document of the transaction; nothing was written. Please retry your \
                   operation or multi-document transaction."
        .to_owned();
    transient(Error::Query(query::Error { code: ErrorCode::WriteConflict, message }))
}

/// Marks an error after which the same operations may succeed in a new transaction.
pub(crate) fn transient(error: Error) -> Error {
    match error {
        Error::TransientTransaction(_) => error,
        error => Error::TransientTransaction(Box::new(error)),
    }
}

/// The reason why a transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The writes are applied.
    Committed,
    /// The caller has aborted it, or has dropped an operation.
    Aborted,
    /// An operation has failed.
    Failed {
        /// True if a new transaction may succeed.
        is_transient: bool,
    },
    /// The time is over.
    Expired,
}

/// The state of a transaction: open with the data of its store, or ended.
enum State<T> {
    Open(T),
    Ended(End),
}

/// A transaction, independent of its store. `T` is dropped when the transaction ends.
pub(crate) struct Core<T> {
    /// Counts the transactions of this process, for messages.
    number: u64,
    limits: TransactionLimits,
    deadline: Instant,
    state: Arc<tokio::sync::Mutex<State<T>>>,
    /// The budget of the running operation.
    running: Mutex<Option<Budget>>,
    /// The task that ends the transaction when its time is over.
    timer: Mutex<Option<AbortHandle>>,
}

/// The right to run one operation of a transaction. If it is dropped without
/// [`settle`](Self::settle), the transaction is aborted.
pub(crate) struct Turn<T> {
    core: Arc<Core<T>>,
    state: OwnedMutexGuard<State<T>>,
    budget: Budget,
    is_settled: bool,
}

impl<T> std::fmt::Debug for Core<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, limits, .. } = self;
        formatter.debug_struct("Transaction").field("number", number).field("limits", limits).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Core<T> {
    /// Begins a transaction, and starts the timer that ends it.
    pub(crate) fn begin(open: T, limits: TransactionLimits) -> Arc<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let deadline = Instant::now() + limits.time;
        let core = Arc::new(Self {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            limits,
            deadline,
            state: Arc::new(tokio::sync::Mutex::new(State::Open(open))),
            running: Mutex::new(None),
            timer: Mutex::new(None),
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let weak = Arc::downgrade(&core);
            let timer = runtime.spawn(async move {
                tokio::time::sleep_until(deadline.into()).await;
                if let Some(core) = weak.upgrade() {
                    core.stop(End::Expired).await;
                }
            });
            *lock(&core.timer) = Some(timer.abort_handle());
        }
        core
    }

    /// Returns the time at which the transaction expires.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the error of an operation after the time of the transaction.
    pub(crate) fn expired(&self) -> Error {
        self.ended(End::Expired)
    }

    /// Cancels the running operation, if there is one.
    pub(crate) fn cancel(&self) {
        if let Some(running) = &*lock(&self.running) {
            running.cancel();
        }
    }

    /// Cancels the running operation, and ends the transaction unless it has ended.
    pub(crate) async fn stop(&self, end: End) {
        self.cancel();
        self.finish(&mut *self.state.lock().await, end);
    }

    /// Ends the transaction if no operation is running. A running one is cancelled, and ends it.
    pub(crate) fn stop_now(&self) {
        self.cancel();
        if let Ok(mut state) = self.state.try_lock() {
            self.finish(&mut state, End::Aborted);
        }
    }

    /// Waits until the operations before this one have ended.
    ///
    /// # Errors
    /// `NoSuchTransaction` (251) if the transaction has ended, or the error of a budget whose time
    /// is over.
    pub(crate) async fn enter(self: &Arc<Self>, budget: &Budget) -> Result<Turn<T>> {
        if let Ok(state) = Arc::clone(&self.state).try_lock_owned() {
            return self.turn(state, budget);
        }
        let until = budget.deadline().map_or(self.deadline, |deadline| deadline.min(self.deadline));
        let state = Arc::clone(&self.state).lock_owned();
        match tokio::time::timeout_at(until.into(), state).await {
            Ok(state) => self.turn(state, budget),
            Err(_) if self.is_over() => Err(self.expired()),
            Err(_) => Err(budget.check().err().map_or_else(|| self.expired(), Error::from)),
        }
    }

    fn turn(self: &Arc<Self>, mut state: OwnedMutexGuard<State<T>>, budget: &Budget) -> Result<Turn<T>> {
        if self.is_over() {
            self.finish(&mut state, End::Expired);
        }
        if let State::Ended(end) = &*state {
            return Err(self.ended(*end));
        }
        // Cancelling the budget of one operation must not stop others that share it.
        let budget = budget.attempt(u64::MAX);
        *lock(&self.running) = Some(budget.clone());
        Ok(Turn { core: Arc::clone(self), state, budget, is_settled: false })
    }

    fn is_over(&self) -> bool {
        self.deadline <= Instant::now()
    }
}

impl<T> Core<T> {
    fn finish(&self, state: &mut State<T>, end: End) {
        if matches!(state, State::Open(_)) {
            *state = State::Ended(end);
            self.stop_timer();
        }
    }

    fn stop_timer(&self) {
        if let Some(timer) = lock(&self.timer).take() {
            timer.abort();
        }
    }

    /// Returns the error of an operation after the end of the transaction.
    fn ended(&self, end: End) -> Error {
        let number = self.number;
        let failed = |code, what: &str| {
            let message = format!("Transaction with {{ txnNumber: {number} }} has been {what}.");
            Error::Query(query::Error { code, message })
        };
        match end {
            End::Committed => failed(ErrorCode::TransactionCommitted, "committed"),
            End::Aborted | End::Failed { is_transient: false } => failed(ErrorCode::NoSuchTransaction, "aborted"),
            End::Failed { is_transient: true } => transient(failed(ErrorCode::NoSuchTransaction, "aborted")),
            End::Expired => {
                let what = format!("aborted because it was open for more than {} s", self.limits.time.as_secs_f32());
                transient(failed(ErrorCode::NoSuchTransaction, &what))
            }
        }
    }
}

impl<T: Send + 'static> Turn<T> {
    /// Returns the budget of the operation, which is cancelled when the time of the transaction is
    /// over.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the limits of the transaction.
    pub(crate) fn limits(&self) -> TransactionLimits {
        self.core.limits
    }

    /// Returns the data of the open transaction.
    ///
    /// # Errors
    /// `NoSuchTransaction` (251) if the transaction has ended.
    pub(crate) fn open(&mut self) -> Result<&mut T> {
        match &mut *self.state {
            State::Open(open) => Ok(open),
            State::Ended(end) => Err(self.core.ended(*end)),
        }
    }

    /// Takes the data of the transaction for its commit. Until [`settle`](Self::settle), the
    /// transaction counts as aborted.
    ///
    /// # Errors
    /// `NoSuchTransaction` (251) if the transaction has ended.
    pub(crate) fn take(&mut self) -> Result<T> {
        match std::mem::replace(&mut *self.state, State::Ended(End::Aborted)) {
            State::Open(open) => Ok(open),
            State::Ended(end) => {
                *self.state = State::Ended(end);
                Err(self.core.ended(end))
            }
        }
    }

    /// Notes the result of an operation, and returns it. An error aborts the transaction.
    pub(crate) fn settle<R>(mut self, answer: Result<R>) -> Result<R> {
        self.is_settled = true;
        let error = match answer {
            Ok(_) if self.core.is_over() => None,
            Ok(answer) => return Ok(answer),
            Err(error) => Some(error),
        };
        let is_transient = matches!(error, Some(Error::TransientTransaction(_)));
        let end = if self.core.is_over() { End::Expired } else { End::Failed { is_transient } };
        let Self { core, state, .. } = &mut self;
        core.finish(state, end);
        match error {
            Some(error) if end != End::Expired => Err(error),
            _ => Err(self.core.ended(end)),
        }
    }

    /// Notes the result of the commit, after [`take`](Self::take).
    pub(crate) fn settle_commit(mut self, answer: Result<()>) -> Result<()> {
        self.is_settled = true;
        let end = match &answer {
            Ok(()) => End::Committed,
            Err(error) => End::Failed { is_transient: matches!(error, Error::TransientTransaction(_)) },
        };
        *self.state = State::Ended(end);
        self.core.stop_timer();
        answer
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        lock(&self.core.running).take();
        if !self.is_settled {
            let Self { core, state, .. } = self;
            let is_over = core.deadline <= Instant::now();
            core.finish(state, if is_over { End::Expired } else { End::Aborted });
        }
    }
}

impl<T> Drop for Core<T> {
    fn drop(&mut self) {
        self.stop_timer();
    }
}

/// Returns true for the error of a repeated commit.
pub(crate) fn is_committed(error: &Error) -> bool {
    matches!(error, Error::Query(error) if error.code == ErrorCode::TransactionCommitted)
}

/// Locks a mutex even if it is poisoned: every change to the data is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
