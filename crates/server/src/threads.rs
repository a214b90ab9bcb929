//! The threads that answer. Each has a runtime of its own, so that a request is answered where its connection is, and wakes
//! nobody else. Clients that are slow, or that are gone without having said so, are cut.

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

/// How long an answer may take once the server is to end.
const GRACE: Duration = Duration::from_secs(10);

/// How many threads there are at most: half as many as cores, since who writes, hashes passwords and asks needs some too.
const MAX_THREADS: usize = 16;

/// What connections come to.
pub(crate) struct ListenerContext {
    pub(crate) router: Router,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) metrics: Metrics,
    pub(crate) client_timeout: Duration,
}

/// A connection that has been accepted.
struct Accepted {
    stream: std::net::TcpStream,
    peer: IpAddr,
    context: Arc<ListenerContext>,
    open: OpenConnection,
    _load: Load,
}

/// Counts a connection for its thread as long as it is open.
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

struct Thread {
    connections: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
    finished: oneshot::Receiver<()>,
}

/// The threads of a server. They end when it does, with what is under way.
pub(crate) struct Threads(Mutex<Vec<Thread>>);

impl std::fmt::Debug for Threads {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Threads")
    }
}

impl Threads {
    pub(crate) fn start(ending: &watch::Receiver<bool>) -> std::io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, MAX_THREADS));
        let threads = (0..count).map(|number| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (connections, incoming) = mpsc::unbounded_channel();
            let (done, finished) = oneshot::channel();
            let ending = ending.clone();
            std::thread::Builder::new().name(format!("userkeep-http-{number}")).spawn(move || {
                runtime.block_on(run(incoming, ending));
                // What still reads for a client that is gone need not be waited for.
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

    /// Gives a connection to the thread that has the fewest.
    pub(crate) fn take(&self, stream: TcpStream, peer: IpAddr, open: OpenConnection, context: &Arc<ListenerContext>) {
        // It has to be registered with the thread's own runtime.
        let Ok(stream) = stream.into_std() else { return };
        let threads = self.all();
        if let Some(thread) = threads.iter().min_by_key(|thread| thread.load.load(Ordering::Relaxed)) {
            let (context, load) = (Arc::clone(context), Load::new(&thread.load));
            let _ = thread.connections.send(Accepted { stream, peer, context, open, _load: load });
        }
    }

    /// Waits, but not for ever, for what is under way. Nothing may be accepted any more.
    pub(crate) async fn finish(&self) {
        let threads = std::mem::take(&mut *self.all());
        for Thread { connections, finished, .. } in threads {
            drop(connections);
            let _ = finished.await;
        }
    }
}

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
        tracing::warn!("requests that took too long were ended with the server");
        connections.shutdown().await;
    }
}

/// Answers a connection until it ends, or is closed in favour of another one.
async fn handle_connection(accepted: Accepted, ending: watch::Receiver<bool>) {
    let Accepted { stream, peer, ref context, ref open, .. } = accepted;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let _connected = context.metrics.connected();
    tokio::select! {
        () = open.connection().closed() => tracing::debug!(client = %peer, "a connection was closed by the server"),
        () = agree(stream, peer, context, open, ending) => {}
    }
}

async fn agree(
    stream: TcpStream,
    peer: IpAddr,
    context: &ListenerContext,
    open: &OpenConnection,
    ending: watch::Receiver<bool>,
) {
    let address = peer;
    let peer = Peer { address, connection: Some(Arc::clone(open.connection())) };
    // Without it small answers wait for acknowledgements of others.
    let _ = stream.set_nodelay(true);
    match &context.tls {
        None => serve(stream, peer, context, ending).await,
        Some(tls) => match timeout(context.client_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, peer, context, ending).await,
            Ok(Err(error)) => tracing::debug!(client = %address, %error, "no TLS could be agreed on"),
            Err(_) => tracing::debug!(client = %address, "agreeing on TLS took too long"),
        },
    }
}

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
        tracing::debug!(client = %address, %error, "a connection ended early");
    }
}

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
