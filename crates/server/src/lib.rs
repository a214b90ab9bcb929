//! Serves the App Services client API over HTTP, as `realm-web` and the SDKs use it.
//!
//! [`Server::listen`] opens the listeners. Each request below `/api/client/v2.0/` becomes a
//! [`backend::Request`], and the backend's response becomes Extended JSON or a stream of
//! server-sent events. [`Limits`] bounds the connections and the memory that clients can occupy. A
//! second, optional listener serves `/healthz` and `/metrics` to the operator.

mod answer;
mod app_state;
mod body;
mod budget;
mod call;
mod client_api;
mod connections;
mod cors;
mod drain;
mod events;
mod large_events;
mod limits;
mod listen;
mod metrics;
mod operator;
mod origin;
mod pieces;
mod request_log;
mod security;
mod stream_permits;
mod threads;
mod tls;
mod workers;

pub use ipnet::IpNet;
pub use limits::Limits;
pub use listen::{ListenError, Options, Server};
pub use tls::Tls;
