//! Converts errors of the driver and the server into errors of a store. Users receive these
//! errors, so they contain no hosts, paths or credentials.

use std::{fmt::Display, ops::RangeInclusive};

use mongodb::error::{Error as DriverError, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};

use crate::{Error, Namespace, transaction};

/// Server errors: the member is not, or no longer, one that runs this operation. The driver has
/// already retried by then
/// (<https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-discovery-and-monitoring.md>).
const NOT_PRIMARY: [i32; 9] = [10107, 189, 91, 13435, 13436, 10058, 11600, 11602, 13388];

/// Server errors: a unique index holds the key already.
const DUPLICATE_KEY: [i32; 2] = [11000, 11001];

/// Server error: another write has changed the same document.
pub(super) const WRITE_CONFLICT: i32 = 112;

/// The codes of errors that are caused by queries, writes and an operator's definitions, in
/// addition to [`OF_EXPRESSIONS`]. Their messages quote parts of the request. The messages of
/// other errors may contain hosts and paths.
const OF_REQUESTS: [i32; 44] = [
    2, 9, 14, 15, 22, 27, 28, 40, 50, 52, 53, 54, 56, 66, 67, 72, 73, 85, 86, 112, 115, 121, 146, 168, 171, 197, 224,
    241, 251, 256, 257, 260, 262, 286, 292, 10334, 11601, 4940400, 4940401, 5107200, 5107201, 5733415, 5858203,
    7749501,
];

/// The codes of errors in expressions, stages and projections. The server derives these codes from
/// places in its source.
const OF_EXPRESSIONS: [RangeInclusive<i32>; 6] =
    [15_900..=18_999, 28_600..=28_999, 31_000..=31_999, 34_400..=34_999, 40_000..=40_999, 50_000..=51_999];

/// Substrings of messages about the servers themselves: a router puts the name of a shard before
/// the error.
const OF_SERVERS: [&str; 3] = ["mongodb://", "mongodb+srv://", "remote shard"];

/// Server errors: the command was stopped because its time is over (50, 262) or because an
/// operator has ended it (11601).
const INTERRUPTED: [i32; 3] = [50, 262, 11601];

/// The suffix of the message of a write that was stopped outside a transaction.
const IN_PART: &str = "; the write may have been applied in part";

/// Converts an error of the driver. `writes` is true if the operation writes outside a
/// transaction.
///
/// An error that the driver or the server labels `TransientTransactionError` stays marked as such.
pub(super) fn read(error: DriverError, writes: bool) -> Error {
    let is_transient = error.contains_label(TRANSIENT_TRANSACTION_ERROR);
    let error = read_unmarked(error, writes);
    if is_transient { transaction::transient(error) } else { error }
}

fn read_unmarked(error: DriverError, writes: bool) -> Error {
    // At debug level only: the text contains hosts.
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
            // Nothing has been sent. After a failed first attempt, the driver returns the error of
            // that attempt instead.
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
        ErrorKind::InvalidArgument { .. } => Error::Engine(error.kind.to_string()),
        ErrorKind::IncompatibleServer { .. } => {
            withhold(&error.kind);
            Error::Engine("the database does not support the operation, or has an incompatible version".to_owned())
        }
        other => {
            withhold(other);
            Error::Engine("the driver of the database failed".to_owned())
        }
    }
}

/// Converts an error that the server has reported.
fn of_server(code: i32, message: &str, writes: bool) -> Error {
    if NOT_PRIMARY.contains(&code) {
        let reason = "its primary is changing".to_owned();
        return Error::Unavailable { reason, maybe_written: writes };
    }
    if DUPLICATE_KEY.contains(&code) {
        return duplicate_key(message);
    }
    match code {
        // Unauthorized, AuthenticationFailed: the operator has to fix these.
        13 | 18 => {
            withhold(message);
            Error::Engine(format!("the database does not allow the operation (error {code})"))
        }
        _ => {
            let message = if is_of_request(code, message) {
                message.to_owned()
            } else {
                withhold(message);
                format!("the database answered with error {code}")
            };
            let error = query::Error { code: query::ErrorCode::by_number(code), message };
            if writes { applied_in_part(error.into()) } else { error.into() }
        }
    }
}

/// True if the message of an error is about the request and reveals nothing about the servers.
fn is_of_request(code: i32, message: &str) -> bool {
    let is_known = OF_REQUESTS.contains(&code) || OF_EXPRESSIONS.iter().any(|codes| codes.contains(&code));
    is_known && !OF_SERVERS.iter().any(|mark| message.contains(mark)) && !has_address(message)
}

