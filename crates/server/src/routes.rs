//! The routes, each of which makes a request of what came in and an answer of what comes back.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Extension, Path, Query, Request as HttpRequest, State},
    http::{HeaderMap, StatusCode, header},
    routing::{any, delete, get, post},
};
use backend::{
    Backend, ErrorCode, Origin, Request, Response, Secret, StoreError,
    ejson::{Canonical, Json},
    request::{AccessGrant, CallFunction, Credentials, EmailPasswordRequest, LogIn, Session},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocumentBuf},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::json;

use crate::{
    answer::{Answer, EVENTS},
    body::{Incoming, Received, bearer, decoded, document, object, text, too_large_decoded},
    budget::Budget,
    connections::Connection,
    events::EventStream,
    large_events::{Client, LargeEvents},
    limits::{MAX_DECODED, PAYLOAD_BODY, SMALL_ANSWER, SMALL_BODY},
    metrics::Metrics,
    origin::Proxies,
    pieces::{self, Content, Reader, Value},
    request_log::{self, Peer},
    stream_permits::Streams,
    workers::Workers,
};

/// Asks for the custom data beside the token, of any size; a token alone carries what fits into it.
const CUSTOM_DATA_HEADER: &str = "userkeep-custom-data";

/// What every route knows.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) backend: Arc<Backend>,
    pub(crate) url: String,
    pub(crate) max_body: usize,
    pub(crate) client_timeout: Duration,
    pub(crate) proxies: Proxies,
    pub(crate) metrics: Metrics,
    /// Becomes true when the server is to end.
    pub(crate) ending: tokio::sync::watch::Receiver<bool>,
    pub(crate) streams: Streams,
    /// The bytes of large bodies, and of large answers that wait to be read.
    pub(crate) bodies: Arc<Budget>,
    pub(crate) answers: Arc<Budget>,
    pub(crate) workers: Workers,
    pub(crate) events: LargeEvents,
    /// True if clients reach the server itself over TLS.
    pub(crate) speaks_tls: bool,
}

/// What is asked of `local-userpass` but a log-in, by the ends of the routes.
const EMAIL_PASSWORD_ACTIONS: [&str; 7] =
    ["register", "confirm", "confirm/send", "confirm/call", "reset", "reset/send", "reset/call"];

type Shared = State<Arc<AppState>>;

pub(crate) fn router(state: Arc<AppState>) -> Router {
    let api = |path: &str| format!("/api/client/v2.0{path}");
    let app = |path: &str| api(&format!("/app/{{app}}{path}"));
    let mut router = Router::new()
        .route(&app("/location"), get(location))
        .route(&app("/auth/jwks"), get(public_keys))
        .route(&app("/auth/providers/{provider}/login"), post(log_in))
        .route(&app("/functions/call"), post(call_function).get(watch))
        .route(&app("/push/providers/{service}/registration"), any(push))
        .route(&api("/auth/profile"), get(profile))
        .route(&api("/auth/session"), post(refresh_session).delete(end_session))
        .route(&api("/auth/delete"), delete(delete_user))
        .route(&api("/auth/api_keys"), any(api_keys))
        .route(&api("/auth/api_keys/{*rest}"), any(api_keys))
        .route("/healthz", get(health));
    for action in EMAIL_PASSWORD_ACTIONS {
        let handler = move |state, origin, path, request| email_password(state, origin, path, action, request);
        router = router.route(&app(&format!("/auth/providers/local-userpass/{action}")), post(handler));
    }
    router
        .fallback(|| async { Answer::error(StatusCode::NOT_FOUND, ErrorCode::BadRequest, "there is no such endpoint") })
        .method_not_allowed_fallback(|| async {
            let message = "the endpoint does not take this method";
            Answer::error(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, message)
        })
        // One layer for all: each is a copy and an allocation for each request.
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), request_log::request))
        .with_state(state)
}

impl AppState {
    fn check_app(&self, app: &str) -> Result<(), Answer> {
        if app == self.backend.app_id() {
            return Ok(());
        }
        let message = format!("cannot find app using Client App ID '{app}'");
        Err(Answer::error(StatusCode::NOT_FOUND, ErrorCode::BadRequest, message))
    }

    /// Reads a body of up to `largest` bytes on a route without tokens.
    async fn read(&self, request: HttpRequest, origin: &Origin, largest: usize) -> Result<Received, Answer> {
        Incoming { state: self, origin, largest: largest.min(self.max_body), token: None }.read(request).await
    }

