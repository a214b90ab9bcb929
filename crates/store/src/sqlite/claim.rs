//! Rejects a file that two SQLite libraries of one process would use, or that is open under
//! another name.
//!
//! POSIX locks belong to the process. Two libraries that open one file do not see each other's
//! locks, and closing a descriptor in one releases the locks of the other
//! (<https://sqlite.org/howtocorrupt.html#multiple_copies_of_sqlite_linked_into_the_same_application>).
//!
//! Two installed copies of the package are two libraries. They share the process's table of
//! descriptors: if this copy has no connection to a file that is open in the process, another
//! library has it open. On Windows, locks belong to the handle, so nothing is checked.
//!
//! The write-ahead log stands beside the name of the file, not beside the file. Connections under
//! two hard links would write two logs of one file.

use std::{collections::HashMap, ffi::OsString, path::Path, sync::Mutex};

use files::{DirectoryLock, FileId};
use rusqlite::{Connection, OpenFlags};

use super::{directory_of, lock};
use crate::{Error, Result};

/// The files to which this copy has connections.
static CONNECTIONS: Mutex<Option<HashMap<FileId, Connections>>> = Mutex::new(None);

/// The connections to a file.
struct Connections {
    count: usize,
    name: FileName,
}

/// The directory and the name of a file, after following symbolic links. A directory that is
/// mounted twice is one directory.
#[derive(PartialEq, Eq)]
struct FileName(Option<FileId>, Option<OsString>);

impl FileName {
    fn of(path: &Path) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Self(FileId::of(directory_of(&path)).ok().flatten(), path.file_name().map(Into::into))
    }
}

/// Counts a connection until it is dropped. It must be dropped after the connection.
#[derive(Debug)]
pub(super) struct Claim(Option<FileId>);

impl Claim {
    fn take(path: &Path) -> Result<Self> {
        // SQLite reports the error of a missing file.
        let Some(file) = FileId::of(path).ok().flatten() else { return Ok(Self(None)) };
        let refused = |reason: String| Err(Error::Open { path: path.to_owned(), reason });
        let name = FileName::of(path);
        let mut connections = lock(&CONNECTIONS);
        let connections = connections.get_or_insert_default();
        match connections.get_mut(&file) {
            Some(open) if open.name != name && file.is_open_in_this_process() => {
                return refused("the file is open in this process under another name (hard link)".into());
            }
            // A link that was added since the first connection is rejected in other processes. The
            // connections under the first name stay usable.
            Some(open) => {
                open.count += 1;
                // Another name is that of a removed file, whose number this file has got: its
                // connections are closed, and their claims are about to be dropped.
                open.name = name;
            }
            None if file.is_open_in_this_process() => return Err(Error::OpenInThisProcess { path: path.to_owned() }),
            None => {
                let links = files::link_count(path).unwrap_or(1);
                if links > 1 {
                    return refused(format!(
                        "the file has {links} names (hard links), and writes under two names would damage it. Remove the others (`find DIRECTORY -samefile FILE` lists them)"
                    ));
                }
                connections.insert(file, Connections { count: 1, name });
            }
        }
        Ok(Self(Some(file)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (Some(file), Some(connections)) = (self.0, &mut *lock(&CONNECTIONS)) else { return };
        if let Some(open) = connections.get_mut(&file) {
            open.count -= 1;
            if open.count == 0 {
                connections.remove(&file);
            }
        }
    }
}

/// Opens a connection for reading and writing, after calling `prepare`.
///
/// # Errors
/// If another SQLite library of this process has the file open, if the file has several names, if
/// `prepare` fails, or if SQLite cannot open the file.
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
