//! Runs database commands on the embedded store, as far as the vectors use them.

use std::sync::Arc;

use bson::{
    Bson, Document, doc,
    raw::{RawBsonRef, RawDocumentBuf},
};
use query::{Environment, Filter, Pipeline, Projection, Sort, Update, Variables};
use store::{
    Aggregate, Change, Count, Error, Find, Index, Location, Modify, Namespace, Operation, Outcome, Returning,
    SqliteStore, Store, SystemEnvironment, Transaction, TransactionLimits, Write,
};

use crate::{expect::integer, options};

/// The error code of features that Userkeep does not have.
pub const REFUSED: i32 = 115;

/// The error code of a duplicate key.
const DUPLICATE_KEY: i32 = 11000;

/// The error of a command.
#[derive(Debug)]
pub struct Failure {
    pub code: i32,
    pub message: String,
}

pub type Answer = Result<Document, Failure>;

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        Self { code: error.number(), message: error.message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Query(error) => error.into(),
            Error::DuplicateKey { .. } => Self { code: DUPLICATE_KEY, message: error.to_string() },
            other => Self { code: 1, message: other.to_string() },
        }
    }
}

pub fn failure(code: i32, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into() }
}

pub fn refused(what: impl std::fmt::Display) -> Failure {
    failure(REFUSED, format!("{what} is not supported by Userkeep"))
}

/// A store for one vector.
pub struct Database {
    store: SqliteStore,
    /// The transaction of the commands, if one has begun.
    transaction: Option<Arc<dyn Transaction>>,
}

impl Default for Database {
    fn default() -> Self {
        Self::new()
    }
}

impl Database {
    pub fn new() -> Self {
        Self { store: SqliteStore::open(Location::Memory, Arc::new(SystemEnvironment)).unwrap(), transaction: None }
    }

    /// Runs the following commands in a transaction.
    pub async fn begin(&mut self) {
        self.transaction = Some(self.store.begin(TransactionLimits::default()).await.unwrap());
    }

