//! The routes, each of which makes a request of what came in and an answer of what comes back.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Query, Request as HttpRequest, State},
    http::{HeaderMap, StatusCode},
    routing::{any, delete, get, post},
};
use backend::{
    Backend, Request, Response, Secret,
    request::{CallFunction, Credentials, EmailPasswordRequest, LogIn, Session},
};
use bson::{Bson, RawDocumentBuf};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    answer::{Answer, in_our_form},
    body::{bearer, document, object, text},
    cors,
};

/// What every route knows.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) backend: Arc<Backend>,
    pub(crate) url: String,
    pub(crate) max_body: usize,
}

/// What is asked of `local-userpass` but a log-in, by the ends of the routes.
const EMAIL_PASSWORD_ACTIONS: [&str; 7] =
    ["register", "confirm", "confirm/send", "confirm/call", "reset", "reset/send", "reset/call"];

type Shared = State<Arc<Site>>;

pub(crate) fn router(site: Site) -> Router {
    let site = Arc::new(site);
    let email_password_routes = EMAIL_PASSWORD_ACTIONS.iter().fold(Router::new(), |router, action| {
        let handler = move |site, path, request| email_password(site, path, action, request);
        router.route(&format!("/auth/providers/local-userpass/{action}"), post(handler))
    });
    let app = Router::new()
        .merge(email_password_routes)
        .route("/location", get(location))
        .route("/auth/jwks", get(public_keys))
        .route("/auth/providers/{provider}/login", post(log_in))
        .route("/functions/call", post(call_function))
        .route("/push/providers/{service}/registration", any(push));
    let api = Router::new()
        .nest("/app/{app}", app)
        .route("/auth/profile", get(profile))
        .route("/auth/session", post(refresh_session).delete(end_session))
        .route("/auth/delete", delete(delete_user))
        .route("/auth/api_keys", any(api_keys))
        .route("/auth/api_keys/{*rest}", any(api_keys));
    Router::new()
        .nest("/api/client/v2.0", api)
        .fallback(|| async { Answer::error(StatusCode::NOT_FOUND, "BadRequest", "there is no such endpoint") })
        .method_not_allowed_fallback(|| async {
            Answer::error(StatusCode::METHOD_NOT_ALLOWED, "BadRequest", "the endpoint does not take this method")
        })
        .layer(axum::middleware::map_response(in_our_form))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&site), cors::check))
        .with_state(site)
}

impl Site {
    fn check_app(&self, app: &str) -> Result<(), Answer> {
        if app == self.backend.app_id() {
            return Ok(());
        }
        Err(Answer::error(StatusCode::NOT_FOUND, "BadRequest", format!("cannot find app using Client App ID '{app}'")))
    }

    async fn read(&self, body: Body) -> Result<serde_json::Map<String, Value>, Answer> {
        let bytes = to_bytes(body, self.max_body).await.map_err(|_| {
            Answer::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "BadRequest",
                format!("the body is larger than {} bytes, or did not arrive whole", self.max_body),
            )
        })?;
        object(&bytes)
    }

    async fn handle(&self, request: Request) -> Result<Response, Answer> {
        Ok(self.backend.handle(request).await?)
    }
}

fn unexpected() -> Answer {
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "internal server error")
}

async fn location(State(site): Shared, Path(app): Path<String>) -> Result<Answer, Answer> {
    site.check_app(&app)?;
    let socket = site.url.replacen("http", "ws", 1);
    Ok(Answer::Json(json!({
        "deployment_model": "GLOBAL",
        "location": "US-VA",
        "hostname": site.url,
        "ws_hostname": socket,
    })))
}

async fn public_keys(State(site): Shared, Path(app): Path<String>) -> Result<Answer, Answer> {
    site.check_app(&app)?;
    let keys = site.backend.public_keys().await?;
    let keys: Vec<Value> = keys
        .into_iter()
        .map(|key| json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.id, "x": key.x }))
        .collect();
    Ok(Answer::Json(json!({ "keys": keys })))
}

#[derive(Deserialize)]
struct LogInQuery {
    link: Option<String>,
}

