//! Notices that the file of an open store was removed or replaced.
//!
//! The connections keep the old file, which has no name any more: everything that is written to it
//! is lost when the last process closes it.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use files::FileId;

use crate::{Error, Result};

/// The path of an open store, and the file that its connections use.
#[derive(Debug)]
pub(super) struct FilePlace {
    path: PathBuf,
    /// The file of the first connection; unset before, and on Windows, where an open file cannot
    /// be removed.
    file: OnceLock<FileId>,
    is_reported: AtomicBool,
}

impl FilePlace {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: OnceLock::new(), is_reported: AtomicBool::new(false) }
    }

    /// Notes the file that a new connection has opened.
    ///
    /// # Errors
    /// [`Error::FileReplaced`] if the earlier connections use another file.
    pub(super) fn note_opened(&self) -> Result<()> {
        if let Ok(Some(file)) = FileId::of(&self.path) {
            self.file.get_or_init(|| file);
        }
        self.check()
    }

    /// Checks that the path still leads to the file of the connections. The first failure is
    /// logged.
    ///
    /// # Errors
    /// [`Error::FileReplaced`] if it does not.
    pub(super) fn check(&self) -> Result<()> {
        let Some(file) = self.file.get() else { return Ok(()) };
        let is_in_place = match FileId::of(&self.path) {
            Ok(found) => found == Some(*file),
            // Other errors do not show that the file is gone.
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        if is_in_place {
            return Ok(());
        }
        let error = Error::FileReplaced { path: self.path.clone() };
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the store's file was removed or replaced");
        }
        Err(error)
    }
}
