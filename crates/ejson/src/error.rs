use std::borrow::Cow;

/// The result of an operation on Extended JSON.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why JSON cannot be converted to BSON.
///
/// The messages contain positions and field names but no values, so that they may be logged and
/// sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not JSON, or a value is not valid Extended JSON. The message contains the line
    /// and column, or the path of the field.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The conversion exceeds the time or memory budget of the current operation.
    #[error(transparent)]
    Budget(#[from] query::Error),
}

impl Error {
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(message.into())
    }
}
