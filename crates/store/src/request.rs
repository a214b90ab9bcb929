//! The operations of a store, as values.

use std::{fmt, sync::Arc};

use bson::{RawBson, raw::RawDocumentBuf};
use query::{Budget, ErrorCode, Filter, Pipeline, Projection, Sort, Update, Variables};

use crate::{Error, Guard, Result, names};

/// The full name of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// The database.
    pub database: Arc<str>,
    /// The collection.
    pub collection: Arc<str>,
}

impl Namespace {
    /// Returns the name of `collection` in `database`.
    ///
    /// ```
    /// let people = store::Namespace::new("app", "people");
    /// assert_eq!(people.to_string(), "app.people");
    /// ```
    pub fn new(database: &str, collection: &str) -> Self {
        Self { database: database.into(), collection: collection.into() }
    }

    /// Checks that MongoDB accepts the names, so that the collection can be migrated there
    /// (<https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions>).
    ///
    /// # Errors
    /// `InvalidNamespace` (73), with the rule that is broken.
    pub fn check(&self) -> Result<()> {
        let wrong = names::wrong_database(&self.database).or_else(|| names::wrong_collection(self));
        let Some(wrong) = wrong else { return Ok(()) };
        let message = format!("Invalid namespace specified '{self}': {wrong}");
        Err(query::Error { code: ErrorCode::InvalidNamespace, message }.into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.database, self.collection)
    }
}

fn bind_projection(projection: Option<&mut Projection>, filter: &Filter, variables: &Variables) -> query::Result<()> {
    let Some(projection) = projection else { return Ok(()) };
    projection.check_filter(filter)?;
    projection.bind(variables)
}

type MaybeGuard = Option<Arc<dyn Guard>>;

/// A query.
#[derive(Clone)]
pub struct Find {
    /// The collection to search.
    pub namespace: Namespace,
    /// The filter.
    pub filter: Filter,
    /// The order of the result; `None` for the order of insertion.
    pub sort: Option<Sort>,
    /// The fields to return; `None` for all.
    pub projection: Option<Projection>,
    /// The maximum number of documents to return. Further ones are left out.
    pub limit: Option<usize>,
    /// The limit of documents, beyond which the query fails with [`Error::TooManyDocuments`].
    pub at_most: Option<usize>,
    /// The limit of the result in bytes, beyond which the query fails with
    /// [`Error::AnswerTooLarge`].
    pub most_bytes: Option<usize>,
    /// The permissions of the caller; `None` allows to see everything.
    pub guard: MaybeGuard,
    /// The limits of time and memory of the query.
    pub budget: Budget,
}

impl Find {
    /// Returns a query for all documents that a filter matches, with all their fields.
    pub fn new(namespace: Namespace, filter: Filter) -> Self {
        Self {
            namespace,
            filter,
            sort: None,
            projection: None,
            limit: None,
            at_most: None,
            most_bytes: None,
            guard: None,
            budget: Budget::default(),
        }
    }

    /// Binds the variables, and checks that the filter and the projection fit each other.
    pub(crate) fn bind(&mut self, variables: &Variables) -> query::Result<()> {
        self.filter.bind(variables)?;
        bind_projection(self.projection.as_mut(), &self.filter, variables)
    }
}

/// The plan and the counters of a query, in the terms of MongoDB's `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The stage: `IDHACK` for one `_id`, `IXSCAN` for an index, `COLLSCAN` for all documents,
    /// `EOF` if there is nothing to search.
    pub stage: &'static str,
    /// The name of the index. If the branches of an `$or` use several indexes, their names,
    /// separated by commas.
    pub index: Option<String>,
    /// True if the index provides the requested order.
    pub sorted_by_index: bool,
    /// The number of key ranges that were searched.
    pub ranges: usize,
    /// The number of documents that were read.
    pub examined: u64,
    /// The number of documents in the result.
    pub returned: u64,
}

impl Default for Explanation {
    /// Returns the explanation for a collection that does not exist.
    fn default() -> Self {
        Self { stage: "EOF", index: None, sorted_by_index: false, ranges: 0, examined: 0, returned: 0 }
    }
}

/// A count.
#[derive(Clone)]
pub struct Count {
    /// The collection to search.
    pub namespace: Namespace,
    /// The filter.
    pub filter: Filter,
    /// The number at which counting stops; `None` to count all.
    pub limit: Option<usize>,
    /// The permissions of the caller; `None` allows to see everything.
    pub guard: MaybeGuard,
    /// The limits of time and memory of the count.
    pub budget: Budget,
}

impl Count {
    /// Returns a count of all documents that a filter matches.
    pub fn new(namespace: Namespace, filter: Filter) -> Self {
        Self { namespace, filter, limit: None, guard: None, budget: Budget::default() }
    }
}

