//! Tests of behaviour that only a store on MongoDB has: several nodes at once, bad network
//! connections, and servers with fewer features.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{
    Document, RawBson, doc,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{Budget, Filter, Limits, Path, Pipeline, Update};
use store::{
    Aggregate, Audience, Change, ChangeKind, ChangeStream, Count, Denied, Error, Find, Guard, GuardFilters, Index,
    Location, Modify, MongoStore, Namespace, Operation, Outcome, Progress, ReadPreference, Result, Returning,
    SqliteStore, Store, SystemEnvironment, Watch, Write,
    migrate::{Selection, migrate},
};
use support::{
    OwnServer, filter, fresh, fresh_database, open,
    proxy::{Cut, Member, Proxy},
    raw, server, with_options,
};

fn insert(namespace: &Namespace, documents: Vec<Document>) -> Write {
    let documents = documents.into_iter().map(raw).collect();
    Write::new(namespace.clone(), Operation::Insert(documents))
}

fn modify(namespace: &Namespace, modify: Modify, guard: Option<Arc<dyn Guard>>) -> Write {
    Write { guard, ..Write::new(namespace.clone(), Operation::modify(modify)) }
}

fn update(find: Document, update: Document) -> Modify {
    let update = Update::parse(&raw(update)).unwrap();
    Modify::new(filter(find), false, Change::Update { update, upsert: false })
}

async fn write(store: &dyn Store, write: Write) -> Result<Outcome> {
    Ok(store.write(vec![write]).await?.remove(0))
}

async fn all(store: &dyn Store, namespace: &Namespace) -> Vec<Document> {
    let found = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap();
    found.into_iter().map(|document| Document::try_from(document).unwrap()).collect()
}

/// Lets an owner see and write only its own documents; with or without filters.
struct Owner {
    name: &'static str,
    filters: Option<GuardFilters>,
}

impl Owner {
    fn judging(name: &'static str) -> Arc<dyn Guard> {
        Arc::new(Self { name, filters: None })
    }

    fn by_filter(name: &'static str) -> Arc<dyn Guard> {
        let own = Filter::equals("owner", RawBson::String(name.to_owned()));
        let paths = vec![Path::new("owner")];
        let filters = GuardFilters { seen: own.clone(), updatable: own.clone(), deletable: own, paths };
        Arc::new(Self { name, filters: Some(filters) })
    }
}

impl Guard for Owner {
    fn may_see(&self, document: &RawDocument) -> bool {
        document.get_str("owner").is_ok_and(|owner| owner == self.name)
    }

    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
        let allowed = [before, after].into_iter().flatten().all(|document| self.may_see(document));
        if allowed { Ok(()) } else { Err(Denied("write not permitted".into())) }
    }

    fn filters(&self) -> Option<&GuardFilters> {
        self.filters.as_ref()
    }
}

fn is_unavailable(error: &Error, maybe: bool) -> bool {
    matches!(error, Error::Unavailable { maybe_written, .. } if *maybe_written == maybe)
}

