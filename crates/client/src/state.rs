//! The users on this device, and the events for their listeners.

use std::{collections::VecDeque, sync::Arc};

use backend::{
    Secret,
    response::{AccessGrant, Identity, Profile, Session},
};
use bson::raw::RawDocumentBuf;
use tokio::sync::watch;

use crate::{Error, Result};

/// Identifies a user object. A removed user who logs in again gets a new handle, and the old one
/// stays removed.
pub type Handle = u32;

/// The state of a user on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    /// The user has tokens.
    LoggedIn,
    /// The user is known, and must log in again.
    LoggedOut,
    /// The user was removed from this device.
    Removed,
}

impl UserState {
    /// Returns the SDK's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoggedIn => "LoggedIn",
            Self::LoggedOut => "LoggedOut",
            Self::Removed => "Removed",
        }
    }
}

/// An event for listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The users of the app have changed.
    App,
    /// One user has changed.
    User(Handle),
}

/// The local data of a user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) state: UserState,
    pub(crate) access_token: Secret,
    /// The number of access tokens so far. Two tokens of one second may be equal.
    pub(crate) generation: u64,
    /// The number of times that the user was logged out or removed.
    pub(crate) departures: u64,
    pub(crate) refresh_token: Secret,
    pub(crate) device_id: String,
    pub(crate) identities: Vec<Identity>,
    pub(crate) profile: RawDocumentBuf,
    pub(crate) custom_data: Option<RawDocumentBuf>,
}

/// A user as the SDK shows it. It contains the tokens, so it must not be logged.
#[derive(Clone)]
pub struct UserView {
    /// The id.
    pub id: String,
    /// The state.
    pub state: UserState,
    /// The access token; empty if the user is logged out.
    pub access_token: String,
    /// The refresh token; empty if the user is logged out.
    pub refresh_token: String,
    /// The id of the device.
    pub device_id: String,
    /// The identities of the user, one for each linked authentication provider.
    pub identities: Vec<Identity>,
}

#[derive(Debug, Default)]
pub(crate) struct ClientState {
    /// The users, indexed by their handles. The vector never shrinks.
    users: Vec<User>,
    current: Option<Handle>,
    events: VecDeque<Event>,
    departed: watch::Sender<()>,
    is_closed: bool,
}

impl User {
    pub(crate) fn new(id: String) -> Self {
        Self {
            id,
            state: UserState::LoggedOut,
            access_token: Secret::from(String::new()),
            generation: 0,
            departures: 0,
            refresh_token: Secret::from(String::new()),
            device_id: String::new(),
            identities: Vec::new(),
            profile: RawDocumentBuf::new(),
            custom_data: None,
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(&self.identities[..], [identity] if identity.provider_type == "anon-user")
    }

    fn leave(&mut self) {
        self.departures += 1;
        self.access_token = Secret::from(String::new());
        self.refresh_token = Secret::from(String::new());
    }

    fn set_access(&mut self, access: AccessGrant) {
        self.access_token = access.access_token;
        self.generation += 1;
        self.custom_data = access.custom_data.map(Arc::unwrap_or_clone);
    }

    pub(crate) fn view(&self) -> UserView {
        UserView {
            id: self.id.clone(),
            state: self.state,
            access_token: self.access_token.expose().to_owned(),
            refresh_token: self.refresh_token.expose().to_owned(),
            device_id: self.device_id.clone(),
            identities: self.identities.clone(),
        }
    }
}

impl ClientState {
    pub(crate) fn restore(users: Vec<User>, current: Option<&str>) -> Self {
        let current =
            current.and_then(|id| users.iter().position(|user| user.id == id && user.state == UserState::LoggedIn));
        let mut state = Self { users, current: current.map(|place| place as Handle), ..Self::default() };
        state.fall_back();
        state
    }

    pub(crate) fn get(&self, handle: Handle) -> Result<&User> {
        self.users.get(handle as usize).ok_or_else(|| Error::user_not_found("No user has been found"))
    }

    fn get_mut(&mut self, handle: Handle) -> Result<&mut User> {
        self.users.get_mut(handle as usize).ok_or_else(|| Error::user_not_found("No user has been found"))
    }

    pub(crate) fn current(&self) -> Option<Handle> {
        self.current
    }

    /// Returns all users that are not removed, in the order of their first log-in.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Handle, &User)> {
        self.users
            .iter()
            .enumerate()
            .filter(|(_, user)| user.state != UserState::Removed)
            .map(|(place, user)| (place as Handle, user))
    }

