//! Database commands on the embedded store, and random cases, for the programs and tests that
//! compare the store with MongoDB.
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "only tests and programs for tests use it"
)]

pub mod case;
pub mod commands;
pub mod expect;
pub mod generate;
mod options;
pub mod plain;
