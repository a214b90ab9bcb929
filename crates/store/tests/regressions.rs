//! Regressions found by comparison with another server (`npm run differential`). Each is reduced
//! to the smallest case: documents, a command, its reply, and the documents that remain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bson::{Bson, Document};
use testing::case::{Case, Outcome, Server};

fn read(line: &str) -> Document {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    match Bson::try_from(value) {
        Ok(Bson::Document(line)) => line,
        other => panic!("{line}: {other:?}"),
    }
}

#[tokio::test]
async fn fixed_differences_stay_fixed() {
    let mut server = Server::ours();
    let mut wrong = Vec::new();
    for line in include_str!("regressions.jsonl").lines() {
        let line = read(line);
        let case = Case::of(&line);
        let expected = Outcome::of(line.get_document("expected").expect("the expected outcome"));
        let outcome = server.outcome(&case).await;
        if !outcome.agrees(&expected) {
            wrong.push(format!("{case}\n    expected {expected}\n         got {outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
