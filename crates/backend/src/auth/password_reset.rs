//! Resets of passwords, by the reset function of the definition
//! (<https://www.mongodb.com/docs/atlas/app-services/authentication/email-password/>).

use std::sync::Arc;

use bson::{RawBson, raw::RawBsonRef, rawdoc};
use protocol::SecretDocument;

use super::{
    email_password::{check_password, registered_user},
    email_tokens::{EmailToken, PresentedToken, Purpose, invalid_token},
    users::User,
};
use crate::{
    Error, ErrorCode, RequestContext, Result,
    context::Context,
    functions::{Hook, Status, arguments, run_status_hook},
};

/// Runs the reset function: `{ username, password, token, tokenId, currentPasswordValid }`, and
/// the arguments of the client.
///
/// # Errors
/// `BadRequest` if the password is not allowed, `UserNotFound` if the name is not registered or
/// not confirmed, and an error without a code if the function does not reset the password.
pub(super) async fn call_reset(
    context: &Arc<Context>,
    payload: &SecretDocument,
    function: &str,
    circumstances: &RequestContext,
) -> Result<()> {
    let (email, password) = (payload.text("email")?, payload.secret("password")?);
    check_password(&password)?;
    let user = confirmed_user(context, email).await?;
    let is_current = context.passwords.verify(password.clone(), user.password_hash.clone()).await?;
    let token = EmailToken::new(&context.environment)?;
    let argument = rawdoc! {
        "username": email,
        "password": password.expose(),
        "token": token.token.expose(),
        "tokenId": token.id.to_hex(),
        "currentPasswordValid": is_current,
    };
    let arguments = arguments(&argument, client_arguments(payload)?);
    match run_status_hook(context, Hook::PasswordReset, function, arguments, circumstances).await? {
        Status::Success => {
            let hash = context.passwords.hash(password).await?;
            let change = context.users.new_password(user.id, &hash)?;
            context.sessions.end_all_with(user.id, change).await.map(|_| ())
        }
        Status::Pending => context.users.set_token(user.id, Purpose::Reset, &token).await,
        Status::Fail => Err(not_reset(email)),
    }
}

/// Returns the arguments of the client that follow the first one.
fn client_arguments(payload: &SecretDocument) -> Result<Vec<RawBson>> {
    match payload.expose().get("arguments") {
        Ok(Some(RawBsonRef::Array(given))) => Ok(given.into_iter().filter_map(Result::ok).map(RawBson::from).collect()),
        Ok(None | Some(RawBsonRef::Null | RawBsonRef::Undefined)) => Ok(Vec::new()),
        _ => Err(Error::new(ErrorCode::InvalidParameter, "'arguments' must be an array")),
    }
}

/// Sets the password of the user for whom a token was made.
///
/// # Errors
/// `BadRequest` if the password is not allowed, and `UserpassTokenInvalid` if the token does not
/// exist, was used, or has expired.
pub(super) async fn reset(context: &Arc<Context>, payload: &SecretDocument) -> Result<()> {
    let (token, password) = (PresentedToken::read(payload)?, payload.secret("password")?);
    check_password(&password)?;
    // Checked before the expensive hashing. The write checks it again.
    let user = context.users.by_token(Purpose::Reset, &token).await?.ok_or_else(invalid_token)?;
    let user_id = user.get_object_id("_id").map_err(Error::internal)?;
    let hash = context.passwords.hash(password).await?;
    let change = context.users.new_password_by(&token, user_id, &hash)?;
    if context.sessions.end_all_with(user_id, change).await? { Ok(()) } else { Err(invalid_token()) }
}

/// Returns the confirmed user with a name. An unconfirmed one counts as unknown.
///
/// # Errors
/// `UserNotFound`.
pub(super) async fn confirmed_user(context: &Context, email: &str) -> Result<User> {
    let user = registered_user(context, email).await?;
    if user.is_confirmed { Ok(user) } else { Err(Error::new(ErrorCode::UserNotFound, "user not found")) }
}

/// Returns the error of a password that is not reset, which has no code on the wire.
pub(super) fn not_reset(email: &str) -> Error {
    Error::new(ErrorCode::AppUnknownError, format!("failed to reset password for user \"{email}\""))
}
