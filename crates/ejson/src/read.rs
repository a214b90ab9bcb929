//! Reads JSON into trees, and converts type wrappers such as `{ "$oid": … }` to BSON values.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{
    Binary, Bson, DateTime, RawBson, Regex, Timestamp,
    oid::ObjectId,
    raw::{CString, RawJavaScriptCodeWithScope},
    spec::BinarySubtype,
    uuid::Uuid,
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    convert::{self, Reading},
    names,
};
use crate::{Error, Result};

/// The maximum nesting depth of JSON: the maximum depth of a document, plus 50 levels for the
/// envelope and the type wrappers.
pub(super) const MAX_DEPTH: usize = query::MAX_NESTING_DEPTH + 50;

/// The maximum number of values in JSON that is completely read into a tree. Only the outermost
/// levels of larger JSON become a tree, because a tree needs up to 27 times the memory of its
/// text.
const MAX_TREE: usize = 16 * 1024;

/// The maximum total size in bytes of small values within large JSON that are read into trees.
/// Further values stay text until they are converted to BSON.
const MAX_TREES: usize = 1024 * 1024;

/// The maximum size of the scope of a JavaScript function, in bytes. The maximum size of a
/// document is the same.
const MAX_SCOPE: usize = 16 * 1024 * 1024;

/// The maximum number of nested scopes of JavaScript functions. Each level is converted
/// separately, so a client could otherwise multiply the work and the memory by the nesting depth.
const MAX_SCOPES: usize = 4;

/// The maximum number of members or items in an outermost level of large JSON. A level with more
/// is kept as text.
pub(super) const MAX_OUTER: usize = 4 * 1024;

/// A JSON value. Members keep their order and may have duplicate names.
///
/// Strings without escapes borrow from the input. [`Json::into_bson`] converts a value to BSON and
/// interprets Extended JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// The value `null`.
    Null,
    /// The value `true` or `false`.
    Boolean(bool),
    /// A number without fraction and exponent, in the range of an `i64`.
    Integer(i64),
    /// Any other number, rounded to a `f64`.
    Number(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Self>),
    /// An object, as its members in the order of the text.
    Object(Vec<(Cow<'a, str>, Self)>),
    /// The text of a large array or object. It is valid JSON, but the conversion to BSON is the
    /// first to find duplicate names in it. The conversion needs no tree in between.
    Large(&'a str),
}

/// Reads JSON from a client. Use [`Json::into_bson`] to convert the values in it.
///
/// The time is linear in the length of the text. Large arrays and objects stay text
/// ([`Json::Large`]), because their trees would need many times the memory of the text.
///
/// # Errors
/// - [`Error::Invalid`] with the line and column if the text is not JSON.
/// - [`Error::Invalid`] if the nesting is deeper than a valid document and its envelope.
/// - [`Error::Invalid`] with the path if an object has a duplicate name.
///
/// # Examples
/// ```
/// let json = ejson::read(br#"{ "name": "find", "limit": 5 }"#)?;
/// assert_eq!(json.get("name").and_then(|name| name.as_str()), Some("find"));
/// assert_eq!(json.get("limit").and_then(|limit| limit.as_i64()), Some(5));
/// # Ok::<(), ejson::Error>(())
/// ```
pub fn read(json: &[u8]) -> Result<Json<'_>> {
    let value = read_stored(json)?;
    match names::find_twice(&value) {
        Some(path) => Err(refused(format!("the field '{path}' is there twice"))),
        None => Ok(value),
    }
}

/// Reads JSON that Userkeep or a backend has written, and accepts duplicate names.
///
/// Use [`Json::into_stored_bson`] to convert the values in it: data of an earlier version or of
/// another program must stay readable even if it is not valid Extended JSON.
///
/// # Errors
/// [`Error::Invalid`] if the text is not JSON, with the line and column, or if it is nested too
/// deep.
pub fn read_stored(json: &[u8]) -> Result<Json<'_>> {
    let (depth, values) = measure(json);
    // The parser's own limit is lower than the limit of documents and is disabled. Without any
    // limit, a client could overflow the stack.
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let not_json = |error: serde_json::Error| not_json(error.line(), error.column());
    if values <= MAX_TREE {
        return tree(json).map_err(not_json);
    }
    let mut left = MAX_TREES;
    if let Ok(Outer(members)) = serde_json::from_slice(json) {
        return Ok(outer_object(members, &mut left));
    }
    let whole: &RawValue = serde_json::from_slice(json).map_err(not_json)?;
    Ok(inner(whole, false, &mut left))
}

/// Returns an error with the given message.
pub(super) fn refused(message: String) -> Error {
    Error::invalid(message)
}

/// Returns the error of JSON that exceeds the maximum nesting depth.
pub(super) fn too_deep() -> Error {
    refused(format!("the JSON is nested more than {MAX_DEPTH} levels deep"))
}

/// Returns the error of text that is not JSON. It contains the position only, because the parser's
/// message could contain values.
pub(super) fn not_json(line: usize, column: usize) -> Error {
    refused(format!("this is not JSON: line {line}, column {column}"))
}

