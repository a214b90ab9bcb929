//! The HTTP form of requests and responses, as in the App Services client API.

use std::sync::Arc;

use backend::{
    ErrorCode, Request, Response, Secret,
    ejson::{self, Json},
    request::{AccessGrant, CallFunction, Credentials, EmailPasswordRequest, Identity, LogIn, Profile, Session},
};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocumentBuf},
};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{API, parse_url};
use crate::{Error, Result};

pub(super) const JSON: &str = "application/json";
pub(super) const EVENTS: &str = "text/event-stream";

/// The header that requests the custom data, of any size, in the response instead of in the token.
pub(super) const CUSTOM_DATA_HEADER: &str = "userkeep-custom-data";
pub(super) const CUSTOM_DATA_BESIDE: &str = "beside-token";

/// The number of characters of a response that is not JSON in an error message.
const SHOWN: usize = 2000;

/// A request in its HTTP form.
pub(super) struct Call {
    pub(super) method: Method,
    app_id: Option<String>,
    path: Vec<String>,
    pub(super) query: Option<&'static str>,
    pub(super) token: Option<Secret>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) expects: Expected,
}

/// The expected kind of response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Nothing,
    Session,
    AccessGrant,
    Profile,
    Value,
}

/// A response in its HTTP form.
pub(super) struct HttpReply {
    pub(super) status: u16,
    pub(super) is_json: bool,
    pub(super) retry_after: Option<u64>,
    pub(super) body: bytes::Bytes,
}

pub(super) fn location(app_id: &str) -> Vec<&str> {
    [&API[..], &["app", app_id, "location"]].concat()
}

pub(super) fn read_location(answer: &HttpReply) -> Result<Url> {
    let location = answer.object()?;
    let hostname = text(&location, "hostname")?;
    text(&location, "ws_hostname")?;
    parse_url(hostname).ok_or_else(|| Error::malformed_json(format!("the backend's hostname is not a URL: {hostname}")))
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    arguments: Vec<ejson::Canonical<'a>>,
}

fn written(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| Error::custom(format!("the request cannot be written: {error}")))
}

impl Call {
    pub(super) fn new(app_id: &str, request: Request) -> Result<Self> {
        let get = |path: &[&str], token| Self::of(Method::GET, None, path, Some(token));
        let call = match request {
            Request::LogIn(LogIn { credentials, device_id }) => {
                let device =
                    json!({ "sdk": "userkeep", "sdkVersion": env!("CARGO_PKG_VERSION"), "deviceId": device_id });
                let (provider, mut body) = log_in(credentials);
                body["options"] = json!({ "device": device });
                Self::of(Method::POST, Some(app_id), &["auth", "providers", &provider, "login"], None)
                    .with(&body)?
                    .expecting(Expected::Session)
            }
            // The identity to link will be sent when linking is supported.
            Request::Link { access_token } => {
                let path = ["auth", "providers", "anon-user", "login"];
                let call = Self::of(Method::POST, Some(app_id), &path, Some(access_token)).with(&json!({}))?;
                Self { query: Some("link=true"), ..call }
            }
            Request::Profile { access_token } => get(&["auth", "profile"], access_token).expecting(Expected::Profile),
            Request::RefreshSession { refresh_token } => {
                Self::of(Method::POST, None, &["auth", "session"], Some(refresh_token)).expecting(Expected::AccessGrant)
            }
            Request::EndSession { refresh_token } => {
                Self::of(Method::DELETE, None, &["auth", "session"], Some(refresh_token))
            }
            Request::DeleteUser { access_token } => {
                Self::of(Method::DELETE, None, &["auth", "delete"], Some(access_token))
            }
            Request::EmailPassword(request) => {
                let (action, body) = email_password(request)?;
                let path = [&["auth", "providers", "local-userpass"], action].concat();
                Self::of(Method::POST, Some(app_id), &path, None).with(&body)?
            }
            Request::ApiKeys { refresh_token } => get(&["auth", "api_keys"], refresh_token),
            Request::CallFunction(CallFunction { access_token, service, name, arguments }) => {
                let damaged = |error: bson::error::Error| Error::custom(format!("the arguments are not BSON: {error}"));
                let arguments = match service {
                    Some(_) => vec![ejson::Canonical(RawBsonRef::Document(&arguments))],
                    None => {
                        let items =
                            arguments.get_array("arguments").map_err(|error| Error::custom(error.to_string()))?;
                        items
                            .into_iter()
                            .map(|item| item.map(ejson::Canonical))
                            .collect::<Result<_, _>>()
                            .map_err(damaged)?
                    }
                };
                let body = FunctionCall { name: &name, service: service.as_deref(), arguments };
                Self::of(Method::POST, Some(app_id), &["functions", "call"], Some(access_token))
                    .with(&body)?
                    .expecting(Expected::Value)
            }
            Request::Push { access_token, service } => {
                let path = ["push", "providers", &service, "registration"];
                Self::of(Method::PUT, Some(app_id), &path, Some(access_token)).with(&json!({}))?
            }
        };
        Ok(call)
    }

