//! Following a collection: its changes as change events, each of which passes the check that a read of the version that it carries
//! would have to pass, at the time when it is told.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Filter, Variables, encode_key};
use store::{Audience, ChangeEvent, ChangeStream, Namespace, ResumeToken, Store, Watch};
use tokio::time::{Instant, timeout_at};

use super::{
    arguments::{Arguments, invalid},
    collection::{Authorization, Call, Collections},
};
use crate::{
    Backend, Result,
    auth::{Claim, TokenSeal},
    backend::first_decides,
    rules::RuleSet,
};

/// How long after its session has ended a watcher may be left waiting. No event is told then in any case.
const SESSION_CHECK: Duration = Duration::from_secs(1);

/// Time in milliseconds after which a confirmation of the session, counted from when its read was sent, is too old to send
/// events.
const TOLD_FOR: i64 = 5_000;

/// Somebody who follows a collection.
#[derive(Debug)]
pub struct Subscription {
    stream: Box<dyn ChangeStream>,
    /// What has come and has not been looked at.
    changes: Arc<[Arc<ChangeEvent>]>,
    /// The place after all that has been looked at.
    position: Option<ResumeToken>,
    selection: Arc<Selection>,
    /// What looking at the changes that come together may cost.
    limits: Collections,
    viewer: Viewer,
    view: View,
    check_at: Instant,
    /// When the session was read that the last events were told on, in milliseconds since the Unix epoch.
    confirmed_at: Option<i64>,
}

/// The form in which a viewer gets events.
#[derive(Debug, Clone)]
struct View {
    /// The encryption of a user's resume tokens. The operator gets the store's own.
    seal: Option<Arc<TokenSeal>>,
}

impl View {
    fn audience(&self) -> Audience {
        if self.seal.is_some() { Audience::User } else { Audience::Operator }
    }

    fn token(&self, token: &ResumeToken) -> ResumeToken {
        self.seal.as_ref().map_or_else(|| token.clone(), |seal| seal.seal(token))
    }

    fn document(&self, event: &ChangeEvent) -> RawDocumentBuf {
        event.to_document(&self.token(&event.token), self.audience())
    }

    /// Returns the store's token for one of the viewer's.
    fn open(&self, token: ResumeToken) -> Result<ResumeToken> {
        self.seal.as_ref().map_or(Ok(token.clone()), |seal| seal.open(&token))
    }
}

/// Which events are asked for.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Those of documents with one of these `_id`s, as keys.
    ids: Option<HashSet<Vec<u8>>>,
    /// Those that match, as events.
    filter: Filter,
    /// True if the filter is for events that are not all.
    is_filtered: bool,
    after: Option<ResumeToken>,
}

/// For whom.
#[derive(Debug)]
pub(crate) enum Viewer {
    /// The operator.
    System,
    /// A user, as long as the session is open.
    User {
        /// Where the session and the custom data are.
        backend: Arc<Backend>,
        /// The data source.
        service: String,
        /// Who it is.
        claim: Claim,
        /// What may be seen.
        rules: Arc<RuleSet>,
    },
}

impl Viewer {
    async fn view(&self, namespace: &Namespace) -> Result<View> {
        let Self::User { backend, service, claim, .. } = self else { return Ok(View { seal: None }) };
        let Namespace { database, collection } = namespace;
        let seal = backend.token_seal(&[service, database, collection, &claim.user_id().to_hex()]).await?;
        Ok(View { seal: Some(Arc::new(seal)) })
    }
}

impl Selection {
    /// Reads `{ ids, filter, resumeAfter }` of a call, on another thread if it is large.
    pub(crate) async fn read(
        call: Call,
        access: &Authorization,
        variables: Variables,
        collections: &Collections,
    ) -> Result<(Call, Self)> {
        let (access, budget) = (access.clone(), collections.budget(access, call.bytes(), None));
        collections.apart(call, budget, move |call| Self::read_here(call, &access, &variables)).await
    }

    fn read_here(call: &Call, access: &Authorization, variables: &Variables) -> Result<Self> {
        let arguments = access.checked(&call.arguments)?;
        let arguments = Arguments::new(&call.name, &arguments, super::collection::takes(&call.name)?)?;
        let ids = arguments.array("ids")?.map(|ids| {
            let keys = ids.into_iter().map(|id| id.map(encode_key).map_err(|error| invalid(error.to_string())));
            keys.collect::<Result<HashSet<_>>>()
        });
        let is_filtered = arguments.document("filter")?.is_some_and(|filter| filter.iter().next().is_some());
        let mut filter = access.filter(&arguments, "filter")?;
        filter.bind(variables)?;
        // What is not a token is refused by the store, as one is that it cannot use.
        let token = |id: &RawDocument| ResumeToken::read(id).unwrap_or_else(|| "".into());
        let after = arguments.document("resumeAfter")?.map(token);
        Ok(Self { ids: ids.transpose()?, filter, is_filtered, after })
    }

    fn has(&self, event: &ChangeEvent) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&encode_key(event.id())))
    }

    /// The events that are asked for and may be seen. They are not copied: many streams may have the same ones.
    fn select(
        &self,
        changes: &[Arc<ChangeEvent>],
        access: &Authorization,
        view: &View,
    ) -> Result<Vec<Arc<ChangeEvent>>> {
        let mut events = Vec::new();
        for change in changes.iter().filter(|change| self.has(change)) {
            if access.guard().is_some_and(|guard| !guard.may_see(change.known())) {
                continue;
            }
            query::budget::charge(1)?;
            if self.is_filtered {
                query::budget::charge_bytes(change.size())?;
                if !self.filter.try_matches(&view.document(change))? {
                    continue;
                }
            }
            events.push(Arc::clone(change));
        }
        Ok(events)
    }
}

