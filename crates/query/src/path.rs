//! Dotted paths and the values that they reach in a document.

use std::sync::Arc;

use bson::raw::{RawArray, RawBsonRef, RawDocument};

use crate::{
    Error, ErrorCode, Result, budget,
    document::{MAX_NESTING_DEPTH, array_index, get, items},
};

/// Maximum number of parts kept of a path. No document is nested as deeply, so further parts reach
/// nothing.
const MAX_PARTS: usize = MAX_NESTING_DEPTH + 2;

/// A dotted field path such as `address.lines.0`. Clones share it, because many conditions may use
/// the same path.
///
/// ```
/// use bson::rawdoc;
/// use query::Path;
///
/// let path = Path::new("lines.text");
/// assert_eq!(path.parts(), ["lines", "text"]);
/// let document = rawdoc! { "lines": [{ "text": "a" }, { "text": "b" }] };
/// assert_eq!(path.values_in(&document).len(), 2);
/// assert_eq!(path.value_in(&document), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    text: Arc<str>,
    parts: Arc<[String]>,
}

impl Path {
    /// Parses a path as filters do: any names are allowed, including empty ones.
    pub fn new(text: &str) -> Self {
        Self { parts: text.split('.').take(MAX_PARTS).map(str::to_owned).collect(), text: text.into() }
    }

    /// Parses a path as updates, projections and expressions do: every part must name a field.
    ///
    /// # Errors
    /// `EmptyFieldName` (56) if a part is empty, `BadValue` (2) if a part contains a NUL byte,
    /// `Overflow` (15) if the path has more than 200 parts.
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

    /// Parses a path as expressions and projections do: without names that start with a dollar
    /// sign.
    ///
    /// # Errors
    /// The server's own, which have only numbers: 40352, 40353, 15998, 16410, 16411.
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

    /// Returns the path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the names between the dots.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// True if the path is equal to the other one or leads through it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.parts.starts_with(&other.parts)
    }

    /// Visits all values that the path reaches, as the matcher does.
    ///
    /// It leads through the documents in arrays and through array indexes. For an array at its
    /// end, it visits the items and then the array. `None` stands for a document without the
    /// field. Stops when `visit` returns true or the entered budget is exhausted, and returns true
    /// then.
    pub(crate) fn visit<'a>(
        &self,
        document: &'a RawDocument,
        visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
    ) -> bool {
        self.visit_at(document, true, &mut |value, _| visit(value))
    }

    /// As [`visit`](Self::visit), but treats an array at the end of the path as one value.
    pub(crate) fn visit_whole<'a>(
        &self,
        document: &'a RawDocument,
        visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
    ) -> bool {
        self.visit_at(document, false, &mut |value, _| visit(value))
    }

    /// As [`visit`](Self::visit), with or without the items of a final array. `visit` also
    /// receives the index in the first array on the path.
    pub(crate) fn visit_at<'a>(&self, document: &'a RawDocument, into_last: bool, visit: &mut Visit<'_, 'a>) -> bool {
        Way { into_last, outermost: None }.document(document, &self.parts, visit)
    }

    /// Returns all values that the path reaches, through the documents in arrays and through array
    /// indexes. An array at the end of the path is returned after its items.
    pub fn values_in<'a>(&self, document: &'a RawDocument) -> Vec<RawBsonRef<'a>> {
        let mut values = Vec::new();
        self.visit(document, &mut |value| {
            values.extend(value);
            false
        });
        values
    }

    /// Returns the value at the path through documents only; arrays on the path are not entered.
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
    /// Visits the values that the path sorts by, as the server's indexes define them.
    ///
    /// For an array at its end, it visits the items, or undefined if it is empty. A missing field
    /// counts as null. A number in the path selects an item of an array; if there is such an item,
    /// the number is not looked up as a field name in the documents of the array.
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

/// Receives a value and the index in the first array on its path; returns true to stop.
type Visit<'v, 'a> = dyn FnMut(Option<RawBsonRef<'a>>, Option<usize>) -> bool + 'v;

/// The state of a walk along a path.
#[derive(Clone, Copy)]
struct Way {
    /// True if the items of an array at the end are visited, too.
    into_last: bool,
    /// The index in the first array on the path so far.
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

    /// Continues in an array in the middle of a path. Its documents are searched for the rest of
    /// the path. If the rest begins with an index, that item is searched as well. Arrays directly
    /// inside arrays are only reached by index.
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
