//! The requests of the client API. Each is a struct with a response type. The embedded client
//! passes them as values. [`Request::encode`] and [`Request::decode`] convert them to and from
//! HTTP.

mod api_keys;
mod functions;
mod log_in;
mod provider;
mod push;
mod session;

use std::fmt;

use bson::RawBson;
use ejson::Json;

pub use ejson::{CallDecoder, Undecoded};

pub use api_keys::{ApiKeyAction, ApiKeys};
pub use functions::{Arguments, CallFunction};
pub use log_in::{Credentials, Link, LogIn};
pub use provider::{Action, ProviderAction};
pub use push::{Push, PushAction};
pub use session::{DeleteUser, EndSession, ReadProfile, RefreshSession};

use crate::{
    Endpoint, Error, ErrorCode, Result, Secret, SecretDocument,
    response::{AccessGrant, ApiKey, Done, Profile, Response, Session, Unexpected},
};

/// A request with the type of its response.
pub trait Call: Into<Request> {
    /// The response to this request.
    type Answer: TryFrom<Response, Error = Unexpected>;
}

/// Declares the requests: the variants of [`Request`], and the response type of each.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident -> $answer:ty;)*) => {
        /// A request of the client API.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request { $($(#[$doc])* $name($name),)* }

        $(
            impl From<$name> for Request {
                fn from(request: $name) -> Self {
                    Self::$name(request)
                }
            }

            impl Call for $name {
                type Answer = $answer;
            }
        )*

        impl Request {
            fn form(&self) -> &dyn Form {
                match self { $(Self::$name(request) => request,)* }
            }
        }
    };
}

requests! {
    /// Logs a user in.
    LogIn -> Session;
    /// Adds an identity to a user.
    Link -> AccessGrant;
    /// Returns the profile of a user.
    ReadProfile -> Profile;
    /// Returns a new access token.
    RefreshSession -> AccessGrant;
    /// Ends a session.
    EndSession -> Done;
    /// Deletes a user and ends all of the user's sessions.
    DeleteUser -> Done;
    /// Requests an action of a provider other than a log-in.
    ProviderAction -> Done;
    /// Lists or changes the API keys of a user.
    ApiKeys -> Vec<ApiKey>;
    /// Calls a function of the app or of a data source.
    CallFunction -> RawBson;
    /// Registers a device for push notifications, or removes the registration.
    Push -> Done;
}

/// The conversion of a request to and from HTTP, except its token.
trait Form {
    fn endpoint(&self) -> Endpoint;

    fn token(&self) -> Option<&Secret> {
        None
    }

    /// Returns the value of a parameter of the endpoint's path, except `app`.
    fn parameter(&self, _name: &str) -> &str {
        ""
    }

