use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{
    Binary, Bson, DateTime, RawBson, Regex, Timestamp,
    oid::ObjectId,
    raw::{CString, RawArrayBuf, RawDocumentBuf, RawJavaScriptCodeWithScope},
    spec::BinarySubtype,
    uuid::Uuid,
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{Error, ErrorCode, Result};

/// How deep JSON may be nested: as deep as a document, and what it comes in, and what its values are wrapped in.
pub(super) const MAX_DEPTH: usize = query::MAX_NESTING_DEPTH + 50;

/// JSON as it was read: text without escapes is not copied, and members keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A whole number that is an `i64`.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(Vec<(Cow<'a, str>, Self)>),
}

/// JSON, as deep as documents may be.
///
/// # Errors
/// Where it is none, with the place; nothing of what it holds is told.
pub fn read(json: &[u8]) -> Result<Json<'_>> {
    let refused = |message: String| Error::new(ErrorCode::BadRequest, message);
    // The parser's own limit is less than what documents may have. Without any, its stack would be the client's to fill.
    if depth(json) > MAX_DEPTH {
        return Err(refused(format!("the JSON is nested more than {MAX_DEPTH} levels deep")));
    }
    let mut parser = serde_json::Deserializer::from_slice(json);
    parser.disable_recursion_limit();
    let value = Json::deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    // The position tells enough.
    value.map_err(|error| refused(format!("this is not JSON: line {}, column {}", error.line(), error.column())))
}

/// How deep brackets are nested.
pub(super) fn depth(json: &[u8]) -> usize {
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

impl<'a> Json<'a> {
    /// A member of an object; of two of one name the last.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().rfind(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Takes a member out of an object.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Object(members) => {
                let place = members.iter().rposition(|(name, _)| name == key)?;
                Some(members.remove(place).1)
            }
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The BSON value that it is as Extended JSON of any flavour.
    ///
    /// # Errors
    /// Where it is not valid; nothing of what it holds is told.
    pub fn into_bson(self) -> Result<RawBson> {
        self.convert().ok_or_else(|| Error::new(ErrorCode::BadRequest, "the value is not valid Extended JSON"))
    }

    fn convert(self) -> Option<RawBson> {
        Some(match self {
            Self::Null => RawBson::Null,
            Self::Boolean(value) => RawBson::Boolean(value),
            Self::Integer(number) => i32::try_from(number).map_or(RawBson::Int64(number), RawBson::Int32),
            Self::Number(number) => RawBson::Double(number),
            Self::Text(text) => RawBson::String(text.into_owned()),
            Self::Array(items) => {
                let mut array = RawArrayBuf::new();
                for item in items {
                    array.push(item.convert()?);
                }
                RawBson::Array(array)
            }
            Self::Object(members) => match members.first() {
                Some((key, _)) if is_wrapper(key) => unwrap(members)?,
                _ => RawBson::Document(document(members)?),
            },
        })
    }

    fn into_document(self) -> Option<RawDocumentBuf> {
        match self.convert()? {
            RawBson::Document(document) => Some(document),
            _ => None,
        }
    }

    fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        self.as_str()?.parse().ok()
    }
}

fn document(members: Vec<(Cow<'_, str>, Json<'_>)>) -> Option<RawDocumentBuf> {
    let mut document = RawDocumentBuf::new();
    for (key, value) in members {
        // A name with a NUL byte cannot be a field's.
        let key = CString::try_from(key.as_ref()).ok()?;
        document.append(key, value.convert()?);
    }
    Some(document)
}

/// Whether an object that begins with this key stands for a value of a type that JSON has not.
pub(super) fn is_wrapper(key: &str) -> bool {
    const WRAPPERS: [&str; 17] = [
        "$binary",
        "$code",
        "$date",
        "$dbPointer",
        "$maxKey",
        "$minKey",
        "$numberDecimal",
        "$numberDouble",
        "$numberInt",
        "$numberLong",
        "$oid",
        "$regularExpression",
        "$scope",
        "$symbol",
        "$timestamp",
        "$undefined",
        "$uuid",
    ];
    key.starts_with('$') && WRAPPERS.contains(&key)
}

/// The value of a wrapper, which has exactly the members that belong to it.
pub(super) fn unwrap(members: Vec<(Cow<'_, str>, Json<'_>)>) -> Option<RawBson> {
    match <[_; 2]>::try_from(members) {
        Ok([(first, one), (second, other)]) => match (&*first, &*second) {
            ("$code", "$scope") => with_scope(&one, other),
            ("$scope", "$code") => with_scope(&other, one),
            // Of version 1.
            ("$binary", "$type") => binary(&one, &other),
            _ => None,
        },
        Err(members) => match <[_; 1]>::try_from(members) {
            Ok([(key, value)]) => unwrap_one(&key, value),
            Err(_) => None,
        },
    }
}

