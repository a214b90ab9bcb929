//! Custom user data: one document per user
//! (<https://www.mongodb.com/docs/atlas/app-services/users/custom-metadata/>).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use futures_util::future::try_join;
use query::{Budget, Filter, Path, PathFilter, Predicate, TypeSet};
use serde_json::value::RawValue;
use store::{Find, Index, Store};

use crate::{DeclaredQuery, Error, Result, definition, ejson::Canonical, stores::Stores};

/// The maximum size of custom data in an access token, in bytes of its JSON. Larger data is
/// omitted, because tokens are sent in HTTP headers.
const TOKEN_LIMIT: usize = 16 * 1024;

pub(crate) struct CustomData {
    store: Arc<dyn Store>,
    configuration: Option<definition::CustomUserData>,
    /// The number of tokens without custom data because it was too large.
    left_out: Arc<AtomicU64>,
    in_use: InUse,
}

/// The large documents that running requests use. Concurrent requests of one user share one copy.
#[derive(Default)]
struct InUse(Mutex<HashMap<ObjectId, Weak<RawDocumentBuf>>>);

impl InUse {
    /// Returns the document itself, or an equal copy that another request uses.
    fn share(&self, user_id: ObjectId, read: RawDocumentBuf) -> Arc<RawDocumentBuf> {
        if read.as_bytes().len() <= TOKEN_LIMIT {
            return Arc::new(read);
        }
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = lock().get(&user_id).and_then(Weak::upgrade);
        // Outside the lock, because the comparison may take some milliseconds.
        if let Some(held) = held.filter(|held| **held == read) {
            return held;
        }
        let mut in_use = lock();
        // Only when the map is full, so that the cost is amortized.
        if in_use.len() == in_use.capacity() {
            in_use.retain(|_, held| held.strong_count() > 0);
        }
        let shared = Arc::new(read);
        in_use.insert(user_id, Arc::downgrade(&shared));
        shared
    }
}

impl CustomData {
    pub(crate) fn new(stores: &Stores, configuration: Option<definition::CustomUserData>) -> Self {
        let service = configuration.as_ref().map(|configuration| configuration.service.as_str());
        let store = Arc::clone(service.map_or(stores.main(), |service| stores.of(service)));
        let store = store.for_backend().unwrap_or(store);
        Self { store, configuration, left_out: Arc::default(), in_use: InUse::default() }
    }

    /// Returns the same with another configuration. The counter goes on.
    pub(crate) fn with_configuration(
        &self,
        stores: &Stores,
        configuration: Option<definition::CustomUserData>,
    ) -> Self {
        Self { left_out: Arc::clone(&self.left_out), ..Self::new(stores, configuration) }
    }

