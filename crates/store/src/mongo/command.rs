//! Inserts, updates and deletes, sent as commands, because the driver's own actions for them
//! cannot send `maxTimeMS`. Writes that return the document (`findAndModify`) use the driver's
//! actions, which can, except upserts in transactions.
//!
//! `run_command` adds a session to a command and nothing else that a write needs. So this module
//! adds the write concern, and retries a write of single documents once after a lost connection or
//! a change of the primary
//! (<https://github.com/mongodb/specifications/blob/master/source/retryable-writes/retryable-writes.md>).

use bson::{
    Bson, Document, RawBson,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
    rawdoc,
};
use mongodb::{
    ClientSession, Database,
    action::Action,
    error::{self as driver, ErrorKind, WriteFailure},
    options::{Acknowledgment, WriteConcern},
};
use query::{Budget, append};

use super::{
    MongoStore,
    connect::Kind,
    errors::{self, Failure},
    read::{millis, number, sort_document, unreadable},
    sessions::NumberedSession,
    write::{Command, Form, array_filters, form},
};
use crate::{Change, Error, Namespace, Outcome, Result, Returning};

/// The maximum size in bytes of the statements in one command: the server's limit for a document.
/// A command may be 16 KiB larger, which is enough for its other fields.
pub(super) const BODY_BYTES: usize = 16 * 1024 * 1024;

/// The maximum number of statements in one command (`maxWriteBatchSize`).
const STATEMENTS: usize = 100_000;

/// Bytes of an array element besides its value: its type, and its index as a name.
const ITEM_BYTES: usize = 8;

/// The label of an error after which nothing has been written.
const NO_WRITES_PERFORMED: &str = "NoWritesPerformed";

/// Splits statements into batches, each as large as one command can hold.
pub(super) fn batches<T>(statements: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = statements;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |statement: &&T| {
            bytes += size(statement) + ITEM_BYTES;
            bytes <= BODY_BYTES
        };
        let count = rest.iter().take(STATEMENTS).take_while(fits).count();
        // A statement that is too large even alone is sent alone: the server reports the reason.
        let (batch, others) = rest.split_at(count.max(1).min(rest.len()));
        rest = others;
        (!batch.is_empty()).then_some(batch)
    })
}

/// A command that has failed.
struct Rejected {
    error: driver::Error,
    /// True if the same command may succeed when it is retried.
    is_transient: bool,
}

impl From<driver::Error> for Rejected {
    fn from(error: driver::Error) -> Self {
        // The driver labels connection errors only in its own retryable writes.
        let is_transient = is_of_connection(&error) || error.contains_label(driver::RETRYABLE_WRITE_ERROR);
        Self { error, is_transient }
    }
}

fn is_of_connection(error: &driver::Error) -> bool {
    matches!(&*error.kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
}

/// True if the failure of a second attempt says nothing about the result of the first.
fn is_silent(error: &driver::Error) -> bool {
    matches!(&*error.kind, ErrorKind::ServerSelection { .. } | ErrorKind::Shutdown)
        || error.contains_label(NO_WRITES_PERFORMED)
}

/// Extracts the errors that a reply may report although the command has run.
fn read_reply(reply: driver::Result<Document>) -> Result<Document, Rejected> {
    let reply = reply?;
    let failure = if let Some(error) = first(&reply, "writeErrors") {
        WriteFailure::WriteError(bson::deserialize_from_document(error.clone()).map_err(driver::Error::from)?)
    } else if let Ok(error) = reply.get_document("writeConcernError") {
        WriteFailure::WriteConcernError(bson::deserialize_from_document(error.clone()).map_err(driver::Error::from)?)
    } else {
        return Ok(reply);
    };
    let is_label = |label: &Bson| label.as_str() == Some(driver::RETRYABLE_WRITE_ERROR);
    let is_transient = reply.get_array("errorLabels").is_ok_and(|labels| labels.iter().any(is_label));
    Err(Rejected { error: ErrorKind::Write(failure).into(), is_transient })
}

/// Returns the first document of an array in a reply.
fn first<'d>(reply: &'d Document, name: &str) -> Option<&'d Document> {
    reply.get_array(name).ok()?.first()?.as_document()
}

/// Returns a counter in a reply.
fn count(reply: &Document, name: &str) -> Result<u64> {
    let count = reply.get(name).and_then(number);
    count.ok_or_else(|| Error::Engine(format!("the reply of the database to a write has no `{name}`")))
}

