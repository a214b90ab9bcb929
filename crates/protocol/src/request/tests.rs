#![allow(clippy::panic, clippy::unwrap_used)]

use bson::{
    Bson, Document,
    raw::{RawArrayBuf, RawDocumentBuf},
};
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{BodyKind, TokenKind, provider as providers};

const LARGEST: usize = 1024 * 1024;

fn secret() -> impl Strategy<Value = Secret> {
    "[a-zA-Z0-9._-]{1,40}".prop_map(Secret::from)
}

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        Just(Bson::Null),
        Just(Bson::Undefined),
        any::<bool>().prop_map(Bson::Boolean),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>().prop_filter("NaN is not equal to itself", |number| !number.is_nan()).prop_map(Bson::Double),
        ".{0,20}".prop_map(Bson::String),
        any::<i64>().prop_map(|time| Bson::DateTime(bson::DateTime::from_millis(time))),
        any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(bson::oid::ObjectId::from_bytes(id))),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Bson::Array),
            vec(("[a-z]{1,6}", inner), 0..4).prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

fn document() -> impl Strategy<Value = RawDocumentBuf> {
    // The protocol itself adds `options` and `provider` to a payload.
    let name = "[a-z]{1,6}|[a-zA-Z ü]{9,12}";
    vec((name, value()), 0..5)
        .prop_map(|fields| RawDocumentBuf::try_from(fields.into_iter().collect::<Document>()).unwrap())
}

fn credentials() -> impl Strategy<Value = Credentials> {
    let provider = prop_oneof![
        Just(providers::ANONYMOUS.to_owned()),
        Just(providers::EMAIL_PASSWORD.to_owned()),
        Just(providers::CUSTOM_FUNCTION.to_owned()),
        "[a-z0-9-]{1,20}",
    ];
    (provider, document()).prop_map(|(provider, payload)| Credentials { provider, payload: payload.into() })
}

fn arguments() -> impl Strategy<Value = Arguments> {
    prop_oneof![
        ("[a-z-]{1,20}", document()).prop_map(|(service, argument)| Arguments::Service { service, argument }),
        vec(value(), 0..4).prop_map(|items| {
            let items = items.into_iter().map(|item| RawBson::try_from(item).unwrap());
            Arguments::Function(items.collect::<RawArrayBuf>())
        }),
    ]
}

fn api_key_action() -> impl Strategy<Value = ApiKeyAction> {
    let id = "[0-9a-f]{24}";
    prop_oneof![
        ".{0,20}".prop_map(|name| ApiKeyAction::Create { name }),
        Just(ApiKeyAction::FetchAll),
        id.prop_map(|id| ApiKeyAction::Fetch { id }),
        id.prop_map(|id| ApiKeyAction::Delete { id }),
        id.prop_map(|id| ApiKeyAction::Enable { id }),
        id.prop_map(|id| ApiKeyAction::Disable { id }),
    ]
}

fn push_action() -> impl Strategy<Value = PushAction> {
    prop_oneof![
        secret().prop_map(|registration_token| PushAction::Register { registration_token }),
        Just(PushAction::Deregister),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    proptest::sample::select(Action::all().collect::<Vec<_>>())
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (credentials(), option::of("[0-9a-f]{24}")).prop_map(|(credentials, device_id)| LogIn {
            credentials,
            device_id
        }
        .into()),
        (secret(), credentials()).prop_map(|(access_token, credentials)| Link { access_token, credentials }.into()),
        secret().prop_map(|access_token| ReadProfile { access_token }.into()),
        secret().prop_map(|refresh_token| RefreshSession { refresh_token }.into()),
        secret().prop_map(|refresh_token| EndSession { refresh_token }.into()),
        secret().prop_map(|access_token| DeleteUser { access_token }.into()),
        (action(), document()).prop_map(|(action, payload)| ProviderAction::email_password(action, payload).into()),
        (secret(), api_key_action()).prop_map(|(refresh_token, action)| ApiKeys { refresh_token, action }.into()),
        (secret(), "[a-zA-Z0-9/_]{1,20}", arguments()).prop_map(|(access_token, name, arguments)| CallFunction {
            access_token,
            name,
            arguments
        }
        .into()),
        (secret(), "[a-z ü/]{1,20}", push_action()).prop_map(|(access_token, service, action)| Push {
            access_token,
            service,
            action
        }
        .into()),
    ]
}

/// Decodes an encoded request in the way of an HTTP server, by method and path.
fn received(request: &HttpRequest) -> Result<Request> {
    let path = format!("{}{}", crate::API, request.endpoint.path());
    let pattern: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    assert_eq!(pattern.len(), request.segments.len(), "{request:?}");
    let parameter = |name: &str| {
        let place = pattern.iter().position(|segment| *segment == format!("{{{name}}}"))?;
        Some(request.segments[place].as_str())
    };
    Request::decode(&Received {
        endpoint: request.endpoint,
        parameter: &parameter,
        links: request.query == Some("link=true"),
        token: request.token.clone(),
        body: request.body.as_deref().unwrap_or_default(),
        largest: LARGEST,
    })
}

