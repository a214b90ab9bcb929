//! Change streams.
//!
//! All watchers of a collection share one change stream of the server. A task reads it, reopens it
//! at the last resume token when the connection or the primary is lost, and buffers the latest
//! events for slower watchers. A watcher that resumes at a token, or that falls behind the buffer,
//! shares a second stream with the other watchers at that token until it has caught up.
//!
//! An event carries the document as the change left it if the server has stored the pre-image.
//! Without the pre-image, an update carries the document as the server finds it when it reports
//! the event, and a deletion carries the key alone
//! (<https://www.mongodb.com/docs/manual/changeStreams/#change-streams-with-document-pre--and-post-images>).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use bson::{
    Document, Timestamp, doc,
    raw::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::future::{BoxFuture, FutureExt};
use mongodb::{
    change_stream::{ChangeStream as DriverStream, event::ResumeToken as DriverToken},
    options::{FullDocumentBeforeChangeType, FullDocumentType},
};
use query::{Budget, Filter, Path, Update, append, elements, get};
use tokio::{
    sync::{Notify, OnceCell},
    task::JoinHandle,
};

use super::{
    MongoStore,
    connect::{Kind, Shared, lock},
    errors,
    indexes::{NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND},
    read::{has_odd_names, millis},
};
use crate::{ChangeEvent, ChangeKind, ChangeStream, Error, Namespace, Result, ResumeToken, SystemEnvironment, Watch};

/// The maximum number of events, and of their bytes, that a live stream buffers for slower
/// watchers.
const KEPT: usize = 4096;
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// Buffer limits of a stream that began at a token. There may be thousands of such streams with
/// watchers that do not read. A single event above the limit is still buffered.
const KEPT_RESUMED: usize = 64;
const KEPT_RESUMED_BYTES: usize = 256 * 1024;

/// Time during which a stream that began at a token buffers, within its limits, events that all
/// its watchers have taken. Clients that lost their streams together resume at the same token
/// within seconds.
const SHARING: Duration = Duration::from_secs(5);

/// The shortest and the longest pause before a stream is reopened; the pause doubles after each
/// failure.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Time that the server waits for an event of a stream that began at a token, and the shortest
/// pause before the next request.
const SHORT_WAIT: Duration = Duration::from_millis(1);
const IDLE_PAUSE: Duration = Duration::from_millis(150);

/// The longest pause before the next request while no event arrives.
const LONGEST_IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Time without a reply after which a stream is reopened. The server replies about once a second,
/// with or without events.
const SILENCE: Duration = Duration::from_secs(10);

/// Time that a stream waits for its watchers before it drops the events that the driver has
/// fetched.
const STALLED: Duration = Duration::from_secs(1);

/// The maximum number of events that the driver fetches at once for a stream that began at a
/// token.
const BATCH_RESUMED: u32 = 16;

/// Server error: the event is larger than the server can send.
const TOO_LARGE: i32 = 10334;

/// Server error: change streams need a replica set.
const NOT_ON_STANDALONE: i32 = 40573;

/// Server errors that reopening cannot fix: lost history, an invalid token, missing rights, no
/// change streams.
const FATAL: [i32; 10] = [286, 260, 280, 222, 13, 18, 20, 73, TOO_LARGE, NOT_ON_STANDALONE];

/// The server errors that mean an invalid resume token.
const NO_TOKEN: [i32; 8] = [260, 9, 14, 40647, 40648, 40649, 50811, 50795];

/// The reason why a stream has ended.
#[derive(Debug, Clone)]
enum End {
    Closed,
    Because(query::Error),
}

impl End {
    fn of(error: &Error) -> Self {
        match error {
            Error::Closed => Self::Closed,
            Error::Query(error) => Self::Because(error.clone()),
            other => Self::Because(query::Error { code: query::ErrorCode::by_number(280), message: other.to_string() }),
        }
    }

    fn error(&self) -> Error {
        match self {
            Self::Closed => Error::Closed,
            Self::Because(error) => Error::Query(error.clone()),
        }
    }
}

/// The buffer of a hub, and the positions of its watchers in it.
#[derive(Default)]
struct HubState {
    events: VecDeque<Arc<ChangeEvent>>,
    bytes: usize,
    /// The sequence number of the first buffered event.
    first: u64,
    /// The resume token after everything that has been read.
    position: Option<ResumeToken>,
    /// Set when the stream has ended.
    end: Option<End>,
    /// The sequence numbers of the next events to take, with the number of watchers at each.
    places: BTreeMap<u64, usize>,
    /// End of the time during which events that all watchers have taken stay in the buffer.
    sharing_until: Option<Instant>,
}

