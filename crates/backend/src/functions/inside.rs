//! The requests of a running function to the backend: calls of data sources, and the conditions of
//! other functions.

use std::sync::Arc;

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr},
    rawdoc,
};
use query::elements;
use store::Transaction;

use super::{Invocation, call::is_allowed};
use crate::{
    Error, ErrorCode, Result,
    context::Context,
    data::{self, is_own_database},
    request::Arguments,
};

/// Evaluates the condition of a function that a running function executes.
pub(crate) fn may_execute(invocation: &Invocation, name: &str, arguments: &RawDocument) -> bool {
    let Some(function) = invocation.context.definition.functions.get(name) else { return false };
    let nothing = RawArrayBuf::new();
    let arguments = arguments.get_array("arguments").unwrap_or(&nothing);
    is_allowed(function, &invocation.user, invocation.request.as_deref(), arguments)
}

/// Calls a function of a data source for a running function.
///
/// # Errors
/// The errors of the data source's function.
pub(crate) async fn call_inside(
    invocation: &Invocation,
    is_system: bool,
    service: &str,
    name: String,
    arguments: RawDocumentBuf,
) -> Result<RawBson> {
    let context = &invocation.context;
    let (transaction, arguments) = match arguments.get("transaction").ok().flatten().and_then(query::integer) {
        Some(number) => (Some(number), without(&arguments, &["transaction"])),
        None => (None, arguments),
    };
    let number = transaction.unwrap_or_default();
    match &*name {
        "startTransaction" => return invocation.transactions.begin(context, service, invocation.payer).await,
        "commitTransaction" => return invocation.transactions.commit(number).await,
        "abortTransaction" => return invocation.transactions.abort(number).await,
        _ => {}
    }
    let begun = transaction.map(|number| invocation.transactions.get(number, service)).transpose()?;
    let enclosing = || invocation.transactions.enclosing(context, service).map(|all| Arc::clone(all) as _);
    let transaction = begun.clone().or_else(enclosing);
    let inside = Inside { context, invocation, is_system, service, transaction };
    let answer = inside.run(name, arguments).await;
    if let (Err(_), Some(transaction)) = (&answer, begun) {
        // An operation that the store has not seen, such as one with an unknown operator, ends
        // the transaction too.
        transaction.abort().await?;
    }
    answer
}

/// A data source as a function sees it.
struct Inside<'a> {
    context: &'a Arc<Context>,
    invocation: &'a Invocation,
    is_system: bool,
    service: &'a str,
    transaction: Option<Arc<dyn Transaction>>,
}

