//! The MongoDB-compatible server that the tests are run against.
#![allow(dead_code, clippy::expect_used, reason = "each test uses a part of it, and none goes on without a server")]

use std::sync::atomic::{AtomicU32, Ordering};

/// Its address. Without one the tests fail: what they check would not have been checked.
pub fn server() -> String {
    std::env::var("MONGODB_URI").expect(
        "MONGODB_URI names no MongoDB-compatible server: `npm test` starts one, or `node scripts/test-server.mjs start`",
    )
}

/// The name of a database that nobody else has.
pub fn fresh_database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
