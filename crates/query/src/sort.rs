//! Sorts: by several paths, with arrays standing for their least (or, descending, greatest) item.

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{
    Error, ErrorCode, Path, Result, budget,
    document::elements,
    key::{encode_into, turn},
};

/// A parsed sort.
#[derive(Debug, Clone)]
pub struct Sort(Vec<(Path, bool)>);

/// What a document sorts by. Keys of one [`Sort`] compare with each other as the documents do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey(Vec<u8>);

impl SortKey {
    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a key is never empty in a sense that matters")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Sort {
    /// Parses `{ path: 1 | -1, … }`.
    ///
    /// # Errors
    /// `InvalidSortOrder` for another direction, `CommandNotSupported` for `$meta`.
    pub fn parse(sort: &RawDocument) -> Result<Self> {
        elements(sort)
            .map(|(name, value)| {
                budget::charge(1)?;
                let path = Path::strict(name)?;
                if matches!(value, RawBsonRef::Document(_)) {
                    return Err(Error::unsupported(format_args!("the sort expression at '{name}'")));
                }
                let is_number = crate::Number::of(value).is_some();
                match crate::integer(value) {
                    Some(1) => Ok((path, false)),
                    Some(-1) => Ok((path, true)),
                    _ => Err(Error::new(
                        if is_number { ErrorCode::InvalidSortOrder } else { ErrorCode::SortOrderType },
                        format!("$sort key ordering must be 1 (for ascending) or -1 (for descending), at '{name}'"),
                    )),
                }
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// As [`parse`](Self::parse) takes it.
    pub fn to_document(&self) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        for (path, descending) in &self.0 {
            crate::append(&mut document, path.as_str(), if *descending { -1 } else { 1 });
        }
        document
    }

    /// The paths, and whether each descends.
    pub(crate) fn fields(&self) -> &[(Path, bool)] {
        &self.0
    }

    /// Whether nothing is sorted by.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a document sorts by. As for [`Filter::matches`](crate::Filter::matches), the caller checks the budget.
    pub fn key(&self, document: &RawDocument) -> SortKey {
        let mut key = Vec::with_capacity(16 * self.0.len());
        for (path, descending) in self.0.iter().take_while(|_| budget::spend(1)) {
            push_key(&mut key, document, path, *descending);
        }
        SortKey(key)
    }

    /// What a document sorts by where an array is one value and no path leads through one, as in `$push`.
    pub(crate) fn key_of_whole(&self, document: &RawDocument) -> SortKey {
        let mut key = Vec::new();
        for (path, descending) in self.0.iter().take_while(|_| budget::spend(1)) {
            let start = key.len();
            encode_into(&mut key, path.value_in(document).unwrap_or(RawBsonRef::Null));
            turn(&mut key[start..], *descending);
        }
        SortKey(key)
    }

    /// Sorts documents, keeping the order of those that compare equal. As for [`key`](Self::key), the caller checks the
    /// budget.
    pub fn sort<T: AsRef<RawDocument>>(&self, documents: &mut [T]) {
        if !self.is_empty() {
            budget::spend(documents.len() as u64 * u64::from(documents.len().checked_ilog2().unwrap_or(0)));
            documents.sort_by_cached_key(|document| self.key(document.as_ref()));
        }
    }
}

/// Appends what a path sorts by: the least of its values, or the greatest with all bits turned. No key is the beginning of
/// another, so that what follows it decides only among equals.
fn push_key(key: &mut Vec<u8>, document: &RawDocument, path: &Path, descending: bool) {
    let start = key.len();
    path.visit_keys(document, &mut |value| {
        if key.len() == start {
            return encode_into(key, value);
        }
        let other = crate::encode_key(value);
        let better = if descending { other[..] > key[start..] } else { other[..] < key[start..] };
        if better {
            key.truncate(start);
            key.extend(other);
        }
    });
    turn(&mut key[start..], descending);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn sorted(sort: RawDocumentBuf, mut documents: Vec<RawDocumentBuf>) -> Vec<i32> {
        Sort::parse(&sort).unwrap().sort(&mut documents);
        documents.iter().map(|document| document.get_i32("_id").unwrap()).collect()
    }

    #[test]
    fn an_array_sorts_by_its_least_item_ascending_and_its_greatest_descending() {
        let documents = vec![
            rawdoc! { "_id": 1, "a": [3, 9] },
            rawdoc! { "_id": 2, "a": 4 },
            rawdoc! { "_id": 3 },
            rawdoc! { "_id": 4, "a": [] },
            rawdoc! { "_id": 5, "a": "x" },
        ];
        assert_eq!(sorted(rawdoc! { "a": 1 }, documents.clone()), [4, 3, 1, 2, 5]);
        assert_eq!(sorted(rawdoc! { "a": -1 }, documents), [5, 1, 2, 3, 4]);
    }

    #[test]
    fn equal_documents_keep_their_order_and_later_paths_decide() {
        let documents = vec![
            rawdoc! { "_id": 1, "a": 1, "b": 1 },
            rawdoc! { "_id": 2, "a": 1.0, "b": 2_i64 },
            rawdoc! { "_id": 3, "a": 0, "b": 2 },
        ];
        assert_eq!(sorted(rawdoc! { "a": 1 }, documents.clone()), [3, 1, 2]);
        assert_eq!(sorted(rawdoc! { "b": -1, "a": 1 }, documents), [3, 2, 1]);
        assert!(Sort::parse(&rawdoc! { "a": 2 }).is_err());
    }
}
