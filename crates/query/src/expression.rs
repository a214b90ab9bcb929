//! Aggregation expressions
//! (<https://www.mongodb.com/docs/manual/reference/operator/aggregation/>): parsed once and then
//! evaluated for each document.
//!
//! Operators that Userkeep does not support, such as those on dates, are rejected by name.

mod arithmetic;
mod arrays;
mod call;
mod convert;
mod objects;
mod parse;
mod sets;
mod strings;

use std::sync::Arc;

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Path, Result, Variables, budget, compare,
    document::{MAX_DOCUMENT_SIZE, get, items, truthy, with_stack},
    variables::undefined,
};

pub(crate) use call::Function;
pub(crate) use parse::check_variable;

use parse::Names;

/// Maximum number of steps of one expression for one document. Each evaluated part is one step,
/// and so are [`BYTES_A_STEP`] bytes of a result.
const MAX_STEPS: u64 = 2_000_000;
const BYTES_A_STEP: u64 = 256;

/// The value of an expression; `None` if it has none, such as the path of a missing field.
pub(crate) type Value = Option<RawBson>;

/// A parsed expression. Every variant except a literal is evaluated for each document.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A constant value.
    Literal(RawBson),
    /// `$path`: the value at a path, mapped over arrays.
    Field(Path),
    /// `$$ROOT` and `$$CURRENT`.
    Root,
    /// `$$REMOVE`: no value.
    Remove,
    /// `$$NAME.path`: a variable of the operation, until it is bound.
    Free {
        /// The name of the variable, without the dollar signs.
        name: String,
        /// The path within the variable's value.
        path: Vec<String>,
    },
    /// The path in a bound variable of the operation. All uses share the value.
    Bound {
        /// The value of the variable.
        value: Arc<RawBson>,
        /// The path within the value.
        path: Vec<String>,
    },
    /// `$$name.path`: a variable that an expression binds, such as `$let` or `$map`.
    Variable {
        /// The index among the variables in scope.
        place: usize,
        /// The path within the variable's value.
        path: Vec<String>,
    },
    /// A document whose values are expressions.
    Document(Vec<(String, Expression)>),
    /// An array whose items are expressions.
    Array(Vec<Expression>),
    /// `$and`: true if all operands are true.
    And(Vec<Expression>),
    /// `$or`: true if at least one operand is true.
    Or(Vec<Expression>),
    /// `$cond`: if, then, else.
    Cond(Box<[Expression; 3]>),
    /// `$ifNull`: the first operand that is neither null nor missing, or else the last one.
    IfNull(Vec<Expression>),
    /// `$switch`: the result of the first branch whose condition is true.
    Switch {
        /// Pairs of condition and result.
        branches: Vec<(Expression, Expression)>,
        /// The result if no condition is true.
        default: Option<Box<Expression>>,
    },
    /// `$let`: the values of the variables, in order, and the expression that uses them.
    Let(Vec<Expression>, Box<Expression>),
    /// `$map`: an array, and the expression for each item, which is bound to a variable.
    Map(Box<[Expression; 2]>),
    /// `$filter`: an array, a condition on each item, which is bound to a variable, and an
    /// optional limit on the number of results.
    Filter(Box<[Expression; 2]>, Option<Box<Expression>>),
    /// `$reduce`: an array, the initial value, and the expression for each item. The value and the
    /// item are bound to variables.
    Reduce(Box<[Expression; 3]>),
    /// A function of the operands' values; `None` for an optional operand that was omitted.
    Call(&'static Function, Vec<Option<Expression>>),
}

