//! The way to a backend: in this process, or over HTTP.

mod embedded;
mod http;

use backend::{Request, Response, request::CallFunction};
use bson::raw::RawDocumentBuf;
use futures_util::future::BoxFuture;

use crate::Result;

pub use backend::StoreAddress;
pub use embedded::Embedded;
pub use http::Http;

/// Something that answers requests.
pub trait Connection: Send + Sync + std::fmt::Debug {
    /// Sends a request. What can be answered at once is, at the first poll.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>>;

    /// Begins to follow a collection. What is in the process is followed from the first poll on.
    fn watch(&self, call: CallFunction) -> BoxFuture<'_, Result<Box<dyn EventStream>>>;

    /// Lets go of what the connection holds.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Change events as they come.
pub trait EventStream: Send + std::fmt::Debug {
    /// Waits for the next events, at least one. What is given up before it is done loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>>;

    /// The place after all that [`next`](Self::next) has answered with, as an event's `_id`, where it is known.
    fn position(&self) -> Option<RawDocumentBuf>;
}
