//! What JavaScript asks, from bytes to the client's operations.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use backend::{
    DataSources, Durability, OperationLimits, Options, Retention, Secret,
    request::{Credentials, EmailPasswordRequest},
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
    bridge::{Bridge, Opened, Outcome, Started},
    errors::thrown,
};

/// What an app is opened with. JavaScript has resolved options, environment and defaults.
#[napi(object)]
pub struct Configuration {
    pub app_id: String,
    /// The URL of a backend elsewhere; there is one in this process if missing.
    pub base_url: Option<String>,
    /// How long a request to it may take, in milliseconds.
    pub timeout: Option<f64>,
    /// What is trusted beside the system's certificates, in PEM.
    pub certificates: Option<Buffer>,
    /// The definition's directory; the development definition if missing.
    pub definition: Option<String>,
    /// The file of the store, or a connection string of MongoDB; memory if missing.
    pub store: Option<String>,
    /// The same for data sources whose documents are elsewhere, by their names, and by the names of environment variables;
    /// memory if empty.
    pub data_sources: Option<HashMap<String, String>>,
    pub data_source_variables: Option<HashMap<String, String>>,
    /// The file of the users; they are not kept if missing.
    pub session_file: Option<String>,
    /// 64 bytes to encrypt that file with.
    pub encryption_key: Option<Buffer>,
    /// What one operation of a user may cost: documents and bytes of an answer, milliseconds, documents of a write.
    pub max_documents: Option<u32>,
    pub max_answer_bytes: Option<u32>,
    pub max_time: Option<u32>,
    pub max_write_documents: Option<u32>,
    /// Whether acknowledged writes survive a power cut at once, or only the death of the process.
    pub durable: Option<bool>,
    /// How long change events are kept: so many seconds, and so many bytes of them.
    pub change_retention_seconds: Option<f64>,
    pub change_retention_bytes: Option<f64>,
    /// True if tokens are to name the app as their audience.
    pub token_audience: Option<bool>,
    /// For the operator: a handle without users.
    pub operator: bool,
}

/// An open app, and what there is to say about its definition, if the backend is in this process.
#[napi(object)]
pub struct OpenedApp {
    pub handle: u32,
    pub origin: String,
    pub definition_app_id: Option<String>,
    pub reported: Vec<String>,
    /// True if the definition lists no origins, so that pages of any may make requests over HTTP.
    pub allows_any_origin: bool,
}

/// Opens an app.
#[napi]
pub fn open(bridge: &External<Bridge>, configuration: Configuration) -> napi::Result<OpenedApp> {
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

/// What one operation of a user may cost.
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

/// Where a store is, as JavaScript has resolved it.
pub fn address(store: &str) -> StoreAddress {
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
    // What is no time at all, as in the SDK, stands for the usual one.
    let timeout = configuration.timeout.and_then(|timeout| Duration::try_from_secs_f64(timeout / 1000.0).ok());
    Http::new(&configuration.app_id, base_url, timeout, configuration.certificates.as_deref().unwrap_or_default())
}

/// Closes an app. Calls that are under way may fail; no new ones are taken.
#[napi]
pub fn close(env: &Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started> {
    let Some(opened) = bridge.remove(handle) else { return Ok(Started::D(())) };
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

/// Calls a function of a data source, or, without a service, of the app. What a point read finds is returned at once.
#[napi]
pub fn call_function(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    user: u32,
    service: Option<String>,
    name: String,
    arguments: &[u8],
) -> napi::Result<Started> {
    let arguments = document(arguments)?;
    // What goes over HTTP is written elsewhere than where the event loop waits.
    let inline = bridge.opened(handle)?.may_answer_at_once();
    bridge.run(env, handle, inline, |opened| async move {
        app(&opened)?.call_function(user, service, name, arguments).await.map(|value| wrap(&value))
    })
}

/// Calls a function of a data source as the system user, for the operator. On an embedded store, a point read returns
/// its result at once.
#[napi]
pub fn call_as_system(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    service: String,
    name: String,
    arguments: &[u8],
) -> napi::Result<Started> {
    let arguments = document(arguments)?;
    let inline = bridge.opened(handle)?.may_answer_at_once();
    bridge.run(env, handle, inline, |opened| async move {
        opened.embedded()?.call_as_system(&service, name, arguments).await.map(|value| wrap(&value))
    })
}

/// Does anything else that a user or an app does, by its name; `payload` is a document of its parameters.
#[napi]
pub fn request(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    operation: String,
    user: u32,
    payload: &[u8],
) -> napi::Result<Started> {
    let payload = document(payload)?;
    // What is to be done on this device before the request must be done when this function returns.
    let inline = matches!(operation.as_str(), "logOut" | "removeUser");
    bridge.run(env, handle, inline, |opened| async move { run(app(&opened)?, &operation, user, &payload).await })
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
        "link" => app.link(user, &credentials(payload)?, reuse).await?,
        "apiKeys" => app.api_keys(user).await?,
        "push" => app.push(user, text("service")?).await?,
        _ => {
            let request = match operation {
                "registerUser" => {
                    EmailPasswordRequest::Register { email: text("email")?, password: Secret::from(text("password")?) }
                }
                "confirmUser" => EmailPasswordRequest::Confirm,
                "resendConfirmationEmail" => EmailPasswordRequest::ResendConfirmation { email: text("email")? },
                "retryCustomConfirmation" => EmailPasswordRequest::RetryCustomConfirmation { email: text("email")? },
                "resetPassword" => EmailPasswordRequest::Reset,
                "sendResetPasswordEmail" => EmailPasswordRequest::SendReset { email: text("email")? },
                "callResetPasswordFunction" => EmailPasswordRequest::CallResetFunction { email: text("email")? },
                _ => return Err(Error::custom(format!("there is no operation '{operation}'"))),
            };
            app.email_password(request).await?;
        }
    }
    Ok(None)
}

fn credentials(payload: &RawDocument) -> Result<Credentials, Error> {
    let text = |key: &str| {
        payload.get_str(key).map(str::to_owned).map_err(|_| Error::custom(format!("the credentials need '{key}'")))
    };
    Ok(match text("provider")?.as_str() {
        "anon-user" => Credentials::Anonymous,
        "local-userpass" => {
            Credentials::EmailPassword { email: text("email")?, password: Secret::from(text("password")?) }
        }
        other => Credentials::Other(other.to_owned()),
    })
}

pub fn app(opened: &Opened) -> Result<&App, Error> {
    opened.app.as_ref().ok_or_else(|| Error::custom("an operator's handle has no users"))
}

pub fn document(bytes: &[u8]) -> napi::Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(bytes.to_vec())
        .map_err(|error| napi::Error::from_reason(format!("the arguments are not BSON: {error}")))
}

/// A value as the only field of a document, which is how it crosses.
pub fn wrap(value: &RawBson) -> Option<Vec<u8>> {
    let mut document = RawDocumentBuf::new();
    document.append(bson::raw::cstr!("v"), value);
    Some(document.into_bytes())
}
