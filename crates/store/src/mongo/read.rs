//! Queries. The server evaluates filters; a guard without filters is evaluated in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bson::{
    Document, RawBson, doc,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::{Stream, StreamExt};
use mongodb::{ClientSession, raw_batch_cursor::RawBatch};
use query::{Budget, Filter, Projection, Sort, budget::Held, elements, get};

use super::{
    MongoStore,
    connect::Lane,
    errors::{self, Failure},
    write::simple,
};
use crate::{Aggregate, Count, Error, Explanation, Find, Guard, Namespace, Page, Result, results::Results, workers};

/// The batch size of queries that need all documents: as large as the server allows, so that most
/// answers take one round trip.
const BATCH: u32 = 100_000;

/// The number of documents in the server's first batch of a query without a batch size.
const FIRST_BATCH: usize = 101;

/// The number of documents that a first query fetches for each document wanted, if a guard is
/// evaluated in this process.
const FIRST_TRY: usize = 4;

/// The number of documents in a page of a whole collection.
const PAGE: usize = 1000;

/// The maximum size in bytes of a filter that is extended by a guard's superset of the visible
/// documents.
const SUPERSET_BYTES: usize = 4 * 1024 * 1024;

/// A filter and a guard, split into the filter for the server and the residual guard for the
/// documents that it returns.
pub(super) struct Pushdown {
    pub(super) filter: Document,
    pub(super) residual_guard: Option<Arc<dyn Guard>>,
}

impl Pushdown {
    pub(super) fn new(filter: &Filter, guard: Option<&Arc<dyn Guard>>) -> Result<Self> {
        match guard.map(|guard| (guard, guard.filters())) {
            None => Ok(Self { filter: document(&filter.to_document())?, residual_guard: None }),
            Some((guard, None)) => {
                // A filter that is large itself, with a superset of long value lists, could exceed
                // the size of a command.
                let superset = guard.superset().map(|superset| both(filter, superset));
                let superset = superset.filter(|asked| asked.as_bytes().len() <= SUPERSET_BYTES);
                let asked = superset.unwrap_or_else(|| filter.to_document());
                Ok(Self { filter: document(&asked)?, residual_guard: Some(Arc::clone(guard)) })
            }
            Some((_, Some(filters))) => {
                Ok(Self { filter: document(&both(filter, &filters.seen))?, residual_guard: None })
            }
        }
    }
}

/// Returns the filter that matches what both filters match.
pub(super) fn both(one: &Filter, other: &Filter) -> RawDocumentBuf {
    Filter::And(vec![one.clone(), other.clone()]).to_document()
}

/// Converts a document to the type that the driver takes.
///
/// # Errors
/// `BadValue` (2) if a field name occurs twice: the conversion would lose one of the values.
pub(super) fn document(raw: &RawDocument) -> Result<Document> {
    query::validate_names(raw)?;
    Document::try_from(raw).map_err(unreadable)
}

pub(super) fn unreadable(error: bson::error::Error) -> Error {
    Error::Engine(format!("a document cannot be read: {error}"))
}

/// The parameters of a `find` command.
#[derive(Clone)]
struct FindRequest {
    filter: Document,
    sort: Option<Document>,
    projection: Option<Document>,
    limit: Option<usize>,
    /// True if the server chooses the batch sizes: a small first batch, which may be enough.
    is_gradual: bool,
    /// True if strings are compared with the simple collation.
    is_simple: bool,
    /// The limits of the query, on the server and in this process.
    budget: Budget,
}

/// A value that a query collects for each selected document.
pub(super) trait Selected: Send + 'static {
    /// The bytes that the value occupies in a list.
    fn bytes(&self) -> usize;
}

impl Selected for RawDocumentBuf {
    fn bytes(&self) -> usize {
        self.as_bytes().len() + size_of::<Self>()
    }
}

impl Selected for () {
    fn bytes(&self) -> usize {
        0
    }
}

/// Selects documents that the server returns, and maps each to the value that the query collects.
pub(super) struct Selection<T> {
    /// Maps a document to its value; `None` if it is not selected.
    select: Arc<Select<T>>,
    /// True if `select` is a computation, which must not run on the polling thread.
    is_computed: bool,
    /// The maximum number of values.
    most: usize,
}

type Select<T> = dyn Fn(&RawDocument) -> Result<Option<T>> + Send + Sync;

