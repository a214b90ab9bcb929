//! Where documents live. One [`Store`] trait; behind it, an SQLite file, memory, or MongoDB.
//!
//! A store knows documents, filters and indexes. It does not know users: what a caller may see and change reaches it
//! as a [`Guard`], which it asks about each document inside the snapshot or transaction in which it acts, so that a
//! check and what it allows are one.

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
mod progress;
mod request;
mod results;
mod sqlite;
pub mod workers;

use futures_util::future::BoxFuture;

use std::path::PathBuf;

use bson::{RawBson, raw::RawDocumentBuf};

pub use change::{Audience, ChangeEvent, ChangeKind, ChangeStream, ResumeToken, Watch};
pub use environment::SystemEnvironment;
pub use error::{Error, Result};
pub use guard::{Denied, Guard, GuardFilters};
pub use index::{Index, Partial};
pub use mongo::{MongoStore, ReadPreference};
pub use progress::Progress;
pub use request::{
    Aggregate, Change, Count, Explanation, Find, Modify, Namespace, Operation, Outcome, Returning, Write, WriteLimits,
};
pub use sqlite::{Durability, Location, Retention, Settings, SqliteStore, SyncLog};

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What and where.
    pub what: String,
    /// Whether it is an index that does not agree with the documents, and so can be made anew.
    pub is_of_index: bool,
}

/// Some documents of a collection.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In the order of their insertion or, on MongoDB, of their `_id`s.
    pub documents: Vec<RawDocumentBuf>,
    /// After which place to go on, which means nothing to anybody else; none where there are no more.
    pub next: Option<RawBson>,
    /// How much of the collection is before it, and how much there is about.
    pub reached: (u64, u64),
}

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

    /// Carries out writes one after the other, up to the first that fails: for those that are right in their order, whatever comes
    /// between. A store that loses nothing by it carries them out as one.
    fn write_in_order(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        self.write(writes)
    }

    /// Whether it is another process's: each call is a trip over a network, and others may write at the same time.
    fn is_remote(&self) -> bool {
        false
    }

    /// This store for operations that the backend needs for each request: where connections are scarce, they do not wait for
    /// those that users' operations use. None if that makes no difference.
    fn for_backend(&self) -> Option<std::sync::Arc<dyn Store>> {
        None
    }

    /// Makes indexes that do not exist yet, over what the collection holds: all of them, or none.
    ///
    /// # Errors
    /// Where one is there under another name or with other options, or a unique one finds a key twice.
    fn ensure_indexes(&self, namespace: Namespace, indexes: Vec<Index>) -> BoxFuture<'_, Result<()>>;

    /// The indexes of a collection, but for that on `_id`, which every collection has; `None` where there is no such collection.
    fn indexes(&self, namespace: Namespace) -> BoxFuture<'_, Result<Option<Vec<Index>>>>;

    /// The names of indexes of kinds that Userkeep does not have, and what is in the way.
    fn unknown_indexes(&self, _namespace: Namespace) -> BoxFuture<'_, Result<Vec<(String, String)>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

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

    /// Keeps the version of each document before a change, from now on, so that every change event
    /// carries the version that it is about. On MongoDB this sets `changeStreamPreAndPostImages`
    /// and creates the collection if it does not exist; if the server refuses, the log has a
    /// warning. An embedded store always keeps these versions.
    ///
    /// # Errors
    /// If the database is not available.
    fn keep_versions(&self, _namespace: Namespace) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// All collections.
    fn collections(&self) -> BoxFuture<'_, Result<Vec<Namespace>>>;

    /// The documents of a collection after a place or from the first on, so many as are read at once. Nothing is held between two
    /// calls, so that a reader that takes its time is in nobody's way: what is written meanwhile may be there or not.
    fn page(&self, namespace: Namespace, after: Option<RawBson>) -> BoxFuture<'_, Result<Page>>;

    /// Makes a copy of all, as it is at one moment, that can be opened as a store.
    ///
    /// # Errors
    /// Where there is a file of that name, or none can be written.
    fn backup(&self, file: PathBuf, progress: Progress) -> BoxFuture<'_, Result<()>>;

    /// Looks for what is wrong, at one moment. With `repair`, indexes that do not agree with the documents are made anew
    /// first, and what is still wrong is told.
    fn check(&self, repair: bool, progress: Progress) -> BoxFuture<'_, Result<Vec<Finding>>>;

    /// Finishes what is in flight and lets go of files and threads. Calls after it fail with [`Error::Closed`].
    fn close(&self) -> BoxFuture<'_, ()>;
}
