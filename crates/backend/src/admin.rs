//! The operator's API: one door for the program, the command line and, later, an API over HTTP.

mod maintenance;

use std::{path::PathBuf, sync::Arc};

use bson::{RawBson, rawdoc};

use crate::{Progress, Result, StoreAddress, context::Context};

/// A request of the operator.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AdminRequest {
    /// Creates a new signing key; returns its id. Older keys verify tokens until the last token
    /// that they signed has expired.
    RotateKeys,
    /// Reads if the store has keys of the app; returns `{ isStored, others }`, with the ids of the
    /// other apps whose keys it has if it has none of this one.
    StoredApps,
    /// Copies the store into a file; returns nothing.
    Backup {
        /// The file, which must not exist.
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
        /// The other store.
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

/// The operator's door to a backend.
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
                context.prepare().await?;
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

/// A document with what a copy of documents has done.
fn copied(written: u64, unchanged: u64, reported: &[String]) -> bson::raw::RawDocumentBuf {
    let mut lines = bson::raw::RawArrayBuf::new();
    reported.iter().for_each(|line| lines.push(line.as_str()));
    rawdoc! { "written": written.cast_signed(), "unchanged": unchanged.cast_signed(), "reported": lines }
}
