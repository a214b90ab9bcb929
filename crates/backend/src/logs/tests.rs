#![allow(clippy::unwrap_used)]

use bson::{oid::ObjectId, rawbson};

use super::*;
use crate::{Options, auth::Origin, definition::Definition, open_memory};

async fn logs(retention: LogRetention) -> Logs {
    let logs = unprepared(retention);
    logs.prepare().await.unwrap();
    logs
}

/// Returns a log whose app has no store yet.
fn unprepared(retention: LogRetention) -> Logs {
    let environment = Environment::system();
    let store = open_memory(&Options::default(), &environment).unwrap();
    let logs = Logs::new(&store, "userkeep_app", environment, retention);
    logs.trim_from_now_on();
    logs
}

fn entry<'a>(redaction: &'a Redaction, name: &'a str) -> Entry<'a> {
    let texts = vec![(bson::raw::cstr!("name"), name)];
    Entry { texts, ..Entry::new(Kind::Function, "id", DateTime::now(), redaction) }
}

async fn names(logs: &Logs) -> Vec<String> {
    let found = logs.search(&LogQuery { limit: Some(10_000), ..LogQuery::default() }).await.unwrap();
    found.iter().map(|entry| entry.get_str("name").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn entries_are_found_newest_first() {
    let logs = logs(LogRetention::default()).await;
    let redaction = Redaction::default();
    for name in ["a", "b", "c"] {
        logs.add(entry(&redaction, name));
    }
    assert_eq!(names(&logs).await, ["c", "b", "a"]);
}

#[tokio::test]
async fn entries_of_several_processes_in_one_second_are_found_newest_first() {
    let logs = logs(LogRetention::default()).await;
    let redaction = Redaction::default();
    let now = DateTime::now();
    let second = |byte| ObjectId::from_bytes([0x60, 0, 0, 0, byte, 0, 0, 0, 0, 0, 0, 0]);
    let documents = [("first", 3, 0), ("second", 1, 1), ("third", 2, 2)].map(|(name, process, later)| {
        let completed = DateTime::from_millis(now.timestamp_millis() + later);
        entry(&redaction, name).into_document(second(process), completed, Duration::from_secs(60))
    });
    logs.0.collection.write(logs.0.collection.insertion_of_all(documents.into())).await.unwrap();
    assert_eq!(names(&logs).await, ["third", "second", "first"]);
}

#[tokio::test]
async fn waiting_entries_are_written_in_one_batch() {
    let logs = logs(LogRetention::default()).await;
    let redaction = Redaction::default();
    logs.add(entry(&redaction, "first"));
    let stored =
        || async { logs.0.collection.store().count(store::Count::new(namespace(), query::Filter::all())).await };
    for _ in 0..100 {
        if stored().await.unwrap() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The first entry is written at once, and those of the next 100 ms together.
    assert_eq!(stored().await.unwrap(), 1);
    for _ in 0..50 {
        logs.add(entry(&redaction, "later"));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stored().await.unwrap(), 1);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(stored().await.unwrap(), 51);
}

fn namespace() -> store::Namespace {
    store::Namespace::new("userkeep_app", COLLECTION)
}

#[tokio::test]
async fn entries_beyond_the_queue_are_dropped_and_counted() {
    let logs = logs(LogRetention { bytes: 512 * 1024 * 1024, ..LogRetention::default() }).await;
    let redaction = Redaction::default();
    // Without a yield, nothing is written in between.
    for _ in 0..12_000 {
        logs.add(entry(&redaction, "flood"));
    }
    assert_eq!(logs.dropped(), 2_000);
    assert_eq!(names(&logs).await.len(), 10_000);
    logs.add(entry(&redaction, "after"));
    assert_eq!(names(&logs).await[0], "after");
}

fn origin(last: u8) -> Option<Origin> {
    Some(Origin { address: [10, 0, 0, last].into(), is_shared: false })
}

#[tokio::test]
async fn requests_without_a_user_cannot_displace_others() {
    let logs = logs(LogRetention::default()).await;
    let redaction = Redaction::default();
    let unknown = |last: u8| Entry { origin: origin(last), ..entry(&redaction, "unknown") };
    let kept = (0..3000).filter(|_| logs.add(unknown(1))).count();
    assert!((100..110).contains(&kept), "{kept}");
    assert!(logs.add(Entry { user: Some("ada".to_owned()), ..unknown(1) }), "a user of the same network");
    assert!(logs.add(unknown(2)), "another network");
    assert!(logs.add(entry(&redaction, "operator")));
    assert_eq!(logs.dropped(), 3000 - kept as u64);
    // The entries that were left out are noted, also if the client sends no more.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let found = logs.search(&LogQuery::default()).await.unwrap();
    let note = &found[0];
    assert_eq!(note.get_i64("leftOut").unwrap(), 3000 - kept as i64);
    assert!(note.get_str("error").unwrap().ends_with("more entries of this client were left out"));
    assert_eq!(note.get_str("remoteAddress").unwrap(), "10.0.0.1");
}

#[tokio::test]
async fn entries_of_users_are_limited_for_each_user() {
    let logs = logs(LogRetention::default()).await;
    let redaction = Redaction::default();
    let of = |user: &str| Entry { user: Some(user.to_owned()), origin: origin(1), ..entry(&redaction, "call") };
    let kept = (0..1000).filter(|_| logs.add(of("eve"))).count();
    assert!((100..110).contains(&kept), "{kept}");
    assert!(logs.add(of("ada")));
    logs.close().await;
    assert!(!logs.add(of("late")));
    let found = names_of_users(&logs).await;
    assert_eq!(found[..2], ["eve", "ada"], "the note comes last");
}

async fn names_of_users(logs: &Logs) -> Vec<String> {
    let found = logs.search(&LogQuery::default()).await.unwrap();
    found.iter().map(|entry| entry.get_str("user").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_flush_waits_for_the_entries_that_are_being_written() {
    let logs = Arc::new(logs(LogRetention::default()).await);
    let writing = logs.0.segments.lock().await;
    // The batch of the task that writes is not in the queue any more.
    let flushing = Arc::clone(&logs);
    let flush = tokio::spawn(async move { flushing.flush().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!flush.is_finished());
    drop(writing);
    flush.await.unwrap();
}

#[test]
fn texts_of_unknown_clients_are_short() {
    let redaction = Redaction::default();
    let long = "n".repeat(5000);
    let error = Error::bad_request(format!("provider not found: {long}"));
    let unknown = Entry { error: Some(&error), kind: Kind::Auth, origin: origin(1), ..entry(&redaction, &long) };
    let document = unknown.into_document(ObjectId::new(), DateTime::now(), Duration::from_secs(60));
    assert!(document.as_bytes().len() < 700, "{}", document.as_bytes().len());
}

async fn stored_bytes(logs: &Logs) -> u64 {
    let found = logs.0.collection.store().find(Find::new(namespace(), query::Filter::all())).await.unwrap();
    found.iter().map(|entry| entry.as_bytes().len() as u64).sum()
}

#[tokio::test]
async fn the_oldest_entries_beyond_the_size_are_deleted() {
    let bytes: u64 = 64 * 1024;
    let logs = logs(LogRetention { bytes, ..LogRetention::default() }).await;
    let redaction = Redaction::default();
    for number in 0..2000 {
        logs.add(entry(&redaction, &format!("{number:04}")));
        if number % 50 == 0 {
            logs.flush().await;
        }
    }
    let found = names(&logs).await;
    assert_eq!(found[0], "1999");
    assert!(found.is_sorted_by(|later, earlier| later > earlier));
    let stored = stored_bytes(&logs).await;
    assert!((bytes / 2..=bytes).contains(&stored), "{stored}");
    // Another process finds the entries, and keeps the limit too.
    let other = Logs::new(
        logs.0.collection.store(),
        "userkeep_app",
        Environment::system(),
        LogRetention { bytes: bytes / 2, ..LogRetention::default() },
    );
    other.prepare().await.unwrap();
    other.add(entry(&redaction, "other"));
    assert_eq!(names(&other).await[0], "other");
    // The handle of an operator leaves the entries of the app alone.
    assert!(stored_bytes(&other).await > bytes / 2);
    other.trim_from_now_on();
    other.add(entry(&redaction, "another"));
    assert_eq!(names(&other).await[0], "another");
    assert!(stored_bytes(&other).await <= bytes / 2);
}

#[tokio::test]
async fn the_log_alone_creates_no_store() {
    let logs = unprepared(LogRetention::default());
    logs.add(entry(&Redaction::default(), "early"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    logs.flush().await;
    assert!(logs.0.collection.store().collections().await.unwrap().is_empty());
    logs.prepare().await.unwrap();
    assert_eq!(names(&logs).await, ["early"]);
}

#[tokio::test]
async fn a_log_without_bytes_is_off() {
    let logs = logs(LogRetention { bytes: 0, ..LogRetention::default() }).await;
    logs.add(entry(&Redaction::default(), "none"));
    assert_eq!(names(&logs).await, Vec::<String>::new());
}

#[test]
fn an_entry_is_small_whatever_the_function_does() {
    let redaction = Redaction::default();
    let long = "ä".repeat(100_000);
    let lines = (0..1000).map(|_| ("info".to_owned(), long.clone())).collect();
    let error = Error::bad_request(long.clone());
    let mut arguments = bson::raw::RawArrayBuf::new();
    arguments.push(long.as_str());
    let flooded = Entry {
        error: Some(&error),
        arguments: Some(&arguments),
        console: entry::Console { lines, dropped: u64::MAX, stack: Some(long.clone()) },
        ..entry(&redaction, &long)
    };
    let document = flooded.into_document(ObjectId::new(), DateTime::now(), Duration::from_secs(60));
    assert!(document.as_bytes().len() < 32 * 1024, "{}", document.as_bytes().len());
    assert_eq!(document.get_array("messages").unwrap().into_iter().count(), 25);
}

#[test]
fn secrets_are_removed() {
    let mut definition = Definition::development().unwrap();
    definition.values.add("key", serde_json::json!({ "inner": ["sec-ret-1", "sec-ret"] }), true);
    definition.values.add("plain", serde_json::json!("plain-text"), false);
    let redaction = Redaction::of(&definition);
    assert_eq!(redaction.text("a sec-ret-1 b sec-ret c plain-text"), "a *** b *** c plain-text");
    assert_eq!(redaction.text("x eyJhbGciOiJ.eyJzdWIi.c2ln y eyJ z"), "x *** y eyJ z");
    let arguments = rawbson!([{ "Api-Key": { "deep": 1 }, "refresh_token": "t", "name": "sec-ret" }, "eyJa.b.c", 5]);
    let redacted = redaction.array(arguments.as_array().unwrap());
    let expected = rawbson!([{ "Api-Key": "***", "refresh_token": "***", "name": "***" }, "***", 5]);
    assert_eq!(RawBson::Array(redacted), expected);
    assert!(!format!("{redaction:?}").contains("sec-ret"));
}

#[test]
fn a_query_is_read_strictly() {
    let read = |document: bson::Document| bson::deserialize_from_document::<LogQuery>(document);
    assert!(read(bson::doc! { "types": ["auth"], "limit": 5 }).is_ok());
    assert!(read(bson::doc! { "kinds": ["auth"] }).is_err());
}
