use bson::raw::RawDocument;

/// A refusal, in the words that the caller may read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// What somebody may see and change, asked about each document.
pub trait Guard: Send + Sync {
    /// Whether the document may be seen. To a caller who may not see it, it does not match.
    fn may_see(&self, document: &RawDocument) -> bool;

    /// Whether the document may become another one: `before` is missing for an insert, `after` for a deletion.
    ///
    /// # Errors
    /// The refusal.
    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied>;
}