/// Parses JSON text into a tree, without limits.
pub(super) fn tree(json: &[u8]) -> serde_json::Result<Json<'_>> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    parser.disable_recursion_limit();
    let value = Json::deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

/// Reads the members of an object that is too large for a tree.
fn outer_object<'a>(members: Vec<(Key<'a>, &'a RawValue)>, left: &mut usize) -> Json<'a> {
    Json::Object(members.into_iter().map(|(Key(name), value)| (name, inner(value, true, left))).collect())
}

/// Reads JSON text into a tree if it is small, or keeps it as text. If it is a large array and
/// `is_outer` is true, reads its items in the same way. `left` is the remaining number of bytes
/// that may become trees.
fn inner<'a>(value: &'a RawValue, is_outer: bool, left: &mut usize) -> Json<'a> {
    let json = value.get();
    if !json.starts_with(['{', '[']) {
        return tree(json.as_bytes()).unwrap_or(Json::Large(json));
    }
    // The number of values is at most the number of bytes.
    if json.len() <= MAX_TREE && json.len() <= *left {
        *left -= json.len();
        return tree(json.as_bytes()).unwrap_or(Json::Large(json));
    }
    if is_outer && let Ok(Outer(items)) = serde_json::from_str(json) {
        return Json::Array(items.into_iter().map(|((), item)| inner(item, false, left)).collect());
    }
    Json::Large(json)
}

/// Returns the nesting depth of brackets, and an upper bound of the number of values.
pub(super) fn measure(json: &[u8]) -> (usize, usize) {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    let mut values = 1;
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
                values += 1;
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            b',' if !in_text => values += 1,
            _ => {}
        }
    }
    (deepest, values)
}

/// The unparsed members of an object, or items of an array. Items have no names.
struct Outer<'a, N>(Vec<(N, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Outer<'a, Key<'a>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMembers;

        impl<'de> Visitor<'de> for OfMembers {
            type Value = Outer<'de, Key<'de>>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    if all.len() == MAX_OUTER {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    all.push(member);
                }
                Ok(Outer(all))
            }
        }

        deserializer.deserialize_map(OfMembers)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Outer<'a, ()> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfItems;

        impl<'de> Visitor<'de> for OfItems {
            type Value = Outer<'de, ()>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    if all.len() == MAX_OUTER {
                        return Err(serde::de::Error::custom("too many items"));
                    }
                    all.push(((), item));
                }
                Ok(Outer(all))
            }
        }

        deserializer.deserialize_seq(OfItems)
    }
}

impl Json<'_> {
    /// Returns the value of the first member named `key`. Returns `None` if there is none, or if
    /// the value is not an object read into a tree.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Removes the first member named `key` from an object and returns its value. Returns `None`
    /// in the same cases as [`get`](Self::get).
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Object(members) => {
                let place = members.iter().position(|(name, _)| name == key)?;
                Some(members.remove(place).1)
            }
            _ => None,
        }
    }

    /// Returns the text if the value is a string, or `None` otherwise.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number if the value is [`Json::Integer`], or `None` otherwise.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Converts the value to BSON. Accepts Extended JSON in the canonical and the relaxed format.
    ///
    /// A [`Json::Integer`] becomes an `int32` or, if it is larger, an `int64`. A [`Json::Number`]
    /// becomes a `double`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the path of the first value that is not valid Extended JSON, or of
    /// a duplicate name.
    ///
    /// # Examples
    /// ```
    /// let value = ejson::read(br#"{ "$numberLong": "5" }"#)?.into_bson()?;
    /// assert_eq!(value, bson::RawBson::Int64(5));
    /// # Ok::<(), ejson::Error>(())
    /// ```
    pub fn into_bson(self) -> Result<RawBson> {
        convert::to_bson(self, Reading::Strict)
    }

    /// Converts the value to BSON of at most about `largest` bytes, as
    /// [`into_bson`](Self::into_bson) does. Returns `None` if the BSON would be larger.
    ///
    /// The conversion stops at the limit. A limit on the JSON is not enough, because the JSON of
    /// numbers is much shorter than its BSON.
    ///
    /// # Errors
    /// The errors of [`into_bson`](Self::into_bson).
    pub fn into_bson_up_to(self, largest: usize) -> Result<Option<RawBson>> {
        convert::to_bson_up_to(self, Reading::Strict, largest)
    }

    /// Converts stored data to BSON, with lenient rules.
    ///
    /// An object that resembles a type wrapper but is not valid becomes a document. Regular
    /// expressions may have any options, and names may be duplicates.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a name or a regular expression contains a NUL byte.
    pub fn into_stored_bson(self) -> Result<RawBson> {
        convert::to_bson(self, Reading::Stored)
    }

    /// Parses the text of a string as another type.
    fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        self.as_str()?.parse().ok()
    }
}

