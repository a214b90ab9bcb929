//! Parses a document of update operators into actions by path.

use std::cmp::Ordering;

use bson::raw::{RawBsonRef, RawDocument};

use super::{
    action::{Action, BitOperation, Pull, Push, PushSort, stored},
    positional::{self, ArrayFilters},
};
use crate::{
    Error, ErrorCode, Filter, Number, Path, Result, Sort, budget,
    document::{array_index, elements, items, type_name},
    path_tree::{Collision, PathTree},
    sorting::sorted,
};

pub(super) fn operators(update: &RawDocument, array_filters: &ArrayFilters) -> Result<Vec<(Path, Action)>> {
    let mut actions: Vec<(Path, Action)> = Vec::new();
    for (operator, operand) in elements(update) {
        let is_known = matches!(
            operator,
            "$set"
                | "$setOnInsert"
                | "$unset"
                | "$inc"
                | "$mul"
                | "$min"
                | "$max"
                | "$rename"
                | "$currentDate"
                | "$push"
                | "$addToSet"
                | "$pull"
                | "$pullAll"
                | "$pop"
                | "$bit"
        );
        if !is_known {
            return Err(Error::parse(format!(
                "Unknown modifier: {operator}. Expected a valid update modifier or pipeline-style update specified as an array"
            )));
        }
        let RawBsonRef::Document(fields) = operand else {
            return Err(Error::parse(format!(
                "Modifiers operate on fields but we found type {} instead. For example: {{$mod: {{<field>: ...}}}} not {{{operator}: ...}}",
                type_name(operand)
            )));
        };
        for (name, value) in elements(fields) {
            budget::charge(1)?;
            // A missing field cannot be renamed, so an invalid source name does no harm.
            let of = if operator == "$rename" { Path::strict(name)? } else { path(name)? };
            positional::check(&of)?;
            actions.push((of, action(operator, name, value)?));
        }
    }
    check_conflicts(&actions)?;
    positional::check_filters(actions.iter().map(|(path, _)| path), array_filters)?;
    // The server updates fields in the order of their names, and so appends new ones in this
    // order. `$rename` counts with its target.
    sorted(actions, |one, other| in_server_order(written(one), written(other)))
}

fn path(name: &str) -> Result<Path> {
    let path = Path::strict(name)?;
    positional::check_dollars(&path)?;
    Ok(path)
}

fn written((path, action): &(Path, Action)) -> &Path {
    if let Action::Rename(to) = action { to } else { path }
}

/// Returns paths that cover the changes of an action. A path through array items ends at the
/// array.
pub(super) fn touched((path, action): &(Path, Action)) -> Vec<Path> {
    let target = if let Action::Rename(to) = action { Some(to) } else { None };
    let up_to_items = |path: &Path| {
        let named: Vec<_> = path.parts().iter().take_while(|part| !part.starts_with('$')).map(String::as_str).collect();
        Path::new(&named.join("."))
    };
    std::iter::once(path).chain(target).map(up_to_items).collect()
}

