//! The counts of the rate limit. They are in memory, or in the store if several nodes share it, so
//! that an attacker cannot evade the limit by switching nodes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bson::{
    Binary, DateTime, RawBson,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
    rawdoc,
    spec::BinarySubtype,
};
use query::{Filter, Path, Update};
use quick_cache::sync::Cache;
use store::{Change, Find, Index, Store};

use super::{Key, Limit};
use crate::auth::OwnCollection;
use crate::{DeclaredQuery, Result};

/// Capacity of each in-memory cache of accounts and networks. If it is exceeded, the least
/// recently used entry is evicted.
pub(super) const REMEMBERED: usize = 100_000;

/// Time in milliseconds for which a shared store keeps the network of a successful log-in.
const KNOWN_FOR: i64 = 90 * 24 * 60 * 60 * 1000;

/// The maximum number of tries to update a shared count that other nodes update at the same time.
const ATTEMPTS: usize = 8;

/// The failures of one key, and its wait.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Bucket {
    counted: f64,
    /// A time in milliseconds since the Unix epoch.
    at: i64,
    wait_until: i64,
}

impl Bucket {
    /// Returns the remaining wait in milliseconds.
    pub(super) fn wait(&self, limit: &Limit, now: i64) -> i64 {
        // If the clock was set back, the wait is still at most the maximum.
        (self.wait_until - now).clamp(0, (limit.longest_wait * 1000.0) as i64)
    }

    fn count(&mut self, limit: &Limit, now: i64) {
        let elapsed = (now - self.at).max(0) as f64 / 1000.0;
        self.counted = (self.counted - elapsed / limit.forgotten_each).max(0.0) + 1.0;
        self.at = now;
        let beyond = (self.counted - limit.free).ceil();
        if beyond > 0.0 {
            let wait = (limit.first_wait * (beyond - 1.0).min(32.0).exp2()).min(limit.longest_wait);
            self.wait_until = now + (wait * 1000.0) as i64;
        }
    }

    /// Returns the time at which the bucket is empty and its wait is over, in milliseconds since
    /// the Unix epoch.
    fn end(&self, limit: &Limit) -> i64 {
        let forgotten = self.at + (self.counted * limit.forgotten_each * 1000.0) as i64;
        forgotten.max(self.wait_until)
    }

    fn read(document: &RawDocument) -> Option<Self> {
        Some(Self {
            counted: document.get_f64("counted").ok()?,
            at: document.get_i64("at").ok()?,
            wait_until: document.get_i64("wait_until").ok()?,
        })
    }

    fn write(&self) -> RawDocumentBuf {
        rawdoc! { "counted": self.counted, "at": self.at, "wait_until": self.wait_until }
    }
}

/// The buckets of all keys.
pub(super) enum Buckets {
    /// In memory, for this node only.
    Here { buckets: Cache<Key, Arc<Mutex<Bucket>>>, known: Cache<Key, ()> },
    /// In the store, for all nodes.
    Shared(SharedBuckets),
}

pub(super) struct SharedBuckets {
    collection: OwnCollection,
    /// Log-ins that are already recorded in the store.
    known: Cache<Key, ()>,
}

