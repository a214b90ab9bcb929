//! Writes under a guard. The check and the write are atomic, in one of three ways:
//!
//! - By filter: if the guard has filters, the store adds one to the caller's filter and sends a
//!   single command.
//! - Optimistic, for one document: the store reads the document, and the guard checks the versions
//!   before and after the change in this process. The write has the precondition that every field
//!   is unchanged. If the precondition fails, the store repeats the whole operation.
//! - In a transaction, for several documents or for one that is too large for a precondition: the
//!   guard checks each document in this process. The server aborts the transaction if another
//!   writer changes one of the documents.

use std::{sync::Arc, time::Duration};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use mongodb::{ClientSession, error as driver};
use query::{Budget, Environment, ErrorCode, Filter, Path, Update, budget::Held, elements, get};

use super::{
    MongoStore,
    command::{BODY_BYTES, batches},
    connect::{Kind, majority, snapshot},
    errors::{self, Failure},
    read::{Pushdown, Selected, Selection, both, document, has_odd_names},
    write::{Command, by_id},
};
use crate::{
    Change, Error, Guard, GuardFilters, Modify, Namespace, Operation, Outcome, Result, Write, WriteLimits,
    guarded::{self, ATTEMPTS, ChangedSize, Planned},
    workers,
};

/// The maximum number of changes in one command.
const BATCH: usize = 1000;

/// The maximum `maxTimeMS` of a commit. A commit gets a quarter of the remaining time if that is
/// less. If the time expires, the result is unknown and the store repeats the commit.
pub(super) const COMMIT_TIME: Duration = Duration::from_secs(1);

/// The maximum total size of a precondition and its change, in bytes: the size of a command
/// without its other fields. A larger change runs in a transaction.
const PINNED_BYTES: usize = BODY_BYTES - 16 * 1024;

/// A change under a guard.
#[derive(Clone, Copy)]
struct Job<'a> {
    write: &'a Arc<Write>,
    namespace: &'a Namespace,
    modify: &'a Modify,
    guard: &'a Arc<dyn Guard>,
    limits: Option<WriteLimits>,
    budget: &'a Budget,
}

impl<'a> Job<'a> {
    fn new(write: &'a Arc<Write>, modify: &'a Modify, guard: &'a Arc<dyn Guard>) -> Self {
        Self { write, namespace: &write.namespace, modify, guard, limits: write.limits, budget: &write.budget }
    }

    /// Runs a computation with the change and its guard, within the budget.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl Fn(&Modify, &dyn Guard) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let write = Arc::clone(self.write);
        let work = move || match (&write.operation, &write.guard) {
            (Operation::Modify(modify), Some(guard)) => work(modify, &**guard),
            _ => Err(Error::Engine("a write without a guard has no plan".to_owned())),
        };
        workers::run_if_large(self.budget, work).await
    }
}

/// A planned change of one document, with the precondition that the document is unchanged.
struct Pinned {
    filter: RawDocumentBuf,
    /// `None` if the write leaves the document as it is.
    change: Option<Change>,
    /// The document that the caller receives.
    document: Option<RawDocumentBuf>,
    /// The memory reservation for the other fields.
    _held: Held,
}

/// The documents that a write changes, with their memory reservation.
struct Targets {
    documents: Vec<RawDocumentBuf>,
    held: Held,
}

/// Planned changes of several documents.
struct Plans {
    /// The `_id` of each document to delete, wrapped in a document with an empty field name.
    deleted: Vec<RawDocumentBuf>,
    /// The update statement of each document to change.
    updates: Vec<RawDocumentBuf>,
    /// The document that the caller receives.
    document: Option<RawDocumentBuf>,
    /// The memory reservation for the other fields.
    held: Held,
}

/// Returns the guard's filter for a change, if one command with that filter has the same effect as
/// a check of each document. This requires that the caller may change exactly the documents that
/// it may see, and that the change touches no path that the guard reads.
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
        // A positional `$` depends on the whole filter, so the guard's part could select another
        // array element.
        Change::Update { update, .. } => !update.is_positional() && leaves_alone(update),
    };
    (filters.seen == *rule && is_apart).then_some(rule)
}

