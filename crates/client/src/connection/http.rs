//! Connections to a remote backend over HTTP: the App Services client API, which `crates/server`
//! implements.

mod events;

use std::{pin::pin, time::Duration};

use backend::{Request, Response, request::CallFunction};
use futures_util::future::{self, BoxFuture, Either, FutureExt};
use protocol::{
    API, CUSTOM_DATA_BESIDE, CUSTOM_DATA_HEADER, EVENTS, Endpoint, HttpRequest, JSON,
    reply::{Failure, Reply, Unreadable},
};
use reqwest::{Client, Url, header};
use tokio::sync::{OnceCell, watch};

use super::{Connection, EventStream};
use crate::{Error, NetworkError, Result};

/// Default time limit of a request, as in the SDK.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a remote backend. It keeps its sockets open between requests.
#[derive(Debug)]
pub struct Http {
    client: Client,
    app_id: String,
    base_url: Url,
    /// The URL for requests, which the backend names in its response to the first one.
    host: OnceCell<Url>,
    timeout: Duration,
    closed: watch::Sender<bool>,
}

impl Http {
    /// Returns a connection for an app. Nothing is sent yet. `certificates`, in PEM, are trusted
    /// in addition to those of the system.
    ///
    /// # Errors
    /// If the URL is not an HTTP URL, or a certificate cannot be read.
    pub fn new(app_id: &str, base_url: &str, timeout: Option<Duration>, certificates: &[u8]) -> Result<Self> {
        let timeout = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
        let unusable = |error: reqwest::Error| {
            Error::custom(format!("the HTTP client cannot be created: {}", NetworkError::of(&error)))
        };
        let mut client = Client::builder()
            .timeout(timeout)
            .user_agent(concat!("userkeep/", env!("CARGO_PKG_VERSION")))
            // Like `fetch` in Node, which the SDK used.
            .no_proxy();
        if !certificates.is_empty() {
            client = client.tls_certs_merge(reqwest::Certificate::from_pem_bundle(certificates).map_err(unusable)?);
        }
        Ok(Self {
            client: client.build().map_err(unusable)?,
            app_id: app_id.to_owned(),
            base_url: parse_url(base_url).ok_or_else(|| {
                // The URL is not shown, because it may contain a password.
                Error::custom("Expected 'baseUrl' to begin with http:// or https:// and to name a host, and no user")
            })?,
            host: OnceCell::new(),
            timeout,
            closed: watch::Sender::new(false),
        })
    }

    /// Returns the URL for requests. The first request fetches it from the base URL; a failed
    /// fetch is repeated by the next request.
    async fn host(&self) -> Result<&Url> {
        self.host
            .get_or_try_init(|| async {
                let path = format!("{API}{}", Endpoint::Location.path());
                let segments = path.split('/').filter(|segment| !segment.is_empty());
                let segments = segments.map(|segment| if segment == "{app}" { &self.app_id } else { segment });
                let url = self.url(&self.base_url, segments);
                let received = self.exchange(self.client.get(url.clone()), &url).await?;
                let hostname = received.reply().location().map_err(|error| received.error(error))?;
                let unusable = || Error::malformed_json(format!("the backend's hostname is not a URL: {hostname}"));
                parse_url(&hostname).ok_or_else(unusable)
            })
            .await
    }

    fn url<S: AsRef<str>>(&self, host: &Url, segments: impl IntoIterator<Item = S>) -> Url {
        let mut url = host.clone();
        // Never fails, because an HTTP URL has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn answer(&self, request: Request) -> Result<Response> {
        let call = request.encode(&self.app_id).map_err(unwritten)?;
        let mut url = self.url(self.host().await?, &call.segments);
        url.set_query(call.query);
        let mut sent = self.request(&call, &url, JSON);
        if request.returns_custom_data() {
            sent = sent.header(CUSTOM_DATA_HEADER, CUSTOM_DATA_BESIDE);
        }
        let received = self.exchange(sent, &url).await?;
        request.read_reply(&received.reply()).map_err(|error| received.error(error))
    }

    fn request(&self, call: &HttpRequest, url: &Url, accept: &str) -> reqwest::RequestBuilder {
        let method = match call.endpoint.method() {
            protocol::Method::Get => reqwest::Method::GET,
            protocol::Method::Post => reqwest::Method::POST,
            protocol::Method::Put => reqwest::Method::PUT,
            protocol::Method::Delete => reqwest::Method::DELETE,
        };
        let mut sent = self.client.request(method, url.clone()).header(header::ACCEPT, accept);
        if let Some(token) = &call.token {
            sent = sent.bearer_auth(token.expose());
        }
        if let Some(body) = &call.body {
            sent = sent.header(header::CONTENT_TYPE, JSON).body(body.clone());
        }
        sent
    }