impl HubState {
    /// The sequence number of the next event to be added.
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn is_full(&self, is_live: bool) -> bool {
        let (most, most_bytes) = if is_live { (KEPT, KEPT_BYTES) } else { (KEPT_RESUMED, KEPT_RESUMED_BYTES) };
        self.events.len() >= most || self.bytes >= most_bytes
    }

    fn push(&mut self, event: ChangeEvent) {
        self.bytes += event.size();
        self.position = Some(event.token.clone());
        self.events.push_back(Arc::new(event));
    }

    fn drop_first(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.size();
            self.first += 1;
        }
    }

    /// Registers a watcher whose next event is `place`.
    fn enter(&mut self, place: u64) {
        *self.places.entry(place).or_default() += 1;
    }

    /// Removes a watcher whose next event is `place`.
    fn leave(&mut self, place: u64) {
        if let Some(watchers) = self.places.get_mut(&place) {
            *watchers -= 1;
            if *watchers == 0 {
                self.places.remove(&place);
            }
        }
    }

    /// Drops events to make room for one more. A live stream never waits for its watchers. A
    /// stream that began at a token waits for its fastest watcher: it has no room until a watcher
    /// has taken its first event.
    fn make_room(&mut self, is_live: bool) {
        let fastest = self.places.last_key_value().map_or(0, |(place, _)| *place);
        while self.is_full(is_live) && !self.events.is_empty() && (is_live || self.first < fastest) {
            self.drop_first();
        }
    }

    /// Drops the events that all watchers of a stream that began at a token have taken.
    fn drop_taken(&mut self) {
        let is_shared = self.sharing_until.is_some_and(|until| Instant::now() < until);
        // Watchers that have fallen behind continue in another stream.
        let slowest = self.places.range(self.first..).next().map_or(self.first, |(place, _)| *place);
        while self.first < slowest && !self.events.is_empty() && (!is_shared || self.is_full(false)) {
            self.drop_first();
        }
    }
}

/// The hubs of a store that have watchers.
#[derive(Default)]
pub(super) struct Hubs {
    live: HashMap<Namespace, Weak<Hub>>,
    resumed: HashMap<(Namespace, ResumeToken), Weak<Hub>>,
}

impl Hubs {
    /// Ends all streams with an error.
    pub(super) fn end(self, error: &Error) {
        let hubs = self.live.into_values().chain(self.resumed.into_values());
        hubs.filter_map(|hub| hub.upgrade()).for_each(|hub| hub.end(error));
    }

    fn remove(&mut self, hub: &Arc<Hub>) {
        let is_this = |other: &Weak<Hub>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(hub));
        match &hub.after {
            None => {
                if self.live.get(&hub.namespace).is_some_and(is_this) {
                    self.live.remove(&hub.namespace);
                }
            }
            Some(after) => {
                let key = (hub.namespace.clone(), after.clone());
                if self.resumed.get(&key).is_some_and(is_this) {
                    self.resumed.remove(&key);
                }
            }
        }
    }
}

/// One change stream of the server, with its buffered events.
struct Hub {
    namespace: Namespace,
    /// The token at which the stream began; `None` for the live stream of the collection.
    after: Option<ResumeToken>,
    state: Mutex<HubState>,
    /// Notifies watchers of new events or of the end.
    changed: Notify,
    /// Notifies the reader that events have been taken or that a watcher has left.
    drained: Notify,
    started: OnceCell<()>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The position at which a stream begins.
#[derive(Clone)]
enum Start {
    /// Now, with the current time of the server's clock if it is known.
    Now(Option<Timestamp>),
    /// After this resume token.
    After(ResumeToken),
}

impl Hub {
    fn new(namespace: Namespace, after: Option<ResumeToken>) -> Self {
        Self {
            namespace,
            after,
            state: Mutex::default(),
            changed: Notify::new(),
            drained: Notify::new(),
            started: OnceCell::new(),
        }
    }

    fn is_live(&self) -> bool {
        self.after.is_none()
    }

    fn end(&self, error: &Error) {
        lock(&self.state).end.get_or_insert(End::of(error));
        self.changed.notify_waiters();
    }

    /// Opens the stream and starts the task that reads it. Later calls wait for the first one.
    async fn start(self: &Arc<Self>, shared: &Arc<Shared>, start: Start) -> Result<()> {
        let (shared_by, namespace, is_live) = (Arc::clone(shared), self.namespace.clone(), self.is_live());
        let (with_before, care, pause) = (true, EventFilter::None, IDLE_PAUSE);
        let reader = Reader { shared: shared_by, namespace, start, is_live, with_before, care, pause };
        let begin = async {
            let mut reader = reader;
            let stream = shared.within_all(reader.open()).await?;
            {
                let mut state = lock(&self.state);
                state.position = stream.resume_token().and_then(|token| token_of(&token));
                state.sharing_until = Instant::now().checked_add(SHARING);
            }
            tokio::spawn(reader.run(stream, Arc::downgrade(self)));
            Ok(())
        };
        self.started.get_or_try_init(|| begin).await.copied()
    }

