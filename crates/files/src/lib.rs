//! Files that only their owner may read, in directories that version control leaves alone, written whole or not at all.

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

/// Makes the directory for private files where there is none: open to its owner alone, with a `.gitignore` that keeps
/// what it holds out of version control. A directory that exists is left as it is.
///
/// # Errors
/// Where it cannot be made.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    // Two processes may come here at once; the file is the same from both.
    fs::write(directory.join(".gitignore"), "*\n")
}

/// Opens a file for reading and writing, made if it is missing, that only its owner may read.
///
/// # Errors
/// Where it cannot be opened or made.
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes an empty file that only its owner may read, where there is none. One that exists is not even opened: closing it
/// again would let go of every lock that this process has on it.
///
/// # Errors
/// Where it cannot be made.
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

/// Puts new contents in a file's place: a reader sees the old ones or the new ones, and so does a process that starts
/// after a crash; with `durable`, after a power cut too.
///
/// # Errors
/// Where the new contents cannot be written; the old ones are then untouched.
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
    // Only then has the directory the new file under its name.
    let replaced = replaced.and_then(|()| if durable { sync_directory_of(path) } else { Ok(()) });
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

/// Gives a file that has been written under another name its own, once the disk has it; never in the place of another.
///
/// # Errors
/// Where it cannot be synced, or there is one of the name already.
pub fn finish(partial: &Path, path: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    // Unlike a renaming, it fails where there is one of the name.
    match fs::hard_link(partial, path) {
        Ok(()) => fs::remove_file(partial)?,
        // Not every file system has links.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => fs::rename(partial, path)?,
        Err(error) => return Err(error),
    }
    sync_directory_of(path)
}

/// Sees to it that the directory of a file has the file after a power cut too.
///
/// # Errors
/// Where it cannot be synced.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    // Other systems have no such thing.
    if cfg!(unix) { File::open(directory.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
}

/// A lock that processes sharing a file hold while they read, change and replace it. Released when dropped, and by the
/// system when its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock beside `path`.
    ///
    /// # Errors
    /// Where the lock's own file cannot be made.
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
    fn a_directory_of_its_own_keeps_its_files_private_and_out_of_version_control() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        create_directory(&directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join(".gitignore")).unwrap(), "*\n");
        let file = directory.join("secret");
        replace(&file, b"one", true).unwrap();
        replace(&file, b"two", false).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file stays behind: {names:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        }
    }

    #[test]
    fn a_file_that_exists_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        create_private(&file).unwrap();
        replace(&file, b"contents", false).unwrap();
        create_private(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"contents");
        assert!(create_private(&directory.path().join("missing/file")).is_err());
    }

    #[test]
    fn an_existing_directory_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        create_directory(directory.path()).unwrap();
        assert!(!directory.path().join(".gitignore").exists());
    }
}
