//! Transactions of the embedded store: limits, files, indexes that change meanwhile, and the
//! writer, which no transaction holds.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc, time::Duration};

use bson::{Document, doc, raw::RawDocumentBuf};
use query::{Budget, Filter, Limits, Update};
use store::{
    Change, ChangeKind, Error, Find, Index, Location, Maintenance, Modify, Namespace, Operation, Progress, SqliteStore,
    Store, SystemEnvironment, Transaction, TransactionLimits, Watch, Write, WriteLimits,
};

fn people() -> Namespace {
    Namespace::new("app", "people")
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(Location::File(path.to_owned()), Arc::new(SystemEnvironment)).unwrap()
}

fn in_memory() -> SqliteStore {
    SqliteStore::open(Location::Memory, Arc::new(SystemEnvironment)).unwrap()
}

fn insert_into(namespace: Namespace, documents: &[Document]) -> Write {
    let documents = documents.iter().map(|document| RawDocumentBuf::try_from(document).unwrap()).collect();
    Write::new(namespace, Operation::Insert(documents))
}

fn insert(documents: &[Document]) -> Write {
    insert_into(people(), documents)
}

fn set(id: i32, fields: Document) -> Write {
    let update = Update::parse(&RawDocumentBuf::try_from(doc! { "$set": fields }).unwrap()).unwrap();
    let change = Change::Update { update, upsert: false };
    Write::new(people(), Operation::modify(Modify::new(Filter::equals("_id", id), false, change)))
}

async fn all(store: &SqliteStore) -> Vec<Document> {
    let found = store.find(Find::new(people(), Filter::all())).await.unwrap();
    found.into_iter().map(|document| Document::try_from(document).unwrap()).collect()
}

async fn begin(store: &SqliteStore) -> Arc<dyn Transaction> {
    store.begin(TransactionLimits::default()).await.unwrap()
}

fn number(error: &Error) -> i32 {
    match error {
        Error::TransientTransaction(cause) => number(cause),
        Error::Query(error) => error.number(),
        _ => 0,
    }
}

async fn assert_sound(store: &SqliteStore) {
    assert_eq!(store.check(false, Progress::default()).await.unwrap(), []);
}

#[tokio::test]
async fn a_transaction_on_a_missing_file_creates_it_at_the_commit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.sqlite");
    let store = open(&path);
    let transaction = begin(&store).await;
    transaction.write(insert(&[doc! { "_id": 1 }])).await.unwrap();
    transaction.write(insert_into(Namespace::new("app", "others"), &[doc! { "_id": 2 }])).await.unwrap();
    assert!(!path.exists());
    transaction.commit().await.unwrap();
    assert_eq!(all(&store).await, [doc! { "_id": 1 }]);
    assert_eq!(store.collections().await.unwrap().len(), 2);
    assert_sound(&store).await;
}

#[tokio::test]
async fn two_transactions_may_create_the_same_collection() {
    for store in [in_memory(), open(&tempfile::tempdir().unwrap().keep().join("s.sqlite"))] {
        let (one, other, third) = (begin(&store).await, begin(&store).await, begin(&store).await);
        one.write(insert(&[doc! { "_id": 1 }])).await.unwrap();
        other.write(insert(&[doc! { "_id": 2 }])).await.unwrap();
        third.write(insert(&[doc! { "_id": 1 }])).await.unwrap();
        one.commit().await.unwrap();
        other.commit().await.unwrap();
        assert_eq!(number(&third.commit().await.unwrap_err()), 112);
        assert_eq!(all(&store).await, [doc! { "_id": 1 }, doc! { "_id": 2 }]);
        assert_sound(&store).await;
    }
}

#[tokio::test]
async fn invalid_names_are_rejected_by_the_write() {
    let store = in_memory();
    store.write(vec![insert(&[doc! { "_id": 1 }])]).await.unwrap();
    for (name, code) in [(Namespace::new("app", "system.x"), 73), (Namespace::new("APP", "x"), 13297)] {
        let transaction = begin(&store).await;
        let error = transaction.write(insert_into(name, &[doc! {}])).await.unwrap_err();
        assert_eq!(number(&error), code, "{error}");
    }
}

#[tokio::test]
async fn an_index_that_is_created_meanwhile_is_a_conflict_if_documents_were_written() {
    let store = in_memory();
    store.write(vec![insert(&[doc! { "_id": 1, "n": 1 }])]).await.unwrap();
    let (reads, writes) = (begin(&store).await, begin(&store).await);
    writes.write(set(1, doc! { "n": 2 })).await.unwrap();
    let index = Index::parse(&RawDocumentBuf::try_from(doc! { "key": { "n": 1 } }).unwrap()).unwrap();
    store.ensure_indexes(people(), vec![index]).await.unwrap();
    assert_eq!(number(&writes.commit().await.unwrap_err()), 112);
    reads.commit().await.unwrap();
    let again = begin(&store).await;
    again.write(set(1, doc! { "n": 3 })).await.unwrap();
    again.commit().await.unwrap();
    assert_eq!(all(&store).await, [doc! { "_id": 1, "n": 3 }]);
    assert_sound(&store).await;
}