    /// Adds an event as soon as there is room. Returns the event if there is no room before the
    /// timeout, and drops it if the hub has no watchers.
    async fn add(&self, event: ChangeEvent, timeout: Duration) -> Option<ChangeEvent> {
        let until = tokio::time::Instant::now() + timeout;
        loop {
            let drained = self.drained.notified();
            {
                let mut state = lock(&self.state);
                // A hub without watchers is never joined again.
                if state.places.is_empty() {
                    return None;
                }
                state.make_room(self.is_live());
                if !state.is_full(self.is_live()) || state.end.is_some() {
                    state.push(event);
                    break;
                }
            }
            if tokio::time::Instant::now() >= until {
                return Some(event);
            }
            let _ = tokio::time::timeout_at(until, drained).await;
        }
        self.changed.notify_waiters();
        None
    }

    /// Adds an event and waits for room without a time limit.
    async fn add_at_last(&self, mut event: ChangeEvent) {
        while let Some(again) = self.add(event, LONGEST_PAUSE).await {
            event = again;
        }
    }
}

type RawStream = DriverStream<RawDocumentBuf>;

/// The task that reads a stream of the server.
struct Reader {
    shared: Arc<Shared>,
    namespace: Namespace,
    start: Start,
    /// False for a stream that began at a token: it holds no connection between two requests.
    is_live: bool,
    /// True if the reader requests pre-images, which old servers do not support.
    with_before: bool,
    care: EventFilter,
    /// Time until the next request if no event arrives.
    pause: Duration,
}

/// Steps by which a stream gets past an event that is larger than the server can send. Otherwise
/// any client that can write a document could end all streams of its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventFilter {
    None,
    /// Fetches events one by one, until the oversized event is the next.
    OneByOne,
    /// Fetches the next event without its contents and skips it.
    PassOver,
}

/// The result of one read.
enum Read {
    Event(Box<ChangeEvent>),
    /// No event, or one that is skipped.
    Nothing,
    /// The stream has no watchers left.
    Over,
    /// No event, and the stream has to be reopened.
    Again(mongodb::error::Error),
}

impl Reader {
    async fn open(&mut self) -> Result<RawStream> {
        loop {
            match self.try_open().await {
                Err(error) if self.with_before && matches!(errors::code(&error), Some(9 | 40415 | 40414)) => {
                    self.with_before = false;
                }
                Err(error) => return Err(errors::read(error, false)),
                Ok(stream) => return Ok(stream),
            }
        }
    }