    async fn begin_to_watch(&self, call: CallFunction) -> Result<Box<dyn EventStream>> {
        let call = Request::from(call).encode(&self.app_id).map_err(unwritten)?;
        let url = self.url(self.host().await?, &call.segments);
        let sent = self.request(&call, &url, EVENTS);
        // A stream has no end to wait for, so the time limit applies to its head only.
        let sent = sent.timeout(Duration::from_secs(u32::MAX.into())).send();
        let answer = match tokio::time::timeout(self.timeout, sent).await {
            Ok(answer) => answer.map_err(|error| interrupted(&url, NetworkError::of(&error)))?,
            Err(_) => return Err(interrupted(&url, NetworkError::timed_out())),
        };
        if answer.status().is_success() {
            return Ok(Box::new(events::Events::new(answer)));
        }
        let received = self.receive(answer, &url).await?;
        Err(received.error(Unreadable::Failure(received.reply().failure())))
    }

    async fn exchange(&self, request: reqwest::RequestBuilder, url: &Url) -> Result<ReceivedReply> {
        let answer = request.send().await.map_err(|error| interrupted(url, NetworkError::of(&error)))?;
        self.receive(answer, url).await
    }

    async fn receive(&self, answer: reqwest::Response, url: &Url) -> Result<ReceivedReply> {
        let status = answer.status().as_u16();
        let is_json = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with(JSON));
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        Ok(ReceivedReply {
            status,
            is_json,
            retry_after,
            body: answer.bytes().await.map_err(|error| interrupted(url, NetworkError::of(&error)))?,
        })
    }
}

/// A response that has arrived.
struct ReceivedReply {
    status: u16,
    is_json: bool,
    retry_after: Option<u64>,
    body: bytes::Bytes,
}

impl ReceivedReply {
    fn reply(&self) -> Reply<'_> {
        Reply { status: self.status, is_json: self.is_json, body: &self.body }
    }

    /// Returns the error for the caller.
    fn error(&self, error: Unreadable) -> Error {
        match error {
            Unreadable::Failure(failure) => Error {
                retry_after: self.retry_after,
                status: Some(self.status),
                unauthorized: self.status == 401,
                interrupted: matches!(self.status, 429 | 502..=504),
                ..failed(failure)
            },
            Unreadable::Malformed(message) => Error { status: Some(self.status), ..Error::malformed_json(message) },
            Unreadable::MissingKey(key) => Error::missing_json_key(key),
            Unreadable::BadToken(message) => Error::bad_token(message),
        }
    }
}

/// Returns the error that a backend has sent.
fn failed(failure: Failure) -> Error {
    let Failure { code, message, server_code, link } = failure;
    Error { server_code, link, ..backend::Error::new(code, message).into() }
}

/// Returns the error of a request that has no HTTP form.
fn unwritten(error: protocol::Error) -> Error {
    Error::custom(error.message)
}

/// Returns a connection error, with the SDK's message.
fn interrupted(url: &Url, cause: NetworkError) -> Error {
    Error::interrupted(format!("request to {url} failed, reason: {cause}"), Some(cause))
}

/// Parses an HTTP URL without query and fragment. Returns `None` for other URLs, and for those
/// that name a user.
fn parse_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    let names_user = !url.username().is_empty() || url.password().is_some();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && !names_user).then_some(url)
}

impl Http {
    /// Runs a future until the connection is closed.
    async fn unless_closed<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closed = self.closed.subscribe();
        let closing = pin!(closed.wait_for(|closed| *closed));
        match future::select(closing, pin!(work)).await {
            Either::Left(_) => Err(Error::closed()),
            Either::Right((answer, _)) => answer,
        }
    }
}

impl Connection for Http {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        self.unless_closed(self.answer(request)).boxed()
    }

    fn watch(&self, call: CallFunction) -> BoxFuture<'_, Result<Box<dyn EventStream>>> {
        self.unless_closed(self.begin_to_watch(call)).boxed()
    }

    /// Pending requests fail immediately.
    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.send_replace(true);
        future::ready(()).boxed()
    }
}
