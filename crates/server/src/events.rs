//! Change events as server-sent events, in the way that the clients of App Services read them
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>, with `%` and line ends escaped in the data).

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::body::Body;
use backend::{Watcher, ejson::Canonical};
use bson::raw::{RawBsonRef, RawDocument};
use bytes::Bytes;
use futures_util::{
    future::{Either, select},
    stream,
};
use tokio::{sync::watch, time::timeout};

use crate::{
    answer::{Answer, error_body},
    budget::Permit,
    limits::SMALL_ANSWER,
    listen::ended,
    streams::Held,
};

/// How often something is said, so that both ends and what is between them see that the other is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The body of an answer: what a watcher is told, until it fails, the client goes away or the server ends. Nothing is asked of the
/// watcher before the client has taken what it was told.
/// Events that are too large for the budget of answers end the stream with an error.
pub(crate) fn body(watcher: Watcher, held: Held, permit: Permit, ending: watch::Receiver<bool>) -> Body {
    let first = Some(State { watcher, ending, is_new: true, permit, _held: held });
    Body::from_stream(stream::unfold(first, |state| async {
        let mut state = state?;
        let mut text = Vec::new();
        if std::mem::take(&mut state.is_new) {
            // Lets the client know at once that it hears, and from where on.
            write_position(&mut text, &state.watcher);
            return Some((Ok::<_, Infallible>(Bytes::from(text)), Some(state)));
        }
        let next = {
            let next = pin!(timeout(HEARTBEAT, state.watcher.next()));
            match select(pin!(ended(state.ending.clone())), next).await {
                Either::Left(_) => return None,
                Either::Right((next, _)) => next,
            }
        };
        match next {
            Ok(Ok(events)) => events.iter().for_each(|event| write_document(&mut text, event)),
            Ok(Err(error)) => return Some((Ok(failure(&error)), None)),
            // Others pass over events of this name, which is all that is said then.
            Err(_) => write_position(&mut text, &state.watcher),
        }
        let counted = if text.len() > SMALL_ANSWER { text.len() } else { 0 };
        if let Err(Answer::Error { error, .. }) = state.permit.resize(counted) {
            return Some((Ok(failure(&error)), None));
        }
        Some((Ok(text.into()), Some(state)))
    }))
}

fn failure(error: &backend::Error) -> Bytes {
    let mut text = b"event: error\n".to_vec();
    write_data(&mut text, &error_body(error));
    text.into()
}

struct State {
    watcher: Watcher,
    ending: watch::Receiver<bool>,
    is_new: bool,
    /// For what has been written and not been read yet.
    permit: Permit,
    _held: Held,
}

fn write_position(text: &mut Vec<u8>, watcher: &Watcher) {
    match watcher.position() {
        Some(position) => {
            text.extend_from_slice(b"event: position\n");
            write_document(text, &position);
        }
        None => text.extend_from_slice(b":\n\n"),
    }
}

fn write_document(text: &mut Vec<u8>, document: &RawDocument) {
    let json = serde_json::to_vec(&Canonical(RawBsonRef::Document(document)));
    write_data(text, &json.unwrap_or_default());
}

fn write_data(text: &mut Vec<u8>, json: &[u8]) {
    text.extend_from_slice(b"data: ");
    for byte in json {
        match byte {
            b'%' => text.extend_from_slice(b"%25"),
            b'\n' => text.extend_from_slice(b"%0A"),
            b'\r' => text.extend_from_slice(b"%0D"),
            byte => text.push(*byte),
        }
    }
    text.extend_from_slice(b"\n\n");
}
