//! A sequence of commands has the same results inside transactions as outside, over random
//! documents, commands and indexes. `TRANSACTION_BATCHES=1000 cargo test -p userkeep-store --test
//! transaction_sequences` runs for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bson::{Bson, Document, doc};
use store::{Maintenance, Progress};
use testing::{
    case::{self, COLLECTION, Outcome, text},
    commands::Database,
    generate::Generator,
};

/// The number of commands after which a transaction is committed.
const COMMITTED_AFTER: usize = 12;

/// A database whose commands run in transactions, beside one whose commands do not.
struct Pair {
    plain: Database,
    inside: Database,
    /// The commands of the open transaction, for messages.
    commands: Vec<Document>,
}

async fn run(database: &Database, command: &Document) -> Outcome {
    case::outcome(database.run(command).await.map_err(|failure| failure.code), Vec::new())
}

/// Returns all documents in the order in which a scan finds them.
async fn left(database: &Database) -> Outcome {
    run(database, &doc! { "find": COLLECTION, "filter": {}, "batchSize": 10_000 }).await
}

impl Pair {
    /// Creates the same documents and indexes on both sides, and begins a transaction.
    async fn new(generator: &mut Generator, documents: &[Document]) -> Self {
        let (plain, mut inside) = (Database::new(), Database::new());
        let mut indexes = generator.indexes(3);
        indexes.push(doc! { "key": { "b": 1 }, "unique": true, "sparse": true });
        for (place, index) in indexes.iter_mut().enumerate() {
            index.insert("name", format!("index_{place}"));
            for database in [&plain, &inside] {
                let _ = database.run(&doc! { "createIndexes": COLLECTION, "indexes": [index.clone()] }).await;
            }
        }
        for document in documents {
            // An index may reject a document.
            let insert = doc! { "insert": COLLECTION, "documents": [document.clone()] };
            assert_eq!(run(&plain, &insert).await, run(&inside, &insert).await);
        }
        inside.begin().await;
        Self { plain, inside, commands: Vec::new() }
    }

    fn check(&self, plain: &Outcome, inside: &Outcome) {
        let commands = Bson::Array(self.commands.iter().cloned().map(Bson::Document).collect());
        assert!(plain.agrees(inside), "outside {plain}\n    inside  {inside}\n    commands {commands}");
    }

    /// Runs a command on both sides. Returns true if it succeeded.
    async fn run(&mut self, command: &Document) -> bool {
        self.commands.push(command.clone());
        let plain = run(&self.plain, command).await;
        if plain.failure.is_none() {
            self.check(&plain, &run(&self.inside, command).await);
            return true;
        }
        // A failed command ends the transaction, so it has one of its own.
        self.commit().await;
        self.commands.push(command.clone());
        self.check(&plain, &run(&self.inside, command).await);
        self.inside.abort().await;
        self.inside.begin().await;
        self.commands.clear();
        false
    }

    /// Commits the transaction, compares all documents, and begins another transaction.
    async fn commit(&mut self) {
        let plain = left(&self.plain).await;
        self.check(&plain, &left(&self.inside).await);
        self.inside.commit().await.expect("no other write conflicts");
        self.check(&plain, &left(&self.inside).await);
        self.inside.begin().await;
        self.commands.clear();
    }
}

#[tokio::test]
async fn commands_have_the_same_results_inside_transactions_as_outside() {
    let batches = std::env::var("TRANSACTION_BATCHES").ok().and_then(|batches| batches.parse().ok()).unwrap_or(60);
    let seed = std::env::var("TRANSACTION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(23);
    let (mut succeeded, mut failed, mut changed) = (0, 0, 0);
    for batch in 0..batches {
        let mut generator = Generator::new(seed, batch);
        let mut reads = generator.reads(60);
        let documents = reads[0].documents.clone();
        let mut changes = generator.changes(30);
        let mut updates = generator.updates(24);
        let mut pair = Pair::new(&mut generator, &documents).await;
        for step in 0..90 {
            let command = match step % 6 {
                0 => changes.pop().map(|case| case.command),
                1 => updates.pop().map(|case| case.command),
                // Deleted documents come back, and existing ones are rejected.
                2 => {
                    let document = documents[step * 7 % documents.len()].clone();
                    Some(doc! { "insert": COLLECTION, "documents": [document] })
                }
                _ => reads.pop().map(|case| case.command),
            };
            let Some(command) = command else { continue };
            let before = text(&left(&pair.plain).await.reply);
            *(if pair.run(&command).await { &mut succeeded } else { &mut failed }) += 1;
            changed += u64::from(text(&left(&pair.plain).await.reply) != before);
            if step % COMMITTED_AFTER == COMMITTED_AFTER - 1 {
                pair.commit().await;
            }
        }
        pair.commit().await;
        let findings = pair.inside.store().check(false, Progress::default()).await.unwrap();
        assert_eq!(findings, [], "batch {batch}");
    }
    assert!(succeeded > 50 * batches && failed > 5 * batches, "{succeeded} commands succeeded, {failed} failed");
    assert!(changed > 6 * batches, "{changed} commands changed documents in {batches} batches");
}
