//! The functions of an app: JavaScript of the operator, which runs in threads of Node
//! (<https://www.mongodb.com/docs/atlas/app-services/functions/>).
//!
//! This crate does not run JavaScript. An open app adds itself to the [`FunctionPool`] as a
//! [`HostStarter`], and starts threads that take calls as [`FunctionHost`]s.

mod call;
mod hook_secrets;
mod hooks;
mod inside;
mod pool;
mod queue;
mod transactions;
mod unchanged;

use std::{path::Path, sync::Arc, time::Duration};

use bson::{
    Bson, Document, doc,
    oid::ObjectId,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
};
use serde_json::Value;

use crate::{
    context::Context,
    definition::{Function, RunAs},
    logs::{CallRecord, Console},
};

pub(crate) use call::{call, run_for_operator};
use hooks::HookCall;
pub(crate) use hooks::{Enclosing, Hook, Status, arguments, is_of_function, kind, run_hook, run_status_hook};
pub(crate) use inside::{call_inside, may_execute};
use transactions::Transactions;

pub use pool::{CallId, FunctionHost, FunctionPool, HostEnd, HostId, HostStarter};
pub(crate) use transactions::TransactionShares;

/// The options of functions.
///
/// ```
/// use backend::functions::FunctionOptions;
///
/// let options = FunctionOptions::default();
/// assert_eq!((options.threads, options.time_limit.as_secs(), options.memory_limit), (1, 300, 350));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FunctionOptions {
    /// The number of threads. Up to as many more start while others do not yield. 0 runs functions
    /// on the thread of the application, without limits, for debugging.
    pub threads: u32,
    /// Time limit of a call, also while it waits for a thread.
    pub time_limit: Duration,
    /// Memory limit of a thread, in MB.
    pub memory_limit: u32,
}

impl FunctionOptions {
    /// Returns the maximum size of the arguments of the calls that run on one thread, in bytes.
    /// Functions need many times the memory of their arguments.
    fn running_bytes(&self) -> usize {
        self.memory_limit as usize * 1024 * 1024 / 16
    }
}

impl Default for FunctionOptions {
    fn default() -> Self {
        Self { threads: 1, time_limit: Duration::from_secs(300), memory_limit: 350 }
    }
}

/// A call of a function.
#[derive(Debug)]
pub struct Invocation {
    /// The name of the function.
    pub name: String,
    /// The arguments.
    pub arguments: RawArrayBuf,
    /// The user as `context.user`.
    pub user: RawDocumentBuf,
    /// The request as `context.request`; `None` if no request caused the call.
    pub request: Option<RawDocumentBuf>,
    /// The user whose rules apply; `None` for the system user.
    pub caller: Option<ObjectId>,
    /// The user who made the request, to whom the limits of one user apply.
    pub payer: Option<ObjectId>,
    /// True if the function is privileged, so that no rules apply.
    pub is_system: bool,
    /// Time limit of the call, if it is shorter than [`FunctionOptions::time_limit`].
    pub time_limit: Option<Duration>,
    /// The part of the call that only hooks have.
    pub(crate) hook: Option<HookCall>,
    /// The open transactions of the call.
    pub(crate) transactions: Transactions,
    /// The part of the call that belongs to its log entry.
    pub(crate) record: CallRecord,
    /// The definition with which the call runs, and all that belongs to it.
    pub(crate) context: Arc<Context>,
}

impl Invocation {
    /// Returns the number of the definition with which the call runs.
    pub fn generation(&self) -> u64 {
        self.context.generation
    }

    /// Returns the facts for a thread that runs the call, as
    /// [`Backend::function_facts`](crate::Backend::function_facts) does.
    pub fn facts(&self) -> RawDocumentBuf {
        facts(&self.context)
    }

