use std::borrow::Cow;

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
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $status:literal;)*) => {
        /// App Services' error codes, with the numbers that the SDK shows as `error.code`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// Returns the name that is sent over HTTP as `error_code`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Returns the code with this name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name { $(stringify!($name) => Some(Self::$name),)* _ => None }
            }

            /// Returns the HTTP status of a response with this code.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// The request has no token.
    MissingAuthReq = 4300, 401;
    /// The session has ended, or the token is not valid.
    InvalidSession = 4301, 401;
    /// The user belongs to another app.
    UserAppDomainMismatch = 4302, 401;
    /// Pages of this origin may not make requests.
    DomainNotAllowed = 4303, 403;
    /// The query finds more documents than an answer may have.
    ReadSizeLimitExceeded = 4304, 400;
    /// An argument has a wrong type or value.
    InvalidParameter = 4305, 400;
    /// A required argument is missing.
    MissingParameter = 4306, 400;
    /// The service for text messages failed.
    TwilioError = 4307, 400;
    /// The service for push notifications failed.
    GCMError = 4308, 400;
    /// An HTTP service failed.
    HTTPError = 4309, 400;
    /// An AWS service failed.
    AWSError = 4310, 400;
    /// The database rejected the operation.
    MongoDBError = 4311, 400;
    /// The function takes no arguments.
    ArgumentsNotAllowed = 4312, 400;
    /// A function failed.
    FunctionExecutionError = 4313, 400;
    /// No rule allows the operation.
    NoMatchingRuleFound = 4314, 403;
    /// The server failed for a reason that is not the client's.
    InternalServerError = 4315, 500;
    /// The authentication provider is not enabled.
    AuthProviderNotFound = 4316, 404;
    /// The authentication provider exists already.
    AuthProviderAlreadyExists = 4317, 409;
    /// The service does not exist.
    ServiceNotFound = 4318, 404;
    /// The type of service does not exist.
    ServiceTypeNotFound = 4319, 404;
    /// The service exists already.
    ServiceAlreadyExists = 4320, 409;
    /// The service does not have this command.
    ServiceCommandNotFound = 4321, 404;
    /// The value does not exist.
    ValueNotFound = 4322, 404;
    /// The value exists already.
    ValueAlreadyExists = 4323, 409;
    /// Two values have the same name.
    ValueDuplicateName = 4324, 409;
    /// The function does not exist.
    FunctionNotFound = 4325, 404;
    /// The function exists already.
    FunctionAlreadyExists = 4326, 409;
    /// Two functions have the same name.
    FunctionDuplicateName = 4327, 409;
    /// The function cannot be parsed.
    FunctionSyntaxError = 4328, 400;
    /// The function cannot be run.
    FunctionInvalid = 4329, 400;
    /// The webhook does not exist.
    IncomingWebhookNotFound = 4330, 404;
    /// The webhook exists already.
    IncomingWebhookAlreadyExists = 4331, 409;
    /// Two webhooks have the same name.
    IncomingWebhookDuplicateName = 4332, 409;
    /// The rule does not exist.
    RuleNotFound = 4333, 404;
    /// The API key does not exist.
    APIKeyNotFound = 4334, 404;
    /// The rule exists already.
    RuleAlreadyExists = 4335, 409;
    /// Two rules have the same name.
    RuleDuplicateName = 4336, 409;
    /// Two authentication providers have the same name.
    AuthProviderDuplicateName = 4337, 409;
    /// Requests to this host are not allowed.
    RestrictedHost = 4338, 403;
    /// The API key exists already.
    APIKeyAlreadyExists = 4339, 409;
    /// The webhook was called without the right secret.
    IncomingWebhookAuthFailed = 4340, 403;
    /// The function took too long.
    ExecutionTimeLimitExceeded = 4341, 400;
    /// Clients may not call this function.
    NotCallable = 4342, 403;
    /// The user is confirmed already.
    UserAlreadyConfirmed = 4343, 400;
    /// The user does not exist.
    UserNotFound = 4344, 404;
    /// The user is disabled and cannot log in.
    UserDisabled = 4345, 401;
    /// The credentials are not accepted.
    AuthError = 4346, 401;
    /// The request is not valid.
    BadRequest = 4347, 400;
    /// The e-mail address is registered already.
    AccountNameInUse = 4348, 409;
    /// The password is wrong, or the user is unknown.
    InvalidPassword = 4349, 401;
    /// The document does not match its schema.
    SchemaValidationFailedWrite = 4350, 400;
    /// The error has no code.
    AppUnknownError = 4351, 400;
    /// The app is temporarily unavailable.
    MaintenanceInProgress = 4352, 503;
    /// The confirmation or reset token is not valid.
    UserpassTokenInvalid = 4353, 400;
    /// The server's response is not valid.
    InvalidServerResponse = 4354, 502;
    /// Any other error of the server, among them rate limits.
    AppServerError = 4355, 429;
}

impl Error {
    /// Creates an error with a message for the client.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), server_code: None, retry_after: None, detail: None }
    }

    /// Creates an error that may not occur again if the client retries after `seconds`.
    pub(crate) fn retry_later(message: impl Into<Cow<'static, str>>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(ErrorCode::AppServerError, message) }
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

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Query(error) => error.into(),
            store::Error::DuplicateKey { .. } => Self {
                server_code: Some(query::ErrorCode::DuplicateKey.number()),
                ..Self::new(ErrorCode::MongoDBError, error.to_string())
            },
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
            store::Error::Unavailable { .. } | store::Error::NeedsTransaction | store::Error::Unsupported(_) => {
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
