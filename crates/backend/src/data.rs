//! Users' data: custom user data, and collections under rules.

mod arguments;
mod collection;
mod custom_data;
mod watch;

pub(crate) use collection::{Authorization, Call, Collections, OWN_DATABASES, Parsed, no_rule};
pub(crate) use custom_data::CustomData;
pub use watch::Subscription;
pub(crate) use watch::{Selection, Viewer};
