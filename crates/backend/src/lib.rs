//! The behaviour of App Services: an app's definition, its users and their sessions, custom user
//! data, and collections under rules. This crate uses neither HTTP nor JavaScript: a request is a
//! value, and so is its response.
//!
//! [`Backend`] answers [`Request`]s; a [`Definition`] says what an app offers.

mod admin;
mod auth;
mod backend;
pub mod constants;
mod context;
mod data;
pub mod definition;
mod environment;
mod error;
pub mod functions;
mod limits;
mod logs;
mod own_queries;
mod reload;
pub mod rules;
mod secrets;
mod stores;

pub use admin::{Admin, AdminRequest, read_document};
pub use auth::{Origin, PublicKey};
pub use backend::{Backend, Options, RequestContext, Unhealthy};
pub use data::Subscription;
pub use definition::Definition;
pub use ejson;
pub use environment::Environment;
pub use error::{Error, Result};
pub use limits::OperationLimits;
pub use logs::{LogQuery, LogRetention, RequestId};
pub use own_queries::DeclaredQuery;
pub use protocol::{ErrorCode, Request, Response, Secret, SecretDocument, provider, request, response};
pub use secrets::Secrets;
pub use store::{
    Audience, ChangeEvent, ChangeKind, Durability, Error as StoreError, Explanation, Namespace, Progress, Retention,
    Store, dump, migrate,
};
pub use stores::{DataSources, StoreAddress, open_memory, open_store};
