//! A stream of change events in the body of a response.

use std::time::Duration;

use backend::ejson::{self, Json};
use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{BoxFuture, FutureExt};
use protocol::{
    event::{self, Event, EventParser},
    reply::Failure,
};

use crate::{Error, NetworkError, Result, connection::EventStream};

/// Time without any data after which the server is considered gone. A server sends at least a
/// comment every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// The maximum size of one event in bytes. An event has a document of up to 16 MiB, as text, and
/// the description of an update.
const LONGEST: usize = 256 * 1024 * 1024;

/// A stream of events in the body of a response.
#[derive(Debug)]
pub(super) struct Events {
    answer: reqwest::Response,
    parser: EventParser,
    position: Option<RawDocumentBuf>,
}

impl Events {
    pub(super) fn new(answer: reqwest::Response) -> Self {
        Self { answer, parser: EventParser::default(), position: None }
    }

    async fn advance(&mut self) -> Result<Vec<RawDocumentBuf>> {
        let mut events = Vec::new();
        loop {
            while let Some(event) = self.parser.next_event() {
                self.read(&event, &mut events)?;
            }
            if !events.is_empty() {
                return Ok(events);
            }
            let chunk = match tokio::time::timeout(SILENCE, self.answer.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Err(Error::interrupted("the backend has ended the event stream", None)),
                Ok(Err(error)) => {
                    let cause = NetworkError::of(&error);
                    return Err(Error::interrupted(cause.to_string(), Some(cause)));
                }
                Err(_) => return Err(Error::interrupted("the backend sent nothing for too long", None)),
            };
            if self.parser.pending() + chunk.len() > LONGEST {
                return Err(Error::malformed_json("the backend sent an event that is too large"));
            }
            self.parser.push(&chunk);
        }
    }

    fn read(&mut self, event: &Event, events: &mut Vec<RawDocumentBuf>) -> Result<()> {
        let document = || match ejson::read_stored(event.data.as_bytes()).and_then(Json::into_stored_bson) {
            Ok(RawBson::Document(document)) => Ok(document),
            _ => Err(Error { code: 4203, name: "BadBsonParse", ..Error::custom("server returned malformed event") }),
        };
        match event.name.as_str() {
            "" | "message" => {
                let event = document()?;
                self.position = event.get_document("_id").ok().map(ToOwned::to_owned).or(self.position.take());
                events.push(event);
            }
            event::POSITION => self.position = Some(document()?),
            event::ERROR => return Err(super::failed(Failure::of_event(&event.data))),
            _ => {}
        }
        Ok(())
    }
}

impl EventStream for Events {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        self.advance().boxed()
    }

    fn position(&self) -> Option<RawDocumentBuf> {
        self.position.clone()
    }
}
