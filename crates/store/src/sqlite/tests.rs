#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bson::{DateTime, Document, bson, doc, oid::ObjectId, raw::RawDocument, rawdoc};
use query::Path;

use super::*;
use crate::{Change, Denied, Guard, GuardFilters, Modify, Operation, SystemEnvironment};

fn namespace() -> Namespace {
    Namespace::new("app", "people")
}

fn filter(filter: Document) -> query::Filter {
    query::Filter::parse(&RawDocumentBuf::try_from(filter).unwrap()).unwrap()
}

fn insert(documents: Vec<Document>) -> Write {
    let documents = documents.into_iter().map(|document| RawDocumentBuf::try_from(document).unwrap()).collect();
    Write::new(namespace(), Operation::Insert(documents))
}

async fn all(store: &SqliteStore, find: Document) -> Vec<Document> {
    let found = store.find(Find::new(namespace(), filter(find))).await.unwrap();
    found.into_iter().map(|document| Document::try_from(document).unwrap()).collect()
}

fn file_store(directory: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(Location::File(directory.path().join("sub/app.sqlite")), Arc::new(SystemEnvironment)).unwrap()
}

fn memory_store() -> SqliteStore {
    SqliteStore::open(Location::Memory, Arc::new(SystemEnvironment)).unwrap()
}

#[tokio::test]
async fn creates_the_file_on_the_first_write_and_reads_everything_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = file_store(&directory);
    assert_eq!(all(&store, doc! {}).await, [] as [Document; 0]);
    assert!(!directory.path().join("sub").exists());

    store.write(vec![insert(vec![doc! { "_id": 1, "a": "ä" }, doc! { "_id": 2 }])]).await.unwrap();
    assert_eq!(all(&store, doc! { "_id": 1.0 }).await, [doc! { "_id": 1, "a": "ä" }]);
    store.close().await;
    assert!(matches!(store.find(Find::new(namespace(), query::Filter::all())).await, Err(Error::Closed)));

    let store = file_store(&directory);
    assert_eq!(all(&store, doc! {}).await, [doc! { "_id": 1, "a": "ä" }, doc! { "_id": 2 }]);
}

#[tokio::test]
async fn two_stores_on_one_file_see_each_others_collections_indexes_and_documents() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (file_store(&directory), file_store(&directory));
    one.write(vec![insert(vec![doc! { "_id": 1, "a": 1 }])]).await.unwrap();
    assert_eq!(all(&two, doc! { "a": 1 }).await.len(), 1);
    two.ensure_indexes(namespace(), vec![Index::on(Path::new("a"))]).await.unwrap();
    one.write(vec![insert(vec![doc! { "_id": 2, "a": 1 }])]).await.unwrap();
    assert_eq!(all(&two, doc! { "a": 1 }).await.len(), 2, "writes of the other store are in the index");

    let concurrent = (0..50).map(|n| {
        let store = if n % 2 == 0 { one.clone() } else { two.clone() };
        tokio::spawn(async move { store.write(vec![insert(vec![doc! { "_id": 100 + n, "a": 2 }])]).await.unwrap() })
    });
    for write in concurrent.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    assert_eq!(all(&one, doc! { "a": 2 }).await.len(), 50);
}

/// The lock tells other processes that the file is in use. Without it, the last of them to close
/// the file would remove the log.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_store_that_reads_and_then_writes_keeps_its_lock_on_the_file() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let first = file_store(&directory);
    first.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
    first.close().await;
    let store = file_store(&directory);
    assert_eq!(all(&store, doc! {}).await.len(), 1);
    store.write(vec![insert(vec![doc! { "_id": 2 }])]).await.unwrap();
    let inode = format!(":{} ", std::fs::metadata(directory.path().join("sub/app.sqlite")).unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    assert!(locks.lines().any(|lock| lock.contains("POSIX") && lock.contains(&inode)), "{locks}");
}

#[test]
fn stores_can_be_opened_while_one_of_them_creates_the_file() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for id in 0..8 {
                let (directory, start) = (&directory, &start);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    start.wait();
                    let store = file_store(directory);
                    runtime.block_on(store.write(vec![insert(vec![doc! { "_id": id }])])).unwrap();
                });
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(all(&file_store(&directory), doc! {})).len(), 8);
    }
}

