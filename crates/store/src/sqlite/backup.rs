//! Backups: a consistent copy of the file while writes continue
//! (<https://sqlite.org/backup.html>).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, backup::Backup, backup::StepResult};

use super::connection::StoreConnection;
use crate::{Error, Progress, Result};

/// The number of pages copied in one step: a few milliseconds of work.
const PAGES: i32 = 500;

/// Pause between two steps, for other users of the disk.
const PAUSE: Duration = Duration::from_millis(1);

/// Copies the file. The copy gets its final name when it is complete and synced.
pub(super) fn backup(session: &mut StoreConnection, target: &Path, progress: &Progress) -> Result<()> {
    let failed = |reason: String| Error::Backup { path: target.to_owned(), reason };
    if target.exists() {
        return Err(failed("the file exists already".into()));
    }
    if let Some(parent) = target.parent() {
        files::create_directory(parent).map_err(|error| failed(error.to_string()))?;
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    remove(&partial);
    let copied = copy(session, &partial, progress)
        .and_then(|()| files::finish(&partial, target).map_err(|error| failed(error.to_string())));
    if copied.is_err() {
        remove(&partial);
    }
    copied.map_err(|error| match error {
        Error::Sqlite(error) => failed(error.to_string()),
        Error::Engine(reason) => failed(reason),
        other => other,
    })
}

fn copy(session: &mut StoreConnection, partial: &Path, progress: &Progress) -> Result<()> {
    files::create_private(partial).map_err(|error| Error::Engine(error.to_string()))?;
    let mut copy = Connection::open_with_flags(partial, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Writes during the copy are not in the snapshot, so no page has to be copied again.
    session.at_one_moment(|session| {
        session.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let backup = Backup::new(&session.connection, &mut copy)?;
        loop {
            let step = backup.step(PAGES)?;
            let pages = backup.progress();
            progress.begin("pages", pages.pagecount.unsigned_abs().into());
            progress.reach((pages.pagecount - pages.remaining).unsigned_abs().into());
            match step {
                StepResult::Done => return Ok(()),
                _ => std::thread::sleep(PAUSE),
            }
        }
    })?;
    // The copy gets a new history: resume tokens of the original have no meaning in it.
    copy.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; UPDATE history SET id = random();")?;
    copy.close().map_err(|(_, error)| error.into())
}

fn remove(partial: &Path) {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut path = partial.as_os_str().to_owned();
        path.push(suffix);
        let _ = std::fs::remove_file(path);
    }
}
