use std::path::PathBuf;

use crate::{Denied, Namespace, WriteLimits};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation is not valid, or a document does not allow it.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// A unique index, or the one on `_id`, has the key already.
    #[error("Duplicate key error: E11000 duplicate key error collection: {namespace} index: {index} dup key: {key}")]
    DuplicateKey {
        /// The collection.
        namespace: Namespace,
        /// The name of the index.
        index: String,
        /// The indexed fields and the existing values.
        key: String,
    },
    /// The guard denied a write.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The result has more documents than the caller's limit.
    #[error("the query returns more than {limit} documents")]
    TooManyDocuments {
        /// The limit, in documents.
        limit: usize,
    },
    /// The result has more bytes than the caller's limit.
    #[error("the answer has more than {limit} bytes")]
    AnswerTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The write would change more than its limits allow.
    #[error("the write changes more than {} documents or {} bytes; nothing was written", limits.documents, limits.bytes)]
    WriteTooLarge {
        /// The limits of the write.
        limits: WriteLimits,
    },
    /// The write would add more index entries than its limit allows.
    #[error("the write adds more than {limit} entries to indexes; nothing was written")]
    TooManyEntries {
        /// The limit, in entries.
        limit: usize,
    },
    /// The file cannot be opened or created.
    #[error("cannot open the store {}: {reason}. Choose another place with the option `store` (\"sqlite:PATH\"), or \"memory:\" to keep nothing", path.display())]
    Open {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// Another SQLite library in this process has the file open. File locks do not work between
    /// the two.
    #[error("cannot open the store {}: another copy of Userkeep, or another SQLite library, has the file open in this process, and file locks do not work between the two. Install one copy (`npm ls userkeep` lists them), or close the file first", path.display())]
    OpenInThisProcess {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file was removed or replaced while the store was open. Writes would be lost.
    #[error("the file of the store {} was removed or replaced while the store was open; nothing was written. Put the file back and restart the process", path.display())]
    FileReplaced {
        /// The path of the file.
        path: PathBuf,
    },
    /// The backup cannot be written.
    #[error("cannot write the backup {}: {reason}", path.display())]
    Backup {
        /// The path of the backup.
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// A dump cannot be written or read.
    #[error("{}: {reason}", path.display())]
    Dump {
        /// The file or directory of the dump.
        path: PathBuf,
        /// The reason, in words.
        reason: String,
    },
    /// The file was written by a newer version of Userkeep.
    #[error("the store {} has format {found}, and this version of Userkeep reads up to {supported}", path.display())]
    NewerFormat {
        /// The path of the file.
        path: PathBuf,
        /// The format of the file.
        found: i64,
        /// The newest supported format.
        supported: i64,
    },
    /// The file belongs to another program.
    #[error("{} is not a Userkeep store", path.display())]
    NotAStore {
        /// The path of the file.
        path: PathBuf,
    },
    /// The connection string of a server is not valid.
    #[error("the connection string of the store is not valid: {reason}")]
    Address {
        /// The reason, in words.
        reason: String,
    },
    /// The app or its data sources do not fit their stores.
    #[error("{reason}")]
    DataSource {
        /// The reason, in words.
        reason: String,
    },
    /// The server cannot be reached, or did not answer in time.
    #[error("the database is not available: {reason}{}", if *maybe_written { "; the write may have been applied" } else { "; nothing was written" })]
    Unavailable {
        /// The reason, in words.
        reason: String,
        /// True if the write may have been applied nevertheless.
        maybe_written: bool,
    },
    /// The operation needs a transaction, which a standalone server does not support.
    #[error(
        "this operation needs a transaction, but the database is a standalone server: run it as a replica set. Nothing was written"
    )]
    NeedsTransaction,
    /// An operation of a transaction failed, but the same operations may succeed in a new
    /// transaction. The error is the cause, such as `WriteConflict` (112).
    #[error(transparent)]
    TransientTransaction(Box<Self>),
    /// Too many transactions of the store are open.
    #[error("{limit} transactions are open, which is the maximum; try again later")]
    TooManyTransactions {
        /// The limit, in transactions.
        limit: usize,
    },
    /// A migration is not possible, or its copy is not complete.
    #[error("{reason}")]
    Migration {
        /// The reason, in words.
        reason: String,
    },
    /// Too many operations wait for a thread, of one owner or in total.
    #[error("too many operations {} are waiting; try again later", if *is_of_one { "of this user" } else { "of all users" })]
    TooManyWaiting {
        /// True if the limit of one owner was reached.
        is_of_one: bool,
    },
    /// Too many operations wait for a connection to the database. Nothing was written.
    #[error("too many operations are waiting for the database; try again later. Nothing was written")]
    Overloaded,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// SQLite failed, for example because of a full disk or a damaged file.
    #[error("the store failed: {0}")]
    Sqlite(#[source] SqliteError),
    /// The database engine failed in another way.
    #[error("the store failed: {0}")]
    Engine(String),
}

impl Error {
    /// Returns the label that MongoDB gives to the error, by which drivers decide to retry a
    /// transaction.
    pub fn label(&self) -> Option<&'static str> {
        matches!(self, Self::TransientTransaction(_)).then_some("TransientTransactionError")
    }
}

/// An error of SQLite.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SqliteError(rusqlite::Error);

impl SqliteError {
    /// True if SQLite rejected the statement itself, for example because a table no longer exists.
    pub(crate) fn is_of_statement(&self) -> bool {
        matches!(self.0, rusqlite::Error::SqlInputError { .. })
            || self.0.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(SqliteError(error))
    }
}