/// True if one path may equal the other or be a prefix of it. Numeric parts are ignored, because a
/// path without array indexes reaches every element.
fn overlap(one: &Path, other: &Path) -> bool {
    let names = |path: &Path| {
        let is_name = |part: &&String| !part.bytes().all(|byte| byte.is_ascii_digit());
        path.parts().iter().filter(is_name).cloned().collect::<Vec<_>>()
    };
    let (one, other) = (names(one), names(other));
    one.starts_with(&other) || other.starts_with(&one)
}

impl MongoStore {
    /// Runs one write, in a transaction only if the check of the guard requires it.
    pub(super) async fn write_one(&self, write: &Arc<Write>) -> Result<Outcome> {
        let Write { namespace, operation, guard, limits, budget } = &**write;
        budget.check()?;
        match (operation, guard) {
            (Operation::Insert(documents), _) => {
                if let Some(limits) = limits {
                    limits.check(documents.len(), documents.iter().map(|document| document.as_bytes().len()).sum())?;
                }
                // The guard's check of an insert does not depend on stored documents, so the
                // command needs no precondition.
                let documents = self.prepared(write).await?;
                self.run_single(self.insert(namespace, &documents, budget, None)).await
            }
            (Operation::Modify(modify), None) => self.run_single(self.unguarded(namespace, modify, budget, None)).await,
            (Operation::Modify(modify), Some(guard)) => {
                self.shared.within_all(self.guarded(write, Job::new(write, modify, guard))).await
            }
        }
    }

    /// Returns the documents of an insert in the form to store, after the guard has allowed each.
    async fn prepared(&self, write: &Arc<Write>) -> Result<Vec<RawDocumentBuf>> {
        let (inserted, environment) = (Arc::clone(write), Arc::clone(&self.shared.environment));
        let prepare = move || match &inserted.operation {
            Operation::Insert(documents) => {
                query::budget::charge_bytes(documents.iter().map(|document| document.as_bytes().len()).sum())?;
                guarded::prepared(documents, inserted.guard.as_deref(), &*environment)
            }
            Operation::Modify(_) => Ok(Vec::new()),
        };
        workers::run_if_large(&write.budget, prepare).await
    }

    /// Runs one command outside a transaction. `send` retries the command if that is safe.
    async fn run_single(&self, send: impl Future<Output = Result<Outcome, Failure>>) -> Result<Outcome> {
        let mut stopped = None;
        let sent = async {
            match send.await {
                Ok(outcome) => Ok(outcome),
                Err(Failure::Driver(error)) => Err(error),
                Err(Failure::Store(error)) => {
                    stopped = Some(error);
                    Err(driver::Error::custom(()))
                }
            }
        };
        let answer = self.shared.within(true, sent).await;
        stopped.map_or(answer, Err)
    }

    /// Runs a change without a guard as one command.
    async fn unguarded(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        budget: &Budget,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let upsert = matches!(modify.change, Change::Update { upsert: true, .. });
        let filter = modify.filter.to_document();
        let command = Command { modify, filter, upsert, is_simple: self.is_simple(None), budget };
        self.modify(namespace, command, session).await
    }

    /// Runs a change under a guard, and repeats it up to [`ATTEMPTS`] times if another write has
    /// interfered.
    async fn guarded(&self, write: &Arc<Write>, job: Job<'_>) -> Result<Outcome> {
        for _ in 0..ATTEMPTS {
            job.budget.check()?;
            let attempt = match job.guard.filters().and_then(|filters| rule(job.modify, filters)) {
                Some(rule) => self.by_rule(job, rule).await?,
                None if job.modify.multi => {
                    let outcomes = self.run_in_transaction(std::slice::from_ref(write)).await?;
                    return Ok(outcomes.into_iter().next().unwrap_or_default());
                }
                None => self.optimistic(job).await?,
            };
            if let Some(outcome) = attempt {
                return Ok(outcome);
            }
        }
        Err(guarded::conflict())
    }