/// One node keeps giving a document away and taking it back, while another node writes to it as
/// one of its owners.
async fn race(guard: Arc<dyn Guard>, sets: Document) {
    let (one, other) = (open(&server()), open(&server()));
    let namespace = fresh();
    write(&*one, insert(&namespace, vec![doc! { "_id": 1, "owner": "a", "by_a": 0, "n": 0 }])).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let giving = {
        let (namespace, is_over) = (namespace.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut given = 0;
            while !is_over.load(Ordering::SeqCst) {
                let owner = if given % 2 == 0 { "b" } else { "a" };
                let give = Modify {
                    returning: Returning::Before,
                    ..update(doc! { "_id": 1 }, doc! { "$set": { "owner": owner, "by_a": 0 } })
                };
                let before = write(&*one, modify(&namespace, give, None)).await.unwrap().document.unwrap();
                // While the document belonged to `b`, `a` must not have written to it.
                if before.get_str("owner").unwrap() == "b" {
                    assert_eq!(before.get_i32("by_a").unwrap(), 0, "{before:?}");
                }
                given += 1;
            }
            given
        })
    };
    let (mut written, mut refused) = (0, 0);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end || written < 5 || refused < 5 {
        let change = modify(&namespace, update(doc! { "n": { "$gte": 0 } }, sets.clone()), Some(Arc::clone(&guard)));
        match write(&*other, change).await {
            Ok(outcome) if outcome.matched == 1 => written += 1,
            Ok(_) | Err(Error::Denied(_)) => refused += 1,
            Err(error) => assert!(error.to_string().contains("during every attempt"), "{error}"),
        }
    }
    is_over.store(true, Ordering::SeqCst);
    assert!(giving.await.unwrap() > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guard_with_filters_is_checked_by_the_write_itself() {
    race(Owner::by_filter("a"), doc! { "$inc": { "n": 1 }, "$set": { "by_a": 1 } }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_checked_document_is_written_only_while_it_is_unchanged() {
    race(Owner::judging("a"), doc! { "$inc": { "n": 1 }, "$set": { "by_a": 1 } }).await;
    // An update of a field that the guard reads is checked in the process, even if the guard has
    // filters.
    race(Owner::by_filter("a"), doc! { "$inc": { "n": 1 }, "$set": { "by_a": 1, "owner": "a" } }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_documents_under_a_guard_change_together_or_not_at_all() {
    let store = open(&server());
    let namespace = fresh();
    write(&*store, insert(&namespace, (0..5).map(|n| doc! { "_id": n, "owner": "a", "n": 0 }).collect()))
        .await
        .unwrap();
    let increment = || {
        let Modify { filter, change, .. } = update(doc! { "owner": "a" }, doc! { "$inc": { "n": 1 } });
        modify(&namespace, Modify::new(filter, true, change), Some(Owner::judging("a")))
    };
    // Concurrent updates must not overwrite each other.
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (store, writes) = (Arc::clone(&store), [increment(), increment()]);
            tokio::spawn(async move {
                for increment in writes {
                    assert_eq!(write(&*store, increment).await.unwrap().modified, 5);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(all(&*store, &namespace).await.iter().all(|document| document.get_i32("n").unwrap() == 8));

    let give = Update::parse(&rawdoc! { "$set": { "owner": "b" } }).unwrap();
    let give = Modify::new(filter(doc! { "_id": { "$gt": 2 } }), true, Change::Update { update: give, upsert: false });
    let denied = write(&*store, modify(&namespace, give, Some(Owner::by_filter("a")))).await.unwrap_err();
    assert!(matches!(denied, Error::Denied(_)), "{denied}");
    assert!(all(&*store, &namespace).await.iter().all(|document| document.get_str("owner").unwrap() == "a"));
}

/// The outcome of a write is the same whether the server or this process checks the document.
#[tokio::test]
async fn a_guard_decides_alike_with_and_without_filters() {
    let store = open(&server());
    let documents = || {
        vec![
            doc! { "_id": 1, "owner": "a", "n": 1, "tags": ["x", "y"], "deep": { "a": 1 } },
            doc! { "_id": 2, "owner": "b", "n": 2 },
            doc! { "_id": 3, "owner": "a", "n": 3, "tags": [] },
        ]
    };
    let updates = [
        doc! { "$set": { "n": 10, "deep.b.c": true }, "$push": { "tags": "z" } },
        doc! { "$unset": { "tags": 1, "deep": 1 }, "$rename": { "n": "m" } },
        doc! { "$set": { "owner": "b" } },
        doc! { "$set": { "owner": "a", "x.$y": 1 } },
        doc! { "$pop": { "tags": 1 }, "$mul": { "n": 2.5 } },
        doc! { "owner": "a", "whole": true },
        doc! { "owner": "b" },
        doc! { "$currentDate": { "at": { "$type": "date" } } },
    ];
    let mut changed = 0;
    for change in updates {
        let Ok(update) = Update::parse(&raw(change.clone())) else { continue };
        for find in [doc! { "n": { "$gte": 0 } }, doc! { "_id": 2 }, doc! { "_id": 3 }, doc! { "n": 7, "owner": "a" }] {
            for (upsert, returning) in
                [(false, Returning::Nothing), (true, Returning::After), (false, Returning::Before)]
            {
                let mut told = Vec::new();
                for guard in [Owner::judging("a"), Owner::by_filter("a")] {
                    let namespace = fresh();
                    write(&*store, insert(&namespace, documents())).await.unwrap();
                    let change = Change::Update { update: update.clone(), upsert };
                    let modify_ = Modify { returning, ..Modify::new(filter(find.clone()), false, change) };
                    let outcome = write(&*store, modify(&namespace, modify_, Some(guard))).await;
                    changed += usize::from(outcome.as_ref().is_ok_and(|outcome| outcome.modified > 0));
                    let said = |error: Error| error.to_string().replace(&namespace.to_string(), "it");
                    let answer = outcome.map_err(said).map(|outcome| {
                        let document = outcome.document.map(|document| without_time(document.try_into().unwrap()));
                        // Counts are not compared if the caller requests the document.
                        let counts = (returning == Returning::Nothing).then_some((outcome.matched, outcome.modified));
                        (counts, outcome.upserted_id.is_some() && returning == Returning::Nothing, document)
                    });
                    let now: Vec<_> = all(&*store, &namespace).await.into_iter().map(without_time).collect();
                    told.push((answer, now));
                }
                assert_eq!(told[0], told[1], "{find} {change} upsert {upsert}");
            }
        }
    }
    assert!(changed > 20, "{changed}");
}

/// A document whose fields may share a name.
fn with_fields(fields: &[(&str, RawBson)]) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    fields.iter().for_each(|(name, value)| query::append(&mut document, name, value));
    document
}

fn code(error: &Error) -> i32 {
    match error {
        Error::Query(error) => error.number(),
        _ => 0,
    }
}

fn with_time(time: Duration) -> Budget {
    Budget::new(Limits { time: Some(time), ..Limits::default() })
}

#[tokio::test]
async fn the_written_document_is_the_one_that_was_checked() {
    let store = open(&server());
    let stages = rawdoc! { "all": [{ "$replaceWith": { "owner": "a", "b": 3, "a": 1 } }] };
    let reorder = || Update::parse_any(RawBsonRef::Array(stages.get_array("all").unwrap()), None).unwrap();
    let twice = with_fields(&[("owner", "a".into()), ("owner", "b".into())]);
    let within = with_fields(&[("owner", "a".into()), ("in", RawBson::Document(twice.clone()))]);
    for multi in [false, true] {
        let namespace = fresh();
        write(&*store, insert(&namespace, vec![doc! { "_id": 1, "owner": "a", "a": 1, "b": 2 }])).await.unwrap();
        let judged = |update: Update, upsert: bool, find: Document| {
            let change = Modify::new(filter(find), multi, Change::Update { update, upsert });
            modify(&namespace, change, Some(Owner::judging("a")))
        };
        write(&*store, judged(reorder(), false, doc! {})).await.unwrap();
        let expected = [raw(doc! { "_id": 1, "owner": "a", "b": 3, "a": 1 })];
        let stored = async || store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap();
        assert_eq!(stored().await, expected, "the fields have the order that was checked");

        for replacement in [&twice, &within] {
            for (upsert, find) in [(false, doc! {}), (true, doc! { "_id": 2 })] {
                let update = Update::replacement(replacement).unwrap();
                let error = write(&*store, judged(update, upsert, find)).await.unwrap_err();
                assert!(code(&error) == 2 && error.to_string().contains("twice"), "{error}");
                assert_eq!(stored().await, expected);
            }
        }
    }
}

#[tokio::test]
async fn a_document_with_a_duplicate_field_is_rejected_before_it_reaches_the_server() {
    let store = open(&server());
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 1, "in": { "a": 2 } }])).await.unwrap();
    let twice = with_fields(&[("a", 1.into()), ("a", 2.into())]);
    let twice = || RawBson::Document(twice.clone());
    let is_twice = |error: Error| code(&error) == 2 && error.to_string().contains("twice");

    let asked = || Filter::equals("in", twice());
    assert!(is_twice(store.find(Find::new(namespace.clone(), asked())).await.unwrap_err()));
    assert!(is_twice(store.count(Count::new(namespace.clone(), asked())).await.unwrap_err()));
    let stages = rawdoc! { "all": [{ "$match": { "in": twice() } }] };
    let pipeline = Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
    assert!(is_twice(store.aggregate(Aggregate::new(namespace.clone(), pipeline)).await.unwrap_err()));
    for budget in [Budget::default(), with_time(Duration::from_secs(20))] {
        let update = Update::parse(&rawdoc! { "$set": { "in": twice() } }).unwrap();
        let update = Modify::new(Filter::all(), false, Change::Update { update, upsert: false });
        let update = Write { budget, ..modify(&namespace, update, None) };
        assert!(is_twice(write(&*store, update).await.unwrap_err()));
    }
    let delete = Modify::new(asked(), false, Change::Delete);
    assert!(is_twice(write(&*store, modify(&namespace, delete, None)).await.unwrap_err()));
    assert_eq!(all(&*store, &namespace).await, [doc! { "_id": 1, "in": { "a": 2 } }]);
}

/// More than one path may lead to a value that a guard reads.
#[tokio::test]
async fn an_index_in_a_path_does_not_bypass_the_guard() {
    struct Member;
    impl Guard for Member {
        fn may_see(&self, document: &RawDocument) -> bool {
            filter(doc! { "members.id": "a" }).matches(document)
        }

        fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
            let allowed = [before, after].into_iter().flatten().all(|document| self.may_see(document));
            if allowed { Ok(()) } else { Err(Denied("write not permitted".into())) }
        }

        fn filters(&self) -> Option<&GuardFilters> {
            static FILTERS: std::sync::LazyLock<GuardFilters> = std::sync::LazyLock::new(|| {
                let own = filter(doc! { "members.id": "a" });
                let paths = vec![Path::new("members.id")];
                GuardFilters { seen: own.clone(), updatable: own.clone(), deletable: own, paths }
            });
            Some(&FILTERS)
        }
    }
    let store = open(&server());
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 1, "members": [{ "id": "a" }], "n": 0 }])).await.unwrap();
    for change in [
        doc! { "$set": { "members.0.id": "b" } },
        doc! { "$set": { "members.$[].id": "b" } },
        doc! { "$set": { "members.0": {} } },
        doc! { "$pop": { "members": 1 } },
        doc! { "$unset": { "members": 1 } },
        doc! { "$rename": { "members": "others" } },
        doc! { "$rename": { "n": "members" } },
    ] {
        let denied =
            write(&*store, modify(&namespace, update(doc! { "_id": 1 }, change.clone()), Some(Arc::new(Member)))).await;
        assert!(matches!(denied, Err(Error::Denied(_))), "{change}: {denied:?}");
    }
    let allowed = update(doc! { "_id": 1 }, doc! { "$set": { "members.0.name": "x" }, "$inc": { "n": 1 } });
    assert_eq!(write(&*store, modify(&namespace, allowed, Some(Arc::new(Member)))).await.unwrap().modified, 1);
}