    async fn try_open(&self) -> mongodb::error::Result<RawStream> {
        let collection = self.shared.to_follow(&self.namespace).await.map_err(mongodb::error::Error::custom)?;
        let mut watch = collection.watch();
        watch = match self.care {
            EventFilter::PassOver => watch.pipeline([doc! { "$project": { "_id": 1 } }]),
            EventFilter::None | EventFilter::OneByOne => watch.full_document(FullDocumentType::UpdateLookup),
        };
        if self.care != EventFilter::None {
            watch = watch.batch_size(1);
        } else if !self.is_live {
            watch = watch.batch_size(BATCH_RESUMED);
        }
        if !self.is_live {
            watch = watch.max_await_time(SHORT_WAIT);
        }
        if self.with_before && self.care != EventFilter::PassOver {
            // Only expanded events distinguish a path from a name that contains a dot.
            watch = watch
                .full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable)
                .show_expanded_events(true);
        }
        watch = match &self.start {
            Start::Now(None) => watch,
            Start::Now(Some(time)) => watch.start_at_operation_time(*time),
            Start::After(token) => watch.start_after(driver_token(token)?),
        };
        let opened = tokio::time::timeout(self.shared.timeout, watch);
        Ok(opened.await.map_err(|_| mongodb::error::Error::custom("no answer"))??.with_type())
    }

    /// Reads until the stream has no watchers.
    async fn run(mut self, mut stream: RawStream, hub: Weak<Hub>) {
        loop {
            let read = self.read(&mut stream, &hub).await;
            let Some(hub) = hub.upgrade() else { return };
            let again = match read {
                Read::Over => return,
                Read::Nothing => continue,
                Read::Again(error) => Some(error),
                Read::Event(event) => {
                    let Some(event) = hub.add(*event, STALLED).await else { continue };
                    // No watcher reads, so the events that the driver has fetched are released.
                    drop(stream);
                    hub.add_at_last(event).await;
                    None
                }
            };
            match self.reopen(again, &hub).await {
                Some(again) => stream = again,
                None => return,
            }
        }
    }

    async fn read(&mut self, stream: &mut RawStream, hub: &Weak<Hub>) -> Read {
        let raw = match tokio::time::timeout(SILENCE, stream.next_if_any()).await {
            Ok(Ok(raw)) => raw,
            Ok(Err(error)) => return Read::Again(error),
            Err(_) => return Read::Again(mongodb::error::Error::custom("no answer")),
        };
        let Some(hub) = hub.upgrade() else { return Read::Over };
        if lock(&hub.state).end.is_some() {
            return Read::Over;
        }
        let Some(raw) = raw else {
            if let Some(token) = stream.resume_token().and_then(|token| token_of(&token)) {
                self.start = Start::After(token.clone());
                let mut state = lock(&hub.state);
                state.position = Some(token);
                if !self.is_live {
                    state.drop_taken();
                }
            }
            drop(hub);
            if !self.is_live {
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_IDLE_PAUSE);
            }
            // The collection was dropped or renamed: the stream continues with the next collection
            // of that name.
            return match stream.is_alive() {
                true => Read::Nothing,
                false => Read::Again(mongodb::error::Error::custom("the stream has ended")),
            };
        };
        self.pause = IDLE_PAUSE;
        let token = raw.get_document("_id").ok().and_then(ResumeToken::read);
        if let Some(token) = &token {
            self.start = Start::After(token.clone());
        }
        if self.care == EventFilter::PassOver {
            self.care = EventFilter::None;
            lock(&hub.state).position = token;
            let namespace = &self.namespace;
            tracing::warn!(%namespace, "skipped a change event that is larger than the database can send");
            return Read::Again(mongodb::error::Error::custom("an event was passed over"));
        }
        match event(&self.namespace, &raw) {
            Some(event) => Read::Event(Box::new(event)),
            None => Read::Nothing,
        }
    }

    /// Reopens the stream after the last event that was read. Returns `None` if reopening cannot
    /// help.
    async fn reopen(&mut self, mut error: Option<mongodb::error::Error>, hub: &Arc<Hub>) -> Option<RawStream> {
        let mut pause = FIRST_PAUSE;
        loop {
            let code = error.as_ref().and_then(errors::code);
            match (code, self.care) {
                (Some(TOO_LARGE), EventFilter::None) => self.care = EventFilter::OneByOne,
                (Some(TOO_LARGE), EventFilter::OneByOne) => self.care = EventFilter::PassOver,
                _ => {
                    let is_fatal = code.is_some_and(|code| FATAL.contains(&code));
                    if is_fatal || self.shared.check_open().is_err() {
                        let error = error.take().map_or(Error::Closed, |error| errors::read(error, false));
                        hub.end(&error);
                        return None;
                    }
                }
            }
            tracing::debug!(namespace = %self.namespace, "reopening a change stream");
            if error.is_some() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if lock(&hub.state).places.is_empty() {
                return None;
            }
            match self.try_open().await {
                Ok(stream) => return Some(stream),
                Err(other) => error = Some(other),
            }
        }
    }
}

/// A watcher's position in a hub.
struct HubCursor {
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    /// The sequence number of the event to take next.
    next: u64,
}

impl std::fmt::Debug for HubCursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HubCursor").field("hub", &self.hub).field("next", &self.next).finish_non_exhaustive()
    }
}

impl HubCursor {
    /// Returns the position after the last event that the hub has read. The caller holds the lock
    /// of the hubs, so that the hub is not removed meanwhile.
    fn at_end(shared: &Arc<Shared>, hub: Arc<Hub>) -> Self {
        let next = {
            let mut state = lock(&hub.state);
            let next = state.next();
            state.enter(next);
            next
        };
        Self { shared: Arc::clone(shared), hub, next }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(moving) = self.moving.take() {
            moving.abort();
        }
    }
}

impl Drop for HubCursor {
    fn drop(&mut self) {
        let mut hubs = lock(&self.shared.hubs);
        {
            let mut state = lock(&self.hub.state);
            state.leave(self.next);
            if state.places.is_empty() {
                hubs.remove(&self.hub);
            } else if !self.hub.is_live() {
                state.drop_taken();
            }
        }
        drop(hubs);
        self.hub.drained.notify_waiters();
    }
}

/// A reader of change events.
#[derive(Debug)]
pub(super) struct Watcher {
    store: MongoStore,
    namespace: Namespace,
    place: HubCursor,
    position: Option<ResumeToken>,
    /// Events up to and including this time are skipped.
    since: Option<Timestamp>,
    owner: Option<Arc<str>>,
    /// The move to another stream. It continues while no caller waits for the next events.
    moving: Option<JoinHandle<Result<HubCursor>>>,
}

