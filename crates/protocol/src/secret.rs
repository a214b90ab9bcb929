//! Values that no log, error or `Debug` output shows.

use std::sync::Arc;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use crate::{Error, ErrorCode, Result};

/// A password or a token. Its `Debug` output hides the text, so that logs and errors do not
/// contain it.
///
/// ```
/// use protocol::Secret;
///
/// let secret = Secret::from("passw0rd".to_owned());
/// assert_eq!(format!("{secret:?}"), "[redacted]");
/// assert_eq!(secret.expose(), "passw0rd");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Returns the text. Call this only if the text itself is needed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// A document that may hold passwords or tokens: the payload of a log-in, or the arguments of a
/// reset function. Like a [`Secret`], its `Debug` output does not show it.
#[derive(Clone, Default, PartialEq)]
pub struct SecretDocument(RawDocumentBuf);

impl SecretDocument {
    /// Returns the document. Call this only if its values are needed.
    pub fn expose(&self) -> &RawDocument {
        &self.0
    }

    /// Returns a field that must be a string.
    ///
    /// # Errors
    /// `MissingParameter` if the field is missing, and `InvalidParameter` if it has another type.
    pub fn text(&self, name: &str) -> Result<&str> {
        match self.0.get(name) {
            Ok(Some(RawBsonRef::String(text))) => Ok(text),
            Ok(Some(_)) => Err(Error::new(ErrorCode::InvalidParameter, format!("'{name}' must be a string"))),
            _ => Err(Error::new(ErrorCode::MissingParameter, format!("'{name}' is missing"))),
        }
    }

    /// Returns a field that must be a string, as a secret.
    ///
    /// # Errors
    /// The errors of [`text`](Self::text).
    pub fn secret(&self, name: &str) -> Result<Secret> {
        self.text(name).map(|text| Secret::from(text.to_owned()))
    }
}

impl From<RawDocumentBuf> for SecretDocument {
    fn from(document: RawDocumentBuf) -> Self {
        Self(document)
    }
}

impl std::fmt::Debug for SecretDocument {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}
