//! An entry of the log, as a document with bounded fields.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bson::{
    DateTime, RawBson,
    oid::ObjectId,
    raw::{CStr, RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr},
    rawdoc,
};
use query::elements;

use super::{Redaction, RequestId, clients::Source};
use crate::{Error, ErrorCode, Result, auth::Origin};

/// The fields that queries name.
pub(super) const TYPE: &str = "type";
pub(super) const ERROR: &str = "error";
pub(super) const USER: &str = "user";
pub(super) const REQUEST_ID: &str = "requestId";
pub(super) const STARTED: &str = "started";

/// The time at which the entry is deleted, and its size in bytes. The operator does not see these.
pub(super) const EXPIRES: &str = "expires";
pub(super) const SIZE: &str = "size";

/// The maximum number of console lines of a call, and the maximum size of each in bytes.
const MOST_LINES: usize = 25;
const LONGEST_LINE: usize = 512;

/// The maximum sizes of texts in bytes. Longer ones are shortened.
const LONGEST_MESSAGE: usize = 2048;
const LONGEST_STACK: usize = 4096;
const LONGEST_NAME: usize = 256;

/// The maximum size of a text that a client without a user sent, in bytes.
const LONGEST_OF_UNKNOWN: usize = 128;

/// The maximum size of the arguments of a call in bytes. Larger ones are left out.
const LARGEST_ARGUMENTS: usize = 4096;

/// The maximum size of a character in bytes. A text that was cut to whole characters lacks less.
const LARGEST_CHARACTER: usize = 4;

/// The size of the fields of an entry that its own `size` does not include, in bytes.
const FIXED_BYTES: usize = 32;

/// The type of an entry, in App Services' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Auth,
    ApiKey,
    Function,
    ServiceFunction,
    ServiceStream,
    Push,
    Api,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Auth => "AUTH",
            Self::ApiKey => "API_KEY",
            Self::Function => "FUNCTION",
            Self::ServiceFunction => "SERVICE_FUNCTION",
            Self::ServiceStream => "SERVICE_STREAM_FUNCTION",
            Self::Push => "PUSH",
            Self::Api => "API",
        }
    }
}

/// The console lines of a call, and the stack of its error.
#[derive(Debug, Default, Clone)]
pub(crate) struct Console {
    /// The levels and the texts of the lines.
    pub(crate) lines: Vec<(String, String)>,
    /// The number of lines that were dropped.
    pub(crate) dropped: u64,
    /// The stack of the error, without the frames of the runtime.
    pub(crate) stack: Option<String>,
}

/// The part of a call of a function that belongs to its log entry. Clones share the console lines.
#[derive(Debug, Default, Clone)]
pub(crate) struct CallRecord {
    /// The id of the request that caused the call.
    pub(crate) request_id: Option<RequestId>,
    /// The network origin of the client.
    pub(crate) origin: Option<Origin>,
    /// The reason of the call if no client called the function, such as `user creation`.
    pub(crate) hook: Option<&'static str>,
    console: Arc<Mutex<Console>>,
}

impl CallRecord {
    /// Creates the record of a call that a request causes.
    pub(crate) fn of_request(request_id: Option<RequestId>, origin: Option<Origin>) -> Self {
        Self { request_id, origin, ..Self::default() }
    }

