//! The different values of a field (<https://www.mongodb.com/docs/manual/reference/command/distinct/>).

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use crate::{Path, budget, document::items, encode_key, sorting::sorted};

/// The values that a path has in documents, each once, in their order. An array stands for its items. As for
/// [`Filter::matches`](crate::Filter::matches), the caller checks the budget.
pub fn distinct<'a>(documents: impl IntoIterator<Item = &'a RawDocument>, path: &str) -> Vec<RawBson> {
    let path = Path::new(path);
    let mut seen = HashSet::new();
    let mut values: Vec<(Vec<u8>, RawBson)> = Vec::new();
    let mut note = |value: RawBsonRef<'_>| {
        let key = encode_key(value);
        if budget::spend(1) && seen.insert(key.clone()) {
            values.push((key, value.into()));
        }
    };
    for document in documents {
        if !budget::spend(1) {
            break;
        }
        path.visit_whole(document, &mut |value| {
            match value {
                Some(RawBsonRef::Array(array)) => items(array).for_each(&mut note),
                Some(value) => note(value),
                None => {}
            }
            false
        });
    }
    let values = sorted(values, |(one, _), (other, _)| one.cmp(other)).unwrap_or_default();
    values.into_iter().map(|(_, value)| value).collect()
}