impl Subscription {
    /// Begins to follow the collection of a call.
    pub(crate) async fn begin(
        store: &dyn Store,
        call: Call,
        mut selection: Selection,
        viewer: Viewer,
        limits: Collections,
    ) -> Result<Self> {
        let owner = match &viewer {
            Viewer::System => None,
            Viewer::User { claim, .. } => Some(claim.user_id().to_hex().into()),
        };
        let namespace = call.namespace;
        let watch = |after| Watch { namespace: namespace.clone(), after, owner };
        let (stream, view) = match selection.after.take() {
            Some(token) => {
                let view = viewer.view(&namespace).await?;
                let token = view.open(token)?;
                (store.watch(watch(Some(token))).await?, view)
            }
            // An embedded store follows from the first poll on, and the key may have to be made.
            None => (store.watch(watch(None)).await?, viewer.view(&namespace).await?),
        };
        let (changes, position) = (Arc::from([]), stream.position());
        Ok(Self {
            stream,
            changes,
            position,
            selection: Arc::new(selection),
            limits,
            viewer,
            view,
            check_at: Instant::now() + SESSION_CHECK,
            confirmed_at: None,
        })
    }

    /// Waits for the next events that the viewer may see, at least one. What is given up before it is done loses nothing.
    ///
    /// # Errors
    /// `InvalidSession` once the session has ended; MongoDB's `ChangeStreamHistoryLost` where the watcher is so far behind that what
    /// comes next is not kept any more.
    pub async fn next(&mut self) -> Result<Vec<Arc<ChangeEvent>>> {
        loop {
            if self.changes.is_empty() {
                match &self.viewer {
                    Viewer::System => self.changes = self.stream.next().await?.into(),
                    Viewer::User { .. } => {
                        if let Ok(changes) = timeout_at(self.check_at, self.stream.next()).await {
                            self.changes = changes?.into();
                        }
                    }
                }
            }
            // As both are now: a viewer who may not see any more, or whose session has ended, is sent nothing more.
            let (access, confirmed_at) = match self.access().await {
                Ok(access) => access,
                // Too much is asked of the database at this moment: the events are held, and it is asked again.
                Err(error) if error.retry_after.is_some() => {
                    tokio::time::sleep(SESSION_CHECK).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let events = select(self.limits, &self.selection, &self.changes, access, &self.view).await?;
            // The database may take longer than a confirmation is good for: the events are held until one is in time.
            if !events.is_empty() && self.is_outdated(confirmed_at) {
                continue;
            }
            self.changes = Arc::from([]);
            self.confirmed_at = confirmed_at;
            self.position = self.stream.position();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Checks events anew that [`next`](Self::next) has answered with and that were not sent for a while: the session may have
    /// ended meanwhile, and the rules may hide them now.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn still_visible(&mut self, events: Vec<Arc<ChangeEvent>>) -> Result<Vec<Arc<ChangeEvent>>> {
        if !self.is_outdated(self.confirmed_at) {
            return Ok(events);
        }
        let (access, confirmed_at) = self.access().await?;
        self.confirmed_at = confirmed_at;
        select(self.limits, &self.selection, &Arc::from(events), access, &self.view).await
    }

    /// Returns an event as a document, in the form for the viewer of this stream.
    pub fn document(&self, event: &ChangeEvent) -> RawDocumentBuf {
        self.view.document(event)
    }

    /// Returns the `_id` of an event, which the viewer of this stream can resume at.
    pub fn id(&self, event: &ChangeEvent) -> RawDocumentBuf {
        self.view.token(&event.token).to_document()
    }

    /// The kind of viewer of this stream, for [`ChangeEvent::body`].
    pub fn audience(&self) -> Audience {
        self.view.audience()
    }

    /// The place after all that has been told or passed over, as an event's `_id`.
    pub fn position(&self) -> Option<RawDocumentBuf> {
        self.position.as_ref().map(|token| self.view.token(token).to_document())
    }

    /// What the viewer may see, and the time at which the read that confirms the session was sent.
    async fn access(&mut self) -> Result<(Authorization, Option<i64>)> {
        let access = self.access_now().await;
        // However long that took, there is time for events before the next check.
        self.check_at = Instant::now() + SESSION_CHECK;
        access
    }

    async fn access_now(&mut self) -> Result<(Authorization, Option<i64>)> {
        match &self.viewer {
            Viewer::System => Ok((Authorization::System, None)),
            Viewer::User { backend, claim, rules, .. } => {
                let guarded = backend.guarded(claim, rules, self.stream.namespace());
                let (confirmed, access) = first_decides(backend.confirm(claim), guarded).await?;
                Ok((access, Some(confirmed.at)))
            }
        }
    }

    /// True if the session was confirmed too long ago to send events.
    fn is_outdated(&self, confirmed_at: Option<i64>) -> bool {
        match (&self.viewer, confirmed_at) {
            (Viewer::User { backend, .. }, Some(at)) => !(0..TOLD_FOR).contains(&backend.now().saturating_sub(at)),
            _ => false,
        }
    }
}

/// The events of what has come: selected here if that is a small matter, else on another thread.
async fn select(
    limits: Collections,
    selection: &Arc<Selection>,
    changes: &Arc<[Arc<ChangeEvent>]>,
    access: Authorization,
    view: &View,
) -> Result<Vec<Arc<ChangeEvent>>> {
    let budget = limits.budget(&access, 0, None);
    let (selection, changes, view) = (Arc::clone(selection), Arc::clone(changes), view.clone());
    store::workers::run_if_large(&budget, move || selection.select(&changes, &access, &view)).await
}
