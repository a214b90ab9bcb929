//! The creation of users, with the user creation function of the definition
//! (<https://www.mongodb.com/docs/atlas/app-services/users/custom-metadata/>).
//!
//! The function runs before the user exists. Its writes and the user are one transaction, which is
//! repeated after a conflict, without running the function again. On a standalone MongoDB server
//! there are no transactions: the writes come first, and then the user.

use std::sync::Arc;

use bson::{
    oid::ObjectId,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::future::FutureExt;
use store::{Outcome, Replaying, Transaction, TransactionLimits, Write};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    providers::NewUser,
    turns::{Turn, Turns},
    users::User,
};
use crate::{
    Error, ErrorCode, RequestContext, Result,
    context::Context,
    functions::{Enclosing, Hook, arguments, is_of_function, run_hook},
};

/// The maximum number of creation functions that run at the same time. Each may have a
/// transaction, and other functions need transactions too.
const AT_ONCE: usize = 16;

/// The maximum number of creations that wait for others.
const MOST_WAITING: usize = 256;

/// Seconds after which a client should try again if too many creations wait.
const RETRY_AFTER: u64 = 2;

/// The creations that run and wait.
#[derive(Debug)]
pub(crate) struct Creations {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    /// Creations of the same user, which run one after the other.
    turns: Turns,
}

impl Default for Creations {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(MOST_WAITING),
            turns: Turns::default(),
        }
    }
}

impl Creations {
    /// Waits until another creation may run.
    async fn enter(&self) -> Result<OwnedSemaphorePermit> {
        let full = || Error::retry_later("too many users are being created; try again later", RETRY_AFTER);
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let _waits = self.waiting.try_acquire().map_err(|_| full())?;
        let permit =
            tokio::time::timeout(TransactionLimits::default().time, Arc::clone(&self.running).acquire_owned()).await;
        permit.map_err(|_| full())?.map_err(Error::internal)
    }
}

/// Creates a user. Runs the creation function first, if the definition has one.
///
/// # Errors
/// `AccountNameInUse` if the provider already has a user with this name, and the errors of
/// [`enter_users`].
pub(super) async fn create_user(
    context: &Arc<Context>,
    new_user: &NewUser,
    circumstances: &RequestContext,
) -> Result<User> {
    let name = format!("{}:{}", new_user.provider, new_user.name);
    let turn = take_turn(context, name).await?;
    let in_use = || Error::new(ErrorCode::AccountNameInUse, "name already in use");
    if turn.is_some() && context.users.by_name(new_user.provider, &new_user.name).await?.is_some() {
        return Err(in_use());
    }
    let document = context.users.document(new_user);
    let user = User::read(&document, new_user.provider).map_err(Error::internal)?;
    let insertion = context.users.insertion(document.clone());
    match enter_users(context, &document, insertion, circumstances).await {
        Ok(_) => {
            circumstances.note_new_user();
            Ok(user)
        }
        // Another process may have created the user before, and then also the function can fail,
        // for example because its document is a duplicate.
        Err(error) => match context.users.by_name(new_user.provider, &new_user.name).await {
            Ok(Some(_)) => Err(in_use()),
            Ok(None) | Err(_) => Err(error),
        },
    }
}

/// Waits until no other request of this process runs the creation function for the same user.
/// Returns `None` if there is no such function. The caller must then read again whether the user
/// exists.
pub(super) async fn take_turn(context: &Context, user: String) -> Result<Option<Turn>> {
    if creation_function(context).is_none() {
        return Ok(None);
    }
    context.creations.turns.enter(user, TransactionLimits::default().time).await.map(Some)
}

fn creation_function(context: &Context) -> Option<&str> {
    context.definition.custom_user_data.as_ref()?.creation_function.as_deref()
}

/// Runs the creation function for a user, and then `last`, the write by which the user exists. The
/// writes of the function are only applied together with it, and not if it matches nothing.
///
/// # Errors
/// The error of the function, whose message begins with `failed to create user`, and that of the
/// write. `MongoDBError` if the transaction conflicts for good.
pub(super) async fn enter_users(
    context: &Arc<Context>,
    user: &RawDocument,
    last: Write,
    circumstances: &RequestContext,
) -> Result<Outcome> {
    let Some(function) = creation_function(context) else {
        return Ok(context.main_store().write(vec![last]).await?.pop().unwrap_or_default());
    };
    let permit = Arc::new(context.creations.enter().await?);
    let id = user.get_object_id("_id").map_err(Error::internal)?;
    let argument = arguments(&described(user, id)?, []);
    let transaction = Arc::new(Replaying::new(Arc::clone(context.main_store()), TransactionLimits::default()));
    let _aborts = AbortOnDrop(Arc::clone(&transaction));
    let within = Some(Enclosing { transaction: Arc::clone(&transaction), permit: Arc::clone(&permit) });
    run_hook(context, Hook::UserCreation, function, argument, circumstances, within).await.map_err(refused)?;
    let outcome = transaction.write(last).await?;
    if outcome.matched == 0 && outcome.inserted_ids.is_empty() {
        transaction.abort().await?;
        return Ok(outcome);
    }
    match transaction.commit().await {
        Ok(()) => Ok(outcome),
        // The answer to the commit was lost. It was applied if the user exists.
        Err(error @ store::Error::Unavailable { .. }) if !context.users.is_confirmed(id).await.unwrap_or(false) => {
            Err(error.into())
        }
        Err(store::Error::Unavailable { .. }) => Ok(outcome),
        Err(error) => {
            let error = Error::from(error);
            Err(Error { message: format!("failed to create user: {}", error.message).into(), ..error })
        }
    }
}

/// Aborts a transaction that has not ended when the request ends, so that a function that still
/// runs does not keep it open.
struct AbortOnDrop(Arc<Replaying>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let transaction = Arc::clone(&self.0);
        let mut abort = async move { transaction.abort().await }.boxed();
        // It waits only for an operation of the function that is under way.
        if (&mut abort).now_or_never().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(abort);
        }
    }
}

/// Returns the error of a client whose user the creation function refuses.
fn refused(error: Error) -> Error {
    if !is_of_function(&error) {
        return error;
    }
    let code = match error.code {
        ErrorCode::ExecutionTimeLimitExceeded => error.code,
        _ => ErrorCode::FunctionExecutionError,
    };
    Error::new(code, format!("failed to create user: {}", error.message))
}

/// Describes a user who does not exist yet, as the argument of the function: `{ id, type, data,
/// identities, custom_data }`.
fn described(user: &RawDocument, id: ObjectId) -> Result<RawDocumentBuf> {
    let data = user.get_document("data").map_err(Error::internal)?.to_owned();
    let identities = User::identities(user).map_err(Error::internal)?;
    let identities: RawArrayBuf = identities
        .into_iter()
        .map(|identity| rawdoc! { "id": identity.id, "provider_type": identity.provider_type, "data": data.clone() })
        .collect();
    Ok(rawdoc! {
        "id": id.to_hex(),
        "type": user.get_str("type").map_err(Error::internal)?,
        "data": data,
        "custom_data": {},
        "identities": identities,
    })
}
