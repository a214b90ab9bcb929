//! The App Services client API: every request and answer as a value, and the form of each over
//! HTTP. The client encodes with this crate what the server decodes with it, and the other way
//! round. It does no input or output.
//!
//! A new request is one struct in [`request`] with its answer type, and one row in
//! [`Endpoint`]'s table.

mod code;
mod endpoint;
mod error;
pub mod event;
pub mod reply;
pub mod request;
pub mod response;
mod secret;

pub use code::ErrorCode;
pub use ejson;
pub use endpoint::{BodyKind, Endpoint, Method, TokenKind};
pub use error::{Error, Result};
pub use request::{HttpRequest, Received, Request};
pub use response::Response;
pub use secret::{Secret, SecretDocument};

/// The path prefix of every endpoint.
pub const API: &str = "/api/client/v2.0";

/// The content type of bodies, exactly as the clients expect it.
pub const JSON: &str = "application/json";

/// The content type of a stream of change events.
pub const EVENTS: &str = "text/event-stream";

/// The request header with which a client asks for the custom data beside the access token, where
/// its size is not limited. Only Userkeep's own client sends it.
pub const CUSTOM_DATA_HEADER: &str = "userkeep-custom-data";

/// The value of [`CUSTOM_DATA_HEADER`].
pub const CUSTOM_DATA_BESIDE: &str = "beside-token";

/// The types of the authentication providers, as they stand in paths and in users' identities.
pub mod provider {
    /// Anonymous users.
    pub const ANONYMOUS: &str = "anon-user";
    /// E-mail address and password.
    pub const EMAIL_PASSWORD: &str = "local-userpass";
    /// API keys of users and of the server.
    pub const API_KEY: &str = "api-key";
    /// Log-in with a function of the app.
    pub const CUSTOM_FUNCTION: &str = "custom-function";
    /// Log-in with a JWT of another issuer.
    pub const CUSTOM_TOKEN: &str = "custom-token";
}
