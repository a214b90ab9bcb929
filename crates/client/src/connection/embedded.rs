//! A backend in this process. Apps with one id, definition and store share one, whichever thread opens them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use backend::{
    Backend, Definition, Environment, Options, Request, Response, StoreAddress, Watcher, definition::Problem,
    request::CallFunction,
};
use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{BoxFuture, FutureExt};

use super::{Connection, EventStream};
use crate::{Error, Result};

/// What makes two connections share a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    app_id: String,
    definition: Option<PathBuf>,
    store: StoreAddress,
    options: Options,
}

#[derive(Debug)]
struct Shared {
    backend: Arc<Backend>,
    users: usize,
}

/// A connection to a backend in this process.
#[derive(Debug)]
pub struct Embedded {
    backend: Arc<Backend>,
    /// How it is found by others, unless it is in memory.
    key: Mutex<Option<Key>>,
}

fn registry() -> std::sync::MutexGuard<'static, HashMap<Key, Shared>> {
    static REGISTRY: OnceLock<Mutex<HashMap<Key, Shared>>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Embedded {
    /// Opens the backend of an app, or joins the one that is open. Without a directory it runs the development
    /// definition.
    ///
    /// # Errors
    /// Where the definition cannot be used or the store cannot be opened, with everything that is wrong.
    pub fn open(app_id: &str, definition: Option<&Path>, address: &StoreAddress, options: &Options) -> Result<Self> {
        let store = match address {
            StoreAddress::Memory => None,
            StoreAddress::File(path) => Some(StoreAddress::File(absolute(path))),
            StoreAddress::MongoDb(_) => Some(address.clone()),
        };
        let key = store.map(|store| Key {
            app_id: app_id.to_owned(),
            definition: definition.map(absolute),
            store,
            options: options.clone(),
        });
        let mut registry = registry();
        if let Some(shared) = key.as_ref().and_then(|key| registry.get_mut(key)) {
            shared.users += 1;
            return Ok(Self { backend: Arc::clone(&shared.backend), key: Mutex::new(key) });
        }
        let backend = Arc::new(open_backend(app_id, definition, address, options)?);
        if let Some(key) = &key {
            registry.insert(key.clone(), Shared { backend: Arc::clone(&backend), users: 1 });
        }
        Ok(Self { backend, key: Mutex::new(key) })
    }

    /// The backend itself, for a server.
    pub fn backend(&self) -> Arc<Backend> {
        Arc::clone(&self.backend)
    }

    /// Whether there are requests that are answered without waiting for another process.
    pub fn may_answer_at_once(&self) -> bool {
        !self.backend.store().is_remote()
    }

    /// What was found in the definition and is not used.
    pub fn reported(&self) -> &[Problem] {
        &self.backend.definition().reported
    }

    /// Where the definition came from, and the app id in it.
    pub fn definition(&self) -> (&str, Option<&str>) {
        let definition = self.backend.definition();
        (&definition.origin, definition.app_id.as_deref())
    }

    /// Calls a data source's function under no rules, for the operator.
    ///
    /// # Errors
    /// As the backend says.
    pub async fn call_as_system(&self, service: &str, name: String, arguments: RawDocumentBuf) -> Result<RawBson> {
        Ok(self.backend.call_as_system(service, name, arguments).await?)
    }

    /// Begins to follow a collection under no rules, for the operator.
    ///
    /// # Errors
    /// As the backend says.
    pub async fn watch_as_system(&self, service: &str, arguments: RawDocumentBuf) -> Result<Box<dyn EventStream>> {
        Ok(Box::new(self.backend.watch_as_system(service, arguments).await?))
    }

    /// Takes this connection out of the registry; whether it was the last one.
    fn leave(&self) -> bool {
        let Some(key) = self.key.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        let mut registry = registry();
        let Some(shared) = registry.get_mut(&key) else { return false };
        shared.users -= 1;
        let last = shared.users == 0;
        if last {
            registry.remove(&key);
        }
        last
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // A connection that was never closed, as when its thread ends, must not keep the backend for ever.
        self.leave();
    }
}

fn absolute(path: &Path) -> PathBuf {
    let made = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    made.canonicalize().unwrap_or(made)
}

fn open_backend(app_id: &str, definition: Option<&Path>, address: &StoreAddress, options: &Options) -> Result<Backend> {
    let definition = match definition {
        Some(directory) => Definition::load(directory),
        None => Definition::development(),
    };
    let definition = definition.map_err(|error| Error::custom(error.to_string()))?;
    Backend::open(app_id, definition, address, Environment::system(), options)
        .map_err(|error| Error::custom(error.to_string()))
}

impl Connection for Embedded {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        async move { Ok(self.backend.handle(request).await?) }.boxed()
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

impl EventStream for Watcher {
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
