//! What the driver and the server say, as a store says it: in whole sentences, and without hosts or credentials.

use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};

use crate::{Error, Namespace};

/// That the member is not, or not any more, one that takes this; the driver has tried again by then
/// (<https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-discovery-and-monitoring.md>).
const NOT_PRIMARY: [i32; 9] = [10107, 189, 91, 13435, 13436, 10058, 11600, 11602, 13388];

const DUPLICATE_KEY: [i32; 2] = [11000, 11001];

/// Two writes met at one document.
pub(super) const WRITE_CONFLICT: i32 = 112;

/// The server has stopped a command: its time is over (50, 262), or an operator has ended it (11601).
const INTERRUPTED: [i32; 3] = [50, 262, 11601];

/// The end of the message of a write that was stopped outside a transaction.
const IN_PART: &str = "; the write may have been applied in part";

/// Returns the error to report. `writes` is true if the operation writes outside a transaction.
pub(super) fn read(error: DriverError, writes: bool) -> Error {
    // Never to a client: hosts are in it.
    tracing::debug!(error = %error.kind, "an operation on MongoDB failed");
    let unavailable = |reason: &str| Error::Unavailable { reason: reason.to_owned(), maybe_written: writes };
    match &*error.kind {
        ErrorKind::Command(command) => of_server(command.code, &command.message, writes),
        ErrorKind::Write(WriteFailure::WriteError(error)) => of_server(error.code, &error.message, writes),
        ErrorKind::InsertMany(errors) => match errors.write_errors.as_ref().and_then(|errors| errors.first()) {
            Some(error) => of_server(error.code, &error.message, writes),
            None => unavailable("the write was not confirmed by the majority of its members"),
        },
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => {
            unavailable("the write was not confirmed by the majority of its members")
        }
        ErrorKind::ServerSelection { .. } => Error::Unavailable {
            reason: "none of its members can be reached".to_owned(),
            // Then nothing has been sent; where a first attempt was, the driver tells what became of that.
            maybe_written: false,
        },
        ErrorKind::Io(_) => unavailable("the connection was lost"),
        ErrorKind::ConnectionPoolCleared { .. } => unavailable("its connections were closed"),
        ErrorKind::DnsResolve { .. } => {
            Error::Unavailable { reason: "its name cannot be resolved".to_owned(), maybe_written: false }
        }
        ErrorKind::Shutdown => Error::Closed,
        ErrorKind::Authentication { .. } => {
            Error::Engine("the database did not accept the user name and password of the connection string".to_owned())
        }
        other => Error::Engine(other.to_string()),
    }
}

fn of_server(code: i32, message: &str, writes: bool) -> Error {
    if NOT_PRIMARY.contains(&code) {
        let reason = "its primary is changing".to_owned();
        return Error::Unavailable { reason, maybe_written: writes };
    }
    if DUPLICATE_KEY.contains(&code) {
        return duplicate_key(message);
    }
    match code {
        // Unauthorized, AuthenticationFailed: the operator's to mend, and nobody else's to read.
        13 | 18 => Error::Engine(format!("the database does not allow it: {message}")),
        _ => {
            let error = query::Error { code: query::ErrorCode::by_number(code), message: message.to_owned() };
            if writes { applied_in_part(error.into()) } else { error.into() }
        }
    }
}

/// Returns the error of a write outside a transaction of which earlier commands have been carried out.
pub(super) fn of_later_command(failure: Failure) -> Error {
    let error = match failure {
        Failure::Driver(error) => read(error, true),
        Failure::Store(error) => applied_in_part(error),
    };
    match error {
        Error::Unavailable { reason, .. } => Error::Unavailable { reason, maybe_written: true },
        error => error,
    }
}

/// Adds to the error of a stopped write that a part of it may have been applied.
fn applied_in_part(error: Error) -> Error {
    match error {
        Error::Query(mut error) if INTERRUPTED.contains(&error.number()) => {
            error.message.push_str(IN_PART);
            error.into()
        }
        error => error,
    }
}

/// Returns the error of a commit, which applies all of a transaction or nothing.
pub(super) fn read_commit(error: DriverError) -> Error {
    if code(&error).is_some_and(|code| INTERRUPTED.contains(&code)) {
        tracing::debug!(error = %error.kind, "a commit on MongoDB was interrupted");
        return Error::Unavailable { reason: "the commit was interrupted".to_owned(), maybe_written: true };
    }
    read(error, true)
}

/// From `E11000 duplicate key error collection: db.coll index: a_1 dup key: { a: 1 }`.
fn duplicate_key(message: &str) -> Error {
    let after = |name: &str| message.split_once(name).map(|(_, rest)| rest);
    let place = after("collection: ").and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let (database, collection) = place.split_once('.').unwrap_or((place, ""));
    Error::DuplicateKey {
        namespace: Namespace::new(database, collection),
        index: after(" index: ").and_then(|rest| rest.split_once(" dup key: ")).map_or("", |(name, _)| name).to_owned(),
        key: after(" dup key: ").unwrap_or_default().to_owned(),
    }
}

/// What is wrong with options, if that is what it is.
pub(super) fn invalid(error: &DriverError) -> Option<&str> {
    match &*error.kind {
        ErrorKind::InvalidArgument { message, .. } | ErrorKind::InvalidTlsConfig { message, .. } => Some(message),
        _ => None,
    }
}

/// The server's number for what went wrong.
pub(super) fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}

/// Why something in a transaction did not go on: the driver's failures may be of those after which all is tried again.
pub(super) enum Failure {
    Driver(DriverError),
    Store(Error),
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

impl Failure {
    /// What is to be told of it.
    pub(super) fn into_error(self, writes: bool) -> Error {
        match self {
            Self::Driver(error) => read(error, writes),
            Self::Store(error) => error,
        }
    }
}
