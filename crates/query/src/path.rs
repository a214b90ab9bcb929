//! Dotted paths, and what they reach in a document.

use std::sync::Arc;

use bson::raw::{RawArray, RawBsonRef, RawDocument};

use crate::{
    Error, ErrorCode, Result, budget,
    document::{MAX_NESTING_DEPTH, array_index, get, items},
};

/// The parts of a path that are looked at: no document is nested as deeply as this, so no further part reaches anything.
const MAX_PARTS: usize = MAX_NESTING_DEPTH + 2;

/// A dotted field path such as `address.lines.0`. Clones share it, since many conditions may be on one path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    text: Arc<str>,
    parts: Arc<[String]>,
}

impl Path {
    /// A path as filters have it: any name, empty parts included.
    pub fn new(text: &str) -> Self {
        Self { parts: text.split('.').take(MAX_PARTS).map(str::to_owned).collect(), text: text.into() }
    }

    /// A path as updates, projections and expressions have it, where every part must name a field.
    ///
    /// # Errors
    /// `EmptyFieldName` or `BadValue` where a part is empty or has a NUL byte, `Overflow` for more parts than a document
    /// can be deep.
    pub fn strict(text: &str) -> Result<Self> {
        let path = Self::new(text);
        if path.parts.iter().any(String::is_empty) {
            return Err(Error::new(
                ErrorCode::EmptyFieldName,
                format!("The path '{text}' contains an empty field name, which is not allowed."),
            ));
        }
        if text.contains('\0') {
            return Err(Error::bad_value("Key names cannot contain a null byte"));
        }
        if path.parts.len() > MAX_NESTING_DEPTH {
            let message = format!("FieldPath is too long: a path has at most {MAX_NESTING_DEPTH} parts");
            return Err(Error::new(ErrorCode::Overflow, message));
        }
        Ok(path)
    }

    /// A path as expressions and projections have it: of names of fields alone.
    ///
    /// # Errors
    /// The server's own, by number.
    pub(crate) fn of_fields(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::location(40352, "FieldPath cannot be constructed with empty string"));
        }
        if text.ends_with('.') {
            return Err(Error::location(40353, "FieldPath must not end with a '.'."));
        }
        let path = Self::strict(text).map_err(|error| match error.code {
            ErrorCode::EmptyFieldName => Error::location(15998, "FieldPath field names may not be empty strings."),
            ErrorCode::Overflow => error,
            _ => Error::location(16411, error.message),
        })?;
        match path.parts.iter().find(|part| part.starts_with('$')) {
            Some(part) => Err(Error::location(
                16410,
                format!(
                    "FieldPath field names may not start with '$'. Consider using $getField or $setField. Given '{part}'."
                ),
            )),
            None => Ok(path),
        }
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names between the dots.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Whether this path is the other one or leads through it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.parts.starts_with(&other.parts)
    }

    /// Visits all that the path reaches, as the matcher does: through the documents in arrays and by index, a final
    /// array by its items and then as itself, and `None` where a document has no such field. Stops when `visit`
    /// returns true, and returns true then. Also stops, returning true, when the entered budget is exhausted.
    pub(crate) fn visit<'a>(
        &self,
        document: &'a RawDocument,
        visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
    ) -> bool {
        self.visit_at(document, true, &mut |value, _| visit(value))
    }

    /// The same, where a final array is one value.
    pub(crate) fn visit_whole<'a>(
        &self,
        document: &'a RawDocument,
        visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
    ) -> bool {
        self.visit_at(document, false, &mut |value, _| visit(value))
    }

    /// The same, with or without the items of a final array; with the index of the first array that the way led through.
    pub(crate) fn visit_at<'a>(&self, document: &'a RawDocument, into_last: bool, visit: &mut Visit<'_, 'a>) -> bool {
        Way { into_last, outermost: None }.document(document, &self.parts, visit)
    }

    /// All values that the path reaches, through the documents in arrays and by index; an array at its end is one.
    pub fn values_in<'a>(&self, document: &'a RawDocument) -> Vec<RawBsonRef<'a>> {
        let mut values = Vec::new();
        self.visit(document, &mut |value| {
            values.extend(value);
            false
        });
        values
    }

    /// The value at the path through documents alone, with no regard to what arrays hold.
    pub fn value_in<'a>(&self, document: &'a RawDocument) -> Option<RawBsonRef<'a>> {
        let (last, parents) = self.parts.split_last()?;
        let mut document = document;
        for part in parents {
            document = get(document, part)?.as_document()?;
        }
        get(document, last)
    }
}

