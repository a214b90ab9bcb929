//! The table of changes. Changes are recorded in the transaction that makes them, have ids in the
//! order of the commits, and are kept for the retention.

use std::{cell::Cell, collections::HashMap, sync::Arc, time::Duration};

use bson::{
    DateTime, Timestamp,
    raw::{RawBsonRef, RawDocumentBuf},
};
use query::ErrorCode;
use rusqlite::{Connection, OptionalExtension, params};

use super::{catalog::Collection, change_feed::BATCH_BYTES, connection::StoreConnection};
use crate::{ChangeEvent, ChangeKind, Error, Namespace, Result, ResumeToken};

/// Limits of one page of changes, in changes and in bytes.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The first byte of a resume token.
const TOKEN_VERSION: u8 = 1;

/// The tables of changes. `time` is in seconds and never decreases. `total` is the size of all
/// changes up to this one, in bytes. `document` is the new version or, for a deletion, the last
/// one.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS changes (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, kind INTEGER NOT NULL, time INTEGER NOT NULL,
        total INTEGER NOT NULL, document BLOB NOT NULL, description BLOB) STRICT;
    CREATE TABLE IF NOT EXISTS history (id INTEGER NOT NULL) STRICT;
    INSERT INTO history SELECT random() WHERE NOT EXISTS (SELECT 1 FROM history);
";

/// The limits of the change history: changes are removed when they are too old or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Retention {
    /// The maximum age, with a resolution of one second.
    pub age: Duration,
    /// The maximum size of all changes, in bytes.
    pub bytes: u64,
}

impl Default for Retention {
    /// Returns one day and 256 MB.
    fn default() -> Self {
        Self { age: Duration::from_secs(24 * 60 * 60), bytes: 256 * 1024 * 1024 }
    }
}

/// Records changes. It caches the newest change during a transaction.
#[derive(Default)]
pub(super) struct Recorder {
    newest: Cell<Option<Newest>>,
    recorded: Cell<Amount>,
}

/// A number of changes, and their size in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) changes: i64,
    pub(super) bytes: i64,
}

#[derive(Clone, Copy)]
struct Newest {
    id: i64,
    time: i64,
    total: i64,
}

impl Recorder {
    /// Clears the cache, after a rollback or when other connections may have written.
    pub(super) fn forget(&self) {
        self.newest.set(None);
    }

    /// Returns the id of the newest change; 0 before the first.
    pub(super) fn newest(&self, connection: &Connection) -> Result<i64> {
        self.newest.get().map_or_else(|| newest(connection), |newest| Ok(newest.id))
    }

    /// Returns the amount recorded since the last call.
    pub(super) fn take_recorded(&self) -> Amount {
        self.recorded.take()
    }

    pub(super) fn record(
        &self,
        connection: &Connection,
        collection: &Collection,
        now: DateTime,
        kind: ChangeKind,
        document: &[u8],
        description: Option<&[u8]>,
    ) -> Result<()> {
        let newest = match self.newest.get() {
            Some(newest) => newest,
            None => newest_in(connection)?.unwrap_or(Newest { id: 0, time: 0, total: 0 }),
        };
        let size = document.len() + description.map_or(0, <[u8]>::len);
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let next = Newest {
            id: newest.id + 1,
            time: newest.time.max(now.timestamp_millis().div_euclid(1000)),
            total: newest.total.saturating_add(size),
        };
        connection
            .prepare_cached(
                "INSERT INTO changes (id, collection, kind, time, total, document, description) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![next.id, collection.id, number(kind), next.time, next.total, document, description])?;
        self.newest.set(Some(next));
        let Amount { changes, bytes } = self.recorded.get();
        self.recorded.set(Amount { changes: changes + 1, bytes: bytes.saturating_add(size) });
        Ok(())
    }
}

/// Returns the number that stands for a kind of change in the table.
pub(super) fn number(kind: ChangeKind) -> i64 {
    match kind {
        ChangeKind::Insert => 1,
        ChangeKind::Update => 2,
        ChangeKind::Replace => 3,
        ChangeKind::Delete => 4,
    }
}

pub(super) fn kind(number: i64) -> Option<ChangeKind> {
    [ChangeKind::Insert, ChangeKind::Update, ChangeKind::Replace, ChangeKind::Delete]
        .into_iter()
        .find(|kind| self::number(*kind) == number)
}

fn newest_in(connection: &Connection) -> Result<Option<Newest>> {
    let mut statement = connection.prepare_cached("SELECT id, time, total FROM changes ORDER BY id DESC LIMIT 1")?;
    let read = |row: &rusqlite::Row<'_>| Ok(Newest { id: row.get(0)?, time: row.get(1)?, total: row.get(2)? });
    Ok(statement.query_row([], read).optional()?)
}

/// The result of removing old changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trimmed {
    /// No change was too old.
    Nothing,
    /// The allowed amount was removed, and more old changes are left.
    Some,
    /// All old changes were removed.
    All,
}

