//! Functions: the threads that run them, and what a running function asks of the backend.
//!
//! An open app whose definition has functions starts the threads. Each thread has a bridge of its
//! own, attaches itself to the backend by the backend's number, and takes calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use backend::{
    Backend, Error as BackendError, ErrorCode,
    functions::{CallId, FunctionHost, FunctionOptions, HostEnd, HostId, HostStarter, Invocation},
};
use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf, cstr},
};
use client::Error;
use futures_util::future::FutureExt;
use napi::{
    Env,
    bindgen_prelude::{Buffer, External},
};
use napi_derive::napi;

use crate::{
    bridge::Bridge,
    operations::{document, wrap},
    outbox::{Bytes, HostOf, Outbox, Started, lock},
};

/// The backends with functions by their numbers, which threads use to find them.
static BACKENDS: Mutex<Option<HashMap<u32, Weak<Backend>>>> = Mutex::new(None);

fn backend(number: u32) -> Option<Arc<Backend>> {
    lock(&BACKENDS).as_ref()?.get(&number)?.upgrade()
}

/// A call of a function to run, or the number of a call to stop if it has no payload.
#[napi(object, object_from_js = false)]
pub(crate) struct CallObject {
    pub backend: u32,
    pub id: f64,
    pub payload: Option<Bytes>,
}

impl CallObject {
    pub(crate) fn new(backend: u32, id: CallId, invocation: &Invocation) -> Self {
        Self { backend, id: id as f64, payload: Some(Bytes(payload(invocation).into_bytes())) }
    }

    pub(crate) fn cancelled((backend, id): (u32, CallId)) -> Self {
        Self { backend, id: id as f64, payload: None }
    }
}

fn payload(invocation: &Invocation) -> RawDocumentBuf {
    let mut payload = RawDocumentBuf::new();
    payload.append(cstr!("generation"), i64::try_from(invocation.generation()).unwrap_or_default());
    payload.append(cstr!("name"), invocation.name.as_str());
    payload.append(cstr!("arguments"), &*invocation.arguments);
    payload.append(cstr!("user"), &*invocation.user);
    payload.append(cstr!("isSystem"), invocation.is_system);
    if let Some(request) = &invocation.request {
        payload.append(cstr!("request"), &**request);
    }
    payload
}

/// A command to start or to end a thread.
#[napi(object, object_from_js = false)]
pub(crate) struct CommandObject {
    /// The handle of the app that starts the thread.
    pub handle: u32,
    pub backend: u32,
    pub host: u32,
    pub is_start: bool,
}

/// An open app as the environment that starts threads for its backend.
pub(crate) struct Starter {
    backend: Arc<Backend>,
    number: u32,
    id: u32,
}

impl Starter {
    /// Lets the app `handle` of an environment start threads.
    pub(crate) fn new(outbox: &Arc<Outbox>, handle: u32, backend: Arc<Backend>, options: FunctionOptions) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        lock(&BACKENDS).get_or_insert_default().insert(number, Arc::downgrade(&backend));
        let commands = Commands { outbox: Arc::downgrade(outbox), handle, number };
        let usual = FunctionOptions { threads: options.threads, ..FunctionOptions::default() };
        let id = backend.functions().add_starter(Arc::new(commands), options.threads == 0, options != usual);
        Self { backend, number, id }
    }

    /// Waits for the calls on the app's threads, if another app can run those that follow.
    pub(crate) async fn drain(&self) {
        self.backend.functions().drain(self.id).await;
    }

    /// Returns the number of the backend.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        if let Some(backends) = &mut *lock(&BACKENDS) {
            backends.remove(&self.number);
        }
        self.backend.functions().remove_starter(self.id);
    }
}

struct Commands {
    outbox: Weak<Outbox>,
    handle: u32,
    number: u32,
}

impl Commands {
    fn send(&self, host: HostId, is_start: bool) {
        if let Some(outbox) = self.outbox.upgrade() {
            outbox.command(CommandObject { handle: self.handle, backend: self.number, host, is_start });
        }
    }
}

impl HostStarter for Commands {
    fn start(&self, host: HostId) {
        self.send(host, true);
    }

    fn end(&self, host: HostId) {
        self.send(host, false);
    }
}

struct Thread {
    outbox: Weak<Outbox>,
    backend: u32,
}

impl FunctionHost for Thread {
    fn wake(&self) {
        if let Some(outbox) = self.outbox.upgrade() {
            outbox.wake();
        }
    }

    fn cancel(&self, call: CallId) {
        if let Some(outbox) = self.outbox.upgrade() {
            outbox.cancel(self.backend, call);
        }
    }
}

/// Makes this environment a thread that runs the functions of a backend. Returns the facts for the
/// functions, as a document, or nothing if the thread is not wanted any more.
#[napi]
pub(crate) fn attach_functions(bridge: &External<Bridge>, backend: u32, host: u32) -> Option<Buffer> {
    let found = self::backend(backend)?;
    let outbox = bridge.outbox();
    if outbox.hosts().contains_key(&backend) {
        return None;
    }
    let facts = found.function_facts().into_bytes();
    outbox.hosts().insert(backend, HostOf { backend: Arc::clone(&found), host });
    let thread = Arc::new(Thread { outbox: Arc::downgrade(outbox), backend });
    if !found.functions().attach(host, thread) {
        outbox.hosts().remove(&backend);
        return None;
    }
    Some(facts.into())
}

