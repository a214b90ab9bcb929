//! What users keep: their custom data, and collections under rules.

mod arguments;
mod collection;
mod custom_data;

pub(crate) use collection::{no_rule, Access, Collections};
pub(crate) use custom_data::{claim, CustomData};
