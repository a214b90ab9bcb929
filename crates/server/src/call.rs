//! Function calls. A large one is decoded while it arrives.

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
            None => Ok((CallFunction::read(&bytes, access_token, MAX_DECODED)?, None)),
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
        Ok((CallFunction::of_decoded(call, access_token, MAX_DECODED)?, self.permit))
    }
}

fn undecoded(error: Undecoded) -> Answer {
    match error {
        Undecoded::TooLarge => too_large(MAX_DECODED).into(),
        Undecoded::Invalid(error) => error.into(),
    }
}
