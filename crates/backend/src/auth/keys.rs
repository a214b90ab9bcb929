//! The keys that tokens are signed with: Ed25519, made by the first log-in and kept in the store, so that every node
//! signs and verifies with the same ones.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bson::{Binary, raw::RawDocument, rawdoc, spec::BinarySubtype};
use jsonwebtoken::{DecodingKey, EncodingKey};
use query::Filter;
use store::{Find, Namespace, Operation, Store, Write};

use crate::{Environment, Error, Result};

pub(crate) struct KeyRing {
    store: Arc<dyn Store>,
    namespace: Namespace,
    environment: Environment,
    loaded: RwLock<Arc<Keys>>,
}

/// A key that verifies tokens, as a JWKS has it (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The `kid` of the tokens that it verifies.
    pub id: String,
    /// The Ed25519 public key, in base64url.
    pub x: String,
}

/// All keys whose tokens are still accepted; the newest signs.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) signing: Option<SigningKey>,
    pub(super) verifying: HashMap<String, DecodingKey>,
    public: Vec<PublicKey>,
}

pub(super) struct SigningKey {
    pub(super) id: String,
    pub(super) key: EncodingKey,
}

impl KeyRing {
    pub(crate) fn new(store: Arc<dyn Store>, database: &str, environment: Environment) -> Self {
        Self { store, namespace: Namespace::new(database, "keys"), environment, loaded: RwLock::default() }
    }

    pub(super) fn loaded(&self) -> Arc<Keys> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keys from the store, as before a token whose key is not known is refused.
    pub(super) async fn reload(&self) -> Result<Arc<Keys>> {
        let documents = self.store.find(Find::new(self.namespace.clone(), Filter::all())).await?;
        let mut keys = Keys::default();
        // In the order of insertion: the last is the newest.
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

    /// Makes the first key if there is none yet.
    pub(crate) async fn prepare(&self) -> Result<()> {
        if self.loaded().signing.is_some() || self.reload().await?.signing.is_some() {
            return Ok(());
        }
        let id: [u8; 8] = self.environment.random()?;
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Error::internal("cannot make a signing key"))?;
        let document = rawdoc! {
            // Of two nodes that start at once, one makes the first key and the other finds it.
            "_id": 1,
            "kid": super::hex(&id),
            "algorithm": "EdDSA",
            "private": Binary { subtype: BinarySubtype::Generic, bytes: private.as_ref().to_vec() },
            "created_at": query::Environment::now(&self.environment),
        };
        let insert =
            Write { namespace: self.namespace.clone(), operation: Operation::Insert(vec![document]), guard: None };
        match self.store.write(vec![insert]).await {
            Ok(_) | Err(store::Error::DuplicateKey { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.reload().await?.signing {
            Some(_) => Ok(()),
            None => Err(Error::internal("the signing key was not kept")),
        }
    }
}

impl Keys {
    fn add(&mut self, document: &RawDocument) -> Result<(), bson::error::Error> {
        let id = document.get_str("kid")?.to_owned();
        let private = document.get_binary("private")?.bytes;
        let Ok(pair) = Ed25519KeyPair::from_pkcs8(private) else {
            tracing::error!(kid = %id, "a signing key in the store cannot be read; tokens signed with it are refused");
            return Ok(());
        };
        self.public.push(PublicKey { id: id.clone(), x: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()) });
        self.verifying.insert(id.clone(), DecodingKey::from_ed_der(pair.public_key().as_ref()));
        self.signing = Some(SigningKey { id, key: EncodingKey::from_ed_der(private) });
        Ok(())
    }
}
