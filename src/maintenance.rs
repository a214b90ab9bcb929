//! Maintenance of a store by its operator: backups, dumps, migrations, checks. All of them are
//! long, and report their progress.

use std::{path::PathBuf, sync::Arc};

use backend::{
    Namespace, Store, StoreError,
    dump::{self, Import},
    migrate,
};
use bson::{RawBson, raw::RawArrayBuf, rawdoc};
use client::Error;
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;

use crate::{
    bridge::{Bridge, Opened, Started},
    operations::{address, wrap},
};

/// The progress of a handle's current task.
#[napi(object)]
pub struct ProgressObject {
    pub stage: String,
    pub done: f64,
    pub total: f64,
}

/// Returns the progress of the task that was started last.
#[napi]
pub fn progress(bridge: &External<Bridge>, handle: u32) -> napi::Result<ProgressObject> {
    let (stage, done, total) = bridge.opened(handle)?.progress().read();
    Ok(ProgressObject { stage, done: done as f64, total: total as f64 })
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::custom(error.to_string())
}

/// Copies the store into a file.
#[napi]
pub fn backup(env: &Env, bridge: &External<Bridge>, handle: u32, file: String) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        store(&opened)?.backup(PathBuf::from(file), opened.progress().clone()).await.map_err(failed)?;
        Ok(None)
    })
}

/// Writes a dump into a directory, and returns its number of documents.
#[napi]
pub fn export_dump(env: &Env, bridge: &External<Bridge>, handle: u32, directory: String) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        let count = dump::export(&*store(&opened)?, &PathBuf::from(directory), opened.progress()).await;
        Ok(wrap(&RawBson::Int64(count.map_err(failed)?.cast_signed())))
    })
}

/// Imports a dump, and returns `{ written, unchanged, reported }`.
#[napi]
pub fn import_dump(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    directory: String,
    ignore_indexes: bool,
) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        let import = Import::open(&PathBuf::from(directory), ignore_indexes).map_err(failed)?;
        let imported = import.run(&*store(&opened)?, opened.progress()).await.map_err(failed)?;
        let mut reported = RawArrayBuf::new();
        import.reported.iter().for_each(|line| reported.push(line.as_str()));
        Ok(wrap(&RawBson::Document(rawdoc! {
            "written": imported.written.cast_signed(),
            "unchanged": imported.unchanged.cast_signed(),
            "reported": reported,
        })))
    })
}

/// Copies the contents of a store to another store, and returns `{ collections, written,
/// unchanged, reported }`.
#[napi]
pub fn migrate_store(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    to: String,
    databases: Vec<String>,
    ignore_indexes: bool,
) -> napi::Result<Started> {
    bridge.run(env, handle, false, move |opened| async move {
        let to = backend::open_store(&address(&to)).map_err(failed)?;
        let selection = migrate::Selection { databases, ignore_indexes };
        let migrated = migrate::migrate(&*store(&opened)?, &*to, &selection, opened.progress()).await;
        to.close().await;
        let migrated = migrated.map_err(failed)?;
        let mut reported = RawArrayBuf::new();
        migrated.reported.iter().for_each(|line| reported.push(line.as_str()));
        Ok(wrap(&RawBson::Document(rawdoc! {
            "collections": migrated.collections.cast_signed(),
            "written": migrated.documents.written.cast_signed(),
            "unchanged": migrated.documents.unchanged.cast_signed(),
            "reported": reported,
        })))
    })
}

/// Checks a store for damage, and returns `{ what, isOfIndex }` for each finding.
#[napi]
pub fn check_store(env: &Env, bridge: &External<Bridge>, handle: u32, repair: bool) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        let findings = store(&opened)?.check(repair, opened.progress().clone()).await.map_err(failed)?;
        let mut all = RawArrayBuf::new();
        for finding in findings {
            all.push(rawdoc! { "what": finding.what.as_str(), "isOfIndex": finding.is_of_index });
        }
        Ok(wrap(&RawBson::Array(all)))
    })
}

/// Returns `{ isStored, others }`: true if the store has keys of the app, or else the ids of the
/// apps whose keys it has. The store is only read.
#[napi]
pub fn stored_apps(env: &Env, bridge: &External<Bridge>, handle: u32) -> napi::Result<Started> {
    bridge.run(env, handle, false, |opened| async move {
        let store = store(&opened)?;
        let own = format!("{OWN_DATABASE}{}", opened.embedded()?.backend().app_id());
        let is_stored = has_keys(&*store, &own).await.map_err(failed)?;
        let mut others = RawArrayBuf::new();
        if !is_stored {
            // The user of a MongoDB store may not be allowed to list its databases.
            for namespace in store.collections().await.unwrap_or_default() {
                if &*namespace.collection == KEYS
                    && let Some(id) = namespace.database.strip_prefix(OWN_DATABASE)
                    && has_keys(&*store, &namespace.database).await.unwrap_or(false)
                {
                    others.push(id);
                }
            }
        }
        Ok(wrap(&RawBson::Document(rawdoc! { "isStored": is_stored, "others": others })))
    })
}

/// The prefix of the name of an app's own database.
const OWN_DATABASE: &str = "userkeep_";

/// The collection of an app's own database that contains its keys.
const KEYS: &str = "keys";

async fn has_keys(store: &dyn Store, database: &str) -> Result<bool, StoreError> {
    Ok(!store.page(Namespace::new(database, KEYS), None).await?.documents.is_empty())
}

fn store(opened: &Opened) -> Result<Arc<dyn backend::Store>, Error> {
    Ok(opened.embedded()?.backend().store())
}
