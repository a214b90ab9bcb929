//! Filters (<https://www.mongodb.com/docs/manual/reference/operator/query/>): parsed once, asked of each document.

mod parse;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use crate::{Path, Result, compare, compare::type_class, equal};

/// A parsed filter. Its values stay values: nothing in them is looked at as an operator again.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All must match; none is true.
    And(Vec<Filter>),
    /// One must match.
    Or(Vec<Filter>),
    /// None may match.
    Nor(Vec<Filter>),
    /// Must not match.
    Not(Box<Filter>),
    /// What a path reaches must satisfy a predicate.
    Path(PathFilter),
}

/// A predicate on what a path reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct PathFilter {
    /// Where to look.
    pub path: Path,
    /// What must be there.
    pub predicate: Predicate,
}

/// A condition that one value satisfies or does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Equal by value; null also matches a missing field.
    Eq(RawBson),
    /// Greater, within the same type.
    Gt(RawBson),
    /// Greater or equal, within the same type.
    Gte(RawBson),
    /// Less, within the same type.
    Lt(RawBson),
    /// Less or equal, within the same type.
    Lte(RawBson),
    /// Equal to one of these.
    In(Vec<RawBson>),
    /// The field is there, whatever it holds.
    Exists,
}

impl Filter {
    /// Parses a filter document.
    ///
    /// # Errors
    /// The server's own for an operator that does not exist or an operand of the wrong type;
    /// `CommandNotSupported` by name for what this version does not have.
    pub fn parse(filter: &RawDocument) -> Result<Self> {
        parse::filter(filter)
    }

    /// The filter that matches everything.
    pub fn all() -> Self {
        Self::And(Vec::new())
    }

    /// A filter for equality of one field.
    pub fn equals(path: &str, value: impl Into<RawBson>) -> Self {
        Self::Path(PathFilter { path: Path::new(path), predicate: Predicate::Eq(value.into()) })
    }

    /// Whether the document matches.
    pub fn matches(&self, document: &RawDocument) -> bool {
        match self {
            Self::And(filters) => filters.iter().all(|filter| filter.matches(document)),
            Self::Or(filters) => filters.iter().any(|filter| filter.matches(document)),
            Self::Nor(filters) => !filters.iter().any(|filter| filter.matches(document)),
            Self::Not(filter) => !filter.matches(document),
            Self::Path(PathFilter { path, predicate }) => path.visit(document, &mut |value| predicate.matches(value)),
        }
    }

    /// The values that the filter demands of fields by equality, as an upsert copies them and a planner looks them up.
    pub fn equalities(&self) -> Vec<(&Path, &RawBson)> {
        let mut found = Vec::new();
        self.collect_equalities(&mut found);
        found
    }

    fn collect_equalities<'a>(&'a self, found: &mut Vec<(&'a Path, &'a RawBson)>) {
        match self {
            Self::And(filters) => filters.iter().for_each(|filter| filter.collect_equalities(found)),
            Self::Path(PathFilter { path, predicate: Predicate::Eq(value) }) => found.push((path, value)),
            _ => {}
        }
    }
}

impl Predicate {
    /// Whether a value, or a missing one, satisfies the condition.
    pub fn matches(&self, value: Option<RawBsonRef<'_>>) -> bool {
        match self {
            Self::Eq(expected) => equals(expected, value),
            Self::In(candidates) => candidates.iter().any(|candidate| equals(candidate, value)),
            Self::Gt(bound) => compares(bound, value, |order| order.is_gt(), false),
            Self::Gte(bound) => compares(bound, value, |order| order.is_ge(), true),
            Self::Lt(bound) => compares(bound, value, |order| order.is_lt(), false),
            Self::Lte(bound) => compares(bound, value, |order| order.is_le(), true),
            Self::Exists => value.is_some(),
        }
    }
}

fn equals(expected: &RawBson, value: Option<RawBsonRef<'_>>) -> bool {
    let expected = expected.as_raw_bson_ref();
    match value {
        Some(value) => equal(expected, value),
        None => matches!(expected, RawBsonRef::Null),
    }
}

/// A comparison holds within one type only; the key bounds compare with everything, NaN with nothing but itself.
fn compares(
    bound: &RawBson,
    value: Option<RawBsonRef<'_>>,
    holds: fn(std::cmp::Ordering) -> bool,
    or_equal: bool,
) -> bool {
    let bound = bound.as_raw_bson_ref();
    let Some(value) = value else { return or_equal && matches!(bound, RawBsonRef::Null) };
    let bounded = matches!(bound, RawBsonRef::MinKey | RawBsonRef::MaxKey);
    if type_class(bound) != type_class(value) && !bounded {
        return false;
    }
    if is_nan(bound) || is_nan(value) {
        return or_equal && is_nan(bound) && is_nan(value);
    }
    holds(compare(value, bound))
}

fn is_nan(value: RawBsonRef<'_>) -> bool {
    crate::Number::of(value).is_some_and(|number| number.to_f64().is_nan())
}

#[cfg(test)]
mod tests;
