//! Compares the embedded store with a MongoDB-compatible server, on random documents, and prints
//! the differences: `npm run differential -- --seed S --cases N --against mongodb://…`.
//!
//! `--replay FILE` runs the cases of a file instead, such as those of the regression tests. Each
//! difference that was a fault of this store becomes a regression test. The program shrinks a
//! difference to a small case. Differences by which the server is known to depart from MongoDB's
//! documentation (`departures.rs`) are counted separately.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod departures;
mod shrink;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use bson::{Bson, Document, doc};
use mongodb::Client;

use testing::{
    case::{self, COLLECTION, Case, Outcome, Server},
    generate::Generator,
};

/// The number of cases of each kind in a batch: reads of the same documents, updates of one
/// document each, and other changes.
const READS: usize = 40;
const UPDATES: usize = 60;
const CHANGES: usize = 4;
const BATCH: u64 = (READS + UPDATES + CHANGES) as u64;

/// The number of batches that run at the same time.
const WORKERS: usize = 4;

/// The maximum number of attempts to shrink a case, and of cases to shrink.
const TRIES: usize = 600;
const SHRUNK: usize = 60;

/// A case for which the two servers have different outcomes.
#[derive(Clone)]
struct Difference {
    case: Case,
    ours: Outcome,
    theirs: Outcome,
}

/// The results of all workers.
#[derive(Default)]
struct Found {
    differences: Vec<Difference>,
    known: BTreeMap<&'static str, u64>,
    more: u64,
}

/// The maximum number of departures that together explain one difference, each applied to the case
/// without the earlier ones.
const DEPARTURES: usize = 3;

