//! The conformance tests of a store: one list that runs on each kind of store.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use bson::{Document, RawBson, doc, raw::RawDocumentBuf, rawdoc};
use query::{Budget, Filter, Limits, Path, Pipeline, Sort, Update};
use store::{
    Aggregate, Change, Count, Error, Find, Guard, Index, Modify, Operation, Outcome, Result, Returning, Write,
    WriteLimits,
};
use support::world::{Owner, World, all, collection, filter, insert, namespace, on_every_store, update};

on_every_store! {
    an_ordered_insert_keeps_the_documents_before_a_duplicate_and_other_writes_are_atomic,
    an_index_finds_the_same_as_a_scan_and_enforces_unique_keys,
    updates_deletes_and_returns_the_requested_documents,
    hidden_documents_do_not_match_and_denied_writes_change_nothing,
    two_queries_share_one_snapshot,
    too_many_documents_are_an_error_and_never_truncated,
    equal_documents_keep_the_order_of_insertion,
    an_index_contains_a_document_under_each_element_of_an_array,
    an_upsert_reveals_no_hidden_documents_with_and_without_an_index,
    an_operation_beyond_its_time_budget_fails_and_writes_nothing,
    a_write_beyond_its_limits_is_rejected_as_a_whole,
}

async fn an_ordered_insert_keeps_the_documents_before_a_duplicate_and_other_writes_are_atomic(world: &World) {
    let store = world.store();
    let error =
        store.write(vec![insert(vec![doc! { "_id": 1 }, doc! { "_id": 1.0 }, doc! { "_id": 2 }])]).await.unwrap_err();
    assert!(error.to_string().contains("Duplicate key error"), "{error}");
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1 }]);

    let error = store.write(vec![insert(vec![doc! { "_id": 5 }]), insert(vec![doc! { "_id": 1 }])]).await.unwrap_err();
    assert!(matches!(error, Error::DuplicateKey { .. }));
    assert_eq!(all(&*store, doc! {}).await, [doc! { "_id": 1 }]);
}

async fn an_index_finds_the_same_as_a_scan_and_enforces_unique_keys(world: &World) {
    let store = world.store();
    let index = Index::on(Path::new("login.key")).unique();
    store
        .write(vec![insert(vec![
            doc! { "_id": 1, "login": [{ "key": "a" }, { "key": "b" }] },
            doc! { "_id": 2, "login": { "key": "c" } },
        ])])
        .await
        .unwrap();
    store.ensure_indexes(namespace(), vec![index.clone()]).await.unwrap();
    store.ensure_indexes(namespace(), vec![index.clone()]).await.unwrap();

    assert_eq!(all(&*store, doc! { "login.key": "b" }).await.len(), 1);
    assert_eq!(all(&*store, doc! { "login.key": "d" }).await.len(), 0);
    let error = store.write(vec![insert(vec![doc! { "_id": 3, "login": { "key": "b" } }])]).await.unwrap_err();
    assert!(error.to_string().contains("login.key"), "{error}");
    store
        .write(vec![update(doc! { "_id": 1 }, doc! { "$set": { "login": [{ "key": "d" }] } }, false, false)])
        .await
        .unwrap();
    store.write(vec![insert(vec![doc! { "_id": 3, "login": { "key": "b" } }])]).await.unwrap();
    assert_eq!(all(&*store, doc! { "login.key": "b" }).await[0].get_i32("_id").unwrap(), 3);
    assert_eq!(all(&*store, doc! { "login.key": "d" }).await[0].get_i32("_id").unwrap(), 1);

    let twice = Index::on(Path::new("n")).unique();
    assert!(
        matches!(store.ensure_indexes(namespace(), vec![twice]).await, Err(Error::DuplicateKey { .. })),
        "two documents lack the field"
    );
}

