//! The bitwise operators (`$bitsAllSet` and its kin), on numbers and binary data. Bit 0 is the
//! lowest. See <https://www.mongodb.com/docs/manual/reference/operator/query-bitwise/>.

use bson::{
    raw::{RawArrayBuf, RawBsonRef},
    spec::BinarySubtype,
};

use crate::{Error, Number, Result, budget, document::items, type_name};

/// The bit positions to test, and the test on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    positions: Vec<u64>,
    test: BitTest,
}

/// A test on the selected bits of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitTest {
    /// `$bitsAllSet`: all of them are set.
    AllSet,
    /// `$bitsAllClear`: none of them is set.
    AllClear,
    /// `$bitsAnySet`: at least one of them is set.
    AnySet,
    /// `$bitsAnyClear`: at least one of them is clear.
    AnyClear,
}

impl BitTest {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AllSet => "$bitsAllSet",
            Self::AllClear => "$bitsAllClear",
            Self::AnySet => "$bitsAnySet",
            Self::AnyClear => "$bitsAnyClear",
        }
    }
}

impl Bits {
    /// Parses a mask: a number, binary data, or an array of positions.
    pub(super) fn parse(test: BitTest, value: RawBsonRef<'_>) -> Result<Self> {
        let name = test.name();
        let positions = match value {
            RawBsonRef::Array(array) => items(array).map(|item| position(name, item)).collect::<Result<Vec<_>>>()?,
            RawBsonRef::Binary(binary) => {
                (0..binary.bytes.len() as u64 * 8).filter(|&bit| bit_of(binary.bytes, bit)).collect()
            }
            value if Number::of(value).is_some() => {
                let mask = crate::integer(value)
                    .ok_or_else(|| Error::parse(format!("{name} cannot be represented as a 64-bit integer")))?;
                let mask = u64::try_from(mask)
                    .map_err(|_| Error::parse(format!("Expected a non-negative number in: {name}: {mask}")))?;
                (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
            }
            other => {
                return Err(Error::bad_value(format!(
                    "{name} takes an Array, a number, or a BinData but received: {}",
                    type_name(other)
                )));
            }
        };
        Ok(Self { positions, test })
    }

    pub(super) fn name(&self) -> &'static str {
        self.test.name()
    }

    pub(super) fn matches(&self, value: Option<RawBsonRef<'_>>) -> bool {
        match value {
            // The old subtype repeats its length before its bytes.
            Some(RawBsonRef::Binary(binary)) if binary.subtype == BinarySubtype::BinaryOld => {
                let length = (binary.bytes.len() as u32).to_le_bytes();
                self.holds(|bit| if bit < 32 { bit_of(&length, bit) } else { bit_of(binary.bytes, bit - 32) })
            }
            Some(RawBsonRef::Binary(binary)) => self.holds(|bit| bit_of(binary.bytes, bit)),
            Some(value) if Number::of(value).is_some() => match crate::integer(value) {
                // A negative number is sign extended without end.
                Some(number) => self.holds(|bit| number >> bit.min(63) & 1 == 1),
                None => false,
            },
            _ => false,
        }
    }

    /// Returns the positions as an operand of the operator.
    pub(super) fn to_array(&self) -> RawArrayBuf {
        let mut positions = RawArrayBuf::new();
        for bit in &self.positions {
            positions.push(i64::try_from(*bit).unwrap_or(i64::MAX));
        }
        positions
    }

    fn holds(&self, is_set: impl Fn(u64) -> bool) -> bool {
        budget::spend(self.positions.len() as u64 / 8);
        let mut bits = self.positions.iter().map(|&bit| is_set(bit));
        match self.test {
            BitTest::AllSet => bits.all(|bit| bit),
            BitTest::AllClear => bits.all(|bit| !bit),
            BitTest::AnySet => bits.any(|bit| bit),
            BitTest::AnyClear => bits.any(|bit| !bit),
        }
    }
}

fn position(name: &str, value: RawBsonRef<'_>) -> Result<u64> {
    let wrong = |what: &str| Error::bad_value(format!("bit positions in {name} {what}"));
    if Number::of(value).is_none() {
        return Err(wrong("must be an integer"));
    }
    let position = crate::integer(value).ok_or_else(|| wrong("must be an integer"))?;
    let position = u64::try_from(position).map_err(|_| wrong("must be >= 0"))?;
    if position > i32::MAX as u64 {
        return Err(wrong("cannot be represented as a 32-bit signed integer"));
    }
    Ok(position)
}

fn bit_of(bytes: &[u8], bit: u64) -> bool {
    usize::try_from(bit / 8).ok().and_then(|place| bytes.get(place)).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}
