//! Synchronous functions: the users on this device, and the check of a definition.

use std::path::Path;

use backend::{
    Definition,
    definition::{Checked, Problem, Severity},
};
use client::{App, Event};
use napi::bindgen_prelude::{Buffer, External};
use napi_derive::napi;

use crate::{
    bridge::{Bridge, Opened},
    errors::thrown,
};

/// A file of a definition.
#[napi(object)]
pub struct DefinitionFile {
    pub path: String,
    pub text: String,
}

/// Returns the files of the built-in development definition.
#[napi]
pub fn development_definition() -> Vec<DefinitionFile> {
    Definition::development_files().into_iter().map(|(path, text)| DefinitionFile { path, text }).collect()
}

/// A problem of a definition.
#[napi(object)]
pub struct ProblemObject {
    /// True if the problem keeps the definition from loading.
    pub is_error: bool,
    /// The file, the JSON path and the message.
    pub text: String,
}

/// The problems of a definition.
#[napi(object)]
pub struct CheckedObject {
    pub problems: Vec<ProblemObject>,
    /// True if the definition loads, and pages of any origin may make requests.
    pub allows_any_origin: bool,
}

/// Lists every problem of the definition in a directory.
#[napi]
pub fn check_definition(directory: String) -> CheckedObject {
    let Checked { problems, allows_any_origin } = Definition::check(Path::new(&directory));
    let object = |problem: &Problem| ProblemObject {
        is_error: problem.severity == Severity::Refused,
        text: problem.to_string(),
    };
    CheckedObject { problems: problems.iter().map(object).collect(), allows_any_origin }
}

/// An entry in the list of users.
#[napi(object)]
pub struct UserEntry {
    pub handle: u32,
    pub id: String,
}

/// The properties of a user.
#[napi(object)]
pub struct UserObject {
    pub id: String,
    pub state: String,
    pub access_token: String,
    pub refresh_token: String,
    pub device_id: String,
    pub identities: Vec<IdentityObject>,
}

/// An identity of a user: one way to log in.
#[napi(object)]
pub struct IdentityObject {
    pub id: String,
    pub provider_type: String,
}

fn app(opened: &Opened) -> napi::Result<&App> {
    opened.app.as_ref().ok_or_else(|| napi::Error::from_reason("an operator's handle has no users"))
}

/// Returns the current user.
#[napi]
pub fn current_user(bridge: &External<Bridge>, handle: u32) -> napi::Result<Option<UserEntry>> {
    let opened = bridge.opened(handle)?;
    let app = app(&opened)?;
    let entry = |handle| app.user_id(handle).map(|id| UserEntry { handle, id }).map_err(|error| thrown(&error));
    app.current_user().map(entry).transpose()
}

/// Returns all users that have not been removed.
#[napi]
pub fn all_users(bridge: &External<Bridge>, handle: u32) -> napi::Result<Vec<UserEntry>> {
    Ok(app(&*bridge.opened(handle)?)?.all_users().into_iter().map(|(handle, id)| UserEntry { handle, id }).collect())
}

/// Makes a user the current one.
#[napi]
pub fn switch_user(bridge: &External<Bridge>, handle: u32, user: u32) -> napi::Result<()> {
    app(&*bridge.opened(handle)?)?.switch_user(user).map_err(|error| thrown(&error))
}

/// Returns the properties of a user.
#[napi]
pub fn user(bridge: &External<Bridge>, handle: u32, user: u32) -> napi::Result<UserObject> {
    let view = app(&*bridge.opened(handle)?)?.user(user).map_err(|error| thrown(&error))?;
    let identities = view
        .identities
        .into_iter()
        .map(|identity| IdentityObject { id: identity.id, provider_type: identity.provider_type })
        .collect();
    Ok(UserObject {
        id: view.id,
        state: view.state.name().into(),
        access_token: view.access_token,
        refresh_token: view.refresh_token,
        device_id: view.device_id,
        identities,
    })
}

/// Returns only the state of a user.
#[napi]
pub fn user_state(bridge: &External<Bridge>, handle: u32, user: u32) -> napi::Result<&'static str> {
    Ok(app(&*bridge.opened(handle)?)?.user_state(user).map_err(|error| thrown(&error))?.name())
}

/// Returns a user's custom data as BSON, if there is any.
#[napi]
pub fn custom_data(bridge: &External<Bridge>, handle: u32, user: u32) -> napi::Result<Option<Buffer>> {
    let data = app(&*bridge.opened(handle)?)?.custom_data(user).map_err(|error| thrown(&error))?;
    Ok(data.map(|data| data.into_bytes().into()))
}

/// Returns a user's profile from the authentication providers, as BSON.
#[napi]
pub fn profile(bridge: &External<Bridge>, handle: u32, user: u32) -> napi::Result<Buffer> {
    let profile = app(&*bridge.opened(handle)?)?.profile(user).map_err(|error| thrown(&error))?;
    Ok(profile.into_bytes().into())
}

/// Takes the events that listeners have not been called for: a user's handle, or -1 for the app.
/// Returns all events, or only those that occurred before the last call returned.
#[napi]
pub fn take_events(bridge: &External<Bridge>, handle: u32, all: bool) -> napi::Result<Vec<i64>> {
    let event = |event| match event {
        Event::App => -1,
        Event::User(user) => i64::from(user),
    };
    Ok(bridge.opened(handle)?.take_events(all).into_iter().map(event).collect())
}
