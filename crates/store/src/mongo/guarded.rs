//! Writes under a guard. Check and write are one, in one of three ways:
//!
//! - What the guard asks can be asked of the server: it becomes part of the filter, and the write is one command.
//! - One document: it is read, judged here as it is and as it would become, and written on the condition that it is
//!   still the same to the last field; if it is not, all begins anew.
//! - Several documents: the same in a transaction, which the server ends if anybody else writes to one of them.

use std::ops::ControlFlow;

use bson::{
    Document, RawBson, doc,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use mongodb::{ClientSession, error as driver};
use query::{Budget, Environment, Filter, Path, Update, elements, get};

use super::{
    MongoStore,
    command::batches,
    connect::{Kind, majority, snapshot},
    errors::{self, Failure},
    read::{Question, both, document, has_odd_names},
    write::{Command, by_id, is_limited},
};
use crate::{
    Change, Error, Guard, GuardFilters, Modify, Namespace, Operation, Outcome, Result, Write, WriteLimits,
    guarded::{self, Planned},
};

/// How often a write is begun anew because others were faster.
const ATTEMPTS: usize = 20;

/// How many updates go into one command.
const BATCH: usize = 1000;

/// A change under a guard.
#[derive(Clone, Copy)]
struct Job<'a> {
    namespace: &'a Namespace,
    modify: &'a Modify,
    guard: &'a dyn Guard,
    limits: Option<WriteLimits>,
    budget: &'a Budget,
}

impl<'a> Job<'a> {
    fn new(write: &'a Write, modify: &'a Modify, guard: &'a dyn Guard) -> Self {
        Self { namespace: &write.namespace, modify, guard, limits: write.limits, budget: &write.budget }
    }

    /// Plans what becomes of a document, within the budget.
    fn plan(&self, before: &RawDocument, environment: &dyn Environment) -> Result<Planned> {
        let planned = self.budget.enter(|| guarded::plan(self.modify, Some(self.guard), before, environment));
        self.budget.check()?;
        planned
    }

    /// The document that an upsert inserts, computed within the budget.
    fn upserted_document(&self, environment: &dyn Environment) -> Result<Option<RawDocumentBuf>> {
        let made = self.budget.enter(|| guarded::upserted_document(self.modify, Some(self.guard), environment));
        self.budget.check()?;
        made
    }
}

/// The guard's filter for a change, where one command with it does what asking about each document would: it then sees and lets
/// change the same documents, and none of what it asks about is changed.
fn rule<'g>(modify: &Modify, filters: &'g GuardFilters) -> Option<&'g Filter> {
    let rule = match &modify.change {
        Change::Delete => &filters.deletable,
        Change::Update { .. } => &filters.updatable,
    };
    let leaves_alone = |update: &Update| {
        let touched = update.paths();
        touched
            .is_some_and(|touched| !touched.iter().any(|path| filters.paths.iter().any(|asked| overlap(path, asked))))
    };
    let is_apart = match &modify.change {
        Change::Delete => true,
        // What `$` stands for depends on the whole filter, which would be more than the caller's.
        Change::Update { update, .. } => !update.is_positional() && leaves_alone(update),
    };
    (filters.seen == *rule && is_apart).then_some(rule)
}

/// Whether what one path leads to may hold, or be in, what another leads to. An index in a path is one of several items to a path
/// without it.
fn overlap(one: &Path, other: &Path) -> bool {
    let names = |path: &Path| {
        let is_name = |part: &&String| !part.bytes().all(|byte| byte.is_ascii_digit());
        path.parts().iter().filter(is_name).cloned().collect::<Vec<_>>()
    };
    let (one, other) = (names(one), names(other));
    one.starts_with(&other) || other.starts_with(&one)
}

impl MongoStore {
    /// One write, as one.
    pub(super) async fn write_one(&self, write: &Write) -> Result<Outcome> {
        let Write { namespace, operation, guard, limits, budget } = write;
        budget.check()?;
        match (operation, guard.as_deref()) {
            (Operation::Insert(documents), guard) => {
                if let Some(limits) = limits {
                    limits.check(documents.len(), documents.iter().map(|document| document.as_bytes().len()).sum())?;
                }
                // What the guard says of them does not depend on what is stored.
                let documents = budget.enter(|| self.prepared(documents, guard));
                budget.check()?;
                let documents = documents?;
                self.alone(budget, async |session| self.insert(namespace, &documents, budget, session).await).await
            }
            (Operation::Modify(modify), None) => {
                self.alone(budget, async |session| self.unguarded(namespace, modify, budget, session).await).await
            }
            (Operation::Modify(modify), Some(guard)) => {
                self.shared.within_all(self.guarded(write, Job::new(write, modify, guard))).await
            }
        }
    }