#[tokio::test]
async fn rejects_a_foreign_or_newer_file_and_leaves_it_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other");
    std::fs::write(
        &path,
        b"something else entirely, and long enough to have a header of its own........................................",
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        SqliteStore::open(Location::File(path.clone()), Arc::new(SystemEnvironment)),
        Err(Error::NotAStore { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let store = file_store(&directory);
    store.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
    store.close().await;
    let path = directory.path().join("sub/app.sqlite");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(Location::File(path), Arc::new(SystemEnvironment)).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 99, .. }), "{error}");

    let blocked = directory.path().join("other/app.sqlite");
    let store = SqliteStore::open(Location::File(blocked), Arc::new(SystemEnvironment));
    let error = match store {
        Err(error) => error,
        Ok(store) => store.write(vec![insert(vec![doc! {}])]).await.unwrap_err(),
    };
    assert!(error.to_string().contains("memory:"), "{error}");
}

#[derive(Default)]
struct Slow(std::sync::atomic::AtomicUsize);

impl Guard for Slow {
    fn may_see(&self, _: &RawDocument) -> bool {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        true
    }

    fn check_write(&self, _: Option<&RawDocument>, _: Option<&RawDocument>) -> Result<(), Denied> {
        Ok(())
    }
}

#[tokio::test]
async fn a_dropped_read_stops_and_leaves_its_connection_usable() {
    for store in [memory_store(), file_store(&tempfile::tempdir().unwrap())] {
        store.write(vec![insert((0..3000).map(|id| doc! { "_id": id }).collect())]).await.unwrap();
        let guard = Arc::new(Slow::default());
        let seen = || guard.0.load(std::sync::atomic::Ordering::SeqCst);
        let slow =
            || Find { guard: Some(Arc::clone(&guard) as Arc<dyn Guard>), ..Find::new(namespace(), filter(doc! {})) };
        let mut abandoned = store.find_both([slow(), slow()]);
        assert!((&mut abandoned).now_or_never().is_none());
        while seen() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(abandoned);
        // A store in memory has one connection: this waits until the dropped read has released it.
        assert_eq!(all(&store, doc! { "_id": { "$gte": 2998 } }).await.len(), 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stopped_at = seen();
        assert!(stopped_at < 1000, "{stopped_at}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(seen(), stopped_at);
        store.write(vec![insert(vec![doc! { "_id": 5000 }])]).await.unwrap();
        assert_eq!(all(&store, doc! { "_id": 5000 }).await.len(), 1);
    }
}

/// A clock that stands still.
struct At(i64);

impl Environment for At {
    fn now(&self) -> DateTime {
        DateTime::from_millis(self.0)
    }

    fn new_id(&self) -> ObjectId {
        ObjectId::new()
    }
}

#[tokio::test]
async fn expired_documents_are_removed_in_batches_with_their_keys() {
    let store = memory_store();
    let at = |millis: i64| DateTime::from_millis(millis);
    let expiring = Index::on(Path::new("at")).expiring(10);
    store.ensure_indexes(namespace(), vec![expiring, Index::on(Path::new("n")).unique()]).await.unwrap();
    let many = (0..150).map(|n| doc! { "n": n, "at": at(n.into()) }).collect();
    let others = vec![
        doc! { "n": 200, "at": at(5_000) },
        doc! { "n": 201, "at": "never" },
        doc! { "n": 202 },
        // The earliest time in an array counts.
        doc! { "n": 203, "at": [at(9_000), at(1)] },
        doc! { "n": 204, "at": 1 },
    ];
    store.write(vec![insert(many), insert(others)]).await.unwrap();
    let sweep = |now: i64| {
        let keeper = writer::Keeper {
            environment: Arc::new(At(now)),
            retention: Retention::default(),
            feed: Arc::default(),
            place: None,
        };
        writer::sweep(&mut lock(store.shared.memory.as_ref().unwrap()), &keeper).unwrap().documents
    };
    assert_eq!(sweep(9_999), 0);
    assert_eq!(sweep(11_000), 100);
    assert_eq!(sweep(11_000), 51);
    assert_eq!(sweep(11_000), 0);
    let left: Vec<_> = all(&store, doc! {}).await.iter().map(|left| left.get_i32("n").unwrap()).collect();
    assert_eq!(left, [200, 201, 202, 204]);
    // Large documents are removed in batches limited by size, so that other writes do not wait
    // long.
    let large = (300..304).map(|n| doc! { "n": n, "at": at(1), "text": "x".repeat(700_000) }).collect();
    store.write(vec![insert(large)]).await.unwrap();
    assert_eq!((sweep(11_000), sweep(11_000), sweep(11_000)), (2, 2, 0));
    // Its unique keys are free again.
    store.write(vec![insert(vec![doc! { "n": 3 }])]).await.unwrap();
    assert_eq!(sweep(15_000), 1);
}

#[tokio::test]
async fn a_file_of_the_first_format_is_read_and_its_indexes_can_be_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/app.sqlite");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE collections (id INTEGER PRIMARY KEY, database TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (database, name)) STRICT;
         CREATE TABLE indexes (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL REFERENCES collections, path TEXT NOT NULL,
             is_unique INTEGER NOT NULL, UNIQUE (collection, path)) STRICT;
         INSERT INTO collections VALUES (1, 'app', 'people');
         CREATE TABLE documents_1 (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
         INSERT INTO indexes VALUES (4, 1, 'a', 1);
         CREATE TABLE entries_4 (key BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) STRICT, WITHOUT ROWID;
         PRAGMA application_id = 0x55534b50;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    let document = RawDocumentBuf::try_from(doc! { "_id": 7, "a": 1 }).unwrap();
    let id = query::encode_key(query::get(&document, "_id").unwrap());
    old.execute("INSERT INTO documents_1 (id, body) VALUES (?1, ?2)", (id, document.as_bytes())).unwrap();
    drop(old);

    let store = file_store(&directory);
    assert_eq!(all(&store, doc! { "_id": 7 }).await, [doc! { "_id": 7, "a": 1 }]);
    assert_eq!(all(&store, doc! { "a": 1 }).await.len(), 1);
    assert_eq!(store.indexes(namespace()).await.unwrap(), Some(Vec::new()));
    store.ensure_indexes(namespace(), vec![Index::on(Path::new("a")).unique()]).await.unwrap();
    let twice = store.write(vec![insert(vec![doc! { "a": 1 }])]).await;
    assert!(matches!(twice, Err(Error::DuplicateKey { .. })), "{twice:?}");
}

#[tokio::test]
async fn rejects_names_that_mongodb_does_not_accept_and_reads_existing_ones() {
    let directory = tempfile::tempdir().unwrap();
    let store = file_store(&directory);
    let insert_in = async |store: &SqliteStore, database: &str, collection: &str| {
        let namespace = Namespace::new(database, collection);
        let write =
            Write::new(namespace, Operation::Insert(vec![RawDocumentBuf::try_from(doc! { "_id": 1 }).unwrap()]));
        match store.write(vec![write]).await {
            Ok(_) => None,
            Err(Error::Query(error)) => Some(error.number()),
            Err(error) => panic!("{error}"),
        }
    };
    let long = "x".repeat(250);
    for (database, collection) in [
        ("", "c"),
        ("a.b", "c"),
        ("a b", "c"),
        ("a/b", "c"),
        ("a\\b", "c"),
        ("a\"b", "c"),
        ("a$b", "c"),
        ("a\0b", "c"),
        (&long[..64], "c"),
        ("db", ""),
        ("db", "a$b"),
        ("db", "a\0b"),
        ("db", "system.users"),
        ("db", ".a"),
        ("db", "a."),
        (&long[..10], &long[..245]),
    ] {
        assert_eq!(insert_in(&store, database, collection).await, Some(73), "{database:?} {collection:?}");
    }
    for (database, collection) in
        [(&long[..63], "a.b"), ("db", "système"), (&long[..10], &long[..244]), ("db", "system")]
    {
        assert_eq!(insert_in(&store, database, collection).await, None, "{database:?} {collection:?}");
    }
    assert_eq!(insert_in(&store, "Db", "c").await, Some(13297));
    assert_eq!(store.check(false, Progress::default()).await.unwrap(), []);
    store.close().await;

    // Names as an earlier version accepted them.
    let file = Connection::open(directory.path().join("sub/app.sqlite")).unwrap();
    file.execute_batch("UPDATE collections SET database = 'D B', name = 'a$b' WHERE name = 'system'").unwrap();
    drop(file);
    let store = file_store(&directory);
    let odd = Namespace::new("D B", "a$b");
    assert_eq!(store.find(Find::new(odd, query::Filter::all())).await.unwrap().len(), 1);
    let findings = store.check(false, Progress::default()).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].what.starts_with("the database 'D B': MongoDB does not accept its name"), "{findings:?}");
}

