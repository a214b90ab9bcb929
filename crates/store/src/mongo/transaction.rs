//! Transactions on MongoDB: a session of the driver with a transaction of the server
//! (<https://www.mongodb.com/docs/manual/core/transactions/>).

use std::{sync::Arc, time::Duration};

use bson::raw::RawDocumentBuf;
use futures_util::future::{BoxFuture, FutureExt};
use mongodb::{ClientSession, error as driver};
use query::Budget;
use tokio::runtime::Handle;

use super::{
    MongoStore, Request,
    connect::{Kind, majority, snapshot},
    errors::{self, Failure},
    guarded::{COMMIT_TIME, is_transient},
};
use crate::{
    Aggregate, Change, Count, Error, Find, Operation, Outcome, Result, Transaction, TransactionLimits, Write,
    transaction::{self, Core, Turn},
};

/// Time limit of the command that aborts a transaction.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The session of an open transaction. The driver aborts the transaction when the session is
/// dropped.
struct Session {
    /// `None` only while this is being dropped.
    session: Option<ClientSession>,
    /// The size of the writes so far, in bytes.
    bytes: usize,
    /// The runtime on which the driver aborts the transaction.
    runtime: Option<Handle>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _entered = self.runtime.as_ref().map(Handle::enter);
        drop(self.session.take());
    }
}

impl Session {
    fn get(&mut self) -> Result<&mut ClientSession> {
        self.session.as_mut().ok_or(Error::Closed)
    }

    /// Aborts the transaction on the server, which releases its locks. A server that does not
    /// answer does so itself.
    async fn abort(&mut self) {
        if let Some(session) = &mut self.session {
            let _ = tokio::time::timeout(ABORT_TIMEOUT, session.abort_transaction()).await;
        }
    }
}

/// A transaction on MongoDB.
#[derive(Debug)]
struct MongoTransaction {
    store: MongoStore,
    core: Arc<Core<Session>>,
}

/// Begins a transaction. The server takes the snapshot with the first operation.
pub(super) async fn begin(store: MongoStore, limits: TransactionLimits) -> Result<Arc<dyn Transaction>> {
    if store.kind().await? == Kind::Standalone {
        return Err(Error::NeedsTransaction);
    }
    let mut session = store.session_after_writes().await?;
    let start = session.start_transaction().read_concern(snapshot()).write_concern(majority());
    let start = start.max_commit_time(COMMIT_TIME);
    store.shared.within(false, async { start.await }).await?;
    let session = Session { session: Some(session), bytes: 0, runtime: Handle::try_current().ok() };
    Ok(Arc::new(MongoTransaction { store, core: Core::begin(session, limits) }))
}

/// Returns the size of a write as it is sent, in bytes.
fn size_of(write: &Write) -> usize {
    match &write.operation {
        Operation::Insert(documents) => documents.iter().map(|document| document.as_bytes().len()).sum(),
        Operation::Modify(modify) => match &modify.change {
            Change::Update { update, .. } => super::write::size_of(update),
            Change::Delete => 0,
        },
    }
}

impl MongoTransaction {
    /// Runs an operation in its turn, and to completion once it is admitted.
    fn run<T: Send + 'static, F: Future<Output = (Turn<Session>, Result<T>)> + Send + 'static>(
        &self,
        bound: query::Result<()>,
        request: Request,
        run: impl FnOnce(MongoStore, Turn<Session>) -> F + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        async move {
            let turn = self.core.enter(&request.budget).await?;
            if let Err(error) = bound {
                return turn.settle(Err(error.into()));
            }
            // A write of a transaction that fails is never applied. A session belongs to a client.
            let request = Request { writes: false, lane: self.store.lane, ..request };
            let whole = self.store.admitted(request, |store| async move {
                let (mut turn, answer) = run(store, turn).await;
                if let (true, Ok(session)) = (answer.is_err(), turn.open()) {
                    session.abort().await;
                }
                turn.settle(answer)
            });
            match tokio::time::timeout_at(self.core.deadline().into(), whole).await {
                Ok(answer) => answer,
                // The operation ends in the background, and then the transaction.
                Err(_) => Err(self.core.expired()),
            }
        }
        .boxed()
    }

