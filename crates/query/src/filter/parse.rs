//! From a filter document to a [`Filter`].

use bson::raw::{RawBsonRef, RawDocument};

use super::{Filter, PathFilter, Predicate};
use crate::{
    Error, Path, Result,
    document::{elements, items, truthy, type_name},
};

/// What the server has at the top of a filter and this version does not.
const UNSUPPORTED_TOP_LEVEL: &[&str] =
    &["$alwaysFalse", "$alwaysTrue", "$comment", "$expr", "$jsonSchema", "$sampleRate", "$text", "$where"];

/// What the server has on a field and this version does not.
const UNSUPPORTED_ON_FIELD: &[&str] = &[
    "$all",
    "$bitsAllClear",
    "$bitsAllSet",
    "$bitsAnyClear",
    "$bitsAnySet",
    "$elemMatch",
    "$geoIntersects",
    "$geoNear",
    "$geoWithin",
    "$maxDistance",
    "$minDistance",
    "$mod",
    "$near",
    "$nearSphere",
    "$options",
    "$regex",
    "$size",
    "$type",
    "$within",
];

pub(super) fn filter(document: &RawDocument) -> Result<Filter> {
    let mut all = Vec::new();
    for (name, value) in elements(document) {
        if let Some(operator) = name.strip_prefix('$') {
            let branches = |value| branches(name, value);
            all.push(match operator {
                "and" => Filter::And(branches(value)?),
                "or" => Filter::Or(branches(value)?),
                "nor" => Filter::Nor(branches(value)?),
                _ if UNSUPPORTED_TOP_LEVEL.contains(&name) => return Err(Error::unsupported(format_args!("query operator {name}"))),
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
            RawBsonRef::Document(branch) => filter(branch),
            _ => Err(Error::bad_value("$or/$and/$nor entries need to be full objects")),
        })
        .collect::<Result<_>>()?;
    if branches.is_empty() {
        return Err(Error::bad_value("$and/$or/$nor must be a nonempty array"));
    }
    Ok(branches)
}

/// A field's value is a document of operators, or else the value that the field must equal.
fn field(path: Path, value: RawBsonRef<'_>, all: &mut Vec<Filter>) -> Result<()> {
    match value {
        RawBsonRef::Document(document) if is_operators(document) => operators(&path, document, all),
        _ => {
            all.push(on_path(&path, Predicate::Eq(operand("$eq", value)?)));
            Ok(())
        }
    }
}

/// Whether the first field names an operator. `$ref`, `$id` and `$db` are the fields of a reference, a value.
fn is_operators(document: &RawDocument) -> bool {
    elements(document).next().is_some_and(|(name, _)| name.starts_with('$') && !matches!(name, "$ref" | "$id" | "$db"))
}

fn operators(path: &Path, document: &RawDocument, all: &mut Vec<Filter>) -> Result<()> {
    for (name, value) in elements(document) {
        let is = |predicate| on_path(path, predicate);
        let not = |predicate| Filter::Not(Box::new(on_path(path, predicate)));
        all.push(match name {
            "$eq" => is(Predicate::Eq(operand(name, value)?)),
            "$ne" => not(Predicate::Eq(operand(name, value)?)),
            "$gt" => is(Predicate::Gt(operand(name, value)?)),
            "$gte" => is(Predicate::Gte(operand(name, value)?)),
            "$lt" => is(Predicate::Lt(operand(name, value)?)),
            "$lte" => is(Predicate::Lte(operand(name, value)?)),
            "$in" => is(Predicate::In(candidates(name, value)?)),
            "$nin" => not(Predicate::In(candidates(name, value)?)),
            "$exists" if truthy(value) => is(Predicate::Exists),
            "$exists" => not(Predicate::Exists),
            "$not" => {
                let RawBsonRef::Document(inner) = value else {
                    return Err(match value {
                        RawBsonRef::RegularExpression(_) => Error::unsupported("a regular expression in a filter"),
                        _ => Error::bad_value("$not needs a regex or a document"),
                    });
                };
                if inner.is_empty() {
                    return Err(Error::bad_value("$not cannot be empty"));
                }
                let mut negated = Vec::new();
                operators(path, inner, &mut negated)?;
                Filter::Not(Box::new(Filter::And(negated)))
            }
            _ if UNSUPPORTED_ON_FIELD.contains(&name) => {
                return Err(Error::unsupported(format_args!("query operator {name}")));
            }
            _ => return Err(Error::bad_value(format!("unknown operator: {name}"))),
        });
    }
    Ok(())
}

fn on_path(path: &Path, predicate: Predicate) -> Filter {
    Filter::Path(PathFilter { path: path.clone(), predicate })
}

fn operand(operator: &str, value: RawBsonRef<'_>) -> Result<bson::RawBson> {
    match value {
        RawBsonRef::Undefined => Err(Error::bad_value("cannot compare to undefined")),
        RawBsonRef::RegularExpression(_) if operator == "$eq" => {
            Err(Error::unsupported("a regular expression in a filter"))
        }
        RawBsonRef::RegularExpression(_) => {
            Err(Error::bad_value(format!("Can't have RegEx as arg to predicate over field with {operator}.")))
        }
        value => Ok(value.into()),
    }
}

fn candidates(operator: &str, value: RawBsonRef<'_>) -> Result<Vec<bson::RawBson>> {
    let RawBsonRef::Array(array) = value else {
        return Err(Error::bad_value(format!("{operator} needs an array, got {}", type_name(value))));
    };
    items(array)
        .map(|item| match item {
            RawBsonRef::RegularExpression(_) => {
                Err(Error::unsupported(format_args!("a regular expression in {operator}")))
            }
            RawBsonRef::Document(document) if is_operators(document) => {
                Err(Error::bad_value(format!("cannot nest $ under {operator}")))
            }
            item => operand("$eq", item),
        })
        .collect()
}
