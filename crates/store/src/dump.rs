//! Dumps in the format of mongodump and mongorestore
//! (<https://www.mongodb.com/docs/database-tools/mongodump/>).
//!
//! A dump has one directory for each database. It holds, for each collection, the concatenated
//! documents (`.bson`) and the indexes as Extended JSON (`.metadata.json`).

mod names;
mod read;
mod write;

pub use crate::insert_missing::Imported;
pub use read::Import;
pub use write::export;

use std::path::Path;

use crate::Error;

/// The file name extensions of the documents and the metadata of a collection.
const DOCUMENTS: &str = ".bson";
const METADATA: &str = ".metadata.json";

/// The metadata field for a database name that is too long for a directory. It is our own
/// addition: MongoDB does not allow names of that length.
const DATABASE_NAME: &str = "databaseName";

/// The metadata field that marks a collection of our own whose name begins with `system.`. It is
/// our own addition: MongoDB's collections of such names are not imported.
const WRITTEN_BY: &str = "writtenBy";
const USERKEEP: &str = "userkeep";

/// Returns the error of a file or directory of the dump.
fn at(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Dump { path: path.to_owned(), reason: reason.to_string() }
}
