//! The conformance tests of transactions: one list that runs on each kind of store.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use bson::{Document, doc, raw::RawDocumentBuf, rawdoc};
use query::{Filter, Path, Pipeline, Sort};
use store::{
    Aggregate, Change, ChangeKind, Count, Error, Find, Index, Modify, Operation, Returning, Store, Transaction,
    TransactionLimits, Watch, Write,
};
use support::world::{
    Owner, World, all, collection, delete, documents, filter, insert, namespace, on_every_store, set, update,
};

on_every_store! {
    a_transaction_reads_its_own_writes_and_others_see_them_after_the_commit,
    a_transaction_does_not_see_later_writes_of_others,
    a_changed_document_is_a_conflict_and_nothing_is_written,
    writes_to_other_documents_are_no_conflict,
    a_document_that_was_deleted_or_inserted_meanwhile_is_a_conflict,
    upserts_see_the_writes_of_the_transaction,
    a_deleted_document_can_be_inserted_again,
    documents_can_exchange_unique_keys,
    a_duplicate_key_aborts_the_transaction,
    a_unique_key_that_another_write_has_taken_is_a_conflict,
    an_update_of_many_documents_is_seen_by_later_operations,
    an_aggregation_sees_the_writes_of_the_transaction,
    sorts_and_limits_apply_to_written_and_stored_documents,
    an_index_finds_written_documents,
    a_guard_hides_written_documents,
    a_denied_write_aborts_the_transaction,
    an_aborted_or_dropped_transaction_leaves_nothing,
    a_transaction_ends_when_its_time_is_over,
    writes_beyond_the_size_limit_abort_the_transaction,
    change_events_come_after_the_commit_only,
    a_repeated_commit_succeeds_and_a_later_operation_fails,
    concurrent_operations_of_a_transaction_run_one_after_the_other,
}

async fn begin(store: &Arc<dyn Store>) -> Arc<dyn Transaction> {
    store.begin(TransactionLimits::default()).await.unwrap()
}

/// Begins a transaction, and reads a document so that the snapshot exists on every store.
async fn begin_and_read(store: &Arc<dyn Store>) -> Arc<dyn Transaction> {
    let transaction = begin(store).await;
    inside(&*transaction, doc! { "_id": -1 }).await;
    transaction
}

/// Writes outside a transaction.
async fn write(store: &Arc<dyn Store>, write: Write) {
    store.write(vec![write]).await.unwrap();
}

/// Returns the documents that a transaction sees.
async fn inside(transaction: &dyn Transaction, find: Document) -> Vec<Document> {
    documents(transaction.find(Find::new(namespace(), filter(find))).await.unwrap())
}

/// Returns the error code and true if a new transaction may succeed.
fn code(error: &Error) -> (i32, bool) {
    match error {
        Error::TransientTransaction(cause) => {
            assert_eq!(error.label(), Some("TransientTransactionError"));
            (code(cause).0, true)
        }
        Error::Query(error) => (error.number(), false),
        Error::DuplicateKey { .. } => (11000, false),
        Error::Denied(_) => (-1, false),
        other => {
            assert!(matches!(other, Error::Unavailable { .. }), "{other:?}");
            (0, false)
        }
    }
}

const CONFLICT: (i32, bool) = (112, true);
const ABORTED: i32 = 251;

/// Applies a write and commits, and returns the code of the first error. MongoDB reports a
/// conflict with the write, and an embedded store with the commit.
async fn write_and_commit(transaction: &dyn Transaction, write: Write) -> Option<(i32, bool)> {
    let answer = match transaction.write(write).await {
        Ok(_) => transaction.commit().await,
        Err(error) => Err(error),
    };
    answer.err().map(|error| code(&error))
}

async fn a_transaction_reads_its_own_writes_and_others_see_them_after_the_commit(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 2 }])).await;
    let transaction = begin(&store).await;
    let inserted = transaction.write(insert(vec![doc! { "_id": 3, "n": 3 }])).await.unwrap();
    assert_eq!(inserted.inserted_ids.len(), 1);
    let changed = transaction.write(set(doc! { "_id": 1 }, doc! { "n": 10 })).await.unwrap();
    assert_eq!((changed.matched, changed.modified), (1, 1));
    assert_eq!(transaction.write(delete(doc! { "_id": 2 }, false)).await.unwrap().deleted, 1);
    assert_eq!(inside(&*transaction, doc! {}).await, [doc! { "_id": 1, "n": 10 }, doc! { "_id": 3, "n": 3 }]);
    assert_eq!(inside(&*transaction, doc! { "_id": 2 }).await.len(), 0);
    assert_eq!(inside(&*transaction, doc! { "n": { "$gt": 5 } }).await.len(), 1);
    assert_eq!(inside(&*transaction, doc! { "_id": { "$in": [2, 3] } }).await.len(), 1);
    assert_eq!(transaction.count(Count::new(namespace(), filter(doc! { "n": { "$gte": 3 } }))).await.unwrap(), 2);
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 2 }]);
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 10 }, doc! { "_id": 3, "n": 3 }]);
}

