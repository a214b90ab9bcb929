use std::sync::Arc;

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bson::{RawBson, raw::RawDocumentBuf};
use ejson::Json;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    ErrorCode, Request, Response, Secret,
    request::{ApiKeyAction, ApiKeys},
    response::{AccessGrant, ApiKey, Done, Identity, Profile, Session},
};

/// The maximum number of characters of a non-JSON response that an error message quotes.
const SHOWN: usize = 2000;

/// The SDK's message if the tokens of a log-in are not JWTs.
const BAD_LOG_IN: &str = "Could not log in user: received malformed JWT";

/// A response as received over HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// True if the content type is JSON. The body of an error is read only in this case.
    pub is_json: bool,
    /// The body.
    pub body: &'a [u8],
}

/// The error in a response, with the code that the SDK assigns to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error code, or `AppServerError` if it is unknown.
    pub code: ErrorCode,
    /// The message.
    pub message: String,
    /// MongoDB's error code.
    pub server_code: Option<i32>,
    /// The URL of the log entry for the request.
    pub link: Option<String>,
}

/// The reason why a response cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// The response is an error.
    Failure(Failure),
    /// The body is not the JSON that the request expects.
    Malformed(String),
    /// A field is missing, or is not a string.
    MissingKey(&'static str),
    /// A token is not a JWT; the message is the SDK's.
    BadToken(&'static str),
}

type Result<T, E = Unreadable> = std::result::Result<T, E>;

impl Request {
    /// True if the response may contain the custom data next to the token.
    pub fn returns_custom_data(&self) -> bool {
        matches!(self, Self::LogIn(_) | Self::Link(_) | Self::RefreshSession(_))
    }

    /// Reads the response to this request.
    ///
    /// # Errors
    /// [`Unreadable`], also for a response that is an error.
    pub fn read_reply(&self, reply: &Reply<'_>) -> Result<Response> {
        if !reply.is_success() {
            return Err(Unreadable::Failure(reply.failure()));
        }
        Ok(match self {
            Self::LogIn(_) => read_session(reply.object()?)?.into(),
            Self::Link(_) => read_access(&mut reply.object()?, BAD_LOG_IN)?.into(),
            Self::RefreshSession(_) => read_access(&mut reply.object()?, "malformed JWT")?.into(),
            Self::ReadProfile(_) => read_profile(reply.object()?)?.into(),
            Self::ApiKeys(ApiKeys { action, .. }) => read_api_keys(action, reply)?.into(),
            // The SDK reads an empty body as `null`.
            Self::CallFunction(_) if reply.body.is_empty() => RawBson::Null.into(),
            Self::CallFunction(_) => read_ejson(reply.json()?)?.into(),
            Self::EndSession(_) | Self::DeleteUser(_) | Self::ProviderAction(_) | Self::Push(_) => Done.into(),
        })
    }
}

impl<'a> Reply<'a> {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the `hostname` of a location.
    ///
    /// # Errors
    /// [`Unreadable`], also if `ws_hostname` is missing, as in the SDK.
    pub fn location(&self) -> Result<String> {
        if !self.is_success() {
            return Err(Unreadable::Failure(self.failure()));
        }
        let location = self.object()?;
        text(&location, "ws_hostname")?;
        text(&location, "hostname").map(str::to_owned)
    }

    fn json(&self) -> Result<Json<'a>> {
        ejson::read_stored(self.body)
            .map_err(|error| Unreadable::Malformed(format!("the backend's response cannot be parsed: {error}")))
    }

    fn object(&self) -> Result<Json<'a>> {
        match self.json()? {
            object @ Json::Object(_) => Ok(object),
            _ => Err(Unreadable::Malformed("the backend's response is not a JSON object".to_owned())),
        }
    }

    /// Returns the error in a response that is not a success.
    pub fn failure(&self) -> Failure {
        let body = if self.is_json { self.json().ok() } else { None };
        match body.as_ref().and_then(Failure::read) {
            Some(failure) => failure,
            None => Failure {
                code: ErrorCode::HTTPError,
                message: self.fatal(),
                server_code: body.as_ref().and_then(server_code),
                link: None,
            },
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
        let body: String = String::from_utf8_lossy(self.body).chars().take(SHOWN).collect();
        format!("http error code considered fatal: {body}. {kind}: {}", self.status)
    }
}

