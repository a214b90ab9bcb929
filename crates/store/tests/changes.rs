//! Change events arrive in the order of the commits, each exactly once, also across several stores
//! on one file, as in several processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{Bson, DateTime, Document, doc, oid::ObjectId, raw::RawDocumentBuf};
use query::{Environment, Filter, Update};
use store::{
    Audience, Change, ChangeEvent, ChangeStream, Error, Index, Location, Modify, Namespace, Operation, ResumeToken,
    Retention, Settings, SqliteStore, Store, Watch, Write,
};

/// A clock that a test sets.
#[derive(Default)]
struct Clock(AtomicI64);

impl Environment for Clock {
    fn now(&self) -> DateTime {
        DateTime::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn new_id(&self) -> ObjectId {
        ObjectId::new()
    }
}

fn people() -> Namespace {
    Namespace::new("app", "people")
}

fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn insert_into(namespace: Namespace, documents: Vec<Document>) -> Vec<Write> {
    let operation = Operation::Insert(documents.into_iter().map(raw).collect());
    vec![Write::new(namespace, operation)]
}

fn insert(document: Document) -> Vec<Write> {
    insert_into(people(), vec![document])
}

fn modify(filter: Document, change: Change) -> Vec<Write> {
    let filter = Filter::parse(&raw(filter)).unwrap();
    let operation = Operation::modify(Modify::new(filter, true, change));
    vec![Write::new(people(), operation)]
}

fn update(filter: Document, update: Document, upsert: bool) -> Vec<Write> {
    modify(filter, Change::Update { update: Update::parse(&raw(update)).unwrap(), upsert })
}

fn open(location: Location, settings: Settings) -> SqliteStore {
    SqliteStore::open_with(location, Arc::new(Clock(AtomicI64::new(1_700_000_000_000))), settings).unwrap()
}

fn in_file(directory: &tempfile::TempDir) -> SqliteStore {
    open(Location::File(directory.path().join("store.sqlite")), Settings::default())
}

async fn watch(store: &SqliteStore) -> Box<dyn ChangeStream> {
    store.watch(Watch { namespace: people(), after: None, owner: None }).await.unwrap()
}

async fn watch_after(store: &SqliteStore, token: &ResumeToken) -> Result<Box<dyn ChangeStream>, Error> {
    store.watch(Watch { namespace: people(), after: Some(token.clone()), owner: None }).await
}

/// Returns the next `count` events.
async fn take(stream: &mut Box<dyn ChangeStream>, count: usize) -> Vec<Document> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("events come").unwrap();
        taken.extend(
            next.iter().map(|event| Document::try_from(event.to_document(&event.token, Audience::User)).unwrap()),
        );
    }
    assert_eq!(taken.len(), count, "{taken:?}");
    taken
}

async fn is_silent(stream: &mut Box<dyn ChangeStream>) -> bool {
    tokio::time::timeout(Duration::from_millis(100), stream.next()).await.is_err()
}

#[tokio::test]
async fn change_events_have_the_form_of_mongodb() {
    let directory = tempfile::tempdir().unwrap();
    for store in [open(Location::Memory, Settings::default()), in_file(&directory)] {
        let mut stream = watch(&store).await;
        store.write(insert(doc! { "_id": 1, "a": 1, "b": [1] })).await.unwrap();
        store.write(update(doc! { "_id": 1 }, doc! { "$set": { "a": 2 }, "$push": { "b": 2 } }, false)).await.unwrap();
        // Neither write changes anything, so neither emits an event.
        store.write(update(doc! { "_id": 1 }, doc! { "$set": { "a": 2 } }, false)).await.unwrap();
        store.write(insert(doc! { "_id": 1 })).await.unwrap_err();
        store.write(update(doc! { "_id": 1 }, doc! { "c": true }, false)).await.unwrap();
        store.write(update(doc! { "_id": 2 }, doc! { "$set": { "d": 1 } }, true)).await.unwrap();
        store.write(insert_into(Namespace::new("app", "others"), vec![doc! { "_id": 1 }])).await.unwrap();
        store.write(modify(doc! { "_id": 1 }, Change::Delete)).await.unwrap();
        let mut events = take(&mut stream, 5).await;
        assert!(is_silent(&mut stream).await);
        let mut before = None;
        for event in &mut events {
            let token = event.get_document("_id").unwrap().get_str("_data").unwrap().to_owned();
            let time = event.remove("clusterTime").unwrap().as_timestamp().unwrap();
            assert_eq!(time.time, 1_700_000_000);
            let place = Some((token, time));
            assert!(before < place, "tokens and times increase: {before:?} {place:?}");
            before = place;
            event.remove("_id");
        }
        let ns = doc! { "db": "app", "coll": "people" };
        let key = |id: i32| doc! { "_id": id };
        assert_eq!(
            events,
            [
                doc! { "operationType": "insert", "fullDocument": { "_id": 1, "a": 1, "b": [1] }, "ns": ns.clone(), "documentKey": key(1) },
                doc! {
                    "operationType": "update", "fullDocument": { "_id": 1, "a": 2, "b": [1, 2] }, "ns": ns.clone(), "documentKey": key(1),
                    "updateDescription": { "updatedFields": { "a": 2, "b.1": 2 }, "removedFields": [] },
                },
                doc! { "operationType": "replace", "fullDocument": { "_id": 1, "c": true }, "ns": ns.clone(), "documentKey": key(1) },
                doc! { "operationType": "insert", "fullDocument": { "_id": 2, "d": 1 }, "ns": ns.clone(), "documentKey": key(2) },
                doc! { "operationType": "delete", "ns": ns, "documentKey": key(1) },
            ]
        );
    }
}

