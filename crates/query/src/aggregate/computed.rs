//! Computed fields: sets the values of expressions in a document, in one pass over it.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Path, Result, Variables, budget,
    document::{elements, empty, items},
    expression::{Expression, Value},
    names::Names,
    path_tree::PathTree,
};

/// The maximum size of a document between two stages, in bytes: the server's buffer limit.
const MAX_BETWEEN_STAGES: usize = 64 * 1024 * 1024;

/// Expressions by the paths at which to set their values.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    fields: Vec<(Path, Expression)>,
    /// The paths as a tree. `None` if one path leads through another: then they are set in order.
    places: Option<Places>,
}

/// The computed fields of one document level, by field name.
#[derive(Debug, Clone, Default)]
struct Places(Names<Place>);

#[derive(Debug, Clone)]
enum Place {
    /// The value of the expression with this index.
    Value(usize),
    Below(Places),
}

impl Computed {
    /// Creates computed fields that are set in the given order.
    ///
    /// # Errors
    /// Fails if the budget is exhausted.
    pub(crate) fn new(fields: Vec<(Path, Expression)>) -> Result<Self> {
        let mut seen = PathTree::default();
        let mut places = Some(Places::default());
        for (number, (path, _)) in fields.iter().enumerate() {
            match (seen.insert(path.parts())?, &mut places) {
                (None, Some(places)) => places.insert(path.parts(), number),
                _ => places = None,
            }
        }
        Ok(Self { fields, places })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.fields.iter().map(|(_, expression)| expression)
    }

    pub(crate) fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.fields.iter_mut().try_for_each(|(_, expression)| expression.bind(variables))
    }

    /// Sets the fields in a document. Every expression is evaluated on `root`.
    ///
    /// # Errors
    /// Fails if an expression cannot be evaluated, or if the document grows beyond the limit for
    /// documents between two stages.
    pub(crate) fn set(&self, document: &RawDocument, root: &RawDocument) -> Result<RawDocumentBuf> {
        let Some(places) = &self.places else {
            let mut current = document.to_owned();
            for (path, expression) in &self.fields {
                current = set_in(&current, path.parts(), expression.evaluate(root)?.as_ref())?;
            }
            return Ok(current);
        };
        let mut values = Vec::with_capacity(self.fields.len());
        let mut size = document.as_bytes().len();
        for (_, expression) in &self.fields {
            budget::charge(1)?;
            let value = expression.evaluate(root)?;
            size += value.as_ref().map_or(0, crate::document::size_of);
            check_size(size)?;
            values.push(value);
        }
        places.set(document, &values)
    }
}

impl Places {
    fn insert(&mut self, parts: &[String], number: usize) {
        let Some((first, rest)) = parts.split_first() else { return };
        let made = || if rest.is_empty() { Place::Value(number) } else { Place::Below(Self::default()) };
        if let Place::Below(below) = self.0.get_or_insert_with(first, made) {
            below.insert(rest, number);
        }
    }

    fn set(&self, document: &RawDocument, values: &[Value]) -> Result<RawDocumentBuf> {
        budget::charge(self.0.len() as u64 + 1)?;
        let mut result = RawDocumentBuf::new();
        let mut seen = vec![false; self.0.len()];
        for (name, old) in elements(document) {
            let Some(place) = self.0.place(name) else {
                crate::append(&mut result, name, old);
                continue;
            };
            seen[place] = true;
            match self.0.at(place) {
                Place::Value(number) => set_value(&mut result, name, &values[*number])?,
                Place::Below(below) => crate::append(&mut result, name, &below.set_below(old, values)?),
            }
        }
        for ((name, place), _) in self.0.iter().zip(seen).filter(|(_, seen)| !seen) {
            match place {
                Place::Value(number) => set_value(&mut result, name, &values[*number])?,
                // The server creates the parent documents even if the expression has no value.
                Place::Below(below) => crate::append(&mut result, name, &below.set(empty(), values)?),
            }
        }
        budget::charge_bytes(result.as_bytes().len())?;
        check_size(result.as_bytes().len())?;
        Ok(result)
    }

    fn set_below(&self, old: RawBsonRef<'_>, values: &[Value]) -> Result<RawBson> {
        Ok(match old {
            RawBsonRef::Document(inner) => RawBson::Document(self.set(inner, values)?),
            RawBsonRef::Array(array) => {
                let mut mapped = RawArrayBuf::new();
                for item in items(array) {
                    mapped.push(self.set_below(item, values)?);
                    check_size(mapped.as_bytes().len())?;
                }
                RawBson::Array(mapped)
            }
            _ => RawBson::Document(self.set(empty(), values)?),
        })
    }
}

/// Appends a value; a missing value removes the field.
fn set_value(result: &mut RawDocumentBuf, name: &str, value: &Value) -> Result<()> {
    if let Some(value) = value {
        crate::append(result, name, value);
        check_size(result.as_bytes().len())?;
    }
    Ok(())
}

/// Sets one field, in every document of an array on its path. A missing value removes it.
pub(super) fn set_in(document: &RawDocument, parts: &[String], value: Option<&RawBson>) -> Result<RawDocumentBuf> {
    let Some((first, rest)) = parts.split_first() else { return Ok(document.to_owned()) };
    let mut result = RawDocumentBuf::new();
    let mut found = false;
    for (name, old) in elements(document) {
        if name != first {
            crate::append(&mut result, name, old);
            continue;
        }
        found = true;
        match value {
            _ if !rest.is_empty() => crate::append(&mut result, name, &set_below(old, rest, value)?),
            Some(value) => crate::append(&mut result, name, value),
            None => {}
        }
    }
    match value {
        Some(value) if !found && rest.is_empty() => crate::append(&mut result, first, value),
        // Creates parent documents as `Places::set` does.
        _ if !found && !rest.is_empty() => crate::append(&mut result, first, &set_in(empty(), rest, value)?),
        _ => {}
    }
    budget::charge_bytes(result.as_bytes().len())?;
    check_size(result.as_bytes().len())?;
    Ok(result)
}

fn set_below(old: RawBsonRef<'_>, rest: &[String], value: Option<&RawBson>) -> Result<RawBson> {
    Ok(match old {
        RawBsonRef::Document(inner) => RawBson::Document(set_in(inner, rest, value)?),
        RawBsonRef::Array(array) => {
            let mut mapped = RawArrayBuf::new();
            for item in items(array) {
                budget::charge(1)?;
                mapped.push(set_below(item, rest, value)?);
                check_size(mapped.as_bytes().len())?;
            }
            RawBson::Array(mapped)
        }
        _ => RawBson::Document(set_in(empty(), rest, value)?),
    })
}

fn check_size(size: usize) -> Result<()> {
    if size > MAX_BETWEEN_STAGES {
        let message =
            format!("a document of {size} bytes exceeds the limit of {MAX_BETWEEN_STAGES} bytes between two stages");
        return Err(Error::new(ErrorCode::BsonObjectTooLarge, message));
    }
    Ok(())
}
