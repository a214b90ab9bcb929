use std::borrow::Cow;

use crate::ErrorCode;

/// The result of encoding or decoding a message.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a request cannot be decoded: its message and code are those of the answer to
/// the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The App Services error code.
    pub code: ErrorCode,
    /// The message for the client. It repeats no value of the request.
    pub message: Cow<'static, str>,
    /// The HTTP status, if it is not that of the code.
    pub status: Option<u16>,
}

impl Error {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), status: None }
    }

    /// A `BadRequest` error.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The refusal of a body that is too large.
    pub(crate) fn too_large(message: String) -> Self {
        Self { status: Some(413), ..Self::bad_request(message) }
    }
}

impl From<ejson::Error> for Error {
    fn from(error: ejson::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}
