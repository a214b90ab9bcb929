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
    /// After how many seconds it is worth asking again, where it is refused for a while.
    pub retry_after: Option<u64>,
    /// What the operator must know, as the path of the store and what to do about it. It is shown in the operator's own process and in the
    /// log, and never to a client over a network.
    pub detail: Option<String>,
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

            /// The code of a name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name { $(stringify!($name) => Some(Self::$name),)* _ => None }
            }

            /// The HTTP status of an answer with this code.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// A request without the token that it needs.
    MissingAuthReq = 4300, 401;
    /// The session has ended, or its token is not one.
    InvalidSession = 4301, 401;
    /// A user of another app.
    UserAppDomainMismatch = 4302, 401;
    /// A page of an origin that may make no requests.
    DomainNotAllowed = 4303, 403;
    /// More documents than a query may return.
    ReadSizeLimitExceeded = 4304, 400;
    /// An argument that cannot be used.
    InvalidParameter = 4305, 400;
    /// An argument that is missing.
    MissingParameter = 4306, 400;
    /// The service for text messages failed.
    TwilioError = 4307, 400;
    /// The service for push notifications failed.
    GCMError = 4308, 400;
    /// A service over HTTP failed.
    HTTPError = 4309, 400;
    /// A service of AWS failed.
    AWSError = 4310, 400;
    /// The database refused the operation.
    MongoDBError = 4311, 400;
    /// Arguments where none are taken.
    ArgumentsNotAllowed = 4312, 400;
    /// A function failed.
    FunctionExecutionError = 4313, 400;
    /// No rule allows it.
    NoMatchingRuleFound = 4314, 403;
    /// Something that is not the client's fault.
    InternalServerError = 4315, 500;
    /// A provider that is not enabled.
    AuthProviderNotFound = 4316, 404;
    /// A provider that exists already.
    AuthProviderAlreadyExists = 4317, 409;
    /// A service that does not exist.
    ServiceNotFound = 4318, 404;
    /// A type of service that does not exist.
    ServiceTypeNotFound = 4319, 404;
    /// A service that exists already.
    ServiceAlreadyExists = 4320, 409;
    /// A command that a service does not have.
    ServiceCommandNotFound = 4321, 404;
    /// A value that does not exist.
    ValueNotFound = 4322, 404;
    /// A value that exists already.
    ValueAlreadyExists = 4323, 409;
    /// Two values of one name.
    ValueDuplicateName = 4324, 409;
    /// A function that does not exist.
    FunctionNotFound = 4325, 404;
    /// A function that exists already.
    FunctionAlreadyExists = 4326, 409;
    /// Two functions of one name.
    FunctionDuplicateName = 4327, 409;
    /// A function that cannot be parsed.
    FunctionSyntaxError = 4328, 400;
    /// A function that cannot be run.
    FunctionInvalid = 4329, 400;
    /// A webhook that does not exist.
    IncomingWebhookNotFound = 4330, 404;
    /// A webhook that exists already.
    IncomingWebhookAlreadyExists = 4331, 409;
    /// Two webhooks of one name.
    IncomingWebhookDuplicateName = 4332, 409;
    /// A rule that does not exist.
    RuleNotFound = 4333, 404;
    /// An API key that does not exist.
    APIKeyNotFound = 4334, 404;
    /// A rule that exists already.
    RuleAlreadyExists = 4335, 409;
    /// Two rules of one name.
    RuleDuplicateName = 4336, 409;
    /// Two providers of one name.
    AuthProviderDuplicateName = 4337, 409;
    /// A host that no request may go to.
    RestrictedHost = 4338, 403;
    /// An API key that exists already.
    APIKeyAlreadyExists = 4339, 409;
    /// A webhook that was called without the right secret.
    IncomingWebhookAuthFailed = 4340, 403;
    /// A function that took too long.
    ExecutionTimeLimitExceeded = 4341, 400;
    /// A function that clients may not call.
    NotCallable = 4342, 403;
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
    /// A document that its schema does not allow.
    SchemaValidationFailedWrite = 4350, 400;
    /// An error that came without a code.
    AppUnknownError = 4351, 400;
    /// The app is not available for a while.
    MaintenanceInProgress = 4352, 503;
    /// A confirmation or reset token that is not one.
    UserpassTokenInvalid = 4353, 400;
    /// An answer that the client cannot use.
    InvalidServerResponse = 4354, 502;
    /// An error of the server that the client knows no other number for.
    AppServerError = 4355, 429;
}

impl Error {
    /// A failure with its message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), server_code: None, retry_after: None, detail: None }
    }

    /// A failure that a later request may not have.
    pub(crate) fn retry_later(message: impl Into<Cow<'static, str>>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(ErrorCode::AppServerError, message) }
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

    /// A failure whose cause the operator can mend.
    fn for_operator(cause: &store::Error) -> Self {
        tracing::error!(%cause, "request failed: the store cannot be used");
        Self { detail: Some(cause.to_string()), ..Self::new(ErrorCode::InternalServerError, "internal server error") }
    }

    /// Whether the answer must make the client refresh its access token.
    pub fn is_invalid_session(&self) -> bool {
        self.code == ErrorCode::InvalidSession
    }
}

/// Seconds after which it is worth asking again when too many operations wait.
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
            // Whoever asks must know whether it may have been done, and what there is to do about it. No host, no path is told.
            store::Error::Unavailable { .. } | store::Error::NeedsTransaction | store::Error::Unsupported(_) => {
                tracing::warn!(%error, "a request failed for the sake of the database");
                Self::new(ErrorCode::InternalServerError, error.to_string())
            }
            store::Error::Open { .. }
            | store::Error::OpenInThisProcess { .. }
            | store::Error::NewerFormat { .. }
            | store::Error::NotAStore { .. }
            | store::Error::Address { .. } => Self::for_operator(&error),
            store::Error::Closed => Self::new(ErrorCode::InternalServerError, error.to_string()),
            error => Self::internal(error),
        }
    }
}
