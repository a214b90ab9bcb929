//! The App Services client API: every request and response as a value, and its HTTP format.
//!
//! The client encodes requests and decodes responses with this crate, and the server does the
//! opposite. The crate does no input or output.
//!
//! To add a request, add a struct with its response type to [`request`], and a row to the table of
//! [`Endpoint`].

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

/// The request header that asks for the custom data next to the access token in the response. Its
/// size is not limited there, unlike in the token. Only Userkeep's own client sends this header.
pub const CUSTOM_DATA_HEADER: &str = "userkeep-custom-data";

/// The value of [`CUSTOM_DATA_HEADER`].
pub const CUSTOM_DATA_BESIDE: &str = "beside-token";

/// The types of the authentication providers, as used in paths and in the identities of users.
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
