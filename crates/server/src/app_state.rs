//! The state that all request handlers share.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode};
use backend::{Backend, ErrorCode};
use tokio::sync::watch;

use crate::{
    answer::Answer, budget::Budget, large_events::LargeEvents, metrics::Metrics, origin::Proxies,
    stream_permits::Streams, workers::Workers,
};

/// The extractor that passes the state to a handler.
pub(crate) type Shared = State<Arc<AppState>>;

/// The state of a running server.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) backend: Arc<Backend>,
    /// The URL under which clients reach the server.
    pub(crate) url: String,
    /// The maximum size of the body of a function call, in bytes.
    pub(crate) max_body: usize,
    /// Time limit for each step that waits for the client.
    pub(crate) client_timeout: Duration,
    pub(crate) proxies: Proxies,
    pub(crate) metrics: Metrics,
    /// Becomes true when the server shuts down.
    pub(crate) ending: watch::Receiver<bool>,
    pub(crate) streams: Streams,
    /// The memory budget for large request bodies.
    pub(crate) bodies: Arc<Budget>,
    /// The memory budget for large responses that clients have not read yet.
    pub(crate) answers: Arc<Budget>,
    pub(crate) workers: Workers,
    pub(crate) events: LargeEvents,
    /// True if the server itself terminates TLS.
    pub(crate) speaks_tls: bool,
}

impl AppState {
    /// Checks the app id in the path of a request.
    ///
    /// # Errors
    /// Status 404 if the id is not this app's.
    pub(crate) fn check_app(&self, app: &str) -> Result<(), Answer> {
        if app == self.backend.app_id() {
            return Ok(());
        }
        let message = format!("cannot find app using Client App ID '{app}'");
        Err(Answer::error(StatusCode::NOT_FOUND, ErrorCode::BadRequest, message))
    }
}