    /// Runs a change with the guard's filter as part of the command's filter. Returns `None` if
    /// another write has interfered.
    async fn by_rule(&self, job: Job<'_>, rule: &Filter) -> Result<Option<Outcome>> {
        let Job { namespace, modify, budget, .. } = job;
        let filter = both(&modify.filter, rule);
        self.check_size(job, &filter).await?;
        let command = Command { modify, filter, upsert: false, is_simple: true, budget };
        let outcome = self.run_single(self.modify(namespace, command, None)).await?;
        if outcome.matched > 0 { Ok(Some(outcome)) } else { self.nothing_matched(job, outcome).await }
    }

    /// Checks a change of several documents against its limits. The server counts the documents.
    async fn check_size(&self, job: Job<'_>, filter: &RawDocument) -> Result<()> {
        let (Some(limits), true) = (job.limits, job.modify.multi) else { return Ok(()) };
        let (documents, bytes) = self.size_of(job.namespace, filter, limits.documents, job.budget).await?;
        limits.check(documents, bytes)
    }

    /// Changes one document: checks it in this process, and writes it with the precondition that
    /// the stored version is unchanged. Returns `None` if another write has interfered.
    async fn optimistic(&self, job: Job<'_>) -> Result<Option<Outcome>> {
        let targets = self.targets(job, None).await.map_err(|failure| failure.into_error(false))?;
        let Targets { documents, held: targets_held } = targets;
        let Some(before) = documents.into_iter().next() else {
            return self.nothing_matched(job, Outcome::default()).await;
        };
        let environment = Arc::clone(&self.shared.environment);
        let plan = move |modify: &Modify, guard: &dyn Guard| {
            query::budget::charge_bytes(before.as_bytes().len())?;
            let plan = plan_of(modify, guard, &before, &*environment)?;
            let mut noted = Outcome::default();
            guarded::note_changed(&mut noted, modify, Some(guard), before.clone(), plan.after())?;
            let change = match &plan {
                Planned::Unchanged(_) => None,
                Planned::Delete => Some(Change::Delete),
                Planned::Become(after) => {
                    let update = assignment(modify, &before, after, &*environment)?;
                    Some(Change::Update { update, upsert: false })
                }
            };
            let filter = precondition(&before);
            let bytes = filter.as_bytes().len() + change.as_ref().map_or(0, size_of_change);
            if change.is_some() && bytes > PINNED_BYTES {
                return Ok(None);
            }
            let held = query::budget::hold(bytes + noted.document.as_ref().map_or(0, Selected::bytes))?;
            Ok(Some(Pinned { filter, change, document: noted.document, _held: held }))
        };
        let Some(Pinned { filter, change, document, _held }) = job.compute(plan).await? else {
            drop(targets_held);
            return self.optimistic_by_transaction(job).await.map(Some);
        };
        let mut outcome = self.run_single(self.carry_out(job, change, filter, None)).await?;
        if outcome.matched == 0 {
            return Ok(None);
        }
        outcome.document = document;
        Ok(Some(outcome))
    }

    /// Changes one document in a transaction, because its versions before and after the change do
    /// not fit into one command.
    ///
    /// # Errors
    /// `BsonObjectTooLarge` (10334) on a standalone server, which has no transactions.
    async fn optimistic_by_transaction(&self, job: Job<'_>) -> Result<Outcome> {
        if self.kind().await? == Kind::Standalone {
            let message = format!(
                "the versions of the document before and after the change exceed {PINNED_BYTES} bytes, so the change \
                 needs a transaction; a standalone server has none, and nothing was written"
            );
            return Err(Error::Query(query::Error { code: ErrorCode::BsonObjectTooLarge, message }));
        }
        let outcomes = self.run_in_transaction(std::slice::from_ref(job.write)).await?;
        Ok(outcomes.into_iter().next().unwrap_or_default())
    }

