//! The App Services client API over HTTP, `/api/client/v2.0/…`, as `realm-web` and the SDKs speak it: what comes in
//! becomes a [`backend::Request`], and what answers it becomes JSON.

mod answer;
mod body;
mod budget;
mod call;
mod connections;
mod cors;
mod drain;
mod events;
mod large_events;
mod limits;
mod listen;
mod metrics;
mod origin;
mod pieces;
mod request_log;
mod routes;
mod security;
mod stream_permits;
mod threads;
mod tls;
mod workers;

pub use ipnet::IpNet;
pub use limits::Limits;
pub use listen::{ListenError, Options, Server};
pub use tls::Tls;
