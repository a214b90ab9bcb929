//! The core of the SDK: the users who are logged in on this device, their tokens, and the file
//! that keeps them between runs.
//!
//! This crate knows neither JavaScript nor a store. It talks to a backend through a
//! [`Connection`](connection::Connection).

mod app;
mod configuration;
pub mod connection;
mod error;
mod network_error;
mod session_file;
mod state;
mod watch;

pub use app::{App, EXIT_TIMEOUT, Settings};
pub use configuration::{Configuration, Opened};
pub use error::{Error, Result};
pub use network_error::NetworkError;
pub use session_file::{Metadata, SessionFile};
pub use state::{Event, Handle, UserState, UserView};
pub use watch::UserSubscription;
