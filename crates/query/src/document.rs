//! Reading and writing raw documents.

use bson::raw::{CStr, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::Number;

/// The largest document that the server stores, in bytes.
pub const MAX_DOCUMENT_SIZE: usize = 16 * 1024 * 1024;

/// How deeply documents and arrays may be nested, as in the server.
pub const MAX_NESTING_DEPTH: usize = 200;

/// The fields of a document in their order. Ends early only where the bytes are not BSON, which [`validate`](crate::validate) excludes.
pub fn elements(document: &RawDocument) -> impl Iterator<Item = (&str, RawBsonRef<'_>)> {
    document.iter_elements().map_while(|element| {
        let element = element.ok()?;
        Some((element.key().as_str(), element.value().ok()?))
    })
}

/// The value of a top-level field.
pub fn get<'a>(document: &'a RawDocument, key: &str) -> Option<RawBsonRef<'a>> {
    document
        .iter_elements()
        .map_while(|element| element.ok())
        .find(|element| element.key().as_str() == key)
        .and_then(|element| element.value().ok())
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

/// Whether a value counts as true where the server expects a flag.
pub(crate) fn truthy(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Boolean(value) => value,
        RawBsonRef::Null | RawBsonRef::Undefined => false,
        value => Number::of(value).is_none_or(|number| number.compare(Number::Int32(0)).is_ne()),
    }
}
