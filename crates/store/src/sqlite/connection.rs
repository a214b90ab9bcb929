//! A connection to the file, with its cached catalog.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use query::Budget;
use rusqlite::{
    Connection, ErrorCode,
    backup::{Backup, StepResult},
};

use super::{
    BUSY_TIMEOUT, Durability, Location, Settings,
    catalog::Catalog,
    changes::{self, Recorder},
    claim::{self, Claim},
    configure, directory_of, lock,
};
use crate::{Error, Index, Namespace, Result};

/// SQLite's `application_id` of our files ("USKP").
const APPLICATION_ID: i64 = 0x5553_4b50;

/// SQLite's `user_version` of our files: the format that is written, and the newest that is read.
const FORMAT: i64 = 3;

/// The number of steps of SQLite's virtual machine between two checks of a read's budget: a few
/// documents.
const STEPS: i32 = 100;

/// Serializes the opening of connections.
static OPENING: Mutex<()> = Mutex::new(());

pub(crate) struct StoreConnection {
    pub(super) connection: Connection,
    pub(super) catalog: Catalog,
    pub(super) recorder: Recorder,
    /// The claim must be dropped after the connection. A store in memory has none.
    _claim: Option<Claim>,
}

impl StoreConnection {
    pub(super) fn memory(settings: &Settings) -> Result<Self> {
        let connection = Connection::open_in_memory()?;
        configure(&connection)?;
        initialize(&connection)?;
        Ok(Self::new(connection, settings, None))
    }

    /// Returns a copy of a store in memory.
    pub(super) fn copy_of(other: &Self, settings: &Settings) -> Result<Self> {
        let mut connection = Connection::open_in_memory()?;
        configure(&connection)?;
        match Backup::new(&other.connection, &mut connection)?.step(-1)? {
            StepResult::Done => {}
            other => return Err(Error::Engine(format!("the store in memory cannot be copied: {other:?}"))),
        }
        Ok(Self::new(connection, settings, None))
    }

    fn new(connection: Connection, settings: &Settings, claim: Option<Claim>) -> Self {
        Self { connection, catalog: Catalog::new(settings.clone()), recorder: Recorder::default(), _claim: claim }
    }

    /// Opens a reader connection. Returns `None` if the file does not exist or is not initialized
    /// yet.
    pub(super) fn open_existing(location: &Location, settings: &Settings) -> Result<Option<Self>> {
        let Location::File(path) = location else { return Ok(None) };
        // Another process is about to initialize an empty file.
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > 0 => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Open { path: path.clone(), reason: error.to_string() }),
        }
        refuse_read_only(path)?;
        let _opening = lock(&OPENING);
        // Not read-only: the first reader after a crash recovers the log.
        let (claim, connection) = claim::open(path, || Ok(()))?;
        let Some(format) = check_format(&connection, location)? else { return Ok(None) };
        configure(&connection)?;
        if format < FORMAT {
            initialize(&connection)?;
        }
        Ok(Some(Self::new(connection, settings, Some(claim))))
    }

    /// Opens the writer connection, and creates the file and its directory if necessary.
    pub(super) fn open_for_writing(location: &Location, settings: &Settings) -> Result<Self> {
        let Location::File(path) = location else { return Err(Error::Closed) };
        let failed = |reason: String| Error::Open { path: path.clone(), reason };
        refuse_read_only(path)?;
        files::create_directory(directory_of(path)).map_err(|error| failed(error.to_string()))?;
        // SQLite gives its log files the permissions of the existing file. Only one thread of this
        // process may open the file while it is created: POSIX locks end when any descriptor of
        // the file is closed.
        let _opening = lock(&OPENING);
        let create = || files::create_private(path).map_err(|error| failed(error.to_string()));
        let (claim, connection) = claim::open(path, create)?;
        check_format(&connection, location)?;
        configure(&connection)?;
        let mode = use_log(&connection).map_err(|error| failed(error.to_string()))?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(failed(format!("the file system does not support a write-ahead log (journal mode {mode})")));
        }
        if settings.durability == Durability::Full {
            connection.pragma_update(None, "synchronous", "FULL")?;
        }
        initialize(&connection)?;
        Ok(Self::new(connection, settings, Some(claim)))
    }

    /// Runs a prepared statement that returns no rows.
    pub(super) fn run(&self, sql: &str) -> Result<()> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Runs several reads on one snapshot. The shared connection of a store in memory is free only
    /// after the transaction of a write has ended, so the snapshot never includes half a write.
    pub(super) fn at_one_moment<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if !self.connection.is_autocommit() {
            // Nested in another such read.
            return read(self);
        }
        self.run("BEGIN")?;
        let answer = read(self);
        let ended = self.run("COMMIT");
        let answer = answer?;
        ended?;
        Ok(answer)
    }

    /// Runs a read under a budget, which also interrupts SQLite itself.
    ///
    /// # Errors
    /// The error of the budget if it is exhausted, whatever the read returned; else that of the
    /// read.
    pub(super) fn within<T>(&mut self, budget: &Budget, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.watch(budget)?;
        let answer = catch_unwind(AssertUnwindSafe(|| budget.enter(|| read(self))));
        // Also after a panic, because the only connection of a store in memory is used again.
        self.unwatch()?;
        let answer = answer.unwrap_or_else(|panic| resume_unwind(panic));
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        budget.check()?;
        answer
    }

    /// Lets a budget interrupt SQLite, until [`unwatch`](Self::unwatch).
    pub(super) fn watch(&mut self, budget: &Budget) -> Result<()> {
        let watched = budget.clone();
        Ok(self.connection.progress_handler(STEPS, Some(move || watched.is_exhausted()))?)
    }

    /// Ends [`watch`](Self::watch).
    pub(super) fn unwatch(&mut self) -> Result<()> {
        Ok(self.connection.progress_handler(0, None::<fn() -> bool>)?)
    }

    pub(super) fn namespaces(&mut self) -> Result<Vec<Namespace>> {
        self.catalog.refresh(&self.connection)?;
        let mut names: Vec<_> =
            self.catalog.collections().map(|collection| (collection.id, collection.namespace.clone())).collect();
        names.sort_by_key(|(id, _)| *id);
        Ok(names.into_iter().map(|(_, name)| name).collect())
    }

    pub(super) fn indexes(&mut self, namespace: &Namespace) -> Result<Option<Vec<Index>>> {
        self.catalog.refresh(&self.connection)?;
        let collection = self.catalog.collection(namespace);
        Ok(collection.map(|collection| collection.indexes.iter().map(|held| held.index.clone()).collect()))
    }

    pub(super) fn has_indexes(&mut self, namespace: &Namespace, indexes: &[Index]) -> Result<bool> {
        self.catalog.refresh(&self.connection)?;
        let collection = self.catalog.collection(namespace);
        Ok(collection.is_some_and(|collection| {
            indexes.iter().all(|index| collection.indexes.iter().any(|held| held.index == *index))
        }))
    }
}

