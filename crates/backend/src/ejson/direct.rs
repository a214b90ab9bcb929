//! Extended JSON that becomes BSON while it is read: no tree stands in between, which would take many times the memory of either.

use std::{borrow::Cow, collections::HashSet, fmt, io::Write};

use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf, RawJavaScriptCodeWithScope},
};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::read::{Json, Key, MAX_DEPTH, depth, is_wrapper, read, unwrap};
use crate::{Error, ErrorCode, Result};

/// Objects of up to this many members are compared pairwise for names that are there twice; larger ones use a set.
const FEW_NAMES: usize = 16;

/// Number of brackets, colons and commas in a value that stands in a wrapper: the largest of them, `$dbPointer`, has 6.
const MAX_WRAPPED: usize = 16;

/// Longest path in a message, in bytes.
const MAX_SHOWN_PATH: usize = 200;

/// Size of all scopes of code together, in bytes. They are read once more for each that they are nested in.
const MAX_SCOPES: usize = 16 * 1024 * 1024;

/// Reads a JSON object in any flavour of Extended JSON as a document of at most `largest` bytes.
///
/// # Errors
/// If it is not JSON, not an object, not Extended JSON, or too large, or if an object has a name twice. No values are told.
pub fn read_document(json: &[u8], largest: usize) -> Result<RawDocumentBuf> {
    let refused = |message: String| Error::new(ErrorCode::BadRequest, message);
    if depth(json) > MAX_DEPTH {
        return Err(refused(format!("the JSON is nested more than {MAX_DEPTH} levels deep")));
    }
    let mut writer = Writer::new(json.len(), largest);
    match parse(json, &mut writer) {
        Ok(DOCUMENT) => RawDocumentBuf::from_bytes(writer.bytes).map_err(Error::internal),
        Ok(_) => Err(refused("the body must be a JSON object".to_owned())),
        Err(error) => Err(refused(match writer.failure {
            None => format!("this is not JSON: line {}, column {}", error.line(), error.column()),
            Some(Failure::Invalid) => "the value is not valid Extended JSON".to_owned(),
            Some(Failure::TooLarge) => format!("the JSON becomes more than {largest} bytes of BSON"),
            Some(Failure::Twice) => format!("the field '{}' is there twice", shown(&writer.path)),
        })),
    }
}

fn parse(json: &[u8], writer: &mut Writer) -> serde_json::Result<u8> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    // Its own limit is less than what documents may have.
    parser.disable_recursion_limit();
    let kind = Value(writer).deserialize(&mut parser)?;
    parser.end().map(|()| kind)
}

/// A path that was found from the inside out.
fn shown(way: &[String]) -> String {
    let mut path = String::new();
    for part in way.iter().rev() {
        if path.len() + part.len() > MAX_SHOWN_PATH {
            path.push('…');
            break;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(part);
    }
    path
}

/// The types of BSON that JSON has too (<https://bsonspec.org/spec.html>).
const DOUBLE: u8 = 0x01;
const TEXT: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0A;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    Invalid,
    TooLarge,
    Twice,
}

/// BSON that is being written.
struct Writer {
    bytes: Vec<u8>,
    largest: usize,
    scopes: usize,
    failure: Option<Failure>,
    /// Where a name is there twice, from the inside out.
    path: Vec<String>,
}

impl Writer {
    fn new(expected: usize, largest: usize) -> Self {
        let bytes = Vec::with_capacity(expected.min(largest));
        Self { bytes, largest, scopes: 0, failure: None, path: Vec::new() }
    }

    fn fail<T, E: de::Error>(&mut self, failure: Failure) -> Result<T, E> {
        self.failure = Some(failure);
        Err(E::custom("refused"))
    }

    fn make_room<E: de::Error>(&mut self, more: usize) -> Result<(), E> {
        if self.bytes.len() + more > self.largest { self.fail(Failure::TooLarge) } else { Ok(()) }
    }

