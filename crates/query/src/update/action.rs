//! The update operators: each changes the value at its path.

use std::collections::HashSet;

use bson::{
    RawBson, Timestamp,
    raw::{RawArrayBuf, RawBsonRef, RawDocumentBuf},
};

use super::{
    Environment,
    tree::{Kind, Node, Tree, text},
};
use crate::{
    Error, ErrorCode, Filter, Number, Path, Result, Sort, budget, compare, document::type_name, encode_key, equal,
    filter::Candidates, sorting::sorted,
};

/// Up to this number of values, `$addToSet` compares one by one; more are looked up by key.
const FEW: usize = 8;

/// An update operator with its parsed operand.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// `$set`
    Set(RawBson),
    /// `$setOnInsert`
    SetOnInsert(RawBson),
    /// `$unset`
    Unset,
    /// `$inc`
    Inc(Number),
    /// `$mul`
    Mul(Number),
    /// `$min`
    Min(RawBson),
    /// `$max`
    Max(RawBson),
    /// `$rename`, with the target path.
    Rename(Path),
    /// `$currentDate` as a date.
    CurrentDate,
    /// `$currentDate` as a timestamp.
    CurrentTimestamp,
    /// `$push`
    Push(Push),
    /// `$addToSet`, with the values to add.
    AddToSet(Vec<RawBson>),
    /// `$pull`
    Pull(Pull),
    /// `$pullAll`
    PullAll(Candidates),
    /// `$pop`
    Pop {
        /// True to remove the first item instead of the last one.
        first: bool,
    },
    /// `$bit`
    Bit(Vec<(BitOperation, Number)>),
}

/// A bitwise operation of `$bit`.
#[derive(Debug, Clone, Copy)]
pub(super) enum BitOperation {
    /// `and`
    And,
    /// `or`
    Or,
    /// `xor`
    Xor,
}

/// `$push` with its modifiers.
#[derive(Debug, Clone)]
pub(super) struct Push {
    /// The values to add (`$each`).
    pub values: Vec<RawBson>,
    /// The index at which to add them (`$position`); a negative one counts from the end.
    pub position: Option<i64>,
    /// The order of the array afterwards (`$sort`).
    pub sort: Option<PushSort>,
    /// The number of items to keep (`$slice`); a negative one keeps the last items.
    pub slice: Option<i64>,
}

/// The order of `$push`'s `$sort`.
#[derive(Debug, Clone)]
pub(super) enum PushSort {
    /// By the items themselves.
    Whole {
        /// True to sort the largest item first.
        descending: bool,
    },
    /// By fields of the items.
    Fields(Sort),
}

/// The condition for the items that `$pull` removes.
#[derive(Debug, Clone)]
pub(super) enum Pull {
    /// Items equal to a value.
    Value(RawBson),
    /// Documents that match a filter.
    Documents(Filter),
    /// Items that satisfy a condition, given as a filter on the field `v`.
    Condition(Filter),
}

