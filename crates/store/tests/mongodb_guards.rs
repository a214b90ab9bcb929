//! The computations of a guard for a store on MongoDB do not block the thread that serves other
//! operations.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bson::{Document, doc, raw::RawDocument, rawdoc};
use query::{Budget, Filter, Limits, Pipeline, Projection, Update};
use store::{
    Aggregate, Change, Count, Denied, Error, Find, Guard, Modify, Namespace, Operation, Outcome, Result, Returning,
    Store, Write,
};
use support::{filter, fresh, open, proxy::Proxy, raw, server};

/// The time that a slow guard computes for one document.
const SLOW: Duration = Duration::from_millis(700);

/// The longest time that the thread may be blocked: long enough for a slow machine.
const HELD: Duration = Duration::from_millis(350);

fn limited() -> Budget {
    Budget::new(Limits { time: Some(Duration::from_secs(20)), ..Limits::default() })
}

fn update(find: Document, upsert: bool) -> Modify {
    let update = Update::parse(&rawdoc! { "$inc": { "n": 1 } }).unwrap();
    Modify::new(filter(find), false, Change::Update { update, upsert })
}

fn insert(namespace: &Namespace, documents: impl IntoIterator<Item = Document>) -> Write {
    Write::new(namespace.clone(), Operation::Insert(documents.into_iter().map(raw).collect()))
}

async fn write(store: &dyn Store, write: Write) -> Result<Outcome> {
    Ok(store.write(vec![write]).await?.remove(0))
}

/// Computes for a long time about documents that are slow to see or slow to write; counts all
/// others.
#[derive(Default)]
struct Slow {
    judged: AtomicU64,
}

impl Slow {
    fn compute(&self) {
        self.judged.fetch_add(1, Ordering::SeqCst);
        let end = Instant::now() + SLOW;
        while Instant::now() < end && query::budget::spend(500) {}
    }
}

impl Guard for Slow {
    fn may_see(&self, document: &RawDocument) -> bool {
        if document.get_bool("slow to see").unwrap_or(false) {
            self.compute();
        }
        !document.get_bool("hidden").unwrap_or(false)
    }

    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
        let document = before.or(after).unwrap();
        if document.get_bool("slow to write").unwrap_or(false) {
            self.compute();
        }
        if self.may_see(document) { Ok(()) } else { Err(Denied("write not permitted".into())) }
    }
}

/// Runs an operation on a runtime with one thread, and asserts that it takes long but never blocks
/// the thread for long.
async fn assert_apart<T>(what: &str, least: Duration, work: impl Future<Output = T>) -> T {
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let ticking = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while stopped.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let answer = work.await;
    let elapsed = begun.elapsed();
    stop.send(()).unwrap();
    let longest = ticking.await.unwrap();
    assert!(elapsed >= least, "{what}: took only {elapsed:?}");
    assert!(longest < HELD, "{what}: the thread was blocked for {longest:?}");
    answer
}

