//! The entries about log-ins and failed requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{
    DateTime,
    raw::{CStr, cstr},
};
use futures_util::future::FutureExt;

use super::{Entry, Kind};
use crate::{
    Error, RequestContext, Secret,
    auth::Origin,
    context::Context,
    request::{Arguments, Request},
    response::Response,
};

/// The id of a request, by which the operator finds its entry in the log.
///
/// ```
/// let id = backend::RequestId::new("6748f0aa0000000000000000");
/// assert!(!id.is_logged());
/// ```
#[derive(Debug, Clone)]
pub struct RequestId {
    text: Arc<str>,
    state: Arc<AtomicU8>,
}

/// The states of a request's failure: no entry yet, an entry that was left out, and an entry in
/// the log.
const OPEN: u8 = 0;
const LEFT_OUT: u8 = 1;
const LOGGED: u8 = 2;

/// The status of a request whose client hung up, as proxies log it.
const HUNG_UP: u16 = 499;

/// Returns the error in the entry of a request whose answer no one waited for.
pub(crate) fn canceled() -> (Error, Option<u16>) {
    let message = "canceled: the client did not wait for the end";
    (Error::new(crate::ErrorCode::FunctionExecutionError, message), Some(HUNG_UP))
}

impl RequestId {
    /// Uses a text as the id. It must be unique.
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), state: Arc::default() }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if the log has an entry about the failure of the request.
    pub fn is_logged(&self) -> bool {
        self.state.load(Ordering::Relaxed) == LOGGED
    }

    /// True if the log has an entry about the failure of the request, or left it out.
    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Relaxed) != OPEN
    }

    /// Notes that the entry about the failure of the request was added or left out.
    pub(crate) fn settle(&self, is_logged: bool) {
        self.state.store(if is_logged { LOGGED } else { LEFT_OUT }, Ordering::Relaxed);
    }
}

/// A request that failed before the backend handled it: for example, because its body could not be
/// read.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) request_id: &'a RequestId,
    pub(crate) duration: Duration,
    /// The method and the path, without the query.
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) error: &'a Error,
}

/// Adds an entry about a request that failed before the backend handled it.
pub(crate) fn received(context: &Context, received: &Received<'_>, circumstances: &RequestContext) {
    let Received { request_id, duration, method, path, status, error } = *received;
    let kind = match path {
        path if path.contains("/auth/api_keys") => Kind::ApiKey,
        path if path.contains("/auth/") => Kind::Auth,
        path if path.ends_with("/functions/call") => Kind::Function,
        _ => Kind::Api,
    };
    let now = context.logs.now().timestamp_millis();
    let started = DateTime::from_millis(now.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or_default()));
    let is_logged = context.logs.add(Entry {
        duration,
        origin: circumstances.origin,
        error: Some(error),
        status: Some(status),
        texts: vec![(cstr!("method"), method), (cstr!("path"), path)],
        ..Entry::new(kind, request_id.as_str(), started, &context.redaction)
    });
    request_id.settle(is_logged);
}

/// A request under way, as far as its entry needs it. The entry is also added if no one waits for
/// the end of the request.
pub(crate) struct RequestRecord {
    context: Arc<Context>,
    origin: Option<Origin>,
    is_ended: bool,
    kind: Kind,
    started: DateTime,
    since: Instant,
    request_id: Option<RequestId>,
    token: Token,
    /// The kind of a request about users, such as a log-in.
    event: Option<&'static str>,
    provider: Option<String>,
    service: Option<String>,
    /// The name of the function.
    name: Option<String>,
}

/// The token of a request, which names its user.
enum Token {
    None,
    Access(Secret),
    Refresh(Secret),
}

impl RequestRecord {
    /// Begins the record of a request. A call of a function gets the id of the request now, and
    /// others get it when they fail.
    pub(crate) fn begin(context: &Arc<Context>, request: &Request, circumstances: &RequestContext) -> Self {
        let mut record = Self {
            context: Arc::clone(context),
            origin: circumstances.origin,
            is_ended: false,
            kind: Kind::Auth,
            started: context.logs.now(),
            since: Instant::now(),
            request_id: circumstances.request_id.clone(),
            token: Token::None,
            event: None,
            provider: None,
            service: None,
            name: None,
        };
        record.describe(request);
        if record.kind == Kind::Function {
            record.request_id.get_or_insert_with(|| new_id(context));
        }
        record
    }

