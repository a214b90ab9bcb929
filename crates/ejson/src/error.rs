use std::borrow::Cow;

/// The result of reading or converting JSON.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why JSON cannot become BSON. No message repeats a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not JSON, or a value is not valid Extended JSON; the message names the place.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The budget of the current operation is spent.
    #[error(transparent)]
    Budget(#[from] query::Error),
}

impl Error {
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(message.into())
    }
}