    /// Creates an index on the user id field unless one exists. `is_insertable` returns true if a
    /// role lets users insert such documents.
    pub(crate) async fn prepare(&self, is_insertable: impl Fn(&definition::CustomUserData) -> bool) -> Result<()> {
        let Some(configuration) = &self.configuration else { return Ok(()) };
        self.warn_of_doubles(configuration, is_insertable(configuration)).await?;
        let (namespace, field) = (&configuration.namespace, configuration.user_id_field.as_str());
        match self.make_index(configuration).await {
            // A conflict with another index does not prevent log-ins, and the operator must
            // resolve it. An unavailable store does prevent them.
            Err(
                error @ (store::Error::Query(_)
                | store::Error::DuplicateKey { .. }
                | store::Error::Engine(_)
                | store::Error::Sqlite(_)),
            ) => {
                tracing::warn!(%namespace, field, %error, "the user id field of the custom user data has no index, and none can be created: each log-in reads the whole collection");
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// Warns if a user may take over another user's custom data by inserting a document with the
    /// other's id. Only a unique index prevents it. An upsert can do the same.
    async fn warn_of_doubles(&self, configuration: &definition::CustomUserData, is_insertable: bool) -> Result<()> {
        let held = self.store.indexes(configuration.namespace.clone()).await?.unwrap_or_default();
        let is_unique = |index: &Index| {
            let fields = index.keys.fields();
            index.unique && index.partial.is_none() && fields.len() == 1 && fields[0].0 == configuration.user_id_field
        };
        if is_insertable && !held.iter().any(is_unique) {
            let (namespace, field) = (&configuration.namespace, configuration.user_id_field.as_str());
            tracing::warn!(%namespace, field, "a role lets users insert custom user data, and the user id field has no unique index: one user id may have several documents, of which only the first inserted is used. Add a unique index in indexes.json");
        }
        Ok(())
    }

    async fn make_index(&self, configuration: &definition::CustomUserData) -> store::Result<()> {
        // Any non-partial index of the operator that starts with the field is sufficient.
        let held = self.store.indexes(configuration.namespace.clone()).await?.unwrap_or_default();
        let is_of_field = |index: &Index| {
            index.partial.is_none()
                && index.keys.fields().first().is_some_and(|(path, _)| *path == configuration.user_id_field)
        };
        if held.iter().any(is_of_field) {
            return Ok(());
        }
        let index = Index::on(configuration.user_id_field.clone());
        self.store.ensure_indexes(configuration.namespace.clone(), vec![index]).await
    }

    /// Returns a user's current document: the first inserted one with the user's id as a string,
    /// or else as an ObjectId. A document that contains the id in an array belongs to no user.
    pub(crate) async fn of(&self, user_id: ObjectId) -> Result<Option<Arc<RawDocumentBuf>>> {
        match self.by_id(RawBson::String(user_id.to_hex()), user_id).await? {
            None => self.by_id(RawBson::ObjectId(user_id), user_id).await,
            found => Ok(found),
        }
    }

    /// Does the same as [`Self::of`] in one round trip to a remote store, always with two queries.
    pub(crate) async fn of_at_once(&self, user_id: ObjectId) -> Result<Option<Arc<RawDocumentBuf>>> {
        let by_text = self.by_id(RawBson::String(user_id.to_hex()), user_id);
        let (by_text, by_object_id) = try_join(by_text, self.by_id(RawBson::ObjectId(user_id), user_id)).await?;
        Ok(by_text.or(by_object_id))
    }

    /// Returns the first document that has the user's id in the given form.
    async fn by_id(&self, id: RawBson, user_id: ObjectId) -> Result<Option<Arc<RawDocumentBuf>>> {
        let Some(configuration) = &self.configuration else { return Ok(None) };
        // A large document counts towards the user's share of the connections.
        let budget = Budget::unlimited(Some(user_id.to_hex().into()));
        let found = self.store.find(Find { budget, ..find_of(configuration, id.clone()) }).await?;
        let is_own = |document: &RawDocumentBuf| {
            let held = configuration.user_id_field.value_in(document);
            held.is_some_and(|held| !matches!(held, RawBsonRef::Array(_)) && query::equal(held, id.as_raw_bson_ref()))
        };
        Ok(found.into_iter().find(is_own).map(|document| self.in_use.share(user_id, document)))
    }

    /// Returns the query for custom data with its index, and its store.
    pub(crate) fn declared(&self) -> Option<(DeclaredQuery, Arc<dyn Store>)> {
        let configuration = self.configuration.as_ref()?;
        let find = find_of(configuration, RawBson::String("placeholder".to_owned()));
        let index = Index::on(configuration.user_id_field.clone()).name;
        Some((DeclaredQuery::new("the custom data of a user", find, index), Arc::clone(&self.store)))
    }

    /// Returns the number of tokens since the start that were issued without custom data because
    /// it was too large.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Returns the `user_data` claim in canonical Extended JSON, which all clients can read, or
    /// `None` if it is too large.
    pub(crate) fn claim(&self, user_id: ObjectId, document: &RawDocument) -> Result<Option<Box<RawValue>>> {
        // BSON is rarely longer than its JSON, so the size of the BSON rejects most large
        // documents without a conversion.
        let mut size = document.as_bytes().len();
        if size <= TOKEN_LIMIT {
            let claim = Canonical(RawBsonRef::Document(document));
            let claim = serde_json::value::to_raw_value(&claim).map_err(Error::internal)?;
            size = claim.get().len();
            if size <= TOKEN_LIMIT {
                return Ok(Some(claim));
            }
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(user = %user_id, size, limit = TOKEN_LIMIT, "the custom data does not fit into the access token and is left out");
        Ok(None)
    }
}

/// Returns the query for the first document whose field has the user's id as its value. The store
/// excludes documents that contain the id in an array, so that no user can make another user's
/// log-in read many documents.
fn find_of(configuration: &definition::CustomUserData, id: RawBson) -> Find {
    let field = configuration.user_id_field.as_str();
    let listed = Filter::Path(PathFilter { path: Path::new(field), predicate: Predicate::Type(TypeSet::of_arrays()) });
    let filter = Filter::And(vec![Filter::equals(field, id), Filter::Not(Box::new(listed))]);
    Find { limit: Some(1), ..Find::new(configuration.namespace.clone(), filter) }
}
