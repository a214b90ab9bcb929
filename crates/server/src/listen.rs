//! Opens the listeners, accepts connections, and shuts down gracefully.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use backend::Backend;
use bson::raw::RawDocument;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Mutex, watch},
    task::JoinHandle,
};

use crate::{
    app_state::AppState,
    budget::Budget,
    client_api,
    connections::{Connections, OpenConnection, Refused},
    large_events::LargeEvents,
    limits::{Limits, MAX_BODY},
    metrics::Metrics,
    operator,
    origin::Proxies,
    stream_permits::Streams,
    threads::{ListenerContext, Threads},
    tls::Tls,
    workers::Workers,
};

/// The maximum number of connections that wait to be accepted. The system drops further ones
/// silently, so that their clients time out.
const BACKLOG: u32 = 1024;

/// Default time limit for each step that waits for the client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The response to a connection that exceeds the limit of all connections.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Delay before the next attempt to accept a connection after a failure.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The options of a server. The default listens on a free port of `127.0.0.1` without TLS.
///
/// ```
/// use bson::rawdoc;
/// use server::Options;
///
/// let options = Options::read(&rawdoc! { "port": 3000, "trustedProxies": ["10.0.0.0/8"] }).unwrap();
/// assert_eq!((options.port, options.trusted_proxies.len()), (3000, 1));
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// The host name or IP address to listen on; `127.0.0.1` by default.
    pub host: Option<String>,
    /// The port to listen on. 0, the default, picks a free one.
    pub port: u16,
    /// The URL under which clients reach the server; the bound address by default. It is never
    /// derived from a request.
    pub public_url: Option<String>,
    /// The maximum size of a request body as sent, in bytes; 64 MB by default. A larger one is
    /// rejected with status 413.
    pub max_body: Option<usize>,
    /// The certificate and its key. Without them the server uses plain HTTP.
    pub tls: Option<Tls>,
    /// The networks of trusted proxies. The server takes the client's address from the
    /// `X-Forwarded-For` header of their requests.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Networks that are exempt from the limits per place, such as those of the application's own
    /// servers.
    #[serde(deserialize_with = "networks")]
    pub unlimited: Vec<IpNet>,
    /// Time limit for each step that waits for the client; 30 s by default. The steps are the TLS
    /// handshake, the headers of a request, the first part of its body, the next request on the
    /// connection, and reading the response. In a document, it is in milliseconds.
    #[serde(deserialize_with = "milliseconds")]
    pub client_timeout: Option<Duration>,
    /// The host and the port of the operator's listener, which serves `/healthz` and `/metrics`.
    /// None by default.
    pub metrics: Option<(String, u16)>,
    /// Limits on the connections and the memory that clients can occupy.
    #[serde(skip)]
    pub limits: Limits,
}

impl Options {
    /// Reads options from a document. Networks are texts, such as `10.0.0.0/8` or `10.0.0.1`.
    ///
    /// # Errors
    /// If an option is unknown or not valid. The message names it.
    pub fn read(document: &RawDocument) -> Result<Self, String> {
        backend::read_document(document)
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let parse = |text: String| {
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
        network.map_err(|_| format!("'{text}' is neither a network, as 10.0.0.0/8, nor an address"))
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.into_iter().map(parse).collect::<Result<_, _>>().map_err(D::Error::custom)
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
}

/// The reason why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is in use, cannot be resolved, or does not belong to this machine.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The host and the port.
        address: String,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The HTTP threads cannot be started.
    #[error("cannot start the HTTP threads: {0}")]
    Threads(std::io::Error),
    /// The certificate or its key cannot be read or used. The message names the file.
    #[error("cannot use TLS: {0}")]
    Tls(String),
}

/// A running server. Call [`Server::close`] to shut it down gracefully.
#[derive(Debug)]
pub struct Server {
    /// The URL under which clients reach the server, without a trailing slash.
    pub url: String,
    /// The base URL of `/healthz` and `/metrics`, if the operator's listener is enabled.
    pub metrics_url: Option<String>,
    end: watch::Sender<bool>,
    serving: Mutex<Vec<JoinHandle<()>>>,
    threads: Arc<Threads>,
}

impl Server {
    /// Starts a server: reads the certificate, binds the addresses, and starts the HTTP threads.
    ///
    /// Must be called within a Tokio runtime, which then accepts the connections.
    ///
    /// # Errors
    /// If an address cannot be bound, the certificate cannot be used, or a thread cannot be
    /// started.
    pub async fn listen(backend: Arc<Backend>, options: Options) -> Result<Self, ListenError> {
        let tls = options.tls.as_ref().map(Tls::acceptor).transpose().map_err(ListenError::Tls)?;
        let (listener, bound) = bind(options.host.as_deref().unwrap_or("127.0.0.1"), options.port).await?;
        let operators = match &options.metrics {
            Some((host, port)) => Some(bind(host, *port).await?),
            None => None,
        };
        let url = options.public_url.unwrap_or_else(|| url_of(if tls.is_some() { "https" } else { "http" }, bound));
        let url = url.trim_end_matches('/').to_owned();
        let limits = options.limits;
        let metrics = Metrics::new(Arc::clone(&backend));
        let (end, ending) = watch::channel(false);
        let answers = Budget::new("unread responses", limits.answers);
        let state = Arc::new(AppState {
            backend,
            url: url.clone(),
            max_body: options.max_body.unwrap_or(MAX_BODY),
            client_timeout: options.client_timeout.unwrap_or(CLIENT_TIMEOUT),
            proxies: Proxies { trusted: options.trusted_proxies, unlimited: options.unlimited },
            metrics: metrics.clone(),
            ending: ending.clone(),
            streams: Streams::new(limits.connections, metrics.streams.clone()),
            bodies: Budget::new("request bodies", limits.bodies),
            answers: Arc::clone(&answers),
            workers: Workers::new(),
            events: LargeEvents::new(&answers),
            speaks_tls: tls.is_some(),
        });
        let threads = Arc::new(Threads::start(&ending).map_err(ListenError::Threads)?);
        let metrics_url = operators.as_ref().map(|(_, bound)| url_of("http", *bound));
        let mut serving = Vec::new();
        if let Some((listener, _)) = operators {
            let router = operator::router(Arc::clone(&state));
            let context =
                ListenerContext { router, tls: None, metrics: metrics.clone(), client_timeout: state.client_timeout };
            let entrance = Entrance::new(limits, &state.proxies);
            serving.push(tokio::spawn(accept(listener, context, entrance, Arc::clone(&threads), ending.clone())));
        }
        let (client_timeout, entrance) = (state.client_timeout, Entrance::new(limits, &state.proxies));
        let context = ListenerContext { router: client_api::router(state), tls, metrics, client_timeout };
        serving.push(tokio::spawn(accept(listener, context, entrance, Arc::clone(&threads), ending)));
        Ok(Self { url, metrics_url, end, serving: Mutex::new(serving), threads })
    }

