//! Queries: what can be asked of the server is, and what only the guard can say is asked of it here.

use std::{ops::ControlFlow, time::Duration};

use bson::{
    Document, RawBson, doc,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::{Stream, StreamExt};
use mongodb::{ClientSession, raw_batch_cursor::RawBatch};
use query::{Budget, Filter, Projection, Sort, elements, get};

use super::{MongoStore, errors::Failure, write::simple};
use crate::{Aggregate, Count, Error, Explanation, Find, Guard, Namespace, Page, Result, answer::Answer};

/// How many documents a batch may have: as many as fit, so that most answers are one trip.
const BATCH: u32 = 100_000;

/// How many documents are read at once for who reads a whole collection.
const PAGE: usize = 1000;

/// What a filter and a guard come to: what the server is asked, and who judges what it answers.
pub(super) struct Question<'a> {
    pub(super) filter: Document,
    pub(super) judge: Option<&'a dyn Guard>,
}

impl<'a> Question<'a> {
    pub(super) fn new(filter: &Filter, guard: Option<&'a dyn Guard>) -> Result<Self> {
        match guard.map(|guard| (guard, guard.filters())) {
            None => Ok(Self { filter: document(&filter.to_document())?, judge: None }),
            Some((guard, None)) => Ok(Self { filter: document(&filter.to_document())?, judge: Some(guard) }),
            Some((_, Some(filters))) => Ok(Self { filter: both(filter, &filters.seen)?, judge: None }),
        }
    }
}

/// What both filters match.
pub(super) fn both(one: &Filter, other: &Filter) -> Result<Document> {
    document(&Filter::And(vec![one.clone(), other.clone()]).to_document())
}

/// As the driver takes it.
pub(super) fn document(raw: &RawDocument) -> Result<Document> {
    Document::try_from(raw).map_err(unreadable)
}

pub(super) fn unreadable(error: bson::error::Error) -> Error {
    Error::Engine(format!("a document cannot be read: {error}"))
}

/// A query, as the server is asked it.
struct Ask {
    filter: Document,
    sort: Option<Document>,
    projection: Option<Document>,
    limit: Option<usize>,
    /// Whether a guard has a say.
    is_judged: bool,
    /// What the query may cost, at the server and here.
    budget: Budget,
}

/// Hands over documents as they arrive, until it is enough.
async fn each(
    batches: impl Stream<Item = mongodb::error::Result<RawBatch>>,
    take: &mut (dyn FnMut(&RawDocument) -> Result<ControlFlow<()>> + Send),
) -> mongodb::error::Result<Result<()>> {
    let mut batches = std::pin::pin!(batches);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for item in batch.doc_slices()? {
            let RawBsonRef::Document(document) = item? else { continue };
            match take(document) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(Ok(()))
}

/// The time that is left of a budget, for the server.
///
/// # Errors
/// If there is none left.
pub(super) fn max_time(budget: &Budget) -> Result<Option<Duration>> {
    budget.check()?;
    // Zero would be no limit.
    Ok(budget.time_left().map(|left| left.max(Duration::from_millis(1))))
}

/// Takes documents within a budget.
fn within<'t>(
    budget: &Budget,
    take: &'t mut (dyn FnMut(&RawDocument) -> Result<ControlFlow<()>> + Send),
) -> impl FnMut(&RawDocument) -> Result<ControlFlow<()>> + Send + use<'t> {
    let budget = budget.clone();
    move |document| {
        budget.enter(|| {
            query::budget::charge_bytes(document.as_bytes().len())?;
            take(document)
        })
    }
}

