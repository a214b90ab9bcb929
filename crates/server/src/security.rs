//! Headers: requests whose framing or target could be read in two ways are refused, and every answer says that browsers are to take it
//! as data and nothing else.

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

/// A year, in seconds.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Refuses a request that a proxy, or a server behind it, could read in another way.
///
/// # Errors
/// With 415 for a body that is encoded, and with 400 otherwise.
pub(crate) fn check(request: &Request) -> Result<(), Answer> {
    let headers = request.headers();
    let count = |name: HeaderName| headers.get_all(name).iter().take(2).count();
    if count(AUTHORIZATION) > 1 {
        return Err(Answer::bad_request("there is more than one Authorization header"));
    }
    match count(HOST) {
        // Load balancers check the health of a server in this way.
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

/// True for requests whose answers carry tokens or users, which no cache may keep.
pub(crate) fn is_private(path: &str) -> bool {
    path.contains("/auth/")
}

/// Adds what every answer has.
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