/// A guard compares strings byte by byte, whatever collation the operator has set for a
/// collection.
#[tokio::test]
async fn the_collation_of_a_collection_does_not_widen_what_a_guard_allows() {
    let store = open(&server());
    let namespace = fresh();
    let client = mongodb::Client::with_uri_str(server()).await.unwrap();
    let create = doc! { "create": &*namespace.collection, "collation": { "locale": "en", "strength": 1 } };
    client.database(&namespace.database).run_command(create).await.unwrap();
    write(&*store, insert(&namespace, vec![doc! { "_id": 1, "owner": "A", "n": 0 }])).await.unwrap();
    for guard in [Owner::by_filter("a"), Owner::judging("a")] {
        let seen = Find { guard: Some(Arc::clone(&guard)), ..Find::new(namespace.clone(), Filter::all()) };
        assert!(store.find(seen).await.unwrap().is_empty());
        let count =
            store::Count { guard: Some(Arc::clone(&guard)), ..store::Count::new(namespace.clone(), Filter::all()) };
        assert_eq!(store.count(count).await.unwrap(), 0);
        for change in [
            Change::Delete,
            Change::Update { update: Update::parse(&rawdoc! { "$inc": { "n": 1 } }).unwrap(), upsert: false },
        ] {
            for returning in [Returning::Nothing, Returning::Before] {
                let change = match &change {
                    Change::Delete => Change::Delete,
                    Change::Update { update, .. } => Change::Update { update: update.clone(), upsert: false },
                };
                let change = Modify { returning, ..Modify::new(filter(doc! { "n": 0 }), false, change) };
                let outcome = write(&*store, modify(&namespace, change, Some(Arc::clone(&guard)))).await.unwrap();
                assert_eq!(outcome.matched, 0);
            }
        }
    }
}

/// Replaces the values that differ between two runs.
fn without_time(mut document: Document) -> Document {
    if document.contains_key("at") {
        document.insert("at", "some time");
    }
    if document.get_object_id("_id").is_ok() {
        document.insert("_id", "new");
    }
    document
}

#[tokio::test]
async fn of_two_inserts_with_one_unique_key_exactly_one_succeeds() {
    let (one, other) = (open(&server()), open(&server()));
    for round in 0..10 {
        let namespace = fresh();
        let index = || vec![Index::on(Path::new("name")).unique()];
        let (made, also) = tokio::join!(
            one.ensure_indexes(namespace.clone(), index()),
            other.ensure_indexes(namespace.clone(), index())
        );
        made.and(also).unwrap();
        let new = |id: i32| insert(&namespace, vec![doc! { "_id": id, "name": "ada" }]);
        let (first, second) = tokio::join!(write(&*one, new(1)), write(&*other, new(2)));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "round {round}");
        let refused = first.and(second).unwrap_err();
        assert!(refused.to_string().contains("index: name_1 dup key: { name: \"ada\" }"), "{refused}");
    }
}

