//! Cross-origin requests of web pages (<https://developer.mozilla.org/docs/Web/HTTP/CORS>).
//!
//! The origins in `allowed_request_origins` of the definition may make requests with credentials.
//! Without such a list, all origins may make requests, without credentials.

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use backend::ErrorCode;

use crate::{answer::Answer, app_state::AppState};

/// The time for which a browser may cache the response to a preflight request, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Handles the request if its origin is allowed, and adds the CORS headers to the response.
/// Rejects other origins with `DomainNotAllowed`.
pub(crate) async fn check(state: &AppState, request: Request, next: Next) -> Response {
    let definition = state.backend.definition();
    let allowed = &definition.allowed_request_origins;
    // A request without an `Origin` header does not come from a page.
    let Some(origin) = request.headers().get(ORIGIN).cloned() else { return next.run(request).await };
    let is_listed = allowed.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
    if !allowed.is_empty() && !is_listed {
        let message = "the origin is not allowed to make requests";
        return Answer::from(backend::Error::new(ErrorCode::DomainNotAllowed, message)).into_response();
    }
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    allow(response.headers_mut(), if is_listed { Some(origin) } else { None }, preflight);
    response
}

/// Adds the CORS headers to a response.
fn allow(headers: &mut HeaderMap, origin: Option<HeaderValue>, preflight: bool) {
    match origin {
        Some(origin) => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            // The response depends on the origin, so caches must store one per origin.
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        None => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
    }
    if preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Accept, Authorization, Content-Type"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Retry-After, X-Request-Id, X-AppServices-Request-Id"),
        );
    }
}
