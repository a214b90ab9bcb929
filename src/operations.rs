//! The functions that JavaScript calls. They decode bytes and start operations of the client.

use std::sync::Arc;

use backend::request::Arguments;
use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};
use client::{App, Configuration, Error, connection::Embedded};
use futures_util::future::FutureExt;
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;

use crate::{bridge::Bridge, errors::thrown, functions::Starter, opened::Opened, outbox::Started};

/// An open app, and facts about its definition if the backend is in this process.
#[napi(object)]
pub(crate) struct OpenedApp {
    pub handle: u32,
    pub origin: String,
    pub definition_app_id: Option<String>,
    pub reported: Vec<String>,
    /// True if the definition lists no origins, so that pages of any origin may make requests over
    /// HTTP.
    pub allows_any_origin: bool,
    /// The number of the backend in this process, whose functions this environment may run.
    pub functions: Option<u32>,
}

/// Opens an app with a document of settings, which JavaScript has resolved.
#[napi]
pub(crate) fn open(bridge: &External<Bridge>, settings: &[u8]) -> napi::Result<OpenedApp> {
    let settings = RawDocument::from_bytes(settings).map_err(|error| thrown(&Error::custom(error.to_string())))?;
    let settings = Configuration::read(settings).map_err(|error| thrown(&error))?;
    let functions = settings.function_options();
    let opened = settings.open().map_err(|error| thrown(&error))?;
    let embedded = opened.embedded.as_deref();
    let definition = embedded.map(Embedded::definition);
    let (origin, definition_app_id) = definition
        .as_ref()
        .map(|definition| (definition.origin.clone(), definition.app_id.clone()))
        .unwrap_or_default();
    let reported = definition.iter().flat_map(|definition| &definition.reported).map(ToString::to_string).collect();
    let allows_any_origin = definition.is_some_and(|definition| definition.allowed_request_origins.is_empty());
    // The definition may get functions later, also if it is another app of the process that
    // reloads it.
    let backend = embedded.map(Embedded::backend);
    let handle = bridge.add(Opened::new(opened));
    let functions = match backend {
        Some(backend) => {
            let starter = Starter::new(bridge.outbox(), handle, backend, functions);
            Some(bridge.opened(handle)?.host_functions(starter))
        }
        None => None,
    };
    Ok(OpenedApp { handle, origin, definition_app_id, reported, allows_any_origin, functions })
}

/// Closes an app. Running calls may fail, and later calls are rejected.
#[napi]
pub(crate) fn close(env: &Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started> {
    let Some(opened) = bridge.remove(handle) else { return Ok(Started::Done) };
    opened.stop_watching();
    let starter = opened.stop_functions();
    let outbox = Arc::clone(bridge.outbox());
    let closed = Arc::clone(&opened);
    let closing = async move {
        if let Some(starter) = starter {
            starter.drain().await;
            outbox.hosts().remove(&starter.number());
        }
        match &closed.app {
            Some(app) => app.close().await,
            None => closed.connection.close().await,
        }
        Ok(None)
    };
    bridge.start(env, Some(&opened), closing.boxed(), false)
}

/// Calls a function for a user, or for the system user on an operator's handle.
///
/// With a service, calls a function of a data source, and `arguments` is its only argument, a
/// document. Without a service, calls a function of the app, and `arguments` is `{ arguments: [ …
/// ] }`. A read by `_id` on an embedded store returns its result immediately.
#[napi]
pub(crate) fn call_function(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    user: u32,
    service: Option<String>,
    name: String,
    arguments: &[u8],
) -> napi::Result<Started> {
    let arguments = document(arguments)?;
    // Calls over HTTP are serialized on the runtime's threads, so that they do not block the event
    // loop.
    // A function of the app never completes at once.
    let inline = service.is_some() && bridge.opened(handle)?.may_answer_at_once();
    bridge.run(env, handle, inline, |opened| async move {
        let value = match (&opened.app, service) {
            (None, service) => opened.embedded()?.call_as_system(&service.unwrap_or_default(), name, arguments).await?,
            (Some(app), Some(service)) => {
                app.call_function(user, name, Arguments::Service { service, argument: arguments }).await?
            }
            (Some(app), None) => {
                let all = arguments.get_array("arguments").map_err(|error| Error::custom(error.to_string()))?;
                app.call_function(user, name, Arguments::Function(all.to_owned())).await?
            }
        };
        Ok(Some(wrap(&value)))
    })
}

/// Runs any other operation of a user or an app by its name. `payload` is a document of its
/// parameters.
#[napi]
pub(crate) fn request(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    operation: String,
    user: u32,
    payload: &[u8],
) -> napi::Result<Started> {
    let payload = document(payload)?;
    bridge.run(env, handle, App::changes_state_first(&operation), |opened| async move {
        Ok(opened.app()?.run(&operation, user, &payload).await?.as_ref().map(wrap))
    })
}

pub(crate) fn document(bytes: &[u8]) -> napi::Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(bytes.to_vec())
        .map_err(|error| napi::Error::from_reason(format!("the arguments are not BSON: {error}")))
}

/// Encodes a value as the only field of a document, because values are passed to JavaScript as
/// documents.
pub(crate) fn wrap(value: &RawBson) -> Vec<u8> {
    let mut document = RawDocumentBuf::new();
    document.append(bson::raw::cstr!("v"), value);
    document.into_bytes()
}
