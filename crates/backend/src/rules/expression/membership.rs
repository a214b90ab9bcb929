//! `%in` and `%nin`: equality with an item of a list; and `%exists`.

use bson::raw::{RawBsonRef, RawDocument};
use query::{Filter, Path, PathFilter, Predicate, elements};

use super::{
    Context, Truth,
    equality::{compare, field_filter, field_superset, is_there},
    operand::{Operand, Values, is_boolean},
};

/// Evaluates `%in`. It is unresolved if an operand is missing, or the second one is no list.
pub(super) fn contains(left: &Operand, list: &Operand, context: &Context<'_>) -> Truth {
    compare(&left.values(context), &items(list, context))
}

/// Returns the exact filter for the documents with a value in the list (`truth`), or without one.
pub(super) fn filter(left: &Operand, list: &Operand, context: &Context<'_>, truth: bool) -> Option<Filter> {
    match (left, list) {
        (_, Operand::Field(_)) => None,
        (Operand::Field(path), list) => {
            let items = items(list, context);
            // The filter for a boolean beside other values is not exact.
            let is_mixed = items.all.len() > 1 && items.all.iter().any(is_boolean);
            if is_mixed { None } else { field_filter(path, &items, truth) }
        }
        (left, list) => Some(Filter::Always(contains(left, list, context) == Truth::from(truth))),
    }
}

/// Returns a filter that matches at least the documents of [`filter`], which has no exact filter.
pub(super) fn superset(left: &Operand, list: &Operand, context: &Context<'_>, truth: bool) -> Filter {
    match (left, list) {
        (_, Operand::Field(path)) => is_there(path),
        (Operand::Field(path), list) => field_superset(path, &items(list, context), truth),
        _ => Filter::Always(true),
    }
}

/// Evaluates `%exists`, which is never unresolved. A field with the value null exists.
pub(super) fn exists(operand: &Operand, context: &Context<'_>) -> Truth {
    Truth::from(operand.values(context).is_there)
}

/// Returns the exact filter for the documents in which an operand exists (`truth`), or is missing.
pub(super) fn exists_filter(operand: &Operand, context: &Context<'_>, truth: bool) -> Option<Filter> {
    match operand {
        // A server may interpret the name differently.
        Operand::Field(path) if is_there(path) == Filter::Always(true) => None,
        Operand::Field(path) if truth => Some(on(path)),
        Operand::Field(path) => Some(Filter::none_of([on(path)])),
        other => Some(Filter::Always(exists(other, context) == Truth::from(truth))),
    }
}

fn on(path: &Path) -> Filter {
    Filter::Path(PathFilter { path: path.clone(), predicate: Predicate::Exists })
}

/// Returns the items of a list, which are missing if the operand is no array.
fn items<'a>(list: &'a Operand, context: &Context<'a>) -> Values<'a> {
    match list.value(context) {
        Some(RawBsonRef::Array(array)) => match RawDocument::from_bytes(array.as_bytes()) {
            Ok(items) => Values { is_there: true, all: elements(items).map(|(_, item)| item).collect() },
            Err(_) => Values::missing(),
        },
        _ => Values::missing(),
    }
}
