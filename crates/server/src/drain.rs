//! Reads and discards the rest of a request body after an early response.
//!
//! If the server closed the connection while the client is still sending, the system would reset
//! it, and the client might never receive the response.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderValue, header::CONNECTION},
    response::Response,
};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    connections::Connection,
    limits::{DRAINED_BYTES, DRAINED_PAUSE, DRAINED_TIME},
    listen::ended,
};

/// A request body that moves to its [`Unread`] if it is dropped before its end.
pub(crate) struct Draining {
    /// None after the end of the body.
    body: Option<Incoming>,
    unread: Unread,
}

/// The rest of a request body, available when the handler has dropped the body.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Draining {
    /// Wraps a body, and returns the place for its unread rest.
    pub(crate) fn new(body: Incoming) -> (Self, Unread) {
        let unread = Unread::default();
        (Self { body: Some(body), unread: unread.clone() }, unread)
    }
}

impl Body for Draining {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some(body) = self.body.take_if(|body| !body.is_end_stream()) {
            *self.unread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl Unread {
    /// Reads and discards the rest of the body in a background task, while the response is sent.
    /// The connection is closed afterwards.
    ///
    /// Must be called in the single-threaded runtime of the connection, so that the task starts
    /// only after the head of the response has been written. A client that waits for `100
    /// Continue` then receives the response instead.
    pub(crate) fn drain(self, response: &mut Response, connection: Arc<Connection>, ending: watch::Receiver<bool>) {
        let Some(body) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        tokio::spawn(async move {
            tokio::select! {
                () = discard(body, &connection) => {}
                () = ended(ending) => {}
            }
        });
    }
}

/// Reads a body until it ends, or until it exceeds one of the `DRAINED_*` limits.
async fn discard(mut body: Incoming, connection: &Connection) {
    let latest = Instant::now() + Duration::from_secs(DRAINED_TIME);
    let mut left = DRAINED_BYTES;
    loop {
        let pause = Instant::now() + Duration::from_secs(DRAINED_PAUSE);
        let Ok(Some(Ok(frame))) = timeout_at(pause.min(latest), body.frame()).await else { return };
        connection.touch();
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}
