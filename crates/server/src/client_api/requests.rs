//! The endpoints other than function calls. The `protocol` crate decodes each request, and the
//! backend handles it.

use std::sync::Arc;

use axum::{
    extract::{Extension, Query, RawPathParams, Request as HttpRequest, State},
    http::{HeaderMap, StatusCode},
};
use backend::{Origin, Request, RequestContext, RequestId, Response, Secret};
use protocol::{
    BodyKind, CUSTOM_DATA_HEADER, Endpoint, Received, TokenKind, provider,
    reply::{ProfileBody, TokensBody, api_keys_body},
    request::{Action, ApiKeyAction},
};
use serde::Deserialize;
use serde_json::json;

use super::functions::describe;
use crate::{
    answer::Answer,
    app_state::{AppState, Shared},
    body::{Incoming, bearer},
    connections::Connection,
    limits::{MAX_PAYLOAD, PAYLOAD_BODY, SMALL_ANSWER, SMALL_BODY},
    pieces::{self, Reader},
    request_log::Peer,
};

/// The parts of a request other than its body.
pub(super) struct Beside {
    pub(super) origin: Extension<Origin>,
    pub(super) id: Extension<RequestId>,
    pub(super) peer: Extension<Peer>,
    pub(super) parameters: RawPathParams,
    pub(super) query: Query<LinkQuery>,
    pub(super) headers: HeaderMap,
}

/// The query parameters of a log-in. `link=true` links an identity to the user of the access
/// token.
#[derive(Deserialize)]
pub(super) struct LinkQuery {
    link: Option<String>,
}

/// Handles a request to an endpoint.
pub(super) async fn handle(
    endpoint: Endpoint,
    State(state): Shared,
    beside: Beside,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    let Beside { origin, id, peer, parameters, query, headers } = beside;
    let parameters: Vec<(String, String)> =
        parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if let Some(app) = parameter(&parameters, "app") {
        state.check_app(app)?;
    }
    let links = endpoint.token() == TokenKind::Linking && query.link.as_deref() == Some("true");
    let token = match endpoint.token() {
        TokenKind::None => None,
        TokenKind::Linking => bearer(&headers).ok().filter(|_| links),
        TokenKind::Access | TokenKind::Refresh => Some(bearer(&headers)?),
    };
    let received = match largest_body(endpoint, parameter(&parameters, "provider")) {
        Some(largest) => Some(state.read(request, &origin, largest).await?),
        None => None,
    };
    let decode = move |body: &[u8]| decode(endpoint, &parameters, links, token, body);
    let (request, _permit) = match received {
        Some(received) => received.parse(&state, decode).await?,
        None => (decode(&[])?, None),
    };
    let is_created = matches!(&request, Request::ProviderAction(action) if action.action == Action::Register);
    let is_list = matches!(&request, Request::ApiKeys(keys) if keys.action == ApiKeyAction::FetchAll);
    let circumstances = RequestContext::from_origin(*origin).with_id(id.0);
    let circumstances = match &request {
        Request::LogIn(_) | Request::ProviderAction(_) if state.backend.has_functions() => {
            circumstances.with_http(describe(&origin, &headers, ""))
        }
        _ => circumstances,
    };
    let response = match state.backend.handle(request, &circumstances).await {
        // Never status 401: realm-web would refresh the token and retry forever.
        Err(error) if links => return Err(Answer::bad_request(error.message)),
        response => response?,
    };
    let has_custom_data = headers.contains_key(CUSTOM_DATA_HEADER);
    let connection = peer.0.connection;
    match response {
        Response::Done(_) if is_created => Ok(Answer::created(&json!({}))),
        Response::Done(_) => Ok(Answer::Nothing),
        Response::Session(session) => {
            let tokens = TokensBody::of_session(session, has_custom_data);
            answer(&state, StatusCode::OK, tokens, &origin, connection).await
        }
        Response::AccessGrant(access) => {
            let status = if links { StatusCode::OK } else { StatusCode::CREATED };
            answer(&state, status, TokensBody::of_access(access, has_custom_data), &origin, connection).await
        }
        Response::Profile(profile) => Ok(Answer::json(&ProfileBody::from(&profile))),
        Response::ApiKeys(keys) if keys.is_empty() && !is_list => Ok(Answer::Nothing),
        Response::ApiKeys(keys) => Ok(Answer::json(&api_keys_body(&keys, is_list))),
        Response::Value(_) => Err(Answer::unexpected()),
    }
}

/// Returns a path parameter by name.
fn parameter<'p>(parameters: &'p [(String, String)], name: &str) -> Option<&'p str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Returns the maximum size of a body in bytes, or none if the endpoint reads no body. Only
/// log-ins with a custom function or a custom token carry a large payload.
fn largest_body(endpoint: Endpoint, provider: Option<&str>) -> Option<usize> {
    let has_payload = provider.is_none_or(|kind| matches!(kind, provider::CUSTOM_FUNCTION | provider::CUSTOM_TOKEN));
    match endpoint.body() {
        BodyKind::None => None,
        BodyKind::Payload if has_payload => Some(PAYLOAD_BODY),
        BodyKind::Small | BodyKind::Payload | BodyKind::Arguments => Some(SMALL_BODY),
    }
}

fn decode(
    endpoint: Endpoint,
    parameters: &[(String, String)],
    links: bool,
    token: Option<Secret>,
    body: &[u8],
) -> Result<Request, Answer> {
    let parameter = |name: &str| parameter(parameters, name);
    let received = Received { endpoint, parameter: &parameter, links, token, body, largest: MAX_PAYLOAD };
    Ok(Request::decode(&received)?)
}

/// Returns the response to a log-in, a link or a refresh.
async fn answer(
    state: &AppState,
    status: StatusCode,
    tokens: TokensBody,
    origin: &Origin,
    connection: Option<Arc<Connection>>,
) -> Result<Answer, Answer> {
    let user = match tokens.user_id() {
        Some(user) => user.to_owned(),
        None if tokens.size() > SMALL_ANSWER => state.backend.check_access_token(tokens.access_token()).await?,
        None => String::new(),
    };
    let reader = Reader { origin, user: &user, connection, has_written: false };
    pieces::answer(state, status, tokens, reader).await
}

impl AppState {
    /// Reads a body of up to `largest` bytes. No access token is verified before.
    async fn read(
        &self,
        request: HttpRequest,
        origin: &Origin,
        largest: usize,
    ) -> Result<crate::body::Received, Answer> {
        Incoming { state: self, origin, largest: largest.min(self.max_body), token: None }.read(request).await
    }
}
