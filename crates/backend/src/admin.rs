//! The operator's API, the single entry point for the program, the command line and, later, an
//! HTTP API.

mod maintenance;

use std::{path::PathBuf, sync::Arc};

use bson::{RawBson, rawdoc};

use crate::{
    Progress, Result, StoreAddress,
    context::{Context, in_time, too_late},
};

/// A request of the operator.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AdminRequest {
    /// Creates a new signing key and returns its id. An older key verifies tokens until the last
    /// token that it signed has expired.
    RotateKeys,
    /// Checks that the store contains keys of the app; returns `{ isStored, others }`. If it
    /// contains none, `others` has the ids of the apps whose keys it contains.
    StoredApps,
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
        ignore_indexes: bool,
    },
    /// Copies the contents of the store to another one; returns `{ collections, written,
    /// unchanged, reported }`.
    Migrate {
        /// The address of the other store.
        to: StoreAddress,
        /// The databases to copy; all if empty.
        databases: Vec<String>,
        /// True to copy no indexes.
        ignore_indexes: bool,
    },
    /// Checks the store for damage; returns `{ what, isOfIndex }` for each finding.
    Check {
        /// True to rebuild damaged indexes.
        repair: bool,
    },
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
            AdminRequest::RotateKeys => {
                in_time(context.deadline(), context.prepare(), too_late).await?;
                context.sessions.rotate_keys().await.map(RawBson::String)
            }
            AdminRequest::StoredApps => maintenance::stored_apps(context).await,
            AdminRequest::Backup { file } => maintenance::backup(context, file, progress).await,
            AdminRequest::Export { directory } => maintenance::export(context, &directory, progress).await,
            AdminRequest::Import { directory, ignore_indexes } => {
                maintenance::import(context, &directory, ignore_indexes, progress).await
            }
            AdminRequest::Migrate { to, databases, ignore_indexes } => {
                maintenance::migrate(context, &to, databases, ignore_indexes, progress).await
            }
            AdminRequest::Check { repair } => maintenance::check(context, repair, progress).await,
        }
    }
}

/// Returns the counts of a copy as a document.
fn copied(written: u64, unchanged: u64, reported: &[String]) -> bson::raw::RawDocumentBuf {
    let mut lines = bson::raw::RawArrayBuf::new();
    reported.iter().for_each(|line| lines.push(line.as_str()));
    rawdoc! { "written": written.cast_signed(), "unchanged": unchanged.cast_signed(), "reported": lines }
}
