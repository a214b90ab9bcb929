//! Users, how they log in, and their sessions.

mod confirmations;
mod keys;
mod passwords;
mod sessions;
mod throttle;
mod tokens;
mod users;

pub(crate) use confirmations::Confirmed;
pub(crate) use keys::KeyRing;
pub use keys::PublicKey;
pub(crate) use passwords::Passwords;
pub(crate) use sessions::{Caller, Claim, Sessions};
pub use throttle::Origin;
pub(crate) use throttle::Throttle;
pub(crate) use tokens::Tokens;
pub(crate) use users::Users;

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