    /// Commits the transaction. The following commands run outside it.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        match self.transaction.take() {
            Some(transaction) => Ok(transaction.commit().await?),
            None => Ok(()),
        }
    }

    /// Aborts the transaction. The following commands run outside it.
    pub async fn abort(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            transaction.abort().await.unwrap();
        }
    }

    /// Returns the store, for operations without a command.
    pub fn store(&self) -> &SqliteStore {
        &self.store
    }

    pub async fn run(&self, command: &Document) -> Answer {
        let command = &options::checked(command)?;
        check_time(command)?;
        let (name, target) = command.iter().next().unwrap();
        for option in
            ["collation", "hint", "max", "min", "tailable", "explain", "apiVersion", "returnKey", "showRecordId"]
        {
            if command.keys().skip(1).any(|key| key == option) {
                return Err(refused(format_args!("the option {option} of {name}")));
            }
        }
        let namespace = Namespace::new(command.get_str("$db").unwrap_or("ns1"), target.as_str().unwrap_or_default());
        match name.as_str() {
            "insert" => self.insert(command, namespace).await,
            "find" => self.find(command, namespace).await,
            "count" => self.count(command, namespace).await,
            "distinct" => self.distinct(command, namespace).await,
            "aggregate" => self.aggregate(command, namespace).await,
            "update" => self.update(command, namespace).await,
            "delete" => self.delete(command, namespace).await,
            "findAndModify" => self.find_and_modify(command, namespace).await,
            "create" => {
                check_create(command)?;
                self.store.ensure_indexes(namespace, Vec::new()).await?;
                Ok(doc! { "ok": 1.0 })
            }
            "drop" => self.drop(namespace).await,
            "createIndexes" => self.create_indexes(command, namespace).await,
            "dropIndexes" => self.drop_indexes(command, namespace).await,
            "listIndexes" => self.list_indexes(command, namespace).await,
            other => Err(refused(format_args!("the command {other}"))),
        }
    }

    async fn write(&self, namespace: Namespace, operation: Operation) -> Result<Outcome, Failure> {
        let write = Write::new(namespace, operation);
        match &self.transaction {
            Some(transaction) => Ok(transaction.write(write).await?),
            None => Ok(self.store.write(vec![write]).await?.into_iter().next().unwrap_or_default()),
        }
    }

    async fn documents(&self, find: Find) -> store::Result<Vec<RawDocumentBuf>> {
        match &self.transaction {
            Some(transaction) => transaction.find(find).await,
            None => self.store.find(find).await,
        }
    }

    async fn insert(&self, command: &Document, namespace: Namespace) -> Answer {
        let documents: Vec<_> = command.get_array("documents").unwrap().iter().map(part).collect::<Result<_, _>>()?;
        if documents.is_empty() {
            return Err(failure(16, "Write batch sizes must be between 1 and 100000. Got 0 operations."));
        }
        for document in &documents {
            query::validate(document)?;
        }
        let (mut inserted, mut errors) = (0, Vec::new());
        for (index, document) in documents.into_iter().enumerate() {
            match self.write(namespace.clone(), Operation::Insert(vec![document])).await {
                Ok(_) => inserted += 1,
                Err(error) => {
                    errors.push(write_error(index, error)?);
                    if command.get_bool("ordered").unwrap_or(true) {
                        break;
                    }
                }
            }
        }
        let mut reply = doc! { "n": inserted, "ok": 1.0 };
        if !errors.is_empty() {
            reply.insert("writeErrors", errors);
        }
        Ok(reply)
    }

    async fn find(&self, command: &Document, namespace: Namespace) -> Answer {
        if command.contains_key("awaitData") {
            return Err(failure(9, "Cannot set 'awaitData' without also setting 'tailable'"));
        }
        let variables = variables(command)?;
        let filter = filter(command.get("filter"), &variables)?;
        let projection = projection(command.get("projection"), &variables)?;
        let skip = size(command, "skip")?.unwrap_or(0);
        let limit = size(command, "limit")?.filter(|&limit| limit > 0);
        let batch = size(command, "batchSize")?.unwrap_or(usize::MAX);
        let find = Find {
            sort: sort(command.get("sort"))?,
            projection,
            limit: limit.map(|limit| limit + skip),
            ..Find::new(namespace, filter)
        };
        let found = self.documents(find).await?;
        Ok(cursor(found.into_iter().skip(skip).take(batch)))
    }

    async fn count(&self, command: &Document, namespace: Namespace) -> Answer {
        let filter = filter(command.get("query"), &variables(command)?)?;
        let skip = size(command, "skip")?.unwrap_or(0) as u64;
        let limit = match whole(command, "limit")? {
            Some(limit) if limit != 0 => Some(limit.unsigned_abs() as usize),
            _ => None,
        };
        let limit = limit.map(|limit| limit + skip as usize);
        let count = Count { limit, ..Count::new(namespace, filter) };
        let counted = match &self.transaction {
            Some(transaction) => transaction.count(count).await?,
            None => self.store.count(count).await?,
        };
        Ok(doc! { "n": counted.saturating_sub(skip) as i32, "ok": 1.0 })
    }

    async fn distinct(&self, command: &Document, namespace: Namespace) -> Answer {
        let key = command.get_str("key").unwrap();
        if key.contains('\0') {
            return Err(failure(2, "a key has no null byte"));
        }
        let filter = filter(command.get("query"), &variables(command)?)?;
        let found = self.documents(Find::new(namespace, filter)).await?;
        let values = query::distinct(found.iter().map(|document| &**document), key);
        let values: Vec<Bson> = values.into_iter().map(|value| Bson::try_from(value).unwrap()).collect();
        Ok(doc! { "values": values, "ok": 1.0 })
    }

    async fn aggregate(&self, command: &Document, namespace: Namespace) -> Answer {
        let pipeline = raw(&doc! { "p": command.get_array("pipeline").unwrap().clone() })?;
        let Ok(stages) = pipeline.get_array("p") else { return Err(failure(14, "'pipeline' must be an array")) };
        let is_of_collection = matches!(command.get("aggregate"), Some(Bson::String(_)));
        let mut pipeline =
            if is_of_collection { Pipeline::parse(stages)? } else { Pipeline::parse_of_nothing(stages)? };
        pipeline.bind(&variables(command)?)?;
        let aggregate = Aggregate::new(namespace, pipeline);
        let found = match &self.transaction {
            Some(transaction) => transaction.aggregate(aggregate).await?,
            None => self.store.aggregate(aggregate).await?,
        };
        Ok(cursor(found.into_iter()))
    }

    async fn update(&self, command: &Document, namespace: Namespace) -> Answer {
        let variables = variables(command)?;
        let (mut matched, mut modified, mut upserted, mut errors) = (0, 0, Vec::new(), Vec::new());
        for (index, item) in command.get_array("updates").unwrap().iter().enumerate() {
            match self.update_one(&part_of(item)?, &namespace, &variables).await {
                Ok(outcome) => {
                    matched += outcome.matched as i32;
                    modified += outcome.modified as i32;
                    if let Some(id) = outcome.upserted_id {
                        matched += 1;
                        upserted
                            .push(Bson::Document(doc! { "index": index as i32, "_id": Bson::try_from(id).unwrap() }));
                    }
                }
                Err(error) => {
                    errors.push(write_error(index, error)?);
                    if command.get_bool("ordered").unwrap_or(true) {
                        break;
                    }
                }
            }
        }
        let mut reply = doc! { "n": matched, "nModified": modified, "ok": 1.0 };
        if !upserted.is_empty() {
            reply.insert("upserted", upserted);
        }
        if !errors.is_empty() {
            reply.insert("writeErrors", errors);
        }
        Ok(reply)
    }

    async fn update_one(
        &self,
        item: &Document,
        namespace: &Namespace,
        variables: &Variables,
    ) -> Result<Outcome, Failure> {
        allow_in("update.updates", item, &["q", "u", "multi", "upsert", "arrayFilters", "sort"])?;
        let filter = filter(item.get("q"), variables)?;
        let update = update(item.get("u"), item.get("arrayFilters"), variables)?;
        let multi = item.get_bool("multi").unwrap_or(false);
        if multi && matches!(update, Update::Replacement(_)) {
            return Err(failure(9, "multi update is not supported for replacement-style update"));
        }
        if multi && item.contains_key("sort") {
            return Err(failure(9, "Cannot specify sort with multi=true"));
        }
        let change = Change::Update { update, upsert: item.get_bool("upsert").unwrap_or(false) };
        let modify = Modify { sort: sort(item.get("sort"))?, ..Modify::new(filter, multi, change) };
        self.write(namespace.clone(), Operation::modify(modify)).await
    }

    async fn delete(&self, command: &Document, namespace: Namespace) -> Answer {
        let variables = variables(command)?;
        let mut deleted = 0;
        for item in command.get_array("deletes").unwrap() {
            let item = &part_of(item)?;
            allow_in("delete.deletes", item, &["q", "limit"])?;
            let multi = integer(item.get("limit")) == Some(0);
            let modify = Modify::new(filter(item.get("q"), &variables)?, multi, Change::Delete);
            deleted += self.write(namespace.clone(), Operation::modify(modify)).await?.deleted as i32;
        }
        Ok(doc! { "n": deleted, "ok": 1.0 })
    }

    async fn find_and_modify(&self, command: &Document, namespace: Namespace) -> Answer {
        let variables = variables(command)?;
        let flag = |name| command.get(name).is_some_and(truthy);
        let (remove, new, upsert) = (flag("remove"), flag("new"), flag("upsert"));
        let filter = filter(command.get("query"), &variables)?;
        if remove && command.contains_key("update") {
            return Err(failure(9, "Cannot specify both an update and remove=true"));
        }
        if remove && upsert {
            return Err(failure(9, "Cannot specify both upsert=true and remove=true"));
        }
        if remove && new {
            return Err(failure(
                9,
                "Cannot specify both new=true and remove=true; 'remove' always returns the deleted document",
            ));
        }
        if !remove && !command.contains_key("update") {
            return Err(failure(9, "Either an update or remove=true must be specified"));
        }
        let change = if remove {
            Change::Delete
        } else {
            Change::Update { update: update(command.get("update"), command.get("arrayFilters"), &variables)?, upsert }
        };
        let modify = Modify {
            sort: sort(command.get("sort"))?,
            returning: if new { Returning::After } else { Returning::Before },
            projection: projection(command.get("fields"), &variables)?,
            ..Modify::new(filter, false, change)
        };
        let outcome = self.write(namespace, Operation::modify(modify)).await?;
        let value = outcome.document.map_or(Bson::Null, |document| Bson::Document(document.try_into().unwrap()));
        let mut last = doc! { "n": outcome.matched as i32 + i32::from(outcome.upserted_id.is_some()) };
        if !remove {
            last.insert("updatedExisting", outcome.matched > 0);
        }
        if let Some(id) = outcome.upserted_id {
            last.insert("upserted", Bson::try_from(id).unwrap());
        }
        Ok(doc! { "lastErrorObject": last, "value": value, "ok": 1.0 })
    }

    async fn create_indexes(&self, command: &Document, namespace: Namespace) -> Answer {
        let specifications = command.get_array("indexes").unwrap();
        if specifications.is_empty() {
            return Err(failure(2, "Must specify at least one index to create"));
        }
        let mut indexes = Vec::new();
        for specification in specifications {
            let specification = part_of(specification)?;
            options::check_index(&specification)?;
            indexes.push(Index::parse(&raw(&specification)?)?);
        }
        let held = self.store.indexes(namespace.clone()).await?;
        self.store.ensure_indexes(namespace.clone(), indexes).await?;
        let (before, after) = (number(held.as_deref()), number(self.store.indexes(namespace).await?.as_deref()));
        let mut reply = doc! {
            "numIndexesBefore": before,
            "numIndexesAfter": after,
            "createdCollectionAutomatically": held.is_none(),
            "ok": 1.0,
        };
        if before == after {
            reply.insert("note", "all indexes already exist");
        }
        Ok(reply)
    }

    async fn drop_indexes(&self, command: &Document, namespace: Namespace) -> Answer {
        let indexes = self.indexes(&namespace).await?;
        let of_keys = |keys: &Document| {
            let is_of = |index: &&Index| raw(keys).is_ok_and(|keys| index.keys.to_document() == keys);
            let mut found = indexes.iter().filter(is_of);
            match (found.next(), found.next()) {
                _ if *keys == doc! { "_id": 1 } => Err(failure(72, "cannot drop _id index")),
                (Some(_), Some(_)) => Err(failure(181, format!("several indexes have the key {keys}"))),
                (Some(index), None) => Ok(index.name.clone()),
                (None, _) => Err(failure(27, format!("can't find index with key: {keys}"))),
            }
        };
        let names = match command.get("index").unwrap() {
            Bson::String(all) if all == "*" => indexes.iter().map(|index| index.name.clone()).collect(),
            Bson::String(name) => vec![name.clone()],
            Bson::Document(keys) => vec![of_keys(keys)?],
            Bson::Array(names) => names
                .iter()
                .map(|name| match name {
                    Bson::String(all) if all == "*" => Err(failure(72, "'*' is not allowed in a list of indexes")),
                    Bson::String(name) => Ok(name.clone()),
                    other => Err(failure(14, format!("an index's name must be a string, not {other}"))),
                })
                .collect::<Result<_, _>>()?,
            other => return Err(failure(14, format!("'index' must be a string, an object or an array, not {other}"))),
        };
        let missing = names.iter().find(|name| **name != "_id_" && indexes.iter().all(|index| index.name != **name));
        if let Some(missing) = missing {
            return Err(failure(27, format!("index not found with name [{missing}]")));
        }
        if names.iter().any(|name| name == "_id_") {
            return Err(failure(72, "cannot drop _id index"));
        }
        let before = number(Some(&indexes));
        for name in names {
            self.store.drop_index(namespace.clone(), name).await?;
        }
        Ok(doc! { "nIndexesWas": before, "ok": 1.0 })
    }

    /// Returns the indexes of a collection that must exist.
    async fn indexes(&self, namespace: &Namespace) -> Result<Vec<Index>, Failure> {
        let indexes = self.store.indexes(namespace.clone()).await?;
        indexes.ok_or_else(|| failure(26, format!("ns does not exist: {namespace}")))
    }

    async fn list_indexes(&self, command: &Document, namespace: Namespace) -> Answer {
        let batch = match command.get_document("cursor") {
            Ok(cursor) => size(cursor, "batchSize")?.unwrap_or(usize::MAX),
            Err(_) => usize::MAX,
        };
        if command.get_bool("includeIndexBuildInfo").unwrap_or(false) {
            return Err(refused("the option includeIndexBuildInfo of listIndexes"));
        }
        let indexes = self.indexes(&namespace).await?;
        let id = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
        let id = std::iter::once(raw(&id)?);
        Ok(cursor(id.chain(indexes.iter().map(Index::to_document)).take(batch)))
    }

    async fn drop(&self, namespace: Namespace) -> Answer {
        self.write(namespace, Operation::modify(Modify::new(Filter::all(), true, Change::Delete))).await?;
        Ok(doc! { "ok": 1.0 })
    }
}

