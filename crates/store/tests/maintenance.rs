//! Maintenance of a store by its operator: checks, repairs, backups during writes, exports and
//! imports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bson::{
    Bson, DateTime, Decimal128, Document, Timestamp, doc,
    raw::{RawDocument, RawDocumentBuf},
};
use query::{Filter, Update};
use store::{
    Change, Error, Find, Finding, Index, Location, Maintenance, Modify, Namespace, Operation, Progress, SqliteStore,
    Store, SystemEnvironment, Watch, Write,
    dump::{self, Import, Imported},
    migrate::{self, Migrated, Selection},
};

fn people() -> Namespace {
    Namespace::new("app", "people")
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(Location::File(path.to_owned()), Arc::new(SystemEnvironment)).unwrap()
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

async fn insert(store: &SqliteStore, namespace: &Namespace, documents: &[Document]) -> Result<(), Error> {
    let operation = Operation::Insert(documents.iter().map(raw).collect());
    store.write(vec![Write::new(namespace.clone(), operation)]).await.map(|_| ())
}

async fn all(store: &SqliteStore, namespace: &Namespace) -> Vec<RawDocumentBuf> {
    store.find(Find::new(namespace.clone(), Filter::all())).await.unwrap()
}

fn index(description: Document) -> Index {
    Index::parse(&raw(&description)).unwrap()
}

/// Returns a store of people with two indexes, some of whom have been changed or deleted.
async fn filled(path: &Path) -> SqliteStore {
    let store = open(path);
    let indexes =
        vec![index(doc! { "key": { "name": 1 }, "unique": true }), index(doc! { "key": { "tags": 1, "n": -1 } })];
    store.ensure_indexes(people(), indexes).await.unwrap();
    let people: Vec<Document> = (0..300)
        .map(|n| doc! { "_id": n, "name": format!("n{n}"), "n": n, "tags": ["a", format!("t{}", n % 7)] })
        .collect();
    insert(&store, &self::people(), &people).await.unwrap();
    let change = |filter: Document, change| {
        let modify = Modify::new(Filter::parse(&raw(&filter)).unwrap(), true, change);
        store.write(vec![Write::new(self::people(), Operation::modify(modify))])
    };
    let update = Update::parse(&raw(&doc! { "$inc": { "n": 1000 }, "$pop": { "tags": 1 } })).unwrap();
    change(doc! { "n": { "$lt": 100 } }, Change::Update { update, upsert: false }).await.unwrap();
    change(doc! { "n": { "$gte": 200, "$lt": 250 } }, Change::Delete).await.unwrap();
    store
}

async fn check(store: &SqliteStore, repair: bool) -> Vec<Finding> {
    store.check(repair, Progress::default()).await.unwrap()
}

#[tokio::test]
async fn the_check_of_an_intact_store_has_no_findings() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("none.sqlite"));
    assert_eq!(check(&store, true).await, []);
    let store = filled(&directory.path().join("store.sqlite")).await;
    let progress = Progress::default();
    assert_eq!(store.check(false, progress.clone()).await.unwrap(), []);
    assert_eq!(progress.read().0, "changes");
}