struct Options {
    replay: Option<String>,
    seed: u64,
    cases: u64,
    against: String,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options = Self {
            replay: None,
            seed: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            cases: 20_000,
            against: std::env::var("MONGODB_URI").unwrap_or_default(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse().map_err(|_| format!("{word} needs a number, not {value}"));
            match word.as_str() {
                "--seed" => options.seed = number()?,
                "--cases" => options.cases = number()?,
                "--against" => options.against = value,
                "--replay" => options.replay = Some(value),
                _ => return Err(format!("{word} is not an option")),
            }
        }
        if options.against.is_empty() {
            return Err("--against (or MONGODB_URI) must name a server to compare with: mongodb://…".into());
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let client = Client::with_uri_str(&options.against).await.expect("a connection string");
    if let Err(error) = client.database("admin").run_command(doc! { "ping": 1 }).await {
        eprintln!("no server answers at {}: {error}", options.against);
        return ExitCode::FAILURE;
    }
    if let Some(file) = &options.replay {
        return replay(file, &client).await;
    }
    let begun = Instant::now();
    let batches = options.cases.div_ceil(BATCH);
    let next = Arc::new(AtomicU64::new(0));
    let found = Arc::new(Mutex::new(Found::default()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (client, next, found) = (client.clone(), next.clone(), found.clone());
            tokio::spawn(async move {
                let name = format!("differential_{}_{worker}", std::process::id());
                let mut sides = Sides { ours: Server::ours(), theirs: Server::theirs(&client, &name), found };
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    if batch >= batches {
                        break;
                    }
                    let mut generator = Generator::new(options.seed, batch);
                    sides.reads(generator.reads(READS)).await;
                    sides.updates(generator.updates(UPDATES)).await;
                    for case in generator.changes(CHANGES) {
                        sides.alone(case).await;
                    }
                }
                client.database(&name).drop().await.expect("the database can be dropped");
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker that ends");
    }
    report(&options, batches * BATCH, begun, &found.lock().unwrap())
}

/// Runs the cases of a file, such as that of the regression tests, and prints both outcomes.
async fn replay(file: &str, client: &Client) -> ExitCode {
    let mut ours = Server::ours();
    let mut theirs = Server::theirs(client, &format!("differential_{}", std::process::id()));
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let Ok(Bson::Document(line)) = Bson::try_from(value) else { panic!("no document: {line}") };
        let case = Case::of(&line);
        let (ours, theirs) = (ours.outcome(&case).await, theirs.outcome(&case).await);
        match ours.agrees(&theirs) {
            true => println!("case   {case}\nboth   {ours}"),
            false => println!("case   {case}\nours   {ours}\ntheirs {theirs}"),
        }
    }
    ExitCode::SUCCESS
}

fn report(options: &Options, cases: u64, begun: Instant, found: &Found) -> ExitCode {
    for Difference { case, ours, theirs } in &found.differences {
        println!("DIFFERENT\n    case   {case}\n    ours   {ours}\n    theirs {theirs}");
    }
    for (page, count) in &found.known {
        println!("{count:>8} known departures of the server from {page}");
    }
    let differences = found.differences.len() as u64 + found.more;
    let known: u64 = found.known.values().sum();
    println!(
        "seed {}: {cases} cases, {differences} differences, {known} known departures, {} s",
        options.seed,
        begun.elapsed().as_secs()
    );
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The two servers to compare, and the collected differences.
struct Sides {
    ours: Server,
    theirs: Server,
    found: Arc<Mutex<Found>>,
}

impl Sides {
    /// Compares reads of the same documents.
    async fn reads(&mut self, cases: Vec<Case>) {
        let Some(first) = cases.first() else { return };
        self.ours.fill(&first.documents).await;
        self.theirs.fill(&first.documents).await;
        let mut suspects = Vec::new();
        for case in cases {
            let ours = case::outcome(self.ours.run(&case.command).await, Vec::new());
            let theirs = case::outcome(self.theirs.run(&case.command).await, Vec::new());
            if !ours.agrees(&theirs) {
                suspects.push(case);
            }
        }
        for case in suspects {
            self.alone(case).await;
        }
    }

    /// Compares updates of one document each, in one command.
    async fn updates(&mut self, cases: Vec<Case>) {
        let documents: Vec<Document> = cases.iter().flat_map(|case| case.documents.clone()).collect();
        let statements: Vec<Bson> =
            cases.iter().flat_map(|case| case.command.get_array("updates").unwrap().clone()).collect();
        let command = doc! { "update": COLLECTION, "updates": statements, "ordered": false };
        let mut sides = Vec::new();
        for server in [&mut self.ours, &mut self.theirs] {
            server.fill(&documents).await;
            // The failure of a whole command says nothing about its parts.
            let Ok(reply) = server.run(&command).await else { break };
            let left: BTreeMap<String, String> = server
                .left()
                .await
                .iter()
                .map(|left| (left.get("_id").unwrap().to_string(), case::text(left)))
                .collect();
            sides.push((case::write_errors(&reply), reply.get_i32("nModified").ok(), reply.get_i32("n").ok(), left));
        }
        let [ours, theirs] = &sides[..] else {
            for case in cases {
                self.alone(case).await;
            }
            return;
        };
        let counts_differ = (ours.1, ours.2) != (theirs.1, theirs.2) || ours.3.len() != theirs.3.len();
        let code = |errors: &[(usize, i32)], place| errors.iter().find(|error| error.0 == place).map(|error| error.1);
        let mut suspects = Vec::new();
        for (place, case) in cases.into_iter().enumerate() {
            let id = place.to_string();
            if counts_differ || code(&ours.0, place) != code(&theirs.0, place) || ours.3.get(&id) != theirs.3.get(&id) {
                suspects.push(case);
            }
        }
        for case in suspects {
            self.alone(case).await;
        }
    }

    /// Compares a single case.
    async fn alone(&mut self, case: Case) {
        let Some(difference) = self.difference(&case).await else { return };
        if let Some(page) = self.known(&difference).await {
            *self.found.lock().unwrap().known.entry(page).or_default() += 1;
            return;
        }
        if self.found.lock().unwrap().differences.len() >= SHRUNK {
            self.found.lock().unwrap().more += 1;
            return;
        }
        let smallest = self.shrunk(difference).await;
        self.found.lock().unwrap().differences.push(smallest);
    }

    /// Returns the departure that explains a difference, or the last of several that together
    /// explain it.
    async fn known(&mut self, difference: &Difference) -> Option<&'static str> {
        let mut left = difference.clone();
        for _ in 0..DEPARTURES {
            let Difference { case, ours, theirs } = left;
            let shown = || departures::KNOWN.iter().filter(|departure| departure.shows(&case, &ours, &theirs));
            if let Some(departure) = shown().find(|departure| !departure.is_of_the_case()) {
                return Some(departure.page);
            }
            // Either one departure alone explains the difference, or the case without all of them
            // shows another one.
            let mut without_all = case.clone();
            for departure in shown() {
                if self.difference(&departure.without(&case)).await.is_none() {
                    return Some(departure.page);
                }
                without_all = departure.without(&without_all);
            }
            match self.difference(&without_all).await {
                None => return Some("several of these pages at once"),
                Some(difference) => left = difference,
            }
        }
        None
    }

    async fn difference(&mut self, case: &Case) -> Option<Difference> {
        let ours = self.ours.outcome(case).await;
        let theirs = self.theirs.outcome(case).await;
        (!ours.agrees(&theirs)).then(|| Difference { case: case.clone(), ours, theirs })
    }

    /// Shrinks the case of a difference while the difference stays the same.
    async fn shrunk(&mut self, mut smallest: Difference) -> Difference {
        let mut tries = 0;
        'again: loop {
            for case in shrink::simpler(&smallest.case) {
                tries += 1;
                if tries > TRIES {
                    return smallest;
                }
                if let Some(difference) = self.difference(&case).await
                    && difference.ours.failure == smallest.ours.failure
                    && difference.theirs.failure == smallest.theirs.failure
                    && self.known(&difference).await.is_none()
                {
                    smallest = difference;
                    continue 'again;
                }
            }
            return smallest;
        }
    }
}
