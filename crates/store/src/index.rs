//! Index specifications, in the format of `createIndexes`
//! (<https://www.mongodb.com/docs/manual/reference/command/createIndexes/>).

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use query::{ErrorCode, Filter, IndexKey, IndexKeys, KeyPattern, Path, PathFilter, Predicate};

use crate::Result;

/// The maximum of `expireAfterSeconds`, as on the server.
const MAX_EXPIRY: i64 = i32::MAX as i64;

/// An index.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// The name, unique within the collection.
    pub name: String,
    /// The indexed fields.
    pub keys: KeyPattern,
    /// True if no two documents may have the same key.
    pub unique: bool,
    /// True if documents without any of the fields are left out.
    pub sparse: bool,
    /// The condition of a partial index; `None` if the index holds all documents.
    pub partial: Option<Partial>,
    /// TTL in seconds: a document is removed this long after the time in the indexed field.
    pub expire_after: Option<i64>,
}

/// The condition of a partial index.
#[derive(Debug, Clone)]
pub struct Partial {
    /// The expression as the caller wrote it.
    pub expression: RawDocumentBuf,
    /// The parsed expression.
    pub filter: Filter,
}

impl PartialEq for Partial {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

fn wrong(code: ErrorCode, message: impl Into<String>) -> crate::Error {
    query::Error { code, message: message.into() }.into()
}

impl Index {
    /// Returns an ascending index on one path.
    pub fn on(path: Path) -> Self {
        let keys = KeyPattern::of(path);
        Self { name: keys.name(), keys, unique: false, sparse: false, partial: None, expire_after: None }
    }

    /// Returns the index as a unique one: no two documents may have the same key.
    #[must_use]
    pub fn unique(self) -> Self {
        Self { unique: true, ..self }
    }

    /// Returns the index as a TTL index: documents are removed `after` seconds after the time in
    /// the field.
    #[must_use]
    pub fn expiring(self, after: i64) -> Self {
        Self { expire_after: Some(after), ..self }
    }

    /// Parses `{ key: { path: 1 | -1, … }, name, unique, sparse, partialFilterExpression,
    /// expireAfterSeconds }`.
    ///
    /// # Errors
    /// The error code of the server if the specification is not valid. `CommandNotSupported`, with
    /// the name of the option, if this version does not support it.
    pub fn parse(specification: &RawDocument) -> Result<Self> {
        let mut index: Option<Self> = None;
        let mut named = None;
        if let Some(keys) = query::get(specification, "key") {
            let RawBsonRef::Document(keys) = keys else {
                return Err(wrong(ErrorCode::TypeMismatch, "The field 'key' must be an object"));
            };
            let keys = KeyPattern::parse(keys)?;
            let name = keys.name();
            index = Some(Self { name, keys, unique: false, sparse: false, partial: None, expire_after: None });
        }
        let mut index = index.ok_or_else(|| {
            wrong(ErrorCode::FailedToParse, "The 'key' field is a required property of an index specification")
        })?;
        for (name, value) in query::elements(specification) {
            let flag = || match value {
                RawBsonRef::Boolean(flag) => Ok(flag),
                value => query::Number::of(value)
                    .map(|number| number.to_f64() != 0.0)
                    .ok_or_else(|| wrong(ErrorCode::TypeMismatch, format!("The field '{name}' must be a boolean"))),
            };
            match name {
                // MongoDB stores these options without using them, or they are versions of its own
                // formats.
                "key" | "v" | "background" | "ns" => {}
                "name" => match value {
                    RawBsonRef::String("") => {
                        return Err(wrong(ErrorCode::CannotCreateIndex, "index name cannot be empty"));
                    }
                    RawBsonRef::String("*") => {
                        return Err(wrong(ErrorCode::BadValue, "The index name '*' is not valid."));
                    }
                    RawBsonRef::String(name) => named = Some(name.to_owned()),
                    _ => return Err(wrong(ErrorCode::TypeMismatch, "The field 'name' must be a string")),
                },
                "unique" => index.unique = flag()?,
                "sparse" => index.sparse = flag()?,
                "hidden" if !flag()? => {}
                "partialFilterExpression" => {
                    let RawBsonRef::Document(expression) = value else {
                        return Err(wrong(
                            ErrorCode::TypeMismatch,
                            "The field 'partialFilterExpression' must be an object",
                        ));
                    };
                    let filter = Filter::parse(expression)?;
                    filter.refuse(&["$expr"], "a partial index")?;
                    check_partial(&filter)?;
                    index.partial = Some(Partial { expression: expression.to_owned(), filter });
                }
                "expireAfterSeconds" => {
                    let seconds = query::Number::of(value).ok_or_else(|| {
                        wrong(ErrorCode::CannotCreateIndex, "TTL index 'expireAfterSeconds' option must be numeric")
                    })?;
                    let seconds = seconds.truncated().filter(|seconds| (0..=MAX_EXPIRY).contains(seconds));
                    index.expire_after = Some(seconds.ok_or_else(|| {
                        let message =
                            format!("TTL index 'expireAfterSeconds' must be within the range 0 to {MAX_EXPIRY}");
                        wrong(ErrorCode::CannotCreateIndex, message)
                    })?);
                }
                "collation"
                | "hidden"
                | "storageEngine"
                | "weights"
                | "default_language"
                | "language_override"
                | "textIndexVersion"
                | "2dsphereIndexVersion"
                | "bits"
                | "min"
                | "max"
                | "wildcardProjection"
                | "prepareUnique" => {
                    return Err(query::Error::unsupported(format_args!("the index option {name}")).into());
                }
                _ => {
                    return Err(wrong(
                        ErrorCode::InvalidIndexSpecificationOption,
                        format!("The field '{name}' is not valid for an index specification"),
                    ));
                }
            }
        }
        if let Some(name) = named {
            index.name = name;
        }
        let is_of_id = index.keys == KeyPattern::of(Path::new("_id"));
        if is_of_id && (index.sparse || index.partial.is_some() || index.expire_after.is_some()) {
            let message = "the index on _id cannot be sparse, partial or a TTL index";
            return Err(wrong(ErrorCode::InvalidIndexSpecificationOption, message));
        }
        if index.sparse && index.partial.is_some() {
            return Err(wrong(
                ErrorCode::CannotCreateIndex,
                "cannot mix \"partialFilterExpression\" and \"sparse\" options",
            ));
        }
        if index.expire_after.is_some() && index.keys.fields().len() > 1 {
            return Err(wrong(
                ErrorCode::CannotCreateIndex,
                "TTL indexes are single-field indexes, compound indexes do not support TTL",
            ));
        }
        Ok(index)
    }

