//! Following a collection: the stream of its events for a user, taken up again where it was when the way to the backend is
//! interrupted, until the user leaves.

use std::time::Duration;

use backend::{Secret, request::CallFunction};
use bson::{
    RawBson,
    raw::{RawDocumentBuf, cstr},
};
use futures_util::future::{Either, select};

use crate::{App, Error, Handle, Result, UserState, connection::EventStream};

/// How long to wait before an interrupted stream is taken up again: longer each time, but not for ever.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A collection that is followed. Asked for nothing until the first events are waited for.
#[derive(Debug)]
pub struct UserSubscription {
    handle: Handle,
    service: String,
    /// As they were given, without the place from which to go on.
    arguments: RawDocumentBuf,
    stream: Option<Box<dyn EventStream>>,
    /// The place after all that was told.
    position: Option<RawDocumentBuf>,
    /// How often the user had left when it was begun; none where he or she was not there.
    departures: Option<u64>,
    pause: Duration,
}

impl UserSubscription {
    /// What to ask for: what was given, from the place on that was reached.
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
            service: Some(service.clone()),
            name: "watch".to_owned(),
            arguments: arguments.clone(),
        }
    }
}

impl App {
    /// What a user is to follow: `arguments` are those of the data source's function `watch`. It ends when the user leaves after this.
    pub fn watching(&self, handle: Handle, service: String, arguments: RawDocumentBuf) -> UserSubscription {
        let is_there = self.user_state(handle).is_ok_and(|state| state == UserState::LoggedIn);
        let departures = is_there.then(|| self.departures(handle).ok()).flatten();
        UserSubscription { handle, service, arguments, stream: None, position: None, departures, pause: FIRST_PAUSE }
    }

    /// Waits for the next events, at least one; none once the user has left or the app is closed. What is given up before it is
    /// done loses nothing.
    ///
    /// # Errors
    /// What the backend says; nothing that is over when it is asked again.
    pub async fn next_events(&self, watching: &mut UserSubscription) -> Result<Option<Vec<RawDocumentBuf>>> {
        let mut departed = self.departed();
        // In the words of the SDK, which its users' tests ask for.
        let refused = || Error::not_logged_in("Request failed: Unauthorized (401)");
        let departures = watching.departures.ok_or_else(refused)?;
        let handle = watching.handle;
        let leaving = async {
            // A sender that is gone has closed.
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
                // One that never was is an error at once.
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