impl Action {
    /// Calls `visit` with the name of each operator in the action's filter.
    pub(super) fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        if let Self::Pull(Pull::Documents(filter) | Pull::Condition(filter)) = self {
            filter.operators(visit);
        }
    }

    pub(super) fn apply(
        &self,
        path: &Path,
        tree: &mut Tree<'_>,
        inserting: bool,
        environment: &dyn Environment,
    ) -> Result<()> {
        match self {
            Self::Set(value) => tree.set(path, value.clone()),
            Self::SetOnInsert(value) if inserting => tree.set(path, value.clone()),
            Self::SetOnInsert(_) => Ok(()),
            Self::Unset => {
                tree.remove(path);
                Ok(())
            }
            Self::Inc(amount) => {
                let missing = *amount;
                arithmetic(path, tree, "$inc", "increment", missing, |number| number.checked_add(*amount))
            }
            Self::Mul(factor) => {
                let missing = factor.checked_mul(Number::Int32(0)).unwrap_or(Number::Int32(0));
                arithmetic(path, tree, "$mul", "multiply", missing, |number| number.checked_mul(*factor))
            }
            Self::Min(value) => keep(path, tree, value, |new, old| compare(new, old).is_lt()),
            Self::Max(value) => keep(path, tree, value, |new, old| compare(new, old).is_gt()),
            Self::Rename(to) => rename(path, to, tree),
            Self::CurrentDate => tree.set(path, RawBson::DateTime(environment.now())),
            Self::CurrentTimestamp => {
                let seconds = environment.now().timestamp_millis().div_euclid(1000);
                tree.set(
                    path,
                    RawBson::Timestamp(Timestamp { time: u32::try_from(seconds).unwrap_or(0), increment: 1 }),
                )
            }
            Self::Push(push) => {
                let mut items = array(path, tree, "$push")?.unwrap_or_default();
                push.run(&mut items)?;
                tree.set(path, to_array(items))
            }
            Self::AddToSet(values) => {
                let existing = array(path, tree, "$addToSet")?;
                let missing = existing.is_none();
                let mut items = existing.unwrap_or_default();
                let before = items.len();
                add_to_set(&mut items, values)?;
                if missing || items.len() != before { tree.set(path, to_array(items)) } else { Ok(()) }
            }
            Self::Pull(pull) => {
                let Some(mut items) = array(path, tree, "$pull")? else { return Ok(()) };
                let before = items.len();
                items.retain(|item| !budget::spend(1) || !pull.takes(item));
                budget::charge(1)?;
                if items.len() == before { Ok(()) } else { tree.set(path, to_array(items)) }
            }
            Self::PullAll(values) => {
                let Some(mut items) = array(path, tree, "$pullAll")? else { return Ok(()) };
                let before = items.len();
                items.retain(|item| !budget::spend(1) || !values.contain(Some(item.as_raw_bson_ref())));
                budget::charge(1)?;
                if items.len() == before { Ok(()) } else { tree.set(path, to_array(items)) }
            }
            Self::Pop { first } => {
                let Some(mut items) = array(path, tree, "$pop")? else { return check_way(path, tree) };
                if items.is_empty() {
                    return Ok(());
                }
                items.remove(if *first { 0 } else { items.len() - 1 });
                tree.set(path, to_array(items))
            }
            Self::Bit(operations) => bit(path, tree, operations),
        }
    }
}

fn arithmetic(
    path: &Path,
    tree: &mut Tree<'_>,
    operator: &str,
    verb: &str,
    missing: Number,
    compute: impl Fn(Number) -> Option<Number>,
) -> Result<()> {
    let Some(node) = tree.open(path) else { return tree.set(path, missing.to_bson()) };
    let value = node.to_value();
    let Some(number) = Number::of(value.as_raw_bson_ref()) else {
        return Err(Error::type_mismatch(format!(
            "Cannot apply {operator} to a value of non-numeric type. Field '{}' has non-numeric type {}",
            path.as_str(),
            type_name(value.as_raw_bson_ref()),
        )));
    };
    let result = compute(number).ok_or_else(|| {
        Error::bad_value(format!(
            "Failed to apply {operator} operations to current value ({}): cannot {verb} beyond a 64-bit integer",
            text(&value)
        ))
    })?;
    // An equal number of the same type is not replaced: a decimal keeps its exponent.
    let is_same_type = std::mem::discriminant(&number) == std::mem::discriminant(&result);
    if !is_same_type || number.is_nan() || number.compare(result).is_ne() {
        *node = Node::Value(result.to_bson());
    }
    Ok(())
}

