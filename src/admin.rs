//! The operator's functions: requests to the backend, and the HTTP server.

use std::{path::Path, sync::Arc};

use backend::AdminRequest;
use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr},
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
/// the server's `options`, `serving`, `stopServing`, `changedDefinition`, `applyDefinition`,
/// `runFunction`, or one of the backend.
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
            Ok("changedDefinition") => changed_definition(&opened).await?,
            Ok("applyDefinition") => Some(apply_definition(&opened).await?),
            Ok("runFunction") => Some(run_function(&opened, &payload).await?),
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

/// Reads the definition again if its files have changed. Returns the sources of its functions,
/// which JavaScript checks, and nothing if no file has changed.
async fn changed_definition(opened: &Arc<Opened>) -> Result<Option<RawBson>, Error> {
    let reading = Arc::clone(opened);
    let read = tokio::task::spawn_blocking(move || {
        let changed = reading.embedded()?.changed_definition();
        changed.map_err(|error| Error::custom(error.to_string()))
    });
    let Some(definition) = read.await.map_err(|error| Error::custom(error.to_string()))?? else { return Ok(None) };
    let root = Path::new(&definition.origin);
    let functions: RawArrayBuf = definition
        .functions
        .iter()
        .filter_map(|function| {
            let file = root.join(&function.file).display().to_string();
            Some(rawdoc! { "name": &*function.name, "file": file, "source": function.source.as_deref()? })
        })
        .collect();
    *opened.changed_definition() = Some(definition);
    Ok(Some(RawBson::Document(rawdoc! { "functions": functions })))
}

/// Puts the definition that [`changed_definition`] has read in force. Returns its problems, and
/// the changes that need a restart.
async fn apply_definition(opened: &Opened) -> Result<RawBson, Error> {
    let definition = opened.changed_definition().take();
    let definition = definition.ok_or_else(|| Error::custom("the definition has not changed"))?;
    let reported: Vec<String> = definition.reported.iter().map(ToString::to_string).collect();
    let applied = opened.embedded()?.backend().apply_definition(definition).await;
    let notes = applied.map_err(|error| Error::custom(error.detail.unwrap_or_else(|| error.message.into_owned())))?;
    let (reported, notes): (RawArrayBuf, RawArrayBuf) = (reported.into_iter().collect(), notes.into_iter().collect());
    Ok(RawBson::Document(rawdoc! { "reported": reported, "notes": notes }))
}

/// Calls a function for the operator: `{ name, arguments, user }`.
async fn run_function(opened: &Opened, payload: &RawDocument) -> Result<RawBson, Error> {
    let name = payload.get_str("name").map_err(|error| Error::custom(error.to_string()))?;
    let arguments = payload.get_array("arguments").map_err(|error| Error::custom(error.to_string()))?;
    let user = payload.get_str("user").ok();
    Ok(RawBson::Document(opened.embedded()?.backend().run_function(name, arguments.to_owned(), user).await?))
}

/// Opens the store and starts listening. Returns the URLs.
async fn listen(opened: &Opened, payload: &RawDocument) -> Result<RawBson, Error> {
    let options = payload.get_document("options").map_err(|_| Error::custom("listen needs 'options'"))?;
    let options = Options::read(options).map_err(Error::custom)?;
    let backend = opened.embedded()?.backend();
    backend.trim_log();
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
