//! Responses: canonical Extended JSON, or an error in the format of App Services.
//!
//! The clients require the content type to be exactly `application/json`, and absent if there is
//! no body.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use backend::{ErrorCode, ejson};
use protocol::{EVENTS, reply::ErrorBody};
use serde::Serialize;

use crate::pieces::Pieces;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The response to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A JSON body.
    Json(StatusCode, Vec<u8>),
    /// JSON that is sent in pieces. The memory of each piece is released when the client has read
    /// it.
    Large(StatusCode, Pieces),
    /// Status 204 without a body.
    Nothing,
    /// A stream of server-sent events.
    Events(Body),
    /// An error, in the format of App Services.
    Error { status: StatusCode, error: backend::Error },
}

/// Returns the JSON body of an error response. The detail, which is for the operator only, is
/// logged.
pub(crate) fn error_body(error: &backend::Error) -> Vec<u8> {
    if let Some(cause) = &error.detail {
        tracing::error!(%cause, "request failed: the store cannot be used");
    }
    let body = ErrorBody::new(error.code, &error.message, error.server_code);
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The error of a response, for the log and for the link in its body.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) Arc<backend::Error>);

impl Failure {
    /// Returns the body of the response with a link by which the operator finds the log entry.
    pub(crate) fn body(&self, link: &str) -> Vec<u8> {
        let error = &self.0;
        let body = ErrorBody::new(error.code, &error.message, error.server_code).with_link(link);
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl Answer {
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::with_status(StatusCode::OK, value)
    }

    pub(crate) fn created(value: &impl Serialize) -> Self {
        Self::with_status(StatusCode::CREATED, value)
    }

    pub(crate) fn with_status(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::Json(status, body),
            Err(error) => {
                tracing::error!(%error, "response cannot be serialized");
                Self::unexpected()
            }
        }
    }

    pub(crate) fn error(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error { status, error: backend::Error::new(code, message.into()) }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        backend::Error::new(ErrorCode::BadRequest, message.into()).into()
    }

    /// Returns an internal server error, for states that should be impossible.
    pub(crate) fn unexpected() -> Self {
        backend::Error::new(ErrorCode::InternalServerError, "internal server error").into()
    }
}

/// Converts a rejection by axum itself, for example of a path that is not UTF-8, to an error in
/// the format of App Services.
pub(crate) fn in_our_form(response: Response) -> Response {
    let is_ours = response.headers().get(header::CONTENT_TYPE) == Some(&JSON);
    if response.status().is_client_error() && !is_ours {
        let message = "the path or the query of the request cannot be read";
        return Answer::error(response.status(), ErrorCode::BadRequest, message).into_response();
    }
    response
}

impl From<backend::Error> for Answer {
    fn from(error: backend::Error) -> Self {
        let status = error.status.unwrap_or_else(|| error.code.status());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::Error { status, error }
    }
}

impl From<protocol::Error> for Answer {
    fn from(error: protocol::Error) -> Self {
        let status = error.status.unwrap_or_else(|| error.code.status());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::Error { status, error: error.into() }
    }
}

impl From<ejson::Error> for Answer {
    fn from(error: ejson::Error) -> Self {
        backend::Error::from(error).into()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, body, error) = match self {
            Self::Json(status, body) => (status, body, None),
            Self::Large(status, pieces) => {
                let mut response = Response::new(Body::new(pieces));
                *response.status_mut() = status;
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                return response;
            }
            Self::Nothing => return StatusCode::NO_CONTENT.into_response(),
            Self::Events(body) => {
                let headers = [
                    (header::CONTENT_TYPE, EVENTS),
                    (header::CACHE_CONTROL, "no-store"),
                    // Otherwise some proxies buffer events until they have collected many.
                    (HeaderName::from_static("x-accel-buffering"), "no"),
                ];
                return (headers, body).into_response();
            }
            Self::Error { status, error } => (status, error_body(&error), Some(error)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        if let Some(error) = error {
            if let Some(seconds) = error.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            response.extensions_mut().insert(Failure(Arc::new(error)));
        }
        response
    }
}
