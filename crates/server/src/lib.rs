//! The App Services client API over HTTP, `/api/client/v2.0/…`, as `realm-web` and the SDKs speak it: what comes in
//! becomes a [`backend::Request`], and what answers it becomes JSON.

mod answer;
mod body;
mod cors;
mod events;
mod listen;
mod metrics;
mod observe;
mod origin;
mod routes;
mod streams;
mod threads;
mod tls;

pub use ipnet::IpNet;
pub use listen::{ListenError, Options, Server};
pub use tls::Tls;
