//! Runs the embedded store at full load for a while: `npm run soak:store [-- SECONDS]` (600
//! seconds by default). Writers, readers, watchers, expiring documents and pruned changes run at
//! once. If memory, log or file exceed their bounds, the program ends with an error.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a program for measuring, which may stop at once"
)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{DateTime, raw::RawDocumentBuf, rawdoc};
use query::{Filter, Update};
use store::{
    Change, Find, Index, Location, Maintenance, Modify, Namespace, Operation, Progress, Settings, SqliteStore, Store,
    SystemEnvironment, Watch, Write,
};

/// The number of documents that each writer cycles through.
const DOCUMENTS: i64 = 5_000;
const WRITERS: i64 = 16;

fn things() -> Namespace {
    Namespace::new("app", "things")
}

fn write(operation: Operation) -> Vec<Write> {
    vec![Write::new(things(), operation)]
}

/// Returns the memory of the process in kB, without memory-mapped files.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len()) / 1024
}

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    reads: AtomicU64,
    events: AtomicU64,
    slowest: AtomicU64,
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let log = directory.path().join("store.sqlite-wal");
    let store =
        SqliteStore::open_with(Location::File(path.clone()), Arc::new(SystemEnvironment), Settings::default()).unwrap();
    let index = |index: RawDocumentBuf| Index::parse(&index).unwrap();
    let indexes = vec![
        index(rawdoc! { "key": { "writer": 1, "n": 1 } }),
        index(rawdoc! { "key": { "tags": 1 } }),
        index(rawdoc! { "key": { "expires": 1 }, "expireAfterSeconds": 0 }),
    ];
    store.ensure_indexes(things(), indexes).await.unwrap();
    let counts = Arc::new(Counts::default());
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (store, counts) = (store.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            let mut number: i64 = 0;
            while Instant::now() < end {
                let id = writer * DOCUMENTS + number % DOCUMENTS;
                let filter = Filter::equals("_id", id);
                let operation = match number / DOCUMENTS % 3 {
                    0 => {
                        let soon = DateTime::from_millis(DateTime::now().timestamp_millis() + 20_000);
                        let mut document = rawdoc! { "_id": id, "writer": writer, "n": number, "tags": [number % 100, "a"], "text": "x".repeat(200) };
                        if number % 2 == 0 {
                            query::append(&mut document, "expires", soon);
                        }
                        Operation::Insert(vec![document])
                    }
                    1 => {
                        let set = rawdoc! { "$set": { "n": number, "tags": [number % 77] } };
                        let update = Update::parse(&set).unwrap();
                        Operation::modify(Modify::new(filter, false, Change::Update { update, upsert: false }))
                    }
                    _ => Operation::modify(Modify::new(filter, false, Change::Delete)),
                };
                let asked = Instant::now();
                // An expired document no longer exists, so the write may fail.
                let _ = store.write(write(operation)).await;
                counts.slowest.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
                counts.writes.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
        });
    }
    for reader in 0..4_i64 {
        let (store, counts) = (store.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            let mut number = reader;
            while Instant::now() < end {
                number += 1;
                let filter = rawdoc! { "tags": number % 100 };
                let find = Find { limit: Some(1000), ..Find::new(things(), Filter::parse(&filter).unwrap()) };
                store.find(find).await.unwrap();
                counts.reads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..3 {
        let (store, counts) = (store.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            let mut stream = store.watch(Watch { namespace: things(), after: None, owner: None }).await.unwrap();
            while Instant::now() < end {
                if let Ok(next) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
                    counts.events.fetch_add(next.unwrap().len() as u64, Ordering::Relaxed);
                }
            }
        });
    }
    println!("   s     writes      reads     events  slowest ms   memory kB      log kB     file kB");
    let mut most = (0, 0, 0);
    let mut early = (0, 0);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(10.min(seconds))).await;
        let now = (memory(), size(&log), size(&path));
        most = (most.0.max(now.0), most.1.max(now.1), most.2.max(now.2));
        if begun.elapsed().as_secs() <= seconds / 3 {
            early = (early.0.max(now.0), early.1.max(now.2));
        }
        println!(
            "{:>4} {:>10} {:>10} {:>10} {:>11.1} {:>11} {:>11} {:>11}",
            begun.elapsed().as_secs(),
            counts.writes.load(Ordering::Relaxed),
            counts.reads.load(Ordering::Relaxed),
            counts.events.load(Ordering::Relaxed),
            counts.slowest.swap(0, Ordering::Relaxed) as f64 / 1000.0,
            now.0,
            now.1,
            now.2
        );
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let findings = store.check(false, Progress::default()).await.unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    store.close().await;
    println!("most: memory {} kB, log {} kB, file {} kB; the check of the file found nothing", most.0, most.1, most.2);
    assert!(most.1 < 100 * 1024, "the log grew to {} kB", most.1);
    assert!(most.0 < early.0 * 3 / 2 + 50_000, "memory grew from {} kB to {} kB", early.0, most.0);
    assert!(most.2 < early.1 * 3 / 2 + 100_000, "the file grew from {} kB to {} kB", early.1, most.2);
}
