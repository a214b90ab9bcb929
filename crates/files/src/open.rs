//! The files that this process has open, in whichever library.

use std::{
    fs::{File, Metadata, TryLockError},
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Time to wait for the lock of a directory. A lock that is held longer belongs to another
/// program.
const DIRECTORY_PATIENCE: Duration = Duration::from_millis(200);

/// Identity of a file: its device and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity of the file at a path, after following symbolic links; `None` on
    /// Windows.
    ///
    /// # Errors
    /// If the file cannot be found.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        Ok(identity(&std::fs::metadata(path)?))
    }

    /// True if a descriptor of this process has the file open.
    ///
    /// Reads `/dev/fd`, which exists on Linux and macOS; always false on other systems. The file
    /// is not opened, because closing it would release this process's POSIX locks on it.
    pub fn is_open_in_this_process(self) -> bool {
        let Ok(descriptors) = std::fs::read_dir("/dev/fd") else { return false };
        descriptors
            .flatten()
            .any(|entry| std::fs::metadata(entry.path()).is_ok_and(|metadata| identity(&metadata) == Some(self)))
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some(FileId { device: metadata.dev(), inode: metadata.ino() })
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<FileId> {
    None
}

/// Returns the number of names (hard links) of the file at a path, after following symbolic links;
/// always 1 on Windows.
///
/// # Errors
/// If the file cannot be found.
pub fn link_count(path: &Path) -> io::Result<u64> {
    std::fs::metadata(path).map(|metadata| links(&metadata))
}

#[cfg(unix)]
fn links(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn links(_: &Metadata) -> u64 {
    1
}

/// An exclusive lock of a directory, which processes and libraries hold while they open a file in
/// it. It is released when dropped, and by the operating system when its process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Waits for the lock, up to 200 ms. Returns `None` if another program holds it, or if the
    /// system has no such locks.
    pub fn acquire(directory: &Path) -> Option<Self> {
        let directory = File::open(directory).ok()?;
        let deadline = Instant::now() + DIRECTORY_PATIENCE;
        loop {
            match directory.try_lock() {
                Ok(()) => return Some(Self { _directory: directory }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return None,
            }
        }
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_open_file_under_every_name_until_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        let file = File::create(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let id = FileId::of(&link).unwrap().unwrap();
        assert_eq!(FileId::of(&path).unwrap(), Some(id));
        assert!(id.is_open_in_this_process());
        drop(file);
        assert!(!id.is_open_in_this_process());
        assert!(FileId::of(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn a_directory_has_one_lock_holder_and_others_stop_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(directory.path()).unwrap();
        assert!(DirectoryLock::acquire(directory.path()).is_none());
        drop(held);
        assert!(DirectoryLock::acquire(directory.path()).is_some());
    }
}
