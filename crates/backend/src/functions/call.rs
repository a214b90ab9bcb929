//! Calls of functions by users.

use std::{borrow::Cow, sync::Arc, time::Instant};

use bson::{
    DateTime, RawBson,
    oid::ObjectId,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr},
    rawdoc,
};

use super::{Invocation, hook_secrets::HookSecrets, script_name, transactions::Transactions, unchanged::keep_types};
use crate::{
    Error, ErrorCode, RequestContext, RequestId, Result, Secret,
    context::{Context, in_time, too_late},
    definition::{Function, RunAs},
    logs::{CallRecord, Entry, Kind, canceled},
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
    let entry = CallEntry::begin(context, name, &arguments, Some(claim.user_id()), record_of(circumstances), None);
    let (result, arguments) = run_as_defined(&entry, function, caller, arguments, request).await;
    entry.end(&result);
    tracing::debug!(function = name, "function called");
    check_size(context, keep_types(&arguments, result?))
}

/// Runs a function as the user whom its definition names. Returns its arguments too.
async fn run_as_defined(
    entry: &CallEntry,
    function: &Function,
    caller: Caller,
    arguments: RawArrayBuf,
    request: Option<RawDocumentBuf>,
) -> (Result<RawBson>, RawArrayBuf) {
    let Caller { id, user, is_system } = match run_as(entry, function, caller, &arguments, request.as_ref()).await {
        Ok(caller) => caller,
        Err(error) => return (Err(error), arguments),
    };
    let invocation = Arc::new(Invocation {
        name: function.name.clone(),
        arguments,
        user,
        request,
        caller: id,
        payer: entry.payer,
        is_system,
        time_limit: None,
        hook: None,
        transactions: Transactions::default(),
        record: entry.record.clone(),
        context: Arc::clone(&entry.context),
    });
    let result = entry.context.functions.call(Arc::clone(&invocation)).await;
    let arguments = Arc::try_unwrap(invocation).map_or_else(|shared| shared.arguments.clone(), |own| own.arguments);
    (result, arguments)
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
    // Otherwise a store without users would keep no log of the call.
    in_time(context.deadline(), context.prepare(), too_late).await?;
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
    let record = record_of(&RequestContext::in_process()).by("operator");
    let entry = CallEntry::begin(context, name, &arguments, caller.id, record, None);
    let (result, _) = run_as_defined(&entry, function, caller, arguments, None).await;
    Ok(entry.end(&result).report(&result))
}

/// Runs a hook, and adds its entry to the log.
///
/// # Errors
/// The errors of [`FunctionPool::call`](super::FunctionPool::call).
pub(super) async fn run(invocation: &Arc<Invocation>) -> Result<RawBson> {
    let Invocation { context, name, arguments, payer, record, hook, .. } = &**invocation;
    let secrets = hook.as_ref().map(|hook| hook.secrets.clone());
    let entry = CallEntry::begin(context, name, arguments, *payer, record.clone(), secrets);
    let result = context.functions.call(Arc::clone(invocation)).await;
    entry.end(&result);
    result
}

/// The log entry of an outermost call under way, with the script that names its user. It is also
/// added if no one waits for the end of the call.
struct CallEntry {
    context: Arc<Context>,
    name: String,
    /// The arguments, unless the entry must not contain them.
    arguments: Option<RawArrayBuf>,
    payer: Option<ObjectId>,
    record: CallRecord,
    /// The secrets in the arguments of a hook. A function may throw its argument.
    secrets: Option<HookSecrets>,
    started: DateTime,
    since: Instant,
    is_ended: bool,
}

impl CallEntry {
    fn begin(
        context: &Arc<Context>,
        name: &str,
        arguments: &RawArrayBuf,
        payer: Option<ObjectId>,
        record: CallRecord,
        secrets: Option<HookSecrets>,
    ) -> Self {
        let function = context.definition.functions.get(name);
        // The arguments of hooks are passwords, tokens and what the application takes for them.
        let logs_arguments = secrets.is_none() && function.is_some_and(|function| function.log_arguments);
        Self {
            context: Arc::clone(context),
            name: name.to_owned(),
            arguments: logs_arguments.then(|| arguments.clone()),
            payer,
            record,
            secrets,
            started: context.logs.now(),
            since: Instant::now(),
            is_ended: false,
        }
    }

    /// Adds the entry. Returns the record with the console lines.
    fn end(mut self, result: &Result<RawBson>) -> CallRecord {
        self.is_ended = true;
        self.add(result.as_ref().err(), None);
        self.record.clone()
    }

    fn add(&self, error: Option<&Error>, status: Option<u16>) {
        let (context, record) = (&self.context, &self.record);
        let own_id = record.request_id.is_none().then(|| context.environment.new_id().to_hex());
        let request_id = record.request_id.as_ref().map_or(own_id.as_deref().unwrap_or_default(), RequestId::as_str);
        let mut texts = vec![(cstr!("name"), self.name.as_str())];
        texts.extend(record.hook.map(|hook| (cstr!("hook"), hook)));
        let hidden = |secrets: &HookSecrets, error: &Error| secrets.hide(&error.message).into();
        let error = error.map(|error| match &self.secrets {
            Some(secrets) => Cow::Owned(Error { message: hidden(secrets, error), ..error.clone() }),
            None => Cow::Borrowed(error),
        });
        let is_logged = context.logs.add(Entry {
            duration: self.since.elapsed(),
            user: self.payer.filter(|_| self.secrets.is_none()).map(ObjectId::to_hex),
            origin: record.origin,
            error: error.as_deref(),
            status,
            texts,
            arguments: self.arguments.as_deref(),
            console: record.console(),
            ..Entry::new(Kind::Function, request_id, self.started, &context.redaction)
        });
        if let (Some(_), Some(id)) = (error, &record.request_id) {
            id.settle(is_logged);
        }
    }
}

impl Drop for CallEntry {
    fn drop(&mut self) {
        if !self.is_ended {
            let (error, status) = canceled();
            self.add(Some(&error), status);
        }
    }
}

pub(super) fn record_of(circumstances: &RequestContext) -> CallRecord {
    CallRecord::of_request(circumstances.request_id.clone(), circumstances.origin)
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
    entry: &CallEntry,
    function: &Function,
    caller: Caller,
    arguments: &RawArrayBuf,
    request: Option<&RawDocumentBuf>,
) -> Result<Caller> {
    let context = &entry.context;
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
                payer: entry.payer,
                is_system: false,
                time_limit: None,
                hook: None,
                transactions: Transactions::default(),
                record: entry.record.clone(),
                context: Arc::clone(context),
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

#[cfg(test)]
mod tests;
