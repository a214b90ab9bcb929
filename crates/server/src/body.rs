//! What comes in: bearer tokens and bodies of any flavour of Extended JSON.

use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH},
    },
};
use backend::{
    ErrorCode, Secret,
    ejson::{self, Json},
};
use bson::{RawBson, raw::RawDocumentBuf};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;

/// How slow a body may come, in bytes a second: who is slower only keeps a connection busy.
const SLOWEST: usize = 16 * 1024;

/// The token of the `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Secret, Answer> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        // Without a token after it, as of who is logged out, it is a token that nobody has.
        .and_then(|value| value.strip_prefix("Bearer"));
    token.map(|token| Secret::from(token.trim().to_owned())).ok_or_else(|| {
        backend::Error::new(ErrorCode::MissingAuthReq, "expected Authorization header with JWT (Bearer schema).").into()
    })
}

/// Reads a body. `patience` is how long it may take, beside what its size allows for.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    largest: usize,
    patience: Duration,
) -> Result<Vec<u8>, Answer> {
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > largest) {
        return Err(too_large(largest));
    }
    collect(body, said.unwrap_or(0), largest, patience).await
}

async fn collect(mut body: Body, expected: usize, largest: usize, patience: Duration) -> Result<Vec<u8>, Answer> {
    let begun = Instant::now();
    let mut bytes = Vec::with_capacity(expected.min(64 * 1024));
    loop {
        let deadline = begun + patience + Duration::from_secs((bytes.len() / SLOWEST) as u64);
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(None) => return Ok(bytes),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Answer::bad_request("the body did not arrive whole")),
            Err(_) => {
                let message = "the body took too long to arrive";
                return Err(Answer::error(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, message));
            }
        };
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > largest {
                return Err(too_large(largest));
            }
            bytes.extend_from_slice(data);
        }
    }
}

fn too_large(largest: usize) -> Answer {
    let message = format!("the body is larger than {largest} bytes");
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, message)
}

/// A body as a JSON object; an empty one stands for an empty object.
pub(crate) fn object(body: &[u8]) -> Result<Json<'_>, Answer> {
    if body.is_empty() {
        return Ok(Json::Object(Vec::new()));
    }
    match ejson::read(body)? {
        object @ Json::Object(_) => Ok(object),
        _ => Err(Answer::bad_request("the body must be a JSON object")),
    }
}

/// A field that must be text.
pub(crate) fn text(object: &Json<'_>, key: &str) -> Result<String, Answer> {
    let wrong = |code, message: String| Err(backend::Error::new(code, message).into());
    match object.get(key) {
        Some(Json::Text(text)) => Ok(text.clone().into_owned()),
        Some(_) => wrong(ErrorCode::InvalidParameter, format!("'{key}' must be a string")),
        None => wrong(ErrorCode::MissingParameter, format!("'{key}' is missing")),
    }
}

/// A value of any flavour of Extended JSON as a document.
pub(crate) fn document(value: Json<'_>) -> Result<RawDocumentBuf, Answer> {
    match value.into_bson()? {
        RawBson::Document(document) => Ok(document),
        _ => Err(Answer::bad_request("the argument must be a document")),
    }
}
