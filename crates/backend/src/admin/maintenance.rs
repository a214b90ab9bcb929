//! Maintenance of a store: backups, dumps, migrations, checks.

use std::path::{Path, PathBuf};

use bson::{RawBson, raw::RawArrayBuf, rawdoc};
use store::{Namespace, Store, dump, migrate as migration};

use super::copied;
use crate::{
    Error, ErrorCode, Progress, Result, StoreAddress,
    auth::KEYS_COLLECTION,
    context::{Context, database_of},
    open_store,
};

/// The error of a maintenance task. Its message is for the operator.
fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InternalServerError, error.to_string())
}

async fn has_keys(store: &dyn Store, database: &str) -> Result<bool, store::Error> {
    Ok(!store.page(Namespace::new(database, KEYS_COLLECTION), None).await?.documents.is_empty())
}

/// Checks that the store contains keys of the app. Only reads the store, so that a misspelled id
/// does not create an app.
pub(super) async fn stored_apps(context: &Context) -> Result<RawBson> {
    let store = &**context.main_store();
    let is_stored = has_keys(store, &database_of(&context.app_id)).await.map_err(failed)?;
    let mut others = RawArrayBuf::new();
    if !is_stored {
        // The MongoDB user may lack the privilege to list databases.
        for namespace in store.collections().await.unwrap_or_default() {
            if &*namespace.collection == KEYS_COLLECTION
                && let Some(id) = namespace.database.strip_prefix(&database_of(""))
                && has_keys(store, &namespace.database).await.unwrap_or(false)
            {
                others.push(id);
            }
        }
    }
    Ok(RawBson::Document(rawdoc! { "isStored": is_stored, "others": others }))
}

pub(super) async fn backup(context: &Context, file: PathBuf, progress: &Progress) -> Result<RawBson> {
    let store = context.main_store();
    let Some(maintenance) = store.maintenance() else { return Err(failed(store.maintenance_advice().backup)) };
    maintenance.backup(file, progress.clone()).await.map_err(failed)?;
    Ok(RawBson::Null)
}

pub(super) async fn export(context: &Context, directory: &Path, progress: &Progress) -> Result<RawBson> {
    let count = dump::export(&**context.main_store(), directory, progress).await.map_err(failed)?;
    Ok(RawBson::Int64(count.cast_signed()))
}

pub(super) async fn import(
    context: &Context,
    directory: &Path,
    ignore_indexes: bool,
    progress: &Progress,
) -> Result<RawBson> {
    let import = dump::Import::open(directory, ignore_indexes).map_err(failed)?;
    let imported = import.run(&**context.main_store(), progress).await.map_err(failed)?;
    Ok(RawBson::Document(copied(imported.written, imported.unchanged, &import.reported)))
}

pub(super) async fn migrate(
    context: &Context,
    to: &StoreAddress,
    databases: Vec<String>,
    ignore_indexes: bool,
    progress: &Progress,
) -> Result<RawBson> {
    let to = open_store(to).map_err(failed)?;
    let selection = migration::Selection { databases, ignore_indexes };
    let migrated = migration::migrate(&**context.main_store(), &*to, &selection, progress).await;
    to.close().await;
    let migrated = migrated.map_err(failed)?;
    let mut done = rawdoc! { "collections": migrated.collections.cast_signed() };
    let documents = copied(migrated.documents.written, migrated.documents.unchanged, &migrated.reported);
    query::elements(&documents).for_each(|(name, value)| query::append(&mut done, name, value));
    Ok(RawBson::Document(done))
}

pub(super) async fn check(context: &Context, repair: bool, progress: &Progress) -> Result<RawBson> {
    let store = context.main_store();
    let Some(maintenance) = store.maintenance() else { return Err(failed(store.maintenance_advice().check)) };
    let findings = maintenance.check(repair, progress.clone()).await.map_err(failed)?;
    let mut all = RawArrayBuf::new();
    for finding in findings {
        all.push(rawdoc! { "what": finding.what.as_str(), "isOfIndex": finding.is_of_index });
    }
    Ok(RawBson::Array(all))
}
