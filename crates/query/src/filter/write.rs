//! Converts a [`Filter`] back to a filter document, for a MongoDB server that evaluates it.

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocumentBuf},
};

use super::{Filter, PathFilter, Predicate};
use crate::{
    append,
    document::{elements, with_stack},
};

impl Filter {
    /// Returns a filter document that [`parse`](Self::parse) turns into an equivalent filter.
    ///
    /// The document uses only operators that all server versions have. Its form may differ from
    /// that of the document that was parsed: `$all` becomes `$and`, for example.
    pub fn to_document(&self) -> RawDocumentBuf {
        with_stack(|| self.write())
    }

    fn write(&self) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        match self {
            Self::And(filters) => return all(filters),
            Self::Or(filters) if filters.is_empty() => return never(),
            Self::Or(filters) => append(&mut document, "$or", &branches(filters)),
            Self::Nor(filters) if filters.is_empty() => {}
            Self::Nor(filters) => append(&mut document, "$nor", &branches(filters)),
            Self::Not(filter) => match &**filter {
                Self::Path(PathFilter { path, predicate }) if let Some(negated) = predicate.negated() => {
                    append(&mut document, path.as_str(), &negated);
                }
                filter => append(&mut document, "$nor", &branches(std::slice::from_ref(filter))),
            },
            Self::Path(PathFilter { path, predicate }) => append(&mut document, path.as_str(), &predicate.write()),
            Self::Expression(_, source) => append(&mut document, "$expr", source),
            Self::Schema(_, source) => append(&mut document, "$jsonSchema", source),
            Self::Always(true) => {}
            Self::Always(false) => return never(),
        }
        document
    }
}

/// A filter that matches nothing, in terms that every version of every server understands.
fn never() -> RawDocumentBuf {
    let mut nothing = RawArrayBuf::new();
    nothing.push(RawDocumentBuf::new());
    let mut document = RawDocumentBuf::new();
    append(&mut document, "$nor", &nothing);
    document
}

fn branches(filters: &[Filter]) -> RawArrayBuf {
    let mut branches = RawArrayBuf::new();
    filters.iter().for_each(|filter| branches.push(filter.to_document()));
    branches
}

/// Merges the conditions into one document if their names differ, and uses `$and` otherwise.
fn all(filters: &[Filter]) -> RawDocumentBuf {
    // Each filter is written once: writing it again for repeated names would double the work with
    // every level.
    let branches: Vec<RawDocumentBuf> = filters.iter().map(Filter::to_document).collect();
    let fields = || branches.iter().flat_map(|branch| elements(branch));
    let mut document = RawDocumentBuf::new();
    let mut names = HashSet::new();
    if fields().all(|(name, _)| names.insert(name)) {
        fields().for_each(|(name, value)| append(&mut document, name, value));
        return document;
    }
    let mut all = RawArrayBuf::new();
    branches.iter().for_each(|branch| all.push(branch.clone()));
    append(&mut document, "$and", &all);
    document
}

fn operator<'a>(name: &str, operand: impl Into<RawBsonRef<'a>>) -> RawBson {
    let mut document = RawDocumentBuf::new();
    append(&mut document, name, operand);
    RawBson::Document(document)
}

fn candidates(values: &[RawBson], patterns: &[crate::Regex]) -> RawArrayBuf {
    let mut candidates = RawArrayBuf::new();
    values.iter().for_each(|value| candidates.push(value.as_raw_bson_ref()));
    patterns.iter().for_each(|pattern| candidates.push(pattern.to_bson()));
    candidates
}

impl Predicate {
    fn write(&self) -> RawBson {
        match self {
            // A document could be taken for operators, and a regular expression for a pattern.
            Self::Eq(value @ (RawBson::Document(_) | RawBson::RegularExpression(_))) => operator("$eq", value),
            Self::Eq(value) => RawBson::clone(value),
            Self::Gt(bound) => operator("$gt", bound),
            Self::Gte(bound) => operator("$gte", bound),
            Self::Lt(bound) => operator("$lt", bound),
            Self::Lte(bound) => operator("$lte", bound),
            Self::In(values, patterns) => operator("$in", &candidates(values, patterns)),
            Self::Exists => operator("$exists", true),
            Self::Type(types) => operator("$type", &types.to_array()),
            Self::Mod(divisor, remainder) => {
                let mut numbers = RawArrayBuf::new();
                numbers.push(*divisor);
                numbers.push(*remainder);
                operator("$mod", &numbers)
            }
            Self::Regex(regex) => RawBson::RegularExpression(regex.to_bson()),
            Self::Bits(bits) => operator(bits.name(), &bits.to_array()),
            Self::Size(size) => operator("$size", *size),
            Self::ElemMatch(filter) => operator("$elemMatch", &filter.to_document()),
            Self::ElemMatchValue(_, source) => operator("$elemMatch", source),
        }
    }

    /// Returns the operator for the opposite of the predicate, if there is one.
    fn negated(&self) -> Option<RawBson> {
        match self {
            Self::Eq(value) => Some(operator("$ne", value)).filter(|_| !matches!(value, RawBson::RegularExpression(_))),
            Self::In(values, patterns) => Some(operator("$nin", &candidates(values, patterns))),
            Self::Exists => Some(operator("$exists", false)),
            _ => None,
        }
    }
}