#[tokio::test]
async fn a_standalone_server_rejects_what_needs_a_transaction() {
    let server = OwnServer::start(&["--standalone"]);
    let store = open(&server.uri);
    let namespace = fresh();
    let two = vec![insert(&namespace, vec![doc! { "_id": 1 }]), insert(&namespace, vec![doc! { "_id": 2 }])];
    let error = store.write(two).await.unwrap_err();
    assert!(matches!(error, Error::NeedsTransaction), "{error}");
    assert!(error.to_string().contains("Nothing was written"), "{error}");
    write(&*store, insert(&namespace, vec![doc! { "_id": 1, "owner": "a" }, doc! { "_id": 2, "owner": "a" }]))
        .await
        .unwrap();
    // One document can be written with a precondition; several documents that must each be checked
    // need a transaction.
    let mark = || update(doc! { "owner": "a" }, doc! { "$set": { "marked": true } });
    assert_eq!(write(&*store, modify(&namespace, mark(), Some(Owner::judging("a")))).await.unwrap().modified, 1);
    let many = |modify: Modify| Modify { multi: true, ..modify };
    let error = write(&*store, modify(&namespace, many(mark()), Some(Owner::judging("a")))).await.unwrap_err();
    assert!(matches!(error, Error::NeedsTransaction), "{error}");
    assert_eq!(write(&*store, modify(&namespace, many(mark()), Some(Owner::by_filter("a")))).await.unwrap().matched, 2);
    let error = store.watch(Watch { namespace, after: None, owner: None }).await.unwrap_err();
    assert!(error.to_string().contains("a replica set or a sharded cluster"), "{error}");
}

#[tokio::test]
async fn queries_go_to_the_preferred_members_and_see_earlier_writes() {
    let uri = server();
    let (primary, near, far) = tokio::join!(Proxy::to(&uri), Proxy::to(&uri), Proxy::to(&uri));
    let hosts = || [&primary, &near, &far].map(Proxy::host).to_vec();
    for (proxy, region) in [(&primary, "us"), (&near, "eu"), (&far, "us")] {
        let is_primary = proxy.host() == primary.host();
        proxy.introduce(Member { hosts: hosts(), is_primary, tags: doc! { "region": region, "disk": "ssd" } });
    }
    let store = open(&format!("mongodb://{}/?replicaSet=tests", primary.host()));
    let tags = HashMap::from([("region".to_owned(), "eu".to_owned()), ("disk".to_owned(), "ssd".to_owned())]);
    let preference = ReadPreference { mode: "secondary".to_owned(), tag_sets: vec![tags] };
    let reading = store.reading_from(&preference).unwrap();
    let namespace = fresh();
    write(&reading, insert(&namespace, vec![doc! { "_id": 1 }])).await.unwrap();
    assert_eq!(all(&reading, &namespace).await, [doc! { "_id": 1 }]);
    let finds = |proxy: &Proxy| proxy.commands("find").len();
    assert_eq!([&primary, &near, &far].map(finds), [0, 1, 0], "the query goes to the member with the tags");
    let find = near.commands("find").pop().unwrap();
    assert_eq!(find.get_document("$readPreference").unwrap().get_str("mode").unwrap(), "secondary");
    assert_eq!([&primary, &near, &far].map(|proxy| proxy.commands("insert").len()), [1, 0, 0]);
    let after = find.get_document("readConcern").unwrap().get_timestamp("afterClusterTime").unwrap();
    assert!(after.time > 0);
    // The backend's own databases are read from the primary and written to the majority.
    let own = Namespace::new(&format!("userkeep_{}", fresh_database()), "users");
    write(&reading, insert(&own, vec![doc! { "_id": 1 }])).await.unwrap();
    all(&reading, &own).await;
    assert_eq!([&primary, &near, &far].map(finds), [1, 1, 0]);
    let insert = primary.commands("insert").pop().unwrap();
    assert_eq!(insert.get_document("writeConcern").unwrap().get_str("w").unwrap(), "majority");

    let wrong = |mode: &str| ReadPreference { mode: mode.to_owned(), ..preference.clone() };
    assert!(store.reading_from(&wrong("primary")).unwrap_err().to_string().contains("does not go with tag sets"));
    assert!(
        store.reading_from(&wrong("nearby")).unwrap_err().to_string().contains("'nearby' is not a read preference")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_retried_after_a_lost_connection_and_nothing_is_written_twice() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=3000"));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "owner": "a", "n": 0 }])).await.unwrap();
    let increment = || update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
    let mut expected = 0;
    for cut in [Cut::BeforeCommand, Cut::BeforeAnswer] {
        for guard in [None, Some(Owner::by_filter("a")), Some(Owner::judging("a"))] {
            proxy.cut_at("update", cut, 1);
            let outcome = write(&*store, modify(&namespace, increment(), guard)).await.unwrap();
            assert_eq!((outcome.matched, outcome.modified), (1, 1));
            expected += 1;
            assert_eq!(all(&*store, &namespace).await[0].get_i32("n").unwrap(), expected);
        }
        proxy.cut_at("find", cut, 1);
        assert!(!all(&*store, &namespace).await.is_empty());
        // For an insert, and for a transaction.
        proxy.cut_at("insert", cut, 1);
        let id = format!("{expected}");
        write(&*store, insert(&namespace, vec![doc! { "_id": &id }])).await.unwrap();
        proxy.cut_at("commitTransaction", cut, 1);
        let two = ["x", "y"].map(|name| insert(&namespace, vec![doc! { "_id": format!("{name}{id}") }]));
        store.write(two.into()).await.unwrap();
        assert_eq!(all(&*store, &namespace).await.len(), if cut == Cut::BeforeCommand { 4 } else { 7 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_times_out_and_its_error_says_what_may_have_been_written() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri("serverSelectionTimeoutMS=700&connectTimeoutMS=700&socketTimeoutMS=1500"));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "owner": "a" }])).await.unwrap();
    proxy.delay(Duration::from_millis(150));
    assert_eq!(all(&*store, &namespace).await.len(), 1);

    proxy.silence(true);
    let begun = Instant::now();
    let error = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap_err();
    assert!(is_unavailable(&error, false), "{error}");
    let error = write(&*store, insert(&namespace, vec![doc! { "_id": 1 }])).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 1.5 s; the write may have been applied"), "{error}");
    let set = update(doc! { "_id": 0 }, doc! { "$set": { "n": 1 } });
    let error = write(&*store, modify(&namespace, set, Some(Owner::by_filter("a")))).await.unwrap_err();
    assert!(is_unavailable(&error, true), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());

    proxy.silence(false);
    proxy.close(true);
    let begun = Instant::now();
    // Whatever state the driver is in, it reports in time that no member can be reached.
    let error = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    let error = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap_err();
    assert!(error.to_string().contains("none of its members can be reached; nothing was written"), "{error}");
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    proxy.close(false);
    proxy.delay(Duration::ZERO);
    let back = async { while store.find(Find::new(namespace.clone(), Filter::all())).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    // Closing the store does not wait for the server either.
    proxy.silence(true);
    let begun = Instant::now();
    store.close().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Makes the server fail at commands as it does while its primary changes.
async fn fail(uri: &str, commands: &[&str], code: i32, times: i32) {
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let point = doc! {
        "configureFailPoint": "failCommand",
        "mode": if times == 0 { bson::Bson::from("off") } else { bson::bson!({ "times": times }) },
        "data": { "failCommands": commands.to_vec(), "errorCode": code, "errorLabels": ["RetryableWriteError"] },
    };
    client.database("admin").run_command(point).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_waits_for_a_new_primary_or_reports_its_absence() {
    // Fail points affect all clients of a server.
    let server = OwnServer::start(&[]);
    let store = open(&with_options(&server.uri, "serverSelectionTimeoutMS=3000&heartbeatFrequencyMS=500"));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0, "n": 0 }])).await.unwrap();
    let mut expected = 0;
    for code in [10107, 189, 91] {
        fail(&server.uri, &["update"], code, 1).await;
        let increment = update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
        let written = write(&*store, modify(&namespace, increment, None)).await;
        assert!(written.as_ref().is_ok_and(|outcome| outcome.modified == 1), "{code}: {written:?}");
        expected += 1;
        fail(&server.uri, &["find"], code, 1).await;
        assert_eq!(all(&*store, &namespace).await[0].get_i32("n").unwrap(), expected);

        fail(&server.uri, &["update", "find"], code, 10).await;
        let increment = update(doc! { "_id": 0 }, doc! { "$inc": { "n": 1 } });
        let error = write(&*store, modify(&namespace, increment, None)).await.unwrap_err();
        assert!(error.to_string().contains("its primary is changing; the write may"), "{code}: {error}");
        let error = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap_err();
        assert!(error.to_string().contains("its primary is changing; nothing was written"), "{code}: {error}");
        fail(&server.uri, &[], code, 0).await;
    }
}

