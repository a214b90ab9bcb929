//! The four numeric types of BSON as one: exact comparison, and arithmetic as in the server.

use std::cmp::Ordering;

use bson::{Decimal128, RawBson, raw::RawBsonRef};

use crate::decimal::{self, Operation, Parts};

/// A BSON number of any of the four numeric types.
///
/// Comparison is exact. Arithmetic follows the server: the result has the widest type of its
/// operands, an int32 overflow yields an int64, and an int64 overflow yields an error (in updates)
/// or a double (in aggregation).
///
/// ```
/// use query::Number;
///
/// let sum = Number::Int32(i32::MAX).checked_add(Number::Int32(1)).unwrap();
/// assert_eq!(sum.to_integer(), Some(2_147_483_648));
/// assert!(matches!(sum, Number::Int64(_)));
/// assert!(Number::Int64(i64::MAX).checked_add(Number::Int32(1)).is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer.
    Int64(i64),
    /// IEEE 754 double.
    Double(f64),
    /// 128-bit decimal.
    Decimal(Decimal128),
}

impl Number {
    /// Returns the number in a value, or `None` if the value is not numeric.
    pub fn of(value: RawBsonRef<'_>) -> Option<Self> {
        Some(match value {
            RawBsonRef::Int32(value) => Self::Int32(value),
            RawBsonRef::Int64(value) => Self::Int64(value),
            RawBsonRef::Double(value) => Self::Double(value),
            RawBsonRef::Decimal128(value) => Self::Decimal(value),
            _ => return None,
        })
    }

    /// Returns the number as a BSON value of its own type.
    pub fn to_bson(self) -> RawBson {
        match self {
            Self::Int32(value) => RawBson::Int32(value),
            Self::Int64(value) => RawBson::Int64(value),
            Self::Double(value) => RawBson::Double(value),
            Self::Decimal(value) => RawBson::Decimal128(value),
        }
    }

    pub(crate) fn parts(self) -> Parts {
        match self {
            Self::Int32(value) => Parts::from_i64(value.into()),
            Self::Int64(value) => Parts::from_i64(value),
            Self::Double(value) => Parts::from_f64(value),
            Self::Decimal(value) => Parts::of(value),
        }
    }

    /// True if the number is NaN.
    pub fn is_nan(self) -> bool {
        match self {
            Self::Double(value) => value.is_nan(),
            Self::Decimal(value) => matches!(Parts::of(value), Parts::NaN),
            _ => false,
        }
    }

