//! The operator's functions: requests to the backend, and the HTTP server.

use backend::AdminRequest;
use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf, cstr},
    rawdoc,
};
use client::Error;
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;
use server::{Options, Server};

use crate::{
    bridge::Bridge,
    opened::Opened,
    operations::{document, wrap},
    outbox::Started,
};

/// Carries out a request of the operator. The payload has its name in `operation`: `listen` with
/// the server's `options`, `serving`, `stopServing`, or one of the backend.
#[napi]
pub(crate) fn admin(env: &Env, bridge: &External<Bridge>, handle: u32, payload: &[u8]) -> napi::Result<Started> {
    let payload = document(payload)?;
    bridge.run(env, handle, false, |opened| async move {
        let answer = match payload.get_str("operation") {
            Ok("listen") => Some(listen(&opened, &payload).await?),
            Ok("serving") => {
                opened.server_ended().await;
                None
            }
            Ok("stopServing") => {
                opened.close_server().await;
                None
            }
            _ => request(&opened, payload).await?,
        };
        Ok(answer.as_ref().map(wrap))
    })
}

async fn request(opened: &Opened, payload: RawDocumentBuf) -> Result<Option<RawBson>, Error> {
    let request = AdminRequest::read(&payload)?;
    let answer = opened.embedded()?.backend().admin().run(request, opened.progress()).await?;
    Ok(Some(answer).filter(|answer| *answer != RawBson::Null))
}

/// Opens the store and starts listening. Returns the URLs.
async fn listen(opened: &Opened, payload: &RawDocument) -> Result<RawBson, Error> {
    let options = payload.get_document("options").map_err(|_| Error::custom("listen needs 'options'"))?;
    let options = Options::read(options).map_err(Error::custom)?;
    let backend = opened.embedded()?.backend();
    match backend.start().await {
        Ok(()) => {}
        // The database may start after the server. The server waits for it, and `/healthz` reports
        // the state.
        Err(error) if error.is_transient => {
            tracing::warn!(%error, "the store is not ready; requests fail until it is");
        }
        Err(error) => return Err(Error::custom(error.detail.unwrap_or_else(|| error.message.into_owned()))),
    }
    let server = Server::listen(backend, options).await.map_err(|error| Error::custom(error.to_string()))?;
    let mut urls = rawdoc! { "url": server.url.as_str() };
    if let Some(url) = &server.metrics_url {
        urls.append(cstr!("metricsUrl"), url.as_str());
    }
    opened.set_server(server);
    Ok(RawBson::Document(urls))
}