/// Reads until a number of events have arrived.
async fn read(stream: &mut dyn ChangeStream, count: usize) -> Vec<(ChangeKind, i32)> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {count} events have come", events.len())).unwrap();
        events.extend(next.iter().map(|event| (event.kind, event.id().as_i32().unwrap())));
    }
    events
}

async fn watch(store: &MongoStore, namespace: &Namespace) -> Box<dyn ChangeStream> {
    store.watch(Watch { namespace: namespace.clone(), after: None, owner: None }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_collection_share_a_stream_and_receive_each_change_once() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": -1 }])).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(watch(&store, &namespace).await);
    }
    assert_eq!(proxy.commands("aggregate").len(), 1);
    let writing = {
        let (writer, namespace) = (open(&server()), namespace.clone());
        tokio::spawn(async move {
            for id in 0..60 {
                write(&*writer, insert(&namespace, vec![doc! { "_id": id }])).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.cut();
    }
    proxy.close(true);
    writing.await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.close(false);
    let expected: Vec<_> = (0..60).map(|id| (ChangeKind::Insert, id)).collect();
    let mut tokens = Vec::new();
    for stream in &mut streams {
        assert_eq!(read(&mut **stream, 60).await, expected);
        tokens.push(stream.position().unwrap());
    }
    // A watcher that returns later receives the events that it has missed, and then joins the
    // others.
    let after = Some(tokens.remove(0));
    let mut back = store.watch(Watch { namespace: namespace.clone(), after, owner: None }).await.unwrap();
    write(&*store, insert(&namespace, vec![doc! { "_id": 100 }, doc! { "_id": 101 }])).await.unwrap();
    assert_eq!(read(&mut *back, 2).await, [(ChangeKind::Insert, 100), (ChangeKind::Insert, 101)]);
    let none = store.watch(Watch { namespace: namespace.clone(), after: Some("zz".into()), owner: None }).await;
    assert!(matches!(none, Err(Error::Query(error)) if error.number() == 260));
    // No event arrives while nothing changes.
    assert!(tokio::time::timeout(Duration::from_millis(300), back.next()).await.is_err());
    store.close().await;
    let end = tokio::time::timeout(Duration::from_secs(5), back.next()).await.unwrap();
    assert!(matches!(end, Err(Error::Closed)));
}

/// Pairs written in transactions are stored completely or not at all, and reported once, even if
/// the server restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_during_transactions_and_a_change_stream_loses_and_repeats_nothing() {
    let server = OwnServer::start(&["--sync-on-commit"]);
    let options = "serverSelectionTimeoutMS=1500&connectTimeoutMS=1500&heartbeatFrequencyMS=500";
    let store = open(&with_options(&server.uri, options));
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": -1 }])).await.unwrap();
    let mut stream = watch(&store, &namespace).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writing = {
        let (store, namespace, is_over) = (Arc::clone(&store), namespace.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut acknowledged, mut failed, mut pair) = (Vec::new(), 0, 0);
            while !is_over.load(Ordering::SeqCst) {
                let half = |number: i32| insert(&namespace, vec![doc! { "_id": 2 * pair + number }]);
                match store.write(vec![half(0), half(1)]).await {
                    Ok(_) => acknowledged.push(pair),
                    Err(error) => {
                        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
                        failed += 1;
                    }
                }
                pair += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            (acknowledged, failed)
        })
    };
    for away in [0, 2500] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.stop();
        tokio::time::sleep(Duration::from_millis(away)).await;
        server.go_on();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_over.store(true, Ordering::SeqCst);
    let (acknowledged, failed) = writing.await.unwrap();
    // After a retry, most of them succeed.
    assert!(acknowledged.len() > 20, "{} were written and {failed} not", acknowledged.len());
    let there: Vec<i32> =
        all(&*store, &namespace).await.iter().map(|document| document.get_i32("_id").unwrap()).collect();
    let there: std::collections::BTreeSet<i32> = there.into_iter().filter(|id| *id >= 0).collect();
    for pair in acknowledged {
        assert!(there.contains(&(2 * pair)), "the acknowledged pair {pair} is missing");
    }
    assert!(there.iter().all(|id| there.contains(&(id ^ 1))), "only half of a pair is stored");
    let mut told: Vec<i32> = read(&mut *stream, there.len()).await.into_iter().map(|(_, id)| id).collect();
    assert!(tokio::time::timeout(Duration::from_millis(500), stream.next()).await.is_err(), "an event is repeated");
    told.sort_unstable();
    assert_eq!(told, there.into_iter().collect::<Vec<_>>());
}

/// A watcher that is slower than the buffer of its stream loses no event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_catches_up() {
    let store = open(&server());
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": -1 }])).await.unwrap();
    let (mut slow, mut fast) = (watch(&store, &namespace).await, watch(&store, &namespace).await);
    assert!(tokio::time::timeout(Duration::from_millis(100), slow.next()).await.is_err());
    let count = 9000;
    let writer = Arc::clone(&store);
    let documents: Vec<_> = (0..count).map(|id| doc! { "_id": id }).collect();
    write(&*writer, insert(&namespace, documents)).await.unwrap();
    let expected: Vec<_> = (0..count).map(|id| (ChangeKind::Insert, id)).collect();
    assert_eq!(read(&mut *fast, count as usize).await, expected);
    assert_eq!(read(&mut *slow, count as usize).await, expected);
    write(&*writer, insert(&namespace, vec![doc! { "_id": count }])).await.unwrap();
    assert_eq!(read(&mut *slow, 1).await, [(ChangeKind::Insert, count)]);
}