impl MongoStore {
    async fn ask(
        &self,
        namespace: &Namespace,
        ask: Ask,
        take: &mut (dyn FnMut(&RawDocument) -> Result<ControlFlow<()>> + Send),
    ) -> Result<()> {
        let collection = self.shared.to_read(namespace, self.criteria.as_ref()).await?;
        let limit = ask.limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let mut find = collection.find(ask.filter).batch_size(BATCH);
        if let Some(left) = max_time(&ask.budget)? {
            find = find.max_time(left);
        }
        if let Some(sort) = ask.sort {
            find = find.sort(sort);
        }
        if let Some(projection) = ask.projection {
            find = find.projection(projection);
        }
        if let Some(limit) = limit {
            find = find.limit(limit);
        }
        if ask.is_judged {
            find = find.collation(simple());
        }
        let budget = ask.budget;
        let mut take = within(&budget, take);
        let answer = match self.shared.causal_session().await? {
            None => self.shared.within(false, async { each(find.batch().await?, &mut take).await }).await?,
            Some(mut session) => {
                let read = async {
                    let mut cursor = find.session(&mut session).batch().await?;
                    each(cursor.stream(&mut session), &mut take).await
                };
                self.shared.within(false, read).await?
            }
        };
        budget.check()?;
        answer
    }

