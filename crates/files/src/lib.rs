//! Private files: readable by their owner only, excluded from version control, and replaced
//! atomically.

mod open;
mod place;

pub use open::{DirectoryLock, FileId, link_count};
pub use place::{refuse_network, refuse_read_only};

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Time between two attempts to take a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

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
    match create_new_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(|_| ()),
    }
}

/// Creates a file and opens it for writing, readable by its owner only.
///
/// # Errors
/// If the file exists already, or cannot be created.
pub fn create_new_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens a regular file for reading. A named pipe or a device, which a reader could wait for or
/// read without end, is not opened.
///
/// # Errors
/// If the file is not a regular file, or cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(&fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // The file may have been replaced by a named pipe since the check.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Reads a regular file of up to `limit` bytes.
///
/// # Errors
/// If the file is not a regular file, has more than `limit` bytes, or cannot be read.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
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
    /// Waits for the lock, which is a file beside `path`, up to `patience`.
    ///
    /// # Errors
    /// `TimedOut` if another process or thread still holds the lock. Other errors if the lock file
    /// cannot be created or locked.
    pub fn acquire(path: &Path, patience: Duration) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let file = open_private(&name)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("another process has held the lock {} for {patience:?}", name.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            std::thread::sleep(LOCK_INTERVAL.min(left));
        }
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
    fn a_lock_that_another_holds_is_waited_for_up_to_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let held = Lock::acquire(&path, Duration::ZERO).unwrap();
        let begun = Instant::now();
        let error = Lock::acquire(&path, Duration::from_millis(50)).unwrap_err();
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("file.lock for 50ms"), "{error}");
        let waiting = std::thread::spawn(move || Lock::acquire(&path, Duration::from_secs(30)).map(|_| ()));
        drop(held);
        waiting.join().unwrap().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_a_regular_file_of_a_limited_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let (file, pipe) = (directory.path().join("file"), directory.path().join("pipe"));
        fs::write(&file, b"four").unwrap();
        assert_eq!(read_regular(&file, 4).unwrap(), b"four");
        assert_eq!(read_regular(&file, 3).unwrap_err().to_string(), "it has more than 3 bytes");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for other in [&*pipe, Path::new("/dev/zero"), directory.path()] {
            assert_eq!(read_regular(other, 4).unwrap_err().to_string(), "it is not a regular file");
        }
        assert_eq!(read_regular(&directory.path().join("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_new_file_does_not_replace_an_existing_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        create_new_private(&file).unwrap().write_all(b"one").unwrap();
        assert_eq!(create_new_private(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"one");
    }

    #[test]
    fn an_existing_directory_stays_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        create_directory(directory.path()).unwrap();
        assert!(!directory.path().join(".gitignore").exists());
    }
}
