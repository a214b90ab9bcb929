//! Functions to read and write raw documents.

use bson::{
    RawBson,
    raw::{CStr, RawBsonRef, RawDocument, RawDocumentBuf},
    spec::ElementType,
};

use crate::{Number, budget};

/// Maximum size of a stored document in bytes (16 MiB), as in the server.
pub const MAX_DOCUMENT_SIZE: usize = 16 * 1024 * 1024;

/// Maximum nesting depth of documents and arrays, as in the server.
pub const MAX_NESTING_DEPTH: usize = 200;

/// Minimum size in bytes of a document whose reading is charged to the budget. The cost of a
/// smaller one is covered by the work on its fields.
const LARGE: usize = 4096;

/// Number of elements of a large document per charge of the budget.
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
        // The `bson` crate validates strings as UTF-8.
        if kind == ElementType::String && size >= LARGE {
            budget::spend_bytes(size);
        }
    }
}

/// Iterates over the fields of a document, in order, as pairs of name and value.
///
/// The iteration ends early only at bytes that are not BSON, which
/// [`validate`](fn@crate::validate) excludes. Reading a large document is charged to the entered
/// budget, but goes on if the budget is exhausted: a loop that does expensive work for each field
/// checks the budget itself.
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

/// Returns the value of a top-level field; `key` is a name, not a path. If a name occurs twice,
/// the first one counts. The search is charged to the entered budget as [`elements`] is.
#[inline]
pub fn get<'a>(document: &'a RawDocument, key: &str) -> Option<RawBsonRef<'a>> {
    if document.as_bytes().len() >= LARGE {
        return get_in_large(document, key);
    }
    document
        .iter_elements()
        .map_while(std::result::Result::ok)
        .find(|element| element.key().as_str() == key)
        .and_then(|element| element.value().ok())
}

#[cold]
#[inline(never)]
fn get_in_large<'a>(document: &'a RawDocument, key: &str) -> Option<RawBsonRef<'a>> {
    let mut toll = Toll::default();
    let found = document.iter_elements().map_while(std::result::Result::ok).find(|element| {
        // Skipped strings are not validated.
        toll.element(ElementType::Null, 0);
        element.key().as_str() == key
    });
    found.and_then(|element| {
        toll.element(element.element_type(), element.size());
        element.value().ok()
    })
}

/// Appends a field. A name with a NUL byte cannot be a BSON key: such a field is not appended;
/// parsers reject these names before.
pub fn append<'a>(document: &mut RawDocumentBuf, key: &str, value: impl Into<RawBsonRef<'a>>) {
    if let Ok(key) = <&CStr>::try_from(key) {
        document.append(key, value.into());
    }
}

/// Returns an array's bytes as the document that they are, with the indexes as names.
pub(crate) fn as_document(array: &bson::raw::RawArray) -> &RawDocument {
    // A reachable array was read as an element, so its length and terminator have been checked.
    RawDocument::from_bytes(array.as_bytes()).unwrap_or_else(|_| empty())
}

/// Iterates over the items of an array.
pub(crate) fn items(array: &bson::raw::RawArray) -> impl Iterator<Item = RawBsonRef<'_>> {
    elements(as_document(array)).map(|(_, value)| value)
}

/// An iterator over the items of an owned array.
pub(crate) struct OwnedItems {
    bytes: Vec<u8>,
    /// Start of the unread items, which form a document: its length overwrites the end of the last
    /// item read.
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
        // The type, the name with its terminator, and the value.
        let next = self.start + 1 + element.key().as_str().len() + 1 + element.size();
        let left = i32::try_from(self.bytes.len().checked_sub(next)?).ok()?;
        self.bytes.get_mut(next..next + 4)?.copy_from_slice(&left.to_le_bytes());
        self.start = next;
        Some(item)
    }
}

/// Parses a part of a path as an array index: digits without a leading zero.
pub(crate) fn array_index(part: &str) -> Option<usize> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (part == "0" || !part.starts_with('0'))).then(|| part.parse().ok())?
}

/// Calls a function that recurses as deeply as documents nest, on a stack with enough room.
pub(crate) fn with_stack<T>(call: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(128 * 1024, 1024 * 1024, call)
}

pub(crate) fn empty() -> &'static RawDocument {
    static EMPTY: std::sync::OnceLock<RawDocumentBuf> = std::sync::OnceLock::new();
    EMPTY.get_or_init(RawDocumentBuf::new)
}

/// Returns the name of a value's type, as `$type` and error messages use it.
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

/// Returns an integer that was given as any numeric type, for limits and counts. `None` if the
/// value is not a number, has a fraction, or is beyond an int64.
pub fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    Number::of(value)?.to_integer()
}

/// Returns the size in bytes of a value that can be large; 0 for all other types.
pub(crate) fn size_of(value: &RawBson) -> usize {
    match value {
        RawBson::String(text) => text.len(),
        RawBson::Document(document) => document.as_bytes().len(),
        RawBson::Array(array) => array.as_bytes().len(),
        RawBson::Binary(binary) => binary.bytes.len(),
        _ => 0,
    }
}

/// True if a value counts as true when the server expects a flag.
pub(crate) fn truthy(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Boolean(value) => value,
        RawBsonRef::Null | RawBsonRef::Undefined => false,
        value => Number::of(value).is_none_or(|number| number.compare(Number::Int32(0)).is_ne()),
    }
}
