//! Checks a file: for damage, documents that are not valid BSON, indexes that disagree with the
//! documents, and changes that disagree with the documents.

use std::collections::HashMap;

use bson::raw::RawDocument;
use query::{encode_key, get, validate_form};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    catalog::{Catalog, Collection, HeldIndex},
    changes,
    connection::StoreConnection,
    read::text,
    write,
};
use crate::{ChangeKind, Error, Finding, Progress, Result, names};

/// The maximum number of reported findings of one kind.
const TOLD: usize = 20;

/// The number of documents between two updates of the progress.
const STEP: u64 = 256;

struct Findings {
    all: Vec<Finding>,
    /// The number of findings of the current kind.
    here: usize,
}

impl Findings {
    fn begin(&mut self) {
        self.here = 0;
    }

    fn add(&mut self, is_of_index: bool, what: impl FnOnce() -> String) {
        self.here += 1;
        if self.here <= TOLD {
            self.all.push(Finding { what: what(), is_of_index });
        } else if self.here == TOLD + 1 {
            self.all.push(Finding { what: "further findings of this kind are not listed".into(), is_of_index });
        }
    }
}

/// Checks everything, on one snapshot.
pub(super) fn check(session: &mut StoreConnection, progress: &Progress) -> Result<Vec<Finding>> {
    session.at_one_moment(|session| {
        let mut findings = Findings { all: Vec::new(), here: 0 };
        progress.begin("file", 0);
        check_file(&session.connection, &mut findings)?;
        if !findings.all.is_empty() {
            // Further checks of a damaged file reveal nothing more.
            return Ok(findings.all);
        }
        session.catalog.refresh(&session.connection)?;
        let mut collections: Vec<&Collection> = session.catalog.collections().collect();
        collections.sort_by_key(|collection| collection.id);
        check_names(&session.catalog, &collections, &mut findings);
        for collection in &collections {
            progress.begin(collection.namespace.to_string(), last_seq(&session.connection, collection)?);
            check_documents(&session.connection, collection, progress, &mut findings)?;
            for held in &collection.indexes {
                let stage = format!("{} index {}", collection.namespace, held.index.name);
                progress.begin(stage, last_seq(&session.connection, collection)?);
                check_index(&session.connection, collection, held, progress, &mut findings)?;
            }
        }
        check_changes(&session.connection, &collections, progress, &mut findings)?;
        Ok(findings.all)
    })
}

/// Reports names that MongoDB does not accept: the collections cannot be migrated there. An
/// earlier version accepted such names, and the ids of apps may be any text.
fn check_names(catalog: &Catalog, collections: &[&Collection], findings: &mut Findings) {
    findings.begin();
    let namespaces: Vec<_> = collections.iter().map(|collection| &collection.namespace).collect();
    for refused in names::refused(&namespaces, &[], catalog.own()) {
        findings.add(false, || refused.clone());
    }
}

fn check_file(connection: &Connection, findings: &mut Findings) -> Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            findings.add(false, || format!("the file is damaged: {line}"));
        }
    }
    Ok(())
}

fn last_seq(connection: &Connection, collection: &Collection) -> Result<u64> {
    let sql = format!("SELECT max(seq) FROM documents_{}", collection.id);
    let last: Option<i64> = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok(last.unwrap_or(0).unsigned_abs())
}

/// Visits the documents of a collection; those that are not valid BSON as `None`.
fn each_document(
    connection: &Connection,
    collection: &Collection,
    progress: &Progress,
    mut visit: impl FnMut(i64, &[u8], Option<&RawDocument>) -> Result<()>,
) -> Result<()> {
    let mut statement =
        connection.prepare(&format!("SELECT seq, id, body FROM documents_{} ORDER BY seq", collection.id))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        if seq.unsigned_abs().is_multiple_of(STEP) {
            progress.reach(seq.unsigned_abs());
        }
        let blob = |at| row.get_ref(at)?.as_blob().map_err(|error| Error::Engine(error.to_string()));
        let document = RawDocument::from_bytes(blob(2)?).ok().filter(|document| validate_form(document).is_ok());
        visit(seq, blob(1)?, document)?;
    }
    Ok(())
}

fn check_documents(
    connection: &Connection,
    collection: &Collection,
    progress: &Progress,
    findings: &mut Findings,
) -> Result<()> {
    findings.begin();
    let name = &collection.namespace;
    each_document(connection, collection, progress, |seq, id, document| {
        let Some(document) = document else {
            findings.add(false, || format!("{name}: the document at {seq} is not BSON"));
            return Ok(());
        };
        match get(document, "_id") {
            Some(value) if encode_key(value) == id => {}
            other => {
                findings.add(false, || format!("{name}: the document {} is stored under another _id", text(other)));
            }
        }
        Ok(())
    })
}

