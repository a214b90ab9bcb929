//! The requests of an open session: refresh, profile, log-out, and the deletion of the user.

use super::log_in::grant_access;
use crate::{
    Result, Secret,
    context::{Context, first_decides},
    response::{AccessGrant, Done, Profile},
};

/// Returns a new access token, with the current custom data.
pub(crate) async fn refresh(context: &Context, refresh_token: &Secret) -> Result<AccessGrant> {
    let claim = context.sessions.claim_of_refresh_token(refresh_token).await?;
    let caller = context.sessions.by_refresh_token(refresh_token, &claim, &context.users);
    let (caller, custom_data) = if context.main_store().is_remote() {
        // Reads the session, the user and the custom data in one round trip.
        first_decides(caller, context.custom_data.of_at_once(claim.user_id())).await?
    } else {
        (caller.await?, context.custom_data.of(claim.user_id()).await?)
    };
    if caller.needs_touch {
        let both = vec![context.users.touch(caller.user_id)?, context.sessions.touch(&caller)?];
        context.main_store().write_in_order(both).await?;
    }
    grant_access(context, &caller, custom_data).await
}

/// Returns the profile of a user.
pub(crate) async fn profile(context: &Context, access_token: &Secret) -> Result<Profile> {
    let caller = context.sessions.by_access_token(access_token, &context.users).await?;
    context.users.profile(caller.user_id).await
}

/// Ends a session.
pub(crate) async fn end_session(context: &Context, refresh_token: &Secret) -> Result<Done> {
    let caller = context.sessions.to_end(refresh_token).await?;
    context.sessions.close(&caller).await.map(|()| Done)
}

/// Deletes a user and ends the user's sessions. The custom data remains, because it belongs to the
/// application.
pub(crate) async fn delete_user(context: &Context, access_token: &Secret) -> Result<Done> {
    let caller = context.sessions.by_access_token(access_token, &context.users).await?;
    context.sessions.end_with(&caller, context.users.delete(caller.user_id)).await.map(|()| Done)
}
