//! The binding between Node and the client: a few functions over bytes and handles. The only Rust that knows Node.
//!
//! The classes that a person holds are JavaScript (`lib/`). What they call here is polled once on the calling thread,
//! and only what is not done by then goes to the runtime's threads; what is done there comes back in batches.

// Node calls the functions here; to a test build, which has no Node, nobody does.
#![cfg_attr(test, allow(dead_code, unused_imports))]

/// A call makes and drops some larger values, for which the C library's allocator takes a fifth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc_safe::MiMalloc = mimalloc_safe::MiMalloc;

mod bridge;
mod errors;
mod log;
mod maintenance;
mod operations;
mod reads;
mod serve;
mod wake;
mod watch;
mod watchdog;
