//! The functions that JavaScript calls. They decode bytes and start operations of the client.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use backend::{
    DataSources, Durability, OperationLimits, Options, Retention,
    request::{Action, ApiKeyAction, Arguments, Credentials, ProviderAction, PushAction},
    response::ApiKey,
};
use bson::{
    RawBson,
    raw::{RawDocument, RawDocumentBuf},
};
use client::{
    App, Error, Handle, Metadata, Settings,
    connection::{Connection, Embedded, Http, StoreAddress},
};
use futures_util::future::FutureExt;
use napi::{
    Env,
    bindgen_prelude::{Buffer, External},
};
use napi_derive::napi;

use crate::{
    bridge::Bridge,
    errors::thrown,
    opened::Opened,
    outbox::{Outcome, Started},
};

/// The configuration of an app. JavaScript has resolved options, environment and defaults.
#[napi(object)]
pub(crate) struct Configuration {
    pub app_id: String,
    /// The URL of a remote backend; without it, the backend is in this process.
    pub base_url: Option<String>,
    /// Time limit of a request to the remote backend, in milliseconds.
    pub timeout: Option<f64>,
    /// Certificates to trust in addition to the system's, in PEM.
    pub certificates: Option<Buffer>,
    /// The directory of the definition; the built-in development definition if missing.
    pub definition: Option<String>,
    /// The file of the store, or a MongoDB connection string; in memory if missing.
    pub store: Option<String>,
    /// Addresses of data sources with a store of their own, by the name of the data source or of
    /// the environment variable. An empty address means memory.
    pub data_sources: Option<HashMap<String, String>>,
    pub data_source_variables: Option<HashMap<String, String>>,
    /// The file of the users; if missing, users are not stored.
    pub session_file: Option<String>,
    /// The 64-byte key that encrypts the session file.
    pub encryption_key: Option<Buffer>,
    /// Limits of one operation of a user: documents and bytes of a result, milliseconds, and
    /// documents of a write.
    pub max_documents: Option<u32>,
    pub max_answer_bytes: Option<u32>,
    pub max_time: Option<u32>,
    pub max_write_documents: Option<u32>,
    /// True if acknowledged writes survive a power failure; otherwise they survive only a crash of
    /// the process.
    pub durable: Option<bool>,
    /// Retention of change events, in seconds and in bytes.
    pub change_retention_seconds: Option<f64>,
    pub change_retention_bytes: Option<f64>,
    /// True to name the app as the audience of its tokens.
    pub token_audience: Option<bool>,
    /// True to open a handle without users, for the operator.
    pub operator: bool,
}

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
}

/// Opens an app.
#[napi]
pub(crate) fn open(bridge: &External<Bridge>, configuration: Configuration) -> napi::Result<OpenedApp> {
    let embedded = match &configuration.base_url {
        Some(_) => None,
        None => Some(Arc::new(open_embedded(&configuration).map_err(|error| thrown(&error))?)),
    };
    let connection: Arc<dyn Connection> = match &embedded {
        Some(embedded) => Arc::clone(embedded) as _,
        None => Arc::new(open_http(&configuration).map_err(|error| thrown(&error))?),
    };
    let (origin, definition_app_id) = embedded.as_ref().map(|embedded| embedded.definition()).unwrap_or_default();
    let (origin, definition_app_id) = (origin.to_owned(), definition_app_id.map(str::to_owned));
    let reported = embedded.iter().flat_map(|embedded| embedded.reported()).map(ToString::to_string).collect();
    let allows_any_origin =
        embedded.as_ref().is_some_and(|embedded| embedded.backend().definition().allowed_request_origins.is_empty());
    let app = if configuration.operator {
        None
    } else {
        let metadata =
            configuration.encryption_key.map_or(Metadata::NoEncryption, |key| Metadata::Encryption(key.to_vec()));
        let path = configuration.session_file.map(PathBuf::from);
        let settings = Settings::new(Arc::clone(&connection), path, &metadata);
        Some(settings.and_then(App::open).map_err(|error| thrown(&error))?)
    };
    let handle = bridge.add(Opened::new(connection, embedded, app));
    Ok(OpenedApp { handle, origin, definition_app_id, reported, allows_any_origin })
}

fn open_embedded(configuration: &Configuration) -> Result<Embedded, Error> {
    let address = address(configuration.store.as_deref().unwrap_or_default());
    let addresses = |sources: &Option<HashMap<String, String>>| {
        sources.iter().flatten().map(|(name, store)| (name.clone(), crate::operations::address(store))).collect()
    };
    let definition = configuration.definition.as_ref().map(PathBuf::from);
    let kept = Retention::default();
    let options = Options {
        limits: limits(configuration),
        durability: if configuration.durable == Some(true) { Durability::Full } else { Durability::Process },
        change_retention: Retention {
            age: configuration.change_retention_seconds.map_or(kept.age, |seconds| Duration::from_secs(seconds as u64)),
            bytes: configuration.change_retention_bytes.map_or(kept.bytes, |bytes| bytes as u64),
        },
        data_sources: DataSources {
            named: addresses(&configuration.data_sources),
            variables: addresses(&configuration.data_source_variables),
        },
        token_audience: configuration.token_audience == Some(true),
    };
    Embedded::open(&configuration.app_id, definition.as_deref(), &address, &options)
}

