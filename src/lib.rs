//! The binding between Node and the client: functions over bytes and handles. No other crate
//! depends on Node.
//!
//! The public classes are JavaScript (`lib/`). Their calls are polled once on the calling thread.
//! Only those that are not done then continue on the runtime's threads, and their results are
//! delivered in batches.

// Only Node calls the functions of this crate, and tests are built without Node.
#![cfg_attr(test, allow(dead_code, unused_imports))]

/// A call allocates some large values; with the C library's allocator, that would take a fifth of
/// its time.
#[global_allocator]
static ALLOCATOR: mimalloc_safe::MiMalloc = mimalloc_safe::MiMalloc;

mod admin;
mod bridge;
mod errors;
mod log;
mod opened;
mod operations;
mod outbox;
mod reads;
mod serve;
mod wake;
mod watch;
mod watchdog;
