//! The MongoDB-compatible server that the tests are run against, and the stores, documents and filters that they use there.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and none goes on without a server"
)]

pub mod proxy;

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

/// Its address. Without one the tests fail: what they check would not have been checked.
pub fn server() -> String {
    std::env::var("MONGODB_URI").expect(
        "MONGODB_URI names no MongoDB-compatible server: `npm test` starts one, or `node scripts/test-server.mjs start`",
    )
}

/// A connection string with more options.
pub fn with_options(uri: &str, options: &str) -> String {
    let (address, said) = uri.split_once('?').unwrap_or((uri, ""));
    let slash = if address.matches('/').count() < 3 { "/" } else { "" };
    let all: Vec<&str> = [said, options].into_iter().filter(|options| !options.is_empty()).collect();
    format!("{address}{slash}?{}", all.join("&"))
}

/// The name of a database that nobody else has.
pub fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a store on a server.
pub fn open(uri: &str) -> Arc<MongoStore> {
    Arc::new(MongoStore::open(uri, Arc::new(SystemEnvironment), Some("userkeep")).unwrap())
}

/// A collection of a database that no other test has.
pub fn fresh() -> Namespace {
    Namespace::new(&fresh_database(), "things")
}

/// A document as raw BSON.
pub fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

/// A filter as it is parsed.
pub fn filter(filter: Document) -> Filter {
    Filter::parse(&raw(filter)).unwrap()
}

/// A server of a test's own, that it can stop and start again.
pub struct OwnServer {
    directory: tempfile::TempDir,
    flags: Vec<String>,
    pub uri: String,
}

impl OwnServer {
    /// Starts one, with flags of its own beside those of all.
    pub fn start(flags: &[&str]) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            uri: String::new(),
        };
        server.uri = server.run("start");
        server
    }

    /// Stops it, and starts it again on what it has kept, at the same address.
    pub fn restart(&self) {
        self.stop();
        assert_eq!(self.run("start"), self.uri);
    }

    /// Stops it.
    pub fn stop(&self) {
        self.run("stop");
    }

    /// Starts it again.
    pub fn go_on(&self) {
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