    /// Returns the specification in the format that [`parse`](Self::parse) accepts.
    pub fn to_document(&self) -> RawDocumentBuf {
        let mut written = RawDocumentBuf::new();
        query::append(&mut written, "v", 2);
        query::append(&mut written, "key", &self.keys.to_document());
        query::append(&mut written, "name", self.name.as_str());
        if self.unique {
            query::append(&mut written, "unique", true);
        }
        if self.sparse {
            query::append(&mut written, "sparse", true);
        }
        if let Some(partial) = &self.partial {
            query::append(&mut written, "partialFilterExpression", &partial.expression);
        }
        if let Some(seconds) = self.expire_after {
            match i32::try_from(seconds) {
                Ok(seconds) => query::append(&mut written, "expireAfterSeconds", seconds),
                Err(_) => query::append(&mut written, "expireAfterSeconds", seconds),
            }
        }
        written
    }

    /// Returns the keys of a document in this index; there may be none.
    ///
    /// # Errors
    /// If the indexed fields lead through more than one array of the document.
    pub fn keys_of(&self, document: &RawDocument) -> Result<IndexKeys> {
        if self.partial.as_ref().is_some_and(|partial| !partial.filter.matches(document)) {
            return Ok(IndexKeys { keys: Vec::new(), is_multikey: false });
        }
        let mut keys = self.keys.keys(document)?;
        if self.sparse {
            keys.keys.retain(|key: &IndexKey| key.has_field);
        }
        Ok(keys)
    }

