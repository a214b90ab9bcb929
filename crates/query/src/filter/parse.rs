//! Parses a filter document into a [`Filter`].

use bson::raw::{RawBsonRef, RawDocument};

use super::{BitTest, Bits, Filter, PathFilter, Predicate, Schema};
use crate::{
    Error, Number, Path, Result, budget,
    document::{elements, get, items, truthy, type_name, with_stack},
    expression::Expression,
    regex::Regex,
    types::TypeSet,
};

/// Top-level operators that the server has and Userkeep does not support.
const UNSUPPORTED_TOP_LEVEL: &[&str] = &["$sampleRate", "$text", "$where"];

/// Field operators that the server has and Userkeep does not support.
const UNSUPPORTED_ON_FIELD: &[&str] =
    &["$geoIntersects", "$geoNear", "$geoWithin", "$maxDistance", "$minDistance", "$near", "$nearSphere", "$within"];

pub(super) fn filter(document: &RawDocument) -> Result<Filter> {
    with_stack(|| filter_document(document))
}

fn filter_document(document: &RawDocument) -> Result<Filter> {
    let mut all = Vec::new();
    for (name, value) in elements(document) {
        budget::charge(1)?;
        if let Some(operator) = name.strip_prefix('$') {
            let branches = |value| branches(name, value);
            all.push(match operator {
                "and" => Filter::And(branches(value)?),
                "or" => Filter::Or(branches(value)?),
                "nor" => Filter::Nor(branches(value)?),
                "comment" => continue,
                "expr" => Filter::Expression(Box::new(Expression::parse(value)?), value.into()),
                "jsonSchema" => match value {
                    RawBsonRef::Document(schema) => Filter::Schema(Box::new(Schema::parse(schema)?), schema.to_owned()),
                    _ => return Err(Error::type_mismatch("$jsonSchema must be an object")),
                },
                "alwaysTrue" | "alwaysFalse" => match crate::integer(value) {
                    Some(1) => Filter::Always(operator == "alwaysTrue"),
                    _ => return Err(Error::parse(format!("{name} must be an integer value of 1"))),
                },
                _ if UNSUPPORTED_TOP_LEVEL.contains(&name) => return Err(Error::unsupported(format_args!("the query operator {name}"))),
                _ => {
                    return Err(Error::bad_value(format!(
                        "unknown top level operator: {name}. If you have a field name that starts with a '$' symbol, consider using $getField or $setField."
                    )))
                }
            });
        } else {
            field(Path::new(name), value, &mut all)?;
        }
    }
    Ok(if all.len() == 1 { all.remove(0) } else { Filter::And(all) })
}

fn branches(operator: &str, value: RawBsonRef<'_>) -> Result<Vec<Filter>> {
    let RawBsonRef::Array(array) = value else {
        return Err(Error::bad_value(format!("{operator} must be an array")));
    };
    let branches: Vec<_> = items(array)
        .map(|item| match item {
            RawBsonRef::Document(branch) => budget::charge(1).and_then(|()| filter(branch)),
            _ => Err(Error::bad_value("$or/$and/$nor entries need to be full objects")),
        })
        .collect::<Result<_>>()?;
    if branches.is_empty() {
        return Err(Error::bad_value("$and/$or/$nor must be a nonempty array"));
    }
    Ok(branches)
}

/// Parses a field's value: a document of operators, or a value that the field must equal.
fn field(path: Path, value: RawBsonRef<'_>, all: &mut Vec<Filter>) -> Result<()> {
    match value {
        RawBsonRef::Document(document) if is_operators(document) => operators(&path, document, all),
        RawBsonRef::RegularExpression(regex) => {
            all.push(on_path(&path, Predicate::Regex(Regex::of(regex)?)));
            Ok(())
        }
        _ => {
            all.push(on_path(&path, Predicate::Eq(operand("$eq", value)?)));
            Ok(())
        }
    }
}

/// Parses conditions on a value itself.
fn conditions(document: &RawDocument) -> Result<Filter> {
    let mut all = Vec::new();
    operators(&Path::new(""), document, &mut all)?;
    Ok(Filter::And(all))
}

/// True if the first field names an operator. `$ref`, `$id` and `$db` are the fields of a DBRef,
/// which is a value.
fn is_operators(document: &RawDocument) -> bool {
    elements(document).next().is_some_and(|(name, _)| name.starts_with('$') && !matches!(name, "$ref" | "$id" | "$db"))
}

fn operators(path: &Path, document: &RawDocument, all: &mut Vec<Filter>) -> Result<()> {
    with_stack(|| add_operators(path, document, all))
}

