//! The app of the SDK: its users on this device, and their requests to the backend.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backend::{
    Secret,
    request::{
        ApiKeyAction, ApiKeys, Arguments, Call, CallFunction, Credentials, DeleteUser, EndSession, Link, LogIn,
        ProviderAction, Push, PushAction, ReadProfile, RefreshSession,
    },
    response::{ApiKey, Response, Unexpected},
};
use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    Error, Event, Handle, Metadata, Result, UserState, UserView,
    connection::Connection,
    session_file::{Kept, LOCK_PATIENCE, SessionFile},
    state::{ClientState, User},
};

mod operations;
mod snapshots;

use snapshots::Snapshots;

/// Time that a process which ends waits for others that change the session files, in total.
pub const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The parameters of an app.
pub struct Settings {
    /// The connection to the backend.
    pub connection: Arc<dyn Connection>,
    /// The file that keeps the users between runs; `None` to keep them in memory only.
    pub session_file: Option<SessionFile>,
}

impl Settings {
    /// Returns settings that keep the users in the file at `path`, as `metadata` says. Without a
    /// path, the users are kept in memory.
    ///
    /// # Errors
    /// If an encryption key has the wrong length.
    pub fn new(connection: Arc<dyn Connection>, path: Option<std::path::PathBuf>, metadata: &Metadata) -> Result<Self> {
        let session_file = match (path, metadata) {
            (None, _) | (_, Metadata::InMemory) => None,
            (Some(path), Metadata::NoEncryption) => Some(SessionFile::new(path, None)?),
            (Some(path), Metadata::Encryption(key)) => Some(SessionFile::new(path, Some(key))?),
        };
        Ok(Self { connection, session_file })
    }
}

/// An app. It is shared by reference, and every method may be called from any thread.
#[derive(Debug)]
pub struct App {
    connection: Arc<dyn Connection>,
    session_file: Option<Arc<SessionFile>>,
    /// Refreshed tokens and custom data that the session file does not have yet; `None` without a
    /// file.
    snapshots: Option<Arc<Snapshots>>,
    state: Arc<Mutex<ClientState>>,
    /// Held while a token is refreshed, so that calls that fail together refresh it once.
    refreshing: tokio::sync::Mutex<()>,
}

impl App {
    /// Opens an app with the users of its session file.
    ///
    /// # Errors
    /// If the session file cannot be read. The file stays unchanged.
    pub fn open(settings: Settings) -> Result<Self> {
        let session_file = settings.session_file.map(Arc::new);
        let kept = session_file.as_ref().map_or_else(|| Ok(Kept::default()), |file| file.load())?;
        let state = Arc::new(Mutex::new(ClientState::restore(kept.users, kept.current.as_deref())));
        let snapshots = session_file.as_ref().map(|file| Snapshots::new(Arc::clone(file), Arc::clone(&state)));
        let refreshing = tokio::sync::Mutex::default();
        Ok(Self { connection: settings.connection, session_file, snapshots, state, refreshing })
    }

