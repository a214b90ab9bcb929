//! What comes in: bearer tokens and bodies of any flavour of Extended JSON.

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use backend::Secret;
use bson::{Bson, Document};
use serde_json::Value;

use crate::answer::Answer;

/// The token of the `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Secret, Answer> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    token.map(|token| Secret::from(token.trim().to_owned())).ok_or_else(|| {
        Answer::error(
            StatusCode::UNAUTHORIZED,
            "MissingAuthReq",
            "expected Authorization header with JWT (Bearer schema).",
        )
    })
}

/// A body that is a JSON object; an empty one stands for an empty object.
pub(crate) fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Answer> {
    if body.is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Answer::bad_request("the body must be a JSON object")),
        // The position tells enough, and nothing of what the body holds.
        Err(error) => {
            Err(Answer::bad_request(format!("the body is not JSON: line {}, column {}", error.line(), error.column())))
        }
    }
}

/// A field that must be text.
pub(crate) fn text(object: &serde_json::Map<String, Value>, key: &str) -> Result<String, Answer> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Answer::error(StatusCode::BAD_REQUEST, "InvalidParameter", format!("'{key}' must be a string"))),
        None => Err(Answer::error(StatusCode::BAD_REQUEST, "MissingParameter", format!("'{key}' is missing"))),
    }
}

/// A value of any flavour of Extended JSON as a document.
pub(crate) fn document(value: Value) -> Result<Document, Answer> {
    match Bson::try_from(value) {
        Ok(Bson::Document(document)) => Ok(document),
        Ok(_) => Err(Answer::bad_request("the argument must be a document")),
        Err(_) => Err(Answer::bad_request("the argument is not valid Extended JSON")),
    }
}