fn add_operators(path: &Path, document: &RawDocument, all: &mut Vec<Filter>) -> Result<()> {
    for (name, value) in elements(document) {
        budget::charge(1)?;
        let is = |predicate| on_path(path, predicate);
        let not = |predicate| Filter::Not(Box::new(on_path(path, predicate)));
        all.push(match name {
            "$eq" => is(Predicate::Eq(operand(name, value)?)),
            "$ne" => not(Predicate::Eq(operand(name, value)?)),
            "$gt" => is(Predicate::Gt(operand(name, value)?)),
            "$gte" => is(Predicate::Gte(operand(name, value)?)),
            "$lt" => is(Predicate::Lt(operand(name, value)?)),
            "$lte" => is(Predicate::Lte(operand(name, value)?)),
            "$in" => is(candidates(name, value)?),
            "$nin" => not(candidates(name, value)?),
            "$exists" if truthy(value) => is(Predicate::Exists),
            "$exists" => not(Predicate::Exists),
            "$not" => negated(path, value)?,
            "$type" => is(Predicate::Type(TypeSet::parse(value)?)),
            "$size" => is(Predicate::Size(size(value)?)),
            "$mod" => modulus(value).map(is)?,
            "$bitsAllSet" => is(Predicate::Bits(Bits::parse(BitTest::AllSet, value)?)),
            "$bitsAllClear" => is(Predicate::Bits(Bits::parse(BitTest::AllClear, value)?)),
            "$bitsAnySet" => is(Predicate::Bits(Bits::parse(BitTest::AnySet, value)?)),
            "$bitsAnyClear" => is(Predicate::Bits(Bits::parse(BitTest::AnyClear, value)?)),
            "$regex" => is(Predicate::Regex(regex(value, document)?)),
            "$options" if get(document, "$regex").is_some() => continue,
            "$options" => return Err(Error::bad_value("$options needs a $regex")),
            "$elemMatch" => is(elem_match(value)?),
            "$all" => every(path, value)?,
            "$comment" => continue,
            _ if UNSUPPORTED_ON_FIELD.contains(&name) => {
                return Err(Error::unsupported(format_args!("the query operator {name}")));
            }
            _ => return Err(Error::bad_value(format!("unknown operator: {name}"))),
        });
    }
    Ok(())
}

fn on_path(path: &Path, predicate: Predicate) -> Filter {
    Filter::Path(PathFilter { path: path.clone(), predicate })
}

fn negated(path: &Path, value: RawBsonRef<'_>) -> Result<Filter> {
    let inner = match value {
        RawBsonRef::Document(inner) => inner,
        RawBsonRef::RegularExpression(regex) => {
            return Ok(Filter::Not(Box::new(on_path(path, Predicate::Regex(Regex::of(regex)?)))));
        }
        _ => return Err(Error::bad_value("$not needs a regex or a document")),
    };
    if inner.is_empty() {
        return Err(Error::bad_value("$not cannot be empty"));
    }
    let mut negated = Vec::new();
    operators(path, inner, &mut negated)?;
    Ok(Filter::Not(Box::new(Filter::And(negated))))
}

fn operand(operator: &str, value: RawBsonRef<'_>) -> Result<bson::RawBson> {
    match value {
        RawBsonRef::Undefined => Err(Error::bad_value("cannot compare to undefined")),
        RawBsonRef::RegularExpression(_) if operator != "$eq" => {
            Err(Error::bad_value(format!("Can't have RegEx as arg to predicate over field with {operator}.")))
        }
        value => Ok(value.into()),
    }
}

fn candidates(operator: &str, value: RawBsonRef<'_>) -> Result<Predicate> {
    let RawBsonRef::Array(array) = value else {
        return Err(Error::bad_value(format!("{operator} needs an array, got {}", type_name(value))));
    };
    let (mut values, mut patterns) = (Vec::new(), Vec::new());
    for item in items(array) {
        budget::charge(1)?;
        match item {
            RawBsonRef::RegularExpression(regex) => patterns.push(Regex::of(regex)?),
            RawBsonRef::Document(document) if is_operators(document) => {
                return Err(Error::bad_value(format!("cannot nest $ under {operator}")));
            }
            item => values.push(operand("$eq", item)?),
        }
    }
    Ok(Predicate::In(values.into(), patterns))
}

fn size(value: RawBsonRef<'_>) -> Result<i64> {
    if Number::of(value).is_none() {
        return Err(Error::bad_value(format!(
            "Failed to parse $size. Expected a number in: $size: {}",
            type_name(value)
        )));
    }
    let size = crate::integer(value)
        .filter(|size| *size <= i64::from(i32::MAX))
        .ok_or_else(|| Error::bad_value("Failed to parse $size. Cannot represent as a 32-bit integer: $size"))?;
    if size < 0 {
        return Err(Error::bad_value(format!(
            "Failed to parse $size. Expected a non-negative number in: $size: {size}"
        )));
    }
    Ok(size)
}

