//! Resume tokens of users' change streams.
//!
//! They are the store's tokens, encrypted and bound to the app, the data source, the collection
//! and the user. They are encrypted because a store's token is a position in all changes of the
//! store, and on MongoDB it contains document keys.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use query::ErrorCode;
use store::ResumeToken;

use crate::{Error, Result};

/// Length of a key in bytes.
pub(super) const KEY_LENGTH: usize = 32;

/// The first part of each token's context. A new token format needs a new value.
const PURPOSE: &str = "userkeep resume token 1";

/// The encryption key of an app's resume tokens.
pub(crate) struct ResumeKey(LessSafeKey);

impl fmt::Debug for ResumeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl ResumeKey {
    /// # Errors
    /// If `bytes` does not have [`KEY_LENGTH`] bytes.
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, bytes);
        let key = key.map_err(|_| Error::internal("the key of resume tokens in the store cannot be read"))?;
        Ok(Self(LessSafeKey::new(key)))
    }
}

/// The encryption of the resume tokens of one user for one collection.
#[derive(Debug)]
pub(crate) struct TokenSeal {
    key: Arc<ResumeKey>,
    /// The associated data, which names the app, the data source, the collection and the user.
    context: Vec<u8>,
    nonce: [u8; NONCE_LEN],
}

impl TokenSeal {
    /// Creates the encryption for a context. A token is accepted only in the context in which it
    /// was sealed.
    pub(crate) fn new(key: Arc<ResumeKey>, context: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in [PURPOSE].iter().chain(context) {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        // An event must always have the same token, so the nonce is fixed. With AES-GCM-SIV, this
        // reveals only that two tokens are equal (RFC 8452).
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..NONCE_LEN]);
        Self { key, context: bytes, nonce }
    }

    /// Encrypts a token of the store.
    pub(crate) fn seal(&self, token: &ResumeToken) -> ResumeToken {
        let mut bytes = token.as_str().as_bytes().to_vec();
        let sealed = self.key.0.seal_in_place_append_tag(self.nonce(), Aad::from(&self.context), &mut bytes);
        if sealed.is_err() {
            // Fails only for a token of several gigabytes. The result is an empty token, which
            // cannot be used to resume.
            bytes.clear();
        }
        ResumeToken::from(&*URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Decrypts a token of the store.
    ///
    /// # Errors
    /// `InvalidResumeToken` (260) for any text that [`seal`](Self::seal) has not returned with
    /// this context.
    pub(crate) fn open(&self, sealed: &ResumeToken) -> Result<ResumeToken> {
        self.try_open(sealed).ok_or_else(|| {
            let message = "the resume token does not belong to this user, collection and app".to_owned();
            query::Error { code: ErrorCode::InvalidResumeToken, message }.into()
        })
    }

    fn try_open(&self, sealed: &ResumeToken) -> Option<ResumeToken> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed.as_str()).ok()?;
        let opened = self.key.0.open_in_place(self.nonce(), Aad::from(&self.context), &mut bytes).ok()?;
        std::str::from_utf8(opened).ok().map(ResumeToken::from)
    }

    fn nonce(&self) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Arc<ResumeKey> {
        Arc::new(ResumeKey::new(&[byte; KEY_LENGTH]).unwrap())
    }

    #[test]
    fn a_token_is_accepted_only_in_its_context() {
        let seal = TokenSeal::new(key(1), &["app", "db", "people", "ada"]);
        let token = ResumeToken::from("82ab");
        let sealed = seal.seal(&token);
        assert_eq!(seal.open(&sealed).unwrap(), token);
        assert_eq!(seal.seal(&token), sealed, "an event always has the same token");
        assert_ne!(seal.seal(&"82ac".into()), sealed);
        assert!(!sealed.as_str().contains("82ab"));
        assert!(sealed.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        for other in [
            TokenSeal::new(key(2), &["app", "db", "people", "ada"]),
            TokenSeal::new(key(1), &["app", "db", "people", "bob"]),
            TokenSeal::new(key(1), &["app", "db", "peoplea", "da"]),
            TokenSeal::new(key(1), &["other", "db", "people", "ada"]),
        ] {
            assert_ne!(other.seal(&token), sealed);
            assert_eq!(other.open(&sealed).unwrap_err().server_code, Some(260));
        }
    }

    #[test]
    fn text_that_is_not_a_token_is_rejected() {
        let seal = TokenSeal::new(key(1), &["app"]);
        let sealed = seal.seal(&"82ab".into());
        let changed = format!("A{}", &sealed.as_str()[1..]);
        let shorter = &sealed.as_str()[1..];
        for text in ["", "82ab", "!", "ä", &*changed, shorter, &*format!("{sealed}=")] {
            assert_eq!(seal.open(&text.into()).unwrap_err().server_code, Some(260), "{text}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let seal = TokenSeal::new(key(7), &["app"]);
        assert!(!format!("{seal:?}").contains("7, 7"));
        assert!(ResumeKey::new(&[7; 16]).is_err());
    }
}
