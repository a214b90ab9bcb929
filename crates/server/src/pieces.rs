//! Serializes and sends large responses in pieces. The memory of each piece is released when the
//! client has read it. All unread responses share a memory budget.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::StatusCode;
use bson::RawBson;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde::{Serialize, Serializer};
use tokio::task::AbortHandle;

use backend::{Error, ErrorCode, Origin, ejson::Canonical};
use protocol::reply::TokensBody;

use crate::{
    answer::Answer,
    app_state::AppState,
    budget::Permit,
    connections::Connection,
    limits::{INLINE_ANSWER, MIN_BODY_RATE, SMALL_ANSWER},
};

/// The maximum size of BSON that is serialized without a permit, in bytes.
const TINY: usize = 4 * 1024;

/// The body of a response that is sent in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    /// Number of bytes that have not been passed to the connection.
    left: usize,
    /// Size of the piece that is being sent, in bytes.
    sending: usize,
    permit: Permit,
    connection: Option<Arc<Connection>>,
    deadline: Option<Deadline>,
}

/// Closes the connection of a client that reads its response too slowly. Dropping it cancels the
/// deadline.
#[derive(Debug)]
pub(crate) struct Deadline(AbortHandle);

impl Deadline {
    /// Starts the deadline by which the client must read `bytes` bytes at the minimum rate, plus
    /// `client_timeout`. Must be dropped when the client has read them.
    pub(crate) fn of(connection: Arc<Connection>, bytes: usize, client_timeout: Duration) -> Self {
        let longest = client_timeout + Duration::from_secs((bytes / MIN_BODY_RATE) as u64);
        let task = tokio::spawn(async move {
            tokio::time::sleep(longest).await;
            connection.close();
        });
        Self(task.abort_handle())
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The client that receives a response.
pub(crate) struct Reader<'a> {
    pub(crate) origin: &'a Origin,
    /// The id of the user, from the token that was verified before the call.
    pub(crate) user: &'a str,
    pub(crate) connection: Option<Arc<Connection>>,
    /// True if the call may have written. If the response cannot be sent, the error then says that
    /// the write was carried out, so that the client does not retry.
    pub(crate) has_written: bool,
}

/// The content of a response.
pub(crate) trait Content: Serialize + Send + 'static {
    /// Size of the BSON to serialize, in bytes.
    fn size(&self) -> usize;
}

/// A BSON value as the content of a response.
pub(crate) struct Value(pub(crate) RawBson);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Canonical(self.0.as_raw_bson_ref()).serialize(serializer)
    }
}

impl Content for TokensBody {
    fn size(&self) -> usize {
        Self::size(self)
    }
}

impl Content for Value {
    fn size(&self) -> usize {
        match &self.0 {
            RawBson::Document(document) => document.as_bytes().len(),
            RawBson::Array(array) => array.as_bytes().len(),
            RawBson::String(text) => text.len(),
            RawBson::Binary(binary) => binary.bytes.len(),
            _ => 0,
        }
    }
}

/// Returns the response with the given content. Serializes large content on a worker thread.
///
/// # Errors
/// Status 429 or 503 if the unread responses exceed a share or the total of the budget. If the
/// call has written, status 400 instead, after which clients do not retry.
pub(crate) async fn answer(
    state: &AppState,
    status: StatusCode,
    content: impl Content,
    reader: Reader<'_>,
) -> Result<Answer, Answer> {
    let size = content.size();
    if size <= TINY {
        return Ok(Answer::with_status(status, &content));
    }
    let mut permit = state.answers.permit(reader.origin);
    let pieces = async {
        if size > SMALL_ANSWER {
            permit.assign(reader.user)?;
        }
        if size <= INLINE_ANSWER {
            return write(&content, permit);
        }
        state.workers.run(move || write(&content, permit)).await?
    };
    let mut pieces = match pieces.await {
        Err(Answer::Error { error, .. }) if reader.has_written => return Err(not_sent(&error)),
        pieces => pieces?,
    };
    pieces.send_to(reader.connection, state.client_timeout);
    Ok(Answer::Large(status, pieces))
}