async fn updates_deletes_and_returns_the_requested_documents(world: &World) {
    let store = world.store();
    store.write(vec![insert((1..=4).map(|n| doc! { "_id": n, "n": n % 2, "x": 10 - n }).collect())]).await.unwrap();
    let outcome =
        &store.write(vec![update(doc! { "n": 1 }, doc! { "$max": { "x": 9 } }, true, false)]).await.unwrap()[0];
    assert_eq!((outcome.matched, outcome.modified), (2, 1));
    let outcome = &store
        .write(vec![update(doc! { "name": "new", "n": 7 }, doc! { "$set": { "x": 1 } }, false, true)])
        .await
        .unwrap()[0];
    let id = outcome.upserted_id.clone().unwrap();
    assert_eq!(
        all(&*store, doc! { "n": 7 }).await,
        [doc! { "_id": id.as_object_id().unwrap(), "name": "new", "n": 7, "x": 1 }]
    );

    let modify = |change, returning| {
        let modify = Modify {
            sort: Some(Sort::parse(&rawdoc! { "x": 1 }).unwrap()),
            returning,
            ..Modify::new(Filter::all(), false, change)
        };
        Write::new(namespace(), Operation::modify(modify))
    };
    let outcome = store.write(vec![modify(Change::Delete, Returning::Before)]).await.unwrap().remove(0);
    assert_eq!(outcome.document.unwrap().get_str("name").unwrap(), "new");
    let set = Update::parse(&rawdoc! { "$set": { "x": 100 } }).unwrap();
    let outcome = store
        .write(vec![modify(Change::Update { update: set, upsert: false }, Returning::After)])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(Document::try_from(outcome.document.unwrap()).unwrap(), doc! { "_id": 4, "n": 0, "x": 100 });
    assert_eq!(store.count(Count::new(namespace(), filter(doc! { "n": 0 }))).await.unwrap(), 2);
}

async fn hidden_documents_do_not_match_and_denied_writes_change_nothing(world: &World) {
    let store = world.store();
    store
        .write(vec![insert(vec![
            doc! { "_id": 1, "owner": "a", "n": 1 },
            doc! { "_id": 2, "owner": "b", "n": 2, "email": "b@x" },
            doc! { "_id": 3, "owner": "a", "n": 3 },
        ])])
        .await
        .unwrap();
    let before = all(&*store, doc! {}).await;
    let as_a = |mut write: Write| {
        write.guard = Some(Arc::new(Owner("a")));
        write
    };
    let denied = |answer: Result<Vec<Outcome>>| assert!(matches!(answer, Err(Error::Denied(_))), "{answer:?}");

    // A filter on a hidden field reveals nothing, whatever its form.
    for probe in [
        doc! { "email": "b@x" },
        doc! { "email": { "$gt": "a" } },
        doc! { "_id": 2, "n": 2 },
        doc! { "_id": { "$in": [2, 99] } },
    ] {
        let outcome =
            &store.write(vec![as_a(update(probe.clone(), doc! { "$set": { "x": 1 } }, true, false))]).await.unwrap()[0];
        assert_eq!(outcome.matched, 0, "{probe}");
    }
    // A filter for the `_id` of a hidden document is denied; an insert would reveal the document
    // as well.
    denied(store.write(vec![as_a(update(doc! { "_id": 2 }, doc! { "$set": { "owner": "a" } }, false, false))]).await);
    // If one document may not change, all documents stay as they were.
    denied(
        store
            .write(vec![as_a(update(doc! { "n": { "$gt": 0 } }, doc! { "$set": { "owner": "b" } }, true, false))])
            .await,
    );
    denied(
        store.write(vec![as_a(insert(vec![doc! { "_id": 8, "owner": "a" }, doc! { "_id": 9, "owner": "b" }]))]).await,
    );
    assert_eq!(all(&*store, doc! {}).await, before);

    let delete = Modify::new(Filter::all(), true, Change::Delete);
    let outcome = &store.write(vec![as_a(Write::new(namespace(), Operation::modify(delete)))]).await.unwrap()[0];
    assert_eq!(outcome.deleted, 2);
    assert_eq!(all(&*store, doc! {}).await.len(), 1, "the hidden document still exists");
}

async fn two_queries_share_one_snapshot(world: &World) {
    let store = world.store();
    let find = |filter_document| Find::new(namespace(), filter(filter_document));
    let other = || Find::new(collection("none"), filter(doc! { "_id": 1 }));
    let lengths = |answers: [Vec<RawDocumentBuf>; 2]| answers.map(|answer| answer.len());
    assert_eq!(lengths(store.find_both([find(doc! { "_id": 1 }), other()]).await.unwrap()), [0, 0]);
    store.write(vec![insert((0..40).map(|n| doc! { "_id": n, "n": n % 2 }).collect())]).await.unwrap();
    for (first, second, expected) in [
        (doc! { "_id": 1 }, doc! { "_id": 2 }, [1, 1]),
        (doc! { "_id": 99 }, doc! { "_id": 2 }, [0, 1]),
        (doc! { "_id": 1 }, doc! { "_id": 99 }, [1, 0]),
        (doc! { "_id": 1 }, doc! { "n": 1 }, [1, 20]),
        (doc! { "n": 0 }, doc! {}, [20, 40]),
    ] {
        assert_eq!(lengths(store.find_both([find(first), find(second)]).await.unwrap()), expected);
    }
    assert_eq!(lengths(store.find_both([other(), find(doc! { "_id": 1 })]).await.unwrap()), [0, 1]);
    assert_eq!(lengths(store.find_both([find(doc! { "_id": 1 }), other()]).await.unwrap()), [1, 0]);
}

