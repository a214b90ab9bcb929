//! Access and refresh tokens: JWTs with App Services' claims, which clients read
//! (<https://www.mongodb.com/docs/atlas/app-services/users/sessions/>).

use std::sync::Arc;

use bson::oid::ObjectId;
use jsonwebtoken::{Algorithm, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    hex,
    keys::{KeyRing, Keys},
};
use crate::{Error, Result, Secret};

/// Capacity of the cache of verified tokens, which avoids a signature verification per request.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Access,
    Refresh,
}

/// The claims of a verified token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verified {
    pub(super) kind: Kind,
    pub(super) user_id: ObjectId,
    pub(super) session_id: ObjectId,
    /// The time at which the token expires, in seconds since the Unix epoch.
    pub(super) expires: i64,
    /// The time from which the token is valid, in seconds since the Unix epoch.
    pub(super) begins: i64,
}

#[derive(Serialize)]
struct AccessClaims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    baas_data: (),
    baas_device_id: &'a str,
    baas_domain_id: &'a str,
    baas_id: String,
    baas_identity: ClaimedIdentity<'a>,
    exp: i64,
    iat: i64,
    /// A random value, so that the tokens of two sessions differ in more than their ids.
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
    /// The session id in an access token.
    iss: Option<String>,
    /// The session id in a refresh token.
    baas_id: Option<String>,
    baas_domain_id: String,
    nbf: Option<i64>,
    /// The audience. Missing in tokens of older versions; `null` is not valid.
    #[serde(default, deserialize_with = "Audience::read")]
    aud: Option<Audience>,
}

/// The apps that a token is for (<https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3>).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::deserialize(deserializer).map(Some)
    }

    fn includes(&self, app_id: &str) -> bool {
        match self {
            Self::One(app) => app == app_id,
            Self::Several(apps) => apps.iter().any(|app| app == app_id),
        }
    }
}

/// The user, the session and the device that a token is issued to.
pub(super) struct Subject<'a> {
    pub(super) user_id: ObjectId,
    pub(super) session_id: ObjectId,
    pub(super) device_id: &'a str,
}

/// Signs and verifies the tokens of an app.
pub(crate) struct Tokens {
    keys: Arc<KeyRing>,
    app_id: String,
    /// True if tokens name the app as their audience.
    names_audience: bool,
    /// A digest of the app id, which identifies the app in its tokens.
    domain_id: String,
    verified: Cache<String, Verified>,
}