#[tokio::test]
async fn a_collection_has_at_most_64_indexes_and_no_descending_index_on_id() {
    let directory = tempfile::tempdir().unwrap();
    let store = file_store(&directory);
    let ensure = async |store: &SqliteStore, indexes: Vec<Index>| match store.ensure_indexes(namespace(), indexes).await
    {
        Ok(()) => None,
        Err(Error::Query(error)) => Some(error.number()),
        Err(error) => panic!("{error}"),
    };
    let numbered =
        |numbers: std::ops::Range<i32>| numbers.map(|number| Index::on(Path::new(&format!("f{number}")))).collect();
    assert_eq!(ensure(&store, numbered(0..64)).await, Some(67));
    assert_eq!(store.indexes(namespace()).await.unwrap(), None, "none of them was created");
    assert_eq!(ensure(&store, numbered(0..63)).await, None);
    assert_eq!(ensure(&store, numbered(0..63)).await, None, "they exist already");
    assert_eq!(ensure(&store, numbered(63..64)).await, Some(67));
    let descending = RawDocumentBuf::try_from(doc! { "key": { "_id": -1 }, "name": "_id_-1" }).unwrap();
    assert_eq!(ensure(&store, vec![Index::parse(&descending).unwrap()]).await, Some(2));
}

#[tokio::test]
async fn a_reader_with_a_dropped_index_in_its_cache_reads_again() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (file_store(&directory), file_store(&directory));
    one.ensure_indexes(namespace(), vec![Index::on(Path::new("a"))]).await.unwrap();
    one.write(vec![insert(vec![doc! { "_id": 1, "a": 1 }])]).await.unwrap();
    assert_eq!(all(&two, doc! { "a": 1 }).await.len(), 1);
    one.drop_index(namespace(), "a_1".into()).await.unwrap();
    one.write(vec![insert(vec![doc! { "_id": 2, "a": 1 }])]).await.unwrap();
    assert_eq!(all(&two, doc! { "a": 1 }).await.len(), 2);
    assert!(one.drop_index(namespace(), "a_1".into()).await.is_err());
}

