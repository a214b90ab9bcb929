//! What users keep: their custom data, and collections under rules.

mod arguments;
mod collection;
mod custom_data;
mod watch;

pub(crate) use collection::{Access, Call, Collections, OWN_DATABASES, Parsed, no_rule};
pub(crate) use custom_data::CustomData;
pub use watch::Watcher;
pub(crate) use watch::{Selection, Viewer};
