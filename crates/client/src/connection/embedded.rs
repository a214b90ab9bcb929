//! Connections to a backend in this process. Apps with the same id, definition and store share one
//! backend, whichever thread opens them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::ThreadId,
};

use backend::{
    Backend, Definition, Environment, Options, Request, Response, Secrets, Store, StoreAddress, Subscription,
    definition::DefinitionError, functions::FunctionOptions, request::CallFunction,
};
use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{BoxFuture, FutureExt};

use super::{Connection, EventStream};
use crate::{Error, Result};

/// The properties that two connections must have in common to share a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    app_id: String,
    definition: Option<PathBuf>,
    store: StoreAddress,
    options: Options,
}

/// The properties that two backends must have in common to share a store in memory, as they would
/// share a file. Options do not matter. Threads do: test runners run suites in threads, each with
/// apps of the same ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MemoryKey {
    thread: ThreadId,
    app_id: String,
    definition: Option<PathBuf>,
}

/// A value that connections share, and the number of its users.
#[derive(Debug)]
struct RefCounted<T> {
    value: T,
    users: usize,
}

/// A connection to a backend in this process.
#[derive(Debug)]
pub struct Embedded {
    backend: Arc<Backend>,
    /// The directory of the definition, and the secrets that the app's options give.
    directory: Option<PathBuf>,
    secrets: Secrets,
    /// The registry key of the shared value; `None` after the connection has left.
    place: Mutex<Option<RegistryKey>>,
}

#[derive(Debug)]
enum RegistryKey {
    Backend(Box<Key>),
    Memory(MemoryKey),
}

#[derive(Default)]
struct Registry {
    backends: HashMap<Key, RefCounted<Arc<Backend>>>,
    memories: HashMap<MemoryKey, RefCounted<Arc<dyn Store>>>,
}

/// Removes one user of a value. Returns true if it was the last one.
fn leave<K: std::hash::Hash + Eq, T>(all: &mut HashMap<K, RefCounted<T>>, key: &K) -> bool {
    let Some(shared) = all.get_mut(key) else { return false };
    shared.users -= 1;
    let is_last = shared.users == 0;
    if is_last {
        all.remove(key);
    }
    is_last
}

