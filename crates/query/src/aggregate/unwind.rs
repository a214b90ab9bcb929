//! `$unwind`: outputs a document for each item of an array.

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::{computed::set_in, project::field_path};
use crate::{
    Error, ErrorCode, Path, Result, budget,
    document::{OwnedItems, elements, type_name},
};

#[derive(Debug, Clone)]
pub(super) struct Unwind {
    path: Path,
    index: Option<Path>,
    keep_empty: bool,
}

/// The documents that one document becomes, created lazily.
pub(super) enum Unwound<'a> {
    Items { unwind: &'a Unwind, document: RawDocumentBuf, items: std::iter::Enumerate<OwnedItems> },
    One(std::option::IntoIter<Result<RawDocumentBuf>>),
}

impl Unwind {
    pub(super) fn parse(value: RawBsonRef<'_>) -> Result<Self> {
        let invalid = |message: &str| Error::new(ErrorCode::InvalidUnwind, message.to_owned());
        let path = |text: &str| match text.strip_prefix('$') {
            Some(path) => field_path(path),
            None => Err(invalid(&format!("path option to $unwind stage should be prefixed with a '$': {text}"))),
        };
        match value {
            RawBsonRef::String(text) => Ok(Self { path: path(text)?, index: None, keep_empty: false }),
            RawBsonRef::Document(options) => {
                let mut unwind = Self { path: Path::new(""), index: None, keep_empty: false };
                for (name, value) in elements(options) {
                    match (name, value) {
                        ("path", RawBsonRef::String(text)) => unwind.path = path(text)?,
                        ("includeArrayIndex", RawBsonRef::String(text)) => unwind.index = Some(field_path(text)?),
                        ("preserveNullAndEmptyArrays", RawBsonRef::Boolean(keep)) => unwind.keep_empty = keep,
                        _ => {
                            return Err(invalid(&format!(
                                "unrecognized or wrongly typed option to $unwind stage: {name}"
                            )));
                        }
                    }
                }
                if unwind.path.as_str().is_empty() {
                    return Err(invalid("no path specified to $unwind stage"));
                }
                Ok(unwind)
            }
            other => Err(invalid(&format!(
                "expected either a string or an object as specification for $unwind stage, got {}",
                type_name(other)
            ))),
        }
    }

    /// Returns the documents that a document becomes; passes an error through.
    pub(super) fn apply(&self, document: Result<RawDocumentBuf>) -> Unwound<'_> {
        let document = match document {
            Ok(document) => document,
            Err(error) => return Unwound::One(Some(Err(error)).into_iter()),
        };
        let one = match self.path.value_in(&document) {
            Some(RawBsonRef::Array(array)) if !array.is_empty() => {
                let items = OwnedItems::new(array).enumerate();
                return Unwound::Items { unwind: self, document, items };
            }
            Some(RawBsonRef::Array(_)) => self.keep_empty.then(|| {
                let document = set_in(&document, self.path.parts(), None)?;
                self.with_index(document, None)
            }),
            None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => {
                self.keep_empty.then(|| self.with_index(document.clone(), None))
            }
            Some(_) => Some(self.with_index(document.clone(), None)),
        };
        Unwound::One(one.into_iter())
    }

    fn with_item(&self, document: &RawDocument, item: &RawBson, index: usize) -> Result<RawDocumentBuf> {
        budget::charge(1)?;
        self.with_index(set_in(document, self.path.parts(), Some(item))?, Some(index))
    }

    fn with_index(&self, document: RawDocumentBuf, index: Option<usize>) -> Result<RawDocumentBuf> {
        let Some(path) = &self.index else { return Ok(document) };
        let index = index.map_or(RawBson::Null, |index| RawBson::Int64(index as i64));
        set_in(&document, path.parts(), Some(&index))
    }
}

impl Iterator for Unwound<'_> {
    type Item = Result<RawDocumentBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Items { unwind, document, items } => {
                let (index, item) = items.next()?;
                Some(unwind.with_item(document, &item, index))
            }
            Self::One(one) => one.next(),
        }
    }
}
