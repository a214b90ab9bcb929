//! Change streams of a collection. Each event is checked against the rules for reading the
//! document version that it contains, at the time when it is sent.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Filter, Variables, encode_key};
use store::{Audience, ChangeEvent, ChangeStream, Namespace, ResumeToken, Store, Watch};
use tokio::time::{Instant, timeout_at};

use super::{
    access::{self, Authorized},
    arguments::{Arguments, invalid},
    collection::{Authorization, Call, Collections},
    no_rule,
};
use crate::{
    Error, Result,
    auth::{Claim, TokenSeal},
    context::{Context, first_decides},
    request::CallFunction,
    rules::RuleSet,
};

/// Maximum time between two checks of the session of an idle stream. Independently of this, no
/// event is sent after the session has ended.
const SESSION_CHECK: Duration = Duration::from_secs(1);

/// Time in milliseconds after which a confirmation of the session, counted from when its read was
/// sent, is too old to send events.
const TOLD_FOR: i64 = 5_000;

/// A change stream of a collection for one viewer. Opened by
/// [`Backend::watch`](crate::Backend::watch) or
/// [`Backend::watch_as_system`](crate::Backend::watch_as_system).
#[derive(Debug)]
pub struct Subscription {
    stream: Box<dyn ChangeStream>,
    /// Received events that have not been selected yet.
    changes: Arc<[Arc<ChangeEvent>]>,
    /// The position after all selected events.
    position: Option<ResumeToken>,
    selection: Arc<Selection>,
    /// The limits for the selection of the events of one batch.
    limits: Collections,
    viewer: Viewer,
    view: View,
    check_at: Instant,
    /// The time at which the last read that confirmed the session was sent, in milliseconds since
    /// the Unix epoch.
    confirmed_at: Option<i64>,
}

/// The form of the events for a viewer.
#[derive(Debug, Clone)]
struct View {
    /// The encryption of a user's resume tokens. The operator gets the store's own tokens.
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

    /// Returns the store's token for a token of the viewer.
    fn open(&self, token: ResumeToken) -> Result<ResumeToken> {
        self.seal.as_ref().map_or(Ok(token.clone()), |seal| seal.open(&token))
    }
}

/// The parameters of a stream.
#[derive(Debug)]
pub(crate) struct Selection {
    /// The keys of the `_id`s of the documents to watch, or `None` for all documents.
    ids: Option<HashSet<Vec<u8>>>,
    /// The filter that events must match.
    filter: Filter,
    /// True if the filter may exclude events.
    is_filtered: bool,
    after: Option<ResumeToken>,
}

/// The viewer of a stream.
#[derive(Debug)]
pub(crate) enum Viewer {
    /// The operator, without rules.
    System,
    /// A user with an open session.
    User {
        /// The parts of the backend that confirm the session and read the custom data.
        context: Arc<Context>,
        /// The name of the data source.
        service: String,
        /// The claim of the user's access token.
        claim: Claim,
        /// The rules of the collection.
        rules: Arc<RuleSet>,
    },
}

/// Opens a change stream of a collection for a user, as long as the session is open.
///
/// # Errors
/// The errors of a query, and an error if the stream cannot resume at the token `resumeAfter`.
pub(crate) async fn watch(context: &Arc<Context>, request: CallFunction) -> Result<Subscription> {
    let CallFunction { access_token, name, arguments } = request;
    let claim = context.sessions.claim_of_access_token(&access_token).await?;
    let begin = async {
        if name != "watch" {
            return Err(Error::bad_request(format!("'{name}' is not a stream of events")));
        }
        let service = arguments.service().unwrap_or_default().to_owned();
        let authorized = access::authorize(context, claim.user_id(), name, arguments).await?;
        let Authorized { call, authorization, rules, store } = authorized;
        let (call, selection) =
            Selection::read(call, &authorization, context.variables(), &context.collections).await?;
        let (rules, claim) = (Arc::clone(rules), claim.clone());
        let viewer = Viewer::User { context: Arc::clone(context), service, claim, rules };
        Subscription::begin(&**store, call, selection, viewer, context.collections).await
    };
    if context.stores.has_remote() {
        context.confirm(&claim).await?;
        return begin.await;
    }
    // An embedded store opens the stream first, which costs it little: the stream then has every
    // later write, even if the read of the session must wait for the connection. Nothing is
    // returned before the session is confirmed.
    let begun = begin.await;
    context.confirm(&claim).await?;
    begun
}

/// Opens a change stream of a collection as the system user, without rules.
///
/// # Errors
/// The errors of a user's stream, except the errors of rules.
pub(crate) async fn watch_as_system(
    context: &Arc<Context>,
    service: &str,
    argument: RawDocumentBuf,
) -> Result<Subscription> {
    let call = context.collections.read(&context.definition, service, "watch".to_owned(), argument)?;
    let (call, selection) =
        Selection::read(call, &Authorization::System, context.variables(), &context.collections).await?;
    Subscription::begin(&**context.stores.of(service), call, selection, Viewer::System, context.collections).await
}

