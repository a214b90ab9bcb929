//! Writes on MongoDB with a time limit: every command carries the time that is left, is executed
//! once even if its reply is lost, and reports the same results as the driver's own writes.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bson::{
    Bson, Document, RawBson, doc,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Budget, Filter, Limits, Path, Projection, Sort, Update};
use store::{
    Change, Denied, Error, Find, Guard, GuardFilters, Index, Modify, Namespace, Operation, Outcome, ReadPreference,
    Result, Returning, Store, Write,
};
use support::{
    OwnServer, filter, fresh, fresh_database, open,
    proxy::{Cut, Member, Proxy},
    raw, server,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The time limit of the writes, in milliseconds: long enough for a slow machine.
const TIME: i64 = 20_000;

/// The delay of each reply by the proxy, in milliseconds.
const DELAY: i64 = 20;

fn limited() -> Budget {
    Budget::new(Limits { time: Some(Duration::from_millis(TIME as u64)), ..Limits::default() })
}

fn insert(namespace: &Namespace, documents: Vec<Document>) -> Write {
    Write::new(namespace.clone(), Operation::Insert(documents.into_iter().map(raw).collect()))
}

fn update(find: Document, update: Document) -> Modify {
    let update = Update::parse(&raw(update)).unwrap();
    Modify::new(filter(find), false, Change::Update { update, upsert: false })
}

fn upsert(find: Document, update: Document) -> Modify {
    let update = Update::parse(&raw(update)).unwrap();
    Modify::new(filter(find), false, Change::Update { update, upsert: true })
}

fn delete(find: Document) -> Modify {
    Modify::new(filter(find), false, Change::Delete)
}

fn many(modify: Modify) -> Modify {
    Modify { multi: true, ..modify }
}

fn write_of(namespace: &Namespace, modify: Modify, guard: Option<Arc<dyn Guard>>) -> Write {
    Write { guard, ..Write::new(namespace.clone(), Operation::modify(modify)) }
}

async fn write(store: &dyn Store, write: Write) -> Result<Outcome> {
    Ok(store.write(vec![write]).await?.remove(0))
}

async fn write_limited(store: &dyn Store, namespace: &Namespace, modify: Modify) -> Result<Outcome> {
    write(store, Write { budget: limited(), ..write_of(namespace, modify, None) }).await
}

async fn all(store: &dyn Store, namespace: &Namespace) -> Vec<Document> {
    let sort = Some(Sort::parse(&raw(doc! { "_id": 1 })).unwrap());
    let found = store.find(Find { sort, ..Find::new(namespace.clone(), Filter::all()) }).await.unwrap();
    found.into_iter().map(|document| Document::try_from(document).unwrap()).collect()
}

/// Lets an owner see and write only its own documents; with or without filters.
struct Owner(Option<GuardFilters>);

impl Owner {
    fn judging() -> Arc<dyn Guard> {
        Arc::new(Self(None))
    }

    fn by_filter() -> Arc<dyn Guard> {
        let own = Filter::equals("owner", RawBson::String("a".to_owned()));
        let paths = vec![Path::new("owner")];
        Arc::new(Self(Some(GuardFilters { seen: own.clone(), updatable: own.clone(), deletable: own, paths })))
    }
}

impl Guard for Owner {
    fn may_see(&self, document: &RawDocument) -> bool {
        document.get_str("owner").is_ok_and(|owner| owner == "a")
    }

    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
        let allowed = [before, after].into_iter().flatten().all(|document| self.may_see(document));
        if allowed { Ok(()) } else { Err(Denied("write not permitted".into())) }
    }

    fn filters(&self) -> Option<&GuardFilters> {
        self.0.as_ref()
    }
}

/// Asserts that each command carries no more than the time that is left, which shrinks with each
/// reply that the write waits for.
fn assert_timed(commands: &[Document], what: &str) {
    let ending = |command: &&Document| {
        let name = command.keys().next().unwrap();
        !["commitTransaction", "abortTransaction"].contains(&name.as_str())
    };
    for (number, command) in commands.iter().enumerate().filter(|(_, command)| ending(command)) {
        let time = command.get("maxTimeMS").and_then(|time| time.as_i64().or_else(|| time.as_i32().map(i64::from)));
        let left = TIME - DELAY * number as i64;
        assert!(time.is_some_and(|time| 0 < time && time <= left), "{what}: {left} ms are left for {command}");
    }
}

fn documents() -> Vec<Document> {
    (0..6).map(|n| doc! { "_id": n, "owner": if n == 3 { "b" } else { "a" }, "n": n, "list": [n, 5] }).collect()
}