#[tokio::test]
async fn damage_is_reported_and_damaged_indexes_are_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let damages = [
        ("DELETE FROM entries_1 WHERE seq = 5", "app.people index name_1: the document 4 is missing", true),
        (
            "INSERT INTO entries_2 VALUES (x'00', 7)",
            "app.people index tags_1_n_-1: 1 of its entries point to no document",
            true,
        ),
        ("DROP TABLE multikey_2", "app.people index tags_1_n_-1: it is multikey, but not marked as such", true),
        ("UPDATE documents_1 SET body = x'00' WHERE seq = 9", "app.people: the document at 9 is not BSON", false),
        (
            "UPDATE documents_1 SET id = x'77' WHERE seq = 9",
            "app.people: the document 8 is stored under another _id",
            false,
        ),
        ("DELETE FROM changes WHERE id = 40", "the change 41 does not follow the one before it", false),
        ("UPDATE changes SET document = x'00' WHERE id = 40", "the change 40 is damaged", false),
        ("UPDATE changes SET collection = 99 WHERE id = 300", "the change 300 belongs to no collection", false),
        ("DELETE FROM documents_1 WHERE seq = 300", "the change 300 disagrees with the stored document", false),
    ];
    for (number, (damage, told, is_of_index)) in damages.into_iter().enumerate() {
        let path = directory.path().join(format!("{number}.sqlite"));
        filled(&path).await.close().await;
        rusqlite::Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let store = open(&path);
        let findings = check(&store, false).await;
        let found = findings.iter().find(|finding| finding.what.starts_with(told));
        assert_eq!(found.unwrap_or_else(|| panic!("{damage}: {findings:?}")).is_of_index, is_of_index);
        let left = check(&store, true).await;
        assert!(left.iter().all(|finding| !finding.is_of_index), "{damage}: {left:?}");
        assert_eq!(left.is_empty(), is_of_index, "{damage}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_during_writes_is_a_snapshot_with_its_own_change_history() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("store.sqlite")).await;
    let target = directory.path().join("backup.sqlite");
    let token = store.watch(Watch { namespace: people(), after: None, owner: None }).await.unwrap().position().unwrap();
    let done = AtomicBool::new(false);
    let pairs = Namespace::new("app", "pairs");
    let writing = async {
        let mut number: i32 = 0;
        while !done.load(Ordering::Relaxed) {
            // The backup must contain both documents or neither.
            insert(&store, &pairs, &[doc! { "n": number }, doc! { "n": number, "text": "x".repeat(5000) }])
                .await
                .unwrap();
            number += 1;
        }
        number
    };
    let copying = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        store.backup(target.clone(), Progress::default()).await.unwrap();
        done.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(writing, copying);
    assert!(written > 0);
    let copy = open(&target);
    assert_eq!(check(&copy, false).await, []);
    assert_eq!(all(&copy, &people()).await, all(&store, &people()).await);
    let copied = all(&copy, &pairs).await;
    assert!(copied.len().is_multiple_of(2) && copied.len() <= 2 * written as usize, "{}", copied.len());
    let error = copy.watch(Watch { namespace: people(), after: Some(token), owner: None }).await.unwrap_err();
    assert!(error.to_string().contains("belongs to another store"), "{error}");
    let error = store.backup(target.clone(), Progress::default()).await.unwrap_err();
    assert!(error.to_string().contains("the file exists already"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }
    copy.close().await;
    let names =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("partial")));
}

fn of_every_type() -> Document {
    doc! {
        "_id": { "a": 1, "b": [] },
        "double": -0.0,
        "nan": f64::NAN,
        "decimal": "1.50".parse::<Decimal128>().unwrap(),
        "int": 1,
        "long": 1_i64,
        "binary": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] },
        "regex": Bson::RegularExpression(bson::Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() }),
        "timestamp": Timestamp { time: 1, increment: 2 },
        "date": DateTime::from_millis(-1),
        "code": Bson::JavaScriptCode("f()".into()),
        "null": Bson::Null,
        "min": Bson::MinKey,
        "undefined": Bson::Undefined,
        "symbol": Bson::Symbol("s".into()),
    }
}