    /// Reads the documents to change. Hidden documents do not match.
    async fn targets(&self, job: Job<'_>, session: Option<&mut ClientSession>) -> Result<Targets, Failure> {
        let Job { namespace, modify, guard, limits, budget, .. } = job;
        let Pushdown { filter, residual_guard } = Pushdown::new(&modify.filter, Some(guard))?;
        let (mut documents, mut bytes, mut held) = (Vec::new(), 0, budget.hold(0)?);
        let selection = Selection::seen(residual_guard).up_to(if modify.multi { usize::MAX } else { 1 });
        let take = &mut |document: RawDocumentBuf| {
            bytes += document.as_bytes().len();
            held.grow(document.bytes())?;
            documents.push(document);
            limits.map_or(Ok(()), |limits| limits.check(documents.len(), bytes))
        };
        self.find_to_change(namespace, filter, modify.sort.as_ref(), budget, session, &selection, take).await?;
        Ok(Targets { documents, held })
    }

    /// Plans the changes of several documents.
    async fn plans(&self, job: Job<'_>, targets: Vec<RawDocumentBuf>) -> Result<Plans> {
        let (limits, environment) = (job.limits, Arc::clone(&self.shared.environment));
        let plan = move |modify: &Modify, guard: &dyn Guard| {
            let held = query::budget::hold(0)?;
            let mut plans = Plans { deleted: Vec::new(), updates: Vec::new(), document: None, held };
            let mut size = ChangedSize::new(limits);
            for (number, before) in targets.iter().enumerate() {
                query::budget::charge(1)?;
                query::budget::charge_bytes(before.as_bytes().len())?;
                let plan = plan_of(modify, guard, before, &*environment)?;
                size.add(&plan)?;
                match &plan {
                    Planned::Unchanged(_) => {}
                    Planned::Delete => {
                        let id = rawdoc! { "": get(before, "_id").map_or(RawBson::Null, RawBson::from) };
                        plans.held.grow(id.bytes())?;
                        plans.deleted.push(id);
                    }
                    Planned::Become(after) => {
                        let statement = statement(modify, before, after, &*environment)?;
                        plans.held.grow(statement.bytes())?;
                        plans.updates.push(statement);
                    }
                }
                if number == 0 {
                    let mut noted = Outcome::default();
                    guarded::note_changed(&mut noted, modify, Some(guard), before.clone(), plan.after())?;
                    plans.held.grow(noted.document.as_ref().map_or(0, Selected::bytes))?;
                    plans.document = noted.document;
                }
            }
            Ok(plans)
        };
        job.compute(plan).await
    }

    /// Returns the document that an upsert inserts, and the outcome of the upsert; `None` if the
    /// write is not an upsert.
    async fn upserted(&self, job: Job<'_>) -> Result<Option<(RawDocumentBuf, Outcome)>> {
        let environment = Arc::clone(&self.shared.environment);
        let make = move |modify: &Modify, guard: &dyn Guard| {
            let made = guarded::upserted_document(modify, Some(guard), &*environment)?;
            let Some(made) = made else { return Ok(None) };
            query::validate_names(&made)?;
            let mut outcome = Outcome::default();
            guarded::note_upserted(&mut outcome, modify, Some(guard), made.clone())?;
            Ok(Some((made, outcome)))
        };
        job.compute(make).await
    }

    /// Writes a planned change if the filter still matches the document.
    async fn carry_out(
        &self,
        job: Job<'_>,
        change: Option<Change>,
        filter: RawDocumentBuf,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let Job { namespace, budget, .. } = job;
        let Some(change) = change else { return Ok(Outcome { matched: 1, ..Outcome::default() }) };
        let modify = Modify::new(Filter::all(), false, change);
        let command = Command { modify: &modify, filter, upsert: false, is_simple: true, budget };
        self.modify(namespace, command, session).await
    }