/// Returns the write concern of a command; `None` if it is the server's default.
fn concern(write_concern: Option<&WriteConcern>) -> Result<Option<RawDocumentBuf>> {
    let Some(write_concern) = write_concern else { return Ok(None) };
    if write_concern.w == Some(Acknowledgment::Nodes(0)) && write_concern.journal != Some(true) {
        let message = "An invalid argument was provided: Unacknowledged write concerns are not supported";
        return Err(Error::Engine(message.to_owned()));
    }
    let concern = bson::serialize_to_raw_document_buf(write_concern).map_err(unreadable)?;
    Ok(Some(concern).filter(|concern| !concern.is_empty()))
}

fn array(documents: impl IntoIterator<Item = RawDocumentBuf>) -> RawArrayBuf {
    documents.into_iter().collect()
}

/// Appends the update of a statement and its options.
///
/// # Errors
/// As [`document`](super::read::document), so that writes with and without a budget are rejected
/// alike.
fn append_update(statement: &mut RawDocumentBuf, command: &Command<'_>) -> Result<()> {
    let Change::Update { update, .. } = &command.modify.change else { return Ok(()) };
    match form(update, command.modify.multi) {
        Form::Operators(operators) => {
            query::validate_names(&operators)?;
            append(statement, "u", &*operators);
        }
        Form::Pipeline(stages) => {
            stages.iter().try_for_each(|stage| query::validate_names(stage))?;
            append(statement, "u", &*array(stages));
        }
        Form::Replacement(replacement) => append(statement, "u", &*replacement),
    }
    append(statement, "upsert", command.upsert);
    if let Some(filters) = array_filters(update) {
        append(statement, "arrayFilters", &*array(filters.iter().cloned()));
    }
    Ok(())
}

fn append_collation(statement: &mut RawDocumentBuf, command: &Command<'_>) {
    if command.is_simple {
        append(statement, "collation", &*rawdoc! { "locale": "simple" });
    }
}

impl MongoStore {
    /// Returns the command with `maxTimeMS`, the time that is left of the budget.
    fn timed(&self, command: &RawDocument, budget: &Budget) -> Result<RawDocumentBuf> {
        let mut command = command.to_owned();
        append(&mut command, "maxTimeMS", millis(self.max_time(budget)?));
        Ok(command)
    }

    /// Inserts documents in their order, with as few commands as possible.
    pub(super) async fn insert_by_command(
        &self,
        namespace: &Namespace,
        documents: &[RawDocumentBuf],
        budget: &Budget,
        mut session: Option<&mut ClientSession>,
    ) -> Result<(), Failure> {
        let is_alone = session.is_none();
        for (number, batch) in batches(documents, |document| document.as_bytes().len()).enumerate() {
            let mut command = rawdoc! { "insert": &*namespace.collection, "ordered": true };
            append(&mut command, "documents", &*array(batch.iter().cloned()));
            let inserted = self.run(namespace, command, true, budget, session.as_deref_mut()).await;
            // The documents of earlier commands remain, unless they belong to a transaction.
            let of_later =
                |failure| if is_alone && number > 0 { errors::of_later_command(failure).into() } else { failure };
            inserted.map_err(of_later)?;
        }
        Ok(())
    }

    /// Updates or deletes the documents that a filter matches, with one command.
    pub(super) async fn modify_by_command(
        &self,
        namespace: &Namespace,
        command: &Command<'_>,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let Command { modify, filter, budget, .. } = command;
        // If a field name occurs twice, the server may read another value than the one that was
        // checked.
        query::validate_names(filter)?;
        let mut statement = rawdoc! { "q": filter.clone() };
        append_collation(&mut statement, command);
        let (name, statements) = match &modify.change {
            Change::Delete => {
                append(&mut statement, "limit", i32::from(!modify.multi));
                ("delete", "deletes")
            }
            Change::Update { .. } => {
                append_update(&mut statement, command)?;
                append(&mut statement, "multi", modify.multi);
                ("update", "updates")
            }
        };
        let mut body = RawDocumentBuf::new();
        append(&mut body, name, &*namespace.collection);
        append(&mut body, "ordered", true);
        append(&mut body, statements, &*array([statement]));
        let reply = self.run(namespace, body, !modify.multi, budget, session).await?;
        let n = count(&reply, "n")?;
        if matches!(modify.change, Change::Delete) {
            return Ok(Outcome { matched: n, deleted: n, ..Outcome::default() });
        }
        let upserted = first(&reply, "upserted").and_then(|upserted| upserted.get("_id"));
        Ok(Outcome {
            matched: if upserted.is_some() { 0 } else { n },
            modified: count(&reply, "nModified")?,
            upserted_id: upserted.cloned().map(RawBson::try_from).transpose().map_err(unreadable)?,
            ..Outcome::default()
        })
    }

