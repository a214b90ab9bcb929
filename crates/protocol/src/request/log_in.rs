use serde_json::json;

use super::{Form, Received, members, written};
use crate::{Endpoint, Error, Result, Secret, SecretDocument, provider};

/// The credentials of a log-in: the name of a provider, and a payload that only the provider
/// reads. The payload has the field names of the HTTP format: `{ username, password }`, `{ key }`,
/// `{ token }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Credentials {
    /// The type of the provider, such as [`provider::EMAIL_PASSWORD`].
    pub provider: String,
    /// The payload.
    pub payload: SecretDocument,
}

/// A log-in with any provider.
#[derive(Debug, Clone, PartialEq)]
pub struct LogIn {
    /// The user's credentials.
    pub credentials: Credentials,
    /// The device id that an earlier log-in returned; `None` on a new device.
    pub device_id: Option<String>,
}

/// Adds an identity to a user.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The access token of the user.
    pub access_token: Secret,
    /// The credentials of the identity.
    pub credentials: Credentials,
}

impl Credentials {
    /// Returns the credentials of a new anonymous user.
    pub fn anonymous() -> Self {
        Self { provider: provider::ANONYMOUS.to_owned(), payload: SecretDocument::default() }
    }

    /// Returns the credentials for an e-mail address and a password.
    pub fn email_password(email: &str, password: &str) -> Self {
        let payload = bson::rawdoc! { "username": email, "password": password };
        Self { provider: provider::EMAIL_PASSWORD.to_owned(), payload: payload.into() }
    }

    /// True if the credentials create an anonymous user.
    pub fn are_anonymous(&self) -> bool {
        self.provider == provider::ANONYMOUS
    }

    /// Returns the body of a log-in. The payload of a custom function is the body itself. For
    /// other providers, the body contains the payload and the name of the provider, as in the SDK.
    fn body(&self, device_id: Option<&str>) -> Result<Vec<u8>> {
        let mut body = members(&self.payload)?;
        if self.provider != provider::CUSTOM_FUNCTION {
            body.insert("provider".to_owned(), json!(self.provider));
        }
        let device = json!({ "sdk": "userkeep", "sdkVersion": env!("CARGO_PKG_VERSION"), "deviceId": device_id });
        body.insert("options".to_owned(), json!({ "device": device }));
        written(&body)
    }

    /// Reads a payload, and the device id next to it: a string, or an ObjectId in Extended JSON.
    fn decode(received: &Received<'_>) -> Result<(Self, Option<String>)> {
        let provider = received.parameter("provider")?;
        let mut body = received.object()?;
        let options = body.remove("options");
        if provider != provider::CUSTOM_FUNCTION {
            body.remove("provider");
        }
        let id = options.as_ref().and_then(|options| options.get("device")?.get("deviceId"));
        let id = id.and_then(|id| id.get("$oid").unwrap_or(id).as_str()).map(str::to_owned);
        let payload = received.document(body)?;
        Ok((Self { provider, payload }, id))
    }
}

impl LogIn {
    pub(super) fn decode(received: &Received<'_>) -> Result<Self> {
        let (credentials, device_id) = Credentials::decode(received)?;
        Ok(Self { credentials, device_id })
    }
}

impl Link {
    pub(super) fn decode(received: &Received<'_>) -> Result<Self> {
        // Never status 401: realm-web would refresh the token and retry forever.
        let access_token = received.token().map_err(|_| Error::bad_request("linking needs a logged-in user"))?;
        Ok(Self { access_token, credentials: Credentials::decode(received)?.0 })
    }
}

impl Form for LogIn {
    fn endpoint(&self) -> Endpoint {
        Endpoint::LogIn
    }

    fn parameter(&self, _: &str) -> &str {
        &self.credentials.provider
    }

    fn body(&self) -> Result<Option<Vec<u8>>> {
        self.credentials.body(self.device_id.as_deref()).map(Some)
    }
}

impl Form for Link {
    fn endpoint(&self) -> Endpoint {
        Endpoint::LogIn
    }

    fn token(&self) -> Option<&Secret> {
        Some(&self.access_token)
    }

    fn parameter(&self, _: &str) -> &str {
        &self.credentials.provider
    }

    fn query(&self) -> Option<&'static str> {
        Some("link=true")
    }

    fn body(&self) -> Result<Option<Vec<u8>>> {
        self.credentials.body(None).map(Some)
    }
}
