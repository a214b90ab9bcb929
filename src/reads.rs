//! Synchronous functions: the users on this device, and the check of a definition.

use std::path::Path;

use backend::{
    Definition, Secrets,
    definition::{Checked, Problem, Severity},
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

/// The problems of a definition.
#[napi(object)]
pub(crate) struct CheckedObject {
    pub problems: Vec<ProblemObject>,
    /// True if the definition loads, and pages of any origin may make requests.
    pub allows_any_origin: bool,
}

/// Lists every problem of the definition in a directory.
#[napi]
pub(crate) fn check_definition(directory: String) -> CheckedObject {
    let Checked { problems, allows_any_origin } = Definition::check(Path::new(&directory), &Secrets::default());
    let object = |problem: &Problem| ProblemObject {
        is_error: problem.severity == Severity::Refused,
        text: problem.to_string(),
    };
    CheckedObject { problems: problems.iter().map(object).collect(), allows_any_origin }
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
