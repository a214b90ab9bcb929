//! Sessions. A refresh token represents a session. A request succeeds only while its session is
//! open and its user is enabled.

use std::sync::Arc;

use bson::{Binary, DateTime, RawBson, oid::ObjectId, raw::RawDocumentBuf, rawdoc, spec::BinarySubtype};
use query::{Filter, Path, Update};
use quick_cache::sync::Cache;
use serde_json::value::RawValue;
use store::{Change, Find, Index, Store, Write};

use super::{
    OwnCollection,
    confirmations::{CachedSession, Confirmations, Key, is_recent},
    keys::MAX_AGE,
    own_collection::by_id,
    tokens::{Kind, Subject, Tokens, Verified},
    users::{User, Users, check_enabled, not_found},
};
use crate::{DeclaredQuery, Environment, Error, ErrorCode, Result, Secret, provider};

/// Lifetime of an access token, in seconds.
const ACCESS_LIFETIME: i64 = 30 * 60;

/// Lifetime of a refresh token of a user who is not anonymous, in seconds.
const REFRESH_LIFETIME: i64 = 60 * 24 * 60 * 60;

/// Lifetime of an anonymous user's refresh token, in seconds (50 years). Anonymous users cannot
/// log in again, so the token practically never expires. Its session ends when the user is
/// deleted.
const ANONYMOUS_LIFETIME: i64 = 50 * 365 * 24 * 60 * 60;

/// Time in seconds after which an inactive user with only an anonymous identity is deleted
/// (<https://www.mongodb.com/docs/atlas/app-services/users/sessions/>).
const ANONYMOUS_UNUSED: i64 = 90 * 24 * 60 * 60;
/// Minimum time in seconds between two updates of that expiry.
const NOTED_EVERY: i64 = 24 * 60 * 60;

/// Capacity of the caches of confirmed sessions and of enabled users.
const REMEMBERED: usize = 50_000;

pub(crate) struct Sessions {
    collection: OwnCollection,
    environment: Environment,
    tokens: Tokens,
    /// Recently confirmed sessions, if the store is remote. On an embedded store, each request
    /// reads its session.
    confirmations: Arc<Confirmations>,
    /// Recently enabled users of an embedded store, and the time of the read in milliseconds since
    /// the Unix epoch.
    enabled: Cache<ObjectId, i64>,
}

/// The user and the session of a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user_id: ObjectId,
    pub(crate) session_id: ObjectId,
    pub(crate) device_id: String,
    /// True if the expiry of an anonymous user must be extended.
    pub(crate) needs_touch: bool,
}

/// The user and the session that a verified token claims. [`Claim::confirm`] checks them.
#[derive(Debug, Clone)]
pub(crate) struct Claim(Verified);

impl Claim {
    /// Returns the user's id.
    pub(crate) fn user_id(&self) -> ObjectId {
        self.0.user_id
    }

    /// Returns the caller if `session`, the result of [`Sessions::find`], is an open session of
    /// the claimed user.
    pub(crate) fn confirm(&self, session: Vec<RawDocumentBuf>) -> Result<Caller> {
        let Verified { user_id, session_id, kind, .. } = self.0;
        let Some(session) = session.first() else {
            return Err(match kind {
                Kind::Refresh => Error::invalid_session("failed to find refresh token"),
                Kind::Access => not_found(user_id),
            });
        };
        // A valid token names the user of its session.
        if session.get_object_id("user_id").map_err(Error::internal)? != user_id {
            return Err(Error::invalid_session("the token does not belong to the session's user"));
        }
        let device_id = session.get_str("device_id").map_err(Error::internal)?.to_owned();
        Ok(Caller { user_id, session_id, device_id, needs_touch: false })
    }
}

/// Returns the time at which an anonymous user who is active at `now` will be deleted if no
/// further activity follows. `now` is in seconds since the Unix epoch.
pub(super) fn anonymous_end(now: i64) -> DateTime {
    DateTime::from_millis((now + ANONYMOUS_UNUSED) * 1000)
}

impl Sessions {
    pub(crate) fn new(store: Arc<dyn Store>, database: &str, tokens: Tokens, environment: Environment) -> Self {
        let (confirmed, enabled) = if store.is_remote() { (REMEMBERED, 0) } else { (0, REMEMBERED) };
        Self {
            collection: OwnCollection::new(store, database, "sessions"),
            environment,
            tokens,
            confirmations: Arc::new(Confirmations::new(confirmed)),
            enabled: Cache::new(enabled),
        }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.collection.store()
    }

    pub(crate) async fn prepare(&self) -> Result<()> {
        Ok(self.collection.ensure_indexes(vec![user_index(), expiry_index()]).await?)
    }

