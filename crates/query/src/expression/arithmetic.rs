//! Arithmetic functions. The result has the widest type of the operands; integers that overflow
//! become doubles; the result is null if an operand is.

use std::cmp::Ordering;

use bson::{DateTime, Decimal128, RawBson, raw::RawBsonRef};

use super::{
    Value,
    call::{Operands, operand},
    is_nullish, null, type_of,
};
use crate::{
    Error, Number, Result, budget, compare,
    decimal::{self, Parts, Rounding, Transcendental},
    document::items,
    total::Total,
};

fn number(value: &Value) -> Option<Number> {
    value.as_ref().and_then(|value| Number::of(value.as_raw_bson_ref()))
}

fn answer(number: Number) -> Result<Value> {
    Ok(Some(number.to_bson()))
}

fn any_null(operands: Operands<'_>) -> bool {
    operands.iter().flatten().any(is_nullish)
}

/// Passes the values of an accumulator outside of `$group` to `take`: its operands, or the items
/// of its only one.
fn each_value(operands: Operands<'_>, take: &mut dyn FnMut(RawBsonRef<'_>)) -> Result<()> {
    if let [Some(Some(RawBson::Array(array)))] = operands {
        for item in items(array) {
            budget::charge(1)?;
            take(item);
        }
        return Ok(());
    }
    operands.iter().flatten().flatten().for_each(|value| take(value.as_raw_bson_ref()));
    Ok(())
}

/// Returns the sum and the count of all numbers.
fn total(operands: Operands<'_>) -> Result<(Total, i64)> {
    let (mut sum, mut count) = (Total::default(), 0);
    each_value(operands, &mut |value| {
        if let Some(number) = Number::of(value) {
            sum.add(number);
            count += 1;
        }
    })?;
    Ok((sum, count))
}

pub(super) fn sum(operands: Operands<'_>) -> Result<Value> {
    answer(total(operands)?.0.sum())
}

pub(super) fn avg(operands: Operands<'_>) -> Result<Value> {
    match total(operands)? {
        (_, 0) => null(),
        (sum, count) => answer(sum.divided_by(count)),
    }
}

/// Returns the value that compares to all others as `wanted`. Null and missing values are ignored.
pub(super) fn extreme(operands: Operands<'_>, wanted: Ordering) -> Result<Value> {
    let mut found: Option<RawBson> = None;
    each_value(operands, &mut |value| {
        let is_none = matches!(value, RawBsonRef::Null | RawBsonRef::Undefined);
        let is_more = |found: &RawBson| compare(value, found.as_raw_bson_ref()) == wanted;
        if !is_none && found.as_ref().is_none_or(is_more) {
            found = Some(value.into());
        }
    })?;
    Ok(Some(found.unwrap_or(RawBson::Null)))
}

pub(super) fn add(operands: Operands<'_>) -> Result<Value> {
    let mut sum = Number::Int32(0);
    let mut date: Option<DateTime> = None;
    for value in operands.iter().flatten() {
        if is_nullish(value) {
            return null();
        }
        match (value, number(value)) {
            (_, Some(number)) => sum = sum.plus(number),
            (Some(RawBson::DateTime(_)), _) if date.is_some() => {
                return Err(Error::location(16612, "only one date allowed in an $add expression"));
            }
            (Some(RawBson::DateTime(time)), _) => date = Some(*time),
            (other, _) => {
                let message = format!("$add only supports numeric or date types, not {}", type_of(other));
                return Err(Error::type_mismatch(message));
            }
        }
    }
    match date {
        Some(date) => shifted(date, sum, i64::checked_add),
        None => answer(sum),
    }
}

fn shifted(date: DateTime, by: Number, shift: fn(i64, i64) -> Option<i64>) -> Result<Value> {
    let by = by.rounded().ok_or_else(|| Error::new(crate::ErrorCode::Overflow, "date overflow"))?;
    let time = shift(date.timestamp_millis(), by);
    let time = time.ok_or_else(|| Error::new(crate::ErrorCode::Overflow, "date overflow"))?;
    Ok(Some(RawBson::DateTime(DateTime::from_millis(time))))
}

