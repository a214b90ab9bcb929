//! What a store is asked, as values.

use std::{fmt, sync::Arc};

use bson::{RawBson, raw::RawDocumentBuf};
use query::{Budget, ErrorCode, Filter, Pipeline, Projection, Sort, Update, Variables};

use crate::{Error, Guard, Result};

/// A collection's full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// The database.
    pub database: Arc<str>,
    /// The collection.
    pub collection: Arc<str>,
}

impl Namespace {
    /// The collection `collection` of `database`.
    pub fn new(database: &str, collection: &str) -> Self {
        Self { database: database.into(), collection: collection.into() }
    }

    /// Checks that MongoDB takes the names, so that a collection can be moved there
    /// (<https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions>).
    ///
    /// # Errors
    /// `InvalidNamespace` (73), with what is wrong.
    pub fn check(&self) -> Result<()> {
        let Self { database, collection } = self;
        let wrong = if database.is_empty() || database.len() >= DATABASE_BYTES {
            Some("a database name has 1 to 63 bytes")
        } else if database.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
            Some("a database name has no slash, backslash, dot, space, quotation mark, dollar sign or NUL")
        } else if collection.is_empty() || collection.starts_with('.') || collection.ends_with('.') {
            Some("a collection name is not empty, and neither begins nor ends with a dot")
        } else if collection.contains(['$', '\0']) || collection.starts_with("system.") {
            Some("a collection name has no dollar sign or NUL, and does not begin with 'system.'")
        } else if database.len() + 1 + collection.len() > NAMESPACE_BYTES {
            Some("the names of a database and a collection have up to 254 bytes together")
        } else {
            None
        };
        let Some(wrong) = wrong else { return Ok(()) };
        let message = format!("Invalid namespace specified '{self}': {wrong}");
        Err(query::Error { code: ErrorCode::InvalidNamespace, message }.into())
    }
}

/// The name of a database has fewer bytes than this.
const DATABASE_BYTES: usize = 64;

/// The most bytes of a full name, with the dot in it.
const NAMESPACE_BYTES: usize = 255;

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
    /// Where to look.
    pub namespace: Namespace,
    /// What to look for.
    pub filter: Filter,
    /// In which order; else in the order of insertion.
    pub sort: Option<Sort>,
    /// Which fields to answer with; else all.
    pub projection: Option<Projection>,
    /// How many documents at most.
    pub limit: Option<usize>,
    /// More than this many documents are an error.
    pub at_most: Option<usize>,
    /// An answer of more bytes than this is an error.
    pub most_bytes: Option<usize>,
    /// Who asks; nobody means that everything may be seen.
    pub guard: MaybeGuard,
    /// What the query may cost.
    pub budget: Budget,
}

impl Find {
    /// The documents that a filter matches, all of them and whole.
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

    /// Puts in what variables stand for, and checks that its parts go together.
    pub(crate) fn bind(&mut self, variables: &Variables) -> query::Result<()> {
        self.filter.bind(variables)?;
        bind_projection(self.projection.as_mut(), &self.filter, variables)
    }
}

/// How a query was answered, in the terms of MongoDB's `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// `IDHACK` for one `_id`, `IXSCAN` by an index, `COLLSCAN` through all documents, `EOF` where there is nothing to look through.
    pub stage: &'static str,
    /// The index's name, or those of several where each of several conditions was looked up by one.
    pub index: Option<String>,
    /// Whether the index gave the order that was asked for.
    pub sorted_by_index: bool,
    /// In how many ranges of keys was looked.
    pub ranges: usize,
    /// How many documents were read.
    pub examined: u64,
    /// How many of them were the answer.
    pub returned: u64,
}

impl Default for Explanation {
    /// Of a collection that does not exist.
    fn default() -> Self {
        Self { stage: "EOF", index: None, sorted_by_index: false, ranges: 0, examined: 0, returned: 0 }
    }
}

/// A count.
pub struct Count {
    /// Where to look.
    pub namespace: Namespace,
    /// What to count.
    pub filter: Filter,
    /// Where to stop counting.
    pub limit: Option<usize>,
    /// Who asks.
    pub guard: MaybeGuard,
    /// What the count may cost.
    pub budget: Budget,
}

