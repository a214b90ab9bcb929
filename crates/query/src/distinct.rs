//! The different values of a field (<https://www.mongodb.com/docs/manual/reference/command/distinct/>).

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use crate::{Path, Result, document::items, encode_key};

/// The values that a path has in documents, each once, in the order in which they come. An array stands for its items.
///
/// # Errors
/// `EmptyFieldName` or `BadValue` where the path is not one.
pub fn distinct<'a>(documents: impl IntoIterator<Item = &'a RawDocument>, path: &str) -> Result<Vec<RawBson>> {
    let path = Path::strict(path)?;
    let mut seen = HashSet::new();
    let mut values = Vec::new();
    let mut note = |value: RawBsonRef<'_>| {
        if seen.insert(encode_key(value)) {
            values.push(value.into());
        }
    };
    for document in documents {
        path.visit_whole(document, &mut |value| {
            match value {
                Some(RawBsonRef::Array(array)) => items(array).for_each(&mut note),
                Some(value) => note(value),
                None => {}
            }
            false
        });
    }
    Ok(values)
}
