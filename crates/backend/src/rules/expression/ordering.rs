//! The order of values: `%gt`, `%gte`, `%lt` and `%lte`.

use std::cmp::Ordering;

use bson::raw::RawBsonRef;
use query::{Filter, Number, Path, PathFilter, Predicate, budget};

use super::{
    Context, Truth,
    equality::is_there,
    operand::{Operand, Values},
};

/// A comparison by order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `%gt`
    Greater,
    /// `%gte`
    GreaterOrEqual,
    /// `%lt`
    Less,
    /// `%lte`
    LessOrEqual,
}

impl Order {
    /// Returns the comparison of an operator, given without its `%`.
    pub(super) fn of(operator: &str) -> Option<Self> {
        match operator {
            "gt" => Some(Self::Greater),
            "gte" => Some(Self::GreaterOrEqual),
            "lt" => Some(Self::Less),
            "lte" => Some(Self::LessOrEqual),
            _ => None,
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }

    fn predicate(self, bound: RawBsonRef<'_>) -> Predicate {
        match self {
            Self::Greater => Predicate::Gt(bound.into()),
            Self::GreaterOrEqual => Predicate::Gte(bound.into()),
            Self::Less => Predicate::Lt(bound.into()),
            Self::LessOrEqual => Predicate::Lte(bound.into()),
        }
    }
}

/// True if other values can be less or greater than the value.
pub(super) fn is_ordered(value: RawBsonRef<'_>) -> bool {
    class(value).is_some()
}

/// Evaluates a comparison, which is true of an array if it is true of an item. It is unresolved if
/// an operand is missing, or the values have different types.
pub(super) fn evaluate(order: Order, left: &Operand, right: &Operand, context: &Context<'_>) -> Truth {
    let Values { is_there, all } = left.values(context);
    let Some(bound) = right.value(context).filter(|bound| is_ordered(*bound)) else { return Truth::Unresolved };
    if !is_there || !budget::spend(all.len() as u64 + 1) {
        return Truth::Unresolved;
    }
    let (mut is_comparable, mut has_other) = (false, false);
    for value in all.into_iter().filter(|value| !matches!(value, RawBsonRef::Array(_))) {
        if class(value) != class(bound) {
            has_other = true;
        } else if order.holds(query::compare(value, bound)) {
            return Truth::True;
        } else {
            is_comparable = true;
        }
    }
    if is_comparable && !has_other { Truth::False } else { Truth::Unresolved }
}

/// Returns the exact filter for the documents of which a comparison is true. No filter expresses
/// that one is false.
pub(super) fn filter(
    order: Order,
    left: &Operand,
    right: &Operand,
    context: &Context<'_>,
    truth: bool,
) -> Option<Filter> {
    match (left, right) {
        (_, Operand::Field(_)) => None,
        (Operand::Field(path), right) => match right.value(context).filter(|bound| is_ordered(*bound)) {
            None => Some(Filter::Always(false)),
            Some(bound) => truth.then(|| on(path, order, bound)),
        },
        (left, right) => Some(Filter::Always(evaluate(order, left, right, context) == Truth::from(truth))),
    }
}

/// Returns a filter that matches at least the documents of [`filter`], which has no exact filter.
pub(super) fn superset(order: Order, left: &Operand, right: &Operand, context: &Context<'_>, truth: bool) -> Filter {
    let Operand::Field(path) = left else { return Filter::Always(true) };
    let there = is_there(path);
    match right.value(context) {
        Some(bound) if !truth && !matches!(right, Operand::Field(_)) && there != Filter::Always(true) => {
            Filter::all_of([there, Filter::none_of([on(path, order, bound)])])
        }
        _ => there,
    }
}

fn on(path: &Path, order: Order, bound: RawBsonRef<'_>) -> Filter {
    Filter::Path(PathFilter { path: path.clone(), predicate: order.predicate(bound) })
}

/// Returns a number that is the same for all types whose values are ordered among each other. NaN,
/// and types without a useful order, have none.
fn class(value: RawBsonRef<'_>) -> Option<u8> {
    match value {
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => {
            Number::of(value).filter(|number| !number.is_nan()).map(|_| 0)
        }
        RawBsonRef::String(_) | RawBsonRef::Symbol(_) => Some(1),
        RawBsonRef::ObjectId(_) => Some(2),
        RawBsonRef::DateTime(_) => Some(3),
        RawBsonRef::Timestamp(_) => Some(4),
        _ => None,
    }
}