/// Converts the error of a write to an entry of the reply. A refusal fails the whole command
/// instead.
fn write_error(index: usize, error: Failure) -> Result<Bson, Failure> {
    match error.code {
        REFUSED => Err(error),
        code => Ok(Bson::Document(doc! { "index": index as i32, "code": code, "errmsg": error.message })),
    }
}

/// The number of indexes of a collection, including the one on `_id`.
fn number(indexes: Option<&[Index]>) -> i32 {
    indexes.map_or(0, <[Index]>::len) as i32 + 1
}

fn check_create(command: &Document) -> Result<(), Failure> {
    match command.keys().skip(1).find(|key| !["$db", "comment", "writeConcern"].contains(&key.as_str())) {
        Some(key) => Err(refused(format_args!("the option {key} of create"))),
        None => Ok(()),
    }
}

fn check_time(command: &Document) -> Result<(), Failure> {
    match command.get("maxTimeMS") {
        Some(Bson::Double(time)) if time.fract() != 0.0 => Err(failure(9, "maxTimeMS is no whole number")),
        Some(time) if integer(Some(time)).is_some_and(|time| !(0..=i64::from(i32::MAX)).contains(&time)) => {
            Err(failure(2, format!("{time} value for maxTimeMS is out of range")))
        }
        _ => Ok(()),
    }
}