    /// Sends one command; it is sent again where it may, and only then. A session is given to a command that has no time
    /// limit: one that has takes a session of its own.
    async fn alone(
        &self,
        budget: &Budget,
        send: impl AsyncFnOnce(Option<&mut ClientSession>) -> Result<Outcome, Failure>,
    ) -> Result<Outcome> {
        let mut session = if is_limited(budget) { None } else { self.shared.causal_session().await? };
        let mut stopped = None;
        let sent = async {
            match send(session.as_mut()).await {
                Ok(outcome) => Ok(outcome),
                Err(Failure::Driver(error)) => Err(error),
                Err(Failure::Store(error)) => {
                    stopped = Some(error);
                    Err(driver::Error::custom(()))
                }
            }
        };
        let answer = self.shared.within(true, sent).await;
        self.shared.note_written(session.as_ref());
        stopped.map_or(answer, Err)
    }

    async fn unguarded(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        budget: &Budget,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let upsert = matches!(modify.change, Change::Update { upsert: true, .. });
        let filter = document(&modify.filter.to_document())?;
        let command = Command { modify, filter, upsert, is_judged: false, budget };
        self.modify(namespace, command, session).await
    }

    async fn guarded(&self, write: &Write, job: Job<'_>) -> Result<Outcome> {
        for _ in 0..ATTEMPTS {
            job.budget.check()?;
            let attempt = match job.guard.filters().and_then(|filters| rule(job.modify, filters)) {
                Some(rule) => self.by_rule(job, rule).await?,
                None if job.modify.multi => {
                    let outcomes = self.together(std::slice::from_ref(write)).await?;
                    return Ok(outcomes.into_iter().next().unwrap_or_default());
                }
                None => self.pinned(job).await?,
            };
            if let Some(outcome) = attempt {
                return Ok(outcome);
            }
        }
        Err(guarded::conflict())
    }

    /// With what the guard asks as part of the filter. Without an answer something came between.
    async fn by_rule(&self, job: Job<'_>, rule: &Filter) -> Result<Option<Outcome>> {
        let Job { namespace, modify, budget, .. } = job;
        let filter = both(&modify.filter, rule)?;
        self.check_size(job, &filter).await?;
        let send = async |session: Option<&mut ClientSession>| {
            let command = Command { modify, filter, upsert: false, is_judged: true, budget };
            self.modify(namespace, command, session).await
        };
        let outcome = self.alone(budget, send).await?;
        if outcome.matched > 0 { Ok(Some(outcome)) } else { self.nothing_matched(job, outcome).await }
    }

    /// Checks that a command changes no more than it may, where it changes several documents: the server counts them first.
    async fn check_size(&self, job: Job<'_>, filter: &Document) -> Result<()> {
        let (Some(limits), true) = (job.limits, job.modify.multi) else { return Ok(()) };
        let (documents, bytes) = self.size_of(job.namespace, filter, limits.documents, job.budget).await?;
        limits.check(documents, bytes)
    }

    /// Judges one document here, and writes on the condition that it is still the same.
    async fn pinned(&self, job: Job<'_>) -> Result<Option<Outcome>> {
        let Job { modify, guard, .. } = job;
        let targets = self.targets(job, None).await.map_err(|failure| failure.into_error(false))?;
        let Some(before) = targets.into_iter().next() else {
            return self.nothing_matched(job, Outcome::default()).await;
        };
        let plan = job.plan(&before, &*self.shared.environment)?;
        let pin = pin(&before)?;
        let send = async |session: Option<&mut ClientSession>| self.carry_out(job, &plan, pin, &before, session).await;
        let mut outcome = self.alone(job.budget, send).await?;
        if outcome.matched == 0 {
            return Ok(None);
        }
        guarded::note_changed(&mut outcome, modify, Some(guard), before, plan.after())?;
        Ok(Some(outcome))
    }