impl MongoStore {
    /// Opens a change stream for one watcher: after the given resume token, or from now on.
    pub(super) async fn follow(&self, watch: Watch) -> Result<Watcher> {
        let Watch { namespace, after, owner } = watch;
        if self.kind().await? == Kind::Standalone {
            return Err(no_change_streams());
        }
        if let Some(token) = after {
            let place = self.resume(&namespace, token.clone()).await?;
            let (store, position) = (self.clone(), Some(token));
            return Ok(Watcher { store, namespace, place, position, since: None, owner, moving: None });
        }
        let now = self.cluster_time().await?;
        let place = self.live_place(&namespace);
        place.hub.start(&self.shared, Start::Now(now)).await?;
        let position = lock(&place.hub.state).position.clone();
        Ok(Watcher { store: self.clone(), namespace, place, position, since: now, owner, moving: None })
    }

    /// Joins the live stream of a collection at its end, or creates the hub for it.
    fn live_place(&self, namespace: &Namespace) -> HubCursor {
        let mut hubs = lock(&self.shared.hubs);
        let there = hubs.live.get(namespace).and_then(Weak::upgrade).filter(|hub| lock(&hub.state).end.is_none());
        let hub = there.unwrap_or_else(|| {
            let hub = Arc::new(Hub::new(namespace.clone(), None));
            hubs.live.insert(namespace.clone(), Arc::downgrade(&hub));
            hub
        });
        HubCursor::at_end(&self.shared, hub)
    }

    /// Opens a stream after a token, or joins one that began there and still buffers its first
    /// event.
    async fn resume(&self, namespace: &Namespace, after: ResumeToken) -> Result<HubCursor> {
        let place = self.resumed_place(namespace, &after);
        match place.hub.start(&self.shared, Start::After(after)).await {
            Err(Error::Query(error)) if NO_TOKEN.contains(&error.number()) => {
                Err(Error::Query(query::Error { code: query::ErrorCode::InvalidResumeToken, ..error }))
            }
            started => started.map(|()| place),
        }
    }