impl Viewer {
    /// Takes the rules of the definition in force if it was reloaded.
    ///
    /// # Errors
    /// `NoMatchingRuleFound` if it has no rules for the collection any more.
    fn follow_definition(&mut self, namespace: &Namespace) -> Result<()> {
        let Self::User { context, service, rules, .. } = self else { return Ok(()) };
        let latest = context.latest();
        if !Arc::ptr_eq(context, &latest) {
            let service = latest.definition.services.get(service);
            let found = service.and_then(|service| service.rules(namespace)).ok_or_else(|| no_rule(namespace))?;
            *rules = Arc::clone(found);
            *context = latest;
        }
        Ok(())
    }

    async fn view(&self, namespace: &Namespace) -> Result<View> {
        let Self::User { context, service, claim, .. } = self else { return Ok(View { seal: None }) };
        let Namespace { database, collection } = namespace;
        let seal = context.token_seal(&[service, database, collection, &claim.user_id().to_hex()]).await?;
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
        // The store rejects text that is not a token, in the same way as a token that it cannot
        // use.
        let token = |id: &RawDocument| ResumeToken::read(id).unwrap_or_else(|| "".into());
        let after = arguments.document("resumeAfter")?.map(token);
        Ok(Self { ids: ids.transpose()?, filter, is_filtered, after })
    }

    fn has(&self, event: &ChangeEvent) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&encode_key(event.id())))
    }

    /// Returns the matching events that the viewer may read. Does not copy them, because many
    /// streams may share them.
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
    /// Opens a stream on the collection of a call.
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
            // Fixes the position of the embedded store before the key of resume tokens is read or
            // created.
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

    /// Waits for the next events that the viewer may read, and returns at least one.
    ///
    /// Cancel safe: dropping the future loses no event.
    ///
    /// # Errors
    /// - `InvalidSession` if the session has ended.
    /// - MongoDB's `ChangeStreamHistoryLost` if the next events of the stream are no longer
    ///   retained.
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
            // Checked for each batch, so that a viewer receives no more events after the session
            // has ended or the permission has been revoked.
            let (access, confirmed_at) = match self.access().await {
                Ok(access) => access,
                // The database is overloaded. The stream keeps the events and tries again.
                Err(error) if error.retry_after.is_some() => {
                    tokio::time::sleep(SESSION_CHECK).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let events = select(self.limits, &self.selection, &self.changes, access, &self.view).await?;
            // If the database was too slow, the confirmation is outdated. The stream keeps the
            // events until a confirmation is recent.
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

    /// Filters events that [`next`](Self::next) returned and that were not sent immediately. The
    /// session may have ended since then, or the rules may hide the events now.
    ///
    /// # Errors
    /// The errors of [`next`](Self::next).
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

    /// Returns the `_id` of an event, after which the viewer of this stream can resume.
    pub fn id(&self, event: &ChangeEvent) -> RawDocumentBuf {
        self.view.token(&event.token).to_document()
    }

    /// Returns the kind of viewer of this stream, for [`ChangeEvent::body`].
    pub fn audience(&self) -> Audience {
        self.view.audience()
    }

    /// Returns the position after all events that were returned or skipped, in the form of an
    /// event's `_id`.
    pub fn position(&self) -> Option<RawDocumentBuf> {
        self.position.as_ref().map(|token| self.view.token(token).to_document())
    }

    /// Returns the viewer's permissions, and the time at which the read that confirmed the session
    /// was sent.
    async fn access(&mut self) -> Result<(Authorization, Option<i64>)> {
        let access = self.access_now().await;
        // Counted from now, so that events can arrive before the next check even if this one was
        // slow.
        self.check_at = Instant::now() + SESSION_CHECK;
        access
    }

    async fn access_now(&mut self) -> Result<(Authorization, Option<i64>)> {
        self.viewer.follow_definition(self.stream.namespace())?;
        match &self.viewer {
            Viewer::System => Ok((Authorization::System, None)),
            Viewer::User { context, claim, rules, .. } => {
                let guarded = context.authorize(claim.user_id(), rules, self.stream.namespace());
                let (confirmed, access) = first_decides(context.confirm(claim), guarded).await?;
                Ok((access, Some(confirmed.at)))
            }
        }
    }

    /// True if the session was confirmed too long ago to send events.
    fn is_outdated(&self, confirmed_at: Option<i64>) -> bool {
        match (&self.viewer, confirmed_at) {
            (Viewer::User { context, .. }, Some(at)) => {
                !(0..TOLD_FOR).contains(&context.sessions.now().saturating_sub(at))
            }
            _ => false,
        }
    }
}

/// Selects events on this thread if there are few, or else on a worker thread.
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
