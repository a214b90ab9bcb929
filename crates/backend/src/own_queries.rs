use store::Find;

/// A query that the backend makes, and the index that answers it: a test has each explained. What a write changes is found in the
/// same way.
pub struct DeclaredQuery {
    /// What is asked.
    pub name: &'static str,
    /// The query, with values that nothing has.
    pub find: Find,
    /// The index's name.
    pub index: String,
}

impl DeclaredQuery {
    pub(crate) fn new(name: &'static str, find: Find, index: impl Into<String>) -> Self {
        Self { name, find, index: index.into() }
    }
}
