//! The error codes of App Services.

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
    /// The result has more documents or bytes than a response may have.
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
