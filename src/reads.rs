//! Synchronous functions: the users on this device, and the check of a definition.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use backend::{
    Definition, Secrets,
    definition::{Checked, Function, Problem, RunAs, Severity},
};
use bson::rawdoc;
use client::Event;
use napi::bindgen_prelude::{Buffer, External};
use napi_derive::napi;

use crate::{bridge::Bridge, errors::thrown};

/// A file of a definition.
#[napi(object)]
pub(crate) struct DefinitionFile {
    pub path: String,
    pub text: String,
}

/// Returns the files of the built-in development definition.
#[napi]
pub(crate) fn development_definition() -> Vec<DefinitionFile> {
    Definition::development_files().into_iter().map(|(path, text)| DefinitionFile { path, text }).collect()
}

/// A problem of a definition.
#[napi(object)]
pub(crate) struct ProblemObject {
    /// True if the problem prevents the definition from loading.
    pub is_error: bool,
    /// The file, the JSON path and the message.
    pub text: String,
}

/// A source of a function, which JavaScript checks.
#[napi(object)]
pub(crate) struct CheckedFunction {
    pub name: String,
    pub file: String,
    /// The source; nothing if the definition does not contain it.
    pub source: Option<String>,
    /// True if users may call the function, or another part of the definition mentions it.
    pub is_used: bool,
    pub is_private: bool,
    /// The user that the function runs as, if it is not its caller: `system`, an id, or `script`.
    pub run_as: Option<String>,
    /// True if users may call it only under a condition.
    pub has_condition: bool,
    /// True if it is the script that names the user of a function.
    pub is_script: bool,
}

/// The problems of a definition, and its functions.
#[napi(object)]
pub(crate) struct CheckedObject {
    pub problems: Vec<ProblemObject>,
    /// True if the definition loads, and pages of any origin may make requests.
    pub allows_any_origin: bool,
    pub functions: Vec<CheckedFunction>,
    /// The name of the function that resets passwords, if there is one.
    pub reset_function: Option<String>,
}

/// Lists every problem of the definition in a directory. Secrets come from the environment
/// variables and from its `secrets.json`.
#[napi]
pub(crate) fn check_definition(directory: String, secret_variables: HashMap<String, String>) -> CheckedObject {
    let secrets = Secrets::default().with_variables(secret_variables);
    let Checked { problems, allows_any_origin, functions, mentioned_functions, reset_function } =
        Definition::check(Path::new(&directory), &secrets);
    let object = |problem: &Problem| ProblemObject {
        is_error: problem.severity == Severity::Refused,
        text: problem.to_string(),
    };
    CheckedObject {
        problems: problems.iter().map(object).collect(),
        allows_any_origin,
        reset_function,
        functions: functions.iter().flat_map(|function| sources(function, &mentioned_functions)).collect(),
    }
}

/// Returns the source of a function, and that of the script that names its user.
fn sources(function: &Function, mentioned: &BTreeSet<String>) -> Vec<CheckedFunction> {
    let Function { name, file, source, private, run_as, .. } = function;
    let is_used = !private || mentioned.contains(name);
    let runs_as = match run_as {
        RunAs::Caller => None,
        RunAs::System => Some("system".to_owned()),
        RunAs::User(id) => Some(id.clone()),
        RunAs::Script(_) => Some("script".to_owned()),
    };
    let mut sources = vec![CheckedFunction {
        name: name.clone(),
        file: file.clone(),
        source: source.clone(),
        is_used,
        is_private: *private,
        run_as: runs_as,
        has_condition: function.condition.is_some(),
        is_script: false,
    }];
    if let RunAs::Script(script) = run_as {
        let script_name = format!("run_as_user_id_script_source of {name}");
        sources.push(CheckedFunction {
            file: script_name.clone(),
            name: script_name,
            source: Some(script.clone()),
            is_used: true,
            is_private: true,
            run_as: None,
            has_condition: false,
            is_script: true,
        });
    }
    sources
}

/// Reads the state on this device, without waiting, or the `progress` of a handle's current task.
/// Returns an encoded document, or nothing if there is no value. See `client::App::read`.
#[napi]
pub(crate) fn read(bridge: &External<Bridge>, handle: u32, what: String, user: u32) -> napi::Result<Option<Buffer>> {
    let opened = bridge.opened(handle)?;
    if what == "progress" {
        let (stage, done, total) = opened.progress().read();
        return Ok(Some(rawdoc! { "stage": stage, "done": done as f64, "total": total as f64 }.into_bytes().into()));
    }
    let read = opened.app().and_then(|app| app.read(&what, user));
    Ok(read.map_err(|error| thrown(&error))?.map(|document| document.into_bytes().into()))
}

/// Takes the events that listeners have not been called for: a user's handle, or -1 for the app.
/// Returns all events, or only those that occurred before the last call returned.
#[napi]
pub(crate) fn take_events(bridge: &External<Bridge>, handle: u32, all: bool) -> napi::Result<Vec<i64>> {
    let event = |event| match event {
        Event::App => -1,
        Event::User(user) => i64::from(user),
    };
    Ok(bridge.opened(handle)?.take_events(all).into_iter().map(event).collect())
}