    fn number<E>(&mut self, kind: u8, bytes: &[u8]) -> Result<u8, E> {
        self.bytes.extend_from_slice(bytes);
        Ok(kind)
    }

    fn integer<E>(&mut self, number: i64) -> Result<u8, E> {
        match i32::try_from(number) {
            Ok(number) => self.number(INT32, &number.to_le_bytes()),
            Err(_) => self.number(INT64, &number.to_le_bytes()),
        }
    }

    fn text<E: de::Error>(&mut self, text: &str) -> Result<u8, E> {
        self.make_room(text.len())?;
        let length = u32::try_from(text.len() + 1).map_err(E::custom)?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        Ok(TEXT)
    }

    /// Any other value.
    fn value<E: de::Error>(&mut self, value: RawBson) -> Result<u8, E> {
        match value {
            RawBson::Int32(number) => self.number(INT32, &number.to_le_bytes()),
            RawBson::Int64(number) => self.number(INT64, &number.to_le_bytes()),
            RawBson::Double(number) => self.number(DOUBLE, &number.to_le_bytes()),
            value => {
                let mut alone = RawDocumentBuf::new();
                alone.append(bson::raw::cstr!(""), value);
                // Its length, the type, an empty name, the value, and the end.
                let bytes = alone.as_bytes();
                self.make_room(bytes.len())?;
                self.bytes.extend_from_slice(&bytes[6..bytes.len() - 1]);
                Ok(bytes[4])
            }
        }
    }

    /// Begins a document or an array; its place.
    fn begin(&mut self) -> usize {
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.len() - 4
    }

    fn end<E: de::Error>(&mut self, place: usize, kind: u8) -> Result<u8, E> {
        self.bytes.push(0);
        let length = u32::try_from(self.bytes.len() - place).map_err(E::custom)?;
        self.bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
        Ok(kind)
    }
}

