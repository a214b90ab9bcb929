//! A store on MongoDB, over the official driver (<https://docs.rs/mongodb>): a standalone server,
//! a replica set or a sharded cluster.
//!
//! The server evaluates everything that can be expressed as a command, and its answer is final.
//! The driver's raw types carry documents through without decoding them.

mod admission;
mod command;
mod connect;
mod errors;
mod guarded;
mod indexes;
mod preference;
mod read;
mod run_to_completion;
mod sessions;
mod transaction;
mod watch;
mod write;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{self, BoxFuture, FutureExt};
use mongodb::options::SelectionCriteria;
use query::{Budget, Environment, Variables};

use crate::{
    Aggregate, ChangeStream, Count, Error, Explanation, Find, Index, MaintenanceAdvice, Namespace, Operation, Outcome,
    Page, Result, Store, Transaction, TransactionLimits, Watch, Write, names,
};
use connect::{Lane, Shared};
pub use preference::ReadPreference;
use run_to_completion::RunToCompletion;

/// Time after the deadline of a budget during which the store still waits for the server's answer:
/// the server ends the command itself.
const GRACE: Duration = Duration::from_millis(50);

/// A store on MongoDB. Clones share its connections.
///
/// Operations of users and operations of the backend use separate connection pools, so that
/// neither waits for the other. Operations beyond the size of a pool wait in a bounded queue.
#[derive(Clone, Debug)]
pub struct MongoStore {
    shared: Arc<Shared>,
    /// The members that answer queries; `None` uses the read preference of the connection string.
    criteria: Option<SelectionCriteria>,
    /// The connection pool of the operations. Operations on the backend's own databases always use
    /// the backend's pool.
    lane: Lane,
}

impl MongoStore {
    /// Returns the store at a connection string, `mongodb://…` or `mongodb+srv://…`. The first
    /// operation connects.
    ///
    /// Databases whose names begin with `own` are read from the primary and written with write
    /// concern `majority`. The option `socketTimeoutMS` of the connection string limits an
    /// operation, retries included (30 s by default). `serverSelectionTimeoutMS` limits the search
    /// for a member that can run the operation (15 s by default).
    ///
    /// # Errors
    /// [`Error::Address`] if the connection string is invalid, or if a file of its TLS options
    /// cannot be read.
    pub fn open(
        address: &str,
        environment: Arc<dyn Environment + Send + Sync>,
        own: Option<&'static str>,
    ) -> Result<Self> {
        Ok(Self { shared: Arc::new(Shared::new(address, environment, own)?), criteria: None, lane: Lane::Users })
    }

    /// Returns the same store with another read preference for queries. Queries still see every
    /// earlier write of this store (causal consistency).
    ///
    /// # Errors
    /// [`Error::DataSource`] if the read preference is invalid.
    pub fn reading_from(&self, preference: &ReadPreference) -> Result<Self> {
        let criteria = preference.criteria().map_err(|reason| Error::DataSource { reason })?;
        self.shared.will_read_elsewhere();
        Ok(Self { criteria: Some(criteria), ..self.clone() })
    }

    fn variables(&self) -> Variables {
        Variables::at(self.shared.environment.now())
    }

