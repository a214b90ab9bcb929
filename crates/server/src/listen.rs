//! Listening, and ending without losing what is under way.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use backend::Backend;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::routes::{self, Site};

/// How long an answer may take once the server is to end.
const GRACE: Duration = Duration::from_secs(10);

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
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    /// Where clients reach it, without a trailing slash.
    pub url: String,
    end: watch::Sender<bool>,
    serving: tokio::sync::Mutex<Option<JoinHandle<std::io::Result<()>>>>,
}

impl Server {
    /// Begins to listen. Must be called in a runtime, which then answers.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub async fn listen(backend: Arc<Backend>, options: Options) -> Result<Self, ListenError> {
        let address = format!("{}:{}", options.host.as_deref().unwrap_or("127.0.0.1"), options.port);
        let failed = |cause| ListenError::Bind { address: address.clone(), cause };
        let listener = TcpListener::bind(&address).await.map_err(failed)?;
        let bound: SocketAddr = listener.local_addr().map_err(failed)?;
        let url = options.public_url.unwrap_or_else(|| format!("http://{bound}"));
        let url = url.trim_end_matches('/').to_owned();
        let site = Site { backend, url: url.clone(), max_body: options.max_body.unwrap_or(MAX_BODY) };
        let (end, mut ending) = watch::channel(false);
        let ended = async move {
            // A server that is dropped ends as well.
            let _ = ending.wait_for(|end| *end).await;
        };
        let serving =
            tokio::spawn(
                async move { axum::serve(listener, routes::router(site)).with_graceful_shutdown(ended).await },
            );
        Ok(Self { url, end, serving: tokio::sync::Mutex::new(Some(serving)) })
    }

    /// Waits until the server is told to end.
    pub async fn ended(&self) {
        let _ = self.end.subscribe().wait_for(|end| *end).await;
    }

    /// Takes no more requests, and waits, but not for ever, for those that are under way.
    pub async fn close(&self) {
        let _ = self.end.send(true);
        if let Some(mut serving) = self.serving.lock().await.take()
            && tokio::time::timeout(GRACE, &mut serving).await.is_err()
        {
            tracing::warn!("requests that took too long were ended with the server");
            serving.abort();
        }
    }
}
