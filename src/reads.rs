//! Synchronous functions: the users on this device, and the check of a definition.

use std::path::Path;

use backend::{
    Definition,
    definition::{Checked, Problem, Severity},
};
use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocumentBuf},
    rawdoc,
};
use client::{App, Error, Event};
use napi::bindgen_prelude::{Buffer, External};
use napi_derive::napi;

use crate::{bridge::Bridge, errors::thrown, operations::wrap};

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
    let Checked { problems, allows_any_origin } = Definition::check(Path::new(&directory));
    let object = |problem: &Problem| ProblemObject {
        is_error: problem.severity == Severity::Refused,
        text: problem.to_string(),
    };
    CheckedObject { problems: problems.iter().map(object).collect(), allows_any_origin }
}

/// Reads the state on this device, without waiting.
///
/// `what` is `currentUser`, `allUsers`, `user`, `userState`, `customData` or `profile` of an app,
/// or the `progress` of a handle's current task. Returns an encoded document, which contains other
/// values in the field `v`, or nothing if there is no value.
#[napi]
pub(crate) fn read(bridge: &External<Bridge>, handle: u32, what: String, user: u32) -> napi::Result<Option<Buffer>> {
    let opened = bridge.opened(handle)?;
    if what == "progress" {
        let (stage, done, total) = opened.progress().read();
        return Ok(Some(rawdoc! { "stage": stage, "done": done as f64, "total": total as f64 }.into_bytes().into()));
    }
    let read = opened.app().and_then(|app| read_user(app, &what, user));
    Ok(read.map_err(|error| thrown(&error))?.map(Buffer::from))
}

fn read_user(app: &App, what: &str, user: u32) -> Result<Option<Vec<u8>>, Error> {
    let entry = |user: u32, id: String| rawdoc! { "handle": i64::from(user), "id": id };
    Ok(match what {
        "currentUser" => match app.current_user() {
            Some(user) => wrap(&RawBson::Document(entry(user, app.user_id(user)?))),
            None => None,
        },
        "allUsers" => {
            let users: RawArrayBuf = app.all_users().into_iter().map(|(user, id)| entry(user, id)).collect();
            wrap(&RawBson::Array(users))
        }
        "user" => {
            let view = app.user(user)?;
            let identities = view.identities.into_iter();
            let identities: RawArrayBuf = identities
                .map(|identity| rawdoc! { "id": identity.id, "providerType": identity.provider_type })
                .collect();
            wrap(&RawBson::Document(rawdoc! {
                "id": view.id,
                "state": view.state.name(),
                "accessToken": view.access_token,
                "refreshToken": view.refresh_token,
                "deviceId": view.device_id,
                "identities": identities,
            }))
        }
        "userState" => wrap(&RawBson::String(app.user_state(user)?.name().to_owned())),
        "customData" => app.custom_data(user)?.map(RawDocumentBuf::into_bytes),
        "profile" => Some(app.profile(user)?.into_bytes()),
        _ => return Err(Error::custom(format!("there is nothing to read called '{what}'"))),
    })
}

/// Sets the current user.
#[napi]
pub(crate) fn switch_user(bridge: &External<Bridge>, handle: u32, user: u32) -> napi::Result<()> {
    let opened = bridge.opened(handle)?;
    opened.app().and_then(|app| app.switch_user(user)).map_err(|error| thrown(&error))
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
