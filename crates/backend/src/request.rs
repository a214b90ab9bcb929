//! What a client asks, and what it is answered, as values. The embedded client hands them over as they are; over HTTP
//! they are what the wire protocol says.

use std::sync::Arc;

use bson::{RawBson, raw::RawDocumentBuf};

use crate::Secret;

/// One request of the client API.
#[derive(Debug, Clone)]
pub enum Request {
    /// `POST /app/{app}/auth/providers/{provider}/login`
    LogIn(LogIn),
    /// `POST /app/{app}/auth/providers/{provider}/login?link=true`
    Link {
        /// Who links.
        access_token: Secret,
    },
    /// `GET /auth/profile`
    Profile {
        /// Whose.
        access_token: Secret,
    },
    /// `POST /auth/session`
    RefreshSession {
        /// Of the session.
        refresh_token: Secret,
    },
    /// `DELETE /auth/session`
    EndSession {
        /// Of the session.
        refresh_token: Secret,
    },
    /// `DELETE /auth/delete`
    DeleteUser {
        /// Who goes.
        access_token: Secret,
    },
    /// `POST /app/{app}/auth/providers/local-userpass/…`
    EmailPassword(EmailPasswordRequest),
    /// `/auth/api_keys…`
    ApiKeys {
        /// Whose.
        refresh_token: Secret,
    },
    /// `POST /app/{app}/functions/call`
    CallFunction(CallFunction),
    /// `PUT` and `DELETE /app/{app}/push/providers/{service}/registration`
    Push {
        /// Who registers.
        access_token: Secret,
        /// With which service.
        service: String,
    },
}

/// A log-in with any provider.
#[derive(Debug, Clone)]
pub struct LogIn {
    /// Which credentials they are.
    pub credentials: Credentials,
    /// The id that an earlier log-in gave this device.
    pub device_id: Option<String>,
}

/// What somebody logs in with.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// `anon-user`
    Anonymous,
    /// `local-userpass`
    EmailPassword {
        /// The address, as it was registered: case matters.
        email: String,
        /// The password.
        password: Secret,
    },
    /// A provider that is not available, by its type.
    Other(String),
}

/// What is asked of `local-userpass` but a log-in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EmailPasswordRequest {
    /// `register`
    Register {
        /// The address.
        email: String,
        /// The password.
        password: Secret,
    },
    /// `confirm`
    Confirm,
    /// `confirm/send`
    ResendConfirmation {
        /// The address.
        email: String,
    },
    /// `confirm/call`
    RetryCustomConfirmation {
        /// The address.
        email: String,
    },
    /// `reset`
    Reset,
    /// `reset/send`
    SendReset {
        /// The address.
        email: String,
    },
    /// `reset/call`
    CallResetFunction {
        /// The address.
        email: String,
    },
}

/// A call of a function, or of one of a service's.
#[derive(Debug, Clone)]
pub struct CallFunction {
    /// Who calls.
    pub access_token: Secret,
    /// The data source, for its functions.
    pub service: Option<String>,
    /// The function.
    pub name: String,
    /// Its arguments: one document, for a data source's.
    pub arguments: RawDocumentBuf,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone)]
pub enum Response {
    /// It was done.
    Done,
    /// To a log-in.
    Session(Session),
    /// To a refresh.
    AccessGrant(AccessGrant),
    /// To a profile.
    Profile(Profile),
    /// To a function call.
    Value(RawBson),
}

/// A new session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its first access token.
    pub access: AccessGrant,
    /// What further ones are had with.
    pub refresh_token: Secret,
    /// The user's id.
    pub user_id: String,
    /// The device's id.
    pub device_id: String,
}

/// An access token, and beside it the custom data as it was when the token was made: whole, where the token itself
/// only carries what fits.
#[derive(Debug, Clone)]
pub struct AccessGrant {
    /// The token.
    pub access_token: Secret,
    /// The custom data, if there is any.
    pub custom_data: Option<Arc<RawDocumentBuf>>,
}

/// What is known about a user.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The user's id.
    pub user_id: String,
    /// `normal` or `server`.
    pub kind: String,
    /// How the user logs in.
    pub identities: Vec<Identity>,
    /// What the providers told.
    pub data: RawDocumentBuf,
}

/// One way in which a user logs in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// The provider's type.
    pub provider_type: String,
}