async fn a_transaction_does_not_see_later_writes_of_others(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 2 }])).await;
    let transaction = begin_and_read(&store).await;
    write(&store, set(doc! { "_id": 1 }, doc! { "n": 100 })).await;
    write(&store, insert(vec![doc! { "_id": 5, "n": 100 }])).await;
    write(&store, delete(doc! { "_id": 2 }, false)).await;
    let before = [doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 2 }];
    assert_eq!(inside(&*transaction, doc! {}).await, before);
    assert_eq!(inside(&*transaction, doc! { "_id": 1 }).await, before[..1]);
    assert_eq!(transaction.count(Count::new(namespace(), filter(doc! { "n": 100 }))).await.unwrap(), 0);
    // A transaction that only reads has no conflict.
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! { "n": 100 }).await.len(), 2);
}

async fn a_changed_document_is_a_conflict_and_nothing_is_written(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 1 }])).await;
    for change in [set(doc! { "_id": 1 }, doc! { "n": 5 }), delete(doc! { "_id": 1 }, false)] {
        let transaction = begin_and_read(&store).await;
        transaction.write(insert(vec![doc! { "_id": 3 }])).await.unwrap();
        write(&store, update(doc! { "_id": 1 }, doc! { "$inc": { "n": 1 } }, false, false)).await;
        assert_eq!(write_and_commit(&*transaction, change).await, Some(CONFLICT));
        let after = transaction.find(Find::new(namespace(), Filter::all())).await.unwrap_err();
        assert_eq!(code(&after), (ABORTED, true), "a caller that ignored the conflict can retry");
        assert_eq!(all(&*store, doc! { "_id": 3 }).await.len(), 0);
        assert_eq!(all(&*store, doc! {}).await.len(), 2);
    }
    assert_eq!(all(&*store, doc! { "_id": 1 }).await, [doc! { "_id": 1, "n": 3 }]);
}

async fn writes_to_other_documents_are_no_conflict(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 2 }])).await;
    let transaction = begin_and_read(&store).await;
    write(&store, set(doc! { "_id": 2 }, doc! { "n": 20 })).await;
    write(&store, insert(vec![doc! { "_id": 3, "n": 3 }])).await;
    assert_eq!(write_and_commit(&*transaction, set(doc! { "_id": 1 }, doc! { "n": 10 })).await, None);
    let n = all(&*store, doc! {}).await.iter().map(|document| document.get_i32("n").unwrap()).collect::<Vec<_>>();
    assert_eq!(n, [10, 20, 3]);
}

async fn a_document_that_was_deleted_or_inserted_meanwhile_is_a_conflict(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }])).await;
    let transaction = begin_and_read(&store).await;
    write(&store, delete(doc! { "_id": 1 }, false)).await;
    assert_eq!(write_and_commit(&*transaction, set(doc! { "_id": 1 }, doc! { "n": 2 })).await, Some(CONFLICT));
    let transaction = begin_and_read(&store).await;
    write(&store, insert(vec![doc! { "_id": 7, "n": 1 }])).await;
    assert_eq!(write_and_commit(&*transaction, insert(vec![doc! { "_id": 7, "n": 2 }])).await, Some(CONFLICT));
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 7, "n": 1 }]);
}

async fn upserts_see_the_writes_of_the_transaction(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 0, "k": "z" }])).await;
    let transaction = begin(&store).await;
    let upsert = || update(doc! { "_id": 1, "k": "a" }, doc! { "$inc": { "n": 1 } }, false, true);
    let made = transaction.write(upsert()).await.unwrap();
    assert!(made.upserted_id.is_some() && made.matched == 0, "{made:?}");
    let found = transaction.write(upsert()).await.unwrap();
    assert!(found.upserted_id.is_none() && (found.matched, found.modified) == (1, 1), "{found:?}");
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! { "k": "a" }).await, [doc! { "_id": 1, "k": "a", "n": 2 }]);
}

