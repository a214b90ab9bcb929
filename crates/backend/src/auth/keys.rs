//! The Ed25519 keys that sign tokens.
//!
//! The first log-in creates a key and stores it, so that all nodes sign and verify with the same
//! keys. A rotation adds a new signing key. Only the public half of the previous key is kept, as
//! long as it may verify a valid token. The key of resume tokens is in the same collection.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bson::{
    Binary, DateTime,
    raw::{RawBsonRef, RawDocument},
    rawdoc,
    spec::BinarySubtype,
};
use jsonwebtoken::{DecodingKey, EncodingKey};
use query::Filter;
use store::{Change, Find, Store, Write};
use tokio::sync::OnceCell;

use super::{
    OwnCollection,
    own_collection::by_id,
    resume_tokens::{KEY_LENGTH, ResumeKey},
};
use crate::{DeclaredQuery, Environment, Error, Result};

/// The collection of the keys, in the app's own database.
pub(crate) const KEYS_COLLECTION: &str = "keys";

/// Maximum age in milliseconds of the cached keys for signing. Older ones are read from the store
/// again.
pub(super) const MAX_AGE: i64 = 60_000;

/// Minimum time in milliseconds between two reads of the keys because of an unknown key id. Any
/// client can send tokens with such ids, so they must not cause many reads.
const MIN_AGE: i64 = 1_000;

/// The `_id` of the key of resume tokens. Signing keys have numbers.
const RESUME_KEY: &str = "resume_tokens";

pub(crate) struct KeyRing {
    collection: OwnCollection,
    environment: Environment,
    loaded: RwLock<Arc<Keys>>,
    reloading: tokio::sync::Mutex<()>,
    resume_key: OnceCell<Arc<ResumeKey>>,
}

/// A public key that verifies tokens, for a JWKS (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The key id (`kid`) of the tokens that it verifies.
    pub id: String,
    /// The Ed25519 public key in base64url, without padding.
    pub x: String,
}

/// All keys whose tokens are still accepted. The newest one signs.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) signing: Option<SigningKey>,
    pub(super) verifying: HashMap<String, DecodingKey>,
    public: Vec<PublicKey>,
    /// All stored keys in the order of their numbers.
    held: Vec<Held>,
    /// The time of the read, in milliseconds since the Unix epoch.
    read_at: i64,
}

/// The stored metadata of a key.
struct Held {
    number: i64,
    id: String,
    /// The time at which the key was retired from signing.
    retired_at: Option<DateTime>,
}

pub(super) struct SigningKey {
    pub(super) id: String,
    pub(super) key: EncodingKey,
}

impl KeyRing {
    pub(crate) fn new(store: Arc<dyn Store>, database: &str, environment: Environment) -> Self {
        Self {
            collection: OwnCollection::new(store, database, KEYS_COLLECTION),
            environment,
            loaded: RwLock::default(),
            reloading: tokio::sync::Mutex::default(),
            resume_key: OnceCell::new(),
        }
    }

    pub(super) fn loaded(&self) -> Arc<Keys> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> DateTime {
        query::Environment::now(&self.environment)
    }

    fn age(&self, keys: &Keys) -> i64 {
        // If the clock was set back, the keys count as old.
        let age = self.now().timestamp_millis() - keys.read_at;
        if age < 0 { i64::MAX } else { age }
    }

    /// Returns the keys, read at most one minute ago.
    pub(super) async fn for_signing(&self) -> Result<Arc<Keys>> {
        let keys = self.loaded();
        if keys.signing.is_some() && self.age(&keys) < MAX_AGE { Ok(keys) } else { self.reload().await }
    }

