//! Change streams. One of the server's is shared by all who follow a collection: a task reads it, begins it anew where it
//! was when the connection or the primary is lost, and keeps the last events for those who are slower. Who comes with a resume
//! token, or is too slow for what is kept, has a stream alone until it has caught up with the others.
//!
//! An event carries the version that the change made where the server has kept the one before it: without it, an update comes with
//! what is found when it is told, and a deletion with nothing but the key
//! (<https://www.mongodb.com/docs/manual/changeStreams/#change-streams-with-document-pre--and-post-images>).

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{Arc, Mutex, Weak},
    time::Duration,
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
use query::{Filter, Path, Update, append, elements, get};
use tokio::sync::{Notify, OnceCell};

use super::{
    MongoStore,
    connect::{Kind, Shared, lock},
    errors,
    indexes::{NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND},
    read::{has_odd_names, millis},
};
use crate::{ChangeEvent, ChangeKind, ChangeStream, Error, Namespace, Result, ResumeToken, SystemEnvironment, Watch};

/// How many events are kept for who is slower, and how many bytes of them.
const KEPT: usize = 4096;
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// The same of a stream that is one watcher's alone, of whom there may be thousands that do not read.
const KEPT_ALONE: usize = 64;
const KEPT_ALONE_BYTES: usize = 256 * 1024;

/// How long to wait before a stream is begun anew, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long the server waits for an event where a stream is one watcher's alone, and how long that then waits before it asks again.
const SHORT_WAIT: Duration = Duration::from_millis(1);
const LONG_PAUSE: Duration = Duration::from_millis(150);

/// That a server alone has no change streams.
const NOT_ON_STANDALONE: i32 = 40573;

/// The server's numbers for what a new attempt would not mend: no history, a token that is none, no rights, no change streams.
const FATAL: [i32; 9] = [286, 260, 280, 222, 13, 18, 20, 73, NOT_ON_STANDALONE];

/// The server's numbers for the many ways in which a token is none.
const NO_TOKEN: [i32; 8] = [260, 9, 14, 40647, 40648, 40649, 50811, 50795];

/// Why a stream has ended.
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

#[derive(Default)]
struct State {
    events: VecDeque<Arc<ChangeEvent>>,
    bytes: usize,
    /// The number of the first of them.
    first: u64,
    /// The place after all that has been read.
    position: Option<ResumeToken>,
    end: Option<End>,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn is_full(&self, is_shared: bool) -> bool {
        let (most, most_bytes) = if is_shared { (KEPT, KEPT_BYTES) } else { (KEPT_ALONE, KEPT_ALONE_BYTES) };
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
}

/// One stream of the server's, and what of it is kept.
pub(super) struct Hub {
    namespace: Namespace,
    state: Mutex<State>,
    /// There is more, or an end.
    changed: Notify,
    /// There is room again, where nothing is to be dropped.
    drained: Notify,
    is_shared: bool,
    started: OnceCell<()>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hub").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Where to begin.
#[derive(Clone)]
enum Start {
    /// Now, which is this time on the server's clock.
    Now(Option<Timestamp>),
    After(ResumeToken),
}

impl Hub {
    fn new(namespace: Namespace, is_shared: bool) -> Self {
        Self {
            namespace,
            state: Mutex::default(),
            changed: Notify::new(),
            drained: Notify::new(),
            is_shared,
            started: OnceCell::new(),
        }
    }

    pub(super) fn end(&self, error: &Error) {
        lock(&self.state).end.get_or_insert(End::of(error));
        self.changed.notify_waiters();
    }

    /// Opens the stream, and begins to read it.
    async fn start(self: &Arc<Self>, shared: &Arc<Shared>, start: Start) -> Result<()> {
        let (shared_by, namespace, is_shared) = (Arc::clone(shared), self.namespace.clone(), self.is_shared);
        let reader = Reader { shared: shared_by, namespace, start, is_shared, with_before: true };
        let begin = async {
            let mut reader = reader;
            let stream = shared.within_all(reader.open()).await?;
            lock(&self.state).position = stream.resume_token().and_then(|token| token_of(&token));
            tokio::spawn(reader.run(stream, Arc::downgrade(self)));
            Ok(())
        };
        self.started.get_or_try_init(|| begin).await.copied()
    }

