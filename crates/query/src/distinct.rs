//! The different values of a field (<https://www.mongodb.com/docs/manual/reference/command/distinct/>).

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use crate::{Path, compare, document::items, encode_key};

/// The values that a path has in documents, each once, in their order. An array stands for its items.
pub fn distinct<'a>(documents: impl IntoIterator<Item = &'a RawDocument>, path: &str) -> Vec<RawBson> {
    let path = Path::new(path);
    let mut seen = HashSet::new();
    let mut values: Vec<RawBson> = Vec::new();
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
    values.sort_by(|one, other| compare(one.as_raw_bson_ref(), other.as_raw_bson_ref()));
    values
}