/// Detaches all backends of an environment that ends.
pub(crate) fn detach(outbox: &Outbox) {
    for HostOf { backend, host } in std::mem::take(&mut *outbox.hosts()).into_values() {
        backend.functions().detach(host);
    }
}

/// Notes that a thread has ended: because of its memory limit, or for another reason.
#[napi]
pub(crate) fn function_host_ended(backend: u32, host: u32, exceeded_memory: bool) {
    if let Some(backend) = self::backend(backend) {
        let reason = if exceeded_memory { HostEnd::Memory } else { HostEnd::Other };
        backend.functions().host_ended(host, reason);
    }
}

/// Returns the facts for the functions with the definition of a running call, as
/// `attach_functions` does with the one in force.
#[napi]
pub(crate) fn function_facts(bridge: &External<Bridge>, backend: u32, call: f64) -> napi::Result<Buffer> {
    let (_, invocation) = running(bridge, backend, call)?;
    Ok(invocation.facts().into_bytes().into())
}

/// Ends a call with a report: `{ value, error: { message, errorCode, serverCode, stack },
/// messages: [{ level, text }], dropped }`.
#[napi]
pub(crate) fn function_done(bridge: &External<Bridge>, backend: u32, call: f64, report: &[u8]) -> napi::Result<()> {
    let report = document(report)?;
    let Some(backend) = bridge.outbox().hosts().get(&backend).map(|held| Arc::clone(&held.backend)) else {
        return Ok(());
    };
    let call = call as CallId;
    if let Some(invocation) = backend.functions().running(call) {
        let (lines, dropped) = invocation.set_console(&report);
        log_console(&invocation.name, &lines, dropped);
    }
    backend.functions().finish(call, result(&report));
    Ok(())
}

fn result(report: &RawDocument) -> Result<RawBson, BackendError> {
    if let Ok(error) = report.get_document("error") {
        // A function cannot end the session of its caller, for which clients would call again.
        let code = error.get_str("errorCode").ok().and_then(ErrorCode::by_name);
        let code = code.filter(|code| code.status() != 401);
        let message = error.get_str("message").unwrap_or_default().to_owned();
        let server_code = error.get_i32("serverCode").ok();
        return Err(BackendError {
            server_code,
            ..BackendError::new(code.unwrap_or(ErrorCode::FunctionExecutionError), message)
        });
    }
    let value = report.get("value").ok().flatten();
    Ok(value.map_or(RawBson::Undefined, RawBson::from))
}

/// Writes the console lines of a call to the log.
fn log_console(function: &str, lines: &[(String, String)], dropped: u64) {
    for (level, text) in lines {
        match level.as_str() {
            "error" => tracing::error!(function, "{text}"),
            "warn" => tracing::warn!(function, "{text}"),
            "debug" => tracing::debug!(function, "{text}"),
            _ => tracing::info!(function, "{text}"),
        }
    }
    if dropped > 0 {
        tracing::info!(function, dropped, "lines of the console were dropped");
    }
}

/// Writes a line about functions to the log: `error`, `warn` or another level.
#[napi]
pub(crate) fn log_of_function(level: String, message: String) {
    match level.as_str() {
        "error" => tracing::error!("{message}"),
        "warn" => tracing::warn!("{message}"),
        _ => tracing::info!("{message}"),
    }
}

/// Calls a function of a data source for a running function.
#[napi]
#[allow(clippy::too_many_arguments, reason = "a struct would be copied field by field")]
pub(crate) fn call_in_function(
    env: &Env,
    bridge: &External<Bridge>,
    backend: u32,
    call: f64,
    is_system: bool,
    service: String,
    name: String,
    arguments: &[u8],
) -> napi::Result<Started> {
    let (backend, invocation) = running(bridge, backend, call)?;
    let arguments = document(arguments)?;
    let inline = !backend.store().is_remote();
    let operation = async move {
        let value = backend.call_in_function(&invocation, is_system, &service, name, arguments).await;
        value.map(|value| Some(wrap(&value))).map_err(Error::from)
    };
    bridge.start(env, None, operation.boxed(), inline)
}

/// Evaluates the condition of a function that a running function executes.
#[napi]
pub(crate) fn may_execute(
    bridge: &External<Bridge>,
    backend: u32,
    call: f64,
    name: String,
    arguments: &[u8],
) -> napi::Result<bool> {
    let (backend, invocation) = running(bridge, backend, call)?;
    Ok(backend.may_execute(&invocation, &name, &document(arguments)?))
}

fn running(bridge: &Bridge, backend: u32, call: f64) -> napi::Result<(Arc<Backend>, Arc<Invocation>)> {
    let backend = bridge.outbox().hosts().get(&backend).map(|held| Arc::clone(&held.backend));
    backend
        .and_then(|backend| backend.functions().running(call as CallId).map(|invocation| (backend, invocation)))
        .ok_or_else(|| napi::Error::from_reason("the function call has ended"))
}
