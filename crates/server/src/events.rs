//! Sends change events as server-sent events, in the format that the clients of App Services read:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>, with `%` and line ends
//! escaped in the data.

use std::{collections::VecDeque, convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use backend::{ChangeEvent, Subscription};
use bytes::Bytes;
use futures_util::{
    future::{Either, select},
    stream,
};
use tokio::time::timeout;

use crate::{
    answer::{Answer, error_body},
    app_state::AppState,
    budget::Permit,
    connections::Connection,
    large_events::{Client, LargeEvent, write_data, write_document, write_id},
    limits::SMALL_ANSWER,
    listen::ended,
    pieces::Deadline,
    stream_permits::StreamPermit,
};

/// Interval at which an idle stream sends its position, so that the client, the server and proxies
/// detect a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The maximum size of an event that is serialized on the HTTP thread, in bytes of BSON, and the
/// approximate size of a batch of events.
const SMALL_EVENT: usize = 16 * 1024;

/// A stream of events to a client.
pub(crate) struct EventStream {
    pub(crate) state: Arc<AppState>,
    pub(crate) watcher: Subscription,
    /// Counts the small events that were taken from the watcher and that the client has not read
    /// yet.
    pub(crate) permit: Permit,
    pub(crate) client: Client,
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) _held: StreamPermit,
}

impl EventStream {
    /// Returns the response body, which sends the events of the watcher.
    ///
    /// The stream ends when the watcher fails, the client disconnects or the server shuts down.
    /// The watcher is polled only after the client has read the previous events. Events that
    /// exceed the response budget end the stream with an error.
    pub(crate) fn into_body(self) -> Body {
        let first = StreamState {
            stream: self,
            is_new: true,
            pending: VecDeque::new(),
            pending_bytes: 0,
            sending: None,
            rest: None,
        };
        Body::from_stream(stream::unfold(Some(first), |state| async {
            let mut state = state?;
            let text = state.next().await?;
            match text {
                Ok(text) => Some((Ok::<_, Infallible>(text), Some(state))),
                Err(error) => Some((Ok(failure(&error)), None)),
            }
        }))
    }
}

/// The state of a stream between two polls.
struct StreamState {
    stream: EventStream,
    /// True until the first message has been sent.
    is_new: bool,
    /// Events that have not been serialized yet.
    pending: VecDeque<Pending>,
    /// Total size of the small pending events, in bytes of BSON.
    pending_bytes: usize,
    /// The large event that is being sent, with the deadline by which the client must read it.
    sending: Option<(LargeEvent, Option<Deadline>)>,
    /// The text of that event after its `_id`, until it is sent.
    rest: Option<Bytes>,
}

/// An event that has not been serialized yet.
enum Pending {
    Small(Arc<ChangeEvent>),
    Large(LargeEvent),
}

impl Pending {
    fn event(&self) -> Arc<ChangeEvent> {
        Arc::clone(match self {
            Self::Small(event) => event,
            Self::Large(event) => event.event(),
        })
    }
}

impl StreamState {
    /// Returns the next text to send, or none when the server shuts down.
    async fn next(&mut self) -> Option<Result<Bytes, backend::Error>> {
        if let Some(rest) = self.rest.take() {
            return Some(Ok(rest));
        }
        // The client has read the previous text. Reducing the count always succeeds.
        self.sending = None;
        let _ = self.count(0);
        if std::mem::take(&mut self.is_new) {
            // Informs the client immediately that the stream is open, and of its position.
            return Some(Ok(self.position()));
        }
        if self.pending.is_empty() {
            let next = {
                let next = pin!(timeout(HEARTBEAT, self.stream.watcher.next()));
                match select(pin!(ended(self.stream.state.ending.clone())), next).await {
                    Either::Left(_) => return None,
                    Either::Right((next, _)) => next,
                }
            };
            match next {
                Ok(Ok(events)) => {
                    if let Err(refusal) = self.take(&events) {
                        return Some(Err(into_error(refusal)));
                    }
                }
                Ok(Err(error)) => return Some(Err(error)),
                // Clients that do not know the `position` event ignore it.
                Err(_) => return Some(Ok(self.position())),
            }
        }
        if let Err(error) = self.check_pending().await {
            return Some(Err(error));
        }
        if self.pending.is_empty() {
            return Some(Ok(self.position()));
        }
        Some(self.write().await.map_err(into_error))
    }