fn syncs(store: &SqliteStore) -> u64 {
    store.shared.syncs.load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn syncs_the_disk_soon_after_the_first_write_and_on_close_but_not_for_each_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = file_store(&directory);
    let begun = std::time::Instant::now();
    for n in 0..50 {
        store.write(vec![insert(vec![doc! { "_id": n }])]).await.unwrap();
    }
    while syncs(&store) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the disk is not synced");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(syncs(&store) <= 1 + begun.elapsed().as_millis() as u64 / 80, "{} syncs", syncs(&store));
    // Without a write there is nothing to sync.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let idle = syncs(&store);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(syncs(&store), idle);
    store.write(vec![insert(vec![doc! { "_id": "last" }])]).await.unwrap();
    store.close().await;
    assert_eq!(syncs(&store), idle + 1);
}

#[tokio::test]
async fn full_durability_syncs_each_commit() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::File(directory.path().join("app.sqlite"));
    for (durability, synchronous) in [(Durability::Process, 1), (Durability::Full, 2)] {
        let session =
            StoreConnection::open_for_writing(&location, &Settings { durability, ..Settings::default() }).unwrap();
        let set: i64 = session.connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(set, synchronous, "{durability:?}");
    }
    let store = SqliteStore::open_with(
        location,
        Arc::new(SystemEnvironment),
        Settings { durability: Durability::Full, ..Settings::default() },
    )
    .unwrap();
    store.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
    assert_eq!(all(&store, doc! {}).await.len(), 1);
    store.close().await;
    assert_eq!(syncs(&store), 0);
}

