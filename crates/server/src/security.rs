//! Checks and sets security headers.
//!
//! Requests with ambiguous framing or an ambiguous target are rejected. Every response carries
//! headers that prevent browsers from interpreting it as anything but data.

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode, Version,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST,
            STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
        },
    },
};
use backend::ErrorCode;

use crate::answer::Answer;

const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// HTTP Strict Transport Security for one year (in seconds).
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Rejects a request that a proxy could interpret differently from this server (request
/// smuggling).
///
/// # Errors
/// Status 415 if the body has a content encoding, and status 400 for other faults.
pub(crate) fn check(request: &Request) -> Result<(), Answer> {
    let headers = request.headers();
    let count = |name: HeaderName| headers.get_all(name).iter().take(2).count();
    if count(AUTHORIZATION) > 1 {
        return Err(Answer::bad_request("there is more than one Authorization header"));
    }
    match count(HOST) {
        // Some load balancers send health checks as HTTP/1.0 without a Host header.
        0 if request.version() < Version::HTTP_11 => {}
        1 => {}
        0 => return Err(Answer::bad_request("there is no Host header")),
        _ => return Err(Answer::bad_request("there is more than one Host header")),
    }
    if let Some(encoding) = headers.get(TRANSFER_ENCODING) {
        let is_chunked = count(TRANSFER_ENCODING) == 1 && encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || headers.contains_key(CONTENT_LENGTH) {
            return Err(Answer::bad_request("Transfer-Encoding must be 'chunked', without a Content-Length"));
        }
    }
    let is_identity = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        let message = "the body must not be encoded: Content-Encoding is not supported";
        return Err(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, message));
    }
    Ok(())
}

/// True if the responses at this path contain tokens or user data, so that no cache may store
/// them.
pub(crate) fn is_private(path: &str) -> bool {
    path.contains("/auth/")
}

/// Adds the security headers to a response. `speaks_tls` is true if the server itself terminates
/// TLS.
pub(crate) fn protect(headers: &mut HeaderMap, is_private: bool, speaks_tls: bool) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    headers.insert(CONTENT_SECURITY_POLICY, NOTHING);
    if is_private {
        headers.insert(CACHE_CONTROL, NO_STORE);
    }
    if speaks_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
}
