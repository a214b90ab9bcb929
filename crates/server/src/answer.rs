//! Answers: canonical Extended JSON, or an error in App Services' form. The clients insist on a content type of exactly
//! `application/json`, and on none where there is no body.

use axum::{
    body::Body,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(Value),
    Created(Value),
    Nothing,
    Error { status: StatusCode, code: Option<&'static str>, message: String },
}

impl Answer {
    pub(crate) fn error(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::Error { status, code: Some(code), message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "BadRequest", message)
    }
}

/// Puts what axum itself refuses, as a path that is not UTF-8, into the form that the clients read.
pub(crate) async fn in_our_form(response: Response) -> Response {
    let is_ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if response.status().is_client_error() && !is_ours {
        let message = "the path or the query of the request cannot be read";
        return Answer::error(response.status(), "BadRequest", message).into_response();
    }
    response
}

impl From<backend::Error> for Answer {
    fn from(error: backend::Error) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // The only failure that is nobody's fault but the moment's has no code of App Services'.
        let code = (status != StatusCode::TOO_MANY_REQUESTS).then(|| error.code.name());
        Self::Error { status, code, message: error.message.into_owned() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, value) = match self {
            Self::Json(value) => (StatusCode::OK, value),
            Self::Created(value) => (StatusCode::CREATED, value),
            Self::Nothing => return StatusCode::NO_CONTENT.into_response(),
            Self::Error { status, code, message } => {
                let mut body = json!({ "error": message });
                if let Some(code) = code {
                    body["error_code"] = code.into();
                }
                (status, body)
            }
        };
        let mut response = Response::new(Body::from(value.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
        response
    }
}
