//! The values of `$in`, and long lists of equality conditions on one path. Both are looked up by
//! key instead of one by one.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use super::{Filter, PathFilter, Predicate};
use crate::{Path, budget, encode_key, equal, sorting::sorted};

/// Up to this number, values are compared one by one, which is faster than encoding a key.
const FEW: usize = 8;

/// The values of `$in`, in their given order. Dereferences to a slice of the values.
///
/// More than a few values are also kept as sorted index keys, so that a test takes logarithmic
/// time.
#[derive(Debug, Clone, Default)]
pub struct Candidates {
    values: Vec<RawBson>,
    /// The sorted keys of the values, if there are more than `FEW`.
    keys: Option<Arc<[Vec<u8>]>>,
}

impl Candidates {
    /// True if one of the values is equal to `value`. Null is equal to a missing value, too.
    #[inline]
    pub(crate) fn contain(&self, value: Option<RawBsonRef<'_>>) -> bool {
        let value = value.unwrap_or(RawBsonRef::Null);
        match &self.keys {
            None => self.values.iter().any(|candidate| equal(candidate.as_raw_bson_ref(), value)),
            Some(keys) => {
                budget::spend(4);
                keys.binary_search(&encode_key(value)).is_ok()
            }
        }
    }

    /// Returns the sorted keys of the values.
    pub(crate) fn sorted_keys(&self) -> Vec<Vec<u8>> {
        match &self.keys {
            Some(keys) => keys.to_vec(),
            None => keys_of(&self.values),
        }
    }
}

/// Encodes and sorts the keys. Empty if the budget is exhausted, which the caller checks.
fn keys_of(values: &[RawBson]) -> Vec<Vec<u8>> {
    let values = values.iter().take_while(|_| budget::spend(1));
    let keys = values.map(|value| encode_key(value.as_raw_bson_ref())).collect();
    sorted(keys, Ord::cmp).unwrap_or_default()
}

impl From<Vec<RawBson>> for Candidates {
    fn from(values: Vec<RawBson>) -> Self {
        let keys = (values.len() > FEW).then(|| keys_of(&values).into());
        Self { values, keys }
    }
}

impl FromIterator<RawBson> for Candidates {
    fn from_iter<I: IntoIterator<Item = RawBson>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Candidates {
    type Target = [RawBson];

    fn deref(&self) -> &[RawBson] {
        &self.values
    }
}

impl PartialEq for Candidates {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

/// Evaluates many equalities on one path of a document: the values at the path are read once.
#[derive(Default)]
pub(super) struct Equalities<'f> {
    path: Option<&'f Path>,
    asked: usize,
    reached: Option<HashMap<Vec<u8>, Option<usize>>>,
}

impl<'f> Equalities<'f> {
    /// True if a list of conditions is long enough to benefit from this.
    pub(super) fn help(filters: &[Filter]) -> bool {
        filters.len() > FEW
    }

    /// Evaluates an equality or its negation. `None` if the filter is neither, is on another path,
    /// or is among the first few.
    pub(super) fn matches(&mut self, filter: &'f Filter, document: &RawDocument) -> Option<bool> {
        match filter {
            Filter::Path(filter) => self.find(filter, document).map(|found| found.is_some()),
            Filter::Not(inner) => match &**inner {
                Filter::Path(filter) => self.find(filter, document).map(|found| found.is_none()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Evaluates an equality, with the index of the matching array item. `None` as for
    /// [`matches`](Self::matches).
    pub(super) fn find(&mut self, filter: &'f PathFilter, document: &RawDocument) -> Option<Option<Option<usize>>> {
        let PathFilter { path, predicate: Predicate::Eq(value) } = filter else { return None };
        if *self.path.get_or_insert(path) != path {
            return None;
        }
        self.asked += 1;
        if self.asked <= FEW {
            return None;
        }
        let reached = self.reached.get_or_insert_with(|| reached(path, document));
        Some(reached.get(&encode_key(value.as_raw_bson_ref())).copied())
    }
}

/// The values at a path, by key, each with its index in the first array on the path.
fn reached(path: &Path, document: &RawDocument) -> HashMap<Vec<u8>, Option<usize>> {
    let mut reached = HashMap::new();
    path.visit_at(document, true, &mut |value, outermost| {
        reached.entry(encode_key(value.unwrap_or(RawBsonRef::Null))).or_insert(outermost);
        !budget::spend(1)
    });
    reached
}