#[tokio::test]
async fn a_dump_is_restored_unchanged_for_any_names_and_an_import_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("store.sqlite")).await;
    let odd = Namespace::new("ö:*db", "c/../../../c/ö:*");
    insert(&store, &odd, &[of_every_type()]).await.unwrap();
    store
        .ensure_indexes(
            Namespace::new("app", "empty"),
            vec![index(doc! { "key": { "at": 1 }, "expireAfterSeconds": 7 })],
        )
        .await
        .unwrap();
    let dump = directory.path().join("dump");
    assert_eq!(dump::export(&store, &dump, &Progress::default()).await.unwrap(), 251);
    // No name leads out of the dump: it contains directories of databases, and these contain only
    // files.
    assert!(!directory.path().join("c").exists());
    let entries = || std::fs::read_dir(&dump).unwrap().map(|entry| entry.unwrap().path());
    for database in entries().filter(|entry| entry.is_dir()) {
        let mut files = std::fs::read_dir(database).unwrap();
        assert!(files.all(|file| file.unwrap().file_type().unwrap().is_file()));
    }
    let error = dump::export(&store, &dump, &Progress::default()).await.unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");

    let other = open(&directory.path().join("other.sqlite"));
    let import = Import::open(&dump, false).unwrap();
    assert_eq!(import.reported, [] as [String; 0]);
    assert_eq!(import.run(&other, &Progress::default()).await.unwrap(), Imported { written: 251, unchanged: 0 });
    let mut names = store.collections().await.unwrap();
    let mut others = other.collections().await.unwrap();
    names.sort_by_key(ToString::to_string);
    others.sort_by_key(ToString::to_string);
    assert_eq!(names, others);
    for name in names {
        let bytes =
            |documents: Vec<RawDocumentBuf>| documents.into_iter().map(RawDocumentBuf::into_bytes).collect::<Vec<_>>();
        assert_eq!(bytes(all(&store, &name).await), bytes(all(&other, &name).await), "{name}");
        assert_eq!(store.indexes(name.clone()).await.unwrap(), other.indexes(name).await.unwrap());
    }
    assert_eq!(check(&other, false).await, []);
    // The import is repeated with part of the documents present.
    let delete = Operation::modify(Modify::new(
        Filter::parse(&raw(&doc! { "n": { "$gt": 260 } })).unwrap(),
        true,
        Change::Delete,
    ));
    other.write(vec![Write::new(people(), delete)]).await.unwrap();
    let left = all(&other, &people()).await.len() as u64 + 1;
    assert_eq!(
        import.run(&other, &Progress::default()).await.unwrap(),
        Imported { written: 251 - left, unchanged: left }
    );
}

/// A user who can name collections must not be able to prevent exports.
#[tokio::test]
async fn names_too_long_for_files_are_exported_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store.sqlite"));
    // A character takes nine bytes in a file name.
    let wide = "\u{2603}".repeat(80);
    let names = [
        Namespace::new("app", &wide),
        Namespace::new("app", &format!("{wide}2")),
        Namespace::new(&"\u{2603}".repeat(21), "people"),
    ];
    for (n, namespace) in (0_i32..).zip(&names) {
        insert(&store, namespace, &[doc! { "_id": n }]).await.unwrap();
    }
    let dump = directory.path().join("dump");
    assert_eq!(dump::export(&store, &dump, &Progress::default()).await.unwrap(), 3);
    let other = open(&directory.path().join("other.sqlite"));
    Import::open(&dump, false).unwrap().run(&other, &Progress::default()).await.unwrap();
    for (n, namespace) in (0_i32..).zip(&names) {
        let documents = all(&other, namespace).await;
        assert_eq!(documents.len(), 1, "{namespace}");
        assert_eq!(documents[0].get_i32("_id").unwrap(), n, "{namespace}");
    }
    assert_eq!(other.collections().await.unwrap().len(), names.len());

    // Without the metadata the full name is unknown.
    for entry in std::fs::read_dir(dump.join("app")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = Import::open(&dump, false).unwrap_err().to_string();
    assert!(error.contains("its name was shortened, and") && error.contains("does not contain it"), "{error}");
}

