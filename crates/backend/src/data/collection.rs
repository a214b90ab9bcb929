//! The functions of a data source, which `mongoClient` calls. They apply the rules of the
//! collection.

use std::{borrow::Cow, sync::Arc, time::Instant};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{Budget, Filter, Pipeline, Projection, Sort, Update};
use store::{
    Aggregate, Change, Count, Explanation, Find, Guard, Index, Modify, Namespace, Operation, Outcome, Returning, Store,
    Transaction, Write,
};

use super::arguments::{Arguments, invalid};
use crate::{Error, ErrorCode, OperationLimits, Result, definition::Definition, ejson};

/// Arguments larger than this number of bytes are parsed on a worker thread instead of the event
/// loop or the HTTP thread.
const LARGE: usize = 4 * 1024;

/// Operators that users may not use, at any depth
/// (<https://www.mongodb.com/docs/atlas/app-services/mongodb/crud-and-aggregation-apis/>).
const FORBIDDEN_TO_USERS: &[&str] = &[
    "$bitsAllClear",
    "$bitsAllSet",
    "$bitsAnyClear",
    "$bitsAnySet",
    "$expr",
    "$function",
    "$jsonSchema",
    "$regex",
    "$setIsSubset",
];

/// The prefix of the backend's own databases.
pub(crate) const OWN_DATABASES: &str = "userkeep";

/// The system databases of MongoDB.
const RESERVED_DATABASES: &[&str] = &["admin", "local", "config"];

/// The place where the operation of a call runs.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// The store itself.
    Store(&'a dyn Store),
    /// A transaction of the store.
    Transaction(&'a dyn Transaction),
}

impl Target<'_> {
    async fn find(self, find: Find) -> store::Result<Vec<RawDocumentBuf>> {
        match self {
            Self::Store(store) => store.find(find).await,
            Self::Transaction(transaction) => transaction.find(find).await,
        }
    }

    async fn count(self, count: Count) -> store::Result<u64> {
        match self {
            Self::Store(store) => store.count(count).await,
            Self::Transaction(transaction) => transaction.count(count).await,
        }
    }

    async fn aggregate(self, aggregate: Aggregate) -> store::Result<Vec<RawDocumentBuf>> {
        match self {
            Self::Store(store) => store.aggregate(aggregate).await,
            Self::Transaction(transaction) => transaction.aggregate(aggregate).await,
        }
    }

    async fn write(self, write: Write) -> store::Result<Outcome> {
        match self {
            Self::Store(store) => Ok(store.write(vec![write]).await?.pop().unwrap_or_default()),
            Self::Transaction(transaction) => transaction.write(write).await,
        }
    }
}

/// The functions of data sources, with the limits of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collections {
    limits: OperationLimits,
}

/// The permissions of a call.
#[derive(Clone)]
pub(crate) enum Authorization {
    /// No rules apply, for the operator or a system function.
    System,
    /// The rules of a collection apply, for the user with this id.
    Guarded(Arc<dyn Guard>, Arc<str>),
}

impl Authorization {
    pub(super) fn guard(&self) -> Option<Arc<dyn Guard>> {
        match self {
            Self::System => None,
            Self::Guarded(guard, _) => Some(Arc::clone(guard)),
        }
    }