    /// Adds an event. Without room the oldest goes, or there must be some first.
    async fn add(self: &Arc<Self>, event: ChangeEvent) {
        loop {
            let drained = self.drained.notified();
            {
                let mut state = lock(&self.state);
                while self.is_shared && state.is_full(true) {
                    state.drop_first();
                }
                if !state.is_full(self.is_shared) || state.end.is_some() {
                    state.push(event);
                    break;
                }
            }
            // Whoever has gone away lets go of the hub, which this alone must not keep.
            if Arc::strong_count(self) == 1 {
                return;
            }
            let _ = tokio::time::timeout(LONGEST_PAUSE, drained).await;
        }
        self.changed.notify_waiters();
    }
}

type RawStream = DriverStream<RawDocumentBuf>;

/// What reads a stream of the server's.
struct Reader {
    shared: Arc<Shared>,
    namespace: Namespace,
    start: Start,
    /// Who has a stream alone does not keep a connection for it.
    is_shared: bool,
    /// Whether the server is asked for the version before a change, which older ones do not know of.
    with_before: bool,
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
        let mut watch = collection.watch().full_document(FullDocumentType::UpdateLookup);
        if !self.is_shared {
            watch = watch.max_await_time(SHORT_WAIT).batch_size(KEPT_ALONE as u32);
        }
        if self.with_before {
            watch = watch.full_document_before_change(FullDocumentBeforeChangeType::WhenAvailable);
        }
        watch = match &self.start {
            Start::Now(None) => watch,
            Start::Now(Some(time)) => watch.start_at_operation_time(*time),
            Start::After(token) => watch.start_after(driver_token(token)?),
        };
        Ok(watch.await?.with_type())
    }

    /// Reads for as long as somebody is interested.
    async fn run(mut self, mut stream: RawStream, hub: Weak<Hub>) {
        loop {
            let read = self.read(&mut stream, &hub).await;
            let Some(hub) = hub.upgrade() else { return };
            match read {
                Ok(ControlFlow::Break(())) => return,
                Ok(ControlFlow::Continue(())) => {}
                Err(error) => match self.reopen(error, &hub).await {
                    Some(again) => stream = again,
                    None => return,
                },
            }
        }
    }

