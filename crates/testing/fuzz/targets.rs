//! The fuzz targets. Each takes arbitrary bytes and must return quickly and without a panic.
//! `examples/fuzz.rs` generates bytes, and `tests/fuzz.rs` replays the seeds.

use std::{sync::Arc, time::Duration};

use backend::{
    Backend, Definition, Environment, Options, Request, Secret, ejson,
    request::{ReadProfile, RefreshSession},
};
use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Budget, Filter, Limits, Pipeline, Projection, Sort, Update, Variables};
use store::{Location, SqliteStore, SystemEnvironment};

/// The names of the targets.
pub(crate) const TARGETS: [&str; 6] = ["bson", "ejson", "filter", "update", "pipeline", "token"];

/// Runs a target on `bytes`.
pub(crate) fn run(target: &str, bytes: &[u8]) {
    let limits = Limits { time: Some(Duration::from_secs(5)), steps: Some(2_000_000), bytes: Some(32 << 20) };
    Budget::new(limits).enter(|| match target {
        "bson" => bson_is_checked(bytes),
        "ejson" => ejson_is_read(bytes),
        "filter" => with_document(bytes, filter_is_asked),
        "update" => with_document(bytes, update_is_applied),
        "pipeline" => with_document(bytes, pipeline_is_run),
        _ => token_is_refused(bytes),
    });
}

/// Checks that a valid document can be traversed, compared, and written as Extended JSON that
/// parses to the same document.
fn bson_is_checked(bytes: &[u8]) {
    let Ok(document) = RawDocument::from_bytes(bytes) else { return };
    let _ = query::validate_form(document);
    if query::validate(document).is_err() {
        return;
    }
    assert!(query::compare_documents(document, document).is_eq());
    let key = query::encode_key(RawBsonRef::Document(document));
    assert!(!key.is_empty());
    let written = |document: &RawDocument| {
        serde_json::to_vec(&ejson::Canonical(RawBsonRef::Document(document))).expect("canonical Extended JSON")
    };
    let text = written(document);
    let read = ejson::read(&text).and_then(ejson::Json::into_bson).expect("written Extended JSON parses");
    let RawBson::Document(read) = read else { panic!("a document became another value") };
    // Compared as text: the names of an array's items and the bits of a NaN are not preserved.
    assert_eq!(written(&read), text);
}

/// Checks that parsing Extended JSON returns BSON that passes the validation of its form.
fn ejson_is_read(bytes: &[u8]) {
    if let Ok(RawBson::Document(document)) = ejson::read(bytes).and_then(ejson::Json::into_bson) {
        query::validate_form(&document).expect("parsed Extended JSON is valid BSON");
    }
    call_is_decoded(bytes);
}

/// Checks that bytes in pieces, as a call or as its arguments, are decoded to valid BSON or
/// rejected.
fn call_is_decoded(bytes: &[u8]) {
    for (before, after) in [("", ""), (r#"{"name":"f","arguments":["#, "]}")] {
        let json = [before.as_bytes(), bytes, after.as_bytes()].concat();
        let mut decoder = ejson::CallDecoder::new(1 << 20);
        if json.chunks(7).all(|piece| decoder.push(piece).is_ok())
            && let Ok(call) = decoder.finish()
            && let Some(Ok(arguments)) = call.arguments.map(ejson::Arguments::into_all)
        {
            query::validate_form(&arguments).expect("decoded arguments are valid BSON");
        }
    }
}

/// Interprets the bytes as BSON or as Extended JSON, as from a client, and passes the document on.
fn with_document(bytes: &[u8], test: fn(&RawDocument)) {
    if let Ok(document) = RawDocument::from_bytes(bytes)
        && query::validate(document).is_ok()
    {
        test(document);
    } else if let Ok(RawBson::Document(document)) = ejson::read(bytes).and_then(ejson::Json::into_bson)
        && query::validate(&document).is_ok()
    {
        test(&document);
    }
}

/// Documents with many types of values.
fn documents() -> Vec<RawDocumentBuf> {
    let nested = bson::rawdoc! { "a": [{ "b": 1 }, { "b": [1, 2, { "c": "x" }] }, 3], "d": { "e": { "f": null } } };
    let plain =
        bson::rawdoc! { "_id": 1, "a": 1, "b": "text", "c": [1, 2.5, "x", true], "at": bson::DateTime::from_millis(0) };
    vec![RawDocumentBuf::new(), plain, nested]
}

fn filter_is_asked(parts: &RawDocument) {
    let Ok(mut filter) = Filter::parse(parts) else { return };
    if filter.bind(&Variables::at(bson::DateTime::from_millis(0))).is_err() {
        return;
    }
    let again = Filter::parse(&filter.to_document()).expect("a filter that was written can be parsed");
    for document in documents() {
        let (one, other) = (filter.try_matches(&document), again.try_matches(&document));
        if query::budget::charge(0).is_ok() {
            assert_eq!(one.ok(), other.ok(), "{filter:?}");
        }
        let _ = filter.position(&document);
    }
}

fn update_is_applied(update: &RawDocument) {
    let Ok(update) = Update::parse(update) else { return };
    for document in documents() {
        if let Ok(updated) = update.apply(&document, &Filter::all(), &SystemEnvironment)
            && query::budget::charge(0).is_ok()
        {
            query::validate(&updated).expect("an update returns a valid document");
            let description = query::difference(&document, &updated);
            assert!(query::get(&description, "updatedFields").is_some());
        }
    }
    let _ = update.upsert(&Filter::all(), &SystemEnvironment);
}

fn pipeline_is_run(holder: &RawDocument) {
    if let Some(RawBsonRef::Array(stages)) = query::get(holder, "p")
        && let Ok(mut pipeline) = Pipeline::parse(stages)
        && pipeline.bind(&Variables::at(bson::DateTime::from_millis(0))).is_ok()
    {
        for document in pipeline.run(documents().into_iter()).take(1000) {
            let Ok(document) = document else { break };
            query::validate_form(&document).expect("a stage returns valid documents");
        }
    }
    let _ = Projection::parse(holder).map(|projection| {
        documents().iter().for_each(|document| drop(projection.apply(document, &Filter::all())));
    });
    let _ = Sort::parse(holder).map(|sort| documents().iter().for_each(|document| drop(sort.key(document))));
}

/// Checks that no generated token is accepted.
fn token_is_refused(bytes: &[u8]) {
    thread_local! {
        static BACKEND: (tokio::runtime::Runtime, Arc<Backend>) = {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let store = SqliteStore::open(Location::Memory, Arc::new(SystemEnvironment)).expect("a store");
            let definition = Definition::development().expect("the built-in definition");
            let backend = Backend::new("fuzz", definition, Arc::new(store), Environment::system(), &Options::default());
            (runtime, Arc::new(backend))
        };
    }
    let token = || Secret::from(String::from_utf8_lossy(bytes).into_owned());
    BACKEND.with(|(runtime, backend)| {
        for request in
            [Request::from(ReadProfile { access_token: token() }), RefreshSession { refresh_token: token() }.into()]
        {
            runtime.block_on(backend.handle_in_process(request)).expect_err("a generated token is rejected");
        }
    });
}
