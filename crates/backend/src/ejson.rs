//! MongoDB Extended JSON v2 (<https://github.com/mongodb/specifications/blob/master/source/extended-json.md>): written in
//! its canonical flavour, which keeps every type and which all clients can read, and read in any flavour.

use std::fmt::Display;

use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{
    Bson, RawBson,
    raw::{RawBsonRef, RawDocument},
};
use serde::{
    Deserialize,
    ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer},
};
use serde_json::Value;

use crate::{Error, ErrorCode, Result};

/// A BSON value that serializes as canonical Extended JSON, without a copy in between.
#[derive(Debug, Clone, Copy)]
pub struct Canonical<'a>(pub RawBsonRef<'a>);

/// How deep JSON may be nested: as deep as a document, and what it comes in, and what its values are wrapped in.
const MAX_DEPTH: usize = query::MAX_NESTING_DEPTH + 50;

/// JSON, as deep as documents may be.
///
/// # Errors
/// Where it is none, with the place; nothing of what it holds is told.
pub fn read(json: &[u8]) -> Result<Value> {
    let refused = |message: String| Error::new(ErrorCode::BadRequest, message);
    // The parser's own limit is less than what documents may have. Without any, its stack would be the client's to fill.
    if depth(json) > MAX_DEPTH {
        return Err(refused(format!("the JSON is nested more than {MAX_DEPTH} levels deep")));
    }
    let mut parser = serde_json::Deserializer::from_slice(json);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    // The position tells enough.
    value.map_err(|error| refused(format!("this is not JSON: line {}, column {}", error.line(), error.column())))
}

/// How deep brackets are nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value of any flavour of Extended JSON as BSON.
///
/// # Errors
/// Where it is not valid; nothing of what it holds is told.
pub fn parse(value: Value) -> Result<RawBson> {
    let invalid = || Error::new(ErrorCode::BadRequest, "the value is not valid Extended JSON");
    let value = Bson::try_from(value).map_err(|_| invalid())?;
    RawBson::try_from(value).map_err(|_| invalid())
}

/// `{ "$key": value }`, the form of what JSON has no type for.
fn wrapped<S: Serializer>(serializer: S, key: &str, value: &(impl Serialize + ?Sized)) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

/// Text that is made while it is written.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An object with these members, in this order.
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

struct Long(i64);

impl Serialize for Long {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wrapped(serializer, "$numberLong", &Text(self.0))
    }
}

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
            // The shortest text that is this number again, with a point in it even where the number is whole.
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
            // Its parts are private; nobody has written one for fifteen years.
            RawBsonRef::DbPointer(_) => {
                let pointer = Bson::try_from(RawBson::from(self.0)).map_err(S::Error::custom)?;
                pointer.into_canonical_extjson().serialize(serializer)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{
        Binary, DateTime, JavaScriptCodeWithScope, Regex, Timestamp, doc, oid::ObjectId, raw::RawDocumentBuf,
        spec::BinarySubtype,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_is_written_as_the_specification_says_and_read_again() {
        let id = ObjectId::parse_str("63c1b2a1f0e1d2c3b4a59687").unwrap();
        let document = doc! {
            "double": 1.5, "whole": 2.0, "negative zero": -0.0, "large": 1e300, "infinite": f64::NEG_INFINITY,
            "text": "aé\n\"\u{0}", "nested": { "a": [1, { "b": [] }] }, "id": id, "yes": true, "nothing": Bson::Null,
            "binary": Binary { subtype: BinarySubtype::Uuid, bytes: vec![255; 16] },
            "old": Binary { subtype: BinarySubtype::BinaryOld, bytes: vec![1, 2] },
            "date": DateTime::from_millis(-1), "undefined": Bson::Undefined, "symbol": Bson::Symbol("s".into()),
            "regex": Regex { pattern: "a.b".try_into().unwrap(), options: "im".try_into().unwrap() },
            "code": Bson::JavaScriptCode("f()".into()),
            "scoped": JavaScriptCodeWithScope { code: "f()".into(), scope: doc! { "x": 1 } },
            "int": i32::MIN, "long": i64::MAX, "timestamp": Timestamp { time: u32::MAX, increment: 2 },
            "decimal": "1E-6176".parse::<bson::Decimal128>().unwrap(), "min": Bson::MinKey, "max": Bson::MaxKey,
        };
        let raw = RawDocumentBuf::try_from(document.clone()).unwrap();
        let written = serde_json::to_value(Canonical(RawBsonRef::Document(&raw))).unwrap();
        assert_eq!(written["double"], json!({ "$numberDouble": "1.5" }));
        assert_eq!(written["whole"], json!({ "$numberDouble": "2.0" }));
        assert_eq!(written["negative zero"], json!({ "$numberDouble": "-0.0" }));
        assert_eq!(written["infinite"], json!({ "$numberDouble": "-Infinity" }));
        assert_eq!(written["date"], json!({ "$date": { "$numberLong": "-1" } }));
        assert_eq!(written["binary"], json!({ "$binary": { "base64": "/////////////////////w==", "subType": "04" } }));
        assert_eq!(written["old"], json!({ "$binary": { "base64": "AQI=", "subType": "02" } }));
        assert_eq!(written["nested"], json!({ "a": [{ "$numberInt": "1" }, { "b": [] }] }));
        assert_eq!(written["scoped"], json!({ "$code": "f()", "$scope": { "x": { "$numberInt": "1" } } }));
        for (key, other) in Bson::Document(document.clone()).into_canonical_extjson().as_object().unwrap() {
            if !matches!(document.get(key), Some(Bson::Double(_))) {
                assert_eq!(&written[key], other, "{key}");
            }
        }
        assert_eq!(parse(written).unwrap(), RawBson::Document(raw));
        let nan = serde_json::to_string(&Canonical(RawBsonRef::Double(f64::NAN))).unwrap();
        assert_eq!(nan, r#"{"$numberDouble":"NaN"}"#);
    }

    #[test]
    fn json_may_be_as_deep_as_documents_and_no_deeper() {
        let nested = |levels: usize| format!("{}1{}", "[{\"\\\"[\":".repeat(levels / 2), "}]".repeat(levels / 2));
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
        let error = read(nested(MAX_DEPTH + 2).as_bytes()).unwrap_err();
        assert!(error.message.contains("nested more than 250 levels deep"), "{error}");
        assert!(read("[".repeat(1_000_000).as_bytes()).is_err());
        for (json, place) in [("", "line 1, column 0"), ("{\n x", "line 2, column 2"), ("1 2", "line 1, column 3")] {
            assert!(read(json.as_bytes()).unwrap_err().message.ends_with(place), "{json}");
        }
    }

    #[test]
    fn what_is_not_extended_json_is_refused_and_not_shown() {
        for value in [json!({ "$oid": "secret" }), json!({ "a": { "$date": "secret" } }), json!({ "$numberInt": 5 })] {
            assert!(!parse(value).unwrap_err().message.contains("secret"));
        }
    }
}
