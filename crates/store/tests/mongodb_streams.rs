//! Change streams on MongoDB keep working despite oversized events, lost replies and slow readers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use store::{ChangeStream, MongoStore, Namespace, Operation, ResumeToken, Store, Watch, Write};
use support::{OwnServer, fresh, open, proxy::Proxy, raw, server};
use tokio::time::timeout;

async fn insert(store: &MongoStore, namespace: &Namespace, documents: Vec<Document>) {
    let documents = documents.into_iter().map(raw).collect();
    store.write(vec![Write::new(namespace.clone(), Operation::Insert(documents))]).await.unwrap();
}

async fn watch(store: &MongoStore, namespace: &Namespace, after: Option<ResumeToken>) -> Box<dyn ChangeStream> {
    store.watch(Watch { namespace: namespace.clone(), after, owner: None }).await.unwrap()
}

/// Returns the `_id` of the next event.
async fn next_id(stream: &mut dyn ChangeStream) -> i32 {
    let events = timeout(Duration::from_secs(40), stream.next()).await.expect("an event comes").unwrap();
    assert_eq!(events.len(), 1);
    events[0].id().as_i32().unwrap()
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_stops_no_change_stream() {
    let proxy = Proxy::to(&server()).await;
    let (store, direct) = (open(&proxy.uri("")), open(&server()));
    let namespace = fresh();
    insert(&direct, &namespace, vec![doc! { "_id": 0 }]).await;
    let mut old = watch(&store, &namespace, None).await;
    insert(&direct, &namespace, vec![doc! { "_id": 1 }]).await;
    assert_eq!(next_id(&mut *old).await, 1);
    // Connections stay open, but messages on them are lost.
    proxy.silence(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.silence(false);
    let mut new = watch(&store, &namespace, None).await;
    insert(&direct, &namespace, vec![doc! { "_id": 2 }]).await;
    assert_eq!((next_id(&mut *old).await, next_id(&mut *new).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_event_is_skipped_and_stops_no_change_stream() {
    // Fail points affect all clients of a server.
    let server = OwnServer::start(&[]);
    let store = open(&server.uri);
    let namespace = fresh();
    insert(&store, &namespace, vec![doc! { "_id": 0 }]).await;
    let mut old = watch(&store, &namespace, None).await;
    insert(&store, &namespace, vec![doc! { "_id": 1 }]).await;
    assert_eq!(next_id(&mut *old).await, 1);
    // MongoDB replies like this if the next event is larger than 16 MB: to the stream, and to a
    // stream that fetches events one by one.
    let client = Client::with_uri_str(&server.uri).await.unwrap();
    let fail = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 2 },
        "data": { "failCommands": ["getMore", "aggregate"], "errorCode": 10334 },
    };
    client.database("admin").run_command(fail).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    insert(&store, &namespace, vec![doc! { "_id": 2, "stands": "for the large one" }]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut new = watch(&store, &namespace, None).await;
    insert(&store, &namespace, vec![doc! { "_id": 3 }]).await;
    assert_eq!((next_id(&mut *old).await, next_id(&mut *new).await), (3, 3));
    insert(&store, &namespace, vec![doc! { "_id": 4 }]).await;
    assert_eq!((next_id(&mut *old).await, next_id(&mut *new).await), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_streams_hold_a_bounded_amount_of_memory_and_lose_nothing() {
    const STREAMS: i32 = 30;
    const LARGE: i32 = 60;
    let store = open(&server());
    let namespace = fresh();
    insert(&store, &namespace, vec![doc! { "_id": -1 }]).await;
    let mut live = watch(&store, &namespace, None).await;
    let mut tokens = Vec::new();
    for id in 0..STREAMS {
        insert(&store, &namespace, vec![doc! { "_id": id }]).await;
        tokens.push(live.next().await.unwrap()[0].token.clone());
    }
    drop(live);
    for id in 0..LARGE {
        insert(&store, &namespace, vec![doc! { "_id": 1000 + id, "text": "x".repeat(240_000) }]).await;
    }
    let before = resident();
    let mut streams = Vec::new();
    for token in tokens {
        streams.push(watch(&store, &namespace, Some(token)).await);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 150_000_000, "{grown} bytes for {STREAMS} streams");
    let mut told = Vec::new();
    while told.last() != Some(&(1000 + LARGE - 1)) {
        let events = timeout(Duration::from_secs(40), streams[0].next()).await.expect("an event comes").unwrap();
        told.extend(events.iter().map(|event| event.id().as_i32().unwrap()));
    }
    let expected: Vec<i32> = (1..STREAMS).chain(1000..1000 + LARGE).collect();
    assert_eq!(told, expected);
}
