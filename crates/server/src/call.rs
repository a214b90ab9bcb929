//! Function calls. A large one is decoded while it arrives.

use axum::extract::Request;
use backend::{
    Secret,
    ejson::{Arguments, CallDecoder, DecodedCall, Json, Undecoded},
    request::CallFunction,
};
use bson::{RawBson, raw::RawDocumentBuf};
use tokio::time::Instant;

use crate::{
    answer::Answer,
    body::{Frames, Incoming, decoded, document, object, text, too_large_decoded},
    budget::Permit,
    limits::{DECODED_AT_ONCE, MAX_DECODED, SMALL_BODY},
};

impl Incoming<'_> {
    /// Reads the body of a function call. The permit counts what is held of a large one: the bytes
    /// that have not been decoded, and what the others have become.
    ///
    /// # Errors
    /// As [`Incoming::read`], with 413 if the arguments are too large as BSON, and with 400 if
    /// they are not valid.
    pub(crate) async fn read_call(
        &self,
        request: Request,
        access_token: Secret,
    ) -> Result<(CallFunction, Option<Permit>), Answer> {
        let mut frames = self.frames(request)?;
        let mut bytes = frames.buffer();
        let mut decoding = if frames.is_large() { Some(self.decoding().await?) } else { None };
        while let Some(data) = self.next(&mut frames).await? {
            if decoding.is_none() && bytes.len() + data.len() > SMALL_BODY {
                decoding = Some(self.decoding().await?);
            }
            bytes.extend_from_slice(&data);
            let Some(mut large) = decoding.take() else { continue };
            large.count(bytes.capacity())?;
            if bytes.len() >= DECODED_AT_ONCE {
                (large, bytes) = self.decode(large, bytes, &mut frames).await?;
            }
            decoding = Some(large);
        }
        match decoding {
            None => Ok((function_call(&bytes, access_token)?, None)),
            Some(large) => {
                // The permit goes along: the bytes are held until they are decoded, whether the
                // client waits or not.
                let finish = move || large.finish(&bytes, access_token);
                self.state.workers.run(finish).await?.map(|(call, permit)| (call, Some(permit)))
            }
        }
    }

    async fn decoding(&self) -> Result<Decoding, Answer> {
        Ok(Decoding { permit: self.permit().await?, decoder: CallDecoder::new(MAX_DECODED), counted: 0 })
    }

    /// Decodes what has arrived on another thread. The client's time stands still meanwhile.
    async fn decode(
        &self,
        mut large: Decoding,
        mut bytes: Vec<u8>,
        frames: &mut Frames,
    ) -> Result<(Decoding, Vec<u8>), Answer> {
        let begun = Instant::now();
        let decode = move || {
            large.decoder.push(&bytes).map_err(undecoded)?;
            bytes.clear();
            large.count(bytes.capacity())?;
            Ok((large, bytes))
        };
        let decoded = self.state.workers.run(decode).await?;
        frames.extend(begun.elapsed());
        decoded
    }
}

/// A large call of which a part has been decoded.
struct Decoding {
    permit: Permit,
    decoder: CallDecoder,
    /// Number of bytes that the permit holds.
    counted: usize,
}

impl Decoding {
    /// Counts what is held, with so many bytes that have not been decoded.
    fn count(&mut self, undecoded: usize) -> Result<(), Answer> {
        let held = self.decoder.held() + undecoded;
        if held != self.counted {
            self.permit.resize(held)?;
            self.counted = held;
        }
        Ok(())
    }

    /// Decodes the rest, and makes the call of it.
    fn finish(mut self, bytes: &[u8], access_token: Secret) -> Result<(CallFunction, Permit), Answer> {
        self.decoder.push(bytes).map_err(undecoded)?;
        self.count(bytes.len())?;
        let call = self.decoder.finish().map_err(undecoded)?;
        Ok((decoded_call(call, access_token)?, self.permit))
    }
}

fn undecoded(error: Undecoded) -> Answer {
    match error {
        Undecoded::TooLarge => too_large_decoded(),
        Undecoded::Invalid(error) => error.into(),
    }
}

/// The names of a function and its service.
fn names(head: &Json<'_>) -> Result<(String, Option<String>), Answer> {
    let name = text(head, "name")?;
    let service = head.get("service").map(|_| text(head, "service")).transpose()?;
    Ok((name, service))
}

fn not_an_array() -> Answer {
    Answer::bad_request("'arguments' must be an array")
}

fn not_one_argument() -> Answer {
    Answer::bad_request("a function of a data source takes one argument")
}

fn checked(arguments: RawDocumentBuf) -> Result<RawDocumentBuf, Answer> {
    if arguments.as_bytes().len() > MAX_DECODED { Err(too_large_decoded()) } else { Ok(arguments) }
}

/// A call as it is sent: `{ name, service, arguments }`.
pub(crate) fn function_call(bytes: &[u8], access_token: Secret) -> Result<CallFunction, Answer> {
    let mut body = object(bytes)?;
    let (name, service) = names(&body)?;
    let arguments = match body.remove("arguments") {
        None => Vec::new(),
        Some(Json::Array(arguments)) => arguments,
        Some(_) => return Err(not_an_array()),
    };
    let arguments = match &service {
        Some(_) => match <[Json; 1]>::try_from(arguments) {
            Ok([argument]) => document(argument)?,
            Err(_) => return Err(not_one_argument()),
        },
        None => {
            let mut all = RawDocumentBuf::new();
            if let RawBson::Array(arguments) = decoded(Json::Array(arguments))? {
                all.append(bson::raw::cstr!("arguments"), arguments);
            }
            all
        }
    };
    Ok(CallFunction { access_token, service, name, arguments: checked(arguments)? })
}

/// The same of a call that was decoded while it arrived.
fn decoded_call(call: DecodedCall, access_token: Secret) -> Result<CallFunction, Answer> {
    let (name, service) = names(&call.head)?;
    if call.arguments.as_ref().is_some_and(|arguments| !arguments.is_array()) {
        return Err(not_an_array());
    }
    let arguments = match (&service, call.arguments) {
        (Some(_), Some(arguments)) if arguments.count() == 1 => {
            let not_a_document = || Answer::bad_request("the argument must be a document");
            arguments.into_only_document()?.ok_or_else(not_a_document)?
        }
        (Some(_), _) => return Err(not_one_argument()),
        (None, arguments) => arguments.map_or_else(no_arguments, Arguments::into_all)?,
    };
    Ok(CallFunction { access_token, service, name, arguments: checked(arguments)? })
}

/// The arguments of a call that has none.
fn no_arguments() -> backend::Result<RawDocumentBuf> {
    let mut none = RawDocumentBuf::new();
    none.append(bson::raw::cstr!("arguments"), bson::raw::RawArrayBuf::new());
    Ok(none)
}
