//! Object functions.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocumentBuf},
};

use super::{
    Value, array_or_null,
    call::{Operands, operand},
    is_nullish, null, type_of,
};
use crate::{
    Error, Result, budget,
    document::{elements, get, items},
    names::Names,
};

/// Creates a document. Fields keep the order of their first occurrence and get their last value.
fn document(fields: Vec<(String, RawBson)>) -> Result<Value> {
    let mut merged: Names<RawBson> = Names::default();
    for (name, value) in fields {
        budget::charge(1)?;
        *merged.get_or_insert_with(&name, || RawBson::Null) = value;
    }
    let mut document = RawDocumentBuf::new();
    merged.iter().for_each(|(name, value)| crate::append(&mut document, name, value));
    Ok(Some(RawBson::Document(document)))
}

pub(super) fn merge(operands: Operands<'_>) -> Result<Value> {
    let mut fields = Vec::new();
    let mut add = |value: &RawBson| match value {
        RawBson::Document(document) => {
            fields.extend(elements(document).map(|(name, value)| (name.to_owned(), value.into())));
            Ok(())
        }
        RawBson::Null | RawBson::Undefined => Ok(()),
        other => {
            let found = crate::type_name(other.as_raw_bson_ref());
            Err(Error::location(40400, format!("$mergeObjects requires object inputs, but input is of type {found}")))
        }
    };
    match operands {
        // A single array stands for its items.
        [Some(Some(RawBson::Array(array)))] => items(array).try_for_each(|item| add(&item.into()))?,
        _ => operands.iter().flatten().flatten().try_for_each(add)?,
    }
    document(fields)
}

pub(super) fn to_array(operands: Operands<'_>) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::Document(document)) => {
            let mut pairs = RawArrayBuf::new();
            for (name, value) in elements(document) {
                budget::charge(1)?;
                let mut pair = RawDocumentBuf::new();
                crate::append(&mut pair, "k", name);
                crate::append(&mut pair, "v", value);
                pairs.push(pair);
            }
            Ok(Some(RawBson::Array(pairs)))
        }
        value if is_nullish(value) => null(),
        other => {
            let message = format!("$objectToArray requires a document input, found: {}", type_of(other));
            Err(Error::location(40390, message))
        }
    }
}

pub(super) fn from_array(operands: Operands<'_>) -> Result<Value> {
    let message = "$arrayToObject requires an array input, found:";
    let Some(pairs) = array_or_null(operand(operands, 0).clone(), 40386, message)? else { return null() };
    let mut fields: Vec<(String, RawBson)> = Vec::new();
    let mut in_pairs = None;
    for item in items(&pairs) {
        budget::charge(1)?;
        let is_pair = item.as_array().is_some();
        if item.as_array().is_none() && item.as_document().is_none() {
            let code = match in_pairs {
                None => 40398,
                Some(true) => 40396,
                Some(false) => 40391,
            };
            return Err(Error::location(code, "$arrayToObject requires pairs or objects with k and v"));
        }
        if in_pairs.is_some_and(|in_pairs| in_pairs != is_pair) {
            let code = if is_pair { 40391 } else { 40396 };
            return Err(Error::location(code, "$arrayToObject requires a consistent input format"));
        }
        in_pairs = Some(is_pair);
        let (key, value) = match (item.as_array(), item.as_document()) {
            (Some(pair), _) => match items(pair).collect::<Vec<_>>()[..] {
                [key, value] => (key, value),
                _ => {
                    return Err(Error::location(40397, "$arrayToObject requires an array of size 2 arrays"));
                }
            },
            (None, Some(pair)) => {
                if elements(pair).count() != 2 {
                    return Err(Error::location(40392, "$arrayToObject requires an object keys of 'k' and 'v'"));
                }
                match (get(pair, "k"), get(pair, "v")) {
                    (Some(key), Some(value)) => (key, value),
                    _ => return Err(Error::location(40393, "$arrayToObject requires an object with keys 'k' and 'v'")),
                }
            }
            (None, None) => continue,
        };
        let bson::raw::RawBsonRef::String(key) = key else {
            let code = if is_pair { 40395 } else { 40394 };
            return Err(Error::location(code, "$arrayToObject requires keys that are strings"));
        };
        if key.contains('\0') {
            let code = if is_pair { 4_940_400 } else { 4_940_401 };
            return Err(Error::location(code, "Key field cannot contain an embedded null byte"));
        }
        fields.push((key.to_owned(), value.into()));
    }
    document(fields)
}

pub(super) fn size(operands: Operands<'_>) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::Document(document)) => Ok(Some(RawBson::Int32(document.as_bytes().len() as i32))),
        value if is_nullish(value) => null(),
        other => Err(Error::location(31393, format!("$bsonSize requires a document input, found: {}", type_of(other)))),
    }
}
