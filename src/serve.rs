//! Serves a backend over HTTP.

use std::time::Duration;

use bson::{RawBson, raw::cstr, rawdoc};
use client::Error;
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;
use server::{IpNet, Limits, Options, Server, Tls};

use crate::{bridge::Bridge, errors::thrown, operations::wrap, outbox::Started};

/// The configuration of a server, which JavaScript has checked.
#[napi(object)]
pub(crate) struct ServerConfiguration {
    pub host: Option<String>,
    pub port: u16,
    pub public_url: Option<String>,
    pub max_body: Option<u32>,
    /// The files of the certificate and its private key.
    pub tls_certificate: Option<String>,
    pub tls_key: Option<String>,
    /// Networks such as `10.0.0.0/8`, or single addresses.
    pub trusted_proxies: Vec<String>,
    pub unlimited: Vec<String>,
    /// Time limit for each step that waits for the client, in milliseconds.
    pub client_timeout: Option<u32>,
    pub metrics_host: Option<String>,
    pub metrics_port: Option<u16>,
}

impl ServerConfiguration {
    fn options(self) -> Result<Options, Error> {
        let tls = self.tls_certificate.zip(self.tls_key);
        let metrics_host = self.metrics_host.unwrap_or_else(|| "127.0.0.1".to_owned());
        Ok(Options {
            host: self.host,
            port: self.port,
            public_url: self.public_url,
            max_body: self.max_body.map(|size| size as usize),
            tls: tls.map(|(certificate, key)| Tls { certificate: certificate.into(), key: key.into() }),
            trusted_proxies: networks(&self.trusted_proxies)?,
            unlimited: networks(&self.unlimited)?,
            client_timeout: self.client_timeout.map(|timeout| Duration::from_millis(timeout.into())),
            metrics: self.metrics_port.map(|port| (metrics_host, port)),
            limits: Limits::default(),
        })
    }
}

fn networks(all: &[String]) -> Result<Vec<IpNet>, Error> {
    let parse = |text: &String| {
        let network = text.parse().or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()));
        network.map_err(|_| Error::custom(format!("'{text}' is neither a network, as 10.0.0.0/8, nor an address")))
    };
    all.iter().map(parse).collect()
}

/// Opens the store and starts listening, for an operator's handle. Returns the URLs.
#[napi]
pub(crate) fn listen(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    configuration: ServerConfiguration,
) -> napi::Result<Started> {
    let options = configuration.options().map_err(|error| thrown(&error))?;
    bridge.run(env, handle, false, |opened| async move {
        let backend = opened.embedded()?.backend();
        match backend.start().await {
            Ok(()) => {}
            // The database may start after the server. The server waits for it, and `/healthz`
            // reports the state.
            Err(error) if error.is_transient => {
                tracing::warn!(%error, "the store is not ready; requests fail until it is");
            }
            Err(error) => {
                return Err(Error::custom(error.detail.unwrap_or_else(|| error.message.into_owned())));
            }
        }
        let server = Server::listen(backend, options).await;
        let server = server.map_err(|error| Error::custom(error.to_string()))?;
        let mut urls = rawdoc! { "url": server.url.as_str() };
        if let Some(url) = &server.metrics_url {
            urls.append(cstr!("metricsUrl"), url.as_str());
        }
        opened.set_server(server);
        Ok(wrap(&RawBson::Document(urls)))
    })
}

/// Completes when the server begins to shut down, and keeps the process alive until then.
#[napi]
pub(crate) fn serving(env: &Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        if let Some(server) = opened.server() {
            server.ended().await;
        }
        Ok(None)
    })
}

/// Stops accepting requests, and shuts the server down when the running ones have finished.
#[napi]
pub(crate) fn stop_serving(env: &Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        if let Some(server) = opened.server() {
            server.close().await;
        }
        Ok(None)
    })
}