    /// Updates or inserts one document in a transaction, and returns it. The driver's action does
    /// not tell the id of an inserted document.
    pub(super) async fn upsert_in_transaction(
        &self,
        namespace: &Namespace,
        command: &Command<'_>,
        projection: Option<Document>,
        session: &mut ClientSession,
    ) -> Result<Outcome, Failure> {
        let Command { modify, filter, budget, .. } = command;
        query::validate_names(filter)?;
        let mut statement = RawDocumentBuf::new();
        append_update(&mut statement, command)?;
        let mut body = rawdoc! { "findAndModify": &*namespace.collection, "query": filter.clone() };
        for (key, value) in query::elements(&statement) {
            append(&mut body, if key == "u" { "update" } else { key }, value);
        }
        append(&mut body, "new", modify.returning == Returning::After);
        for (key, given) in [("sort", sort_document(modify.sort.as_ref())?), ("fields", projection)] {
            if let Some(given) = given {
                append(&mut body, key, &*RawDocumentBuf::try_from(given).map_err(unreadable)?);
            }
        }
        append_collation(&mut body, command);
        let reply = self.run(namespace, body, true, budget, Some(session)).await?;
        let upserted = reply.get_document("lastErrorObject").ok().and_then(|last| last.get("upserted"));
        let found = u64::from(upserted.is_none());
        let document = reply.get_document("value").ok().cloned();
        Ok(Outcome {
            matched: found,
            modified: found,
            upserted_id: upserted.cloned().map(RawBson::try_from).transpose().map_err(unreadable)?,
            document: document.map(RawDocumentBuf::try_from).transpose().map_err(unreadable)?,
            ..Outcome::default()
        })
    }

    /// Runs a write command with the time that is left of the budget, in a transaction if a
    /// session is given. Outside a transaction, a command whose statements change single documents
    /// is retried once if the connection or the primary is lost; the server executes it only once.
    pub(super) async fn run(
        &self,
        namespace: &Namespace,
        mut command: RawDocumentBuf,
        is_single: bool,
        budget: &Budget,
        session: Option<&mut ClientSession>,
    ) -> Result<Document, Failure> {
        let collection = self.collection(namespace).await?;
        let database = self.client().await?.database(&namespace.database);
        if let Some(session) = session {
            // The transaction has its own write concern.
            let reply = database.run_raw_command(self.timed(&command, budget)?).session(session).await;
            return Ok(read_reply(reply).map_err(|rejected| rejected.error)?);
        }
        if let Some(concern) = concern(collection.write_concern())? {
            append(&mut command, "writeConcern", &*concern);
        }
        let timeout = match self.kind().await? {
            Kind::Replicated { session_timeout } => session_timeout,
            Kind::Standalone => None,
        };
        let Some(timeout) = timeout.filter(|_| is_single && self.shared.retries_writes) else {
            let mut session = match timeout {
                Some(_) => Some(self.session().await?),
                None => None,
            };
            let run = database.run_raw_command(self.timed(&command, budget)?);
            let reply = run.optional(session.as_mut(), mongodb::action::RunCommand::session).await;
            self.shared.note_written(session.as_ref());
            return Ok(read_reply(reply).map_err(|rejected| rejected.error)?);
        };
        let mut lease = self.shared.pool(self.lane).numbered.lease(timeout, self.session()).await?;
        append(&mut command, "txnNumber", lease.number);
        let earlier = match self.attempt(&database, self.timed(&command, budget)?, &mut lease).await {
            Err(rejected) if rejected.is_transient => rejected,
            answer => return Ok(answer.map_err(|rejected| rejected.error)?),
        };
        // Without time left for a retry, the result of the first attempt remains unknown.
        let Ok(command) = self.timed(&command, budget) else { return Err(earlier.error.into()) };
        match self.attempt(&database, command, &mut lease).await {
            Err(rejected) if is_silent(&rejected.error) => Err(earlier.error.into()),
            answer => Ok(answer.map_err(|rejected| rejected.error)?),
        }
    }

    /// Sends a numbered command once.
    async fn attempt(
        &self,
        database: &Database,
        command: RawDocumentBuf,
        lease: &mut NumberedSession<'_>,
    ) -> Result<Document, Rejected> {
        lease.begin();
        let run = database.run_raw_command(command);
        let reply = run.optional(lease.session.as_mut(), mongodb::action::RunCommand::session).await;
        lease.end(reply.as_ref().is_err_and(is_of_connection));
        self.shared.note_written(lease.session.as_ref());
        read_reply(reply)
    }
}