    /// Handles a change that matches no visible document: denies it if its filter selects a
    /// hidden document by `_id` alone, and inserts a document if it is an upsert. Returns `None`
    /// if another writer has inserted a matching document in the meantime.
    async fn nothing_matched(&self, job: Job<'_>, outcome: Outcome) -> Result<Option<Outcome>> {
        let Job { namespace, budget, .. } = job;
        let hidden = self.check_hidden(job, None).await;
        hidden.map_err(|failure| failure.into_error(false))?;
        let Some((made, upserted)) = self.upserted(job).await? else { return Ok(Some(outcome)) };
        match self.run_single(self.insert(namespace, std::slice::from_ref(&made), budget, None)).await {
            Ok(_) => Ok(Some(upserted)),
            // If the change still matches nothing, the key belongs to a document that does not
            // match, and a second attempt would fail too.
            Err(Error::DuplicateKey { .. }) if self.is_there_now(job).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// True if the change matches a visible document by now.
    async fn is_there_now(&self, job: Job<'_>) -> Result<bool> {
        let targets = self.targets(job, None).await;
        Ok(!targets.map_err(|failure| failure.into_error(false))?.documents.is_empty())
    }

    /// Denies a change whose filter selects a hidden document by its `_id` alone. With any other
    /// filter, a hidden document does not match, so the result reveals nothing about it.
    async fn check_hidden(&self, job: Job<'_>, session: Option<&mut ClientSession>) -> Result<(), Failure> {
        let Job { namespace, modify, guard, budget, .. } = job;
        if !guarded::denies_hidden(modify) {
            return Ok(());
        }
        let demanded = modify.filter.demanded();
        let filter = match guard.filters() {
            Some(filters) => both(&demanded, &Filter::Nor(vec![filters.seen.clone()])),
            None => demanded.to_document(),
        };
        let filter = document(&filter)?;
        let mut hidden = None;
        let residual_guard = Arc::clone(guard);
        let selection =
            Selection::computed(move |document| Ok((!residual_guard.may_see(document)).then(|| document.to_owned())))
                .up_to(1);
        let take = &mut |document: RawDocumentBuf| {
            hidden = Some(document);
            Ok(())
        };
        self.find_to_change(namespace, filter, None, budget, session, &selection, take).await?;
        let Some(hidden) = hidden else { return Ok(()) };
        let deny = move |modify: &Modify, guard: &dyn Guard| Ok(guarded::denial_of_hidden(modify, guard, &hidden));
        Err(job.compute(deny).await?.into())
    }

    /// Runs several writes in a transaction.
    pub(super) async fn run_in_transaction(&self, writes: &[Arc<Write>]) -> Result<Vec<Outcome>> {
        if self.kind().await? == Kind::Standalone {
            return Err(Error::NeedsTransaction);
        }
        self.shared.within_all(self.in_transactions(writes)).await
    }

    /// Runs the writes in a transaction. Starts a new transaction after a transient error, up to
    /// [`ATTEMPTS`] transactions.
    async fn in_transactions(&self, writes: &[Arc<Write>]) -> Result<Vec<Outcome>> {
        let budget = &writes.first().map(|write| write.budget.clone()).unwrap_or_default();
        let mut session = self.session().await?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(1 << attempt.min(7))).await;
            }
            // The driver reads this option when a transaction begins.
            let commit_time = (self.max_time(budget)? / 4).min(COMMIT_TIME);
            let start = session.start_transaction().read_concern(snapshot()).write_concern(majority());
            let start = start.max_commit_time(commit_time);
            self.shared.within(false, async { start.await }).await?;
            match self.in_transaction(writes, &mut session).await {
                Ok(_) if is_over(budget, commit_time) => {
                    // The caller receives a timeout error, so nothing must be committed.
                    let _ = session.abort_transaction().await;
                    budget.check()?;
                    let message = "operation exceeded time limit: too little time is left for the commit".to_owned();
                    return Err(Error::Query(query::Error { code: ErrorCode::MaxTimeMsExpired, message }));
                }
                Ok(outcomes) => match self.commit(&mut session, budget, commit_time).await {
                    Ok(()) => {
                        self.shared.note_written(Some(&session));
                        return Ok(outcomes);
                    }
                    Err(error) if error.contains_label(driver::TRANSIENT_TRANSACTION_ERROR) => {}
                    Err(error) => return Err(errors::read_commit(error)),
                },
                Err(Failure::Driver(error)) if is_transient(&error) => {
                    let _ = session.abort_transaction().await;
                }
                Err(failure) => {
                    let _ = session.abort_transaction().await;
                    // Nothing has been committed.
                    return Err(failure.into_error(false));
                }
            }
        }
        Err(guarded::conflict())
    }

    /// Commits a transaction. Repeats the commit, up to [`ATTEMPTS`] times, while its result is
    /// unknown.
    pub(super) async fn commit(
        &self,
        session: &mut ClientSession,
        budget: &Budget,
        time: Duration,
    ) -> driver::Result<()> {
        for _ in 1..ATTEMPTS {
            match session.commit_transaction().await {
                // A repeated commit returns the result of the first.
                Err(error)
                    if error.contains_label(driver::UNKNOWN_TRANSACTION_COMMIT_RESULT) && !is_over(budget, time) => {}
                done => return done,
            }
        }
        session.commit_transaction().await
    }

    pub(super) async fn in_transaction(
        &self,
        writes: &[Arc<Write>],
        session: &mut ClientSession,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let Write { namespace, operation, guard, budget, .. } = &**write;
            outcomes.push(match (operation, guard) {
                (Operation::Insert(_), _) => {
                    let documents = self.prepared(write).await?;
                    self.insert(namespace, &documents, budget, Some(session)).await?
                }
                (Operation::Modify(modify), None) => self.unguarded(namespace, modify, budget, Some(session)).await?,
                (Operation::Modify(modify), Some(guard)) => {
                    self.guarded_in_transaction(Job::new(write, modify, guard), session).await?
                }
            });
        }
        Ok(outcomes)
    }

    /// Runs a change under a guard in a transaction. Checks all documents before the first write.
    /// The server aborts the transaction if another writer has changed one of them.
    async fn guarded_in_transaction(&self, job: Job<'_>, session: &mut ClientSession) -> Result<Outcome, Failure> {
        let Job { namespace, budget, .. } = job;
        let Targets { documents, held: _held } = self.targets(job, Some(&mut *session)).await?;
        let mut outcome = Outcome { matched: documents.len() as u64, ..Outcome::default() };
        if documents.is_empty() {
            self.check_hidden(job, Some(&mut *session)).await?;
            let Some((made, upserted)) = self.upserted(job).await? else { return Ok(outcome) };
            self.insert(namespace, std::slice::from_ref(&made), budget, Some(session)).await?;
            return Ok(upserted);
        }
        let Plans { deleted, updates, document: noted, held: _plans } = self.plans(job, documents).await?;
        for ids in deleted.chunks(BATCH) {
            let mut candidates = RawArrayBuf::new();
            ids.iter().filter_map(|id| get(id, "")).for_each(|id| candidates.push(id));
            let delete = Modify::new(Filter::all(), true, Change::Delete);
            let filter = rawdoc! { "_id": { "$in": candidates } };
            let command = Command { modify: &delete, filter, upsert: false, is_simple: true, budget };
            outcome.deleted += self.modify(namespace, command, Some(&mut *session)).await?.deleted;
        }
        for updates in updates.chunks(BATCH) {
            // The updates of a chunk can exceed the maximum size of one command.
            for updates in batches(updates, |update| update.as_bytes().len()) {
                let updates: RawArrayBuf = updates.iter().cloned().collect();
                let command = rawdoc! { "update": &*namespace.collection, "updates": updates, "ordered": true };
                self.run(namespace, command, true, budget, Some(&mut *session)).await?;
            }
        }
        outcome.modified = updates.len() as u64;
        outcome.document = noted;
        Ok(outcome)
    }
}

