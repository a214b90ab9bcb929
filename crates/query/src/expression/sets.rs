//! Set functions: arrays as sets, in which equal values count once.

use std::collections::HashSet;

use bson::{
    RawBson,
    raw::{RawArray, RawArrayBuf, RawBsonRef},
};

use super::{
    Value,
    call::{Operands, operand},
    is_nullish, null, type_of,
};
use crate::{
    Error, Result, budget,
    document::{items, truthy},
    encode_key,
    sorting::sorted,
};

/// Distinct values with their keys, in key order.
type Members = Vec<(Vec<u8>, RawBson)>;

fn array(all: impl IntoIterator<Item = RawBson>) -> Result<Value> {
    let mut array = RawArrayBuf::new();
    all.into_iter().for_each(|item| array.push(item));
    Ok(Some(RawBson::Array(array)))
}

fn in_order(all: Members) -> Result<Members> {
    let mut all = sorted(all, |(one, _), (other, _)| one.cmp(other))?;
    all.dedup_by(|(one, _), (other, _)| one == other);
    Ok(all)
}

fn has(all: &Members, key: &[u8]) -> bool {
    all.binary_search_by(|(other, _)| other[..].cmp(key)).is_ok()
}

fn keyed(array: &RawArray) -> Result<Members> {
    let with_key = |item: RawBsonRef<'_>| {
        budget::charge(1)?;
        Ok((encode_key(item), item.into()))
    };
    items(array).map(with_key).collect()
}

/// Returns the members of an operand; `None` if it is null or missing and `nullable` allows that.
fn members(name: &str, value: &Value, code: i32, nullable: bool) -> Result<Option<Members>> {
    match value {
        Some(RawBson::Array(array)) => Ok(Some(in_order(keyed(array)?)?)),
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
    array(in_order(all)?.into_iter().map(|(_, value)| value))
}

pub(super) fn intersection(operands: Operands<'_>) -> Result<Value> {
    let mut all: Option<Members> = None;
    for value in operands.iter().flatten() {
        let Some(members) = members("$setIntersection", value, 17047, true)? else { return null() };
        all = Some(match all {
            None => members,
            Some(all) => all.into_iter().filter(|(key, _)| has(&members, key)).collect(),
        });
    }
    array(all.unwrap_or_default().into_iter().map(|(_, value)| value))
}

pub(super) fn difference(operands: Operands<'_>) -> Result<Value> {
    let (one, other) = (operand(operands, 0), operand(operands, 1));
    if is_nullish(one) || is_nullish(other) {
        return null();
    }
    let Some(RawBson::Array(from)) = one else {
        let message =
            format!("both operands of $setDifference must be arrays. First argument is of type: {}", type_of(one));
        return Err(Error::location(17048, message));
    };
    let other = members("$setDifference", other, 17049, false)?.unwrap_or_default();
    let mut seen: HashSet<Vec<u8>> = other.into_iter().map(|(key, _)| key).collect();
    array(keyed(from)?.into_iter().filter(|(key, _)| seen.insert(key.clone())).map(|(_, value)| value))
}

pub(super) fn equals(operands: Operands<'_>) -> Result<Value> {
    let mut sets = Vec::new();
    for value in operands.iter().flatten() {
        sets.push(members("$setEquals", value, 5_887_502, false)?.unwrap_or_default());
    }
    let same = |one: &Members, other: &Members| {
        one.len() == other.len() && one.iter().zip(other).all(|((one, _), (other, _))| one == other)
    };
    Ok(Some(RawBson::Boolean(sets.windows(2).all(|pair| same(&pair[0], &pair[1])))))
}

pub(super) fn is_subset(operands: Operands<'_>) -> Result<Value> {
    let one = members("$setIsSubset", operand(operands, 0), 17046, false)?.unwrap_or_default();
    let other = members("$setIsSubset", operand(operands, 1), 17042, false)?.unwrap_or_default();
    Ok(Some(RawBson::Boolean(one.iter().all(|(key, _)| has(&other, key)))))
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
