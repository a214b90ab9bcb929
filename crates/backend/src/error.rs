use std::borrow::Cow;

/// The result of anything that a client asks for.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a client is told when it does not get what it asked for: `message` and `code` as App Services had them, the
/// HTTP status that goes with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// What happened, in words that the client may read.
    pub message: Cow<'static, str>,
    /// MongoDB's own code, where the failure came from a query or a write.
    pub server_code: Option<i32>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $status:literal;)*) => {
        /// App Services' error codes, with the numbers that the SDK shows as `error.code`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// The name that goes over the wire as `error_code`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The HTTP status of an answer with this code.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// The session has ended, or its token is not one.
    InvalidSession = 4301, 401;
    /// More documents than a query may return.
    ReadSizeLimitExceeded = 4304, 400;
    /// An argument that cannot be used.
    InvalidParameter = 4305, 400;
    /// An argument that is missing.
    MissingParameter = 4306, 400;
    /// The database refused the operation.
    MongoDBError = 4311, 400;
    /// A function failed.
    FunctionExecutionError = 4313, 400;
    /// No rule allows it.
    NoMatchingRuleFound = 4314, 403;
    /// Something that is not the client's fault.
    InternalServerError = 4315, 500;
    /// A provider that is not enabled.
    AuthProviderNotFound = 4316, 404;
    /// A service that does not exist.
    ServiceNotFound = 4318, 404;
    /// A function that does not exist.
    FunctionNotFound = 4325, 404;
    /// An API key that does not exist.
    APIKeyNotFound = 4334, 404;
    /// A user who has been confirmed already.
    UserAlreadyConfirmed = 4343, 400;
    /// A user who does not exist.
    UserNotFound = 4344, 404;
    /// A user who may not log in.
    UserDisabled = 4345, 401;
    /// Credentials that are not accepted.
    AuthError = 4346, 401;
    /// A request that cannot be done as it is.
    BadRequest = 4347, 400;
    /// An e-mail address that is registered already.
    AccountNameInUse = 4348, 409;
    /// A wrong password, or an unknown user.
    InvalidPassword = 4349, 401;
    /// A confirmation or reset token that is not one.
    UserpassTokenInvalid = 4353, 400;
    /// An error of the server that the client knows no other number for.
    AppServerError = 4355, 429;
}

impl Error {
    /// A failure with its message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), server_code: None }
    }

    pub(crate) fn invalid_session(detail: &str) -> Self {
        Self::new(ErrorCode::InvalidSession, format!("invalid session: {detail}"))
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// A failure that is ours: the cause goes to the operator's log, never to the client.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed for an internal reason");
        Self::new(ErrorCode::InternalServerError, "internal server error")
    }

    /// Whether the answer must make the client refresh its access token.
    pub fn is_invalid_session(&self) -> bool {
        self.code == ErrorCode::InvalidSession
    }
}

impl From<query::Error> for Error {
    fn from(error: query::Error) -> Self {
        Self { code: ErrorCode::MongoDBError, server_code: Some(error.number()), message: error.message.into() }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Query(error) => error.into(),
            store::Error::DuplicateKey { .. } => Self {
                code: ErrorCode::MongoDBError,
                message: error.to_string().into(),
                server_code: Some(query::ErrorCode::DuplicateKey as i32),
            },
            store::Error::Denied(denied) => Self::new(ErrorCode::NoMatchingRuleFound, denied.0),
            store::Error::TooManyDocuments { limit } => Self::new(
                ErrorCode::ReadSizeLimitExceeded,
                format!("the query returns more than {limit} documents; narrow the filter or set a limit"),
            ),
            // The operator of an embedded store is its user: these say what to do about it.
            store::Error::Open { .. }
            | store::Error::NewerFormat { .. }
            | store::Error::NotAStore { .. }
            | store::Error::Closed => Self::new(ErrorCode::InternalServerError, error.to_string()),
            error => Self::internal(error),
        }
    }
}
