//! Updates (<https://www.mongodb.com/docs/manual/reference/operator/update/>): parsed once, applied to documents.

mod action;
mod parse;
mod tree;

use bson::{
    DateTime, RawBson,
    oid::ObjectId,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Filter, Path, Result,
    document::{MAX_DOCUMENT_SIZE, elements, get},
    equal,
};
use action::Action;
use tree::Tree;

/// What an update needs from outside: the time and new ids.
pub trait Environment {
    /// The time that `$currentDate` sets.
    fn now(&self) -> DateTime;
    /// The `_id` of a document that has none.
    fn new_id(&self) -> ObjectId;
}

/// A parsed update: operators, or a replacement document.
#[derive(Debug, Clone)]
pub enum Update {
    /// Update operators by path, in the order in which the server applies them.
    Operators(Vec<(Path, Action)>),
    /// A whole new document, but for `_id`.
    Replacement(RawDocumentBuf),
}

impl Update {
    /// Parses a document of update operators, or a replacement if its first field is not an operator.
    ///
    /// # Errors
    /// The server's own for operators that do not exist, operands of the wrong type and conflicting paths;
    /// `CommandNotSupported` by name for what this version does not have.
    pub fn parse(update: &RawDocument) -> Result<Self> {
        match elements(update).next() {
            Some((name, _)) if name.starts_with('$') => parse::operators(update).map(Self::Operators),
            _ => Self::replacement(update),
        }
    }

    /// Parses a document that takes the place of another.
    ///
    /// # Errors
    /// `FailedToParse` where a top-level field name starts with a dollar sign.
    pub fn replacement(document: &RawDocument) -> Result<Self> {
        if elements(document).any(|(name, _)| name.starts_with('$')) {
            return Err(Error::parse("the replace operation document must not contain atomic operators"));
        }
        check_id(document)?;
        Ok(Self::Replacement(document.to_owned()))
    }

    /// The document after the update.
    ///
    /// # Errors
    /// The server's own where the document does not allow the update, would lose its `_id` or grow beyond 16 MiB.
    pub fn apply(&self, document: &RawDocument, environment: &dyn Environment) -> Result<RawDocumentBuf> {
        self.run(document, false, environment)
    }

    /// The document that an upsert inserts: the filter's equalities, then the update, then a new `_id` if none came of it.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and where the filter gives one field twice.
    pub fn upsert(&self, filter: &Filter, environment: &dyn Environment) -> Result<RawDocumentBuf> {
        let seed = seed(filter, matches!(self, Self::Replacement(_)))?;
        let inserted = self.run(&seed, true, environment)?;
        prepare_insert(&inserted, environment)
    }

    fn run(&self, document: &RawDocument, inserting: bool, environment: &dyn Environment) -> Result<RawDocumentBuf> {
        let id = get(document, "_id");
        let updated = match self {
            Self::Replacement(replacement) => {
                let mut updated = RawDocumentBuf::new();
                if let Some(id) = id.or_else(|| get(replacement, "_id")) {
                    crate::append(&mut updated, "_id", id);
                }
                if let (Some(old), Some(new)) = (id, get(replacement, "_id"))
                    && !equal(old, new)
                {
                    return Err(immutable_id(
                        "After applying the update, the (immutable) field '_id' was found to have been altered to _id",
                    ));
                }
                for (name, value) in elements(replacement).filter(|(name, _)| *name != "_id") {
                    crate::append(&mut updated, name, value);
                }
                updated
            }
            Self::Operators(operators) => {
                let mut tree = Tree::new(document);
                for (path, action) in operators {
                    action.apply(path, &mut tree, inserting, environment)?;
                }
                let updated = tree.into_document();
                if let Some(id) = id
                    && !get(&updated, "_id").is_some_and(|new| equal(id, new))
                {
                    return Err(immutable_id(
                        "Performing an update on the path '_id' would modify the immutable field '_id'",
                    ));
                }
                updated
            }
        };
        check_size(&updated)?;
        Ok(updated)
    }
}

fn immutable_id(message: &str) -> Error {
    Error::new(ErrorCode::ImmutableField, message)
}

fn check_size(document: &RawDocument) -> Result<()> {
    let size = document.as_bytes().len();
    if size > MAX_DOCUMENT_SIZE {
        return Err(Error::new(
            ErrorCode::BsonObjectTooLarge,
            format!("BSONObj size: {size} is invalid. Size must be between 0 and {MAX_DOCUMENT_SIZE}"),
        ));
    }
    Ok(())
}

/// Checks that the `_id` of a document can be one.
fn check_id(document: &RawDocument) -> Result<()> {
    match get(document, "_id") {
        Some(RawBsonRef::Array(_)) => {
            Err(Error::new(ErrorCode::InvalidIdField, "The '_id' value cannot be of type array"))
        }
        Some(RawBsonRef::RegularExpression(_)) => {
            Err(Error::new(ErrorCode::InvalidIdField, "The '_id' value cannot be of type regex"))
        }
        Some(RawBsonRef::Undefined) => {
            Err(Error::new(ErrorCode::InvalidIdField, "The '_id' value cannot be of type undefined"))
        }
        Some(RawBsonRef::Document(id)) if elements(id).any(|(name, _)| name.starts_with('$')) => {
            Err(Error::new(ErrorCode::DollarPrefixedFieldName, "_id fields may not contain '$'-prefixed fields"))
        }
        _ => Ok(()),
    }
}

/// A document as it is stored: `_id` first, made if it has none.
///
/// # Errors
/// Where its `_id` cannot be one or it is larger than 16 MiB.
pub fn prepare_insert(document: &RawDocument, environment: &dyn Environment) -> Result<RawDocumentBuf> {
    check_id(document)?;
    let prepared = match elements(document).next() {
        Some(("_id", _)) => document.to_owned(),
        _ => {
            let mut prepared = RawDocumentBuf::new();
            match get(document, "_id") {
                Some(id) => crate::append(&mut prepared, "_id", id),
                None => crate::append(&mut prepared, "_id", environment.new_id()),
            }
            for (name, value) in elements(document).filter(|(name, _)| *name != "_id") {
                crate::append(&mut prepared, name, value);
            }
            prepared
        }
    };
    check_size(&prepared)?;
    Ok(prepared)
}

/// The equalities of a filter as a document. A replacement takes only `_id` from it.
fn seed(filter: &Filter, only_id: bool) -> Result<RawDocumentBuf> {
    let empty = RawDocumentBuf::new();
    let mut tree = Tree::new(&empty);
    let mut seen: Vec<&Path> = Vec::new();
    for (path, value) in filter.equalities() {
        if only_id && path.as_str() != "_id" {
            continue;
        }
        if let Some(twice) = seen.iter().find(|other| other.starts_with(path) || path.starts_with(other)) {
            return Err(Error::new(
                ErrorCode::NotSingleValueField,
                format!("cannot infer query fields to set, path '{}' is matched twice", twice.as_str()),
            ));
        }
        seen.push(path);
        tree.set(path, RawBson::clone(value))?;
    }
    let seeded = tree.into_document();
    check_id(&seeded)?;
    Ok(seeded)
}

#[cfg(test)]
mod tests;
