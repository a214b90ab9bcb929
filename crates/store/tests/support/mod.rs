//! The MongoDB-compatible test server, and the stores, documents and filters of the tests.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "each test uses a part of this module, and none runs without a server"
)]

pub(crate) mod proxy;
pub(crate) mod world;

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bson::{Document, raw::RawDocumentBuf};
use query::Filter;
use store::{MongoStore, Namespace, SystemEnvironment};

/// Returns the connection string of the test server. Panics without one, so that no test is
/// skipped silently.
pub(crate) fn server() -> String {
    std::env::var("MONGODB_URI").expect(
        "MONGODB_URI names no MongoDB-compatible server: `npm test` starts one, or `node scripts/test-server.mjs start`",
    )
}

/// Adds options to a connection string.
pub(crate) fn with_options(uri: &str, options: &str) -> String {
    let (address, said) = uri.split_once('?').unwrap_or((uri, ""));
    let slash = if address.matches('/').count() < 3 { "/" } else { "" };
    let all: Vec<&str> = [said, options].into_iter().filter(|options| !options.is_empty()).collect();
    format!("{address}{slash}?{}", all.join("&"))
}

/// Returns a database name that no other test uses.
pub(crate) fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a store on a server.
pub(crate) fn open(uri: &str) -> Arc<MongoStore> {
    Arc::new(MongoStore::open(uri, Arc::new(SystemEnvironment), Some("userkeep")).unwrap())
}

/// Returns a collection in a database that no other test uses.
pub(crate) fn fresh() -> Namespace {
    Namespace::new(&fresh_database(), "things")
}

/// Converts a document to raw BSON.
pub(crate) fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

/// Parses a filter.
pub(crate) fn filter(filter: Document) -> Filter {
    Filter::parse(&raw(filter)).unwrap()
}

/// A server that belongs to one test, which can stop and restart it.
pub(crate) struct OwnServer {
    directory: tempfile::TempDir,
    flags: Vec<String>,
    pub uri: String,
}

impl OwnServer {
    /// Starts a server, with additional flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            uri: String::new(),
        };
        server.uri = server.run("start");
        server
    }

    /// Stops the server, and restarts it on its data at the same address.
    pub(crate) fn restart(&self) {
        self.stop();
        assert_eq!(self.run("start"), self.uri);
    }

    /// Stops the server.
    pub(crate) fn stop(&self) {
        self.run("stop");
    }

    /// Starts the server again.
    pub(crate) fn go_on(&self) {
        assert_eq!(self.run("start"), self.uri);
    }

    fn run(&self, command: &str) -> String {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/test-server.mjs");
        let mut run = Command::new("node");
        run.arg(script).arg(command).arg(self.directory.path());
        if command == "start" {
            run.args(&self.flags);
        }
        let output = run.output().expect("node runs the server of the tests");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.stop();
    }
}