fn unwrap_one(key: &str, value: Json<'_>) -> Option<RawBson> {
    let text = || value.as_str().map(str::to_owned);
    Some(match key {
        "$binary" => binary(value.get("base64")?, value.get("subType")?)?,
        "$code" => RawBson::JavaScriptCode(text()?),
        "$date" => RawBson::DateTime(date(&value)?),
        // Its parts are private, and nobody has written one for fifteen years.
        "$dbPointer" => {
            let pointer = serde_json::json!({
                "$ref": value.get("$ref")?.as_str()?,
                "$id": { "$oid": value.get("$id")?.get("$oid")?.as_str()? },
            });
            RawBson::try_from(Bson::try_from(serde_json::json!({ "$dbPointer": pointer })).ok()?).ok()?
        }
        "$maxKey" => value.as_i64().filter(|&one| one == 1).map(|_| RawBson::MaxKey)?,
        "$minKey" => value.as_i64().filter(|&one| one == 1).map(|_| RawBson::MinKey)?,
        "$numberDecimal" => RawBson::Decimal128(value.parse()?),
        "$numberDouble" => RawBson::Double(match value.as_str()? {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            number => number.parse().ok().filter(|number: &f64| number.is_finite())?,
        }),
        "$numberInt" => RawBson::Int32(value.parse()?),
        "$numberLong" => RawBson::Int64(value.parse()?),
        "$oid" => RawBson::ObjectId(ObjectId::parse_str(value.as_str()?).ok()?),
        "$regularExpression" => {
            let part = |key| value.get(key)?.as_str()?.to_owned().try_into().ok();
            RawBson::RegularExpression(Regex { pattern: part("pattern")?, options: part("options")? })
        }
        "$symbol" => RawBson::Symbol(text()?),
        "$timestamp" => {
            let part = |key| value.get(key)?.as_i64()?.try_into().ok();
            RawBson::Timestamp(Timestamp { time: part("t")?, increment: part("i")? })
        }
        "$undefined" if value == Json::Boolean(true) => RawBson::Undefined,
        "$uuid" => {
            let bytes = Uuid::parse_str(value.as_str()?).ok()?.bytes().to_vec();
            RawBson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes })
        }
        _ => return None,
    })
}

fn with_scope(code: &Json<'_>, scope: Json<'_>) -> Option<RawBson> {
    let (code, scope) = (code.as_str()?.to_owned(), scope.into_document()?);
    Some(RawBson::JavaScriptCodeWithScope(RawJavaScriptCodeWithScope { code, scope }))
}

fn binary(base64: &Json<'_>, subtype: &Json<'_>) -> Option<RawBson> {
    let bytes = STANDARD.decode(base64.as_str()?).ok()?;
    let is_hex =
        |digits: &&str| (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let subtype = u8::from_str_radix(subtype.as_str().filter(is_hex)?, 16).ok()?;
    Some(RawBson::Binary(Binary { subtype: subtype.into(), bytes }))
}

/// A date as the canonical flavour has it, as the relaxed one, or as version 1 had it.
fn date(value: &Json<'_>) -> Option<DateTime> {
    match value {
        Json::Text(text) => DateTime::parse_rfc3339_str(text).ok(),
        Json::Integer(milliseconds) => Some(DateTime::from_millis(*milliseconds)),
        Json::Object(members) if members.len() == 1 => value.get("$numberLong")?.parse().map(DateTime::from_millis),
        _ => None,
    }
}

/// Text that is borrowed where it can be.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfKey;

        impl<'de> Visitor<'de> for OfKey {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(OfKey)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfJson;

        impl<'de> Visitor<'de> for OfJson {
            type Value = Json<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json<'de>, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
                Ok(Json::Boolean(value))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
                Ok(Json::Integer(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
                Ok(i64::try_from(number).map_or(Json::Number(number as f64), Json::Integer))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
                Ok(Json::Number(number))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
                Ok(Json::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
                Ok(Json::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
                let mut array = Vec::new();
                while let Some(item) = items.next_element()? {
                    array.push(item);
                }
                Ok(Json::Array(array))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
                let mut object = Vec::new();
                while let Some((Key(key), value)) = members.next_entry()? {
                    object.push((key, value));
                }
                Ok(Json::Object(object))
            }
        }

        deserializer.deserialize_any(OfJson)
    }
}
