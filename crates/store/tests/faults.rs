//! Tests of a failing disk, a full disk and a power cut, at every disk operation of a workload.
//!
//! Every acknowledged write that the durability mode promises is stored completely, and no other
//! write is stored in part. Indexes agree with documents, and changes agree with both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "faults/vfs.rs"]
mod vfs;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bson::{doc, raw::RawDocumentBuf, rawdoc};
use query::{Filter, Update};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use store::{
    Change, Durability, Find, Index, Location, Maintenance, Modify, Namespace, Operation, Progress, Settings,
    SqliteStore, Store, SystemEnvironment, Write,
};
use vfs::{Failure, disk};

/// The simulated disk is shared by the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn pairs() -> Namespace {
    Namespace::new("app", "pairs")
}

/// The version of both documents of a pair after a write; `None` if they are deleted.
type Version = Option<i32>;

/// A write of the workload: a pair, and its version after the write.
#[derive(Debug, Clone, Copy)]
struct Step {
    pair: i32,
    version: Version,
    /// The size of the documents in bytes, so that some writes fill the log.
    size: usize,
}

/// Returns writes of documents of some hundred bytes times `scale`. At a scale of about a hundred
/// they fill the log now and then.
fn workload(scale: usize) -> Vec<Step> {
    let step = |pair, version, size| Step { pair, version, size: size * scale };
    let mut steps: Vec<Step> = (0..6).map(|pair| step(pair, Some(0), 200)).collect();
    steps.extend((0..3).map(|pair| step(pair, Some(1), 6_000)));
    steps.extend([step(1, None, 0), step(3, Some(2), 100), step(1, Some(3), 3_000), step(0, Some(4), 9_000)]);
    steps.extend((0..6).map(|pair| step(pair, Some(5), 150)));
    steps.extend([step(2, None, 0), step(4, Some(6), 100)]);
    steps
}

fn write_of(step: Step, exists: bool) -> Vec<Write> {
    let write = |operation| Write::new(pairs(), operation);
    let ids = [2 * step.pair, 2 * step.pair + 1];
    let text = "x".repeat(step.size);
    // Two writes in one transaction: each document has a key in a unique index and several keys in
    // another.
    ids.into_iter()
        .map(|id| {
            let filter = Filter::equals("_id", id);
            match step.version {
                None => write(Operation::modify(Modify::new(filter, false, Change::Delete))),
                Some(version) if exists => {
                    let set = rawdoc! { "$set": { "version": version, "unique": format!("{id}-{version}"), "tags": [version, "a"], "text": &*text } };
                    let change = Change::Update { update: Update::parse(&set).unwrap(), upsert: false };
                    write(Operation::modify(Modify::new(filter, false, change)))
                }
                Some(version) => {
                    let document = doc! { "_id": id, "version": version, "unique": format!("{id}-{version}"), "tags": [version, "a"], "text": &text };
                    write(Operation::Insert(vec![RawDocumentBuf::try_from(document).unwrap()]))
                }
            }
        })
        .collect()
}

fn indexes() -> Vec<Index> {
    let index = |index: RawDocumentBuf| Index::parse(&index).unwrap();
    vec![
        index(rawdoc! { "key": { "unique": 1 }, "unique": true }),
        index(rawdoc! { "key": { "tags": 1, "version": -1 } }),
    ]
}

/// The writes in their order: the pair, its version, and true if the write was acknowledged.
#[derive(Debug, Default, Clone)]
struct History(Vec<(i32, Version, bool)>);

impl History {
    /// True if a version is allowed: the last acknowledged one, or that of any failed write after
    /// it.
    fn allows(&self, pair: i32, found: Version) -> bool {
        let steps: Vec<_> = self.0.iter().filter(|(other, ..)| *other == pair).collect();
        let last = steps.iter().rposition(|(_, _, acknowledged)| *acknowledged);
        let rest = &steps[last.unwrap_or(0)..];
        rest.iter().any(|(_, version, _)| *version == found) || (last.is_none() && found.is_none())
    }

    fn acknowledged(&self) -> usize {
        self.0.iter().filter(|(_, _, acknowledged)| *acknowledged).count()
    }

    /// Returns the same history as if only the first `promised` writes had been acknowledged.
    fn promising(&self, mut promised: usize) -> Self {
        let steps = self.0.iter().map(|(pair, version, acknowledged)| {
            let is_promised = *acknowledged && promised > 0;
            promised -= usize::from(is_promised);
            (*pair, *version, is_promised)
        });
        Self(steps.collect())
    }
}

fn open(
    directory: &Path,
    durability: Durability,
    acknowledged: &Arc<AtomicUsize>,
    promised: &Arc<AtomicUsize>,
) -> store::Result<SqliteStore> {
    let (acknowledged, promised) = (Arc::clone(acknowledged), Arc::clone(promised));
    let sync = move |log: &Path| {
        let so_far = acknowledged.load(Ordering::SeqCst);
        disk().sync(log)?;
        promised.store(so_far, Ordering::SeqCst);
        Ok(())
    };
    let settings = Settings { durability, sync: Some(store::SyncLog::new(sync)), ..Settings::default() };
    SqliteStore::open_with(Location::File(directory.join("store.sqlite")), Arc::new(SystemEnvironment), settings)
}

