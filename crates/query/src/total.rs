//! Sums as in aggregation: doubles are summed in twice their precision, and decimals separately,
//! so that neither order nor types of the operands lose digits.

use bson::Decimal128;

use crate::{
    Number,
    decimal::{self, Operation, Parts},
};

/// A running sum. Its type is the widest type of the operands; integers that overflow an int64
/// become a double.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Total {
    widest: Width,
    whole: i128,
    high: f64,
    low: f64,
    /// The sum of infinities and NaNs, which would make the low part meaningless.
    special: f64,
    decimal: Option<Decimal128>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Width {
    #[default]
    Int32,
    Int64,
    Double,
    Decimal,
}

impl Total {
    pub(crate) fn add(&mut self, number: Number) {
        let width = match number {
            Number::Int32(value) => {
                self.whole += i128::from(value);
                Width::Int32
            }
            Number::Int64(value) => {
                self.whole += i128::from(value);
                Width::Int64
            }
            Number::Double(value) => {
                self.add_double(value);
                Width::Double
            }
            Number::Decimal(value) => {
                let sum = self.decimal.map_or(Parts::from_i64(0), Parts::of);
                self.decimal = Some(decimal::compute(Operation::Add, sum, Parts::of(value)));
                Width::Decimal
            }
        };
        self.widest = self.widest.max(width);
    }

    fn add_double(&mut self, value: f64) {
        if !value.is_finite() {
            self.special += value;
            return;
        }
        // Knuth's two-sum: the sum of two doubles and its rounding error.
        let sum = self.high + value;
        let part = sum - self.high;
        self.low += (self.high - (sum - part)) + (value - part);
        self.high = sum;
    }

    /// Returns the sum of everything except decimals, as two doubles.
    fn doubles(mut self) -> (f64, f64) {
        let whole = self.whole as f64;
        self.add_double(whole);
        self.add_double((self.whole - whole as i128) as f64);
        let high = self.high + self.low;
        (high + self.special, if high.is_finite() && self.special == 0.0 { self.low - (high - self.high) } else { 0.0 })
    }

    pub(crate) fn sum(self) -> Number {
        match self.widest {
            Width::Decimal => Number::Decimal(self.in_decimals()),
            Width::Double => Number::Double(self.doubles().0),
            width => match (i32::try_from(self.whole), i64::try_from(self.whole)) {
                (Ok(whole), _) if width == Width::Int32 => Number::Int32(whole),
                (_, Ok(whole)) => Number::Int64(whole),
                _ => Number::Double(self.doubles().0),
            },
        }
    }

    /// Returns the average: a decimal if one was added, and a double otherwise.
    pub(crate) fn divided_by(self, count: i64) -> Number {
        match self.widest {
            Width::Decimal => Number::Decimal(decimal::compute(
                Operation::Divide,
                Parts::of(self.in_decimals()),
                Parts::from_i64(count),
            )),
            _ => Number::Double(self.doubles().0 / count as f64),
        }
    }

    fn in_decimals(self) -> Decimal128 {
        let (high, low) = self.doubles();
        let add = |one, other| Parts::of(decimal::compute(Operation::Add, one, other));
        let others = if self.widest_is_whole() {
            Parts::of(self.whole.to_string().parse().unwrap_or_else(|_| decimal::zero()))
        } else {
            add(Parts::from_f64_exactly(high), Parts::from_f64_exactly(low))
        };
        decimal::compute(Operation::Add, self.decimal.map_or(Parts::from_i64(0), Parts::of), others)
    }

    fn widest_is_whole(self) -> bool {
        self.high == 0.0 && self.low == 0.0 && self.special == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(numbers: &[Number]) -> Number {
        let mut total = Total::default();
        numbers.iter().for_each(|number| total.add(*number));
        total.sum()
    }

    #[test]
    fn intermediate_sums_lose_no_digits() {
        use Number::{Double, Int32, Int64};
        assert!(matches!(sum(&[Double(1e16), Double(1.0), Double(-1e16)]), Double(one) if one == 1.0));
        assert!(matches!(sum(&[Int64(i64::MAX), Int32(1), Int32(-1)]), Int64(i64::MAX)));
        assert!(matches!(sum(&[Int64(i64::MAX), Int32(1)]), Double(_)));
        assert!(matches!(sum(&[Int32(i32::MAX), Int32(1)]), Int64(2_147_483_648)));
        assert!(matches!(sum(&[Int64((1 << 53) + 1), Double(0.0)]), Double(_)));
        assert!(matches!(sum(&[Double(f64::INFINITY), Double(1.0)]), Double(number) if number == f64::INFINITY));
        assert!(matches!(sum(&[Double(f64::INFINITY), Double(f64::NEG_INFINITY)]), Double(number) if number.is_nan()));
    }

    #[test]
    fn decimals_keep_their_digits() {
        let tenth = Number::Decimal("0.1".parse().unwrap_or_else(|_| decimal::zero()));
        let text = |number| match number {
            Number::Decimal(decimal) => decimal.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(text(sum(&[Number::Double(1.0), tenth])), "1.1");
        assert_eq!(text(sum(&[Number::Int64(i64::MAX), tenth])), "9223372036854775807.1");
    }
}
