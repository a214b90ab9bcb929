//! The operators that select items of arrays: `$slice`, `$elemMatch` and `$`.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, Filter, Path, Predicate, Result, budget,
    document::{elements, items},
    names::Names,
};

/// The selected items of an array.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// A number of items from a position (`$slice`); a negative number counts from the end.
    Slice { skip: Option<i64>, limit: i64 },
    /// The first item that matches (`$elemMatch`).
    ElemMatch(Predicate),
    /// The item by which the document matched (`$`).
    Positional,
}

/// The parts that a projection selects, by the paths of their arrays. No path leads through
/// another.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    root: Level,
    /// The array of the positional part, of which there is at most one.
    positional: Option<Path>,
}

/// The parts within one document level, by field name.
#[derive(Debug, Clone, Default)]
struct Level(Names<Below>);

#[derive(Debug, Clone)]
enum Below {
    Part(Part),
    Level(Level),
}

impl Parts {
    pub(super) fn insert(&mut self, path: Path, part: Part) {
        match part {
            Part::Positional => self.positional = Some(path),
            part => self.root.insert(path.parts(), part),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.0.len() == 0 && self.positional.is_none()
    }

    pub(super) fn is_positional(&self) -> bool {
        self.positional.is_some()
    }

    /// Calls `visit` with the name of each operator in their filters. `$elemMatch` occurs only at
    /// the top level.
    pub(super) fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        for (_, below) in self.root.0.iter() {
            if let Below::Part(Part::ElemMatch(Predicate::ElemMatch(filter) | Predicate::ElemMatchValue(filter, _))) =
                below
            {
                filter.operators(visit);
            }
        }
    }

    /// Returns the document with only these parts of its arrays.
    pub(super) fn take(&self, document: &RawDocument, filter: &Filter) -> Result<RawDocumentBuf> {
        let taken = self.root.take(document)?;
        let Some(path) = &self.positional else { return Ok(taken) };
        let position = filter.position(document).flatten();
        budget::charge(1)?;
        take_positional(&taken, path.parts(), position)
    }
}

impl Level {
    fn insert(&mut self, parts: &[String], part: Part) {
        let Some((first, rest)) = parts.split_first() else { return };
        if rest.is_empty() {
            self.0.get_or_insert_with(first, || Below::Part(part));
            return;
        }
        let below = self.0.get_or_insert_with(first, || Below::Level(Self::default()));
        if let Below::Level(level) = below {
            level.insert(rest, part);
        }
    }

    fn take(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        let mut taken = RawDocumentBuf::new();
        for (name, value) in elements(document) {
            match self.0.get(name) {
                None => crate::append(&mut taken, name, value),
                Some(below) => {
                    budget::charge(1)?;
                    if let Some(value) = below.take_from(value)? {
                        crate::append(&mut taken, name, &value);
                    }
                }
            }
        }
        budget::charge_bytes(taken.as_bytes().len())?;
        Ok(taken)
    }
}

impl Below {
    fn take_from(&self, value: RawBsonRef<'_>) -> Result<Option<RawBson>> {
        Ok(match (self, value) {
            (Self::Part(part), RawBsonRef::Array(array)) => part.of_array(array, None)?.map(RawBson::Array),
            // `$elemMatch` drops a value that is not an array.
            (Self::Part(Part::ElemMatch(_)), _) => None,
            (Self::Level(level), RawBsonRef::Document(inner)) => Some(RawBson::Document(level.take(inner)?)),
            (Self::Level(_), RawBsonRef::Array(array)) => {
                let mut mapped = RawArrayBuf::new();
                for item in items(array) {
                    budget::charge(1)?;
                    if let Some(item) = self.take_from(item)? {
                        mapped.push(item);
                    }
                }
                Some(RawBson::Array(mapped))
            }
            (_, value) => Some(value.into()),
        })
    }
}

/// Keeps only the item at `position` of the first array on a path.
fn take_positional(document: &RawDocument, parts: &[String], position: Option<usize>) -> Result<RawDocumentBuf> {
    let Some((first, rest)) = parts.split_first() else { return Ok(document.to_owned()) };
    let mut taken = RawDocumentBuf::new();
    for (name, value) in elements(document) {
        match value {
            RawBsonRef::Array(array) if name == first => {
                if let Some(array) = Part::Positional.of_array(array, position)? {
                    crate::append(&mut taken, name, &array);
                }
            }
            RawBsonRef::Document(inner) if name == first && !rest.is_empty() => {
                crate::append(&mut taken, name, &take_positional(inner, rest, position)?);
            }
            value => crate::append(&mut taken, name, value),
        }
    }
    Ok(taken)
}

impl Part {
    fn of_array(&self, array: &bson::raw::RawArray, position: Option<usize>) -> Result<Option<RawArrayBuf>> {
        let all: Vec<RawBsonRef<'_>> = items(array).collect();
        let (from, count) = match self {
            Self::Slice { skip, limit } => {
                let length = all.len() as i64;
                match skip {
                    None if *limit < 0 => ((length + limit).max(0), length),
                    None => (0, *limit),
                    Some(skip) if *skip < 0 => ((length + skip).max(0), *limit),
                    Some(skip) => (*skip, *limit),
                }
            }
            Self::ElemMatch(predicate) => {
                let mut found = None;
                predicate.matches_within(Some(RawBsonRef::Array(array)), &mut found);
                budget::charge(1)?;
                let Some(found) = found else { return Ok(None) };
                (found as i64, 1)
            }
            Self::Positional => {
                let failed = |code, why: &str| {
                    let message =
                        format!("Executor error during find command :: caused by :: positional operator '.$' {why}");
                    Error::location(code, message)
                };
                match position {
                    None => return Err(failed(51246, "couldn't find a matching element in the array")),
                    Some(position) if position >= all.len() => return Err(failed(51247, "element mismatch")),
                    Some(position) => (position as i64, 1),
                }
            }
        };
        let mut taken = RawArrayBuf::new();
        let place = |number: i64| usize::try_from(number).unwrap_or(0);
        all.into_iter().skip(place(from)).take(place(count)).for_each(|item| taken.push(item));
        Ok(Some(taken))
    }
}
