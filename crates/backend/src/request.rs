//! Requests and responses of the client API, as values. The embedded client passes them as they
//! are; an HTTP client sends them in App Services' wire format.

use std::sync::Arc;

use bson::{RawBson, raw::RawDocumentBuf};

use crate::Secret;

/// A request of the client API. Each variant names its HTTP endpoint, below `/api/client/v2.0`.
#[derive(Debug, Clone)]
pub enum Request {
    /// `POST /app/{app}/auth/providers/{provider}/login`: logs a user in.
    LogIn(LogIn),
    /// `POST /app/{app}/auth/providers/{provider}/login?link=true`: adds an identity to a user. It
    /// is not supported yet.
    Link {
        /// The access token of the user who adds the identity.
        access_token: Secret,
    },
    /// `GET /auth/profile`: returns the user's profile.
    Profile {
        /// The user's access token.
        access_token: Secret,
    },
    /// `POST /auth/session`: returns a new access token.
    RefreshSession {
        /// The refresh token of the session.
        refresh_token: Secret,
    },
    /// `DELETE /auth/session`: ends the session.
    EndSession {
        /// The refresh token of the session.
        refresh_token: Secret,
    },
    /// `DELETE /auth/delete`: deletes the user and ends all of the user's sessions.
    DeleteUser {
        /// The access token of the user to delete.
        access_token: Secret,
    },
    /// `POST /app/{app}/auth/providers/local-userpass/…`: any request to this provider except a
    /// log-in.
    EmailPassword(EmailPasswordRequest),
    /// `/auth/api_keys…`: any request about API keys. The provider is not supported.
    ApiKeys {
        /// The refresh token of the user's session.
        refresh_token: Secret,
    },
    /// `POST /app/{app}/functions/call`: calls a function.
    CallFunction(CallFunction),
    /// `PUT` and `DELETE /app/{app}/push/providers/{service}/registration`. Push notifications are
    /// not supported.
    Push {
        /// The access token of the user who registers a device.
        access_token: Secret,
        /// The name of the push service.
        service: String,
    },
}

/// A log-in with any provider.
#[derive(Debug, Clone)]
pub struct LogIn {
    /// The user's credentials.
    pub credentials: Credentials,
    /// The device id that an earlier log-in returned; `None` on a new device.
    pub device_id: Option<String>,
}

/// The credentials of a log-in.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// `anon-user`: creates an anonymous user.
    Anonymous,
    /// `local-userpass`: an e-mail address and a password.
    EmailPassword {
        /// The e-mail address as it was registered. Case matters.
        email: String,
        /// The password.
        password: Secret,
    },
    /// Any other provider, by its type; it is rejected with `AuthProviderNotFound`.
    Other(String),
}

/// A request to the provider `local-userpass`, except a log-in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EmailPasswordRequest {
    /// `register`: creates a user.
    Register {
        /// The user's e-mail address.
        email: String,
        /// The user's password, 6 to 128 characters.
        password: Secret,
    },
    /// `confirm`: confirms a user with a token from an e-mail.
    Confirm,
    /// `confirm/send`: sends the confirmation e-mail again.
    ResendConfirmation {
        /// The user's e-mail address.
        email: String,
    },
    /// `confirm/call`: runs the custom confirmation function again.
    RetryCustomConfirmation {
        /// The user's e-mail address.
        email: String,
    },
    /// `reset`: sets a new password with a token from an e-mail.
    Reset,
    /// `reset/send`: sends an e-mail to reset the password.
    SendReset {
        /// The user's e-mail address.
        email: String,
    },
    /// `reset/call`: runs the custom reset function.
    CallResetFunction {
        /// The user's e-mail address.
        email: String,
    },
}

/// A call of a function of a data source, or of a function of the app.
#[derive(Debug, Clone)]
pub struct CallFunction {
    /// The access token of the user who calls.
    pub access_token: Secret,
    /// The name of the data source; `None` for a function of the app.
    pub service: Option<String>,
    /// The name of the function, such as `find`.
    pub name: String,
    /// The arguments: for a data source, the one document with `database`, `collection` and the
    /// function's parameters.
    pub arguments: RawDocumentBuf,
}

/// The response to a [`Request`].
#[derive(Debug, Clone)]
pub enum Response {
    /// The request succeeded and returns nothing.
    Done,
    /// The new session of a log-in.
    Session(Session),
    /// The new access token of a refresh.
    AccessGrant(AccessGrant),
    /// The profile of a user.
    Profile(Profile),
    /// The result of a function.
    Value(RawBson),
}

/// A new session.
#[derive(Debug, Clone)]
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
/// complete here; the token carries it only if it is small enough.
#[derive(Debug, Clone)]
pub struct AccessGrant {
    /// The signed token.
    pub access_token: Secret,
    /// The user's custom data, if there is any.
    pub custom_data: Option<Arc<RawDocumentBuf>>,
}

/// The profile of a user.
#[derive(Debug, Clone)]
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
