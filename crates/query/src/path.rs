//! Dotted paths, and what they reach in a document.

use bson::raw::{RawArray, RawBsonRef, RawDocument};

use crate::{
    Error, ErrorCode, Result,
    document::{elements, get, items},
};

/// A dotted field path such as `address.lines.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    text: String,
    parts: Vec<String>,
}

impl Path {
    /// A path as filters have it: any name, empty parts included.
    pub fn new(text: &str) -> Self {
        Self { parts: text.split('.').map(str::to_owned).collect(), text: text.to_owned() }
    }

    /// A path as updates, projections and expressions have it, where every part must name a field.
    ///
    /// # Errors
    /// `EmptyFieldName` or `BadValue` where a part is empty or has a NUL byte.
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
        Ok(path)
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
    pub(crate) fn starts_with(&self, other: &Self) -> bool {
        self.parts.starts_with(&other.parts)
    }

    /// Visits all that the path reaches, as the matcher does: through the documents in arrays and by index, a final
    /// array by its items and then as itself, and `None` where a document has no such field. Stops when `visit`
    /// returns true, and returns whether it did.
    pub(crate) fn visit<'a>(
        &self,
        document: &'a RawDocument,
        visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
    ) -> bool {
        visit_document(document, &self.parts, visit)
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

fn visit_document<'a>(
    document: &'a RawDocument,
    parts: &[String],
    visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    let Some(value) = get(document, first) else { return visit(None) };
    match value {
        RawBsonRef::Array(array) if rest.is_empty() => items(array).any(|item| visit(Some(item))) || visit(Some(value)),
        RawBsonRef::Array(array) => visit_array(array, rest, visit),
        RawBsonRef::Document(inner) if !rest.is_empty() => visit_document(inner, rest, visit),
        _ if rest.is_empty() => visit(Some(value)),
        _ => visit(None),
    }
}

/// An array in the middle of a path: its documents are searched for the rest, and where the rest begins with an
/// index, so is the item that it names. Arrays directly inside arrays are only reached by index.
fn visit_array<'a>(
    array: &'a RawArray,
    rest: &[String],
    visit: &mut dyn FnMut(Option<RawBsonRef<'a>>) -> bool,
) -> bool {
    let Some((next, beyond)) = rest.split_first() else { return false };
    for (index, item) in elements(crate::document::as_document(array)) {
        if let RawBsonRef::Document(inner) = item
            && visit_document(inner, rest, visit)
        {
            return true;
        }
        if index == next {
            let stop = match item {
                _ if beyond.is_empty() => visit(Some(item)),
                RawBsonRef::Document(inner) => visit_document(inner, beyond, visit),
                RawBsonRef::Array(inner) => visit_array(inner, beyond, visit),
                _ => visit(None),
            };
            if stop {
                return true;
            }
        }
    }
    false
}
