//! Compares the embedded store with plain SQLite that reads and writes the same rows, which is the
//! limit: `npm run bench:store [-- DOCUMENTS ROUNDS]`. Prints medians and 99th percentiles in
//! microseconds, and then read times for growing collections.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a program for measuring, which may stop at once"
)]

use std::{sync::Arc, time::Instant};

use bson::{DateTime, Document, doc, raw::RawDocumentBuf, rawdoc};
use futures_util::future::join_all;
use query::{Filter, Path, Sort, Update};
use rusqlite::{Connection, params};
use store::{
    Change, Durability, Find, Index, Location, Modify, Namespace, Operation, Settings, SqliteStore, Store,
    SystemEnvironment, TransactionLimits, Watch, Write,
};
use testing::plain;

fn namespace() -> Namespace {
    Namespace::new("app", "things")
}

/// Returns a document of about 300 bytes with two indexed fields, each with a unique value.
fn document(number: i64) -> RawDocumentBuf {
    let document = doc! {
        "_id": number,
        "n": number,
        "name": format!("name-{:012}", number * 7919 % 1_000_003),
        "text": "x".repeat(180),
        "at": DateTime::from_millis(1_700_000_000_000 + number),
    };
    RawDocumentBuf::try_from(document).unwrap()
}

fn insert(documents: Vec<RawDocumentBuf>) -> Vec<Write> {
    vec![Write::new(namespace(), Operation::Insert(documents))]
}

fn find(filter: RawDocumentBuf) -> Find {
    Find::new(namespace(), Filter::parse(&filter).unwrap())
}

fn update(number: i64) -> Vec<Write> {
    update_to(number, -number)
}

fn update_to(number: i64, value: i64) -> Vec<Write> {
    let set = rawdoc! { "$set": { "n": value, "name": format!("new-{value:012}") } };
    let change = Change::Update { update: Update::parse(&set).unwrap(), upsert: false };
    let modify = Modify::new(Filter::equals("_id", number), false, change);
    vec![Write::new(namespace(), Operation::modify(modify))]
}

async fn filled(directory: &std::path::Path, name: &str, count: i64, durability: Durability) -> SqliteStore {
    let location = Location::File(directory.join(name));
    let store =
        SqliteStore::open_with(location, Arc::new(SystemEnvironment), Settings { durability, ..Settings::default() })
            .unwrap();
    let indexes = vec![Index::on(Path::new("n")), Index::on(Path::new("name"))];
    store.ensure_indexes(namespace(), indexes).await.unwrap();
    for from in (0..count).step_by(10_000) {
        store.write(insert((from..count.min(from + 10_000)).map(document).collect())).await.unwrap();
    }
    store
}

/// The same rows without the store: documents, index entries and changes.
struct Plain(Connection);

impl Plain {
    fn filled(directory: &std::path::Path, count: i64) -> Self {
        let connection = plain::open(&directory.join("plain.sqlite"));
        connection
            .execute_batch(
                "CREATE TABLE documents (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
                 CREATE TABLE n (key BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) STRICT, WITHOUT ROWID;
                 CREATE TABLE name (key BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) STRICT, WITHOUT ROWID;
                 CREATE TABLE changes (id INTEGER PRIMARY KEY, collection INTEGER NOT NULL, kind INTEGER NOT NULL, time INTEGER NOT NULL,
                     total INTEGER NOT NULL, document BLOB NOT NULL, description BLOB) STRICT;",
            )
            .unwrap();
        let plain = Self(connection);
        plain.0.execute_batch("BEGIN").unwrap();
        (0..count).for_each(|number| plain.insert(number));
        plain.0.execute_batch("COMMIT").unwrap();
        plain
    }

    fn insert(&self, number: i64) {
        let document = document(number);
        let key = |name| query::encode_key(query::get(&document, name).unwrap());
        self.0
            .prepare_cached("INSERT INTO documents (id, body) VALUES (?1, ?2)")
            .unwrap()
            .execute(params![key("_id"), document.as_bytes()])
            .unwrap();
        let seq = self.0.last_insert_rowid();
        for name in ["n", "name"] {
            let sql = format!("INSERT INTO {name} (key, seq) VALUES (?1, ?2)");
            self.0.prepare_cached(&sql).unwrap().execute(params![key(name), seq]).unwrap();
        }
        self.note(1, document.as_bytes(), None);
    }

    /// Inserts the row of a change.
    fn note(&self, kind: i64, document: &[u8], description: Option<&[u8]>) {
        self.0
            .prepare_cached(
                "INSERT INTO changes (collection, kind, time, total, document, description) VALUES (1, ?1, 1700000000, 0, ?2, ?3)",
            )
            .unwrap()
            .execute(params![kind, document, description])
            .unwrap();
    }

