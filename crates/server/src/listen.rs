//! Listening, and ending without losing what is under way.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use backend::Backend;
use ipnet::IpNet;
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    metrics::Metrics,
    origin::Proxies,
    routes::{self, Site},
    streams::Streams,
    threads::{Door, Threads},
    tls::Tls,
};

/// How long a client may keep a connection without a sign of life, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many connections are held at once; further ones wait to be accepted.
pub(crate) const CONNECTIONS: usize = 10_000;

/// How long to wait where the system has no more sockets to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The largest body that is read, in bytes, unless said otherwise: App Services' own limit.
const MAX_BODY: usize = 18 * 1024 * 1024;

/// What a server is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The address; `127.0.0.1` if missing.
    pub host: Option<String>,
    /// The port; 0 picks one.
    pub port: u16,
    /// The URL under which clients reach it; the bound address if missing. Never taken from a request.
    pub public_url: Option<String>,
    /// The largest body in bytes; 18 MB if missing.
    pub max_body: Option<usize>,
    /// The certificate, if it is to speak TLS.
    pub tls: Option<Tls>,
    /// The proxies that are believed about the addresses of their clients.
    pub trusted_proxies: Vec<IpNet>,
    /// From where so many people make requests, as the application's own servers, that they are not limited together.
    pub unlimited: Vec<IpNet>,
    /// How long a client may take to agree on TLS, to send the headers of a request or the first of its body, to ask again
    /// over the same connection, and to read what it is sent; 30 s if missing.
    pub patience: Option<Duration>,
    /// The host and the port for the operator: `/healthz` and `/metrics`.
    pub metrics: Option<(String, u16)>,
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not free, or not one of this machine's.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The threads that answer cannot be started.
    #[error("the threads that answer cannot be started: {0}")]
    Threads(std::io::Error),
    /// The certificate or its key cannot be used.
    #[error("TLS cannot be spoken: {0}")]
    Tls(String),
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    /// Where clients reach it, without a trailing slash.
    pub url: String,
    /// Where the operator reaches `/healthz` and `/metrics`.
    pub metrics_url: Option<String>,
    end: watch::Sender<bool>,
    serving: Mutex<Vec<JoinHandle<()>>>,
    threads: Arc<Threads>,
}

impl Server {
    /// Begins to listen. Must be called in a runtime, which then answers.
    ///
    /// # Errors
    /// Where the address cannot be had, or the certificate not be used.
    pub async fn listen(backend: Arc<Backend>, options: Options) -> Result<Self, ListenError> {
        let tls = options.tls.as_ref().map(Tls::acceptor).transpose().map_err(ListenError::Tls)?;
        let (listener, bound) = bind(options.host.as_deref().unwrap_or("127.0.0.1"), options.port).await?;
        let operators = match &options.metrics {
            Some((host, port)) => Some(bind(host, *port).await?),
            None => None,
        };
        let url = options.public_url.unwrap_or_else(|| url_of(if tls.is_some() { "https" } else { "http" }, bound));
        let url = url.trim_end_matches('/').to_owned();
        let metrics = Metrics::new(Arc::clone(&backend));
        let (end, ending) = watch::channel(false);
        let site = Arc::new(Site {
            backend,
            url: url.clone(),
            max_body: options.max_body.unwrap_or(MAX_BODY),
            patience: options.patience.unwrap_or(PATIENCE),
            proxies: Proxies { trusted: options.trusted_proxies, unlimited: options.unlimited },
            metrics: metrics.clone(),
            ending: ending.clone(),
            streams: Streams::new(metrics.streams.clone()),
        });
        let threads = Arc::new(Threads::start(&ending).map_err(ListenError::Threads)?);
        let metrics_url = operators.as_ref().map(|(_, bound)| url_of("http", *bound));
        let mut serving = Vec::new();
        if let Some((listener, _)) = operators {
            let router = operators_router(Arc::clone(&site));
            let door = Door { router, tls: None, metrics: metrics.clone(), patience: site.patience };
            serving.push(tokio::spawn(accept(listener, door, Arc::clone(&threads), ending.clone())));
        }
        let patience = site.patience;
        let door = Door { router: routes::router(site), tls, metrics, patience };
        serving.push(tokio::spawn(accept(listener, door, Arc::clone(&threads), ending)));
        Ok(Self { url, metrics_url, end, serving: Mutex::new(serving), threads })
    }

    /// Waits until the server is told to end.
    pub async fn ended(&self) {
        ended(self.end.subscribe()).await;
    }

    /// Takes no more requests, and waits, but not for ever, for those that are under way.
    pub async fn close(&self) {
        self.end.send_replace(true);
        for serving in self.serving.lock().await.drain(..) {
            let _ = serving.await;
        }
        self.threads.finish().await;
    }
}

/// Waits until a server is to end. One that is dropped ends as well.
pub(crate) async fn ended(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|end| *end).await;
}

async fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |cause| ListenError::Bind { address: format!("{host}:{port}"), cause };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The URL of an address. Nobody reaches the one that stands for all of a machine's.
fn url_of(scheme: &str, mut bound: SocketAddr) -> String {
    if bound.ip().is_unspecified() {
        tracing::warn!("clients elsewhere need the URL under which they reach the server: name it as the public URL");
        bound.set_ip(match bound.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{bound}")
}

/// What the operator's own listener answers.
fn operators_router(site: Arc<Site>) -> Router {
    let metrics = site.metrics.clone();
    let text = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Router::new()
        .route("/healthz", get(routes::health))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, text)], metrics.text()).into_response()))
        .with_state(site)
}

/// Takes connections until the server is to end.
async fn accept(listener: TcpListener, door: Door, threads: Arc<Threads>, ending: watch::Receiver<bool>) {
    let mut ended = pin!(ended(ending));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let door = Arc::new(door);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut ended => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, address)) => threads.take(stream, address.ip(), place.ok(), &door),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}
