//! Tests of transactions that repeat their writes after a conflict, on each kind of store.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use bson::{Document, doc};
use store::{Error, Find, Modify, Operation, Replaying, Returning, Store, Transaction, TransactionLimits, Write};
use support::world::{World, all, documents, filter, insert, namespace, on_every_store, set, update};

on_every_store! {
    writes_are_seen_at_once_and_applied_with_the_commit,
    a_conflict_repeats_the_writes_on_the_changed_document,
    a_changed_outcome_is_a_conflict_for_good,
    an_upserted_document_keeps_its_id,
    an_upsert_whose_document_exists_now_is_a_conflict_for_good,
    an_upsert_by_id_updates_the_document_that_exists_now,
    an_upsert_that_returns_its_document_keeps_its_id,
    an_upsert_that_has_returned_its_document_is_a_conflict_if_another_one_exists_now,
    inserted_documents_without_an_id_keep_theirs,
    a_failed_write_does_not_end_the_transaction,
    the_writes_of_an_aborted_part_are_left_out,
    nothing_is_applied_without_a_commit,
    a_transaction_ends_after_its_time,
    the_time_of_a_transaction_begins_with_its_first_operation,
}

fn replaying(store: &Arc<dyn Store>) -> Arc<Replaying> {
    Arc::new(Replaying::new(Arc::clone(store), TransactionLimits::default()))
}

/// Begins a transaction whose snapshot exists before the writes that follow.
async fn begun(store: &Arc<dyn Store>) -> Arc<Replaying> {
    let transaction = replaying(store);
    inside(&*transaction, doc! { "_id": -1 }).await;
    transaction
}

async fn inside(transaction: &dyn Transaction, find: Document) -> Vec<Document> {
    documents(transaction.find(Find::new(namespace(), filter(find))).await.unwrap())
}

async fn write(store: &Arc<dyn Store>, write: Write) {
    store.write(vec![write]).await.unwrap();
}

fn increment(id: i32) -> Write {
    update(doc! { "_id": id }, doc! { "$inc": { "n": 1 } }, false, false)
}

fn upsert(find: Document, change: Document) -> Write {
    update(find, change, false, true)
}

fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Query(error) if error.code == query::ErrorCode::WriteConflict)
}

async fn writes_are_seen_at_once_and_applied_with_the_commit(world: &World) {
    let store = world.store();
    let transaction = replaying(&store);
    assert!(transaction.is_unused().await);
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    assert!(!transaction.is_unused().await);
    assert_eq!(inside(&*transaction, doc! {}).await, [doc! { "_id": 1 }]);
    assert!(all(&*store, doc! {}).await.is_empty());
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1 }]);
    let late = transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap_err();
    assert!(matches!(late, Error::Query(error) if error.code == query::ErrorCode::TransactionCommitted));
}

async fn a_conflict_repeats_the_writes_on_the_changed_document(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begun(&store).await;
    transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap();
    write(&store, increment(1)).await;
    assert_eq!(transaction.write(increment(1)).await.unwrap().modified, 1);
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! { "_id": 1 }).await, [doc! { "_id": 1, "n": 2 }]);
    assert_eq!(all(&*store, doc! { "_id": 2 }).await.len(), 1);
}

async fn a_changed_outcome_is_a_conflict_for_good(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }, doc! { "_id": 3, "n": 0 }])).await;
    let transaction = begun(&store).await;
    let Operation::Modify(modify) = increment(1).operation else { unreachable!() };
    let returning = Modify { returning: Returning::After, ..*modify };
    let first = transaction.write(Write::new(namespace(), Operation::modify(returning))).await.unwrap();
    assert_eq!(first.document.unwrap().get_i32("n").unwrap(), 1);
    // The abort of a part ends the transaction on the server, with its locks. A new one follows.
    let part = transaction.begin_part().await.unwrap();
    part.write(increment(3)).await.unwrap();
    part.abort().await.unwrap();
    write(&store, increment(1)).await;
    assert!(is_conflict(&transaction.commit().await.unwrap_err()));
    assert_eq!(all(&*store, doc! { "_id": 1 }).await, [doc! { "_id": 1, "n": 1 }]);
}

async fn an_upserted_document_keeps_its_id(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begun(&store).await;
    let outcome = transaction.write(upsert(doc! { "name": "a" }, doc! { "$set": { "n": 5 } })).await.unwrap();
    write(&store, increment(1)).await;
    transaction.write(increment(1)).await.unwrap();
    transaction.commit().await.unwrap();
    let found = all(&*store, doc! { "name": "a" }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].get_object_id("_id").ok(), outcome.upserted_id.unwrap().as_object_id());
    assert_eq!(found[0].get_i32("n").unwrap(), 5);
}

async fn an_upsert_whose_document_exists_now_is_a_conflict_for_good(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begun(&store).await;
    transaction.write(upsert(doc! { "name": "a" }, doc! { "$set": { "n": 5 } })).await.unwrap();
    write(&store, insert(vec![doc! { "_id": 2, "name": "a" }])).await;
    write(&store, increment(1)).await;
    let done = match transaction.write(increment(1)).await {
        Ok(_) => transaction.commit().await,
        Err(error) => Err(error),
    };
    assert!(is_conflict(&done.unwrap_err()));
    assert_eq!(all(&*store, doc! { "name": "a" }).await.len(), 1);
    assert_eq!(all(&*store, doc! { "_id": 1 }).await, [doc! { "_id": 1, "n": 1 }]);
}