    fn insert_alone(&self, number: i64) {
        self.0.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        self.insert(number);
        self.0.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
    }

    fn update(&self, number: i64) {
        self.0.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        let id = query::encode_key(bson::raw::RawBsonRef::Int64(number));
        let (seq, before): (i64, Vec<u8>) = self
            .0
            .prepare_cached("SELECT seq, body FROM documents WHERE id = ?1")
            .unwrap()
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        let before = RawDocumentBuf::from_bytes(before).unwrap();
        let mut after = Document::try_from(before.clone()).unwrap();
        after.insert("n", -number);
        after.insert("name", format!("new-{number:012}"));
        let after = RawDocumentBuf::try_from(after).unwrap();
        self.0
            .prepare_cached("UPDATE documents SET body = ?1 WHERE seq = ?2")
            .unwrap()
            .execute(params![after.as_bytes(), seq])
            .unwrap();
        for name in ["n", "name"] {
            let key = |document: &RawDocumentBuf| query::encode_key(query::get(document, name).unwrap());
            let delete = format!("DELETE FROM {name} WHERE key = ?1 AND seq = ?2");
            self.0.prepare_cached(&delete).unwrap().execute(params![key(&before), seq]).unwrap();
            let insert = format!("INSERT INTO {name} (key, seq) VALUES (?1, ?2)");
            self.0.prepare_cached(&insert).unwrap().execute(params![key(&after), seq]).unwrap();
        }
        let description = rawdoc! {
            "updatedFields": { "n": -number, "name": format!("new-{number:012}") },
            "removedFields": [],
        };
        self.note(2, after.as_bytes(), Some(description.as_bytes()));
        self.0.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
    }

    fn by_id(&self, number: i64) -> usize {
        let key = query::encode_key(bson::raw::RawBsonRef::Int64(number));
        let mut statement = self.0.prepare_cached("SELECT body FROM documents WHERE id = ?1").unwrap();
        statement.query_row([key], |row| row.get::<_, Vec<u8>>(0)).unwrap().len()
    }