impl Tokens {
    /// Creates the signer of the app `app_id`. Older versions of Userkeep reject tokens with an
    /// audience, so set `names_audience` only when no node runs such a version.
    pub(crate) fn new(keys: Arc<KeyRing>, app_id: &str, names_audience: bool) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, app_id.as_bytes());
        let domain_id = hex(&digest.as_ref()[..12]);
        Self { keys, app_id: app_id.to_owned(), names_audience, domain_id, verified: Cache::new(REMEMBERED) }
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
            aud: self.audience(),
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
            aud: self.audience(),
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

    fn audience(&self) -> Option<&str> {
        self.names_audience.then_some(&self.app_id)
    }

    async fn sign(&self, claims: &impl Serialize) -> Result<Secret> {
        let keys = self.keys.for_signing().await?;
        let Some(signing) = &keys.signing else { return Err(Error::internal("there is no signing key")) };
        let header = Header { kid: Some(signing.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &signing.key).map(Secret::from).map_err(Error::internal)
    }

    fn remember(&self, token: &str, kind: Kind, subject: &Subject<'_>, expires: i64) {
        let verified = Verified { kind, user_id: subject.user_id, session_id: subject.session_id, expires, begins: 0 };
        self.verified.insert(token.to_owned(), verified);
    }

    /// Returns the claims of a token if one of the app's keys signed it for this app. Does not
    /// check the time.
    pub(super) async fn verify(&self, token: &Secret) -> Result<Verified> {
        if let Some(verified) = self.verified.get(token.expose()) {
            return Ok(verified);
        }
        let unauthorized = || Error::new(crate::ErrorCode::InvalidSession, "unauthorized");
        let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| unauthorized())?;
        // `crit` lists extensions that must be understood; none are supported.
        if header.crit.is_some() {
            return Err(unauthorized());
        }
        let key_id = header.kid.ok_or_else(unauthorized)?;
        let keys = self.keys.for_verifying(&key_id).await?;
        let verified = self.decode(token, &key_id, &keys).ok_or_else(unauthorized)?;
        self.verified.insert(token.expose().to_owned(), verified);
        Ok(verified)
    }

    fn decode(&self, token: &Secret, key_id: &str, keys: &Keys) -> Option<Verified> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // The expiry is checked elsewhere, with the backend's own clock.
        validation.validate_exp = false;
        // Tokens without an audience are accepted. `includes` below checks the others.
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims =
            jsonwebtoken::decode::<Claims>(token.expose(), keys.verifying.get(key_id)?, &validation).ok()?.claims;
        if claims.baas_domain_id != self.domain_id || claims.aud.is_some_and(|aud| !aud.includes(&self.app_id)) {
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
            begins: claims.nbf.unwrap_or(0),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::DateTime;
    use serde_json::{Value, json};
    use store::{Location, SqliteStore};

    use super::*;
    use crate::{Environment, auth::Sessions};

    const NOW: i64 = 1_700_000_000;

    struct World {
        keys: Arc<KeyRing>,
        tokens: Tokens,
        subject: Subject<'static>,
        sessions: Sessions,
    }

    impl World {
        async fn new() -> Self {
            let environment = Environment::with_clock(|| DateTime::from_millis(NOW * 1000));
            let store: Arc<dyn store::Store> =
                Arc::new(SqliteStore::open(Location::Memory, Arc::new(environment.clone())).unwrap());
            let keys = Arc::new(KeyRing::new(Arc::clone(&store), "own", environment.clone()));
            keys.prepare().await.unwrap();
            let new = |app, names_audience| Tokens::new(Arc::clone(&keys), app, names_audience);
            let sessions = Sessions::new(store, "own", new("app", false), environment);
            let subject = Subject { user_id: ObjectId::new(), session_id: ObjectId::new(), device_id: "d" };
            Self { tokens: new("app", false), keys: Arc::clone(&keys), subject, sessions }
        }

        /// Signs an access token with these claims and headers with the app's key.
        async fn forge(&self, claims: Value, header: Value) -> Secret {
            let mut all = json!({
                "baas_domain_id": self.tokens.domain_id, "exp": NOW + 60, "iat": NOW, "typ": "access",
                "iss": self.subject.session_id.to_hex(), "sub": self.subject.user_id.to_hex(),
            });
            all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
            let keys = self.keys.for_signing().await.unwrap();
            let signing = keys.signing.as_ref().unwrap();
            let mut head = json!({ "typ": "JWT", "alg": "EdDSA", "kid": signing.id });
            head.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
            let header: Header = serde_json::from_value(head).unwrap();
            jsonwebtoken::encode(&header, &all, &signing.key).unwrap().into()
        }

        async fn accepts(&self, claims: Value, header: Value) -> bool {
            let token = self.forge(claims, header).await;
            self.sessions.claim_of_access_token(&token).await.is_ok()
        }
    }

    #[tokio::test]
    async fn a_token_with_a_critical_extension_is_rejected() {
        let world = World::new().await;
        assert!(world.accepts(json!({}), json!({})).await);
        for crit in [json!(["exp"]), json!([])] {
            assert!(!world.accepts(json!({}), json!({ "crit": crit })).await);
        }
    }

    #[tokio::test]
    async fn a_token_is_not_valid_before_its_time() {
        let world = World::new().await;
        assert!(world.accepts(json!({ "nbf": NOW }), json!({})).await);
        assert!(!world.accepts(json!({ "nbf": NOW + 1 }), json!({})).await);
        assert!(!world.accepts(json!({ "nbf": "soon" }), json!({})).await);
    }

    #[tokio::test]
    async fn a_token_is_accepted_only_if_its_audience_includes_the_app() {
        let world = World::new().await;
        for (audience, is_accepted) in [
            (json!("app"), true),
            (json!(["other", "app"]), true),
            (json!("other"), false),
            (json!(["other"]), false),
            (json!([]), false),
            (json!(1), false),
            (json!(null), false),
        ] {
            assert_eq!(world.accepts(json!({ "aud": audience }), json!({})).await, is_accepted, "{audience}");
        }
    }

    #[tokio::test]
    async fn the_audience_is_written_only_if_enabled() {
        let world = World::new().await;
        let payload = |token: &Secret| {
            use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
            let part = token.expose().split('.').nth(1).unwrap().to_owned();
            serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        for (names_audience, audience) in [(false, None), (true, Some(json!("app")))] {
            let tokens = Tokens::new(Arc::clone(&world.keys), "app", names_audience);
            let access = tokens.sign_access(&world.subject, NOW, NOW + 60, None).await.unwrap();
            let refresh =
                tokens.sign_refresh(&world.subject, ("1", "anon-user"), NOW, NOW + 60, [0; 16]).await.unwrap();
            for token in [access, refresh] {
                let claims = payload(&token);
                assert_eq!(claims.get("aud"), audience.as_ref());
                assert_eq!(world.tokens.verify(&token).await.unwrap().user_id, world.subject.user_id);
            }
        }
    }

    #[tokio::test]
    async fn a_token_that_names_another_user_than_its_session_is_rejected() {
        let world = World::new().await;
        let session = |user: ObjectId| vec![bson::rawdoc! { "user_id": user, "device_id": "d" }];
        let token = world.forge(json!({}), json!({})).await;
        let claim = world.sessions.claim_of_access_token(&token).await.unwrap();
        assert!(claim.confirm(session(world.subject.user_id)).is_ok());
        let error = claim.confirm(session(ObjectId::new())).unwrap_err();
        assert_eq!(error.code, crate::ErrorCode::InvalidSession);
    }
}
