//! Decimal128 as BSON stores it: IEEE 754-2008 with a binary integer coefficient. This module
//! decodes the fields, which comparison and indexing need; decNumber does the arithmetic.

use std::cmp::Ordering;

use bson::Decimal128;

use crate::budget;

/// Steps charged for a transcendental function, which takes some microseconds.
const TRANSCENDENTAL: u64 = 256;

const EXPONENT_BIAS: i32 = 6176;
const MAX_COEFFICIENT: u128 = 10u128.pow(34) - 1;

/// A decoded decimal: `coefficient × 10^exponent`, negated if `negative`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    NaN,
    Infinity { negative: bool },
    Finite { negative: bool, coefficient: u128, exponent: i32 },
}

impl Parts {
    pub(crate) fn of(value: Decimal128) -> Self {
        let bits = u128::from_le_bytes(value.bytes());
        let high = (bits >> 64) as u64;
        let negative = high >> 63 == 1;
        if (high >> 61) & 3 == 3 {
            return match (high >> 58) & 0x1f {
                0x1f => Self::NaN,
                0x1e => Self::Infinity { negative },
                // The long form's coefficient exceeds 10^34, which the standard reads as zero.
                _ => {
                    Self::Finite { negative, coefficient: 0, exponent: ((high >> 47) & 0x3fff) as i32 - EXPONENT_BIAS }
                }
            };
        }
        let coefficient = bits & ((1 << 113) - 1);
        let exponent = ((high >> 49) & 0x3fff) as i32 - EXPONENT_BIAS;
        Self::Finite { negative, coefficient: if coefficient > MAX_COEFFICIENT { 0 } else { coefficient }, exponent }
    }

    pub(crate) fn from_i64(value: i64) -> Self {
        Self::Finite { negative: value < 0, coefficient: value.unsigned_abs().into(), exponent: 0 }
    }

    /// Rounds a double to the 34 digits of a decimal, as the server does before it compares the
    /// two.
    pub(crate) fn from_f64(value: f64) -> Self {
        if value.is_nan() {
            return Self::NaN;
        }
        if value.is_infinite() {
            return Self::Infinity { negative: value < 0.0 };
        }
        if value == 0.0 {
            return Self::Finite { negative: value.is_sign_negative(), coefficient: 0, exponent: 0 };
        }
        // 34 significant digits: one before the decimal point and 33 after it.
        let text = format!("{:.33e}", value.abs());
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let coefficient =
            digits.bytes().filter(u8::is_ascii_digit).fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        Self::Finite { negative: value.is_sign_negative(), coefficient, exponent: exponent - 33 }
    }

    /// Returns the shortest decimal that reads back as this double.
    pub(crate) fn from_f64_exactly(value: f64) -> Self {
        format!("{value:e}").parse().map_or(Self::NaN, Self::of)
    }

    /// Returns the digits without trailing zeros, and the power of ten of the first digit. Zero
    /// has no digits.
    pub(crate) fn normalized(coefficient: u128, exponent: i32) -> (String, i32) {
        let digits = coefficient.to_string();
        let magnitude = exponent + digits.len() as i32 - 1;
        let digits = digits.trim_end_matches('0').to_owned();
        (digits, magnitude)
    }

    /// Compares by value. NaN is equal to itself and less than everything else, as in the server's
    /// sort order.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        use Parts::{Finite, Infinity, NaN};
        let sign = |negative| if negative { Ordering::Less } else { Ordering::Greater };
        match (self, other) {
            (NaN, NaN) => Ordering::Equal,
            (NaN, _) => Ordering::Less,
            (_, NaN) => Ordering::Greater,
            (Infinity { negative: a }, Infinity { negative: b }) => b.cmp(&a),
            (Infinity { negative }, _) => sign(negative),
            (_, Infinity { negative }) => sign(negative).reverse(),
            (Finite { coefficient: 0, .. }, Finite { coefficient: 0, .. }) => Ordering::Equal,
            (Finite { coefficient: 0, .. }, Finite { negative, .. }) => sign(negative).reverse(),
            (Finite { negative, .. }, Finite { coefficient: 0, .. }) => sign(negative),
            (
                Finite { negative: a, coefficient: ca, exponent: ea },
                Finite { negative: b, coefficient: cb, exponent: eb },
            ) => {
                if a != b {
                    return sign(a);
                }
                let (digits_a, magnitude_a) = Self::normalized(ca, ea);
                let (digits_b, magnitude_b) = Self::normalized(cb, eb);
                let order = magnitude_a.cmp(&magnitude_b).then_with(|| digits_a.cmp(&digits_b));
                if a { order.reverse() } else { order }
            }
        }
    }

    /// Returns the nearest double, for approximate order only.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::NaN => f64::NAN,
            Self::Infinity { negative } => {
                if negative {
                    f64::NEG_INFINITY
                } else {
                    f64::INFINITY
                }
            }
            Self::Finite { negative, coefficient, exponent } => {
                let value: f64 = format!("{coefficient}e{exponent}").parse().unwrap_or(0.0);
                if negative { -value } else { value }
            }
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::NaN => "NaN".into(),
            Self::Infinity { negative } => {
                if negative {
                    "-Infinity".into()
                } else {
                    "Infinity".into()
                }
            }
            Self::Finite { negative, coefficient, exponent } => {
                format!("{}{coefficient}E{exponent}", if negative { "-" } else { "" })
            }
        }
    }
}

/// An arithmetic operation of decNumber.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// The remainder of a division that truncates towards zero; it has the sign of the dividend.
    Remainder,
}

/// A rounding mode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rounding {
    Ceiling,
    Floor,
    HalfEven,
    TowardsZero,
}

