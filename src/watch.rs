//! Change streams. JavaScript holds the number of a stream and repeatedly requests its next
//! events.

use std::sync::Arc;

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocumentBuf},
};
use client::{Error, UserSubscription, connection::EventStream};
use futures_util::future::{Either, select};
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;
use tokio::sync::{Mutex, watch};

use crate::{
    bridge::Bridge,
    opened::Opened,
    operations::{document, wrap},
    outbox::Started,
};

/// An open change stream.
pub(crate) struct OpenSubscription {
    source: Mutex<Source>,
    stop: watch::Sender<bool>,
}

enum Source {
    User(Box<UserSubscription>),
    /// The operator's stream, which opens when its first events are requested.
    System {
        service: String,
        arguments: RawDocumentBuf,
        stream: Option<Box<dyn EventStream>>,
    },
}

impl OpenSubscription {
    fn new(source: Source) -> Self {
        Self { source: Mutex::new(source), stop: watch::Sender::new(false) }
    }

    /// Ends the stream, also for calls that wait for events.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    async fn next(&self, opened: &Opened) -> Result<Option<Vec<RawDocumentBuf>>, Error> {
        let mut stopping = self.stop.subscribe();
        let stopped = std::pin::pin!(stopping.wait_for(|stopped| *stopped));
        let next = std::pin::pin!(async { self.source.lock().await.next(opened).await });
        match select(stopped, next).await {
            Either::Left(_) => Ok(None),
            Either::Right((next, _)) => next,
        }
    }
}

impl Source {
    async fn next(&mut self, opened: &Opened) -> Result<Option<Vec<RawDocumentBuf>>, Error> {
        match self {
            Self::User(watching) => opened.app()?.next_events(watching).await,
            Self::System { service, arguments, stream } => {
                let stream = match stream {
                    Some(stream) => stream,
                    None => {
                        stream.insert(opened.embedded()?.watch_as_system(service, std::mem::take(arguments)).await?)
                    }
                };
                stream.next().await.map(Some)
            }
        }
    }
}

/// Creates a change stream of a data source for a user, or for the system user on an operator's
/// handle. Returns the number of the stream. The first request is sent by [`next_events`].
#[napi]
pub(crate) fn watch(
    bridge: &External<Bridge>,
    handle: u32,
    user: u32,
    service: String,
    arguments: &[u8],
) -> napi::Result<u32> {
    let (opened, arguments) = (bridge.opened(handle)?, document(arguments)?);
    let source = match &opened.app {
        Some(app) => Source::User(Box::new(app.watching(user, service, arguments))),
        None => Source::System { service, arguments, stream: None },
    };
    Ok(opened.add_watched(OpenSubscription::new(source)))
}

/// Waits for the next events of a stream, or returns nothing if it has ended. If the store is in
/// this process, the stream is open when this function returns, unless the rules first need a read
/// that has to wait.
#[napi]
pub(crate) fn next_events(env: &Env, bridge: &External<Bridge>, handle: u32, stream: u32) -> napi::Result<Started> {
    let inline = bridge.opened(handle)?.may_answer_at_once();
    bridge.run(env, handle, inline, |opened| async move {
        let Some(watched) = opened.watched(stream) else { return Ok(None) };
        let Some(events) = watched.next(&opened).await? else { return Ok(None) };
        let mut all = RawArrayBuf::new();
        events.into_iter().for_each(|event| all.push(event));
        Ok(Some(wrap(&RawBson::Array(all))))
    })
}

/// Ends a stream.
#[napi]
pub(crate) fn stop_watching(bridge: &External<Bridge>, handle: u32, stream: u32) {
    // A closed app has no streams any more.
    if let Ok(opened) = bridge.opened(handle) {
        opened.remove_watched(stream);
    }
}

/// Returns all streams of an open app.
#[derive(Default)]
pub(crate) struct Streams {
    last: u32,
    watched: std::collections::HashMap<u32, Arc<OpenSubscription>>,
}

impl Streams {
    pub(crate) fn add(&mut self, watched: OpenSubscription) -> u32 {
        self.last += 1;
        self.watched.insert(self.last, Arc::new(watched));
        self.last
    }

    pub(crate) fn get(&self, stream: u32) -> Option<Arc<OpenSubscription>> {
        self.watched.get(&stream).cloned()
    }

    pub(crate) fn remove(&mut self, stream: u32) {
        if let Some(watched) = self.watched.remove(&stream) {
            watched.stop();
        }
    }

    pub(crate) fn remove_all(&mut self) {
        self.watched.drain().for_each(|(_, watched)| watched.stop());
    }
}
