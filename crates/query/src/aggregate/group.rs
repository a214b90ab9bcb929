//! `$group` and its accumulators.

use std::collections::{HashMap, HashSet};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::{Documents, collect::Collected, single_field};
use crate::{
    Budget, Error, ErrorCode, Number, Result, Variables,
    budget::{self, Held},
    compare,
    document::{elements, size_of},
    encode_key,
    expression::Expression,
    total::Total,
};

#[derive(Debug, Clone)]
pub(super) struct Group {
    id: Expression,
    fields: Vec<(String, Operator, Expression)>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    Push,
    AddToSet,
}

/// Accumulators that the server has and Userkeep does not support.
const UNSUPPORTED: &[&str] = &[
    "$accumulator",
    "$bottom",
    "$bottomN",
    "$concatArrays",
    "$count",
    "$firstN",
    "$lastN",
    "$maxN",
    "$median",
    "$mergeObjects",
    "$minN",
    "$percentile",
    "$setUnion",
    "$stdDevPop",
    "$stdDevSamp",
    "$top",
    "$topN",
];

/// The state of one accumulator.
enum AccumulatorState {
    Number {
        sum: Total,
        count: i64,
    },
    Value(Option<RawBson>),
    Items(Vec<RawBson>),
    /// Distinct values and their index keys.
    Set(Vec<RawBson>, HashSet<Vec<u8>>),
}

/// Memory of a value, a group or an accumulator in bytes, in addition to its content.
const OVERHEAD: usize = 64;

impl Group {
    pub(super) fn parse(specification: &RawDocument) -> Result<Self> {
        let mut id = None;
        let mut fields = Vec::new();
        for (name, value) in elements(specification) {
            budget::charge(1)?;
            if name == "_id" {
                id = Some(Expression::parse(value)?);
                continue;
            }
            if name.contains('.') || name.starts_with('$') {
                return Err(Error::new(
                    ErrorCode::GroupFieldNotAccumulator,
                    format!("The field name '{name}' cannot contain '.' or start with '$'"),
                ));
            }
            let Some(accumulator) = value.as_document() else {
                return Err(Error::new(
                    ErrorCode::GroupFieldNotAccumulator,
                    format!("The field '{name}' must be an accumulator object"),
                ));
            };
            let (operator, operand) = single_field(accumulator).map_err(|_| {
                Error::new(
                    ErrorCode::GroupFieldNotAccumulator,
                    format!("The field '{name}' must specify one accumulator"),
                )
            })?;
            let operator = match operator {
                "$sum" => Operator::Sum,
                "$avg" => Operator::Avg,
                "$min" => Operator::Min,
                "$max" => Operator::Max,
                "$first" => Operator::First,
                "$last" => Operator::Last,
                "$push" => Operator::Push,
                "$addToSet" => Operator::AddToSet,
                other if UNSUPPORTED.contains(&other) => {
                    return Err(Error::unsupported(format_args!("the accumulator {other}")));
                }
                other => {
                    return Err(Error::new(
                        ErrorCode::UnknownGroupOperator,
                        format!("unknown group operator '{other}'"),
                    ));
                }
            };
            if matches!(operand, RawBsonRef::Array(_)) {
                return Err(Error::new(
                    ErrorCode::AccumulatorNotUnary,
                    format!("The {} accumulator is a unary operator", single_field(accumulator)?.0),
                ));
            }
            fields.push((name.to_owned(), operator, Expression::parse(operand)?));
        }
        let id =
            id.ok_or_else(|| Error::new(ErrorCode::GroupWithoutId, "a group specification must include an _id"))?;
        Ok(Self { id, fields })
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        std::iter::once(&self.id).chain(self.fields.iter().map(|(_, _, expression)| expression))
    }