    /// Resumes a watcher that has fallen behind. The operation is admitted in its owner's share.
    fn resume_in_turn(
        &self,
        namespace: Namespace,
        after: ResumeToken,
        owner: Option<Arc<str>>,
    ) -> BoxFuture<'static, Result<HubCursor>> {
        let request = self.request(&namespace, &Budget::unlimited(owner));
        self.admitted(request, |store| async move { store.resume(&namespace, after).await })
    }

    /// Joins the stream that began at a token, or creates the hub for it.
    fn resumed_place(&self, namespace: &Namespace, after: &ResumeToken) -> HubCursor {
        let key = (namespace.clone(), after.clone());
        let mut hubs = lock(&self.shared.hubs);
        if let Some(hub) = hubs.resumed.get(&key).and_then(Weak::upgrade) {
            let is_usable = {
                let mut state = lock(&hub.state);
                let is_usable = state.end.is_none() && state.first == 0;
                if is_usable {
                    state.enter(0);
                }
                is_usable
            };
            if is_usable {
                return HubCursor { shared: Arc::clone(&self.shared), hub, next: 0 };
            }
        }
        let hub = Arc::new(Hub::new(namespace.clone(), Some(after.clone())));
        hubs.resumed.insert(key, Arc::downgrade(&hub));
        HubCursor::at_end(&self.shared, hub)
    }

    /// Enables pre-images for a collection, if the server supports them and the connection has the
    /// right to. Otherwise logs a warning.
    pub(super) async fn ask_for_versions(&self, namespace: &Namespace) -> Result<()> {
        let database = self.client().await?.database(&namespace.database);
        let images = || doc! { "enabled": true };
        let modify = doc! { "collMod": &*namespace.collection, "changeStreamPreAndPostImages": images() };
        let create = doc! { "create": &*namespace.collection, "changeStreamPreAndPostImages": images() };
        let run =
            async |command: Document| self.shared.within(false, async { database.run_command(command).await }).await;
        // `collMod` locks the collection, so it runs once and not at each start.
        let list = doc! {
            "listCollections": 1,
            "filter": { "name": &*namespace.collection, "options.changeStreamPreAndPostImages.enabled": true },
            "nameOnly": false,
        };
        let is_enabled = run(list).await.ok().is_some_and(|listed| {
            let batch = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
            batch.is_ok_and(|batch| !batch.is_empty())
        });
        if is_enabled {
            return Ok(());
        }
        let kept = match run(modify.clone()).await {
            Err(Error::Query(error)) if error.number() == NAMESPACE_NOT_FOUND => match run(create).await {
                // Another client has created it meanwhile.
                Err(Error::Query(error)) if error.number() == NAMESPACE_EXISTS => run(modify).await,
                created => created,
            },
            modified => modified,
        };
        match kept {
            Ok(_) => Ok(()),
            Err(error @ (Error::Query(_) | Error::Engine(_))) => {
                tracing::warn!(%namespace, %error, "cannot enable changeStreamPreAndPostImages: users receive no updatedFields, and no deletions if a rule needs the deleted document");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the current time of the server's clock.
    async fn cluster_time(&self) -> Result<Option<Timestamp>> {
        let mut session = self.session().await?;
        let database = self.client().await?.database("admin");
        let ping =
            database.run_command(doc! { "ping": 1, "maxTimeMS": millis(self.shared.timeout) }).session(&mut session);
        self.shared.within(false, async { ping.await }).await?;
        Ok(session.operation_time())
    }
}

fn no_change_streams() -> Error {
    Error::Query(query::Error {
        code: query::ErrorCode::by_number(NOT_ON_STANDALONE),
        message: "change streams need a replica set or a sharded cluster, and the database is a standalone server"
            .to_owned(),
    })
}

impl Watcher {
    /// Waits for the next events; returns at least one.
    async fn wait(&mut self) -> Result<Vec<Arc<ChangeEvent>>> {
        loop {
            let hub = Arc::clone(&self.place.hub);
            let changed = hub.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            match self.take() {
                TakenEvent::Events(events) => return Ok(events),
                // If the watcher has moved to another stream, it checks that stream before it
                // waits.
                TakenEvent::Nothing if !Arc::ptr_eq(&hub, &self.place.hub) => {}
                TakenEvent::Nothing => changed.await,
                TakenEvent::End(end) => return Err(end.error()),
                TakenEvent::Behind => {
                    let moving = match &mut self.moving {
                        Some(moving) => moving,
                        None => {
                            let Some(token) = self.position.clone() else { return Err(history_lost()) };
                            let (store, owner) = (&self.store, self.owner.clone());
                            self.moving.insert(tokio::spawn(store.resume_in_turn(self.namespace.clone(), token, owner)))
                        }
                    };
                    let moved = moving.await;
                    self.moving = None;
                    self.place = moved.map_err(|_| Error::Closed)??;
                }
            }
        }
    }

    /// Takes all buffered events after the watcher's position.
    fn take(&mut self) -> TakenEvent {
        let hub = Arc::clone(&self.place.hub);
        let mut state = lock(&hub.state);
        if self.place.next < state.first {
            return TakenEvent::Behind;
        }
        let skip = usize::try_from(self.place.next - state.first).unwrap_or(usize::MAX).min(state.events.len());
        let new: Vec<_> = state.events.range(skip..).cloned().collect();
        let Some(last) = new.last().map(Arc::clone) else {
            self.position = state.position.clone().or(self.position.take());
            return state.end.clone().map_or(TakenEvent::Nothing, TakenEvent::End);
        };
        let next = state.next();
        state.leave(self.place.next);
        state.enter(next);
        self.place.next = next;
        self.position = Some(last.token.clone());
        if !hub.is_live() {
            state.drop_taken();
            drop(state);
            hub.drained.notify_waiters();
            self.join(&last);
        }
        let is_new = |event: &Arc<ChangeEvent>| self.since.is_none_or(|since| is_after(event.cluster_time, since));
        let new: Vec<_> = new.into_iter().filter(is_new).collect();
        if new.is_empty() { TakenEvent::Nothing } else { TakenEvent::Events(new) }
    }

    /// Moves to the live stream if that stream still buffers the last event.
    fn join(&mut self, last: &ChangeEvent) {
        let shared = Arc::clone(&self.place.shared);
        let hubs = lock(&shared.hubs);
        let Some(hub) = hubs.live.get(&self.namespace).and_then(Weak::upgrade) else { return };
        let next = {
            let mut state = lock(&hub.state);
            // Times never decrease within a stream.
            let earlier = state.events.partition_point(|event| is_after(last.cluster_time, event.cluster_time));
            let mut same = state.events.range(earlier..).take_while(|event| event.cluster_time == last.cluster_time);
            let Some(place) = same.position(|event| event.token == last.token) else { return };
            if state.end.is_some() {
                return;
            }
            let next = state.first + (earlier + place) as u64 + 1;
            state.enter(next);
            next
        };
        drop(hubs);
        self.place = HubCursor { shared, hub, next };
    }
}

/// The result of taking events from a hub.
enum TakenEvent {
    Events(Vec<Arc<ChangeEvent>>),
    Nothing,
    /// The next event is no longer buffered.
    Behind,
    End(End),
}

fn is_after(time: Timestamp, other: Timestamp) -> bool {
    (time.time, time.increment) > (other.time, other.increment)
}

fn history_lost() -> Error {
    Error::Query(query::Error {
        code: query::ErrorCode::ChangeStreamHistoryLost,
        message: "the change stream has fallen behind, and has no resume token to continue from".to_owned(),
    })
}

impl ChangeStream for Watcher {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<ChangeEvent>>>> {
        self.wait().boxed()
    }

    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn position(&self) -> Option<ResumeToken> {
        self.position.clone()
    }
}

fn driver_token(token: &ResumeToken) -> mongodb::error::Result<DriverToken> {
    let document = Document::try_from(&*token.to_document())?;
    Ok(bson::deserialize_from_document(document)?)
}

fn token_of(token: &DriverToken) -> Option<ResumeToken> {
    let document: RawDocumentBuf = RawDocumentBuf::try_from(bson::serialize_to_document(token).ok()?).ok()?;
    ResumeToken::read(&document)
}

/// Converts an event of the server. Returns `None` for events about the collection as a whole.
fn event(namespace: &Namespace, raw: &RawDocument) -> Option<ChangeEvent> {
    let kind = match raw.get_str("operationType").ok()? {
        "insert" => ChangeKind::Insert,
        "update" => ChangeKind::Update,
        "replace" => ChangeKind::Replace,
        "delete" => ChangeKind::Delete,
        _ => return None,
    };
    let part = |name: &str| raw.get_document(name).ok().map(RawDocument::to_owned);
    let before = part("fullDocumentBeforeChange");
    let description = raw.get_document("updateDescription").ok().filter(|_| kind == ChangeKind::Update);
    let exact = match (kind, before, description) {
        (ChangeKind::Delete, before, _) => before,
        (ChangeKind::Update, Some(before), Some(description)) => after(&before, description),
        (ChangeKind::Update, ..) => None,
        (ChangeKind::Insert | ChangeKind::Replace, ..) => part("fullDocument"),
    };
    let is_exact = exact.is_some();
    let document = exact.or_else(|| part("fullDocument"));
    Some(ChangeEvent {
        token: ResumeToken::read(raw.get_document("_id").ok()?)?,
        kind,
        cluster_time: raw.get_timestamp("clusterTime").ok()?,
        namespace: namespace.clone(),
        key: part("documentKey")?,
        description: description.map(|told| describe(told, document.as_deref())),
        document,
        is_exact,
    })
}

/// Returns the document after an update, computed from its pre-image. Returns `None` if a name in
/// it could be mistaken for a path.
fn after(before: &RawDocument, description: &RawDocument) -> Option<RawDocumentBuf> {
    let mut set = RawDocumentBuf::new();
    let mut unset = RawDocumentBuf::new();
    for array in array(description, "truncatedArrays").into_iter().flatten().flatten() {
        let (field, size) = (array.as_document()?.get_str("field").ok()?, get(array.as_document()?, "newSize")?);
        let RawBsonRef::Array(items) = Path::new(field).value_in(before)? else { return None };
        let mut shorter = RawArrayBuf::new();
        let size = usize::try_from(query::integer(size)?).ok()?;
        items.into_iter().flatten().take(size).for_each(|item| shorter.push(item));
        append(&mut set, field, &shorter);
    }
    // A change within an array that was also truncated cannot be expressed as one update.
    if set.is_empty() {
        elements(description.get_document("updatedFields").ok()?)
            .for_each(|(path, value)| append(&mut set, path, value));
    } else if !description.get_document("updatedFields").is_ok_and(RawDocument::is_empty) {
        return None;
    }
    for path in array(description, "removedFields").into_iter().flatten().flatten().filter_map(bson::RawBsonRef::as_str)
    {
        append(&mut unset, path, true);
    }
    if has_odd_names_within(RawBsonRef::Document(before))
        || elements(&set).any(|(_, value)| has_odd_names_within(value))
        || get(description, "disambiguatedPaths")
            .is_some_and(|paths| paths.as_document().is_some_and(|paths| !paths.is_empty()))
    {
        return None;
    }
    let mut update = RawDocumentBuf::new();
    for (operator, fields) in [("$set", &set), ("$unset", &unset)] {
        if !fields.is_empty() {
            append(&mut update, operator, fields);
        }
    }
    if update.is_empty() {
        return Some(before.to_owned());
    }
    Update::parse(&update).ok()?.apply(before, &Filter::all(), &SystemEnvironment).ok()
}

/// True if a name in a value, at any depth, cannot be part of a path.
fn has_odd_names_within(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Document(document) => {
            has_odd_names(document) || elements(document).any(|(_, value)| has_odd_names_within(value))
        }
        RawBsonRef::Array(items) => items.into_iter().flatten().any(has_odd_names_within),
        _ => false,
    }
}

fn array<'a>(document: &'a RawDocument, name: &str) -> Option<&'a RawArray> {
    document.get_array(name).ok()
}