    /// Returns the nearest double.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int32(value) => value.into(),
            Self::Int64(value) => value as f64,
            Self::Double(value) => value,
            Self::Decimal(value) => Parts::of(value).to_f64(),
        }
    }

    /// Returns the number as an int64, or `None` if it has a fraction or is out of range.
    pub fn to_integer(self) -> Option<i64> {
        match self {
            Self::Int32(value) => Some(value.into()),
            Self::Int64(value) => Some(value),
            // 2^63 is the first double beyond an int64.
            Self::Double(value) => (value.fract() == 0.0
                && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value))
            .then_some(value as i64),
            Self::Decimal(value) => match Parts::of(value) {
                Parts::Finite { negative, coefficient, exponent } => {
                    let magnitude = if exponent >= 0 {
                        10i128.checked_pow(exponent as u32)?.checked_mul(i128::try_from(coefficient).ok()?)?
                    } else if coefficient == 0 {
                        0
                    } else {
                        let divisor = 10u128.checked_pow(exponent.unsigned_abs())?;
                        (coefficient % divisor == 0).then(|| i128::try_from(coefficient / divisor).ok())??
                    };
                    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
                }
                _ => None,
            },
        }
    }

    /// Returns the integer part, rounded towards zero, or `None` if it is out of the range of an
    /// int64.
    pub fn truncated(self) -> Option<i64> {
        match self {
            Self::Double(value) => Self::Double(value.trunc()).to_integer(),
            Self::Decimal(value) => match Parts::of(value) {
                Parts::Finite { negative, coefficient, exponent } if exponent < 0 => {
                    let magnitude = 10u128.checked_pow(exponent.unsigned_abs()).map_or(0, |by| coefficient / by);
                    let magnitude = i128::try_from(magnitude).ok()?;
                    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
                }
                _ => self.to_integer(),
            },
            whole => whole.to_integer(),
        }
    }

    /// Returns the nearest integer, or `None` if it is out of the range of an int64. Halves of
    /// doubles round away from zero, halves of decimals to even.
    pub(crate) fn rounded(self) -> Option<i64> {
        match self {
            Self::Double(value) => Self::Double(value.round()).to_integer(),
            Self::Decimal(value) => {
                Self::Decimal(decimal::round(Parts::of(value), decimal::Rounding::HalfEven, 0)).to_integer()
            }
            whole => whole.to_integer(),
        }
    }

    /// Compares by value across types, exactly. NaN is equal to itself and less than every other
    /// number.
    pub fn compare(self, other: Self) -> Ordering {
        use Number::{Decimal, Double, Int32, Int64};
        match (self, other) {
            (Int32(a), Int32(b)) => a.cmp(&b),
            (Int32(a), Int64(b)) => i64::from(a).cmp(&b),
            (Int64(a), Int32(b)) => a.cmp(&i64::from(b)),
            (Int64(a), Int64(b)) => a.cmp(&b),
            (Double(a), Double(b)) => compare_doubles(a, b),
            (Int32(a), Double(b)) => compare_doubles(a.into(), b),
            (Double(a), Int32(b)) => compare_doubles(a, b.into()),
            (Int64(a), Double(b)) => compare_integer_to_double(a, b),
            (Double(a), Int64(b)) => compare_integer_to_double(b, a).reverse(),
            (Decimal(_), _) | (_, Decimal(_)) => self.parts().compare(other.parts()),
        }
    }

    /// Returns the sum, or `None` if two integers overflow an int64.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.compute(other, Operation::Add, i64::checked_add, |a, b| a + b)
    }

    /// Returns the product, or `None` if two integers overflow an int64.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        self.compute(other, Operation::Multiply, i64::checked_mul, |a, b| a * b)
    }

    /// Returns the difference, or `None` if two integers overflow an int64.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.compute(other, Operation::Subtract, i64::checked_sub, |a, b| a - b)
    }

    /// Returns the remainder of a division that truncates towards zero, or `None` for a division
    /// by zero.
    pub fn remainder(self, other: Self) -> Option<Self> {
        if other.compare(Self::Int32(0)).is_eq() {
            return None;
        }
        self.compute(other, Operation::Remainder, |a, b| Some(a.wrapping_rem(b)), |a, b| a % b)
    }

    /// True if the number is a multiple of another. It divides as decimals, so that 0.3 is a
    /// multiple of 0.1.
    pub(crate) fn is_multiple_of(self, other: Self) -> bool {
        let remainder = decimal::compute(Operation::Remainder, self.decimal_parts(), other.decimal_parts());
        Self::Decimal(remainder).compare(Self::Int32(0)).is_eq()
    }

    /// Returns the quotient: a decimal if either operand is one, and a double otherwise.
    pub fn divided_by(self, other: Self) -> Self {
        match (self, other) {
            (Self::Decimal(_), _) | (_, Self::Decimal(_)) => {
                Self::Decimal(decimal::compute(Operation::Divide, self.decimal_parts(), other.decimal_parts()))
            }
            _ => Self::Double(self.to_f64() / other.to_f64()),
        }
    }

    /// Returns the sum; if two integers overflow an int64, as a double, as expressions do.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.checked_add(other).unwrap_or_else(|| Self::Double(self.to_f64() + other.to_f64()))
    }

    fn compute(
        self,
        other: Self,
        operation: Operation,
        integers: fn(i64, i64) -> Option<i64>,
        doubles: fn(f64, f64) -> f64,
    ) -> Option<Self> {
        use Number::{Decimal, Double, Int32, Int64};
        Some(match (self, other) {
            (Decimal(_), _) | (_, Decimal(_)) => {
                Decimal(decimal::compute(operation, self.decimal_parts(), other.decimal_parts()))
            }
            (Double(_), _) | (_, Double(_)) => Double(doubles(self.to_f64(), other.to_f64())),
            (Int32(a), Int32(b)) => {
                let wide = integers(a.into(), b.into())?;
                i32::try_from(wide).map_or(Int64(wide), Int32)
            }
            (Int32(a), Int64(b)) => Int64(integers(a.into(), b)?),
            (Int64(a), Int32(b)) => Int64(integers(a, b.into())?),
            (Int64(a), Int64(b)) => Int64(integers(a, b)?),
        })
    }

    /// Decodes the number for decimal arithmetic. The server rounds a double to 15 digits there,
    /// so that 0.1 is 0.1.
    pub(crate) fn decimal_parts(self) -> Parts {
        match self {
            Self::Double(value) if value.is_finite() && value != 0.0 => {
                format!("{value:.14e}").parse::<Decimal128>().map_or(Parts::NaN, Parts::of)
            }
            _ => self.parts(),
        }
    }
}

fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

fn compare_integer_to_double(integer: i64, double: f64) -> Ordering {
    if double.is_nan() {
        return Ordering::Greater;
    }
    if double >= 9_223_372_036_854_775_808.0 {
        return Ordering::Less;
    }
    if double < -9_223_372_036_854_775_808.0 {
        return Ordering::Greater;
    }
    // Truncation is exact here; the fraction decides if the integer parts are equal.
    let whole = double as i64;
    integer.cmp(&whole).then_with(|| compare_doubles(0.0, double.fract()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use Number::{Decimal, Double, Int32, Int64};

    #[test]
    fn compares_integers_exactly_with_doubles_that_cannot_represent_them() {
        let beyond = (1i64 << 53) + 1;
        assert_eq!(Int64(beyond).compare(Double((1i64 << 53) as f64)), Ordering::Greater);
        assert_eq!(Int64(i64::MAX).compare(Double(9_223_372_036_854_775_807.0)), Ordering::Less);
        assert_eq!(Int64(i64::MIN).compare(Double(-9_223_372_036_854_775_808.0)), Ordering::Equal);
        assert_eq!(Int32(-1).compare(Double(-1.5)), Ordering::Greater);
        assert_eq!(Double(f64::NAN).compare(Double(f64::NAN)), Ordering::Equal);
        assert_eq!(Double(f64::NAN).compare(Double(f64::NEG_INFINITY)), Ordering::Less);
        assert_eq!(Double(-0.0).compare(Int32(0)), Ordering::Equal);
        assert_eq!(Decimal("9007199254740993".parse().unwrap()).compare(Int64(beyond)), Ordering::Equal);
    }

    #[test]
    fn widens_types_as_the_server_does() {
        assert!(Int64(i64::MAX).checked_add(Int32(1)).is_none());
        assert!(matches!(Int32(2).checked_mul(Double(1.5)), Some(Double(value)) if value == 3.0));
        let sum = Double(0.1).checked_add(Decimal("0.2".parse().unwrap())).unwrap();
        assert!(matches!(sum, Decimal(value) if value.to_string() == "0.300000000000000"), "{sum:?}");
    }
}
