//! Names of databases and collections that MongoDB rejects.

use std::collections::HashSet;

use crate::Namespace;

/// Exclusive upper bound of the length of a database name, in bytes.
const DATABASE_BYTES: usize = 64;

/// The maximum length of a full name, in bytes, including the dot.
const NAMESPACE_BYTES: usize = 255;

/// Returns the rule that a database name breaks
/// (<https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions>).
pub(crate) fn wrong_database(database: &str) -> Option<&'static str> {
    if database.is_empty() || database.len() >= DATABASE_BYTES {
        Some("a database name has 1 to 63 bytes")
    } else if database.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        Some("a database name has no slash, backslash, dot, space, quotation mark, dollar sign or NUL")
    } else {
        None
    }
}

/// Returns the rule that a collection name breaks, in a database with a valid name.
pub(crate) fn wrong_collection(Namespace { database, collection }: &Namespace) -> Option<&'static str> {
    if collection.is_empty() || collection.starts_with('.') || collection.ends_with('.') {
        Some("a collection name is not empty, and neither begins nor ends with a dot")
    } else if collection.contains(['$', '\0']) || is_of_the_server(collection) {
        Some("a collection name has no dollar sign or NUL, and does not begin with 'system.'")
    } else if database.len() + 1 + collection.len() > NAMESPACE_BYTES {
        Some("the names of a database and a collection have up to 254 bytes together")
    } else {
        None
    }
}

/// True for the name of a collection that a server keeps for itself.
pub(crate) fn is_of_the_server(collection: &str) -> bool {
    collection.starts_with("system.")
}

/// True if the names of two databases differ in case only. MongoDB allows one of them.
pub(crate) fn differ_in_case(one: &str, other: &str) -> bool {
    one != other && one.eq_ignore_ascii_case(other)
}

/// Returns a message for each database and each collection whose name MongoDB rejects beside the
/// `existing` databases. The collections of a rejected database are not listed.
///
/// `own` is the prefix of the backend's own databases, which are named after their apps.
pub(crate) fn refused(namespaces: &[&Namespace], existing: &[String], own: Option<&str>) -> Vec<String> {
    let mut refused = Vec::new();
    let mut seen = HashSet::new();
    let databases: Vec<&str> =
        namespaces.iter().map(|namespace| &*namespace.database).filter(|database| seen.insert(*database)).collect();
    let mut rejected = HashSet::new();
    for &database in &databases {
        let others = databases.iter().copied().chain(existing.iter().map(String::as_str));
        let reason = match wrong_database(database) {
            Some(rule) => Some(rule.to_owned()),
            None => others
                .clone()
                .find(|other| differ_in_case(other, database))
                .map(|other| format!("it differs from the database '{other}' in case only")),
        };
        let Some(reason) = reason else { continue };
        let id = own.and_then(|own| database.strip_prefix(own)?.strip_prefix('_'));
        let of_app = id.map(|id| format!(" (it belongs to the app with the id '{id}')")).unwrap_or_default();
        refused.push(format!("the database '{database}': MongoDB does not accept its name: {reason}{of_app}"));
        rejected.insert(database);
    }
    for namespace in namespaces.iter().filter(|namespace| !rejected.contains(&*namespace.database)) {
        if let Some(rule) = wrong_collection(namespace) {
            refused.push(format!("the collection '{namespace}': MongoDB does not accept its name: {rule}"));
        }
    }
    refused
}