/// An aggregation.
#[derive(Clone)]
pub struct Aggregate {
    /// The collection whose documents enter the pipeline.
    pub namespace: Namespace,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The limit of documents, beyond which the aggregation fails with
    /// [`Error::TooManyDocuments`].
    pub at_most: Option<usize>,
    /// The limit of the result in bytes, beyond which the aggregation fails with
    /// [`Error::AnswerTooLarge`].
    pub most_bytes: Option<usize>,
    /// The permissions of the caller; `None` allows to see everything.
    pub guard: MaybeGuard,
    /// The limits of time and memory of the aggregation.
    pub budget: Budget,
}

impl Aggregate {
    /// Returns an aggregation over all documents of a collection.
    pub fn new(namespace: Namespace, pipeline: Pipeline) -> Self {
        Self { namespace, pipeline, at_most: None, most_bytes: None, guard: None, budget: Budget::default() }
    }
}

/// One write.
#[derive(Clone)]
pub struct Write {
    /// The collection to change.
    pub namespace: Namespace,
    /// The insert or the change.
    pub operation: Operation,
    /// The permissions of the caller; `None` allows to change everything.
    pub guard: MaybeGuard,
    /// The limits of time and memory of the write.
    pub budget: Budget,
    /// The limits of the number and size of changed documents; `None` for no limits.
    pub limits: Option<WriteLimits>,
}

impl Write {
    /// Returns a write without a guard and without limits.
    pub fn new(namespace: Namespace, operation: Operation) -> Self {
        Self { namespace, operation, guard: None, budget: Budget::default(), limits: None }
    }
}

/// The size limits of one write. A write that exceeds them is rejected before it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// The maximum number of documents.
    pub documents: usize,
    /// The maximum size in bytes: of the documents before the write, and of the documents after
    /// it.
    pub bytes: usize,
}

impl WriteLimits {
    /// Checks the number and size of the changed documents.
    ///
    /// # Errors
    /// [`Error::WriteTooLarge`] if one of them exceeds its limit.
    pub(crate) fn check(&self, documents: usize, bytes: usize) -> Result<()> {
        if documents > self.documents || bytes > self.bytes {
            return Err(Error::WriteTooLarge { limits: *self });
        }
        Ok(())
    }
}

/// The kind of a write.
#[derive(Clone)]
pub enum Operation {
    /// Inserts documents in their order, and stops at the first that fails.
    Insert(Vec<RawDocumentBuf>),
    /// Updates, replaces or deletes the documents that a filter matches.
    Modify(Box<Modify>),
}

impl Operation {
    /// Returns a change of the documents that a filter matches.
    pub fn modify(modify: Modify) -> Self {
        Self::Modify(Box::new(modify))
    }
}

/// A change of the documents that a filter matches.
#[derive(Clone)]
pub struct Modify {
    /// The filter.
    pub filter: Filter,
    /// The order that decides which of several matches is changed; `None` for the order of
    /// insertion.
    pub sort: Option<Sort>,
    /// True to change all matches, false to change one.
    pub multi: bool,
    /// The update or the deletion.
    pub change: Change,
    /// The version of the document to return, for a change of one document.
    pub returning: Returning,
    /// The fields to return; `None` for all.
    pub projection: Option<Projection>,
}

impl Modify {
    /// Returns a change of one document, or of all matches, that returns no document.
    pub fn new(filter: Filter, multi: bool, change: Change) -> Self {
        Self { filter, sort: None, multi, change, returning: Returning::Nothing, projection: None }
    }

    /// Binds the variables, and checks that the parts of the change fit each other.
    pub(crate) fn bind(&mut self, variables: &Variables) -> query::Result<()> {
        self.filter.bind(variables)?;
        if let Change::Update { update, upsert } = &mut self.change {
            if *upsert {
                Update::check_upsert(&self.filter)?;
            }
            update.bind(variables)?;
        }
        bind_projection(self.projection.as_mut(), &self.filter, variables)
    }
}

/// The change of each document.
#[derive(Clone)]
pub enum Change {
    /// Updates the document, or replaces it.
    Update {
        /// The update operators, or the replacement.
        update: Update,
        /// True to insert a document if none matches.
        upsert: bool,
    },
    /// Deletes the document.
    Delete,
}

/// The version of a changed document that is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returning {
    /// No document.
    Nothing,
    /// The document before the change.
    Before,
    /// The document after the change.
    After,
}

/// The result of a write.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// The `_id`s of the inserted documents, in their order.
    pub inserted_ids: Vec<RawBson>,
    /// The number of documents that matched the filter.
    pub matched: u64,
    /// The number of matching documents that the update changed.
    pub modified: u64,
    /// The number of deleted documents.
    pub deleted: u64,
    /// The `_id` of the document that an upsert inserted; `None` if it inserted none.
    pub upserted_id: Option<RawBson>,
    /// The requested version of the document; `None` if no document matched or none was requested.
    pub document: Option<RawDocumentBuf>,
}