    fn of(method: Method, app_id: Option<&str>, path: &[&str], token: Option<Secret>) -> Self {
        Self {
            method,
            app_id: app_id.map(str::to_owned),
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            query: None,
            token,
            body: None,
            expects: Expected::Nothing,
        }
    }

    fn with(self, body: &impl Serialize) -> Result<Self> {
        Ok(Self { body: Some(written(body)?), ..self })
    }

    fn expecting(self, expects: Expected) -> Self {
        Self { expects, ..self }
    }

    /// Returns the segments of the path, unescaped.
    pub(super) fn segments(&self) -> Vec<&str> {
        let app = self.app_id.iter().flat_map(|id| ["app", id.as_str()]);
        API.into_iter().chain(app).chain(self.path.iter().map(String::as_str)).collect()
    }
}

fn log_in(credentials: Credentials) -> (String, Value) {
    let (provider, mut body) = match credentials {
        Credentials::Anonymous => ("anon-user".to_owned(), json!({})),
        Credentials::EmailPassword { email, password } => {
            ("local-userpass".to_owned(), json!({ "username": email, "password": password.expose() }))
        }
        Credentials::Other(provider) => (provider, json!({})),
    };
    body["provider"] = provider.as_str().into();
    (provider, body)
}

fn email_password(request: EmailPasswordRequest) -> Result<(&'static [&'static str], Value)> {
    Ok(match request {
        EmailPasswordRequest::Register { email, password } => {
            (&["register"], json!({ "email": email, "password": password.expose() }))
        }
        EmailPasswordRequest::Confirm => (&["confirm"], json!({})),
        EmailPasswordRequest::ResendConfirmation { email } => (&["confirm", "send"], json!({ "email": email })),
        EmailPasswordRequest::RetryCustomConfirmation { email } => (&["confirm", "call"], json!({ "email": email })),
        EmailPasswordRequest::Reset => (&["reset"], json!({})),
        EmailPasswordRequest::SendReset { email } => (&["reset", "send"], json!({ "email": email })),
        EmailPasswordRequest::CallResetFunction { email } => (&["reset", "call"], json!({ "email": email })),
        _ => return Err(Error::custom("the request is not supported over HTTP")),
    })
}

impl Expected {
    pub(super) fn carries_custom_data(self) -> bool {
        matches!(self, Self::Session | Self::AccessGrant)
    }

    /// Parses a response of the expected kind.
    ///
    /// # Errors
    /// The error in the response, or an error if it does not have the expected form.
    pub(super) fn read(self, answer: &HttpReply) -> Result<Response> {
        if !(200..300).contains(&answer.status) {
            return Err(answer.to_error());
        }
        match self {
            Self::Nothing => Ok(Response::Done),
            Self::Value if answer.body.is_empty() => Ok(Response::Value(RawBson::Null)),
            Self::Value => read_ejson(answer.json()?).map(Response::Value),
            Self::AccessGrant => read_access(&mut answer.object()?, "malformed JWT").map(Response::AccessGrant),
            Self::Session => {
                let mut object = answer.object()?;
                let refresh_token = token(&object, "refresh_token", BAD_LOG_IN)?;
                let user_id = text(&object, "user_id")?.to_owned();
                let device_id = text(&object, "device_id")?.to_owned();
                let access = read_access(&mut object, BAD_LOG_IN)?;
                Ok(Response::Session(Session { access, refresh_token, user_id, device_id }))
            }
            Self::Profile => read_profile(answer.object()?).map(Response::Profile),
        }
    }
}

const BAD_LOG_IN: &str = "Could not log in user: received malformed JWT";

