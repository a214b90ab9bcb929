//! Registration with an e-mail address and a password, and its confirmation
//! (<https://www.mongodb.com/docs/atlas/app-services/authentication/email-password/>).

use std::sync::Arc;

use bson::rawdoc;
use protocol::SecretDocument;

use super::{
    creation::{create_user, enter_users, take_turn},
    email_tokens::{EmailToken, PresentedToken, Purpose, invalid_token},
    providers::NewUser,
    users::User,
};
use crate::{
    Error, ErrorCode, RequestContext, Result, Secret,
    context::Context,
    functions::{Hook, Status, arguments, run_status_hook},
};

/// The allowed length of a password, in characters.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 6..=128;

/// The maximum length of a user's name, usually an e-mail address, in characters.
const EMAIL_LENGTH: usize = 128;

/// Creates a user who can log in with a name and a password. `confirmation` is the function that
/// confirms the user; without one, the user is confirmed at once.
///
/// # Errors
/// `BadRequest` if the name or the password is not allowed, or if the function does not confirm
/// the user. `AccountNameInUse` if the name is already in use, and the errors of the creation
/// function.
pub(super) async fn register(
    context: &Arc<Context>,
    email: &str,
    password: Secret,
    confirmation: Option<&str>,
    circumstances: &RequestContext,
) -> Result<()> {
    check_name(email)?;
    check_password(&password)?;
    // Checked before the expensive hashing and the functions. The unique index checks it again.
    if context.users.by_email(email).await?.is_some() {
        return Err(Error::new(ErrorCode::AccountNameInUse, "name already in use"));
    }
    let hash = context.passwords.hash(password).await?;
    let new_user = NewUser {
        provider: protocol::provider::EMAIL_PASSWORD,
        name: email.to_owned(),
        identity_id: None,
        data: rawdoc! { "email": email },
        password_hash: Some(hash),
        expires: false,
    };
    let Some(function) = confirmation else {
        return create_user(context, &new_user, circumstances).await.map(|_| ());
    };
    let token = EmailToken::new(&context.environment)?;
    match ask_to_confirm(context, function, email, &token, circumstances).await? {
        Status::Success => create_user(context, &new_user, circumstances).await.map(|_| ()),
        Status::Pending => {
            context.users.create_unconfirmed(&new_user, &token).await?;
            circumstances.note_new_user();
            Ok(())
        }
        Status::Fail => Err(not_confirmed(email)),
    }
}

/// Checks a new user's name. It need not be an e-mail address, because no mail is sent to it.
fn check_name(email: &str) -> Result<()> {
    let is_name = (1..=EMAIL_LENGTH).contains(&email.chars().count())
        && email.trim() == email
        && !email.chars().any(char::is_control);
    if is_name { Ok(()) } else { Err(Error::bad_request("email invalid")) }
}

/// Checks the length of a new password.
pub(super) fn check_password(password: &Secret) -> Result<()> {
    if PASSWORD_LENGTH.contains(&password.expose().chars().count()) {
        return Ok(());
    }
    Err(Error::bad_request("password must be between 6 and 128 characters"))
}

/// Returns the error of a registration that is not confirmed.
pub(super) fn not_confirmed(email: &str) -> Error {
    Error::bad_request(format!("failed to confirm user \"{email}\""))
}

/// Runs the confirmation function: `{ token, tokenId, username }`.
async fn ask_to_confirm(
    context: &Arc<Context>,
    function: &str,
    email: &str,
    token: &EmailToken,
    circumstances: &RequestContext,
) -> Result<Status> {
    let argument = rawdoc! { "token": token.token.expose(), "tokenId": token.id.to_hex(), "username": email };
    run_status_hook(context, Hook::Confirmation, function, arguments(&argument, []), circumstances).await
}

/// Confirms the user for whom a token was made.
///
/// # Errors
/// `UserpassTokenInvalid` if the token does not exist, was used, or has expired, and the errors of
/// the creation function, after which the token can be used again.
pub(super) async fn confirm(
    context: &Arc<Context>,
    payload: &SecretDocument,
    circumstances: &RequestContext,
) -> Result<()> {
    let token = PresentedToken::read(payload)?;
    let find = || context.users.by_token(Purpose::Confirm, &token);
    let mut user = find().await?.ok_or_else(invalid_token)?;
    let id = user.get_object_id("_id").map_err(Error::internal)?;
    let turn = take_turn(context, id.to_hex()).await?;
    if turn.is_some() {
        user = find().await?.ok_or_else(invalid_token)?;
    }
    let confirmation = context.users.confirmation_by(&token)?;
    match enter_users(context, &user, confirmation, circumstances).await {
        Ok(outcome) if outcome.matched == 1 => Ok(()),
        Ok(_) => Err(invalid_token()),
        // Another request may have used the token in the meantime.
        Err(error) => match context.users.by_token(Purpose::Confirm, &token).await? {
            Some(_) => Err(error),
            None => Err(invalid_token()),
        },
    }
}

/// Runs the confirmation function again for a user who is not confirmed.
///
/// # Errors
/// `UserNotFound`, `UserAlreadyConfirmed`, and `BadRequest` if the function does not confirm the
/// user, who stays registered.
pub(super) async fn retry_confirmation(
    context: &Arc<Context>,
    email: &str,
    function: &str,
    circumstances: &RequestContext,
) -> Result<()> {
    let user = unconfirmed_user(context, email).await?;
    let token = EmailToken::new(&context.environment)?;
    match ask_to_confirm(context, function, email, &token, circumstances).await? {
        Status::Pending => context.users.set_token(user.id, Purpose::Confirm, &token).await,
        Status::Fail => Err(not_confirmed(email)),
        Status::Success => {
            let _turn = take_turn(context, user.id.to_hex()).await?;
            let Some(document) = context.users.unconfirmed(user.id).await? else { return Err(already_confirmed()) };
            let confirmation = context.users.confirmation_of(user.id)?;
            match enter_users(context, &document, confirmation, circumstances).await? {
                outcome if outcome.matched == 1 => Ok(()),
                _ => Err(already_confirmed()),
            }
        }
    }
}

/// Returns the user with a name.
///
/// # Errors
/// `UserNotFound` if the name is not registered.
pub(super) async fn registered_user(context: &Context, email: &str) -> Result<User> {
    let user = context.users.by_email(email).await?;
    user.ok_or_else(|| Error::new(ErrorCode::UserNotFound, "user not found"))
}

/// Returns the user with a name, who is not confirmed.
///
/// # Errors
/// `UserNotFound` and `UserAlreadyConfirmed`.
pub(super) async fn unconfirmed_user(context: &Context, email: &str) -> Result<User> {
    let user = registered_user(context, email).await?;
    if user.is_confirmed { Err(already_confirmed()) } else { Ok(user) }
}

fn already_confirmed() -> Error {
    Error::new(ErrorCode::UserAlreadyConfirmed, "already confirmed")
}