async fn a_deleted_document_can_be_inserted_again(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }])).await;
    let transaction = begin(&store).await;
    for n in [2, 3] {
        transaction.write(delete(doc! { "_id": 1 }, false)).await.unwrap();
        assert_eq!(inside(&*transaction, doc! {}).await.len(), 0);
        transaction.write(insert(vec![doc! { "_id": 1, "n": n }])).await.unwrap();
        assert_eq!(inside(&*transaction, doc! { "_id": 1 }).await, [doc! { "_id": 1, "n": n }]);
    }
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 3 }]);
}

async fn with_unique_keys(world: &World) -> Arc<dyn Store> {
    let store = world.store();
    store.ensure_indexes(namespace(), vec![Index::on(Path::new("key")).unique()]).await.unwrap();
    write(&store, insert(vec![doc! { "_id": 1, "key": "a" }, doc! { "_id": 2, "key": "b" }])).await;
    store
}

async fn documents_can_exchange_unique_keys(world: &World) {
    let store = with_unique_keys(world).await;
    let transaction = begin(&store).await;
    for (id, key) in [(1, "c"), (2, "a"), (1, "b")] {
        transaction.write(set(doc! { "_id": id }, doc! { "key": key })).await.unwrap();
    }
    let mut of_b = doc! { "_id": 1, "key": "b" };
    // The test server rejects this, although MongoDB accepts it.
    if !store.is_remote() {
        transaction.write(delete(doc! { "_id": 1 }, false)).await.unwrap();
        of_b = doc! { "_id": 3, "key": "b" };
        transaction.write(insert(vec![of_b.clone()])).await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! { "key": "a" }).await, [doc! { "_id": 2, "key": "a" }]);
    assert_eq!(all(&*store, doc! { "key": "b" }).await, [of_b]);
    assert_eq!(all(&*store, doc! { "key": "c" }).await.len(), 0);
}

async fn a_duplicate_key_aborts_the_transaction(world: &World) {
    let store = with_unique_keys(world).await;
    write(&store, delete(doc! { "_id": 2 }, false)).await;
    for twice in [doc! { "_id": 1, "key": "x" }, doc! { "_id": 9, "key": "a" }, doc! { "_id": 9, "key": "new" }] {
        let transaction = begin(&store).await;
        transaction.write(insert(vec![doc! { "_id": 5, "key": "new" }])).await.unwrap();
        let error = transaction.write(insert(vec![twice])).await.unwrap_err();
        assert!(error.to_string().contains("E11000 duplicate key error collection"), "{error}");
        assert_eq!(code(&error), (11000, false));
        assert_eq!(code(&transaction.commit().await.unwrap_err()).0, ABORTED);
        assert_eq!(all(&*store, doc! {}).await.len(), 1);
    }
}

async fn a_unique_key_that_another_write_has_taken_is_a_conflict(world: &World) {
    let store = with_unique_keys(world).await;
    let transaction = begin_and_read(&store).await;
    write(&store, insert(vec![doc! { "_id": 3, "key": "c" }])).await;
    let answer = write_and_commit(&*transaction, insert(vec![doc! { "_id": 4, "key": "c" }])).await;
    assert_eq!(answer, Some(CONFLICT));
    assert_eq!(all(&*store, doc! { "key": "c" }).await.len(), 1);
    // The next attempt sees the other document.
    let transaction = begin(&store).await;
    let answer = write_and_commit(&*transaction, insert(vec![doc! { "_id": 4, "key": "c" }])).await;
    assert_eq!(answer, Some((11000, false)));
}

async fn an_update_of_many_documents_is_seen_by_later_operations(world: &World) {
    let store = world.store();
    write(&store, insert((0..300).map(|n| doc! { "_id": n, "n": n % 3, "x": 0 }).collect())).await;
    let transaction = begin(&store).await;
    let inc = |n| update(doc! { "n": n }, doc! { "$inc": { "x": 1, "n": 1 } }, true, false);
    assert_eq!(transaction.write(inc(0)).await.unwrap().modified, 100);
    assert_eq!(transaction.write(inc(1)).await.unwrap().modified, 200);
    assert_eq!(transaction.write(delete(doc! { "x": 2 }, true)).await.unwrap().deleted, 100);
    assert_eq!(transaction.count(Count::new(namespace(), filter(doc! { "n": 2 }))).await.unwrap(), 200);
    transaction.commit().await.unwrap();
    let found = all(&*store, doc! { "n": 2 }).await;
    assert_eq!(found.iter().filter(|document| document.get_i32("x").unwrap() == 1).count(), 100);
    assert_eq!(all(&*store, doc! {}).await.len(), 200);
}