impl Inside<'_> {
    async fn run(&self, name: String, arguments: RawDocumentBuf) -> Result<RawBson> {
        match &*name {
            "find" => self.find(&arguments).await,
            "distinct" => self.distinct(&arguments).await,
            "insertMany" => self.insert_many(arguments).await,
            "bulkWrite" => self.bulk_write(&arguments).await,
            "getDBNames" | "getCollectionNames" => self.names(&arguments).await,
            _ => self.call(name, arguments).await,
        }
    }

    async fn call(&self, name: String, argument: RawDocumentBuf) -> Result<RawBson> {
        let transaction = self.transaction.as_deref();
        if self.is_system {
            return data::call_as_system(self.context, self.service, name, argument, transaction).await;
        }
        let user = self.invocation.caller.ok_or_else(|| Error::invalid_session("the function has no user"))?;
        let arguments = Arguments::Service { service: self.service.to_owned(), argument };
        data::call_as_user(self.context, user, name, arguments, transaction).await
    }

    /// Finds documents with `skip`, which only functions have.
    async fn find(&self, arguments: &RawDocument) -> Result<RawBson> {
        let number = |key| arguments.get(key).ok().flatten().and_then(query::integer).filter(|number| *number > 0);
        let skip = number("skip").unwrap_or(0);
        if skip == 0 {
            return self.call("find".to_owned(), without(arguments, &["skip"])).await;
        }
        let mut changed = without(arguments, &["skip", "limit"]);
        if let Some(limit) = number("limit") {
            changed.append(cstr!("limit"), limit.saturating_add(skip));
        }
        let found = self.call("find".to_owned(), changed).await?;
        match found {
            RawBson::Array(all) => {
                let rest = all.into_iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).filter_map(Result::ok);
                Ok(RawBson::Array(rest.map(RawBson::from).collect()))
            }
            found => Ok(found),
        }
    }

    /// Returns the distinct values of a field. Items of arrays count as values.
    async fn distinct(&self, arguments: &RawDocument) -> Result<RawBson> {
        let field = arguments.get_str("field").unwrap_or_default();
        if field.is_empty() || field.starts_with('$') {
            return Err(Error::new(ErrorCode::InvalidParameter, "distinct needs the name of a field"));
        }
        let filter = arguments.get_document("query").map(ToOwned::to_owned).unwrap_or_default();
        let unwind = rawdoc! { "$unwind": { "path": "$v", "preserveNullAndEmptyArrays": true } };
        let mut exists = RawDocumentBuf::new();
        query::append(&mut exists, field, RawBsonRef::Document(&rawdoc! { "$exists": true }));
        let mut stages = vec![
            rawdoc! { "$match": filter },
            rawdoc! { "$match": exists },
            rawdoc! { "$project": { "_id": 0, "v": format!("${field}") } },
            rawdoc! { "$match": { "v": { "$ne": RawArrayBuf::new() } } },
            unwind.clone(),
        ];
        // A path through an array gives an array of the values of each item.
        if field.contains('.') {
            stages.push(unwind);
        }
        stages.push(rawdoc! { "$group": { "_id": "$v" } });
        let pipeline: RawArrayBuf = stages.into_iter().collect();
        let mut argument = without(arguments, &["field", "query"]);
        argument.append(cstr!("pipeline"), pipeline);
        let RawBson::Array(groups) = self.call("aggregate".to_owned(), argument).await? else {
            return Ok(RawBson::Array(RawArrayBuf::new()));
        };
        let value = |group: RawBsonRef<'_>| Some(RawBson::from(group.as_document()?.get("_id").ok()??));
        Ok(RawBson::Array(groups.into_iter().filter_map(|group| value(group.ok()?)).collect()))
    }

    /// Inserts documents: in order until the first error, or all that can be inserted.
    async fn insert_many(&self, arguments: RawDocumentBuf) -> Result<RawBson> {
        let is_ordered = !matches!(arguments.get("ordered"), Ok(Some(RawBsonRef::Boolean(false))));
        let argument = without(&arguments, &["ordered"]);
        if is_ordered {
            return self.call("insertMany".to_owned(), argument).await;
        }
        let target = without(&argument, &["documents"]);
        let documents = argument.get_array("documents").map_err(|_| must_be("documents", "an array"))?;
        let (mut ids, mut first_error) = (RawArrayBuf::new(), None);
        for document in documents.into_iter().filter_map(Result::ok) {
            let mut one = target.clone();
            one.append(cstr!("document"), document);
            match self.call("insertOne".to_owned(), one).await {
                Ok(RawBson::Document(answer)) => {
                    ids.push(answer.get("insertedId").ok().flatten().unwrap_or(RawBsonRef::Null));
                }
                Ok(_) => {}
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        first_error.map_or_else(|| Ok(RawBson::Document(rawdoc! { "insertedIds": ids })), Err)
    }

    /// Writes in order until the first error, or everything that can be written.
    async fn bulk_write(&self, arguments: &RawDocument) -> Result<RawBson> {
        let is_ordered = !matches!(arguments.get("ordered"), Ok(Some(RawBsonRef::Boolean(false))));
        let target = without(arguments, &["operations", "ordered", "bypassDocumentValidation"]);
        let operations = arguments.get_array("operations").map_err(|_| must_be("operations", "an array"))?;
        let mut first_error = None;
        for operation in operations.into_iter().filter_map(Result::ok) {
            let (name, argument) = bulk_operation(operation, &target)?;
            match self.call(name, argument).await {
                Ok(_) => {}
                Err(error) if is_ordered => return Err(error),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        first_error.map_or(Ok(RawBson::Null), Err)
    }

    /// Returns the names of the databases, or of the collections of a database.
    async fn names(&self, arguments: &RawDocument) -> Result<RawBson> {
        if !self.is_system {
            return Err(Error::new(ErrorCode::FunctionExecutionError, "only a system function may list names"));
        }
        if !self.context.definition.services.contains_key(self.service) {
            return Err(Error::new(ErrorCode::ServiceNotFound, format!("service not found: '{}'", self.service)));
        }
        let database = arguments.get_str("database").ok();
        let all = self.context.stores.of(self.service).collections().await?;
        let mut names: Vec<String> = all
            .into_iter()
            .filter(|namespace| !is_own_database(&namespace.database))
            .filter(|namespace| database.is_none_or(|database| *database == *namespace.database))
            .map(|namespace| if database.is_some() { namespace.collection } else { namespace.database })
            .map(|name| (*name).to_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(RawBson::Array(names.into_iter().collect()))
    }
}

fn must_be(key: &str, kind: &str) -> Error {
    Error::new(ErrorCode::InvalidParameter, format!("'{key}' must be {kind}"))
}

/// Returns a document without some of its fields.
fn without(document: &RawDocument, keys: &[&str]) -> RawDocumentBuf {
    let mut kept = RawDocumentBuf::new();
    for (key, value) in elements(document).filter(|(key, _)| !keys.contains(key)) {
        query::append(&mut kept, key, value);
    }
    kept
}

/// Returns the name and the argument of one operation of a bulk write.
fn bulk_operation(operation: RawBsonRef<'_>, target: &RawDocument) -> Result<(String, RawDocumentBuf)> {
    let entry = operation.as_document().and_then(|operation| elements(operation).next());
    let Some((name, RawBsonRef::Document(given))) = entry else {
        return Err(must_be("operations", "an array of documents such as { insertOne: { document } }"));
    };
    let mut argument = target.to_owned();
    match name {
        "insertOne" => {
            // A sample of the documentation has the document itself.
            let document = given.get_document("document").unwrap_or(given);
            query::append(&mut argument, "document", RawBsonRef::Document(document));
        }
        "updateOne" | "updateMany" | "replaceOne" | "deleteOne" | "deleteMany" => {
            for (key, value) in elements(given) {
                let key = match key {
                    "filter" => "query",
                    "replacement" => "update",
                    key => key,
                };
                query::append(&mut argument, key, value);
            }
        }
        name => return Err(Error::new(ErrorCode::InvalidParameter, format!("there is no bulk operation '{name}'"))),
    }
    Ok((name.to_owned(), argument))
}
