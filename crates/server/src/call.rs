//! Reads function calls. Decodes the body of a large call while it arrives.

use axum::extract::Request;
use backend::{
    Secret,
    request::{CallDecoder, CallFunction, Undecoded, too_large},
};
use tokio::time::Instant;

use crate::{
    answer::Answer,
    body::{Frames, Incoming},
    budget::Permit,
    limits::{DECODED_AT_ONCE, MAX_DECODED, SMALL_BODY},
};

impl Incoming<'_> {
    /// Reads the body of a function call. The permit of a large call counts the received bytes
    /// that are not decoded yet, and the decoded values.
    ///
    /// # Errors
    /// The errors of [`Incoming::read`], status 413 if the arguments are too large as BSON, and
    /// status 400 if they are not valid.
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
            None => Ok((CallFunction::read(&bytes, access_token, MAX_DECODED)?, None)),
            Some(large) => {
                // The permit moves to the worker, because the bytes stay in memory there even if
                // the client disconnects.
                let finish = move || large.finish(&bytes, access_token);
                self.state.workers.run(finish).await?.map(|(call, permit)| (call, Some(permit)))
            }
        }
    }

    /// Starts to decode a large call.
    async fn decoding(&self) -> Result<Decoding, Answer> {
        Ok(Decoding { permit: self.permit().await?, decoder: CallDecoder::new(MAX_DECODED), counted: 0 })
    }

    /// Decodes the received bytes on a worker thread. This time does not count against the
    /// client's deadlines.
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

/// A large call that is partly decoded.
struct Decoding {
    permit: Permit,
    decoder: CallDecoder,
    /// Number of bytes that the permit holds now.
    counted: usize,
}

impl Decoding {
    /// Updates the permit to the size of the decoded values plus `undecoded` bytes.
    fn count(&mut self, undecoded: usize) -> Result<(), Answer> {
        let held = self.decoder.held() + undecoded;
        if held != self.counted {
            self.permit.resize(held)?;
            self.counted = held;
        }
        Ok(())
    }

    /// Decodes the rest of the body and returns the call.
    fn finish(mut self, bytes: &[u8], access_token: Secret) -> Result<(CallFunction, Permit), Answer> {
        self.decoder.push(bytes).map_err(undecoded)?;
        self.count(bytes.len())?;
        let call = self.decoder.finish().map_err(undecoded)?;
        Ok((CallFunction::of_decoded(call, access_token, MAX_DECODED)?, self.permit))
    }
}

fn undecoded(error: Undecoded) -> Answer {
    match error {
        Undecoded::TooLarge => too_large(MAX_DECODED).into(),
        Undecoded::Invalid(error) => error.into(),
    }
}