    /// Adds the reason of a call that no client made.
    #[must_use]
    pub(crate) fn by(self, hook: &'static str) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// Adds the console lines of the call, which the entry contains, to those of the script that
    /// named its user.
    pub(crate) fn add_console(&self, more: Console) {
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console.lines.extend(more.lines);
        let beyond = console.lines.len().saturating_sub(MOST_LINES);
        console.lines.drain(..beyond);
        console.dropped = console.dropped.saturating_add(more.dropped).saturating_add(beyond as u64);
        console.stack = more.stack;
    }

    /// Returns the console lines of the call.
    pub(crate) fn console(&self) -> Console {
        self.console.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the result and the console lines of the call for the operator who made it.
    pub(crate) fn report(&self, result: &Result<RawBson>) -> RawDocumentBuf {
        let Console { lines, dropped, stack } = self.console();
        let lines: RawArrayBuf =
            lines.iter().map(|(level, text)| rawdoc! { "level": level.as_str(), "text": text.as_str() }).collect();
        let mut report = rawdoc! { "messages": lines, "droppedMessages": i64::try_from(dropped).unwrap_or(i64::MAX) };
        match result {
            Ok(value) => report.append(cstr!("value"), value),
            Err(error) => {
                let mut shown = rawdoc! { "message": &*error.message, "errorCode": error.code.name() };
                if let Some(stack) = stack {
                    shown.append(cstr!("stack"), stack);
                }
                report.append(cstr!("error"), shown);
            }
        }
        report
    }
}

/// An entry before it is stored.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) request_id: &'a str,
    pub(crate) started: DateTime,
    pub(crate) duration: Duration,
    pub(crate) user: Option<String>,
    pub(crate) origin: Option<Origin>,
    pub(crate) error: Option<&'a Error>,
    /// The status of the answer, if it is not that of the error's code.
    pub(crate) status: Option<u16>,
    /// Other fields: their names and texts.
    pub(crate) texts: Vec<(&'static CStr, &'a str)>,
    pub(crate) arguments: Option<&'a RawArray>,
    pub(crate) console: Console,
    /// The number of other entries of the client that were left out.
    pub(crate) left_out: Option<u64>,
    pub(crate) redaction: &'a Redaction,
}

impl<'a> Entry<'a> {
    /// Creates an entry without optional fields.
    pub(crate) fn new(kind: Kind, request_id: &'a str, started: DateTime, redaction: &'a Redaction) -> Self {
        Self {
            kind,
            request_id,
            started,
            duration: Duration::ZERO,
            user: None,
            origin: None,
            error: None,
            status: None,
            texts: Vec::new(),
            arguments: None,
            console: Console::default(),
            left_out: None,
            redaction,
        }
    }

    /// Returns the client who caused the entry over a network. The application in this process
    /// acts for all its users, and is no client.
    pub(super) fn source(&self) -> Option<Source> {
        Some(Source { user: self.user.clone(), origin: self.origin?, kind: self.kind })
    }

    /// Returns the maximum size of a text in bytes, which is usually `most`. Every client can send
    /// a request without a user.
    fn most(&self, most: usize) -> usize {
        let is_unknown = self.user.is_none() && self.origin.is_some() && self.kind != Kind::Function;
        if is_unknown { LONGEST_OF_UNKNOWN } else { most }
    }

    pub(super) fn into_document(self, id: ObjectId, now: DateTime, age: Duration) -> RawDocumentBuf {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut entry = rawdoc! {
            "_id": id,
            "type": self.kind.name(),
            "requestId": self.request_id,
            "started": self.started,
            "completed": now,
            "durationMS": (self.duration.as_secs_f64() * 1e6).round() / 1e3,
        };
        if let Some(user) = &self.user {
            entry.append(cstr!("user"), user.as_str());
        }
        if let Some(origin) = self.origin {
            entry.append(cstr!("remoteAddress"), origin.address.to_string());
        }
        for (name, text) in &self.texts {
            entry.append(*name, self.text(text, self.most(LONGEST_NAME)));
        }
        if let Some(arguments) = self.arguments {
            self.append_arguments(&mut entry, arguments);
        }
        self.append_result(&mut entry);
        self.append_console(&mut entry);
        if let Some(left_out) = self.left_out {
            entry.append(cstr!("leftOut"), i64::try_from(left_out).unwrap_or(i64::MAX));
        }
        let bytes = i32::try_from(entry.as_bytes().len() + FIXED_BYTES).unwrap_or(i32::MAX);
        entry.append(cstr!("expires"), DateTime::from_millis(now.timestamp_millis().saturating_add(age)));
        entry.append(cstr!("size"), bytes);
        entry
    }