    /// Keeps the console lines of the call for its log entry, from the report of the thread:
    /// `{ error: { stack }, messages: [{ level, text }], dropped }`. Returns the levels and the
    /// texts of the lines, without secrets, and the number of dropped lines, for the log of the
    /// process.
    pub fn set_console(&self, report: &RawDocument) -> (Vec<(String, String)>, u64) {
        let mut console = Console::from(report);
        if let Some(hook) = &self.hook {
            // A function may write its argument.
            console.stack = console.stack.map(|stack| hook.secrets.hide(&stack));
            console.lines.iter_mut().for_each(|(_, text)| *text = hook.secrets.hide(text));
        }
        let redaction = &self.context.redaction;
        let lines = console.lines.iter().map(|(level, text)| (level.clone(), redaction.text(text))).collect();
        let dropped = console.dropped;
        self.record.add_console(console);
        (lines, dropped)
    }

    fn bytes(&self) -> usize {
        self.arguments.as_bytes().len() + self.user.as_bytes().len()
    }
}

/// True if the definition has functions.
pub(crate) fn has_functions(context: &Context) -> bool {
    context.definition.functions.iter().next().is_some()
}

/// The name under which the threads know the script that names the user of a function. No client
/// can call it, because it is not in the definition.
fn script_name(function: &str) -> String {
    format!("run_as_user_id_script_source of {function}")
}

/// Returns what a thread that runs functions needs to know, as a document.
pub(crate) fn facts(context: &Context) -> RawDocumentBuf {
    let definition = &context.definition;
    let root = std::path::absolute(&definition.origin).unwrap_or_else(|_| Path::new(&definition.origin).to_owned());
    let functions: Vec<Bson> = definition.functions.iter().flat_map(|function| described(function, &root)).collect();
    let services: Vec<Bson> = definition.services.keys().map(|name| Bson::String(name.clone())).collect();
    let values: Document = definition.values.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    let environment: Document =
        definition.environment.values.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    let facts = doc! {
        "generation": i64::try_from(context.generation).unwrap_or_default(),
        "app": app(context),
        "environment": { "tag": &definition.environment.tag, "values": environment },
        "values": values,
        "services": services,
        "functions": functions,
        "directory": root.join("functions").display().to_string(),
    };
    RawDocumentBuf::try_from(&facts).unwrap_or_default()
}

/// Describes a function, and the script that names its user.
fn described(function: &Function, root: &Path) -> Vec<Bson> {
    let file = root.join(&function.file).display().to_string();
    let entry = |name: String, source: Option<&str>, is_system: bool| {
        let mut entry = doc! {
            "name": name,
            "file": &file,
            "place": &function.file,
            "isSystem": is_system,
            "hasCondition": function.condition.is_some(),
            "isPrivate": function.private,
        };
        if let Some(source) = source {
            entry.insert("source", source);
        }
        Bson::Document(entry)
    };
    let mut entries =
        vec![entry(function.name.clone(), function.source.as_deref(), matches!(function.run_as, RunAs::System))];
    if let RunAs::Script(source) = &function.run_as {
        let Bson::Document(mut script) = entry(script_name(&function.name), Some(source), false) else {
            return entries;
        };
        script.insert("place", "functions/config.json");
        script.insert("file", root.join("functions").join("config.json").display().to_string());
        script.insert("isScript", true);
        entries.push(Bson::Document(script));
    }
    entries
}

/// Describes the app as `context.app`.
fn app(context: &Context) -> Document {
    let id = &*context.app_id;
    doc! {
        "id": stable_id(id),
        "clientAppId": id,
        "name": context.definition.name.as_deref().unwrap_or(id),
        "projectId": "000000000000000000000000",
        "deployment": { "model": "LOCAL", "providerRegion": "" },
        "lastDeployed": context.loaded_at.try_to_rfc3339_string().unwrap_or_default(),
        "hostingUri": "",
    }
}

/// Returns 24 hexadecimal digits that depend only on the app's id.
fn stable_id(id: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Converts a value of the definition, which is plain JSON and not Extended JSON.
fn plain(value: &Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        Value::Number(number) => {
            let small = number.as_i64().and_then(|number| i32::try_from(number).ok());
            small.map_or_else(|| Bson::Double(number.as_f64().unwrap_or(f64::NAN)), Bson::Int32)
        }
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(items) => Bson::Array(items.iter().map(plain).collect()),
        Value::Object(fields) => {
            Bson::Document(fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }
    }
}
