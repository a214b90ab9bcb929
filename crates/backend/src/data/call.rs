//! Calls of the functions of data sources, such as `find`.

use std::sync::Arc;

use bson::{RawBson, oid::ObjectId, raw::RawDocumentBuf};
use store::Transaction;

use super::{
    Authorization, Collections, Parsed, Target,
    access::{self, Authorized},
};
use crate::{
    Error, Result,
    context::{Context, first_decides, in_time, time_is_over, too_late},
    request::{Arguments, CallFunction},
};

/// Calls a function for a user.
///
/// # Errors
/// `InvalidSession` if the session is not open, and the errors of the function.
pub(crate) async fn call(context: &Context, request: CallFunction) -> Result<RawBson> {
    let CallFunction { access_token, name, arguments } = request;
    // The time limit includes the reads of the session and the custom data.
    let until = context.stores.has_remote().then(|| context.collections.deadline());
    let claim = in_time(until, context.sessions.claim_of_access_token(&access_token), time_is_over).await?;
    let confirm = || in_time(until, context.confirm(&claim), time_is_over);
    let parsed = async {
        let authorized =
            in_time(until, access::authorize(context, claim.user_id(), name, arguments), time_is_over).await?;
        let Authorized { call, authorization, store, .. } = authorized;
        let budget = context.collections.budget(&authorization, call.bytes(), until);
        let (call, parsed) = context.collections.parse(call, &authorization, &budget).await?;
        Ok((call, parsed, store))
    };
    // Other errors of the call are returned only to a user with a valid session.
    let (call, parsed, store) = match parsed.await {
        Ok(parsed) => parsed,
        Err(error) => {
            confirm().await?;
            return Err(error);
        }
    };
    let main = context.main_store();
    match parsed {
        // The session and the query are read concurrently, in one round trip. Only if the session
        // was open recently, because the token of an ended session must not cause work in the
        // database.
        Parsed::Find(find) if main.is_remote() && context.sessions.is_known(&claim) => {
            let documents = async { store.find(*find).await.map_err(Error::from) };
            let (_, documents) = first_decides(confirm(), documents).await?;
            Ok(Collections::found(&call, documents))
        }
        Parsed::Find(find) if Arc::ptr_eq(store, main) && !main.is_remote() => {
            let at = context.sessions.now();
            let [session, documents] = main.find_both([context.sessions.find(&claim), *find]).await?;
            context.sessions.confirm_read(&claim, session, at, &context.users).await?;
            Ok(Collections::found(&call, documents))
        }
        parsed => {
            confirm().await?;
            context.collections.run(Target::Store(&**store), call, parsed).await
        }
    }
}

/// Calls a function of a data source for a user whose session is confirmed: in a function of the
/// app, and within its transaction if it has one.
///
/// # Errors
/// The errors of the function.
pub(crate) async fn call_as_user(
    context: &Context,
    user_id: ObjectId,
    name: String,
    arguments: Arguments,
    transaction: Option<&dyn Transaction>,
) -> Result<RawBson> {
    let until = context.stores.has_remote().then(|| context.collections.deadline());
    let authorized = in_time(until, access::authorize(context, user_id, name, arguments), time_is_over).await?;
    let Authorized { call, authorization, store, .. } = authorized;
    let budget = context.collections.budget(&authorization, call.bytes(), until);
    let (call, parsed) = context.collections.parse(call, &authorization, &budget).await?;
    let target = transaction.map_or(Target::Store(&**store), Target::Transaction);
    context.collections.run(target, call, parsed).await
}

/// Calls a function of a data source as the system user, without rules.
///
/// # Errors
/// The errors of a user's call, except the errors of rules.
pub(crate) async fn call_as_system(
    context: &Arc<Context>,
    service: &str,
    name: String,
    argument: RawDocumentBuf,
    transaction: Option<&dyn Transaction>,
) -> Result<RawBson> {
    in_time(context.deadline(), context.prepare(), too_late).await?;
    let call = context.collections.read(&context.definition, service, name, argument)?;
    let budget = context.collections.budget(&Authorization::System, call.bytes(), None);
    let (call, parsed) = context.collections.parse(call, &Authorization::System, &budget).await?;
    let target = transaction.map_or(Target::Store(&**context.stores.of(service)), Target::Transaction);
    context.collections.run(target, call, parsed).await
}