fn registry() -> std::sync::MutexGuard<'static, Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Embedded {
    /// Opens the backend of an app, or joins the one that is open already.
    ///
    /// Without a directory, the app runs the development definition. Backends of the same app,
    /// definition and thread share a store in memory.
    ///
    /// # Errors
    /// If the definition is not valid or the store cannot be opened. The error lists all problems.
    pub fn open(app_id: &str, definition: Option<&Path>, address: &StoreAddress, options: &Options) -> Result<Self> {
        let (app, directory) = (app_id.to_owned(), definition.map(absolute));
        let store = match address {
            StoreAddress::Memory => {
                let key = MemoryKey { thread: std::thread::current().id(), app_id: app, definition: directory };
                return Self::open_in_memory(key, definition, options);
            }
            StoreAddress::File(path) => StoreAddress::File(absolute(path)),
            StoreAddress::MongoDb(_) => address.clone(),
        };
        // Apps that differ only in the threads of functions share a backend.
        let shared = Options { functions: FunctionOptions::default(), leaves_log: false, ..options.clone() };
        let key = Key { app_id: app, definition: directory, store, options: shared };
        let mut registry = registry();
        let backend = match registry.backends.get_mut(&key) {
            Some(shared) => {
                shared.users += 1;
                shared.value.functions().join(options.functions);
                if !options.leaves_log {
                    shared.value.trim_log();
                }
                Arc::clone(&shared.value)
            }
            None => {
                let backend = Arc::new(open_backend(app_id, definition, address, None, options)?);
                registry.backends.insert(key.clone(), RefCounted { value: Arc::clone(&backend), users: 1 });
                backend
            }
        };
        let place = Mutex::new(Some(RegistryKey::Backend(Box::new(key))));
        Ok(Self { backend, directory: definition.map(watched), secrets: options.secrets.clone(), place })
    }

    fn open_in_memory(key: MemoryKey, definition: Option<&Path>, options: &Options) -> Result<Self> {
        let mut registry = registry();
        let store = match registry.memories.get(&key) {
            Some(shared) => Arc::clone(&shared.value),
            None => backend::open_memory(options, &Environment::system())
                .map_err(|error| Error::custom(error.to_string()))?,
        };
        let address = StoreAddress::Memory;
        let backend = open_backend(&key.app_id, definition, &address, Some(Arc::clone(&store)), options)?;
        registry.memories.entry(key.clone()).or_insert(RefCounted { value: store, users: 0 }).users += 1;
        let place = Mutex::new(Some(RegistryKey::Memory(key)));
        let (backend, directory) = (Arc::new(backend), definition.map(watched));
        Ok(Self { backend, directory, secrets: options.secrets.clone(), place })
    }

    /// Returns the backend, for a server.
    pub fn backend(&self) -> Arc<Backend> {
        Arc::clone(&self.backend)
    }

    /// True if some requests complete without waiting for another process.
    pub fn may_answer_at_once(&self) -> bool {
        !self.backend.store().is_remote()
    }

    /// Returns the definition in force.
    pub fn definition(&self) -> Arc<Definition> {
        self.backend.definition()
    }

    /// Reads the definition again if its files have changed, as
    /// [`Backend::changed_definition`] does. Blocks for as long as the files are read. The
    /// development definition has no files.
    ///
    /// # Errors
    /// All problems that keep the definition from loading.
    pub fn changed_definition(&self) -> Result<Option<Definition>, DefinitionError> {
        let Some(directory) = &self.directory else { return Ok(None) };
        self.backend.changed_definition(directory, &self.secrets)
    }

    /// Calls a function of a data source as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// The error of the backend.
    pub async fn call_as_system(&self, service: &str, name: String, arguments: RawDocumentBuf) -> Result<RawBson> {
        Ok(self.backend.call_as_system(service, name, arguments).await?)
    }

    /// Opens a change stream as the system user, without rules. For the operator.
    ///
    /// # Errors
    /// The error of the backend.
    pub async fn watch_as_system(&self, service: &str, arguments: RawDocumentBuf) -> Result<Box<dyn EventStream>> {
        Ok(Box::new(self.backend.watch_as_system(service, arguments).await?))
    }

    /// Leaves the shared value. Returns true if this was its last user.
    fn leave(&self) -> bool {
        match self.place.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => false,
            Some(RegistryKey::Backend(key)) => leave(&mut registry().backends, &key),
            Some(RegistryKey::Memory(key)) => leave(&mut registry().memories, &key),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // A connection that was never closed, for example because its thread ended, must not keep
        // the backend open.
        self.leave();
    }
}

/// Returns the path at which the files of a definition are looked at. It may be a link, which a
/// deployment replaces.
fn watched(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn absolute(path: &Path) -> PathBuf {
    let made = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    made.canonicalize().unwrap_or(made)
}

fn open_backend(
    app_id: &str,
    definition: Option<&Path>,
    address: &StoreAddress,
    open_store: Option<Arc<dyn Store>>,
    options: &Options,
) -> Result<Backend> {
    let definition = match definition {
        Some(directory) => Definition::load(directory, &options.secrets),
        None => Definition::development(),
    };
    let definition = definition.map_err(|error| Error::custom(error.to_string()))?;
    Backend::open_on(app_id, definition, address, open_store, Environment::system(), options)
        .map_err(|error| Error::custom(error.to_string()))
}

impl Connection for Embedded {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        async move { Ok(self.backend.handle_in_process(request).await?) }.boxed()
    }

    fn watch(&self, call: CallFunction) -> BoxFuture<'_, Result<Box<dyn EventStream>>> {
        async move { Ok(Box::new(self.backend.watch(call).await?) as Box<dyn EventStream>) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if self.leave() {
                self.backend.close().await;
            }
        }
        .boxed()
    }
}

impl EventStream for Subscription {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        async move {
            let events = Self::next(self).await?;
            Ok(events.iter().map(|event| self.document(event)).collect())
        }
        .boxed()
    }

    fn position(&self) -> Option<RawDocumentBuf> {
        Self::position(self)
    }
}