    pub(super) async fn find_documents(&self, find: Find) -> Result<Vec<RawDocumentBuf>> {
        let Find { namespace, filter, sort, projection, limit, at_most, most_bytes, guard, budget } = find;
        if limit == Some(0) {
            return Ok(Vec::new());
        }
        let question = Question::new(&filter, guard.as_deref())?;
        // What `$` stands for depends on all that the server is asked, and it may be asked more than the caller has.
        let is_here = |projection: &Projection| question.judge.is_some() || projection.is_positional();
        let (here, there): (Option<&Projection>, Option<&Projection>) =
            projection.as_ref().map_or((None, None), |projection| match is_here(projection) {
                true => (Some(projection), None),
                false => (None, Some(projection)),
            });
        let most = at_most.map_or(usize::MAX, |most| most.saturating_add(1)).min(limit.unwrap_or(usize::MAX));
        let ask = Ask {
            filter: question.filter,
            sort: sort_document(sort.as_ref())?,
            projection: there.map(|projection| document(projection.to_document())).transpose()?,
            limit: Some(most).filter(|most| *most < usize::MAX && question.judge.is_none()),
            is_judged: guard.is_some(),
            budget,
        };
        let mut answer = Answer::new(at_most, most_bytes);
        let judge = question.judge;
        let mut take = |document: &RawDocument| {
            if judge.is_none_or(|guard| guard.may_see(document)) {
                answer.push(match here {
                    Some(projection) => projection.apply(document, &filter)?,
                    None => document.to_owned(),
                })?;
            }
            Ok(if answer.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        self.ask(&namespace, ask, &mut take).await?;
        Ok(answer.documents)
    }

    pub(super) async fn count_documents(&self, count: Count) -> Result<u64> {
        let Count { namespace, filter, limit, guard, budget } = count;
        let question = Question::new(&filter, guard.as_deref())?;
        let is_judged = guard.is_some();
        let Some(guard) = question.judge else {
            let collection = self.shared.to_read(&namespace, self.criteria.as_ref()).await?;
            let mut count = collection.count_documents(question.filter);
            if let Some(left) = max_time(&budget)? {
                count = count.max_time(left);
            }
            if let Some(limit) = limit {
                count = count.limit(limit as u64);
            }
            if is_judged {
                count = count.collation(simple());
            }
            let mut session = self.shared.causal_session().await?;
            if let Some(session) = &mut session {
                count = count.session(session);
            }
            return self.shared.within(false, async { count.await }).await;
        };
        let mut counted = 0;
        let ask = Ask { filter: question.filter, sort: None, projection: None, limit: None, is_judged, budget };
        let mut take = |document: &RawDocument| {
            counted += usize::from(guard.may_see(document));
            Ok(if Some(counted) == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        self.ask(&namespace, ask, &mut take).await?;
        Ok(counted as u64)
    }

    pub(super) async fn run_pipeline(&self, aggregate: Aggregate) -> Result<Vec<RawDocumentBuf>> {
        let Aggregate { namespace, pipeline, at_most, most_bytes, guard, budget } = aggregate;
        let filters = guard.as_ref().map(|guard| guard.filters());
        let mut answer = Answer::new(at_most, most_bytes);
        if let Some(None) = filters {
            // Only the guard can say which documents go in, so all that is done with them is done here.
            let (filter, pipeline) = pipeline.split_match();
            let find = Find { guard, budget: budget.clone(), ..Find::new(namespace, filter) };
            let documents = self.find_documents(find).await?;
            let within = budget.clone();
            let run = move || {
                within.enter(|| {
                    for document in pipeline.run(documents.into_iter()) {
                        answer.push(document?)?;
                    }
                    Ok(answer.documents)
                })
            };
            let answer = tokio::task::spawn_blocking(run).await;
            budget.check()?;
            return answer.map_err(|error| Error::Engine(format!("an aggregation was abandoned: {error}")))?;
        }
        let mut stages = Vec::with_capacity(pipeline.stages().len() + 2);
        if let Some(Some(filters)) = filters {
            stages.push(doc! { "$match": document(&filters.seen.to_document())? });
        }
        for stage in pipeline.stages() {
            stages.push(document(stage)?);
        }
        if let Some(most) = at_most {
            stages.push(doc! { "$limit": i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1) });
        }
        let collection = self.shared.to_read(&namespace, self.criteria.as_ref()).await?;
        let mut aggregate = collection.aggregate(stages).batch_size(BATCH);
        if let Some(left) = max_time(&budget)? {
            aggregate = aggregate.max_time(left);
        }
        if filters.is_some() {
            aggregate = aggregate.collation(simple());
        }
        let mut gather = |document: &RawDocument| {
            answer.push(document.to_owned())?;
            Ok(ControlFlow::Continue(()))
        };
        let mut take = within(&budget, &mut gather);
        match self.shared.causal_session().await? {
            None => self.shared.within(false, async { each(aggregate.batch().await?, &mut take).await }).await??,
            Some(mut session) => {
                let read = async {
                    let mut cursor = aggregate.session(&mut session).batch().await?;
                    each(cursor.stream(&mut session), &mut take).await
                };
                self.shared.within(false, read).await??;
            }
        }
        drop(take);
        budget.check()?;
        Ok(answer.documents)
    }

    /// How many documents a filter matches, up to one more than `most`, and how many bytes they have.
    pub(super) async fn size_of(
        &self,
        namespace: &Namespace,
        filter: &Document,
        most: usize,
        budget: &Budget,
    ) -> Result<(usize, usize)> {
        let most = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let group = doc! { "_id": null, "documents": { "$sum": 1 }, "bytes": { "$sum": { "$bsonSize": "$$ROOT" } } };
        let stages = [doc! { "$match": filter.clone() }, doc! { "$limit": most }, doc! { "$group": group }];
        let collection = self.shared.collection(namespace).await?;
        let mut aggregate = collection.aggregate(stages).collation(simple());
        if let Some(left) = max_time(budget)? {
            aggregate = aggregate.max_time(left);
        }
        let (mut documents, mut bytes) = (0, 0);
        let mut take = |group: &RawDocument| {
            let count = |name| get(group, name).and_then(query::integer).and_then(|count| usize::try_from(count).ok());
            (documents, bytes) = (count("documents").unwrap_or(0), count("bytes").unwrap_or(0));
            Ok(ControlFlow::Continue(()))
        };
        self.shared.within(false, async { each(aggregate.batch().await?, &mut take).await }).await??;
        Ok((documents, bytes))
    }

    /// What a write depends on: as it is on the primary, or in a transaction.
    pub(super) async fn find_to_change(
        &self,
        namespace: &Namespace,
        filter: Document,
        sort: Option<&Sort>,
        budget: &Budget,
        session: Option<&mut ClientSession>,
        take: &mut (dyn FnMut(&RawDocument) -> Result<ControlFlow<()>> + Send),
    ) -> Result<(), Failure> {
        let collection = self.shared.collection(namespace).await?;
        let mut find = collection.find(filter).collation(simple());
        if let Some(left) = max_time(budget)? {
            find = find.max_time(left);
        }
        if let Some(sort) = sort_document(sort)? {
            find = find.sort(sort);
        }
        let mut take = within(budget, take);
        match session {
            None => Ok(self.shared.within(false, async { each(find.batch().await?, &mut take).await }).await??),
            Some(session) => {
                let mut cursor = find.session(&mut *session).batch().await?;
                Ok(each(cursor.stream(session), &mut take).await??)
            }
        }
    }

    /// The documents of a collection by their `_id`s, which is the one order that can be taken up again.
    pub(super) async fn page_after(&self, namespace: &Namespace, after: Option<RawBson>) -> Result<Page> {
        let (mut read, id) = match after {
            Some(RawBson::Document(place)) => {
                let id = get(&place, "_id").map(RawBson::from);
                (place.get_i64("read").unwrap_or(0), id)
            }
            _ => (0, None),
        };
        let filter = id.map_or_else(RawDocumentBuf::new, |id| after_id(id.as_raw_bson_ref()));
        let (filter, sort) = (document(&filter)?, Some(doc! { "_id": 1 }));
        let mut documents: Vec<RawDocumentBuf> = Vec::new();
        let mut take = |document: &RawDocument| {
            documents.push(document.to_owned());
            Ok(ControlFlow::Continue(()))
        };
        self.ask(
            namespace,
            Ask { filter, sort, projection: None, limit: Some(PAGE), is_judged: false, budget: Budget::default() },
            &mut take,
        )
        .await?;
        let collection = self.shared.to_read(namespace, self.criteria.as_ref()).await?;
        let estimate = collection.estimated_document_count();
        let total = self.shared.within(false, async { estimate.await }).await?;
        read += documents.len() as i64;
        let last = documents.last().filter(|_| documents.len() == PAGE).and_then(|document| get(document, "_id"));
        let next = last.map(|id| {
            let mut place = rawdoc! { "read": read };
            query::append(&mut place, "_id", id);
            RawBson::Document(place)
        });
        let read = read.unsigned_abs();
        Ok(Page { documents, next, reached: (read, total.max(read)) })
    }

    pub(super) async fn explain_find(&self, find: Find) -> Result<Explanation> {
        let Find { namespace, filter, sort, projection, limit, guard, .. } = find;
        let question = Question::new(&filter, guard.as_deref())?;
        let mut command = doc! { "find": &*namespace.collection, "filter": question.filter };
        let sort = sort_document(sort.as_ref())?;
        let is_sorted = sort.is_some();
        if let Some(sort) = sort {
            command.insert("sort", sort);
        }
        if let Some(projection) = projection {
            command.insert("projection", document(projection.to_document())?);
        }
        if let Some(limit) = limit {
            command.insert("limit", i64::try_from(limit).unwrap_or(i64::MAX));
        }
        let database = self.shared.client().await?.database(&namespace.database);
        let explain = database.run_command(doc! { "explain": command, "verbosity": "executionStats" });
        let told = self.shared.within(false, async { explain.await }).await?;
        let mut explanation = explanation(&told);
        explanation.sorted_by_index &= is_sorted && explanation.index.is_some();
        Ok(explanation)
    }
}

pub(super) fn sort_document(sort: Option<&Sort>) -> Result<Option<Document>> {
    sort.filter(|sort| !sort.is_empty()).map(|sort| document(&sort.to_document())).transpose()
}

/// Reads what matters of the server's answer.
fn explanation(told: &Document) -> Explanation {
    let mut explanation = Explanation { stage: "COLLSCAN", sorted_by_index: true, ..Explanation::default() };
    let plan = told.get_document("queryPlanner").and_then(|planner| planner.get_document("winningPlan"));
    let mut indexes = Vec::new();
    if let Ok(plan) = plan {
        // Of the engine that compiles queries, the plan is one level deeper.
        visit_plan(plan.get_document("queryPlan").unwrap_or(plan), &mut explanation, &mut indexes);
    }
    explanation.index = (!indexes.is_empty()).then(|| indexes.join(", "));
    if let Ok(statistics) = told.get_document("executionStats") {
        let count = |name: &str| statistics.get(name).and_then(number).unwrap_or(0);
        explanation.examined = count("totalDocsExamined");
        explanation.returned = count("nReturned");
    }
    explanation
}

pub(super) fn number(value: &bson::Bson) -> Option<u64> {
    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from)).or_else(|| value.as_f64().map(|n| n as i64));
    number.and_then(|number| u64::try_from(number).ok())
}

fn visit_plan(stage: &Document, explanation: &mut Explanation, indexes: &mut Vec<String>) {
    match stage.get_str("stage") {
        Ok("SORT") => explanation.sorted_by_index = false,
        Ok("IDHACK" | "CLUSTERED_IXSCAN" | "EXPRESS_CLUSTERED_IXSCAN") => explanation.stage = "IDHACK",
        // One key of one index, which most of the time is that of `_id`.
        Ok("EXPRESS_IXSCAN") if stage.get_str("indexName").is_ok_and(|name| name == "_id_") => {
            explanation.stage = "IDHACK"
        }
        Ok("EOF") => explanation.stage = "EOF",
        Ok("IXSCAN" | "EXPRESS_IXSCAN") => {
            explanation.stage = "IXSCAN";
            explanation.ranges += 1;
            indexes.extend(stage.get_str("indexName").ok().map(str::to_owned));
        }
        _ => {}
    }
    let inner = stage.get_document("inputStage").ok().into_iter();
    let several = stage.get_array("inputStages").ok().into_iter().flatten().filter_map(bson::Bson::as_document);
    inner.chain(several).for_each(|stage| visit_plan(stage, explanation, indexes));
}

/// The types of `_id`s in their order; a comparison is within one of them alone.
const TYPES: [&[&str]; 11] = [
    &["null"],
    &["int", "long", "double", "decimal"],
    &["string", "symbol"],
    &["object"],
    &["binData"],
    &["objectId"],
    &["bool"],
    &["date"],
    &["timestamp"],
    &["javascript", "javascriptWithScope"],
    &["maxKey"],
];

/// What comes after an `_id`.
fn after_id(id: RawBsonRef<'_>) -> RawDocumentBuf {
    if matches!(id, RawBsonRef::MinKey) {
        return rawdoc! { "_id": { "$ne": RawBson::MinKey } };
    }
    let name = query::type_name(id);
    let later = TYPES.iter().skip_while(|names| !names.contains(&name)).skip(1).flat_map(|names| *names);
    let mut types = bson::raw::RawArrayBuf::new();
    later.for_each(|name| types.push(*name));
    let mut within = RawDocumentBuf::new();
    // Nothing is greater than what is no number, which is before all numbers.
    let is_nan = query::Number::of(id).is_some_and(query::Number::is_nan);
    let least = RawBson::Double(f64::NEG_INFINITY);
    let bound = if is_nan {
        rawdoc! { "$gte": least }
    } else {
        rawdoc! { "$gt": RawBson::from(id) }
    };
    query::append(&mut within, "_id", &bound);
    let mut branches = bson::raw::RawArrayBuf::new();
    branches.push(within);
    if !types.is_empty() {
        branches.push(rawdoc! { "_id": { "$type": types } });
    }
    rawdoc! { "$or": branches }
}

/// Whether there is a field of a name in a document that is not a value of ours to put in an update.
pub(super) fn has_odd_names(document: &RawDocument) -> bool {
    elements(document).any(|(name, _)| name.is_empty() || name.starts_with('$') || name.contains('.'))
}