    /// Waits until [`Server::close`] is called.
    pub async fn ended(&self) {
        ended(self.end.subscribe()).await;
    }

    /// Shuts the server down. Accepts no more requests, and waits up to 10 s for running ones to
    /// finish.
    pub async fn close(&self) {
        self.end.send_replace(true);
        for serving in self.serving.lock().await.drain(..) {
            let _ = serving.await;
        }
        self.threads.finish().await;
    }
}

/// Waits until the server shuts down or is dropped.
pub(crate) async fn ended(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|end| *end).await;
}

/// Binds the first address of `host` that can be bound.
async fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |cause| ListenError::Bind { address: format!("{host}:{port}"), cause };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host, port)).await.map_err(failed)? {
        match listen(address) {
            Ok(listener) => {
                let bound = listener.local_addr().map_err(failed)?;
                return Ok((listener, bound));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Tokio's own listener does the same: a restarted server can bind the port while old
    // connections are still in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Returns the URL of a bound address. Replaces an unspecified address such as `0.0.0.0` with the
/// loopback address, because clients cannot connect to it.
fn url_of(scheme: &str, mut bound: SocketAddr) -> String {
    if bound.ip().is_unspecified() {
        tracing::warn!("the server listens on all addresses: set the public URL for clients on other machines");
        bound.set_ip(match bound.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{bound}")
}

/// Decides which connections a listener accepts.
struct Entrance {
    connections: Connections,
    proxies: Proxies,
}

impl Entrance {
    fn new(limits: Limits, proxies: &Proxies) -> Self {
        Self { connections: Connections::new(limits), proxies: proxies.clone() }
    }

    /// Registers a connection, or closes it if a limit is reached.
    fn admit(&self, stream: TcpStream, peer: IpAddr, speaks_tls: bool) -> Option<(TcpStream, OpenConnection)> {
        match self.connections.admit(peer, !self.proxies.exempts(peer)) {
            Ok(open) => return Some((stream, open)),
            Err(Refused::Share { is_first: true }) => tracing::warn!(
                client = %peer,
                "a client has reached its connection limit; further connections are closed immediately"
            ),
            Err(Refused::Share { is_first: false }) => {}
            Err(Refused::Full) if speaks_tls => {}
            Err(Refused::Full) => {
                // Does not block, because the send buffer of a new connection is empty.
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write_all(NO_ROOM);
                }
            }
        }
        None
    }
}

/// Accepts connections until the server shuts down.
async fn accept(
    listener: TcpListener,
    context: ListenerContext,
    entrance: Entrance,
    threads: Arc<Threads>,
    ending: watch::Receiver<bool>,
) {
    let mut ended = pin!(ended(ending));
    let context = Arc::new(context);
    loop {
        let accepted = tokio::select! {
            () = &mut ended => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some((stream, open)) = entrance.admit(stream, address.ip(), context.tls.is_some()) {
                    threads.take(stream, address.ip(), open, &context);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // The process may have reached its limit of open files.
                entrance.connections.close_longest_waiting();
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}