impl Selection<RawDocumentBuf> {
    /// Selects all documents unchanged.
    fn all() -> Self {
        Self { select: Arc::new(|document| Ok(Some(document.to_owned()))), is_computed: false, most: usize::MAX }
    }

    /// Selects the documents that a guard lets the caller see, unchanged.
    pub(super) fn seen(guard: Option<Arc<dyn Guard>>) -> Self {
        match guard {
            None => Self::all(),
            Some(guard) => Self::computed(move |document| Ok(guard.may_see(document).then(|| document.to_owned()))),
        }
    }
}

impl<T> Selection<T> {
    /// Selects with a computation for each document.
    pub(super) fn computed(select: impl Fn(&RawDocument) -> Result<Option<T>> + Send + Sync + 'static) -> Self {
        Self { select: Arc::new(select), is_computed: true, most: usize::MAX }
    }

    /// Limits the number of values.
    pub(super) fn up_to(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The maximum number of documents that the server has to send; `None` if more documents may
    /// be needed than are selected.
    fn limit(&self) -> Option<usize> {
        let is_limited = !self.is_computed && self.most < usize::MAX;
        is_limited.then_some(self.most)
    }
}

/// A first query for few documents, in case the guard lets the caller see enough of them. A query
/// for one document then does not fetch a batch of large documents.
///
/// A small batch size would also apply to all later batches: a query with mostly hidden documents
/// would take thousands of round trips. The server's own batches grow instead.
struct FirstTry<T> {
    /// The limit of the first query.
    limit: usize,
    selection: Selection<T>,
    looked_at: Arc<AtomicUsize>,
    selected: Vec<T>,
    held: Held,
}

impl<T: Selected> FirstTry<T> {
    /// Returns the first query of a selection; `None` if the server's first batch is about as
    /// small.
    fn of(selection: &Selection<T>, budget: &Budget) -> Result<Option<Self>> {
        let limit = selection.most.saturating_mul(FIRST_TRY);
        if !selection.is_computed || limit >= FIRST_BATCH {
            return Ok(None);
        }
        let looked_at = Arc::new(AtomicUsize::new(0));
        let (count, select) = (Arc::clone(&looked_at), Arc::clone(&selection.select));
        let counting = move |document: &RawDocument| {
            count.fetch_add(1, Ordering::Relaxed);
            select(document)
        };
        let selection = Selection::computed(counting).up_to(selection.most);
        Ok(Some(Self { limit, selection, looked_at, selected: Vec::new(), held: budget.hold(0)? }))
    }

    /// Returns the selection and the function that collects its values.
    fn parts(&mut self) -> (&Selection<T>, impl FnMut(T) -> Result<()> + Send) {
        let Self { selection, selected, held, .. } = self;
        let gather = |value: T| {
            held.grow(value.bytes())?;
            selected.push(value);
            Ok(())
        };
        (selection, gather)
    }

    /// Returns the selected values; `None` if they may be incomplete and the query has to run
    /// without a limit.
    fn into_all(self) -> Option<Vec<T>> {
        let is_all = self.selected.len() >= self.selection.most || self.looked_at.load(Ordering::Relaxed) < self.limit;
        is_all.then_some(self.selected)
    }
}

type Take<'t, T> = &'t mut (dyn FnMut(T) -> Result<()> + Send);

/// Passes on the values of the selected documents as they arrive, until the maximum is reached.
async fn each<T: Selected>(
    batches: impl Stream<Item = mongodb::error::Result<RawBatch>>,
    selection: &Selection<T>,
    budget: &Budget,
    take: Take<'_, T>,
) -> mongodb::error::Result<Result<()>> {
    let mut batches = std::pin::pin!(batches);
    let mut left = selection.most;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let mut taken = 0;
        let done = if selection.is_computed {
            let (select, most) = (Arc::clone(&selection.select), left);
            let work = move || {
                let (mut selected, mut held) = (Vec::new(), query::budget::hold(0)?);
                select_each(&batch, &*select, most, &mut |document: T| {
                    held.grow(document.bytes())?;
                    selected.push(document);
                    Ok(())
                })?;
                Ok((selected, held))
            };
            let selected = workers::run_if_large(budget, work).await;
            selected.and_then(|(selected, held)| {
                // The receiver accounts for what it keeps.
                drop(held);
                taken = selected.len();
                selected.into_iter().try_for_each(&mut *take)
            })
        } else {
            let take = &mut |document| {
                taken += 1;
                take(document)
            };
            budget.enter(|| select_each(&batch, &*selection.select, left, take))
        };
        left -= taken;
        if done.is_err() || left == 0 {
            return Ok(done);
        }
    }
    Ok(Ok(()))
}

