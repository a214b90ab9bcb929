//! The App Services client API over HTTP, `/api/client/v2.0/…`, as `realm-web` and the SDKs speak it: what comes in
//! becomes a [`backend::Request`], and what answers it becomes JSON.

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
