//! The catalog of collections and indexes, and their tables. Each has its own table, so SQLite's
//! `schema_version` shows whether the cached catalog is still complete, whichever process changed
//! it.

use std::{collections::HashMap, sync::Arc};

use bson::raw::RawDocument;
use rusqlite::Connection;

use super::Settings;
use crate::{Error, Index, Namespace, Result, names};

pub(super) struct Catalog {
    settings: Settings,
    version: Option<i64>,
    collections: HashMap<Namespace, Arc<Collection>>,
}

#[derive(Debug, Clone)]
pub(super) struct Collection {
    pub(super) namespace: Namespace,
    /// 0 for a collection that does not exist yet.
    pub(super) id: i64,
    pub(super) indexes: Vec<HeldIndex>,
    /// True if the changes of the collection are recorded.
    pub(super) is_watched: bool,
}

#[derive(Debug, Clone)]
pub(super) struct HeldIndex {
    pub(super) id: i64,
    pub(super) index: Index,
    /// True if the index holds, or has ever held, several keys of one document because of an
    /// array.
    pub(super) is_multikey: bool,
}

impl Collection {
    /// Returns a collection that does not exist yet.
    pub(super) fn missing(namespace: &Namespace, is_watched: bool) -> Self {
        Self { namespace: namespace.clone(), id: 0, indexes: Vec::new(), is_watched }
    }

    /// True if the collection has a table.
    pub(super) fn exists(&self) -> bool {
        self.id != 0
    }
}