    /// Returns the queries for sessions, for the index test.
    pub(crate) fn declared(&self) -> Result<Vec<DeclaredQuery>> {
        let claim = Verified {
            kind: Kind::Access,
            user_id: self.environment.new_id(),
            session_id: self.environment.new_id(),
            expires: 0,
            begins: 0,
        };
        let of_user = self.collection.query(of_user(claim.user_id));
        let signed = self.find_signed_until(self.now())?;
        Ok(vec![
            DeclaredQuery::new("a session by id", self.find(&Claim(claim)), "_id_"),
            DeclaredQuery::new("the sessions of a user", of_user, user_index().name),
            DeclaredQuery::new("a session that a key may have signed", signed, expiry_index().name),
        ])
    }

    /// Opens a session for a user who has authenticated.
    pub(crate) async fn open(&self, user: &User, users: &Users, device_id: String) -> Result<(Caller, Secret)> {
        let session_id = self.environment.new_id();
        let caller = Caller { user_id: user.id, session_id, device_id, needs_touch: false };
        let now = self.environment.unix_seconds();
        let anonymous = user.identity.provider_type == provider::ANONYMOUS;
        let expires = now + if anonymous { ANONYMOUS_LIFETIME } else { REFRESH_LIFETIME };
        let identity = (user.identity.id.as_str(), user.identity.provider_type.as_str());
        let refresh_token =
            self.tokens.sign_refresh(&caller.subject(), identity, now, expires, self.environment.random()?).await?;
        let document = rawdoc! {
            "_id": caller.session_id,
            "user_id": user.id,
            "provider_type": user.identity.provider_type.as_str(),
            "device_id": caller.device_id.as_str(),
            "refresh_token_hash": hash(&refresh_token),
            "created_at": DateTime::from_millis(now * 1000),
            "expires_at": if anonymous { anonymous_end(now) } else { DateTime::from_millis(expires * 1000) },
        };
        let insert = self.collection.insertion(document);
        let outcomes = self.store().write_in_order(vec![insert, users.note_log_in(user)?]).await?;
        // The user may have been deleted or disabled after the password check. The session must
        // not outlive the user.
        if outcomes.last().is_none_or(|noted| noted.matched == 0) {
            let end = self.end(user.id, by_id(caller.session_id));
            self.store().write(vec![end]).await?;
            return Err(Error::new(ErrorCode::InvalidPassword, "unauthorized"));
        }
        if self.store().is_remote() {
            self.confirmations.note_known(caller.session_id, self.now());
        }
        Ok((caller, refresh_token))
    }

    pub(crate) async fn access_token(&self, caller: &Caller, user_data: Option<Box<RawValue>>) -> Result<Secret> {
        let now = self.environment.unix_seconds();
        self.tokens.sign_access(&caller.subject(), now, now + ACCESS_LIFETIME, user_data).await
    }

    /// Creates a new signing key and returns its id. Older keys still verify tokens until the last
    /// token that they signed has expired.
    pub(crate) async fn rotate_keys(&self) -> Result<String> {
        let mut unused = Vec::new();
        for (number, retired_at) in self.tokens.keys().retired().await? {
            if !self.may_have_signed(retired_at).await? {
                unused.push(number);
            }
        }
        self.tokens.keys().rotate(&unused).await
    }

    /// True if a key that was retired at `retired_at` may have signed a token that is still valid.
    async fn may_have_signed(&self, retired_at: DateTime) -> Result<bool> {
        let now = query::Environment::now(&self.environment);
        // Other nodes may use the old key for a while after a rotation.
        let last_signed = retired_at.timestamp_millis() + 2 * MAX_AGE;
        if now.timestamp_millis() <= last_signed + ACCESS_LIFETIME * 1000 {
            return Ok(true);
        }
        Ok(!self.store().find(self.find_signed_until(last_signed)?).await?.is_empty())
    }

    /// Returns the query for a session that was opened before a time, in milliseconds since the
    /// Unix epoch, and may still be open.
    fn find_signed_until(&self, last_signed: i64) -> Result<Find> {
        let filter = Filter::parse(&rawdoc! {
            "created_at": { "$lte": DateTime::from_millis(last_signed) },
            "expires_at": { "$gt": query::Environment::now(&self.environment) },
        })?;
        Ok(self.collection.query_one(filter))
    }

    /// Returns the caller of an access token if its session is open.
    pub(crate) async fn by_access_token(&self, token: &Secret, users: &Users) -> Result<Caller> {
        let claim = self.claim_of_access_token(token).await?;
        self.confirm(&claim, users).await.map(|confirmed| confirmed.caller)
    }

