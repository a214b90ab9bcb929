//! Document stores: one [`Store`] trait, implemented over SQLite (a file or memory) and MongoDB.
//!
//! A store knows documents, filters and indexes, but no users. A [`Guard`] tells it which
//! documents a caller may read and change. The store asks the guard about each document inside the
//! snapshot or transaction in which it acts, so that the check and the operation are atomic.

mod change;
pub mod dump;
mod environment;
mod error;
mod guard;
mod guarded;
mod index;
mod insert_missing;
pub mod migrate;
mod mongo;
mod names;
mod progress;
mod replaying;
mod request;
mod results;
mod sqlite;
mod transaction;
pub mod workers;

use futures_util::future::BoxFuture;

use std::path::PathBuf;

use bson::{RawBson, raw::RawDocumentBuf};

pub use change::{Audience, ChangeEvent, ChangeKind, ChangeStream, ResumeToken, Watch};
pub use environment::SystemEnvironment;
pub use error::{Error, Result, SqliteError};
pub use guard::{Denied, Guard, GuardFilters};
pub use index::{Index, Partial};
pub use mongo::{MongoStore, ReadPreference};
pub use progress::Progress;
pub use replaying::Replaying;
pub use request::{
    Aggregate, Change, Count, Explanation, Find, Modify, Namespace, Operation, Outcome, Returning, Write, WriteLimits,
};
pub use sqlite::{Durability, Location, Retention, Settings, SqliteStore, SyncLog};
pub use transaction::{Transaction, TransactionLimits};

/// An inconsistency that [`Maintenance::check`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A description of the problem and its location, for the operator.
    pub what: String,
    /// True if an index disagrees with the documents; rebuilding the index repairs it.
    pub is_of_index: bool,
}

/// A batch of documents of a collection, returned by [`Store::page`].
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The documents in the order of insertion or, on MongoDB, in the order of `_id`.
    pub documents: Vec<RawDocumentBuf>,
    /// The cursor of the next page, opaque to callers; `None` after the last page.
    pub next: Option<RawBson>,
    /// Progress as `(done, total)`, for display. The unit depends on the store and `total` is an
    /// estimate.
    pub reached: (u64, u64),
}

