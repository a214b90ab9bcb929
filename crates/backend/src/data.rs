//! Users' data: custom user data, and collections under rules.

mod access;
mod arguments;
mod call;
mod collection;
mod custom_data;
mod watch;

pub(crate) use call::{call, call_as_system, call_as_user};
pub(crate) use collection::{
    Authorization, Call, Collections, OWN_DATABASES, Parsed, Target, is_own_database, no_rule,
};
pub(crate) use custom_data::CustomData;
pub use watch::Subscription;
pub(crate) use watch::{watch, watch_as_system};