/// True if the remaining time is shorter than the time limit of a commit.
fn is_over(budget: &Budget, commit_time: Duration) -> bool {
    budget.is_exhausted() || budget.time_left().is_some_and(|left| left < commit_time)
}

pub(super) fn is_transient(error: &driver::Error) -> bool {
    error.contains_label(driver::TRANSIENT_TRANSACTION_ERROR) || errors::code(error) == Some(errors::WRITE_CONFLICT)
}

/// Plans the change of one document.
///
/// # Errors
/// Fails as [`guarded::plan`] does, and with `BadValue` (2) if a field name would occur twice. The
/// guard would check only one of the two values, and another program might read the other one.
fn plan_of(modify: &Modify, guard: &dyn Guard, before: &RawDocument, environment: &dyn Environment) -> Result<Planned> {
    let plan = guarded::plan(modify, Some(guard), before, environment)?;
    if let Planned::Become(after) = &plan {
        query::validate_names(after)?;
    }
    Ok(plan)
}

/// Returns a filter that matches a document only while it is unchanged.
fn precondition(stored: &RawDocument) -> RawDocumentBuf {
    let mut filter = by_id(stored).to_document();
    let is_same = rawdoc! { "$eq": ["$$ROOT", { "$literal": stored.to_owned() }] };
    query::append(&mut filter, "$expr", &*is_same);
    filter
}

