//! Queries and writes have the same result with and without every index, over random documents,
//! queries, updates and indexes. `INDEX_BATCHES=1000 cargo test -p userkeep-store --test indexes`
//! runs for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bson::{Bson, Document, doc};
use testing::{
    case::{self, COLLECTION, Case, Server},
    generate::Generator,
};

/// Creates those indexes that the documents allow, and returns their number.
async fn index(server: &Server, indexes: &[Document]) -> usize {
    let mut made = 0;
    for (place, index) in indexes.iter().enumerate() {
        let mut index = index.clone();
        index.insert("name", format!("index_{place}"));
        let command = doc! { "createIndexes": COLLECTION, "indexes": [index] };
        made += usize::from(server.run(&command).await.is_ok());
    }
    made
}

async fn compare(plain: &Server, indexed: &Server, case: &Case, indexes: &[Document]) {
    let without = case::outcome(plain.run(&case.command).await, Vec::new());
    let with = case::outcome(indexed.run(&case.command).await, Vec::new());
    // With an index a query examines fewer documents, so it may miss one for which an expression
    // fails.
    let may_fail = without.failure.is_some() && case.command.to_string().contains("$expr");
    assert!(
        without.agrees(&with) || may_fail,
        "{case}\n    with    {with}\n    without {without}\n    indexes {}",
        Bson::Array(indexes.iter().cloned().map(Bson::Document).collect())
    );
}

#[tokio::test]
async fn queries_and_writes_have_the_same_result_with_and_without_indexes() {
    let batches = std::env::var("INDEX_BATCHES").ok().and_then(|batches| batches.parse().ok()).unwrap_or(60);
    let seed = std::env::var("INDEX_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let (mut made, mut compared) = (0, 0);
    for batch in 0..batches {
        let mut generator = Generator::new(seed, batch);
        let cases = generator.reads(60);
        let indexes = generator.indexes(4);
        let (mut plain, mut indexed) = (Server::ours(), Server::ours());
        plain.fill(&cases[0].documents).await;
        // Half of the indexes are created before the documents, so that writes maintain them, and
        // half over existing documents.
        let (before, after) = indexes.split_at(2);
        let changes = generator.changes(10);
        indexed.fill(&[]).await;
        made += index(&indexed, before).await;
        let documents = cases[0].documents.clone();
        let filled = doc! { "insert": COLLECTION, "documents": documents };
        if !indexed.run(&filled).await.is_ok_and(|reply| !reply.contains_key("writeErrors")) {
            // An index rejects a document in which its paths lead through several arrays.
            indexed.fill(&cases[0].documents).await;
        }
        made += index(&indexed, after).await;
        for case in &cases {
            compare(&plain, &indexed, case, &indexes).await;
        }
        for case in &changes {
            // A write that an index rejects is skipped on the other side too.
            let with = case::outcome(indexed.run(&case.command).await, Vec::new());
            if with.failure == Some(171) {
                continue;
            }
            let without = case::outcome(plain.run(&case.command).await, Vec::new());
            let may_fail = without.failure.is_some() && case.command.to_string().contains("$expr");
            if may_fail && with.failure.is_none() {
                // The write was applied on one side only, so the sides now differ.
                break;
            }
            if with.failure.is_none() || without.failure.is_none() {
                assert!(with.agrees(&without), "{case}\n    with    {with}\n    without {without}");
            }
        }
        let left = [plain.left().await, indexed.left().await].map(|left| case::outcome(Ok(Document::new()), left));
        if left[0].leaves_as(&left[1]) {
            compared += 1;
            for case in &cases {
                compare(&plain, &indexed, case, &indexes).await;
            }
        }
    }
    assert!(made as u64 > batches, "{made} indexes in {batches} batches");
    assert!(compared > batches / 2, "{compared} of {batches} batches were equal after the changes");
}