async fn an_aggregation_sees_the_writes_of_the_transaction(world: &World) {
    let store = world.store();
    write(&store, insert((0..10).map(|n| doc! { "_id": n, "n": n }).collect())).await;
    let transaction = begin(&store).await;
    transaction.write(insert(vec![doc! { "_id": 10, "n": 100 }])).await.unwrap();
    transaction.write(set(doc! { "_id": 0 }, doc! { "n": 1000 })).await.unwrap();
    transaction.write(delete(doc! { "_id": 9 }, false)).await.unwrap();
    let stages = rawdoc! { "all": [
        { "$match": { "n": { "$gte": 5 } } },
        { "$group": { "_id": RawDocumentBuf::new(), "sum": { "$sum": "$n" }, "count": { "$sum": 1 } } },
    ] };
    let run = |stages: RawDocumentBuf| {
        let pipeline = Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
        transaction.aggregate(Aggregate::new(namespace(), pipeline))
    };
    let sums = documents(run(stages).await.unwrap());
    assert_eq!(sums.len(), 1);
    let number = |name| sums[0].get(name).and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from))).unwrap();
    assert_eq!((number("sum"), number("count")), (5 + 6 + 7 + 8 + 100 + 1000, 6));
    let by_id = documents(run(rawdoc! { "all": [{ "$match": { "_id": { "$in": [0, 9, 10] } } }] }).await.unwrap());
    assert_eq!(by_id, [doc! { "_id": 0, "n": 1000 }, doc! { "_id": 10, "n": 100 }]);
    // An open transaction delays the change streams of the test server.
    transaction.abort().await.unwrap();
}

async fn sorts_and_limits_apply_to_written_and_stored_documents(world: &World) {
    for index in [None, Some(rawdoc! { "key": { "n": 1 } })] {
        let store = world.store();
        if let Some(index) = index {
            store.ensure_indexes(namespace(), vec![Index::parse(&index).unwrap()]).await.unwrap();
        }
        write(&store, insert((1..=6).map(|n| doc! { "_id": n, "n": 10 * n }).collect())).await;
        let transaction = begin(&store).await;
        transaction.write(insert(vec![doc! { "_id": 7, "n": 25 }])).await.unwrap();
        transaction.write(set(doc! { "_id": 1 }, doc! { "n": 55 })).await.unwrap();
        transaction.write(delete(doc! { "_id": 6 }, false)).await.unwrap();
        let ids = async |order: i32, limit, find: Document| {
            let sort = Some(Sort::parse(&rawdoc! { "n": order }).unwrap());
            let find = Find { sort, limit, ..Find::new(namespace(), filter(find)) };
            let found = documents(transaction.find(find).await.unwrap());
            found.iter().map(|document| document.get_i32("_id").unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids(1, Some(3), doc! {}).await, [2, 7, 3]);
        assert_eq!(ids(-1, Some(3), doc! {}).await, [1, 5, 4]);
        assert_eq!(ids(1, None, doc! { "n": { "$gt": 20, "$lt": 55 } }).await, [7, 3, 4, 5]);
        assert_eq!(ids(-1, Some(2), doc! { "n": { "$gte": 25 } }).await, [1, 5]);
        let first = Modify {
            sort: Some(Sort::parse(&rawdoc! { "n": -1 }).unwrap()),
            returning: Returning::Before,
            ..Modify::new(Filter::all(), false, Change::Delete)
        };
        let deleted = transaction.write(Write::new(namespace(), Operation::modify(first))).await.unwrap();
        assert_eq!(Document::try_from(deleted.document.unwrap()).unwrap(), doc! { "_id": 1, "n": 55 });
        assert_eq!(ids(-1, Some(1), doc! {}).await, [5]);
        transaction.abort().await.unwrap();
        write(&store, delete(doc! {}, true)).await;
    }
}

async fn an_index_finds_written_documents(world: &World) {
    let store = world.store();
    store.ensure_indexes(namespace(), vec![Index::on(Path::new("k"))]).await.unwrap();
    write(&store, insert((0..50).map(|n| doc! { "_id": n, "k": n % 5 }).collect())).await;
    let transaction = begin(&store).await;
    transaction.write(set(doc! { "_id": 3 }, doc! { "k": 100 })).await.unwrap();
    // The index becomes multikey, so both ends of a range may hold for different elements.
    transaction.write(insert(vec![doc! { "_id": 60, "k": [1, 200] }])).await.unwrap();
    assert_eq!(inside(&*transaction, doc! { "k": 3 }).await.len(), 9);
    assert_eq!(inside(&*transaction, doc! { "k": 100 }).await, [doc! { "_id": 3, "k": 100 }]);
    assert_eq!(inside(&*transaction, doc! { "k": 1 }).await.len(), 11);
    assert_eq!(inside(&*transaction, doc! { "k": { "$gt": 150, "$lt": 2 } }).await.len(), 1);
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! { "k": { "$gt": 150, "$lt": 2 } }).await.len(), 1);
    assert_eq!(all(&*store, doc! { "k": 100 }).await.len(), 1);
    assert_eq!(all(&*store, doc! { "k": 3 }).await.len(), 9);
}

