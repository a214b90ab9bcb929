//! The HTTP threads. Each has its own single-threaded runtime, which handles all requests of its
//! connections, so that a request wakes no other thread. Connections of slow or vanished clients
//! are closed.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::{
    connections::OpenConnection, drain::Draining, limits::MAX_HEAD, listen::ended, metrics::Metrics, request_log::Peer,
};

/// The maximum time that running requests may take after the shutdown has started.
const GRACE: Duration = Duration::from_secs(10);

/// The maximum number of HTTP threads. There are half as many as CPU cores, because the store,
/// password hashing and local clients need cores too.
const MAX_THREADS: usize = 16;

/// The context that all connections of a listener share.
pub(crate) struct ListenerContext {
    pub(crate) router: Router,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) metrics: Metrics,
    pub(crate) client_timeout: Duration,
}

/// An accepted connection, on its way to an HTTP thread.
struct Accepted {
    stream: std::net::TcpStream,
    peer: IpAddr,
    context: Arc<ListenerContext>,
    open: OpenConnection,
    _load: Load,
}

/// Counts a connection of a thread until it is dropped.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An HTTP thread.
struct Thread {
    connections: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
    finished: oneshot::Receiver<()>,
}

/// The HTTP threads of a server.
pub(crate) struct Threads(Mutex<Vec<Thread>>);

impl std::fmt::Debug for Threads {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Threads")
    }
}

impl Threads {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub(crate) fn start(ending: &watch::Receiver<bool>) -> std::io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, MAX_THREADS));
        let threads = (0..count).map(|number| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (connections, incoming) = mpsc::unbounded_channel();
            let (done, finished) = oneshot::channel();
            let ending = ending.clone();
            std::thread::Builder::new().name(format!("userkeep-http-{number}")).spawn(move || {
                runtime.block_on(run(incoming, ending));
                // Does not wait for blocking work whose client has disconnected.
                runtime.shutdown_background();
                let _ = done.send(());
            })?;
            Ok(Thread { connections, load: Arc::default(), finished })
        });
        threads.collect::<std::io::Result<_>>().map(|threads| Self(Mutex::new(threads)))
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Thread>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a connection to the thread with the fewest connections.
    pub(crate) fn take(&self, stream: TcpStream, peer: IpAddr, open: OpenConnection, context: &Arc<ListenerContext>) {
        // The stream must be registered with the runtime of its thread, not with this one.
        let Ok(stream) = stream.into_std() else { return };
        let threads = self.all();
        if let Some(thread) = threads.iter().min_by_key(|thread| thread.load.load(Ordering::Relaxed)) {
            let (context, load) = (Arc::clone(context), Load::new(&thread.load));
            let _ = thread.connections.send(Accepted { stream, peer, context, open, _load: load });
        }
    }

    /// Waits until the threads have ended, which takes up to 10 s. No connection may be accepted
    /// afterwards.
    pub(crate) async fn finish(&self) {
        let threads = std::mem::take(&mut *self.all());
        for Thread { connections, finished, .. } in threads {
            drop(connections);
            let _ = finished.await;
        }
    }
}

/// Runs the connections of a thread until the server shuts down.
async fn run(mut incoming: mpsc::UnboundedReceiver<Accepted>, ending: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = incoming.recv() => match next {
                Some(accepted) => drop(connections.spawn(handle_connection(accepted, ending.clone()))),
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    let drained = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("requests were cancelled because they exceeded the shutdown timeout");
        connections.shutdown().await;
    }
}

/// Serves a connection until it ends, or until it is closed in favour of a new one.
async fn handle_connection(accepted: Accepted, ending: watch::Receiver<bool>) {
    let Accepted { stream, peer, ref context, ref open, .. } = accepted;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let _connected = context.metrics.connected();
    tokio::select! {
        () = open.connection().closed() => tracing::debug!(client = %peer, "connection closed by the server"),
        () = agree(stream, peer, context, open, ending) => {}
    }
}

/// Performs the TLS handshake if the listener uses TLS, and serves the connection.
async fn agree(
    stream: TcpStream,
    peer: IpAddr,
    context: &ListenerContext,
    open: &OpenConnection,
    ending: watch::Receiver<bool>,
) {
    let address = peer;
    let peer = Peer { address, connection: Some(Arc::clone(open.connection())) };
    // Otherwise small responses wait for the acknowledgement of earlier ones (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    match &context.tls {
        None => serve(stream, peer, context, ending).await,
        Some(tls) => match timeout(context.client_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, peer, context, ending).await,
            Ok(Err(error)) => tracing::debug!(client = %address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(client = %address, "TLS handshake timed out"),
        },
    }
}

/// Serves the requests of a connection. On shutdown, finishes the running request.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    peer: Peer,
    context: &ListenerContext,
    ending: watch::Receiver<bool>,
) {
    let address = peer.address;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(context.client_timeout));
    let until = ending.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        answer(context.router.clone(), request, peer.clone(), until.clone())
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(context.client_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
    );
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = ended(ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client = %address, %error, "connection ended with an error");
    }
}

/// Handles a request, and discards the rest of its body if the response is ready before.
async fn answer(
    mut router: Router,
    request: hyper::Request<Incoming>,
    peer: Peer,
    ending: watch::Receiver<bool>,
) -> Result<Response, Infallible> {
    let connection = peer.connection.clone();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(peer);
    if body.is_end_stream() {
        return tower_service::Service::call(&mut router, hyper::Request::from_parts(parts, Body::empty())).await;
    }
    let (body, unread) = Draining::new(body);
    let request = hyper::Request::from_parts(parts, Body::new(body));
    let mut response = tower_service::Service::call(&mut router, request).await?;
    if let Some(connection) = connection {
        unread.drain(&mut response, connection, ending);
    }
    Ok(response)
}