#[tokio::test]
async fn a_partly_failed_insert_leaves_nothing_of_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let store = file_store(&directory);
    store.ensure_indexes(namespace(), vec![Index::on(Path::new("n"))]).await.unwrap();
    // Simulates a disk that fails between the document and its index entry.
    let connection = Connection::open(directory.path().join("sub/app.sqlite")).unwrap();
    connection.execute_batch("ALTER TABLE entries_1 RENAME TO elsewhere").unwrap();
    let error =
        store.write(vec![insert(vec![doc! { "_id": 1, "n": 1 }, doc! { "_id": 2, "n": 1 }])]).await.unwrap_err();
    assert!(matches!(error, Error::Sqlite(_)), "{error}");
    connection.execute_batch("ALTER TABLE elsewhere RENAME TO entries_1").unwrap();
    assert_eq!(all(&store, doc! {}).await, [] as [Document; 0]);
    assert_eq!(store.check(false, Progress::default()).await.unwrap(), []);
}

/// A guard that allows what its filters match.
struct Filtered(GuardFilters);

impl Guard for Filtered {
    fn may_see(&self, document: &RawDocument) -> bool {
        self.0.seen.matches(document)
    }

    fn check_write(&self, _: Option<&RawDocument>, _: Option<&RawDocument>) -> Result<(), Denied> {
        Ok(())
    }

    fn filters(&self) -> Option<&GuardFilters> {
        Some(&self.0)
    }
}

fn guard(seen: &query::Filter) -> Option<Arc<dyn Guard>> {
    let (updatable, deletable) = (seen.clone(), seen.clone());
    Some(Arc::new(Filtered(GuardFilters { seen: seen.clone(), updatable, deletable, paths: Vec::new() })))
}

/// Inserts documents with one owner, with two, with null, and without the field.
async fn fill_with_owned(store: &SqliteStore) {
    let owners = [bson!("u1"), bson!("u2"), bson!(["u1", "u2"]), bson!(null), bson!("u3"), bson!("u4"), bson!("u5")];
    let document = |id: usize| {
        let mut document = doc! { "_id": id as i32, "n": (id % 50) as i32, "public": id.is_multiple_of(97) };
        if let Some(owner) = owners.get(id % 9) {
            document.insert("owner", owner);
        }
        document
    };
    store.write(vec![insert((0..900).map(document).collect())]).await.unwrap();
}

async fn index_owned(store: &SqliteStore) {
    let indexes = ["owner", "public", "n"].map(|path| Index::on(Path::new(path)));
    store.ensure_indexes(namespace(), indexes.to_vec()).await.unwrap();
}

#[tokio::test]
async fn indexes_do_not_change_results_under_a_guard() {
    let (indexed, scanned) = (memory_store(), memory_store());
    for store in [&indexed, &scanned] {
        fill_with_owned(store).await;
    }
    index_owned(&indexed).await;
    let seen = [
        filter(doc! { "owner": "u1" }),
        filter(doc! { "$or": [{ "owner": "u1" }, { "public": true }] }),
        filter(doc! { "owner": { "$in": ["u1", null] }, "public": false }),
        filter(doc! { "_id": { "$lt": 20 } }),
        query::Filter::none_of([filter(doc! { "owner": "u1" })]),
        query::Filter::Always(true),
        query::Filter::Always(false),
    ];
    let asked = [
        doc! {},
        doc! { "n": 3 },
        doc! { "n": { "$lt": 9 } },
        doc! { "_id": 7 },
        doc! { "$or": [{ "n": 1 }, { "x": 1 }] },
    ];
    for (seen, asked) in seen.iter().flat_map(|seen| asked.iter().map(move |asked| (seen, asked))) {
        let find = || Find { guard: guard(seen), ..Find::new(namespace(), filter(asked.clone())) };
        let sort = || Some(query::Sort::parse(&rawdoc! { "n": -1 }).unwrap());
        let sorted = || Find { sort: sort(), limit: Some(9), ..find() };
        for find in [&find as &dyn Fn() -> Find, &sorted] {
            let found = indexed.find(find()).await.unwrap();
            assert_eq!(found, scanned.find(find()).await.unwrap(), "{seen:?} {asked}");
        }
        let count = || Count { guard: guard(seen), ..Count::new(namespace(), filter(asked.clone())) };
        assert_eq!(indexed.count(count()).await.unwrap(), scanned.count(count()).await.unwrap(), "{seen:?} {asked}");
        let stages = rawdoc! { "all": [{ "$match": RawDocumentBuf::try_from(asked).unwrap() }] };
        let pipeline = || query::Pipeline::parse(stages.get_array("all").unwrap()).unwrap();
        let aggregate = || Aggregate { guard: guard(seen), ..Aggregate::new(namespace(), pipeline()) };
        assert_eq!(indexed.aggregate(aggregate()).await.unwrap(), scanned.aggregate(aggregate()).await.unwrap());
        // A write to a single hidden `_id` is denied.
        let touched = async |store: &SqliteStore| {
            let update = query::Update::parse(&rawdoc! { "$inc": { "touched": 1 } }).unwrap();
            let modify = Modify::new(filter(asked.clone()), true, Change::Update { update, upsert: false });
            let operation = Operation::Modify(Box::new(modify));
            let outcomes = store.write(vec![Write { guard: guard(seen), ..Write::new(namespace(), operation) }]).await;
            outcomes.map(|outcomes| outcomes[0].modified).map_err(|error| error.to_string())
        };
        assert_eq!(touched(&indexed).await, touched(&scanned).await, "{seen:?} {asked}");
    }
    assert_eq!(all(&indexed, doc! {}).await, all(&scanned, doc! {}).await);
}