/// Rejects a store in a read-only directory: SQLite writes the log and the shared memory of the
/// readers beside the file.
fn refuse_read_only(path: &Path) -> Result<()> {
    files::refuse_read_only(directory_of(path))
        .map_err(|error| Error::Open { path: path.to_owned(), reason: error.to_string() })
}

/// Returns the statements that upgrade a file of an older format. The first format had another
/// kind of indexes; they are dropped, and the callers that need them create them again.
fn renewal(connection: &Connection) -> Result<String> {
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format != 1 {
        return Ok(String::new());
    }
    let mut statement = connection.prepare("SELECT id FROM indexes")?;
    let ids: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let drops: String = ids.iter().map(|id| format!("DROP TABLE entries_{id}; ")).collect();
    Ok(format!("{drops} DROP TABLE indexes;"))
}

/// Returns the format of the file; `None` if the file is still empty.
///
/// # Errors
/// If the file is not a store, or has a newer format.
fn check_format(connection: &Connection, location: &Location) -> Result<Option<i64>> {
    let Location::File(path) = location else { return Ok(None) };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotAStore { path: path.clone() },
        _ => Error::Open { path: path.clone(), reason: error.to_string() },
    };
    // Reads on one snapshot, because another process may be initializing the file.
    let snapshot = connection.unchecked_transaction().map_err(failed)?;
    let read = |sql: &str| snapshot.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
    let application = read("PRAGMA application_id")?;
    let format = read("PRAGMA user_version")?;
    let tables = read("SELECT count(*) FROM sqlite_schema")?;
    if application == 0 && format == 0 {
        return if tables == 0 { Ok(None) } else { Err(Error::NotAStore { path: path.clone() }) };
    }
    if application != APPLICATION_ID {
        return Err(Error::NotAStore { path: path.clone() });
    }
    if format > FORMAT {
        return Err(Error::NewerFormat { path: path.clone(), found: format, supported: FORMAT });
    }
    Ok(Some(format))
}

/// Switches the file to write-ahead logging. Only one process can, and SQLite does not wait for it
/// as it waits for a commit.
fn use_log(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            answer => return answer,
        }
    }
}

fn initialize(connection: &Connection) -> Result<()> {
    // Several processes may initialize the file at once: the first one does, in one transaction.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let (renewal, changes) = (renewal(connection)?, changes::SCHEMA);
    connection.execute_batch(&format!(
        "
         CREATE TABLE IF NOT EXISTS collections (id INTEGER PRIMARY KEY, database TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (database, name)) STRICT;
         {renewal}
         CREATE TABLE IF NOT EXISTS indexes (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL REFERENCES collections, name TEXT NOT NULL,
             specification BLOB NOT NULL, UNIQUE (collection, name)) STRICT;
         {changes}
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {FORMAT};
         COMMIT;"
    ))?;
    Ok(())
}
