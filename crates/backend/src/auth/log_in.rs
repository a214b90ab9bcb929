//! Log-ins with any provider.

use std::sync::Arc;

use bson::{oid::ObjectId, raw::RawDocumentBuf};

use super::{
    creation::create_user,
    providers::{NewUser, Proven, provider_not_found},
    sessions::Caller,
    users::User,
};
use crate::{
    Error, ErrorCode, RequestContext, Result,
    context::Context,
    request::{Link, LogIn},
    response::{AccessGrant, Session},
};

/// Logs a user in. The provider verifies the user's identity, and all other steps are the same for
/// all providers.
///
/// # Errors
/// `AuthProviderNotFound` if the provider is not enabled, `AuthError` if the user is not
/// confirmed, `UserDisabled` if the user is disabled, and the errors of the provider and of the
/// creation function.
pub(crate) async fn log_in(
    context: &Arc<Context>,
    LogIn { credentials, device_id }: LogIn,
    circumstances: &RequestContext,
) -> Result<Session> {
    let provider = context.definition.providers.get(&credentials.provider);
    let provider = provider.ok_or_else(|| provider_not_found(&credentials.provider))?;
    context.prepare().await?;
    let user = match provider.authenticate(context, &credentials.payload, circumstances).await? {
        Proven::User(user) => user,
        Proven::NewUser(new_user) => create_or_find(context, &new_user, circumstances).await?,
    };
    if !user.is_confirmed {
        return Err(Error::new(ErrorCode::AuthError, "confirmation required"));
    }
    if user.disabled {
        return Err(Error::new(ErrorCode::UserDisabled, "user disabled"));
    }
    let is_device = |id: &String| ObjectId::parse_str(id).is_ok_and(|id| id.bytes() != [0; 12]);
    let device_id = device_id.filter(is_device).unwrap_or_else(|| context.environment.new_id().to_hex());
    let (caller, refresh_token) = context.sessions.open(&user, &context.users, device_id).await?;
    let custom_data = context.custom_data.of(caller.user_id).await?;
    let access = grant_access(context, &caller, custom_data).await?;
    Ok(Session { access, refresh_token, user_id: caller.user_id.to_hex(), device_id: caller.device_id })
}

/// Creates a user, or returns the one that a concurrent log-in with the same identity has created.
async fn create_or_find(context: &Arc<Context>, new_user: &NewUser, circumstances: &RequestContext) -> Result<User> {
    match create_user(context, new_user, circumstances).await {
        Err(error) if error.code == ErrorCode::AccountNameInUse => {
            context.users.by_name(new_user.provider, &new_user.name).await?.ok_or(error)
        }
        created => created,
    }
}

/// Adds an identity to a user. This is not supported yet.
///
/// # Errors
/// `InvalidSession` if the user is not logged in, and `BadRequest` in all other cases.
pub(crate) async fn link(context: &Context, Link { access_token, .. }: Link) -> Result<AccessGrant> {
    context.sessions.by_access_token(&access_token, &context.users).await?;
    Err(Error::bad_request("linking identities is not supported yet"))
}

/// Signs an access token, with custom data.
pub(super) async fn grant_access(
    context: &Context,
    caller: &Caller,
    custom_data: Option<Arc<RawDocumentBuf>>,
) -> Result<AccessGrant> {
    let user_data = match &custom_data {
        Some(document) => context.custom_data.claim(caller.user_id, document)?,
        None => None,
    };
    Ok(AccessGrant { access_token: context.sessions.access_token(caller, user_data).await?, custom_data })
}
