//! The SDK's half: which users are logged in on this device, with which tokens, and what is kept of them between runs.
//! Knows neither JavaScript nor a store: it talks to a backend through a [`Connection`](connection::Connection).

mod app;
pub mod connection;
mod error;
mod session_file;
mod state;
mod watch;

pub use app::{App, Settings};
pub use error::{Error, Result};
pub use session_file::{Metadata, SessionFile};
pub use state::{Event, Handle, UserState, UserView};
pub use watch::UserSubscription;