#[tokio::test]
async fn a_document_that_is_written_in_the_end_as_it_was_must_be_unchanged_and_is_not_written() {
    let store = in_memory();
    store.write(vec![insert(&[doc! { "_id": 1, "n": 1 }])]).await.unwrap();
    let transaction = begin(&store).await;
    for n in [2, 1] {
        transaction.write(set(1, doc! { "n": n })).await.unwrap();
    }
    store.write(vec![set(1, doc! { "n": 5 })]).await.unwrap();
    assert_eq!(number(&transaction.commit().await.unwrap_err()), 112);
    let transaction = begin(&store).await;
    for n in [2, 5] {
        transaction.write(set(1, doc! { "n": n })).await.unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(all(&store).await, [doc! { "_id": 1, "n": 5 }]);
}

#[tokio::test]
async fn each_document_has_one_event_from_the_snapshot_to_the_last_version() {
    let store = in_memory();
    store.write(vec![insert(&[1, 2, 3, 4].map(|id| doc! { "_id": id, "n": 1 }))]).await.unwrap();
    let watch = Watch { namespace: people(), after: None, owner: None };
    let mut stream = store.watch(watch).await.unwrap();
    let replace = |id: i32| {
        let update = Update::parse(&RawDocumentBuf::try_from(doc! { "m": 1 }).unwrap()).unwrap();
        let change = Change::Update { update, upsert: false };
        Write::new(people(), Operation::modify(Modify::new(Filter::equals("_id", id), false, change)))
    };
    let delete = Write::new(people(), Operation::modify(Modify::new(Filter::equals("_id", 3), false, Change::Delete)));
    let transaction = begin(&store).await;
    for write in [
        set(1, doc! { "n": 2 }),
        replace(2),
        set(2, doc! { "n": 3 }),
        set(1, doc! { "m": 1 }),
        set(3, doc! { "n": 9 }),
        delete,
        insert(&[doc! { "_id": 5 }]),
        set(5, doc! { "n": 1 }),
        set(4, doc! { "n": 2 }),
        set(4, doc! { "n": 1 }),
    ] {
        transaction.write(write).await.unwrap();
    }
    transaction.commit().await.unwrap();
    store.write(vec![insert(&[doc! { "_id": 6 }])]).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 5 {
        events.extend(stream.next().await.unwrap());
    }
    let kinds: Vec<_> = events.iter().map(|event| (event.id().as_i32().unwrap(), event.kind)).collect();
    let [update, replace, delete, insert] =
        [ChangeKind::Update, ChangeKind::Replace, ChangeKind::Delete, ChangeKind::Insert];
    assert_eq!(kinds, [(1, update), (2, replace), (3, delete), (5, insert), (6, insert)]);
    let description = Document::try_from(events[0].description.clone().unwrap()).unwrap();
    assert_eq!(description.get_document("updatedFields").unwrap(), &doc! { "n": 2, "m": 1 });
}

#[tokio::test]
async fn the_number_of_open_transactions_is_limited() {
    for store in [in_memory(), open(&tempfile::tempdir().unwrap().keep().join("s.sqlite"))] {
        store.write(vec![insert(&[doc! { "_id": 1 }])]).await.unwrap();
        let mut many = Vec::new();
        for _ in 0..32 {
            many.push(begin(&store).await);
        }
        let soon = TransactionLimits { time: Duration::from_millis(50), ..TransactionLimits::default() };
        let error = store.begin(soon).await.unwrap_err();
        assert_eq!(error.to_string(), "32 transactions are open, which is the maximum; try again later");
        // Writes outside do not wait for any of them.
        store.write(vec![insert(&[doc! { "_id": 2 }])]).await.unwrap();
        many[0].commit().await.unwrap();
        many[1].abort().await.unwrap();
        many.pop();
        for _ in 0..3 {
            many.push(begin(&store).await);
        }
        assert!(store.begin(soon).await.is_err());
        // One more waits until another one ends.
        let next = tokio::join!(begin(&store), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            many.pop().unwrap().abort().await.unwrap();
        });
        next.0.abort().await.unwrap();
    }
}

/// True if a reader of the file prevents the log from restarting.
fn is_log_held(path: &Path) -> bool {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_millis(20)).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, i64>(0)).unwrap() == 1
}

#[tokio::test]
async fn an_idle_transaction_releases_its_snapshot_when_its_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sqlite");
    let store = open(&path);
    store.write(vec![insert(&[doc! { "_id": 1 }])]).await.unwrap();
    let limits = TransactionLimits { time: Duration::from_millis(400), ..TransactionLimits::default() };
    let transaction = store.begin(limits).await.unwrap();
    store.write(vec![insert(&[doc! { "_id": 2 }])]).await.unwrap();
    assert!(is_log_held(&path));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!is_log_held(&path));
    assert_eq!(number(&transaction.commit().await.unwrap_err()), 251);
}

