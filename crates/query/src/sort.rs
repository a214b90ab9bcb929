//! Sorts by several paths. An array sorts by its least item, or by its greatest if descending.

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{
    Error, ErrorCode, Path, Result, budget,
    document::elements,
    key::{encode_into, turn},
};

/// A parsed sort specification.
///
/// ```
/// use bson::rawdoc;
/// use query::Sort;
///
/// let sort = Sort::parse(&rawdoc! { "n": -1 }).unwrap();
/// let mut documents = [rawdoc! { "n": 1 }, rawdoc! { "n": 2.5 }, rawdoc! {}];
/// sort.sort(&mut documents);
/// assert_eq!(documents, [rawdoc! { "n": 2.5 }, rawdoc! { "n": 1 }, rawdoc! {}]);
/// ```
#[derive(Debug, Clone)]
pub struct Sort(Vec<(Path, bool)>);

/// The sort key of a document. Keys of one [`Sort`] order as their documents do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey(Vec<u8>);

impl SortKey {
    /// Returns the length of the key in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a key is never empty in a sense that matters")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Sort {
    /// Parses `{ path: 1 | -1, … }`.
    ///
    /// # Errors
    /// `InvalidSortOrder` (15975) for another number, `SortOrderType` (15974) for another type,
    /// `CommandNotSupported` (115) for `$meta`, and the errors of [`Path::strict`].
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

    /// Returns the sort as a document that [`parse`](Self::parse) accepts.
    pub fn to_document(&self) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        for (path, descending) in &self.0 {
            crate::append(&mut document, path.as_str(), if *descending { -1 } else { 1 });
        }
        document
    }

    /// Returns the paths in order; the flag is true for a descending one.
    pub(crate) fn fields(&self) -> &[(Path, bool)] {
        &self.0
    }

    /// True if the sort has no fields and so keeps any order.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the sort key of a document. The caller checks the budget, as for
    /// [`Filter::matches`](crate::Filter::matches).
    pub fn key(&self, document: &RawDocument) -> SortKey {
        let mut key = Vec::with_capacity(16 * self.0.len());
        for (path, descending) in self.0.iter().take_while(|_| budget::spend(1)) {
            push_key(&mut key, document, path, *descending);
        }
        SortKey(key)
    }

    /// Returns the sort key for `$push`: an array is one value, and no path leads through an
    /// array.
    pub(crate) fn key_of_whole(&self, document: &RawDocument) -> SortKey {
        let mut key = Vec::new();
        for (path, descending) in self.0.iter().take_while(|_| budget::spend(1)) {
            let start = key.len();
            encode_into(&mut key, path.value_in(document).unwrap_or(RawBsonRef::Null));
            turn(&mut key[start..], *descending);
        }
        SortKey(key)
    }

    /// Sorts documents in place; equal ones keep their order. The caller checks the budget, as for
    /// [`key`](Self::key).
    pub fn sort<T: AsRef<RawDocument>>(&self, documents: &mut [T]) {
        if !self.is_empty() {
            budget::spend(documents.len() as u64 * u64::from(documents.len().checked_ilog2().unwrap_or(0)));
            documents.sort_by_cached_key(|document| self.key(document.as_ref()));
        }
    }
}

/// Appends the key of one path: the least of its values, or the greatest with all bits inverted.
/// No key is a prefix of another one, so that later paths decide only among equal keys.
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
    fn an_array_sorts_by_its_least_or_greatest_item() {
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
