//! What comes in: bearer tokens and bodies of any flavour of Extended JSON.

use std::time::Duration;

use axum::{
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

impl Incoming<'_> {
    /// Reads a body.
    ///
    /// # Errors
    /// With 413 for one that is too large, 408 for one that is too slow, 401 for a large one without a valid token, and 429 or 503 for
    /// one that does not fit into the budget.
    pub(crate) async fn read(&self, request: Request) -> Result<Received, Answer> {
        let (parts, mut body) = request.into_parts();
        let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > self.largest) {
            return Err(self.too_large());
        }
        let connection = parts.extensions.get::<Peer>().and_then(|peer| peer.connection.as_ref());
        let mut received = Received { bytes: Vec::with_capacity(declared.unwrap_or(0).min(SMALL_BODY)), permit: None };
        if declared.is_some_and(|length| length > SMALL_BODY) {
            received.permit = Some(self.permit().await?);
        }
        let client_timeout = self.state.client_timeout;
        let latest = Instant::now() + Duration::from_secs(LONGEST_BODY);
        let mut deadline = Instant::now() + client_timeout;
        loop {
            let frame = {
                let _waiting = connection.map(Connection::wait);
                timeout_at(deadline.min(latest), body.frame()).await
            };
            let frame = match frame {
                Ok(None) => return Ok(received),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(Answer::bad_request("the body did not arrive whole")),
                Err(_) => {
                    let message = "the body took too long to arrive";
                    return Err(Answer::error(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, message));
                }
            };
            let Some(data) = frame.data_ref() else { continue };
            self.make_room(&mut received, data.len(), declared).await?;
            received.bytes.extend_from_slice(data);
            // What came faster than it had to earns no more than a pause.
            let earned = Duration::from_secs_f64(data.len() as f64 / MIN_BODY_RATE as f64);
            deadline = (deadline + earned).min(Instant::now() + client_timeout);
        }
    }

    /// Makes room for more bytes, which are counted once the body is not a small one any more.
    async fn make_room(&self, received: &mut Received, more: usize, declared: Option<usize>) -> Result<(), Answer> {
        let needed = received.bytes.len() + more;
        if needed > self.largest {
            return Err(self.too_large());
        }
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

    async fn permit(&self) -> Result<Permit, Answer> {
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