pub(super) fn subtract(operands: Operands<'_>) -> Result<Value> {
    let (from, by) = (operand(operands, 0), operand(operands, 1));
    if any_null(operands) {
        return null();
    }
    match (from, by) {
        (Some(RawBson::DateTime(from)), Some(RawBson::DateTime(by))) => {
            let difference = from.timestamp_millis().checked_sub(by.timestamp_millis());
            let difference = difference.ok_or_else(|| Error::new(crate::ErrorCode::Overflow, "date overflow"))?;
            Ok(Some(RawBson::Int64(difference)))
        }
        (Some(RawBson::DateTime(from)), _) if number(by).is_some() => {
            shifted(*from, number(by).unwrap_or(Number::Int32(0)), i64::checked_sub)
        }
        _ => match (number(from), number(by)) {
            (Some(from), Some(by)) => {
                answer(from.checked_sub(by).unwrap_or_else(|| Number::Double(from.to_f64() - by.to_f64())))
            }
            _ => Err(Error::type_mismatch(format!("can't $subtract {} from {}", type_of(by), type_of(from)))),
        },
    }
}

pub(super) fn multiply(operands: Operands<'_>) -> Result<Value> {
    let mut product = Number::Int32(1);
    for value in operands.iter().flatten() {
        if is_nullish(value) {
            return null();
        }
        let Some(number) = number(value) else {
            return Err(Error::type_mismatch(format!("$multiply only supports numeric types, not {}", type_of(value))));
        };
        product = product.checked_mul(number).unwrap_or_else(|| Number::Double(product.to_f64() * number.to_f64()));
    }
    answer(product)
}

pub(super) fn divide(operands: Operands<'_>) -> Result<Value> {
    let (one, other) = (operand(operands, 0), operand(operands, 1));
    if any_null(operands) {
        return null();
    }
    match (number(one), number(other)) {
        (Some(_), Some(divisor)) if divisor.compare(Number::Int32(0)).is_eq() => {
            Err(Error::bad_value("can't $divide by zero"))
        }
        (Some(number), Some(divisor)) => answer(number.divided_by(divisor)),
        _ => Err(Error::type_mismatch(format!(
            "$divide only supports numeric types, not {} and {}",
            type_of(one),
            type_of(other)
        ))),
    }
}

pub(super) fn modulo(operands: Operands<'_>) -> Result<Value> {
    let (one, other) = (operand(operands, 0), operand(operands, 1));
    if any_null(operands) {
        return null();
    }
    match (number(one), number(other)) {
        (Some(number), Some(divisor)) => {
            let is_decimal = matches!((number, divisor), (Number::Decimal(_), _) | (_, Number::Decimal(_)));
            let code = if is_decimal { 5_733_415 } else { 16610 };
            let remainder = number.remainder(divisor);
            answer(remainder.ok_or_else(|| Error::location(code, "can't $mod by zero"))?)
        }
        _ => Err(Error::location(
            16611,
            format!("$mod only supports numeric types, not {} and {}", type_of(one), type_of(other)),
        )),
    }
}

/// Applies a function of one number; the result of null is null.
fn of_number(name: &str, operands: Operands<'_>, compute: impl Fn(Number) -> Result<Number>) -> Result<Value> {
    let value = operand(operands, 0);
    if is_nullish(value) {
        return null();
    }
    match number(value) {
        Some(number) => compute(number).and_then(answer),
        None => Err(Error::location(28765, format!("{name} only supports numeric types, not {}", type_of(value)))),
    }
}

/// The sign bit in a decimal's last byte.
const SIGN: u8 = 0x80;

pub(super) fn abs(operands: Operands<'_>) -> Result<Value> {
    of_number("$abs", operands, |number| {
        Ok(match number {
            Number::Int32(value) => {
                let wide = i64::from(value).abs();
                i32::try_from(wide).map_or(Number::Int64(wide), Number::Int32)
            }
            Number::Int64(value) => Number::Int64(
                value.checked_abs().ok_or_else(|| Error::location(28680, "can't take $abs of long long min"))?,
            ),
            Number::Double(value) => Number::Double(value.abs()),
            Number::Decimal(value) => {
                let mut bytes = value.bytes();
                bytes[15] &= !SIGN;
                Number::Decimal(Decimal128::from_bytes(bytes))
            }
        })
    })
}