    fn state(&self) -> MutexGuard<'_, ClientState> {
        lock(&self.state)
    }

    /// Returns the current user; `None` if no user is logged in.
    pub fn current_user(&self) -> Option<Handle> {
        self.state().current()
    }

    /// Returns the id of a user.
    ///
    /// # Errors
    /// `ClientUserNotFound` (4100) if there is no such user.
    pub fn user_id(&self, handle: Handle) -> Result<String> {
        Ok(self.state().get(handle)?.id.clone())
    }

    /// Returns all known users with their ids, logged in or not.
    pub fn all_users(&self) -> Vec<(Handle, String)> {
        self.state().all().map(|(handle, user)| (handle, user.id.clone())).collect()
    }

    /// Returns the local data of a user.
    ///
    /// # Errors
    /// `ClientUserNotFound` (4100) if there is no such user.
    pub fn user(&self, handle: Handle) -> Result<UserView> {
        self.state().get(handle).map(User::view)
    }

    /// Returns the state of a user.
    ///
    /// # Errors
    /// `ClientUserNotFound` (4100) if there is no such user.
    pub fn user_state(&self, handle: Handle) -> Result<UserState> {
        Ok(self.state().get(handle)?.state)
    }

    /// Returns the custom data of a user, as of the last log-in or refresh.
    ///
    /// # Errors
    /// `ClientUserNotFound` (4100) if there is no such user.
    pub fn custom_data(&self, handle: Handle) -> Result<Option<RawDocumentBuf>> {
        Ok(self.state().get(handle)?.custom_data.clone())
    }

    /// Returns the profile of a user, which comes from the authentication providers.
    ///
    /// # Errors
    /// `ClientUserNotFound` (4100) if there is no such user.
    pub fn profile(&self, handle: Handle) -> Result<RawDocumentBuf> {
        Ok(self.state().get(handle)?.profile.clone())
    }

    /// Removes and returns the pending events for listeners, in their order.
    pub fn take_events(&self) -> Vec<Event> {
        self.state().take_events()
    }

    /// Makes a user current.
    ///
    /// # Errors
    /// If the user is not logged in, or the session file cannot be written.
    pub fn switch_user(&self, handle: Handle) -> Result<()> {
        self.state().switch(handle)?;
        self.keep_current()
    }

    /// Logs a user in and makes the user current. With `reuse`, anonymous credentials return the
    /// anonymous user who is logged in already, if there is one.
    ///
    /// # Errors
    /// The error of the backend. If only the request of the profile fails, the user is logged in
    /// nevertheless.
    pub async fn log_in(&self, credentials: Credentials, reuse: bool) -> Result<Handle> {
        if credentials.are_anonymous() && reuse {
            let existing = self.state().anonymous();
            if let Some(handle) = existing {
                self.switch_user(handle)?;
                return Ok(handle);
            }
        }
        let session = self.ask(LogIn { credentials, device_id: None }).await?;
        let access_token = session.access.access_token.clone();
        let handle = self.state().logged_in(session);
        let profile = match self.ask(ReadProfile { access_token }).await {
            Ok(profile) => profile,
            Err(error) => {
                // If the user was logged out meanwhile, that has been written already.
                if self.user_state(handle)? == UserState::LoggedIn {
                    self.keep(handle).await?;
                }
                return Err(error);
            }
        };
        // Write the file once, with the profile. No caller relies on the log-in before this
        // returns.
        {
            let mut state = self.state();
            state.set_profile(handle, profile)?;
            // This fails if the user was logged out while the profile was requested.
            state.switch(handle)?;
        }
        self.keep(handle).await?;
        Ok(handle)
    }

    /// Logs a user out: first on this device, before the first await, then on the backend.
    ///
    /// # Errors
    /// If the session cannot be ended on the backend. The user is logged out on this device
    /// nevertheless.
    pub async fn log_out(&self, handle: Handle) -> Result<()> {
        let refresh_token = self.state().log_out(handle)?;
        let Some(refresh_token) = refresh_token else { return Ok(()) };
        self.keep_now(handle)?;
        self.end_session(refresh_token).await
    }

    /// Removes a user from this device, and ends the session if there is one. The local part is
    /// done before the first await.
    ///
    /// # Errors
    /// If the user was removed before, or if the session cannot be ended on the backend.
    pub async fn remove_user(&self, handle: Handle) -> Result<()> {
        let refresh_token = self.state().remove(handle)?;
        self.keep_now(handle)?;
        match refresh_token {
            Some(refresh_token) => self.end_session(refresh_token).await,
            None => Ok(()),
        }
    }

    async fn end_session(&self, refresh_token: Secret) -> Result<()> {
        // The request always takes another turn, even to a backend in this process: the app's
        // listeners get their event after the call has returned.
        tokio::task::yield_now().await;
        self.ask(EndSession { refresh_token }).await?;
        self.state().notify_app();
        Ok(())
    }

    /// Deletes a user, on the backend and on this device.
    ///
    /// # Errors
    /// If the user is not logged in, or the backend rejects the request. The user still exists
    /// then.
    pub async fn delete_user(&self, handle: Handle) -> Result<()> {
        if self.user_state(handle)? != UserState::LoggedIn {
            return Err(Error::not_logged_in("User must be logged in to be deleted."));
        }
        self.authenticated(handle, |access_token| DeleteUser { access_token }).await?;
        self.state().deleted(handle)?;
        self.keep(handle).await
    }

    /// Requests a new access token, and with it the current custom data.
    ///
    /// # Errors
    /// If the user is not logged in, or the session has ended. The user stays logged in on this
    /// device.
    pub async fn refresh_custom_data(&self, handle: Handle) -> Result<()> {
        self.refresh(handle).await
    }

    async fn refresh(&self, handle: Handle) -> Result<()> {
        let refresh_token = {
            let state = self.state();
            let user = state.get(handle)?;
            if user.state != UserState::LoggedIn {
                return Err(Error::not_logged_in("The user is not logged in"));
            }
            user.refresh_token.clone()
        };
        let access = self.ask(RefreshSession { refresh_token }).await?;
        self.state().refreshed(handle, access)?;
        // If a crash loses the token, the refresh token gets a new one.
        if let Some(snapshots) = &self.snapshots {
            snapshots.write_later(handle);
        }
        Ok(())
    }

    /// Sends a request, and returns the answer that belongs to it.
    async fn ask<C: Call>(&self, request: C) -> Result<C::Answer> {
        read(self.connection.send(request.into()).await?)
    }

    /// Sends a request with the access token of a user.
    async fn authenticated<C: Call>(&self, handle: Handle, request: impl Fn(Secret) -> C) -> Result<C::Answer> {
        read(self.with_access_token(handle, |token| self.connection.send(request(token).into())).await?)
    }

    /// Calls `ask` with the access token of a user. If the token is rejected, it is refreshed
    /// once, and `ask` is called again.
    pub(crate) async fn with_access_token<'a, T>(
        &self,
        handle: Handle,
        ask: impl Fn(Secret) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let access_token =
            |app: &Self| app.state().get(handle).map(|user| (user.access_token.clone(), user.generation));
        let (token, used) = access_token(self)?;
        let error = match ask(token).await {
            Err(error) if error.unauthorized => error,
            answer => return answer,
        };
        if self.user_state(handle)? != UserState::LoggedIn {
            return Err(error);
        }
        // The refresh always takes another turn, even to a backend in this process: listeners get
        // its event after the call has returned, and before its future is ready.
        tokio::task::yield_now().await;
        {
            let _one_at_a_time = self.refreshing.lock().await;
            let is_stale = access_token(self)?.1 == used;
            if is_stale && let Err(failed) = self.refresh(handle).await {
                // Keep the caller's error. `interrupted` of the refresh tells whether the session
                // may still exist.
                return Err(Error { interrupted: failed.interrupted, ..error });
            }
        }
        ask(access_token(self)?.0).await
    }

    pub(crate) fn connection(&self) -> &dyn Connection {
        &*self.connection
    }

    /// Returns a receiver that changes whenever a user leaves, and when the app is closed.
    pub(crate) fn departed(&self) -> watch::Receiver<()> {
        self.state().departed()
    }

    /// Returns the number of times that a user was logged out or removed.
    pub(crate) fn departures(&self, handle: Handle) -> Result<u64> {
        Ok(self.state().get(handle)?.departures)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed()
    }

    /// Calls a function of the app or, with `service`, of a data source.
    ///
    /// # Errors
    /// The error of the backend.
    pub async fn call_function(&self, handle: Handle, name: String, arguments: Arguments) -> Result<RawBson> {
        let request = |access_token| CallFunction { access_token, name: name.clone(), arguments: arguments.clone() };
        self.authenticated(handle, request).await
    }

    /// Asks a provider for anything except a log-in.
    ///
    /// # Errors
    /// The error of the backend.
    pub async fn act(&self, request: ProviderAction) -> Result<()> {
        self.ask(request).await.map(|_| ())
    }

    /// Links another identity to a user.
    ///
    /// # Errors
    /// If the user is not logged in, or the error of the backend.
    pub async fn link(&self, handle: Handle, credentials: Credentials, reuse: bool) -> Result<()> {
        if self.user_state(handle)? != UserState::LoggedIn {
            return Err(Error::not_logged_in("The specified user is not logged in."));
        }
        if credentials.are_anonymous() && reuse {
            return Err(Error::already_named("Cannot add anonymous credentials to an existing user."));
        }
        let access_token = self.state().get(handle)?.access_token.clone();
        let access = self.ask(Link { access_token, credentials }).await?;
        self.state().refreshed(handle, access)
    }

    /// Lists or changes the API keys of a user.
    ///
    /// # Errors
    /// The error of the backend.
    pub async fn api_keys(&self, handle: Handle, action: ApiKeyAction) -> Result<Vec<ApiKey>> {
        let refresh_token = self.state().get(handle)?.refresh_token.clone();
        let answer = self.ask(ApiKeys { refresh_token, action }).await;
        // As in the SDK, a rejected refresh token ends the session on this device here.
        if answer.as_ref().is_err_and(|error| error.unauthorized) && self.state().log_out(handle)?.is_some() {
            self.keep(handle).await?;
        }
        answer
    }

    /// Registers a user's device for push notifications, or ends that.
    ///
    /// # Errors
    /// The error of the backend.
    pub async fn push(&self, handle: Handle, service: String, action: PushAction) -> Result<()> {
        let request = |access_token| Push { access_token, service: service.clone(), action: action.clone() };
        self.authenticated(handle, request).await.map(|_| ())
    }

    /// Closes the connection, and writes the pending snapshots into the session file. Later calls
    /// fail.
    pub async fn close(&self) {
        self.state().close();
        self.connection.close().await;
        if let Some(snapshots) = self.snapshots.clone() {
            let _ = tokio::task::spawn_blocking(move || snapshots.write(LOCK_PATIENCE)).await;
        }
    }

    /// Writes the pending snapshots into the session file on the calling thread, for a process
    /// that ends. Waits for other processes that change the file up to `patience`; the snapshots
    /// are lost then.
    pub fn write_snapshots(&self, patience: Duration) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.write_last(patience);
        }
    }

    /// Writes the current state of a user into the session file, on another thread. The write
    /// survives a power failure.
    async fn keep(&self, handle: Handle) -> Result<()> {
        let Some(file) = self.session_file.clone() else { return Ok(()) };
        let state = Arc::clone(&self.state);
        let task = tokio::task::spawn_blocking(move || file.update(true, |kept| merge(&lock(&state), handle, kept)));
        task.await.unwrap_or_else(|error| Err(Error::custom(error.to_string())))
    }

    /// Writes the current state of a user into the session file, on the calling thread. The write
    /// survives a power failure.
    fn keep_now(&self, handle: Handle) -> Result<()> {
        match &self.session_file {
            Some(file) => file.update(true, |kept| merge(&self.state(), handle, kept)),
            None => Ok(()),
        }
    }

    fn keep_current(&self) -> Result<()> {
        match self.current_user() {
            Some(handle) => self.keep_now(handle),
            None => Ok(()),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.write_snapshots(EXIT_TIMEOUT);
    }
}

/// Locks a mutex even if it is poisoned: changes are assignments, so a panic leaves no partial
/// change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the current state of a user into the contents of the file. Two changes may be written in
/// any order, so the second write must not restore what the first has replaced.
fn merge(state: &ClientState, handle: Handle, kept: &mut Kept) {
    let Ok(user) = state.get(handle) else { return };
    let place = kept.users.iter().position(|other| other.id == user.id);
    match (place, user.state) {
        (Some(place), UserState::Removed) => {
            kept.users.remove(place);
        }
        (None, UserState::Removed) => {}
        (Some(place), _) => kept.users[place] = user.clone(),
        (None, _) => kept.users.push(user.clone()),
    }
    kept.current = state.current().and_then(|current| state.get(current).ok()).map(|user| user.id.clone());
}

/// Returns the answer that belongs to a request.
fn read<T: TryFrom<Response, Error = Unexpected>>(response: Response) -> Result<T> {
    T::try_from(response).map_err(|_| Error::custom("the backend's response does not fit the request"))
}

#[cfg(test)]
mod tests;