impl Path {
    /// Visits what the path sorts by, as the server's indexes have it: each item of an array at its end, but undefined for
    /// one without items, and null for what is not there. An index in the path names an item of an array where there is
    /// one, and is not looked for in the documents of that array.
    pub(crate) fn visit_keys<'a>(&self, document: &'a RawDocument, visit: &mut dyn FnMut(RawBsonRef<'a>)) {
        keys_in(document, &self.parts, visit);
    }
}

fn keys_in<'a>(document: &'a RawDocument, parts: &[String], visit: &mut dyn FnMut(RawBsonRef<'a>)) {
    let Some((first, rest)) = parts.split_first() else { return };
    keys_below(get(document, first), rest, visit);
}

fn keys_below<'a>(value: Option<RawBsonRef<'a>>, rest: &[String], visit: &mut dyn FnMut(RawBsonRef<'a>)) {
    match (value, rest.split_first()) {
        (None, _) => visit(RawBsonRef::Null),
        (Some(RawBsonRef::Array(array)), None) if array.is_empty() => visit(RawBsonRef::Undefined),
        (Some(RawBsonRef::Array(array)), None) => items(array).take_while(|_| budget::spend(1)).for_each(visit),
        (Some(value), None) => visit(value),
        (Some(RawBsonRef::Document(inner)), _) => keys_in(inner, rest, visit),
        (Some(RawBsonRef::Array(array)), Some((next, beyond))) => {
            if let Some(item) = array_index(next).and_then(|index| items(array).nth(index)) {
                return keys_below(Some(item), beyond, visit);
            }
            if array.is_empty() {
                return visit(RawBsonRef::Null);
            }
            for item in items(array).take_while(|_| budget::spend(1)) {
                match item {
                    RawBsonRef::Document(inner) => keys_in(inner, rest, visit),
                    _ => visit(RawBsonRef::Null),
                }
            }
        }
        (Some(_), Some(_)) => visit(RawBsonRef::Null),
    }
}

/// Told of a value and of the index of the first array that led to it; returns whether to stop.
type Visit<'v, 'a> = dyn FnMut(Option<RawBsonRef<'a>>, Option<usize>) -> bool + 'v;

/// On the way along a path.
#[derive(Clone, Copy)]
struct Way {
    /// Whether an array at the end is visited by its items too.
    into_last: bool,
    /// The index in the first array on the way.
    outermost: Option<usize>,
}

impl Way {
    fn through(self, index: usize) -> Self {
        Self { outermost: self.outermost.or(Some(index)), ..self }
    }

    fn document<'a>(self, document: &'a RawDocument, parts: &[String], visit: &mut Visit<'_, 'a>) -> bool {
        let Some((first, rest)) = parts.split_first() else { return false };
        let Some(value) = get(document, first) else { return visit(None, self.outermost) };
        match value {
            RawBsonRef::Array(array) if rest.is_empty() => {
                let mut visit_item =
                    |(index, item)| !budget::spend(1) || visit(Some(item), self.through(index).outermost);
                (self.into_last && items(array).enumerate().any(&mut visit_item)) || visit(Some(value), self.outermost)
            }
            RawBsonRef::Array(array) => self.array(array, rest, visit),
            RawBsonRef::Document(inner) if !rest.is_empty() => self.document(inner, rest, visit),
            _ if rest.is_empty() => visit(Some(value), self.outermost),
            _ => visit(None, self.outermost),
        }
    }

    /// An array in the middle of a path: its documents are searched for the rest, and where the rest begins with an
    /// index, so is the item that it names. Arrays directly inside arrays are only reached by index.
    fn array<'a>(self, array: &'a RawArray, rest: &[String], visit: &mut Visit<'_, 'a>) -> bool {
        let Some((next, beyond)) = rest.split_first() else { return false };
        let named = array_index(next);
        for (index, item) in items(array).enumerate() {
            if !budget::spend(1) {
                return true;
            }
            if let RawBsonRef::Document(inner) = item
                && self.through(index).document(inner, rest, visit)
            {
                return true;
            }
            if named == Some(index) {
                let stop = match item {
                    _ if beyond.is_empty() => visit(Some(item), self.outermost),
                    RawBsonRef::Document(inner) => self.document(inner, beyond, visit),
                    RawBsonRef::Array(inner) => self.array(inner, beyond, visit),
                    _ => visit(None, self.outermost),
                };
                if stop {
                    return true;
                }
            }
        }
        false
    }
}