fn modulus(value: RawBsonRef<'_>) -> Result<Predicate> {
    let RawBsonRef::Array(array) = value else {
        return Err(Error::bad_value("malformed mod, needs to be an array"));
    };
    let numbers: Vec<_> = items(array).collect();
    let part = |name: &str, value: RawBsonRef<'_>| {
        if Number::of(value).is_none() {
            return Err(Error::bad_value(format!("malformed mod, {name} not a number")));
        }
        super::whole_part(value).ok_or_else(|| Error::bad_value(format!("malformed mod, {name} value is invalid")))
    };
    match numbers[..] {
        [] | [_] => Err(Error::bad_value("malformed mod, not enough elements")),
        [divisor, remainder] => {
            let (divisor, remainder) = (part("divisor", divisor)?, part("remainder", remainder)?);
            if divisor == 0 {
                return Err(Error::bad_value("divisor cannot be 0"));
            }
            Ok(Predicate::Mod(divisor, remainder))
        }
        _ => Err(Error::bad_value("malformed mod, too many elements")),
    }
}

fn regex(value: RawBsonRef<'_>, document: &RawDocument) -> Result<Regex> {
    let options = match get(document, "$options") {
        None => None,
        Some(RawBsonRef::String(options)) => Some(options),
        Some(_) => return Err(Error::bad_value("$options has to be a string")),
    };
    match value {
        RawBsonRef::String(pattern) => Regex::new(pattern, options.unwrap_or_default()),
        RawBsonRef::RegularExpression(regex) => match options {
            Some(_) if !regex.options.as_str().is_empty() => {
                let options_first = elements(document).find(|(name, _)| matches!(*name, "$regex" | "$options"));
                let code = if options_first.is_some_and(|(name, _)| name == "$options") { 51074 } else { 51075 };
                Err(Error::location(code, "options set in both $regex and $options"))
            }
            Some(options) => Regex::new(regex.pattern.as_str(), options),
            None => Regex::of(regex),
        },
        _ => Err(Error::bad_value("$regex has to be a string")),
    }
}

fn elem_match(value: RawBsonRef<'_>) -> Result<Predicate> {
    let RawBsonRef::Document(document) = value else {
        return Err(Error::bad_value("$elemMatch needs an Object"));
    };
    let is_of_values = elements(document).next().is_some_and(|(name, _)| {
        is_operators(document) && !matches!(name, "$and" | "$or" | "$nor" | "$where" | "$expr" | "$jsonSchema")
    });
    if is_of_values {
        return conditions(document).map(|filter| Predicate::ElemMatchValue(Box::new(filter), document.to_owned()));
    }
    for operator in ["$expr", "$where"] {
        if get(document, operator).is_some() {
            return Err(Error::bad_value(format!("{operator} can only be applied to the top-level document")));
        }
    }
    filter(document).map(|filter| Predicate::ElemMatch(Box::new(filter)))
}

fn every(path: &Path, value: RawBsonRef<'_>) -> Result<Filter> {
    let RawBsonRef::Array(array) = value else {
        return Err(Error::bad_value("$all needs an array"));
    };
    let mut all = Vec::new();
    let is_elem_match = |item: RawBsonRef<'_>| {
        item.as_document().is_some_and(|item| elements(item).next().is_some_and(|(name, _)| name == "$elemMatch"))
    };
    let of_documents = items(array).next().is_some_and(is_elem_match);
    for item in items(array) {
        budget::charge(1)?;
        let predicate = match item {
            RawBsonRef::Document(document) if of_documents => {
                let inner = get(document, "$elemMatch")
                    .ok_or_else(|| Error::bad_value("$all/$elemMatch has to be consistent"))?;
                elem_match(inner)?
            }
            _ if of_documents => return Err(Error::bad_value("$all/$elemMatch has to be consistent")),
            RawBsonRef::Document(document) if is_operators(document) => {
                return Err(Error::bad_value("no $ expressions in $all"));
            }
            RawBsonRef::RegularExpression(regex) => Predicate::Regex(Regex::of(regex)?),
            item => Predicate::Eq(operand("$eq", item)?),
        };
        all.push(on_path(path, predicate));
    }
    // An empty `$all` matches no document.
    Ok(if all.is_empty() { Filter::Always(false) } else { Filter::And(all) })
}