fn modifications() -> Vec<Modify> {
    let sorted = |modify: Modify| Modify { sort: Some(Sort::parse(&raw(doc! { "n": -1 })).unwrap()), ..modify };
    let returning = |returning, modify: Modify| Modify { returning, ..modify };
    let set = || update(doc! { "n": { "$gte": 1 } }, doc! { "$set": { "x": 1 }, "$inc": { "m": 2 } });
    let filters = raw(doc! { "": [{ "item": { "$gte": 5 } }] });
    let filters = filters.get_array("").unwrap();
    let in_list = raw(doc! { "$set": { "list.$[item]": 0 } });
    let in_list = Update::parse_any(RawBsonRef::Document(&in_list), Some(filters));
    let in_list = Change::Update { update: in_list.unwrap(), upsert: false };
    let projection = Some(Projection::parse(&raw(doc! { "n": 1 })).unwrap());
    vec![
        set(),
        many(set()),
        sorted(set()),
        returning(Returning::Before, set()),
        returning(Returning::After, sorted(set())),
        Modify { projection, ..returning(Returning::After, set()) },
        Modify::new(filter(doc! { "_id": 5 }), false, in_list),
        update(doc! { "n": 2 }, doc! { "owner": "a", "whole": true }),
        returning(Returning::After, update(doc! { "n": 2 }, doc! { "owner": "a", "whole": true })),
        update(doc! { "_id": 99 }, doc! { "$set": { "x": 1 } }),
        upsert(doc! { "_id": 7, "owner": "a" }, doc! { "$set": { "x": 1 } }),
        upsert(doc! { "_id": 1, "owner": "a" }, doc! { "$set": { "x": 1 } }),
        returning(Returning::After, upsert(doc! { "_id": 8, "owner": "a" }, doc! { "$set": { "x": 1 } })),
        returning(Returning::Before, upsert(doc! { "_id": 9, "owner": "a" }, doc! { "$set": { "x": 1 } })),
        delete(doc! { "n": { "$gte": 1 } }),
        many(delete(doc! { "n": { "$gte": 4 } })),
        returning(Returning::Before, sorted(delete(doc! { "n": { "$gte": 1 } }))),
        // Errors.
        update(doc! { "_id": 1 }, doc! { "$set": { "n": 2 } }),
        returning(Returning::After, update(doc! { "_id": 1 }, doc! { "$set": { "n": 2 } })),
        upsert(doc! { "_id": 10, "owner": "a" }, doc! { "$set": { "n": 2 } }),
        update(doc! { "_id": 1 }, doc! { "$set": { "n.m": 2 } }),
        update(doc! { "_id": 1 }, doc! { "$push": { "n": 2 } }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_a_limited_write_carries_the_time_that_is_left() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let direct = open(&server());
    // The kind of the server is known from here on.
    write(&*store, Write { budget: limited(), ..insert(&fresh(), vec![doc! { "_id": 0 }]) }).await.unwrap();
    proxy.delay(Duration::from_millis(DELAY as u64));
    let guards = [("no guard", None), ("filters", Some(Owner::by_filter())), ("judging", Some(Owner::judging()))];
    for (name, guard) in guards {
        for number in 0..modifications().len() {
            let mut outcomes = Vec::new();
            for is_limited in [true, false] {
                let namespace = fresh();
                direct.ensure_indexes(namespace.clone(), vec![Index::on(Path::new("n")).unique()]).await.unwrap();
                write(&*direct, insert(&namespace, documents())).await.unwrap();
                let modify = modifications().remove(number);
                let is_counted = modify.returning == Returning::Nothing && modify.sort.is_none();
                let budget = if is_limited { limited() } else { Budget::default() };
                proxy.take_commands();
                let answer = write(&*store, Write { budget, ..write_of(&namespace, modify, guard.clone()) }).await;
                let commands = proxy.take_commands();
                if is_limited {
                    let what = format!("{name}, write {number}");
                    assert!(!commands.is_empty(), "{what}");
                    assert_timed(&commands, &what);
                } else {
                    // Without a limit of its own, each command has that of the store.
                    let time = |command: &Document| command.get("maxTimeMS").cloned();
                    let all = [30_000, 1_000].map(|time| Some(Bson::Int32(time)));
                    assert!(commands.iter().all(|command| all.contains(&time(command))), "{commands:?}");
                }
                let answer = answer.map_err(|error| error.to_string().replace(&namespace.to_string(), "it"));
                let answer = answer.map(|outcome| {
                    // The driver's own `findAndModify` counts the documents that it returns.
                    let counts = (outcome.matched, outcome.modified, outcome.deleted, outcome.upserted_id);
                    (is_counted.then_some(counts), outcome.document)
                });
                outcomes.push((answer, all(&*direct, &namespace).await));
            }
            assert_eq!(outcomes[0], outcomes[1], "{name}, write {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_inserts_and_transactions_carry_the_time_that_is_left() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let timed = |write: Write| Write { budget: limited(), ..write };
    write(&*store, timed(insert(&namespace, vec![doc! { "_id": -1 }]))).await.unwrap();
    proxy.delay(Duration::from_millis(DELAY as u64));
    proxy.take_commands();
    let outcome = write(&*store, timed(insert(&namespace, documents()))).await.unwrap();
    assert_eq!(outcome.inserted_ids.len(), 6);
    assert_timed(&proxy.take_commands(), "an insert of several");
    // The documents before a duplicate remain.
    let error = write(&*store, timed(insert(&namespace, [6, 2, 7].map(|n| doc! { "_id": n }).into()))).await;
    assert_timed(&proxy.take_commands(), "an insert of a duplicate");
    let Err(Error::DuplicateKey { namespace: of, index, key }) = error else { panic!("{error:?}") };
    assert_eq!((of, &*index, &*key), (namespace.clone(), "_id_", "{ _id: 2 }"));
    assert_eq!(all(&*store, &namespace).await.len(), 8);

    proxy.take_commands();
    let budget = limited();
    let writes = [
        insert(&namespace, vec![doc! { "_id": 20 }, doc! { "_id": 21 }]),
        write_of(&namespace, update(doc! { "_id": 20 }, doc! { "$set": { "x": 1 } }), None),
        write_of(
            &namespace,
            many(update(doc! { "n": { "$gte": 0 } }, doc! { "$inc": { "n": 1 } })),
            Some(Owner::judging()),
        ),
        write_of(&namespace, many(delete(doc! { "n": { "$gte": 5 } })), Some(Owner::judging())),
        write_of(&namespace, Modify { returning: Returning::After, ..delete(doc! { "_id": 21 }) }, None),
    ];
    let writes = writes.map(|write| Write { budget: budget.clone(), ..write });
    let outcomes = store.write(writes.into()).await.unwrap();
    assert_eq!((outcomes[2].modified, outcomes[3].deleted, outcomes[4].deleted), (5, 2, 1));
    let commands = proxy.take_commands();
    let names: Vec<_> = commands.iter().map(|command| command.keys().next().unwrap().as_str()).collect();
    assert_eq!(names, ["insert", "update", "find", "update", "find", "delete", "findAndModify", "commitTransaction"],);
    assert_timed(&commands, "a transaction");
    // A duplicate aborts the whole transaction.
    let duplicate = [22, 1].map(|id| timed(insert(&namespace, vec![doc! { "_id": id }])));
    let error = store.write(duplicate.into()).await.unwrap_err();
    assert!(matches!(error, Error::DuplicateKey { .. }), "{error}");
    assert_timed(&proxy.take_commands(), "a transaction that fails");
    assert!(all(&*store, &namespace).await.iter().all(|document| document.get_i32("_id").unwrap() != 22));
}

/// The session and the transaction number of a command.
fn number(command: &Document) -> Option<(Bson, i64)> {
    Some((command.get("lsid")?.clone(), command.get_i64("txnNumber").ok()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_write_whose_reply_is_lost_is_executed_once() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=3000"));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "owner": "a", "n": 0 }])).await.unwrap();
    let increment = || update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
    let mut expected = 0;
    let assert_repeated = |name: &str| {
        let commands = proxy.commands(name);
        proxy.take_commands();
        let [first, second] = &commands[..] else { panic!("{name}: {commands:?}") };
        assert!(number(first).is_some() && number(first) == number(second), "{commands:?}");
        let time = |command: &Document| command.get_i32("maxTimeMS").unwrap();
        assert!(time(second) <= time(first), "{commands:?}");
    };
    for cut in [Cut::BeforeCommand, Cut::BeforeAnswer] {
        for guard in [None, Some(Owner::by_filter()), Some(Owner::judging())] {
            proxy.take_commands();
            proxy.cut_at("update", cut, 1);
            let limited = Write { budget: limited(), ..write_of(&namespace, increment(), guard) };
            let outcome = write(&*store, limited).await.unwrap();
            assert_repeated("update");
            assert_eq!((outcome.matched, outcome.modified), (1, 1));
            expected += 1;
        }
        proxy.cut_at("findAndModify", cut, 1);
        let returning = Modify { returning: Returning::After, ..increment() };
        let document = write_limited(&*store, &namespace, returning).await.unwrap().document.unwrap();
        assert_repeated("findAndModify");
        expected += 1;
        assert_eq!(document.get_i32("n").unwrap(), expected);
        assert_eq!(all(&*store, &namespace).await[0].get_i32("n").unwrap(), expected);
        proxy.take_commands();
        proxy.cut_at("insert", cut, 1);
        let new = insert(&namespace, (0..3).map(|n| doc! { "_id": format!("{expected} {n}"), "n": -1 }).collect());
        assert_eq!(write(&*store, Write { budget: limited(), ..new }).await.unwrap().inserted_ids.len(), 3);
        assert_repeated("insert");
        proxy.cut_at("delete", cut, 1);
        assert_eq!(write_limited(&*store, &namespace, delete(doc! { "n": -1 })).await.unwrap().deleted, 1);
        assert_repeated("delete");
        assert_eq!(
            all(&*store, &namespace).await.iter().filter(|document| document.get_i32("n").unwrap() == -1).count(),
            2
        );
        write_limited(&*store, &namespace, many(delete(doc! { "n": -1 }))).await.unwrap();

        // A change of several documents is sent only once.
        proxy.take_commands();
        proxy.cut_at("update", cut, 1);
        let error = write_limited(&*store, &namespace, many(increment())).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { maybe_written: true, .. }), "{error}");
        let commands = proxy.commands("update");
        assert!(commands.len() == 1 && number(&commands[0]).is_none(), "{commands:?}");
        expected += i32::from(cut == Cut::BeforeAnswer);
        // The server may still be running the command.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(all(&*store, &namespace).await[0].get_i32("n").unwrap(), expected);
    }
    // If the second attempt fails too, the result of the first is unknown.
    proxy.cut_at("update", Cut::BeforeCommand, 2);
    let error = write_limited(&*store, &namespace, increment()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { maybe_written: true, .. }), "{error}");
}

/// The driver counts the writes of a session itself, so it must not write in a session after a
/// higher number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_does_not_write_in_a_session_after_a_numbered_write() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=3000"));
    let namespace = fresh();
    write(&*store, insert(&namespace, (0..8).map(|n| doc! { "_id": n, "n": 0 }).collect())).await.unwrap();
    for round in 0..12 {
        if round % 4 == 3 {
            proxy.cut_at("update", Cut::BeforeAnswer, 1);
        }
        let writes = (0..8).map(|id| {
            let (store, namespace) = (Arc::clone(&store), namespace.clone());
            tokio::spawn(async move {
                let increment = update(doc! { "_id": id }, doc! { "$inc": { "n": 1 } });
                // Writes that return the document use the driver's actions.
                let is_ours = (id + round) % 2 == 0;
                let increment = if is_ours { increment } else { Modify { returning: Returning::After, ..increment } };
                write(&*store, write_of(&namespace, increment, None)).await.unwrap();
            })
        });
        for written in writes.collect::<Vec<_>>() {
            written.await.unwrap();
        }
    }
    assert!(all(&*store, &namespace).await.iter().all(|document| document.get_i32("n").unwrap() == 12));
    let mut numbers: HashMap<String, Vec<i64>> = HashMap::new();
    let mut ours = HashSet::new();
    for command in proxy.take_commands() {
        let Some((session, number)) = number(&command) else { continue };
        numbers.entry(session.to_string()).or_default().push(number);
        if command.keys().next().is_some_and(|name| name == "update") {
            ours.insert(session.to_string());
        }
    }
    assert!(numbers.values().all(|numbers| numbers.is_sorted()), "{numbers:?}");
    // A session is used again, unless a reply in it was lost.
    assert!((1..=4 + 3).contains(&ours.len()), "{ours:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timed_out_write_leaves_no_session_to_the_driver() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=700&connectTimeoutMS=700&socketTimeoutMS=1000"));
    let namespace = fresh();
    let increment = || update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "n": 0 }])).await.unwrap();
    write_limited(&*store, &namespace, increment()).await.unwrap();
    proxy.silence(true);
    let error = write_limited(&*store, &namespace, increment()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { maybe_written: true, .. }), "{error}");
    proxy.silence(false);
    let back = async { while store.find(Find::new(namespace.clone(), Filter::all())).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    for _ in 0..5 {
        write(&*store, write_of(&namespace, increment(), None)).await.unwrap();
        write_limited(&*store, &namespace, increment()).await.unwrap();
    }
    let given_up: Vec<_> = proxy.commands("update").into_iter().skip(1).collect();
    let (session, _) = number(&given_up[0]).unwrap();
    let again = given_up[1..].iter().filter(|command| number(command).unwrap().0 == session);
    assert_eq!(again.count(), 0, "{given_up:?}");
    assert!(given_up[0].contains_key("maxTimeMS"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_write_that_cannot_be_retried_may_have_been_applied() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=700&connectTimeoutMS=700"));
    let namespace = fresh();
    let increment = || update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "n": 0 }])).await.unwrap();
    write_limited(&*store, &namespace, increment()).await.unwrap();
    proxy.take_commands();
    proxy.delay(Duration::from_millis(500));
    let (written, ()) = tokio::join!(write_limited(&*store, &namespace, increment()), async {
        while proxy.commands("update").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        proxy.close(true);
    });
    let error = written.unwrap_err();
    assert!(matches!(error, Error::Unavailable { maybe_written: true, .. }), "{error}");
    assert!(proxy.commands("update").iter().all(|command| command.contains_key("maxTimeMS")));
    assert_eq!(all(&*open(&server()), &namespace).await[0].get_i32("n").unwrap(), 2);
}

