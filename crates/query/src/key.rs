//! Index keys: bytes whose order is the order of [`compare`](crate::compare). Equal values of
//! different numeric types have the same key.

use bson::raw::{RawBsonRef, RawDocument};

use crate::{
    Number, budget,
    compare::{binary_length, type_class},
    decimal::Parts,
    document::{as_document, elements},
};

/// Encodes a value as an index key.
///
/// Keys order bytewise as [`compare`](crate::compare) orders the values, and two values have the
/// same key exactly if they are equal. Long keys are charged to the entered budget.
///
/// ```
/// use bson::RawBsonRef;
///
/// let one = query::encode_key(RawBsonRef::Int32(1));
/// assert_eq!(one, query::encode_key(RawBsonRef::Double(1.0)));
/// assert!(one < query::encode_key(RawBsonRef::Double(1.5)));
/// ```
pub fn encode(value: RawBsonRef<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    encode_into(&mut key, value);
    key
}

/// Minimum length in bytes from which a key is charged to the budget.
const LONG: usize = 1024;

/// Inverts a key for a descending field.
pub(crate) fn turn(key: &mut [u8], descending: bool) {
    if descending {
        key.iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// Appends the key of a value.
pub(crate) fn encode_into(key: &mut Vec<u8>, value: RawBsonRef<'_>) {
    let start = key.len();
    key.push(type_class(value));
    push_body(key, value);
    if key.len() - start >= LONG {
        budget::spend_bytes(key.len() - start);
    }
}

fn push_body(key: &mut Vec<u8>, value: RawBsonRef<'_>) {
    if let Some(number) = Number::of(value) {
        return push_number(key, number);
    }
    match value {
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) | RawBsonRef::JavaScriptCode(text) => push_text(key, text),
        RawBsonRef::Document(document) => push_document(key, document),
        RawBsonRef::Array(array) => push_document(key, as_document(array)),
        RawBsonRef::Binary(binary) => {
            key.extend((binary_length(binary) as u32).to_be_bytes());
            key.push(binary.subtype.into());
            key.extend(binary.bytes);
        }
        RawBsonRef::ObjectId(id) => key.extend(id.bytes()),
        RawBsonRef::Boolean(value) => key.push(value.into()),
        RawBsonRef::DateTime(date) => key.extend(ordered_i64(date.timestamp_millis())),
        RawBsonRef::Timestamp(value) => {
            key.extend(value.time.to_be_bytes());
            key.extend(value.increment.to_be_bytes());
        }
        RawBsonRef::RegularExpression(regex) => {
            push_text(key, regex.pattern.as_str());
            push_text(key, regex.options.as_str());
        }
        RawBsonRef::JavaScriptCodeWithScope(code) => {
            push_text(key, code.code);
            push_document(key, code.scope);
        }
        RawBsonRef::DbPointer(_) => push_text(key, &format!("{value:?}")),
        _ => {}
    }
}

fn push_document(key: &mut Vec<u8>, document: &RawDocument) {
    for (name, value) in elements(document) {
        key.push(type_class(value));
        push_text(key, name);
        push_body(key, value);
    }
    // The terminator is below every type class, so that a prefix orders first.
    key.push(0);
}

/// Escapes NUL bytes and ends with a terminator below every byte, so that a prefix orders first.
fn push_text(key: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend([0, 0]);
}

fn ordered_i64(value: i64) -> [u8; 8] {
    ((value as u64) ^ (1 << 63)).to_be_bytes()
}

/// Encodes the nearest double, then the side of it on which the number lies. Only if the double is
/// inexact, the digits follow. So most keys are nine bytes long, and different numbers never share
/// one.
fn push_number(key: &mut Vec<u8>, number: Number) {
    let nearest = number.to_f64();
    if nearest.is_nan() {
        key.extend([0; 9]);
        return;
    }
    let nearest = if nearest == 0.0 { 0.0 } else { nearest };
    let bits = nearest.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | (1 << 63) };
    key.extend(ordered.to_be_bytes());
    let side = number.compare(Number::Double(nearest));
    // NaN uses zero.
    key.push((2 + side as i8) as u8);
    if side.is_ne()
        && let Parts::Finite { negative, coefficient, exponent } = number.parts()
    {
        let (digits, magnitude) = Parts::normalized(coefficient, exponent);
        let start = key.len();
        key.extend(((magnitude + 0x4000) as u16).to_be_bytes());
        key.extend(digits.bytes());
        key.push(0);
        if negative {
            key[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::RawBson;
    use proptest::prelude::*;

    use super::*;
    use crate::compare;

    fn number() -> impl Strategy<Value = RawBson> {
        let near =
            prop_oneof![Just(0i64), Just(1 << 53), Just(-(1 << 53)), Just(i64::MAX), Just(i64::MIN), any::<i64>()];
        prop_oneof![
            any::<i32>().prop_map(RawBson::Int32),
            (near.clone(), -2i64..=2).prop_map(|(base, step)| RawBson::Int64(base.saturating_add(step))),
            any::<f64>().prop_map(RawBson::Double),
            (near.clone(), -2i64..=2).prop_map(|(base, step)| RawBson::Double(base.saturating_add(step) as f64)),
            (near, -40i32..40)
                .prop_map(|(digits, exponent)| RawBson::Decimal128(format!("{digits}E{exponent}").parse().unwrap())),
            (any::<i16>(), -3i32..3)
                .prop_map(|(digits, exponent)| RawBson::Decimal128(format!("{digits}E{exponent}").parse().unwrap())),
        ]
    }

    fn value() -> impl Strategy<Value = RawBson> {
        let leaf = prop_oneof![
            4 => number(),
            2 => "[a-c\\x00]{0,4}".prop_map(RawBson::String),
            1 => any::<bool>().prop_map(RawBson::Boolean),
            1 => Just(RawBson::Null),
            1 => any::<i64>().prop_map(|ms| RawBson::DateTime(bson::DateTime::from_millis(ms))),
            1 => any::<[u8; 12]>().prop_map(|bytes| RawBson::ObjectId(bson::oid::ObjectId::from_bytes(bytes))),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| {
                    let mut array = bson::raw::RawArrayBuf::new();
                    items.into_iter().for_each(|item| array.push(item));
                    RawBson::Array(array)
                }),
                proptest::collection::vec(("[a-c]{1,2}", inner), 0..3).prop_map(|fields| {
                    let mut document = bson::raw::RawDocumentBuf::new();
                    fields.iter().for_each(|(name, value)| crate::append(&mut document, name, value));
                    RawBson::Document(document)
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn keys_order_as_values(a in value(), b in value()) {
            let (a, b) = (a.as_raw_bson_ref(), b.as_raw_bson_ref());
            prop_assert_eq!(encode(a).cmp(&encode(b)), compare(a, b), "{:?} {:?}", a, b);
        }

        #[test]
        fn keys_order_as_numbers(a in number(), b in number()) {
            let (a, b) = (a.as_raw_bson_ref(), b.as_raw_bson_ref());
            prop_assert_eq!(encode(a).cmp(&encode(b)), compare(a, b), "{:?} {:?}", a, b);
        }
    }
}
