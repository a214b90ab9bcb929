//! What a failing disk, a full one and a power cut leave: every acknowledged write that the mode promises, whole; no half of any other;
//! indexes that agree with documents, and changes that agree with both. For every operation on the disk that a workload makes.
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
    Change, Durability, Find, Index, Location, Modify, Namespace, Operation, Progress, Settings, SqliteStore, Store,
    SystemEnvironment, Write,
};
use vfs::{Failure, disk};

/// The disk is one for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn pairs() -> Namespace {
    Namespace::new("app", "pairs")
}

/// What one write makes of a pair of documents: the version that both have then, or none of them.
type Version = Option<i32>;

/// A write of the workload: to which pair, and what becomes of it.
#[derive(Debug, Clone, Copy)]
struct Step {
    pair: i32,
    version: Version,
    /// How many bytes the documents have, so that some writes fill the log.
    size: usize,
}

/// Writes of documents of some hundred bytes, or of a hundred times as many, which fill the log now and then.
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
    // Two writes that are one: documents of their own, with a key in a unique index and several in another.
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

/// What was done in its order: to which pair, and whether it was acknowledged.
#[derive(Debug, Default, Clone)]
struct History(Vec<(i32, Version, bool)>);

impl History {
    /// Whether what is there may be: what was acknowledged last, or any that failed after it.
    fn allows(&self, pair: i32, found: Version) -> bool {
        let steps: Vec<_> = self.0.iter().filter(|(other, ..)| *other == pair).collect();
        let last = steps.iter().rposition(|(_, _, acknowledged)| *acknowledged);
        let rest = &steps[last.unwrap_or(0)..];
        rest.iter().any(|(_, version, _)| *version == found) || (last.is_none() && found.is_none())
    }

    fn acknowledged(&self) -> usize {
        self.0.iter().filter(|(_, _, acknowledged)| *acknowledged).count()
    }

    /// The same, as if no more than so many had been acknowledged.
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

/// Runs the workload as far as the disk lets it. `each` is called after each step with how many were acknowledged by then.
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
            // The log is synced by itself now.
            tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        }
        // What the step does depends on what is there, which has to be read.
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

/// Opens what is left, and compares it with what may be.
async fn verify(directory: &Path, history: &History, context: &str) -> Vec<(i32, Version)> {
    let settings = Settings::default();
    let store =
        SqliteStore::open_with(Location::File(directory.join("store.sqlite")), Arc::new(SystemEnvironment), settings);
    let store = store.unwrap_or_else(|error| panic!("{context}: {error}"));
    let findings = store.check(false, Progress::default()).await.unwrap_or_else(|error| panic!("{context}: {error}"));
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
            Some(half) => panic!("{context}: half of a write: {half:?}"),
        };
        assert!(history.allows(pair, version), "{context}: {pair} is {version:?}, which none of {history:?} allows");
        states.push((pair, version));
    }
    // It goes on.
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
fn whichever_operation_fails_nothing_acknowledged_is_lost_and_nothing_is_half_done() {
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
        // Of the failures most are told, and few end everything.
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

/// At each step, what a power cut would leave: nothing of what was not synced, all of it, and parts of it at random.
#[test]
fn a_power_cut_takes_nothing_that_was_promised() {
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
                    // What was acknowledged and not promised may be gone, but never in part.
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
