//! Writes under a guard. Check and write are one, in one of three ways:
//!
//! - What the guard asks can be asked of the server: it becomes part of the filter, and the write is one command.
//! - One document: it is read, judged here as it is and as it would become, and written on the condition that it is
//!   still the same to the last field; if it is not, all begins anew.
//! - Several documents: the same in a transaction, which the server ends if anybody else writes to one of them.

use std::ops::ControlFlow;

use bson::{
    Bson, Document, RawBson, doc,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use mongodb::{ClientSession, error as driver};
use query::{Filter, Path, Update, elements, get};

use super::{
    MongoStore,
    connect::{Kind, majority, snapshot},
    errors::{self, Failure},
    read::{Question, both, document, has_odd_names},
    write::{Command, by_id},
};
use crate::{
    Change, Denied, Error, Guard, GuardFilters, Modify, Namespace, Operation, Outcome, Result, Returning, Write,
};

/// How often a write is begun anew because others were faster.
const ATTEMPTS: usize = 20;

/// How many updates go into one command.
const BATCH: usize = 1000;

/// What becomes of a document, after the guard has been asked.
enum Plan {
    Delete,
    Unchanged(RawDocumentBuf),
    Become(RawDocumentBuf),
}

impl Plan {
    fn after(&self) -> Option<&RawDocumentBuf> {
        match self {
            Self::Delete => None,
            Self::Unchanged(after) | Self::Become(after) => Some(after),
        }
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
        let Write { namespace, operation, guard } = write;
        match (operation, guard.as_deref()) {
            (Operation::Insert(documents), guard) => {
                let documents = self.prepared(documents)?;
                // What the guard says of them does not depend on what is stored.
                if let Some(guard) = guard {
                    documents.iter().try_for_each(|document| guard.check_write(None, Some(document)))?;
                }
                self.alone(async |session| self.insert(namespace, &documents, session).await).await
            }
            (Operation::Modify(modify), None) => {
                self.alone(async |session| self.unguarded(namespace, modify, session).await).await
            }
            (Operation::Modify(modify), Some(guard)) => {
                self.shared.within_all(self.guarded(write, modify, guard)).await
            }
        }
    }

    /// Sends one command; the driver sends it again where it may, and only then.
    async fn alone(
        &self,
        send: impl AsyncFnOnce(Option<&mut ClientSession>) -> Result<Outcome, Failure>,
    ) -> Result<Outcome> {
        let mut session = self.shared.causal_session().await?;
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
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let upsert = matches!(modify.change, Change::Update { upsert: true, .. });
        let filter = document(&modify.filter.to_document())?;
        let command = Command { modify, filter, upsert, is_judged: false };
        self.modify(namespace, command, session).await
    }

    async fn guarded(&self, write: &Write, modify: &Modify, guard: &dyn Guard) -> Result<Outcome> {
        let namespace = &write.namespace;
        for _ in 0..ATTEMPTS {
            let attempt = match guard.filters().and_then(|filters| rule(modify, filters)) {
                Some(rule) => self.by_rule(namespace, modify, guard, rule).await?,
                None if modify.multi => {
                    let outcomes = self.together(std::slice::from_ref(write)).await?;
                    return Ok(outcomes.into_iter().next().unwrap_or_default());
                }
                None => self.pinned(namespace, modify, guard).await?,
            };
            if let Some(outcome) = attempt {
                return Ok(outcome);
            }
        }
        Err(conflict())
    }

    /// With what the guard asks as part of the filter. Without an answer something came between.
    async fn by_rule(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        guard: &dyn Guard,
        rule: &Filter,
    ) -> Result<Option<Outcome>> {
        let filter = both(&modify.filter, rule)?;
        let send = async |session: Option<&mut ClientSession>| {
            self.modify(namespace, Command { modify, filter, upsert: false, is_judged: true }, session).await
        };
        let outcome = self.alone(send).await?;
        if outcome.matched > 0 {
            Ok(Some(outcome))
        } else {
            self.nothing_matched(namespace, modify, guard, outcome).await
        }
    }

    /// Judges one document here, and writes on the condition that it is still the same.
    async fn pinned(&self, namespace: &Namespace, modify: &Modify, guard: &dyn Guard) -> Result<Option<Outcome>> {
        let targets =
            self.targets(namespace, modify, guard, None).await.map_err(|failure| failure.into_error(false))?;
        let Some(before) = targets.into_iter().next() else {
            return self.nothing_matched(namespace, modify, guard, Outcome::default()).await;
        };
        let plan = self.plan(modify, guard, &before)?;
        let pin = pin(&before)?;
        let send = async |session: Option<&mut ClientSession>| {
            self.carry_out(namespace, modify, &plan, pin, &before, session).await
        };
        let mut outcome = self.alone(send).await?;
        if outcome.matched == 0 {
            return Ok(None);
        }
        answer_with(&mut outcome, modify, guard, before, plan.after())?;
        Ok(Some(outcome))
    }

    /// The documents to change: what the caller may not see does not match.
    async fn targets(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        guard: &dyn Guard,
        session: Option<&mut ClientSession>,
    ) -> Result<Vec<RawDocumentBuf>, Failure> {
        let question = Question::new(&modify.filter, Some(guard))?;
        let mut targets = Vec::new();
        let mut take = |document: &RawDocument| {
            if question.judge.is_none_or(|guard| guard.may_see(document)) {
                targets.push(document.to_owned());
            }
            let is_enough = !modify.multi && !targets.is_empty();
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        self.find_to_change(namespace, question.filter, modify.sort.as_ref(), session, &mut take).await?;
        Ok(targets)
    }

    /// What is to become of a document, if it may.
    fn plan(&self, modify: &Modify, guard: &dyn Guard, before: &RawDocument) -> Result<Plan> {
        match &modify.change {
            Change::Delete => {
                guard.check_write(Some(before), None)?;
                Ok(Plan::Delete)
            }
            Change::Update { update, .. } => {
                let after = update.apply(before, &modify.filter, &*self.shared.environment)?;
                guard.check_write(Some(before), Some(&after))?;
                let is_same = after.as_bytes() == before.as_bytes();
                Ok(if is_same { Plan::Unchanged(after) } else { Plan::Become(after) })
            }
        }
    }

    /// Makes of a document what was judged, where the filter still matches it.
    async fn carry_out(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        plan: &Plan,
        filter: Document,
        before: &RawDocument,
        session: Option<&mut ClientSession>,
    ) -> Result<Outcome, Failure> {
        let change = match plan {
            Plan::Unchanged(_) => return Ok(Outcome { matched: 1, ..Outcome::default() }),
            Plan::Delete => Change::Delete,
            Plan::Become(after) => Change::Update { update: assignment(modify, before, after)?, upsert: false },
        };
        let modify = Modify::new(Filter::all(), false, change);
        self.modify(namespace, Command { modify: &modify, filter, upsert: false, is_judged: true }, session).await
    }

    /// Where nothing that the caller may see matches: what hidden documents there are, and an upsert. Without an answer something
    /// came between.
    async fn nothing_matched(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        guard: &dyn Guard,
        outcome: Outcome,
    ) -> Result<Option<Outcome>> {
        let hidden = self.check_hidden(namespace, modify, guard, None).await;
        hidden.map_err(|failure| failure.into_error(false))?;
        let Change::Update { update, upsert: true } = &modify.change else { return Ok(Some(outcome)) };
        let made = update.upsert(&modify.filter, &*self.shared.environment)?;
        guard.check_write(None, Some(&made))?;
        let send = async |session: Option<&mut ClientSession>| {
            self.insert(namespace, std::slice::from_ref(&made), session).await
        };
        match self.alone(send).await {
            Ok(_) => upserted(modify, guard, made).map(Some),
            // Somebody has inserted it meanwhile, or it is another document's key for good.
            Err(Error::DuplicateKey { .. }) if self.is_there_now(namespace, modify, guard).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn is_there_now(&self, namespace: &Namespace, modify: &Modify, guard: &dyn Guard) -> Result<bool> {
        let targets = self.targets(namespace, modify, guard, None).await;
        Ok(!targets.map_err(|failure| failure.into_error(false))?.is_empty())
    }

    /// A document that the caller may not see does not match, so that a filter tells nothing about it, with two exceptions that
    /// tell no more than an insert would: a filter for its `_id` alone is denied, and so is an upsert that would make its double.
    async fn check_hidden(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        guard: &dyn Guard,
        session: Option<&mut ClientSession>,
    ) -> Result<(), Failure> {
        let upsert = matches!(modify.change, Change::Update { upsert: true, .. });
        if !upsert && !modify.filter.is_of_id_alone() {
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
        self.find_to_change(namespace, filter, None, session, &mut take).await?;
        let Some(hidden) = hidden else { return Ok(()) };
        let after = matches!(modify.change, Change::Update { .. }).then_some(&*hidden);
        guard.check_write(Some(&hidden), after)?;
        Err(Denied("not permitted".into()).into())
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
        Err(conflict())
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
        for Write { namespace, operation, guard } in writes {
            outcomes.push(match (operation, guard.as_deref()) {
                (Operation::Insert(documents), guard) => {
                    let documents = self.prepared(documents)?;
                    if let Some(guard) = guard {
                        documents.iter().try_for_each(|document| guard.check_write(None, Some(document)))?;
                    }
                    self.insert(namespace, &documents, Some(session)).await?
                }
                (Operation::Modify(modify), None) => self.unguarded(namespace, modify, Some(session)).await?,
                (Operation::Modify(modify), Some(guard)) => self.judged(namespace, modify, guard, session).await?,
            });
        }
        Ok(outcomes)
    }

    /// Judges all documents, and then writes: the transaction ends if anybody else has written to one of them.
    async fn judged(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        guard: &dyn Guard,
        session: &mut ClientSession,
    ) -> Result<Outcome, Failure> {
        let targets = self.targets(namespace, modify, guard, Some(&mut *session)).await?;
        let mut outcome = Outcome { matched: targets.len() as u64, ..Outcome::default() };
        let plans = targets.iter().map(|before| self.plan(modify, guard, before)).collect::<Result<Vec<_>>>()?;
        if targets.is_empty() {
            self.check_hidden(namespace, modify, guard, Some(&mut *session)).await?;
            let Change::Update { update, upsert: true } = &modify.change else { return Ok(outcome) };
            let made = update.upsert(&modify.filter, &*self.shared.environment)?;
            guard.check_write(None, Some(&made))?;
            self.insert(namespace, std::slice::from_ref(&made), Some(session)).await?;
            return Ok(upserted(modify, guard, made)?);
        }
        if matches!(modify.change, Change::Delete) {
            let ids: Vec<RawBson> =
                targets.iter().map(|document| get(document, "_id").map_or(RawBson::Null, RawBson::from)).collect();
            for ids in ids.chunks(BATCH) {
                let mut candidates = RawArrayBuf::new();
                ids.iter().for_each(|id| candidates.push(id.as_raw_bson_ref()));
                let delete = Modify::new(Filter::all(), true, Change::Delete);
                let filter = document(&rawdoc! { "_id": { "$in": candidates } })?;
                let command = Command { modify: &delete, filter, upsert: false, is_judged: true };
                outcome.deleted += self.modify(namespace, command, Some(&mut *session)).await?.deleted;
            }
        } else {
            let changed: Vec<_> = targets
                .iter()
                .zip(&plans)
                .filter_map(|(before, plan)| match plan {
                    Plan::Become(after) => Some((before, after)),
                    Plan::Delete | Plan::Unchanged(_) => None,
                })
                .collect();
            for changed in changed.chunks(BATCH) {
                self.update_all(namespace, modify, changed, session).await?;
            }
            outcome.modified = changed.len() as u64;
        }
        if let (Some(before), Some(plan)) = (targets.into_iter().next(), plans.first()) {
            answer_with(&mut outcome, modify, guard, before, plan.after())?;
        }
        Ok(outcome)
    }

    /// Many updates in one command.
    async fn update_all(
        &self,
        namespace: &Namespace,
        modify: &Modify,
        changed: &[(&RawDocumentBuf, &RawDocumentBuf)],
        session: &mut ClientSession,
    ) -> Result<(), Failure> {
        let mut updates = RawArrayBuf::new();
        for (before, after) in changed {
            let update = match assignment(modify, before, after)? {
                Update::Operators(operators) => operators.to_document().to_owned(),
                Update::Replacement(replacement) => replacement,
                Update::Pipeline(_) => continue,
            };
            updates
                .push(rawdoc! { "q": by_id(before).to_document(), "u": update, "collation": { "locale": "simple" } });
        }
        let command = rawdoc! { "update": &*namespace.collection, "updates": updates };
        let database = self.shared.client().await?.database(&namespace.database);
        let answer = database.run_raw_command(command).session(session).await?;
        match answer.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document) {
            Some(error) => {
                let message = error.get_str("errmsg").unwrap_or("an update failed").to_owned();
                let code = query::ErrorCode::by_number(error.get_i32("code").unwrap_or(errors::WRITE_CONFLICT));
                Err(Error::Query(query::Error { code, message }).into())
            }
            None => Ok(()),
        }
    }
}

fn is_transient(error: &driver::Error) -> bool {
    error.contains_label(driver::TRANSIENT_TRANSACTION_ERROR) || errors::code(error) == Some(errors::WRITE_CONFLICT)
}

fn conflict() -> Error {
    let code = query::ErrorCode::by_number(errors::WRITE_CONFLICT);
    let message = "the documents were changed by others again and again; nothing was written".to_owned();
    Error::Query(query::Error { code, message })
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

/// Puts in what the caller asks for of a document that was changed.
fn answer_with(
    outcome: &mut Outcome,
    modify: &Modify,
    guard: &dyn Guard,
    before: RawDocumentBuf,
    after: Option<&RawDocumentBuf>,
) -> Result<()> {
    let document = match modify.returning {
        Returning::Nothing => None,
        Returning::Before => Some(before),
        // The new version may be one that the caller may not see.
        Returning::After => after.filter(|after| guard.may_see(after)).cloned(),
    };
    outcome.document = projected(modify, document)?;
    Ok(())
}

fn upserted(modify: &Modify, guard: &dyn Guard, made: RawDocumentBuf) -> Result<Outcome> {
    let upserted_id = get(&made, "_id").map(RawBson::from);
    let document = Some(made).filter(|made| modify.returning == Returning::After && guard.may_see(made));
    Ok(Outcome { upserted_id, document: projected(modify, document)?, ..Outcome::default() })
}

fn projected(modify: &Modify, document: Option<RawDocumentBuf>) -> Result<Option<RawDocumentBuf>> {
    match (&modify.projection, document) {
        (Some(projection), Some(document)) => Ok(Some(projection.apply(&document, &modify.filter)?)),
        (_, document) => Ok(document),
    }
}