async fn an_upsert_by_id_updates_the_document_that_exists_now(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begun(&store).await;
    let count = || upsert(doc! { "_id": 2 }, doc! { "$inc": { "n": 1 } });
    write(&store, count()).await;
    transaction.write(count()).await.unwrap();
    write(&store, increment(1)).await;
    transaction.write(increment(1)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! { "_id": 2 }).await, [doc! { "_id": 2, "n": 2 }]);
}

/// Returns an upsert that answers the document, before or after the change.
fn find_and_upsert(find: Document, change: Document, returning: Returning) -> Write {
    let Operation::Modify(modify) = upsert(find, change).operation else { unreachable!("an upsert modifies") };
    Write::new(namespace(), Operation::modify(Modify { returning, ..*modify }))
}

async fn an_upsert_that_returns_its_document_keeps_its_id(world: &World) {
    for returning in [Returning::Before, Returning::After] {
        let store = world.store();
        write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
        let transaction = begun(&store).await;
        let change = find_and_upsert(doc! { "name": "a" }, doc! { "$set": { "n": 5 } }, returning);
        let outcome = transaction.write(change).await.unwrap();
        // A failed write, which the caller catches, makes the transaction repeat its writes.
        assert!(transaction.write(insert(vec![doc! { "_id": 1 }])).await.is_err());
        transaction.write(increment(1)).await.unwrap();
        transaction.commit().await.unwrap();
        let found = all(&*store, doc! { "name": "a" }).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].get_object_id("_id").ok(), outcome.upserted_id.unwrap().as_object_id());
    }
}

async fn an_upsert_that_has_returned_its_document_is_a_conflict_if_another_one_exists_now(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begun(&store).await;
    let change = find_and_upsert(doc! { "name": "a" }, doc! { "$set": { "n": 5 } }, Returning::After);
    transaction.write(change).await.unwrap();
    write(&store, insert(vec![doc! { "_id": 2, "name": "a" }])).await;
    write(&store, increment(1)).await;
    let done = match transaction.write(increment(1)).await {
        Ok(_) => transaction.commit().await,
        Err(error) => Err(error),
    };
    assert!(is_conflict(&done.unwrap_err()));
    assert_eq!(all(&*store, doc! { "name": "a" }).await, [doc! { "_id": 2, "name": "a" }]);
}

async fn inserted_documents_without_an_id_keep_theirs(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begun(&store).await;
    let ids = transaction.write(insert(vec![doc! { "a": 1 }, doc! { "a": 2 }])).await.unwrap().inserted_ids;
    write(&store, increment(1)).await;
    transaction.write(increment(1)).await.unwrap();
    transaction.commit().await.unwrap();
    let found = all(&*store, doc! { "a": { "$exists": true } }).await;
    let found: Vec<_> = found.iter().map(|document| document.get_object_id("_id").unwrap()).collect();
    assert_eq!(found, ids.iter().map(|id| id.as_object_id().unwrap()).collect::<Vec<_>>());
}

async fn a_failed_write_does_not_end_the_transaction(world: &World) {
    let store = world.store();
    let transaction = replaying(&store);
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    let twice = transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap_err();
    assert!(matches!(twice, Error::DuplicateKey { .. }));
    transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap();
    assert_eq!(inside(&*transaction, doc! {}).await.len(), 2);
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await.len(), 2);
}

async fn the_writes_of_an_aborted_part_are_left_out(world: &World) {
    let store = world.store();
    let transaction = replaying(&store);
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    let kept = transaction.begin_part().await.unwrap();
    kept.write(insert(vec![doc! { "_id": 2 }])).await.unwrap();
    kept.commit().await.unwrap();
    let aborted = transaction.begin_part().await.unwrap();
    aborted.write(insert(vec![doc! { "_id": 3 }])).await.unwrap();
    aborted.write(set(doc! { "_id": 1 }, doc! { "n": 1 })).await.unwrap();
    assert_eq!(inside(&*transaction, doc! {}).await.len(), 3);
    aborted.abort().await.unwrap();
    assert_eq!(inside(&*transaction, doc! {}).await, [doc! { "_id": 1 }, doc! { "_id": 2 }]);
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1 }, doc! { "_id": 2 }]);
}

async fn nothing_is_applied_without_a_commit(world: &World) {
    let store = world.store();
    let transaction = replaying(&store);
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    drop(transaction);
    let transaction = replaying(&store);
    transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap();
    transaction.abort().await.unwrap();
    assert!(transaction.commit().await.is_err());
    assert!(all(&*store, doc! {}).await.is_empty());
}

async fn a_transaction_ends_after_its_time(world: &World) {
    let store = world.store();
    let limits = TransactionLimits { time: Duration::from_millis(300), ..TransactionLimits::default() };
    let transaction = Replaying::new(Arc::clone(&store), limits);
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(transaction.write(insert(vec![doc! { "_id": 2 }])).await.is_err());
    assert!(transaction.commit().await.is_err());
    assert!(all(&*store, doc! {}).await.is_empty());
}

async fn the_time_of_a_transaction_begins_with_its_first_operation(world: &World) {
    let store = world.store();
    let limits = TransactionLimits { time: Duration::from_secs(1), ..TransactionLimits::default() };
    let transaction = Replaying::new(Arc::clone(&store), limits);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await.len(), 1);
}