/// The driver closes the connection of an aborted operation, and many new connections take time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_operations_do_not_delay_others() {
    let store = open(&server());
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0 }])).await.unwrap();
    for round in 0..15 {
        let given_up: Vec<_> = (0..60)
            .map(|number| {
                let (store, namespace) = (Arc::clone(&store), namespace.clone());
                tokio::spawn(async move {
                    all(&*store, &namespace).await;
                    let id = format!("{round} {number}");
                    write(&*store, insert(&namespace, vec![doc! { "_id": id }])).await.unwrap();
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(round)).await;
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        let begun = Instant::now();
        let find = Find::new(namespace.clone(), filter(doc! { "_id": 0 }));
        assert_eq!(store.find(find).await.unwrap().len(), 1);
        assert!(begun.elapsed() < Duration::from_secs(2), "round {round}: {:?}", begun.elapsed());
    }
}

/// Change streams take no connection from queries and writes, however small the pool is, and
/// resumed streams do not hold one connection each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_streams_do_not_delay_other_operations() {
    let store = open(&with_options(&server(), "maxPoolSize=2"));
    let namespace = fresh();
    let mut streams = Vec::new();
    write(&*store, insert(&namespace, vec![doc! { "_id": 0 }])).await.unwrap();
    let mut first = watch(&store, &namespace).await;
    write(&*store, insert(&namespace, vec![doc! { "_id": 1 }])).await.unwrap();
    read(&mut *first, 1).await;
    for _ in 0..20 {
        let after = first.position();
        streams.push(store.watch(Watch { namespace: namespace.clone(), after, owner: None }).await.unwrap());
    }
    for number in 0..5 {
        let other = Namespace::new(&namespace.database, &format!("other{number}"));
        streams.push(watch(&store, &other).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    for _ in 0..20 {
        all(&*store, &namespace).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    for round in 2..4 {
        write(&*store, insert(&namespace, vec![doc! { "_id": round }])).await.unwrap();
        for stream in &mut streams[..20] {
            assert_eq!(read(&mut **stream, 1).await, [(ChangeKind::Insert, round)]);
        }
    }
    let none = open(&with_options(&server(), "maxPoolSize=0"));
    assert_eq!(all(&*none, &namespace).await.len(), 4);
}

/// An event carries the document as the change left it, even if the document has changed again
/// since.
#[tokio::test]
async fn an_event_carries_the_document_as_its_change_left_it() {
    let store = open(&server());
    let namespace = fresh();
    store.keep_versions(namespace.clone()).await.unwrap();
    let mut stream = watch(&store, &namespace).await;
    write(&*store, insert(&namespace, vec![doc! { "_id": 1, "list": [1, 2, 3], "deep": { "a": 1 } }])).await.unwrap();
    for change in [
        doc! { "$set": { "deep.b": 2 }, "$unset": { "deep.a": 1 } },
        doc! { "$push": { "list": 4 } },
        doc! { "$pop": { "list": -1 } },
        doc! { "whole": true },
    ] {
        write(&*store, modify(&namespace, update(doc! { "_id": 1 }, change), None)).await.unwrap();
    }
    write(&*store, modify(&namespace, Modify::new(filter(doc! { "_id": 1 }), false, Change::Delete), None))
        .await
        .unwrap();
    let mut versions = Vec::new();
    while versions.len() < 6 {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap();
        assert!(next.iter().all(|event| event.is_exact));
        versions.extend(next.iter().map(|event| Document::try_from(event.known()).unwrap()));
    }
    assert_eq!(
        versions,
        [
            doc! { "_id": 1, "list": [1, 2, 3], "deep": { "a": 1 } },
            doc! { "_id": 1, "list": [1, 2, 3], "deep": { "b": 2 } },
            doc! { "_id": 1, "list": [1, 2, 3, 4], "deep": { "b": 2 } },
            doc! { "_id": 1, "list": [2, 3, 4], "deep": { "b": 2 } },
            doc! { "_id": 1, "whole": true },
            doc! { "_id": 1, "whole": true },
        ]
    );
}

#[tokio::test]
async fn without_a_pre_image_only_the_operator_sees_the_description_of_an_update() {
    let store = open(&server());
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 1 }])).await.unwrap();
    let mut stream = watch(&store, &namespace).await;
    let set = update(doc! { "_id": 1 }, doc! { "$set": { "secret": 7 }, "$unset": { "other": 1 } });
    write(&*store, modify(&namespace, set, None)).await.unwrap();
    let delete = Modify::new(filter(doc! { "_id": 1 }), false, Change::Delete);
    write(&*store, modify(&namespace, delete, None)).await.unwrap();
    write(&*store, insert(&namespace, vec![doc! { "_id": 2 }])).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap());
    }
    let exact: Vec<_> = events.iter().map(|event| (event.kind, event.is_exact)).collect();
    assert_eq!(exact, [(ChangeKind::Update, false), (ChangeKind::Delete, false), (ChangeKind::Insert, true)]);
    let description = |audience| {
        let event = Document::try_from(events[0].to_document(&"token".into(), audience)).unwrap();
        event.get_document("updateDescription").unwrap().clone()
    };
    assert_eq!(description(Audience::User), doc! {});
    let whole = doc! { "updatedFields": { "secret": 7 }, "removedFields": [] };
    assert_eq!(description(Audience::Operator), whole);
}

