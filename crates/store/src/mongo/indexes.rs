//! Indexes and collections.

use std::time::Duration;

use bson::{
    raw::{RawArrayBuf, RawBsonRef, RawDocument},
    rawdoc,
};
use futures_util::StreamExt;

use super::{MongoStore, errors};
use crate::{Error, Index, Namespace, Result, names};

/// Server error: the collection, or its database, does not exist.
pub(super) const NAMESPACE_NOT_FOUND: i32 = 26;

/// Server error: the collection exists already.
pub(super) const NAMESPACE_EXISTS: i32 = 48;

/// Server errors: another client is building the index, or has aborted the build.
const IN_PROGRESS: [i32; 3] = [errors::WRITE_CONFLICT, 117, 276];

/// The maximum number of attempts of an idempotent command.
const ATTEMPTS: usize = 5;

/// The server's own databases.
const OF_THE_SERVER: [&str; 3] = ["admin", "config", "local"];

impl MongoStore {
    /// Creates indexes, all or none. Indexes that exist are left as they are, and several nodes
    /// may call this at once.
    pub(super) async fn create_indexes(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        if indexes.is_empty() {
            return self.create_collection(namespace).await;
        }
        let mut specifications = RawArrayBuf::new();
        for index in indexes {
            let mut specification = index.to_document();
            if self.is_simple(None) {
                // Without a simple collation, an index of a collection with a collation does not
                // support the backend's queries.
                query::append(&mut specification, "collation", &*rawdoc! { "locale": "simple" });
            }
            specifications.push(specification);
        }
        let command = rawdoc! {
            "createIndexes": &*namespace.collection,
            "indexes": specifications,
            "writeConcern": { "w": "majority" },
        };
        let database = self.client().await?.database(&namespace.database);
        let mut attempt = 1;
        loop {
            let create = database.run_raw_command(command.clone());
            match self.shared.within(false, async { create.await }).await {
                Err(Error::Unavailable { .. }) if attempt < ATTEMPTS => attempt += 1,
                // Another node is creating the same indexes.
                Err(Error::Query(error)) if attempt < ATTEMPTS && IN_PROGRESS.contains(&error.number()) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    attempt += 1;
                }
                answer => return answer.map(|_| ()),
            }
        }
    }

    /// Creates a collection if it does not exist.
    async fn create_collection(&self, namespace: &Namespace) -> Result<()> {
        let database = self.client().await?.database(&namespace.database);
        let create = rawdoc! { "create": &*namespace.collection };
        match self.shared.within(false, async { database.run_raw_command(create).await }).await {
            Err(Error::Query(error)) if error.number() == NAMESPACE_EXISTS => Ok(()),
            made => made.map(|_| ()),
        }
    }

    /// Returns the indexes of a collection, except the one on `_id`. Passes each index of a kind
    /// that Userkeep does not support to `odd`, with the reason. Returns `None` if the collection
    /// does not exist.
    pub(super) async fn list_indexes(
        &self,
        namespace: &Namespace,
        odd: &mut (dyn FnMut(&RawDocument, Error) + Send),
    ) -> Result<Option<Vec<Index>>> {
        let collection = self.collection(namespace).await?;
        let list = async {
            let mut batches = match collection.list_indexes().max_time(self.shared.timeout).batch().await {
                Err(error) if errors::code(&error) == Some(NAMESPACE_NOT_FOUND) => return Ok(None),
                batches => batches?,
            };
            let mut indexes = Vec::new();
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                for item in batch.doc_slices()? {
                    let RawBsonRef::Document(specification) = item? else { continue };
                    if specification.get_str("name").is_ok_and(|name| name == "_id_") {
                        continue;
                    }
                    match Index::parse(specification) {
                        Ok(index) => indexes.push(index),
                        Err(error) => odd(specification, error),
                    }
                }
            }
            Ok(Some(indexes))
        };
        self.shared.within(false, list).await
    }

    /// Drops an index by its name.
    pub(super) async fn remove_index(&self, namespace: &Namespace, name: &str) -> Result<()> {
        let collection = self.collection(namespace).await?;
        self.shared.within(true, async { collection.drop_index(name).await }).await
    }

    /// Returns the names of all databases.
    pub(super) async fn list_databases(&self) -> Result<Vec<String>> {
        let client = self.client().await?;
        self.shared.within(false, async { client.list_database_names().await }).await
    }

    /// Returns all collections except those of the server, sorted by database and name.
    pub(super) async fn list_collections(&self) -> Result<Vec<Namespace>> {
        let client = self.client().await?;
        let databases = self.list_databases().await?;
        let mut namespaces = Vec::new();
        for database in databases.into_iter().filter(|database| !OF_THE_SERVER.contains(&&**database)) {
            let list = async { client.database(&database).list_collection_names().await };
            let names = self.shared.within(false, list).await?;
            let names = names.into_iter().filter(|name| !names::is_of_the_server(name));
            namespaces.extend(names.map(|name| Namespace::new(&database, &name)));
        }
        namespaces.sort_by(|one, other| (&one.database, &one.collection).cmp(&(&other.database, &other.collection)));
        Ok(namespaces)
    }
}
