//! The way to a backend: in this process, or over HTTP.

mod embedded;
mod http;

use backend::{Request, Response};
use futures_util::future::BoxFuture;

use crate::Result;

pub use backend::StoreLocation;
pub use embedded::Embedded;
pub use http::Http;

/// Something that answers requests.
pub trait Connection: Send + Sync + std::fmt::Debug {
    /// Sends a request. What can be answered at once is, at the first poll.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>>;

    /// Lets go of what the connection holds.
    fn close(&self) -> BoxFuture<'_, ()>;
}
