//! The HTTP format of responses: writing for the server, and reading for the client.

mod body;
mod read;

pub use body::{ErrorBody, LocationBody, ProfileBody, TokensBody, api_keys_body};
pub use read::{Failure, Reply, Unreadable};

#[cfg(test)]
mod tests;
