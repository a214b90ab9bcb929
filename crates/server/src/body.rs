//! What comes in: bearer tokens and bodies of any flavour of Extended JSON.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH},
    },
};
use backend::{
    ErrorCode, Origin, Secret,
    ejson::{self, Json},
};
use bson::{RawBson, raw::RawDocumentBuf};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    answer::Answer,
    budget::Permit,
    connections::Connection,
    limits::{LONGEST_BODY, MAX_DECODED, MIN_BODY_RATE, SMALL_BODY},
    request_log::Peer,
    routes::AppState,
};

/// The token of the `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Secret, Answer> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        // Without a token after it, as of who is logged out, it is a token that nobody has.
        .and_then(|value| value.strip_prefix("Bearer"));
    token.map(|token| Secret::from(token.trim().to_owned())).ok_or_else(|| {
        backend::Error::new(ErrorCode::MissingAuthReq, "expected Authorization header with JWT (Bearer schema).").into()
    })
}

/// A body that has arrived, and its part of the budget.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    /// To be kept until the request has been handled; none for small bodies.
    pub(crate) permit: Option<Permit>,
}

/// The body of a request, and what it may be.
pub(crate) struct Incoming<'a> {
    pub(crate) state: &'a AppState,
    pub(crate) origin: &'a Origin,
    /// Largest size in bytes.
    pub(crate) largest: usize,
    /// The token that must be valid before a large body is read; none on routes that have no tokens.
    pub(crate) token: Option<&'a Secret>,
}

/// The frames of a body, and the time in which they must arrive.
pub(crate) struct Frames {
    body: Body,
    connection: Option<Arc<Connection>>,
    /// Size in bytes that the client has declared.
    declared: Option<usize>,
    /// Bytes that have arrived.
    arrived: usize,
    deadline: Instant,
    latest: Instant,
}

impl Frames {
    /// True if the client has declared a large body.
    pub(crate) fn is_large(&self) -> bool {
        self.declared.is_some_and(|length| length > SMALL_BODY)
    }

    /// A buffer for the body, or for its beginning if it is large.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        Vec::with_capacity(self.declared.unwrap_or(0).min(SMALL_BODY))
    }

    /// Gives the client time that it has spent waiting for the server.
    pub(crate) fn extend(&mut self, time: Duration) {
        self.deadline += time;
        self.latest += time;
    }
}

impl Incoming<'_> {
    /// Reads a body whole.
    ///
    /// # Errors
    /// With 413 for one that is too large, 408 for one that is too slow, 401 for a large one without a valid token, and 429 or 503 for
    /// one that does not fit into the budget.
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

    /// Begins to read a body.
    ///
    /// # Errors
    /// With 413 if the client has declared a body that is too large.
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

    /// The next bytes of a body; none at its end.
    ///
    /// # Errors
    /// With 413 if the body is too large, and 408 if it is too slow.
    pub(crate) async fn next(&self, frames: &mut Frames) -> Result<Option<Bytes>, Answer> {
        loop {
            let frame = {
                let _waiting = frames.connection.as_ref().map(Connection::wait);
                timeout_at(frames.deadline.min(frames.latest), frames.body.frame()).await
            };
            let frame = match frame {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(Answer::bad_request("the body did not arrive whole")),
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
            // What came faster than it had to earns no more than a pause.
            let earned = Duration::from_secs_f64(data.len() as f64 / MIN_BODY_RATE as f64);
            frames.deadline = (frames.deadline + earned).min(Instant::now() + self.state.client_timeout);
            return Ok(Some(data));
        }
    }

    /// Makes room for more bytes, which are counted once the body is not a small one any more.
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

    /// A permit for a large body.
    ///
    /// # Errors
    /// With 401 if the token is not valid.
    pub(crate) async fn permit(&self) -> Result<Permit, Answer> {
        let mut permit = self.state.bodies.permit(self.origin);
        if let Some(token) = self.token {
            permit.assign(&self.state.backend.check_access_token(token).await?)?;
        }
        Ok(permit)
    }
}

impl Received {
    /// Makes something of the body: of a large one on another thread, where the body is dropped too.
    ///
    /// # Errors
    /// Those of `parse`.
    pub(crate) async fn parse<T: Send + 'static>(
        self,
        state: &AppState,
        parse: impl FnOnce(&[u8]) -> Result<T, Answer> + Send + 'static,
    ) -> Result<(T, Option<Permit>), Answer> {
        let Self { bytes, permit } = self;
        if bytes.len() <= SMALL_BODY {
            return Ok((parse(&bytes)?, permit));
        }
        // The permit goes along: the bytes are held until they are parsed, whether the client waits or not.
        let (parsed, permit) = state.workers.run(move || (parse(&bytes), permit)).await?;
        Ok((parsed?, permit))
    }
}

/// A body as a JSON object; an empty one stands for an empty object.
pub(crate) fn object(body: &[u8]) -> Result<Json<'_>, Answer> {
    if body.is_empty() {
        return Ok(Json::Object(Vec::new()));
    }
    match ejson::read(body)? {
        object @ Json::Object(_) => Ok(object),
        _ => Err(Answer::bad_request("the body must be a JSON object")),
    }
}

/// A field that must be text.
pub(crate) fn text(object: &Json<'_>, key: &str) -> Result<String, Answer> {
    let wrong = |code, message: String| Err(backend::Error::new(code, message).into());
    match object.get(key) {
        Some(Json::Text(text)) => Ok(text.clone().into_owned()),
        Some(_) => wrong(ErrorCode::InvalidParameter, format!("'{key}' must be a string")),
        None => wrong(ErrorCode::MissingParameter, format!("'{key}' is missing")),
    }
}

/// A value of any flavour of Extended JSON as BSON.
///
/// # Errors
/// With 413 if it is too large as BSON, and with 400 if it is not valid.
pub(crate) fn decoded(value: Json<'_>) -> Result<RawBson, Answer> {
    value.into_bson_up_to(MAX_DECODED)?.ok_or_else(too_large_decoded)
}

/// The refusal of arguments that are too large as BSON.
pub(crate) fn too_large_decoded() -> Answer {
    let message = format!("the arguments have more than {MAX_DECODED} bytes as BSON");
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, message)
}

/// A value of any flavour of Extended JSON as a document.
pub(crate) fn document(value: Json<'_>) -> Result<RawDocumentBuf, Answer> {
    match decoded(value)? {
        RawBson::Document(document) => Ok(document),
        _ => Err(Answer::bad_request("the argument must be a document")),
    }
}
