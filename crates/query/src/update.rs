//! Updates (<https://www.mongodb.com/docs/manual/reference/operator/update/>): parsed once, applied to documents.

mod action;
mod parse;
mod positional;
mod tree;

use bson::{
    DateTime, RawBson,
    oid::ObjectId,
    raw::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Filter, Path, Pipeline, Result, Variables, budget,
    document::{MAX_DOCUMENT_SIZE, elements, get, items},
    equal,
    path_tree::{Collision, PathTree},
    sorting::sorted,
};
use action::Action;
use positional::{ArrayFilters, Touched};
use tree::Tree;

pub(crate) use tree::text;

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
    /// Update operators.
    Operators(Operators),
    /// Stages that make a new document of the old one, but for `_id`.
    Pipeline(Pipeline),
    /// A whole new document, but for `_id`.
    Replacement(RawDocumentBuf),
}

/// Update operators by path, in the order in which the server applies them.
#[derive(Debug, Clone)]
pub struct Operators {
    actions: Vec<(Path, Action)>,
    array_filters: ArrayFilters,
    source: RawDocumentBuf,
    filters_source: Vec<RawDocumentBuf>,
}

impl Operators {
    /// The document that they were parsed from.
    pub fn to_document(&self) -> &RawDocument {
        &self.source
    }

    /// The array filters that they were parsed with.
    pub fn array_filters(&self) -> &[RawDocumentBuf] {
        &self.filters_source
    }
}

/// The stages that an update may have.
pub(crate) const UPDATE_STAGES: [&str; 6] =
    ["$addFields", "$project", "$replaceRoot", "$replaceWith", "$set", "$unset"];

impl Update {
    /// Parses a document of update operators with array filters, a replacement if its first field is not an operator, or
    /// a pipeline.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and where there are array filters that nothing uses.
    pub fn parse_any(update: RawBsonRef<'_>, array_filters: Option<&RawArray>) -> Result<Self> {
        match (update, array_filters) {
            (RawBsonRef::Document(update), filters) => {
                let array_filters = filters.map(ArrayFilters::parse).transpose()?.unwrap_or_default();
                match elements(update).next() {
                    Some((name, _)) if name.starts_with('$') => {
                        let actions = parse::operators(update, &array_filters)?;
                        let filters = filters.into_iter().flat_map(items).filter_map(|filter| filter.as_document());
                        Ok(Self::Operators(Operators {
                            actions,
                            array_filters,
                            source: update.to_owned(),
                            filters_source: filters.map(RawDocument::to_owned).collect(),
                        }))
                    }
                    _ if array_filters.is_empty() => Self::replacement(update),
                    _ => Err(Error::parse("Cannot specify arrayFilters and a replacement document")),
                }
            }
            (RawBsonRef::Array(_), Some(_)) => {
                Err(Error::parse("arrayFilters may not be specified for pipeline-syle updates"))
            }
            (RawBsonRef::Array(stages), None) => {
                for stage in items(stages).filter_map(|stage| stage.as_document()) {
                    budget::charge(1)?;
                    let name = elements(stage).next().map(|(name, _)| name);
                    if let Some(name) = name.filter(|name| !UPDATE_STAGES.contains(name)) {
                        // One that does not exist at all is told as that.
                        if !crate::aggregate::is_stage(stage) {
                            Pipeline::parse(stages)?;
                        }
                        let message = format!("{name} is not allowed to be used within an update");
                        return Err(Error::new(ErrorCode::InvalidOptions, message));
                    }
                }
                Pipeline::parse(stages).map(Self::Pipeline)
            }
            (other, _) => Err(Error::parse(format!(
                "Update argument must be either an object or an array, not {}",
                crate::type_name(other)
            ))),
        }
    }