/// Reads a value, and writes it without its type, which is what comes of it.
struct Value<'w>(&'w mut Writer);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = u8;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u8, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = u8;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<u8, E> {
        Ok(NULL)
    }

    fn visit_bool<E>(self, value: bool) -> Result<u8, E> {
        self.0.number(BOOLEAN, &[u8::from(value)])
    }

    fn visit_i64<E>(self, number: i64) -> Result<u8, E> {
        self.0.integer(number)
    }

    fn visit_u64<E>(self, number: u64) -> Result<u8, E> {
        match i64::try_from(number) {
            Ok(number) => self.0.integer(number),
            Err(_) => self.0.number(DOUBLE, &(number as f64).to_le_bytes()),
        }
    }

    fn visit_f64<E>(self, number: f64) -> Result<u8, E> {
        self.0.number(DOUBLE, &number.to_le_bytes())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u8, E> {
        self.0.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u8, A::Error> {
        let writer = self.0;
        let place = writer.begin();
        for index in 0usize.. {
            let element = writer.bytes.len();
            writer.bytes.push(0);
            // Writing to a Vec does not fail.
            let _ = write!(writer.bytes, "{index}");
            writer.bytes.push(0);
            match items.next_element_seed(Value(writer)) {
                Ok(Some(kind)) => writer.bytes[element] = kind,
                Ok(None) => {
                    writer.bytes.truncate(element);
                    break;
                }
                Err(error) => {
                    if writer.failure == Some(Failure::Twice) {
                        writer.path.push(index.to_string());
                    }
                    return Err(error);
                }
            }
            writer.make_room(0)?;
        }
        writer.end(place, ARRAY)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u8, A::Error> {
        let writer = self.0;
        let mut next = members.next_key::<Key<'de>>()?;
        if next.as_ref().is_some_and(|Key(name)| is_wrapper(name)) {
            return wrapped(writer, next, members);
        }
        let place = writer.begin();
        while let Some(Key(name)) = next {
            // A name with a NUL byte cannot be a field's.
            if name.contains('\0') {
                return writer.fail(Failure::Invalid);
            }
            writer.make_room(name.len())?;
            let element = writer.bytes.len();
            writer.bytes.push(0);
            writer.bytes.extend_from_slice(name.as_bytes());
            writer.bytes.push(0);
            match members.next_value_seed(Value(writer)) {
                Ok(kind) => writer.bytes[element] = kind,
                Err(error) => {
                    if writer.failure == Some(Failure::Twice) {
                        writer.path.push(name.into_owned());
                    }
                    return Err(error);
                }
            }
            writer.make_room(0)?;
            next = members.next_key()?;
        }
        let kind = writer.end(place, DOCUMENT)?;
        if let Some(name) = name_twice(&writer.bytes[place..]) {
            writer.path.push(name);
            return writer.fail(Failure::Twice);
        }
        Ok(kind)
    }
}

/// A name that a document has twice.
fn name_twice(document: &[u8]) -> Option<String> {
    let document = RawDocument::from_bytes(document).ok()?;
    let names = || document.iter().filter_map(|element| element.ok()).map(|(name, _)| name.as_str());
    let mut few = [""; FEW_NAMES];
    for (index, name) in names().enumerate() {
        if index == FEW_NAMES {
            let mut seen = HashSet::new();
            return names().find(|name| !seen.insert(*name)).map(str::to_owned);
        }
        if few[..index].contains(&name) {
            return Some(name.to_owned());
        }
        few[index] = name;
    }
    None
}

/// A value of a type that JSON has not: an object of one or two members, that begins with `$`.
fn wrapped<'de, A: MapAccess<'de>>(
    writer: &mut Writer,
    mut next: Option<Key<'de>>,
    mut members: A,
) -> Result<u8, A::Error> {
    let mut read: Vec<(Cow<'de, str>, Json<'de>)> = Vec::with_capacity(2);
    let mut scope = None;
    while let Some(Key(name)) = next {
        let value: &'de RawValue = members.next_value()?;
        let value = if read.len() == 2 {
            None
        } else if name == "$scope" {
            scope = scope_of(writer, value.get());
            scope.is_some().then_some(Json::Null)
        } else {
            small(value.get())
        };
        let Some(value) = value else {
            let failure = writer.failure.unwrap_or(Failure::Invalid);
            return writer.fail(failure);
        };
        read.push((name, value));
        next = members.next_key()?;
    }
    let value = match scope {
        None => unwrap(read),
        Some(scope) => read.iter().find(|(name, _)| name == "$code").and_then(|(_, code)| {
            let code = code.as_str()?.to_owned();
            Some(RawBson::JavaScriptCodeWithScope(RawJavaScriptCodeWithScope { code, scope }))
        }),
    };
    match value {
        Some(value) => writer.value(value),
        None => writer.fail(Failure::Invalid),
    }
}

/// A value that stands in a wrapper; none of them has many parts.
fn small(json: &str) -> Option<Json<'_>> {
    let is_part = |byte: &u8| matches!(byte, b'{' | b'[' | b',' | b':');
    let (mut in_text, mut escaped) = (false, false);
    let outside = json.bytes().filter(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ => return !in_text,
        }
        false
    });
    if outside.filter(is_part).take(MAX_WRAPPED + 1).count() > MAX_WRAPPED {
        return None;
    }
    read(json.as_bytes()).ok()
}

/// The scope of code, a document.
fn scope_of(writer: &mut Writer, json: &str) -> Option<RawDocumentBuf> {
    writer.scopes += json.len();
    if writer.scopes > MAX_SCOPES {
        writer.failure = Some(Failure::TooLarge);
        return None;
    }
    let mut inner = Writer::new(json.len(), writer.largest.saturating_sub(writer.bytes.len()));
    inner.scopes = writer.scopes;
    let kind = parse(json.as_bytes(), &mut inner);
    writer.scopes = inner.scopes;
    writer.failure = inner.failure;
    writer.path = inner.path;
    match kind {
        Ok(DOCUMENT) => RawDocumentBuf::from_bytes(inner.bytes).ok(),
        _ => None,
    }
}
