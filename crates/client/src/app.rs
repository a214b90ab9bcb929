//! An app as the SDK has it: its users on this device, and what they ask of the backend.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend::{
    Request, Response, Secret,
    request::{CallFunction, Credentials, EmailPasswordRequest, LogIn},
};
use bson::{RawBson, raw::RawDocumentBuf};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    Error, Event, Handle, Metadata, Result, UserState, UserView,
    connection::Connection,
    session_file::{Kept, SessionFile},
    state::{ClientState, User},
};

mod snapshots;

use snapshots::Snapshots;

/// What an app is opened with.
pub struct Settings {
    /// The way to its backend.
    pub connection: Arc<dyn Connection>,
    /// Where its users are kept between runs.
    pub session_file: Option<SessionFile>,
}

impl Settings {
    /// Settings that keep users at `path`, in the way that `metadata` says.
    ///
    /// # Errors
    /// Where an encryption key has not the right length.
    pub fn new(connection: Arc<dyn Connection>, path: Option<std::path::PathBuf>, metadata: &Metadata) -> Result<Self> {
        let session_file = match (path, metadata) {
            (None, _) | (_, Metadata::InMemory) => None,
            (Some(path), Metadata::NoEncryption) => Some(SessionFile::new(path, None)?),
            (Some(path), Metadata::Encryption(key)) => Some(SessionFile::new(path, Some(key))?),
        };
        Ok(Self { connection, session_file })
    }
}

/// An app. Shared by reference; every method may be called from any thread.
#[derive(Debug)]
pub struct App {
    connection: Arc<dyn Connection>,
    session_file: Option<Arc<SessionFile>>,
    /// What refreshes have brought and the session file does not have; none if there is no file.
    snapshots: Option<Arc<Snapshots>>,
    state: Arc<Mutex<ClientState>>,
    /// Held while a token is refreshed, so that calls that fail together refresh once.
    refreshing: tokio::sync::Mutex<()>,
}

impl App {
    /// Opens an app, with the users who were logged in when it was last open.
    ///
    /// # Errors
    /// Where the file of the users cannot be read; it is then left as it is.
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

    /// The current user.
    pub fn current_user(&self) -> Option<Handle> {
        self.state().current()
    }

    /// A user's id.
    ///
    /// # Errors
    /// Where there is no such user.
    pub fn user_id(&self, handle: Handle) -> Result<String> {
        Ok(self.state().get(handle)?.id.clone())
    }

    /// All users that are known, logged in or not, with their ids.
    pub fn all_users(&self) -> Vec<(Handle, String)> {
        self.state().all().map(|(handle, user)| (handle, user.id.clone())).collect()
    }

    /// What is known of a user.
    ///
    /// # Errors
    /// Where there is no such user.
    pub fn user(&self, handle: Handle) -> Result<UserView> {
        self.state().get(handle).map(User::view)
    }

    /// A user's state.
    ///
    /// # Errors
    /// Where there is no such user.
    pub fn user_state(&self, handle: Handle) -> Result<UserState> {
        Ok(self.state().get(handle)?.state)
    }

    /// A user's custom data, as it was when the access token was made.
    ///
    /// # Errors
    /// Where there is no such user.
    pub fn custom_data(&self, handle: Handle) -> Result<Option<RawDocumentBuf>> {
        Ok(self.state().get(handle)?.custom_data.clone())
    }

    /// What the providers told of a user.
    ///
    /// # Errors
    /// Where there is no such user.
    pub fn profile(&self, handle: Handle) -> Result<RawDocumentBuf> {
        Ok(self.state().get(handle)?.profile.clone())
    }

    /// What listeners have not been told yet, in the order in which it happened.
    pub fn take_events(&self) -> Vec<Event> {
        self.state().take_events()
    }

    /// Makes a user current.
    ///
    /// # Errors
    /// Where the user is not logged in.
    pub fn switch_user(&self, handle: Handle) -> Result<()> {
        self.state().switch(handle)?;
        self.keep_current()
    }