async fn too_many_documents_are_an_error_and_never_truncated(world: &World) {
    let store = world.store();
    store.write(vec![insert((0..10).map(|n| doc! { "_id": n }).collect())]).await.unwrap();
    let find =
        |limit, sort: Option<Sort>| Find { limit, sort, at_most: Some(5), ..Find::new(namespace(), Filter::all()) };
    let by_id = || Some(Sort::parse(&rawdoc! { "_id": -1 }).unwrap());
    assert!(matches!(store.find(find(None, None)).await, Err(Error::TooManyDocuments { limit: 5 })));
    assert!(matches!(store.find(find(None, by_id())).await, Err(Error::TooManyDocuments { limit: 5 })));
    assert_eq!(store.find(find(Some(5), by_id())).await.unwrap()[0].get_i32("_id").unwrap(), 9);
    assert_eq!(store.find(find(Some(0), None)).await.unwrap().len(), 0);
    let none = Find { limit: Some(0), ..Find::new(namespace(), filter(doc! { "_id": 1 })) };
    assert_eq!(store.find(none).await.unwrap().len(), 0);
}

async fn equal_documents_keep_the_order_of_insertion(world: &World) {
    let store = world.store();
    store.ensure_indexes(namespace(), vec![Index::on(Path::new("user"))]).await.unwrap();
    for id in [3, 1, 2] {
        store.write(vec![insert(vec![doc! { "_id": id, "user": "u" }])]).await.unwrap();
    }
    let found = store
        .find(Find { limit: Some(1), ..Find::new(namespace(), Filter::equals("user", RawBson::String("u".into()))) })
        .await
        .unwrap();
    assert_eq!(found[0].get_i32("_id").unwrap(), 3);
}

async fn an_index_contains_a_document_under_each_element_of_an_array(world: &World) {
    let store = world.store();
    store.ensure_indexes(namespace(), vec![Index::on(Path::new("a.key")).unique()]).await.unwrap();
    store.write(vec![insert(vec![doc! { "_id": 1, "a": [{ "key": "x" }, { "key": "y" }] }])]).await.unwrap();
    store.write(vec![insert(vec![doc! { "_id": 2, "a": [{ "key": "z" }] }])]).await.unwrap();
    assert_eq!(all(&*store, doc! { "a.key": "y" }).await.len(), 1);
    let twice = store.write(vec![insert(vec![doc! { "_id": 3, "a": [{ "key": "y" }] }])]).await.unwrap_err();
    assert!(twice.to_string().contains("index: a.key_1 dup key: { a.key:"), "{twice}");
}

async fn an_upsert_reveals_no_hidden_documents_with_and_without_an_index(world: &World) {
    for index in [None, Some(rawdoc! { "key": { "n": 1, "rank": 1 } })] {
        let store = world.store();
        if let Some(index) = index {
            store.ensure_indexes(namespace(), vec![Index::parse(&index).unwrap()]).await.unwrap();
        }
        store.write(vec![insert(vec![doc! { "_id": 1, "owner": "b", "n": 7, "rank": 1 }])]).await.unwrap();
        let as_a = |probe: Document, owner: &str| {
            let mut upsert = update(probe, doc! { "$set": { "owner": owner } }, false, true);
            upsert.guard = Some(Arc::new(Owner("a")));
            vec![upsert]
        };
        // The result is the same whether or not a hidden document has these values.
        for n in [7, 8] {
            let probe = doc! { "n": n, "rank": { "$gt": 5 } };
            let denied = store.write(as_a(probe.clone(), "b")).await.unwrap_err();
            assert_eq!(denied.to_string(), "write not permitted");
            let made = &store.write(as_a(probe, "a")).await.unwrap()[0];
            assert!(made.upserted_id.is_some() && made.matched == 0);
        }
        // An error of an insert is also the error of an upsert, with the same message.
        let taken = store.write(as_a(doc! { "_id": 1 }, "a")).await.unwrap_err();
        assert!(matches!(taken, Error::DuplicateKey { .. }), "{taken:?}");
        assert_eq!(all(&*store, doc! { "owner": "b" }).await, [doc! { "_id": 1, "owner": "b", "n": 7, "rank": 1 }]);
        store
            .write(vec![Write::new(namespace(), Operation::modify(Modify::new(Filter::all(), true, Change::Delete)))])
            .await
            .unwrap();
    }
}

