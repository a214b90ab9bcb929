//! Change streams of users. After a connection error, the stream resumes after its last event,
//! until the user leaves.

use std::time::Duration;

use backend::{
    Secret,
    request::{Arguments, CallFunction},
};
use bson::{
    RawBson,
    raw::{RawDocumentBuf, cstr},
};
use futures_util::future::{Either, select};

use crate::{App, Error, Handle, Result, UserState, connection::EventStream};

/// The shortest and the longest backoff before an interrupted stream resumes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A user's change stream. Nothing is sent before the first call of [`App::next_events`].
#[derive(Debug)]
pub struct UserSubscription {
    handle: Handle,
    service: String,
    /// The arguments of the caller, without a resume token of our own.
    arguments: RawDocumentBuf,
    stream: Option<Box<dyn EventStream>>,
    /// The resume token after the last delivered event.
    position: Option<RawDocumentBuf>,
    /// The user's number of departures when the stream was created; `None` if the user was not
    /// logged in.
    departures: Option<u64>,
    pause: Duration,
}

impl UserSubscription {
    /// Returns the call that opens the stream: the caller's arguments, with the latest resume
    /// token.
    fn call(&self) -> impl Fn(Secret) -> CallFunction + use<> {
        let mut arguments = RawDocumentBuf::new();
        for element in self.arguments.iter_elements().flatten() {
            let is_replaced = self.position.is_some() && element.key().as_str() == "resumeAfter";
            if let (false, Ok(value)) = (is_replaced, element.value()) {
                arguments.append(element.key(), value);
            }
        }
        if let Some(position) = &self.position {
            arguments.append(cstr!("resumeAfter"), RawBson::Document(position.clone()));
        }
        let service = self.service.clone();
        move |access_token| CallFunction {
            access_token,
            name: "watch".to_owned(),
            arguments: Arguments::Service { service: service.clone(), argument: arguments.clone() },
        }
    }
}

impl App {
    /// Creates a change stream for a user. `arguments` are those of the data source's function
    /// `watch`. The stream ends when the user is logged out or removed.
    pub fn watching(&self, handle: Handle, service: String, arguments: RawDocumentBuf) -> UserSubscription {
        let is_there = self.user_state(handle).is_ok_and(|state| state == UserState::LoggedIn);
        let departures = is_there.then(|| self.departures(handle).ok()).flatten();
        UserSubscription { handle, service, arguments, stream: None, position: None, departures, pause: FIRST_PAUSE }
    }

    /// Waits for the next events and returns at least one; `None` once the user has left or the
    /// app is closed.
    ///
    /// Cancel safe: dropping the future loses no event.
    ///
    /// # Errors
    /// The error of the backend, except those that a retry can solve.
    pub async fn next_events(&self, watching: &mut UserSubscription) -> Result<Option<Vec<RawDocumentBuf>>> {
        let mut departed = self.departed();
        // The SDK's message, which tests of applications may expect.
        let refused = || Error::not_logged_in("Request failed: Unauthorized (401)");
        let departures = watching.departures.ok_or_else(refused)?;
        let handle = watching.handle;
        let leaving = async {
            // A dropped sender means that the app is closed.
            while self.departures(handle).is_ok_and(|now| now == departures) && !self.is_closed() {
                if departed.changed().await.is_err() {
                    break;
                }
            }
        };
        let (leaving, going_on) = (std::pin::pin!(leaving), std::pin::pin!(self.go_on(watching)));
        match select(leaving, going_on).await {
            Either::Left(_) => Ok(None),
            Either::Right((events, _)) => events.map(Some),
        }
    }

    async fn go_on(&self, watching: &mut UserSubscription) -> Result<Vec<RawDocumentBuf>> {
        loop {
            let next = match &mut watching.stream {
                Some(stream) => {
                    let next = stream.next().await;
                    watching.position = stream.position().or(watching.position.take());
                    next
                }
                None => {
                    let call = watching.call();
                    let ask = |token| self.connection().watch(call(token));
                    self.with_access_token(watching.handle, ask).await.map(|stream| {
                        watching.position = stream.position().or(watching.position.take());
                        watching.stream = Some(stream);
                        Vec::new()
                    })
                }
            };
            match next {
                Ok(events) if events.is_empty() => {}
                Ok(events) => {
                    watching.pause = FIRST_PAUSE;
                    return Ok(events);
                }
                // If the stream was never open, the error is returned immediately.
                Err(error) if error.interrupted && (watching.stream.is_some() || watching.position.is_some()) => {
                    watching.stream = None;
                    tokio::time::sleep(watching.pause).await;
                    watching.pause = (watching.pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