    /// Logs in. An anonymous user who is logged in is used again if `reuse` is set.
    ///
    /// # Errors
    /// What the backend says. If only the profile cannot be had, the user is logged in all the same.
    pub async fn log_in(&self, credentials: Credentials, reuse: bool) -> Result<Handle> {
        if matches!(credentials, Credentials::Anonymous) && reuse {
            let existing = self.state().anonymous();
            if let Some(handle) = existing {
                self.switch_user(handle)?;
                return Ok(handle);
            }
        }
        let answer = self.connection.send(Request::LogIn(LogIn { credentials, device_id: None })).await?;
        let Response::Session(session) = answer else { return Err(unexpected()) };
        let access_token = session.access.access_token.clone();
        let handle = self.state().logged_in(session);
        let profile = match self.connection.send(Request::Profile { access_token }).await {
            Ok(Response::Profile(profile)) => profile,
            answer => {
                // A user who was logged out meanwhile has been written as such.
                if self.user_state(handle)? == UserState::LoggedIn {
                    self.keep(handle).await?;
                }
                return Err(answer.err().unwrap_or_else(unexpected));
            }
        };
        // The file is written once, with the profile: until this returns, no caller counts on the log-in.
        {
            let mut state = self.state();
            state.set_profile(handle, profile)?;
            // Logged out while the profile was on its way: there is nobody to make current.
            state.switch(handle)?;
        }
        self.keep(handle).await?;
        Ok(handle)
    }

    /// Logs a user out: on this device at once, then the session. The local part is done before the first await.
    ///
    /// # Errors
    /// Where the session cannot be ended; the user is logged out all the same.
    pub async fn log_out(&self, handle: Handle) -> Result<()> {
        let refresh_token = self.state().log_out(handle)?;
        let Some(refresh_token) = refresh_token else { return Ok(()) };
        self.keep_now(handle)?;
        self.end_session(refresh_token).await
    }

    /// Logs a user out if need be, and forgets the user. The local part is done before the first await.
    ///
    /// # Errors
    /// Where the user has been removed already, or the session cannot be ended.
    pub async fn remove_user(&self, handle: Handle) -> Result<()> {
        let refresh_token = self.state().remove(handle)?;
        self.keep_now(handle)?;
        match refresh_token {
            Some(refresh_token) => self.end_session(refresh_token).await,
            None => Ok(()),
        }
    }

    async fn end_session(&self, refresh_token: Secret) -> Result<()> {
        // What the backend does is never part of the call itself, however near the backend is: listeners of the app
        // hear of it later than the caller goes on.
        tokio::task::yield_now().await;
        self.connection.send(Request::EndSession { refresh_token }).await?;
        self.state().notify_app();
        Ok(())
    }

    /// Deletes a user, on the backend and here.
    ///
    /// # Errors
    /// Where the user is not logged in or the backend refuses; the user is then still there.
    pub async fn delete_user(&self, handle: Handle) -> Result<()> {
        if self.user_state(handle)? != UserState::LoggedIn {
            return Err(Error::not_logged_in("User must be logged in to be deleted."));
        }
        self.authenticated(handle, |access_token| Request::DeleteUser { access_token }).await?;
        self.state().deleted(handle)?;
        self.keep(handle).await
    }