#[tokio::test]
async fn events_report_the_inserted_part_of_an_ordered_insert_and_nothing_of_a_failed_batch() {
    let store = open(Location::Memory, Settings::default());
    let mut stream = watch(&store).await;
    let many = vec![doc! { "_id": 1 }, doc! { "_id": 2 }, doc! { "_id": 1 }, doc! { "_id": 3 }];
    store.write(insert_into(people(), many)).await.unwrap_err();
    let mut both = insert(doc! { "_id": 4 });
    both.extend(insert(doc! { "_id": 1 }));
    store.write(both).await.unwrap_err();
    store.write(insert(doc! { "_id": 5 })).await.unwrap();
    let ids: Vec<Bson> = take(&mut stream, 3)
        .await
        .iter()
        .map(|event| event.get_document("documentKey").unwrap()["_id"].clone())
        .collect();
    assert_eq!(ids, [Bson::Int32(1), Bson::Int32(2), Bson::Int32(5)]);
}

#[tokio::test]
async fn collections_excluded_from_change_streams_emit_no_events() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { unwatched: Some("userkeep"), ..Settings::default() };
    let store = open(Location::File(directory.path().join("store.sqlite")), settings);
    let sessions = Namespace::new("Userkeep_app", "sessions");
    let mut stream = store.watch(Watch { namespace: sessions.clone(), after: None, owner: None }).await.unwrap();
    store.ensure_indexes(people(), vec![Index::on(query::Path::new("at")).expiring(0)]).await.unwrap();
    store.write(insert_into(sessions, vec![doc! { "_id": 1 }])).await.unwrap();
    assert!(is_silent(&mut stream).await);
    assert_eq!(stream.position().unwrap().as_str().get(18..), Some("0000000000000000"));
}

#[tokio::test]
async fn a_stream_resumes_after_any_event_and_on_a_reopened_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_file(&directory);
    let mut stream = watch(&store).await;
    assert!(stream.position().is_none(), "there is no file yet");
    for number in 0..20 {
        store.write(insert(doc! { "_id": number })).await.unwrap();
    }
    let events = take(&mut stream, 20).await;
    store.close().await;
    assert!(matches!(stream.next().await, Err(Error::Closed)));
    let store = in_file(&directory);
    for (place, event) in events.iter().enumerate() {
        let token = ResumeToken::read(&raw(event.get_document("_id").unwrap().clone())).unwrap();
        let mut rest = watch_after(&store, &token).await.unwrap();
        assert_eq!(rest.position(), Some(token));
        let missing = events.len() - place - 1;
        assert_eq!(take(&mut rest, missing).await, events[place + 1..]);
        assert!(is_silent(&mut rest).await);
    }
}

#[tokio::test]
async fn invalid_resume_tokens_and_those_of_another_store_are_rejected() {
    let code = |error: Error| match error {
        Error::Query(error) => error.number(),
        other => panic!("{other}"),
    };
    let store = open(Location::Memory, Settings::default());
    let other = open(Location::Memory, Settings::default());
    store.write(insert(doc! { "_id": 1 })).await.unwrap();
    other.write(insert(doc! { "_id": 1 })).await.unwrap();
    for token in ["", "ä", "01", "zz", &"0".repeat(34), &"ff".repeat(17), &"é".repeat(17)] {
        assert_eq!(code(watch_after(&store, &token.into()).await.unwrap_err()), 260, "{token}");
    }
    let foreign = watch(&other).await.position().unwrap();
    assert_eq!(code(watch_after(&store, &foreign).await.unwrap_err()), 286);
    let own = watch(&store).await.position().unwrap();
    let future = format!("{}7fffffffffffffff", &own.as_str()[..18]);
    assert_eq!(code(watch_after(&store, &future.as_str().into()).await.unwrap_err()), 286);
}

