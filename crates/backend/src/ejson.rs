//! MongoDB Extended JSON v2 (<https://github.com/mongodb/specifications/blob/master/source/extended-json.md>): written in
//! its canonical flavour, which keeps every type and which all clients can read, and read in any flavour.

mod direct;
mod read;
mod write;

pub use direct::read_document;
pub use read::{Json, read};
pub use write::Canonical;

#[cfg(test)]
mod tests;