    /// Discards pending events that the user may no longer see, because permissions may change
    /// while the client reads earlier events.
    async fn check_pending(&mut self) -> Result<(), backend::Error> {
        let events = self.pending.iter().map(Pending::event).collect();
        let visible = self.stream.watcher.still_visible(events).await?;
        if visible.len() < self.pending.len() {
            self.pending.clear();
            self.pending_bytes = 0;
            self.take(&visible).map_err(into_error)?;
        }
        Ok(())
    }

    /// Adds events to the pending ones, and counts them.
    fn take(&mut self, events: &[Arc<ChangeEvent>]) -> Result<(), Answer> {
        for event in events {
            let is_large = event.size() > SMALL_EVENT;
            self.pending.push_back(if is_large {
                Pending::Large(self.hold(event)?)
            } else {
                self.pending_bytes += event.size();
                Pending::Small(Arc::clone(event))
            });
        }
        self.count(0)
    }

    /// Serializes the first part of one large event, or small events of up to about
    /// [`SMALL_EVENT`] bytes.
    async fn write(&mut self) -> Result<Bytes, Answer> {
        let (mut text, mut bytes) = (Vec::new(), 0);
        while let Some(event) = self.pending.pop_front() {
            match event {
                Pending::Large(event) if bytes == 0 => return self.write_large(event).await,
                Pending::Small(event) if bytes == 0 || bytes + event.size() <= SMALL_EVENT => {
                    bytes += event.size();
                    write_document(&mut text, &self.stream.watcher.document(&event));
                }
                next => {
                    self.pending.push_front(next);
                    break;
                }
            }
        }
        self.pending_bytes -= bytes;
        self.count(text.len())?;
        Ok(text.into())
    }

    /// Registers a large event that this stream will send.
    fn hold(&self, event: &Arc<ChangeEvent>) -> Result<LargeEvent, Answer> {
        let EventStream { state, watcher, client, .. } = &self.stream;
        state.events.hold(event, watcher.audience(), client)
    }

    /// Returns the first part of a large event. Serializes the rest before, so that no error can
    /// occur between the two parts.
    async fn write_large(&mut self, event: LargeEvent) -> Result<Bytes, Answer> {
        let state = &self.stream.state;
        let text = event.text(&state.workers).await?;
        let mut begin = Vec::new();
        write_id(&mut begin, &self.stream.watcher.id(event.event()));
        let connection = self.stream.connection.clone();
        let deadline = connection.map(|connection| Deadline::of(connection, text.len(), state.client_timeout));
        self.sending = Some((event, deadline));
        self.rest = Some(text);
        Ok(begin.into())
    }

    /// Updates the permit to the `sending` bytes of text plus the size of the small pending
    /// events.
    fn count(&mut self, sending: usize) -> Result<(), Answer> {
        let bytes = sending + self.pending_bytes;
        self.stream.permit.resize(if bytes > SMALL_ANSWER { bytes } else { 0 })
    }

    /// Returns the `position` event with the resume token of the stream, or a comment if there is
    /// none.
    fn position(&self) -> Bytes {
        let Some(position) = self.stream.watcher.position() else { return Bytes::from_static(b":\n\n") };
        let mut text = b"event: position\n".to_vec();
        write_document(&mut text, &position);
        text.into()
    }
}

/// Returns an `error` event, the last one of a stream.
fn failure(error: &backend::Error) -> Bytes {
    let mut text = b"event: error\n".to_vec();
    write_data(&mut text, &error_body(error));
    text.into()
}

fn into_error(answer: Answer) -> backend::Error {
    match answer {
        Answer::Error { error, .. } => error,
        _ => backend::Error::new(backend::ErrorCode::InternalServerError, "internal server error"),
    }
}
