//! The transactions of a running function. They end with its call.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bson::{RawBson, rawdoc};
use store::{Replaying, Transaction, TransactionLimits};

use crate::{Error, ErrorCode, Result, context::Context};

/// The maximum number of open transactions of one call.
const MOST_OPEN: usize = 8;

/// The open transactions of a call, by their numbers, with the names of their data sources.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    state: Mutex<Open>,
    /// The transaction that contains all operations of the call in the app's own store. The
    /// transactions of the function are parts of it.
    enclosing: Option<Arc<Replaying>>,
}

#[derive(Debug, Default)]
struct Open {
    last: i64,
    open: HashMap<i64, (String, Arc<dyn Transaction>)>,
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
    pub(super) async fn begin(&self, context: &Arc<Context>, service: &str) -> Result<RawBson> {
        if !context.definition.services.contains_key(service) {
            return Err(Error::new(ErrorCode::ServiceNotFound, format!("service not found: '{service}'")));
        }
        if self.lock().open.len() >= MOST_OPEN {
            let message = format!("a function may have {MOST_OPEN} open transactions");
            return Err(Error::new(ErrorCode::FunctionExecutionError, message));
        }
        context.prepare().await?;
        let transaction = match self.enclosing(context, service) {
            Some(enclosing) => enclosing.begin_part().await?,
            None => context.stores.of(service).begin(TransactionLimits::default()).await?,
        };
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.open.insert(number, (service.to_owned(), transaction));
        Ok(RawBson::Document(rawdoc! { "transaction": number }))
    }

    /// Returns an open transaction of a data source.
    pub(super) fn get(&self, number: i64, service: &str) -> Result<Arc<dyn Transaction>> {
        let open = self.lock().open.get(&number).filter(|(of, _)| of == service).map(|(_, open)| Arc::clone(open));
        open.ok_or_else(no_transaction)
    }

    /// Commits a transaction.
    pub(super) async fn commit(&self, number: i64) -> Result<RawBson> {
        let ended = self.lock().open.remove(&number);
        let (_, transaction) = ended.ok_or_else(no_transaction)?;
        transaction.commit().await?;
        Ok(RawBson::Null)
    }

    /// Aborts a transaction. It may have ended already.
    pub(super) async fn abort(&self, number: i64) -> Result<RawBson> {
        let ended = self.lock().open.remove(&number);
        if let Some((_, transaction)) = ended {
            transaction.abort().await?;
        }
        Ok(RawBson::Null)
    }
}

fn no_transaction() -> Error {
    Error::bad_request("the function has no such transaction")
}