/// The state of one evaluation.
struct Scope<'a> {
    root: &'a RawDocument,
    variables: Vec<Value>,
    /// The number of steps left.
    steps: u64,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// Returns the server's error for an unknown or malformed operator, and `CommandNotSupported`
    /// (115) with the operator's name for one that Userkeep does not support.
    pub(crate) fn parse(value: RawBsonRef<'_>) -> Result<Self> {
        let expression = parse::expression(value, &mut Names::default())?;
        budget::charge(1)?;
        Ok(expression)
    }

    /// Evaluates the expression for a document. Returns `None` if it has no value, such as the
    /// path of a missing field.
    pub(crate) fn evaluate(&self, root: &RawDocument) -> Result<Value> {
        let value = self.compute(&mut Scope { root, variables: Vec::new(), steps: MAX_STEPS })?;
        budget::charge(0)?;
        Ok(value)
    }

    /// True if the value for a document counts as true.
    pub(crate) fn holds(&self, root: &RawDocument) -> Result<bool> {
        self.evaluate(root).map(|value| is_true(&value))
    }

    /// Calls `visit` with the name of each function in the expression.
    pub(crate) fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::Literal(_)
            | Self::Field(_)
            | Self::Root
            | Self::Remove
            | Self::Free { .. }
            | Self::Bound { .. }
            | Self::Variable { .. } => {}
            Self::Document(fields) => fields.iter().for_each(|(_, field)| field.operators(visit)),
            Self::Array(all) | Self::And(all) | Self::Or(all) | Self::IfNull(all) => {
                all.iter().for_each(|one| one.operators(visit));
            }
            Self::Cond(parts) | Self::Reduce(parts) => parts.iter().for_each(|part| part.operators(visit)),
            Self::Switch { branches, default } => {
                branches.iter().for_each(|(case, then)| {
                    case.operators(visit);
                    then.operators(visit);
                });
                default.iter().for_each(|default| default.operators(visit));
            }
            Self::Let(values, body) => {
                values.iter().for_each(|value| value.operators(visit));
                body.operators(visit);
            }
            Self::Map(parts) => parts.iter().for_each(|part| part.operators(visit)),
            Self::Filter(parts, limit) => {
                parts.iter().for_each(|part| part.operators(visit));
                limit.iter().for_each(|limit| limit.operators(visit));
            }
            Self::Call(function, operands) => {
                visit(function.name);
                operands.iter().flatten().for_each(|operand| operand.operators(visit));
            }
        }
    }

    /// Replaces the variables of the operation by their values.
    ///
    /// # Errors
    /// 17276 if the expression uses an undefined variable.
    pub(crate) fn bind(&mut self, variables: &Variables) -> Result<()> {
        let all = |parts: &mut [Self]| parts.iter_mut().try_for_each(|part| part.bind(variables));
        match self {
            Self::Free { name, path } => {
                *self = match variables.value(name)? {
                    Some(value) => Self::Bound { value, path: std::mem::take(path) },
                    None => Self::Remove,
                };
                Ok(())
            }
            Self::Literal(_)
            | Self::Field(_)
            | Self::Root
            | Self::Remove
            | Self::Bound { .. }
            | Self::Variable { .. } => Ok(()),
            Self::Document(fields) => fields.iter_mut().try_for_each(|(_, field)| field.bind(variables)),
            Self::Array(parts) | Self::And(parts) | Self::Or(parts) | Self::IfNull(parts) => all(parts),
            Self::Cond(parts) | Self::Reduce(parts) => all(&mut **parts),
            Self::Switch { branches, default } => {
                for (case, then) in branches {
                    case.bind(variables)?;
                    then.bind(variables)?;
                }
                default.iter_mut().try_for_each(|default| default.bind(variables))
            }
            Self::Let(values, body) => {
                all(values)?;
                body.bind(variables)
            }
            Self::Map(parts) => all(&mut **parts),
            Self::Filter(parts, limit) => {
                all(&mut **parts)?;
                limit.iter_mut().try_for_each(|limit| limit.bind(variables))
            }
            Self::Call(_, operands) => operands.iter_mut().flatten().try_for_each(|operand| operand.bind(variables)),
        }
    }

    /// Evaluates the expression within the remaining steps and the size limit of a document, so
    /// that no expression runs without end or exhausts the memory.
    fn compute(&self, scope: &mut Scope<'_>) -> Result<Value> {
        scope.spend(1)?;
        let value = with_stack(|| self.compute_step(scope))?;
        let size = match &value {
            Some(RawBson::String(text)) => text.len(),
            Some(RawBson::Array(array)) => array.as_bytes().len(),
            Some(RawBson::Document(document)) => document.as_bytes().len(),
            _ => 0,
        };
        if size as u64 >= BYTES_A_STEP {
            check_size(size)?;
            scope.spend(size as u64 / BYTES_A_STEP)?;
        }
        Ok(value)
    }

    fn compute_step(&self, scope: &mut Scope<'_>) -> Result<Value> {
        Ok(match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Field(path) => reach(RawBsonRef::Document(scope.root), path.parts()),
            Self::Root => Some(RawBson::Document(scope.root.to_owned())),
            Self::Remove => None,
            Self::Free { name, .. } => return Err(undefined(name)),
            Self::Bound { value, path } => reach(value.as_raw_bson_ref(), path),
            Self::Variable { place, path } => match scope.variables.get(*place) {
                Some(Some(value)) => reach(value.as_raw_bson_ref(), path),
                _ => None,
            },
            Self::Document(fields) => {
                let mut document = RawDocumentBuf::new();
                for (name, expression) in fields {
                    if let Some(value) = expression.compute(scope)? {
                        crate::append(&mut document, name, &value);
                        check_size(document.as_bytes().len())?;
                    }
                }
                Some(RawBson::Document(document))
            }
            Self::Array(expressions) => {
                let mut array = RawArrayBuf::new();
                for expression in expressions {
                    array.push(expression.compute(scope)?.unwrap_or(RawBson::Null));
                    check_size(array.as_bytes().len())?;
                }
                Some(RawBson::Array(array))
            }
            Self::And(operands) => {
                for operand in operands {
                    if !is_true(&operand.compute(scope)?) {
                        return Ok(Some(RawBson::Boolean(false)));
                    }
                }
                Some(RawBson::Boolean(true))
            }
            Self::Or(operands) => {
                for operand in operands {
                    if is_true(&operand.compute(scope)?) {
                        return Ok(Some(RawBson::Boolean(true)));
                    }
                }
                Some(RawBson::Boolean(false))
            }
            Self::Cond(parts) => {
                let [condition, then, otherwise] = &**parts;
                return if is_true(&condition.compute(scope)?) { then } else { otherwise }.compute(scope);
            }
            Self::IfNull(operands) => {
                let mut last = None;
                for operand in operands {
                    last = operand.compute(scope)?;
                    if !is_nullish(&last) {
                        break;
                    }
                }
                last
            }
            Self::Switch { branches, default } => {
                for (case, then) in branches {
                    if is_true(&case.compute(scope)?) {
                        return then.compute(scope);
                    }
                }
                match default {
                    Some(default) => return default.compute(scope),
                    None => {
                        let message =
                            "$switch could not find a matching branch for an input, and no default was specified.";
                        return Err(Error::location(40066, message));
                    }
                }
            }
            Self::Let(values, body) => {
                let values = values.iter().map(|value| value.compute(scope)).collect::<Result<Vec<_>>>()?;
                return scope.with(values, |scope| body.compute(scope));
            }
            Self::Map(parts) => {
                let [input, body] = &**parts;
                let Some(array) = array_or_null(input.compute(scope)?, 16883, "input to $map must be an array not")?
                else {
                    return Ok(Some(RawBson::Null));
                };
                let mut mapped = RawArrayBuf::new();
                for item in items(&array) {
                    let value = scope.with(vec![Some(item.into())], |scope| body.compute(scope))?;
                    mapped.push(value.unwrap_or(RawBson::Null));
                    check_size(mapped.as_bytes().len())?;
                }
                Some(RawBson::Array(mapped))
            }
            Self::Filter(parts, limit) => {
                let [input, condition] = &**parts;
                let limit = match limit {
                    Some(limit) => filter_limit(limit.compute(scope)?)?,
                    None => usize::MAX,
                };
                let Some(array) = array_or_null(input.compute(scope)?, 28651, "input to $filter must be an array not")?
                else {
                    return Ok(Some(RawBson::Null));
                };
                let mut kept = RawArrayBuf::new();
                let mut count = 0;
                for item in items(&array) {
                    if count == limit {
                        break;
                    }
                    if is_true(&scope.with(vec![Some(item.into())], |scope| condition.compute(scope))?) {
                        kept.push(item);
                        count += 1;
                    }
                }
                Some(RawBson::Array(kept))
            }
            Self::Reduce(parts) => {
                let [input, initial, body] = &**parts;
                let Some(array) =
                    array_or_null(input.compute(scope)?, 40080, "$reduce requires that 'input' be an array, found:")?
                else {
                    return Ok(Some(RawBson::Null));
                };
                let mut value = initial.compute(scope)?;
                for item in items(&array) {
                    value = scope.with(vec![value, Some(item.into())], |scope| body.compute(scope))?;
                }
                value
            }
            Self::Call(function, operands) => {
                let values = operands
                    .iter()
                    .map(|operand| operand.as_ref().map(|operand| operand.compute(scope)).transpose())
                    .collect::<Result<Vec<_>>>()?;
                return (function.compute)(&values);
            }
        })
    }
}