    fn range(&self, from: i64, to: i64) -> usize {
        let key = |number| query::encode_key(bson::raw::RawBsonRef::Int64(number));
        let mut statement = self
            .0
            .prepare_cached(
                "SELECT body FROM n JOIN documents ON documents.seq = n.seq WHERE n.key >= ?1 AND n.key < ?2",
            )
            .unwrap();
        let bodies = statement.query_map([key(from), key(to)], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        bodies.map(|body| body.unwrap().len()).sum()
    }
}

struct Times(Vec<f64>);

impl Times {
    fn at(&mut self, part: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }
}

macro_rules! timed {
    ($count:expr, |$number:ident| $work:expr) => {{
        let mut times = Vec::new();
        for $number in 0..$count {
            let begun = Instant::now();
            std::hint::black_box($work);
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Times(times)
    }};
}

fn report(name: &str, mut ours: Times, mut plain: Times) {
    let [p50, p99, limit, limit99] = [ours.at(0.5), ours.at(0.99), plain.at(0.5), plain.at(0.99)];
    println!("{name:<34} {p50:>9.1} {p99:>9.1} {limit:>11.1} {limit99:>9.1} {:>7.2}×", p50 / limit);
}

#[tokio::main]
async fn main() {
    let argument = |at: usize| std::env::args().nth(at).and_then(|text| text.parse::<i64>().ok());
    let (count, rounds) = (argument(1).unwrap_or(100_000), argument(2).unwrap_or(2_000));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = filled(path, "store.sqlite", count, Durability::Process).await;
    let plain = Plain::filled(path, count);
    let some = |number: i64| number * 7919 % count;
    println!(
        "{count} documents of {} bytes, two indexes, one call at a time unless stated",
        document(1).as_bytes().len()
    );
    println!("{:<34} {:>9} {:>9} {:>11} {:>9} {:>8}", "microseconds", "p50", "p99", "plain p50", "p99", "ratio");

    let ours = timed!(rounds, |number| store.find(find(rawdoc! { "_id": some(number) })).await.unwrap());
    report("point read by _id", ours, timed!(rounds, |number| plain.by_id(some(number))));
    let range = |from: i64| find(rawdoc! { "n": { "$gte": from, "$lt": from + 100 } });
    let ours = timed!(rounds, |number| store.find(range(some(number))).await.unwrap());
    report("range of 100 by an index", ours, timed!(rounds, |number| plain.range(some(number), some(number) + 100)));
    let ours = timed!(rounds, |number| store.write(insert(vec![document(count + number)])).await.unwrap());
    report("insert", ours, timed!(rounds, |number| plain.insert_alone(count + number)));
    let ours = timed!(rounds, |number| store.write(update(some(number))).await.unwrap());
    report("update of both indexed fields", ours, timed!(rounds, |number| plain.update(some(number))));
    let ours = timed!(rounds, |number| {
        let transaction = store.begin(TransactionLimits::default()).await.unwrap();
        transaction.write(update_to(some(number), 1 << 40 | number).remove(0)).await.unwrap();
        transaction.commit().await.unwrap();
    });
    report("the update in a transaction", ours, timed!(rounds, |number| plain.update(some(number))));
    let ours = timed!(rounds, |number| {
        let transaction = store.begin(TransactionLimits::default()).await.unwrap();
        transaction.find(find(rawdoc! { "_id": some(number) })).await.unwrap();
        transaction.commit().await.unwrap();
    });
    report("a point read in a transaction", ours, timed!(rounds, |number| plain.by_id(some(number))));
    let ours = timed!(rounds / 32, |number| {
        let first = 2 * count + number * 32;
        join_all((first..first + 32).map(|number| store.write(insert(vec![document(number)])))).await
    });
    let each = Times(ours.0.iter().map(|time| time / 32.0).collect());
    report("insert, 32 in flight, each", each, timed!(rounds, |number| plain.insert_alone(3 * count + number)));

    let ours = timed!(rounds / 32, |number| {
        join_all((0..32).map(|each| store.write(update(some(number * 32 + each))))).await
    });
    let each = Times(ours.0.iter().map(|time| time / 32.0).collect());
    report("update, 32 in flight, each", each, timed!(rounds, |number| plain.update(some(number))));

    let synced = filled(path, "synced.sqlite", 1_000, Durability::Full).await;
    let few = rounds.min(200);
    plain.0.pragma_update(None, "synchronous", "FULL").unwrap();
    let ours = timed!(few, |number| synced.write(insert(vec![document(count + number)])).await.unwrap());
    report("durable insert", ours, timed!(few, |number| plain.insert_alone(5 * count + number)));
    let ours = timed!(few / 8, |number| {
        let first = 2 * count + number * 32;
        join_all((first..first + 32).map(|number| synced.write(insert(vec![document(number)])))).await
    });
    let each = Times(ours.0.iter().map(|time| time / 32.0).collect());
    report("durable insert, 32 in flight, each", each, timed!(few, |number| plain.insert_alone(8 * count + number)));

    println!("\n{:<34} {:>9} {:>9}", "from a write to its event", "p50", "p99");
    let elsewhere = SqliteStore::open(Location::File(path.join("store.sqlite")), Arc::new(SystemEnvironment)).unwrap();
    for (name, writer) in [("in the process", &store), ("from another store of the file", &elsewhere)] {
        let mut stream = store.watch(Watch { namespace: namespace(), after: None, owner: None }).await.unwrap();
        let base = if name == "in the process" { 6 * count } else { 7 * count };
        let mut times = timed!(rounds.min(500), |number| {
            writer.write(insert(vec![document(base + number)])).await.unwrap();
            stream.next().await.unwrap()
        });
        println!("{name:<34} {:>9.1} {:>9.1}", times.at(0.5), times.at(0.99));
    }

    println!(
        "\n{:<34} {:>9} {:>9} {:>11} {:>9}",
        "p50 by documents", "by _id", "by index", "range of 100", "sorted 10"
    );
    let mut size = 1_000;
    while size <= count {
        let store = filled(path, &format!("grown-{size}.sqlite"), size, Durability::Process).await;
        let some = |number: i64| number * 7919 % size;
        let sorted = || {
            let sort = Some(Sort::parse(&rawdoc! { "name": -1 }).unwrap());
            Find { sort, limit: Some(10), ..find(rawdoc! {}) }
        };
        let [mut id, mut index, mut range, mut sorted] = [
            timed!(rounds, |number| store.find(find(rawdoc! { "_id": some(number) })).await.unwrap()),
            timed!(rounds, |number| store.find(find(rawdoc! { "n": some(number) })).await.unwrap()),
            timed!(rounds, |number| store.find(range(some(number))).await.unwrap()),
            timed!(rounds, |number| store.find(sorted()).await.map(|found| found.len() + number as usize).unwrap()),
        ];
        println!(
            "{size:<34} {:>9.1} {:>9.1} {:>11.1} {:>9.1}",
            id.at(0.5),
            index.at(0.5),
            range.at(0.5),
            sorted.at(0.5)
        );
        store.close().await;
        size *= 10;
    }
}