    /// Checks the arguments of a call. A user may send Extended JSON, as over HTTP; the operator
    /// sends BSON.
    pub(super) fn checked<'a>(&self, arguments: &'a RawDocument) -> Result<Cow<'a, RawDocument>> {
        match (query::validate(arguments), self) {
            (Ok(()), _) => Ok(Cow::Borrowed(arguments)),
            (Err(error), Self::Guarded(..)) if error.code == query::ErrorCode::DollarPrefixedFieldName => {
                query::validate_form(arguments)?;
                let resolved = ejson::resolve(arguments)?;
                query::validate(&resolved)?;
                Ok(Cow::Owned(resolved))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Rejects operators that users may not use. `operators` visits the operators of a query or an
    /// update.
    fn check(&self, operators: impl FnOnce(&mut dyn FnMut(&'static str))) -> Result<()> {
        let mut forbidden = None;
        operators(&mut |name| {
            if FORBIDDEN_TO_USERS.contains(&name) {
                forbidden = Some(name);
            }
        });
        match (self, forbidden) {
            (Self::Guarded(..), Some(name)) => {
                Err(Error::new(ErrorCode::InvalidParameter, format!("users may not use the operator {name}")))
            }
            _ => Ok(()),
        }
    }

    /// Parses a filter and rejects operators that the caller may not use.
    pub(super) fn filter(&self, arguments: &Arguments<'_>, key: &str) -> Result<Filter> {
        let filter = arguments.document(key)?.map_or(Ok(Filter::all()), Filter::parse)?;
        self.check(|visit| filter.operators(visit))?;
        Ok(filter)
    }

    /// Parses a projection and rejects operators that the caller may not use.
    fn projection(&self, arguments: &Arguments<'_>, key: &str) -> Result<Option<Projection>> {
        let projection = arguments.document(key)?.map(Projection::parse).transpose()?;
        if let Some(projection) = &projection {
            self.check(|visit| projection.operators(visit))?;
        }
        Ok(projection)
    }

    /// Parses an update and rejects operators that the caller may not use.
    fn update(&self, arguments: &Arguments<'_>) -> Result<Update> {
        let update = arguments
            .get("update")
            .ok_or_else(|| Error::new(ErrorCode::MissingParameter, "the update is missing".to_owned()))?;
        // An empty update changes nothing. MongoDB's command would interpret it as a replacement
        // with an empty document.
        let nothing = rawdoc! { "$set": {} };
        let is_empty = update.as_document().is_some_and(|update| query::elements(update).next().is_none());
        let update = if is_empty { RawBsonRef::Document(&nothing) } else { update };
        let update = Update::parse_any(update, arguments.array("arrayFilters")?.filter(|filters| !filters.is_empty()))?;
        self.check(|visit| update.operators(visit))?;
        Ok(update)
    }
}

/// A call whose collection is known, before its arguments are parsed.
pub(crate) struct Call {
    pub(crate) namespace: Namespace,
    pub(super) name: String,
    pub(super) arguments: RawDocumentBuf,
}

/// A call as an operation on a store.
pub(crate) enum Parsed {
    Find(Box<Find>),
    Count(Box<Count>),
    Aggregate(Box<Aggregate>),
    Write(Box<Write>),
    /// An operation of the operator, whose arguments are parsed when it runs.
    Administer,
}

impl Call {
    /// Returns the size of the arguments in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.arguments.as_bytes().len()
    }
}

impl Collections {
    pub(crate) fn new(limits: OperationLimits) -> Self {
        Self { limits }
    }

    /// Returns the limits of one operation of a user.
    pub(crate) fn limits(&self) -> &OperationLimits {
        &self.limits
    }

    /// Returns the deadline of a user's operation that starts now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.time
    }

    /// Returns the budget for an operation with these permissions, whose request has `bytes`
    /// bytes. The deadline is `until`, or else the usual time limit from now.
    pub(crate) fn budget(&self, access: &Authorization, bytes: usize, until: Option<Instant>) -> Budget {
        let budget = match access {
            Authorization::System => Budget::default(),
            Authorization::Guarded(_, user) => self.limits.budget(user, until),
        };
        budget.of_request(bytes)
    }

    /// Reads the collection of a call.
    pub(crate) fn read(
        &self,
        definition: &Definition,
        service: &str,
        name: String,
        arguments: RawDocumentBuf,
    ) -> Result<Call> {
        if !definition.services.contains_key(service) {
            return Err(Error::new(
                ErrorCode::FunctionExecutionError,
                format!("Cannot access member '{name}' of undefined"),
            ));
        }
        let all = Arguments::new(&name, &arguments, takes(&name)?)?;
        let (database, collection) = (all.text("database")?, all.text("collection")?);
        let namespace = Namespace::new(database, collection);
        if is_own_database(database) || collection.starts_with("system.") {
            return Err(no_rule(&namespace));
        }
        Ok(Call { namespace, name, arguments })
    }

    /// Parses a call within its budget, on another thread if it is large.
    pub(crate) async fn parse(&self, call: Call, access: &Authorization, budget: &Budget) -> Result<(Call, Parsed)> {
        let (collections, access, within) = (*self, access.clone(), budget.clone());
        self.apart(call, budget.clone(), move |call| collections.parse_here(call, &access, &within)).await
    }

    /// Runs `read` on a call within a budget, on another thread if the call is large.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        call: Call,
        budget: Budget,
        read: impl FnOnce(&Call) -> Result<T> + Send + 'static,
    ) -> Result<(Call, T)> {
        let (call, answer) = if call.arguments.as_bytes().len() <= LARGE {
            let answer = budget.enter(|| read(&call));
            (call, answer)
        } else {
            let read = move || {
                let answer = read(&call);
                (call, answer)
            };
            store::workers::run(&budget, read).await?
        };
        budget.check()?;
        Ok((call, answer?))
    }

    fn parse_here(&self, call: &Call, access: &Authorization, budget: &Budget) -> Result<Parsed> {
        let Call { namespace, name, arguments } = call;
        let arguments = access.checked(arguments)?;
        let arguments = &Arguments::new(name, &arguments, takes(name)?)?;
        let (namespace, guard, budget) = (namespace.clone(), access.guard(), budget.clone());
        let limits = guard.as_ref().map(|_| self.limits);
        Ok(match name.as_str() {
            "find" | "findOne" => {
                Parsed::Find(Box::new(Find { budget, ..self.query(namespace, name, arguments, access)? }))
            }
            "createIndexes" | "indexes" | "dropIndex" | "explain" => match access {
                Authorization::System => Parsed::Administer,
                Authorization::Guarded(..) => return Err(no_function(name)),
            },
            "watch" => return Err(Error::bad_request("watch returns a stream of events: call it as a stream")),
            "count" => {
                let (filter, limit) = (access.filter(arguments, "query")?, arguments.limit()?);
                Parsed::Count(Box::new(Count { limit, guard, budget, ..Count::new(namespace, filter) }))
            }
            "aggregate" => {
                let Some(stages) = arguments.array("pipeline")? else {
                    return Err(invalid("aggregate needs 'pipeline'".into()));
                };
                let pipeline = Pipeline::parse(stages)?;
                access.check(|visit| pipeline.operators(visit))?;
                let (at_most, most_bytes) = self.answer_limits(limits.as_ref());
                let aggregate = Aggregate::new(namespace, pipeline);
                Parsed::Aggregate(Box::new(Aggregate { at_most, most_bytes, guard, budget, ..aggregate }))
            }
            _ => {
                let limits = limits.map(|limits| limits.of_write());
                let operation = write(name, arguments, access)?;
                Parsed::Write(Box::new(Write { guard, budget, limits, ..Write::new(namespace, operation) }))
            }
        })
    }

    /// Returns the maximum number of documents and of bytes of a result. The number of documents
    /// is limited for the operator too.
    fn answer_limits(&self, limits: Option<&OperationLimits>) -> (Option<usize>, Option<usize>) {
        (Some(self.limits.documents), limits.map(|limits| limits.answer_bytes))
    }

    fn query(
        &self,
        namespace: Namespace,
        name: &str,
        arguments: &Arguments<'_>,
        access: &Authorization,
    ) -> Result<Find> {
        let guard = access.guard();
        let (at_most, most_bytes) = self.answer_limits(guard.as_ref().map(|_| &self.limits));
        Ok(Find {
            sort: sort(arguments)?,
            projection: access.projection(arguments, "project")?,
            limit: if name == "findOne" { Some(1) } else { arguments.limit()? },
            at_most,
            most_bytes,
            guard,
            ..Find::new(namespace, access.filter(arguments, "query")?)
        })
    }

    /// Runs a function that only the operator may call.
    async fn administer(
        &self,
        store: &dyn Store,
        name: &str,
        namespace: Namespace,
        arguments: &Arguments<'_>,
    ) -> Result<RawBson> {
        match name {
            "createIndexes" => {
                let indexes = documents(arguments, "indexes")?;
                let indexes: Vec<Index> =
                    indexes.iter().map(|index| Index::parse(index)).collect::<Result<_, store::Error>>()?;
                let mut names = RawArrayBuf::new();
                indexes.iter().for_each(|index| names.push(index.name.as_str()));
                store.ensure_indexes(namespace, indexes).await?;
                Ok(RawBson::Array(names))
            }
            "indexes" => {
                let id = rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
                let indexes = store.indexes(namespace).await?;
                Ok(array(indexes.map_or_else(Vec::new, |indexes| {
                    std::iter::once(id).chain(indexes.iter().map(Index::to_document)).collect()
                })))
            }
            "dropIndex" => {
                store.drop_index(namespace, arguments.text("name")?.to_owned()).await?;
                Ok(RawBson::Null)
            }
            _ => {
                let find = self.query(namespace, name, arguments, &Authorization::System)?;
                Ok(RawBson::Document(explained(&store.explain(find).await?)))
            }
        }
    }

    /// Builds the result of a query from the documents that it found.
    pub(crate) fn found(call: &Call, mut documents: Vec<RawDocumentBuf>) -> RawBson {
        if call.name == "findOne" { document_or_null(documents.pop()) } else { array(documents) }
    }

    /// Runs a parsed call.
    pub(crate) async fn run(&self, target: Target<'_>, call: Call, parsed: Parsed) -> Result<RawBson> {
        match parsed {
            Parsed::Find(find) => Ok(Self::found(&call, target.find(*find).await?)),
            Parsed::Count(count) => {
                let counted = target.count(*count).await?;
                Ok(RawBson::Int64(i64::try_from(counted).unwrap_or(i64::MAX)))
            }
            Parsed::Aggregate(aggregate) => Ok(array(target.aggregate(*aggregate).await?)),
            Parsed::Write(write) => Ok(answer(&call.name, target.write(*write).await?)),
            Parsed::Administer => {
                let Target::Store(store) = target else {
                    return Err(Error::bad_request(format!("{} is not possible in a transaction", call.name)));
                };
                let Call { namespace, name, arguments } = &call;
                let arguments = Arguments::new(name, arguments, takes(name)?)?;
                self.administer(store, name, namespace.clone(), &arguments).await
            }
        }
    }
}