/// Removes the oldest changes beyond the retention, up to an amount; one larger change is removed
/// alone. The newest change always stays, so that ids and times continue from it.
pub(super) fn trim(connection: &Connection, retention: Retention, now: DateTime, most: Amount) -> Result<Trimmed> {
    let Some(newest) = newest_in(connection)? else { return Ok(Trimmed::Nothing) };
    let seconds = i64::try_from(retention.age.as_secs()).unwrap_or(i64::MAX);
    let too_old = now.timestamp_millis().div_euclid(1000).saturating_sub(seconds);
    let too_many = newest.total.saturating_sub(i64::try_from(retention.bytes).unwrap_or(i64::MAX));
    let goes = |id: i64, upto: i64| -> Result<bool> {
        let sql = "SELECT (time < ?2 OR total <= ?3) AND total <= ?4 FROM changes WHERE id = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let goes = statement.query_row([id, too_old, too_many, upto], |row| row.get(0)).optional()?;
        Ok(id < newest.id && goes.unwrap_or(false))
    };
    let oldest = oldest_in(connection)?.unwrap_or(newest.id);
    if !goes(oldest, i64::MAX)? {
        return Ok(Trimmed::Nothing);
    }
    let first = connection
        .prepare_cached("SELECT total FROM changes WHERE id = ?1")?
        .query_row([oldest], |row| row.get::<_, i64>(0))?;
    let upto = first.saturating_add(most.bytes);
    // Ids have no gaps, and times and totals increase with them: a binary search finds the first
    // change that stays.
    let (mut from, mut to) = (oldest + 1, newest.id.min(oldest.saturating_add(most.changes)));
    while from < to {
        let middle = from + (to - from) / 2;
        if goes(middle, upto)? { from = middle + 1 } else { to = middle }
    }
    connection.prepare_cached("DELETE FROM changes WHERE id < ?1")?.execute([from])?;
    Ok(if goes(from, i64::MAX)? { Trimmed::Some } else { Trimmed::All })
}

fn oldest_in(connection: &Connection) -> Result<Option<i64>> {
    Ok(connection.prepare_cached("SELECT min(id) FROM changes")?.query_row([], |row| row.get(0))?)
}

/// Returns the id of the history that the change ids belong to. A copy of a file gets a new
/// history.
pub(super) fn history(connection: &Connection) -> Result<i64> {
    Ok(connection.prepare_cached("SELECT id FROM history")?.query_row([], |row| row.get(0))?)
}

/// Returns the id of the newest change; 0 before the first.
pub(super) fn newest(connection: &Connection) -> Result<i64> {
    Ok(newest_in(connection)?.map_or(0, |newest| newest.id))
}

/// Returns the resume token of a change.
pub(super) fn token(history: i64, id: i64) -> ResumeToken {
    ResumeToken::from(&*format!("{TOKEN_VERSION:02x}{history:016x}{id:016x}"))
}

