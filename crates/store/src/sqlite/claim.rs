//! Rejects a file that two SQLite libraries of one process would use.
//!
//! POSIX locks belong to the process. Two libraries that open one file do not see each other's
//! locks, and closing a descriptor in one releases the locks of the other
//! (<https://sqlite.org/howtocorrupt.html#multiple_copies_of_sqlite_linked_into_the_same_application>).
//!
//! Two installed copies of the package are two libraries. They share the process's table of
//! descriptors: if this copy has no connection to a file that is open in the process, another
//! library has it open. On Windows, locks belong to the handle, so nothing is checked.

use std::{collections::HashMap, path::Path, sync::Mutex};

use files::{DirectoryLock, FileId};
use rusqlite::{Connection, OpenFlags};

use super::{directory_of, lock};
use crate::{Error, Result};

/// The number of connections of this copy to each file.
static CONNECTIONS: Mutex<Option<HashMap<FileId, usize>>> = Mutex::new(None);

/// Counts a connection until it is dropped. It must be dropped after the connection.
#[derive(Debug)]
pub(super) struct Claim(Option<FileId>);

impl Claim {
    fn take(path: &Path) -> Result<Self> {
        // SQLite reports the error of a missing file.
        let Some(file) = FileId::of(path).ok().flatten() else { return Ok(Self(None)) };
        let mut connections = lock(&CONNECTIONS);
        let connections = connections.get_or_insert_default();
        if !connections.contains_key(&file) && file.is_open_in_this_process() {
            return Err(Error::OpenInThisProcess { path: path.to_owned() });
        }
        *connections.entry(file).or_default() += 1;
        Ok(Self(Some(file)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (Some(file), Some(connections)) = (self.0, &mut *lock(&CONNECTIONS)) else { return };
        if let Some(count) = connections.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&file);
            }
        }
    }
}

/// Opens a connection for reading and writing, after calling `prepare`.
///
/// # Errors
/// If another SQLite library of this process has the file open, if `prepare` fails, or if SQLite
/// cannot open the file.
pub(super) fn open(path: &Path, prepare: impl FnOnce() -> Result<()>) -> Result<(Claim, Connection)> {
    // Two copies that open one file at the same time must not both find it closed.
    let _alone = DirectoryLock::acquire(directory_of(path));
    prepare()?;
    let claim = Claim::take(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| Error::Open { path: path.to_owned(), reason: error.to_string() })?;
    Ok((claim, connection))
}