/// True if a database belongs to the backend or to MongoDB itself, and not to the app.
pub(crate) fn is_own_database(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with(OWN_DATABASES) || RESERVED_DATABASES.contains(&lower.as_str())
}

/// Returns the parameters of a function, besides the database and the collection.
pub(super) fn takes(name: &str) -> Result<&'static [&'static str]> {
    Ok(match name {
        "find" => &["query", "project", "sort", "limit"],
        "findOne" => &["query", "project", "sort"],
        "findOneAndUpdate" | "findOneAndReplace" => {
            &["filter", "update", "sort", "projection", "upsert", "returnNewDocument", "arrayFilters"]
        }
        "findOneAndDelete" => &["filter", "sort", "projection"],
        "aggregate" => &["pipeline"],
        "count" => &["query", "limit"],
        "insertOne" => &["document"],
        "insertMany" => &["documents"],
        "deleteOne" | "deleteMany" => &["query"],
        "updateOne" | "updateMany" => &["query", "update", "upsert", "arrayFilters"],
        "replaceOne" => &["query", "update", "upsert"],
        "createIndexes" => &["indexes"],
        "indexes" => &[],
        "dropIndex" => &["name"],
        "explain" => &["query", "project", "sort", "limit"],
        "watch" => &["ids", "filter", "resumeAfter"],
        _ => return Err(no_function(name)),
    })
}