#[tokio::test]
async fn an_index_finds_the_documents_that_a_guard_allows_to_see() {
    let store = memory_store();
    fill_with_owned(&store).await;
    index_owned(&store).await;
    let find =
        |seen: &query::Filter, asked: Document| Find { guard: guard(seen), ..Find::new(namespace(), filter(asked)) };
    let explained = async |seen: &query::Filter, asked: Document| {
        let explanation = store.explain(find(seen, asked)).await.unwrap();
        (explanation.stage, explanation.index, explanation.examined)
    };
    let owned = filter(doc! { "owner": "u1" });
    assert_eq!(explained(&owned, doc! {}).await, ("IXSCAN", Some("owner_1".into()), 200));
    assert_eq!(explained(&owned, doc! { "_id": 3 }).await, ("IDHACK", Some("_id_".into()), 1));
    let or_public = filter(doc! { "$or": [{ "owner": "u1" }, { "public": true }] });
    assert_eq!(explained(&or_public, doc! {}).await, ("IXSCAN", Some("owner_1, public_1".into()), 207));
    assert_eq!(explained(&query::Filter::Always(false), doc! {}).await, ("EOF", None, 0));
    assert_eq!(explained(&query::Filter::Always(true), doc! {}).await, ("COLLSCAN", None, 900));
    assert!(read::may_be_few(&find(&owned, doc! {})));
    assert!(!read::may_be_few(&find(&query::Filter::Always(true), doc! {})));
}

/// The index for the rules may find most of a collection, while the query's own finds a few
/// documents.
#[tokio::test]
async fn a_query_with_a_better_index_does_not_use_the_one_for_the_rules() {
    let store = memory_store();
    fill_with_owned(&store).await;
    let most = filter(doc! { "public": false });
    let index = async |index: Index| store.ensure_indexes(namespace(), vec![index]).await.unwrap();
    let find = |asked: Document| Find { guard: guard(&most), ..Find::new(namespace(), filter(asked)) };
    let explained = async |find: Find| {
        let explanation = store.explain(find).await.unwrap();
        (explanation.index, explanation.examined)
    };
    let examined = async |asked: Document| explained(find(asked)).await;
    let first = || {
        let sort = Some(query::Sort::parse(&rawdoc! { "n": 1 }).unwrap());
        Find { sort, limit: Some(5), ..find(doc! {}) }
    };
    index(Index::on(Path::new("n"))).await;
    index(Index::on(Path::new("public"))).await;
    assert_eq!(examined(doc! {}).await, (Some("public_1".into()), 890));
    assert_eq!(examined(doc! { "n": 3 }).await, (Some("n_1".into()), 18));
    assert_eq!(examined(doc! { "n": { "$lt": 1 } }).await, (Some("n_1".into()), 18));
    assert_eq!(examined(doc! { "$or": [{ "n": 3 }, { "n": 4 }] }).await, (Some("n_1".into()), 36));
    // The first document is public.
    assert_eq!(explained(first()).await, (Some("n_1".into()), 6));
    // One index for both is better than one for either.
    index(Index::parse(&rawdoc! { "key": { "public": 1, "n": 1 } }).unwrap()).await;
    assert_eq!(examined(doc! { "n": 0 }).await, (Some("public_1_n_1".into()), 17));
    assert_eq!(examined(doc! { "n": { "$lt": 1 } }).await, (Some("public_1_n_1".into()), 17));
    assert_eq!(explained(first()).await, (Some("public_1_n_1".into()), 5));
}