/// Refuses unsupported options, by name.
fn allow_in(name: &str, document: &Document, known: &[&str]) -> Result<(), Failure> {
    match document.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(refused(format_args!("the option {key} of {name}"))),
        None => Ok(()),
    }
}

fn raw(document: &Document) -> Result<RawDocumentBuf, Failure> {
    RawDocumentBuf::try_from(document.clone()).map_err(|error| failure(22, error.to_string()))
}

fn part_of(value: &Bson) -> Result<Document, Failure> {
    value.as_document().cloned().ok_or_else(|| failure(14, format!("{value} must be an object")))
}

fn part(value: &Bson) -> Result<RawDocumentBuf, Failure> {
    raw(&part_of(value)?)
}

/// Returns the variables that a command defines.
fn variables(command: &Document) -> Result<Variables, Failure> {
    let variables = Variables::at(SystemEnvironment.now());
    match command.get("let") {
        Some(named) => Ok(variables.with_let(&part(named)?)?),
        None => Ok(variables),
    }
}

fn truthy(value: &Bson) -> bool {
    match value {
        Bson::Boolean(flag) => *flag,
        Bson::Decimal128(number) => {
            let text = number.to_string();
            text.split('E')
                .next()
                .is_some_and(|digits| digits.contains(|digit: char| digit.is_alphanumeric() && digit != '0'))
        }
        Bson::Double(number) => *number != 0.0,
        other => integer(Some(other)).is_some_and(|number| number != 0),
    }
}