#[tokio::test]
async fn closing_the_store_ends_its_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sqlite");
    let store = open(&path);
    store.write(vec![insert(&[doc! { "_id": 1 }])]).await.unwrap();
    let transaction = begin(&store).await;
    transaction.write(insert(&[doc! { "_id": 2 }])).await.unwrap();
    store.write(vec![insert(&[doc! { "_id": 3 }])]).await.unwrap();
    assert!(is_log_held(&path));
    store.close().await;
    assert!(!is_log_held(&path));
    assert!(matches!(transaction.find(Find::new(people(), Filter::all())).await, Err(Error::Closed)));
    assert!(matches!(transaction.commit().await, Err(Error::Closed)));
    transaction.abort().await.unwrap();
    assert!(matches!(store.begin(TransactionLimits::default()).await, Err(Error::Closed)));
    assert_eq!(all(&open(&path)).await.len(), 2);
}

#[tokio::test]
async fn the_limits_of_a_write_apply_inside_a_transaction() {
    let store = in_memory();
    let many: Vec<Document> = (0..50).map(|n| doc! { "_id": n, "s": "x".repeat(100) }).collect();
    store.write(vec![insert(&many)]).await.unwrap();
    let set_all = |limits, budget| {
        let update = Update::parse(&RawDocumentBuf::try_from(doc! { "$set": { "t": 1 } }).unwrap()).unwrap();
        let modify = Modify::new(Filter::all(), true, Change::Update { update, upsert: false });
        Write { limits, budget, ..Write::new(people(), Operation::modify(modify)) }
    };
    for (documents, bytes) in [(49, 1 << 20), (50, 1_000)] {
        let transaction = begin(&store).await;
        let write = set_all(Some(WriteLimits { documents, bytes }), Budget::default());
        assert!(matches!(transaction.write(write).await, Err(Error::WriteTooLarge { .. })));
    }
    for (limits, code) in [
        (Limits { time: Some(Duration::ZERO), ..Limits::default() }, 50),
        (Limits { steps: Some(20), ..Limits::default() }, 50),
    ] {
        let transaction = begin(&store).await;
        let error = transaction.write(set_all(None, Budget::new(limits))).await.unwrap_err();
        assert_eq!(number(&error), code, "{error}");
        assert_eq!(number(&transaction.commit().await.unwrap_err()), 251);
    }
    let transaction = begin(&store).await;
    let limits = Some(WriteLimits { documents: 1, bytes: 1_000 });
    let two = Write { limits, ..insert(&[doc! { "_id": 100 }, doc! { "_id": 101 }]) };
    assert!(matches!(transaction.write(two).await, Err(Error::WriteTooLarge { .. })));
    let transaction = begin(&store).await;
    let most = Find { at_most: Some(10), ..Find::new(people(), Filter::all()) };
    assert!(matches!(transaction.find(most).await, Err(Error::TooManyDocuments { limit: 10 })));
    assert!(all(&store).await.iter().all(|document| !document.contains_key("t")));
}

#[tokio::test]
async fn deleted_documents_count_with_their_ids_and_the_memory_of_versions_is_bounded() {
    let store = in_memory();
    let many: Vec<Document> = (0..100).map(|n| doc! { "_id": n, "s": "x".repeat(1_000) }).collect();
    store.write(vec![insert(&many)]).await.unwrap();
    let delete = || Write::new(people(), Operation::modify(Modify::new(Filter::all(), true, Change::Delete)));
    // 100 kB of documents are deleted by 6 kB of writes.
    for (bytes, fits) in [(30_000, true), (20_000, false)] {
        let transaction = store.begin(TransactionLimits { bytes, ..TransactionLimits::default() }).await.unwrap();
        let answer = transaction.write(delete()).await;
        assert_eq!(answer.as_ref().err().map(number), if fits { None } else { Some(257) }, "{answer:?}");
        transaction.abort().await.unwrap();
    }
    // Repeated writes of one document count once.
    let transaction = store.begin(TransactionLimits { bytes: 5_000, ..TransactionLimits::default() }).await.unwrap();
    for n in 0..50 {
        transaction.write(set(1, doc! { "n": n })).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_write_that_is_given_up_aborts_the_transaction() {
    let store = in_memory();
    let many: Vec<Document> = (0..5_000).map(|n| doc! { "_id": n, "n": n }).collect();
    store.write(vec![insert(&many)]).await.unwrap();
    let transaction = begin(&store).await;
    let update = Update::parse(&RawDocumentBuf::try_from(doc! { "$inc": { "n": 1 } }).unwrap()).unwrap();
    let modify = Modify::new(Filter::all(), true, Change::Update { update, upsert: false });
    let write = transaction.write(Write::new(people(), Operation::modify(modify)));
    assert!(tokio::time::timeout(Duration::from_millis(1), write).await.is_err());
    assert_eq!(number(&transaction.commit().await.unwrap_err()), 251);
    assert_eq!(all(&store).await[7], doc! { "_id": 7, "n": 7 });
}