/// Returns `updateDescription` reduced to `updatedFields` and `removedFields`. A truncated array
/// is reported whole, if the document is known.
fn describe(told: &RawDocument, document: Option<&RawDocument>) -> RawDocumentBuf {
    let shortened: Vec<&str> = match get(told, "truncatedArrays") {
        Some(RawBsonRef::Array(arrays)) => {
            arrays.into_iter().flatten().filter_map(|array| array.as_document()?.get_str("field").ok()).collect()
        }
        _ => Vec::new(),
    };
    let mut updated = RawDocumentBuf::new();
    if let Some(RawBsonRef::Document(fields)) = get(told, "updatedFields") {
        let is_within = |path: &str| {
            shortened
                .iter()
                .any(|array| path.strip_prefix(array).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        };
        elements(fields)
            .filter(|(path, _)| !is_within(path))
            .for_each(|(path, value)| append(&mut updated, path, value));
    }
    for path in shortened {
        if let Some(array) = document.and_then(|document| Path::new(path).value_in(document)) {
            append(&mut updated, path, array);
        }
    }
    let removed = match get(told, "removedFields") {
        Some(RawBsonRef::Array(removed)) => removed.to_owned(),
        _ => RawArrayBuf::new(),
    };
    rawdoc! { "updatedFields": updated, "removedFields": removed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(size: usize) -> ChangeEvent {
        ChangeEvent {
            token: "token".into(),
            kind: ChangeKind::Insert,
            cluster_time: Timestamp { time: 1, increment: 1 },
            namespace: Namespace::new("app", "people"),
            key: rawdoc! { "_id": 1 },
            document: Some(rawdoc! { "_id": 1, "text": "x".repeat(size) }),
            is_exact: true,
            description: None,
        }
    }

    /// Adds events until there is no room or the limit is reached; returns their number.
    fn fill(state: &mut HubState, size: usize, limit: usize) -> usize {
        for added in 0..limit {
            state.make_room(false);
            if state.is_full(false) {
                return added;
            }
            state.push(event(size));
        }
        limit
    }

    #[test]
    fn a_resumed_stream_follows_its_fastest_watcher_and_buffers_few_events() {
        let mut state = HubState::default();
        // The first watcher does not read; the second is half as fast as the third.
        let mut places = [0, 0, 0];
        places.iter().for_each(|place| state.enter(*place));
        assert_eq!(fill(&mut state, 10, 1000), KEPT_RESUMED, "the stream waits until an event has been taken");
        for round in 0..1000 {
            for (watcher, place) in places.iter_mut().enumerate().skip(1) {
                if watcher == 2 || round % 2 == 0 {
                    state.leave(*place);
                    *place = state.next();
                    state.enter(*place);
                }
            }
            assert!(fill(&mut state, 10, 1000) > 0);
            assert!(state.events.len() <= KEPT_RESUMED);
        }
        assert!(state.next() > 10_000);
        assert!(state.first > places[0], "the watcher that does not read has fallen behind");
        // The bytes are limited too, but one event always fits.
        let mut state = HubState::default();
        state.enter(0);
        assert_eq!(fill(&mut state, 2 * KEPT_RESUMED_BYTES, 10), 1);
        assert_eq!(state.bytes, state.events[0].size());
    }

    #[test]
    fn events_taken_by_all_watchers_are_dropped_after_the_sharing_time() {
        let mut state = HubState::default();
        (0..2).for_each(|_| state.enter(0));
        fill(&mut state, 10, 10);
        state.leave(0);
        state.enter(10);
        state.drop_taken();
        assert_eq!(state.events.len(), 10, "one watcher has not taken them");
        state.leave(0);
        state.enter(10);
        state.sharing_until = Instant::now().checked_add(Duration::from_secs(3600));
        state.drop_taken();
        assert_eq!((state.first, state.events.len()), (0, 10), "another watcher may still resume");
        state.sharing_until = Some(Instant::now());
        state.drop_taken();
        assert_eq!((state.first, state.events.len(), state.bytes), (10, 0, 0));
        // A large event is not buffered for watchers that may resume later.
        state.sharing_until = Instant::now().checked_add(Duration::from_secs(3600));
        state.push(event(2 * KEPT_RESUMED_BYTES));
        for _ in 0..2 {
            state.leave(10);
            state.enter(11);
        }
        state.drop_taken();
        assert_eq!((state.first, state.bytes), (11, 0));
    }
}
