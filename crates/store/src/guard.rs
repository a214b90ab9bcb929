use bson::raw::RawDocument;
use query::{Filter, Path};

/// The refusal of a write, as text for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// The permissions of a guard as filters, which match exactly what the guard allows.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardFilters {
    /// The documents that the caller may see.
    pub seen: Filter,
    /// The documents that the caller may update, if the update changes nothing at `paths`.
    pub updatable: Filter,
    /// The documents that the caller may delete.
    pub deletable: Filter,
    /// The paths of the fields that the guard reads.
    pub paths: Vec<Path>,
}

/// The permissions of a caller, decided document by document.
pub trait Guard: Send + Sync {
    /// True if the caller may see the document. A hidden document does not match any filter.
    fn may_see(&self, document: &RawDocument) -> bool;

    /// Checks a write: `before` is `None` for an insert, `after` is `None` for a deletion.
    ///
    /// # Errors
    /// The refusal, if the caller may not write.
    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied>;

    /// Returns the permissions as filters; `None` if no filters say exactly the same.
    ///
    /// A remote store sends them to the database, and the embedded store uses them to choose an
    /// index.
    fn filters(&self) -> Option<&GuardFilters> {
        None
    }

    /// Returns a filter that matches at least every visible document; `None` if no such filter
    /// excludes any document.
    ///
    /// A remote store fetches fewer documents with it; [`may_see`](Self::may_see) hides the
    /// others.
    fn superset(&self) -> Option<&Filter> {
        None
    }
}