#[tokio::test]
async fn a_change_stream_creates_and_changes_no_collection() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let mut stream = watch(&store, &namespace).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), stream.next()).await.is_err());
    let after = stream.position();
    assert!(after.is_some());
    let mut resumed = store.watch(Watch { namespace: namespace.clone(), after, owner: None }).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), resumed.next()).await.is_err());
    assert!(!store.collections().await.unwrap().contains(&namespace));
    let names = proxy.take_names();
    assert!(names.contains(&"aggregate".to_owned()));
    assert!(!names.iter().any(|name| ["collMod", "create"].contains(&&**name)), "{names:?}");
}

#[tokio::test]
async fn pre_images_are_enabled_whether_or_not_the_collection_exists() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    // Once pre-images are enabled, the store only checks that they are.
    for expected in [&["listCollections", "collMod", "create"][..], &["listCollections"]] {
        proxy.take_names();
        store.keep_versions(namespace.clone()).await.unwrap();
        assert_eq!(proxy.take_names(), expected);
        assert!(store.collections().await.unwrap().contains(&namespace));
    }
}

/// The number of change streams that have been opened through a proxy.
fn change_streams(proxy: &Proxy) -> usize {
    let is_change_stream = |command: &Document| {
        let stages = command.get_array("pipeline").unwrap();
        stages.iter().any(|stage| stage.as_document().unwrap().contains_key("$changeStream"))
    };
    proxy.commands("aggregate").iter().filter(|command| is_change_stream(command)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_resume_at_the_same_token_share_one_stream_of_the_server() {
    const EVENTS: i32 = 3_000;
    let proxy = Proxy::to(&server()).await;
    let writer = open(&server());
    let namespace = fresh();
    write(&*writer, insert(&namespace, vec![doc! { "_id": -1 }])).await.unwrap();
    let token = {
        let mut first = watch(&writer, &namespace).await;
        write(&*writer, insert(&namespace, vec![doc! { "_id": -2 }])).await.unwrap();
        read(&mut *first, 1).await;
        first.position()
    };
    let few = 20;
    let inserted = |range: std::ops::Range<i32>| range.map(|id| doc! { "_id": id }).collect();
    write(&*writer, insert(&namespace, inserted(0..few))).await.unwrap();
    let store = open(&proxy.uri(""));
    let resume = async || {
        let watch = Watch { namespace: namespace.clone(), after: token.clone(), owner: None };
        store.watch(watch).await.unwrap()
    };
    // Some watchers start while others read, and 5 do not read for now.
    let mut readers: Vec<_> = futures_util::future::join_all((0..25).map(|_| resume())).await;
    let mut slow: Vec<_> = futures_util::future::join_all((0..5).map(|_| resume())).await;
    let expected = |range: std::ops::Range<i32>| range.map(|id| (ChangeKind::Insert, id)).collect::<Vec<_>>();
    for reader in &mut readers {
        assert_eq!(read(&mut **reader, few as usize).await, expected(0..few));
    }
    readers.extend(futures_util::future::join_all((0..20).map(|_| resume())).await);
    for reader in &mut readers[25..] {
        assert_eq!(read(&mut **reader, few as usize).await, expected(0..few));
    }
    assert_eq!(change_streams(&proxy), 1);
    // More events than the stream buffers: the slow watchers fall behind, and do not delay the
    // others.
    write(&*writer, insert(&namespace, inserted(few..EVENTS))).await.unwrap();
    let reading = readers.into_iter().map(|mut reader| {
        let count = (EVENTS - few) as usize;
        tokio::spawn(async move { read(&mut *reader, count).await })
    });
    for read in reading.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), expected(few..EVENTS));
    }
    let before = change_streams(&proxy);
    let reading =
        slow.drain(..).map(|mut reader| tokio::spawn(async move { read(&mut *reader, EVENTS as usize).await }));
    for read in reading.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), expected(0..EVENTS));
    }
    // The 5 slow watchers share a stream that continues at their position.
    let after = change_streams(&proxy);
    assert!((before + 1..before + 5).contains(&after), "{before} change streams, then {after}");
}

