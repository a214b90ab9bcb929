//! Shares the text of large change events between the streams that send them.
//!
//! Streams that send the same event at the same time share one copy of its text. A worker thread
//! serializes it once, and the memory is released when the last stream has sent it. The `_id`
//! differs from user to user, so each stream writes its own `_id` before the shared text. The text
//! counts once for each place and once for each user, so that many clients of one place can follow
//! a collection with large documents.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use backend::{Audience, ChangeEvent, Origin, ejson::Canonical};
use bson::{
    raw::{RawBsonRef, RawDocument},
    rawdoc,
};
use bytes::Bytes;
use tokio::sync::OnceCell;

use protocol::event;

use crate::{
    answer::Answer,
    budget::{Budget, Permit},
    workers::Workers,
};

/// Estimated ratio of the size of an event's text to the size of its BSON. The exact size is
/// counted after serialization.
const TEXT_FACTOR: usize = 2;

/// The large events that streams are sending.
#[derive(Debug)]
pub(crate) struct LargeEvents {
    answers: Arc<Budget>,
    /// Keyed by the memory address of the event and by the audience.
    events: Mutex<HashMap<(usize, Audience), Weak<SharedEvent>>>,
}

/// A large event that one or more streams are sending.
#[derive(Debug)]
struct SharedEvent {
    event: Arc<ChangeEvent>,
    audience: Audience,
    text: OnceCell<Bytes>,
    /// Counts the text in the total of the budget.
    permit: Mutex<Permit>,
    /// The places and users whose streams send the event. Each has a permit for its share, and the
    /// number of its streams.
    holders: Mutex<HashMap<Holder, (Permit, usize)>>,
}

/// A place or a user, with a share of the budget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Place(IpAddr),
    User(Arc<str>),
}

/// The place and the user of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) origin: Origin,
    pub(crate) user: Arc<str>,
}

/// An event that a stream has to send.
#[derive(Debug)]
pub(crate) struct LargeEvent {
    shared: Arc<SharedEvent>,
    /// Empty for networks without shares.
    holders: Vec<Holder>,
}

impl LargeEvents {
    pub(crate) fn new(answers: &Arc<Budget>) -> Self {
        Self { answers: Arc::clone(answers), events: Mutex::default() }
    }

    /// Counts an event for a client that will receive it.
    ///
    /// # Errors
    /// If the event exceeds the share of the place or the user, or the total of the budget.
    pub(crate) fn hold(
        &self,
        event: &Arc<ChangeEvent>,
        audience: Audience,
        client: &Client,
    ) -> Result<LargeEvent, Answer> {
        let mut held = LargeEvent { shared: self.shared(event, audience), holders: Vec::new() };
        let bytes = held.shared.text.get().map_or(TEXT_FACTOR * event.size(), Bytes::len);
        {
            let mut permit = lock(&held.shared.permit);
            if permit.is_empty() {
                permit.resize(bytes)?;
            }
        }
        let Client { origin, user } = client;
        if !origin.is_shared {
            for holder in [Holder::Place(origin.place()), Holder::User(Arc::clone(user))] {
                let share = match &holder {
                    Holder::Place(place) => self.answers.share_of_place(*place),
                    Holder::User(user) => self.answers.share_of_user(user),
                };
                held.shared.add(&holder, share, bytes)?;
                held.holders.push(holder);
            }
        }
        Ok(held)
    }

    /// Returns the shared event for this audience. Creates it if no stream is sending it.
    fn shared(&self, event: &Arc<ChangeEvent>, audience: Audience) -> Arc<SharedEvent> {
        let mut events = lock(&self.events);
        let key = (Arc::as_ptr(event) as usize, audience);
        if let Some(shared) = events.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        if events.len() == events.capacity() {
            events.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared = Arc::new(SharedEvent {
            event: Arc::clone(event),
            audience,
            text: OnceCell::new(),
            permit: Mutex::new(self.answers.permit_of_all()),
            holders: Mutex::default(),
        });
        events.insert(key, Arc::downgrade(&shared));
        shared
    }
}

impl SharedEvent {
    /// Adds a stream of a place or a user. Only its first stream counts for the share.
    fn add(&self, holder: &Holder, mut permit: Permit, bytes: usize) -> Result<(), Answer> {
        match lock(&self.holders).entry(holder.clone()) {
            Entry::Occupied(mut entry) => entry.get_mut().1 += 1,
            Entry::Vacant(entry) => {
                permit.resize(bytes)?;
                entry.insert((permit, 1));
            }
        }
        Ok(())
    }

