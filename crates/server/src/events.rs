//! Change events as server-sent events, in the way that the clients of App Services read them
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>, with `%` and line ends escaped in the data).

use std::{collections::VecDeque, convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use backend::{ChangeEvent, Watcher};
use bytes::Bytes;
use futures_util::{
    future::{Either, select},
    stream,
};
use tokio::time::timeout;

use crate::{
    answer::{Answer, error_body},
    budget::Permit,
    connections::Connection,
    encoded::{Encoded, write_data, write_document},
    limits::SMALL_ANSWER,
    listen::ended,
    pieces::Deadline,
    routes::Site,
    streams::Held,
};

/// Interval at which a silent stream sends its position, so that both ends, and proxies between them, see that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The largest event that is written where the stream is polled, in bytes of BSON, and about the size of what is written at once.
const SMALL_EVENT: usize = 16 * 1024;

/// JSON of an event has up to about this many times the bytes of its BSON. What has more is counted when it has been written.
const JSON_FACTOR: usize = 2;

/// A stream of events on its way to a client.
pub(crate) struct EventStream {
    pub(crate) site: Arc<Site>,
    pub(crate) watcher: Watcher,
    /// For what has been taken from the watcher and not been read by the client yet.
    pub(crate) permit: Permit,
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) _held: Held,
}

impl EventStream {
    /// The body of an answer: the events of the watcher, until it fails, the client goes away or the server ends. The watcher is
    /// not polled before the client has taken what it was sent. Events that exceed the budget of answers end the stream with an
    /// error.
    pub(crate) fn into_body(self) -> Body {
        let first = State { stream: self, is_new: true, pending: VecDeque::new(), pending_bytes: 0, sending: None };
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

struct State {
    stream: EventStream,
    is_new: bool,
    /// Events that have not been written yet.
    pending: VecDeque<Arc<ChangeEvent>>,
    pending_bytes: usize,
    /// The large event that is being sent.
    sending: Option<(Arc<Encoded>, Option<Deadline>)>,
}

impl State {
    /// The next text to send; none when the server ends.
    async fn next(&mut self) -> Option<Result<Bytes, backend::Error>> {
        // The client has read what was sent before.
        self.sending = None;
        if std::mem::take(&mut self.is_new) {
            // Tells the client at once that the stream is open, and its position.
            return Some(Ok(self.position()));
        }
        if self.pending.is_empty() {
            let next = {
                let next = pin!(timeout(HEARTBEAT, self.stream.watcher.next()));
                match select(pin!(ended(self.stream.site.ending.clone())), next).await {
                    Either::Left(_) => return None,
                    Either::Right((next, _)) => next,
                }
            };
            match next {
                Ok(Ok(events)) => {
                    self.pending_bytes = events.iter().map(|event| event.size()).sum();
                    self.pending = events.into();
                }
                Ok(Err(error)) => return Some(Err(error)),
                // Other clients ignore events of this name.
                Err(_) => return Some(Ok(self.position())),
            }
        }
        Some(self.write().await.map_err(into_error))
    }

    /// The text of one large event, or of small ones up to about [`SMALL_EVENT`] bytes.
    async fn write(&mut self) -> Result<Bytes, Answer> {
        let (mut text, mut bytes) = (Vec::new(), 0);
        while let Some(event) = self.pending.front() {
            if bytes > 0 && bytes + event.size() > SMALL_EVENT {
                break;
            }
            let Some(event) = self.pending.pop_front() else { break };
            self.pending_bytes -= event.size();
            if event.size() > SMALL_EVENT {
                return self.write_large(&event).await;
            }
            bytes += event.size();
            write_document(&mut text, &event.to_document());
        }
        self.count(text.len())?;
        Ok(text.into())
    }

    async fn write_large(&mut self, event: &Arc<ChangeEvent>) -> Result<Bytes, Answer> {
        // Counted before it is written, as far as its size is known.
        self.count(JSON_FACTOR * event.size())?;
        let site = &self.stream.site;
        let (encoded, text) = site.events.get(event, &site.workers).await?;
        self.count(text.len())?;
        let connection = self.stream.connection.clone();
        let deadline = connection.map(|connection| Deadline::of(connection, text.len(), self.stream.site.patience));
        self.sending = Some((encoded, deadline));
        Ok(text)
    }

    /// Counts what is being sent, beside the events that wait to be.
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
