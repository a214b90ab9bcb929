//! Array functions.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef},
};

use super::{
    Value, array_or_null,
    call::{Operands, operand},
    is_nullish, null, type_of,
};
use crate::{Error, Number, Result, budget, document::items, equal};

fn array(all: impl IntoIterator<Item = RawBson>) -> Result<Value> {
    let mut array = RawArrayBuf::new();
    all.into_iter().for_each(|item| array.push(item));
    Ok(Some(RawBson::Array(array)))
}

fn owned(array: &RawArrayBuf) -> Vec<RawBson> {
    items(array).map(Into::into).collect()
}

/// Returns a 32-bit integer operand, given as any numeric type.
fn whole(value: &Value, codes: [i32; 2], what: &str) -> Result<i32> {
    if value.as_ref().and_then(|value| Number::of(value.as_raw_bson_ref())).is_none() {
        return Err(Error::location(codes[0], format!("{what} must be a numeric value, but is {}", type_of(value))));
    }
    let whole = value.as_ref().and_then(|value| crate::integer(value.as_raw_bson_ref()));
    let whole = whole.and_then(|whole| i32::try_from(whole).ok());
    whole.ok_or_else(|| Error::location(codes[1], format!("{what} must be representable as a 32-bit integer")))
}

pub(super) fn element_at(operands: Operands<'_>) -> Result<Value> {
    let (input, index) = (operand(operands, 0), operand(operands, 1));
    if is_nullish(input) || is_nullish(index) {
        return null();
    }
    let Some(RawBson::Array(array)) = input else {
        return Err(Error::location(
            28689,
            format!("$arrayElemAt's first argument must be an array, but is {}", type_of(input)),
        ));
    };
    let index = whole(index, [28690, 28691], "$arrayElemAt's second argument")?;
    Ok(at(array, index))
}

fn at(array: &RawArrayBuf, index: i32) -> Value {
    let place =
        if index < 0 { items(array).count().checked_sub(index.unsigned_abs() as usize)? } else { index as usize };
    items(array).nth(place).map(Into::into)
}

pub(super) fn first(operands: Operands<'_>) -> Result<Value> {
    end("$first", operands, 0)
}

pub(super) fn last(operands: Operands<'_>) -> Result<Value> {
    end("$last", operands, -1)
}

fn end(name: &str, operands: Operands<'_>, index: i32) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::Array(array)) => Ok(at(array, index)),
        value if is_nullish(value) => null(),
        other => Err(Error::location(28689, format!("{name}'s argument must be an array, but is {}", type_of(other)))),
    }
}

pub(super) fn concat(operands: Operands<'_>) -> Result<Value> {
    let mut all = Vec::new();
    for value in operands.iter().flatten() {
        match value {
            Some(RawBson::Array(array)) => all.extend(owned(array)),
            value if is_nullish(value) => return null(),
            other => {
                return Err(Error::location(
                    28664,
                    format!("$concatArrays only supports arrays, not {}", type_of(other)),
                ));
            }
        }
    }
    array(all)
}

pub(super) fn size(operands: Operands<'_>) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::Array(array)) => Ok(Some(RawBson::Int32(items(array).count() as i32))),
        other => {
            let message = format!("The argument to $size must be an array, but was of type: {}", type_of(other));
            Err(Error::location(17124, message))
        }
    }
}

pub(super) fn contains(operands: Operands<'_>) -> Result<Value> {
    let (value, input) = (operand(operands, 0), operand(operands, 1));
    let Some(RawBson::Array(array)) = input else {
        return Err(Error::location(
            40081,
            format!("$in requires an array as a second argument, found: {}", type_of(input)),
        ));
    };
    let found = value.as_ref().is_some_and(|value| items(array).any(|item| equal(item, value.as_raw_bson_ref())));
    Ok(Some(RawBson::Boolean(found)))
}

pub(super) fn index_of(operands: Operands<'_>) -> Result<Value> {
    let (input, value) = (operand(operands, 0), operand(operands, 1));
    if is_nullish(input) {
        return null();
    }
    let Some(RawBson::Array(array)) = input else {
        let message = format!("$indexOfArray requires an array as a first argument, found: {}", type_of(input));
        return Err(Error::location(40090, message));
    };
    let bound = |place: usize, usual, what: &str| match operands.get(place) {
        None => Ok(usual),
        Some(value) => {
            super::strings::index_bound("$indexOfArray", what, value.as_ref().unwrap_or(&None), [9_711_600, 9_711_601])
        }
    };
    let (start, end) = (bound(2, 0, "starting")?, bound(3, usize::MAX, "ending")?);
    let is_it = |item: RawBsonRef<'_>| value.as_ref().is_some_and(|value| equal(item, value.as_raw_bson_ref()));
    let found =
        items(array).enumerate().skip(start).take_while(|(place, _)| *place < end).find(|(_, item)| is_it(*item));
    Ok(Some(RawBson::Int32(found.map_or(-1, |(place, _)| place as i32))))
}

pub(super) fn reverse(operands: Operands<'_>) -> Result<Value> {
    let message = "The argument to $reverseArray must be an array, but was of type:";
    match array_or_null(operand(operands, 0).clone(), 34435, message)? {
        Some(input) => array(owned(&input).into_iter().rev()),
        None => null(),
    }
}

pub(super) fn slice(operands: Operands<'_>) -> Result<Value> {
    if operands.iter().flatten().any(is_nullish) {
        return null();
    }
    let input = operand(operands, 0);
    let Some(RawBson::Array(input)) = input else {
        let message = format!("First argument to $slice must be an array, but is of type: {}", type_of(input));
        return Err(Error::location(28724, message));
    };
    let input = owned(input);
    let length = input.len() as i64;
    let second = i64::from(whole(operand(operands, 1), [28725, 28726], "Second argument to $slice")?);
    let (start, count) = match operands.get(2) {
        None if second < 0 => ((length + second).max(0), length),
        None => (0, second),
        Some(third) => {
            let third = whole(third.as_ref().unwrap_or(&None), [28727, 28728], "Third argument to $slice")?;
            if third <= 0 {
                return Err(Error::location(28729, format!("Third argument to $slice must be positive: {third}")));
            }
            (if second < 0 { (length + second).max(0) } else { second }, i64::from(third))
        }
    };
    array(input.into_iter().skip(start as usize).take(count as usize))
}

/// Maximum number of items in a range: as in the server, those of 64 MiB.
const LONGEST_RANGE: i64 = 64 * 1024 * 1024 / 16;

pub(super) fn range(operands: Operands<'_>) -> Result<Value> {
    let start = i64::from(whole(operand(operands, 0), [34443, 34444], "$range's starting value")?);
    let end = i64::from(whole(operand(operands, 1), [34445, 34446], "$range's ending value")?);
    let step = match operands.get(2) {
        None => 1,
        Some(step) => i64::from(whole(step.as_ref().unwrap_or(&None), [34447, 34448], "$range's step value")?),
    };
    if step == 0 {
        return Err(Error::location(34449, "$range requires a non-zero step value"));
    }
    let count = ((end - start) as f64 / step as f64).ceil().max(0.0) as i64;
    if count > LONGEST_RANGE {
        return Err(Error::location(146, "$range would use too much memory"));
    }
    budget::charge(count as u64)?;
    array((0..count).map(|place| RawBson::Int32((start + place * step) as i32)))
}
