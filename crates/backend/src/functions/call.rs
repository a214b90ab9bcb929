//! Calls of functions by users.

use std::sync::Arc;

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};

use super::{
    Invocation,
    outermost::{self, Cause},
    script_name,
    transactions::Transactions,
    unchanged::keep_types,
};
use crate::{
    Error, ErrorCode, Result, Secret,
    context::{Context, in_time, too_late},
    definition::{Function, RunAs},
};

/// The maximum length of a function's name in an error, in characters.
const LONGEST_NAME: usize = 256;

/// Calls a function of the app for a user. `request` is the function's `context.request`.
///
/// # Errors
/// - `InvalidSession` if the session is not open.
/// - `FunctionNotFound` if there is no function of the name, or it is private.
/// - `FunctionExecutionError` if the condition of the function does not hold, or the function
///   fails.
/// - `ExecutionTimeLimitExceeded`.
pub(crate) async fn call(
    context: &Arc<Context>,
    access_token: &Secret,
    name: &str,
    arguments: RawArrayBuf,
    request: Option<RawDocumentBuf>,
) -> Result<RawBson> {
    let deadline = context.deadline();
    let claim = in_time(deadline, context.sessions.claim_of_access_token(access_token), too_late).await?;
    in_time(deadline, context.confirm(&claim), too_late).await?;
    let function = context.definition.functions.get(name).filter(|function| !function.private);
    let function = function.ok_or_else(|| not_found(name))?;
    let user = in_time(deadline, describe_user(context, claim.user_id()), too_late).await?;
    if !is_allowed(function, &user, request.as_deref(), &arguments) {
        return Err(not_allowed(name));
    }
    let caller = Caller { id: Some(claim.user_id()), user, is_system: false };
    let payer = Some(claim.user_id());
    let caller = run_as(context, function, caller, payer, &arguments, request.as_ref()).await?;
    tracing::debug!(function = name, "function called");
    let Caller { id, user, is_system } = caller;
    let invocation = Invocation {
        name: name.to_owned(),
        arguments,
        user,
        request,
        caller: id,
        payer,
        is_system,
        time_limit: None,
        transactions: Transactions::default(),
    };
    let invocation = Arc::new(invocation);
    let result = outermost::run(context, Cause::Client, Arc::clone(&invocation)).await?;
    check_size(context, keep_types(&invocation.arguments, result))
}

/// Checks that a result is not larger than the answer of any other request may be.
fn check_size(context: &Context, result: RawBson) -> Result<RawBson> {
    let most = context.collections.limits().answer_bytes;
    let size = match &result {
        RawBson::Document(document) => document.as_bytes().len(),
        RawBson::Array(array) => array.as_bytes().len(),
        RawBson::String(text) => text.len(),
        RawBson::Binary(binary) => binary.bytes.len(),
        _ => 0,
    };
    if size > most {
        let message = format!("the result of the function has more than {most} bytes");
        return Err(Error::new(ErrorCode::ReadSizeLimitExceeded, message));
    }
    Ok(result)
}

/// The user whom a function runs for.
struct Caller {
    id: Option<ObjectId>,
    /// The user as `context.user`.
    user: RawDocumentBuf,
    is_system: bool,
}

fn not_found(name: &str) -> Error {
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    Error::new(ErrorCode::FunctionNotFound, format!("function not found: '{shown}'"))
}

pub(super) fn not_allowed(name: &str) -> Error {
    let message = format!("rule not matched for function \"{name}\"");
    Error { status: Some(403), ..Error::new(ErrorCode::FunctionExecutionError, message) }
}

/// Evaluates the condition of a function.
pub(super) fn is_allowed(
    function: &Function,
    user: &RawDocument,
    request: Option<&RawDocument>,
    arguments: &bson::raw::RawArray,
) -> bool {
    let Some(condition) = &function.condition else { return true };
    let first = arguments.into_iter().next().and_then(Result::ok);
    let nothing = RawDocumentBuf::new();
    condition.allows(user, request.unwrap_or(&nothing), first)
}

/// Returns the user whom a function runs for instead of its caller, if its definition names one.
async fn run_as(
    context: &Arc<Context>,
    function: &Function,
    caller: Caller,
    payer: Option<ObjectId>,
    arguments: &RawArrayBuf,
    request: Option<&RawDocumentBuf>,
) -> Result<Caller> {
    let system = |user| Caller { id: None, user, is_system: true };
    match &function.run_as {
        RunAs::Caller => Ok(caller),
        RunAs::System => Ok(Caller { is_system: true, ..caller }),
        RunAs::User(id) => user_of_text(context, id).await,
        RunAs::Script(_) => {
            let invocation = Invocation {
                name: script_name(&function.name),
                arguments: arguments.clone(),
                user: caller.user,
                request: request.cloned(),
                caller: caller.id,
                payer,
                is_system: false,
                time_limit: None,
                transactions: Transactions::default(),
            };
            match context.functions.call(Arc::new(invocation)).await? {
                RawBson::String(id) => user_of_text(context, &id).await,
                RawBson::Document(answer) if is_system_user(&answer) => Ok(system(system_user())),
                _ => Err(no_such_user()),
            }
        }
    }
}

fn is_system_user(answer: &RawDocument) -> bool {
    ["runAsSystem", "runAsSystemUser"].iter().any(|key| matches!(answer.get(key), Ok(Some(RawBsonRef::Boolean(true)))))
}

/// Returns the service's error of a function whose user does not exist. It has not the service's
/// code `InvalidSession`, for which clients would refresh the token and call again.
fn no_such_user() -> Error {
    Error::new(ErrorCode::FunctionExecutionError, "invalid session: error finding user for endpoint")
}

async fn user_of_text(context: &Context, id: &str) -> Result<Caller> {
    let id = ObjectId::parse_str(id).map_err(|_| no_such_user())?;
    let user = in_time(context.deadline(), describe_user(context, id), too_late)
        .await
        .map_err(|error| if error.is_invalid_session() { no_such_user() } else { error })?;
    Ok(Caller { id: Some(id), user, is_system: false })
}

/// Returns the system user as `context.user`.
pub(super) fn system_user() -> RawDocumentBuf {
    rawdoc! { "type": "system" }
}

/// Returns a user as `context.user`: `{ id, type, data, custom_data, identities }`.
async fn describe_user(context: &Context, id: ObjectId) -> Result<RawDocumentBuf> {
    let profile = context.users.profile(id).await?;
    let custom_data = context.custom_data.of(id).await?;
    let data = &profile.data;
    let identities: RawArrayBuf = profile
        .identities
        .iter()
        .map(
            |identity| rawdoc! { "id": &*identity.id, "provider_type": &*identity.provider_type, "data": data.clone() },
        )
        .collect();
    Ok(rawdoc! {
        "id": profile.user_id,
        "type": profile.kind,
        "data": profile.data.clone(),
        "custom_data": custom_data.map_or_else(RawDocumentBuf::new, |data| (*data).clone()),
        "identities": identities,
    })
}
