use crate::NetworkError;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error as the SDK shows it, with a numeric code and the name of the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The code, as in the SDK's `error.code`.
    pub code: i32,
    /// The name of the code.
    pub name: &'static str,
    /// The message.
    pub message: String,
    /// MongoDB's error code, if a query or a write failed.
    pub server_code: Option<i32>,
    /// Time in seconds after which a retry makes sense, if the backend rejects requests for a
    /// while.
    pub retry_after: Option<u64>,
    /// The HTTP status of the response; `None` for a backend in this process.
    pub status: Option<u16>,
    /// The URL of the request's log entry for the operator, if the backend sent one.
    pub link: Option<String>,
    /// True if the same operations may succeed in a new transaction.
    pub is_transient_transaction: bool,
    /// The failure of the network, if the backend could not be reached.
    #[source]
    pub cause: Option<Box<NetworkError>>,
    /// True if the backend rejected the access token.
    pub(crate) unauthorized: bool,
    /// True if the connection to the backend failed, and a retry may succeed.
    pub(crate) interrupted: bool,
}

impl Error {
    fn client(code: i32, name: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            name,
            message: message.into(),
            server_code: None,
            retry_after: None,
            status: None,
            link: None,
            is_transient_transaction: false,
            cause: None,
            unauthorized: false,
            interrupted: false,
        }
    }

    pub(crate) fn user_not_found(message: &str) -> Self {
        Self::client(4100, "ClientUserNotFound", message)
    }

    pub(crate) fn not_logged_in(message: &str) -> Self {
        Self::client(4101, "ClientUserNotLoggedIn", message)
    }

    pub(crate) fn already_named(message: &str) -> Self {
        Self::client(4105, "ClientUserAlreadyNamed", message)
    }

    pub(crate) fn bad_token(message: &str) -> Self {
        Self::client(4200, "BadToken", message)
    }

    pub(crate) fn malformed_json(message: impl Into<String>) -> Self {
        Self::client(4201, "MalformedJson", message)
    }

    pub(crate) fn missing_json_key(key: &str) -> Self {
        Self::client(4202, "MissingJsonKey", format!("Missing JSON key: {key}"))
    }

    pub(crate) fn interrupted(message: impl Into<String>, cause: Option<NetworkError>) -> Self {
        Self { interrupted: true, cause: cause.map(Box::new), ..Self::custom(message) }
    }

    pub(crate) fn closed() -> Self {
        Self::custom("The app has been closed")
    }

    /// Returns a `CustomError` (4000), for which the SDK has no specific code.
    pub fn custom(message: impl Into<String>) -> Self {
        Self::client(4000, "CustomError", message)
    }
}

impl From<backend::Error> for Error {
    fn from(error: backend::Error) -> Self {
        Self {
            code: error.code as i32,
            name: error.code.name(),
            unauthorized: error.code.status() == 401,
            server_code: error.server_code,
            retry_after: error.retry_after,
            is_transient_transaction: error.label.is_some(),
            // The backend is in this process, so its operator reads the message and may see the
            // details.
            ..Self::custom(error.detail.map_or(error.message, Into::into))
        }
    }
}
