//! Connections to a backend: in this process, or over HTTP.

mod embedded;
mod http;

use backend::{Request, Response, request::CallFunction};
use bson::raw::RawDocumentBuf;
use futures_util::future::BoxFuture;

use crate::Result;

pub use backend::StoreAddress;
pub use embedded::Embedded;
pub use http::Http;

/// A connection to a backend.
pub trait Connection: Send + Sync + std::fmt::Debug {
    /// Sends a request. If the response is available immediately, the future is ready at the first
    /// poll.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>>;

    /// Opens a change stream on a collection. With a backend in this process, the stream has every
    /// change after the first poll.
    fn watch(&self, call: CallFunction) -> BoxFuture<'_, Result<Box<dyn EventStream>>>;

    /// Closes the connection, and releases its resources.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A stream of change events.
pub trait EventStream: Send + std::fmt::Debug {
    /// Waits for the next events and returns at least one.
    ///
    /// Cancel safe: dropping the future loses no event.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// Returns the resume token after everything that [`next`](Self::next) has returned, as the
    /// `_id` of an event; `None` if it is not known.
    fn position(&self) -> Option<RawDocumentBuf>;
}