fn bit(path: &Path, tree: &mut Tree<'_>, operations: &[(BitOperation, Number)]) -> Result<()> {
    let held = tree.open(path).map(|node| node.to_value());
    let mut number = match &held {
        None => Number::Int32(0),
        Some(held) => Number::of(held.as_raw_bson_ref())
            .filter(|number| matches!(number, Number::Int32(_) | Number::Int64(_)))
            .ok_or_else(|| {
                Error::bad_value(format!(
                    "Cannot apply $bit to a value of non-integral type. Field '{}' has non-integral type {}",
                    path.as_str(),
                    type_name(held.as_raw_bson_ref())
                ))
            })?,
    };
    for (operation, operand) in operations {
        let is_wide = matches!(number, Number::Int64(_)) || matches!(operand, Number::Int64(_));
        let (one, other) = (number.to_integer().unwrap_or(0), operand.to_integer().unwrap_or(0));
        let result = match operation {
            BitOperation::And => one & other,
            BitOperation::Or => one | other,
            BitOperation::Xor => one ^ other,
        };
        number = if is_wide { Number::Int64(result) } else { Number::Int32(result as i32) };
    }
    tree.set(path, number.to_bson())
}

fn keep(
    path: &Path,
    tree: &mut Tree<'_>,
    value: &RawBson,
    replaces: fn(RawBsonRef<'_>, RawBsonRef<'_>) -> bool,
) -> Result<()> {
    let replaced = tree.open(path).is_none_or(|node| {
        let held = node.to_value();
        replaces(value.as_raw_bson_ref(), held.as_raw_bson_ref())
    });
    if replaced { tree.set(path, value.clone()) } else { Ok(()) }
}

fn rename(from: &Path, to: &Path, tree: &mut Tree<'_>) -> Result<()> {
    if [from, to].iter().any(|path| path.parts()[0] == "_id") {
        return Err(super::immutable_id(
            "Performing an update on the path '_id' would modify the immutable field '_id'",
        ));
    }
    check_way(from, tree)?;
    check_no_array(from, "source", tree)?;
    let Some(value) = tree.open(from).map(|node| node.to_value()) else { return Ok(()) };
    check_no_array(to, "destination", tree)?;
    tree.remove(from);
    tree.set(to, value)
}