async fn log_in(
    State(site): Shared,
    Path((app, provider)): Path<(String, String)>,
    Query(query): Query<LogInQuery>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    site.check_app(&app)?;
    let body = site.read(request.into_body()).await?;
    // Never a 401, which makes realm-web refresh and ask again for ever.
    if query.link.is_some_and(|link| link == "true") {
        let access_token = bearer(&headers).map_err(|_| Answer::bad_request("linking needs a logged-in user"))?;
        return match site.handle(Request::Link { access_token }).await {
            Err(Answer::Error { message, .. }) => Err(Answer::bad_request(message)),
            _ => Err(unexpected()),
        };
    }
    let credentials = match provider.as_str() {
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
    let Response::Session(session) = site.handle(Request::LogIn(LogIn { credentials, device_id })).await? else {
        return Err(unexpected());
    };
    let Session { access, refresh_token, user_id, device_id } = session;
    Ok(Answer::Json(json!({
        "access_token": access.access_token.expose(),
        "refresh_token": refresh_token.expose(),
        "user_id": user_id,
        "device_id": device_id,
    })))
}

/// The requests of `local-userpass` but a log-in. Whoever is logged in has nothing to do with them.
async fn email_password(
    State(site): Shared,
    Path(app): Path<String>,
    action: &str,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    site.check_app(&app)?;
    let body = site.read(request.into_body()).await?;
    let email = || text(&body, "email");
    let request = match action {
        "register" => {
            EmailPasswordRequest::Register { email: email()?, password: Secret::from(text(&body, "password")?) }
        }
        "confirm" => EmailPasswordRequest::Confirm,
        "confirm/send" => EmailPasswordRequest::ResendConfirmation { email: email()? },
        "confirm/call" => EmailPasswordRequest::RetryCustomConfirmation { email: email()? },
        "reset" => EmailPasswordRequest::Reset,
        "reset/send" => EmailPasswordRequest::SendReset { email: email()? },
        _ => EmailPasswordRequest::CallResetFunction { email: email()? },
    };
    let created = matches!(request, EmailPasswordRequest::Register { .. });
    site.handle(Request::EmailPassword(request)).await?;
    Ok(if created { Answer::Created(json!({})) } else { Answer::Nothing })
}

async fn profile(State(site): Shared, headers: HeaderMap) -> Result<Answer, Answer> {
    let Response::Profile(profile) = site.handle(Request::Profile { access_token: bearer(&headers)? }).await? else {
        return Err(unexpected());
    };
    let data = Bson::try_from(bson::RawBson::Document(profile.data)).map_err(|_| unexpected())?;
    Ok(Answer::Json(json!({
        "user_id": profile.user_id,
        "type": profile.kind,
        "identities": profile.identities,
        "data": data.into_canonical_extjson(),
    })))
}

async fn refresh_session(State(site): Shared, headers: HeaderMap) -> Result<Answer, Answer> {
    let refresh_token = bearer(&headers)?;
    let Response::Access(access) = site.handle(Request::RefreshSession { refresh_token }).await? else {
        return Err(unexpected());
    };
    Ok(Answer::Created(json!({ "access_token": access.access_token.expose() })))
}

async fn end_session(State(site): Shared, headers: HeaderMap) -> Result<Answer, Answer> {
    site.handle(Request::EndSession { refresh_token: bearer(&headers)? }).await?;
    Ok(Answer::Nothing)
}

async fn delete_user(State(site): Shared, headers: HeaderMap) -> Result<Answer, Answer> {
    site.handle(Request::DeleteUser { access_token: bearer(&headers)? }).await?;
    Ok(Answer::Nothing)
}

async fn api_keys(State(site): Shared, headers: HeaderMap) -> Result<Answer, Answer> {
    site.handle(Request::ApiKeys { refresh_token: bearer(&headers)? }).await?;
    Err(unexpected())
}

async fn push(
    State(site): Shared,
    Path((app, service)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer, Answer> {
    site.check_app(&app)?;
    site.handle(Request::Push { access_token: bearer(&headers)?, service }).await?;
    Err(unexpected())
}

async fn call_function(
    State(site): Shared,
    Path(app): Path<String>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<Answer, Answer> {
    site.check_app(&app)?;
    let access_token = bearer(&headers)?;
    let mut body = site.read(request.into_body()).await?;
    let name = text(&body, "name")?;
    let service = body.get("service").map(|_| text(&body, "service")).transpose()?;
    let arguments = match body.remove("arguments") {
        None => Vec::new(),
        Some(Value::Array(arguments)) => arguments,
        Some(_) => return Err(Answer::bad_request("'arguments' must be an array")),
    };
    let arguments = match (&service, <[Value; 1]>::try_from(arguments)) {
        (Some(_), Ok([argument])) => document(argument)?,
        (Some(_), Err(_)) => return Err(Answer::bad_request("a function of a data source takes one argument")),
        // No function of an app can be called yet; what it would be given does not matter.
        (None, _) => bson::Document::new(),
    };
    let arguments =
        RawDocumentBuf::try_from(arguments).map_err(|_| Answer::bad_request("the argument cannot be stored"))?;
    let call = CallFunction { access_token, service, name, arguments };
    let Response::Value(value) = site.handle(Request::CallFunction(call)).await? else { return Err(unexpected()) };
    let value = Bson::try_from(value).map_err(|_| unexpected())?;
    Ok(Answer::Json(value.into_canonical_extjson()))
}