/// True if a text may contain the host and the port of a server.
fn has_address(text: &str) -> bool {
    let is_port = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        (2..=5).contains(&digits)
    };
    let is_host = |before: &str| before.ends_with(|last: char| last.is_ascii_alphanumeric() || last == ']');
    text.match_indices(':').any(|(at, _)| is_host(&text[..at]) && is_port(&text[at + 1..]))
}

/// Logs a message that users must not receive.
fn withhold(text: impl Display) {
    tracing::warn!(error = %text, "MongoDB reported an error whose text is withheld from users");
}

/// Converts the error of an operation without its own time limit. A timeout of the server then
/// means that the operation took longer than the store waits.
pub(super) fn of_unlimited(error: Error, writes: bool) -> Error {
    match error {
        Error::Query(error) if error.code == query::ErrorCode::MaxTimeMsExpired => {
            Error::Unavailable { reason: "it did not answer in time".to_owned(), maybe_written: writes }
        }
        error => error,
    }
}

/// Converts the error of a write outside a transaction after earlier commands of the same write
/// have succeeded.
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

/// Adds to the error of a stopped write that the write may have been applied in part.
fn applied_in_part(error: Error) -> Error {
    match error {
        Error::Query(mut error) if INTERRUPTED.contains(&error.number()) => {
            error.message.push_str(IN_PART);
            error.into()
        }
        error => error,
    }
}

/// Converts the error of a commit, which applies a whole transaction or nothing.
pub(super) fn read_commit(error: DriverError) -> Error {
    if code(&error).is_some_and(|code| INTERRUPTED.contains(&code)) {
        tracing::debug!(error = %error.kind, "a commit on MongoDB was interrupted");
        return Error::Unavailable { reason: "the commit was interrupted".to_owned(), maybe_written: true };
    }
    read(error, true)
}

/// Parses the message `E11000 duplicate key error collection: db.coll index: a_1 dup key: { a: 1
/// }`.
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

/// Returns the reason why the options of a connection string are invalid; `None` for any other
/// error.
pub(super) fn invalid(error: &DriverError) -> Option<&str> {
    match &*error.kind {
        ErrorKind::InvalidArgument { message, .. } => Some(message),
        // The driver's message contains the path of the file.
        ErrorKind::InvalidTlsConfig { message, .. } => {
            withhold(message);
            Some("a file of its TLS options cannot be used; the log has the reason")
        }
        _ => None,
    }
}

/// Returns the error code of the server, if the error has one.
pub(super) fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}

/// The error of an operation in a transaction. Errors of the driver are kept, because some of them
/// mean that the whole transaction can be retried.
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
    /// Converts this into the error to report.
    pub(super) fn into_error(self, writes: bool) -> Error {
        match self {
            Self::Driver(error) => read(error, writes),
            Self::Store(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_reveal_servers_are_withheld() {
        let told = |code, message: &str| of_server(code, message, false).to_string();
        for code in [2, 9, 14, 28, 40, 66, 121, 241, 292, 16_020, 17_276, 28_765, 31_249, 40_323, 51_108, 5_107_201] {
            assert_eq!(told(code, "the field 'a' is wrong"), "the field 'a' is wrong");
            for message in [
                "Error on remote shard db-3.internal:27017 :: caused by :: it is wrong",
                "Write results unavailable from db-3.internal:27017 :: caused by :: it is wrong",
                "Encountered error from [fd00::1]:27017 during a transaction :: caused by :: it is wrong",
            ] {
                assert_eq!(told(code, message), format!("the database answered with error {code}"));
            }
            let message = "PlanExecutor error during aggregation :: caused by :: { a: 12, b: 27017 } is wrong";
            assert_eq!(told(code, message), message);
        }
        for code in [1, 6, 8, 20, 59, 96, 133, 202, 334, 13_053, 90_000] {
            let message = "cannot reach db-3.internal:27017 with /etc/mongo/key.pem";
            assert_eq!(told(code, message), format!("the database answered with error {code}"));
        }
        let denied = told(13, "not authorized on shop to execute command { find: \"users\", lsid: 1 }");
        assert_eq!(denied, "the store failed: the database does not allow the operation (error 13)");
        assert!(OF_REQUESTS.is_sorted());
    }
}
