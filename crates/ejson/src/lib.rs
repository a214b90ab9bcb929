//! MongoDB Extended JSON v2
//! (<https://github.com/mongodb/specifications/blob/master/source/extended-json.md>). Values are
//! written in the canonical format, which preserves all types and which all clients can read. Any
//! format is read.

mod convert;
mod error;
mod incremental;
mod names;
mod read;
mod tokens;
mod write;

pub use convert::resolve;
pub use error::{Error, Result};
pub use incremental::{Arguments, CallDecoder, DecodedCall, Undecoded};
pub use read::{Json, is_wrapper, read, read_stored};
pub use write::Canonical;

#[cfg(test)]
mod incremental_tests;
#[cfg(test)]
mod tests;
