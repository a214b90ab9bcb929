//! The operator's API, the single entry point for the program, the command line and, later, an
//! HTTP API.

mod maintenance;

use std::{path::PathBuf, sync::Arc};

use bson::{
    Document, RawBson,
    raw::{RawDocument, RawDocumentBuf},
    rawdoc,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Error, ErrorCode, LogQuery, Progress, Result, StoreAddress,
    context::{Context, in_time, too_late},
    logs,
};

/// A request of the operator.
///
/// Its document has the name in `operation`, and its fields, such as `ignoreIndexes`.
///
/// ```
/// use backend::AdminRequest;
/// use bson::rawdoc;
///
/// let request = AdminRequest::read(&rawdoc! { "operation": "check", "repair": true }).unwrap();
/// assert!(matches!(request, AdminRequest::Check { repair: true }));
/// assert!(AdminRequest::read(&rawdoc! { "operation": "backup" }).is_err());
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum AdminRequest {
    /// Creates a new signing key and returns its id. An older key verifies tokens until the last
    /// token that it signed has expired.
    RotateKeys {},
    /// Checks that the store contains keys of the app; returns `{ isStored, others }`. If it
    /// contains none, `others` has the ids of the apps whose keys it contains.
    StoredApps {},
    /// Copies the store to a file; returns nothing.
    Backup {
        /// The path of the file, which must not exist.
        file: PathBuf,
    },
    /// Writes a dump into a directory; returns its number of documents.
    Export {
        /// The directory.
        directory: PathBuf,
    },
    /// Imports a dump; returns `{ written, unchanged, reported }`.
    Import {
        /// The directory.
        directory: PathBuf,
        /// True to import no indexes.
        #[serde(default)]
        ignore_indexes: bool,
    },
    /// Copies the contents of the store to another one; returns `{ collections, written,
    /// unchanged, reported }`.
    Migrate {
        /// The address of the other store.
        to: StoreAddress,
        /// The databases to copy; all if empty.
        #[serde(default)]
        databases: Vec<String>,
        /// True to copy no indexes.
        #[serde(default)]
        ignore_indexes: bool,
    },
    /// Returns entries of the log, newest first.
    Logs {
        /// The entries to find.
        #[serde(default)]
        query: LogQuery,
    },
    /// Checks the store for damage; returns `{ what, isOfIndex }` for each finding.
    Check {
        /// True to rebuild damaged indexes.
        #[serde(default)]
        repair: bool,
    },
}

impl AdminRequest {
    /// Reads a request from its document.
    ///
    /// # Errors
    /// `InvalidParameter` if the operation is unknown, or a field is missing, unknown or of
    /// another type. The message names it.
    pub fn read(document: &RawDocument) -> Result<Self> {
        read_document(document).map_err(|error| Error::new(ErrorCode::InvalidParameter, error))
    }
}

/// Reads settings or parameters from a document.
///
/// # Errors
/// If a field is missing, unknown or of another type. The message names it.
///
/// ```
/// use bson::rawdoc;
///
/// #[derive(Debug, serde::Deserialize)]
/// struct Address {
///     host: String,
/// }
///
/// let address: Address = backend::read_document(&rawdoc! { "host": "localhost" }).unwrap();
/// assert_eq!(address.host, "localhost");
/// let error = backend::read_document::<Address>(&rawdoc! {}).unwrap_err();
/// assert_eq!(error, "missing field `host`");
/// ```
pub fn read_document<T: DeserializeOwned>(document: &RawDocument) -> Result<T, String> {
    // The deserializer of raw documents would need three times the code for each type.
    Document::try_from(document)
        .and_then(bson::deserialize_from_document)
        .map_err(|error| error.message.clone().unwrap_or_else(|| error.to_string()))
}

/// The operator's access to a backend.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Context>);

impl Admin {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self(context)
    }

    /// Carries out a request. A long one reports its progress.
    ///
    /// # Errors
    /// If the store cannot be read or written, with the reason for the operator.
    pub async fn run(&self, request: AdminRequest, progress: &Progress) -> Result<RawBson> {
        let context = &self.0;
        match request {
            AdminRequest::RotateKeys {} => {
                in_time(context.deadline(), context.prepare(), too_late).await?;
                context.sessions.rotate_keys().await.map(RawBson::String)
            }
            AdminRequest::StoredApps {} => maintenance::stored_apps(context).await,
            AdminRequest::Backup { file } => maintenance::backup(context, file, progress).await,
            AdminRequest::Export { directory } => maintenance::export(context, &directory, progress).await,
            AdminRequest::Import { directory, ignore_indexes } => {
                maintenance::import(context, &directory, ignore_indexes, progress).await
            }
            AdminRequest::Migrate { to, databases, ignore_indexes } => {
                maintenance::migrate(context, &to, databases, ignore_indexes, progress).await
            }
            AdminRequest::Logs { query } => {
                let found = in_time(context.deadline(), context.logs.search(&query), too_late);
                found.await.map(logs::to_array)
            }
            AdminRequest::Check { repair } => maintenance::check(context, repair, progress).await,
        }
    }
}

/// Returns the counts of a copy as a document.
fn copied(written: u64, unchanged: u64, reported: &[String]) -> RawDocumentBuf {
    let mut lines = bson::raw::RawArrayBuf::new();
    reported.iter().for_each(|line| lines.push(line.as_str()));
    rawdoc! { "written": written.cast_signed(), "unchanged": unchanged.cast_signed(), "reported": lines }
}
