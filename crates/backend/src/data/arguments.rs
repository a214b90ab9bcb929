//! The arguments of a data source's functions in the wire format: one document with the database,
//! the collection and the function's parameters. Unknown keys are rejected.

use bson::raw::{RawArray, RawBsonRef, RawDocument};
use query::{elements, type_name};

use crate::{Error, ErrorCode, Result};

pub(super) struct Arguments<'a> {
    function: &'a str,
    document: &'a RawDocument,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(function: &'a str, document: &'a RawDocument, takes: &[&str]) -> Result<Self> {
        for (key, _) in elements(document) {
            if !matches!(key, "database" | "collection") && !takes.contains(&key) {
                return Err(invalid(format!("{function} does not take '{key}'")));
            }
        }
        Ok(Self { function, document })
    }

    /// Returns a value unless it is missing, null or undefined.
    pub(super) fn get(&self, key: &str) -> Option<RawBsonRef<'a>> {
        query::get(self.document, key).filter(|value| !matches!(value, RawBsonRef::Null | RawBsonRef::Undefined))
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str> {
        match self.get(key) {
            Some(RawBsonRef::String(text)) if !text.is_empty() && !text.contains('\0') => Ok(text),
            Some(RawBsonRef::String(_)) => Err(invalid(format!("'{key}' must not be empty"))),
            Some(other) => Err(self.wrong(key, "a string", other)),
            None => Err(Error::new(ErrorCode::MissingParameter, format!("{} needs '{key}'", self.function))),
        }
    }

    pub(super) fn document(&self, key: &str) -> Result<Option<&'a RawDocument>> {
        match self.get(key) {
            None => Ok(None),
            Some(RawBsonRef::Document(document)) => Ok(Some(document)),
            Some(other) => Err(self.wrong(key, "a document", other)),
        }
    }

    pub(super) fn required_document(&self, key: &str) -> Result<&'a RawDocument> {
        self.document(key)?
            .ok_or_else(|| Error::new(ErrorCode::MissingParameter, format!("{} needs '{key}'", self.function)))
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&'a RawArray>> {
        match self.get(key) {
            None => Ok(None),
            Some(RawBsonRef::Array(array)) => Ok(Some(array)),
            Some(other) => Err(self.wrong(key, "an array", other)),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(RawBsonRef::Boolean(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, "true or false", other)),
        }
    }

    /// Returns the limit; zero means no limit, as in MongoDB.
    pub(super) fn limit(&self) -> Result<Option<usize>> {
        let Some(value) = self.get("limit") else { return Ok(None) };
        match query::integer(value).map(usize::try_from) {
            Some(Ok(0)) => Ok(None),
            Some(Ok(limit)) => Ok(Some(limit)),
            Some(Err(_)) => Err(invalid("'limit' must not be negative".into())),
            None => Err(self.wrong("limit", "a whole number", value)),
        }
    }

    fn wrong(&self, key: &str, expected: &str, value: RawBsonRef<'_>) -> Error {
        invalid(format!("'{key}' of {} must be {expected}, got {}", self.function, type_name(value)))
    }
}

pub(super) fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidParameter, message)
}
