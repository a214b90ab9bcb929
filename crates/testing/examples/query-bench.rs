//! Benchmark of a filter, an update and a sort over raw documents, compared with the same work on
//! decoded `bson::Document`s: `npm run bench:query [-- DOCUMENTS ROUNDS]`. Reports medians over
//! alternating rounds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may panic and print")]

use std::{cmp::Ordering, hint::black_box, time::Instant};

use bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc, oid::ObjectId, rawdoc};
use query::{Filter, Sort, Update};
use store::SystemEnvironment;

/// A document like typical custom user data: about 300 bytes, with two nested values.
fn document(number: i32) -> RawDocumentBuf {
    let document = doc! {
        "_id": ObjectId::from_bytes([number.to_be_bytes(), [7; 4], number.to_le_bytes()].concat().try_into().unwrap()),
        "owner": format!("user-{:08}", number.wrapping_mul(7919) % 100_000),
        "name": "Ada Lovelace",
        "email": format!("ada{number}@example.com"),
        "address": { "street": "12 St James's Square", "city": "London", "zip": "SW1Y 4JH" },
        "tags": ["mathematics", "engines", "poetry"],
        "age": number.wrapping_mul(31) % 100,
        "score": f64::from(number.wrapping_mul(17) % 1000) / 10.0,
        "active": number % 3 == 0,
        "created": DateTime::from_millis(1_700_000_000_000 + i64::from(number)),
    };
    RawDocumentBuf::try_from(document).unwrap()
}

fn decoded(raw: &RawDocument) -> Document {
    Document::try_from(raw).unwrap()
}

/// Returns the duration of the work in nanoseconds.
fn time(work: impl FnOnce() -> usize) -> f64 {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed().as_nanos() as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(name: &str, documents: usize, raw: Vec<f64>, decoding: Vec<f64>) {
    let (raw, decoding) = (median(raw), median(decoding));
    println!(
        "{name:<20} {:>12.0} {:>14.0} {:>8.1}×",
        documents as f64 / raw * 1e9,
        documents as f64 / decoding * 1e9,
        decoding / raw
    );
}

fn main() {
    let argument = |at: usize| std::env::args().nth(at).and_then(|text| text.parse::<usize>().ok());
    let (count, rounds) = (argument(1).unwrap_or(100_000), argument(2).unwrap_or(9));
    let documents: Vec<RawDocumentBuf> = (0..count as i32).map(document).collect();
    let size = documents.iter().map(|document| document.as_bytes().len()).sum::<usize>() / count;
    println!("{count} documents of {size} bytes, one thread, medians of {rounds} rounds");
    println!("{:<20} {:>12} {:>14} {:>9}", "documents a second", "raw", "decoding", "ratio");

    let filter = Filter::parse(&rawdoc! { "age": { "$gte": 50 }, "address.city": "London" }).unwrap();
    let by_hand = |document: &Document| {
        document.get_i32("age").is_ok_and(|age| age >= 50)
            && document
                .get_document("address")
                .is_ok_and(|address| address.get_str("city").is_ok_and(|city| city == "London"))
    };
    let (mut raw, mut decoding) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(time(|| documents.iter().filter(|document| filter.matches(document)).count()));
        decoding.push(time(|| documents.iter().filter(|document| by_hand(&decoded(document))).count()));
    }
    report("filter, two fields", count, raw, decoding);

    let update = Update::parse(&rawdoc! { "$set": { "address.city": "Paris" }, "$inc": { "age": 1 } }).unwrap();
    let (mut raw, mut decoding) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(time(|| {
            let updated = |document| update.apply(document, &filter, &SystemEnvironment).unwrap().as_bytes().len();
            documents.iter().map(|document| updated(document)).sum()
        }));
        decoding.push(time(|| {
            let updated = |document| {
                let mut document = decoded(document);
                document.get_document_mut("address").unwrap().insert("city", "Paris");
                let age = document.get_i32("age").unwrap();
                document.insert("age", age + 1);
                RawDocumentBuf::try_from(document).unwrap().as_bytes().len()
            };
            documents.iter().map(|document| updated(document)).sum()
        }));
    }
    report("update, two fields", count, raw, decoding);

    let sort = Sort::parse(&rawdoc! { "age": 1, "owner": -1 }).unwrap();
    let order = |one: &Document, other: &Document| -> Ordering {
        let owner = |document: &Document| match document.get("owner") {
            Some(Bson::String(owner)) => owner.clone(),
            _ => String::new(),
        };
        one.get_i32("age").ok().cmp(&other.get_i32("age").ok()).then_with(|| owner(other).cmp(&owner(one)))
    };
    let (mut raw, mut decoding) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(time(|| {
            let mut sorted: Vec<&RawDocument> = documents.iter().map(|document| &**document).collect();
            sort.sort(&mut sorted);
            sorted.len()
        }));
        decoding.push(time(|| {
            let mut sorted: Vec<Document> = documents.iter().map(|document| decoded(document)).collect();
            sorted.sort_by(order);
            sorted.len()
        }));
    }
    report("sort, two fields", count, raw, decoding);
}
