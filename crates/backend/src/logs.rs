//! The log of an app for its operator: one entry for each outermost call of a function, each
//! log-in and each failed request
//! (<https://www.mongodb.com/docs/atlas/app-services/logs/>).
//!
//! The entries are documents in the app's own database, so that all nodes write to one log. They
//! wait in a queue with a bound, and are written in batches: no answer waits for the log.

mod clients;
mod entry;
mod queue;
mod redact;
mod request;
mod search;
mod trim;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bson::{DateTime, RawBson, raw::RawDocumentBuf, rawdoc};
use query::{Environment as _, Path};
use store::{Find, Index, Namespace, Store};
use tokio::{runtime::Handle, sync::Mutex as AsyncMutex};

use crate::{DeclaredQuery, Environment, Error, Result, auth::OwnCollection};

pub use request::RequestId;
pub use search::LogQuery;

pub(crate) use entry::{CallRecord, Console, Entry, Kind};
pub(crate) use redact::Redaction;
pub(crate) use request::{Received, RequestRecord, canceled, logged_in, received};

use queue::Queue;
use trim::Segments;

/// The collection of the entries.
const COLLECTION: &str = "logs";

/// The minimum time between two commits of entries.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// The retention of log entries. Older entries are deleted, and the oldest ones if all together
/// are larger.
///
/// ```
/// let retention = backend::LogRetention::default();
/// assert_eq!((retention.age.as_secs(), retention.bytes), (864_000, 67_108_864));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogRetention {
    /// The maximum age.
    pub age: Duration,
    /// The maximum size of all entries, in bytes. With 0, there is no log.
    pub bytes: u64,
}

impl Default for LogRetention {
    /// Returns 10 days and 64 MB.
    fn default() -> Self {
        Self { age: Duration::from_secs(10 * 24 * 60 * 60), bytes: 64 * 1024 * 1024 }
    }
}

/// The log of an app. All its definitions share it.
#[derive(Debug)]
pub(crate) struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    collection: OwnCollection,
    environment: Environment,
    retention: LogRetention,
    queue: Mutex<Queue>,
    /// The sizes of the stored entries. It is locked while a batch is written.
    segments: AsyncMutex<Segments>,
    /// True if this process deletes the oldest entries beyond the limit.
    trims: AtomicBool,
    /// A collection that every store of the app has. The log alone creates no store.
    users: Namespace,
    /// True if that collection is known to exist.
    has_store: AtomicBool,
    /// The runtime that writes the batches: the first that adds an entry, or that starts the app.
    runtime: Mutex<Option<Handle>>,
}

impl Logs {
    /// Creates the log in a store's database `database`. Without bytes to keep, it is off.
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        database: &str,
        environment: Environment,
        retention: LogRetention,
    ) -> Self {
        let store = store.for_backend().unwrap_or_else(|| Arc::clone(store));
        Self(Arc::new(Shared {
            collection: OwnCollection::new(store, database, COLLECTION),
            environment,
            retention,
            queue: Mutex::new(Queue::new(retention.bytes)),
            segments: AsyncMutex::default(),
            trims: AtomicBool::default(),
            users: Namespace::new(database, "users"),
            has_store: AtomicBool::default(),
            runtime: Mutex::default(),
        }))
    }

    /// Creates the indexes: expired entries are deleted, and an entry is found by its request.
    pub(crate) async fn prepare(&self) -> Result<()> {
        if !self.is_on() {
            return Ok(());
        }
        let expired = Index::on(Path::new(entry::EXPIRES)).expiring(0);
        let indexes = vec![expired, Index::on(Path::new(entry::REQUEST_ID))];
        self.0.collection.ensure_indexes(indexes).await?;
        self.0.has_store.store(true, Ordering::Release);
        if lock(&self.0.queue).must_start() {
            self.start_writing();
        }
        Ok(())
    }

    /// Returns the queries of the log, for the index test.
    pub(crate) fn declared(&self) -> Result<Vec<DeclaredQuery>> {
        let of_request = LogQuery { request_id: Some("placeholder".to_owned()), ..LogQuery::default() };
        let newer = LogQuery { after: Some(bson::oid::ObjectId::from_bytes([0xff; 12])), ..LogQuery::default() };
        let sizes = self.0.sizes(None)?;
        Ok(vec![
            DeclaredQuery::new("log entries of a request", self.find(&of_request)?, "requestId_1"),
            DeclaredQuery::new("log entries after another", self.find(&newer)?, "_id_"),
            DeclaredQuery::new("sizes of log entries", sizes, "_id_"),
        ])
    }

    /// Deletes the oldest entries beyond the limit from now on.
    pub(crate) fn trim_from_now_on(&self) {
        self.0.trims.store(true, Ordering::Release);
    }

    fn is_on(&self) -> bool {
        self.0.retention.bytes > 0
    }

    /// Returns the current time.
    pub(crate) fn now(&self) -> DateTime {
        self.0.environment.now()
    }

    /// Uses the current runtime for the writes to come.
    pub(crate) fn use_runtime(&self) {
        if let Ok(handle) = Handle::try_current() {
            lock(&self.0.runtime).get_or_insert(handle);
        }
    }

    /// Adds an entry, which is written later. Never waits. Beyond the bounds of the queue and the
    /// share of its client, the entry is dropped and counted. Returns true if it is kept.
    pub(crate) fn add(&self, entry: Entry<'_>) -> bool {
        if !self.is_on() {
            return false;
        }
        let source = entry.source();
        let id = self.0.environment.new_id();
        let document = entry.into_document(id, self.0.environment.now(), self.0.retention.age);
        let pushed = lock(&self.0.queue).push(id, document, source.as_ref());
        if pushed.must_start {
            self.start_writing();
        }
        pushed.is_kept
    }

    /// Starts the task that writes the queue. Without a runtime, the entries wait for
    /// [`flush`](Self::flush).
    fn start_writing(&self) {
        self.use_runtime();
        let Some(runtime) = lock(&self.0.runtime).clone() else {
            lock(&self.0.queue).is_writing = false;
            return;
        };
        let shared = Arc::clone(&self.0);
        runtime.spawn(async move {
            let mut writing = Writing { shared: &shared, is_over: false };
            while !writing.is_over {
                if !shared.has_store().await {
                    return;
                }
                shared.note_left_out(false);
                shared.write_batch().await;
                tokio::time::sleep(COMMIT_INTERVAL).await;
                writing.is_over = lock(&shared.queue).stop_if_empty();
            }
        });
    }

    /// Writes all entries that wait, if the app has a store. Entries that a task writes already
    /// are stored too when it returns.
    pub(crate) async fn flush(&self) {
        let may_have_entries = self.0.has_store.load(Ordering::Acquire) || !lock(&self.0.queue).is_empty();
        if may_have_entries && self.0.has_store().await {
            while self.0.write_batch().await {}
        }
    }

    /// Writes all entries that wait, and takes no more.
    pub(crate) async fn close(&self) {
        self.0.note_left_out(true);
        lock(&self.0.queue).is_closed = true;
        self.flush().await;
    }

    /// Returns the number of entries that were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.0.queue).dropped
    }

    /// Returns the entries that a query finds, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) async fn search(&self, query: &LogQuery) -> Result<Vec<RawDocumentBuf>> {
        self.flush().await;
        let find = self.find(query)?;
        let mut found = self.0.collection.store().find(find).await?;
        // Ids that several processes make in one second have no order.
        query::Sort::parse(&rawdoc! { "completed": -1, "_id": -1 })?.sort(&mut found);
        Ok(found.iter().map(|document| entry::without_own_fields(document)).collect())
    }

    fn find(&self, query: &LogQuery) -> Result<Find> {
        query.find(&self.0.collection)
    }
}

