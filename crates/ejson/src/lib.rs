//! Reads and writes MongoDB Extended JSON v2
//! (<https://github.com/mongodb/specifications/blob/master/source/extended-json.md>).
//!
//! Writing uses the canonical format ([`Canonical`]), which preserves all BSON types and which all
//! clients can read. Reading accepts the canonical and the relaxed format, and the dates and
//! binary data of version 1.
//!
//! A client's JSON is untrusted. Reading therefore limits the nesting depth and the memory,
//! rejects duplicate names, and returns errors that contain no values.
//!
//! # Examples
//! ```
//! let json = ejson::read(br#"{ "age": 5, "id": { "$oid": "65a000000000000000000001" } }"#)?;
//! let value = json.into_bson()?;
//! let canonical = ejson::Canonical(value.as_raw_bson_ref());
//! let text = serde_json::to_string(&canonical).unwrap_or_default();
//! assert_eq!(text, r#"{"age":{"$numberInt":"5"},"id":{"$oid":"65a000000000000000000001"}}"#);
//! # Ok::<(), ejson::Error>(())
//! ```

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