/// Returns the error for a response that cannot be sent after a write. Clients do not retry after
/// its status.
fn not_sent(error: &Error) -> Answer {
    let message = format!("the write was carried out, but its response cannot be sent: {}", error.message);
    Answer::error(StatusCode::BAD_REQUEST, ErrorCode::ReadSizeLimitExceeded, message)
}

/// Serializes the content into pieces.
fn write(content: &impl Content, permit: Permit) -> Result<Pieces, Answer> {
    let mut writer = Writer { full: VecDeque::new(), last: Vec::new(), length: 0, permit, refusal: None };
    let written = serde_json::to_writer(&mut writer, content);
    let Writer { mut full, last, length, permit, refusal, .. } = writer;
    match (written, refusal) {
        (Err(_), Some(refusal)) => Err(refusal),
        (Err(error), None) => {
            tracing::error!(%error, "response cannot be serialized");
            Err(Answer::unexpected())
        }
        (Ok(()), _) => {
            full.push_back(last.into());
            Ok(Pieces { pieces: full, left: length, sending: 0, permit, connection: None, deadline: None })
        }
    }
}

/// A writer that collects JSON in pieces and counts them in the budget. The first piece does not
/// count unless there are more.
struct Writer {
    full: VecDeque<Bytes>,
    last: Vec<u8>,
    length: usize,
    permit: Permit,
    refusal: Option<Answer>,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() == SMALL_ANSWER {
            // With the second piece, the first one counts too.
            let more = if self.full.is_empty() { 2 * SMALL_ANSWER } else { SMALL_ANSWER };
            if let Err(refusal) = self.permit.grow(more) {
                self.refusal = Some(refusal);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let full = std::mem::replace(&mut self.last, Vec::with_capacity(SMALL_ANSWER));
            self.full.push_back(full.into());
        }
        let fitting = bytes.len().min(SMALL_ANSWER - self.last.len());
        self.last.extend_from_slice(&bytes[..fitting]);
        self.length += fitting;
        Ok(fitting)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    /// Sets the connection that sends the response. It is closed if the client reads too slowly.
    fn send_to(&mut self, connection: Option<Arc<Connection>>, client_timeout: Duration) {
        if let Some(connection) = connection.clone()
            && self.pieces.len() > 1
        {
            self.deadline = Some(Deadline::of(connection, self.left, client_timeout));
        }
        self.connection = connection;
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // The connection buffers up to one piece. It polls for the next one when it has sent the
        // previous one.
        let sent = std::mem::take(&mut self.sending);
        self.permit.shrink(sent);
        if let Some(connection) = &self.connection {
            connection.touch();
        }
        let Some(piece) = self.pieces.pop_front() else { return Poll::Ready(None) };
        self.left -= piece.len();
        self.sending = piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::rawdoc;
    use http_body_util::BodyExt;

    use super::*;
    use crate::budget::Budget;

    #[tokio::test]
    async fn a_response_counts_in_the_budget_until_it_has_been_read() {
        let budget = Budget::new("answers", 8 * 8 * SMALL_ANSWER);
        let origin = Origin { address: [192, 0, 2, 1].into(), is_shared: false };
        let value = |size| Value(RawBson::Document(rawdoc! { "text": "x".repeat(size) }));
        let mut pieces = write(&value(5 * SMALL_ANSWER), budget.permit(&origin)).unwrap();
        assert_eq!(pieces.size_hint().exact(), Some(5 * SMALL_ANSWER as u64 + 11));
        assert!(write(&value(5 * SMALL_ANSWER), budget.permit(&origin)).is_err(), "over the share");
        for _ in 0..4 {
            pieces.frame().await.unwrap().unwrap();
        }
        let second = write(&value(3 * SMALL_ANSWER), budget.permit(&origin)).unwrap();
        assert!(write(&value(SMALL_ANSWER - 20), budget.permit(&origin)).is_ok(), "small responses are always sent");
        let json = second.collect().await.unwrap().to_bytes();
        assert_eq!(json.len(), 3 * SMALL_ANSWER + 11);
        drop(pieces);
        write(&value(7 * SMALL_ANSWER), budget.permit(&origin)).unwrap();
    }
}