    fn query(&self) -> Option<&'static str> {
        None
    }

    /// Returns the body, if the endpoint reads one.
    fn body(&self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A request encoded for HTTP.
#[derive(Clone)]
pub struct HttpRequest {
    /// The endpoint, with its method.
    pub endpoint: Endpoint,
    /// The segments of the complete path, not escaped.
    pub segments: Vec<String>,
    /// The query, escaped.
    pub query: Option<&'static str>,
    /// The token for the `Authorization` header.
    pub token: Option<Secret>,
    /// The JSON body.
    pub body: Option<Vec<u8>>,
}

impl fmt::Debug for HttpRequest {
    /// Omits the body, which may contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpRequest")
            .field("endpoint", &self.endpoint)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

/// A request as received over HTTP.
pub struct Received<'a> {
    /// The endpoint of the method and the path.
    pub endpoint: Endpoint,
    /// Returns a parameter of the path, unescaped.
    pub parameter: &'a dyn Fn(&str) -> Option<&'a str>,
    /// True if the query contains `link=true`.
    pub links: bool,
    /// The token of the `Authorization` header.
    pub token: Option<Secret>,
    /// The body; empty if there is none.
    pub body: &'a [u8],
    /// The maximum size of arguments as BSON, in bytes.
    pub largest: usize,
}

impl Request {
    /// Encodes the request for HTTP.
    ///
    /// # Errors
    /// If a value cannot be represented as Extended JSON.
    pub fn encode(&self, app_id: &str) -> Result<HttpRequest> {
        let form = self.form();
        let endpoint = form.endpoint();
        let value = |name: &str| if name == "app" { app_id } else { form.parameter(name) };
        Ok(HttpRequest {
            endpoint,
            segments: endpoint.segments(value).into_iter().map(str::to_owned).collect(),
            query: form.query(),
            token: form.token().cloned(),
            body: form.body()?,
        })
    }

    /// Decodes a request received over HTTP. The caller must check the parameter `app`.
    ///
    /// # Errors
    /// An error for the client if a token, a parameter or a field is missing or has the wrong
    /// type, or if the body is not valid or too large.
    pub fn decode(received: &Received<'_>) -> Result<Self> {
        Ok(match received.endpoint {
            Endpoint::LogIn if received.links => Link::decode(received)?.into(),
            Endpoint::LogIn => LogIn::decode(received)?.into(),
            Endpoint::Profile => ReadProfile { access_token: received.token()? }.into(),
            Endpoint::RefreshSession => RefreshSession { refresh_token: received.token()? }.into(),
            Endpoint::EndSession => EndSession { refresh_token: received.token()? }.into(),
            Endpoint::DeleteUser => DeleteUser { access_token: received.token()? }.into(),
            Endpoint::CreateApiKey
            | Endpoint::FetchApiKeys
            | Endpoint::FetchApiKey
            | Endpoint::DeleteApiKey
            | Endpoint::EnableApiKey
            | Endpoint::DisableApiKey => ApiKeys::decode(received)?.into(),
            Endpoint::CallFunction => CallFunction::decode(received)?.into(),
            Endpoint::RegisterPush | Endpoint::DeregisterPush => Push::decode(received)?.into(),
            endpoint => match Action::of(endpoint) {
                Some(action) => ProviderAction::decode(action, received)?.into(),
                None => return Err(Error::bad_request("this endpoint takes no request of the client API")),
            },
        })
    }
}

impl Received<'_> {
    /// Returns the token that the endpoint needs.
    ///
    /// # Errors
    /// `MissingAuthReq` if the request has no token.
    pub fn token(&self) -> Result<Secret> {
        let missing = "expected Authorization header with JWT (Bearer schema).";
        self.token.clone().ok_or_else(|| Error::new(ErrorCode::MissingAuthReq, missing))
    }

    fn parameter(&self, name: &str) -> Result<String> {
        let value = (self.parameter)(name).map(str::to_owned);
        value.ok_or_else(|| Error::bad_request(format!("the path has no '{name}'")))
    }

    /// Returns the body as a JSON object. An empty body counts as an empty object.
    fn object(&self) -> Result<Json<'_>> {
        object(self.body)
    }

    /// Converts members of the body to a BSON document.
    fn document(&self, members: Json<'_>) -> Result<SecretDocument> {
        match decoded(members, self.largest)? {
            RawBson::Document(document) => Ok(document.into()),
            _ => Err(Error::bad_request("the body must be a JSON object")),
        }
    }
}

/// Parses a body as a JSON object. An empty body counts as an empty object.
fn object(body: &[u8]) -> Result<Json<'_>> {
    if body.is_empty() {
        return Ok(Json::Object(Vec::new()));
    }
    match ejson::read(body)? {
        object @ Json::Object(_) => Ok(object),
        _ => Err(Error::bad_request("the body must be a JSON object")),
    }
}

/// Returns a member that must be a string.
fn text(object: &Json<'_>, key: &str) -> Result<String> {
    match object.get(key) {
        Some(Json::Text(text)) => Ok(text.clone().into_owned()),
        Some(_) => Err(Error::new(ErrorCode::InvalidParameter, format!("'{key}' must be a string"))),
        None => Err(Error::new(ErrorCode::MissingParameter, format!("'{key}' is missing"))),
    }
}

/// Converts Extended JSON to BSON of at most `largest` bytes.
fn decoded(value: Json<'_>, largest: usize) -> Result<RawBson> {
    value.into_bson_up_to(largest)?.ok_or_else(|| too_large(largest))
}

/// Returns the error of arguments that are too large as BSON.
pub fn too_large(largest: usize) -> Error {
    Error::too_large(format!("the arguments have more than {largest} bytes as BSON"))
}

/// Serializes a body.
fn written(body: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| Error::bad_request(format!("the request cannot be written: {error}")))
}

/// Converts a document to a JSON object of canonical Extended JSON.
fn members(document: &SecretDocument) -> Result<serde_json::Map<String, serde_json::Value>> {
    let fields = ejson::Canonical(bson::raw::RawBsonRef::Document(document.expose()));
    match serde_json::to_value(fields) {
        Ok(serde_json::Value::Object(members)) => Ok(members),
        _ => Err(Error::bad_request("the request cannot be written")),
    }
}

#[cfg(test)]
mod tests;