/// Runs the workload as far as the disk permits. `each` is called after each step with the history
/// and the number of writes that are promised by then.
async fn run(directory: &Path, durability: Durability, scale: usize, mut each: impl FnMut(&History, usize)) -> History {
    let (acknowledged, promised) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut history = History::default();
    let Ok(store) = open(directory, durability, &acknowledged, &promised) else { return history };
    let mut has_indexes = false;
    for (number, step) in workload(scale).into_iter().enumerate() {
        has_indexes = has_indexes || store.ensure_indexes(pairs(), indexes()).await.is_ok();
        if !has_indexes {
            continue;
        }
        if durability == Durability::Process && number % 8 == 7 {
            // The background task syncs the log during this pause.
            tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        }
        // The step depends on whether the pair exists, which has to be read first.
        let found = store.find(Find::new(pairs(), Filter::equals("_id", 2 * step.pair))).await;
        let Ok(found) = found else { continue };
        let answer = store.write(write_of(step, !found.is_empty())).await;
        history.0.push((step.pair, step.version, answer.is_ok()));
        acknowledged.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
        let promised = match durability {
            Durability::Full => acknowledged.load(Ordering::SeqCst),
            Durability::Process => promised.load(Ordering::SeqCst),
        };
        each(&history, promised);
    }
    store.close().await;
    history
}

/// Opens the remaining store and compares it with the states that the history allows.
async fn verify(directory: &Path, history: &History, context: &str) -> Vec<(i32, Version)> {
    let settings = Settings::default();
    let store =
        SqliteStore::open_with(Location::File(directory.join("store.sqlite")), Arc::new(SystemEnvironment), settings);
    let store = store.unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut findings =
        store.check(false, Progress::default()).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    // A store whose creation failed is an empty file, which the next write completes.
    findings.retain(|finding| !finding.what.ends_with("store.sqlite is empty, and not a Userkeep store"));
    assert_eq!(findings, [], "{context}");
    let mut found = BTreeMap::new();
    for document in store.find(Find::new(pairs(), Filter::all())).await.unwrap() {
        let (id, version) = (document.get_i32("_id").unwrap(), document.get_i32("version").unwrap());
        found.entry(id / 2).or_insert_with(Vec::new).push(version);
    }
    let mut states = Vec::new();
    for pair in 0..6 {
        let version = match found.get(&pair).map(Vec::as_slice) {
            None => None,
            Some([one, other]) if one == other => Some(*one),
            Some(half) => panic!("{context}: a write is stored in part: {half:?}"),
        };
        assert!(history.allows(pair, version), "{context}: {pair} is {version:?}, which none of {history:?} allows");
        states.push((pair, version));
    }
    // The store accepts further writes.
    if store.ensure_indexes(pairs(), indexes()).await.is_ok() {
        let step = Step { pair: 99, version: Some(1), size: 10 };
        store.write(write_of(step, false)).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    store.close().await;
    states
}

async fn count_operations() -> u64 {
    let directory = tempfile::tempdir().unwrap();
    disk().begin(directory.path(), None);
    let history = run(directory.path(), Durability::Full, 1, |_, _| {}).await;
    let count = disk().count;

    assert_eq!(history.acknowledged(), workload(1).len());
    verify(directory.path(), &history, "without a failure").await;
    count
}

fn exclusive() -> std::sync::MutexGuard<'static, ()> {
    vfs::install();
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn after_any_failed_operation_no_acknowledged_write_is_lost_and_none_is_stored_in_part() {
    let _exclusive = exclusive();
    runtime().block_on(async {
        let count = count_operations().await;
        let (mut failed, mut went_on) = (0, 0);
        for failure in [Failure::Error, Failure::Half] {
            for number in 1..=count {
                let directory = tempfile::tempdir().unwrap();
                disk().begin(directory.path(), Some((number, failure)));
                let history = run(directory.path(), Durability::Full, 1, |_, _| {}).await;
                disk().heal();
                failed += usize::from(history.acknowledged() < workload(1).len());
                went_on += usize::from(history.acknowledged() > 10);
                verify(directory.path(), &history, &format!("{failure:?} at {number} of {count}")).await;
            }
        }
        // Most failures make a write fail, and few end the whole workload.
        assert!(failed as u64 > count / 4, "{failed} of {count}");
        assert!(went_on as u64 > count, "{went_on} of {count}");
    });
}

#[test]
fn a_full_disk_fails_writes_until_there_is_room() {
    let _exclusive = exclusive();
    runtime().block_on(async {
        let count = count_operations().await;
        for number in (1..=count).step_by(7) {
            let directory = tempfile::tempdir().unwrap();
            disk().begin(directory.path(), Some((number, Failure::Full)));
            let history = run(directory.path(), Durability::Full, 1, |_, _| {}).await;
            disk().heal();
            verify(directory.path(), &history, &format!("full at {number} of {count}")).await;
        }
    });
}

/// At each step, simulates power cuts that keep none, all, or a random part of the unsynced data.
#[test]
fn a_power_cut_loses_no_promised_write() {
    let _exclusive = exclusive();
    for durability in [Durability::Full, Durability::Process] {
        runtime().block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let images = tempfile::tempdir().unwrap();
            disk().begin(directory.path(), None);
            let mut generator = ChaCha8Rng::seed_from_u64(7);
            let mut cuts = Vec::new();
            run(directory.path(), durability, 60, |history, promised| {
                for part in [0.0, 0.5, 1.0] {
                    let image = images.path().join(format!("{}", cuts.len()));
                    disk().after_power_cut(&image, &mut || generator.random_bool(part));
                    // An acknowledged write that is not promised yet may be lost, but never in
                    // part.
                    cuts.push((image, history.promising(promised)));
                }
            })
            .await;
            assert!(cuts.len() > 50);
            let mut states = std::collections::BTreeSet::new();
            for (number, (image, allowed)) in cuts.iter().enumerate() {
                if image.join("store.sqlite").exists() {
                    let state = verify(image, allowed, &format!("{durability:?}, cut {number}")).await;
                    states.insert(format!("{state:?}"));
                }
            }
            assert!(states.len() > 3, "the cuts differ: {states:?}");
        });
    }
}