/// True if an object whose first name is `key` is a type wrapper.
///
/// A type wrapper, such as `{ "$oid": "…" }`, represents a value of a type that JSON does not
/// have. The names of query operators, such as `$gt`, are not wrappers.
pub fn is_wrapper(key: &str) -> bool {
    key.starts_with('$') && query::EXTENDED_JSON_NAMES.contains(&key)
}

/// Returns the value of a type wrapper. Its members must be exactly the members of its type.
pub(super) fn unwrap(members: &[(Cow<'_, str>, Json<'_>)], reading: Reading, scopes: usize) -> Option<RawBson> {
    match members {
        [(key, value)] => unwrap_one(key, value, reading),
        [(first, one), (second, other)] => match (&**first, &**second) {
            ("$code", "$scope") => with_scope(one, other, reading, scopes),
            ("$scope", "$code") => with_scope(other, one, reading, scopes),
            // The format of version 1.
            ("$binary", "$type") => binary(one, other),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the value of a type wrapper with one member.
fn unwrap_one(key: &str, value: &Json<'_>, reading: Reading) -> Option<RawBson> {
    let text = || value.as_str().map(str::to_owned);
    Some(match key {
        "$binary" => binary(value.get("base64")?, value.get("subType")?)?,
        "$code" => RawBson::JavaScriptCode(text()?),
        "$date" => RawBson::DateTime(date(value)?),
        // The fields of a DBPointer are private in `bson`. BSON has deprecated this type.
        "$dbPointer" => {
            let pointer = serde_json::json!({
                "$ref": value.get("$ref")?.as_str()?,
                "$id": { "$oid": value.get("$id")?.get("$oid")?.as_str()? },
            });
            RawBson::try_from(Bson::try_from(serde_json::json!({ "$dbPointer": pointer })).ok()?).ok()?
        }
        "$maxKey" => whole(value).filter(|&one| one == 1).map(|_| RawBson::MaxKey)?,
        "$minKey" => whole(value).filter(|&one| one == 1).map(|_| RawBson::MinKey)?,
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
            let options: CString = part("options")?;
            if reading == Reading::Strict && options.as_str().contains(|flag| !"imsux".contains(flag)) {
                return None;
            }
            RawBson::RegularExpression(Regex { pattern: part("pattern")?, options })
        }
        "$symbol" => RawBson::Symbol(text()?),
        "$timestamp" => {
            let part = |key| whole(value.get(key)?)?.try_into().ok();
            RawBson::Timestamp(Timestamp { time: part("t")?, increment: part("i")? })
        }
        "$undefined" if *value == Json::Boolean(true) => RawBson::Undefined,
        "$uuid" => {
            let bytes = Uuid::parse_str(value.as_str()?).ok()?.bytes().to_vec();
            RawBson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes })
        }
        _ => return None,
    })
}

/// Returns a JavaScript function with a scope, if the scope is not nested too deep.
fn with_scope(code: &Json<'_>, scope: &Json<'_>, reading: Reading, scopes: usize) -> Option<RawBson> {
    if scopes == MAX_SCOPES && reading == Reading::Strict {
        return None;
    }
    let code = code.as_str()?.to_owned();
    match convert::to_bson_in_scope(scope.clone(), reading, MAX_SCOPE, scopes + 1) {
        Ok(Some(RawBson::Document(scope))) => {
            Some(RawBson::JavaScriptCodeWithScope(RawJavaScriptCodeWithScope { code, scope }))
        }
        _ => None,
    }
}

/// Decodes binary data. The subtype has one or two hexadecimal digits.
fn binary(base64: &Json<'_>, subtype: &Json<'_>) -> Option<RawBson> {
    let bytes = STANDARD.decode(base64.as_str()?).ok()?;
    let is_hex =
        |digits: &&str| (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let subtype = u8::from_str_radix(subtype.as_str().filter(is_hex)?, 16).ok()?;
    Some(RawBson::Binary(Binary { subtype: subtype.into(), bytes }))
}

/// Parses a date in the canonical format, the relaxed format, or the format of version 1.
fn date(value: &Json<'_>) -> Option<DateTime> {
    match value {
        Json::Text(text) => DateTime::parse_rfc3339_str(text).ok(),
        value => whole(value).map(DateTime::from_millis),
    }
}

/// Parses a whole number inside a type wrapper. Some clients write it as a type wrapper too.
fn whole(value: &Json<'_>) -> Option<i64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let of_double = |number: f64| (number.fract() == 0.0 && number.abs() <= LARGEST).then_some(number as i64);
    match value {
        Json::Integer(number) => Some(*number),
        Json::Number(number) => of_double(*number),
        Json::Object(members) => match &members[..] {
            [(key, text)] if key == "$numberInt" => text.parse::<i32>().map(i64::from),
            [(key, text)] if key == "$numberLong" => text.parse(),
            [(key, text)] if key == "$numberDouble" => text.parse().and_then(of_double),
            _ => None,
        },
        _ => None,
    }
}

/// The name of a member, borrowed from the input if it has no escapes.
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
