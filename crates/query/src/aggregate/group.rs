//! `$group` and its accumulators.

use std::collections::HashMap;

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::single_field;
use crate::{
    Error, ErrorCode, Number, Result, Variables, compare, document::elements, encode_key, expression::Expression,
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

/// What the server has and this version does not.
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

/// One accumulator's state.
enum State {
    Number { sum: Total, count: i64 },
    Value(Option<RawBson>),
    Items(Vec<RawBson>),
}

impl Group {
    pub(super) fn parse(specification: &RawDocument) -> Result<Self> {
        let mut id = None;
        let mut fields = Vec::new();
        for (name, value) in elements(specification) {
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

    pub(super) fn run(&self, documents: Vec<RawDocumentBuf>) -> Result<Vec<RawDocumentBuf>> {
        let mut groups: Vec<(RawBson, Vec<State>)> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for document in &documents {
            // A missing _id groups with null.
            let id = self.id.evaluate(document)?.unwrap_or(RawBson::Null);
            let place = *places.entry(encode_key(id.as_raw_bson_ref())).or_insert_with(|| {
                groups.push((id, self.fields.iter().map(|(_, operator, _)| operator.start()).collect()));
                groups.len() - 1
            });
            for (state, (_, operator, expression)) in groups[place].1.iter_mut().zip(&self.fields) {
                operator.add(state, expression.evaluate(document)?);
            }
        }
        Ok(groups
            .into_iter()
            .map(|(id, states)| {
                let mut group = RawDocumentBuf::new();
                crate::append(&mut group, "_id", &id);
                for ((name, operator, _), state) in self.fields.iter().zip(states) {
                    crate::append(&mut group, name, &operator.finish(state));
                }
                group
            })
            .collect())
    }
}

impl Operator {
    fn start(self) -> State {
        match self {
            Self::Sum | Self::Avg => State::Number { sum: Total::default(), count: 0 },
            Self::Min | Self::Max | Self::First | Self::Last => State::Value(None),
            Self::Push | Self::AddToSet => State::Items(Vec::new()),
        }
    }

    fn add(self, state: &mut State, value: Option<RawBson>) {
        match (self, state) {
            (_, State::Number { sum, count }) => {
                if let Some(number) = value.as_ref().and_then(|value| Number::of(value.as_raw_bson_ref())) {
                    sum.add(number);
                    *count += 1;
                }
            }
            (Self::First, State::Value(held)) => {
                if held.is_none() {
                    *held = Some(value.unwrap_or(RawBson::Null));
                }
            }
            (Self::Last, State::Value(held)) => *held = Some(value.unwrap_or(RawBson::Null)),
            (_, State::Value(held)) => {
                // Null and missing take no part in $min and $max.
                let Some(value) = value.filter(|value| !matches!(value, RawBson::Null | RawBson::Undefined)) else {
                    return;
                };
                let replaces = held.as_ref().is_none_or(|held| {
                    let order = compare(value.as_raw_bson_ref(), held.as_raw_bson_ref());
                    if matches!(self, Self::Min) { order.is_lt() } else { order.is_gt() }
                });
                if replaces {
                    *held = Some(value);
                }
            }
            (_, State::Items(items)) => {
                let Some(value) = value else { return };
                let is_new = |value: &RawBson| {
                    !items.iter().any(|item| crate::equal(item.as_raw_bson_ref(), value.as_raw_bson_ref()))
                };
                if matches!(self, Self::Push) || is_new(&value) {
                    items.push(value);
                }
            }
        }
    }

    fn finish(self, state: State) -> RawBson {
        match (self, state) {
            (Self::Avg, State::Number { count: 0, .. }) => RawBson::Null,
            (Self::Avg, State::Number { sum, count }) => sum.divided_by(count).to_bson(),
            (_, State::Number { sum, .. }) => sum.sum().to_bson(),
            (_, State::Value(value)) => value.unwrap_or(RawBson::Null),
            (_, State::Items(items)) => {
                let mut array = RawArrayBuf::new();
                items.iter().for_each(|item| array.push(RawBsonRef::from(item)));
                RawBson::Array(array)
            }
        }
    }
}
