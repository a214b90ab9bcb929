//! Kills processes at random while they write under load. Afterwards every acknowledged write is
//! stored completely, no other write is stored in part, indexes agree with documents, and events
//! with commits. `CRASH_ROUNDS=500 cargo test -p userkeep-testing` runs for longer. The
//! processes are `examples/crash-child.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use query::Filter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use store::{
    ChangeKind, Find, Location, Maintenance, Namespace, Progress, ResumeToken, SqliteStore, Store, SystemEnvironment,
    Watch,
};

fn pairs() -> Namespace {
    Namespace::new("app", "pairs")
}

/// Returns the path of the child program: cargo puts examples beside the directory of the tests.
fn child_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("examples/crash-child");
    assert!(
        program.exists(),
        "{} is missing: `cargo build -p userkeep-testing --examples` builds it",
        program.display()
    );
    program
}

/// A writing process, and its output.
struct Writer {
    child: Child,
    said: JoinHandle<String>,
}

impl Writer {
    fn start(file: &Path, number: usize) -> Self {
        let mut child =
            Command::new(child_program()).arg(file).arg(format!("p{number}")).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, said }
    }

    /// Kills the process and returns the complete lines of its output.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "the process ran until it was killed");
        let text = self.said.join().unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }
}

/// Returns the stored version of a pair after a write; `None` if the write deleted it.
fn state(version: i32) -> Option<i32> {
    (version % 5 != 0).then_some(version)
}

async fn verify(file: &Path, said: &[Vec<String>], context: &str) -> usize {
    let store = SqliteStore::open(Location::File(file.to_owned()), Arc::new(SystemEnvironment)).unwrap();
    assert_eq!(store.check(false, Progress::default()).await.unwrap(), [], "{context}");
    let documents = store.find(Find::new(pairs(), Filter::all())).await.unwrap();
    let found: BTreeMap<String, i32> = documents
        .iter()
        .map(|document| (document.get_str("_id").unwrap().to_owned(), document.get_i32("version").unwrap()))
        .collect();

    let mut acknowledged: BTreeMap<&str, i32> = BTreeMap::new();
    let mut lines = 0;
    for line in said.iter().flatten() {
        if let Some((pair, version)) = line.strip_prefix("A ").and_then(|rest| rest.split_once(' ')) {
            acknowledged.insert(pair, version.parse().unwrap());
            lines += 1;
        }
    }
    for (pair, version) in &acknowledged {
        let halves = ["a", "b"].map(|half| found.get(&format!("{pair}{half}")).copied());
        assert_eq!(halves[0], halves[1], "{context}: {pair} is stored in part");
        let allowed = [state(*version), state(version + 1)];
        assert!(allowed.contains(&halves[0]), "{context}: {pair} is {:?}, acknowledged was {version}", halves[0]);
    }

    // All events from the beginning reproduce the stored documents.
    let now = store.watch(Watch { namespace: pairs(), after: None, owner: None }).await.unwrap().position().unwrap();
    let beginning = format!("{}{:016x}", &now.as_str()[..18], 0);
    let after = Some(ResumeToken::from(&*beginning));
    let mut stream = store.watch(Watch { namespace: pairs(), after, owner: None }).await.unwrap();
    let (mut made, mut tokens) = (BTreeMap::new(), Vec::new());
    while tokens.last() != Some(&now.to_string()) && now.as_str() != beginning {
        for event in stream.next().await.unwrap() {
            tokens.push(event.token.to_string());
            let id = event.known().get_str("_id").unwrap().to_owned();
            match event.kind {
                ChangeKind::Delete => made.remove(&id),
                _ => made.insert(id, event.known().get_i32("version").unwrap()),
            };
        }
    }
    assert_eq!(made, found, "{context}");
    // Each watcher received a part of the events, without gaps and in the same order.
    for lines in said {
        let told: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("E ")?.split(' ').next()).collect();
        let Some(first) = told.first() else { continue };
        let from = tokens
            .iter()
            .position(|token| token == first)
            .unwrap_or_else(|| panic!("{context}: {first} is the token of no event"));
        assert!(
            tokens[from..].iter().map(String::as_str).take(told.len()).eq(told.iter().copied()),
            "{context}: events"
        );
    }
    store.close().await;
    lines
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_processes_are_killed() {
    let rounds = std::env::var("CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let mut generator =
        ChaCha8Rng::seed_from_u64(std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5));
    let begun = Instant::now();
    let mut acknowledged = 0;
    for round in 0..rounds {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store.sqlite");
        let processes = [1, 2, 4][round % 3];
        let mut writers: Vec<Writer> = (0..processes).map(|number| Writer::start(&file, number)).collect();
        let mut pause =
            |longest: u64| std::thread::sleep(Duration::from_micros(generator.random_range(0..longest * 1000)));
        // Some processes are killed before the file is created.
        pause(400);
        let mut said = Vec::new();
        while !writers.is_empty() {
            let one = round % writers.len();
            said.push(writers.swap_remove(one).kill());
            pause(60);
        }
        if file.exists() {
            acknowledged += verify(&file, &said, &format!("round {round}, {processes} processes")).await;
        }
    }
    println!("{rounds} rounds, {acknowledged} acknowledged writes, {} s", begun.elapsed().as_secs());
    assert!(acknowledged > rounds * 20, "{acknowledged} writes in {rounds} rounds");
}
