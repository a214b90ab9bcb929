use std::fmt::Display;

use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{
    Bson, RawBson,
    raw::{RawBsonRef, RawDocument},
};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};

/// A BSON value that serializes as canonical Extended JSON, without an intermediate copy.
///
/// Numbers keep their types: an `int32` becomes `{ "$numberInt": "5" }`, a `double`
/// `{ "$numberDouble": "5.0" }`. Serialization fails if the BSON bytes are malformed.
///
/// # Examples
/// ```
/// let value = bson::RawBson::Int64(5);
/// let canonical = ejson::Canonical(value.as_raw_bson_ref());
/// let text = serde_json::to_string(&canonical).unwrap_or_default();
/// assert_eq!(text, r#"{"$numberLong":"5"}"#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Canonical<'a>(pub RawBsonRef<'a>);

/// Serializes `{ "$key": value }`, the format of a value whose type JSON does not have.
fn wrapped<S: Serializer>(serializer: S, key: &str, value: &(impl Serialize + ?Sized)) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

/// A string that is formatted during serialization.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An object with the given members in the given order.
struct Object<'a>(&'a [(&'a str, RawBsonRef<'a>)]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &Canonical(*value))?;
        }
        map.end()
    }
}

/// The object `{ "t": …, "i": … }` of a timestamp.
struct TimestampParts {
    time: u32,
    increment: u32,
}

impl Serialize for TimestampParts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("t", &self.time)?;
        map.serialize_entry("i", &self.increment)?;
        map.end()
    }
}

/// An `int64`.
struct Long(i64);

impl Serialize for Long {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wrapped(serializer, "$numberLong", &Text(self.0))
    }
}

/// The members of a document.
struct Members<'a>(&'a RawDocument);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for member in self.0 {
            let (key, value) = member.map_err(S::Error::custom)?;
            map.serialize_entry(key.as_str(), &Canonical(value))?;
        }
        map.end()
    }
}

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = RawBsonRef::String;
        match self.0 {
            RawBsonRef::Double(number) if number.is_nan() => wrapped(serializer, "$numberDouble", "NaN"),
            RawBsonRef::Double(number) if number.is_infinite() => {
                wrapped(serializer, "$numberDouble", if number > 0.0 { "Infinity" } else { "-Infinity" })
            }
            // The shortest text that parses to this number, always with a decimal point.
            RawBsonRef::Double(number) => wrapped(serializer, "$numberDouble", &Text(format_args!("{number:?}"))),
            RawBsonRef::String(text) => serializer.serialize_str(text),
            RawBsonRef::Document(document) => Members(document).serialize(serializer),
            RawBsonRef::Array(array) => {
                let mut items = serializer.serialize_seq(None)?;
                for item in array {
                    items.serialize_element(&Self(item.map_err(S::Error::custom)?))?;
                }
                items.end()
            }
            RawBsonRef::Binary(binary) => {
                let base64 = STANDARD.encode(binary.bytes);
                let kind = format!("{:02x}", u8::from(binary.subtype));
                let parts = [("base64", text(&base64)), ("subType", text(&kind))];
                wrapped(serializer, "$binary", &Object(&parts))
            }
            RawBsonRef::Undefined => wrapped(serializer, "$undefined", &true),
            RawBsonRef::ObjectId(id) => wrapped(serializer, "$oid", &Text(id)),
            RawBsonRef::Boolean(value) => serializer.serialize_bool(value),
            RawBsonRef::DateTime(time) => wrapped(serializer, "$date", &Long(time.timestamp_millis())),
            RawBsonRef::Null => serializer.serialize_unit(),
            RawBsonRef::RegularExpression(expression) => {
                let parts =
                    [("pattern", text(expression.pattern.as_str())), ("options", text(expression.options.as_str()))];
                wrapped(serializer, "$regularExpression", &Object(&parts))
            }
            RawBsonRef::JavaScriptCode(code) => wrapped(serializer, "$code", code),
            RawBsonRef::JavaScriptCodeWithScope(code) => {
                Object(&[("$code", text(code.code)), ("$scope", RawBsonRef::Document(code.scope))])
                    .serialize(serializer)
            }
            RawBsonRef::Symbol(symbol) => wrapped(serializer, "$symbol", symbol),
            RawBsonRef::Int32(number) => wrapped(serializer, "$numberInt", &Text(number)),
            RawBsonRef::Int64(number) => Long(number).serialize(serializer),
            RawBsonRef::Timestamp(timestamp) => {
                let parts = TimestampParts { time: timestamp.time, increment: timestamp.increment };
                wrapped(serializer, "$timestamp", &parts)
            }
            RawBsonRef::Decimal128(number) => wrapped(serializer, "$numberDecimal", &Text(number)),
            RawBsonRef::MinKey => wrapped(serializer, "$minKey", &1),
            RawBsonRef::MaxKey => wrapped(serializer, "$maxKey", &1),
            // The fields of a DBPointer are private in `bson`. BSON has deprecated this type.
            RawBsonRef::DbPointer(_) => {
                let pointer = Bson::try_from(RawBson::from(self.0)).map_err(S::Error::custom)?;
                pointer.into_canonical_extjson().serialize(serializer)
            }
        }
    }
}