impl Catalog {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, version: None, collections: HashMap::new() }
    }

    pub(super) fn refresh(&mut self, connection: &Connection) -> Result<()> {
        let version: i64 = connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        if self.version == Some(version) {
            return Ok(());
        }
        self.collections.clear();
        let mut indexes: HashMap<i64, Vec<HeldIndex>> = HashMap::new();
        let mut statement = connection.prepare_cached(
            "SELECT collection, id, specification,
                 EXISTS (SELECT 1 FROM sqlite_schema AS flag WHERE flag.name = 'multikey_' || indexes.id)
             FROM indexes ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(1)?;
            let damaged = |what: &dyn std::fmt::Display| Error::Engine(format!("the index {id} is damaged: {what}"));
            let specification: Vec<u8> = row.get(2)?;
            let specification = RawDocument::from_bytes(&specification).map_err(|error| damaged(&error))?;
            let index = Index::parse(specification).map_err(|error| damaged(&error))?;
            indexes.entry(row.get(0)?).or_default().push(HeldIndex { id, index, is_multikey: row.get(3)? });
        }
        let mut statement = connection.prepare_cached("SELECT id, database, name FROM collections")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let namespace = Namespace::new(&row.get::<_, String>(1)?, &row.get::<_, String>(2)?);
            let collection = Collection {
                namespace: namespace.clone(),
                id,
                indexes: indexes.remove(&id).unwrap_or_default(),
                is_watched: self.settings.keeps_changes_of(&namespace),
            };
            self.collections.insert(namespace, Arc::new(collection));
        }
        self.version = Some(version);
        Ok(())
    }

    /// Clears the cache, after the rollback of a transaction that created tables.
    pub(super) fn forget(&mut self) {
        self.version = None;
        self.collections.clear();
    }

    /// Returns a collection for a read of few documents, perhaps with outdated indexes. The table
    /// of a collection is never dropped, and a read by a dropped index fails and is repeated.
    pub(super) fn known(&mut self, connection: &Connection, namespace: &Namespace) -> Result<Option<Arc<Collection>>> {
        if !self.collections.contains_key(namespace) {
            self.refresh(connection)?;
        }
        Ok(self.collection(namespace))
    }

    /// Returns the prefix of the backend's own databases.
    pub(super) fn own(&self) -> Option<&'static str> {
        self.settings.unwatched
    }

    pub(super) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.collections.values().map(|collection| &**collection)
    }

    pub(super) fn all(&self) -> Vec<Arc<Collection>> {
        self.collections.values().cloned().collect()
    }

    pub(super) fn collection(&self, namespace: &Namespace) -> Option<Arc<Collection>> {
        self.collections.get(namespace).cloned()
    }

    /// Returns a collection, and creates it if it does not exist. Only within a write transaction.
    pub(super) fn make_collection(
        &mut self,
        connection: &Connection,
        namespace: &Namespace,
    ) -> Result<Arc<Collection>> {
        if !self.collections.contains_key(namespace) {
            self.check_name(namespace)?;
        }
        self.adopt_collection(connection, namespace)
    }

    /// Creates a collection if it does not exist, even if MongoDB rejects its name. Only within a
    /// write transaction.
    pub(super) fn adopt_collection(
        &mut self,
        connection: &Connection,
        namespace: &Namespace,
    ) -> Result<Arc<Collection>> {
        if let Some(collection) = self.collection(namespace) {
            return Ok(collection);
        }
        connection.execute(
            "INSERT INTO collections (database, name) VALUES (?1, ?2)",
            [&*namespace.database, &*namespace.collection],
        )?;
        let id = connection.last_insert_rowid();
        connection.execute_batch(&format!(
            "CREATE TABLE documents_{id} (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, body BLOB NOT NULL) STRICT"
        ))?;
        self.refresh_after_change(connection, namespace)
    }

    /// Checks that MongoDB accepts the name of a collection beside the existing ones. The
    /// backend's own databases are exempt: they are named after their apps, whose ids may be any
    /// text.
    ///
    /// # Errors
    /// `InvalidNamespace` (73), or `DatabaseDifferCase` (13297) if the name of another database
    /// differs in case only.
    pub(super) fn check_name(&self, namespace: &Namespace) -> Result<()> {
        if !self.settings.keeps_changes_of(namespace) {
            return Ok(());
        }
        namespace.check()?;
        let database = &*namespace.database;
        let mut others = self.collections.keys().map(|namespace| &*namespace.database);
        match others.find(|other| names::differ_in_case(other, database)) {
            None => Ok(()),
            Some(other) => {
                let message = format!(
                    "db already exists with different case already have: [{other}] trying to create [{database}]"
                );
                Err(query::Error { code: query::ErrorCode::DatabaseDifferCase, message }.into())
            }
        }
    }

    /// Creates an index without entries. Only within a write transaction.
    pub(super) fn make_index(
        &mut self,
        connection: &Connection,
        collection: &Collection,
        index: &Index,
    ) -> Result<(Arc<Collection>, HeldIndex)> {
        connection.execute(
            "INSERT INTO indexes (collection, name, specification) VALUES (?1, ?2, ?3)",
            rusqlite::params![collection.id, index.name, index.to_document().as_bytes()],
        )?;
        let id = connection.last_insert_rowid();
        connection.execute_batch(&format!("CREATE TABLE entries_{id} (key BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) STRICT, WITHOUT ROWID"))?;
        let collection = self.refresh_after_change(connection, &collection.namespace)?;
        Ok((collection, HeldIndex { id, index: index.clone(), is_multikey: false }))
    }

    /// Marks an index as multikey. The mark is a table, so that every process notices it as it
    /// notices a new index. Only within a write transaction.
    pub(super) fn mark_multikey(connection: &Connection, held: &HeldIndex) -> Result<()> {
        connection.execute_batch(&format!("CREATE TABLE IF NOT EXISTS multikey_{} (flag ANY) STRICT", held.id))?;
        Ok(())
    }

    /// Removes an index with its entries. Only within a write transaction.
    pub(super) fn drop_index(
        &mut self,
        connection: &Connection,
        namespace: &Namespace,
        held: &HeldIndex,
    ) -> Result<()> {
        let id = held.id;
        connection.execute("DELETE FROM indexes WHERE id = ?1", [id])?;
        connection.execute_batch(&format!("DROP TABLE entries_{id}; DROP TABLE IF EXISTS multikey_{id};"))?;
        self.refresh_after_change(connection, namespace).map(|_| ())
    }

    fn refresh_after_change(&mut self, connection: &Connection, namespace: &Namespace) -> Result<Arc<Collection>> {
        self.refresh(connection)?;
        self.collection(namespace)
            .ok_or_else(|| crate::Error::Engine(format!("the collection {namespace} was not created")))
    }
}