impl Scope<'_> {
    #[inline]
    fn spend(&mut self, steps: u64) -> Result<()> {
        budget::charge(steps)?;
        self.steps = self.steps.checked_sub(steps).ok_or_else(too_many_steps)?;
        Ok(())
    }

    /// Evaluates something with further variables in scope.
    fn with<T>(&mut self, values: Vec<Value>, compute: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.variables.len();
        self.variables.extend(values);
        let value = compute(self);
        self.variables.truncate(before);
        value
    }
}

#[cold]
fn too_many_steps() -> Error {
    Error::new(ErrorCode::MaxTimeMsExpired, format!("an expression took more than {MAX_STEPS} steps"))
}

fn check_size(size: usize) -> Result<()> {
    if size > MAX_DOCUMENT_SIZE {
        let message = format!("an expression returned a value of {size} bytes, more than a document may have");
        return Err(Error::new(ErrorCode::BsonObjectTooLarge, message));
    }
    Ok(())
}

fn filter_limit(limit: Value) -> Result<usize> {
    if is_nullish(&limit) {
        return Ok(usize::MAX);
    }
    let number = limit.as_ref().and_then(|limit| crate::integer(limit.as_raw_bson_ref()));
    let number = number.and_then(|number| i32::try_from(number).ok());
    match number
        .ok_or_else(|| Error::location(327_391, "$filter: limit must be represented as a 32-bit integral value"))?
    {
        limit if limit > 0 => Ok(limit as usize),
        _ => Err(Error::location(327_392, "$filter: limit must be greater than 0")),
    }
}