/// Returns the limits of one operation of a user.
fn limits(configuration: &Configuration) -> OperationLimits {
    let usual = OperationLimits::default();
    let number = |said: Option<u32>, usual: usize| said.map_or(usual, |said| said as usize);
    OperationLimits {
        time: configuration.max_time.map_or(usual.time, |time| Duration::from_millis(time.into())),
        documents: number(configuration.max_documents, usual.documents),
        answer_bytes: number(configuration.max_answer_bytes, usual.answer_bytes),
        write_documents: number(configuration.max_write_documents, usual.write_documents),
        ..usual
    }
}

/// Parses the address of a store that JavaScript has resolved.
pub(crate) fn address(store: &str) -> StoreAddress {
    match store {
        "" => StoreAddress::Memory,
        address if address.starts_with("mongodb://") || address.starts_with("mongodb+srv://") => {
            StoreAddress::MongoDb(address.to_owned().into())
        }
        path => StoreAddress::File(path.into()),
    }
}

fn open_http(configuration: &Configuration) -> Result<Http, Error> {
    let base_url = configuration.base_url.as_deref().unwrap_or_default();
    // An invalid timeout means the default, as in the SDK.
    let timeout = configuration.timeout.and_then(|timeout| Duration::try_from_secs_f64(timeout / 1000.0).ok());
    Http::new(&configuration.app_id, base_url, timeout, configuration.certificates.as_deref().unwrap_or_default())
}

/// Closes an app. Running calls may fail, and later calls are rejected.
#[napi]
pub(crate) fn close(env: &Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started> {
    let Some(opened) = bridge.remove(handle) else { return Ok(Started::Done) };
    opened.stop_watching();
    let closed = Arc::clone(&opened);
    let closing = async move {
        match &closed.app {
            Some(app) => app.close().await,
            None => closed.connection.close().await,
        }
        Ok(None)
    };
    bridge.start(env, &opened, closing.boxed(), false)
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
    let inline = bridge.opened(handle)?.may_answer_at_once();
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
        Ok(wrap(&value))
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
    // These operations must change the state on this device before the function returns and before
    // any request is sent.
    let inline = matches!(operation.as_str(), "logOut" | "removeUser");
    bridge.run(env, handle, inline, |opened| async move { run(opened.app()?, &operation, user, &payload).await })
}

async fn run(app: &App, operation: &str, user: Handle, payload: &RawDocument) -> Outcome {
    let text = |key: &str| {
        payload.get_str(key).map(str::to_owned).map_err(|_| Error::custom(format!("{operation} needs '{key}'")))
    };
    let reuse = payload.get_bool("reuse").unwrap_or(true);
    match operation {
        "logIn" => {
            let handle = app.log_in(credentials(payload)?, reuse).await?;
            let entry = bson::rawdoc! { "handle": i64::from(handle), "id": app.user_id(handle)? };
            return Ok(wrap(&RawBson::Document(entry)));
        }
        "logOut" => app.log_out(user).await?,
        "removeUser" => app.remove_user(user).await?,
        "deleteUser" => app.delete_user(user).await?,
        "refreshCustomData" => app.refresh_custom_data(user).await?,
        "link" => app.link(user, credentials(payload)?, reuse).await?,
        "apiKeys" => {
            let keys = app.api_keys(user, api_key_action(&text("action")?, || text("value"))?).await?;
            return Ok(wrap(&RawBson::Array(keys.into_iter().map(api_key).collect())));
        }
        "push" => {
            let action = match payload.get_str("token") {
                Ok(token) => PushAction::Register { registration_token: token.to_owned().into() },
                Err(_) => PushAction::Deregister,
            };
            app.push(user, text("service")?, action).await?;
        }
        action => {
            let known = Action::by_name(action);
            let action = known.ok_or_else(|| Error::custom(format!("there is no operation '{action}'")))?;
            app.act(ProviderAction::email_password(action, payload.to_owned())).await?;
        }
    }
    Ok(None)
}

fn credentials(payload: &RawDocument) -> Result<Credentials, Error> {
    let missing = |key: &str| Error::custom(format!("the credentials need '{key}'"));
    let provider = payload.get_str("provider").map_err(|_| missing("provider"))?.to_owned();
    let payload = payload.get_document("payload").map_err(|_| missing("payload"))?.to_owned();
    Ok(Credentials { provider, payload: payload.into() })
}

fn api_key_action(action: &str, value: impl Fn() -> Result<String, Error>) -> Result<ApiKeyAction, Error> {
    Ok(match action {
        "create" => ApiKeyAction::Create { name: value()? },
        "fetch" => ApiKeyAction::Fetch { id: value()? },
        "delete" => ApiKeyAction::Delete { id: value()? },
        "enable" => ApiKeyAction::Enable { id: value()? },
        "disable" => ApiKeyAction::Disable { id: value()? },
        _ => ApiKeyAction::FetchAll,
    })
}

/// Encodes an API key in the format of the SDK: `{ _id, key?, name, disabled }`.
fn api_key(key: ApiKey) -> RawDocumentBuf {
    let mut document = bson::rawdoc! { "_id": key.id, "name": key.name, "disabled": key.disabled };
    if let Some(secret) = &key.key {
        document.append(bson::raw::cstr!("key"), secret.expose());
    }
    document
}

pub(crate) fn document(bytes: &[u8]) -> napi::Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(bytes.to_vec())
        .map_err(|error| napi::Error::from_reason(format!("the arguments are not BSON: {error}")))
}

/// Encodes a value as the only field of a document, because values are passed to JavaScript as
/// documents.
pub(crate) fn wrap(value: &RawBson) -> Option<Vec<u8>> {
    let mut document = RawDocumentBuf::new();
    document.append(bson::raw::cstr!("v"), value);
    Some(document.into_bytes())
}