fn whole(name: &str, operands: Operands<'_>, doubles: fn(f64) -> f64, rounding: Rounding) -> Result<Value> {
    of_number(name, operands, |number| {
        Ok(match number {
            Number::Double(value) => Number::Double(doubles(value)),
            Number::Decimal(value) => Number::Decimal(decimal::round(Parts::of(value), rounding, 0)),
            integer => integer,
        })
    })
}

pub(super) fn ceil(operands: Operands<'_>) -> Result<Value> {
    whole("$ceil", operands, f64::ceil, Rounding::Ceiling)
}

pub(super) fn floor(operands: Operands<'_>) -> Result<Value> {
    whole("$floor", operands, f64::floor, Rounding::Floor)
}

/// Applies a function whose result is a double, or a decimal for a decimal.
fn transcendental(number: Number, doubles: fn(f64) -> f64, decimals: Transcendental) -> Number {
    match number {
        Number::Decimal(value) => Number::Decimal(decimal::transcend(decimals, Parts::of(value), Parts::NaN)),
        number => Number::Double(doubles(number.to_f64())),
    }
}

fn is(number: Number, order: fn(Ordering) -> bool) -> bool {
    !number.is_nan() && order(number.compare(Number::Int32(0)))
}

pub(super) fn sqrt(operands: Operands<'_>) -> Result<Value> {
    of_number("$sqrt", operands, |number| {
        if is(number, Ordering::is_lt) {
            return Err(Error::location(28714, "$sqrt's argument must be greater than or equal to 0"));
        }
        Ok(transcendental(number, f64::sqrt, Transcendental::SquareRoot))
    })
}

pub(super) fn exp(operands: Operands<'_>) -> Result<Value> {
    of_number("$exp", operands, |number| Ok(transcendental(number, f64::exp, Transcendental::Exponential)))
}

pub(super) fn ln(operands: Operands<'_>) -> Result<Value> {
    of_number("$ln", operands, |number| {
        if is(number, Ordering::is_le) {
            return Err(Error::location(28766, "$ln's argument must be a positive number"));
        }
        Ok(transcendental(number, f64::ln, Transcendental::Ln))
    })
}

pub(super) fn log10(operands: Operands<'_>) -> Result<Value> {
    of_number("$log10", operands, |number| {
        if is(number, Ordering::is_le) {
            return Err(Error::location(28761, "$log10's argument must be a positive number"));
        }
        Ok(transcendental(number, f64::log10, Transcendental::Log10))
    })
}

pub(super) fn log(operands: Operands<'_>) -> Result<Value> {
    let (value, base) = (operand(operands, 0), operand(operands, 1));
    if any_null(operands) {
        return null();
    }
    let number_of = |value, code, what: &str| {
        number(value)
            .ok_or_else(|| Error::location(code, format!("$log's {what} must be numeric, not {}", type_of(value))))
    };
    let (value, base) = (number_of(value, 28756, "argument")?, number_of(base, 28757, "base")?);
    if is(value, Ordering::is_le) {
        return Err(Error::location(28758, "$log's argument must be a positive number"));
    }
    if is(base, Ordering::is_le) || base.compare(Number::Int32(1)).is_eq() {
        return Err(Error::location(28759, "$log's base must be a positive number not equal to 1"));
    }
    match (value, base) {
        (Number::Decimal(_), _) | (_, Number::Decimal(_)) => {
            let ln = |number: Number| {
                Number::Decimal(decimal::transcend(Transcendental::Ln, number.decimal_parts(), Parts::NaN))
            };
            answer(ln(value).divided_by(ln(base)))
        }
        _ => answer(Number::Double(value.to_f64().ln() / base.to_f64().ln())),
    }
}

