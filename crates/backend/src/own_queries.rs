use store::Find;

/// A query that the backend itself runs, and the index that answers it. A test explains each of
/// them. Writes find their documents with the same queries.
pub struct DeclaredQuery {
    /// The purpose of the query.
    pub name: &'static str,
    /// The query, with placeholder values that match no document.
    pub find: Find,
    /// The name of the index that must answer the query.
    pub index: String,
}

impl DeclaredQuery {
    pub(crate) fn new(name: &'static str, find: Find, index: impl Into<String>) -> Self {
        Self { name, find, index: index.into() }
    }
}
