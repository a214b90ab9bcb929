//! A disk that fails when it is told to: an SQLite VFS (<https://sqlite.org/vfs.html>) around the system's own, for the files below one
//! directory. It counts reads, writes, truncations and syncs, lets one of them fail, and knows what a power cut would leave.
#![allow(unsafe_code, reason = "a VFS is C's")]

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr::{addr_of_mut, null_mut},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rusqlite::ffi;

/// What happens to the operation that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is done.
    Error,
    /// Half of it is done.
    Half,
    /// Nothing is done, because the disk is full; and so with every write after it, until there is room.
    Full,
}

/// The disk.
#[derive(Default)]
pub struct Disk {
    directory: Option<PathBuf>,
    /// How many operations there were.
    pub count: u64,
    /// Which one fails, and how.
    pub fails: Option<(u64, Failure)>,
    is_full: bool,
    files: HashMap<PathBuf, Image>,
    /// Files that were deleted, of which the directory on the disk does not know yet.
    ghosts: HashMap<PathBuf, Image>,
}

/// A file as it is on the disk, and what was done to it since the last sync.
#[derive(Default, Clone)]
struct Image {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Whether the directory on the disk has it.
    is_named: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Image {
    /// With those of the changes that the disk happens to have.
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
    /// Begins anew, with what is below a directory.
    pub fn begin(&mut self, directory: &Path, fails: Option<(u64, Failure)>) {
        *self = Self { directory: Some(directory.to_owned()), fails, ..Self::default() };
    }

    /// Lets everything succeed from now on.
    pub fn heal(&mut self) {
        (self.fails, self.is_full) = (None, false);
    }

    /// Writes down what a power cut would leave now, into another directory: what was synced, and of the rest what `has` says.
    pub fn after_power_cut(&self, target: &Path, has: &mut dyn FnMut() -> bool) {
        std::fs::create_dir_all(target).unwrap();
        let ghosts = self.ghosts.iter().filter(|(path, _)| !self.files.contains_key(*path));
        for (path, image) in self.files.iter().chain(ghosts).filter(|(_, image)| image.is_named) {
            let bytes = image.with(has);
            std::fs::write(target.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }

    /// How the next operation fails, if it does.
    fn next(&mut self, is_write: bool) -> Option<Failure> {
        self.count += 1;
        match self.fails {
            Some((at, Failure::Full)) if at == self.count => self.is_full = true,
            Some((at, failure)) if at == self.count => return Some(failure),
            _ => {}
        }
        (self.is_full && is_write).then_some(Failure::Full)
    }

    /// What a sync that is not SQLite's comes to.
    pub fn sync(&mut self, path: &Path) -> std::io::Result<()> {
        if self.next(false).is_some() {
            return Err(std::io::Error::other("injected"));
        }
        self.synced(path);
        Ok(())
    }

    /// As the system's VFS does it: a new file's directory is synced with it, with all that was made and deleted there.
    fn synced(&mut self, path: &Path) {
        let image = self.files.entry(path.to_owned()).or_default();
        image.sync();
        if !image.is_named {
            self.files.values_mut().for_each(|image| image.is_named = true);
            self.ghosts.clear();
        }
    }
}

pub fn disk() -> MutexGuard<'static, Disk> {
    static DISK: OnceLock<Mutex<Disk>> = OnceLock::new();
    DISK.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's own.
struct Real(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite never changes or frees a VFS that is registered.
unsafe impl Send for Real {}
// SAFETY: the same.
unsafe impl Sync for Real {}

static REAL: OnceLock<Real> = OnceLock::new();

/// Makes this the VFS of every connection that is opened from now on.
pub fn install() {
    REAL.get_or_init(|| {
        // SAFETY: the system's VFS is registered when SQLite is initialized, which finding one does; the copy lives for ever.
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

/// What SQLite holds of an open file; the system's own follows it.
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
    // SAFETY: as SQLite calls it; `name` is a path that ends with a zero, or null for a temporary file.
    unsafe {
        let ours = file.cast::<File>();
        addr_of_mut!((*ours).path).write(null_mut());
        (*file).pMethods = std::ptr::null();
        let code = ((*real).xOpen.unwrap())(real, name, real_of(file), flags, out);
        if code != ffi::SQLITE_OK {
            return code;
        }
        (*file).pMethods = &METHODS;
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
    // SAFETY: as SQLite calls it.
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
    // SAFETY: made by `open`, and not looked at again.
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
    // Half a sync is one that fails: what it has synced nobody knows.
    if disk.next(false).is_some() {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    disk.synced(path);
    // The system's own would only take time.
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

/// Of the second version: the third lets pages be read without a call, which nobody could count.
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