    fn describe(&mut self, request: &Request) {
        match request {
            Request::LogIn(log_in) => {
                self.event = Some("login");
                self.provider = Some(log_in.credentials.provider.clone());
            }
            Request::Link(link) => {
                self.event = Some("link");
                self.token = Token::Access(link.access_token.clone());
            }
            Request::ReadProfile(read) => {
                self.event = Some("profile");
                self.token = Token::Access(read.access_token.clone());
            }
            Request::RefreshSession(refresh) => {
                self.event = Some("refresh");
                self.token = Token::Refresh(refresh.refresh_token.clone());
            }
            Request::EndSession(end) => {
                self.event = Some("logout");
                self.token = Token::Refresh(end.refresh_token.clone());
            }
            Request::DeleteUser(delete) => {
                self.event = Some("delete");
                self.token = Token::Access(delete.access_token.clone());
            }
            Request::ProviderAction(action) => {
                self.event = Some(action.action.name());
                self.provider = Some(action.provider.clone());
            }
            Request::ApiKeys(keys) => {
                self.kind = Kind::ApiKey;
                self.token = Token::Refresh(keys.refresh_token.clone());
            }
            Request::CallFunction(call) => {
                self.token = Token::Access(call.access_token.clone());
                self.name = Some(call.name.clone());
                self.kind = match &call.arguments {
                    Arguments::Function(_) => Kind::Function,
                    Arguments::Service { service, .. } => {
                        self.service = Some(service.clone());
                        if call.name == "watch" { Kind::ServiceStream } else { Kind::ServiceFunction }
                    }
                };
            }
            Request::Push(push) => {
                self.kind = Kind::Push;
                self.service = Some(push.service.clone());
                self.token = Token::Access(push.access_token.clone());
            }
        }
    }

    /// Returns the id of the request, if it has one already.
    pub(crate) fn request_id(&self) -> Option<RequestId> {
        self.request_id.clone()
    }

    /// Adds the entry of a log-in, or of a failure that has no entry yet. `logged_in` is the id of
    /// the user who was logged in.
    pub(crate) fn end(mut self, logged_in: Option<&str>, error: Option<&Error>) {
        self.is_ended = true;
        match error {
            None if logged_in.is_none() => {}
            None => self.add(logged_in.map(ToOwned::to_owned), None, None),
            Some(error) => self.add_failure(error, None),
        }
    }

    fn add_failure(&self, error: &Error, status: Option<u16>) {
        if !self.request_id.as_ref().is_some_and(RequestId::is_settled) {
            self.add(self.user(), Some(error), status);
        }
    }

    fn add(&self, user: Option<String>, error: Option<&Error>, status: Option<u16>) {
        let request_id = self.request_id.clone().unwrap_or_else(|| new_id(&self.context));
        let texts = [
            (cstr!("event"), self.event),
            (cstr!("provider"), self.provider.as_deref()),
            (cstr!("service"), self.service.as_deref()),
            (cstr!("name"), self.name.as_deref()),
        ];
        let texts: Vec<(&'static CStr, &str)> =
            texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        let is_logged = self.context.logs.add(Entry {
            duration: self.since.elapsed(),
            user,
            origin: self.origin,
            error,
            status,
            texts,
            ..Entry::new(self.kind, request_id.as_str(), self.started, &self.context.redaction)
        });
        if error.is_some() {
            request_id.settle(is_logged);
        }
    }

    /// Returns the id of the user whose token the request had, if the token is valid and its
    /// session is known to be open. Never waits: after a request, what it needs is usually in
    /// memory.
    fn user(&self) -> Option<String> {
        let sessions = &self.context.sessions;
        let claim = match &self.token {
            Token::None => return None,
            Token::Access(token) => sessions.claim_of_access_token(token).now_or_never(),
            Token::Refresh(token) => sessions.claim_of_refresh_token(token).now_or_never(),
        };
        let claim = claim?.ok()?;
        let is_open = if self.context.main_store().is_remote() {
            sessions.is_known(&claim)
        } else {
            self.context.confirm(&claim).now_or_never().is_some_and(|confirmed| confirmed.is_ok())
        };
        is_open.then(|| claim.user_id().to_hex())
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.is_ended {
            let (error, status) = canceled();
            self.add_failure(&error, status);
        }
    }
}

/// Returns the id of the user who was logged in, if a response is the answer to a log-in.
pub(crate) fn logged_in(response: &Response) -> Option<&str> {
    match response {
        Response::Session(session) => Some(&session.user_id),
        _ => None,
    }
}

fn new_id(context: &Context) -> RequestId {
    RequestId::new(&context.environment.new_id().to_hex())
}