    async fn read(&mut self, stream: &mut RawStream, hub: &Weak<Hub>) -> mongodb::error::Result<ControlFlow<()>> {
        let raw = stream.next_if_any().await?;
        let Some(hub) = hub.upgrade() else { return Ok(ControlFlow::Break(())) };
        if lock(&hub.state).end.is_some() {
            return Ok(ControlFlow::Break(()));
        }
        if let Some(event) = raw.as_deref().and_then(|raw| event(&self.namespace, raw)) {
            self.start = Start::After(event.token.clone());
            hub.add(event).await;
        } else if let Some(token) = stream.resume_token().and_then(|token| token_of(&token)) {
            self.start = Start::After(token.clone());
            lock(&hub.state).position = Some(token);
            drop(hub);
            if !self.is_shared {
                tokio::time::sleep(LONG_PAUSE).await;
            }
        }
        // The collection was dropped or renamed: the stream goes on with the next one of its name.
        if !stream.is_alive() {
            return Err(mongodb::error::Error::custom("the stream has ended"));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Begins the stream anew after what was read last; nothing where that is of no use.
    async fn reopen(&mut self, mut error: mongodb::error::Error, hub: &Arc<Hub>) -> Option<RawStream> {
        let mut pause = FIRST_PAUSE;
        loop {
            let code = errors::code(&error);
            let is_over = code.is_some_and(|code| FATAL.contains(&code)) || self.shared.check_open().is_err();
            if is_over {
                hub.end(&errors::read(error, false));
                return None;
            }
            tracing::debug!(namespace = %self.namespace, "a change stream is begun anew");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            if Arc::strong_count(hub) == 1 {
                return None;
            }
            match self.try_open().await {
                Ok(stream) => return Some(stream),
                Err(other) => error = other,
            }
        }
    }
}

/// Somebody's place in a stream.
#[derive(Debug)]
pub(super) struct Watcher {
    store: MongoStore,
    namespace: Namespace,
    hub: Arc<Hub>,
    next: u64,
    position: Option<ResumeToken>,
    /// What was committed up to then is not told.
    since: Option<Timestamp>,
}

impl MongoStore {
    pub(super) async fn follow(&self, watch: Watch) -> Result<Watcher> {
        let Watch { namespace, after, is_judged, .. } = watch;
        if self.kind().await? == Kind::Standalone {
            return Err(no_change_streams());
        }
        if is_judged {
            self.keep_versions(&namespace).await?;
        }
        if let Some(token) = after {
            let hub = self.private_hub(&namespace, token.clone()).await?;
            let store = self.clone();
            return Ok(Watcher { store, namespace, hub, next: 0, position: Some(token), since: None });
        }
        let now = self.cluster_time().await?;
        let hub = self.shared_hub(&namespace);
        hub.start(&self.shared, Start::Now(now)).await?;
        let (next, position) = {
            let state = lock(&hub.state);
            (state.next(), state.position.clone())
        };
        Ok(Watcher { store: self.clone(), namespace, hub, next, position, since: now })
    }

    fn shared_hub(&self, namespace: &Namespace) -> Arc<Hub> {
        let mut hubs = lock(&self.shared.hubs);
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let there = hubs.get(namespace).and_then(Weak::upgrade).filter(|hub| lock(&hub.state).end.is_none());
        there.unwrap_or_else(|| {
            let hub = Arc::new(Hub::new(namespace.clone(), true));
            hubs.insert(namespace.clone(), Arc::downgrade(&hub));
            hub
        })
    }

    async fn private_hub(&self, namespace: &Namespace, after: ResumeToken) -> Result<Arc<Hub>> {
        let hub = Arc::new(Hub::new(namespace.clone(), false));
        match hub.start(&self.shared, Start::After(after)).await {
            Err(Error::Query(error)) if NO_TOKEN.contains(&error.number()) => {
                Err(Error::Query(query::Error { code: query::ErrorCode::InvalidResumeToken, ..error }))
            }
            started => started.map(|()| hub),
        }
    }

    /// Has the server keep the versions before changes, from now on, if it can and may be told. It is told once, and all who need them
    /// wait for that.
    async fn keep_versions(&self, namespace: &Namespace) -> Result<()> {
        let told = Arc::clone(lock(&self.shared.versioned).entry(namespace.clone()).or_default());
        told.get_or_try_init(|| self.ask_for_versions(namespace)).await.copied()
    }

    async fn ask_for_versions(&self, namespace: &Namespace) -> Result<()> {
        let database = self.client().await?.database(&namespace.database);
        let images = || doc! { "enabled": true };
        let modify = doc! { "collMod": &*namespace.collection, "changeStreamPreAndPostImages": images() };
        let create = doc! { "create": &*namespace.collection, "changeStreamPreAndPostImages": images() };
        let run =
            async |command: Document| self.shared.within(false, async { database.run_command(command).await }).await;
        let kept = match run(modify.clone()).await {
            Err(Error::Query(error)) if error.number() == NAMESPACE_NOT_FOUND => match run(create).await {
                // Somebody has made it meanwhile.
                Err(Error::Query(error)) if error.number() == NAMESPACE_EXISTS => run(modify).await,
                created => created,
            },
            modified => modified,
        };
        match kept {
            Ok(_) => Ok(()),
            Err(error @ (Error::Query(_) | Error::Engine(_))) => {
                tracing::warn!(%namespace, %error, "the database does not keep the versions before changes: users are told of no deletion that a rule would have to see the document of");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What time it is on the server's clock.
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
        message:
            "a collection can be watched only on a replica set or a sharded cluster, and the database is a server alone"
                .to_owned(),
    })
}

impl Watcher {
    async fn wait(&mut self) -> Result<Vec<Arc<ChangeEvent>>> {
        loop {
            let hub = Arc::clone(&self.hub);
            let changed = hub.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            match self.take() {
                Taken::Events(events) => return Ok(events),
                Taken::Nothing => changed.await,
                Taken::End(end) => return Err(end.error()),
                Taken::Behind => {
                    let Some(token) = self.position.clone() else { return Err(history_lost()) };
                    self.hub = self.store.private_hub(&self.namespace, token).await?;
                    self.next = 0;
                }
            }
        }
    }

    /// What there is now.
    fn take(&mut self) -> Taken {
        let hub = Arc::clone(&self.hub);
        let mut state = lock(&hub.state);
        if self.next < state.first {
            return Taken::Behind;
        }
        let skip = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        let new: Vec<_> = state.events.iter().skip(skip).cloned().collect();
        self.next = state.next();
        let Some(last) = new.last().map(|event| event.token.clone()) else {
            self.position = state.position.clone().or(self.position.take());
            return state.end.clone().map_or(Taken::Nothing, Taken::End);
        };
        self.position = Some(last.clone());
        if !hub.is_shared {
            while !state.events.is_empty() {
                state.drop_first();
            }
            drop(state);
            hub.drained.notify_waiters();
            self.join(&last);
        }
        let is_new = |event: &Arc<ChangeEvent>| self.since.is_none_or(|since| is_after(event.cluster_time, since));
        let new: Vec<_> = new.into_iter().filter(is_new).collect();
        if new.is_empty() { Taken::Nothing } else { Taken::Events(new) }
    }

    /// Goes on with the others, where the last event is one that they have.
    fn join(&mut self, last: &ResumeToken) {
        let there = lock(&self.store.shared.hubs).get(&self.namespace).and_then(Weak::upgrade);
        let Some(hub) = there else { return };
        let place = {
            let state = lock(&hub.state);
            if state.end.is_some() {
                return;
            }
            state.events.iter().rposition(|event| event.token == *last).map(|place| state.first + place as u64 + 1)
        };
        if let Some(next) = place {
            (self.hub, self.next) = (hub, next);
        }
    }
}

enum Taken {
    Events(Vec<Arc<ChangeEvent>>),
    Nothing,
    /// What comes next is not kept any more.
    Behind,
    End(End),
}

fn is_after(time: Timestamp, other: Timestamp) -> bool {
    (time.time, time.increment) > (other.time, other.increment)
}

fn history_lost() -> Error {
    Error::Query(query::Error {
        code: query::ErrorCode::ChangeStreamHistoryLost,
        message: "the watcher is too far behind, and has no place to go on from".to_owned(),
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

/// What the server tells, as an event; nothing for what happens to a collection as a whole.
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
    let document = match (kind, &before, description) {
        (ChangeKind::Delete, ..) => before,
        (_, Some(before), Some(description)) => after(before, description).or_else(|| part("fullDocument")),
        _ => part("fullDocument"),
    };
    Some(ChangeEvent {
        token: ResumeToken::read(raw.get_document("_id").ok()?)?,
        kind,
        cluster_time: raw.get_timestamp("clusterTime").ok()?,
        namespace: namespace.clone(),
        key: part("documentKey")?,
        description: description.map(|told| describe(told, document.as_deref())),
        document,
    })
}

/// The version that an update has made of the one before it; none where a name in it could mean another path.
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
    // What goes on within an array that became shorter cannot be told in one step.
    if set.is_empty() {
        elements(description.get_document("updatedFields").ok()?)
            .for_each(|(path, value)| append(&mut set, path, value));
    } else if !description.get_document("updatedFields").is_ok_and(RawDocument::is_empty) {
        return None;
    }
    for path in array(description, "removedFields").into_iter().flatten().flatten().filter_map(|path| path.as_str()) {
        append(&mut unset, path, true);
    }
    if has_odd_names(before)
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

fn array<'a>(document: &'a RawDocument, name: &str) -> Option<&'a RawArray> {
    document.get_array(name).ok()
}

/// `updateDescription` with its two members alone; an array that has become shorter is told whole, as far as it is known.
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