    async fn commit_in(&self, mut session: Session) -> Result<()> {
        let open = session.get()?;
        let done = self.store.shared.within_all(async {
            match self.store.commit(open, &Budget::default(), COMMIT_TIME).await {
                Err(error) if error.contains_label(driver::TRANSIENT_TRANSACTION_ERROR) => {
                    Err(errors::read(error, false))
                }
                done => done.map_err(errors::read_commit),
            }
        });
        done.await?;
        self.store.shared.note_written(session.session.as_ref());
        Ok(())
    }
}

/// Applies a write inside the transaction.
async fn write_in(store: &MongoStore, turn: &mut Turn<Session>, write: Arc<Write>) -> Result<Outcome> {
    let most = turn.limits().bytes;
    let session = turn.open()?;
    session.bytes += size_of(&write);
    if session.bytes > most {
        return Err(transaction::too_large(most));
    }
    if let (Operation::Insert(documents), Some(limits)) = (&write.operation, write.limits) {
        limits.check(documents.len(), documents.iter().map(|document| document.as_bytes().len()).sum())?;
    }
    match store.in_transaction(&[write], session.get()?).await {
        Ok(outcomes) => Ok(outcomes.into_iter().next().unwrap_or_default()),
        Err(Failure::Driver(error)) if is_transient(&error) => Err(transaction::transient(errors::read(error, false))),
        Err(failure) => Err(failure.into_error(false)),
    }
}

impl Transaction for MongoTransaction {
    fn find(&self, mut find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        let bound = find.bind(&self.store.variables());
        let request = self.store.request(&find.namespace, &find.budget);
        self.run(bound, request, move |store, mut turn| async move {
            let find = Find { budget: turn.budget().clone(), ..find };
            let answer = match turn.open().and_then(Session::get) {
                Ok(session) => store.find_documents(find, Some(session)).await,
                Err(error) => Err(error),
            };
            (turn, answer)
        })
    }

    fn count(&self, mut count: Count) -> BoxFuture<'_, Result<u64>> {
        let bound = count.filter.bind(&self.store.variables());
        let request = self.store.request(&count.namespace, &count.budget);
        self.run(bound, request, move |store, mut turn| async move {
            let count = Count { budget: turn.budget().clone(), ..count };
            let answer = match turn.open().and_then(Session::get) {
                Ok(session) => store.count_documents(count, Some(session)).await,
                Err(error) => Err(error),
            };
            (turn, answer)
        })
    }

    fn aggregate(&self, mut aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        let bound = aggregate.pipeline.bind(&self.store.variables());
        let request = self.store.request(&aggregate.namespace, &aggregate.budget);
        self.run(bound, request, move |store, mut turn| async move {
            let aggregate = Aggregate { budget: turn.budget().clone(), ..aggregate };
            let answer = match turn.open().and_then(Session::get) {
                Ok(session) => store.run_pipeline(aggregate, Some(session)).await,
                Err(error) => Err(error),
            };
            (turn, answer)
        })
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<Outcome>> {
        let mut writes = [write];
        let bound = super::bind(&mut writes, &self.store.variables());
        let request = self.store.request_of(&writes);
        let [write] = writes;
        self.run(bound, request, move |store, mut turn| async move {
            let write = Arc::new(Write { budget: turn.budget().clone(), ..write });
            let answer = write_in(&store, &mut turn, write).await;
            (turn, answer)
        })
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut turn = match self.core.enter(&Budget::default()).await {
                Err(error) if transaction::is_committed(&error) => return Ok(()),
                turn => turn?,
            };
            let answer = match turn.take() {
                Ok(session) => self.commit_in(session).await,
                Err(error) => Err(error),
            };
            turn.settle_commit(answer)
        }
        .boxed()
    }

    fn abort(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.core.cancel();
            let Ok(mut turn) = self.core.enter(&Budget::default()).await else { return Ok(()) };
            turn.take()?.abort().await;
            Ok(())
        }
        .boxed()
    }
}