pub(super) fn pow(operands: Operands<'_>) -> Result<Value> {
    let (base, exponent) = (operand(operands, 0), operand(operands, 1));
    if any_null(operands) {
        return null();
    }
    let number_of = |value, code, what: &str| {
        number(value)
            .ok_or_else(|| Error::location(code, format!("$pow's {what} must be numeric, not {}", type_of(value))))
    };
    let (base, exponent) = (number_of(base, 28762, "base")?, number_of(exponent, 28763, "exponent")?);
    if base.compare(Number::Int32(0)).is_eq() && is(exponent, Ordering::is_lt) {
        return Err(Error::location(28764, "$pow cannot take a base of 0 and a negative exponent"));
    }
    if matches!(base, Number::Decimal(_)) || matches!(exponent, Number::Decimal(_)) {
        let power = decimal::transcend(Transcendental::Power, base.decimal_parts(), exponent.decimal_parts());
        return answer(Number::Decimal(power));
    }
    let double = Number::Double(base.to_f64().powf(exponent.to_f64()));
    let is_wide = matches!(base, Number::Int64(_)) || matches!(exponent, Number::Int64(_));
    let (Some(whole), Some(power)) = (integer(base), integer(exponent)) else { return answer(double) };
    // A power with a fraction, or beyond an int64, is a double.
    let exact = match u32::try_from(power) {
        Ok(power) => whole.checked_pow(power),
        Err(_) if power < 0 && whole.unsigned_abs() == 1 => Some(if power % 2 == 0 { 1 } else { whole }),
        Err(_) if power > 0 && (-1..=1).contains(&whole) => Some(if power % 2 == 0 { whole * whole } else { whole }),
        Err(_) => None,
    };
    match exact {
        Some(exact) if is_wide => answer(Number::Int64(exact)),
        Some(exact) => answer(i32::try_from(exact).map_or(Number::Int64(exact), Number::Int32)),
        None => answer(double),
    }
}

fn integer(number: Number) -> Option<i64> {
    match number {
        Number::Int32(value) => Some(value.into()),
        Number::Int64(value) => Some(value),
        _ => None,
    }
}

pub(super) fn round(operands: Operands<'_>) -> Result<Value> {
    to_places("$round", operands, Rounding::HalfEven)
}

pub(super) fn trunc(operands: Operands<'_>) -> Result<Value> {
    to_places("$trunc", operands, Rounding::TowardsZero)
}

fn to_places(name: &str, operands: Operands<'_>, rounding: Rounding) -> Result<Value> {
    let value = operand(operands, 0);
    if any_null(operands) {
        return null();
    }
    let Some(number) = number(value) else {
        return Err(Error::location(51081, format!("{name} only supports numeric types, not {}", type_of(value))));
    };
    let places = match operands.get(1) {
        None => 0,
        Some(places) => {
            let places = places.as_ref().unwrap_or(&None);
            let held = places.as_ref().map(RawBson::as_raw_bson_ref);
            let whole = match held.map(|held| (Number::of(held), crate::integer(held))) {
                Some((Some(_), Some(whole))) => whole,
                Some((Some(_), None)) => {
                    return Err(Error::location(31109, format!("precision argument to {name} must be a whole number")));
                }
                _ => {
                    let message = format!("precision argument to {name} must be a number, not {}", type_of(places));
                    return Err(Error::location(16004, message));
                }
            };
            if !(-20..=100).contains(&whole) {
                let message = format!("cannot apply {name} with precision value {whole} value must be in [-20, 100]");
                return Err(Error::location(51083, message));
            }
            whole as i32
        }
    };
    answer(match number {
        Number::Decimal(value) => Number::Decimal(decimal::round(Parts::of(value), rounding, places)),
        Number::Double(value) if !value.is_finite() => number,
        Number::Double(value) => {
            let rounded = decimal::round(Parts::from_f64_exactly(value), rounding, places);
            Number::Double(Parts::of(rounded).to_f64())
        }
        integer if places >= 0 => integer,
        integer => {
            let rounded = Number::Decimal(decimal::round(integer.parts(), rounding, places)).to_integer();
            match (integer, rounded) {
                (Number::Int32(_), Some(rounded)) => {
                    i32::try_from(rounded).map_or(Number::Int64(rounded), Number::Int32)
                }
                (_, Some(rounded)) => Number::Int64(rounded),
                (_, None) => {
                    return Err(Error::location(51080, format!("invalid conversion from {name} to an integer")));
                }
            }
        }
    })
}