    /// The documents to change: what the caller may not see does not match.
    async fn targets(&self, job: Job<'_>, session: Option<&mut ClientSession>) -> Result<Vec<RawDocumentBuf>, Failure> {
        let Job { namespace, modify, guard, limits, budget } = job;
        let question = Question::new(&modify.filter, Some(guard))?;
        let (mut targets, mut bytes) = (Vec::new(), 0);
        let mut take = |document: &RawDocument| {
            if question.judge.is_none_or(|guard| guard.may_see(document)) {
                targets.push(document.to_owned());
                bytes += document.as_bytes().len();
                if let Some(limits) = limits {
                    limits.check(targets.len(), bytes)?;
                }
            }
            let is_enough = !modify.multi && !targets.is_empty();
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        self.find_to_change(namespace, question.filter, modify.sort.as_ref(), budget, session, &mut take).await?;
        Ok(targets)
    }

    /// Plans what becomes of each of several documents.
    fn plans(&self, job: Job<'_>, targets: &[RawDocumentBuf]) -> Result<Vec<Planned>> {
        let mut bytes = 0;
        let plan = |before: &RawDocumentBuf| {
            let planned = job.plan(before, &*self.shared.environment)?;
            bytes += planned.after().map_or(0, |after| after.as_bytes().len());
            job.limits.map_or(Ok(()), |limits| limits.check(1, bytes))?;
            Ok(planned)
        };
        targets.iter().map(plan).collect()
    }

    /// Makes of a document what was judged, where the filter still matches it.
    async fn carry_out(
        &self,
        job: Job<'_>,
        plan: &Planned,
        filter: Document,
        before: &RawDocument,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let Job { namespace, modify, budget, .. } = job;
        let change = match plan {
            Planned::Unchanged(_) => return Ok(Outcome { matched: 1, ..Outcome::default() }),
            Planned::Delete => Change::Delete,
            Planned::Become(after) => Change::Update { update: assignment(modify, before, after)?, upsert: false },
        };
        let modify = Modify::new(Filter::all(), false, change);
        let command = Command { modify: &modify, filter, upsert: false, is_judged: true, budget };
        self.modify(namespace, command, session).await
    }

    /// Where nothing that the caller may see matches: what hidden documents there are, and an upsert. Without an answer something
    /// came between.
    async fn nothing_matched(&self, job: Job<'_>, outcome: Outcome) -> Result<Option<Outcome>> {
        let Job { namespace, modify, guard, budget, .. } = job;
        let hidden = self.check_hidden(job, None).await;
        hidden.map_err(|failure| failure.into_error(false))?;
        let made = job.upserted_document(&*self.shared.environment)?;
        let Some(made) = made else { return Ok(Some(outcome)) };
        let send = async |session: Option<&mut ClientSession>| {
            self.insert(namespace, std::slice::from_ref(&made), budget, session).await
        };
        match self.alone(budget, send).await {
            Ok(_) => {
                let mut outcome = Outcome::default();
                guarded::note_upserted(&mut outcome, modify, Some(guard), made)?;
                Ok(Some(outcome))
            }
            // Somebody has inserted it meanwhile, or it is another document's key for good.
            Err(Error::DuplicateKey { .. }) if self.is_there_now(job).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn is_there_now(&self, job: Job<'_>) -> Result<bool> {
        let targets = self.targets(job, None).await;
        Ok(!targets.map_err(|failure| failure.into_error(false))?.is_empty())
    }

    /// A document that the caller may not see does not match, so that a filter tells nothing about it; a filter for its `_id`
    /// alone is denied.
    async fn check_hidden(&self, job: Job<'_>, session: Option<&mut ClientSession>) -> Result<(), Failure> {
        let Job { namespace, modify, guard, budget, .. } = job;
        if !guarded::denies_hidden(modify) {
            return Ok(());
        }
        let demanded = modify.filter.demanded();
        let filter = match guard.filters() {
            Some(filters) => both(&demanded, &Filter::Nor(vec![filters.seen.clone()]))?,
            None => document(&demanded.to_document())?,
        };
        let mut hidden = None;
        let mut take = |document: &RawDocument| {
            if guard.may_see(document) {
                return Ok(ControlFlow::Continue(()));
            }
            hidden = Some(document.to_owned());
            Ok(ControlFlow::Break(()))
        };
        self.find_to_change(namespace, filter, None, budget, session, &mut take).await?;
        match hidden {
            Some(hidden) => Err(guarded::denial_of_hidden(modify, guard, &hidden).into()),
            None => Ok(()),
        }
    }

    /// Several writes as one.
    pub(super) async fn together(&self, writes: &[Write]) -> Result<Vec<Outcome>> {
        if self.shared.kind().await? == Kind::Standalone {
            return Err(Error::NeedsTransaction);
        }
        self.shared.within_all(self.in_transactions(writes)).await
    }

    async fn in_transactions(&self, writes: &[Write]) -> Result<Vec<Outcome>> {
        let mut session = self.shared.session().await?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1 << attempt.min(7))).await;
            }
            let start = session.start_transaction().read_concern(snapshot()).write_concern(majority());
            self.shared.within(false, async { start.await }).await?;
            match self.in_transaction(writes, &mut session).await {
                Ok(_) if writes.iter().any(|write| write.budget.is_exhausted()) => {
                    // The caller has been told that it took too long: nothing of it may be committed.
                    let _ = session.abort_transaction().await;
                    writes.iter().try_for_each(|write| write.budget.check())?;
                }
                Ok(outcomes) => match self.commit(&mut session).await {
                    Ok(()) => {
                        self.shared.note_written(Some(&session));
                        return Ok(outcomes);
                    }
                    Err(error) if error.contains_label(driver::TRANSIENT_TRANSACTION_ERROR) => {}
                    Err(error) => return Err(errors::read(error, true)),
                },
                Err(Failure::Driver(error)) if is_transient(&error) => {
                    let _ = session.abort_transaction().await;
                }
                Err(failure) => {
                    let _ = session.abort_transaction().await;
                    // Nothing of it has been committed.
                    return Err(failure.into_error(false));
                }
            }
        }
        Err(guarded::conflict())
    }

    async fn commit(&self, session: &mut ClientSession) -> driver::Result<()> {
        for _ in 1..ATTEMPTS {
            match session.commit_transaction().await {
                // To commit again is to ask what became of it.
                Err(error) if error.contains_label(driver::UNKNOWN_TRANSACTION_COMMIT_RESULT) => {}
                done => return done,
            }
        }
        session.commit_transaction().await
    }

    async fn in_transaction(&self, writes: &[Write], session: &mut ClientSession) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let Write { namespace, operation, guard, budget, .. } = write;
            outcomes.push(match (operation, guard.as_deref()) {
                (Operation::Insert(documents), guard) => {
                    let documents = budget.enter(|| self.prepared(documents, guard))?;
                    budget.check()?;
                    self.insert(namespace, &documents, budget, Some(session)).await?
                }
                (Operation::Modify(modify), None) => self.unguarded(namespace, modify, budget, Some(session)).await?,
                (Operation::Modify(modify), Some(guard)) => {
                    self.judged(Job::new(write, modify, guard), session).await?
                }
            });
        }
        Ok(outcomes)
    }

    /// Judges all documents, and then writes: the transaction ends if anybody else has written to one of them.
    async fn judged(&self, job: Job<'_>, session: &mut ClientSession) -> Result<Outcome, Failure> {
        let Job { namespace, modify, guard, budget, .. } = job;
        let targets = self.targets(job, Some(&mut *session)).await?;
        let mut outcome = Outcome { matched: targets.len() as u64, ..Outcome::default() };
        let plans = self.plans(job, &targets)?;
        if targets.is_empty() {
            self.check_hidden(job, Some(&mut *session)).await?;
            let made = job.upserted_document(&*self.shared.environment)?;
            let Some(made) = made else { return Ok(outcome) };
            self.insert(namespace, std::slice::from_ref(&made), budget, Some(session)).await?;
            guarded::note_upserted(&mut outcome, modify, Some(guard), made)?;
            return Ok(outcome);
        }
        if matches!(modify.change, Change::Delete) {
            let ids: Vec<RawBson> =
                targets.iter().map(|document| get(document, "_id").map_or(RawBson::Null, RawBson::from)).collect();
            for ids in ids.chunks(BATCH) {
                let mut candidates = RawArrayBuf::new();
                ids.iter().for_each(|id| candidates.push(id.as_raw_bson_ref()));
                let delete = Modify::new(Filter::all(), true, Change::Delete);
                let filter = document(&rawdoc! { "_id": { "$in": candidates } })?;
                let command = Command { modify: &delete, filter, upsert: false, is_judged: true, budget };
                outcome.deleted += self.modify(namespace, command, Some(&mut *session)).await?.deleted;
            }
        } else {
            let changed: Vec<_> = targets
                .iter()
                .zip(&plans)
                .filter_map(|(before, plan)| match plan {
                    Planned::Become(after) => Some((before, after)),
                    Planned::Delete | Planned::Unchanged(_) => None,
                })
                .collect();
            for changed in changed.chunks(BATCH) {
                self.update_all(job, changed, session).await?;
            }
            outcome.modified = changed.len() as u64;
        }
        if let (Some(before), Some(plan)) = (targets.into_iter().next(), plans.first()) {
            guarded::note_changed(&mut outcome, modify, Some(guard), before, plan.after())?;
        }
        Ok(outcome)
    }

    /// Many updates in as few commands as hold them.
    async fn update_all(
        &self,
        job: Job<'_>,
        changed: &[(&RawDocumentBuf, &RawDocumentBuf)],
        session: &mut ClientSession,
    ) -> Result<(), Failure> {
        let mut updates = Vec::with_capacity(changed.len());
        for (before, after) in changed {
            let update = match assignment(job.modify, before, after)? {
                Update::Operators(operators) => operators.to_document().to_owned(),
                Update::Replacement(replacement) => replacement,
                Update::Pipeline(_) => continue,
            };
            updates
                .push(rawdoc! { "q": by_id(before).to_document(), "u": update, "collation": { "locale": "simple" } });
        }
        for updates in batches(&updates, |update| update.as_bytes().len()) {
            let updates: RawArrayBuf = updates.iter().cloned().collect();
            let command = rawdoc! { "update": &*job.namespace.collection, "updates": updates, "ordered": true };
            self.run(job.namespace, command, true, job.budget, Some(&mut *session)).await?;
        }
        Ok(())
    }
}