    fn append_arguments(&self, entry: &mut RawDocumentBuf, arguments: &RawArray) {
        let bytes = arguments.as_bytes().len();
        if bytes <= LARGEST_ARGUMENTS {
            entry.append(cstr!("arguments"), self.redaction.array(arguments));
        } else {
            entry.append(cstr!("argumentBytes"), i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    fn append_result(&self, entry: &mut RawDocumentBuf) {
        let Some(error) = self.error else {
            entry.append(cstr!("status"), i32::from(self.status.unwrap_or(200)));
            return;
        };
        entry.append(cstr!("status"), i32::from(self.status.unwrap_or_else(|| error.code.status())));
        entry.append(cstr!("error"), self.text(&error.message, self.most(LONGEST_MESSAGE)));
        entry.append(cstr!("errorCode"), error.code.name());
        if let Some(code) = error.server_code {
            entry.append(cstr!("serverCode"), code);
        }
        if let Some(detail) = error.detail.as_deref().filter(|_| error.code == ErrorCode::InternalServerError) {
            entry.append(cstr!("detail"), self.text(detail, LONGEST_MESSAGE));
        }
        if let Some(stack) = &self.console.stack {
            entry.append(cstr!("stack"), self.text(stack, LONGEST_STACK));
        }
    }

    fn append_console(&self, entry: &mut RawDocumentBuf) {
        let Console { lines, dropped, .. } = &self.console;
        if lines.is_empty() {
            return;
        }
        let beyond = lines.len().saturating_sub(MOST_LINES);
        let shown: RawArrayBuf = lines
            .iter()
            .skip(beyond)
            .map(|(level, text)| rawdoc! { "level": level.as_str(), "text": self.text(text, LONGEST_LINE) })
            .collect();
        entry.append(cstr!("messages"), shown);
        let dropped = dropped.saturating_add(beyond as u64);
        if dropped > 0 {
            entry.append(cstr!("droppedMessages"), i64::try_from(dropped).unwrap_or(i64::MAX));
        }
    }

    /// Returns a text without secrets, of a limited size.
    fn text(&self, text: &str, most: usize) -> String {
        // A secret may be cut in two at the end, here or where the text was made.
        let beginning = shortened(text, most * 2);
        let is_cut = text.len() + LARGEST_CHARACTER > most;
        let mut redacted = self.redaction.text(beginning);
        if is_cut {
            self.redaction.end(&mut redacted);
        }
        shortened(&redacted, most).to_owned()
    }
}

/// Returns as many characters of a text as fit into `most` bytes.
fn shortened(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns an entry as the operator sees it.
pub(super) fn without_own_fields(entry: &RawDocument) -> RawDocumentBuf {
    let mut shown = RawDocumentBuf::new();
    for (key, value) in elements(entry).filter(|(key, _)| ![EXPIRES, SIZE].contains(key)) {
        let key = if key == "_id" { "id" } else { key };
        query::append(&mut shown, key, value);
    }
    shown
}

/// Returns the console lines and the stack in the report of a thread: `{ error: { stack },
/// messages: [{ level, text }], dropped }`.
impl From<&RawDocument> for Console {
    fn from(report: &RawDocument) -> Self {
        let lines = report.get_array("messages").into_iter().flatten().filter_map(Result::ok);
        let line = |line: RawBsonRef<'_>| {
            let line = line.as_document()?;
            Some((line.get_str("level").ok()?.to_owned(), line.get_str("text").ok()?.to_owned()))
        };
        let stack = report.get_document("error").ok().and_then(|error| error.get_str("stack").ok());
        Self {
            lines: lines.filter_map(line).collect(),
            dropped: report.get_i32("dropped").ok().and_then(|dropped| u64::try_from(dropped).ok()).unwrap_or(0),
            stack: stack.map(ToOwned::to_owned),
        }
    }
}
