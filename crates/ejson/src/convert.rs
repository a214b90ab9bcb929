//! Converts JSON to BSON in a single buffer, so that each byte is copied only once at any nesting
//! depth.

use std::{fmt, io::Write};

use bson::{
    RawBson,
    raw::{CString, RawBsonRef, RawDocument, RawDocumentBuf},
};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Canonical, Json, read,
    read::{Key, is_wrapper, measure, tree, unwrap},
};
use crate::{Error, Result};

/// The strictness of the conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// For data from clients.
    Strict,
    /// For stored data, which is accepted even if it is not valid Extended JSON.
    Stored,
}

/// The maximum number of values in a member of a type wrapper that is read into a tree.
const MAX_WRAPPED: usize = 16;

/// The maximum number of members of a type wrapper.
pub(super) const MAX_WRAPPER: usize = 2;

/// Converts JSON to BSON.
pub(super) fn to_bson(json: Json<'_>, reading: Reading) -> Result<RawBson> {
    to_bson_up_to(json, reading, usize::MAX)?.ok_or_else(|| Error::invalid(INVALID))
}

/// Converts JSON to BSON of at most about `largest` bytes. Returns `None` if it would be larger.
pub(super) fn to_bson_up_to(json: Json<'_>, reading: Reading, largest: usize) -> Result<Option<RawBson>> {
    to_bson_in_scope(json, reading, largest, 0)
}

/// Does the same for a value inside `scopes` nested scopes of JavaScript functions.
pub(super) fn to_bson_in_scope(
    json: Json<'_>,
    reading: Reading,
    largest: usize,
    scopes: usize,
) -> Result<Option<RawBson>> {
    let is_container = matches!(json, Json::Array(_) | Json::Object(_) | Json::Large(_));
    let mut writer = Writer { scopes, ..Writer::up_to(reading, largest.saturating_add(HOLDER)) };
    let written = writer.value("", json).and_then(|()| writer.end(0));
    if writer.is_full {
        return Ok(None);
    }
    written.ok_or_else(|| writer.invalid())?;
    let invalid = || Error::invalid(INVALID);
    if writer.has_streamed && reading == Reading::Strict {
        let holder = RawDocument::from_bytes(&writer.out).map_err(|_| invalid())?;
        query::validate_names(holder).map_err(|error| Error::invalid(error.message))?;
    }
    // The only element has an empty name: its type and a NUL byte precede its value.
    const DOCUMENT: u8 = 3;
    if is_container && writer.out[4] == DOCUMENT {
        let mut document = writer.out;
        document.pop();
        document.drain(..6);
        return RawDocumentBuf::from_bytes(document).map(|document| Some(document.into())).map_err(|_| invalid());
    }
    let holder = RawDocument::from_bytes(&writer.out).map_err(|_| invalid())?;
    match query::elements(holder).next() {
        Some((_, value)) => Ok(Some(value.into())),
        None => Err(invalid()),
    }
}

/// Replaces each Extended JSON object in a document, such as `{ $oid: "…" }`, with the value it
/// represents.
///
/// A document that a client passes as BSON therefore has the same meaning as one that arrives as
/// JSON over HTTP. The document must have been validated with [`query::validate_names`].
///
/// # Errors
/// - [`Error::Invalid`] with the path of the first object that is not valid Extended JSON.
/// - [`Error::Budget`] if the work exceeds the budget of the current operation.
pub fn resolve(document: &RawDocument) -> Result<RawDocumentBuf> {
    let mut writer = Writer::new(Reading::Strict);
    match writer.fields(document) {
        Ok(Some(())) if writer.end(0).is_some() => {
            RawDocumentBuf::from_bytes(writer.out).map_err(|_| Error::invalid(INVALID))
        }
        Ok(_) => Err(writer.invalid()),
        Err(error) => Err(error),
    }
}

/// The maximum ratio of the size of JSON to the size of its BSON, for the memory budget.
const JSON_FACTOR: usize = 8;

/// Size in bytes of a document around its only element, whose name is empty.
const HOLDER: usize = 7;

/// Writes BSON values into one buffer, as elements of an unfinished document.
#[derive(Debug)]
pub(super) struct Writer {
    /// The BSON so far.
    pub(super) out: Vec<u8>,
    /// The maximum number of bytes to write.
    pub(super) largest: usize,
    /// True if the value exceeds the maximum.
    pub(super) is_full: bool,
    reading: Reading,
    /// Number of nested JavaScript scopes that contain the value.
    scopes: usize,
    /// True if a large value was converted, whose names have not been validated.
    has_streamed: bool,
    /// The path of an invalid value, from the inside out.
    way: Vec<String>,
}

pub(super) const INVALID: &str = "the value is not valid Extended JSON";

/// Returns the error of a value that is not valid Extended JSON. `way` is its path from the
/// outside in.
pub(super) fn invalid_at<'n>(way: impl ExactSizeIterator<Item = &'n String>) -> Error {
    let message = match way.len() {
        0 => INVALID.to_owned(),
        _ => format!("the value of '{}' is not valid Extended JSON", query::shown_path(way)),
    };
    Error::invalid(message)
}