fn object(value: Option<&Bson>, name: &str) -> Result<Option<RawDocumentBuf>, Failure> {
    match value {
        None => Ok(None),
        Some(Bson::Document(document)) => {
            let document = raw(document)?;
            query::validate(&document)?;
            Ok(Some(document))
        }
        Some(_) => Err(failure(14, format!("'{name}' must be an object"))),
    }
}

fn filter(value: Option<&Bson>, variables: &Variables) -> Result<Filter, Failure> {
    let Some(filter) = object(value, "filter")? else { return Ok(Filter::all()) };
    let mut filter = Filter::parse(&filter)?;
    filter.bind(variables)?;
    Ok(filter)
}

fn projection(value: Option<&Bson>, variables: &Variables) -> Result<Option<Projection>, Failure> {
    let Some(projection) = object(value, "projection")? else { return Ok(None) };
    let mut projection = Projection::parse(&projection)?;
    projection.bind(variables)?;
    Ok(Some(projection))
}

fn sort(value: Option<&Bson>) -> Result<Option<Sort>, Failure> {
    let Some(sort) = object(value, "sort")? else { return Ok(None) };
    Ok(Some(Sort::parse(&sort)?))
}

fn update(value: Option<&Bson>, array_filters: Option<&Bson>, variables: &Variables) -> Result<Update, Failure> {
    let holder = raw(&doc! {
        "update": value.cloned().unwrap_or(Bson::Null),
        "arrayFilters": array_filters.cloned().unwrap_or(Bson::Null),
    })?;
    query::validate(&holder)?;
    let update = query::get(&holder, "update").unwrap_or(RawBsonRef::Null);
    let array_filters = match query::get(&holder, "arrayFilters") {
        Some(RawBsonRef::Array(filters)) => Some(filters),
        _ if array_filters.is_some() => return Err(failure(14, "'arrayFilters' must be an array")),
        _ => None,
    };
    let mut update = Update::parse_any(update, array_filters)?;
    update.bind(variables)?;
    Ok(update)
}