fn check_index(
    connection: &Connection,
    collection: &Collection,
    held: &HeldIndex,
    progress: &Progress,
    findings: &mut Findings,
) -> Result<()> {
    findings.begin();
    let at = format!("{} index {}", collection.namespace, held.index.name);
    let mut has = connection.prepare(&format!("SELECT 1 FROM entries_{} WHERE key = ?1 AND seq = ?2", held.id))?;
    let mut expected: i64 = 0;
    let mut is_multikey = false;
    each_document(connection, collection, progress, |seq, _, document| {
        let Some(document) = document else { return Ok(()) };
        let id = || text(get(document, "_id"));
        let keys = match held.index.keys_of(document) {
            Ok(keys) => keys,
            Err(error) => {
                findings.add(true, || format!("{at}: the document {} cannot be in it: {error}", id()));
                return Ok(());
            }
        };
        is_multikey |= keys.is_multikey;
        for key in &keys.keys {
            expected += 1;
            if !has.exists(params![&*key.bytes, seq])? {
                expected -= 1;
                findings.add(true, || format!("{at}: the document {} is missing", id()));
            }
        }
        Ok(())
    })?;
    let entries: i64 =
        connection.query_row(&format!("SELECT count(*) FROM entries_{}", held.id), [], |row| row.get(0))?;
    if entries != expected {
        findings.add(true, || format!("{at}: {} of its entries point to no document", entries - expected));
    }
    if is_multikey && !held.is_multikey {
        findings.add(true, || format!("{at}: it is multikey, but not marked as such"));
    }
    if held.index.unique {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM entries_{} GROUP BY key HAVING count(DISTINCT seq) > 1)",
            held.id
        );
        let doubles: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        if doubles > 0 {
            findings.add(true, || format!("{at}: {doubles} of its keys are not unique"));
        }
    }
    Ok(())
}

/// Checks that the changes are complete and in order, and that the newest change of each document
/// agrees with the stored document.
fn check_changes(
    connection: &Connection,
    collections: &[&Collection],
    progress: &Progress,
    findings: &mut Findings,
) -> Result<()> {
    findings.begin();
    let newest = changes::newest(connection)?;
    progress.begin("changes", newest.unsigned_abs());
    let by_id: HashMap<i64, &Collection> = collections.iter().map(|collection| (collection.id, *collection)).collect();
    let mut last: HashMap<(i64, Vec<u8>), i64> = HashMap::new();
    let mut before: Option<(i64, i64, i64)> = None;
    let mut statement = connection
        .prepare("SELECT id, collection, kind, time, document, description, total FROM changes ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, time, total): (i64, i64, i64) = (row.get(0)?, row.get(3)?, row.get(6)?);
        if id.unsigned_abs().is_multiple_of(STEP) {
            progress.reach(id.unsigned_abs());
        }
        if before.is_some_and(|(before, earlier, less)| id != before + 1 || time < earlier || total <= less) {
            findings.add(false, || format!("the change {id} does not follow the one before it"));
        }
        before = Some((id, time, total));
        let Some(collection) = by_id.get(&row.get(1)?) else {
            findings.add(false, || format!("the change {id} belongs to no collection"));
            continue;
        };
        match changes::read_event(row, 0, id, &collection.namespace) {
            Ok(event) if validate_form(event.known()).is_ok() => {
                last.insert((collection.id, encode_key(event.id())), id);
            }
            _ => findings.add(false, || format!("the change {id} is damaged")),
        }
    }
    let mut change = connection.prepare("SELECT kind, document FROM changes WHERE id = ?1")?;
    for ((collection, key), id) in last {
        let (kind, told): (i64, Vec<u8>) = change.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let sql = format!("SELECT body FROM documents_{collection} WHERE id = ?1");
        let stored: Option<Vec<u8>> =
            connection.prepare_cached(&sql)?.query_row([&key], |row| row.get(0)).optional()?;
        let agrees = match changes::kind(kind) {
            Some(ChangeKind::Delete) => stored.is_none(),
            _ => stored.as_ref() == Some(&told),
        };
        if !agrees {
            findings.add(false, || format!("the change {id} disagrees with the stored document"));
        }
    }
    Ok(())
}

/// Rebuilds the entries of every index from the readable documents.
pub(super) fn repair(session: &mut StoreConnection) -> Result<()> {
    session.catalog.refresh(&session.connection)?;
    let connection = &session.connection;
    for collection in session.catalog.all() {
        for held in &collection.indexes {
            connection.execute(&format!("DELETE FROM entries_{}", held.id), [])?;
            let mut is_multikey = false;
            each_document(connection, &collection, &Progress::default(), |seq, _, document| {
                let Some(keys) = document.and_then(|document| held.index.keys_of(document).ok()) else { return Ok(()) };
                is_multikey |= keys.is_multikey;
                keys.keys.iter().try_for_each(|key| write::add_entry(connection, held, &key.bytes, seq))
            })?;
            if is_multikey {
                Catalog::mark_multikey(connection, held)?;
            }
        }
    }
    session.catalog.refresh(&session.connection)
}
