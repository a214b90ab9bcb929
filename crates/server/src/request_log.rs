//! Logs and measures each request. A request id appears in all log lines of a request and in its
//! response.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;

use crate::{answer::in_our_form, app_state::AppState, connections::Connection, cors, security};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of a request id that a proxy may set, in characters. A longer id is
/// replaced.
const LONGEST_ID: usize = 64;

/// The peer of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// None if the router is called directly, without a connection.
    pub(crate) connection: Option<Arc<Connection>>,
}

/// Handles a request: assigns its id, checks its headers, and logs and counts its status and
/// duration.
pub(crate) async fn request(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    // Every connection sets a peer. Only a direct call of the router has none.
    let (peer, connection) = match request.extensions().get::<Peer>() {
        Some(Peer { address, connection }) => (*address, connection.clone()),
        None => (IpAddr::from([0, 0, 0, 0]), None),
    };
    let _working = connection.as_ref().map(Connection::work);
    let is_private = security::is_private(request.uri().path());
    let origin = state.proxies.origin(peer, request.headers());
    request.extensions_mut().insert(origin);
    let from_proxy = state.proxies.trusts(peer).then(|| request.headers().get(REQUEST_ID).cloned()).flatten();
    let id = from_proxy.filter(is_plain).unwrap_or_else(new_id);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);

    let span = tracing::error_span!("request", request_id = id.to_str().unwrap_or_default());
    let running = state.metrics.begin();
    let begun = Instant::now();
    let mut response = async {
        let response = match security::check(&request) {
            Ok(()) => in_our_form(cors::check(&state, request, next).await),
            Err(refusal) => refusal.into_response(),
        };
        let (status, client) = (response.status().as_u16(), origin.address);
        let milliseconds = begun.elapsed().as_micros() as f64 / 1000.0;
        match status {
            500.. => tracing::warn!(%method, route, status, %client, milliseconds, "request failed"),
            _ => tracing::debug!(%method, route, status, %client, milliseconds, "request completed"),
        }
        response
    }
    .instrument(span)
    .await;
    running.end(&method, route, response.status(), begun.elapsed());
    response.headers_mut().insert(REQUEST_ID, id);
    security::protect(response.headers_mut(), is_private, state.speaks_tls);
    response
}

/// True if a proxy's id is short and contains only characters that are safe in a log.
fn is_plain(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(byte);
    (1..=LONGEST_ID).contains(&bytes.len()) && bytes.iter().all(allowed)
}

/// Returns a unique id. It is not secret.
fn new_id() -> HeaderValue {
    HeaderValue::from_str(&bson::oid::ObjectId::new().to_hex()).unwrap_or(HeaderValue::from_static("none"))
}