fn is_transient(error: &driver::Error) -> bool {
    error.contains_label(driver::TRANSIENT_TRANSACTION_ERROR) || errors::code(error) == Some(errors::WRITE_CONFLICT)
}

/// The filter for a document only as it is.
fn pin(stored: &RawDocument) -> Result<Document> {
    let mut filter = document(&by_id(stored).to_document())?;
    filter.insert("$expr", doc! { "$eq": ["$$ROOT", { "$literal": document(stored)? }] });
    Ok(filter)
}

/// The update that makes of a document the one that was judged, and of which change streams tell what they would of the caller's.
fn assignment(modify: &Modify, before: &RawDocument, after: &RawDocument) -> Result<Update> {
    let replacement = || Ok(Update::replacement(after)?);
    let is_replaced = matches!(&modify.change, Change::Update { update: Update::Replacement(_), .. });
    if is_replaced || has_odd_names(before) || has_odd_names(after) {
        return replacement();
    }
    let difference = query::difference(before, after);
    let mut update = RawDocumentBuf::new();
    let mut is_plain = true;
    let mut note = |path: &str| is_plain &= !path.split('.').any(|part| part.starts_with('$'));
    if let Some(RawBsonRef::Document(updated)) = get(&difference, "updatedFields")
        && !updated.is_empty()
    {
        elements(updated).for_each(|(path, _)| note(path));
        query::append(&mut update, "$set", updated);
    }
    if let Some(RawBsonRef::Array(removed)) = get(&difference, "removedFields")
        && !removed.is_empty()
    {
        let mut unset = RawDocumentBuf::new();
        for path in removed.into_iter().flatten().filter_map(|path| path.as_str()) {
            note(path);
            query::append(&mut unset, path, true);
        }
        query::append(&mut update, "$unset", &unset);
    }
    // It may be the order of fields alone that is another, or a name that would mean something else in a path.
    if !is_plain || update.is_empty() {
        return replacement();
    }
    Update::parse(&update).or_else(|_| replacement())
}
