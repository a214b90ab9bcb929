//! The responses to requests, as values.

use std::sync::Arc;

use bson::{RawBson, raw::RawDocumentBuf};

use crate::Secret;

/// The response to a request that returns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done;

/// The error of a response whose type does not match the request. Only a fault in a backend causes
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response does not belong to the request")]
pub struct Unexpected;

/// Declares the responses: the variants of [`Response`], and the conversions from and to them.
macro_rules! responses {
    ($($(#[$doc:meta])* $name:ident($kind:ty);)*) => {
        /// The response to a [`Request`](crate::Request).
        #[derive(Debug, Clone, PartialEq)]
        pub enum Response { $($(#[$doc])* $name($kind),)* }

        $(
            impl From<$kind> for Response {
                fn from(response: $kind) -> Self {
                    Self::$name(response)
                }
            }

            impl TryFrom<Response> for $kind {
                type Error = Unexpected;

                fn try_from(response: Response) -> Result<Self, Unexpected> {
                    match response {
                        Response::$name(response) => Ok(response),
                        _ => Err(Unexpected),
                    }
                }
            }
        )*
    };
}

responses! {
    /// The request succeeded and returns nothing.
    Done(Done);
    /// The new session of a log-in.
    Session(Session);
    /// The new access token of a refresh or of linking.
    AccessGrant(AccessGrant);
    /// The profile of a user.
    Profile(Profile);
    /// API keys: the requested one, or all.
    ApiKeys(Vec<ApiKey>);
    /// The result of a function.
    Value(RawBson);
}

/// A new session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The first access token.
    pub access: AccessGrant,
    /// The token that refreshes the session.
    pub refresh_token: Secret,
    /// The user's id.
    pub user_id: String,
    /// The device's id, to be sent with the next log-in.
    pub device_id: String,
}

/// An access token, and the custom data at the time when the token was signed. The custom data is
/// complete here, while the token contains it only if it is small enough.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessGrant {
    /// The signed token.
    pub access_token: Secret,
    /// The user's custom data, if there is any.
    pub custom_data: Option<Arc<RawDocumentBuf>>,
}

/// The profile of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The user's id.
    pub user_id: String,
    /// The kind of user: `normal` or `server`.
    pub kind: String,
    /// The user's identities, one for each way to log in.
    pub identities: Vec<Identity>,
    /// The data of the authentication providers, such as `{ email }`.
    pub data: RawDocumentBuf,
}

/// An identity of a user: one way to log in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The identity's id, which is unique for its provider.
    pub id: String,
    /// The type of the provider, such as `local-userpass`.
    pub provider_type: String,
}

/// An API key of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's id, 24 hexadecimal digits.
    pub id: String,
    /// The key itself, only in the response to its creation.
    pub key: Option<Secret>,
    /// The name that the user gave it.
    pub name: String,
    /// True if the key is disabled, so that it cannot be used to log in.
    pub disabled: bool,
}
