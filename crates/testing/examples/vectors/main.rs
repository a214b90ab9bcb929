//! Runs test vectors against the embedded store and reports which passed, failed or were refused:
//! `npm run vectors -- DIR [--only TEXT] [--show]`.
//!
//! A vector is a list of database commands with the expected reply of one of them. `refused.txt`
//! beside this file lists the vectors that may be refused, with reasons. Not all vectors pass yet.
//! If fewer pass than `passing.txt` states, the run fails; if more pass, raise the numbers there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::{cell::Cell, collections::BTreeMap, io::BufRead, path::Path, process::ExitCode};

use bson::{Bson, Document};
use flate2::read::GzDecoder;

use testing::{
    commands::{self, Answer, Database},
    expect,
};

/// The result of a vector.
enum Verdict {
    Passed,
    Refused(String),
    Failed(String),
}

/// The vectors that may be refused: the beginning of an id, or a part of a refusal's message; the
/// reason; and the number of uses.
struct Allowed(Vec<(String, String, Cell<usize>)>);

impl Allowed {
    fn read() -> Self {
        let lines = include_str!("refused.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(
            lines
                .map(|line| {
                    let (what, why) = line.split_once(" | ").expect(line);
                    (what.into(), why.into(), Cell::new(0))
                })
                .collect(),
        )
    }

    fn reason(&self, id: &str, message: &str) -> Option<&str> {
        let applies = |what: &str| id.starts_with(what) || message.contains(what);
        self.0.iter().find(|(what, ..)| applies(what)).map(|(_, why, used)| {
            used.set(used.get() + 1);
            why.as_str()
        })
    }

    /// Returns the entries that no vector used. These vectors pass now, so their entries should be
    /// removed.
    fn unused(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(.., used)| used.get() == 0).map(|(what, ..)| what.as_str())
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    refused: usize,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory of vectors");
    let rest: Vec<String> = arguments.collect();
    let only = rest.iter().position(|word| word == "--only").and_then(|place| rest.get(place + 1)).cloned();
    let show = rest.iter().any(|word| word == "--show");
    let allowed = Allowed::read();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{directory}: {error}"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.gz"))
        .collect();
    files.sort();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut total = Counts::default();
    let mut fell = Vec::new();
    for file in files {
        let counts = run_file(&file, only.as_deref(), show, &allowed, &runtime, &mut reasons);
        let name = file.file_name().unwrap().to_string_lossy().replace(".jsonl.gz", "");
        println!("{name:<14} {:>6} passed {:>6} failed {:>6} refused", counts.passed, counts.failed, counts.refused);
        let least = least(&name);
        if only.is_none() && counts.passed < least {
            fell.push(format!("{name}: {} pass, and {least} did", counts.passed));
        }
        total.passed += counts.passed;
        total.failed += counts.failed;
        total.refused += counts.refused;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (reason, count) in reasons {
        println!("{count:>6} refused: {reason}");
    }
    println!("{} passed, {} failed, {} refused", total.passed, total.failed, total.refused);
    fell.iter().for_each(|fallen| println!("FEWER PASS: {fallen}"));
    let unused: Vec<&str> = if only.is_none() { allowed.unused().collect() } else { Vec::new() };
    unused.iter().for_each(|what| println!("NEVER REFUSED: {what}"));
    if total.passed > 0 && fell.is_empty() && unused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of vectors of a file that have passed before.
fn least(name: &str) -> usize {
    let lines = include_str!("passing.txt").lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(file, _)| *file == name).find_map(|(_, count)| count.parse().ok()).unwrap_or(0)
}

fn run_file(
    file: &Path,
    only: Option<&str>,
    show: bool,
    allowed: &Allowed,
    runtime: &tokio::runtime::Runtime,
    reasons: &mut BTreeMap<String, usize>,
) -> Counts {
    let reader = std::io::BufReader::new(GzDecoder::new(std::fs::File::open(file).unwrap()));
    let mut counts = Counts::default();
    for line in reader.lines() {
        let line = line.unwrap();
        let Ok(vector) = read(&line) else {
            counts.failed += 1;
            continue;
        };
        let id = vector.get_str("id").unwrap().to_owned();
        if only.is_some_and(|only| !id.contains(only)) {
            continue;
        }
        let (verdict, reason) = match runtime.block_on(run(&vector)) {
            Verdict::Refused(message) => match allowed.reason(&id, &message) {
                Some(reason) => (Verdict::Refused(message), reason.to_owned()),
                None => (Verdict::Failed(format!("refused: {message}")), String::new()),
            },
            verdict => (verdict, String::new()),
        };
        match verdict {
            Verdict::Passed => counts.passed += 1,
            Verdict::Refused(_) => {
                counts.refused += 1;
                *reasons.entry(reason).or_default() += 1;
            }
            Verdict::Failed(why) => {
                counts.failed += 1;
                if show {
                    println!("FAILED {id}\n    {why}");
                }
            }
        }
    }
    counts
}

/// Parses a line as a document. Some vectors are nested more deeply than the parser's default
/// limit.
fn read(line: &str) -> Result<Document, String> {
    let mut parser = serde_json::Deserializer::from_str(line);
    parser.disable_recursion_limit();
    let value: serde_json::Value = serde::Deserialize::deserialize(&mut parser).map_err(|error| error.to_string())?;
    match Bson::try_from(value) {
        Ok(Bson::Document(document)) => Ok(document),
        other => Err(format!("{other:?}")),
    }
}

async fn run(vector: &Document) -> Verdict {
    let check = vector.get_array("checks").unwrap()[0].as_document().unwrap();
    let place = expect::integer(check.get("cmd")).unwrap_or(0) as usize;
    let database = Database::new();
    let mut answers: Vec<Answer> = Vec::new();
    for command in vector.get_array("cmds").unwrap() {
        let command = command.as_document().unwrap();
        answers.push(database.run(command).await);
    }
    // A command that prepares the vector must not have been refused.
    for answer in answers.iter().take(place) {
        if let Err(error) = answer
            && error.code == commands::REFUSED
        {
            return Verdict::Refused(error.message.clone());
        }
    }
    let Some(answer) = answers.get(place) else { return Verdict::Failed("there is no such command".into()) };
    let portable = vector.get_bool("portable").unwrap_or(true);
    match (expect::check(check, answer, portable), answer) {
        (Ok(()), _) => Verdict::Passed,
        (Err(_), Err(error)) if error.code == commands::REFUSED => Verdict::Refused(error.message.clone()),
        (Err(why), _) => Verdict::Failed(why),
    }
}
