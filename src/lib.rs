//! The binding between Node and the client: functions over bytes and handles. No other crate
//! depends on Node.
//!
//! The public classes are written in JavaScript (`lib/`). Each call is polled once on the calling
//! thread. Only calls that are not complete then continue on the runtime's threads, and their
//! results are delivered in batches.

// Only Node calls the functions of this crate, and tests are built without Node.
#![cfg_attr(test, allow(dead_code, unused_imports))]

/// The global allocator. With the allocator of the C library, a call would spend a fifth of its
/// time on the allocation of large values.
#[global_allocator]
static ALLOCATOR: mimalloc_safe::MiMalloc = mimalloc_safe::MiMalloc;

mod admin;
mod bridge;
mod errors;
mod functions;
mod log;
mod opened;
mod operations;
mod outbox;
mod reads;
mod wake;
mod watch;
mod watchdog;