    /// Returns the keys. Reads them again if the key id is unknown, because another node may have
    /// created the key.
    pub(super) async fn for_verifying(&self, id: &str) -> Result<Arc<Keys>> {
        let keys = self.loaded();
        if keys.verifying.contains_key(id) {
            return Ok(keys);
        }
        let asked_at = self.now().timestamp_millis();
        let _alone = self.reloading.lock().await;
        let keys = self.loaded();
        // Another request has read the keys in the meantime. One read serves all waiting requests.
        if keys.verifying.contains_key(id) || keys.read_at >= asked_at {
            return Ok(keys);
        }
        if let Ok(early) = u64::try_from(MIN_AGE - self.age(&keys)) {
            tokio::time::sleep(Duration::from_millis(early)).await;
        }
        self.reload().await
    }

    /// Returns the queries for keys, for the index test.
    pub(crate) fn declared(&self) -> Result<Vec<DeclaredQuery>> {
        Ok(vec![
            DeclaredQuery::new("all signing keys", self.find_all()?, "_id_"),
            DeclaredQuery::new("a signing key", self.find_one(1), "_id_"),
            DeclaredQuery::new("the key of resume tokens", self.find_resume_key(), "_id_"),
        ])
    }

    fn find_all(&self) -> Result<Find> {
        Ok(self.collection.query(Filter::parse(&rawdoc! { "_id": { "$gte": 1 } })?))
    }

    fn find_one(&self, number: i64) -> Find {
        self.collection.query_one(by_id(RawBsonRef::Int64(number)))
    }

    fn find_resume_key(&self) -> Find {
        self.collection.query_one(by_id(RESUME_KEY))
    }

