//! A disk that fails on demand: an SQLite VFS (<https://sqlite.org/vfs.html>) that wraps the
//! system's own, for the files below one directory.
//!
//! It counts reads, writes, truncations and syncs, makes one of them fail, and knows which data a
//! power cut would leave.
#![allow(unsafe_code, reason = "a VFS is C's")]

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr::{addr_of_mut, null_mut},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rusqlite::ffi;

/// The effect of a failure on its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The operation does nothing.
    Error,
    /// Half of the operation is carried out.
    Half,
    /// The operation does nothing because the disk is full, like every later write until there is
    /// room.
    Full,
}

/// The simulated disk.
#[derive(Default)]
pub(crate) struct Disk {
    directory: Option<PathBuf>,
    /// The number of operations so far.
    pub count: u64,
    /// The number of the operation that fails, and its failure.
    pub fails: Option<(u64, Failure)>,
    is_full: bool,
    files: HashMap<PathBuf, Image>,
    /// Deleted files whose removal from the directory has not been synced.
    ghosts: HashMap<PathBuf, Image>,
}

/// The synced content of a file, and the changes since the last sync.
#[derive(Default, Clone)]
struct Image {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// True if the directory entry has been synced.
    is_named: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Image {
    /// Returns the content with those changes that `has` selects.
    fn with(&self, has: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in self.pending.iter().filter(|_| has()) {
            match change {
                Change::Write(at, data) => {
                    bytes.resize(bytes.len().max(at + data.len()), 0);
                    bytes[*at..at + data.len()].copy_from_slice(data);
                }
                Change::Truncate(size) => bytes.resize(*size, 0),
            }
        }
        bytes
    }

    fn sync(&mut self) {
        self.durable = self.with(&mut || true);
        self.pending.clear();
    }
}

impl Disk {
    /// Resets the disk, with the files below a directory.
    pub(crate) fn begin(&mut self, directory: &Path, fails: Option<(u64, Failure)>) {
        *self = Self { directory: Some(directory.to_owned()), fails, ..Self::default() };
    }

    /// Ends all failures.
    pub(crate) fn heal(&mut self) {
        (self.fails, self.is_full) = (None, false);
    }