proptest! {
    #[test]
    fn a_decoded_request_is_the_one_that_was_encoded(request in request()) {
        let encoded = request.encode("my-app").unwrap();
        prop_assert_eq!(encoded.body.is_some(), encoded.endpoint.body() != BodyKind::None);
        let has_token = match encoded.endpoint.token() {
            TokenKind::None => false,
            TokenKind::Linking => encoded.query.is_some(),
            TokenKind::Access | TokenKind::Refresh => true,
        };
        prop_assert_eq!(encoded.token.is_some(), has_token);
        prop_assert_eq!(received(&encoded).unwrap(), request);
    }

    #[test]
    fn decodes_or_rejects_any_body(body in vec(any::<u8>(), 0..200), index in 0..Endpoint::ALL.len()) {
        let received = Received {
            endpoint: Endpoint::ALL[index],
            parameter: &|_| Some("x"),
            links: false,
            token: Some("x".to_owned().into()),
            body: &body,
            largest: LARGEST,
        };
        let _ = Request::decode(&received);
    }
}

fn refusal(endpoint: Endpoint, token: Option<&str>, links: bool, body: &str) -> (ErrorCode, String) {
    let token = token.map(|token| Secret::from(token.to_owned()));
    let body = body.as_bytes();
    let received = Received { endpoint, parameter: &|_| Some("x"), links, token, body, largest: 100 };
    let error = Request::decode(&received).unwrap_err();
    (error.code, error.message.into_owned())
}

#[test]
fn names_the_missing_part_of_a_request() {
    let call = |body| refusal(Endpoint::CallFunction, Some("t"), false, body);
    assert_eq!(call("{}"), (ErrorCode::MissingParameter, "'name' is missing".into()));
    assert_eq!(call("[]"), (ErrorCode::BadRequest, "the body must be a JSON object".into()));
    assert_eq!(call(r#"{"name":7}"#), (ErrorCode::InvalidParameter, "'name' must be a string".into()));
    let one = "a function of a data source takes one argument";
    assert_eq!(call(r#"{"name":"find","service":"s","arguments":[]}"#), (ErrorCode::BadRequest, one.into()));
    let large = format!(r#"{{"name":"f","arguments":["{}"]}}"#, "x".repeat(200));
    assert_eq!(call(&large).1, "the arguments have more than 100 bytes as BSON");
    assert_eq!(refusal(Endpoint::CallFunction, None, false, "{}").0, ErrorCode::MissingAuthReq);
    // Not 401, after which realm-web would refresh its token and retry forever.
    let linking = "linking needs a logged-in user";
    assert_eq!(refusal(Endpoint::LogIn, None, true, "{}"), (ErrorCode::BadRequest, linking.into()));
}

#[test]
fn reads_log_ins_as_both_clients_send_them() {
    let log_in = |provider: &'static str, body: &str| {
        let parameter = move |name: &str| (name == "provider").then_some(provider);
        let body = body.as_bytes();
        let endpoint = Endpoint::LogIn;
        let received = Received { endpoint, parameter: &parameter, links: false, token: None, body, largest: LARGEST };
        match Request::decode(&received).unwrap() {
            Request::LogIn(log_in) => log_in,
            other => panic!("{other:?}"),
        }
    };
    let of_web = log_in("anon-user", r#"{"options":{"device":{"deviceId":{"$oid":"63c1b2a1f0e1d2c3b4a59687"}}}}"#);
    assert_eq!(of_web.credentials, Credentials::anonymous());
    assert_eq!(of_web.device_id.as_deref(), Some("63c1b2a1f0e1d2c3b4a59687"));
    let of_core = log_in("local-userpass", r#"{"provider":"local-userpass","username":"a","password":"b"}"#);
    assert_eq!(of_core.credentials, Credentials::email_password("a", "b"));
    assert_eq!(of_core.credentials.payload.text("username"), Ok("a"));
    // A custom function's payload may have a field of this name.
    let custom = log_in("custom-function", r#"{"provider":"mine","n":{"$numberInt":"1"},"options":{}}"#);
    let expected = bson::rawdoc! { "provider": "mine", "n": 1 };
    assert_eq!(custom.credentials.payload, SecretDocument::from(expected));
}

#[test]
fn shows_no_secret() {
    let credentials = Credentials::email_password("ada@example.com", "passw0rd");
    let log_in = Request::from(LogIn { credentials, device_id: None });
    let reset = ProviderAction::email_password(Action::Reset, bson::rawdoc! { "password": "passw0rd" });
    let encoded = log_in.encode("my-app").unwrap();
    for shown in [format!("{log_in:?}"), format!("{reset:?}"), format!("{encoded:?}")] {
        assert!(!shown.contains("passw0rd") && !shown.contains("ada@"), "{shown}");
    }
}
