//! An open app, or an operator's handle.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use backend::{Definition, Progress};
use client::{
    App, Error, Event,
    connection::{Connection, Embedded},
};
use server::Server;

use crate::{
    functions::Starter,
    outbox::lock,
    watch::{OpenSubscription, Streams},
};

/// An open app, or an operator's handle, which has no users.
pub(crate) struct Opened {
    pub connection: Arc<dyn Connection>,
    /// The same connection with its own type, if the backend is in this process.
    embedded: Option<Arc<Embedded>>,
    pub app: Option<App>,
    /// Events that operations caused before their call returned. Listeners are called immediately
    /// for these, and later for all others.
    at_once: Mutex<Vec<Event>>,
    /// The HTTP server of the backend, if it listens.
    server: OnceLock<Arc<Server>>,
    streams: Mutex<Streams>,
    /// Lets the app start threads for the functions of its backend.
    starter: Mutex<Option<Starter>>,
    progress: Progress,
    /// A definition whose files have changed, before it is in force.
    changed_definition: Mutex<Option<Definition>>,
}

impl Opened {
    pub(crate) fn new(client::Opened { connection, embedded, app }: client::Opened) -> Self {
        Self {
            connection,
            embedded,
            app,
            at_once: Mutex::default(),
            server: OnceLock::new(),
            streams: Mutex::default(),
            starter: Mutex::default(),
            progress: Progress::default(),
            changed_definition: Mutex::default(),
        }
    }

    /// Returns the users of this device.
    pub(crate) fn app(&self) -> Result<&App, Error> {
        self.app.as_ref().ok_or_else(|| Error::custom("an operator's handle has no users"))
    }

    /// Returns the backend of this process, for its operator.
    pub(crate) fn embedded(&self) -> Result<&Arc<Embedded>, Error> {
        self.embedded.as_ref().ok_or_else(|| Error::custom("the backend is not in this process"))
    }

    /// True if some calls complete at the first poll, so that polling on the environment's thread
    /// is worthwhile.
    pub(crate) fn may_answer_at_once(&self) -> bool {
        self.embedded.as_ref().is_some_and(|embedded| embedded.may_answer_at_once())
    }

    pub(crate) fn set_server(&self, server: Server) {
        let _ = self.server.set(Arc::new(server));
    }

    pub(crate) fn server(&self) -> Option<&Arc<Server>> {
        self.server.get()
    }

    /// Waits until the server begins to shut down.
    pub(crate) async fn server_ended(&self) {
        if let Some(server) = self.server.get() {
            server.ended().await;
        }
    }

    /// Stops accepting requests, and shuts the server down when the running ones have finished.
    pub(crate) async fn close_server(&self) {
        if let Some(server) = self.server.get() {
            server.close().await;
        }
    }

    /// Lets the app start threads until [`stop_functions`](Self::stop_functions). Returns the
    /// backend's number.
    pub(crate) fn host_functions(&self, starter: Starter) -> u32 {
        lock(&self.starter).insert(starter).number()
    }

    /// Takes the app's right to start threads. When it is dropped, calls on its threads fail.
    pub(crate) fn stop_functions(&self) -> Option<Starter> {
        lock(&self.starter).take()
    }

    /// Returns the progress of the current maintenance task.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Keeps a definition that is to be put in force, or takes the last one.
    pub(crate) fn changed_definition(&self) -> MutexGuard<'_, Option<Definition>> {
        lock(&self.changed_definition)
    }

    pub(crate) fn add_watched(&self, watched: OpenSubscription) -> u32 {
        lock(&self.streams).add(watched)
    }

    pub(crate) fn watched(&self, stream: u32) -> Option<Arc<OpenSubscription>> {
        lock(&self.streams).get(stream)
    }

    pub(crate) fn remove_watched(&self, stream: u32) {
        lock(&self.streams).remove(stream);
    }

    /// Ends all streams.
    pub(crate) fn stop_watching(&self) {
        lock(&self.streams).remove_all();
    }

    /// Keeps the events that have occurred for [`take_events`](Self::take_events).
    pub(crate) fn note_events(&self) {
        if let Some(app) = &self.app {
            lock(&self.at_once).extend(app.take_events());
        }
    }

    /// Takes the events that listeners have not been called for: all, or only those that occurred
    /// before the last call returned.
    pub(crate) fn take_events(&self, all: bool) -> Vec<Event> {
        if all {
            self.note_events();
        }
        std::mem::take(&mut *lock(&self.at_once))
    }
}
