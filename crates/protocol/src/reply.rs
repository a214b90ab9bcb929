//! The HTTP form of responses: the bodies that the server writes, and how the client reads them.

mod body;
mod read;

pub use body::{ErrorBody, LocationBody, ProfileBody, TokensBody, api_keys_body};
pub use read::{Failure, Reply, Unreadable};

#[cfg(test)]
mod tests;
