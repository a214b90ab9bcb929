//! What users keep: their custom data, and collections under rules.

mod arguments;
mod collection;
mod custom_data;

pub(crate) use collection::{Access, Call, Collections, OWN_DATABASES, no_rule};
pub(crate) use custom_data::CustomData;
