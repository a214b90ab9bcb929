//! Arrays as sets, in which equal values are one.

use bson::{RawBson, raw::RawArrayBuf};

use super::{
    Value,
    call::{Operands, operand},
    is_nullish, null, type_of,
};
use crate::{
    Error, Result, compare,
    document::{items, truthy},
};

fn set(mut all: Vec<RawBson>) -> Result<Value> {
    sort(&mut all);
    let mut array = RawArrayBuf::new();
    all.into_iter().for_each(|item| array.push(item));
    Ok(Some(RawBson::Array(array)))
}

fn sort(all: &mut Vec<RawBson>) {
    all.sort_by(|one, other| compare(one.as_raw_bson_ref(), other.as_raw_bson_ref()));
    all.dedup_by(|one, other| is_same(one, other));
}

fn is_same(one: &RawBson, other: &RawBson) -> bool {
    compare(one.as_raw_bson_ref(), other.as_raw_bson_ref()).is_eq()
}

fn has(all: &[RawBson], value: &RawBson) -> bool {
    all.binary_search_by(|other| compare(other.as_raw_bson_ref(), value.as_raw_bson_ref())).is_ok()
}

/// The members of an operand, sorted, each once; nothing where it is null and may be.
fn members(name: &str, value: &Value, code: i32, nullable: bool) -> Result<Option<Vec<RawBson>>> {
    match value {
        Some(RawBson::Array(array)) => {
            let mut all: Vec<RawBson> = items(array).map(Into::into).collect();
            sort(&mut all);
            Ok(Some(all))
        }
        value if nullable && is_nullish(value) => Ok(None),
        other => Err(Error::location(
            code,
            format!("All operands of {name} must be arrays. One argument is of type: {}", type_of(other)),
        )),
    }
}

pub(super) fn union(operands: Operands<'_>) -> Result<Value> {
    let mut all = Vec::new();
    for value in operands.iter().flatten() {
        match members("$setUnion", value, 17043, true)? {
            Some(members) => all.extend(members),
            None => return null(),
        }
    }
    set(all)
}

pub(super) fn intersection(operands: Operands<'_>) -> Result<Value> {
    let mut all: Option<Vec<RawBson>> = None;
    for value in operands.iter().flatten() {
        let Some(members) = members("$setIntersection", value, 17047, true)? else { return null() };
        all = Some(match all {
            None => members,
            Some(all) => all.into_iter().filter(|value| has(&members, value)).collect(),
        });
    }
    set(all.unwrap_or_default())
}

pub(super) fn difference(operands: Operands<'_>) -> Result<Value> {
    let (one, other) = (operand(operands, 0), operand(operands, 1));
    if is_nullish(one) || is_nullish(other) {
        return null();
    }
    let Some(RawBson::Array(array)) = one else {
        let message =
            format!("both operands of $setDifference must be arrays. First argument is of type: {}", type_of(one));
        return Err(Error::location(17048, message));
    };
    let other = members("$setDifference", other, 17049, false)?.unwrap_or_default();
    let mut left: Vec<RawBson> = Vec::new();
    for value in items(array).map(RawBson::from) {
        if !has(&other, &value) && !left.iter().any(|held| is_same(held, &value)) {
            left.push(value);
        }
    }
    let mut array = RawArrayBuf::new();
    left.into_iter().for_each(|item| array.push(item));
    Ok(Some(RawBson::Array(array)))
}

pub(super) fn equals(operands: Operands<'_>) -> Result<Value> {
    let mut sets = Vec::new();
    for value in operands.iter().flatten() {
        sets.push(members("$setEquals", value, 5_887_502, false)?.unwrap_or_default());
    }
    let same = |one: &[RawBson], other: &[RawBson]| {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
    };
    Ok(Some(RawBson::Boolean(sets.windows(2).all(|pair| same(&pair[0], &pair[1])))))
}

pub(super) fn is_subset(operands: Operands<'_>) -> Result<Value> {
    let one = members("$setIsSubset", operand(operands, 0), 17046, false)?.unwrap_or_default();
    let other = members("$setIsSubset", operand(operands, 1), 17042, false)?.unwrap_or_default();
    Ok(Some(RawBson::Boolean(one.iter().all(|value| has(&other, value)))))
}

pub(super) fn any_true(operands: Operands<'_>) -> Result<Value> {
    of_items("$anyElementTrue", operands, 17041, |values| values.iter().any(|value| *value))
}

pub(super) fn all_true(operands: Operands<'_>) -> Result<Value> {
    of_items("$allElementsTrue", operands, 17040, |values| values.iter().all(|value| *value))
}

fn of_items(name: &str, operands: Operands<'_>, code: i32, test: fn(&[bool]) -> bool) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::Array(array)) => Ok(Some(RawBson::Boolean(test(&items(array).map(truthy).collect::<Vec<_>>())))),
        other => Err(Error::location(code, format!("{name}'s argument must be an array, but is {}", type_of(other)))),
    }
}