    /// Confirms that the session that an access token claims is open and its user is enabled, or
    /// that both were so less than 4 s ago. Reads both concurrently from a remote store.
    ///
    /// # Errors
    /// `InvalidSession` if the session has ended, or the user is disabled or deleted.
    pub(crate) async fn confirm(&self, claim: &Claim, users: &Users) -> Result<CachedSession> {
        let now = self.now();
        if !self.store().is_remote() {
            let session = self.store().find(self.find(claim)).await?;
            return self.confirm_read(claim, session, now, users).await;
        }
        let key = Key { session_id: claim.0.session_id, user_id: claim.user_id() };
        let read = || {
            let (store, claim) = (Arc::clone(self.store()), Claim(claim.0));
            let finds = [self.find(&claim), users.find_by_id(claim.user_id())];
            async move {
                let [session, user] = store.find_both(finds).await?;
                let caller = claim.confirm(session)?;
                check_enabled(&user, caller.user_id)?;
                Ok(caller)
            }
        };
        self.confirmations.confirm(key, now, read).await
    }

    /// Does the same as [`Self::confirm`] with a session that was read from an embedded store
    /// after `at`, in milliseconds since the Unix epoch. The user is read only if the last read is
    /// not recent.
    pub(crate) async fn confirm_read(
        &self,
        claim: &Claim,
        session: Vec<RawDocumentBuf>,
        at: i64,
        users: &Users,
    ) -> Result<CachedSession> {
        let caller = claim.confirm(session)?;
        let now = self.now();
        let enabled_at = self.enabled.get(&caller.user_id).filter(|at| is_recent(*at, now));
        if enabled_at.is_none() {
            let user = self.store().find(users.find_by_id(caller.user_id)).await?;
            check_enabled(&user, caller.user_id)?;
            self.enabled.insert(caller.user_id, now);
        }
        Ok(CachedSession { caller, at: enabled_at.map_or(at, |enabled_at| enabled_at.min(at)) })
    }

    /// True if this node has confirmed the session within the last minute, and has not found it
    /// closed since then.
    pub(crate) fn is_known(&self, claim: &Claim) -> bool {
        self.confirmations.is_known(claim.0.session_id, self.now())
    }

