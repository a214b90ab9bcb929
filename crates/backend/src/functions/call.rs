//! Calls of functions by users.

use std::{sync::Arc, time::Instant};

use bson::{
    RawBson,
    oid::ObjectId,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr},
    rawdoc,
};

use super::{Invocation, script_name, transactions::Transactions, unchanged::keep_types};
use crate::{
    Error, ErrorCode, RequestContext, RequestId, Result, Secret,
    context::{Context, in_time, too_late},
    definition::{Function, RunAs},
    logs::{CallRecord, Entry, Kind},
};

/// The maximum length of a function's name in an error, in characters.
const LONGEST_NAME: usize = 256;

/// Calls a function of the app for a user.
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
    circumstances: &RequestContext,
) -> Result<RawBson> {
    let request = circumstances.http.clone();
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
    let caller = run_as(context, function, caller, payer, &arguments, circumstances).await?;
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
        hook: None,
        transactions: Transactions::default(),
        record: record_of(circumstances),
        context: Arc::clone(context),
    };
    let invocation = Arc::new(invocation);
    let result = run(&invocation).await?;
    check_size(context, keep_types(&invocation.arguments, result))
}

/// Calls a function for the operator: see
/// [`Backend::run_function`](crate::Backend::run_function).
///
/// # Errors
/// `FunctionNotFound`, `UserNotFound`, and the errors of the store.
pub(crate) async fn run_for_operator(
    context: &Arc<Context>,
    name: &str,
    arguments: RawArrayBuf,
    user: Option<&str>,
) -> Result<RawDocumentBuf> {
    let function = context.definition.functions.get(name).ok_or_else(|| not_found(name))?;
    let caller = match user {
        None => Caller { id: None, user: system_user(), is_system: true },
        Some(user) => {
            let unknown = || Error::new(ErrorCode::UserNotFound, "user not found");
            let id = ObjectId::parse_str(user).map_err(|_| unknown())?;
            let described = in_time(context.deadline(), describe_user(context, id), too_late).await;
            let user = described.map_err(|error| if error.is_invalid_session() { unknown() } else { error })?;
            Caller { id: Some(id), user, is_system: false }
        }
    };
    let payer = caller.id;
    let circumstances = RequestContext::in_process();
    let Caller { id, user, is_system } = run_as(context, function, caller, payer, &arguments, &circumstances).await?;
    let invocation = Arc::new(Invocation {
        name: name.to_owned(),
        arguments,
        user,
        request: None,
        caller: id,
        payer,
        is_system,
        time_limit: None,
        hook: None,
        transactions: Transactions::default(),
        record: record_of(&circumstances).by("operator"),
        context: Arc::clone(context),
    });
    let result = run(&invocation).await;
    Ok(invocation.record.report(&result))
}

/// Runs an outermost call, and adds its entry to the log.
///
/// # Errors
/// The errors of [`FunctionPool::call`](super::FunctionPool::call).
pub(super) async fn run(invocation: &Arc<Invocation>) -> Result<RawBson> {
    let context = &invocation.context;
    let (started, since) = (context.logs.now(), Instant::now());
    let result = context.functions.call(Arc::clone(invocation)).await;
    let record = &invocation.record;
    let own_id = record.request_id.is_none().then(|| context.environment.new_id().to_hex());
    let request_id = record.request_id.as_ref().map_or(own_id.as_deref().unwrap_or_default(), RequestId::as_str);
    let function = context.definition.functions.get(&invocation.name);
    let mut texts = vec![(cstr!("name"), invocation.name.as_str())];
    // The arguments of hooks are passwords, tokens and what the application takes for them.
    let is_hook = invocation.hook.is_some();
    let logs_arguments = !is_hook && function.is_none_or(|function| function.log_arguments);
    texts.extend(record.hook.map(|hook| (cstr!("hook"), hook)));
    let mut console = record.console();
    let mut logged = result.as_ref().err().cloned();
    if let Some(hook) = &invocation.hook {
        // A function may throw its argument.
        let hide = |text: &str| hook.secrets.hide(text);
        console.stack = console.stack.as_deref().map(hide);
        logged = logged.map(|error| Error { message: hide(&error.message).into(), ..error });
    }
    context.logs.add(Entry {
        duration: since.elapsed(),
        user: invocation.payer.filter(|_| !is_hook).map(ObjectId::to_hex),
        address: record.address,
        error: logged.as_ref(),
        texts,
        arguments: logs_arguments.then_some(&*invocation.arguments),
        console,
        ..Entry::new(Kind::Function, request_id, started, &context.redaction)
    });
    if let (Err(_), Some(id)) = (&result, &record.request_id) {
        id.set_logged();
    }
    result
}

pub(super) fn record_of(circumstances: &RequestContext) -> CallRecord {
    CallRecord::of_request(circumstances.request_id.clone(), circumstances.origin.map(|origin| origin.address))
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
    circumstances: &RequestContext,
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
                request: circumstances.http.clone(),
                caller: caller.id,
                payer,
                is_system: false,
                time_limit: None,
                hook: None,
                transactions: Transactions::default(),
                record: record_of(circumstances),
                context: Arc::clone(context),
            };
            match run(&Arc::new(invocation)).await? {
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