impl Count {
    /// Counts all documents that a filter matches.
    pub fn new(namespace: Namespace, filter: Filter) -> Self {
        Self { namespace, filter, limit: None, guard: None, budget: Budget::default() }
    }
}

/// An aggregation.
pub struct Aggregate {
    /// Whose documents go in.
    pub namespace: Namespace,
    /// What is done with them.
    pub pipeline: Pipeline,
    /// More than this many documents coming out are an error.
    pub at_most: Option<usize>,
    /// An answer of more bytes than this is an error.
    pub most_bytes: Option<usize>,
    /// Who asks.
    pub guard: MaybeGuard,
    /// What the aggregation may cost.
    pub budget: Budget,
}

impl Aggregate {
    /// Runs a pipeline over all documents of a collection.
    pub fn new(namespace: Namespace, pipeline: Pipeline) -> Self {
        Self { namespace, pipeline, at_most: None, most_bytes: None, guard: None, budget: Budget::default() }
    }
}

/// One write.
pub struct Write {
    /// Where.
    pub namespace: Namespace,
    /// What.
    pub operation: Operation,
    /// Who asks; nobody means that everything may be changed.
    pub guard: MaybeGuard,
    /// What the write may cost.
    pub budget: Budget,
    /// How much it may change; no limit if missing.
    pub limits: Option<WriteLimits>,
}

impl Write {
    /// A write under no guard and without limits.
    pub fn new(namespace: Namespace, operation: Operation) -> Self {
        Self { namespace, operation, guard: None, budget: Budget::default(), limits: None }
    }
}

/// How much one write may change. One that exceeds it is refused before it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// The most documents.
    pub documents: usize,
    /// The most bytes, of the documents as they are or as they become, whichever is larger.
    pub bytes: usize,
}

impl WriteLimits {
    /// Checks how much a write changes.
    ///
    /// # Errors
    /// [`Error::WriteTooLarge`] if it is more than it may.
    pub(crate) fn check(&self, documents: usize, bytes: usize) -> Result<()> {
        if documents > self.documents || bytes > self.bytes {
            return Err(Error::WriteTooLarge { limits: *self });
        }
        Ok(())
    }
}

/// What a write does.
pub enum Operation {
    /// Inserts documents in their order, up to the first that fails.
    Insert(Vec<RawDocumentBuf>),
    /// Changes or deletes what a filter matches.
    Modify(Box<Modify>),
}

impl Operation {
    /// Changes or deletes what a filter matches.
    pub fn modify(modify: Modify) -> Self {
        Self::Modify(Box::new(modify))
    }
}

/// A change to what a filter matches.
pub struct Modify {
    /// What to change.
    pub filter: Filter,
    /// Which one, where one of several is to be changed; else the first inserted.
    pub sort: Option<Sort>,
    /// All that match, or one.
    pub multi: bool,
    /// What becomes of them.
    pub change: Change,
    /// What of the (one) document to answer with.
    pub returning: Returning,
    /// Which of its fields; else all.
    pub projection: Option<Projection>,
}

impl Modify {
    /// A change to one document, or to all that match, without an answer but counts.
    pub fn new(filter: Filter, multi: bool, change: Change) -> Self {
        Self { filter, sort: None, multi, change, returning: Returning::Nothing, projection: None }
    }

    /// Puts in what variables stand for, and checks that its parts go together.
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

/// What becomes of a document.
pub enum Change {
    /// It is updated, or made where `upsert` is set and none matches.
    Update {
        /// How.
        update: Update,
        /// Whether to insert where nothing matches.
        upsert: bool,
    },
    /// It is deleted.
    Delete,
}

/// Which version of a changed document is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returning {
    /// None.
    Nothing,
    /// As it was.
    Before,
    /// As it has become.
    After,
}

/// What a write did.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// The `_id`s of inserted documents.
    pub inserted_ids: Vec<RawBson>,
    /// How many documents matched.
    pub matched: u64,
    /// How many of them came out different.
    pub modified: u64,
    /// How many were deleted.
    pub deleted: u64,
    /// The `_id` of the document that an upsert made.
    pub upserted_id: Option<RawBson>,
    /// The document that was asked for.
    pub document: Option<RawDocumentBuf>,
}
