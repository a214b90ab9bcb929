//! Measures plain SQLite with the same bytes: the limit that `npm run bench` compares with. Prints
//! a JSON object with the nanoseconds of each operation.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a program for measuring, which may stop at once"
)]

use std::time::Instant;

use rusqlite::params;
use testing::plain;

fn main() {
    let argument = |at: usize| std::env::args().nth(at).and_then(|text| text.parse::<usize>().ok());
    let (documents, size, rounds) =
        (argument(1).unwrap_or(100_000), argument(2).unwrap_or(300), argument(3).unwrap_or(2_000));
    let directory = tempfile::tempdir().unwrap();
    let connection = plain::open(&directory.path().join("limit.sqlite"));
    connection
        .execute_batch(
            "CREATE TABLE documents (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, body BLOB NOT NULL) STRICT;
             CREATE TABLE entries (key BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) STRICT, WITHOUT ROWID;",
        )
        .unwrap();
    let body = vec![7u8; size];
    let key = |number: usize| format!("key-{number:012}").into_bytes();
    let insert = |number: usize| {
        connection
            .prepare_cached("INSERT INTO documents (id, body) VALUES (?1, ?2)")
            .unwrap()
            .execute(params![key(number), body])
            .unwrap();
        connection
            .prepare_cached("INSERT INTO entries (key, seq) VALUES (?1, ?2)")
            .unwrap()
            .execute(params![key(number), connection.last_insert_rowid()])
            .unwrap();
    };
    connection.execute_batch("BEGIN").unwrap();
    (0..documents).for_each(insert);
    connection.execute_batch("COMMIT").unwrap();

    let timed = |rounds: usize, mut run: Box<dyn FnMut(usize) + '_>| {
        let start = Instant::now();
        (0..rounds).for_each(&mut run);
        start.elapsed().as_nanos() as usize / rounds
    };
    let read = |sql: &'static str, number: usize| -> Vec<u8> {
        connection.prepare_cached(sql).unwrap().query_row([key(number * 7919 % documents)], |row| row.get(0)).unwrap()
    };
    let by_id = "SELECT body FROM documents WHERE id = ?1";
    let by_entry =
        "SELECT document.body FROM entries AS entry CROSS JOIN documents AS document ON document.seq = entry.seq
         WHERE entry.key = ?1 ORDER BY entry.seq";
    let find_one = timed(rounds, Box::new(|number| assert_eq!(read(by_id, number).len(), size)));
    // The session, and then the custom data.
    let refresh = timed(
        rounds,
        Box::new(|number| assert_eq!(read(by_id, number).len() + read(by_entry, number).len(), 2 * size)),
    );
    let insert_one = timed(
        rounds,
        Box::new(|number| {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            insert(documents + number);
            connection.execute_batch("COMMIT").unwrap();
        }),
    );
    let find_1000 = timed(
        50,
        Box::new(|_| {
            let mut statement =
                connection.prepare_cached("SELECT body FROM documents ORDER BY seq LIMIT 1000").unwrap();
            let bodies: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            assert_eq!(bodies.len(), 1000);
        }),
    );
    println!(
        "{{\"refreshCustomData\":{refresh},\"findOne by _id\":{find_one},\"insertOne\":{insert_one},\"find of 1000\":{find_1000}}}"
    );
}
