use bson::raw::RawDocument;
use query::{Filter, Path};

/// A refusal, in the words that the caller may read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// What a guard says, as filters that match neither more nor less.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardFilters {
    /// The documents that may be seen.
    pub seen: Filter,
    /// The documents that may be updated, where the update changes nothing at `paths`.
    pub updatable: Filter,
    /// The documents that may be deleted.
    pub deletable: Filter,
    /// What the guard looks at.
    pub paths: Vec<Path>,
}

/// What somebody may see and change, asked about each document.
pub trait Guard: Send + Sync {
    /// Whether the document may be seen. To a caller who may not see it, it does not match.
    fn may_see(&self, document: &RawDocument) -> bool;

    /// Whether the document may become another one: `before` is missing for an insert, `after` for a deletion.
    ///
    /// # Errors
    /// The refusal.
    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied>;

    /// What it says of documents as filters, for a store whose documents are elsewhere, and for one that looks for an index; none
    /// where no filters say the same.
    fn filters(&self) -> Option<&GuardFilters> {
        None
    }

    /// A filter that matches at least every document that may be seen, for a store whose documents are elsewhere: it sends fewer of
    /// those that [`may_see`](Self::may_see) then hides. None if no filter leaves out any.
    fn superset(&self) -> Option<&Filter> {
        None
    }
}
