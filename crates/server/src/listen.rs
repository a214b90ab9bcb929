//! Listening, and ending without losing what is under way.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use backend::Backend;
use ipnet::IpNet;
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

/// Connections that wait to be accepted. Beyond it, the system drops new ones, of which clients hear only when they time out.
const BACKLOG: u32 = 1024;

/// How long a client may keep a connection without a sign of life, unless said otherwise.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection is answered for which there is no room.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// How long to wait where the system has no more sockets to give.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// What a server is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The address; `127.0.0.1` if missing.
    pub host: Option<String>,
    /// The port; 0 picks one.
    pub port: u16,
    /// The URL under which clients reach it; the bound address if missing. Never taken from a request.
    pub public_url: Option<String>,
    /// The largest body as it is sent, in bytes; 64 MB if missing.
    pub max_body: Option<usize>,
    /// The certificate, if it is to speak TLS.
    pub tls: Option<Tls>,
    /// The proxies that are believed about the addresses of their clients.
    pub trusted_proxies: Vec<IpNet>,
    /// From where so many people make requests, as the application's own servers, that they are not limited together.
    pub unlimited: Vec<IpNet>,
    /// How long a client may take to agree on TLS, to send the headers of a request or the first of its body, to ask again
    /// over the same connection, and to read what it is sent; 30 s if missing.
    pub client_timeout: Option<Duration>,
    /// The host and the port for the operator: `/healthz` and `/metrics`.
    pub metrics: Option<(String, u16)>,
    /// The limits of what clients may make the server hold.
    pub limits: Limits,
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
        let limits = options.limits;
        let metrics = Metrics::new(Arc::clone(&backend));
        let (end, ending) = watch::channel(false);
        let answers = Budget::new("answers that wait to be read", limits.answers);
        let state = Arc::new(AppState {
            backend,
            url: url.clone(),
            max_body: options.max_body.unwrap_or(MAX_BODY),
            client_timeout: options.client_timeout.unwrap_or(CLIENT_TIMEOUT),
            proxies: Proxies { trusted: options.trusted_proxies, unlimited: options.unlimited },
            metrics: metrics.clone(),
            ending: ending.clone(),
            streams: Streams::new(limits.connections, metrics.streams.clone()),
            bodies: Budget::new("bodies", limits.bodies),
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
    // As the listener of tokio does: a server that is started again need not wait for the connections of the last one to time out.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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

/// Decides which connections a listener takes.
struct Entrance {
    connections: Connections,
    proxies: Proxies,
}

impl Entrance {
    fn new(limits: Limits, proxies: &Proxies) -> Self {
        Self { connections: Connections::new(limits), proxies: proxies.clone() }
    }

    /// Registers a connection; one for which there is no room is closed.
    fn admit(&self, stream: TcpStream, peer: IpAddr, speaks_tls: bool) -> Option<(TcpStream, OpenConnection)> {
        match self.connections.admit(peer, !self.proxies.exempts(peer)) {
            Ok(open) => return Some((stream, open)),
            Err(Refused::Share { is_first: true }) => tracing::warn!(
                client = %peer,
                "a client has as many connections open as one may have; further ones are closed at once"
            ),
            Err(Refused::Share { is_first: false }) => {}
            Err(Refused::Full) if speaks_tls => {}
            Err(Refused::Full) => {
                // Its buffer is empty, and so takes it at once.
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write_all(NO_ROOM);
                }
            }
        }
        None
    }
}

/// Takes connections until the server is to end.
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
                tracing::warn!(%error, "a connection cannot be accepted");
                // The system may have no more sockets to give.
                entrance.connections.close_longest_waiting();
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}
