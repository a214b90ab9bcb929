//! Tokens as JWTs that the clients can read (App Services' claims, <https://www.mongodb.com/docs/atlas/app-services/users/sessions/>).

use bson::oid::ObjectId;
use jsonwebtoken::{Algorithm, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    hex,
    keys::{KeyRing, Keys},
};
use crate::{Error, Result, Secret};

/// How many verified tokens are remembered, so that a signature is checked once and not with every request.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Access,
    Refresh,
}

/// What a genuine token says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verified {
    pub(super) kind: Kind,
    pub(super) user_id: ObjectId,
    pub(super) session_id: ObjectId,
    /// Seconds since the Unix epoch.
    pub(super) expires: i64,
}

#[derive(Serialize)]
struct AccessClaims<'a> {
    baas_device_id: &'a str,
    baas_domain_id: &'a str,
    exp: i64,
    iat: i64,
    iss: String,
    #[serde(rename = "stitch_devId")]
    stitch_dev_id: &'a str,
    #[serde(rename = "stitch_domainId")]
    stitch_domain_id: &'a str,
    sub: String,
    typ: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct RefreshClaims<'a> {
    baas_data: (),
    baas_device_id: &'a str,
    baas_domain_id: &'a str,
    baas_id: String,
    baas_identity: ClaimedIdentity<'a>,
    exp: i64,
    iat: i64,
    /// Makes the tokens of two sessions differ in more than their ids.
    jti: String,
    sub: String,
    typ: Kind,
}

#[derive(Serialize)]
struct ClaimedIdentity<'a> {
    id: &'a str,
    provider_type: &'a str,
}

#[derive(Deserialize)]
struct Claims {
    typ: Kind,
    sub: String,
    exp: i64,
    /// The session, in an access token.
    iss: Option<String>,
    /// The session, in a refresh token.
    baas_id: Option<String>,
    baas_domain_id: String,
}

/// Whom a token is for.
pub(super) struct Subject<'a> {
    pub(super) user_id: ObjectId,
    pub(super) session_id: ObjectId,
    pub(super) device_id: &'a str,
}

pub(super) struct Tokens {
    keys: std::sync::Arc<KeyRing>,
    /// Stands for the app in a token.
    domain_id: String,
    verified: Cache<String, Verified>,
}

impl Tokens {
    pub(super) fn new(keys: std::sync::Arc<KeyRing>, app_id: &str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, app_id.as_bytes());
        let domain_id = hex(&digest.as_ref()[..12]);
        Self { keys, domain_id, verified: Cache::new(REMEMBERED) }
    }

    pub(super) fn keys(&self) -> &KeyRing {
        &self.keys
    }

    pub(super) async fn sign_access(
        &self,
        subject: &Subject<'_>,
        issued: i64,
        expires: i64,
        user_data: Option<Box<RawValue>>,
    ) -> Result<Secret> {
        let claims = AccessClaims {
            baas_device_id: subject.device_id,
            baas_domain_id: &self.domain_id,
            exp: expires,
            iat: issued,
            iss: subject.session_id.to_hex(),
            stitch_dev_id: subject.device_id,
            stitch_domain_id: &self.domain_id,
            sub: subject.user_id.to_hex(),
            typ: Kind::Access,
            user_data,
        };
        let token = self.sign(&claims).await?;
        self.remember(token.expose(), Kind::Access, subject, expires);
        Ok(token)
    }

    pub(super) async fn sign_refresh(
        &self,
        subject: &Subject<'_>,
        identity: (&str, &str),
        issued: i64,
        expires: i64,
        unique: [u8; 16],
    ) -> Result<Secret> {
        let claims = RefreshClaims {
            baas_data: (),
            baas_device_id: subject.device_id,
            baas_domain_id: &self.domain_id,
            baas_id: subject.session_id.to_hex(),
            baas_identity: ClaimedIdentity { id: identity.0, provider_type: identity.1 },
            exp: expires,
            iat: issued,
            jti: hex(&unique),
            sub: subject.user_id.to_hex(),
            typ: Kind::Refresh,
        };
        let token = self.sign(&claims).await?;
        self.remember(token.expose(), Kind::Refresh, subject, expires);
        Ok(token)
    }

    async fn sign(&self, claims: &impl Serialize) -> Result<Secret> {
        let keys = self.keys.for_signing().await?;
        let Some(signing) = &keys.signing else { return Err(Error::internal("there is no signing key")) };
        let header = Header { kid: Some(signing.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &signing.key).map(Secret::from).map_err(Error::internal)
    }

    fn remember(&self, token: &str, kind: Kind, subject: &Subject<'_>, expires: i64) {
        let verified = Verified { kind, user_id: subject.user_id, session_id: subject.session_id, expires };
        self.verified.insert(token.to_owned(), verified);
    }

    /// What a token says, if one of our keys signed it for this app. Says nothing about its time.
    pub(super) async fn verify(&self, token: &Secret) -> Result<Verified> {
        if let Some(verified) = self.verified.get(token.expose()) {
            return Ok(verified);
        }
        let unauthorized = || Error::new(crate::ErrorCode::InvalidSession, "unauthorized");
        let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| unauthorized())?;
        let key_id = header.kid.ok_or_else(unauthorized)?;
        let keys = self.keys.for_verifying(&key_id).await?;
        let verified = self.decode(token, &key_id, &keys).ok_or_else(unauthorized)?;
        self.verified.insert(token.expose().to_owned(), verified);
        Ok(verified)
    }

    fn decode(&self, token: &Secret, key_id: &str, keys: &Keys) -> Option<Verified> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The backend's own clock decides about time.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let claims =
            jsonwebtoken::decode::<Claims>(token.expose(), keys.verifying.get(key_id)?, &validation).ok()?.claims;
        if claims.baas_domain_id != self.domain_id {
            return None;
        }
        let session_id = match claims.typ {
            Kind::Access => claims.iss,
            Kind::Refresh => claims.baas_id,
        };
        Some(Verified {
            kind: claims.typ,
            user_id: ObjectId::parse_str(claims.sub).ok()?,
            session_id: ObjectId::parse_str(session_id?).ok()?,
            expires: claims.exp,
        })
    }
}