    /// Runs an operation to completion once it is admitted, but returns when the time of its
    /// budget is over.
    ///
    /// Computation in this process stops then, and also when the future is dropped. A command that
    /// has been sent is left to the server to end, so that its connection stays usable.
    fn admitted<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        request: Request,
        run: impl FnOnce(Self) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let Request { lane, budget, writes, bytes } = request;
        let store = Self { lane, ..self.clone() };
        async move {
            let waiting = budget.cancel_on_drop();
            let until = budget.deadline().unwrap_or_else(|| Instant::now() + store.shared.timeout);
            let place = store.shared.pool(lane).admission.enter(budget.owner(), bytes, until.into()).await;
            // If the budget has a deadline, the wait has failed because the deadline has passed.
            budget.check()?;
            let place = place?;
            let whole = RunToCompletion::new(async move {
                let answer = run(store).await;
                drop(place);
                answer
            });
            let answer = match budget.deadline() {
                Some(deadline) => tokio::time::timeout_at((deadline + GRACE).into(), whole).await,
                None => Ok(whole.await.map_err(|error| errors::of_unlimited(error, writes))),
            };
            let Ok(answer) = answer else {
                // Dropping the guard stops the computation in this process.
                let over = budget.check();
                drop(waiting);
                if writes {
                    let reason = "it did not answer within the time of the operation".to_owned();
                    return Err(Error::Unavailable { reason, maybe_written: true });
                }
                over?;
                return Err(Error::Unavailable {
                    reason: "it did not answer in time".to_owned(),
                    maybe_written: false,
                });
            };
            waiting.disarm();
            answer
        }
        .boxed()
    }

    /// Runs an operation of the operator or the backend like [`admitted`](Self::admitted), without
    /// a budget.
    fn unlimited<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        namespace: &Namespace,
        writes: bool,
        run: impl FnOnce(Self) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        self.admitted(Request { writes, ..self.request(namespace, &Budget::default()) }, run)
    }

    /// Returns the admission request of a read of a collection.
    fn request(&self, namespace: &Namespace, budget: &Budget) -> Request {
        let lane = if self.shared.is_own(&namespace.database) { Lane::Backend } else { self.lane };
        Request { lane, budget: budget.clone(), writes: false, bytes: budget.request_bytes() }
    }

    /// Returns the admission request of writes, which share one budget.
    fn request_of(&self, writes: &[Write]) -> Request {
        let Some(first) = writes.first() else {
            return Request { lane: self.lane, budget: Budget::default(), writes: true, bytes: 0 };
        };
        let inserted = writes.iter().flat_map(|write| match &write.operation {
            Operation::Insert(documents) => &documents[..],
            Operation::Modify(_) => &[],
        });
        let inserted = inserted.map(|document| document.as_bytes().len()).sum();
        let request = self.request(&first.namespace, &first.budget);
        Request { writes: true, bytes: request.bytes.max(inserted), ..request }
    }
}

/// The properties of an operation that decide on its admission.
struct Request {
    lane: Lane,
    budget: Budget,
    writes: bool,
    /// The bytes that the operation holds until it is sent.
    bytes: usize,
}

/// Returns the future of an operation that has failed before it began.
fn failed<T: Send + 'static>(error: query::Error) -> BoxFuture<'static, Result<T>> {
    future::ready(Err(error.into())).boxed()
}

impl Store for MongoStore {
    fn find(&self, mut find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        if let Err(error) = find.bind(&self.variables()) {
            return failed(error);
        }
        let request = self.request(&find.namespace, &find.budget);
        self.admitted(request, |store| async move { store.find_documents(find, None).await })
    }