/// Notes that no task writes the queue if the task ends before it is done, for example because its
/// runtime shuts down.
struct Writing<'a> {
    shared: &'a Shared,
    is_over: bool,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Another task may write by now.
        if !self.is_over {
            lock(&self.shared.queue).is_writing = false;
        }
    }
}

impl Shared {
    /// True if the app has a store. Until then, the entries wait: a failed log-in alone must not
    /// create a file.
    async fn has_store(&self) -> bool {
        if self.has_store.load(Ordering::Acquire) {
            return true;
        }
        let exists = matches!(self.collection.store().indexes(self.users.clone()).await, Ok(Some(_)));
        self.has_store.fetch_or(exists, Ordering::AcqRel) || exists
    }

    /// Adds entries about the entries of clients that were left out: those that are due, or all.
    fn note_left_out(&self, takes_all: bool) {
        let notes = lock(&self.queue).take_notes(takes_all);
        for clients::Note { source, number } in notes {
            let (id, now) = (self.environment.new_id(), self.environment.now());
            let (request_id, redaction) = (id.to_hex(), Redaction::default());
            let error = Error::new(
                crate::ErrorCode::AppServerError,
                format!("{number} more entries of this client were left out"),
            );
            let entry = Entry {
                user: source.user,
                origin: Some(source.origin),
                error: Some(&error),
                left_out: Some(number),
                ..Entry::new(source.kind, &request_id, now, &redaction)
            };
            let document = entry.into_document(id, now, self.retention.age);
            // The task that writes is the caller, or is not needed.
            lock(&self.queue).push(id, document, None);
        }
    }

    /// Writes the next batch. Returns false if no entry waited.
    async fn write_batch(&self) -> bool {
        let mut segments = self.segments.lock().await;
        let (batch, dropped) = lock(&self.queue).take_batch();
        if dropped > 0 {
            tracing::warn!(dropped, "log entries were dropped: too many, or too many of one client");
        }
        if batch.is_empty() {
            return false;
        }
        let last = batch.last().map(|(id, _)| *id).unwrap_or_default();
        let (entries, bytes) = (batch.len() as u64, batch.iter().map(|(_, entry)| entry.as_bytes().len() as u64).sum());
        let documents = batch.into_iter().map(|(_, entry)| entry).collect();
        if let Err(error) = self.collection.write(self.collection.insertion_of_all(documents)).await {
            lock(&self.queue).dropped += entries;
            tracing::warn!(%error, entries, "log entries cannot be written");
            return true;
        }
        if !self.trims.load(Ordering::Acquire) {
            return true;
        }
        segments.add(last, bytes);
        if let Err(error) = self.trim(&mut segments).await {
            tracing::warn!(%error, "old log entries cannot be deleted");
        }
        true
    }
}

/// Reads a value of a request for a message.
fn invalid(error: impl std::fmt::Display) -> Error {
    Error::new(crate::ErrorCode::InvalidParameter, error.to_string())
}

/// Returns the entries as an array.
pub(crate) fn to_array(entries: Vec<RawDocumentBuf>) -> RawBson {
    RawBson::Array(entries.into_iter().collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