/// A transcendental function of decNumber.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transcendental {
    SquareRoot,
    Exponential,
    Ln,
    Log10,
    Power,
}

/// Computes with decNumber in Decimal128's own precision (34 digits, half-even).
pub(crate) fn compute(operation: Operation, left: Parts, right: Parts) -> Decimal128 {
    let mut context = dec::Context::<dec::Decimal128>::default();
    let mut read = |parts: Parts| context.parse(parts.text()).unwrap_or(dec::Decimal128::NAN);
    let (left, right) = (read(left), read(right));
    let result = match operation {
        Operation::Add => context.add(left, right),
        Operation::Subtract => context.sub(left, right),
        Operation::Remainder => context.rem(left, right),
        Operation::Multiply => context.mul(left, right),
        Operation::Divide => context.div(left, right),
    };
    pack(result)
}

/// Returns zero with the exponent of an integer.
pub(crate) fn zero() -> Decimal128 {
    Decimal128::from_bytes(((EXPONENT_BIAS as u128) << 113).to_le_bytes())
}

/// Rounds to `places` digits after the decimal point, or before it if negative.
pub(crate) fn round(value: Parts, rounding: Rounding, places: i32) -> Decimal128 {
    // The server has no floor or ceiling of an infinity: both yield NaN.
    let is_directed = matches!(rounding, Rounding::Ceiling | Rounding::Floor);
    if matches!(value, Parts::Infinity { .. }) && !is_directed {
        return pack(dec::Context::<dec::Decimal128>::default().parse(value.text()).unwrap_or(dec::Decimal128::NAN));
    }
    let mut context = dec::Context::<dec::Decimal128>::default();
    context.set_rounding(match rounding {
        Rounding::Ceiling => dec::Rounding::Ceiling,
        Rounding::Floor => dec::Rounding::Floor,
        Rounding::HalfEven => dec::Rounding::HalfEven,
        Rounding::TowardsZero => dec::Rounding::Down,
    });
    let value = context.parse(value.text()).unwrap_or(dec::Decimal128::NAN);
    let unit = context.parse(format!("1E{}", -places)).unwrap_or(dec::Decimal128::NAN);
    let rounded = context.quantize(value, unit);
    // A number with too many digits before the point to be quantized has none after it.
    pack(if rounded.is_nan() && !is_directed { value } else { rounded })
}

/// Computes with decNumber in 34 digits.
pub(crate) fn transcend(what: Transcendental, value: Parts, other: Parts) -> Decimal128 {
    budget::spend(TRANSCENDENTAL);
    let mut context = dec::Context::<dec::Decimal<12>>::default();
    // Setting the precision fails only beyond the type's maximum.
    let _ = context.set_precision(34);
    // The functions are defined for these exponents; decNumber fails on all of them beyond.
    let _ = context.set_max_exponent(999_999);
    let _ = context.set_min_exponent(-999_999);
    let mut read = |parts: Parts| context.parse(parts.text()).unwrap_or(dec::Decimal::<12>::nan());
    let (mut value, other) = (read(value), read(other));
    match what {
        Transcendental::SquareRoot => context.sqrt(&mut value),
        Transcendental::Exponential => context.exp(&mut value),
        Transcendental::Ln => context.ln(&mut value),
        Transcendental::Log10 => context.log10(&mut value),
        Transcendental::Power => {
            context.pow(&mut value, &other);
            // The server's library returns a power with all 34 digits.
            if value.is_finite() && !value.is_zero() {
                let digits = value.digits() as i32;
                let exponent = context.from_i32(value.exponent() - (34 - digits));
                context.rescale(&mut value, &exponent);
            }
        }
    }
    value.to_string().parse().unwrap_or_else(|_| pack(dec::Decimal128::NAN))
}

fn pack(value: dec::Decimal128) -> Decimal128 {
    let sign = u128::from(value.is_signed()) << 127;
    let bits = if value.is_nan() {
        0x1f << 122
    } else if value.is_infinite() {
        sign | (0x1e << 122)
    } else {
        let exponent = (value.exponent() + EXPONENT_BIAS) as u128;
        sign | (exponent << 113) | value.coefficient().unsigned_abs()
    };
    Decimal128::from_bytes(bits.to_le_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal128 {
        text.parse().unwrap()
    }

    #[test]
    fn computes_with_34_digits() {
        let sum = compute(Operation::Add, Parts::of(decimal("0.1")), Parts::of(decimal("0.2")));
        assert_eq!(sum.to_string(), "0.3");
        let third = compute(Operation::Divide, Parts::from_i64(1), Parts::from_i64(3));
        assert_eq!(third.to_string(), "0.3333333333333333333333333333333333");
        assert_eq!(compute(Operation::Multiply, Parts::of(decimal("-1.5")), Parts::from_i64(2)).to_string(), "-3.0");
    }

    #[test]
    fn orders_across_exponents_and_signs() {
        let ordered = [
            "NaN",
            "-Infinity",
            "-1E+3",
            "-999",
            "-1E-3",
            "0",
            "1E-6176",
            "0.999",
            "1.0",
            "1.01",
            "9E+1",
            "1E+6144",
            "Infinity",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(Parts::of(decimal(pair[0])).compare(Parts::of(decimal(pair[1]))), Ordering::Less, "{pair:?}");
        }
        assert_eq!(Parts::of(decimal("-0")).compare(Parts::of(decimal("0E+3"))), Ordering::Equal);
        assert_eq!(Parts::of(decimal("1.0")).compare(Parts::from_f64(1.0)), Ordering::Equal);
    }
}
