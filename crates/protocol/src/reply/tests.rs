#![allow(clippy::panic, clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::{
    ErrorCode, Request, Response, Secret,
    request::{ApiKeyAction, ApiKeys, Credentials, LogIn, ReadProfile, RefreshSession},
    response::{AccessGrant, ApiKey, Identity, Profile, Session},
};

/// A token with the claims that a client reads: `{"exp":2,"iat":1}`.
const TOKEN: &str = "e30.eyJleHAiOjIsImlhdCI6MX0.c2ln";

fn read(request: impl Into<Request>, body: &impl serde::Serialize) -> Result<Response, Unreadable> {
    let body = serde_json::to_vec(body).unwrap();
    request.into().read_reply(&Reply { status: 200, is_json: true, body: &body })
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

#[test]
fn reads_what_the_server_writes() {
    let custom_data = Some(Arc::new(bson::rawdoc! { "color": "blue", "n": 1_i64 }));
    let access = AccessGrant { access_token: secret(TOKEN), custom_data };
    let session =
        Session { access: access.clone(), refresh_token: secret(TOKEN), user_id: "u".into(), device_id: "d".into() };
    let log_in = LogIn { credentials: Credentials::anonymous(), device_id: None };
    let body = TokensBody::of_session(session.clone(), true);
    assert_eq!(read(log_in, &body), Ok(Response::Session(session)));
    let refresh = RefreshSession { refresh_token: secret("r") };
    let body = TokensBody::of_access(access.clone(), true);
    assert_eq!(read(refresh.clone(), &body), Ok(Response::AccessGrant(access.clone())));
    // The custom data is next to the token only if the client asked for it.
    let alone = TokensBody::of_access(access.clone(), false);
    let without = AccessGrant { custom_data: None, ..access };
    assert_eq!(read(refresh, &alone), Ok(Response::AccessGrant(without)));

    let identities = vec![Identity { id: "i".into(), provider_type: "anon-user".into() }];
    let data = bson::rawdoc! { "email": "a@example.com" };
    let profile = Profile { user_id: "u".into(), kind: "normal".into(), identities, data };
    let request = ReadProfile { access_token: secret("a") };
    assert_eq!(read(request, &ProfileBody::from(&profile)), Ok(Response::Profile(profile)));

    let keys = vec![
        ApiKey { id: "1".into(), key: Some(secret("k")), name: "one".into(), disabled: false },
        ApiKey { id: "2".into(), key: None, name: "two".into(), disabled: true },
    ];
    let ask = |action| ApiKeys { refresh_token: secret("r"), action };
    let all = read(ask(ApiKeyAction::FetchAll), &api_keys_body(&keys, true));
    assert_eq!(all, Ok(Response::ApiKeys(keys.clone())));
    let one = read(ask(ApiKeyAction::Create { name: "one".into() }), &api_keys_body(&keys[..1], false));
    assert_eq!(one, Ok(Response::ApiKeys(keys[..1].to_vec())));
}

#[test]
fn reads_errors_with_the_codes_of_the_sdk() {
    let fail = |is_json, body: &str| Reply { status: 404, is_json, body: body.as_bytes() }.failure();
    let written = serde_json::to_string(&ErrorBody::new(ErrorCode::UserNotFound, "user not found", Some(7))).unwrap();
    let failure = fail(true, &written);
    assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::UserNotFound, "user not found"));
    assert_eq!(failure.server_code, Some(7));
    assert_eq!(fail(true, r#"{"error":"x","error_code":"Strange"}"#).code, ErrorCode::AppServerError);
    assert_eq!(fail(true, r#"{"error":"x","link":"l"}"#).link.as_deref(), Some("l"));
    assert_eq!(fail(true, r#"{"error":"x"}"#).code, ErrorCode::AppUnknownError);
    let html = fail(false, "<html>");
    let message = "http error code considered fatal: <html>. Client Error: 404";
    assert_eq!((html.code, html.message.as_str()), (ErrorCode::HTTPError, message));
}

#[test]
fn reads_errors_of_streams() {
    let gone = Failure::of_event(r#"{"error_code":"InvalidSession","error":"gone"}"#);
    assert_eq!((gone.code, gone.message.as_str()), (ErrorCode::InvalidSession, "gone"));
    let odd = Failure::of_event(r#"{"error_code":"Strange","error":"odd"}"#);
    assert_eq!((odd.code, odd.message.as_str()), (ErrorCode::AppUnknownError, "odd"));
    let text = Failure::of_event("not JSON");
    assert_eq!((text.code, text.message.as_str()), (ErrorCode::AppUnknownError, "not JSON"));
}

#[test]
fn rejects_responses_without_fields_that_the_sdk_needs() {
    let log_in = || LogIn { credentials: Credentials::anonymous(), device_id: None };
    let tokens = serde_json::json!({ "refresh_token": TOKEN, "user_id": "u", "device_id": "d" });
    assert_eq!(read(log_in(), &tokens), Err(Unreadable::MissingKey("access_token")));
    let tokens = serde_json::json!({ "refresh_token": "x", "user_id": "u", "device_id": "d", "access_token": TOKEN });
    let malformed = "Could not log in user: received malformed JWT";
    assert_eq!(read(log_in(), &tokens), Err(Unreadable::BadToken(malformed)));
    assert!(matches!(read(log_in(), &serde_json::json!([])), Err(Unreadable::Malformed(_))));
}
