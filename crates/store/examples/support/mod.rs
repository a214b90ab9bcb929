//! Database commands on the embedded store, for the programs that compare it with MongoDB:
//! `vectors`, `differential` and the regression tests.
#![allow(dead_code, reason = "each of them uses a part")]

pub(crate) mod case;
pub(crate) mod commands;
pub(crate) mod expect;
mod options;
