//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) in the
//! format of App Services' change streams: `%`, line feeds and carriage returns in the data are
//! escaped.

use std::time::Duration;

use backend::{
    ErrorCode,
    ejson::{self, Json},
};
use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::{BoxFuture, FutureExt};

use crate::{Error, Result, connection::EventStream};

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
    lines: Lines,
    position: Option<RawDocumentBuf>,
}

/// A parser for the lines of an event stream, with the incomplete event.
#[derive(Debug, Default)]
struct Lines {
    /// The bytes after the last parsed line.
    rest: Vec<u8>,
    /// The position in `rest` up to which there is no line end.
    searched: usize,
    name: String,
    data: Option<String>,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
}

impl Events {
    pub(super) fn new(answer: reqwest::Response) -> Self {
        Self { answer, lines: Lines::default(), position: None }
    }

    async fn advance(&mut self) -> Result<Vec<RawDocumentBuf>> {
        let mut events = Vec::new();
        loop {
            while let Some(event) = self.lines.next() {
                self.read(&event, &mut events)?;
            }
            if !events.is_empty() {
                return Ok(events);
            }
            let chunk = match tokio::time::timeout(SILENCE, self.answer.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Err(Error::interrupted("the backend has ended the event stream")),
                Ok(Err(error)) => return Err(Error::interrupted(super::cause(&error))),
                Err(_) => return Err(Error::interrupted("the backend sent nothing for too long")),
            };
            if self.lines.rest.len() + chunk.len() > LONGEST {
                return Err(Error::malformed_json("the backend sent an event that is too large"));
            }
            self.lines.rest.extend_from_slice(&chunk);
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
            // An extension of Userkeep: the position of the stream when there is no event to
            // deliver.
            "position" => self.position = Some(document()?),
            "error" => return Err(failure(&event.data)),
            _ => {}
        }
        Ok(())
    }
}

/// Reads the error from the data of an `error` event.
fn failure(data: &str) -> Error {
    let body = ejson::read_stored(data.as_bytes()).ok();
    let member = |key: &str| body.as_ref().and_then(|body| body.get(key));
    let code = member("error_code").and_then(Json::as_str).and_then(ErrorCode::by_name);
    let message = member("error").and_then(Json::as_str).unwrap_or(data).to_owned();
    Error {
        server_code: member("server_code").and_then(Json::as_i64).and_then(|code| i32::try_from(code).ok()),
        ..backend::Error::new(code.unwrap_or(ErrorCode::AppUnknownError), message).into()
    }
}

impl Lines {
    /// Returns the next complete event.
    fn next(&mut self) -> Option<Event> {
        loop {
            let Some(end) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.rest.len();
                return None;
            };
            let end = self.searched + end;
            let line = String::from_utf8_lossy(&self.rest[..end]).trim_end_matches('\r').to_owned();
            self.rest.drain(..=end);
            self.searched = 0;
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut self.name), self.data.take());
                match data {
                    Some(data) => return Some(Event { name, data: unescape(&data) }),
                    None => continue,
                }
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.name),
                "data" => match &mut self.data {
                    Some(data) => data.extend(["\n", value]),
                    None => self.data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
    }
}

fn unescape(data: &str) -> String {
    // `%25` comes last, so that the resulting `%` does not begin another escape.
    data.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
}

impl EventStream for Events {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<RawDocumentBuf>>> {
        self.advance().boxed()
    }

    fn position(&self) -> Option<RawDocumentBuf> {
        self.position.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<Event> {
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for chunk in chunks {
            lines.rest.extend_from_slice(chunk.as_bytes());
            events.extend(std::iter::from_fn(|| lines.next()));
        }
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn reads_events_however_the_bytes_are_split() {
        let text = ": hello\nevent: position\ndata: 1\n\ndata:two\r\ndata: lines\r\n\r\nid: 7\n\nevent: x\ndata: %25 %0A%20ä\n\n";
        let expected = [event("position", "1"), event("", "two\nlines"), event("x", "% \n%20ä")];
        assert_eq!(events(&[text]), expected);
        let each: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(events(&each.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_escaped_percent_sign_begins_no_escape() {
        assert_eq!(unescape("%250A"), "%0A");
    }

    #[test]
    fn reads_errors_with_the_codes_of_the_server() {
        let error = failure(r#"{"error_code":"InvalidSession","error":"gone"}"#);
        assert_eq!((error.code, error.message.as_str()), (4301, "gone"));
        let error = failure(r#"{"error_code":"Strange","error":"odd"}"#);
        assert_eq!((error.code, error.message.as_str()), (4351, "odd"));
        let error = failure("not JSON");
        assert_eq!((error.code, error.message.as_str()), (4351, "not JSON"));
    }
}
