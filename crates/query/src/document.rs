//! Reading and writing raw documents.

use bson::{
    RawBson,
    raw::{CStr, RawBsonRef, RawDocument, RawDocumentBuf},
    spec::ElementType,
};

use crate::{Number, budget};

/// The largest document that the server stores, in bytes.
pub const MAX_DOCUMENT_SIZE: usize = 16 * 1024 * 1024;

/// How deeply documents and arrays may be nested, as in the server.
pub const MAX_NESTING_DEPTH: usize = 200;

/// Bytes of a document from which on reading it is charged to the budget. A smaller one costs what is done with its fields.
const LARGE: usize = 4096;

/// Elements of a large document that are read before the budget is charged for them.
const ELEMENTS_A_CHARGE: u32 = 64;

/// Charges the budget for the elements of a large document as they are read.
#[derive(Default)]
struct Toll {
    read: u32,
}

impl Toll {
    #[cold]
    #[inline(never)]
    fn element(&mut self, kind: ElementType, size: usize) {
        self.read += 1;
        if self.read == ELEMENTS_A_CHARGE {
            budget::spend(self.read.into());
            self.read = 0;
        }
        // Text is checked to be UTF-8.
        if kind == ElementType::String && size >= LARGE {
            budget::spend_bytes(size);
        }
    }
}

/// The fields of a document in their order. Ends early only where the bytes are not BSON, which [`validate`] excludes.
///
/// Reading is charged to the entered budget, but goes on when that is exhausted: a loop that does more for each field
/// than to look at it checks the budget itself.
#[inline]
pub fn elements(document: &RawDocument) -> impl Iterator<Item = (&str, RawBsonRef<'_>)> {
    let mut toll = (document.as_bytes().len() >= LARGE).then(Toll::default);
    document.iter_elements().map_while(move |element| {
        let element = element.ok()?;
        if let Some(toll) = &mut toll {
            toll.element(element.element_type(), element.size());
        }
        Some((element.key().as_str(), element.value().ok()?))
    })
}

/// The value of a top-level field. The search is charged to the entered budget as [`elements`] is.
#[inline]
pub fn get<'a>(document: &'a RawDocument, key: &str) -> Option<RawBsonRef<'a>> {
    if document.as_bytes().len() >= LARGE {
        return get_in_large(document, key);
    }
    document
        .iter_elements()
        .map_while(|element| element.ok())
        .find(|element| element.key().as_str() == key)
        .and_then(|element| element.value().ok())
}

#[cold]
#[inline(never)]
fn get_in_large<'a>(document: &'a RawDocument, key: &str) -> Option<RawBsonRef<'a>> {
    let mut toll = Toll::default();
    let found = document.iter_elements().map_while(|element| element.ok()).find(|element| {
        // Text that is passed is not checked.
        toll.element(ElementType::Null, 0);
        element.key().as_str() == key
    });
    found.and_then(|element| {
        toll.element(element.element_type(), element.size());
        element.value().ok()
    })
}

/// Appends a field. A name with a NUL byte cannot be a BSON key; parsers refuse such names before they get here.
pub fn append<'a>(document: &mut RawDocumentBuf, key: &str, value: impl Into<RawBsonRef<'a>>) {
    if let Ok(key) = <&CStr>::try_from(key) {
        document.append(key, value.into());
    }
}

/// An array's bytes read as the document that they are, with the indexes for names.
pub(crate) fn as_document(array: &bson::raw::RawArray) -> &RawDocument {
    // An array that could be reached was read as a document's element, so its frame has been checked.
    RawDocument::from_bytes(array.as_bytes()).unwrap_or_else(|_| empty())
}

/// The items of an array.
pub(crate) fn items(array: &bson::raw::RawArray) -> impl Iterator<Item = RawBsonRef<'_>> {
    elements(as_document(array)).map(|(_, value)| value)
}

/// The items of an array that is owned, one after the other.
pub(crate) struct OwnedItems {
    bytes: Vec<u8>,
    /// Where what is left begins, as a document of its own: its length stands over the end of what was read.
    start: usize,
}

impl OwnedItems {
    pub(crate) fn new(array: &bson::raw::RawArray) -> Self {
        Self { bytes: array.as_bytes().to_vec(), start: 0 }
    }
}

impl Iterator for OwnedItems {
    type Item = RawBson;

    fn next(&mut self) -> Option<Self::Item> {
        let element = RawDocument::from_bytes(self.bytes.get(self.start..)?).ok()?.iter_elements().next()?.ok()?;
        let item = element.value().ok()?.into();
        // The type, the name and its end, and the value.
        let next = self.start + 1 + element.key().as_str().len() + 1 + element.size();
        let left = i32::try_from(self.bytes.len().checked_sub(next)?).ok()?;
        self.bytes.get_mut(next..next + 4)?.copy_from_slice(&left.to_le_bytes());
        self.start = next;
        Some(item)
    }
}

/// The place in an array that a part of a path names: digits without a leading zero.
pub(crate) fn array_index(part: &str) -> Option<usize> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (part == "0" || !part.starts_with('0'))).then(|| part.parse().ok())?
}

/// Calls a function that calls itself as deep as documents are nested, on a stack that has room for it.
pub(crate) fn with_stack<T>(call: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(128 * 1024, 1024 * 1024, call)
}

pub(crate) fn empty() -> &'static RawDocument {
    static EMPTY: std::sync::OnceLock<RawDocumentBuf> = std::sync::OnceLock::new();
    EMPTY.get_or_init(RawDocumentBuf::new)
}

/// The name of a value's type as `$type` and error messages have it.
pub fn type_name(value: RawBsonRef<'_>) -> &'static str {
    match value {
        RawBsonRef::Double(_) => "double",
        RawBsonRef::String(_) => "string",
        RawBsonRef::Array(_) => "array",
        RawBsonRef::Document(_) => "object",
        RawBsonRef::Boolean(_) => "bool",
        RawBsonRef::Null => "null",
        RawBsonRef::RegularExpression(_) => "regex",
        RawBsonRef::JavaScriptCode(_) => "javascript",
        RawBsonRef::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        RawBsonRef::Int32(_) => "int",
        RawBsonRef::Int64(_) => "long",
        RawBsonRef::Timestamp(_) => "timestamp",
        RawBsonRef::Binary(_) => "binData",
        RawBsonRef::ObjectId(_) => "objectId",
        RawBsonRef::DateTime(_) => "date",
        RawBsonRef::Symbol(_) => "symbol",
        RawBsonRef::Decimal128(_) => "decimal",
        RawBsonRef::Undefined => "undefined",
        RawBsonRef::MaxKey => "maxKey",
        RawBsonRef::MinKey => "minKey",
        RawBsonRef::DbPointer(_) => "dbPointer",
    }
}

/// A whole number given as any numeric type, for limits and counts.
pub fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    Number::of(value)?.to_integer()
}

/// The bytes of a value that can be large.
pub(crate) fn size_of(value: &RawBson) -> usize {
    match value {
        RawBson::String(text) => text.len(),
        RawBson::Document(document) => document.as_bytes().len(),
        RawBson::Array(array) => array.as_bytes().len(),
        RawBson::Binary(binary) => binary.bytes.len(),
        _ => 0,
    }
}

/// Whether a value counts as true where the server expects a flag.
pub(crate) fn truthy(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Boolean(value) => value,
        RawBsonRef::Null | RawBsonRef::Undefined => false,
        value => Number::of(value).is_none_or(|number| number.compare(Number::Int32(0)).is_ne()),
    }
}
