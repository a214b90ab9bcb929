//! Reads bearer tokens and request bodies, which may be canonical or relaxed Extended JSON.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH},
    },
};
use backend::{ErrorCode, Origin, Secret};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    answer::Answer,
    app_state::AppState,
    budget::Permit,
    connections::Connection,
    limits::{LONGEST_BODY, MIN_BODY_RATE, SMALL_BODY},
    request_log::Peer,
};

/// Returns the bearer token of the `Authorization` header. May be empty.
///
/// # Errors
/// Status 401 if the header is missing or has another scheme.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Secret, Answer> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        // A logged-out client sends the scheme without a token. The empty token is rejected later
        // as invalid.
        .and_then(|value| value.strip_prefix("Bearer"));
    token.map(|token| Secret::from(token.trim().to_owned())).ok_or_else(|| {
        backend::Error::new(ErrorCode::MissingAuthReq, "expected Authorization header with JWT (Bearer schema).").into()
    })
}

/// A complete request body, with its permit.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    /// Counts the body in the budget, and must be kept until the request has been handled. None
    /// for small bodies.
    pub(crate) permit: Option<Permit>,
}

/// Reads the body of a request, within limits.
pub(crate) struct Incoming<'a> {
    pub(crate) state: &'a AppState,
    pub(crate) origin: &'a Origin,
    /// The maximum size of the body, in bytes.
    pub(crate) largest: usize,
    /// The access token, verified before a large body is read. None on routes without tokens.
    pub(crate) token: Option<&'a Secret>,
}

/// The frames of a body, with the deadlines by which they must arrive.
pub(crate) struct Frames {
    body: Body,
    connection: Option<Arc<Connection>>,
    /// The value of `Content-Length`, in bytes.
    declared: Option<usize>,
    /// Number of bytes received.
    arrived: usize,
    /// Deadline of the next frame. Each frame extends it by its size at the minimum rate.
    deadline: Instant,
    /// Deadline of the whole body.
    latest: Instant,
}

impl Frames {
    /// True if `Content-Length` announces a large body.
    pub(crate) fn is_large(&self) -> bool {
        self.declared.is_some_and(|length| length > SMALL_BODY)
    }

    /// Returns a buffer for the body, or for the first part of a large one.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        Vec::with_capacity(self.declared.unwrap_or(0).min(SMALL_BODY))
    }

    /// Extends the deadlines by time during which the client waited for the server.
    pub(crate) fn extend(&mut self, time: Duration) {
        self.deadline += time;
        self.latest += time;
    }
}

impl Incoming<'_> {
    /// Reads the complete body.
    ///
    /// # Errors
    /// - Status 413 if the body is too large.
    /// - Status 408 if the body arrives too slowly.
    /// - Status 401 if the body is large and the token is not valid.
    /// - Status 429 or 503 if the body does not fit into the budget.
    pub(crate) async fn read(&self, request: Request) -> Result<Received, Answer> {
        let mut frames = self.frames(request)?;
        let mut received = Received { bytes: frames.buffer(), permit: None };
        if frames.is_large() {
            received.permit = Some(self.permit().await?);
        }
        while let Some(data) = self.next(&mut frames).await? {
            self.make_room(&mut received, data.len(), frames.declared).await?;
            received.bytes.extend_from_slice(&data);
        }
        Ok(received)
    }

    /// Starts to read a body.
    ///
    /// # Errors
    /// Status 413 if `Content-Length` exceeds the maximum size.
    pub(crate) fn frames(&self, request: Request) -> Result<Frames, Answer> {
        let (parts, body) = request.into_parts();
        let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > self.largest) {
            return Err(self.too_large());
        }
        let connection = parts.extensions.get::<Peer>().and_then(|peer| peer.connection.clone());
        let now = Instant::now();
        let latest = now + Duration::from_secs(LONGEST_BODY);
        Ok(Frames { body, connection, declared, arrived: 0, deadline: now + self.state.client_timeout, latest })
    }

    /// Returns the next bytes of a body, or none at its end.
    ///
    /// # Errors
    /// Status 413 if the body is too large, 408 if it arrives too slowly, and 400 if the
    /// connection breaks.
    pub(crate) async fn next(&self, frames: &mut Frames) -> Result<Option<Bytes>, Answer> {
        loop {
            let frame = {
                let _waiting = frames.connection.as_ref().map(Connection::wait);
                timeout_at(frames.deadline.min(frames.latest), frames.body.frame()).await
            };
            let frame = match frame {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(Answer::bad_request("the body is incomplete")),
                Err(_) => {
                    let message = "the body took too long to arrive";
                    return Err(Answer::error(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, message));
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            frames.arrived += data.len();
            if frames.arrived > self.largest {
                return Err(self.too_large());
            }
            // A client that sent fast may pause afterwards, but never for longer than the timeout.
            let earned = Duration::from_secs_f64(data.len() as f64 / MIN_BODY_RATE as f64);
            frames.deadline = (frames.deadline + earned).min(Instant::now() + self.state.client_timeout);
            return Ok(Some(data));
        }
    }

    /// Reserves space for `more` bytes. Counts them in the budget once the body is no longer
    /// small.
    async fn make_room(&self, received: &mut Received, more: usize, declared: Option<usize>) -> Result<(), Answer> {
        let needed = received.bytes.len() + more;
        if needed <= SMALL_BODY {
            return Ok(());
        }
        let permit = match &mut received.permit {
            Some(permit) => permit,
            none => none.insert(self.permit().await?),
        };
        if needed > received.bytes.capacity() {
            let wanted = (2 * received.bytes.capacity()).min(declared.unwrap_or(self.largest)).max(needed);
            permit.resize(wanted)?;
            received.bytes.reserve_exact(wanted - received.bytes.len());
        }
        Ok(())
    }

    fn too_large(&self) -> Answer {
        let largest = self.largest;
        let mut message = format!("the body is larger than {largest} bytes");
        if largest == self.state.max_body {
            message += "; the operator can raise this limit with --max-body-size (option maxBodySize of serve())";
        }
        Answer::error(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, message)
    }

    /// Returns a permit for a large body, counted for the user of the token if there is one.
    ///
    /// # Errors
    /// Status 401 if the token is not valid.
    pub(crate) async fn permit(&self) -> Result<Permit, Answer> {
        let mut permit = self.state.bodies.permit(self.origin);
        if let Some(token) = self.token {
            permit.assign(&self.state.backend.check_access_token(token).await?)?;
        }
        Ok(permit)
    }
}

impl Received {
    /// Parses the body. Parses and drops a large body on a worker thread.
    ///
    /// # Errors
    /// The errors of `parse`, and an internal error if it panics.
    pub(crate) async fn parse<T: Send + 'static>(
        self,
        state: &AppState,
        parse: impl FnOnce(&[u8]) -> Result<T, Answer> + Send + 'static,
    ) -> Result<(T, Option<Permit>), Answer> {
        let Self { bytes, permit } = self;
        if bytes.len() <= SMALL_BODY {
            return Ok((parse(&bytes)?, permit));
        }
        // The permit moves to the worker, because the bytes stay in memory there even if the
        // client disconnects.
        let (parsed, permit) = state.workers.run(move || (parse(&bytes), permit)).await?;
        Ok((parsed?, permit))
    }
}
