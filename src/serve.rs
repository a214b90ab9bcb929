//! Offering a backend over HTTP.

use bson::{RawBson, rawdoc};
use client::Error;
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;
use server::{Options, Server};

use crate::{
    bridge::{Bridge, Started},
    operations::wrap,
};

/// How a server listens. JavaScript has checked it.
#[napi(object)]
pub struct ServerConfiguration {
    pub host: Option<String>,
    pub port: u16,
    pub public_url: Option<String>,
    pub max_body: Option<u32>,
}

/// Begins to listen for an operator's handle; answers with the URL.
#[napi]
pub fn listen<'env>(
    env: &'env Env,
    bridge: &External<Bridge>,
    handle: u32,
    configuration: ServerConfiguration,
) -> napi::Result<Started<'env>> {
    let ServerConfiguration { host, port, public_url, max_body } = configuration;
    let options = Options { host, port, public_url, max_body: max_body.map(|size| size as usize) };
    bridge.run(env, handle, false, |opened| async move {
        let server = Server::listen(opened.embedded()?.backend(), options).await;
        let server = server.map_err(|error| Error::custom(error.to_string()))?;
        let answer = wrap(&RawBson::Document(rawdoc! { "url": server.url.as_str() }));
        opened.set_server(server);
        Ok(answer)
    })
}

/// Is answered when the server is told to end: until then it keeps the process alive.
#[napi]
pub fn serving<'env>(env: &'env Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started<'env>> {
    bridge.run(env, handle, false, |opened| async move {
        if let Some(server) = opened.server() {
            server.ended().await;
        }
        Ok(None)
    })
}

/// Ends the server, with what is under way.
#[napi]
pub fn stop_serving<'env>(env: &'env Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started<'env>> {
    bridge.run(env, handle, false, |opened| async move {
        if let Some(server) = opened.server() {
            server.close().await;
        }
        Ok(None)
    })
}
