//! Dumps, as mongodump writes and mongorestore reads them (<https://www.mongodb.com/docs/database-tools/mongodump/>): for each database
//! a directory, and in it for each collection its documents one after the other (`.bson`) and its indexes as Extended JSON
//! (`.metadata.json`).

mod names;
mod read;
mod write;

pub use crate::insert_missing::Imported;
pub use read::Import;
pub use write::export;

use std::path::Path;

use crate::Error;

/// What a collection's documents and its description are in.
const DOCUMENTS: &str = ".bson";
const METADATA: &str = ".metadata.json";

/// Our own addition to the metadata: the name of a database that was too long for a directory. MongoDB has none of such a length.
const DATABASE_NAME: &str = "databaseName";

/// What went wrong at a file.
fn at(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Dump { path: path.to_owned(), reason: reason.to_string() }
}