impl Failure {
    /// Reads the body of an error; `None` if it has neither a code nor a message.
    fn read(body: &Json<'_>) -> Option<Self> {
        let text = |key: &str| body.get(key).and_then(Json::as_str).filter(|text| !text.is_empty());
        let (code, message) = match (text("error_code"), text("error")) {
            (Some(name), message) => {
                (ErrorCode::by_name(name).unwrap_or(ErrorCode::AppServerError), message.unwrap_or(name).to_owned())
            }
            (None, Some(message)) => (ErrorCode::AppUnknownError, message.to_owned()),
            (None, None) => return None,
        };
        Some(Self { code, message, server_code: server_code(body), link: text("link").map(str::to_owned) })
    }

    /// Reads the data of a server-sent event named `error`. If the data is not JSON, it is the
    /// message.
    pub fn of_event(data: &str) -> Self {
        let body = ejson::read_stored(data.as_bytes()).ok();
        let member = |key: &str| body.as_ref().and_then(|body| body.get(key)).and_then(Json::as_str);
        Self {
            code: member("error_code").and_then(ErrorCode::by_name).unwrap_or(ErrorCode::AppUnknownError),
            message: member("error").unwrap_or(data).to_owned(),
            server_code: body.as_ref().and_then(server_code),
            link: None,
        }
    }
}

fn server_code(body: &Json<'_>) -> Option<i32> {
    body.get("server_code").and_then(Json::as_i64).and_then(|code| i32::try_from(code).ok())
}

fn text<'a>(object: &'a Json<'_>, key: &'static str) -> Result<&'a str> {
    object.get(key).and_then(Json::as_str).ok_or(Unreadable::MissingKey(key))
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

fn token(object: &Json<'_>, key: &'static str, malformed: &'static str) -> Result<Secret> {
    let token = text(object, key)?;
    claims(token).ok_or(Unreadable::BadToken(malformed))?;
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

fn read_session(mut object: Json<'_>) -> Result<Session> {
    let refresh_token = token(&object, "refresh_token", BAD_LOG_IN)?;
    let user_id = text(&object, "user_id")?.to_owned();
    let device_id = text(&object, "device_id")?.to_owned();
    let access = read_access(&mut object, BAD_LOG_IN)?;
    Ok(Session { access, refresh_token, user_id, device_id })
}

/// Reads the access token and the custom data. The custom data is in the response, or else in the
/// token.
fn read_access(object: &mut Json<'_>, malformed: &'static str) -> Result<AccessGrant> {
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
    let data = object.remove("data").ok_or(Unreadable::MissingKey("data"))?;
    let Some(Json::Array(identities)) = object.get("identities") else {
        return Err(Unreadable::MissingKey("identities"));
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

fn read_api_keys(action: &ApiKeyAction, reply: &Reply<'_>) -> Result<Vec<ApiKey>> {
    match action {
        ApiKeyAction::Delete { .. } | ApiKeyAction::Enable { .. } | ApiKeyAction::Disable { .. } => Ok(Vec::new()),
        ApiKeyAction::Create { .. } | ApiKeyAction::Fetch { .. } => Ok(vec![read_api_key(&reply.object()?)?]),
        ApiKeyAction::FetchAll => match reply.json()? {
            Json::Array(keys) => keys.iter().map(read_api_key).collect(),
            _ => Err(Unreadable::Malformed("the backend's response is not a JSON array".to_owned())),
        },
    }
}

fn read_api_key(key: &Json<'_>) -> Result<ApiKey> {
    Ok(ApiKey {
        id: text(key, "_id")?.to_owned(),
        key: key.get("key").and_then(Json::as_str).map(|key| Secret::from(key.to_owned())),
        name: text(key, "name")?.to_owned(),
        disabled: key.get("disabled") == Some(&Json::Boolean(true)),
    })
}

fn not_ejson() -> Unreadable {
    Unreadable::Malformed("the backend's response is not valid Extended JSON".to_owned())
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
        _ => Err(Unreadable::Malformed("the backend's response has another value instead of a document".to_owned())),
    }
}