#[tokio::test]
async fn pages_contain_every_document_whatever_the_type_of_its_id() {
    let store = open(&server());
    let namespace = fresh();
    let mut documents: Vec<_> = (0..1500).map(|n| doc! { "_id": n }).collect();
    documents.extend((0..1200).map(|n| doc! { "_id": format!("{n}") }));
    let others = [
        doc! { "_id": f64::NAN },
        doc! { "_id": f64::NEG_INFINITY },
        doc! { "_id": bson::Bson::MinKey },
        doc! { "_id": bson::Bson::MaxKey },
        doc! { "_id": null },
        doc! { "_id": { "a": 1 } },
        doc! { "_id": bson::oid::ObjectId::new() },
        doc! { "_id": true },
        doc! { "_id": bson::DateTime::now() },
        doc! { "_id": bson::Timestamp { time: 1, increment: 1 } },
    ];
    documents.extend(others);
    let count = documents.len();
    write(&*store, insert(&namespace, documents)).await.unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut after = None;
    loop {
        let page = store.page(namespace.clone(), after).await.unwrap();
        for document in page.documents {
            assert!(seen.insert(document.into_bytes()));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), count);
}

#[test]
fn the_error_of_an_invalid_connection_string_reveals_no_credentials() {
    for address in
        ["mongodb://", "mongodb://ada:gr8@secret@host/?x=y", "mongodb://ada:secret%@host", "mongodb://h/?w=-1"]
    {
        let error = MongoStore::open(address, Arc::new(SystemEnvironment), None).unwrap_err().to_string();
        assert!(error.starts_with("the connection string of the store is not valid: "), "{error}");
        assert!(!error.contains("secret") && !error.contains("gr8"), "{error}");
    }
    let store = MongoStore::open("mongodb://ada:secret@host", Arc::new(SystemEnvironment), None).unwrap();
    assert!(!format!("{store:?}").contains("secret"));
}

#[tokio::test]
async fn conflicting_options_of_a_connection_string_are_reported() {
    let store = open("mongodb://one,other/?directConnection=true");
    let error = store.find(Find::new(fresh(), Filter::all())).await.unwrap_err();
    assert!(matches!(error, Error::Address { .. }), "{error:?}");
}

#[tokio::test]
async fn the_path_of_an_unreadable_tls_file_is_reported_to_the_operator_but_to_no_user() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authority.pem");
    for option in ["tlsCAFile", "tlsCertificateKeyFile"] {
        let address = format!("mongodb://127.0.0.1:9/?tls=true&{option}={}", file.display());
        let open = || MongoStore::open(&address, Arc::new(SystemEnvironment), None);
        let error = open().unwrap_err().to_string();
        assert!(error.contains(option) && error.contains("authority.pem"), "{error}");
        // The file disappears, or becomes invalid, after the store has been opened.
        for is_there in [false, true] {
            std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nno certificate\n-----END CERTIFICATE-----\n").unwrap();
            let store = open().unwrap();
            if !is_there {
                std::fs::remove_file(&file).unwrap();
            }
            let within = with_time(Duration::from_secs(1));
            let find = Find { budget: within, ..Find::new(fresh(), Filter::all()) };
            let error = store.find(find).await.unwrap_err().to_string();
            assert!(!error.contains("authority") && !error.contains("127.0.0.1"), "{error}");
        }
        let _ = std::fs::remove_file(&file);
    }
}

#[tokio::test]
async fn users_receive_only_messages_of_errors_that_their_request_caused() {
    let server = OwnServer::start(&[]);
    let store = open(&server.uri);
    let namespace = fresh();
    write(&*store, insert(&namespace, vec![doc! { "_id": 1 }])).await.unwrap();
    for code in [8, 59, 96, 14, 40323] {
        fail(&server.uri, &["find"], code, 1).await;
        let error = store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap_err();
        let passed_on = error.to_string().contains("failCommand");
        assert_eq!((self::code(&error), passed_on), (code, [14, 40323].contains(&code)), "{error}");
    }
}

#[tokio::test]
async fn names_that_the_server_rejects_are_listed_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let environment = || Arc::new(SystemEnvironment);
    let settings = || store::Settings { unwatched: Some("userkeep"), ..Default::default() };
    let sqlite = || SqliteStore::open_with(Location::File(path.clone()), environment(), settings()).unwrap();
    let source = sqlite();
    let (good, target) = (Namespace::new(&fresh_database(), "people"), open(&server()));
    let existing = Namespace::new(&fresh_database(), "people");
    write(&*target, insert(&existing, vec![doc! {}])).await.unwrap();
    let upper = Namespace::new(&existing.database.to_uppercase(), "people");
    for namespace in [&good, &upper, &Namespace::new("userkeep_my app", "users"), &Namespace::new("x", "c")] {
        write(&source, insert(namespace, vec![doc! {}])).await.unwrap();
    }
    source.close().await;
    // An earlier version accepted this name.
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("UPDATE collections SET name = 'a$b' WHERE name = 'c'").unwrap();
    drop(file);
    let source = sqlite();

    let expected = [
        "nothing was written",
        &format!("the database '{}': ", upper.database),
        &format!("it differs from the database '{}' in case only", existing.database),
        "the database 'userkeep_my app': MongoDB does not accept its name",
        "(it belongs to the app with the id 'my app')",
        "the collection 'x.a$b': MongoDB does not accept its name",
    ];
    let dump = directory.path().join("dump");
    store::dump::export(&source, &dump, &Progress::default()).await.unwrap();
    let import = store::dump::Import::open(&dump, false).unwrap();
    let errors = [
        migrate(&source, &*target, &Selection::default(), &Progress::default()).await.unwrap_err(),
        import.run(&*target, &Progress::default()).await.unwrap_err(),
    ];
    for error in errors.map(|error| error.to_string()) {
        for expected in expected {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
    assert_eq!(all(&*target, &good).await, [] as [Document; 0]);

    let selection = Selection { databases: vec![good.database.to_string()], ..Selection::default() };
    migrate(&source, &*target, &selection, &Progress::default()).await.unwrap();
    assert_eq!(all(&*target, &good).await.len(), 1);
    let error = migrate(&*target, &*open(&server()), &selection, &Progress::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the source and the target are the same store");
}

#[tokio::test]
async fn maintenance_is_left_to_the_tools_of_mongodb() {
    let store = open(&server());
    assert!(store.maintenance().is_none());
    let advice = store.maintenance_advice();
    assert!(advice.backup.contains("mongodump") && advice.check.contains("`validate`"), "{advice:?}");
}