#[tokio::test]
async fn an_import_error_states_its_position_and_no_document_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let app = directory.path().join("dump/app");
    std::fs::create_dir_all(&app).unwrap();
    let dump = directory.path().join("dump");
    let store = open(&directory.path().join("store.sqlite"));
    assert!(Import::open(&dump, false).unwrap_err().to_string().contains("the directory has no dump"));
    let good = raw(&doc! { "_id": 1, "a": 1 });
    let write = |name: &str, bytes: &[u8]| std::fs::write(app.join(name), bytes).unwrap();
    let run = async || Import::open(&dump, false)?.run(&store, &Progress::default()).await;
    let bytes = good.as_bytes();
    let cases: [(&[u8], &str); 5] = [
        (&[bytes, &bytes[..3]].concat(), "people.bson: document 2, at byte 21: the file ends within the document"),
        (&[bytes, &bytes[..9]].concat(), "document 2, at byte 21: the file ends within the document"),
        (&[bytes, &[1, 0, 0, 0]].concat(), "document 2, at byte 21: a document cannot have 1 bytes"),
        (&[bytes, &[255, 255, 255, 255]].concat(), "document 2, at byte 21: a document cannot have -1 bytes"),
        (&[bytes, &[6, 0, 0, 0, 2, 0]].concat(), "document 2, at byte 21: "),
    ];
    for (file, expected) in cases {
        write("people.bson", file);
        let error = run().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(all(&store, &people()).await.len(), 0, "the incomplete batch is not written");
    insert(&store, &people(), &[doc! { "_id": 1, "a": 2 }]).await.unwrap();
    write("people.bson", bytes);
    let error = run().await.unwrap_err().to_string();
    assert!(error.contains("documents 1 to 1, from byte 0 on: Duplicate key error"), "{error}");
    assert_eq!(Document::try_from(all(&store, &people()).await.remove(0)).unwrap(), doc! { "_id": 1, "a": 2 });

    write("other.bson.gz", b"");
    write(
        "people.metadata.json",
        br#"{"indexes": [{"v": 2, "key": {"a": "text"}, "name": "a_text"}], "options": {"capped": true}}"#,
    );
    let error = Import::open(&dump, false).unwrap_err().to_string();
    for expected in
        ["nothing was written", "other.bson.gz: it is compressed", "people.metadata.json: the index a_text: "]
    {
        assert!(error.contains(expected), "{error}");
    }
    std::fs::remove_file(app.join("other.bson.gz")).unwrap();
    let reported = Import::open(&dump, true).unwrap().reported;
    assert!(
        reported[0].contains("the option capped is not imported") && reported[1].contains("a_text"),
        "{reported:?}"
    );
    write("people.metadata.json", b"[");
    assert!(Import::open(&dump, true).unwrap_err().to_string().contains("people.metadata.json: "));
}

/// No lock is held between two pages, and each document that stays is in one of them.
#[tokio::test]
async fn a_slow_reader_of_pages_blocks_neither_writes_nor_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let store = open(&path);
    let text = "x".repeat(2000);
    let many: Vec<Document> = (0..5_000_i64).map(|n| doc! { "_id": n, "text": &text }).collect();
    insert(&store, &people(), &many).await.unwrap();
    let (mut seen, mut place) = (Vec::new(), None);
    for number in 0.. {
        let page = store.page(people(), place).await.unwrap();
        seen.extend(
            page.documents.iter().map(|document: &RawDocumentBuf| RawDocument::get_i64(document, "_id").unwrap()),
        );
        // Writes before and after the position continue, and the log can be truncated.
        insert(&store, &people(), &[doc! { "_id": 10_000_i64 + number }]).await.unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        place = page.next;
        if place.is_none() {
            break;
        }
    }
    assert!(seen.is_sorted() && seen.len() >= 5_000, "{}", seen.len());
}