async fn a_guard_hides_written_documents(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "owner": "a", "n": 1 }, doc! { "_id": 2, "owner": "b", "n": 2 }])).await;
    let transaction = begin(&store).await;
    transaction
        .write(insert(vec![doc! { "_id": 3, "owner": "b", "n": 3 }, doc! { "_id": 4, "owner": "a", "n": 4 }]))
        .await
        .unwrap();
    let guard = || Some(Arc::new(Owner("a")) as Arc<dyn store::Guard>);
    let seen = transaction.find(Find { guard: guard(), ..Find::new(namespace(), Filter::all()) }).await.unwrap();
    let ids: Vec<i32> = documents(seen).iter().map(|document| document.get_i32("_id").unwrap()).collect();
    assert_eq!(ids, [1, 4]);
    let count = Count { guard: guard(), ..Count::new(namespace(), Filter::all()) };
    assert_eq!(transaction.count(count).await.unwrap(), 2);
    let stages = rawdoc! { "all": [{ "$group": { "_id": "$owner" } }] };
    let pipeline = Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
    let owners = transaction.aggregate(Aggregate { guard: guard(), ..Aggregate::new(namespace(), pipeline) }).await;
    assert_eq!(documents(owners.unwrap()), [doc! { "_id": "a" }]);
    let as_a = |write: Write| Write { guard: guard(), ..write };
    let changed = update(doc! { "n": { "$gt": 0 } }, doc! { "$inc": { "n": 10 } }, true, false);
    assert_eq!(transaction.write(as_a(changed)).await.unwrap().modified, 2);
    transaction.commit().await.unwrap();
    let n: Vec<i32> = all(&*store, doc! {}).await.iter().map(|document| document.get_i32("n").unwrap()).collect();
    assert_eq!(n, [11, 2, 3, 14]);
}

async fn a_denied_write_aborts_the_transaction(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "owner": "a" }, doc! { "_id": 2, "owner": "b" }])).await;
    let as_a = |write: Write| Write { guard: Some(Arc::new(Owner("a"))), ..write };
    for denied in [
        set(doc! { "_id": 2 }, doc! { "x": 1 }),
        set(doc! { "_id": 1 }, doc! { "owner": "b" }),
        insert(vec![doc! { "_id": 8, "owner": "a" }, doc! { "_id": 9, "owner": "b" }]),
        update(doc! { "_id": 9 }, doc! { "$set": { "owner": "b" } }, false, true),
    ] {
        let transaction = begin(&store).await;
        transaction.write(insert(vec![doc! { "_id": 3, "owner": "a" }])).await.unwrap();
        let error = transaction.write(as_a(denied)).await.unwrap_err();
        assert_eq!(error.to_string(), "write not permitted");
        assert!(matches!(error, Error::Denied(_)), "{error:?}");
        assert_eq!(code(&transaction.commit().await.unwrap_err()), (ABORTED, false));
        assert_eq!(all(&*store, doc! {}).await.len(), 2);
    }
}

async fn an_aborted_or_dropped_transaction_leaves_nothing(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }])).await;
    for aborts in [true, false] {
        let transaction = begin(&store).await;
        transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap();
        transaction.write(set(doc! { "_id": 1 }, doc! { "n": 2 })).await.unwrap();
        if aborts {
            transaction.abort().await.unwrap();
            transaction.abort().await.unwrap();
            let error = transaction.write(insert(vec![doc! { "_id": 3 }])).await.unwrap_err();
            assert_eq!(code(&error), (ABORTED, false));
            assert!(error.to_string().ends_with("has been aborted."), "{error}");
            assert_eq!(code(&transaction.commit().await.unwrap_err()), (ABORTED, false));
        }
        drop(transaction);
        assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 1 }]);
    }
    // The server releases the locks of a dropped transaction in the background.
    let again = async {
        while store.write(vec![set(doc! { "_id": 1 }, doc! { "n": 3 })]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 3 }]);
}

