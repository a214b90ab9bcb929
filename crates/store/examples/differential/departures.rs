//! Where the server that is compared with is known to depart from MongoDB's documentation.

use super::case::{Case, Outcome};

/// The page that says that ours is right, where one does.
pub fn known(_case: &Case, _ours: &Outcome, _theirs: &Outcome) -> Option<&'static str> {
    None
}