/// Returns the change id of a resume token.
///
/// # Errors
/// If the token is not valid, or belongs to another history.
pub(super) fn place(connection: &Connection, token: &ResumeToken) -> Result<i64> {
    let wrong = |code, message: &str| Error::from(query::Error { code, message: message.into() });
    let text = token.as_str();
    let part = |range: std::ops::Range<usize>| u64::from_str_radix(text.get(range)?, 16).ok();
    let parts = if text.len() == 34 { (part(0..2), part(2..18), part(18..34)) } else { (None, None, None) };
    let (Some(version), Some(history), Some(id)) = parts else {
        return Err(wrong(ErrorCode::InvalidResumeToken, "the resume token is not valid"));
    };
    if version != u64::from(TOKEN_VERSION) {
        return Err(wrong(ErrorCode::InvalidResumeToken, "the resume token was made by another version of Userkeep"));
    }
    let id = i64::try_from(id).unwrap_or(i64::MAX);
    if history.cast_signed() != self::history(connection)? || id > newest(connection)? {
        return Err(wrong(ErrorCode::ChangeStreamHistoryLost, "the resume token belongs to another store"));
    }
    check_kept(connection, id)?;
    Ok(id)
}

/// True if all changes after a change are still kept.
pub(super) fn are_kept_after(connection: &Connection, after: i64) -> Result<bool> {
    Ok(oldest_in(connection)?.is_none_or(|oldest| oldest <= after + 1))
}

/// Checks that all changes after a change are still kept.
fn check_kept(connection: &Connection, after: i64) -> Result<()> {
    if !are_kept_after(connection, after)? {
        let message = "the next events are no longer kept: the stream was resumed or read too late";
        return Err(query::Error { code: ErrorCode::ChangeStreamHistoryLost, message: message.into() }.into());
    }
    Ok(())
}

/// A batch of changes in their order.
#[derive(Default)]
pub(super) struct Page {
    /// The changes with their ids.
    pub(super) changes: Vec<(i64, Arc<ChangeEvent>)>,
    /// The id up to which the page is complete.
    pub(super) upto: i64,
    /// True if there may be more changes.
    pub(super) is_full: bool,
}

/// Returns the changes after an id, of one collection for a stream, or of all.
///
/// # Errors
/// If the next changes are no longer kept.
pub(super) fn after(session: &mut StoreConnection, id: i64, namespace: Option<&Namespace>) -> Result<Page> {
    session.at_one_moment(|session| {
        session.catalog.refresh(&session.connection)?;
        check_kept(&session.connection, id)?;
        let history = history(&session.connection)?;
        let names: HashMap<i64, &Namespace> =
            session.catalog.collections().map(|collection| (collection.id, &collection.namespace)).collect();
        let mut page = Page { upto: id, ..Page::default() };
        let most_bytes = if namespace.is_some() { BATCH_BYTES } else { PAGE_BYTES };
        let (mut read, mut bytes) = (0, 0);
        let mut statement = session.connection.prepare_cached(
            "SELECT id, collection, kind, time, document, description FROM changes WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let mut rows = statement.query([id, PAGE as i64])?;
        while let Some(row) = rows.next()? {
            read += 1;
            let id: i64 = row.get(0)?;
            page.upto = id;
            let name = names.get(&row.get(1)?);
            if let Some(name) = name.filter(|name| namespace.is_none_or(|namespace| namespace == **name)) {
                let event = read_event(row, history, id, name)?;
                bytes += event.size();
                page.changes.push((id, Arc::new(event)));
            }
            if bytes >= most_bytes {
                page.is_full = true;
                break;
            }
        }
        page.is_full |= read == PAGE;
        Ok(page)
    })
}

pub(super) fn read_event(row: &rusqlite::Row<'_>, history: i64, id: i64, namespace: &Namespace) -> Result<ChangeEvent> {
    let damaged = || Error::Engine(format!("the change {id} is damaged"));
    let bytes = |blob: Vec<u8>| RawDocumentBuf::from_bytes(blob).map_err(|_| damaged());
    let time = u32::try_from(row.get::<_, i64>(3)?).unwrap_or(u32::MAX);
    let document = bytes(row.get(4)?)?;
    let mut key = RawDocumentBuf::new();
    query::append(&mut key, "_id", query::get(&document, "_id").unwrap_or(RawBsonRef::Null));
    Ok(ChangeEvent {
        token: token(history, id),
        kind: kind(row.get(2)?).ok_or_else(damaged)?,
        // The low half of the id is enough to order the changes of one second.
        cluster_time: Timestamp { time, increment: id as u32 },
        namespace: namespace.clone(),
        key,
        document: Some(document),
        is_exact: true,
        description: row.get::<_, Option<Vec<u8>>>(5)?.map(bytes).transpose()?,
    })
}
