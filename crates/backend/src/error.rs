use std::borrow::Cow;

use protocol::ErrorCode;

/// The result of a client's request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error that a client gets: App Services' `message` and `code`, and the HTTP status of that
/// code.
///
/// ```
/// use backend::{Error, ErrorCode};
///
/// let error = Error::new(ErrorCode::UserNotFound, "user not found");
/// assert_eq!(error.code.name(), "UserNotFound");
/// assert_eq!(error.code.status(), 404);
/// assert_eq!(error.to_string(), "user not found");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind of failure.
    pub code: ErrorCode,
    /// The message for the client.
    pub message: Cow<'static, str>,
    /// MongoDB's error code, if a query or a write failed.
    pub server_code: Option<i32>,
    /// Seconds after which the client should try again, if the failure is temporary.
    pub retry_after: Option<u64>,
    /// The cause for the operator, such as the path of the store, and what to do about it. It is
    /// shown in the operator's own process and in the log, and never sent to a client over a
    /// network.
    pub detail: Option<String>,
    /// True if the database was unavailable, so that a later request may succeed.
    pub is_transient: bool,
    /// MongoDB's label of the error, by which a function decides to retry a transaction.
    pub label: Option<&'static str>,
    /// The HTTP status, if it is not that of the code.
    pub status: Option<u16>,
    /// True if a function could not run to its end, through no fault of its own or of its caller:
    /// its thread ended, or its app was closed.
    pub is_of_thread: bool,
    /// The message for the log, if that for the client may contain secrets of the request.
    pub logged: Option<String>,
}

impl Error {
    /// Creates an error with a message for the client.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            server_code: None,
            retry_after: None,
            detail: None,
            is_transient: false,
            label: None,
            status: None,
            is_of_thread: false,
            logged: None,
        }
    }

    /// Creates an error that may not occur again if the client retries after `seconds`.
    pub(crate) fn retry_later(message: impl Into<Cow<'static, str>>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(ErrorCode::AppServerError, message) }
    }

    /// Returns the error for the log.
    pub(crate) fn for_log(&self) -> Cow<'_, Self> {
        match &self.logged {
            Some(logged) => Cow::Owned(Self { message: logged.clone().into(), ..self.clone() }),
            None => Cow::Borrowed(self),
        }
    }

    /// Creates the error of a function whose thread ends, or that has none.
    pub(crate) fn of_thread(message: &'static str) -> Self {
        Self { is_of_thread: true, ..Self::new(ErrorCode::FunctionExecutionError, message) }
    }

    pub(crate) fn invalid_session(detail: &str) -> Self {
        Self::new(ErrorCode::InvalidSession, format!("invalid session: {detail}"))
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// Creates the error of an internal failure. The cause is logged for the operator and never
    /// sent to the client.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed: internal error");
        Self::new(ErrorCode::InternalServerError, "internal server error")
    }

    /// Creates the error of a failure that the operator can resolve, such as a store that cannot
    /// be opened. The caller shows or logs the detail.
    fn for_operator(cause: &store::Error) -> Self {
        Self { detail: Some(cause.to_string()), ..Self::new(ErrorCode::InternalServerError, "internal server error") }
    }

    /// True if the client must refresh its access token and repeat the request.
    pub fn is_invalid_session(&self) -> bool {
        self.code == ErrorCode::InvalidSession
    }
}

/// Seconds after which the client should try again when too many operations wait.
const RETRY_AFTER: u64 = 2;

impl From<query::Error> for Error {
    fn from(error: query::Error) -> Self {
        Self { server_code: Some(error.number()), ..Self::new(ErrorCode::MongoDBError, error.message) }
    }
}

impl From<ejson::Error> for Error {
    fn from(error: ejson::Error) -> Self {
        match error {
            ejson::Error::Invalid(message) => Self::bad_request(message),
            ejson::Error::Budget(error) => error.into(),
        }
    }
}

impl From<protocol::Error> for Error {
    fn from(error: protocol::Error) -> Self {
        Self::new(error.code, error.message)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let error_label = error.label();
        match error {
            store::Error::Query(error) => error.into(),
            store::Error::DuplicateKey { .. } => Self {
                server_code: Some(query::ErrorCode::DuplicateKey.number()),
                ..Self::new(ErrorCode::MongoDBError, error.to_string())
            },
            store::Error::TransientTransaction(cause) => Self { label: error_label, ..(*cause).into() },
            store::Error::TooManyTransactions { .. } => Self::retry_later(error.to_string(), RETRY_AFTER),
            store::Error::Denied(denied) => Self::new(ErrorCode::NoMatchingRuleFound, denied.0),
            store::Error::TooManyDocuments { limit } => Self::new(
                ErrorCode::ReadSizeLimitExceeded,
                format!("the query returns more than {limit} documents; narrow the filter or set a limit"),
            ),
            store::Error::AnswerTooLarge { limit } => Self::new(
                ErrorCode::ReadSizeLimitExceeded,
                format!(
                    "the answer has more than {limit} bytes; narrow the filter, set a limit or project fewer fields"
                ),
            ),
            store::Error::TooManyWaiting { .. } => Self::retry_later(error.to_string(), RETRY_AFTER),
            store::Error::Overloaded => Self {
                retry_after: Some(RETRY_AFTER),
                ..Self::new(ErrorCode::MaintenanceInProgress, error.to_string())
            },
            store::Error::WriteTooLarge { .. } | store::Error::TooManyEntries { .. } => {
                Self::new(ErrorCode::ReadSizeLimitExceeded, error.to_string())
            }
            // The client must know whether the write may have been applied, and what to do. These
            // messages contain no host and no path.
            store::Error::Unavailable { .. } => {
                tracing::warn!(%error, "request failed: the database is unavailable");
                Self { is_transient: true, ..Self::new(ErrorCode::InternalServerError, error.to_string()) }
            }
            store::Error::NeedsTransaction => {
                tracing::warn!(%error, "request failed: the database is unavailable");
                Self::new(ErrorCode::InternalServerError, error.to_string())
            }
            store::Error::Open { .. }
            | store::Error::OpenInThisProcess { .. }
            | store::Error::FileReplaced { .. }
            | store::Error::NewerFormat { .. }
            | store::Error::NotAStore { .. }
            | store::Error::Address { .. } => Self::for_operator(&error),
            store::Error::Closed => Self::new(ErrorCode::InternalServerError, error.to_string()),
            error => Self::internal(error),
        }
    }
}