impl Buckets {
    pub(super) fn new(store: &Arc<dyn Store>, database: &str) -> Self {
        let known = Cache::new(REMEMBERED);
        match store.is_remote() {
            true => {
                let collection = OwnCollection::new(Arc::clone(store), database, "attempts");
                Self::Shared(SharedBuckets { collection, known })
            }
            false => Self::Here { buckets: Cache::new(REMEMBERED), known },
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    pub(super) async fn prepare(&self) -> Result<()> {
        let Self::Shared(shared) = self else { return Ok(()) };
        let expired = Index::on(Path::new("expires_at")).expiring(0);
        Ok(shared.collection.ensure_indexes(vec![expired]).await?)
    }

    /// Returns the query for buckets, for the index test.
    pub(super) fn declared(&self, keys: &[Key]) -> Result<Vec<DeclaredQuery>> {
        let Self::Shared(shared) = self else { return Ok(Vec::new()) };
        Ok(vec![DeclaredQuery::new("buckets of the rate limit", shared.find(keys)?, "_id_")])
    }

    /// Returns the buckets of `keys` that are not empty.
    pub(super) async fn recall(&self, keys: &[Key]) -> Result<HashMap<Key, Bucket>> {
        match self {
            Self::Here { buckets, known } => Ok(keys
                .iter()
                .filter_map(|key| match key {
                    Key::Known(..) => known.get(key).map(|()| (*key, Bucket::default())),
                    _ => buckets.get(key).map(|bucket| (*key, *lock(&bucket))),
                })
                .collect()),
            Self::Shared(shared) => shared.recall(keys).await,
        }
    }

    /// Adds one to the bucket of each key.
    pub(super) async fn count(&self, keys: &[Key], now: i64) -> Result<()> {
        for key in keys {
            match self {
                Self::Here { buckets, .. } => {
                    let make = || Ok(Arc::new(Mutex::new(Bucket::default())));
                    let bucket = buckets.get_or_insert_with(key, make);
                    let bucket = bucket.unwrap_or_else(|never: std::convert::Infallible| match never {});
                    lock(&bucket).count(key.limit(), now);
                }
                Self::Shared(shared) => shared.count(*key, now).await?,
            }
        }
        Ok(())
    }

    /// Records the network of a successful log-in.
    pub(super) async fn note_known(&self, key: Key, now: i64) -> Result<()> {
        match self {
            Self::Here { known, .. } => known.insert(key, ()),
            Self::Shared(shared) => shared.note_known(key, now).await?,
        }
        Ok(())
    }

    /// Deletes the bucket of a key.
    pub(super) async fn forget(&self, key: Key) -> Result<()> {
        match self {
            Self::Here { buckets, .. } => {
                buckets.remove(&key);
                Ok(())
            }
            Self::Shared(shared) => {
                let forget = shared.collection.change(of_key(key), Change::Delete);
                Ok(shared.collection.write(forget).await.map(|_| ())?)
            }
        }
    }
}

impl SharedBuckets {
    fn find(&self, keys: &[Key]) -> Result<Find> {
        let mut ids = RawArrayBuf::new();
        keys.iter().for_each(|key| ids.push(id(*key)));
        Ok(self.collection.query(Filter::parse(&rawdoc! { "_id": { "$in": ids } })?))
    }

    async fn recall(&self, keys: &[Key]) -> Result<HashMap<Key, Bucket>> {
        let found = self.collection.store().find(self.find(keys)?).await?;
        let mut recalled = HashMap::new();
        for document in &found {
            let key =
                keys.iter().find(|key| document.get_binary("_id").is_ok_and(|stored| stored.bytes == id(**key).bytes));
            let Some(key) = key else { continue };
            if matches!(key, Key::Known(..)) {
                self.known.insert(*key, ());
            }
            recalled.insert(*key, Bucket::read(document).unwrap_or_default());
        }
        Ok(recalled)
    }

    async fn count(&self, key: Key, now: i64) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let found = self.collection.find_one(self.find(&[key])?).await?;
            let before = found.as_deref().and_then(Bucket::read);
            let mut bucket = before.unwrap_or_default();
            bucket.count(key.limit(), now);
            let mut written = bucket.write();
            query::append(&mut written, "expires_at", DateTime::from_millis(bucket.end(key.limit())));
            let done = match before {
                None => {
                    let mut document = rawdoc! { "_id": id(key) };
                    query::elements(&written).for_each(|(name, value)| query::append(&mut document, name, value));
                    self.collection.write(self.collection.insertion(document)).await
                }
                // Matches only if no other node has changed the count in the meantime.
                Some(before) => {
                    let mut filter = rawdoc! { "_id": id(key) };
                    query::elements(&before.write()).for_each(|(name, value)| query::append(&mut filter, name, value));
                    let update = Update::parse(&rawdoc! { "$set": written })?;
                    let change = Change::Update { update, upsert: false };
                    self.collection.write(self.collection.change(Filter::parse(&filter)?, change)).await
                }
            };
            match done {
                Ok(outcome) if before.is_none() || outcome.matched > 0 => return Ok(()),
                Ok(_) | Err(store::Error::DuplicateKey { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Concurrent requests keep changing the count, so it grows even without this failure.
        Ok(())
    }

    async fn note_known(&self, key: Key, now: i64) -> Result<()> {
        if self.known.get(&key).is_some() {
            return Ok(());
        }
        let update = Update::parse(&rawdoc! { "$set": { "expires_at": DateTime::from_millis(now + KNOWN_FOR) } })?;
        let note = self.collection.change(of_key(key), Change::Update { update, upsert: true });
        match self.collection.write(note).await {
            // If two requests insert the same log-in concurrently, one insert is enough.
            Ok(_) | Err(store::Error::DuplicateKey { .. }) => {
                self.known.insert(key, ());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn of_key(key: Key) -> Filter {
    Filter::equals("_id", RawBson::Binary(id(key)))
}

/// Returns a key's `_id` in the store: a digest that reveals neither the account nor the network.
fn id(key: Key) -> Binary {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let (kind, account, place) = key.parts();
    context.update(kind.as_bytes());
    context.update(account.as_ref().map_or(&[], |account| &account[..]));
    context.update(place.map(|place| place.0.to_string()).unwrap_or_default().as_bytes());
    Binary { subtype: BinarySubtype::Generic, bytes: context.finish().as_ref().to_vec() }
}

fn lock(bucket: &Mutex<Bucket>) -> std::sync::MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}
