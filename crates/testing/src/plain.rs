//! Plain SQLite, which the benchmarks compare the embedded store with.

use std::path::Path;

use rusqlite::Connection;

/// Opens a new file with the fastest settings that lose no write when the process ends.
pub fn open(file: &Path) -> Connection {
    let connection = Connection::open(file).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
    connection.pragma_update(None, "cache_size", -16_384).unwrap();
    connection.pragma_update(None, "mmap_size", 268_435_456i64).unwrap();
    connection
}
