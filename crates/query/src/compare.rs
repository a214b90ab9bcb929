//! The comparison order over all BSON types
//! (<https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/>).

use std::cmp::Ordering;

use bson::{
    raw::{RawBinaryRef, RawBsonRef, RawDocument},
    spec::BinarySubtype,
};

use crate::{
    Number, budget,
    document::{as_document, elements},
};

/// Minimum length in bytes from which a comparison of bytes is charged to the budget.
const LONG: usize = 1024;

/// The rank of a value's type in the order. Types that compare by value share a rank.
pub(crate) fn type_class(value: RawBsonRef<'_>) -> u8 {
    match value {
        RawBsonRef::MinKey => 1,
        RawBsonRef::Undefined => 3,
        RawBsonRef::Null => 5,
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => 10,
        RawBsonRef::String(_) | RawBsonRef::Symbol(_) => 15,
        RawBsonRef::Document(_) => 20,
        RawBsonRef::Array(_) => 25,
        RawBsonRef::Binary(_) => 30,
        RawBsonRef::ObjectId(_) => 35,
        RawBsonRef::Boolean(_) => 40,
        RawBsonRef::DateTime(_) => 45,
        RawBsonRef::Timestamp(_) => 47,
        RawBsonRef::RegularExpression(_) => 50,
        RawBsonRef::DbPointer(_) => 55,
        RawBsonRef::JavaScriptCode(_) => 60,
        RawBsonRef::JavaScriptCodeWithScope(_) => 65,
        RawBsonRef::MaxKey => 127,
    }
}

/// Compares two values in MongoDB's sort order: by type, then by value.
///
/// Numbers compare exactly, whatever their types; NaN is equal to itself and less than all other
/// numbers. Unlike a filter, the order never looks inside an array: two arrays compare item by
/// item. The comparison of long values is charged to the entered budget. The order is right even
/// if the budget is exhausted, so that a sort can rely on it.
///
/// ```
/// use std::cmp::Ordering;
///
/// use bson::RawBsonRef;
///
/// assert_eq!(query::compare(RawBsonRef::Int32(1), RawBsonRef::Double(1.5)), Ordering::Less);
/// assert_eq!(query::compare(RawBsonRef::String("a"), RawBsonRef::Int32(9)), Ordering::Greater);
/// ```
pub fn compare(left: RawBsonRef<'_>, right: RawBsonRef<'_>) -> Ordering {
    use RawBsonRef as V;
    let by_type = type_class(left).cmp(&type_class(right));
    if by_type.is_ne() {
        return by_type;
    }
    match (left, right) {
        (V::String(a) | V::Symbol(a), V::String(b) | V::Symbol(b)) => compare_bytes(a.as_bytes(), b.as_bytes()),
        (V::Document(a), V::Document(b)) => compare_documents(a, b),
        (V::Array(a), V::Array(b)) => compare_documents(as_document(a), as_document(b)),
        (V::Binary(a), V::Binary(b)) => binary_length(a)
            .cmp(&binary_length(b))
            .then_with(|| u8::from(a.subtype).cmp(&u8::from(b.subtype)))
            .then_with(|| compare_bytes(a.bytes, b.bytes)),
        (V::ObjectId(a), V::ObjectId(b)) => a.bytes().cmp(&b.bytes()),
        (V::Boolean(a), V::Boolean(b)) => a.cmp(&b),
        (V::DateTime(a), V::DateTime(b)) => a.timestamp_millis().cmp(&b.timestamp_millis()),
        (V::Timestamp(a), V::Timestamp(b)) => (a.time, a.increment).cmp(&(b.time, b.increment)),
        (V::RegularExpression(a), V::RegularExpression(b)) => {
            a.pattern.cmp(b.pattern).then_with(|| a.options.cmp(b.options))
        }
        (V::JavaScriptCode(a), V::JavaScriptCode(b)) => a.cmp(b),
        (V::JavaScriptCodeWithScope(a), V::JavaScriptCodeWithScope(b)) => {
            a.code.cmp(b.code).then_with(|| compare_documents(a.scope, b.scope))
        }
        (V::DbPointer(_), V::DbPointer(_)) => format!("{left:?}").cmp(&format!("{right:?}")),
        _ => match (Number::of(left), Number::of(right)) {
            (Some(a), Some(b)) => a.compare(b),
            // Null, undefined and the key bounds have one value each.
            _ => Ordering::Equal,
        },
    }
}

fn compare_bytes(left: &[u8], right: &[u8]) -> Ordering {
    let length = left.len().min(right.len());
    if length >= LONG {
        budget::spend_bytes(length);
    }
    left.cmp(right)
}

/// The stored length of binary data: the old subtype repeats the length within the data.
pub(crate) fn binary_length(binary: RawBinaryRef<'_>) -> usize {
    binary.bytes.len() + if binary.subtype == BinarySubtype::BinaryOld { 4 } else { 0 }
}

/// Compares two documents field by field: the types, then the names, then the values. A document
/// is less than any document that continues it with more fields.
pub fn compare_documents(left: &RawDocument, right: &RawDocument) -> Ordering {
    let mut right = elements(right);
    for (name, value) in elements(left) {
        let Some((other_name, other)) = right.next() else { return Ordering::Greater };
        let order = type_class(value)
            .cmp(&type_class(other))
            .then_with(|| name.cmp(other_name))
            .then_with(|| compare(value, other));
        if order.is_ne() {
            return order;
        }
    }
    if right.next().is_some() { Ordering::Less } else { Ordering::Equal }
}

/// True if two values are equal in MongoDB's order: `1`, `1.0` and `NumberLong(1)` are equal.
pub fn equal(left: RawBsonRef<'_>, right: RawBsonRef<'_>) -> bool {
    compare(left, right).is_eq()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn orders_types_then_values() {
        let values = rawdoc! {
            "v": [
                bson::RawBson::MinKey, bson::RawBson::Null, -1, 0.5, 1_i64, "a", "b", { "a": 1 }, { "a": 1, "b": 0 }, { "b": 0 }, [0], [1],
                bson::oid::ObjectId::from_bytes([1; 12]), false, true, bson::DateTime::from_millis(-1), bson::DateTime::from_millis(1),
                bson::Timestamp { time: 1, increment: 0 }, bson::RawBson::MaxKey,
            ]
        };
        let values: Vec<_> = crate::document::items(values.get_array("v").unwrap()).collect();
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                assert_eq!(compare(*a, *b), i.cmp(&j), "{a:?} against {b:?}");
            }
        }
    }
}
