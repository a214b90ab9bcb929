//! From one store to another: documents, to the byte, and indexes.

use aws_lc_rs::digest::{SHA256, digest};
use bson::{RawBson, raw::RawDocumentBuf};

use crate::{
    Error, Index, Namespace, Progress, Result, Store,
    insert_missing::{Imported, insert_missing},
};

/// What a migration carries over.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of these databases alone; of all, if there is none.
    pub databases: Vec<String>,
    /// Leaves out indexes of kinds that Userkeep does not have; else they are an error.
    pub ignore_indexes: bool,
}

/// What a migration has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// How many collections there are.
    pub collections: u64,
    /// The documents that were written, and those that were there from an earlier attempt.
    pub documents: Imported,
    /// What was not carried over, and why.
    pub reported: Vec<String>,
}

/// How many documents there are, and a number that two collections share only if they have the same documents, in whatever
/// order: the sum of what SHA-256 makes of each.
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

/// Carries collections from one store to another, where all of them are compared afterwards. Documents that are there already, the same
/// to the byte, are left as they are, so that what was interrupted can be begun again. Nobody else should write to either meanwhile.
///
/// # Errors
/// Where the other store has another document of an `_id`, or documents of its own in one of the collections; where an index cannot
/// be made; where what has arrived is not what was sent.
pub async fn migrate(from: &dyn Store, to: &dyn Store, selection: &Selection, progress: &Progress) -> Result<Migrated> {
    let mut migrated = Migrated::default();
    let is_selected = |namespace: &Namespace| {
        selection.databases.is_empty() || selection.databases.iter().any(|name| **name == *namespace.database)
    };
    let namespaces: Vec<_> = from.collections().await?.into_iter().filter(is_selected).collect();
    for database in &selection.databases {
        if !namespaces.iter().any(|namespace| *namespace.database == **database) {
            return Err(Error::Migration { reason: format!("there is no database '{database}' to be carried over") });
        }
    }
    // All that can be told beforehand, before anything is written.
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
        let sum = copy_documents(from, to, namespace, progress, &mut migrated.documents).await?;
        compare(to, namespace, sum, progress).await?;
    }
    // Only now, since some of them let documents expire.
    for (namespace, indexes) in &plans {
        make_indexes(to, namespace, indexes, progress).await?;
        migrated.collections += 1;
    }
    Ok(migrated)
}

/// The pages of a collection, one after the other.
struct Pages<'a> {
    store: &'a dyn Store,
    namespace: &'a Namespace,
    /// What is done with them, and how far that is.
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
        format!("{namespace}: what has arrived is not what was sent; was it written to meanwhile?")
    } else {
        format!(
            "{namespace}: {} documents were sent and {} are there; was one of the stores written to, or had the other one documents before?",
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
            Err(Error::Migration { reason: format!("{namespace}: the index {} is another one there", index.name) })
        }
    }
}
