//! Compares replies with the expectations of vectors.

use bson::{Bson, Document};

use crate::commands::Answer;

/// Compares a reply with the expectation of a vector.
pub fn check(check: &Document, answer: &Answer, portable: bool) -> Result<(), String> {
    let kind = check.get_str("kind").unwrap_or_default();
    let code = integer(check.get("expected_code")).or_else(|| integer(check.get("error_code")));
    if kind == "assertExceptionType" {
        // The driver that recorded the vector did not send the command.
        return Ok(());
    }
    let write_error =
        answer.as_ref().ok().and_then(|reply| reply.get_array("writeErrors").ok()?.first()?.as_document());
    if let (Some(code), Some(error)) = (code, write_error) {
        let got = integer(error.get("code"));
        return if got == Some(code) { Ok(()) } else { Err(format!("expected code {code}, got {error}")) };
    }
    if let Some(code) = code {
        return match answer {
            Err(error) if i64::from(error.code) == code => Ok(()),
            Err(error) => Err(format!("expected code {code}, got {} ({})", error.code, error.message)),
            Ok(reply) => Err(format!("expected code {code}, got {reply}")),
        };
    }
    let reply = answer.as_ref().map_err(|error| format!("failed with {}: {}", error.code, error.message))?;
    if !portable || kind == "assertNotError" {
        return Ok(());
    }
    let in_any_order = check.get_bool("ignore_doc_order").unwrap_or(false);
    match check.get("expected") {
        Some(Bson::Array(expected)) => {
            let documents = reply
                .get_document("cursor")
                .ok()
                .and_then(|cursor| cursor.get_array("firstBatch").ok())
                .or_else(|| reply.get_array("values").ok())
                .ok_or_else(|| format!("expected documents, got {reply}"))?;
            same_list(expected, documents, in_any_order)
        }
        Some(Bson::Document(expected)) => {
            let expected = Bson::Document(expected.clone());
            if is_part(&expected, &Bson::Document(reply.clone())) {
                Ok(())
            } else {
                Err(format!("expected {expected}\n         got {reply}"))
            }
        }
        Some(Bson::Null) | None => Ok(()),
        Some(other) => Err(format!("an expectation that is not understood: {other}")),
    }
}

fn same_list(expected: &[Bson], got: &[Bson], in_any_order: bool) -> Result<(), String> {
    let failed = || Err(format!("expected {}\n         got {}", Bson::Array(expected.into()), Bson::Array(got.into())));
    if expected.len() != got.len() {
        return failed();
    }
    if !in_any_order {
        return if expected.iter().zip(got).all(|(one, other)| same(one, other)) { Ok(()) } else { failed() };
    }
    let mut left: Vec<&Bson> = got.iter().collect();
    for one in expected {
        match left.iter().position(|other| same(one, other)) {
            Some(place) => drop(left.remove(place)),
            None => return failed(),
        }
    }
    Ok(())
}

/// True if a reply contains the expected value, and perhaps more.
fn is_part(expected: &Bson, got: &Bson) -> bool {
    match (expected, got) {
        (Bson::Document(expected), Bson::Document(got)) => {
            expected.iter().all(|(key, value)| got.get(key).is_some_and(|got| is_part(value, got)))
        }
        (Bson::Array(expected), Bson::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(expected, got)| is_part(expected, got))
        }
        (expected, got) => same(expected, got),
    }
}

/// True if two values are equal by the rules of those who recorded the vectors: neither the order
/// of fields nor the binary number type matters.
pub fn same(one: &Bson, other: &Bson) -> bool {
    match (one, other) {
        (Bson::Document(one), Bson::Document(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (Bson::Array(one), Bson::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Bson::Double(one), Bson::Double(other)) => one == other || (one.is_nan() && other.is_nan()),
        (Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_), Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_)) => {
            match (integer(Some(one)), integer(Some(other))) {
                (Some(one), Some(other)) => one == other,
                _ => false,
            }
        }
        (Bson::Decimal128(one), Bson::Decimal128(other)) => one.to_string() == other.to_string(),
        _ => one == other,
    }
}

/// Returns a number if it is integral.
pub fn integer(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9e18 => Some(*number as i64),
        _ => None,
    }
}
