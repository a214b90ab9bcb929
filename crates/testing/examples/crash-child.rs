//! The process that `tests/crash.rs` starts and kills: `crash-child FILE NAME`. It writes under
//! load, watches, and prints its acknowledged writes and its events, one per line:
//!
//! - `R`: the process watches and starts to write.
//! - `A pair version`: an acknowledged write.
//! - `E token id version`: an event; the version of a deletion is `-`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a program for tests, which may stop at once")]

use std::{io::Write as _, path::PathBuf, sync::Arc};

use bson::{raw::RawDocumentBuf, rawdoc};
use futures_util::future::join_all;
use query::{Filter, Update};
use store::{
    Change, ChangeKind, Index, Location, Modify, Namespace, Operation, SqliteStore, Store, SystemEnvironment, Watch,
    Write,
};

/// Prints one line with a single write.
fn say(line: String) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn pairs() -> Namespace {
    Namespace::new("app", "pairs")
}

/// Returns the write that brings a pair of documents to a version. Every fifth version deletes
/// them.
fn write_of(pair: &str, version: i32) -> Vec<Write> {
    let exists = (version - 1) % 5 != 0;
    let one = |half: &str| {
        let id = format!("{pair}{half}");
        let filter = Filter::equals("_id", bson::RawBson::String(id.clone()));
        let text = "x".repeat(50 + (version as usize * 7919) % 3000);
        let operation = if version % 5 == 0 {
            Operation::modify(Modify::new(filter, false, Change::Delete))
        } else if exists {
            let set = rawdoc! { "$set": { "version": version, "key": format!("{id}-{version}"), "text": text }, "$push": { "tags": version } };
            let update = Update::parse(&set).unwrap();
            Operation::modify(Modify::new(filter, false, Change::Update { update, upsert: false }))
        } else {
            let document: RawDocumentBuf = rawdoc! { "_id": id.as_str(), "version": version, "key": format!("{id}-{version}"), "text": text, "tags": [version] };
            Operation::Insert(vec![document])
        };
        Write::new(pairs(), operation)
    };
    vec![one("a"), one("b")]
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (file, name) = (PathBuf::from(arguments.next().unwrap()), arguments.next().unwrap());
    let store = SqliteStore::open(Location::File(file), Arc::new(SystemEnvironment)).unwrap();
    let index = |index: RawDocumentBuf| Index::parse(&index).unwrap();
    let indexes = vec![
        index(rawdoc! { "key": { "key": 1 }, "unique": true }),
        index(rawdoc! { "key": { "tags": 1 } }),
        index(rawdoc! { "key": { "version": -1, "_id": 1 } }),
    ];
    store.ensure_indexes(pairs(), indexes).await.unwrap();
    let mut stream = store.watch(Watch { namespace: pairs(), after: None, owner: None }).await.unwrap();
    say("R".into());
    let watching = async {
        loop {
            for event in stream.next().await.unwrap() {
                let id = event.known().get_str("_id").unwrap();
                let version = match event.kind {
                    ChangeKind::Delete => "-".into(),
                    _ => event.known().get_i32("version").unwrap().to_string(),
                };
                say(format!("E {} {id} {version}", event.token));
            }
        }
    };
    let writing = join_all((0..8).map(async |task| {
        for round in 0.. {
            for pair in 0..4 {
                let pair = format!("{name}-{task}-{pair}");
                store.write(write_of(&pair, round + 1)).await.unwrap();
                say(format!("A {pair} {}", round + 1));
            }
        }
    }));
    tokio::join!(watching, writing);
}