fn no_function(name: &str) -> Error {
    Error::new(ErrorCode::FunctionNotFound, format!("function not found: '{name}'"))
}

fn explained(explanation: &Explanation) -> RawDocumentBuf {
    let number = |number: u64| i32::try_from(number).map_or(RawBson::Int64(number as i64), RawBson::Int32);
    rawdoc! {
        "stage": explanation.stage,
        "index": explanation.index.clone().map_or(RawBson::Null, RawBson::String),
        "sortedByIndex": explanation.sorted_by_index,
        "ranges": number(explanation.ranges as u64),
        "examined": number(explanation.examined),
        "returned": number(explanation.returned),
    }
}

pub(crate) fn no_rule(namespace: &Namespace) -> Error {
    Error::new(ErrorCode::NoMatchingRuleFound, format!("no rule exists for namespace '{namespace}'"))
}

fn sort(arguments: &Arguments<'_>) -> Result<Option<Sort>> {
    Ok(arguments.document("sort")?.map(Sort::parse).transpose()?.filter(|sort| !sort.is_empty()))
}

fn write(name: &str, arguments: &Arguments<'_>, access: &Authorization) -> Result<Operation> {
    Ok(match name {
        "insertOne" => Operation::Insert(vec![arguments.required_document("document")?.to_owned()]),
        "insertMany" => Operation::Insert(documents(arguments, "documents")?),
        "deleteOne" | "deleteMany" => {
            Operation::modify(Modify::new(access.filter(arguments, "query")?, name == "deleteMany", Change::Delete))
        }
        "updateOne" | "updateMany" => Operation::modify(Modify::new(
            access.filter(arguments, "query")?,
            name == "updateMany",
            // A document without operators is a replacement, in `updateMany` too, as in App
            // Services.
            Change::Update { update: access.update(arguments)?, upsert: arguments.flag("upsert")? },
        )),
        "replaceOne" => {
            let update = Update::replacement(arguments.required_document("update")?)?;
            let change = Change::Update { update, upsert: arguments.flag("upsert")? };
            Operation::modify(Modify::new(access.filter(arguments, "query")?, false, change))
        }
        _ => find_one_and(name, arguments, access)?,
    })
}

