//! Transactions on MongoDB over a network that fails, on a standalone server, and their commands.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use bson::{Document, doc};
use query::{Filter, Update};
use store::{
    Change, Error, Find, Modify, MongoStore, Namespace, Operation, ReadPreference, Replaying, Store, Transaction,
    TransactionLimits, Write,
};
use support::{
    OwnServer, fresh, open,
    proxy::{Cut, Proxy},
    raw, server,
};

fn insert(namespace: &Namespace, document: Document) -> Write {
    Write::new(namespace.clone(), Operation::Insert(vec![raw(document)]))
}

fn increment(namespace: &Namespace, id: i32) -> Write {
    let update = Update::parse(&raw(doc! { "$inc": { "n": 1 } })).unwrap();
    let change = Change::Update { update, upsert: false };
    Write::new(namespace.clone(), Operation::modify(Modify::new(Filter::equals("_id", id), false, change)))
}

async fn begin(store: &MongoStore) -> Arc<dyn Transaction> {
    store.begin(TransactionLimits::default()).await.unwrap()
}

async fn count(store: &MongoStore, namespace: &Namespace) -> usize {
    store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap().len()
}

#[tokio::test]
async fn a_standalone_server_has_no_transactions() {
    let server = OwnServer::start(&["--standalone"]);
    let store = open(&server.uri);
    assert!(matches!(store.begin(TransactionLimits::default()).await, Err(Error::NeedsTransaction)));
}

#[tokio::test]
async fn a_replaying_transaction_writes_at_once_to_a_standalone_server() {
    let server = OwnServer::start(&["--standalone"]);
    let (store, namespace) = (open(&server.uri), fresh());
    let shared: Arc<dyn Store> = store.clone();
    let replaying = Arc::new(Replaying::new(shared, TransactionLimits::default()));
    replaying.write(insert(&namespace, doc! { "_id": 1, "n": 1 })).await.unwrap();
    assert_eq!(count(&store, &namespace).await, 1);
    // A failed write does not apply the others again.
    assert!(replaying.write(insert(&namespace, doc! { "_id": 1 })).await.is_err());
    replaying.write(increment(&namespace, 1)).await.unwrap();
    assert!(matches!(replaying.begin_part().await, Err(Error::NeedsTransaction)));
    replaying.commit().await.unwrap();
    let found = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap();
    assert_eq!(found[0].get_i32("n").unwrap(), 2);
}

#[tokio::test]
async fn a_lost_connection_is_transient_and_nothing_is_written() {
    let proxy = Proxy::to(&server()).await;
    let (store, namespace) = (open(&proxy.uri("")), fresh());
    store.write(vec![insert(&namespace, doc! { "_id": 1, "n": 1 })]).await.unwrap();
    for command in ["find", "update", "insert"] {
        let transaction = begin(&store).await;
        transaction.write(insert(&namespace, doc! { "_id": 2 })).await.unwrap();
        proxy.cut_at(command, Cut::BeforeAnswer, 1);
        let error = match command {
            "find" => transaction.find(Find::new(namespace.clone(), Filter::all())).await.map(drop),
            "update" => transaction.write(increment(&namespace, 1)).await.map(drop),
            _ => transaction.write(insert(&namespace, doc! { "_id": 3 })).await.map(drop),
        };
        let error = error.unwrap_err();
        let Error::TransientTransaction(cause) = &error else { unreachable!("{command}: {error:?}") };
        assert!(matches!(**cause, Error::Unavailable { maybe_written: false, .. }), "{cause:?}");
        assert_eq!(error.label(), Some("TransientTransactionError"));
        let after = transaction.commit().await.unwrap_err();
        assert_eq!(after.label(), Some("TransientTransactionError"), "{after}");
        assert_eq!(count(&store, &namespace).await, 1);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_repeated() {
    let proxy = Proxy::to(&server()).await;
    let (store, namespace) = (open(&proxy.uri("")), fresh());
    store.write(vec![insert(&namespace, doc! { "_id": 1, "n": 1 })]).await.unwrap();
    let transaction = begin(&store).await;
    transaction.write(increment(&namespace, 1)).await.unwrap();
    proxy.cut_at("commitTransaction", Cut::BeforeAnswer, 1);
    transaction.commit().await.unwrap();
    let found = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap();
    assert_eq!(found[0].get_i32("n").unwrap(), 2);
    assert!(proxy.commands("commitTransaction").len() >= 2);
}

#[tokio::test]
async fn all_commands_of_a_transaction_have_its_number_and_failures_abort_it_on_the_server() {
    let proxy = Proxy::to(&server()).await;
    let (store, namespace) = (open(&proxy.uri("")), fresh());
    // The read preference of the store does not apply inside a transaction.
    let preference = ReadPreference { mode: "secondaryPreferred".to_owned(), ..ReadPreference::default() };
    let store = store.reading_from(&preference).unwrap();
    store.write(vec![insert(&namespace, doc! { "_id": 1, "n": 1 })]).await.unwrap();
    proxy.take_commands();
    let transaction = begin(&store).await;
    transaction.find(Find::new(namespace.clone(), Filter::all())).await.unwrap();
    transaction.write(increment(&namespace, 1)).await.unwrap();
    transaction.write(insert(&namespace, doc! { "_id": 1 })).await.unwrap_err();
    let commands = proxy.take_commands();
    let names: Vec<&str> = commands.iter().map(|command| command.keys().next().unwrap().as_str()).collect();
    assert_eq!(names, ["find", "update", "insert", "abortTransaction"]);
    let numbers: Vec<i64> = commands.iter().map(|command| command.get_i64("txnNumber").unwrap()).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]));
    let level = |command: &Document| command.get_document("readConcern").unwrap().get_str("level").unwrap().to_owned();
    assert_eq!(level(&commands[0]), "snapshot");
    // The locks are released.
    let outside = store.write(vec![increment(&namespace, 1)]);
    tokio::time::timeout(Duration::from_secs(5), outside).await.unwrap().unwrap();
}