#[tokio::test]
async fn the_retention_limits_are_kept_and_a_stream_that_reads_too_late_ends() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { age: Duration::from_secs(3600), bytes: 20_000 };
    let settings = Settings { retention, ..Settings::default() };
    let path = directory.path().join("store.sqlite");
    let store = open(Location::File(path.clone()), settings);
    store.write(insert(doc! { "_id": -1 })).await.unwrap();
    let mut early = watch(&store).await;
    let token = early.position().unwrap();
    let text = "x".repeat(1000);
    for number in 0..100 {
        store.write(insert(doc! { "_id": number, "text": &text })).await.unwrap();
        take(&mut early, 1).await;
    }
    let kept = || {
        rusqlite::Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*), sum(length(document)) FROM changes", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .unwrap()
    };
    let (count, bytes) = kept();
    assert!((15..=25).contains(&count) && bytes <= 21_000, "{count} {bytes}");
    // A change beyond the size limit is removed as well, with some of the next ones.
    store.write(insert(doc! { "_id": 1000, "text": "x".repeat(5_000_000) })).await.unwrap();
    take(&mut early, 1).await;
    for number in 1001..1030 {
        store.write(insert(doc! { "_id": number, "text": &text })).await.unwrap();
        take(&mut early, 1).await;
    }
    let (count, bytes) = kept();
    assert!(count < 25 && bytes <= 21_000, "{count} {bytes}");
    let lost = |error: Error| matches!(&error, Error::Query(error) if error.number() == 286);
    assert!(lost(watch_after(&store, &token).await.unwrap_err()));
    drop(early);
    // A stream that was open before, and reads too late.
    let mut late = watch(&store).await;
    let many = (0..10_000).map(|number| doc! { "number": number, "text": &text });
    store.write(insert_into(people(), many.collect())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(lost(late.next().await.unwrap_err()));
}

/// Four writers, and watchers that stop and resume at random, on two stores of one file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_or_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let stores = [in_file(&directory), in_file(&directory)];
    stores[0].write(insert_into(Namespace::new("app", "first"), vec![doc! {}])).await.unwrap();
    const EACH: i32 = 300;
    let writing = AtomicBool::new(true);
    let watcher = async |store: &SqliteStore, mut seed: u64| {
        let mut stream = watch(store).await;
        let mut seen: Vec<Arc<ChangeEvent>> = Vec::new();
        while seen.len() < 4 * EACH as usize {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 62 == 0 {
                // Cancels its wait, then resumes at its position.
                drop(
                    tokio::time::timeout(Duration::from_micros(50), stream.next())
                        .await
                        .map(|next| seen.extend(next.unwrap())),
                );
                let after = stream.position().unwrap();
                stream = watch_after(store, &after).await.unwrap();
            } else {
                let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("events come");
                seen.extend(next.unwrap());
            }
        }
        assert!(is_silent(&mut stream).await);
        seen
    };
    let writer = async |store: &SqliteStore, number: i32| {
        for count in 0..EACH {
            store.write(insert(doc! { "_id": number * EACH + count, "writer": number, "count": count })).await.unwrap();
        }
        writing.store(false, Ordering::Relaxed);
    };
    let [first, second] = &stores;
    let (a, b, c, ..) = tokio::join!(
        watcher(first, 1),
        watcher(second, 2),
        watcher(second, 3),
        writer(first, 0),
        writer(second, 1),
        writer(first, 2),
        writer(second, 3),
    );
    let tokens = |seen: &[Arc<ChangeEvent>]| seen.iter().map(|event| event.token.to_string()).collect::<Vec<_>>();
    assert!(tokens(&a).is_sorted_by(|one, next| one < next));
    assert_eq!(tokens(&a), tokens(&b));
    assert_eq!(tokens(&a), tokens(&c));
    for writer in 0..4 {
        let of_writer = a.iter().filter(|event| event.known().get_i32("writer").unwrap() == writer);
        let counts: Vec<i32> = of_writer.map(|event| event.known().get_i32("count").unwrap()).collect();
        assert_eq!(counts, (0..EACH).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn changes_of_another_store_on_the_file_arrive_soon() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (in_file(&directory), in_file(&directory));
    one.write(insert(doc! { "_id": -1 })).await.unwrap();
    let mut stream = watch(&one).await;
    let mut waits = Vec::new();
    for number in 0..50 {
        let begun = Instant::now();
        other.write(insert(doc! { "_id": number })).await.unwrap();
        take(&mut stream, 1).await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    assert!(waits[25] < Duration::from_millis(50), "{waits:?}");
}