    /// Returns the key of resume tokens. The first node that needs it creates it.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub(crate) async fn resume_key(&self) -> Result<Arc<ResumeKey>> {
        let load = || async {
            if let Some(key) = self.read_resume_key().await? {
                return Ok(key);
            }
            let document = rawdoc! {
                "_id": RESUME_KEY,
                "secret": Binary { subtype: BinarySubtype::Generic, bytes: self.environment.random::<KEY_LENGTH>()?.to_vec() },
                "created_at": self.now(),
            };
            match self.collection.write(self.collection.insertion(document)).await {
                // Another node was faster.
                Ok(_) | Err(store::Error::DuplicateKey { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.read_resume_key().await?.ok_or_else(|| Error::internal("the key of resume tokens was not stored"))
        };
        self.resume_key.get_or_try_init(load).await.cloned()
    }

    async fn read_resume_key(&self) -> Result<Option<Arc<ResumeKey>>> {
        let Some(document) = self.collection.find_one(self.find_resume_key()).await? else { return Ok(None) };
        let secret = document.get_binary("secret").map_err(Error::internal)?;
        Ok(Some(Arc::new(ResumeKey::new(secret.bytes)?)))
    }

    /// Reads the keys from the store.
    async fn reload(&self) -> Result<Arc<Keys>> {
        let mut documents = self.collection.store().find(self.find_all()?).await?;
        documents.sort_by_key(|document| number(document).unwrap_or_default());
        let mut keys = Keys { read_at: self.now().timestamp_millis(), ..Keys::default() };
        for document in &documents {
            keys.add(document).map_err(Error::internal)?;
        }
        let keys = Arc::new(keys);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        Ok(keys)
    }

    pub(crate) async fn public_keys(&self) -> Result<Vec<PublicKey>> {
        Ok(self.reload().await?.public.clone())
    }

    /// Returns the time of the last read, in milliseconds since the Unix epoch.
    #[cfg(test)]
    pub(crate) fn last_read(&self) -> i64 {
        self.loaded().read_at
    }

    /// Reads one key to check that the store can be read.
    pub(crate) async fn check_readable(&self) -> store::Result<()> {
        self.collection.find_one(self.find_one(1)).await.map(|_| ())
    }

    /// Creates the first signing key if there is none yet.
    pub(crate) async fn prepare(&self) -> Result<()> {
        if self.loaded().signing.is_some() || self.reload().await?.signing.is_some() {
            return Ok(());
        }
        // If two nodes start at the same time, one creates the first key and the other finds it.
        let (_, insert) = self.make(1)?;
        match self.collection.write(insert).await {
            Ok(_) | Err(store::Error::DuplicateKey { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.reload().await?.signing {
            Some(_) => Ok(()),
            None => Err(Error::internal("the signing key was not stored")),
        }
    }

    /// Creates a key. Returns its id and the write that stores it.
    fn make(&self, number: i64) -> Result<(String, Write)> {
        let id = super::hex(&self.environment.random::<8>()?);
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Error::internal("cannot create a signing key"))?;
        let document = rawdoc! {
            "_id": number,
            "kid": id.as_str(),
            "algorithm": "EdDSA",
            "private": Binary { subtype: BinarySubtype::Generic, bytes: private.as_ref().to_vec() },
            "created_at": self.now(),
        };
        Ok((id, self.collection.insertion(document)))
    }

    /// Returns the numbers of the retired keys and the times of their retirement.
    pub(crate) async fn retired(&self) -> Result<Vec<(i64, DateTime)>> {
        let keys = self.reload().await?;
        Ok(keys.held.iter().filter_map(|key| Some((key.number, key.retired_at?))).collect())
    }

    /// Creates a key that signs from now on, and returns its id. Deletes the keys with the numbers
    /// `unused`.
    pub(crate) async fn rotate(&self, unused: &[i64]) -> Result<String> {
        self.prepare().await?;
        let keys = self.reload().await?;
        let newest = keys.held.last().map_or(0, |key| key.number);
        let (id, insert) = self.make(newest + 1)?;
        let mut writes = vec![insert];
        for key in keys.held.iter().filter(|key| key.retired_at.is_none()) {
            writes.push(self.retire(key, &keys)?);
        }
        writes.extend(unused.iter().map(|&number| self.modify(number, Change::Delete)));
        // The new key is inserted before an older one loses its private half.
        match self.collection.store().write_in_order(writes).await {
            Err(store::Error::DuplicateKey { .. }) => Err(Error::bad_request("the keys are already being rotated")),
            Err(error) => Err(error.into()),
            Ok(_) => self.reload().await.map(|_| id),
        }
    }

    /// Returns the write that reduces a key to its public half.
    fn retire(&self, key: &Held, keys: &Keys) -> Result<Write> {
        let public = keys.public.iter().find(|public| public.id == key.id).map(|public| public.x.as_str());
        let update = rawdoc! {
            "$set": { "public": public.unwrap_or_default(), "retired_at": self.now() },
            "$unset": { "private": "" },
        };
        let update = query::Update::parse(&update)?;
        Ok(self.modify(key.number, Change::Update { update, upsert: false }))
    }

    fn modify(&self, number: i64, change: Change) -> Write {
        self.collection.change(by_id(RawBsonRef::Int64(number)), change)
    }
}

fn number(document: &RawDocument) -> Result<i64, bson::error::Error> {
    document.get_i64("_id").or_else(|_| document.get_i32("_id").map(i64::from))
}

impl Keys {
    fn add(&mut self, document: &RawDocument) -> Result<(), bson::error::Error> {
        let id = document.get_str("kid")?.to_owned();
        let retired_at = document.get_datetime("retired_at").ok();
        self.held.push(Held { number: number(document)?, id: id.clone(), retired_at });
        let unreadable = |id: &str| {
            tracing::error!(kid = %id, "a signing key in the store cannot be read; tokens signed with it are rejected");
        };
        let public = match document.get_binary("private") {
            Ok(private) => {
                let Ok(pair) = Ed25519KeyPair::from_pkcs8(private.bytes) else {
                    unreadable(&id);
                    return Ok(());
                };
                self.signing = Some(SigningKey { id: id.clone(), key: EncodingKey::from_ed_der(private.bytes) });
                pair.public_key().as_ref().to_vec()
            }
            Err(_) => match URL_SAFE_NO_PAD.decode(document.get_str("public")?) {
                Ok(public) => public,
                Err(_) => {
                    unreadable(&id);
                    return Ok(());
                }
            },
        };
        self.verifying.insert(id.clone(), DecodingKey::from_ed_der(&public));
        self.public.push(PublicKey { id, x: URL_SAFE_NO_PAD.encode(public) });
        Ok(())
    }
}