/// Returns an array, or `None` for null and missing. Fails for other values, naming the type.
fn array_or_null(value: Value, code: i32, message: &str) -> Result<Option<RawArrayBuf>> {
    match value {
        Some(RawBson::Array(array)) => Ok(Some(array)),
        value if is_nullish(&value) => Ok(None),
        other => Err(Error::location(code, format!("{message} {}", type_of(&other)))),
    }
}

/// True if the value is null, undefined or missing.
pub(crate) fn is_nullish(value: &Value) -> bool {
    matches!(value, None | Some(RawBson::Null | RawBson::Undefined))
}

/// True if the value counts as true: anything except false, zero, null and missing.
pub(crate) fn is_true(value: &Value) -> bool {
    value.as_ref().is_some_and(|value| truthy(value.as_raw_bson_ref()))
}

/// Returns the name of a value's type, or `missing`.
pub(crate) fn type_of(value: &Value) -> &'static str {
    value.as_ref().map_or("missing", |value| crate::type_name(value.as_raw_bson_ref()))
}

/// Compares two values. A missing value orders before everything except MinKey.
pub(crate) fn order(one: &Value, other: &Value) -> std::cmp::Ordering {
    let of = |value| Option::as_ref(value).map_or(RawBsonRef::Undefined, RawBson::as_raw_bson_ref);
    compare(of(one), of(other))
}

/// The result of most functions for a null or missing operand.
fn null() -> Result<Value> {
    Ok(Some(RawBson::Null))
}

/// Follows a path, which maps over arrays and has no indexes, unlike the path of a filter.
pub(crate) fn reach(value: RawBsonRef<'_>, parts: &[String]) -> Value {
    let Some((first, rest)) = parts.split_first() else { return Some(value.into()) };
    match value {
        RawBsonRef::Document(document) => reach(get(document, first)?, rest),
        RawBsonRef::Array(array) => {
            let mut mapped = RawArrayBuf::new();
            items(array).filter_map(|item| reach(item, parts)).for_each(|value| mapped.push(value));
            Some(RawBson::Array(mapped))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
