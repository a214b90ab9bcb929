//! Private files: readable by their owner only, excluded from version control, and replaced
//! atomically.

mod open;
mod place;

pub use open::{DirectoryLock, FileId};
pub use place::{refuse_network, refuse_read_only};

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Creates the directory for private files if it does not exist: accessible to its owner only,
/// with a `.gitignore` that excludes its contents from version control. An existing directory
/// stays unchanged.
///
/// # Errors
/// If the directory cannot be created.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    // Two processes may get here at the same time; both write the same file.
    fs::write(directory.join(".gitignore"), "*\n")
}

/// Opens a file for reading and writing, and creates it if necessary, readable by its owner only.
///
/// # Errors
/// If the file cannot be opened or created.
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Creates an empty file, readable by its owner only. An existing file is not even opened, because
/// closing it would release every lock that this process has on it.
///
/// # Errors
/// If the file cannot be created.
pub fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(|_| ()),
    }
}

/// Replaces the contents of a file atomically: a reader sees the old contents or the new ones, and
/// so does a process that starts after a crash. With `durable`, the new contents survive a power
/// failure.
///
/// # Errors
/// If the new contents cannot be written; the old ones stay then.
pub fn replace(path: &Path, contents: &[u8], durable: bool) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(name);
    let written = open_private(&temporary).and_then(|mut file| {
        file.write_all(contents)?;
        if durable { file.sync_all() } else { Ok(()) }
    });
    let replaced = written.and_then(|()| fs::rename(&temporary, path));
    // The directory entry must be synced too.
    let replaced = replaced.and_then(|()| if durable { sync_directory_of(path) } else { Ok(()) });
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

/// Syncs a file that was written under a temporary name, and gives it its final name. An existing
/// file is never replaced.
///
/// # Errors
/// If the file cannot be synced, or the final name exists already.
pub fn finish(partial: &Path, path: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    // A hard link, unlike a rename, fails if the name exists.
    match fs::hard_link(partial, path) {
        Ok(()) => fs::remove_file(partial)?,
        // Not every file system supports hard links.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => fs::rename(partial, path)?,
        Err(error) => return Err(error),
    }
    sync_directory_of(path)
}

/// Syncs the directory of a file, so that a new file is still there after a power failure.
///
/// # Errors
/// If the directory cannot be synced.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    // Directories can be synced on Unix only.
    if cfg!(unix) { File::open(directory.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
}

/// A lock between processes that share a file, held while they read, change and replace it. It is
/// released when dropped, and by the operating system when its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock, which is a file beside `path`.
    ///
    /// # Errors
    /// If the lock file cannot be created.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let file = open_private(&PathBuf::from(name))?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_private_and_excluded_from_version_control() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        create_directory(&directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join(".gitignore")).unwrap(), "*\n");
        let file = directory.join("secret");
        replace(&file, b"one", true).unwrap();
        replace(&file, b"two", false).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        }
    }

    #[test]
    fn an_existing_file_stays_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        create_private(&file).unwrap();
        replace(&file, b"contents", false).unwrap();
        create_private(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"contents");
        assert!(create_private(&directory.path().join("missing/file")).is_err());
    }

    #[test]
    fn an_existing_directory_stays_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        create_directory(directory.path()).unwrap();
        assert!(!directory.path().join(".gitignore").exists());
    }
}