#[tokio::test(flavor = "current_thread")]
async fn a_slow_guard_does_not_block_the_thread() {
    let store = open(&server());
    let guard = || Some(Arc::new(Slow::default()) as Arc<dyn Guard>);
    let namespace = fresh();
    let documents = [
        doc! { "_id": 1, "slow to see": true, "n": 1 },
        doc! { "_id": 2, "slow to write": true, "n": 2 },
        doc! { "_id": 3, "n": 3 },
        doc! { "_id": 4, "slow to see": true, "hidden": true, "n": 4 },
    ];
    write(&*store, insert(&namespace, documents.clone())).await.unwrap();

    let seen = filter(doc! { "_id": { "$in": [1, 3] } });
    let find = Find { guard: guard(), budget: limited(), ..Find::new(namespace.clone(), seen.clone()) };
    assert_eq!(assert_apart("find", SLOW, store.find(find)).await.unwrap().len(), 2);
    let count = Count { guard: guard(), budget: limited(), ..Count::new(namespace.clone(), seen.clone()) };
    assert_eq!(assert_apart("count", SLOW, store.count(count)).await.unwrap(), 2);
    let stages = rawdoc! { "all": [{ "$match": { "_id": { "$in": [1, 3] } } }, { "$project": { "n": 1 } }] };
    let pipeline = Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
    let aggregate = Aggregate { guard: guard(), budget: limited(), ..Aggregate::new(namespace.clone(), pipeline) };
    assert_eq!(assert_apart("aggregate", SLOW, store.aggregate(aggregate)).await.unwrap().len(), 2);

    for is_limited in [true, false] {
        let budget = || if is_limited { limited() } else { Budget::default() };
        let of = |modify: Modify| Write {
            guard: guard(),
            budget: budget(),
            ..Write::new(namespace.clone(), Operation::modify(modify))
        };
        let written = |modify: Modify| write(&*store, of(modify));
        let many = |modify: Modify| Modify { multi: true, ..modify };
        let one = || update(doc! { "_id": 2 }, false);
        let returning = Modify { returning: Returning::After, ..one() };
        assert_eq!(assert_apart("update", SLOW, written(one())).await.unwrap().modified, 1);
        let outcome = assert_apart("findAndModify", SLOW, written(returning)).await.unwrap();
        let n = outcome.document.unwrap().get_i32("n").unwrap();
        assert_eq!(n, if is_limited { 4 } else { 8 });
        let two = doc! { "_id": { "$in": [2, 3] } };
        assert_eq!(assert_apart("update of many", SLOW, written(many(update(two, false)))).await.unwrap().modified, 2);
        let target = update(doc! { "n": 1 }, false);
        let target = Modify { filter: filter(doc! { "_id": 1 }), ..target };
        assert_eq!(
            assert_apart("update of a document that is slow to see", SLOW, written(target)).await.unwrap().modified,
            1
        );
        let hidden = assert_apart("hidden", SLOW, written(update(doc! { "_id": 4 }, false))).await;
        assert!(matches!(hidden, Err(Error::Denied(_))), "{hidden:?}");
        let id = if is_limited { 10 } else { 11 };
        let upsert = update(doc! { "_id": id, "slow to write": true }, true);
        let upserted = assert_apart("upsert", SLOW, written(upsert)).await.unwrap();
        assert_eq!(upserted.upserted_id, Some(id.into()));
        let inserted = || doc! { "_id": id + 10, "slow to write": true };
        let inserted = Write { guard: guard(), budget: budget(), ..insert(&namespace, [inserted()]) };
        assert_eq!(assert_apart("insert", SLOW, write(&*store, inserted)).await.unwrap().inserted_ids.len(), 1);
        let both = vec![of(update(doc! { "_id": 2 }, false)), of(update(doc! { "_id": 3 }, false))];
        assert_eq!(assert_apart("transaction", SLOW, store.write(both)).await.unwrap().len(), 2);
        let delete = Modify::new(filter(doc! { "_id": { "$in": [id, id + 10] } }), true, Change::Delete);
        assert_eq!(assert_apart("delete", SLOW, written(delete)).await.unwrap().deleted, 2);
    }
    let over = Budget::new(Limits { time: Some(SLOW / 3), ..Limits::default() });
    let find = Find { guard: guard(), budget: over, ..Find::new(namespace, Filter::all()) };
    let error = assert_apart("find without enough time", SLOW / 4, store.find(find)).await.unwrap_err();
    assert!(matches!(&error, Error::Query(error) if error.number() == 50), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_positional_projection_does_not_block_the_thread() {
    let store = open(&server());
    let namespace = fresh();
    const ITEMS: i32 = 900_000;
    write(&*store, insert(&namespace, [doc! { "_id": 1, "list": (0..ITEMS).collect::<Vec<_>>() }])).await.unwrap();
    let find = || Find {
        projection: Some(Projection::parse(&rawdoc! { "list.$": 1 }).unwrap()),
        budget: limited(),
        ..Find::new(namespace.clone(), filter(doc! { "list": { "$gte": ITEMS - 1 } }))
    };
    let found = assert_apart("find", Duration::ZERO, store.find(find())).await.unwrap();
    assert_eq!(Document::try_from(&*found[0]).unwrap(), doc! { "_id": 1, "list": [ITEMS - 1] });
}

#[tokio::test]
async fn a_limited_find_under_a_guard_fetches_few_documents_first() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let documents = (0..3000).map(|n| doc! { "_id": n, "hidden": n < 2000 && n != 50 });
    write(&*store, insert(&namespace, documents)).await.unwrap();
    let find = async |limit| {
        proxy.take_commands();
        let guard = Arc::new(Slow::default());
        let find = Find { guard: Some(guard), limit: Some(limit), ..Find::new(namespace.clone(), Filter::all()) };
        let found = store.find(find).await.unwrap().len();
        let mut names = proxy.take_names();
        // The driver sends the command some time later.
        names.retain(|name| name != "killCursors");
        (found, names)
    };
    // A second query follows, because the first few documents are hidden.
    assert_eq!(find(1).await, (1, vec!["find".to_owned(), "find".to_owned()]));
    // One more round trip fetches all other documents.
    assert_eq!(find(500).await, (500, vec!["find".to_owned(), "getMore".to_owned()]));
    proxy.take_commands();
    let count =
        Count { guard: Some(Arc::new(Slow::default())), limit: Some(1), ..Count::new(namespace, Filter::all()) };
    assert_eq!(store.count(count).await.unwrap(), 1);
    assert!(!proxy.take_names().contains(&"getMore".to_owned()));
}

/// Shows one owner's documents, except drafts. With a superset, the server returns only documents
/// of that owner.
struct Owned {
    owner: &'static str,
    superset: Option<Filter>,
}

impl Guard for Owned {
    fn may_see(&self, document: &RawDocument) -> bool {
        document.get_str("owner").is_ok_and(|owner| owner == self.owner) && document.get("draft").unwrap().is_none()
    }

    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
        let is_own = [before, after].into_iter().flatten().all(|document| self.may_see(document));
        if is_own { Ok(()) } else { Err(Denied("write not permitted".into())) }
    }

    fn superset(&self) -> Option<&Filter> {
        self.superset.as_ref()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_sends_few_documents_that_a_guard_hides() {
    const SIZE: u64 = 100_000;
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let text = "x".repeat(SIZE as usize);
    for from in (0..500).step_by(100) {
        let documents = (from..from + 100).map(|n| {
            let owner = if (300..303).contains(&n) { "ada" } else { "bob" };
            let mut document = doc! { "_id": n, "owner": owner, "n": 1, "text": &text };
            if n == 300 {
                document.insert("draft", true);
            }
            document
        });
        write(&*store, insert(&namespace, documents)).await.unwrap();
    }
    let ada = || Arc::new(Owned { owner: "ada", superset: Some(filter(doc! { "owner": "ada" })) });
    let untold = |owner| Arc::new(Owned { owner, superset: None });
    let one = |guard| Find {
        guard: Some(guard as Arc<dyn Guard>),
        limit: Some(1),
        ..Find::new(namespace.clone(), filter(doc! { "n": 1 }))
    };
    // Commands, and replies without documents, take some kilobytes.
    let sent = || proxy.take_answered() / (SIZE - SIZE / 10);
    let assert_few = |what: &str, most: u64| {
        let sent = sent();
        assert!((1..=most).contains(&sent), "{what}: {sent} documents were sent");
    };
    sent();

    let found = store.find(one(ada())).await.unwrap();
    assert_eq!(found[0].get_i32("_id").unwrap(), 301);
    assert_few("findOne", 3);
    let all = Find { limit: None, ..one(ada()) };
    assert_eq!(store.find(all).await.unwrap().len(), 2);
    assert_few("find", 3);
    let count = Count { guard: Some(ada()), ..Count::new(namespace.clone(), Filter::all()) };
    assert_eq!(store.count(count).await.unwrap(), 2);
    assert_few("count", 3);
    let stages = rawdoc! { "all": [{ "$match": { "n": 1 } }, { "$project": { "n": 1 } }] };
    let pipeline = Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
    let aggregate = Aggregate { guard: Some(ada()), ..Aggregate::new(namespace.clone(), pipeline) };
    assert_eq!(store.aggregate(aggregate).await.unwrap().len(), 2);
    assert_few("aggregate", 3);
    for multi in [false, true] {
        let modify = Modify { multi, ..update(doc! { "n": { "$gte": 1 } }, false) };
        let of_ada = Write { guard: Some(ada()), ..Write::new(namespace.clone(), Operation::modify(modify)) };
        assert_eq!(write(&*store, of_ada).await.unwrap().modified, if multi { 2 } else { 1 });
        assert_few("update", 3);
    }

    // Without a superset, a query for one of many visible documents still fetches few documents.
    assert_eq!(store.find(one(untold("bob"))).await.unwrap().len(), 1);
    assert_few("findOne of many", 4);
    let modify = Modify::new(filter(doc! { "owner": { "$gt": "a" } }), false, Change::Delete);
    let of_bob = Write { guard: Some(untold("bob")), ..Write::new(namespace.clone(), Operation::modify(modify)) };
    assert_eq!(write(&*store, of_bob).await.unwrap().deleted, 1);
    assert_few("delete of many", 4);
    write(&*store, insert(&namespace, [doc! { "_id": -1, "owner": "eve", "n": 1 }])).await.unwrap();
    sent();
    let sorted = Find { sort: Some(query::Sort::parse(&rawdoc! { "_id": 1 }).unwrap()), ..one(untold("eve")) };
    assert_eq!(store.find(sorted).await.unwrap().len(), 1);
    assert_few("sorted findOne", 4);
    assert_eq!(store.find(one(untold("carol"))).await.unwrap().len(), 0);
}

/// The number of bytes that an operation may hold.
const MOST: usize = 8 * 1024 * 1024;

fn holding() -> Budget {
    Budget::new(Limits { time: Some(Duration::from_secs(20)), bytes: Some(MOST), ..Limits::default() })
}

/// Asserts that an operation is rejected because it would hold too many bytes, and that it has
/// released them.
fn assert_too_large<T>(what: &str, answer: Result<T>, budget: &Budget) {
    match answer.map(drop) {
        Err(Error::Query(error)) => assert_eq!(error.number(), 292, "{what}: {error}"),
        answer => panic!("{what}: {answer:?}"),
    }
    assert!(budget.hold(MOST).is_ok(), "{what} still holds bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_holds_no_more_bytes_than_its_budget_allows() {
    let proxy = Proxy::to(&server()).await;
    let store = open(&proxy.uri(""));
    let namespace = fresh();
    let guard = || Some(Arc::new(Slow::default()) as Arc<dyn Guard>);
    let text = "x".repeat(1024 * 1024);
    let documents = (0..20).map(|n| doc! { "_id": n, "n": n, "text": &text });
    write(&*store, insert(&namespace, documents)).await.unwrap();
    let large = doc! { "_id": 100, "n": 100, "text": text.repeat(6) };
    write(&*store, insert(&namespace, [large])).await.unwrap();
    let few = || filter(doc! { "n": { "$lt": 3 } });

    for guard in [None, guard()] {
        let what = if guard.is_some() { "judged" } else { "unguarded" };
        for (filter, is_allowed) in [(few(), true), (Filter::all(), false)] {
            let budget = holding();
            let find = Find { guard: guard.clone(), budget: budget.clone(), ..Find::new(namespace.clone(), filter) };
            let found = store.find(find).await;
            if is_allowed {
                assert_eq!(found.unwrap().len(), 3);
            } else {
                assert_too_large(&format!("{what} find"), found, &budget);
            }
        }
        for (stages, is_allowed) in [
            // Only the first documents are collected.
            (rawdoc! { "all": [{ "$match": { "n": { "$lt": 3 } } }, { "$sort": { "n": -1 } }] }, true),
            (rawdoc! { "all": [{ "$limit": 3 }, { "$sort": { "n": -1 } }] }, true),
            (rawdoc! { "all": [{ "$sort": { "n": 1 } }] }, false),
        ] {
            let budget = holding();
            let pipeline = Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
            let aggregate = Aggregate {
                guard: guard.clone(),
                budget: budget.clone(),
                ..Aggregate::new(namespace.clone(), pipeline)
            };
            let answer = store.aggregate(aggregate).await;
            if is_allowed {
                assert_eq!(answer.unwrap().len(), 3);
            } else {
                assert_too_large(&format!("{what} aggregate"), answer, &budget);
            }
        }
    }

    let many = |modify: Modify| Modify { multi: true, ..modify };
    let replace = |find: Document| {
        let update = Update::parse(&rawdoc! { "n": 0, "text": text.repeat(6) }).unwrap();
        Modify::new(filter(find), false, Change::Update { update, upsert: false })
    };
    let delete = |multi| Modify::new(Filter::all(), multi, Change::Delete);
    let writes = [
        ("update of many", many(update(doc! {}, false)), false),
        ("delete of many", delete(true), false),
        // The document before the change, and the precondition that it is unchanged.
        ("update of a large document", update(doc! { "_id": 100 }, false), false),
        ("replacement", replace(doc! { "_id": 2 }), false),
        ("update of few", many(update(doc! { "n": { "$lt": 3 } }, false)), true),
        ("update of one", update(doc! { "n": { "$lt": 3 } }, false), true),
        ("delete of one", delete(false), true),
    ];
    for (what, modify, is_allowed) in writes {
        let budget = holding();
        proxy.take_commands();
        let judged = Write {
            guard: guard(),
            budget: budget.clone(),
            ..Write::new(namespace.clone(), Operation::modify(modify))
        };
        let written = write(&*store, judged).await;
        if is_allowed {
            let outcome = written.unwrap();
            assert!(outcome.matched > 0, "{what}");
            assert!(budget.hold(MOST).is_ok(), "{what} still holds bytes");
            continue;
        }
        assert_too_large(what, written, &budget);
        let names = proxy.take_names();
        assert!(!names.iter().any(|name| ["update", "delete"].contains(&&**name)), "{what}: {names:?}");
    }
    assert_eq!(store.count(Count::new(namespace, Filter::all())).await.unwrap(), 20);
}