impl Writer {
    fn new(reading: Reading) -> Self {
        let (out, way) = (vec![0; 4], Vec::new());
        Self { out, largest: usize::MAX, is_full: false, reading, scopes: 0, has_streamed: false, way }
    }

    /// Creates a writer of at most `largest` bytes.
    pub(super) fn up_to(reading: Reading, largest: usize) -> Self {
        Self { largest, ..Self::new(reading) }
    }

    /// Returns the error of an invalid value.
    fn invalid(&self) -> Error {
        invalid_at(self.way.iter().rev())
    }

    /// Writes a member or an item. Records its path if it is not valid.
    fn part(&mut self, name: &str, json: Json<'_>) -> Option<()> {
        let written = self.value(name, json);
        if written.is_none() {
            self.way.push(name.to_owned());
        }
        written
    }

    /// Writes the fields of a document, and replaces Extended JSON objects with their values.
    fn fields(&mut self, document: &RawDocument) -> Result<Option<()>> {
        for (name, value) in query::elements(document) {
            query::budget::charge(1)?;
            let written = self.resolved(name, value)?;
            if written.is_none() {
                self.way.push(name.to_owned());
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Writes a field, and replaces Extended JSON objects in it with their values.
    fn resolved(&mut self, name: &str, value: RawBsonRef<'_>) -> Result<Option<()>> {
        let (type_byte, fields) = match value {
            RawBsonRef::Document(document) => (0x03, document),
            RawBsonRef::Array(items) => match RawDocument::from_bytes(items.as_bytes()) {
                Ok(items) => (0x04, items),
                Err(_) => return Ok(None),
            },
            value => return Ok(self.bson(name, value.into())),
        };
        let first = query::elements(fields).next();
        if type_byte == 0x03 && first.is_some_and(|(key, _)| is_wrapper(key)) {
            let _held = query::budget::hold(JSON_FACTOR * fields.as_bytes().len())?;
            let json = serde_json::to_vec(&Canonical(value)).map_err(|_| Error::invalid(INVALID))?;
            return Ok(self.value(name, read(&json)?));
        }
        if self.element(type_byte, name).is_none() {
            return Ok(None);
        }
        let start = self.begin();
        match self.fields(fields)? {
            Some(()) => Ok(self.end(start)),
            None => Ok(None),
        }
    }

    /// Writes the type and the name of an element. Fails if the name contains a NUL byte.
    fn element(&mut self, type_byte: u8, name: &str) -> Option<()> {
        if name.as_bytes().contains(&0) {
            return None;
        }
        self.make_room(name.len() + 2)?;
        self.out.push(type_byte);
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(0);
        Some(())
    }

    /// Fails if `bytes` more bytes would exceed the maximum size, and sets `is_full`.
    pub(super) fn make_room(&mut self, bytes: usize) -> Option<()> {
        self.is_full |= self.out.len() + bytes > self.largest;
        (!self.is_full).then_some(())
    }

    /// Begins a document or an array. Returns the index of its length, which [`Self::end`] sets.
    pub(super) fn begin(&mut self) -> usize {
        self.out.extend_from_slice(&[0; 4]);
        self.out.len() - 4
    }

    /// Ends the document or array that begins at `start`, and sets its length.
    pub(super) fn end(&mut self, start: usize) -> Option<()> {
        self.out.push(0);
        let length = i32::try_from(self.out.len() - start).ok()?;
        self.out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Some(())
    }

    /// Writes a string, or a value of another type with the same encoding (code or symbol).
    fn text(&mut self, type_byte: u8, name: &str, text: &str) -> Option<()> {
        self.element(type_byte, name)?;
        self.make_room(text.len())?;
        let length = i32::try_from(text.len() + 1).ok()?;
        self.out.extend_from_slice(&length.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
        Some(())
    }

    /// Writes a value under a name. Fails if it is not valid or too large.
    pub(super) fn value(&mut self, name: &str, json: Json<'_>) -> Option<()> {
        match json {
            Json::Null | Json::Boolean(_) | Json::Integer(_) | Json::Number(_) => {
                self.element(plain_type(&json), name)?;
                self.plain(&json);
                Some(())
            }
            Json::Text(text) => self.text(0x02, name, &text),
            Json::Array(items) => {
                self.element(0x04, name)?;
                let start = self.begin();
                let mut index = Index::default();
                for item in items {
                    self.part(index.next(), item)?;
                }
                self.end(start)
            }
            Json::Object(members) => {
                // These values may be as large as a document, so they are written without a copy.
                match &members[..] {
                    [(key, Json::Text(text))] if key == "$code" => return self.text(0x0d, name, text),
                    [(key, Json::Text(text))] if key == "$symbol" => return self.text(0x0e, name, text),
                    _ => {}
                }
                if members.first().is_some_and(|(key, _)| is_wrapper(key)) {
                    match unwrap(&members, self.reading, self.scopes) {
                        Some(value) => return self.bson(name, value),
                        None if self.reading == Reading::Strict => return None,
                        None => {}
                    }
                }
                self.element(0x03, name)?;
                let start = self.begin();
                for (key, value) in members {
                    self.part(&key, value)?;
                }
                self.end(start)
            }
            Json::Large(text) => {
                self.has_streamed = true;
                let mut parser = serde_json::Deserializer::from_str(text);
                parser.disable_recursion_limit();
                Value { writer: self, name }.deserialize(&mut parser).ok()
            }
        }
    }

    /// Writes the value bytes of a number, a boolean or a null, after the type and the name.
    pub(super) fn plain(&mut self, json: &Json<'_>) {
        match *json {
            Json::Boolean(value) => self.out.push(value.into()),
            Json::Integer(number) => match i32::try_from(number) {
                Ok(number) => self.out.extend_from_slice(&number.to_le_bytes()),
                Err(_) => self.out.extend_from_slice(&number.to_le_bytes()),
            },
            Json::Number(number) => self.out.extend_from_slice(&number.to_le_bytes()),
            _ => {}
        }
    }

    /// Writes a BSON value under a name.
    fn bson(&mut self, name: &str, value: RawBson) -> Option<()> {
        let mut holder = RawDocumentBuf::new();
        holder.append(CString::try_from(name).ok()?, value);
        let bytes = holder.as_bytes();
        self.make_room(bytes.len() - 5)?;
        self.out.extend_from_slice(&bytes[4..bytes.len() - 1]);
        Some(())
    }
}

/// Returns the BSON type of a number, a boolean or a null.
pub(super) fn plain_type(json: &Json<'_>) -> u8 {
    match json {
        Json::Boolean(_) => 0x08,
        Json::Integer(number) if i32::try_from(*number).is_ok() => 0x10,
        Json::Integer(_) => 0x12,
        Json::Number(_) => 0x01,
        _ => 0x0a,
    }
}

/// Generates the names of an array's items.
#[derive(Debug, Default)]
struct Index {
    count: usize,
    text: Vec<u8>,
}

impl Index {
    fn next(&mut self) -> &str {
        self.text.clear();
        // Writing to memory cannot fail.
        let _ = write!(self.text, "{}", self.count);
        self.count += 1;
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// A deserializer seed that converts JSON text to BSON while it is parsed.
struct Value<'w> {
    writer: &'w mut Writer,
    name: &'w str,
}

impl Value<'_> {
    fn put<E: serde::de::Error>(self, json: Json<'_>) -> Result<(), E> {
        self.writer.value(self.name, json).ok_or_else(invalid)
    }
}

/// Returns a generic error. The writer records the path, and messages contain no values.
fn invalid<E: serde::de::Error>() -> E {
    E::custom("not valid Extended JSON")
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.put(Json::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.put(Json::Boolean(value))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.put(Json::Integer(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.put(i64::try_from(number).map_or(Json::Number(number as f64), Json::Integer))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.put(Json::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.writer.text(0x02, self.name, text).ok_or_else(invalid)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { writer, name } = self;
        writer.element(0x04, name).ok_or_else(invalid)?;
        let start = writer.begin();
        let mut index = Index::default();
        loop {
            let name = index.next();
            match items.next_element_seed(Value { writer: &mut *writer, name }) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    writer.way.push(name.to_owned());
                    return Err(error);
                }
            }
        }
        writer.end(start).ok_or_else(invalid)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { writer, name } = self;
        let mut key = members.next_key::<Key<'_>>()?;
        if let Some(Key(first)) = key.take_if(|Key(key)| is_wrapper(key)) {
            let mut all = vec![(first, wrapped(members.next_value()?)?)];
            while let Some(Key(key)) = members.next_key()? {
                if all.len() == MAX_WRAPPER && writer.reading == Reading::Strict {
                    return Err(invalid());
                }
                all.push((key, wrapped(members.next_value()?)?));
            }
            return writer.value(name, Json::Object(all)).ok_or_else(invalid);
        }
        writer.element(0x03, name).ok_or_else(invalid)?;
        let start = writer.begin();
        while let Some(Key(name)) = key {
            let read = members.next_value_seed(Value { writer: &mut *writer, name: &name });
            if let Err(error) = read {
                writer.way.push(name.into_owned());
                return Err(error);
            }
            key = members.next_key()?;
        }
        writer.end(start).ok_or_else(invalid)
    }
}

/// Parses a member of a type wrapper. Parses a small member, such as most valid ones, into a tree,
/// and keeps a large one as text.
fn wrapped<E: serde::de::Error>(value: &RawValue) -> Result<Json<'_>, E> {
    let text = value.get();
    let is_small = measure(text.as_bytes()).1 <= MAX_WRAPPED;
    if is_small { tree(text.as_bytes()).map_err(E::custom) } else { Ok(Json::Large(text)) }
}
