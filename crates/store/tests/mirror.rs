//! A client that applies all change events has the same documents as the store, over random
//! documents and updates. `MIRROR_BATCHES=2000 cargo test -p userkeep-store --test mirror` runs
//! for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, time::Duration};

use bson::{
    Bson, Document, doc,
    raw::{RawDocument, RawDocumentBuf},
};
use query::{Filter, Update, encode_key};
use store::{ChangeKind, ChangeStream, Find, Namespace, ResumeToken, Store, SystemEnvironment, Watch};
use testing::{
    case::{COLLECTION, text},
    commands::Database,
    generate::Generator,
};

/// The documents of a client, by the keys of their `_id`s.
type Mirror = BTreeMap<Vec<u8>, RawDocumentBuf>;

/// Returns a document as text that does not depend on the order of its fields.
fn unordered(document: &RawDocument) -> String {
    fn sorted(value: Bson) -> Bson {
        match value {
            Bson::Document(document) => {
                let fields: BTreeMap<String, Bson> = document.into_iter().collect();
                Bson::Document(fields.into_iter().map(|(name, value)| (name, sorted(value))).collect())
            }
            Bson::Array(items) => Bson::Array(items.into_iter().map(sorted).collect()),
            value => value,
        }
    }
    let Bson::Document(document) = sorted(Bson::Document(Document::try_from(document).unwrap())) else {
        unreachable!()
    };
    text(&document)
}

/// Applies an update description with MongoDB's own operators.
fn follow(before: &RawDocument, description: &RawDocument) -> RawDocumentBuf {
    let set = Document::try_from(description.get_document("updatedFields").unwrap()).unwrap();
    let removed = description.get_array("removedFields").unwrap().into_iter();
    let unset: Document = removed.map(|path| (path.unwrap().as_str().unwrap().to_owned(), Bson::Int32(1))).collect();
    let mut update = Document::new();
    for (operator, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            update.insert(operator, fields);
        }
    }
    if update.is_empty() {
        return before.to_owned();
    }
    let update = Update::parse(&RawDocumentBuf::try_from(&update).unwrap()).unwrap();
    update.apply(before, &Filter::all(), &SystemEnvironment).unwrap()
}

/// Applies the events up to a token, and returns the number of updates.
async fn follow_events(stream: &mut Box<dyn ChangeStream>, end: &ResumeToken, mirror: &mut Mirror) -> usize {
    let mut updates = 0;
    while stream.position().as_ref() != Some(end) {
        let events = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("events come");
        for event in events.unwrap() {
            let key = encode_key(event.id());
            match event.kind {
                ChangeKind::Delete => drop(mirror.remove(&key).expect("the deleted document exists")),
                ChangeKind::Update => {
                    let before = &mirror[&key];
                    let description = event.description.as_ref().unwrap();
                    let after = follow(before, description);
                    assert_eq!(
                        unordered(&after),
                        unordered(event.known()),
                        "from {} by {}",
                        text(&Document::try_from(before.clone()).unwrap()),
                        text(&Document::try_from(description.clone()).unwrap())
                    );
                    updates += 1;
                    mirror.insert(key, event.known().to_owned());
                }
                _ => drop(mirror.insert(key, event.known().to_owned())),
            }
        }
    }
    updates
}

#[tokio::test]
async fn a_client_that_applies_all_events_has_the_documents_of_the_store() {
    let batches = std::env::var("MIRROR_BATCHES").ok().and_then(|batches| batches.parse().ok()).unwrap_or(40);
    let seed = std::env::var("MIRROR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let mut updates = 0;
    for batch in 0..batches {
        let mut generator = Generator::new(seed, batch);
        let database = Database::new();
        let namespace = Namespace::new("ns1", COLLECTION);
        let watch = || Watch { namespace: namespace.clone(), after: None, owner: None };
        let mut stream = database.store().watch(watch()).await.unwrap();
        let mut mirror = Mirror::new();
        let mut cases = generator.updates(60);
        let documents: Vec<Document> = cases.iter().flat_map(|case| case.documents.clone()).collect();
        database.run(&doc! { "insert": COLLECTION, "documents": documents }).await.unwrap();
        cases.extend(generator.changes(20));
        for case in &cases {
            // Some commands are rejected, and emit no events.
            let _ = database.run(&case.command).await;
        }
        let end = database.store().watch(watch()).await.unwrap().position().unwrap();
        updates += follow_events(&mut stream, &end, &mut mirror).await;
        let stored = database.store().find(Find::new(namespace.clone(), Filter::all())).await.unwrap();
        let stored: Mirror =
            stored.into_iter().map(|document| (encode_key(query::get(&document, "_id").unwrap()), document)).collect();
        assert_eq!(mirror, stored, "batch {batch}");
    }
    assert!(updates > batches as usize * 8, "{updates} updates in {batches} batches");
}