    pub(crate) fn anonymous(&self) -> Option<Handle> {
        self.all().find(|(_, user)| user.state == UserState::LoggedIn && user.is_anonymous()).map(|(handle, _)| handle)
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Records a log-in, and returns the user: the same object as before if the user is known.
    pub(crate) fn logged_in(&mut self, session: Session) -> Handle {
        let known = self.all().find(|(_, user)| user.id == session.user_id).map(|(handle, _)| handle);
        let handle = known.unwrap_or_else(|| {
            self.users.push(User::new(session.user_id.clone()));
            (self.users.len() - 1) as Handle
        });
        let user = &mut self.users[handle as usize];
        user.state = UserState::LoggedIn;
        user.refresh_token = session.refresh_token;
        user.device_id = session.device_id;
        user.set_access(session.access);
        // As in the SDK, the user becomes current even if the request of the profile fails.
        if self.current.is_none() {
            self.current = Some(handle);
        }
        if known.is_some() {
            self.events.push_back(Event::User(handle));
        }
        handle
    }

    pub(crate) fn set_profile(&mut self, handle: Handle, profile: Profile) -> Result<()> {
        let user = self.get_mut(handle)?;
        user.identities = profile.identities;
        user.profile = profile.data;
        self.events.push_back(Event::User(handle));
        Ok(())
    }

    pub(crate) fn refreshed(&mut self, handle: Handle, access: AccessGrant) -> Result<()> {
        let user = self.get_mut(handle)?;
        // The user was logged out during the refresh: the new token must not restore the session.
        if user.state != UserState::LoggedIn {
            return Err(Error::not_logged_in("The user is not logged in"));
        }
        user.set_access(access);
        self.events.push_back(Event::User(handle));
        Ok(())
    }

    pub(crate) fn switch(&mut self, handle: Handle) -> Result<()> {
        if self.get(handle)?.state != UserState::LoggedIn {
            return Err(Error::user_not_found("User is no longer valid or is logged out"));
        }
        self.current = Some(handle);
        self.events.push_back(Event::App);
        Ok(())
    }

    /// Logs a user out locally; an anonymous user is removed. Returns the refresh token, with
    /// which to end the session, or `None` if the user was logged out already.
    pub(crate) fn log_out(&mut self, handle: Handle) -> Result<Option<Secret>> {
        let user = self.get_mut(handle)?;
        if user.state != UserState::LoggedIn {
            return Ok(None);
        }
        let refresh_token = user.refresh_token.clone();
        user.state = if user.is_anonymous() { UserState::Removed } else { UserState::LoggedOut };
        user.leave();
        user.custom_data = None;
        self.left(handle);
        Ok(Some(refresh_token))
    }

    /// Removes a user. The handle still shows the last data.
    pub(crate) fn remove(&mut self, handle: Handle) -> Result<Option<Secret>> {
        let user = self.get_mut(handle)?;
        if user.state == UserState::Removed {
            return Err(Error::user_not_found("User has already been removed"));
        }
        let refresh_token = (user.state == UserState::LoggedIn).then(|| user.refresh_token.clone());
        user.state = UserState::Removed;
        user.leave();
        self.left(handle);
        Ok(refresh_token)
    }

    pub(crate) fn deleted(&mut self, handle: Handle) -> Result<()> {
        let user = self.get_mut(handle)?;
        user.state = UserState::Removed;
        user.leave();
        self.fall_back();
        self.departed.send_replace(());
        self.events.push_back(Event::App);
        Ok(())
    }

    pub(crate) fn notify_app(&mut self) {
        self.events.push_back(Event::App);
    }

    /// Wakes everything that waits for changes of users.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.departed.send_replace(());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(crate) fn departed(&self) -> watch::Receiver<()> {
        self.departed.subscribe()
    }

    fn left(&mut self, handle: Handle) {
        self.fall_back();
        self.departed.send_replace(());
        self.events.push_back(Event::User(handle));
    }

    /// If the current user has left, makes the first logged-in user current.
    fn fall_back(&mut self) {
        let is_logged_in =
            |handle: &Handle| self.users.get(*handle as usize).is_some_and(|user| user.state == UserState::LoggedIn);
        if !self.current.as_ref().is_some_and(is_logged_in) {
            let first = self.all().find(|(_, user)| user.state == UserState::LoggedIn).map(|(handle, _)| handle);
            self.current = first;
        }
    }
}
