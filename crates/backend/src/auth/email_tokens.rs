//! The tokens that confirm a registration or reset a password. The store has only their hashes, on
//! the user. A token is valid for 30 minutes and can be used once, and a new one replaces it.

use bson::{
    Binary, DateTime, doc,
    oid::ObjectId,
    raw::{CStr, RawDocumentBuf, cstr},
    rawdoc,
    spec::BinarySubtype,
};
use protocol::SecretDocument;
use query::Filter;

use super::hex;
use crate::{Environment, Error, ErrorCode, Result, Secret};

/// Lifetime of a token, in milliseconds
/// (<https://www.mongodb.com/docs/atlas/app-services/authentication/email-password/>).
const LIFETIME: i64 = 30 * 60 * 1000;

/// The size of a token, in bytes.
const TOKEN_BYTES: usize = 64;

/// The action that a token allows, which is also the name of its field on the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Confirms a registration. A user with this field cannot log in.
    Confirm,
    /// Sets a new password.
    Reset,
}

impl Purpose {
    /// Returns the name of the field on the user.
    pub(super) fn field(self) -> &'static CStr {
        match self {
            Self::Confirm => cstr!("confirmation"),
            Self::Reset => cstr!("reset"),
        }
    }

    /// Returns the path of the token's id on the user.
    pub(super) fn id_path(self) -> String {
        format!("{}.token_id", self.field().as_str())
    }
}

/// A new token.
pub(super) struct EmailToken {
    /// The token: 128 hexadecimal digits.
    pub(super) token: Secret,
    /// The id of the token: 24 hexadecimal digits.
    pub(super) id: ObjectId,
    expires_at: DateTime,
}

impl EmailToken {
    /// Creates a token.
    ///
    /// # Errors
    /// `InternalServerError` if the system provides no random bytes.
    pub(super) fn new(environment: &Environment) -> Result<Self> {
        let token = Secret::from(hex(&environment.random::<TOKEN_BYTES>()?));
        let now = query::Environment::now(environment).timestamp_millis();
        Ok(Self { token, id: environment.new_id(), expires_at: DateTime::from_millis(now + LIFETIME) })
    }

    /// Returns the token as it is stored: `{ token_id, token_hash, expires_at }`.
    pub(super) fn stored(&self) -> RawDocumentBuf {
        rawdoc! { "token_id": self.id, "token_hash": hash(&self.token), "expires_at": self.expires_at }
    }
}

/// A token that a client presents.
pub(super) struct PresentedToken {
    id: ObjectId,
    hash: Binary,
}

impl PresentedToken {
    /// Reads `token` and `tokenId` of a request.
    ///
    /// # Errors
    /// `MissingParameter` or `InvalidParameter`, and `BadRequest` if they are not the digits of a
    /// token.
    pub(super) fn read(payload: &SecretDocument) -> Result<Self> {
        let (token, id) = (payload.secret("token")?, payload.text("tokenId")?);
        let is_token =
            token.expose().len() == TOKEN_BYTES * 2 && token.expose().bytes().all(|digit| digit.is_ascii_hexdigit());
        let id = ObjectId::parse_str(id).ok().filter(|_| is_token);
        let id = id.ok_or_else(|| Error::bad_request("invalid token data"))?;
        Ok(Self { id, hash: hash(&token) })
    }

    /// Returns the filter for the user for whom the token is valid at a time.
    ///
    /// # Errors
    /// None: the filter is correct.
    pub(super) fn filter(&self, purpose: Purpose, now: DateTime) -> Result<Filter> {
        let field = purpose.field().as_str();
        let filter = doc! {
            purpose.id_path(): self.id,
            format!("{field}.token_hash"): self.hash.clone(),
            format!("{field}.expires_at"): { "$gt": now },
        };
        Ok(Filter::parse(&RawDocumentBuf::try_from(&filter).map_err(Error::internal)?)?)
    }
}

/// Returns the error of a token that does not exist, was used, or has expired.
pub(super) fn invalid_token() -> Error {
    Error::new(ErrorCode::UserpassTokenInvalid, "userpass token is expired or invalid")
}

fn hash(token: &Secret) -> Binary {
    let digits = token.expose().to_ascii_lowercase();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, digits.as_bytes());
    Binary { subtype: BinarySubtype::Generic, bytes: digest.as_ref().to_vec() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_128_digits_its_id_24_and_its_hash_is_not_its_text() {
        let token = EmailToken::new(&Environment::system()).unwrap();
        assert_eq!((token.token.expose().len(), token.id.to_hex().len()), (128, 24));
        let stored = format!("{:?}", token.stored());
        assert!(!stored.contains(token.token.expose()));
        assert_ne!(EmailToken::new(&Environment::system()).unwrap().token, token.token);
    }

    #[test]
    fn only_digits_of_the_right_number_are_read() {
        let read = |token: &str, id: &str| {
            let payload = rawdoc! { "token": token, "tokenId": id };
            PresentedToken::read(&payload.into()).err().map(|error| error.message.into_owned())
        };
        let (token, id) = ("aF".repeat(64), "0f".repeat(12));
        assert_eq!(read(&token, &id), None);
        for (token, id) in [("a".repeat(127), &*id), ("g".repeat(128), &id), ("é".repeat(64), &id), (token, "0f")] {
            assert_eq!(read(&token, id).unwrap(), "invalid token data");
        }
    }
}
