//! Equality: `{ "field": value }`, `%eq` and `%ne`.

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocumentBuf},
};
use query::{Filter, Path, PathFilter, Predicate, budget};

use super::{
    Context, Truth,
    operand::{Operand, Values},
};

/// Returns the exact filter for the documents in which two operands are equal (`truth`), or not.
pub(super) fn filter(left: &Operand, right: &Operand, context: &Context<'_>, truth: bool) -> Option<Filter> {
    match (left, right) {
        (Operand::Field(_), Operand::Field(_)) => None,
        (Operand::Field(path), other) | (other, Operand::Field(path)) => {
            field_filter(path, &other.values(context), truth)
        }
        (left, right) => {
            Some(Filter::Always(compare(&left.values(context), &right.values(context)) == Truth::from(truth)))
        }
    }
}

/// Returns a filter that matches at least the documents of [`filter`], which has no exact filter.
pub(super) fn superset(left: &Operand, right: &Operand, context: &Context<'_>, truth: bool) -> Filter {
    match (left, right) {
        (Operand::Field(one), Operand::Field(other)) => Filter::all_of([is_there(one), is_there(other)]),
        (Operand::Field(path), other) | (other, Operand::Field(path)) => {
            field_superset(path, &other.values(context), truth)
        }
        _ => Filter::Always(true),
    }
}

/// Returns the filter for the documents in which a field equals one of the values (`truth`), or
/// exists and equals none of them.
pub(super) fn field_filter(path: &Path, values: &Values<'_>, truth: bool) -> Option<Filter> {
    // In a filter, null also matches a missing field, and a regular expression is a pattern.
    let is_plain = |value: &RawBsonRef<'_>| {
        !matches!(value, RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::RegularExpression(_))
    };
    if !values.is_there {
        return Some(Filter::Always(false));
    }
    if !values.all.iter().all(is_plain) {
        return None;
    }
    let on_path = |predicate| Filter::Path(PathFilter { path: path.clone(), predicate });
    let equal = match values.all[..] {
        [] => Filter::Always(false),
        // An operand with a boolean has no other values.
        [value @ RawBsonRef::Boolean(_)] => {
            Filter::all_of([on_path(Predicate::Eq(value.into())), without_arrays(path)?])
        }
        [value] => on_path(Predicate::Eq(value.into())),
        ref values => on_path(Predicate::In(values.iter().map(|value| (*value).into()).collect(), Vec::new())),
    };
    Some(match truth {
        true => equal,
        false => Filter::all_of([on_path(Predicate::Exists), Filter::none_of([equal])]),
    })
}

/// Returns a filter that matches at least the documents of [`field_filter`], which has no exact
/// filter.
pub(super) fn field_superset(path: &Path, values: &Values<'_>, truth: bool) -> Filter {
    use RawBsonRef::{Boolean, Null, RegularExpression, Undefined};
    let is_in = |values: Vec<RawBson>| {
        Filter::Path(PathFilter { path: path.clone(), predicate: Predicate::In(values.into(), Vec::new()) })
    };
    let is_pattern = |value: &RawBsonRef<'_>| matches!(value, Undefined | RegularExpression(_));
    let is_plain = |value: &RawBsonRef<'_>| !is_pattern(value) && !matches!(value, Null | Boolean(_));
    let owned = |value: &RawBsonRef<'_>| RawBson::from(*value);
    let there = is_there(path);
    match truth {
        _ if there == Filter::Always(true) => there,
        // Servers differ in their comparison of undefined, and match by regular expressions.
        true if values.all.iter().any(is_pattern) => there,
        // Null also matches a missing field.
        true => Filter::all_of([there, is_in(values.all.iter().map(owned).collect())]),
        false => {
            let plain: Vec<_> = values.all.iter().filter(|value| is_plain(value)).map(owned).collect();
            let equal = if plain.is_empty() { Filter::Always(false) } else { is_in(plain) };
            Filter::all_of([there, Filter::none_of([equal])])
        }
    }
}

/// Returns the filter for the documents that have a field; all documents if a server may interpret
/// its name differently.
pub(super) fn is_there(path: &Path) -> Filter {
    if path.parts().iter().any(|part| part.is_empty() || part.starts_with('$')) {
        return Filter::Always(true);
    }
    Filter::Path(PathFilter { path: path.clone(), predicate: Predicate::Exists })
}

/// Returns the filter for the documents in which neither the field nor a parent of it is an array.
fn without_arrays(path: &Path) -> Option<Filter> {
    let is_array = |length: usize| {
        let mut is_array = RawDocumentBuf::new();
        let mut condition = RawDocumentBuf::new();
        query::append(&mut condition, "$type", "array");
        query::append(&mut is_array, &path.parts()[..length].join("."), &condition);
        Filter::parse(&is_array).ok()
    };
    (1..=path.parts().len()).map(is_array).collect::<Option<Vec<_>>>().map(Filter::none_of)
}

/// The maximum number of pairs of values that are compared directly; for more, the values' keys
/// are looked up in a set.
const FEW_PAIRS: usize = 64;

/// Compares two operands. An array equals itself and each value that one of its items equals. A
/// boolean equals only a boolean.
pub(super) fn compare(left: &Values<'_>, right: &Values<'_>) -> Truth {
    if !left.is_there || !right.is_there || !budget::spend((left.all.len() + right.all.len()) as u64) {
        return Truth::Unresolved;
    }
    let (few, many) = if left.all.len() < right.all.len() { (&left.all, &right.all) } else { (&right.all, &left.all) };
    if few.len() == 1 || few.len() * many.len() <= FEW_PAIRS {
        return Truth::from(few.iter().any(|a| many.iter().any(|b| query::equal(*a, *b))));
    }
    let keys: HashSet<Vec<u8>> = few.iter().map(|value| query::encode_key(*value)).collect();
    Truth::from(many.iter().any(|value| keys.contains(&query::encode_key(*value))))
}
