//! A data source's functions: what `mongoClient` calls, under the rules of the collection.

use std::{borrow::Cow, sync::Arc, time::Instant};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use query::{Budget, Filter, Pipeline, Projection, Sort, Update};
use store::{
    Aggregate, Change, Count, Explanation, Find, Guard, Index, Modify, Namespace, Operation, Outcome, Returning, Store,
    Write,
};

use super::arguments::{Arguments, invalid};
use crate::{Error, ErrorCode, OperationLimits, Result, definition::Definition, ejson};

/// Arguments of more bytes than this are parsed on another thread than the event loop's, or than one that answers HTTP.
const LARGE: usize = 4 * 1024;

/// What users may not use, at any depth
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

/// What the names of the backend's own databases begin with.
pub(crate) const OWN_DATABASES: &str = "userkeep";

/// Databases that hold what is not the application's.
const RESERVED_DATABASES: &[&str] = &["admin", "local", "config"];

/// The functions of data sources, with what one call may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collections {
    limits: OperationLimits,
}

/// Under which rules a call is carried out.
#[derive(Clone)]
pub(crate) enum Authorization {
    /// Under none: the operator, or a system function.
    System,
    /// Under a collection's rules, for the user with this id.
    Guarded(Arc<dyn Guard>, Arc<str>),
}

impl Authorization {
    pub(super) fn guard(&self) -> Option<Arc<dyn Guard>> {
        match self {
            Self::System => None,
            Self::Guarded(guard, _) => Some(Arc::clone(guard)),
        }
    }

    /// The arguments of a call, checked. What a user sends is Extended JSON, as over HTTP; what the operator does is BSON.
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

    /// Refuses what users may not use. `operators` names what a query or an update uses.
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

    /// A filter that the caller may use.
    pub(super) fn filter(&self, arguments: &Arguments<'_>, key: &str) -> Result<Filter> {
        let filter = arguments.document(key)?.map_or(Ok(Filter::all()), Filter::parse)?;
        self.check(|visit| filter.operators(visit))?;
        Ok(filter)
    }

    /// A projection that the caller may use.
    fn projection(&self, arguments: &Arguments<'_>, key: &str) -> Result<Option<Projection>> {
        let projection = arguments.document(key)?.map(Projection::parse).transpose()?;
        if let Some(projection) = &projection {
            self.check(|visit| projection.operators(visit))?;
        }
        Ok(projection)
    }

    /// An update that the caller may use.
    fn update(&self, arguments: &Arguments<'_>) -> Result<Update> {
        let update = arguments
            .get("update")
            .ok_or_else(|| Error::new(ErrorCode::MissingParameter, "the update is missing".to_owned()))?;
        // Without any operator nothing changes. To MongoDB's command it is a replacement, by a document without fields.
        let nothing = rawdoc! { "$set": {} };
        let is_empty = update.as_document().is_some_and(|update| query::elements(update).next().is_none());
        let update = if is_empty { RawBsonRef::Document(&nothing) } else { update };
        let update = Update::parse_any(update, arguments.array("arrayFilters")?.filter(|filters| !filters.is_empty()))?;
        self.check(|visit| update.operators(visit))?;
        Ok(update)
    }
}

/// A call that has been read, waiting for the rules of its collection.
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
    /// One of the operator's, which are read when they are carried out.
    Administer,
}

impl Call {
    /// The bytes of what it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.arguments.as_bytes().len()
    }
}

impl Collections {
    pub(crate) fn new(limits: OperationLimits) -> Self {
        Self { limits }
    }

    /// The end of the time of a user's operation that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.time
    }

    /// A budget for what an access allows, for a request of so many bytes. Its time ends at `until`, or else begins now.
    pub(crate) fn budget(&self, access: &Authorization, bytes: usize, until: Option<Instant>) -> Budget {
        let budget = match access {
            Authorization::System => Budget::default(),
            Authorization::Guarded(_, user) => self.limits.budget(user, until),
        };
        budget.of_request(bytes)
    }

    /// Reads which collection a call is for.
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
        let lower = database.to_ascii_lowercase();
        if lower.starts_with(OWN_DATABASES)
            || RESERVED_DATABASES.contains(&lower.as_str())
            || collection.starts_with("system.")
        {
            return Err(no_rule(&namespace));
        }
        Ok(Call { namespace, name, arguments })
    }

    /// Parses a call within its budget, on another thread if it is large.
    pub(crate) async fn parse(&self, call: Call, access: &Authorization, budget: &Budget) -> Result<(Call, Parsed)> {
        let (collections, access, within) = (*self, access.clone(), budget.clone());
        self.apart(call, budget.clone(), move |call| collections.parse_here(call, &access, &within)).await
    }

    /// Reads something of a call within a budget, on another thread if it is large.
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
            "watch" => return Err(Error::bad_request("watch is answered by a stream of events: ask for one")),
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

    /// How many documents, and how many bytes, an answer may have. The number of documents is limited for the operator too.
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

    /// Carries out what is for the operator alone.
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

    /// The answer to a call that is a query, from what it found.
    pub(crate) fn found(call: &Call, mut documents: Vec<RawDocumentBuf>) -> RawBson {
        if call.name == "findOne" { document_or_null(documents.pop()) } else { array(documents) }
    }

    /// Carries a parsed call out.
    pub(crate) async fn run(&self, store: &dyn Store, call: Call, parsed: Parsed) -> Result<RawBson> {
        match parsed {
            Parsed::Find(find) => Ok(Self::found(&call, store.find(*find).await?)),
            Parsed::Count(count) => {
                let counted = store.count(*count).await?;
                Ok(RawBson::Int64(i64::try_from(counted).unwrap_or(i64::MAX)))
            }
            Parsed::Aggregate(aggregate) => Ok(array(store.aggregate(*aggregate).await?)),
            Parsed::Write(write) => {
                let outcome = store.write(vec![*write]).await?.pop().unwrap_or_default();
                Ok(answer(&call.name, outcome))
            }
            Parsed::Administer => {
                let Call { namespace, name, arguments } = &call;
                let arguments = Arguments::new(name, arguments, takes(name)?)?;
                self.administer(store, name, namespace.clone(), &arguments).await
            }
        }
    }
}

/// The keys that each function takes beside the database and the collection.
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
            // A document without operators replaces, in updateMany too, as App Services did.
            Change::Update { update: access.update(arguments)?, upsert: arguments.flag("upsert")? },
        )),
        _ => find_one_and(name, arguments, access)?,
    })
}

fn find_one_and(name: &str, arguments: &Arguments<'_>, access: &Authorization) -> Result<Operation> {
    let change = match name {
        "findOneAndDelete" => Change::Delete,
        "findOneAndReplace" => match arguments.document("update")? {
            // realm-web's findOneAndDelete arrives as a replacement without one.
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
        "updateOne" | "updateMany" => {
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
    fn the_page_lists_what_users_may_not_use() {
        let page = include_str!("../../../../docs/query-language.md");
        let list = page.split_once("Only the operator may use: ").unwrap().1.split_once(". ").unwrap().0;
        let listed: Vec<_> = list.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, FORBIDDEN_TO_USERS);
    }
}
