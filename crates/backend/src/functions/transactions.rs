//! The transactions of a running function. They end with its call.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bson::{RawBson, oid::ObjectId, rawdoc};
use store::{Replaying, Transaction, TransactionLimits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, ErrorCode, Result, context::Context};

/// The number of shares from which unused ones are removed.
const MOST_SHARES: usize = 1024;

/// Seconds after which a client should try again if its user has too many transactions.
const RETRY_AFTER: u64 = 2;

/// The maximum number of open transactions of one call.
const MOST_OPEN: usize = 8;

/// The maximum number of open transactions of one user. Each takes memory and, on SQLite, a
/// connection of the store, so the transactions of one user must leave room for those of others.
const MOST_OPEN_OF_ONE: usize = 8;

/// The share of each user in the transactions of an app.
#[derive(Debug, Default)]
pub(crate) struct TransactionShares(Mutex<HashMap<ObjectId, Arc<Semaphore>>>);

impl TransactionShares {
    /// Waits until a user may begin one more transaction.
    async fn enter(&self, user: ObjectId, limit: Duration) -> Result<OwnedSemaphorePermit> {
        let share = {
            let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Unused shares are complete, and are made again.
            if shares.len() >= MOST_SHARES {
                shares.retain(|_, share| Arc::strong_count(share) > 1);
            }
            let share = shares.entry(user).or_insert_with(|| Arc::new(Semaphore::new(MOST_OPEN_OF_ONE)));
            Arc::clone(share)
        };
        match tokio::time::timeout(limit, share.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let message = format!("{MOST_OPEN_OF_ONE} transactions of the user are open; try again later");
                Err(Error::retry_later(message, RETRY_AFTER))
            }
        }
    }
}

/// The open transactions of a call, by their numbers, with the names of their data sources.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    state: Mutex<Open>,
    /// The transaction that contains all operations of the call in the app's own store. The
    /// transactions of the function are parts of it.
    enclosing: Option<Arc<Replaying>>,
}

#[derive(Debug)]
struct OpenTransaction {
    service: String,
    transaction: Arc<dyn Transaction>,
    _share: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
struct Open {
    last: i64,
    open: HashMap<i64, OpenTransaction>,
}

impl Transactions {
    /// Creates the transactions of a call within `enclosing`.
    pub(super) fn inside(enclosing: Option<Arc<Replaying>>) -> Self {
        Self { enclosing, ..Self::default() }
    }

    /// Returns the transaction that contains the operations on a data source which name no other,
    /// if there is one.
    pub(super) fn enclosing(&self, context: &Context, service: &str) -> Option<&Arc<Replaying>> {
        self.enclosing.as_ref().filter(|_| context.stores.is_in_main(service))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction of a data source. Returns `{ transaction }`, its number.
    pub(super) async fn begin(
        &self,
        context: &Arc<Context>,
        service: &str,
        payer: Option<ObjectId>,
    ) -> Result<RawBson> {
        if !context.definition.services.contains_key(service) {
            return Err(Error::new(ErrorCode::ServiceNotFound, format!("service not found: '{service}'")));
        }
        if self.lock().open.len() >= MOST_OPEN {
            let message = format!("a function may have {MOST_OPEN} open transactions");
            return Err(Error::new(ErrorCode::FunctionExecutionError, message));
        }
        context.prepare().await?;
        let enclosing = self.enclosing(context, service);
        let limits = TransactionLimits::default();
        let share = match payer {
            // Parts of a transaction take nothing of their own.
            Some(user) if enclosing.is_none() => Some(context.transaction_shares.enter(user, limits.time).await?),
            _ => None,
        };
        let transaction = match enclosing {
            Some(enclosing) => enclosing.begin_part().await?,
            None => context.stores.of(service).begin(limits).await?,
        };
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.open.insert(number, OpenTransaction { service: service.to_owned(), transaction, _share: share });
        Ok(RawBson::Document(rawdoc! { "transaction": number }))
    }

    /// Returns an open transaction of a data source.
    pub(super) fn get(&self, number: i64, service: &str) -> Result<Arc<dyn Transaction>> {
        let state = self.lock();
        let open = state.open.get(&number).filter(|open| open.service == service);
        open.map(|open| Arc::clone(&open.transaction)).ok_or_else(no_transaction)
    }

    /// Commits a transaction.
    pub(super) async fn commit(&self, number: i64) -> Result<RawBson> {
        let ended = self.lock().open.remove(&number);
        ended.ok_or_else(no_transaction)?.transaction.commit().await?;
        Ok(RawBson::Null)
    }

    /// Aborts a transaction. It may have ended already.
    pub(super) async fn abort(&self, number: i64) -> Result<RawBson> {
        let ended = self.lock().open.remove(&number);
        if let Some(ended) = ended {
            ended.transaction.abort().await?;
        }
        Ok(RawBson::Null)
    }
}

fn no_transaction() -> Error {
    Error::bad_request("the function has no such transaction")
}
