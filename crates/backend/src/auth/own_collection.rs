//! A collection of the backend's own database.

use std::sync::Arc;

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawBsonRef, RawDocumentBuf},
};
use query::{Budget, Filter};
use store::{Change, Find, Index, Modify, Namespace, Operation, Outcome, Result, Store, Write};

/// A collection of the backend's own database, with the operations that the backend's modules
/// need.
#[derive(Debug, Clone)]
pub(crate) struct OwnCollection {
    store: Arc<dyn Store>,
    namespace: Namespace,
}

impl OwnCollection {
    pub(crate) fn new(store: Arc<dyn Store>, database: &str, collection: &str) -> Self {
        Self { store, namespace: Namespace::new(database, collection) }
    }

    /// The store that holds the collection.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) async fn ensure_indexes(&self, indexes: Vec<Index>) -> Result<()> {
        self.store.ensure_indexes(self.namespace.clone(), indexes).await
    }

    /// Returns a query of the collection.
    pub(crate) fn query(&self, filter: Filter) -> Find {
        Find::new(self.namespace.clone(), filter)
    }

    /// Returns a query for one document.
    pub(crate) fn query_one(&self, filter: Filter) -> Find {
        Find { limit: Some(1), ..self.query(filter) }
    }

    /// Returns the first document that a query finds.
    pub(crate) async fn find_one(&self, find: Find) -> Result<Option<RawDocumentBuf>> {
        Ok(self.store.find(find).await?.into_iter().next())
    }

    /// Returns the write that inserts a document.
    pub(crate) fn insertion(&self, document: RawDocumentBuf) -> Write {
        Write::new(self.namespace.clone(), Operation::Insert(vec![document]))
    }

    /// Returns the write that inserts documents.
    pub(crate) fn insertion_of_all(&self, documents: Vec<RawDocumentBuf>) -> Write {
        Write::new(self.namespace.clone(), Operation::Insert(documents))
    }

    /// Returns the write that changes one document.
    pub(crate) fn change(&self, filter: Filter, change: Change) -> Write {
        Write::new(self.namespace.clone(), Operation::modify(Modify::new(filter, false, change)))
    }

    /// Returns the write that deletes every document that the filter matches.
    pub(crate) fn deletion_of_all(&self, filter: Filter) -> Write {
        Write::new(self.namespace.clone(), Operation::modify(Modify::new(filter, true, Change::Delete)))
    }

    /// Carries out one write.
    pub(crate) async fn write(&self, write: Write) -> Result<Outcome> {
        Ok(self.store.write(vec![write]).await?.pop().unwrap_or_default())
    }

    /// Returns the budget of an operation for a user, who gets a fair share of the connections to
    /// a remote store. An embedded store has no connections to share.
    pub(crate) fn budget_of(&self, user_id: ObjectId) -> Budget {
        if self.store.is_remote() { Budget::unlimited(Some(user_id.to_hex().into())) } else { Budget::default() }
    }
}

/// Returns the filter for the document with an `_id`.
pub(crate) fn by_id<'a>(id: impl Into<RawBsonRef<'a>>) -> Filter {
    Filter::equals("_id", RawBson::from(id.into()))
}