    pub(super) fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.id.bind(variables)?;
        self.fields.iter_mut().try_for_each(|(_, _, expression)| expression.bind(variables))
    }

    pub(super) fn run<'a>(
        &'a self,
        documents: Documents<'a>,
        budget: &Budget,
    ) -> Result<impl Iterator<Item = Result<RawDocumentBuf>> + use<'a>> {
        let mut held = budget.hold(0)?;
        let mut groups: Vec<(RawBson, Vec<AccumulatorState>)> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for document in documents {
            let document = document?;
            budget::charge(1)?;
            // A missing _id groups with null.
            let id = self.id.evaluate(&document)?.unwrap_or(RawBson::Null);
            let key = encode_key(id.as_raw_bson_ref());
            let place = match places.get(&key) {
                Some(place) => *place,
                None => {
                    held.grow(key.len() + size_of(&id) + OVERHEAD * (2 + self.fields.len()))?;
                    groups.push((id, self.fields.iter().map(|(_, operator, _)| operator.start()).collect()));
                    places.insert(key, groups.len() - 1);
                    groups.len() - 1
                }
            };
            for (state, (_, operator, expression)) in groups[place].1.iter_mut().zip(&self.fields) {
                budget::charge(1)?;
                operator.add(state, expression.evaluate(&document)?, &mut held)?;
            }
        }
        Ok(Collected::new(groups.into_iter().map(|(id, states)| self.finish(&id, states)), held))
    }

    fn finish(&self, id: &RawBson, states: Vec<AccumulatorState>) -> Result<RawDocumentBuf> {
        let mut group = RawDocumentBuf::new();
        crate::append(&mut group, "_id", id);
        for ((name, operator, _), state) in self.fields.iter().zip(states) {
            budget::charge(1)?;
            crate::append(&mut group, name, &operator.finish(state));
        }
        budget::charge_bytes(group.as_bytes().len())?;
        Ok(group)
    }
}

impl Operator {
    fn start(self) -> AccumulatorState {
        match self {
            Self::Sum | Self::Avg => AccumulatorState::Number { sum: Total::default(), count: 0 },
            Self::Min | Self::Max | Self::First | Self::Last => AccumulatorState::Value(None),
            Self::Push => AccumulatorState::Items(Vec::new()),
            Self::AddToSet => AccumulatorState::Set(Vec::new(), HashSet::new()),
        }
    }

    /// Adds a value, and reserves the bytes by which the state grows.
    fn add(self, state: &mut AccumulatorState, value: Option<RawBson>, bytes: &mut Held) -> Result<()> {
        match (self, state) {
            (_, AccumulatorState::Number { sum, count }) => {
                if let Some(number) = value.as_ref().and_then(|value| Number::of(value.as_raw_bson_ref())) {
                    sum.add(number);
                    *count += 1;
                }
            }
            (Self::First, AccumulatorState::Value(held)) => {
                if held.is_none() {
                    replace(held, value.unwrap_or(RawBson::Null), bytes)?;
                }
            }
            (Self::Last, AccumulatorState::Value(held)) => replace(held, value.unwrap_or(RawBson::Null), bytes)?,
            (_, AccumulatorState::Value(held)) => {
                // `$min` and `$max` ignore null and missing values.
                let Some(value) = value.filter(|value| !matches!(value, RawBson::Null | RawBson::Undefined)) else {
                    return Ok(());
                };
                let replaces = held.as_ref().is_none_or(|held| {
                    let order = compare(value.as_raw_bson_ref(), held.as_raw_bson_ref());
                    if matches!(self, Self::Min) { order.is_lt() } else { order.is_gt() }
                });
                if replaces {
                    replace(held, value, bytes)?;
                }
            }
            (_, AccumulatorState::Items(items)) => {
                let Some(value) = value else { return Ok(()) };
                bytes.grow(size_of(&value) + OVERHEAD)?;
                items.push(value);
            }
            (_, AccumulatorState::Set(items, keys)) => {
                let Some(value) = value else { return Ok(()) };
                let key = encode_key(value.as_raw_bson_ref());
                if !keys.contains(&key) {
                    bytes.grow(key.len() + size_of(&value) + 2 * OVERHEAD)?;
                    keys.insert(key);
                    items.push(value);
                }
            }
        }
        Ok(())
    }

    fn finish(self, state: AccumulatorState) -> RawBson {
        match (self, state) {
            (Self::Avg, AccumulatorState::Number { count: 0, .. }) => RawBson::Null,
            (Self::Avg, AccumulatorState::Number { sum, count }) => sum.divided_by(count).to_bson(),
            (_, AccumulatorState::Number { sum, .. }) => sum.sum().to_bson(),
            (_, AccumulatorState::Value(value)) => value.unwrap_or(RawBson::Null),
            (_, AccumulatorState::Items(items) | AccumulatorState::Set(items, _)) => {
                let mut array = RawArrayBuf::new();
                items.iter().for_each(|item| array.push(RawBsonRef::from(item)));
                RawBson::Array(array)
            }
        }
    }
}

/// Replaces the kept value, and reserves the bytes by which the new value is larger.
fn replace(kept: &mut Option<RawBson>, value: RawBson, bytes: &mut Held) -> Result<()> {
    bytes.grow(size_of(&value).saturating_sub(kept.as_ref().map_or(0, size_of)))?;
    *kept = Some(value);
    Ok(())
}
