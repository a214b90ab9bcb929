//! Opens an app from a document of settings, in the form that a binding passes them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use backend::{
    DataSources, Durability, LogRetention, OperationLimits, Options, Retention, Secrets, functions::FunctionOptions,
};
use bson::{Binary, raw::RawDocument};
use serde::Deserialize;

use crate::{
    App, Error, Metadata, Result, Settings,
    connection::{Connection, Embedded, Http, StoreAddress},
};

/// The settings of an app. The caller has resolved options, environment and defaults.
///
/// ```
/// use bson::rawdoc;
/// use client::Configuration;
///
/// let settings = rawdoc! { "appId": "my-app", "store": "" };
/// let parts = Configuration::read(&settings).and_then(Configuration::open).unwrap();
/// assert!(parts.app.is_some() && parts.embedded.is_some());
/// ```
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    app_id: String,
    /// The URL of a remote backend; without it, the backend is in this process.
    base_url: Option<String>,
    /// Time limit of a request to the remote backend, in milliseconds.
    timeout: Option<f64>,
    /// Certificates to trust in addition to the system's, in PEM.
    certificates: Option<Binary>,
    /// The directory of the definition; the built-in development definition if missing.
    definition: Option<PathBuf>,
    /// The address of the store.
    #[serde(default)]
    store: StoreAddress,
    /// Addresses of data sources with a store of their own, by the name of the data source or of
    /// the environment variable.
    #[serde(default)]
    data_sources: BTreeMap<String, StoreAddress>,
    #[serde(default)]
    data_source_variables: BTreeMap<String, StoreAddress>,
    /// The file of the users; if missing, users are not stored.
    session_file: Option<PathBuf>,
    /// The 64-byte key that encrypts the session file.
    encryption_key: Option<Binary>,
    /// Limits of one operation of a user: documents and bytes of a result, milliseconds, and
    /// documents of a write.
    max_documents: Option<f64>,
    max_answer_bytes: Option<f64>,
    max_time: Option<f64>,
    max_write_documents: Option<f64>,
    /// True if acknowledged writes survive a power failure; otherwise they survive only a crash of
    /// the process.
    #[serde(default)]
    durable: bool,
    /// Retention of change events, in seconds and in bytes.
    change_retention_seconds: Option<f64>,
    change_retention_bytes: Option<f64>,
    /// Retention of log entries, in seconds and in bytes.
    log_retention_seconds: Option<f64>,
    log_retention_bytes: Option<f64>,
    /// The secrets of the definition by their names, and the environment variables with secrets.
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    secret_variables: BTreeMap<String, String>,
    /// The number of threads for functions, the time limit of a call in milliseconds, and the
    /// memory limit of a thread in MB.
    function_threads: Option<f64>,
    function_time_limit: Option<f64>,
    function_memory_limit: Option<f64>,
    /// True if the caller reloads the definition when its files change, which is its own affair.
    #[serde(default, rename = "watchDefinition")]
    _watch_definition: bool,
    /// True to name the app as the audience of its tokens.
    #[serde(default)]
    token_audience: bool,
    /// True to open a connection without users, for the operator.
    #[serde(default)]
    operator: bool,
}

/// An open app, in its parts.
pub struct Opened {
    /// The connection to the backend.
    pub connection: Arc<dyn Connection>,
    /// The same connection with its own type, if the backend is in this process.
    pub embedded: Option<Arc<Embedded>>,
    /// The app with its users; `None` for the operator.
    pub app: Option<App>,
}

impl Configuration {
    /// Reads the settings.
    ///
    /// # Errors
    /// If a setting is missing, unknown or of another type. The message names it.
    pub fn read(document: &RawDocument) -> Result<Self> {
        backend::read_document(document).map_err(Error::custom)
    }

    /// Returns the threads and limits of functions.
    pub fn function_options(&self) -> FunctionOptions {
        self.functions()
    }

    /// Opens the app.
    ///
    /// # Errors
    /// If the definition is not valid, or the store or the session file cannot be opened.
    pub fn open(self) -> Result<Opened> {
        let embedded = if self.base_url.is_none() { Some(Arc::new(self.embedded()?)) } else { None };
        let connection: Arc<dyn Connection> = match &embedded {
            Some(embedded) => Arc::clone(embedded) as _,
            None => Arc::new(self.http()?),
        };
        let app = if self.operator {
            None
        } else {
            let metadata = self.encryption_key.map_or(Metadata::NoEncryption, |key| Metadata::Encryption(key.bytes));
            let settings = Settings::new(Arc::clone(&connection), self.session_file, &metadata)?;
            Some(App::open(settings)?)
        };
        Ok(Opened { connection, embedded, app })
    }

    fn embedded(&self) -> Result<Embedded> {
        let kept = Retention::default();
        let options = Options {
            limits: self.limits(),
            durability: if self.durable { Durability::Full } else { Durability::Process },
            change_retention: Retention {
                age: self.change_retention_seconds.map_or(kept.age, |seconds| Duration::from_secs(seconds as u64)),
                bytes: self.change_retention_bytes.map_or(kept.bytes, |bytes| bytes as u64),
            },
            log_retention: self.log_retention(),
            leaves_log: self.operator && self.log_retention_seconds.is_none() && self.log_retention_bytes.is_none(),
            data_sources: DataSources {
                named: self.data_sources.clone(),
                variables: self.data_source_variables.clone(),
            },
            token_audience: self.token_audience,
            functions: self.functions(),
            secrets: Secrets::new(self.secrets.clone()).with_variables(self.secret_variables.clone()),
        };
        Embedded::open(&self.app_id, self.definition.as_deref(), &self.store, &options)
    }

    fn limits(&self) -> OperationLimits {
        let usual = OperationLimits::default();
        let number = |set: Option<f64>, usual: usize| set.map_or(usual, |set| set as usize);
        OperationLimits {
            time: self.max_time.map_or(usual.time, |time| Duration::from_millis(time as u64)),
            documents: number(self.max_documents, usual.documents),
            answer_bytes: number(self.max_answer_bytes, usual.answer_bytes),
            write_documents: number(self.max_write_documents, usual.write_documents),
            ..usual
        }
    }

    fn log_retention(&self) -> LogRetention {
        let usual = LogRetention::default();
        LogRetention {
            age: self.log_retention_seconds.map_or(usual.age, |seconds| Duration::from_secs(seconds as u64)),
            bytes: self.log_retention_bytes.map_or(usual.bytes, |bytes| bytes as u64),
        }
    }

    fn functions(&self) -> FunctionOptions {
        let usual = FunctionOptions::default();
        FunctionOptions {
            threads: self.function_threads.map_or(usual.threads, |threads| threads as u32),
            time_limit: self.function_time_limit.map_or(usual.time_limit, |limit| Duration::from_millis(limit as u64)),
            memory_limit: self.function_memory_limit.map_or(usual.memory_limit, |limit| limit as u32),
        }
    }

    fn http(&self) -> Result<Http> {
        let base_url = self.base_url.as_deref().unwrap_or_default();
        // An invalid timeout means the default, as in the SDK.
        let timeout = self.timeout.and_then(|timeout| Duration::try_from_secs_f64(timeout / 1000.0).ok());
        let certificates = self.certificates.as_ref().map(|certificates| certificates.bytes.as_slice());
        Http::new(&self.app_id, base_url, timeout, certificates.unwrap_or_default())
    }
}