    fn find_both(&self, [one, other]: [Find; 2]) -> BoxFuture<'_, Result<[Vec<RawDocumentBuf>; 2]>> {
        async { future::try_join(self.find(one), self.find(other)).await.map(<[_; 2]>::from) }.boxed()
    }

    fn count(&self, mut count: Count) -> BoxFuture<'_, Result<u64>> {
        if let Err(error) = count.filter.bind(&self.variables()) {
            return failed(error);
        }
        let request = self.request(&count.namespace, &count.budget);
        self.admitted(request, |store| async move { store.count_documents(count, None).await })
    }

    fn aggregate(&self, mut aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        if let Err(error) = aggregate.pipeline.bind(&self.variables()) {
            return failed(error);
        }
        let request = self.request(&aggregate.namespace, &aggregate.budget);
        self.admitted(request, |store| async move { store.run_pipeline(aggregate, None).await })
    }

    fn write(&self, mut writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        if let Err(error) = bind(&mut writes, &self.variables()) {
            return failed(error);
        }
        let request = self.request_of(&writes);
        self.admitted(request, |store| async move {
            let writes: Vec<_> = writes.into_iter().map(Arc::new).collect();
            match &writes[..] {
                [] => Ok(Vec::new()),
                [write] => Ok(vec![store.write_one(write).await?]),
                writes => store.run_in_transaction(writes).await,
            }
        })
    }

    fn write_in_order(&self, mut writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        if let Err(error) = bind(&mut writes, &self.variables()) {
            return failed(error);
        }
        let request = self.request_of(&writes);
        self.admitted(request, |store| async move {
            let mut outcomes = Vec::with_capacity(writes.len());
            for write in writes {
                outcomes.push(store.write_one(&Arc::new(write)).await?);
            }
            Ok(outcomes)
        })
    }

    fn begin(&self, limits: TransactionLimits) -> BoxFuture<'_, Result<Arc<dyn Transaction>>> {
        transaction::begin(self.clone(), limits).boxed()
    }

    fn for_backend(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self { lane: Lane::Backend, ..self.clone() }))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn ensure_indexes(&self, namespace: Namespace, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>> {
        self.unlimited(
            &namespace.clone(),
            true,
            |store| async move { store.create_indexes(&namespace, &indexes).await },
        )
    }

    fn indexes(&self, namespace: Namespace) -> BoxFuture<'_, Result<Option<Vec<Index>>>> {
        self.unlimited(&namespace.clone(), false, |store| async move {
            store.list_indexes(&namespace, &mut |_, _| {}).await
        })
    }

    fn unknown_indexes(&self, namespace: Namespace) -> BoxFuture<'_, Result<Vec<(String, String)>>> {
        self.unlimited(&namespace.clone(), false, |store| async move {
            let mut unknown = Vec::new();
            let mut odd = |index: &bson::raw::RawDocument, error: Error| {
                unknown.push((index.get_str("name").unwrap_or_default().to_owned(), error.to_string()));
            };
            store.list_indexes(&namespace, &mut odd).await?;
            Ok(unknown)
        })
    }

    fn drop_index(&self, namespace: Namespace, name: String) -> BoxFuture<'_, Result<()>> {
        self.unlimited(&namespace.clone(), true, |store| async move { store.remove_index(&namespace, &name).await })
    }

    fn explain(&self, mut find: Find) -> BoxFuture<'_, Result<Explanation>> {
        if let Err(error) = find.bind(&self.variables()) {
            return failed(error);
        }
        let request = self.request(&find.namespace, &find.budget);
        self.admitted(request, |store| async move { store.explain_find(find).await })
    }

    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Box<dyn ChangeStream>>> {
        let request = self.request(&watch.namespace, &Budget::unlimited(watch.owner.clone()));
        self.admitted(request, |store| async move {
            store.follow(watch).await.map(|watcher| Box::new(watcher) as Box<dyn ChangeStream>)
        })
    }

    fn keep_versions(&self, namespace: Namespace) -> BoxFuture<'_, Result<()>> {
        self.unlimited(&namespace.clone(), true, |store| async move { store.ask_for_versions(&namespace).await })
    }

    fn collections(&self) -> BoxFuture<'_, Result<Vec<Namespace>>> {
        let request = Request { lane: self.lane, budget: Budget::default(), writes: false, bytes: 0 };
        self.admitted(request, |store| async move { store.list_collections().await })
    }

    fn refused_names(&self, namespaces: Vec<Namespace>) -> BoxFuture<'_, Result<Vec<String>>> {
        let request = Request { lane: self.lane, budget: Budget::default(), writes: false, bytes: 0 };
        self.admitted(request, |store| async move {
            let existing = store.list_databases().await?;
            Ok(names::refused(&namespaces.iter().collect::<Vec<_>>(), &existing, store.shared.own()))
        })
    }

    fn identity(&self) -> Option<String> {
        Some(self.shared.hosts())
    }

    fn page(&self, namespace: Namespace, after: Option<RawBson>) -> BoxFuture<'_, Result<Page>> {
        self.unlimited(&namespace.clone(), false, |store| async move { store.page_after(&namespace, after).await })
    }

    fn maintenance_advice(&self) -> MaintenanceAdvice {
        MaintenanceAdvice {
            backup: "back up a store on MongoDB with MongoDB's own tools, such as mongodump",
            check: "check a store on MongoDB with MongoDB's own command `validate`",
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shared.close().boxed()
    }
}

fn bind(writes: &mut [Write], variables: &Variables) -> query::Result<()> {
    writes.iter_mut().try_for_each(|write| match &mut write.operation {
        Operation::Modify(modify) => modify.bind(variables),
        Operation::Insert(_) => Ok(()),
    })
}