/// The size of a planned change in bytes.
fn size_of_change(change: &Change) -> usize {
    match change {
        Change::Update { update: Update::Operators(operators), .. } => operators.to_document().as_bytes().len(),
        Change::Update { update: Update::Replacement(replacement), .. } => replacement.as_bytes().len(),
        Change::Update { update: Update::Pipeline(_), .. } | Change::Delete => 0,
    }
}

/// Returns the update statement that turns a document into the version that the guard has checked.
fn statement(
    modify: &Modify,
    before: &RawDocument,
    after: &RawDocument,
    environment: &dyn Environment,
) -> Result<RawDocumentBuf> {
    let update = match assignment(modify, before, after, environment)? {
        Update::Operators(operators) => operators.to_document().to_owned(),
        Update::Replacement(replacement) => replacement,
        Update::Pipeline(_) => return Err(Error::Engine("a planned update cannot be a pipeline".to_owned())),
    };
    Ok(rawdoc! { "q": by_id(before).to_document(), "u": update, "collation": { "locale": "simple" } })
}

/// Returns the update that turns a document into the version that the guard has checked.
///
/// An update of single fields is preferred, so that change streams report the same fields as for
/// the caller's update. The alternative is a replacement.
fn assignment(
    modify: &Modify,
    before: &RawDocument,
    after: &RawDocument,
    environment: &dyn Environment,
) -> Result<Update> {
    let is_replaced = matches!(&modify.change, Change::Update { update: Update::Replacement(_), .. });
    if !is_replaced
        && let Some(update) = difference(before, after)
        // The update could produce another order of fields than the checked version.
        && update.apply(before, &Filter::all(), environment).is_ok_and(|made| made.as_bytes() == after.as_bytes())
    {
        return Ok(update);
    }
    Ok(Update::replacement(after)?)
}

/// Returns the difference between two versions of a document as an update; `None` if no update
/// expresses it.
fn difference(before: &RawDocument, after: &RawDocument) -> Option<Update> {
    // If a field name occurs twice, the server and this store would change different ones of the
    // two fields.
    if has_odd_names(before) || has_odd_names(after) || query::validate_names(before).is_err() {
        return None;
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
        for path in removed.into_iter().flatten().filter_map(bson::RawBsonRef::as_str) {
            note(path);
            query::append(&mut unset, path, true);
        }
        query::append(&mut update, "$unset", &unset);
    }
    // In an update path, a part that begins with `$` is a positional operator.
    if is_plain && !update.is_empty() { Update::parse(&update).ok() } else { None }
}