    async fn handle(&self, request: Request, origin: Origin) -> Result<Response, Answer> {
        Ok(self.backend.handle_from(request, origin).await?)
    }
}

/// Answers 200 if the store can be read, on the listener of the clients.
pub(crate) async fn health(State(state): Shared) -> Result<Answer, Answer> {
    check_health(&state).await.map_err(|error| {
        // No path and no host: what a client over a network may read says what kind of failure it is.
        unhealthy(match error {
            StoreError::Open { .. } | StoreError::OpenInThisProcess { .. } => {
                "the store cannot be opened; the log has the reason"
            }
            StoreError::FileReplaced { .. } => "the store's file was removed or replaced",
            StoreError::NewerFormat { .. } => "the store was written by a newer version of Userkeep",
            StoreError::NotAStore { .. } => "the store's file is not a Userkeep store",
            StoreError::Unavailable { .. } => "the database is not available",
            _ => "the store cannot be read; the log has the reason",
        })
    })
}

/// The same on the operator's listener, with the reason.
pub(crate) async fn health_for_operator(State(state): Shared) -> Result<Answer, Answer> {
    check_health(&state).await.map_err(|error| unhealthy(format!("the store cannot be read: {error}")))
}

async fn check_health(state: &AppState) -> Result<Answer, StoreError> {
    match state.backend.check_health().await {
        Ok(()) => Ok(Answer::json(&json!({ "status": "ok" }))),
        Err(error) => {
            tracing::warn!(%error, "health check failed: the store cannot be read");
            Err(error)
        }
    }
}

fn unhealthy(message: impl Into<String>) -> Answer {
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::InternalServerError, message)
}

/// The tokens of a session, with the custom data beside them for clients that ask for it.
struct Tokens {
    access: AccessGrant,
    /// The rest of the answer to a log-in.
    session: Option<NewSession>,
    has_custom_data: bool,
}

/// A session that a log-in has opened.
struct NewSession {
    refresh_token: Secret,
    user_id: String,
    device_id: String,
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("access_token", self.access.access_token.expose())?;
        if let Some(NewSession { refresh_token, user_id, device_id }) = &self.session {
            map.serialize_entry("refresh_token", refresh_token.expose())?;
            map.serialize_entry("user_id", user_id)?;
            map.serialize_entry("device_id", device_id)?;
        }
        if self.has_custom_data {
            let custom_data =
                self.access.custom_data.as_deref().map_or(RawBsonRef::Null, |data| RawBsonRef::Document(data));
            map.serialize_entry("custom_data", &Canonical(custom_data))?;
        }
        map.end()
    }
}

impl Content for Tokens {
    fn size(&self) -> usize {
        let custom_data = self.access.custom_data.as_ref().filter(|_| self.has_custom_data);
        custom_data.map_or(0, |custom_data| custom_data.as_bytes().len())
    }
}

impl Tokens {
    /// The answer to a log-in or a refresh.
    async fn answer(
        self,
        state: &AppState,
        status: StatusCode,
        origin: &Origin,
        connection: Option<Arc<Connection>>,
    ) -> Result<Answer, Answer> {
        let user = match &self.session {
            Some(session) => session.user_id.clone(),
            None if self.size() > SMALL_ANSWER => state.backend.check_access_token(&self.access.access_token).await?,
            None => String::new(),
        };
        let reader = Reader { origin, user: &user, connection, has_written: false };
        pieces::answer(state, status, self, reader).await
    }
}

async fn location(State(state): Shared, Path(app): Path<String>) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    let socket = state.url.replacen("http", "ws", 1);
    Ok(Answer::json(&json!({
        "deployment_model": "GLOBAL",
        "location": "US-VA",
        "hostname": state.url,
        "ws_hostname": socket,
    })))
}

async fn public_keys(State(state): Shared, Path(app): Path<String>) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    let keys = state.backend.public_keys().await?;
    let keys: Vec<serde_json::Value> = keys
        .into_iter()
        .map(|key| json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.id, "x": key.x }))
        .collect();
    Ok(Answer::json(&json!({ "keys": keys })))
}

#[derive(Deserialize)]
struct LogInQuery {
    link: Option<String>,
}

