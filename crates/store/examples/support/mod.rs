//! Database commands on the embedded store, for the runners that compare it with MongoDB: `vectors` and `differential`.

pub mod commands;
pub mod expect;
mod options;
