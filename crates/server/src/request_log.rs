//! Logs and measures each request. A request id appears in all log lines of a request and in its
//! response.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use backend::{RequestContext, RequestId};
use tracing::Instrument;

use crate::{
    answer::{Failure, in_our_form},
    app_state::AppState,
    connections::Connection,
    cors, security,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The same id under App Services' name.
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-appservices-request-id");

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
    let request_id = RequestId::new(id.to_str().unwrap_or_default());
    request.extensions_mut().insert(request_id.clone());
    let path = request.uri().path().to_owned();
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
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let failed = Failed { id: &request_id, method: method.as_str(), path: &path, is_known: route != "none" };
        failed.finish(&state, &mut response, &failure, RequestContext::from_origin(origin), begun.elapsed());
    }
    response.headers_mut().insert(CORRELATION_ID, id.clone());
    response.headers_mut().insert(REQUEST_ID, id);
    security::protect(response.headers_mut(), is_private, state.speaks_tls);
    response
}

/// A request whose response is an error.
struct Failed<'a> {
    id: &'a RequestId,
    method: &'a str,
    path: &'a str,
    /// True if there is such an endpoint. Other requests are not worth an entry.
    is_known: bool,
}

impl Failed<'_> {
    /// Adds the entry of the request to the log unless the backend did so, and a link to the
    /// response by which the operator finds it.
    fn finish(
        &self,
        state: &AppState,
        response: &mut Response,
        failure: &Failure,
        circumstances: RequestContext,
        duration: Duration,
    ) {
        if !self.is_known {
            return;
        }
        if !self.id.is_settled() {
            let circumstances = circumstances.with_id(self.id.clone());
            let failed = (response.status().as_u16(), &*failure.0);
            state.backend.log_failure(&circumstances, (self.method, self.path), failed, duration);
        }
        // Without an entry, because the client had too many, a link would lead nowhere.
        if !self.id.is_logged() {
            return;
        }
        let link = format!("{}/logs?co_id={}", state.url, escaped(self.id.as_str()));
        *response.body_mut() = Body::from(failure.body(&link));
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// Escapes an id for a query. [`is_plain`] has checked its characters.
fn escaped(id: &str) -> String {
    let escape = |letter: char| match letter {
        ':' => "%3A".to_owned(),
        '/' => "%2F".to_owned(),
        '=' => "%3D".to_owned(),
        '+' => "%2B".to_owned(),
        letter => letter.to_string(),
    };
    id.chars().map(escape).collect()
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