async fn log_in(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Path((app, provider)): Path<(String, String)>,
    Query(query): Query<LogInQuery>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    // Those carry what the application makes of them.
    let largest =
        if matches!(provider.as_str(), "custom-function" | "custom-token") { PAYLOAD_BODY } else { SMALL_BODY };
    let received = state.read(request, &origin, largest).await?;
    // Never a 401, which makes realm-web refresh and ask again for ever.
    if query.link.is_some_and(|link| link == "true") {
        let access_token = bearer(&headers).map_err(|_| Answer::bad_request("linking needs a logged-in user"))?;
        return match state.handle(Request::Link { access_token }, origin).await {
            Err(Answer::Error { error, .. }) => Err(Answer::bad_request(error.message)),
            _ => Err(Answer::unexpected()),
        };
    }
    let (log_in, _permit) = received.parse(&state, move |bytes| credentials(&provider, bytes)).await?;
    let log_in = Request::LogIn(log_in);
    let Response::Session(session) = state.handle(log_in, origin).await? else {
        return Err(Answer::unexpected());
    };
    let Session { access, refresh_token, user_id, device_id } = session;
    let session = Some(NewSession { refresh_token, user_id, device_id });
    let tokens = Tokens { access, session, has_custom_data: headers.contains_key(CUSTOM_DATA_HEADER) };
    tokens.answer(&state, StatusCode::OK, &origin, peer.connection).await
}

/// A log-in as it is sent.
fn credentials(provider: &str, bytes: &[u8]) -> Result<LogIn, Answer> {
    let body = object(bytes)?;
    let credentials = match provider {
        "anon-user" => Credentials::Anonymous,
        "local-userpass" => {
            Credentials::EmailPassword { email: text(&body, "username")?, password: text(&body, "password")?.into() }
        }
        other => Credentials::Other(other.to_owned()),
    };
    let device =
        body.get("options").and_then(|options| options.get("device")).and_then(|device| device.get("deviceId"));
    // A plain string, or an ObjectId in Extended JSON.
    let device_id = device.and_then(|id| id.get("$oid").unwrap_or(id).as_str()).map(str::to_owned);
    Ok(LogIn { credentials, device_id })
}

/// The requests of `local-userpass` but a log-in. Whoever is logged in has nothing to do with them.
async fn email_password(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Path(app): Path<String>,
    action: &'static str,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    let largest = if action == "reset/call" { PAYLOAD_BODY } else { SMALL_BODY };
    let received = state.read(request, &origin, largest).await?;
    let (request, _permit) = received.parse(&state, move |bytes| email_password_request(action, bytes)).await?;
    let created = matches!(request, EmailPasswordRequest::Register { .. });
    state.handle(Request::EmailPassword(request), origin).await?;
    Ok(if created { Answer::created(&json!({})) } else { Answer::Nothing })
}

/// A request of `local-userpass` as it is sent.
fn email_password_request(action: &str, bytes: &[u8]) -> Result<EmailPasswordRequest, Answer> {
    let body = object(bytes)?;
    let email = || text(&body, "email");
    Ok(match action {
        "register" => {
            EmailPasswordRequest::Register { email: email()?, password: Secret::from(text(&body, "password")?) }
        }
        "confirm" => EmailPasswordRequest::Confirm,
        "confirm/send" => EmailPasswordRequest::ResendConfirmation { email: email()? },
        "confirm/call" => EmailPasswordRequest::RetryCustomConfirmation { email: email()? },
        "reset" => EmailPasswordRequest::Reset,
        "reset/send" => EmailPasswordRequest::SendReset { email: email()? },
        _ => EmailPasswordRequest::CallResetFunction { email: email()? },
    })
}

async fn profile(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    let request = Request::Profile { access_token: bearer(&headers)? };
    let Response::Profile(profile) = state.handle(request, origin).await? else { return Err(Answer::unexpected()) };
    Ok(Answer::json(&json!({
        "user_id": profile.user_id,
        "type": profile.kind,
        "identities": profile.identities,
        "data": Canonical(RawBsonRef::Document(&profile.data)),
    })))
}

async fn refresh_session(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    let request = Request::RefreshSession { refresh_token: bearer(&headers)? };
    let Response::AccessGrant(access) = state.handle(request, origin).await? else {
        return Err(Answer::unexpected());
    };
    let tokens = Tokens { access, session: None, has_custom_data: headers.contains_key(CUSTOM_DATA_HEADER) };
    tokens.answer(&state, StatusCode::CREATED, &origin, peer.connection).await
}

async fn end_session(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    state.handle(Request::EndSession { refresh_token: bearer(&headers)? }, origin).await?;
    Ok(Answer::Nothing)
}

