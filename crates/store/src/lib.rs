//! Where documents live. One [`Store`] trait; behind it, an SQLite file or memory.
//!
//! A store knows documents, filters and indexes. It does not know users: what a caller may see and change reaches it
//! as a [`Guard`], which it asks about each document inside the snapshot or transaction in which it acts, so that a
//! check and what it allows are one.

mod change;
mod error;
mod guard;
mod index;
mod request;
mod sqlite;

use futures_util::future::BoxFuture;

use bson::raw::RawDocumentBuf;

pub use change::{ChangeEvent, ChangeKind, ChangeStream, ResumeToken, Watch};
pub use error::{Error, Result};
pub use guard::{Denied, Guard};
pub use index::{Index, Partial};
pub use request::{
    Aggregate, Change, Count, Explanation, Find, Modify, Namespace, Operation, Outcome, Returning, Write,
};
pub use sqlite::{Durability, Location, Retention, Settings, SqliteStore};

/// A place for documents. Cheap to share; every method may be called from any thread.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The documents that a filter matches and the guard lets be seen. A read of few documents by `_id` or by index is
    /// done at the first poll; anything longer runs on a thread of its own.
    fn find(&self, find: Find) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// The answers of two queries at one moment, for the price of little more than one.
    fn find_both(&self, finds: [Find; 2]) -> BoxFuture<'_, Result<[Vec<RawDocumentBuf>; 2]>>;

    /// How many documents a filter matches among those that may be seen.
    fn count(&self, count: Count) -> BoxFuture<'_, Result<u64>>;

    /// The answer of a pipeline over the documents that may be seen.
    fn aggregate(&self, aggregate: Aggregate) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// Carries out writes as one: all of them, or none.
    ///
    /// The one exception is [`Operation::Insert`] alone, whose documents before a duplicate stay, as in MongoDB's
    /// ordered `insertMany`. An outcome is only returned once it survives the death of the process.
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>>;

    /// Makes indexes that do not exist yet, over what the collection holds: all of them, or none.
    ///
    /// # Errors
    /// Where one is there under another name or with other options, or a unique one finds a key twice.
    fn ensure_indexes(&self, namespace: Namespace, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>>;

    /// The indexes of a collection, but for that on `_id`, which every collection has; `None` where there is no such collection.
    fn indexes(&self, namespace: Namespace) -> BoxFuture<'_, Result<Option<Vec<Index>>>>;

    /// Removes an index by its name.
    ///
    /// # Errors
    /// `IndexNotFound` where there is none.
    fn drop_index(&self, namespace: Namespace, name: String) -> BoxFuture<'_, Result<()>>;

    /// Answers a query and tells how it was answered instead of the documents.
    fn explain(&self, find: Find) -> BoxFuture<'_, Result<Explanation>>;

    /// Follows the changes of a collection, of which those are told that are committed after this has been answered, or
    /// after an event that was told before. It is answered at the first poll.
    ///
    /// # Errors
    /// `InvalidResumeToken` where the token is not one, `ChangeStreamHistoryLost` where what came after it is not kept any more.
    fn watch(&self, watch: Watch) -> BoxFuture<'_, Result<Box<dyn ChangeStream>>>;

    /// Finishes what is in flight and lets go of files and threads. Calls after it fail with [`Error::Closed`].
    fn close(&self) -> BoxFuture<'_, ()>;
}