    /// Writes the state after a power cut into another directory: all synced data, and those other
    /// changes that `has` selects.
    pub(crate) fn after_power_cut(&self, target: &Path, has: &mut dyn FnMut() -> bool) {
        std::fs::create_dir_all(target).unwrap();
        let ghosts = self.ghosts.iter().filter(|(path, _)| !self.files.contains_key(*path));
        for (path, image) in self.files.iter().chain(ghosts).filter(|(_, image)| image.is_named) {
            let bytes = image.with(has);
            std::fs::write(target.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }

    /// Counts an operation, and returns its failure if it has one.
    fn next(&mut self, is_write: bool) -> Option<Failure> {
        self.count += 1;
        match self.fails {
            Some((at, Failure::Full)) if at == self.count => self.is_full = true,
            Some((at, failure)) if at == self.count => return Some(failure),
            _ => {}
        }
        (self.is_full && is_write).then_some(Failure::Full)
    }

    /// Syncs a file on behalf of code other than SQLite.
    pub(crate) fn sync(&mut self, path: &Path) -> std::io::Result<()> {
        if self.next(false).is_some() {
            return Err(std::io::Error::other("injected"));
        }
        self.synced(path);
        Ok(())
    }

    /// Like the system's VFS: the directory of a new file is synced with it, including all files
    /// created and deleted there.
    fn synced(&mut self, path: &Path) {
        let image = self.files.entry(path.to_owned()).or_default();
        image.sync();
        if !image.is_named {
            self.files.values_mut().for_each(|image| image.is_named = true);
            self.ghosts.clear();
        }
    }
}

pub(crate) fn disk() -> MutexGuard<'static, Disk> {
    static DISK: OnceLock<Mutex<Disk>> = OnceLock::new();
    DISK.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's VFS.
struct Real(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite never changes or frees a VFS that is registered.
unsafe impl Send for Real {}
// SAFETY: the same.
unsafe impl Sync for Real {}

static REAL: OnceLock<Real> = OnceLock::new();

/// Makes this the VFS of all connections that are opened from now on.
pub(crate) fn install() {
    REAL.get_or_init(|| {
        // SAFETY: finding a VFS initializes SQLite, which registers the system's VFS; the copy is
        // never freed.
        unsafe {
            let real = ffi::sqlite3_vfs_find(std::ptr::null());
            let mut ours = *real;
            ours.zName = c"faulty".as_ptr();
            ours.szOsFile += size_of::<File>() as c_int;
            ours.pNext = null_mut();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1), ffi::SQLITE_OK);
            Real(real)
        }
    });
}

/// SQLite's handle of an open file; the handle of the system's VFS follows it in memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    path: *mut PathBuf,
}

unsafe fn real_of(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite has made room for both, as `szOsFile` says.
    unsafe { file.cast::<File>().add(1).cast() }
}

unsafe fn path_of<'f>(file: *mut ffi::sqlite3_file) -> Option<&'f PathBuf> {
    // SAFETY: set by `open`, freed by `close`.
    unsafe { (*file.cast::<File>()).path.as_ref() }
}

macro_rules! forward {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the file is open, so the system's own is, and it has the methods of its version.
        unsafe {
            let real = real_of($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $argument)*),
                None => panic!(concat!("no ", stringify!($method))),
            }
        }
    }};
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let real = REAL.get().unwrap().0;
    // SAFETY: SQLite calls this; `name` is a path that ends with a zero byte, or null for a
    // temporary file.
    unsafe {
        let ours = file.cast::<File>();
        addr_of_mut!((*ours).path).write(null_mut());
        (*file).pMethods = std::ptr::null();
        let code = ((*real).xOpen.unwrap())(real, name, real_of(file), flags, out);
        if code != ffi::SQLITE_OK {
            return code;
        }
        (*file).pMethods = &raw const METHODS;
        if !name.is_null() {
            let path = PathBuf::from(CStr::from_ptr(name).to_str().unwrap());
            let mut disk = disk();
            if disk.directory.as_ref().is_some_and(|directory| path.starts_with(directory)) {
                disk.files.entry(path.clone()).or_default();
                (*ours).path = Box::into_raw(Box::new(path));
            }
        }
        code
    }
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let real = REAL.get().unwrap().0;
    // SAFETY: SQLite calls this.
    let (code, path) = unsafe {
        (((*real).xDelete.unwrap())(real, name, sync), PathBuf::from(CStr::from_ptr(name).to_str().unwrap()))
    };
    let mut disk = disk();
    if code == ffi::SQLITE_OK
        && let Some(image) = disk.files.remove(&path)
    {
        if sync == 0 {
            disk.ghosts.insert(path, image);
        } else {
            disk.ghosts.clear();
        }
    }
    code
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = forward!(file, xClose);
    // SAFETY: created by `open`, and not used again.
    unsafe {
        let path = (*file.cast::<File>()).path;
        if !path.is_null() {
            drop(Box::from_raw(path));
        }
    }
    code
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, size: c_int, at: i64) -> c_int {
    // SAFETY: the file is open.
    let failure = unsafe { path_of(file) }.and_then(|_| disk().next(false));
    match failure {
        None => forward!(file, xRead, to, size, at),
        Some(Failure::Half) => {
            let half = size / 2;
            let code = forward!(file, xRead, to, half, at);
            // SAFETY: `to` has room for `size` bytes.
            unsafe { to.cast::<u8>().add(half as usize).write_bytes(0, (size - half) as usize) };
            if code == ffi::SQLITE_OK { ffi::SQLITE_IOERR_SHORT_READ } else { code }
        }
        Some(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, size: c_int, at: i64) -> c_int {
    // SAFETY: the file is open.
    let Some(path) = (unsafe { path_of(file) }) else { return forward!(file, xWrite, from, size, at) };
    let mut disk = disk();
    let failure = disk.next(true);
    let size = match failure {
        None => size,
        Some(Failure::Half) => size / 2,
        Some(Failure::Error) => return ffi::SQLITE_IOERR_WRITE,
        Some(Failure::Full) => return ffi::SQLITE_FULL,
    };
    let code = forward!(file, xWrite, from, size, at);
    // SAFETY: `from` has `size` bytes.
    let data = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size as usize) };
    disk.files.entry(path.clone()).or_default().pending.push(Change::Write(at as usize, data.to_vec()));
    if failure.is_some() { ffi::SQLITE_IOERR_WRITE } else { code }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: the file is open.
    let Some(path) = (unsafe { path_of(file) }) else { return forward!(file, xTruncate, size) };
    let mut disk = disk();
    if disk.next(true).is_some() {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    disk.files.entry(path.clone()).or_default().pending.push(Change::Truncate(size as usize));
    forward!(file, xTruncate, size)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let Some(path) = (unsafe { path_of(file) }) else { return forward!(file, xSync, flags) };
    let mut disk = disk();
    // After half a sync, which is one that fails, the synced part is unknown.
    if disk.next(false).is_some() {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    disk.synced(path);
    // A real sync would only take time.
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    forward!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    forward!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    forward!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    forward!(file, xShmMap, page, size, extend, out)
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    forward!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    forward!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    forward!(file, xShmUnmap, delete)
}

/// Version 2: version 3 lets SQLite read pages without a call, which could not be counted.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