async fn a_transaction_ends_when_its_time_is_over(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }])).await;
    let limits = TransactionLimits { time: Duration::from_millis(300), ..TransactionLimits::default() };
    let transaction = store.begin(limits).await.unwrap();
    transaction.write(set(doc! { "_id": 1 }, doc! { "n": 2 })).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    let error = transaction.find(Find::new(namespace(), filter(doc! { "_id": 1 }))).await.unwrap_err();
    assert_eq!(code(&error), (ABORTED, true));
    assert!(error.to_string().contains("has been aborted because it was open for more than 0.3 s"), "{error}");
    assert_eq!(code(&transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap_err()), (ABORTED, true));
    assert_eq!(code(&transaction.commit().await.unwrap_err()), (ABORTED, true));
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 1 }]);
}

async fn writes_beyond_the_size_limit_abort_the_transaction(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 0 }])).await;
    let limits = TransactionLimits { bytes: 20_000, ..TransactionLimits::default() };
    let transaction = store.begin(limits).await.unwrap();
    let large = |id| insert(vec![doc! { "_id": id, "s": "x".repeat(9_000) }]);
    transaction.write(large(1)).await.unwrap();
    transaction.write(large(2)).await.unwrap();
    let error = transaction.write(large(3)).await.unwrap_err();
    assert_eq!(code(&error), (257, false));
    assert_eq!(error.to_string(), "the writes of the transaction exceed 20000 bytes; nothing was written");
    assert_eq!(code(&transaction.commit().await.unwrap_err()), (ABORTED, false));
    assert_eq!(all(&*store, doc! {}).await.len(), 1);
}

async fn change_events_come_after_the_commit_only(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 2 }])).await;
    let watch = Watch { namespace: namespace(), after: None, owner: None };
    let mut stream = store.watch(watch).await.unwrap();
    let aborted = begin(&store).await;
    aborted.write(insert(vec![doc! { "_id": 8 }])).await.unwrap();
    aborted.abort().await.unwrap();
    let transaction = begin(&store).await;
    transaction.write(set(doc! { "_id": 1 }, doc! { "n": 10 })).await.unwrap();
    transaction.write(insert(vec![doc! { "_id": 3 }])).await.unwrap();
    transaction.write(delete(doc! { "_id": 2 }, false)).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
    assert!(!early.is_ok_and(|events| events.is_ok_and(|events| !events.is_empty())));
    transaction.commit().await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        // A test that ended with an open transaction can hold the server's events back for 60 s.
        let events = tokio::time::timeout(Duration::from_secs(90), stream.next()).await.unwrap().unwrap();
        kinds.extend(events.iter().map(|event| (event.kind, event.id().as_i32().unwrap())));
    }
    assert_eq!(kinds, [(ChangeKind::Update, 1), (ChangeKind::Insert, 3), (ChangeKind::Delete, 2)]);
}

async fn a_repeated_commit_succeeds_and_a_later_operation_fails(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 0 }])).await;
    let transaction = begin(&store).await;
    transaction.write(insert(vec![doc! { "_id": 1 }])).await.unwrap();
    transaction.commit().await.unwrap();
    transaction.commit().await.unwrap();
    transaction.abort().await.unwrap();
    let error = transaction.write(insert(vec![doc! { "_id": 2 }])).await.unwrap_err();
    assert_eq!(code(&error), (256, false));
    assert_eq!(all(&*store, doc! {}).await.len(), 2);
    assert_eq!(store.collections().await.unwrap().iter().filter(|name| **name == collection("people")).count(), 1);
}

async fn concurrent_operations_of_a_transaction_run_one_after_the_other(world: &World) {
    let store = world.store();
    write(&store, insert(vec![doc! { "_id": 1, "n": 0 }])).await;
    let transaction = begin(&store).await;
    let increments = (0..20).map(|_| {
        let write = update(doc! { "_id": 1 }, doc! { "$inc": { "n": 1 } }, false, false);
        transaction.write(write)
    });
    for outcome in futures_util::future::join_all(increments).await {
        assert_eq!(outcome.unwrap().modified, 1);
    }
    transaction.commit().await.unwrap();
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1, "n": 20 }]);
}