    /// Removes a stream of a place or a user. Releases the share with its last stream.
    fn remove(&self, holder: &Holder) {
        let mut holders = lock(&self.holders);
        if let Entry::Occupied(mut entry) = holders.entry(holder.clone()) {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }
}

impl LargeEvent {
    /// Returns the event.
    pub(crate) fn event(&self) -> &Arc<ChangeEvent> {
        &self.shared.event
    }

    /// Returns the text of the event after the part of [`write_id`]. The first call serializes it
    /// on a worker thread.
    ///
    /// # Errors
    /// If the text is larger than estimated and exceeds the budget, or if the serialization
    /// panics.
    pub(crate) async fn text(&self, workers: &Workers) -> Result<Bytes, Answer> {
        let write = || async {
            let (event, audience) = (Arc::clone(&self.shared.event), self.shared.audience);
            let write = move || {
                let mut text = Vec::with_capacity(event.size());
                write_json(&mut text, &event.body(audience));
                text.extend_from_slice(END);
                // `write_id` writes the opening brace, before the `_id`.
                Bytes::from(text).slice(1..)
            };
            workers.run(write).await
        };
        let text = self.shared.text.get_or_try_init(write).await?;
        lock(&self.shared.permit).resize(text.len())?;
        let mut holders = lock(&self.shared.holders);
        for holder in &self.holders {
            if let Some((permit, _)) = holders.get_mut(holder) {
                permit.resize(text.len())?;
            }
        }
        Ok(text.clone())
    }
}

impl Drop for LargeEvent {
    fn drop(&mut self) {
        self.holders.iter().for_each(|holder| self.shared.remove(holder));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The prefix of the data of a server-sent event.
const BEGIN: &[u8] = b"data: ";

/// The end of the data of a server-sent event.
const END: &[u8] = b"\n\n";

/// Appends a document as the data of a server-sent event.
pub(crate) fn write_document(text: &mut Vec<u8>, document: &RawDocument) {
    text.extend_from_slice(BEGIN);
    write_json(text, document);
    text.extend_from_slice(END);
}

/// Appends the start of the data of a server-sent event, up to and including the `_id` of the
/// document. [`LargeEvent::text`] returns the rest.
pub(crate) fn write_id(text: &mut Vec<u8>, id: &RawDocument) {
    text.extend_from_slice(BEGIN);
    write_json(text, &rawdoc! { "_id": id.to_owned() });
    text.pop();
    text.push(b',');
}

fn write_json(text: &mut Vec<u8>, document: &RawDocument) {
    // Cannot fail, because the writer never fails.
    let _ = serde_json::to_writer(Data(text), &Canonical(RawBsonRef::Document(document)));
}

/// Appends JSON as the data of a server-sent event.
pub(crate) fn write_data(text: &mut Vec<u8>, json: &[u8]) {
    text.extend_from_slice(BEGIN);
    event::escape(text, json);
    text.extend_from_slice(END);
}

/// A writer that escapes the data of an event.
struct Data<'t>(&'t mut Vec<u8>);

impl std::io::Write for Data<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        event::escape(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn escapes_percent_signs_and_line_ends() {
        let mut text = Vec::new();
        write_data(&mut text, b"100%\r\nof {}");
        assert_eq!(text, b"data: 100%25%0D%0Aof {}\n\n");
        text.clear();
        write_document(&mut text, &rawdoc! { "share": "5 %" });
        assert_eq!(text, b"data: {\"share\":\"5 %25\"}\n\n");
    }

    fn event(bytes: usize) -> Arc<ChangeEvent> {
        Arc::new(ChangeEvent {
            token: "token".into(),
            kind: backend::ChangeKind::Insert,
            cluster_time: bson::Timestamp { time: 1, increment: 1 },
            namespace: backend::Namespace::new("app", "people"),
            key: rawdoc! { "_id": 1 },
            document: Some(rawdoc! { "_id": 1, "name": "x".repeat(bytes) }),
            is_exact: true,
            description: None,
        })
    }

    fn client(address: &str, user: &str) -> Client {
        Client { origin: Origin { address: address.parse().unwrap(), is_shared: false }, user: user.into() }
    }

    #[tokio::test]
    async fn streams_share_the_text_of_an_event_until_the_last_one_has_sent_it() {
        let (events, workers) = (LargeEvents::new(&Budget::new("answers", 1_000_000)), Workers::new());
        let (event, here) = (event(10_000), client("192.0.2.1", "a"));
        let first = events.hold(&event, Audience::User, &here).unwrap();
        let second = events.hold(&event, Audience::User, &client("192.0.2.2", "b")).unwrap();
        let (text, same) = (first.text(&workers).await.unwrap(), second.text(&workers).await.unwrap());
        assert_eq!(text.as_ptr(), same.as_ptr());
        let other = events.hold(&Arc::new((*event).clone()), Audience::User, &here).unwrap();
        assert_ne!(text.as_ptr(), other.text(&workers).await.unwrap().as_ptr());
        let released = Arc::downgrade(&first.shared);
        drop((first, second));
        assert!(released.upgrade().is_none());
    }

    #[tokio::test]
    async fn a_stream_writes_its_own_id_before_the_shared_text_of_its_audience() {
        let (events, workers) = (LargeEvents::new(&Budget::new("answers", 1_000_000)), Workers::new());
        let event = Arc::new(ChangeEvent {
            kind: backend::ChangeKind::Update,
            is_exact: false,
            description: Some(rawdoc! { "updatedFields": { "secret": 7 }, "removedFields": [] }),
            ..(*event(10_000)).clone()
        });
        for audience in [Audience::User, Audience::Operator] {
            let held = events.hold(&event, audience, &client("192.0.2.1", "a")).unwrap();
            let shared = held.text(&workers).await.unwrap();
            for token in ["one", "100%"] {
                let (mut whole, mut text) = (Vec::new(), Vec::new());
                write_document(&mut whole, &event.to_document(&token.into(), audience));
                write_id(&mut text, &rawdoc! { "_data": token });
                text.extend_from_slice(&shared);
                assert_eq!(text, whole);
            }
            let has_secret = shared.windows(6).any(|bytes| bytes == b"secret");
            assert_eq!(has_secret, audience == Audience::Operator);
        }
    }

    #[tokio::test]
    async fn an_event_counts_once_per_place_and_user_until_the_last_stream_has_sent_it() {
        let answers = Budget::new("answers", 8 * 50_000);
        let (events, workers) = (LargeEvents::new(&answers), Workers::new());
        let (first, second) = (event(40_000), event(40_000));
        let hold = |event, address: &str, user: &str| events.hold(event, Audience::User, &client(address, user));
        // Many users in one place, and many places.
        let held: Vec<LargeEvent> = (0..100)
            .flat_map(|user| [(1, user), (user, user)])
            .map(|(place, user)| hold(&first, &format!("198.51.100.{place}"), &format!("{user}")).unwrap())
            .collect();
        drop(held);
        let held: Vec<LargeEvent> = (0..100).map(|_| hold(&first, "192.0.2.1", "a").unwrap()).collect();
        held[0].text(&workers).await.unwrap();
        assert!(hold(&second, "192.0.2.1", "b").is_err(), "the place has used its share");
        assert!(hold(&second, "192.0.2.2", "a").is_err(), "the share of a user spans all places");
        assert!(hold(&second, "192.0.2.2", "b").is_ok());
        drop(held);
        hold(&second, "192.0.2.1", "a").unwrap();
        answers.permit_of_all().grow(8 * 50_000).unwrap();
    }
}
