use bson::raw::RawBsonRef;
use ejson::Canonical;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use crate::{
    ErrorCode,
    response::{AccessGrant, ApiKey, Identity, Profile, Session},
};

/// The body of an error.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorBody<'a> {
    /// The message.
    pub error: &'a str,
    /// The name of the [`ErrorCode`]; `None` for an error without a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    /// MongoDB's error code, which only Userkeep's own client reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_code: Option<i32>,
    /// The link by which the operator finds the log entry of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'a str>,
}

impl<'a> ErrorBody<'a> {
    /// Creates the body of an error.
    pub fn new(code: ErrorCode, message: &'a str, server_code: Option<i32>) -> Self {
        let error_code = (code != ErrorCode::AppUnknownError).then(|| code.name());
        Self { error: message, error_code, server_code, link: None }
    }

    /// Adds the link by which the operator finds the log entry of the request.
    #[must_use]
    pub fn with_link(self, link: &'a str) -> Self {
        Self { link: Some(link), ..self }
    }
}

/// The body of the location response: the base URL of the app's other endpoints.
#[derive(Debug, Clone, Serialize)]
pub struct LocationBody<'a> {
    deployment_model: &'static str,
    location: &'static str,
    hostname: &'a str,
    ws_hostname: String,
}

impl<'a> LocationBody<'a> {
    /// Creates the body for a server at this URL.
    pub fn new(url: &'a str) -> Self {
        let ws_hostname = url.replacen("http", "ws", 1);
        Self { deployment_model: "GLOBAL", location: "US-VA", hostname: url, ws_hostname }
    }
}

/// The body of the response to a log-in, a link or a refresh.
pub struct TokensBody {
    access: AccessGrant,
    /// The additional fields of the response to a log-in.
    session: Option<SessionFields>,
    has_custom_data: bool,
}

struct SessionFields {
    refresh_token: crate::Secret,
    user_id: String,
    device_id: String,
}

impl TokensBody {
    /// Creates the response to a log-in. `has_custom_data` is true if the client asked for the
    /// custom data next to the token.
    pub fn of_session(session: Session, has_custom_data: bool) -> Self {
        let Session { access, refresh_token, user_id, device_id } = session;
        Self { access, session: Some(SessionFields { refresh_token, user_id, device_id }), has_custom_data }
    }

    /// Creates the response to a refresh or a link. `has_custom_data` as in
    /// [`of_session`](Self::of_session).
    pub fn of_access(access: AccessGrant, has_custom_data: bool) -> Self {
        Self { access, session: None, has_custom_data }
    }

    /// Returns the access token.
    pub fn access_token(&self) -> &crate::Secret {
        &self.access.access_token
    }

    /// Returns the id of the user, or `None` in the response to a refresh or a link.
    pub fn user_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.user_id.as_str())
    }

    /// Returns the size of the custom data in the body, in bytes of BSON.
    pub fn size(&self) -> usize {
        let custom_data = self.access.custom_data.as_ref().filter(|_| self.has_custom_data);
        custom_data.map_or(0, |custom_data| custom_data.as_bytes().len())
    }
}

impl Serialize for TokensBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("access_token", self.access.access_token.expose())?;
        if let Some(SessionFields { refresh_token, user_id, device_id }) = &self.session {
            map.serialize_entry("refresh_token", refresh_token.expose())?;
            map.serialize_entry("user_id", user_id)?;
            map.serialize_entry("device_id", device_id)?;
        }
        if self.has_custom_data {
            let custom_data = self.access.custom_data.as_deref();
            let custom_data = custom_data.map_or(RawBsonRef::Null, |data| RawBsonRef::Document(data));
            map.serialize_entry("custom_data", &Canonical(custom_data))?;
        }
        map.end()
    }
}

/// The body of a profile.
#[derive(Serialize)]
pub struct ProfileBody<'a> {
    user_id: &'a str,
    r#type: &'a str,
    identities: &'a [Identity],
    data: Canonical<'a>,
}

impl<'a> From<&'a Profile> for ProfileBody<'a> {
    fn from(profile: &'a Profile) -> Self {
        let data = Canonical(RawBsonRef::Document(&profile.data));
        Self { user_id: &profile.user_id, r#type: &profile.kind, identities: &profile.identities, data }
    }
}

/// Returns the body of a response with API keys: an array if all were requested, or else the
/// object of one key.
pub fn api_keys_body(keys: &[ApiKey], is_list: bool) -> Value {
    let object = |key: &ApiKey| {
        let mut object = json!({ "_id": key.id, "name": key.name, "disabled": key.disabled });
        if let Some(secret) = &key.key {
            object["key"] = json!(secret.expose());
        }
        object
    };
    match keys.first().filter(|_| !is_list) {
        Some(key) => object(key),
        None => keys.iter().map(object).collect(),
    }
}