    /// Gets a new access token, and with it the custom data as it is now.
    ///
    /// # Errors
    /// Where the user is not logged in or the session has ended. The user stays logged in on this device.
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
        let answer = self.connection.send(Request::RefreshSession { refresh_token }).await?;
        let Response::AccessGrant(access) = answer else { return Err(unexpected()) };
        self.state().refreshed(handle, access)?;
        // A token that a crash takes away is had again with the refresh token.
        if let Some(snapshots) = &self.snapshots {
            snapshots.write_later(handle);
        }
        Ok(())
    }

    /// Sends a request with a user's access token.
    async fn authenticated(&self, handle: Handle, request: impl Fn(Secret) -> Request) -> Result<Response> {
        self.with_access_token(handle, |token| self.connection.send(request(token))).await
    }

    /// Asks something with a user's access token. If the token is not accepted, gets another, once, and asks again.
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
        // A refresh is never part of the call itself, however near the backend is: listeners hear of it before the
        // caller goes on, and not of what a call does before it returns.
        tokio::task::yield_now().await;
        {
            let _one_at_a_time = self.refreshing.lock().await;
            let is_stale = access_token(self)?.1 == used;
            if is_stale && let Err(failed) = self.refresh(handle).await {
                // The caller's own error, but whether the session has ended nobody has said then.
                return Err(Error { interrupted: failed.interrupted, ..error });
            }
        }
        ask(access_token(self)?.0).await
    }

    pub(crate) fn connection(&self) -> &dyn Connection {
        &*self.connection
    }

    /// Says something whenever a user leaves, and when the app is closed.
    pub(crate) fn departed(&self) -> watch::Receiver<()> {
        self.state().departed()
    }

    /// How often a user has left.
    pub(crate) fn departures(&self, handle: Handle) -> Result<u64> {
        Ok(self.state().get(handle)?.departures)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed()
    }

    /// Calls a function, or one of a data source's.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn call_function(
        &self,
        handle: Handle,
        service: Option<String>,
        name: String,
        arguments: RawDocumentBuf,
    ) -> Result<RawBson> {
        let request = |access_token| {
            Request::CallFunction(CallFunction {
                access_token,
                service: service.clone(),
                name: name.clone(),
                arguments: arguments.clone(),
            })
        };
        match self.authenticated(handle, request).await? {
            Response::Value(value) => Ok(value),
            _ => Err(unexpected()),
        }
    }

    /// Asks something of the e-mail/password provider.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn email_password(&self, request: EmailPasswordRequest) -> Result<()> {
        self.connection.send(Request::EmailPassword(request)).await.map(|_| ())
    }

    /// Links another identity to a user.
    ///
    /// # Errors
    /// Where the user is not logged in, or what the backend says.
    pub async fn link(&self, handle: Handle, credentials: &Credentials, reuse: bool) -> Result<()> {
        if self.user_state(handle)? != UserState::LoggedIn {
            return Err(Error::not_logged_in("The specified user is not logged in."));
        }
        if matches!(credentials, Credentials::Anonymous) && reuse {
            return Err(Error::already_named("Cannot add anonymous credentials to an existing user."));
        }
        let access_token = self.state().get(handle)?.access_token.clone();
        self.connection.send(Request::Link { access_token }).await.map(|_| ())
    }

    /// Asks something about a user's API keys.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn api_keys(&self, handle: Handle) -> Result<()> {
        let refresh_token = self.state().get(handle)?.refresh_token.clone();
        let answer = self.connection.send(Request::ApiKeys { refresh_token }).await;
        // As in the SDK, a refresh token that is not accepted here ends the session on this device.
        if answer.as_ref().is_err_and(|error| error.unauthorized) && self.state().log_out(handle)?.is_some() {
            self.keep(handle).await?;
        }
        answer.map(|_| ())
    }

    /// Registers for, or unregisters from, push notifications.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn push(&self, handle: Handle, service: String) -> Result<()> {
        self.authenticated(handle, |access_token| Request::Push { access_token, service: service.clone() })
            .await
            .map(|_| ())
    }

    /// Releases the backend, and writes what refreshes have brought into the session file. Later calls fail.
    pub async fn close(&self) {
        self.state().close();
        self.connection.close().await;
        if let Some(snapshots) = self.snapshots.clone() {
            let _ = tokio::task::spawn_blocking(move || snapshots.write()).await;
        }
    }

    /// Writes what refreshes have brought into the session file now, on the calling thread, for a process that ends.
    pub fn write_snapshots(&self) {
        if let Some(snapshots) = &self.snapshots {
            let _ = snapshots.write();
        }
    }

    /// Writes a user as he or she is, off the calling thread. Survives a power cut.
    async fn keep(&self, handle: Handle) -> Result<()> {
        let Some(file) = self.session_file.clone() else { return Ok(()) };
        let state = Arc::clone(&self.state);
        let task = tokio::task::spawn_blocking(move || file.update(true, |kept| merge(&lock(&state), handle, kept)));
        task.await.unwrap_or_else(|error| Err(Error::custom(error.to_string())))
    }

    /// Writes a user as he or she is, before anything else happens. Survives a power cut.
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
        self.write_snapshots();
    }
}

/// A holder that panicked left nothing half done: each change is made of assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a user into what the file holds, as he or she is at this moment: of two changes whose writing is under way, the
/// one that is written last must not bring back what the other has changed since.
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

fn unexpected() -> Error {
    Error::custom("the backend's answer does not belong to the request")
}

#[cfg(test)]
mod tests;