#[test]
fn queries_that_compute_never_run_on_the_event_loop() {
    let find = |document: Document| Find::new(namespace(), filter(document));
    let projected = |projection: Document| {
        let projection = query::Projection::parse(&RawDocumentBuf::try_from(projection).unwrap()).unwrap();
        Find { projection: Some(projection), ..find(doc! { "n": 1 }) }
    };
    let sorted = || Find { sort: Some(query::Sort::parse(&rawdoc! { "n": 1 }).unwrap()), ..find(doc! { "n": 1 }) };
    assert!(read::may_be_few(&find(doc! { "n": 1 })) && read::may_be_few(&find(doc! { "n": { "$gt": 0, "$lt": 5 } })));
    assert!(read::may_be_few(&projected(doc! { "n": 1 })));
    assert!(!read::may_be_few(&find(doc! {})) && !read::may_be_few(&sorted()));
    assert!(!read::may_be_few(&find(doc! { "n": 1, "a": { "$regex": "^a" } })));
    let costly = doc! { "$gt": [{ "$size": { "$range": [0, 9] } }, 3] };
    assert!(!read::may_be_few(&find(doc! { "n": 1, "$expr": costly })));
    assert!(!read::may_be_few(&projected(doc! { "m": { "$size": { "$range": [0, 9] } } })));
}

#[tokio::test]
async fn acknowledges_no_write_while_the_disk_cannot_be_synced() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let directory = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let sync = SyncLog::new(move |_| match failing.load(Ordering::SeqCst) {
        true => Err(std::io::Error::other("no more disk")),
        false => Ok(()),
    });
    let settings = Settings { sync: Some(sync), ..Settings::default() };
    let location = Location::File(directory.path().join("app.sqlite"));
    let store = SqliteStore::open_with(location, Arc::new(SystemEnvironment), settings).unwrap();
    let write = async |id: i32| store.write(vec![insert(vec![doc! { "_id": id }])]).await;
    fails.store(true, Ordering::SeqCst);
    // The write survives a crash of the process and is acknowledged. The failed sync shows later.
    write(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = write(2).await.unwrap_err();
    assert!(error.to_string().contains("the disk cannot be synced: no more disk"), "{error}");
    assert_eq!(all(&store, doc! {}).await.len(), 1, "reads continue, and the rejected write left nothing");
    fails.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    write(3).await.unwrap();
    assert_eq!(all(&store, doc! {}).await, [doc! { "_id": 1 }, doc! { "_id": 3 }]);
}

#[cfg(target_os = "linux")]
#[test]
fn rejects_a_read_only_directory_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let allow = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = directory.path().join("app.sqlite");
    let open = || SqliteStore::open(Location::File(path.clone()), Arc::new(SystemEnvironment));
    runtime.block_on(async {
        let store = open().unwrap();
        store.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
        store.close().await;
    });
    allow(&path, 0o666);
    allow(directory.path(), 0o555);
    let refused = std::thread::scope(|scope| {
        // Run without the rights of the superuser, for whom no directory is read-only.
        let as_nobody = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
            }
            open().map(|_| ()).unwrap_err().to_string()
        });
        as_nobody.join().unwrap()
    });
    let expected = format!("the directory {} is read-only", directory.path().canonicalize().unwrap().display());
    assert!(refused.contains(&expected) && refused.contains("\"memory:\""), "{refused}");
    allow(directory.path(), 0o700);
}

#[cfg(unix)]
#[tokio::test]
async fn rejects_a_file_that_another_library_of_the_process_has_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/app.sqlite");
    let open = || SqliteStore::open(Location::File(path.clone()), Arc::new(SystemEnvironment));
    let waiting = open().unwrap();
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // Simulates another library: this one does not know about the descriptor.
    let other = std::fs::File::create(&path).unwrap();
    let is_refused = |result: Result<()>| matches!(result, Err(Error::OpenInThisProcess { .. }));
    let written = waiting.write(vec![insert(vec![doc! { "_id": 1 }])]).await;
    assert!(is_refused(written.map(|_| ())));
    drop(other);
    waiting.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
    waiting.close().await;
    drop(waiting);

    let other = std::fs::File::open(&path).unwrap();
    assert!(is_refused(open().map(|_| ())));
    drop(other);
    let (first, second) = (open().unwrap(), open().unwrap());
    assert_eq!((all(&first, doc! {}).await.len(), all(&second, doc! {}).await.len()), (1, 1));
}

