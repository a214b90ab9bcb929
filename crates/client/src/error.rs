/// The result of anything that the SDK does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error as the SDK shows it: a numeric code and, beside it, the code's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The code, as in the SDK's `error.code`.
    pub code: i32,
    /// The code's name.
    pub name: &'static str,
    /// What happened.
    pub message: String,
    /// MongoDB's own code, where the failure came from a query or a write.
    pub server_code: Option<i32>,
    /// After how many seconds it is worth asking again, where the backend refuses for a while.
    pub retry_after: Option<u64>,
    /// The HTTP status of the answer, over HTTP.
    pub status: Option<u16>,
    /// Where the operator finds the log of the request, if the backend says so.
    pub link: Option<String>,
    /// Whether the backend did not accept the access token.
    pub(crate) unauthorized: bool,
    /// Whether it was the way to the backend that failed, and may be open again.
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

    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Self { interrupted: true, ..Self::custom(message) }
    }

    pub(crate) fn closed() -> Self {
        Self::custom("The app has been closed")
    }

    /// An error that the SDK had no code of its own for.
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
            // The backend is in this process, so that its operator is the one who reads this.
            ..Self::custom(error.detail.map_or(error.message, Into::into))
        }
    }
}
