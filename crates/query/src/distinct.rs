//! The `distinct` command (<https://www.mongodb.com/docs/manual/reference/command/distinct/>).

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use crate::{Path, budget, document::items, encode_key, sorting::sorted};

/// Returns the distinct values at a path in documents, in sort order.
///
/// An array counts as its items, one level deep. Values that are equal in MongoDB's order, such as
/// `1` and `1.0`, are returned once, in the form that came first.
///
/// The function has no error: if the entered budget is exhausted, the result is incomplete. The
/// caller checks the budget afterwards, as for [`Filter::matches`](crate::Filter::matches).
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
