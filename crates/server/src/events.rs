//! Change events as server-sent events, in the way that the clients of App Services read them
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>, with `%` and line ends escaped in the data).

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

/// Interval at which a silent stream sends its position, so that both ends, and proxies between them, see that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The largest event that is written where the stream is polled, in bytes of BSON, and about the size of what is written at once.
const SMALL_EVENT: usize = 16 * 1024;

/// A stream of events on its way to a client.
pub(crate) struct EventStream {
    pub(crate) state: Arc<AppState>,
    pub(crate) watcher: Subscription,
    /// For small events that have been taken from the watcher and not been read by the client yet.
    pub(crate) permit: Permit,
    pub(crate) client: Client,
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) _held: StreamPermit,
}

impl EventStream {
    /// The body of an answer: the events of the watcher, until it fails, the client goes away or the server ends. The watcher is
    /// not polled before the client has taken what it was sent. Events that exceed the budget of answers end the stream with an
    /// error.
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

struct StreamState {
    stream: EventStream,
    is_new: bool,
    /// Events that have not been written yet.
    pending: VecDeque<Pending>,
    /// Bytes of the small ones.
    pending_bytes: usize,
    /// The large event that is being sent.
    sending: Option<(LargeEvent, Option<Deadline>)>,
    /// The text of that event after its `_id`, if it has not been sent yet.
    rest: Option<Bytes>,
}

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
    /// The next text to send; none when the server ends.
    async fn next(&mut self) -> Option<Result<Bytes, backend::Error>> {
        if let Some(rest) = self.rest.take() {
            return Some(Ok(rest));
        }
        // The client has read what was sent before. To count less always succeeds.
        self.sending = None;
        let _ = self.count(0);
        if std::mem::take(&mut self.is_new) {
            // Tells the client at once that the stream is open, and its position.
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
                // Other clients ignore events of this name.
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

    /// Leaves out pending events that the client may not see any more, if it has taken its time to read others.
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

    /// Takes events to be written, and counts them.
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

    /// The beginning of one large event, or the text of small ones up to about [`SMALL_EVENT`]
    /// bytes.
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

    fn hold(&self, event: &Arc<ChangeEvent>) -> Result<LargeEvent, Answer> {
        let EventStream { state, watcher, client, .. } = &self.stream;
        state.events.hold(event, watcher.audience(), client)
    }

    /// The beginning of a large event. The rest is ready by then, so that no error comes between
    /// the two.
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

    /// Counts small events that are being sent, beside those that wait to be.
    fn count(&mut self, sending: usize) -> Result<(), Answer> {
        let bytes = sending + self.pending_bytes;
        self.stream.permit.resize(if bytes > SMALL_ANSWER { bytes } else { 0 })
    }

    /// The position of the stream, which clients resume from.
    fn position(&self) -> Bytes {
        let Some(position) = self.stream.watcher.position() else { return Bytes::from_static(b":\n\n") };
        let mut text = b"event: position\n".to_vec();
        write_document(&mut text, &position);
        text.into()
    }
}

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
