//! MongoDB Extended JSON v2 (<https://github.com/mongodb/specifications/blob/master/source/extended-json.md>): written in
//! its canonical flavour, which keeps every type and which all clients can read, and read in any flavour.

mod convert;
mod incremental;
mod names;
mod read;
mod tokens;
mod write;

pub use convert::resolve;
pub use incremental::{Arguments, CallDecoder, DecodedCall, Undecoded};
pub use read::{Json, is_wrapper, read, read_stored};
pub use write::Canonical;

#[cfg(test)]
mod incremental_tests;
#[cfg(test)]
mod tests;