impl HttpReply {
    fn json(&self) -> Result<Json<'_>> {
        ejson::read_stored(&self.body).map_err(|error| Error {
            status: Some(self.status),
            ..Error::malformed_json(format!("the backend's response cannot be parsed: {error}"))
        })
    }

    fn object(&self) -> Result<Json<'_>> {
        if !(200..300).contains(&self.status) {
            return Err(self.to_error());
        }
        match self.json()? {
            object @ Json::Object(_) => Ok(object),
            _ => Err(Error::malformed_json("the backend's response is not a JSON object")),
        }
    }

    /// Returns the error in a response, with the SDK's code for it.
    pub(super) fn to_error(&self) -> Error {
        let body = if self.is_json { self.json().ok() } else { None };
        let member = |key: &str| body.as_ref().and_then(|body| body.get(key));
        let text = |key: &str| member(key).and_then(Json::as_str).filter(|text| !text.is_empty());
        let (code, message) = match (text("error_code"), text("error")) {
            (Some(name), message) => {
                let code = ErrorCode::by_name(name).unwrap_or(ErrorCode::AppServerError);
                (code, message.unwrap_or(name).to_owned())
            }
            (None, Some(message)) => (ErrorCode::AppUnknownError, message.to_owned()),
            (None, None) => (ErrorCode::HTTPError, self.fatal()),
        };
        Error {
            server_code: member("server_code").and_then(Json::as_i64).and_then(|code| i32::try_from(code).ok()),
            retry_after: self.retry_after,
            status: Some(self.status),
            link: text("link").map(str::to_owned),
            unauthorized: self.status == 401,
            interrupted: matches!(self.status, 429 | 502..=504),
            ..backend::Error::new(code, message).into()
        }
    }

    /// Returns the SDK's message for a response that does not come from App Services.
    fn fatal(&self) -> String {
        let kind = match self.status {
            100..200 => "Informational",
            300..400 => "Redirection",
            400..500 => "Client Error",
            500..600 => "Server Error",
            _ => "Unknown HTTP Error",
        };
        let body: String = String::from_utf8_lossy(&self.body).chars().take(SHOWN).collect();
        format!("http error code considered fatal: {body}. {kind}: {}", self.status)
    }
}

fn text<'a>(object: &'a Json<'_>, key: &str) -> Result<&'a str> {
    object.get(key).and_then(Json::as_str).ok_or_else(|| Error::missing_json_key(key))
}

/// The claims that the client reads from a token. The client does not verify the signature, which
/// only the backend can.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "exp")]
    _expires: i64,
    #[serde(rename = "iat")]
    _issued: i64,
    user_data: Option<Box<RawValue>>,
}

fn token(object: &Json<'_>, key: &str, malformed: &str) -> Result<Secret> {
    let token = text(object, key)?;
    claims(token).ok_or_else(|| Error::bad_token(malformed))?;
    Ok(Secret::from(token.to_owned()))
}

fn claims(token: &str) -> Option<Claims> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { return None };
    if header.is_empty() || signature.is_empty() {
        return None;
    }
    let payload = payload.replace('+', "-").replace('/', "_");
    serde_json::from_slice(&LENIENT.decode(payload).ok()?).ok()
}

/// Reads the access token, and the custom data in the response or else in the token.
fn read_access(object: &mut Json<'_>, malformed: &str) -> Result<AccessGrant> {
    let access_token = token(object, "access_token", malformed)?;
    let custom_data = match object.remove("custom_data") {
        Some(Json::Null) => None,
        Some(beside) => Some(read_document(beside)?),
        None => {
            let claim = claims(access_token.expose()).and_then(|claims| claims.user_data);
            let read = |claim: Box<RawValue>| {
                read_document(ejson::read_stored(claim.get().as_bytes()).map_err(|_| not_ejson())?)
            };
            claim.filter(|claim| claim.get() != "null").map(read).transpose()?
        }
    };
    Ok(AccessGrant { access_token, custom_data: custom_data.map(Arc::new) })
}

fn read_profile(mut object: Json<'_>) -> Result<Profile> {
    let data = object.remove("data").ok_or_else(|| Error::missing_json_key("data"))?;
    let Some(Json::Array(identities)) = object.get("identities") else {
        return Err(Error::missing_json_key("identities"));
    };
    let identities = identities.iter().map(|identity| {
        Ok(Identity {
            id: text(identity, "id")?.to_owned(),
            provider_type: text(identity, "provider_type")?.to_owned(),
        })
    });
    Ok(Profile {
        identities: identities.collect::<Result<_>>()?,
        user_id: text(&object, "user_id").unwrap_or_default().to_owned(),
        kind: text(&object, "type").unwrap_or_default().to_owned(),
        data: read_document(data)?,
    })
}

fn not_ejson() -> Error {
    Error::malformed_json("the backend's response is not valid Extended JSON")
}

fn read_ejson(value: Json<'_>) -> Result<RawBson> {
    let value = value.into_stored_bson().map_err(|_| not_ejson())?;
    // Inside a document, this may be stored data. At the top level, an incomplete Extended JSON
    // type is malformed.
    let is_malformed = value.as_document().and_then(|document| document.iter_elements().next()?.ok());
    if is_malformed.is_some_and(|first| ejson::is_wrapper(first.key().as_str())) {
        return Err(not_ejson());
    }
    Ok(value)
}

fn read_document(value: Json<'_>) -> Result<RawDocumentBuf> {
    match read_ejson(value)? {
        RawBson::Document(document) => Ok(document),
        _ => Err(Error::malformed_json("the backend's response has another value instead of a document")),
    }
}
