//! Registration with an e-mail address and a password.

use std::sync::Arc;

use super::providers::NewUser;
use crate::{Error, ErrorCode, Result, Secret, context::Context};

/// The allowed length of a password, in characters.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 6..=128;

/// The maximum length of a user's name, usually an e-mail address, in characters.
const EMAIL_LENGTH: usize = 128;

/// Creates a user who can log in with a name and a password.
///
/// # Errors
/// `BadRequest` if the name or the password is not allowed, and `AccountNameInUse` if the name is
/// already in use.
pub(super) async fn register(context: &Arc<Context>, email: &str, password: Secret) -> Result<()> {
    // Without confirmation by mail, the name need not be an e-mail address.
    let is_name = (1..=EMAIL_LENGTH).contains(&email.chars().count())
        && email.trim() == email
        && !email.chars().any(char::is_control);
    if !is_name {
        return Err(Error::bad_request("email invalid"));
    }
    if !PASSWORD_LENGTH.contains(&password.expose().chars().count()) {
        return Err(Error::bad_request("password must be between 6 and 128 characters"));
    }
    // Checked before the expensive hashing. The unique index checks it again.
    if context.users.by_email(email).await?.is_some() {
        return Err(Error::new(ErrorCode::AccountNameInUse, "name already in use"));
    }
    let hash = context.passwords.hash(password).await?;
    let new_user = NewUser {
        provider: protocol::provider::EMAIL_PASSWORD,
        name: email.to_owned(),
        data: bson::rawdoc! { "email": email },
        password_hash: Some(hash),
        expires: false,
    };
    context.users.create(&new_user).await.map(|_| ())
}

/// Checks that a name is registered.
///
/// # Errors
/// `UserNotFound` if the name is not registered.
pub(super) async fn existing_user(context: &Context, email: &str) -> Result<()> {
    match context.users.by_email(email).await? {
        Some(_) => Ok(()),
        None => Err(Error::new(ErrorCode::UserNotFound, "user not found")),
    }
}