/// Reads a number of documents: a double is truncated to an integer, a decimal is rounded.
fn whole(command: &Document, name: &str) -> Result<Option<i64>, Failure> {
    let Some(value) = command.get(name) else { return Ok(None) };
    let holder = raw(&doc! { "n": value.clone() })?;
    let Some(number) = query::get(&holder, "n").and_then(query::Number::of) else {
        return Err(failure(2, format!("BSON field '{name}' is the wrong type: {value}")));
    };
    let number = match value {
        Bson::Decimal128(_) => number.to_f64().round_ties_even(),
        _ => number.to_f64().trunc(),
    };
    Ok(Some(number as i64))
}

fn size(command: &Document, name: &str) -> Result<Option<usize>, Failure> {
    let Some(number) = whole(command, name)? else { return Ok(None) };
    match usize::try_from(number) {
        Ok(size) => Ok(Some(size)),
        Err(_) => Err(failure(2, format!("BSON field '{name}' value must be >= 0, actual value '{number}'"))),
    }
}

fn cursor(documents: impl Iterator<Item = RawDocumentBuf>) -> Document {
    let batch: Vec<Bson> = documents.map(|document| Bson::Document(document.try_into().unwrap())).collect();
    doc! { "cursor": { "firstBatch": batch, "id": 0_i64, "ns": "ns1.ns0" }, "ok": 1.0 }
}