/// Passes on the values of the selected documents of one batch, until the maximum is reached.
fn select_each<T>(
    batch: &RawBatch,
    select: &Select<T>,
    most: usize,
    take: &mut dyn FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut left = most;
    for item in batch.doc_slices().map_err(|error| errors::read(error, false))? {
        let RawBsonRef::Document(document) = item.map_err(unreadable)? else { continue };
        query::budget::charge(1)?;
        query::budget::charge_bytes(document.as_bytes().len())?;
        if let Some(selected) = select(document)? {
            take(selected)?;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// A result whose documents count against the budget of the operation until it is complete.
struct HeldAnswer {
    answer: Results,
    held: Held,
}

impl HeldAnswer {
    fn new(most: Option<usize>, most_bytes: Option<usize>, budget: &Budget) -> Result<Self> {
        Ok(Self { answer: Results::new(most, most_bytes), held: budget.hold(0)? })
    }

    /// Adds a document.
    ///
    /// # Errors
    /// As [`Results::push`], and `QueryExceededMemoryLimitNoDiskUseAllowed` (292) if the budget
    /// has too little memory for it.
    fn push(&mut self, document: RawDocumentBuf) -> Result<()> {
        self.held.grow(document.bytes())?;
        self.answer.push(document)
    }

    fn finish(self) -> Vec<RawDocumentBuf> {
        self.answer.documents
    }
}

impl MongoStore {
    /// True if the simple collation replaces the collection's own. Guards and the backend compare
    /// strings byte by byte, whatever collation the operator has set.
    pub(super) fn is_simple(&self, guard: Option<&Arc<dyn Guard>>) -> bool {
        guard.is_some() || self.lane == Lane::Backend
    }

    /// Runs a query, with a [`FirstTry`] before it if the batches are gradual.
    async fn ask<T: Selected>(
        &self,
        namespace: &Namespace,
        ask: FindRequest,
        selection: &Selection<T>,
        mut session: Option<&mut ClientSession>,
        take: Take<'_, T>,
    ) -> Result<()> {
        if ask.is_gradual
            && let Some(mut first) = FirstTry::of(selection, &ask.budget)?
        {
            let ask = FindRequest { limit: Some(first.limit), ..ask.clone() };
            let (selection, mut gather) = first.parts();
            self.ask_once(namespace, ask, selection, session.as_deref_mut(), &mut gather).await?;
            drop(gather);
            if let Some(selected) = first.into_all() {
                return selected.into_iter().try_for_each(take);
            }
        }
        self.ask_once(namespace, ask, selection, session, take).await
    }

    /// Runs a query once.
    async fn ask_once<T: Selected>(
        &self,
        namespace: &Namespace,
        ask: FindRequest,
        selection: &Selection<T>,
        session: Option<&mut ClientSession>,
        take: Take<'_, T>,
    ) -> Result<()> {
        let collection = self.to_read_in(session.as_deref(), namespace).await?;
        let limit = ask.limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let mut find = collection.find(ask.filter).max_time(self.max_time(&ask.budget)?);
        if !ask.is_gradual {
            find = find.batch_size(BATCH);
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
        if ask.is_simple {
            find = find.collation(simple());
        }
        let budget = ask.budget;
        let mut own = self.own_session(session.as_deref()).await?;
        let answer = match session.or(own.as_mut()) {
            None => {
                let read = async { each(find.batch().await?, selection, &budget, take).await };
                self.shared.within(false, read).await?
            }
            Some(session) => {
                let read = async {
                    let mut cursor = find.session(&mut *session).batch().await?;
                    each(cursor.stream(session), selection, &budget, take).await
                };
                self.shared.within(false, read).await?
            }
        };
        budget.check()?;
        answer
    }

    /// Returns the documents of a query.
    pub(super) async fn find_documents(
        &self,
        find: Find,
        session: Option<&mut ClientSession>,
    ) -> Result<Vec<RawDocumentBuf>> {
        let mut answer = HeldAnswer::new(find.at_most, find.most_bytes, &find.budget)?;
        self.find_each(find, session, &mut |document| answer.push(document)).await?;
        Ok(answer.finish())
    }

    /// Passes on the documents of a query as they arrive.
    async fn find_each(
        &self,
        find: Find,
        session: Option<&mut ClientSession>,
        take: Take<'_, RawDocumentBuf>,
    ) -> Result<()> {
        let Find { namespace, filter, sort, projection, limit, at_most, guard, budget, .. } = find;
        if limit == Some(0) {
            return Ok(());
        }
        let Pushdown { filter: asked, residual_guard } = Pushdown::new(&filter, guard.as_ref())?;
        // `$` in a projection refers to the whole filter, and the server's filter may be larger
        // than the caller's.
        let is_here = |projection: &Projection| residual_guard.is_some() || projection.is_positional();
        let (here, there) = match projection {
            Some(projection) if is_here(&projection) => (Some(projection), None),
            projection => (None, projection),
        };
        let most = at_most.map_or(usize::MAX, |most| most.saturating_add(1)).min(limit.unwrap_or(usize::MAX));
        let ask = FindRequest {
            filter: asked,
            sort: sort_document(sort.as_ref())?,
            projection: there.map(|projection| document(projection.to_document())).transpose()?,
            limit: Some(most).filter(|most| *most < usize::MAX && residual_guard.is_none()),
            is_gradual: limit.is_some() && residual_guard.is_some(),
            is_simple: self.is_simple(guard.as_ref()),
            budget,
        };
        let selection = match (residual_guard, here) {
            (residual_guard, None) => Selection::seen(residual_guard),
            (residual_guard, Some(projection)) => Selection::computed(move |document| {
                let is_seen = residual_guard.as_ref().is_none_or(|guard| guard.may_see(document));
                Ok(if is_seen { Some(projection.apply(document, &filter)?) } else { None })
            }),
        };
        self.ask(&namespace, ask, &selection.up_to(most), session, take).await
    }

    /// Counts the documents of a query.
    pub(super) async fn count_documents(&self, count: Count, session: Option<&mut ClientSession>) -> Result<u64> {
        let Count { namespace, filter, limit, guard, budget } = count;
        let pushdown = Pushdown::new(&filter, guard.as_ref())?;
        let is_simple = self.is_simple(guard.as_ref());
        let Some(guard) = pushdown.residual_guard else {
            let collection = self.to_read_in(session.as_deref(), &namespace).await?;
            let mut count = collection.count_documents(pushdown.filter).max_time(self.max_time(&budget)?);
            if let Some(limit) = limit {
                count = count.limit(limit as u64);
            }
            if is_simple {
                count = count.collation(simple());
            }
            let mut own = self.own_session(session.as_deref()).await?;
            if let Some(session) = session.or(own.as_mut()) {
                count = count.session(session);
            }
            return self.shared.within(false, async { count.await }).await;
        };
        let limit = limit.filter(|limit| *limit > 0);
        let is_gradual = limit.is_some();
        let filter = pushdown.filter;
        let ask = FindRequest { filter, sort: None, projection: None, limit: None, is_gradual, is_simple, budget };
        let selection = Selection::computed(move |document| Ok(guard.may_see(document).then_some(())));
        let mut counted = 0;
        let count = &mut |()| {
            counted += 1;
            Ok(())
        };
        self.ask(&namespace, ask, &selection.up_to(limit.unwrap_or(usize::MAX)), session, count).await?;
        Ok(counted)
    }

    /// Runs an aggregation: on the server, or in this process behind a guard that has no filters.
    pub(super) async fn run_pipeline(
        &self,
        aggregate: Aggregate,
        session: Option<&mut ClientSession>,
    ) -> Result<Vec<RawDocumentBuf>> {
        let Aggregate { namespace, pipeline, at_most, most_bytes, guard, budget } = aggregate;
        let filters = guard.as_ref().map(|guard| guard.filters());
        let mut answer = HeldAnswer::new(at_most, most_bytes, &budget)?;
        if let Some(None) = filters {
            // Only the guard can select the input documents, so the whole pipeline runs in this
            // process.
            let (filter, pipeline) = pipeline.split_match();
            let limit = pipeline.stages().first().and_then(|stage| get(stage, "$limit")).and_then(query::integer);
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            let find = Find { limit, guard, budget: budget.clone(), ..Find::new(namespace, filter) };
            let mut documents = Vec::new();
            let gather = &mut |document: RawDocumentBuf| {
                let held = budget.hold(document.bytes() + size_of::<Held>())?;
                documents.push((document, held));
                Ok(())
            };
            self.find_each(find, session, gather).await?;
            let run = move || -> Result<_> {
                // The pipeline accounts for what it keeps.
                for document in pipeline.run(documents.into_iter().map(|(document, _)| document)) {
                    answer.push(document?)?;
                }
                Ok(answer)
            };
            let answer = workers::run(&budget, run).await?;
            budget.check()?;
            return Ok(answer?.finish());
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
        let collection = self.to_read_in(session.as_deref(), &namespace).await?;
        let mut aggregate = collection.aggregate(stages).batch_size(BATCH).max_time(self.max_time(&budget)?);
        if self.is_simple(guard.as_ref()) {
            aggregate = aggregate.collation(simple());
        }
        let (all, gather) = (Selection::all(), &mut |document| answer.push(document));
        let mut own = self.own_session(session.as_deref()).await?;
        match session.or(own.as_mut()) {
            None => {
                let read = async { each(aggregate.batch().await?, &all, &budget, gather).await };
                self.shared.within(false, read).await??;
            }
            Some(session) => {
                let read = async {
                    let mut cursor = aggregate.session(&mut *session).batch().await?;
                    each(cursor.stream(session), &all, &budget, gather).await
                };
                self.shared.within(false, read).await??;
            }
        }
        budget.check()?;
        Ok(answer.finish())
    }

    /// Returns the number of documents that a filter matches, counted up to `most` + 1, and their
    /// size in bytes.
    pub(super) async fn size_of(
        &self,
        namespace: &Namespace,
        filter: &RawDocument,
        most: usize,
        budget: &Budget,
    ) -> Result<(usize, usize)> {
        let most = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let group = doc! { "_id": null, "documents": { "$sum": 1 }, "bytes": { "$sum": { "$bsonSize": "$$ROOT" } } };
        let stages = [doc! { "$match": document(filter)? }, doc! { "$limit": most }, doc! { "$group": group }];
        let collection = self.collection(namespace).await?;
        let aggregate = collection.aggregate(stages).collation(simple()).max_time(self.max_time(budget)?);
        let (mut documents, mut bytes) = (0, 0);
        let take = &mut |group: RawDocumentBuf| {
            let count = |name| get(&group, name).and_then(query::integer).and_then(|count| usize::try_from(count).ok());
            (documents, bytes) = (count("documents").unwrap_or(0), count("bytes").unwrap_or(0));
            Ok(())
        };
        let read = async { each(aggregate.batch().await?, &Selection::all(), budget, take).await };
        self.shared.within(false, read).await??;
        Ok((documents, bytes))
    }

    /// Reads the documents that a write depends on: from the primary, or in a transaction.
    #[allow(clippy::too_many_arguments, reason = "each is one part of the query")]
    pub(super) async fn find_to_change<T: Selected>(
        &self,
        namespace: &Namespace,
        filter: Document,
        sort: Option<&Sort>,
        budget: &Budget,
        mut session: Option<&mut ClientSession>,
        selection: &Selection<T>,
        take: Take<'_, T>,
    ) -> Result<(), Failure> {
        if let Some(mut first) = FirstTry::of(selection, budget)? {
            let (filter, limit, session) = (filter.clone(), Some(first.limit), session.as_deref_mut());
            let (selection, mut gather) = first.parts();
            self.find_to_change_once(namespace, filter, sort, limit, budget, session, selection, &mut gather).await?;
            drop(gather);
            if let Some(selected) = first.into_all() {
                return Ok(selected.into_iter().try_for_each(take)?);
            }
        }
        let limit = selection.limit();
        self.find_to_change_once(namespace, filter, sort, limit, budget, session, selection, take).await
    }

    #[allow(clippy::too_many_arguments, reason = "each is one part of the query")]
    async fn find_to_change_once<T: Selected>(
        &self,
        namespace: &Namespace,
        filter: Document,
        sort: Option<&Sort>,
        limit: Option<usize>,
        budget: &Budget,
        session: Option<&mut ClientSession>,
        selection: &Selection<T>,
        take: Take<'_, T>,
    ) -> Result<(), Failure> {
        let collection = self.collection(namespace).await?;
        let mut find = collection.find(filter).collation(simple()).max_time(self.max_time(budget)?);
        if let Some(limit) = limit {
            find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        if let Some(sort) = sort_document(sort)? {
            find = find.sort(sort);
        }
        match session {
            None => {
                let read = async { each(find.batch().await?, selection, budget, take).await };
                Ok(self.shared.within(false, read).await??)
            }
            Some(session) => {
                let mut cursor = find.session(&mut *session).batch().await?;
                Ok(each(cursor.stream(session), selection, budget, take).await??)
            }
        }
    }

    /// Returns a page of a collection in the order of `_id`, the only order that can be resumed.
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
        let ask = FindRequest {
            filter,
            sort,
            projection: None,
            limit: Some(PAGE),
            is_gradual: false,
            is_simple: false,
            budget: Budget::default(),
        };
        let take = &mut |document| {
            documents.push(document);
            Ok(())
        };
        self.ask(namespace, ask, &Selection::all(), None, take).await?;
        let collection = self.to_read(namespace).await?;
        let estimate = collection.estimated_document_count().max_time(self.shared.timeout);
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

    /// Runs `explain` for a query and reads its plan.
    pub(super) async fn explain_find(&self, find: Find) -> Result<Explanation> {
        let Find { namespace, filter, sort, projection, limit, guard, budget, .. } = find;
        let pushdown = Pushdown::new(&filter, guard.as_ref())?;
        let mut command = doc! { "find": &*namespace.collection, "filter": pushdown.filter };
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
        if self.is_simple(guard.as_ref()) {
            command.insert("collation", doc! { "locale": "simple" });
        }
        let explain = doc! {
            "explain": command,
            "verbosity": "executionStats",
            "maxTimeMS": millis(self.max_time(&budget)?),
        };
        let database = self.client().await?.database(&namespace.database);
        let explain = database.run_command(explain);
        let told = self.shared.within(false, async { explain.await }).await?;
        let mut explanation = explanation(&told);
        explanation.sorted_by_index &= is_sorted && explanation.index.is_some();
        Ok(explanation)
    }
}

/// Returns a duration in milliseconds, as `maxTimeMS` takes it.
pub(super) fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

pub(super) fn sort_document(sort: Option<&Sort>) -> Result<Option<Document>> {
    sort.filter(|sort| !sort.is_empty()).map(|sort| document(&sort.to_document())).transpose()
}

/// Reads the plan and the counters of an `explain` reply.
fn explanation(told: &Document) -> Explanation {
    let mut explanation = Explanation { stage: "COLLSCAN", sorted_by_index: true, ..Explanation::default() };
    let plan = told.get_document("queryPlanner").and_then(|planner| planner.get_document("winningPlan"));
    let mut indexes = Vec::new();
    if let Ok(plan) = plan {
        // The slot-based engine nests the plan one level deeper.
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

/// Reads a number that is not negative; a fraction is cut off.
pub(super) fn number(value: &bson::Bson) -> Option<u64> {
    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from)).or_else(|| value.as_f64().map(|n| n as i64));
    number.and_then(|number| u64::try_from(number).ok())
}

fn visit_plan(stage: &Document, explanation: &mut Explanation, indexes: &mut Vec<String>) {
    match stage.get_str("stage") {
        Ok("SORT") => explanation.sorted_by_index = false,
        Ok("IDHACK" | "CLUSTERED_IXSCAN" | "EXPRESS_CLUSTERED_IXSCAN") => explanation.stage = "IDHACK",
        // One key of one index, usually the index on `_id`.
        Ok("EXPRESS_IXSCAN") if stage.get_str("indexName").is_ok_and(|name| name == "_id_") => {
            explanation.stage = "IDHACK";
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

/// The BSON types in their sort order. A comparison operator matches only within one entry.
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

/// Returns the filter for the documents after an `_id`.
fn after_id(id: RawBsonRef<'_>) -> RawDocumentBuf {
    if matches!(id, RawBsonRef::MinKey) {
        return rawdoc! { "_id": { "$ne": RawBson::MinKey } };
    }
    let name = query::type_name(id);
    let later = TYPES.iter().skip_while(|names| !names.contains(&name)).skip(1).flat_map(|names| *names);
    let mut types = bson::raw::RawArrayBuf::new();
    later.for_each(|name| types.push(*name));
    let mut within = RawDocumentBuf::new();
    // No number compares as greater than NaN, which sorts before all numbers.
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

/// True if a field name of a document would have another meaning as a path in an update.
pub(super) fn has_odd_names(document: &RawDocument) -> bool {
    elements(document).any(|(name, _)| name.is_empty() || name.starts_with('$') || name.contains('.'))
}