/// The log stands beside the name: connections under two names would write two logs of one file.
#[cfg(unix)]
#[tokio::test]
async fn rejects_a_file_that_has_several_names() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("app.sqlite"), directory.path().join("sub/hard.sqlite"));
    let open = |path: &std::path::Path| SqliteStore::open(Location::File(path.to_owned()), Arc::new(SystemEnvironment));
    let refusal = |path: &std::path::Path| open(path).unwrap_err().to_string();
    let store = open(&path).unwrap();
    store.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
    std::fs::create_dir(link.parent().unwrap()).unwrap();
    std::fs::hard_link(&path, &link).unwrap();

    // A store that was open before stays usable under its name.
    assert!(refusal(&link).contains("open in this process under another name"), "{}", refusal(&link));
    let also = open(&path).unwrap();
    also.write(vec![insert(vec![doc! { "_id": 2 }])]).await.unwrap();
    assert_eq!(all(&store, doc! {}).await.len(), 2);
    for store in [store, also] {
        store.close().await;
    }

    for path in [&path, &link] {
        assert!(refusal(path).contains("the file has 2 names (hard links)"), "{}", refusal(path));
    }
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (store, linked) = (open(&path).unwrap(), open(&link).unwrap());
    assert_eq!((all(&store, doc! {}).await.len(), all(&linked, doc! {}).await.len()), (2, 2));
}

/// The connections would go on with a file that has no name: every write would be lost.
#[cfg(unix)]
#[tokio::test]
async fn writes_fail_while_the_file_is_removed_or_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (path, aside) = (directory.path().join("sub/app.sqlite"), directory.path().join("aside"));
    let store = file_store(&directory);
    assert!(store.check_file().is_ok());
    store.write(vec![insert(vec![doc! { "_id": 1 }])]).await.unwrap();
    assert!(store.check_file().is_ok());
    let is_refused = |result: Result<()>| matches!(result, Err(Error::FileReplaced { .. }));
    std::fs::rename(&path, &aside).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::write(&path, "").unwrap();
        }
        assert!(is_refused(store.check_file()));
        assert!(is_refused(store.write(vec![insert(vec![doc! { "_id": 2 }])]).await.map(|_| ())));
        // A read that needs a new connection does not take another file for the store.
        let held = store.shared.idle_reader(0).unwrap();
        assert!(is_refused(store.shared.read(|_| Ok(()))));
        held.into_iter().for_each(|reader| store.shared.keep_reader(reader));
    }
    std::fs::rename(&aside, &path).unwrap();
    store.write(vec![insert(vec![doc! { "_id": 3 }])]).await.unwrap();
    assert_eq!(all(&store, doc! {}).await.len(), 2);
    store.close().await;

    // The first write does not create a file again that readers have had open.
    let store = file_store(&directory);
    std::fs::remove_file(&path).unwrap();
    assert!(is_refused(store.write(vec![insert(vec![doc! { "_id": 4 }])]).await.map(|_| ())));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stream_in_memory_begins_at_once_while_the_connection_is_in_use() {
    let store = memory_store();
    let watch = || Watch { namespace: namespace(), after: None, owner: None };
    // The failed write is rolled back and must not hide the first one, which has the same commit.
    let (first, failed) = futures_util::join!(
        store.write(vec![insert(vec![doc! { "_id": 1 }])]),
        store.write(vec![insert(vec![doc! { "_id": 2 }, doc! { "_id": 1 }])]),
    );
    first.unwrap();
    assert!(failed.is_err());

    let in_use = lock(store.shared.memory.as_ref().unwrap());
    let mut stream = store.watch(watch()).now_or_never().unwrap().unwrap();
    assert!(stream.position().is_some());
    drop(in_use);
    store.write(vec![insert(vec![doc! { "_id": 3 }])]).await.unwrap();
    let events = stream.next().await.unwrap();
    assert_eq!(events.iter().map(|event| event.id().as_i32()).collect::<Vec<_>>(), [Some(3)]);
}