fn find_one_and(name: &str, arguments: &Arguments<'_>, access: &Authorization) -> Result<Operation> {
    let change = match name {
        "findOneAndDelete" => Change::Delete,
        "findOneAndReplace" => match arguments.document("update")? {
            // realm-web sends findOneAndDelete as a findOneAndReplace without a replacement.
            None => Change::Delete,
            Some(replacement) => {
                Change::Update { update: Update::replacement(replacement)?, upsert: arguments.flag("upsert")? }
            }
        },
        _ => Change::Update { update: access.update(arguments)?, upsert: arguments.flag("upsert")? },
    };
    let is_update = matches!(change, Change::Update { .. });
    Ok(Operation::modify(Modify {
        filter: access.filter(arguments, "filter")?,
        sort: sort(arguments)?,
        multi: false,
        change,
        returning: if is_update && arguments.flag("returnNewDocument")? { Returning::After } else { Returning::Before },
        projection: access.projection(arguments, "projection")?,
    }))
}

fn documents(arguments: &Arguments<'_>, key: &str) -> Result<Vec<RawDocumentBuf>> {
    let Some(array) = arguments.array(key)?.filter(|array| !array.is_empty()) else {
        return Err(invalid("must provide at least one element".into()));
    };
    let mut documents = Vec::new();
    for item in array {
        let item = item.map_err(|error| invalid(error.to_string()))?;
        let document = item.as_document().ok_or_else(|| invalid(format!("'{key}' must hold documents alone")))?;
        documents.push(document.to_owned());
    }
    Ok(documents)
}

fn answer(name: &str, outcome: Outcome) -> RawBson {
    let count = |count: u64| i32::try_from(count).map_or(RawBson::Int64(count as i64), RawBson::Int32);
    RawBson::Document(match name {
        "insertOne" => rawdoc! { "insertedId": outcome.inserted_ids.into_iter().next().unwrap_or(RawBson::Null) },
        "insertMany" => {
            let mut ids = RawArrayBuf::new();
            outcome.inserted_ids.into_iter().for_each(|id| ids.push(id));
            rawdoc! { "insertedIds": ids }
        }
        "deleteOne" | "deleteMany" => rawdoc! { "deletedCount": count(outcome.deleted) },
        "updateOne" | "updateMany" | "replaceOne" => {
            let mut answer =
                rawdoc! { "matchedCount": count(outcome.matched), "modifiedCount": count(outcome.modified) };
            if let Some(id) = outcome.upserted_id {
                query::append(&mut answer, "upsertedId", &id);
            }
            answer
        }
        _ => return document_or_null(outcome.document),
    })
}

fn array(documents: Vec<RawDocumentBuf>) -> RawBson {
    let mut array = RawArrayBuf::new();
    documents.into_iter().for_each(|document| array.push(document));
    RawBson::Array(array)
}

fn document_or_null(document: Option<RawDocumentBuf>) -> RawBson {
    document.map_or(RawBson::Null, RawBson::Document)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::FORBIDDEN_TO_USERS;

    #[test]
    fn the_documentation_lists_the_operators_that_users_may_not_use() {
        let page = include_str!("../../../../docs/query-language.md");
        let list = page.split_once("Only the operator may use: ").unwrap().1.split_once(". ").unwrap().0;
        let listed: Vec<_> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, FORBIDDEN_TO_USERS);
    }
}
