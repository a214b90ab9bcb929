use std::borrow::Cow;

use crate::ErrorCode;

/// The result of encoding or decoding a message.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a request cannot be decoded. The response to the client has the same message and
/// code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The App Services error code.
    pub code: ErrorCode,
    /// The message for the client. It contains no value of the request.
    pub message: Cow<'static, str>,
    /// The HTTP status, if it differs from the status of the code.
    pub status: Option<u16>,
}

impl Error {
    /// Creates an error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), status: None }
    }

    /// Creates an error with the code `BadRequest`.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// Creates the error of a body that is too large, with status 413.
    pub(crate) fn too_large(message: String) -> Self {
        Self { status: Some(413), ..Self::bad_request(message) }
    }
}

impl From<ejson::Error> for Error {
    fn from(error: ejson::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}