/// Returns a store as an earlier version may have left it: with names and documents that are
/// rejected today.
async fn of_an_earlier_version(path: &Path) -> SqliteStore {
    let store = open(path);
    for number in 0..5 {
        insert(&store, &Namespace::new("app", &format!("c{number}")), &[doc! { "_id": number }]).await.unwrap();
    }
    store.close().await;
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "UPDATE collections SET database = 'a.b' WHERE name = 'c1';
             UPDATE collections SET name = 'system.x' WHERE name = 'c2';
             UPDATE collections SET name = 'a$b' WHERE name = 'c3';
             UPDATE collections SET database = 'App' WHERE name = 'c4';",
        )
        .unwrap();
    let body = raw(&doc! { "_id": 0, "a": { "$oid": "x" }, "b": { "c": 1, "d": 2 } }).into_bytes();
    // The second field of the document in it gets the name of the first.
    let at = body.windows(3).position(|bytes| bytes == b"\x10d\0").unwrap();
    let body = [&body[..=at], b"c", &body[at + 2..]].concat();
    connection.execute("UPDATE documents_1 SET body = ?1", [&body]).unwrap();
    connection.execute("UPDATE changes SET document = ?1 WHERE collection = 1", [&body]).unwrap();
    drop(connection);
    open(path)
}

async fn contents(store: &SqliteStore) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut contents = Vec::new();
    for name in store.collections().await.unwrap() {
        let documents = all(store, &name).await.into_iter().map(RawDocumentBuf::into_bytes).collect();
        contents.push((name.to_string(), documents));
    }
    contents.sort();
    contents
}

#[tokio::test]
async fn names_and_documents_that_are_rejected_today_are_migrated_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let store = of_an_earlier_version(&directory.path().join("store.sqlite")).await;
    let before = contents(&store).await;
    assert_eq!(before.len(), 5);

    let target = open(&directory.path().join("migrated.sqlite"));
    let migrated = migrate::migrate(&store, &target, &Selection::default(), &Progress::default()).await.unwrap();
    let documents = Imported { written: 5, unchanged: 0 };
    assert_eq!(migrated, Migrated { collections: 5, documents: documents.clone(), reported: Vec::new() });
    assert_eq!(contents(&target).await, before);

    let dump = directory.path().join("dump");
    dump::export(&store, &dump, &Progress::default()).await.unwrap();
    let target = open(&directory.path().join("imported.sqlite"));
    let import = Import::open(&dump, false).unwrap();
    assert_eq!(import.reported, [] as [String; 0]);
    assert_eq!(import.run(&target, &Progress::default()).await.unwrap(), documents);
    assert_eq!(contents(&target).await, before);
    // The exception is for names that another store has.
    assert!(insert(&target, &Namespace::new("app", "b$c"), &[doc! {}]).await.is_err());
}

#[tokio::test]
async fn a_check_lists_the_names_that_mongodb_rejects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    of_an_earlier_version(&path).await.close().await;
    let settings = store::Settings { unwatched: Some("userkeep"), ..Default::default() };
    let store = SqliteStore::open_with(Location::File(path), Arc::new(SystemEnvironment), settings).unwrap();
    let long = format!("userkeep_{}", "x".repeat(100));
    for database in ["userkeep_my app", "userkeep_my.app", &long, "userkeep_App", "userkeep_app"] {
        for collection in ["users", "sessions"] {
            insert(&store, &Namespace::new(database, collection), &[doc! {}]).await.unwrap();
        }
    }
    let findings: Vec<String> = check(&store, false).await.into_iter().map(|finding| finding.what).collect();
    let expected = [
        "the database 'app': MongoDB does not accept its name: it differs from the database 'App' in case only",
        "the database 'a.b': MongoDB does not accept its name: a database name has no slash",
        "the database 'App': ",
        "the database 'userkeep_my app': ",
        "the database 'userkeep_my.app': ",
        &format!("the database '{long}': MongoDB does not accept its name: a database name has 1 to 63 bytes"),
        "the database 'userkeep_App': MongoDB does not accept its name: it differs from the database 'userkeep_app'",
        "the database 'userkeep_app': ",
    ];
    assert_eq!(findings.len(), expected.len(), "{findings:?}");
    for (finding, expected) in findings.iter().zip(expected) {
        assert!(finding.starts_with(expected), "{finding}");
    }
    assert!(findings[3].ends_with("(it belongs to the app with the id 'my app')"), "{}", findings[3]);
}