async fn delete_user(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    state.handle(Request::DeleteUser { access_token: bearer(&headers)? }, origin).await?;
    Ok(Answer::Nothing)
}

async fn api_keys(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    state.handle(Request::ApiKeys { refresh_token: bearer(&headers)? }, origin).await?;
    Err(Answer::unexpected())
}

async fn push(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Path((app, service)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    state.handle(Request::Push { access_token: bearer(&headers)?, service }, origin).await?;
    Err(Answer::unexpected())
}

async fn call_function(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Path(app): Path<String>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    let token = bearer(&headers)?;
    let connection = request.extensions().get::<Peer>().and_then(|peer| peer.connection.clone());
    let incoming = Incoming { state: &state, origin: &origin, largest: state.max_body, token: Some(&token) };
    let received = incoming.read(request).await?;
    let access_token = token.clone();
    let (call, mut permit) = received.parse(&state, move |bytes| function_call(bytes, access_token)).await?;
    // The body is gone now, and what it has become is held until the call has been made.
    if let Some(permit) = &mut permit {
        permit.resize(call.arguments.as_bytes().len())?;
    }
    // Our own client asks so for a stream: what it asks may be long, and is not for the logs of those in between.
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == EVENTS) {
        return stream(state, &origin, connection, call).await;
    }
    // Before the call: a token that expires meanwhile must not turn what was done into a failure.
    let user = state.backend.check_access_token(&token).await?;
    let has_written = !matches!(call.name.as_str(), "find" | "findOne" | "count" | "aggregate");
    let call = Request::CallFunction(call);
    let Response::Value(value) = state.handle(call, origin).await? else { return Err(Answer::unexpected()) };
    drop(permit);
    pieces::answer(
        &state,
        StatusCode::OK,
        Value(value),
        Reader { origin: &origin, user: &user, connection, has_written },
    )
    .await
}

/// The query of a call whose answer is a stream of events.
#[derive(Deserialize)]
struct WatchQuery {
    baas_request: String,
    baas_at: Option<String>,
}

async fn watch(
    State(state): Shared,
    Extension(origin): Extension<Origin>,
    Path(app): Path<String>,
    Query(query): Query<WatchQuery>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    state.check_app(&app)?;
    // In the query it is the SDK's, in the header realm-web's.
    let access_token = match query.baas_at {
        Some(token) => Secret::from(token),
        None => bearer(&headers)?,
    };
    // What forms make of a plus sign.
    let request = STANDARD.decode(query.baas_request.replace(' ', "+"));
    let request = request.map_err(|_| Answer::bad_request("'baas_request' is not base64"))?;
    stream(state, &origin, peer.connection.clone(), function_call(&request, access_token)?).await
}

/// Begins to answer with events.
async fn stream(
    state: Arc<AppState>,
    origin: &Origin,
    connection: Option<Arc<Connection>>,
    call: CallFunction,
) -> Result<Answer, Answer> {
    let held = state.streams.acquire(origin, connection.as_ref())?;
    let mut permit = state.answers.permit(origin);
    let user = state.backend.check_access_token(&call.access_token).await?;
    permit.assign(&user)?;
    let client = Client { origin: *origin, user: user.into() };
    let watcher = state.backend.watch(call).await?;
    Ok(Answer::Events(EventStream { state, watcher, permit, client, connection, _held: held }.into_body()))
}

/// A call as it is sent: `{ name, service, arguments }`.
fn function_call(bytes: &[u8], access_token: Secret) -> Result<CallFunction, Answer> {
    let mut body = object(bytes)?;
    let name = text(&body, "name")?;
    let service = body.get("service").map(|_| text(&body, "service")).transpose()?;
    let arguments = match body.remove("arguments") {
        None => Vec::new(),
        Some(Json::Array(arguments)) => arguments,
        Some(_) => return Err(Answer::bad_request("'arguments' must be an array")),
    };
    let arguments = match &service {
        Some(_) => match <[Json; 1]>::try_from(arguments) {
            Ok([argument]) => document(argument)?,
            Err(_) => return Err(Answer::bad_request("a function of a data source takes one argument")),
        },
        None => {
            let mut all = RawDocumentBuf::new();
            if let RawBson::Array(arguments) = decoded(Json::Array(arguments))? {
                all.append(bson::raw::cstr!("arguments"), arguments);
            }
            all
        }
    };
    if arguments.as_bytes().len() > MAX_DECODED {
        return Err(too_large_decoded());
    }
    Ok(CallFunction { access_token, service, name, arguments })
}
