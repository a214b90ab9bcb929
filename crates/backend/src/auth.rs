//! Users, authentication and sessions.

mod confirmations;
mod creation;
mod email_password;
mod email_tokens;
mod keys;
mod log_in;
mod own_collection;
mod password_reset;
mod passwords;
pub(crate) mod providers;
mod refresh;
mod resume_tokens;
mod sessions;
mod throttle;
mod tokens;
mod turns;
mod users;

pub(crate) use confirmations::CachedSession;
pub(crate) use creation::Creations;
pub use keys::PublicKey;
pub(crate) use keys::{KEYS_COLLECTION, KeyRing};
pub(crate) use log_in::{link, log_in};
pub(crate) use own_collection::OwnCollection;
pub(crate) use passwords::Passwords;
pub(crate) use providers::{act, may_run_function, provider_not_found};
pub(crate) use refresh::{delete_user, end_session, profile, refresh};
pub(crate) use resume_tokens::TokenSeal;
pub(crate) use sessions::{Claim, Sessions};
pub use throttle::Origin;
pub(crate) use throttle::{AttemptShare, Throttle};
pub(crate) use tokens::Tokens;
pub(crate) use users::Users;

/// Encodes bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
