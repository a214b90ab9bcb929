use std::path::PathBuf;

use crate::{Denied, Namespace, WriteLimits};

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation itself is wrong, or a document does not allow it.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// A unique index, or `_id`, holds the key already.
    #[error("Duplicate key error: E11000 duplicate key error collection: {namespace} index: {index} dup key: {key}")]
    DuplicateKey {
        /// The collection.
        namespace: Namespace,
        /// The index's name.
        index: String,
        /// Its fields, and the values that are there already.
        key: String,
    },
    /// The guard refused a write.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// More documents than the caller set as the limit.
    #[error("the query returns more than {limit} documents")]
    TooManyDocuments {
        /// The limit.
        limit: usize,
    },
    /// More bytes than the caller set as the limit of an answer.
    #[error("the answer has more than {limit} bytes")]
    AnswerTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A write that would change more than it may.
    #[error("the write changes more than {} documents or {} bytes; nothing was written", limits.documents, limits.bytes)]
    WriteTooLarge {
        /// The limits.
        limits: WriteLimits,
    },
    /// A write that would add more entries to indexes than it may.
    #[error("the write adds more than {limit} entries to indexes; nothing was written")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// The file cannot be opened or made.
    #[error("cannot open the store {}: {reason}. Choose another place with the option `store` (\"sqlite:PATH\"), or \"memory:\" to keep nothing", path.display())]
    Open {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another SQLite library of this process has the file open, and file locks do not work between the two.
    #[error("cannot open the store {}: another copy of Userkeep, or another SQLite library, has the file open in this process, and file locks do not work between the two. Install one copy (`npm ls userkeep` lists them), or close the file first", path.display())]
    OpenInThisProcess {
        /// The file.
        path: PathBuf,
    },
    /// The copy of the store cannot be made.
    #[error("cannot write the backup {}: {reason}", path.display())]
    Backup {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A dump cannot be written, or not be read.
    #[error("{}: {reason}", path.display())]
    Dump {
        /// Its file or directory.
        path: PathBuf,
        /// What is wrong there.
        reason: String,
    },
    /// The file was written by a newer version.
    #[error("the store {} has format {found}, and this version of Userkeep reads up to {supported}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is read.
        supported: i64,
    },
    /// The file is something else's.
    #[error("{} is not a Userkeep store", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The connection string of a server cannot be used.
    #[error("the connection string of the store is not valid: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// Data sources and their stores do not go together.
    #[error("{reason}")]
    DataSource {
        /// What does not.
        reason: String,
    },
    /// The server cannot be reached, or did not answer in time.
    #[error("the database is not available: {reason}{}", if *maybe_written { "; what was to be written may have been written, or not" } else { "; nothing was written" })]
    Unavailable {
        /// What happened.
        reason: String,
        /// Whether the write may have been carried out all the same.
        maybe_written: bool,
    },
    /// Something that is only possible where there are transactions.
    #[error(
        "this needs a transaction, which the database does not have: it is a server alone, and not a replica set. Nothing was written"
    )]
    NeedsTransaction,
    /// A migration cannot be carried out, or has not been.
    #[error("{reason}")]
    Migration {
        /// What is in the way.
        reason: String,
    },
    /// Something that this kind of store leaves to its own tools.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Too many operations wait for a thread, of the same owner or of all.
    #[error("too many operations {} are waiting; try again later", if *is_of_one { "of this user" } else { "of all users" })]
    TooManyWaiting {
        /// True if they belong to the same owner.
        is_of_one: bool,
    },
    /// Too many operations wait for a connection to the database. Nothing was written.
    #[error("too many operations are waiting for the database; try again later. Nothing was written")]
    Overloaded,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The engine failed: a full disk, a damaged file.
    #[error("the store failed: {0}")]
    Engine(String),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error.to_string())
    }
}
