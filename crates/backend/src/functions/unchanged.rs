//! Arguments that a function returns as they came. JavaScript has one type of number, so the types
//! of BSON's numbers would otherwise be lost.

use bson::{
    Bson, RawBson,
    oid::ObjectId,
    raw::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::elements;

/// The maximum number of arguments that are compared with a result.
const MOST_COMPARED: usize = 16;

/// Returns the argument that a function has returned unchanged, or the result itself.
///
/// They are compared by value: the numbers of a result have other types if they passed through
/// JavaScript.
pub(super) fn keep_types(arguments: &RawArray, result: RawBson) -> RawBson {
    if matches!(result, RawBson::Null | RawBson::Undefined) {
        return result;
    }
    let returned = result.as_raw_bson_ref();
    let arguments = arguments.into_iter().take(MOST_COMPARED).filter_map(Result::ok);
    let unchanged = arguments.into_iter().find(|argument| is_same(*argument, returned)).map(RawBson::from);
    unchanged.unwrap_or(result)
}

/// True if two values are equal, apart from the types of their numbers.
fn is_same(argument: RawBsonRef<'_>, result: RawBsonRef<'_>) -> bool {
    match (argument, result) {
        (RawBsonRef::Document(argument), RawBsonRef::Document(result)) => are_same(argument, result),
        (RawBsonRef::Array(argument), RawBsonRef::Array(result)) => {
            let (mut argument, mut result) = (argument.into_iter(), result.into_iter());
            loop {
                match (argument.next(), result.next()) {
                    (None, None) => return true,
                    (Some(Ok(argument)), Some(Ok(result))) if is_same(argument, result) => {}
                    _ => return false,
                }
            }
        }
        // JavaScript has no type for these two.
        (RawBsonRef::Symbol(argument), RawBsonRef::String(result)) => argument == result,
        (RawBsonRef::DbPointer(_), RawBsonRef::Document(result)) => {
            reference(argument).is_some_and(|argument| are_same(&argument, result))
        }
        (RawBsonRef::JavaScriptCodeWithScope(argument), RawBsonRef::JavaScriptCodeWithScope(result)) => {
            argument.code == result.code && are_same(argument.scope, result.scope)
        }
        (argument, result) => match (number(argument), number(result)) {
            (Some(argument), Some(result)) => argument == result || (argument.is_nan() && result.is_nan()),
            _ => argument == result,
        },
    }
}

fn are_same(argument: &RawDocument, result: &RawDocument) -> bool {
    let (mut argument, mut result) = (elements(argument), elements(result));
    loop {
        match (argument.next(), result.next()) {
            (None, None) => return true,
            (Some((name, argument)), Some((other, result))) if name == other && is_same(argument, result) => {}
            _ => return false,
        }
    }
}

/// Returns a pointer as the reference that JavaScript has instead.
fn reference(pointer: RawBsonRef<'_>) -> Option<RawDocumentBuf> {
    let shown = Bson::try_from(RawBson::from(pointer)).ok()?.into_relaxed_extjson();
    let parts = shown.get("$dbPointer")?;
    let namespace = parts.get("$ref")?.as_str()?;
    let id = ObjectId::parse_str(parts.get("$id")?.get("$oid")?.as_str()?).ok()?;
    // The class splits the namespace at its first dot.
    Some(match namespace.split_once('.') {
        Some((database, collection)) => rawdoc! { "$ref": collection, "$id": id, "$db": database },
        None => rawdoc! { "$ref": namespace, "$id": id },
    })
}

/// Returns a number as JavaScript has it. Larger integers keep their type, and are compared as
/// such.
fn number(value: RawBsonRef<'_>) -> Option<f64> {
    const LARGEST: i64 = 1 << 53;
    match value {
        RawBsonRef::Int32(number) => Some(number.into()),
        RawBsonRef::Int64(number) => (-LARGEST..=LARGEST).contains(&number).then_some(number as f64),
        RawBsonRef::Double(number) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::{Decimal128, JavaScriptCodeWithScope, bson, doc, raw::RawArrayBuf};

    use super::*;

    fn raw(value: Bson) -> RawBson {
        RawBson::try_from(value).unwrap()
    }

    fn returned(argument: Bson, result: Bson) -> RawBson {
        let mut arguments = RawArrayBuf::new();
        arguments.push(raw(bson!("first")));
        arguments.push(raw(argument));
        keep_types(&arguments, raw(result))
    }

    #[test]
    fn an_argument_that_is_returned_unchanged_keeps_the_types_of_its_numbers() {
        for argument in [
            Bson::Int64(5),
            Bson::Double(5.0),
            Bson::Double(-0.0),
            Bson::Double(f64::NAN),
            bson!({ "a": [5_i64, { "b": 5.0 }], "c": "text" }),
        ] {
            let as_int = |value: Bson| match value {
                Bson::Int64(number) => Bson::Int32(i32::try_from(number).unwrap()),
                Bson::Double(5.0) => Bson::Int32(5),
                other => other,
            };
            let result = match argument.clone() {
                Bson::Document(_) => bson!({ "a": [5, { "b": 5 }], "c": "text" }),
                other => as_int(other),
            };
            let kept = returned(argument.clone(), result);
            assert_eq!(format!("{kept:?}"), format!("{:?}", raw(argument)));
        }
    }

    #[test]
    fn types_that_javascript_does_not_have_are_kept() {
        let id = bson::oid::ObjectId::new();
        let pointer: Bson = serde_json::json!({ "$dbPointer": { "$ref": "a.b.c", "$id": { "$oid": id.to_hex() } } })
            .try_into()
            .unwrap();
        let scoped = |scope| Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f".to_owned(), scope });
        for (argument, result) in [
            (Bson::Symbol("x".to_owned()), bson!("x")),
            (bson!({ "a": 5_i64, "b": Bson::Symbol("x".to_owned()) }), bson!({ "a": 5, "b": "x" })),
            (pointer, bson!({ "$ref": "b.c", "$id": id, "$db": "a" })),
            (scoped(doc! { "a": 1_i64 }), scoped(doc! { "a": 1 })),
        ] {
            assert_eq!(returned(argument.clone(), result), raw(argument));
        }
    }

    #[test]
    fn another_result_is_kept() {
        for (argument, result) in [
            (Bson::Int64(5), Bson::Int32(6)),
            (Bson::Int32(5), Bson::Decimal128("5".parse::<Decimal128>().unwrap())),
            (Bson::Int64(i64::MAX), Bson::Double(9_223_372_036_854_775_807.0)),
            (bson!({ "a": 5_i64 }), bson!({ "a": 5, "b": 1 })),
            (bson!([1_i64]), bson!([1, 2])),
            (bson!({ "a": 1_i64 }), bson!({ "b": 1 })),
            (Bson::Null, Bson::Undefined),
            (bson!({}), bson!([])),
            (Bson::Document(doc! { "a": "5" }), bson!({ "a": 5 })),
        ] {
            assert_eq!(returned(argument, result.clone()), raw(result));
        }
    }
}