/// Checks that a path leads through no array.
fn check_no_array(path: &Path, end: &str, tree: &mut Tree<'_>) -> Result<()> {
    for length in 1..path.parts().len() {
        let parent = &path.parts()[..length];
        match tree.open_parts(parent).map(|node| node.kind()) {
            Some(Kind::Array) => {
                return Err(Error::bad_value(format!(
                    "The {end} field cannot be an array element, '{}' in doc has an array field called '{}'",
                    path.as_str(),
                    parent.join(".")
                )));
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

/// Checks that a path leads only through documents, or through arrays by index.
fn check_way(path: &Path, tree: &mut Tree<'_>) -> Result<()> {
    for length in 1..path.parts().len() {
        let part = &path.parts()[length];
        let leads_on = match tree.open_parts(&path.parts()[..length]).map(|node| node.kind()) {
            None => return Ok(()),
            Some(Kind::Document) => true,
            Some(Kind::Array) => crate::document::array_index(part).is_some(),
            Some(Kind::Other) => false,
        };
        if !leads_on {
            let message = format!("Cannot use the part ({part}) of ({}) to traverse the element", path.as_str());
            return Err(Error::new(ErrorCode::PathNotViable, message));
        }
    }
    Ok(())
}

/// Returns the items of the array at a path, or `None` if the field is missing.
fn array(path: &Path, tree: &mut Tree<'_>, operator: &str) -> Result<Option<Vec<RawBson>>> {
    let Some(node) = tree.open(path) else { return Ok(None) };
    match node.to_value() {
        RawBson::Array(array) => {
            budget::charge_bytes(array.as_bytes().len())?;
            Ok(Some(crate::document::items(&array).map(Into::into).collect()))
        }
        other => {
            let other = type_name(other.as_raw_bson_ref());
            Err(match operator {
                "$push" => {
                    Error::bad_value(format!("The field '{}' must be an array but is of type {other}", path.as_str()))
                }
                "$addToSet" => Error::bad_value(format!(
                    "Cannot apply $addToSet to non-array field. Field named '{}' has non-array type {other}",
                    path.as_str()
                )),
                "$pop" => Error::type_mismatch(format!(
                    "Path '{}' contains an element of non-array type '{other}'",
                    path.as_str()
                )),
                _ => Error::bad_value(format!("Cannot apply {operator} to a non-array value")),
            })
        }
    }
}

fn to_array(items: Vec<RawBson>) -> RawBson {
    let mut array = RawArrayBuf::new();
    items.into_iter().for_each(|item| array.push(item));
    RawBson::Array(array)
}

/// Adds the values that the array does not contain.
fn add_to_set(items: &mut Vec<RawBson>, values: &[RawBson]) -> Result<()> {
    if values.len() <= FEW {
        for value in values {
            budget::charge(items.len() as u64)?;
            if !items.iter().any(|item| equal(item.as_raw_bson_ref(), value.as_raw_bson_ref())) {
                items.push(value.clone());
            }
        }
        return Ok(());
    }
    let mut held: HashSet<Vec<u8>> = HashSet::with_capacity(items.len());
    for item in items.iter() {
        budget::charge(1)?;
        held.insert(encode_key(item.as_raw_bson_ref()));
    }
    for value in values {
        budget::charge(1)?;
        if held.insert(encode_key(value.as_raw_bson_ref())) {
            items.push(value.clone());
        }
    }
    Ok(())
}

impl Push {
    fn run(&self, items: &mut Vec<RawBson>) -> Result<()> {
        let length = items.len();
        let at = match self.position {
            None => length,
            Some(position) if position < 0 => length.saturating_sub(position.unsigned_abs() as usize),
            Some(position) => length.min(position as usize),
        };
        items.splice(at..at, self.values.iter().cloned());
        match &self.sort {
            None => {}
            Some(PushSort::Whole { descending }) => {
                let key = |item: &RawBson| encode_key(item.as_raw_bson_ref());
                sort_by_key(items, key, *descending)?;
            }
            // An item that is not a document sorts as one without fields.
            Some(PushSort::Fields(sort)) => {
                let key = |item: &RawBson| sort.key_of_whole(item.as_document().unwrap_or(crate::document::empty()));
                sort_by_key(items, key, false)?;
            }
        }
        match self.slice {
            None => {}
            Some(slice) if slice < 0 => {
                let surplus = items.len().saturating_sub(slice.unsigned_abs() as usize);
                items.drain(..surplus);
            }
            Some(slice) => items.truncate(slice as usize),
        }
        Ok(())
    }
}

fn sort_by_key<K: Ord>(items: &mut Vec<RawBson>, key: impl Fn(&RawBson) -> K, descending: bool) -> Result<()> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        budget::charge(1)?;
        keyed.push((key(&item), item));
    }
    let in_order = sorted(keyed, |(one, _), (other, _)| if descending { other.cmp(one) } else { one.cmp(other) })?;
    items.extend(in_order.into_iter().map(|(_, item)| item));
    Ok(())
}

impl Pull {
    fn takes(&self, item: &RawBson) -> bool {
        match self {
            Self::Value(value) => equal(item.as_raw_bson_ref(), value.as_raw_bson_ref()),
            Self::Documents(filter) => item.as_document().is_some_and(|document| filter.matches(document)),
            Self::Condition(filter) => {
                let mut holder = RawDocumentBuf::new();
                crate::append(&mut holder, "v", item);
                filter.matches(&holder)
            }
        }
    }
}

/// Checks a value that an update stores.
pub(super) fn stored(value: RawBsonRef<'_>) -> Result<RawBson> {
    if matches!(value, RawBsonRef::Undefined) {
        return Err(Error::new(ErrorCode::BadValue, "an update cannot store undefined"));
    }
    Ok(value.into())
}