#[tokio::test]
async fn a_store_is_not_migrated_to_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let store = filled(&path).await;
    let (same, dotted) = (open(&path), open(&directory.path().join("./store.sqlite")));
    for to in [&store, &same, &dotted] {
        let error = migrate::migrate(&store, to, &Selection::default(), &Progress::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the source and the target are the same store");
    }
}

#[tokio::test]
async fn a_check_of_an_empty_file_says_that_it_is_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    // An empty database is what a process leaves that ends while it creates the store.
    for is_database in [false, true] {
        std::fs::write(&path, "").unwrap();
        if is_database {
            rusqlite::Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "WAL").unwrap();
        }
        let findings = check(&open(&path), false).await;
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.ends_with("store.sqlite is empty, and not a Userkeep store"), "{findings:?}");
    }
}

#[tokio::test]
async fn names_that_differ_in_case_only_get_different_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    of_an_earlier_version(&path).await.close().await;
    let store = open(&path);
    let names = ["Foo", "foo", "FOO", "con", "Nul.x"];
    for (number, name) in (10..).zip(names) {
        insert(&store, &Namespace::new("other", name), &[doc! { "_id": number }]).await.unwrap();
    }
    let dump = directory.path().join("dump");
    dump::export(&store, &dump, &Progress::default()).await.unwrap();
    let mut files: Vec<String> = Vec::new();
    for database in std::fs::read_dir(&dump).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        files.push(database.display().to_string());
        files.extend(std::fs::read_dir(&database).unwrap().map(|entry| entry.unwrap().path().display().to_string()));
    }
    let lower: std::collections::HashSet<String> = files.iter().map(|file| file.to_lowercase()).collect();
    assert_eq!(lower.len(), files.len(), "{files:?}");
    let is_device = |file: &String| file.to_lowercase().contains("/con.") || file.to_lowercase().contains("/nul.");
    assert!(!files.iter().any(is_device), "{files:?}");

    let target = open(&directory.path().join("other.sqlite"));
    Import::open(&dump, false).unwrap().run(&target, &Progress::default()).await.unwrap();
    assert_eq!(contents(&target).await, contents(&store).await);
}

#[tokio::test]
async fn collections_of_the_mongodb_server_are_left_out_of_an_import() {
    let directory = tempfile::tempdir().unwrap();
    let dump = directory.path().join("dump");
    std::fs::create_dir_all(dump.join("app")).unwrap();
    std::fs::write(dump.join("app/system.views.bson"), raw(&doc! { "_id": 1 }).as_bytes()).unwrap();
    std::fs::write(dump.join("app/people.bson"), raw(&doc! { "_id": 1 }).as_bytes()).unwrap();
    let store = open(&directory.path().join("store.sqlite"));
    let import = Import::open(&dump, false).unwrap();
    assert_eq!(import.reported.len(), 1);
    assert!(
        import.reported[0]
            .ends_with("system.views.bson: it is a collection of the MongoDB server's own and is not imported"),
        "{:?}",
        import.reported
    );
    import.run(&store, &Progress::default()).await.unwrap();
    assert_eq!(store.collections().await.unwrap(), [people()]);
}

/// A reader would wait for a named pipe, and read a device without end.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_regular_files_of_a_dump_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let app = directory.path().join("app");
    std::fs::create_dir_all(&app).unwrap();
    let pipe = |name: &str| {
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, app.join(name), fifo, mode, 0).unwrap();
    };
    let link = |name: &str| std::os::unix::fs::symlink("/dev/zero", app.join(name)).unwrap();
    std::fs::write(app.join("three.bson"), "").unwrap();
    std::fs::write(app.join("four.bson"), "").unwrap();
    pipe("one.bson");
    link("two.bson");
    pipe("three.metadata.json");
    link("four.metadata.json");
    let error = Import::open(directory.path(), false).unwrap_err().to_string();
    for name in ["one.bson", "two.bson", "three.metadata.json", "four.metadata.json"] {
        assert!(error.contains(&format!("{name}: it is not a regular file")), "{error}");
    }
}