    /// Returns the current time in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        query::Environment::now(&self.environment).timestamp_millis()
    }

    /// Returns the claim of a refresh token, which [`Self::by_refresh_token`] must confirm.
    pub(crate) async fn claim_of_refresh_token(&self, token: &Secret) -> Result<Claim> {
        self.claim(token, Kind::Refresh, "refresh token expired", "incorrect token type").await
    }

    /// Returns the caller of a refresh token if its session is open and its user is enabled. It
    /// always reads both from the store.
    ///
    /// # Errors
    /// `InvalidSession` if the token or its session is not valid, or the user is disabled or
    /// deleted.
    pub(crate) async fn by_refresh_token(&self, token: &Secret, claim: &Claim, users: &Users) -> Result<Caller> {
        let [session, user] = self.store().find_both([self.find(claim), users.find_by_id(claim.user_id())]).await?;
        let caller = self.check_refresh_token(token, claim, session)?;
        check_enabled(&user, caller.user_id)?;
        if self.store().is_remote() {
            self.confirmations.note_known(caller.session_id, self.now());
        }
        Ok(caller)
    }

    /// Returns the caller of a refresh token if its session is open. A disabled user may still log
    /// out.
    ///
    /// # Errors
    /// `InvalidSession` if the token or its session is not valid.
    pub(crate) async fn to_end(&self, token: &Secret) -> Result<Caller> {
        let claim = self.claim_of_refresh_token(token).await?;
        self.check_refresh_token(token, &claim, self.store().find(self.find(&claim)).await?)
    }

    fn check_refresh_token(&self, token: &Secret, claim: &Claim, session: Vec<RawDocumentBuf>) -> Result<Caller> {
        let mut needs_touch = false;
        if let Some(session) = session.first() {
            let now = self.environment.unix_seconds();
            let left = session.get_datetime("expires_at").map_err(Error::internal)?.timestamp_millis() / 1000 - now;
            // The session may have expired without having been deleted yet.
            if left <= 0 {
                return Err(Error::invalid_session("failed to find refresh token"));
            }
            let is_anonymous = session.get_str("provider_type").is_ok_and(|kind| kind == provider::ANONYMOUS);
            needs_touch = is_anonymous && left < ANONYMOUS_UNUSED - NOTED_EVERY;
            let stored = session.get_binary("refresh_token_hash").map_err(Error::internal)?;
            if aws_lc_rs::constant_time::verify_slices_are_equal(stored.bytes, &hash(token).bytes).is_err() {
                return Err(Error::invalid_session("failed to find refresh token"));
            }
        }
        Ok(Caller { needs_touch, ..claim.confirm(session)? })
    }

    /// Returns the write that extends the expiry of an anonymous user's session.
    pub(crate) fn touch(&self, caller: &Caller) -> Result<Write> {
        let filter = by_id(caller.session_id);
        let end = anonymous_end(self.environment.unix_seconds());
        let update = Update::parse(&rawdoc! { "$set": { "expires_at": end } })?;
        let write = self.collection.change(filter, Change::Update { update, upsert: false });
        Ok(Write { budget: self.collection.budget_of(caller.user_id), ..write })
    }

    /// Returns the claim of an access token. It is not trusted until [`Claim::confirm`] succeeds.
    pub(crate) async fn claim_of_access_token(&self, token: &Secret) -> Result<Claim> {
        self.claim(token, Kind::Access, "access token expired", "access token required").await
    }

    async fn claim(&self, token: &Secret, kind: Kind, expired: &str, wrong_kind: &str) -> Result<Claim> {
        let verified = self.tokens.verify(token).await?;
        if verified.kind != kind {
            let prefix = if kind == Kind::Refresh { "invalid refresh token" } else { "invalid session" };
            return Err(Error::new(ErrorCode::InvalidSession, format!("{prefix}: {wrong_kind}")));
        }
        if verified.expires <= self.environment.unix_seconds() {
            return Err(Error::invalid_session(expired));
        }
        if verified.begins > self.environment.unix_seconds() {
            return Err(Error::invalid_session("the token is not valid yet"));
        }
        Ok(Claim(verified))
    }

    /// Returns the query for the session that a token claims.
    pub(crate) fn find(&self, claim: &Claim) -> Find {
        let find = self.collection.query(by_id(claim.0.session_id));
        Find { budget: self.collection.budget_of(claim.user_id()), ..find }
    }

    /// Ends one session.
    pub(crate) async fn close(&self, caller: &Caller) -> Result<()> {
        let key = Key { session_id: caller.session_id, user_id: caller.user_id };
        self.confirmations.forget(key);
        let end = self.end(caller.user_id, by_id(caller.session_id));
        let ended = self.store().write(vec![end]).await;
        // Again, because a concurrent read may have found the session open.
        self.confirmations.forget(key);
        Ok(ended.map(|_| ())?)
    }

    /// Ends all sessions of a user, and carries out `user_goes`, the write that deletes the user.
    pub(crate) async fn end_with(&self, caller: &Caller, user_goes: Write) -> Result<()> {
        self.forget_user(caller.user_id);
        let end_all = || self.end(caller.user_id, of_user(caller.user_id));
        // Ends the sessions again afterwards, because a concurrent log-in may have opened one
        // before the user was deleted.
        let ended = self.store().write_in_order(vec![end_all(), user_goes, end_all()]).await;
        self.forget_user(caller.user_id);
        Ok(ended.map(|_| ())?)
    }

    /// Carries out a change of a user together with the end of all sessions, such as a new
    /// password. Returns false if the change matches nothing. The sessions end also then.
    ///
    /// A log-in that is concurrent with the change notes itself on the user after it has opened
    /// its session, and finds the change.
    pub(crate) async fn end_all_with(&self, user_id: ObjectId, change: Write) -> Result<bool> {
        let end_all = || self.end(user_id, of_user(user_id));
        self.forget_user(user_id);
        let (changed, place) = match self.store().write(vec![change.clone(), end_all()]).await {
            // A standalone server has no transactions. If this process ends in between, no session
            // outlives the change, except that of a log-in at the same moment.
            Err(store::Error::NeedsTransaction) => {
                (self.store().write_in_order(vec![end_all(), change, end_all()]).await, 1)
            }
            changed => (changed, 0),
        };
        self.forget_user(user_id);
        Ok(changed?.get(place).is_some_and(|outcome| outcome.matched > 0))
    }

    /// Removes a user and the user's sessions from the caches, so that the next request reads
    /// them.
    fn forget_user(&self, user_id: ObjectId) {
        self.enabled.remove(&user_id);
        self.confirmations.forget_user(user_id);
    }

    fn end(&self, user_id: ObjectId, filter: Filter) -> Write {
        Write { budget: self.collection.budget_of(user_id), ..self.collection.deletion_of_all(filter) }
    }
}

impl Caller {
    fn subject(&self) -> Subject<'_> {
        Subject { user_id: self.user_id, session_id: self.session_id, device_id: &self.device_id }
    }
}

fn user_index() -> Index {
    Index::on(Path::new("user_id"))
}

fn expiry_index() -> Index {
    Index::on(Path::new("expires_at")).expiring(0)
}

fn of_user(user_id: ObjectId) -> Filter {
    Filter::equals("user_id", RawBson::ObjectId(user_id))
}

fn hash(token: &Secret) -> Binary {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes());
    Binary { subtype: BinarySubtype::Generic, bytes: digest.as_ref().to_vec() }
}
