//! Migration from one store to another: copies documents byte for byte, and indexes.

use aws_lc_rs::digest::{SHA256, digest};
use bson::{RawBson, raw::RawDocumentBuf};

use crate::{
    Error, Index, Namespace, Progress, Result, Store,
    insert_missing::{Imported, insert_missing},
};

/// The scope of a migration.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The databases to migrate; empty for all.
    pub databases: Vec<String>,
    /// True to skip indexes of kinds that Userkeep does not support. By default they are an error.
    pub ignore_indexes: bool,
}

/// The result of a migration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// The number of collections.
    pub collections: u64,
    /// The documents that were written, and those that existed from an earlier attempt.
    pub documents: Imported,
    /// The skipped indexes, each with the reason.
    pub reported: Vec<String>,
}

/// A checksum of the documents of a collection, whatever their order: the sum of their SHA-256
/// digests. Two collections with equal checksums have the same documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    digests: [u64; 4],
}

impl Sum {
    fn add(&mut self, documents: &[RawDocumentBuf]) {
        for document in documents {
            let digest = digest(&SHA256, document.as_bytes());
            for (sum, part) in self.digests.iter_mut().zip(digest.as_ref().chunks_exact(8)) {
                let part = part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                *sum = sum.wrapping_add(part);
            }
            self.count += 1;
        }
    }
}

/// Copies collections from one store to another, and compares each copy with its source.
///
/// Documents that exist already, byte for byte the same, are left as they are, so an interrupted
/// migration can be repeated. No other client should write to either store meanwhile.
///
/// # Errors
/// If both are the same store. If the target does not accept the name of a collection; nothing is
/// written then. If the target has a different document with the same `_id`, or additional
/// documents in one of the collections. If an index cannot be created. If a copy differs from its
/// source.
pub async fn migrate(from: &dyn Store, to: &dyn Store, selection: &Selection, progress: &Progress) -> Result<Migrated> {
    if from.identity().is_some_and(|identity| to.identity() == Some(identity)) {
        return Err(Error::Migration { reason: "the source and the target are the same store".into() });
    }
    let mut migrated = Migrated::default();
    let is_selected = |namespace: &Namespace| {
        selection.databases.is_empty() || selection.databases.iter().any(|name| **name == *namespace.database)
    };
    let namespaces: Vec<_> = from.collections().await?.into_iter().filter(is_selected).collect();
    for database in &selection.databases {
        if !namespaces.iter().any(|namespace| *namespace.database == **database) {
            return Err(Error::Migration { reason: format!("the source has no database '{database}'") });
        }
    }
    // Finds everything that can fail beforehand, before anything is written.
    let refused = to.refused_names(namespaces.clone()).await?;
    if !refused.is_empty() {
        let reason =
            format!("the target does not accept all names, and nothing was written:\n  {}", refused.join("\n  "));
        return Err(Error::Migration { reason });
    }
    let mut plans = Vec::new();
    for namespace in namespaces {
        for (name, reason) in from.unknown_indexes(namespace.clone()).await? {
            let line = format!("{namespace}: the index {name}: {reason}");
            if !selection.ignore_indexes {
                return Err(Error::Migration { reason: line });
            }
            migrated.reported.push(line);
        }
        let indexes = from.indexes(namespace.clone()).await?.unwrap_or_default();
        plans.push((namespace, indexes));
    }
    for (namespace, _) in &plans {
        to.adopt_collections(vec![namespace.clone()]).await?;
        let sum = copy_documents(from, to, namespace, progress, &mut migrated.documents).await?;
        compare(to, namespace, sum, progress).await?;
    }
    // Indexes come last, because a TTL index could remove documents before they are compared.
    for (namespace, indexes) in &plans {
        make_indexes(to, namespace, indexes, progress).await?;
        migrated.collections += 1;
    }
    Ok(migrated)
}

/// An iterator over the pages of a collection that reports its progress.
struct Pages<'a> {
    store: &'a dyn Store,
    namespace: &'a Namespace,
    /// The name of the stage, for the progress.
    stage: &'static str,
    progress: &'a Progress,
    after: Option<RawBson>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Store, namespace: &'a Namespace, stage: &'static str, progress: &'a Progress) -> Self {
        Self { store, namespace, stage, progress, after: None, is_over: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<RawDocumentBuf>>> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.store.page(self.namespace.clone(), self.after.take()).await?;
        let (reached, total) = page.reached;
        self.progress.begin(format!("{} {}", self.stage, self.namespace), total);
        self.progress.reach(reached);
        self.is_over = page.next.is_none();
        self.after = page.next;
        Ok(Some(page.documents))
    }
}

async fn copy_documents(
    from: &dyn Store,
    to: &dyn Store,
    namespace: &Namespace,
    progress: &Progress,
    imported: &mut Imported,
) -> Result<Sum> {
    let mut sum = Sum::default();
    let mut pages = Pages::new(from, namespace, "copying", progress);
    while let Some(documents) = pages.next().await? {
        sum.add(&documents);
        if !documents.is_empty() {
            insert_missing(to, namespace, documents, imported).await?;
        }
    }
    Ok(sum)
}

async fn compare(to: &dyn Store, namespace: &Namespace, sent: Sum, progress: &Progress) -> Result<()> {
    let mut arrived = Sum::default();
    let mut pages = Pages::new(to, namespace, "comparing", progress);
    while let Some(documents) = pages.next().await? {
        arrived.add(&documents);
    }
    if arrived == sent {
        return Ok(());
    }
    let reason = if arrived.count == sent.count {
        format!(
            "{namespace}: the copied documents differ from the source; was one of the stores written to during the migration?"
        )
    } else {
        format!(
            "{namespace}: {} documents were sent and {} are there; was one of the stores written to during the migration, or did the target have documents before?",
            sent.count, arrived.count
        )
    };
    Err(Error::Migration { reason })
}

async fn make_indexes(to: &dyn Store, namespace: &Namespace, indexes: &[Index], progress: &Progress) -> Result<()> {
    progress.begin(format!("indexes of {namespace}"), 0);
    to.ensure_indexes(namespace.clone(), indexes.to_vec()).await?;
    let there = to.indexes(namespace.clone()).await?.unwrap_or_default();
    match indexes.iter().find(|index| !there.contains(index)) {
        None => Ok(()),
        Some(index) => {
            Err(Error::Migration { reason: format!("{namespace}: the index {} differs in the target", index.name) })
        }
    }
}