/// Compares paths by their parts: indexes as numbers, other names by their bytes. Indexes sort
/// where their digits would, before letters.
fn in_server_order(a: &Path, b: &Path) -> Ordering {
    let part = |a: &String, b: &String| match (array_index(a), array_index(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, None) => a.cmp(b),
        // Only the first byte counts: names such as `1a` between `10` and `9` would break the
        // order.
        (Some(_), None) => {
            if b.as_bytes() < b"0" {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (None, Some(_)) => {
            if a.as_bytes() < b"0" {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
    };
    a.parts()
        .iter()
        .zip(b.parts())
        .map(|(a, b)| part(a, b))
        .find(|order| order.is_ne())
        .unwrap_or(a.parts().len().cmp(&b.parts().len()))
}

fn check_conflicts(actions: &[(Path, Action)]) -> Result<()> {
    let mut touched = PathTree::default();
    for (path, action) in actions {
        let target = if let Action::Rename(to) = action { Some(to) } else { None };
        for path in std::iter::once(path).chain(target) {
            let Some(collision) = touched.insert(path.parts())? else { continue };
            let shorter = match collision {
                Collision::Through(length) => path.parts()[..length].join("."),
                Collision::Same | Collision::Above => path.as_str().to_owned(),
            };
            return Err(Error::new(
                ErrorCode::ConflictingUpdateOperators,
                format!("Updating the path '{}' would create a conflict at '{shorter}'", path.as_str()),
            ));
        }
    }
    Ok(())
}

fn action(operator: &str, name: &str, value: RawBsonRef<'_>) -> Result<Action> {
    Ok(match operator {
        "$set" => Action::Set(stored(value)?),
        "$setOnInsert" => Action::SetOnInsert(stored(value)?),
        "$unset" => Action::Unset,
        "$inc" => Action::Inc(number("increment", name, value)?),
        "$mul" => Action::Mul(number("multiply", name, value)?),
        "$min" => Action::Min(stored(value)?),
        "$max" => Action::Max(stored(value)?),
        "$rename" => rename(name, value)?,
        "$currentDate" => current_date(value)?,
        "$push" => Action::Push(push(value)?),
        "$pullAll" => match value {
            RawBsonRef::Array(array) => Action::PullAll(items(array).map(Into::into).collect()),
            other => {
                return Err(Error::bad_value(format!(
                    "$pullAll requires an array argument but was given a {}",
                    type_name(other)
                )));
            }
        },
        "$pop" => Action::Pop {
            first: match (Number::of(value), crate::integer(value)) {
                (Some(_), Some(1)) => false,
                (Some(_), Some(-1)) => true,
                (Some(_), Some(other)) => {
                    return Err(Error::parse(format!("$pop expects 1 or -1, found: {other}")));
                }
                _ => return Err(Error::parse(format!("Expected a number in: {name}: {}", type_name(value)))),
            },
        },
        "$bit" => Action::Bit(bits(name, value)?),
        "$addToSet" => Action::AddToSet(match modifiers(value) {
            Some(modifiers) => match (elements(modifiers).count(), crate::get(modifiers, "$each")) {
                (1, Some(RawBsonRef::Array(array))) => items(array).map(stored).collect::<Result<_>>()?,
                (1, Some(other)) => {
                    return Err(Error::type_mismatch(format!(
                        "The argument to $each in $addToSet must be an array but it was of type {}",
                        type_name(other)
                    )));
                }
                _ => return Err(Error::bad_value("Found unexpected fields after $each in $addToSet")),
            },
            None => vec![stored(value)?],
        }),
        _ => Action::Pull(pull(value)?),
    })
}

fn number(verb: &str, name: &str, value: RawBsonRef<'_>) -> Result<Number> {
    Number::of(value).ok_or_else(|| {
        Error::type_mismatch(format!(
            "Cannot {verb} with non-numeric argument: {{{name}: {}}}",
            super::tree::text(&value.into())
        ))
    })
}

fn bits(name: &str, value: RawBsonRef<'_>) -> Result<Vec<(BitOperation, Number)>> {
    let RawBsonRef::Document(document) = value else {
        return Err(Error::bad_value(format!(
            "The $bit modifier is not compatible with a {}. You must pass in an embedded document: {{$bit: {{field: {{and/or/xor: #}}}}",
            type_name(value)
        )));
    };
    let mut operations = Vec::new();
    for (operation, operand) in elements(document) {
        let operation = match operation {
            "and" => BitOperation::And,
            "or" => BitOperation::Or,
            "xor" => BitOperation::Xor,
            other => {
                return Err(Error::bad_value(format!(
                    "The $bit modifier only supports 'and', 'or', and 'xor', not '{other}' which is an unknown operator"
                )));
            }
        };
        let number = Number::of(operand).filter(|number| matches!(number, Number::Int32(_) | Number::Int64(_)));
        operations.push((
            operation,
            number.ok_or_else(|| Error::bad_value("The $bit modifier field must be an Integer(32/64 bit)"))?,
        ));
    }
    if operations.is_empty() {
        return Err(Error::bad_value(format!(
            "You must pass in at least one bitwise operation. The format is: {{$bit: {{{name}: {{and/or/xor: #}}}}"
        )));
    }
    Ok(operations)
}

fn rename(name: &str, value: RawBsonRef<'_>) -> Result<Action> {
    let RawBsonRef::String(to) = value else {
        return Err(Error::bad_value(format!("The 'to' field for $rename must be a string: {name}")));
    };
    if to == name {
        return Err(Error::bad_value(format!("The source and target field for $rename must differ: {name}: \"{to}\"")));
    }
    if to.contains('\0') {
        return Err(Error::location(9_867_600, format!("The 'to' field for $rename has a null byte: {name}")));
    }
    let (from, to) = (Path::strict(name)?, path(to)?);
    positional::check(&to)?;
    if from.starts_with(&to) || to.starts_with(&from) {
        let message = format!(
            "The source and target field for $rename must not be on the same path: {name}: \"{}\"",
            to.as_str()
        );
        return Err(Error::bad_value(message));
    }
    for (end, path) in [("source", &from), ("destination", &to)] {
        if positional::is_positional(path) {
            return Err(Error::bad_value(format!("The {end} field for $rename may not be dynamic: {}", path.as_str())));
        }
    }
    Ok(Action::Rename(to))
}

fn current_date(value: RawBsonRef<'_>) -> Result<Action> {
    match value {
        RawBsonRef::Boolean(_) => Ok(Action::CurrentDate),
        RawBsonRef::Document(document) => {
            if let Some((other, _)) = elements(document).find(|(name, _)| *name != "$type") {
                return Err(Error::bad_value(format!("Unrecognized $currentDate option: {other}")));
            }
            match crate::get(document, "$type") {
                Some(RawBsonRef::String("date")) => Ok(Action::CurrentDate),
                Some(RawBsonRef::String("timestamp")) => Ok(Action::CurrentTimestamp),
                _ => Err(Error::bad_value(
                    "The '$type' string field is required to be 'date' or 'timestamp': {$currentDate: {field : {$type: 'date'}}}",
                )),
            }
        }
        other => Err(Error::bad_value(format!(
            "{} is not valid type for $currentDate. Please use a boolean ('true') or a $type expression ({{$type: 'timestamp/date'}}).",
            type_name(other)
        ))),
    }
}

/// Returns the operand of `$push` or `$addToSet` if it is a document of modifiers.
fn modifiers(value: RawBsonRef<'_>) -> Option<&RawDocument> {
    value.as_document().filter(|document| elements(document).next().is_some_and(|(name, _)| name == "$each"))
}

fn push(value: RawBsonRef<'_>) -> Result<Push> {
    let mut push = Push { values: Vec::new(), position: None, sort: None, slice: None };
    let with_each = value.as_document().filter(|document| crate::get(document, "$each").is_some());
    let Some(modifiers) = with_each else {
        push.values.push(stored(value)?);
        return Ok(push);
    };
    let whole = |name: &str, value| {
        crate::integer(value).ok_or_else(|| {
            Error::bad_value(format!(
                "The value for {name} must be an integer value but was given type: {}",
                type_name(value)
            ))
        })
    };
    for (name, value) in elements(modifiers) {
        match name {
            "$each" => {
                let RawBsonRef::Array(array) = value else {
                    return Err(Error::bad_value(format!(
                        "The argument to $each in $push must be an array but it was of type: {}",
                        type_name(value)
                    )));
                };
                push.values = items(array).map(stored).collect::<Result<_>>()?;
            }
            "$position" => push.position = Some(whole(name, value)?),
            "$slice" => push.slice = Some(whole(name, value)?),
            "$sort" => {
                push.sort = Some(match value {
                    RawBsonRef::Document(sort) => {
                        let sort = Sort::parse(sort).map_err(|error| Error::bad_value(error.message))?;
                        if sort.is_empty() {
                            return Err(Error::bad_value(
                                "The $sort pattern is empty when it should be a set of fields.",
                            ));
                        }
                        PushSort::Fields(sort)
                    }
                    value => PushSort::Whole {
                        descending: match crate::integer(value) {
                            Some(1) => false,
                            Some(-1) => true,
                            _ => {
                                return Err(Error::bad_value(
                                    "The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1} to sort embedded fields",
                                ));
                            }
                        },
                    },
                });
            }
            other => return Err(Error::bad_value(format!("Unrecognized clause in $push: {other}"))),
        }
    }
    Ok(push)
}

/// Parses `$pull`: a value, a condition on the items, or a filter for the documents among them.
fn pull(value: RawBsonRef<'_>) -> Result<Pull> {
    let is_condition = match value {
        RawBsonRef::Document(condition) => elements(condition)
            .next()
            .is_some_and(|(name, _)| name.starts_with('$') && !matches!(name, "$and" | "$or" | "$nor")),
        value => matches!(value, RawBsonRef::RegularExpression(_)),
    };
    match value {
        value if is_condition => {
            let mut holder = bson::raw::RawDocumentBuf::new();
            crate::append(&mut holder, "v", value);
            Ok(Pull::Condition(Filter::parse(&holder)?))
        }
        RawBsonRef::Document(filter) => Ok(Pull::Documents(Filter::parse(filter)?)),
        value => Ok(Pull::Value(stored(value)?)),
    }
}
