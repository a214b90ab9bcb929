//! Users, authentication and sessions.

mod confirmations;
mod keys;
mod passwords;
mod resume_tokens;
mod sessions;
mod throttle;
mod tokens;
mod users;

use bson::oid::ObjectId;
use query::Budget;
use store::{Find, Store, Write};

pub(crate) use confirmations::CachedSession;
pub(crate) use keys::KeyRing;
pub use keys::PublicKey;
pub(crate) use passwords::Passwords;
pub(crate) use resume_tokens::TokenSeal;
pub(crate) use sessions::{Caller, Claim, Sessions};
pub use throttle::Origin;
pub(crate) use throttle::Throttle;
pub(crate) use tokens::Tokens;
pub(crate) use users::Users;

/// Assigns a query to a user, who gets a fair share of the connections to a remote store. An
/// embedded store has no connections to share.
fn in_turn_of(user_id: ObjectId, find: Find, store: &dyn Store) -> Find {
    if !store.is_remote() {
        return find;
    }
    Find { budget: Budget::unlimited(Some(user_id.to_hex().into())), ..find }
}

/// Does the same for a write.
fn written_in_turn_of(user_id: ObjectId, write: Write, store: &dyn Store) -> Write {
    if !store.is_remote() {
        return write;
    }
    Write { budget: Budget::unlimited(Some(user_id.to_hex().into())), ..write }
}

/// Encodes bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
