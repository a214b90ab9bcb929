//! The endpoints that call functions and open streams of change events.

use std::sync::Arc;

use axum::{
    extract::{Extension, Path, Query, Request as HttpRequest, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use backend::{Origin, RequestContext, RequestId, Response, Secret, request::CallFunction};
use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{
    raw::{CString, RawArrayBuf, RawDocumentBuf, cstr},
    rawdoc,
};
use protocol::{EVENTS, request::Arguments};
use serde::Deserialize;

use crate::{
    answer::Answer,
    app_state::{AppState, Shared},
    body::{Incoming, bearer},
    connections::Connection,
    events::EventStream,
    large_events::Client,
    limits::MAX_DECODED,
    pieces::{self, Reader, Value},
    request_log::Peer,
};

/// The data source functions that only read, so that a client may safely retry them.
const READS: [&str; 4] = ["find", "findOne", "count", "aggregate"];

/// Handles `POST …/functions/call`.
pub(super) async fn call(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Extension(id): Extension<RequestId>,
    Path(app): Path<String>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    let token = bearer(&headers)?;
    // Before the body is read, so that only authenticated users cause work. Also before the call,
    // because a token that expires during the call must not turn a completed write into an error.
    let user = state.backend.check_access_token(&token).await?;
    let connection = request.extensions().get::<Peer>().and_then(|peer| peer.connection.clone());
    let incoming = Incoming { state: &state, origin: &origin, largest: state.max_body, token: Some(&token) };
    let (call, mut permit) = incoming.read_call(request, token.clone()).await?;
    // The decoded arguments stay in memory until the call returns.
    if let Some(permit) = &mut permit {
        permit.resize(call.arguments.size())?;
    }
    let circumstances = RequestContext::from_origin(origin).with_id(id);
    // Userkeep's own client opens streams with POST, because its arguments may be long and must
    // not appear in the logs of proxies.
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == EVENTS) {
        return stream(state, &circumstances, &user, connection, call).await;
    }
    let has_written = match &call.arguments {
        Arguments::Service { .. } => !READS.contains(&call.name.as_str()),
        Arguments::Function(_) => true,
    };
    let circumstances = match &call.arguments {
        Arguments::Service { .. } => circumstances,
        Arguments::Function(_) => circumstances.with_http(describe(&origin, &headers, &call.name)),
    };
    let Response::Value(value) = state.backend.handle(call.into(), &circumstances).await? else {
        return Err(Answer::unexpected());
    };
    drop(permit);
    let reader = Reader { origin: &origin, user: &user, connection, has_written };
    pieces::answer(&state, StatusCode::OK, Value(value), reader).await
}

/// Describes a call of a function as its `context.request`
/// (<https://www.mongodb.com/docs/atlas/app-services/functions/context/>). The headers do not
/// contain the access token.
pub(super) fn describe(origin: &Origin, headers: &HeaderMap, function: &str) -> RawDocumentBuf {
    let mut shown = RawDocumentBuf::new();
    for name in headers.keys().filter(|name| *name != header::AUTHORIZATION && *name != header::COOKIE) {
        let values: RawArrayBuf =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        if let Ok(name) = CString::try_from(canonical(name.as_str())) {
            shown.append(name, values);
        }
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut request = rawdoc! {
        "remoteIPAddress": origin.address.to_string(),
        "requestHeaders": shown,
        "httpMethod": "POST",
        "rawQueryString": "",
        "service": "",
        "action": function,
    };
    for (key, value) in
        [(cstr!("httpReferrer"), text(header::REFERER)), (cstr!("httpUserAgent"), text(header::USER_AGENT))]
    {
        if let Some(value) = value {
            request.append(key, value);
        }
    }
    request
}

/// Writes the name of a header in the usual form, such as `Content-Type`.
fn canonical(name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        format!("{}{rest}", first.to_ascii_uppercase())
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// The query parameters of a request that opens a stream of events.
#[derive(Deserialize)]
pub(super) struct WatchQuery {
    baas_request: String,
    baas_at: Option<String>,
}

/// Handles `GET …/functions/call`, which opens a stream of change events.
pub(super) async fn watch(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Path(app): Path<String>,
    Query(query): Query<WatchQuery>,
    Extension(id): Extension<RequestId>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    // The SDK sends the token in the query, and realm-web in the header.
    let access_token = match query.baas_at {
        Some(token) => Secret::from(token),
        None => bearer(&headers)?,
    };
    let user = state.backend.check_access_token(&access_token).await?;
    // The query parser decodes a plus sign as a space.
    let request = STANDARD.decode(query.baas_request.replace(' ', "+"));
    let request = request.map_err(|_| Answer::bad_request("'baas_request' is not base64"))?;
    let call = CallFunction::read(&request, access_token, MAX_DECODED)?;
    let circumstances = RequestContext::from_origin(origin).with_id(id);
    stream(state, &circumstances, &user, peer.connection.clone(), call).await
}

/// Opens a stream and returns the response that sends its events.
async fn stream(
    state: Arc<AppState>,
    circumstances: &RequestContext,
    user: &str,
    connection: Option<Arc<Connection>>,
    call: CallFunction,
) -> Result<Answer, Answer> {
    let origin = circumstances.origin.as_ref().ok_or_else(Answer::unexpected)?;
    let held = state.streams.acquire(origin, connection.as_ref())?;
    let mut permit = state.answers.permit(origin);
    permit.assign(user)?;
    let client = Client { origin: *origin, user: user.into() };
    let watcher = state.backend.watch_for(call, circumstances).await?;
    Ok(Answer::Events(EventStream { state, watcher, permit, client, connection, _held: held }.into_body()))
}