/// Makes the server fail at commands.
async fn fail(uri: &str, commands: &[&str], times: i32, mut data: Document) {
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    data.insert("failCommands", commands.to_vec());
    let point = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
    client.database("admin").run_command(point).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_write_survives_a_retryable_error_and_reports_others() {
    // Fail points affect all clients of a server.
    let server = OwnServer::start(&[]);
    let proxy = Proxy::to(&server.uri).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=3000&heartbeatFrequencyMS=500"));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "n": 0 }])).await.unwrap();
    let increment = || update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
    let returning = || Modify { returning: Returning::After, ..increment() };
    let not_confirmed = doc! { "code": 91, "errmsg": "is shutting down" };
    let mut expected = 0;
    for data in [
        doc! { "closeConnection": true },
        doc! { "errorCode": 10107, "errorLabels": ["RetryableWriteError"] },
        doc! { "errorCode": 91, "errorLabels": ["RetryableWriteError"] },
        // The command has been executed.
        doc! { "writeConcernError": not_confirmed, "errorLabels": ["RetryableWriteError"] },
    ] {
        for (name, modify) in [("update", increment()), ("findAndModify", returning())] {
            proxy.take_commands();
            fail(&server.uri, &[name], 1, data.clone()).await;
            let written = write_limited(&*store, &namespace, modify).await;
            assert!(written.as_ref().is_ok_and(|outcome| outcome.modified == 1), "{data}: {written:?}");
            let commands = proxy.commands(name);
            assert!(commands.len() == 2 && number(&commands[0]) == number(&commands[1]), "{commands:?}");
            assert!(commands.iter().all(|command| command.contains_key("maxTimeMS")), "{commands:?}");
            expected += 1;
            assert_eq!(all(&*store, &namespace).await[0].get_i32("n").unwrap(), expected, "{data}");
        }
    }
    // Errors without a retry are the same as those of the driver's own writes.
    for data in [50, 112, 121, 13, 11601].map(|code| doc! { "errorCode": code }) {
        for name in ["update", "findAndModify"] {
            let modify = || if name == "update" { increment() } else { returning() };
            proxy.take_commands();
            fail(&server.uri, &[name], 1, data.clone()).await;
            let limited = write_limited(&*store, &namespace, modify()).await.unwrap_err();
            let commands = proxy.commands(name);
            assert!(commands.len() == 1 && commands[0].contains_key("maxTimeMS"), "{commands:?}");
            fail(&server.uri, &[name], 1, data.clone()).await;
            let unlimited = write(&*store, write_of(&namespace, modify(), None)).await.unwrap_err();
            match data.get_i32("errorCode") {
                // A write without a time limit cannot exceed it.
                Ok(50) => assert!(matches!(unlimited, Error::Unavailable { maybe_written: true, .. }), "{unlimited:?}"),
                _ => assert_eq!(format!("{limited:?}"), format!("{unlimited:?}")),
            }
        }
    }
    assert_eq!(all(&*store, &namespace).await[0].get_i32("n").unwrap(), expected);
}

/// The code and the message of an error.
fn code_and_message(error: &Error) -> (i32, &str) {
    match error {
        Error::Query(error) => (error.number(), &error.message),
        _ => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_write_outside_a_transaction_may_have_been_applied_in_part() {
    const IN_PART: &str = "; the write may have been applied in part";
    let server = OwnServer::start(&[]);
    let store = open(&server.uri);
    let namespace = fresh();
    write(&*store, insert(&namespace, documents())).await.unwrap();
    let increment = || many(update(doc! {}, doc! { "$inc": { "m": 1 } }));
    let of = |modify: Modify| Write { budget: limited(), ..write_of(&namespace, modify, None) };
    for code in [50, 262, 11601] {
        let interrupt =
            async |command: &'static str| fail(&server.uri, &[command], 1, doc! { "errorCode": code }).await;
        for command in ["update", "delete"] {
            for (budget, is_limited) in [(limited(), true), (Budget::default(), false)] {
                let modify = if command == "update" { increment() } else { many(delete(doc! {})) };
                interrupt(command).await;
                let error = write(&*store, Write { budget, ..of(modify) }).await.unwrap_err();
                if code == 50 && !is_limited {
                    assert!(matches!(error, Error::Unavailable { maybe_written: true, .. }), "{error:?}");
                    continue;
                }
                let (number, message) = code_and_message(&error);
                assert_eq!((number, message.ends_with(IN_PART)), (code, true), "{command}: {message}");
            }
        }
        // This error causes a retry of the whole transaction.
        if code == 262 {
            continue;
        }
        interrupt("update").await;
        let error = store.write(vec![of(increment()), of(increment())]).await.unwrap_err();
        let (number, message) = code_and_message(&error);
        assert_eq!((number, message.contains("in part")), (code, false), "a transaction: {message}");
        interrupt("find").await;
        let find = Find { budget: limited(), ..Find::new(namespace.clone(), Filter::all()) };
        let error = store.find(find).await.unwrap_err();
        let (number, message) = code_and_message(&error);
        assert_eq!((number, message.contains("in part")), (code, false), "a query: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_that_ends_between_two_commands_may_have_been_applied_in_part() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": -1 }])).await.unwrap();
    let large = |n: i32| doc! { "_id": n, "text": "x".repeat(9 * 1024 * 1024) };
    proxy.take_commands();
    proxy.delay(Duration::from_millis(500));
    let budget = limited();
    let new = Write { budget: budget.clone(), ..insert(&namespace, vec![large(0), large(1)]) };
    let (written, ()) = tokio::join!(write(&*store, new), async {
        while proxy.commands("insert").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        budget.cancel();
    });
    let error = written.unwrap_err();
    let message = "operation was interrupted; the write may have been applied in part";
    assert_eq!(code_and_message(&error), (11601, message));
    proxy.delay(Duration::ZERO);
    let count = store.count(store::Count::new(namespace, Filter::all())).await.unwrap();
    assert_eq!(count, 2);
}

/// Returns the address of a proxy that replaces the document in replies to `findAndModify`. The
/// test server decodes documents, which MongoDB does not.
async fn with_found(uri: &str, found: RawDocumentBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = format!("mongodb://{}/?directConnection=true", listener.local_addr().unwrap());
    let host = uri.split('/').nth(2).unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (host, found) = (host.clone(), found.clone());
            tokio::spawn(async move {
                let (mut asked, mut answered) = client.into_split();
                let (mut answers, mut asks) = TcpStream::connect(host).await.unwrap().into_split();
                tokio::spawn(async move { tokio::io::copy(&mut asked, &mut asks).await });
                while let Ok(length) = answers.read_i32_le().await {
                    let mut message = vec![0; length as usize - 4];
                    answers.read_exact(&mut message).await.unwrap();
                    // The rest of the header, and the flags and the kind of an OP_MSG message.
                    let (head, answer) = message.split_at(17);
                    let answer = RawDocument::from_bytes(answer);
                    let changed =
                        answer.ok().filter(|answer| answer.get_document("lastErrorObject").is_ok()).map(|answer| {
                            let mut changed = RawDocumentBuf::new();
                            for (name, value) in query::elements(answer) {
                                let value = if name == "value" { RawBsonRef::Document(&found) } else { value };
                                query::append(&mut changed, name, value);
                            }
                            [head, changed.as_bytes()].concat()
                        });
                    let message = changed.unwrap_or(message);
                    answered.write_i32_le(message.len() as i32 + 4).await.unwrap();
                    answered.write_all(&message).await.unwrap();
                }
            });
        }
    });
    way
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_find_and_modify_returns_the_document_as_it_is_stored() {
    let old_binary = bson::Binary { subtype: bson::spec::BinarySubtype::BinaryOld, bytes: vec![1, 2, 3] };
    let mut stored = raw(doc! { "_id": 1, "twice": 1, "old": old_binary });
    query::append(&mut stored, "twice", 2);
    let proxy = Proxy::to(&with_found(&server(), stored.clone()).await).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 1 }])).await.unwrap();
    let returning = |modify: Modify| Modify { returning: Returning::Before, ..modify };
    for change in [
        update(doc! { "_id": 1 }, doc! { "$set": { "n": 0 } }),
        update(doc! { "_id": 1 }, doc! { "_id": 1, "n": 1 }),
        delete(doc! { "_id": 1 }),
    ] {
        proxy.take_commands();
        let document = write_limited(&*store, &namespace, returning(change)).await.unwrap().document.unwrap();
        let commands = proxy.commands("findAndModify");
        assert_timed(&commands, "findAndModify");
        assert_eq!((commands.len(), document.as_bytes()), (1, stored.as_bytes()));
    }
    assert!(all(&*store, &namespace).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_write_of_one_document_fetches_one_if_the_guard_has_filters() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    write(&*store, insert(&namespace, documents())).await.unwrap();
    // The update changes a field that the guard reads, so the document is read first.
    let give = || update(doc! {}, doc! { "$set": { "owner": "a" } });
    for (guard, modify, limit) in [
        (Owner::by_filter(), give(), Some(1)),
        (Owner::by_filter(), many(give()), None),
        // A few documents, in case the guard shows one of them.
        (Owner::judging(), give(), Some(4)),
    ] {
        proxy.take_commands();
        write(&*store, Write { budget: limited(), ..write_of(&namespace, modify, Some(guard)) }).await.unwrap();
        let finds = proxy.commands("find");
        let limits: Vec<_> = finds.iter().map(|find| find.get("limit").and_then(Bson::as_i64)).collect();
        assert_eq!(limits, [limit], "{finds:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_writes_keep_the_write_concern_and_the_options_of_the_connection_string() {
    let proxy = Proxy::to(&server()).await;
    let concern = |name: &str| {
        let command = proxy.commands(name).pop().unwrap();
        proxy.take_commands();
        assert!(command.contains_key("maxTimeMS"), "{command}");
        (command.get_document("writeConcern").ok().cloned(), number(&command).is_some())
    };
    let new = |namespace: &Namespace| Write { budget: limited(), ..insert(namespace, vec![doc! { "_id": 1 }]) };
    let store = open(&proxy.uri(""));
    write(&*store, new(&fresh())).await.unwrap();
    assert_eq!(concern("insert"), (None, true));
    let own = Namespace::new(&format!("userkeep_{}", fresh_database()), "users");
    write(&*store, new(&own)).await.unwrap();
    assert_eq!(concern("insert"), (Some(doc! { "w": "majority" }), true));
    let returning = Modify { returning: Returning::After, ..update(doc! {}, doc! { "$set": { "x": 1 } }) };
    write_limited(&*store, &own, returning).await.unwrap();
    assert_eq!(concern("findAndModify"), (Some(doc! { "w": "majority" }), true));

    let store = open(&proxy.uri("w=1&journal=true&wTimeoutMS=5000&retryWrites=false"));
    write(&*store, new(&fresh())).await.unwrap();
    assert_eq!(concern("insert"), (Some(doc! { "w": 1, "wtimeout": 5000, "j": true }), false));
    // A transaction has its own write concern.
    store.write([fresh(), fresh()].iter().map(new).collect()).await.unwrap();
    assert_eq!(concern("insert").0, None);
    let store = open(&proxy.uri("w=0"));
    let error = write(&*store, new(&fresh())).await.unwrap_err();
    assert!(error.to_string().contains("Unacknowledged write concerns are not supported"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_are_not_older_than_a_limited_write() {
    let uri = server();
    let (primary, other) = tokio::join!(Proxy::to(&uri), Proxy::to(&uri));
    let hosts = || [&primary, &other].map(Proxy::host).to_vec();
    for (proxy, is_primary) in [(&primary, true), (&other, false)] {
        proxy.introduce(Member { hosts: hosts(), is_primary, tags: doc! {} });
    }
    let store = open(&format!("mongodb://{}/?replicaSet=tests", primary.host()));
    let reading = store.reading_from(&ReadPreference { mode: "secondary".to_owned(), tag_sets: vec![] }).unwrap();
    let namespace = fresh();
    let mut before = None;
    // The time that the latest query must observe at least (`afterClusterTime`).
    let latest = || {
        let find = other.commands("find").pop().unwrap();
        let after = find.get_document("readConcern").unwrap().get_timestamp("afterClusterTime").unwrap();
        (after.time, after.increment)
    };
    for id in 0..3 {
        let new = insert(&namespace, vec![doc! { "_id": id }]);
        write(&reading, Write { budget: limited(), ..new }).await.unwrap();
        write_limited(&reading, &namespace, many(update(doc! {}, doc! { "$inc": { "n": 1 } }))).await.unwrap();
        assert_eq!(all(&reading, &namespace).await.len(), id as usize + 1);
        let first = latest();
        assert!(first.0 > 0 && before.is_none_or(|before| before < first));
        let returning = Modify { returning: Returning::After, ..update(doc! {}, doc! { "$inc": { "n": 1 } }) };
        write_limited(&reading, &namespace, returning).await.unwrap();
        all(&reading, &namespace).await;
        assert!(first < latest());
        before = Some(latest());
    }
    let timed = |name| primary.commands(name).iter().all(|command: &Document| command.contains_key("maxTimeMS"));
    assert!(primary.commands("insert").len() == 3 && timed("insert") && timed("update") && timed("findAndModify"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_writes_to_a_standalone_server_have_no_transaction_numbers() {
    let server = OwnServer::start(&["--standalone"]);
    let proxy = Proxy::to(&server.uri).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let new = insert(&namespace, documents());
    assert_eq!(write(&*store, Write { budget: limited(), ..new }).await.unwrap().inserted_ids.len(), 6);
    let set = update(doc! { "_id": 1 }, doc! { "$set": { "x": 1 } });
    assert_eq!(write_limited(&*store, &namespace, set).await.unwrap().modified, 1);
    let deleted = Modify { returning: Returning::Before, ..delete(doc! { "_id": 1 }) };
    assert_eq!(write_limited(&*store, &namespace, deleted).await.unwrap().deleted, 1);
    let commands = proxy.take_commands();
    assert_eq!(commands.len(), 3);
    assert!(commands.iter().all(|command| number(command).is_none() && command.contains_key("maxTimeMS")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_insert_is_split_into_commands_that_the_server_accepts() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let large = |n: i32, bytes: usize| doc! { "_id": n, "text": "x".repeat(bytes) };
    let mut documents: Vec<_> = (0..40).map(|n| large(n, 1024 * 1024)).collect();
    // The largest document possible.
    documents.push(large(40, 16 * 1024 * 1024 - 64));
    documents.push(large(41, 1));
    let outcome = write(&*store, Write { budget: limited(), ..insert(&namespace, documents) }).await.unwrap();
    assert_eq!(outcome.inserted_ids.len(), 42);
    let sizes: Vec<_> =
        proxy.commands("insert").iter().map(|command| command.get_array("documents").unwrap().len()).collect();
    assert_eq!(sizes, [15, 15, 10, 1, 1]);
    let count = store.count(store::Count::new(namespace.clone(), Filter::all())).await.unwrap();
    assert_eq!(count, 42);
    // The documents before a duplicate remain, whichever command contains it.
    let documents = (50..70).map(|n| large(if n == 68 { 1 } else { n }, 1024 * 1024)).collect();
    let error = write(&*store, Write { budget: limited(), ..insert(&namespace, documents) }).await.unwrap_err();
    assert!(matches!(error, Error::DuplicateKey { .. }), "{error}");
    assert_eq!(store.count(store::Count::new(namespace, Filter::all())).await.unwrap(), 42 + 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_change_of_a_large_document_sends_no_command_above_the_limit() {
    const MOST: usize = 16 * 1024 * 1024 + 16 * 1024;
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let document = |id: i32, letter: &str, megabytes: usize| {
        doc! { "_id": id, "owner": "a", "text": letter.repeat(megabytes * 1024 * 1024), "n": 0 }
    };
    write(&*store, insert(&namespace, vec![document(1, "x", 9)])).await.unwrap();
    write(&*store, insert(&namespace, vec![raw_of_size(2, 16 * 1024 * 1024)])).await.unwrap();
    let judged = async |modify: Modify| {
        proxy.take_commands();
        let judged = Write { budget: limited(), ..write_of(&namespace, modify, Some(Owner::judging())) };
        let outcome = write(&*store, judged).await.unwrap();
        let commands = proxy.take_commands();
        for command in &commands {
            let size = RawDocumentBuf::try_from(command).unwrap().as_bytes().len();
            assert!(size <= MOST, "{:?} has {size} bytes", command.keys().next());
        }
        (outcome, commands.iter().any(|command| command.contains_key("commitTransaction")))
    };
    let replace = update(doc! { "_id": 1 }, document(1, "y", 10));
    let (outcome, is_transaction) = judged(Modify { returning: Returning::Before, ..replace }).await;
    assert_eq!((outcome.matched, outcome.modified, is_transaction), (1, 1, true));
    assert!(outcome.document.unwrap().get_str("text").unwrap().starts_with('x'));
    assert_eq!(all(&*store, &namespace).await[0], document(1, "y", 10));
    // The change alone is small, so one command holds it and the precondition.
    let increment = |id: i32| update(doc! { "_id": id }, doc! { "$inc": { "n": 1 } });
    let (outcome, is_transaction) = judged(increment(1)).await;
    assert_eq!((outcome.modified, is_transaction), (1, false));
    // The precondition alone is as large as a command may be.
    let (outcome, is_transaction) = judged(increment(2)).await;
    assert_eq!((outcome.modified, is_transaction), (1, true));
    let (outcome, is_transaction) = judged(delete(doc! { "_id": 2 })).await;
    assert_eq!((outcome.deleted, is_transaction), (1, true));
    let (outcome, is_transaction) = judged(delete(doc! { "_id": 1 })).await;
    assert_eq!((outcome.deleted, is_transaction), (1, false));
    assert!(all(&*store, &namespace).await.is_empty());
}

/// A document of exactly `bytes` bytes.
fn raw_of_size(id: i32, bytes: usize) -> Document {
    let mut document = doc! { "_id": id, "owner": "a", "n": 0, "text": "" };
    let rest = bytes - raw(document.clone()).as_bytes().len();
    document.insert("text", "x".repeat(rest));
    document
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_server_rejects_a_guarded_change_that_is_too_large_for_a_command() {
    let server = OwnServer::start(&["--standalone"]);
    let store = open(&server.uri);
    let namespace = fresh();
    let document = |letter: &str| doc! { "_id": 1, "owner": "a", "text": letter.repeat(9 * 1024 * 1024), "n": 0 };
    write(&*store, insert(&namespace, vec![document("x")])).await.unwrap();
    let judged = async |modify: Modify| {
        write(&*store, Write { budget: limited(), ..write_of(&namespace, modify, Some(Owner::judging())) }).await
    };
    let error = judged(update(doc! { "_id": 1 }, document("y"))).await.unwrap_err();
    let (code, message) = code_and_message(&error);
    assert!(code == 10334 && message.contains("a standalone server has none, and nothing was written"), "{message}");
    assert_eq!(all(&*store, &namespace).await, [document("x")]);
    let outcome = judged(update(doc! { "_id": 1 }, doc! { "$inc": { "n": 1 } })).await.unwrap();
    assert_eq!(outcome.modified, 1);
}
