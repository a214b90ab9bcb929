//! Log-ins with any provider.

use std::sync::Arc;

use bson::{oid::ObjectId, raw::RawDocumentBuf};

use super::{
    providers::{Proven, provider_not_found},
    sessions::Caller,
};
use crate::{
    Error, ErrorCode, Result,
    context::Context,
    request::{Link, LogIn},
    response::{AccessGrant, Session},
};

/// Logs a user in. The provider verifies the user's identity, and all other steps are the same for
/// all providers.
///
/// # Errors
/// `AuthProviderNotFound` if the provider is not enabled, `UserDisabled` if the user is disabled,
/// and the errors of the provider.
pub(crate) async fn log_in(context: &Arc<Context>, LogIn { credentials, device_id }: LogIn) -> Result<Session> {
    let provider = context.definition.providers.get(&credentials.provider);
    let provider = provider.ok_or_else(|| provider_not_found(&credentials.provider))?;
    context.prepare().await?;
    let user = match provider.authenticate(context, &credentials.payload).await? {
        Proven::User(user) => user,
        Proven::NewUser(new_user) => context.users.create(&new_user).await?,
    };
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
