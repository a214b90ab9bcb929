//! The operator's queries of the log.

use bson::{Bson, DateTime, Document, doc, oid::ObjectId, raw::RawDocumentBuf, rawdoc};
use query::{Filter, Sort};
use serde::Deserialize;
use store::Find;

use super::{entry, invalid};
use crate::{Result, auth::OwnCollection};

/// The number of entries that a query returns by default, and at most.
const DEFAULT_LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 10_000;

/// The short names of types, as the command line of App Services has them.
const FAMILIES: [(&str, &[&str]); 4] = [
    ("auth", &["AUTH", "API_KEY"]),
    ("function", &["FUNCTION", "STREAM_FUNCTION"]),
    ("service", &["SERVICE_FUNCTION", "SERVICE_STREAM_FUNCTION"]),
    ("trigger", &["AUTH_TRIGGER", "DB_TRIGGER", "SCHEDULED_TRIGGER", "TRIGGER_FAILURE"]),
];

/// A query of the log. Each field that is set narrows it.
///
/// ```
/// let query: backend::LogQuery = bson::deserialize_from_document(bson::doc! { "errors": true }).unwrap();
/// assert!(query.errors && query.user.is_none());
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogQuery {
    /// The types of entries, such as `FUNCTION`, or the short names `auth`, `function`, `service`
    /// and `trigger`; all if empty.
    pub types: Vec<String>,
    /// True to find only failures.
    pub errors: bool,
    /// The id of the user who made the request.
    pub user: Option<String>,
    /// The time after which the request started.
    pub from: Option<DateTime>,
    /// The time at which the request started at the latest.
    pub to: Option<DateTime>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The id of an entry, to find only entries that were written after it.
    pub after: Option<ObjectId>,
    /// The maximum number of entries; 100 by default, and up to 10 000.
    pub limit: Option<u32>,
}

impl LogQuery {
    pub(super) fn find(&self, collection: &OwnCollection) -> Result<Find> {
        let filter = RawDocumentBuf::try_from(&self.filter()).map_err(invalid)?;
        // The few entries of one request are found by their index, and sorted afterwards.
        let sort = self.request_id.is_none().then(|| Sort::parse(&rawdoc! { "_id": -1 }));
        Ok(Find {
            sort: sort.transpose()?,
            limit: Some(self.limit.unwrap_or(DEFAULT_LIMIT).min(LARGEST_LIMIT) as usize),
            ..collection.query(Filter::parse(&filter)?)
        })
    }

    fn filter(&self) -> Document {
        let mut filter = Document::new();
        if !self.types.is_empty() {
            let types: Vec<Bson> = self.types.iter().flat_map(|name| types(name)).map(Bson::String).collect();
            filter.insert(entry::TYPE, doc! { "$in": types });
        }
        if self.errors {
            filter.insert(entry::ERROR, doc! { "$exists": true });
        }
        if let Some(user) = &self.user {
            filter.insert(entry::USER, user);
        }
        if let Some(id) = &self.request_id {
            filter.insert(entry::REQUEST_ID, id);
        }
        if let Some(after) = self.after {
            filter.insert("_id", doc! { "$gt": after });
        }
        let bounds = [("$gt", self.from), ("$lte", self.to)];
        let started: Document =
            bounds.into_iter().filter_map(|(bound, time)| Some((bound.to_owned(), Bson::DateTime(time?)))).collect();
        if !started.is_empty() {
            filter.insert(entry::STARTED, started);
        }
        filter
    }
}

/// Returns the types that a name means.
fn types(name: &str) -> Vec<String> {
    match FAMILIES.iter().find(|(family, _)| *family == name) {
        Some((_, types)) => types.iter().map(|name| (*name).to_owned()).collect(),
        None => vec![name.to_ascii_uppercase()],
    }
}