    /// Names each operator of a filter or an expression in the update.
    pub fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::Operators(operators) => {
                operators.actions.iter().for_each(|(_, action)| action.operators(visit));
                operators.array_filters.operators(visit);
            }
            Self::Pipeline(pipeline) => pipeline.operators(visit),
            Self::Replacement(_) => {}
        }
    }

    /// The paths within which it changes a document at most; `None` where it may change anything.
    pub fn paths(&self) -> Option<Vec<Path>> {
        match self {
            Self::Operators(operators) => Some(operators.actions.iter().flat_map(parse::touched).collect()),
            Self::Pipeline(_) | Self::Replacement(_) => None,
        }
    }

    /// Whether it changes the item by which the document matched (`$`), which depends on the whole filter.
    pub fn is_positional(&self) -> bool {
        match self {
            Self::Operators(operators) => operators.actions.iter().any(|(path, _)| positional::needs_match(path)),
            Self::Pipeline(_) | Self::Replacement(_) => false,
        }
    }

    /// Puts in what the variables of its expressions stand for.
    ///
    /// # Errors
    /// 17276 where one is not among them.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        match self {
            Self::Pipeline(pipeline) => pipeline.bind(variables),
            Self::Operators(_) | Self::Replacement(_) => Ok(()),
        }
    }

    /// Parses a document of update operators, or a replacement if its first field is not an operator.
    ///
    /// # Errors
    /// The server's own for operators that do not exist, operands of the wrong type and conflicting paths;
    /// `CommandNotSupported` by name for what this version does not have.
    pub fn parse(update: &RawDocument) -> Result<Self> {
        Self::parse_any(RawBsonRef::Document(update), None)
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

    /// The document after the update. `filter` is what it matched, for the item that `$` stands for.
    ///
    /// # Errors
    /// The server's own where the document does not allow the update, would lose its `_id` or grow beyond 16 MiB.
    pub fn apply(
        &self,
        document: &RawDocument,
        filter: &Filter,
        environment: &dyn Environment,
    ) -> Result<RawDocumentBuf> {
        let position = match self {
            Self::Operators(operators) if operators.actions.iter().any(|(path, _)| positional::needs_match(path)) => {
                filter.position(document).flatten()
            }
            _ => None,
        };
        self.run(document, position, false, environment)
    }

    /// Whether a filter can be that of an upsert.
    ///
    /// # Errors
    /// `QueryFeatureNotAllowed` for `$expr`.
    pub fn check_upsert(filter: &Filter) -> Result<()> {
        filter.refuse(&["$expr"], "the query predicate for an upsert")
    }

    /// The document that an upsert inserts: the filter's equalities, then the update, then a new `_id` if none came of it.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and where the filter gives one field twice.
    pub fn upsert(&self, filter: &Filter, environment: &dyn Environment) -> Result<RawDocumentBuf> {
        let seed = seed(filter, matches!(self, Self::Replacement(_)))?;
        let inserted = self.run(&seed, None, true, environment)?;
        prepare_insert(&inserted, environment)
    }

    fn run(
        &self,
        document: &RawDocument,
        position: Option<usize>,
        inserting: bool,
        environment: &dyn Environment,
    ) -> Result<RawDocumentBuf> {
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
            Self::Pipeline(pipeline) => {
                let mut made = pipeline.run(std::iter::once(document.to_owned()));
                let updated = made.next().unwrap_or_else(|| Ok(RawDocumentBuf::new()))?;
                // Expressions make names of values, which were not looked at as names before.
                crate::validate(&updated)?;
                check_id(&updated)?;
                with_id(id, &updated)?
            }
            Self::Operators(operators) => {
                let mut tree = Tree::new(document);
                let is_dynamic = |(path, _): &(Path, Action)| positional::is_positional(path);
                // What no positional part leads to was compared when it was parsed.
                let mut touched =
                    (operators.actions.len() > 1 && operators.actions.iter().any(is_dynamic)).then(Touched::default);
                for (path, action) in &operators.actions {
                    budget::charge(1)?;
                    let mut apply = |path: &Path, tree: &mut Tree<'_>| {
                        touched.as_mut().map_or(Ok(()), |touched| touched.note(path))?;
                        action.apply(path, tree, inserting, environment)
                    };
                    if positional::is_positional(path) {
                        for path in positional::resolve(path, &mut tree, &operators.array_filters, position)? {
                            apply(&path, &mut tree)?;
                        }
                    } else {
                        apply(path, &mut tree)?;
                    }
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
        budget::charge_bytes(updated.as_bytes().len())?;
        Ok(updated)
    }
}

/// A document that a pipeline made, with the `_id` that the one before had.
fn with_id(id: Option<RawBsonRef<'_>>, document: &RawDocument) -> Result<RawDocumentBuf> {
    match (id, get(document, "_id")) {
        (Some(old), Some(new)) if !equal(old, new) => {
            Err(immutable_id("Performing an update on the path '_id' would modify the immutable field '_id'"))
        }
        (Some(old), None) => {
            let mut whole = RawDocumentBuf::new();
            crate::append(&mut whole, "_id", old);
            elements(document).for_each(|(name, value)| crate::append(&mut whole, name, value));
            Ok(whole)
        }
        _ => Ok(document.to_owned()),
    }
}

fn immutable_id(message: &str) -> Error {
    Error::new(ErrorCode::ImmutableField, message)
}

fn check_size(document: &RawDocument) -> Result<()> {
    check_length(document.as_bytes().len())
}

fn check_length(size: usize) -> Result<()> {
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
    budget::charge_bytes(prepared.as_bytes().len())?;
    Ok(prepared)
}

/// The equalities of a filter as a document. A replacement takes only `_id` from it.
fn seed(filter: &Filter, only_id: bool) -> Result<RawDocumentBuf> {
    let empty = RawDocumentBuf::new();
    let mut tree = Tree::new(&empty);
    let mut seen = PathTree::default();
    // As the server, which has new fields in the order of their paths.
    let equalities = sorted(filter.equalities(), |(one, _), (other, _)| one.as_str().cmp(other.as_str()))?;
    for (path, value) in equalities {
        if only_id && path.as_str() != "_id" {
            continue;
        }
        if let Some(collision) = seen.insert(path.parts())? {
            // A path sorts before those that lead through it.
            let twice = match collision {
                Collision::Through(length) => path.parts()[..length].join("."),
                Collision::Same | Collision::Above => path.as_str().to_owned(),
            };
            return Err(Error::new(
                ErrorCode::NotSingleValueField,
                format!("cannot infer query fields to set, path '{twice}' is matched twice"),
            ));
        }
        tree.set(path, RawBson::clone(value))?;
    }
    Ok(tree.into_document())
}

#[cfg(test)]
mod tests;