/// A document store. It is cheap to share, and every method may be called from any thread.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Returns the documents that match a filter and that the guard allows to see.
    ///
    /// A read of a few documents by `_id` or by an index completes at the first poll. A larger
    /// read runs on a worker thread.
    fn find(&self, find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// Runs two queries on one snapshot, at little more than the cost of one.
    fn find_both(&self, finds: [Find; 2]) -> BoxFuture<'_, Result<[Vec<RawDocumentBuf>; 2]>>;

    /// Counts the documents that match a filter and that the guard allows to see.
    fn count(&self, count: Count) -> BoxFuture<'_, Result<u64>>;

    /// Runs an aggregation pipeline over the documents that the guard allows to see.
    fn aggregate(&self, aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// Applies writes atomically: all of them, or none.
    ///
    /// The one exception is a single [`Operation::Insert`]: the documents before a duplicate stay,
    /// as in MongoDB's ordered `insertMany`. The outcomes are returned once they survive a crash
    /// of the process.
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>>;

    /// Applies writes one after the other and stops at the first failure.
    ///
    /// Callers use it for writes whose order alone keeps the data valid, even if other writes come
    /// in between. By default, the writes are applied atomically.
    fn write_in_order(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        self.write(writes)
    }

    /// Begins a transaction.
    ///
    /// An embedded store takes the snapshot now, and no other operation waits for the transaction.
    /// MongoDB takes the snapshot with the first operation, and locks the documents that the
    /// transaction writes.
    ///
    /// # Errors
    /// [`Error::NeedsTransaction`] on a standalone server, and [`Error::TooManyTransactions`] if
    /// too many transactions of an embedded store are open.
    fn begin(&self, limits: TransactionLimits) -> BoxFuture<'_, Result<std::sync::Arc<dyn Transaction>>>;

    /// True if the store runs in another process: each call is a network round trip, and other
    /// clients may write at the same time.
    fn is_remote(&self) -> bool {
        false
    }

    /// Returns a handle to this store for operations that the backend needs for each request.
    ///
    /// The operations of this handle do not wait behind users' operations for a connection. `None`
    /// if the store has no limited pool of connections.
    fn for_backend(&self) -> Option<std::sync::Arc<dyn Store>> {
        None
    }

    /// Creates the indexes that do not exist yet and fills them: all of them, or none.
    ///
    /// # Errors
    /// If an index exists under another name or with other options, or if two documents have the
    /// same key of a unique index.
    fn ensure_indexes(&self, namespace: Namespace, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>>;

    /// Returns the indexes of a collection, without the one on `_id`, which every collection has.
    /// Returns `None` if the collection does not exist.
    fn indexes(&self, namespace: Namespace) -> BoxFuture<'_, Result<Option<Vec<Index>>>>;

    /// Returns indexes of kinds that Userkeep does not support, as pairs of name and reason.
    fn unknown_indexes(&self, _namespace: Namespace) -> BoxFuture<'_, Result<Vec<(String, String)>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Removes an index by its name.
    ///
    /// # Errors
    /// `IndexNotFound` if there is no such index.
    fn drop_index(&self, namespace: Namespace, name: String) -> BoxFuture<'_, Result<()>>;

    /// Runs a query and returns its plan and counters instead of the documents.
    fn explain(&self, find: Find) -> BoxFuture<'_, Result<Explanation>>;

    /// Opens a change stream on a collection.
    ///
    /// The stream delivers the changes that are committed after this call, or after the event of
    /// `watch.after`. On an embedded store, the call completes at the first poll.
    ///
    /// # Errors
    /// `InvalidResumeToken` if the token is not valid. `ChangeStreamHistoryLost` if the changes
    /// after the token are no longer kept.
    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Box<dyn ChangeStream>>>;

    /// Keeps the version of each document before a change, from now on, so that every change event
    /// carries the version that it is about. On MongoDB this sets `changeStreamPreAndPostImages`
    /// and creates the collection if it does not exist; if the server rejects this, the log has a
    /// warning. An embedded store always keeps these versions.
    ///
    /// # Errors
    /// If the database is not available.
    fn keep_versions(&self, _namespace: Namespace) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the names of all collections.
    fn collections(&self) -> BoxFuture<'_, Result<Vec<Namespace>>>;

    /// Returns the names of `namespaces` that the store does not accept in a migration or an
    /// import, as messages. An embedded store accepts every name that another store has.
    ///
    /// # Errors
    /// If the names of the existing databases cannot be read.
    fn refused_names(&self, _namespaces: Vec<Namespace>) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Creates the collections of a migration or an import if necessary. An embedded store does so
    /// even if MongoDB rejects their names, so that their documents stay readable; MongoDB creates
    /// a collection with its first document or index.
    ///
    /// # Errors
    /// If a collection cannot be created.
    fn adopt_collections(&self, _namespaces: Vec<Namespace>) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns text that is equal for two handles of one store; `None` for a store in memory. It
    /// contains no credentials.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Returns a batch of the documents of a collection: the first one, or the one after a cursor.
    ///
    /// Nothing is locked between two calls. Documents that are written during the iteration may be
    /// returned or not.
    fn page(&self, namespace: Namespace, after: Option<RawBson>) -> BoxFuture<'_, Result<Page>>;

    /// Returns the backups and checks of this store; `None` if the operator uses the tools of the
    /// database instead, which [`Store::maintenance_advice`] names.
    fn maintenance(&self) -> Option<&dyn Maintenance> {
        None
    }

    /// Returns the messages for an operator who requests maintenance of a store without it.
    fn maintenance_advice(&self) -> MaintenanceAdvice {
        MaintenanceAdvice::default()
    }

    /// Checks that the path of an embedded store still leads to the open file.
    ///
    /// # Errors
    /// [`Error::FileReplaced`] if the file was removed or replaced.
    fn check_file(&self) -> Result<()> {
        Ok(())
    }

    /// Finishes the operations in flight and releases files and threads. Later calls fail with
    /// [`Error::Closed`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Backups and checks, for stores that keep their own files.
pub trait Maintenance: Send + Sync {
    /// Writes a consistent copy of the store to a file, which can be opened as a store.
    ///
    /// # Errors
    /// If the file exists already, or cannot be written.
    fn backup(&self, file: PathBuf, progress: Progress) -> BoxFuture<'_, Result<()>>;

    /// Checks the store for inconsistencies, on one snapshot. With `repair`, indexes that disagree
    /// with the documents are rebuilt first, and the remaining problems are returned.
    fn check(&self, repair: bool, progress: Progress) -> BoxFuture<'_, Result<Vec<Finding>>>;
}

/// Messages that name the tools of a database whose store has no [`Maintenance`].
#[derive(Debug, Clone, Copy)]
pub struct MaintenanceAdvice {
    /// How to back the store up.
    pub backup: &'static str,
    /// How to check the store.
    pub check: &'static str,
}

impl Default for MaintenanceAdvice {
    fn default() -> Self {
        Self {
            backup: "back up this store with the tools of its database",
            check: "check this store with the tools of its database",
        }
    }
}