    /// True if the index holds every document that the filter matches.
    pub fn covers(&self, filter: &Filter) -> bool {
        let (conditions, _) = filter.conditions();
        let implied = |wanted: &PathFilter| {
            conditions
                .iter()
                .any(|condition| condition.path == wanted.path && implies(&condition.predicate, &wanted.predicate))
        };
        if let Some(partial) = &self.partial {
            let (wanted, is_all) = partial.filter.conditions();
            return is_all && wanted.into_iter().all(implied);
        }
        // A sparse index holds a document if at least one of the indexed fields exists.
        !self.sparse
            || self
                .keys
                .fields()
                .iter()
                .any(|(path, _)| implied(&PathFilter { path: path.clone(), predicate: Predicate::Exists }))
    }
}

/// True if every value that satisfies `one` satisfies `other`.
fn implies(one: &Predicate, other: &Predicate) -> bool {
    use Predicate::{Eq, Exists, Gt, Gte, In, Lt, Lte};
    let value = |bound: &bson::RawBson, other: &Predicate| other.matches(Some(bound.as_raw_bson_ref()));
    let is_null = |bound: &bson::RawBson| matches!(bound, bson::RawBson::Null);
    match (one, other) {
        _ if one == other => true,
        (Eq(bound), other) if !is_null(bound) => value(bound, other),
        (In(bounds, patterns), other) if patterns.is_empty() => {
            !bounds.is_empty() && bounds.iter().all(|bound| !is_null(bound) && value(bound, other))
        }
        (Gt(bound) | Gte(bound) | Lt(bound) | Lte(bound), Exists) => !is_null(bound),
        // A value beyond one bound is beyond every weaker bound of the same type.
        (Gt(bound) | Gte(bound), Gte(_)) | (Lt(bound) | Lte(bound), Lte(_)) => value(bound, other),
        (Gt(bound), Gt(_)) => value(bound, other),
        (Gte(bound), Gt(_)) | (Lte(bound) | Lt(bound), Lt(_)) => value(bound, other),
        _ => false,
    }
}

/// Checks that a partial index has only conditions that MongoDB allows there.
fn check_partial(filter: &Filter) -> Result<()> {
    let allowed = match filter {
        Filter::And(filters) | Filter::Or(filters) => {
            return filters.iter().try_for_each(check_partial);
        }
        Filter::Path(filter) => matches!(
            filter.predicate,
            Predicate::Eq(_)
                | Predicate::Gt(_)
                | Predicate::Gte(_)
                | Predicate::Lt(_)
                | Predicate::Lte(_)
                | Predicate::In(..)
                | Predicate::Exists
                | Predicate::Type(_)
        ),
        _ => false,
    };
    match allowed {
        true => Ok(()),
        false => Err(wrong(ErrorCode::CannotCreateIndex, "unsupported expression in partial index")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn code(specification: RawDocumentBuf) -> Option<i32> {
        match Index::parse(&specification) {
            Err(crate::Error::Query(error)) => Some(error.number()),
            _ => None,
        }
    }

    #[test]
    fn a_parsed_index_is_written_unchanged() {
        let specification = rawdoc! {
            "v": 2,
            "key": { "a": 1, "b": -1 },
            "name": "mine",
            "unique": true,
            "partialFilterExpression": { "a": { "$gt": 5 } },
        };
        let index = Index::parse(&specification).unwrap();
        assert_eq!(index.to_document(), specification);
        assert_eq!(Index::parse(&rawdoc! { "key": { "a.b": 1, "c": -1 } }).unwrap().name, "a.b_1_c_-1");
    }

    #[test]
    fn rejects_invalid_specifications() {
        assert_eq!(code(rawdoc! { "name": "x" }), Some(9));
        assert_eq!(code(rawdoc! { "key": { "a": 1 }, "uniqe": true }), Some(197));
        assert_eq!(code(rawdoc! { "key": { "a": 1 }, "sparse": true, "partialFilterExpression": {} }), Some(67));
        assert_eq!(code(rawdoc! { "key": { "a": 1, "b": 1 }, "expireAfterSeconds": 1 }), Some(67));
        assert_eq!(code(rawdoc! { "key": { "a": 1 }, "expireAfterSeconds": -1 }), Some(67));
        assert_eq!(code(rawdoc! { "key": { "a": 1 }, "collation": {} }), Some(115));
        assert_eq!(code(rawdoc! { "key": { "a": 1 }, "partialFilterExpression": { "a": { "$ne": 1 } } }), Some(67));
    }

    #[test]
    fn a_partial_or_sparse_index_covers_the_filters_that_imply_its_condition() {
        let covers = |specification: RawDocumentBuf, filter: RawDocumentBuf| {
            Index::parse(&specification).unwrap().covers(&Filter::parse(&filter).unwrap())
        };
        let partial = || rawdoc! { "key": { "a": 1 }, "partialFilterExpression": { "a": { "$gt": 5 } } };
        assert!(covers(partial(), rawdoc! { "a": 6 }));
        assert!(covers(partial(), rawdoc! { "a": { "$gte": 6 } }));
        assert!(covers(partial(), rawdoc! { "a": { "$gt": 5 } }));
        assert!(!covers(partial(), rawdoc! { "a": { "$gte": 5 } }));
        assert!(!covers(partial(), rawdoc! { "a": { "$gt": 4 } }));
        assert!(!covers(partial(), rawdoc! { "a": 5 }));
        assert!(!covers(partial(), rawdoc! { "b": 6 }));
        let sparse = || rawdoc! { "key": { "a": 1 }, "sparse": true };
        assert!(covers(sparse(), rawdoc! { "a": 1 }));
        assert!(!covers(sparse(), rawdoc! { "a": null }));
        assert!(!covers(sparse(), rawdoc! {}));
    }
}