async fn an_operation_beyond_its_time_budget_fails_and_writes_nothing(world: &World) {
    let store = world.store();
    store
        .write(vec![insert((0..500).map(|n| doc! { "_id": n, "a": n, "s": "x".repeat(200) }).collect())])
        .await
        .unwrap();
    let before = all(&*store, doc! {}).await;
    let over = || Budget::new(Limits { time: Some(Duration::ZERO), ..Limits::default() });
    let is_over = |answer: Error| assert!(matches!(&answer, Error::Query(error) if error.number() == 50), "{answer:?}");
    is_over(
        store
            .find(Find { budget: over(), ..Find::new(namespace(), filter(doc! { "a": { "$gte": 0 } })) })
            .await
            .unwrap_err(),
    );
    is_over(
        store.find(Find { budget: over(), ..Find::new(namespace(), filter(doc! { "_id": 7 })) }).await.unwrap_err(),
    );
    is_over(store.count(Count { budget: over(), ..Count::new(namespace(), Filter::all()) }).await.unwrap_err());
    let stages = rawdoc! { "all": [{ "$group": { "_id": "$s", "n": { "$sum": 1 } } }] };
    let pipeline = || Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
    is_over(
        store.aggregate(Aggregate { budget: over(), ..Aggregate::new(namespace(), pipeline()) }).await.unwrap_err(),
    );
    for guard in [None, Some(Arc::new(Owner("a")) as Arc<dyn Guard>)] {
        let limits = guard.as_ref().map(|_| WriteLimits { documents: 10_000, bytes: 1 << 25 });
        let write = |write: Write| Write { guard: guard.clone(), limits, budget: over(), ..write };
        is_over(store.write(vec![write(update(doc! {}, doc! { "$set": { "b": 1 } }, true, false))]).await.unwrap_err());
        is_over(store.write(vec![write(insert(vec![doc! { "owner": "a" }]))]).await.unwrap_err());
    }
    assert_eq!(all(&*store, doc! {}).await, before);
    let most = Find { most_bytes: Some(50_000), ..Find::new(namespace(), Filter::all()) };
    assert!(matches!(store.find(most).await, Err(Error::AnswerTooLarge { limit: 50_000 })));
    let all_of_it = rawdoc! { "all": [{ "$match": {} }] };
    let pipeline = Pipeline::parse(all_of_it.get_array("all").unwrap()).unwrap();
    let most = Aggregate { most_bytes: Some(50_000), ..Aggregate::new(namespace(), pipeline) };
    assert!(matches!(store.aggregate(most).await, Err(Error::AnswerTooLarge { .. })));
}

async fn a_write_beyond_its_limits_is_rejected_as_a_whole(world: &World) {
    let store = world.store();
    let documents = || (0..40).map(|n| doc! { "_id": n, "owner": "a", "s": "x".repeat(100) }).collect::<Vec<_>>();
    store.write(vec![insert(documents())]).await.unwrap();
    let before = all(&*store, doc! {}).await;
    let limited = |write: Write, documents, bytes| Write {
        guard: Some(Arc::new(Owner("a"))),
        limits: Some(WriteLimits { documents, bytes }),
        ..write
    };
    let set = |value: String| update(doc! {}, doc! { "$set": { "s": value } }, true, false);
    let delete = || Write::new(namespace(), Operation::modify(Modify::new(Filter::all(), true, Change::Delete)));
    let more = || insert((100..140).map(|n| doc! { "_id": n, "owner": "a" }).collect());
    for write in [
        limited(set("y".into()), 39, 1 << 20),
        limited(set("y".into()), 100, 1000),
        limited(set("y".repeat(1000)), 100, 20_000),
        limited(delete(), 39, 1 << 20),
        limited(delete(), 100, 1000),
        limited(more(), 39, 1 << 20),
        limited(more(), 100, 500),
    ] {
        let answer = store.write(vec![write]).await;
        assert!(matches!(answer, Err(Error::WriteTooLarge { .. })), "{answer:?}");
        assert_eq!(all(&*store, doc! {}).await, before);
    }
    for write in [limited(set("y".into()), 40, 1 << 20), limited(more(), 40, 1 << 20), limited(delete(), 80, 1 << 20)] {
        store.write(vec![write]).await.unwrap();
    }
    assert_eq!(all(&*store, doc! {}).await.len(), 0);
}
