//! Updates (<https://www.mongodb.com/docs/manual/reference/operator/update/>): parsed once and
//! then applied to documents.

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

/// The inputs of an update that come from outside of this crate: the time and new ids.
pub trait Environment {
    /// Returns the time that `$currentDate` sets.
    fn now(&self) -> DateTime;
    /// Returns a new `_id` for a document that has none.
    fn new_id(&self) -> ObjectId;
}

/// A parsed update: operators, a pipeline, or a replacement document.
///
/// ```
/// use bson::{DateTime, oid::ObjectId, rawdoc};
/// use query::{Environment, Filter, Update};
///
/// struct Now;
///
/// impl Environment for Now {
///     fn now(&self) -> DateTime {
///         DateTime::now()
///     }
///     fn new_id(&self) -> ObjectId {
///         ObjectId::new()
///     }
/// }
///
/// let update = Update::parse(&rawdoc! { "$inc": { "n": 1 }, "$push": { "tags": "b" } }).unwrap();
/// let document = rawdoc! { "_id": 1, "n": 2, "tags": ["a"] };
/// let updated = update.apply(&document, &Filter::all(), &Now).unwrap();
/// assert_eq!(updated, rawdoc! { "_id": 1, "n": 3, "tags": ["a", "b"] });
/// ```
#[derive(Debug, Clone)]
pub enum Update {
    /// Update operators such as `$set`.
    Operators(Operators),
    /// Pipeline stages that compute the new document. They keep `_id`.
    Pipeline(Pipeline),
    /// A replacement document. It keeps the old `_id`.
    Replacement(RawDocumentBuf),
}

/// Parsed update operators by path, in the order in which the server applies them.
#[derive(Debug, Clone)]
pub struct Operators {
    actions: Vec<(Path, Action)>,
    array_filters: ArrayFilters,
    source: RawDocumentBuf,
    filters_source: Vec<RawDocumentBuf>,
}

impl Operators {
    /// Returns the document that the operators were parsed from.
    pub fn to_document(&self) -> &RawDocument {
        &self.source
    }

    /// Returns the source documents of the array filters.
    pub fn array_filters(&self) -> &[RawDocumentBuf] {
        &self.filters_source
    }
}

/// The stages that are allowed in an update pipeline.
pub(crate) const UPDATE_STAGES: [&str; 6] =
    ["$addFields", "$project", "$replaceRoot", "$replaceWith", "$set", "$unset"];

impl Update {
    /// Parses an update of any form: a document of update operators with array filters, a
    /// replacement document if its first field is not an operator, or a pipeline.
    ///
    /// # Errors
    /// Fails as [`parse`](Self::parse) does; with `FailedToParse` (9) for array filters that the
    /// update does not use; with `InvalidOptions` (72) for a stage that updates do not allow.
    pub fn parse_any(update: RawBsonRef<'_>, array_filters: Option<&RawArray>) -> Result<Self> {
        match (update, array_filters) {
            (RawBsonRef::Document(update), filters) => {
                let array_filters = filters.map(ArrayFilters::parse).transpose()?.unwrap_or_default();
                match elements(update).next() {
                    Some((name, _)) if name.starts_with('$') => {
                        let actions = parse::operators(update, &array_filters)?;
                        let filters = filters.into_iter().flat_map(items).filter_map(bson::RawBsonRef::as_document);
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
                for stage in items(stages).filter_map(bson::RawBsonRef::as_document) {
                    budget::charge(1)?;
                    let name = elements(stage).next().map(|(name, _)| name);
                    if let Some(name) = name.filter(|name| !UPDATE_STAGES.contains(name)) {
                        // An unknown stage gets the server's error for unknown stages.
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

    /// Calls `visit` with the name of each operator in the update's filters and expressions.
    /// Update operators themselves are not visited.
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

    /// Returns paths that cover every change of the update, or `None` if it may change any field.
    /// A path through array items ends at the array.
    pub fn paths(&self) -> Option<Vec<Path>> {
        match self {
            Self::Operators(operators) => Some(operators.actions.iter().flat_map(parse::touched).collect()),
            Self::Pipeline(_) | Self::Replacement(_) => None,
        }
    }

    /// True if the update changes the array item by which the document matched (`$`). It then
    /// needs the whole filter of the query.
    pub fn is_positional(&self) -> bool {
        match self {
            Self::Operators(operators) => operators.actions.iter().any(|(path, _)| positional::needs_match(path)),
            Self::Pipeline(_) | Self::Replacement(_) => false,
        }
    }

    /// Replaces the variables in the pipeline's expressions by their values.
    ///
    /// # Errors
    /// 17276 if an expression uses an undefined variable.
    pub fn bind(&mut self, variables: &Variables) -> Result<()> {
        match self {
            Self::Pipeline(pipeline) => pipeline.bind(variables),
            Self::Operators(_) | Self::Replacement(_) => Ok(()),
        }
    }

    /// Parses a document of update operators, or a replacement if its first field is not an
    /// operator.
    ///
    /// # Errors
    /// The server's own for unknown operators, invalid operands, and paths that conflict
    /// (`ConflictingUpdateOperators`, 40).
    pub fn parse(update: &RawDocument) -> Result<Self> {
        Self::parse_any(RawBsonRef::Document(update), None)
    }

    /// Parses a replacement document.
    ///
    /// # Errors
    /// `FailedToParse` (9) if a top-level field name starts with a dollar sign, `InvalidIdField`
    /// (53) for an `_id` of a type that is not allowed.
    pub fn replacement(document: &RawDocument) -> Result<Self> {
        if elements(document).any(|(name, _)| name.starts_with('$')) {
            return Err(Error::parse("the replace operation document must not contain atomic operators"));
        }
        check_id(document)?;
        Ok(Self::Replacement(document.to_owned()))
    }

    /// Returns the document after the update. `filter` is the one that the document matched; it
    /// determines the item for `$`.
    ///
    /// # Errors
    /// The server's own if the update does not fit the document, or would change its `_id`
    /// (`ImmutableField`, 66); `BSONObjectTooLarge` (10334) if the result exceeds 16 MiB.
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

    /// Checks that an upsert may use a filter.
    ///
    /// # Errors
    /// `QueryFeatureNotAllowed` (224) if it contains `$expr`.
    pub fn check_upsert(filter: &Filter) -> Result<()> {
        filter.refuse(&["$expr"], "the query predicate for an upsert")
    }

    /// Returns the document that an upsert inserts: the filter's equalities with the update
    /// applied, and a new `_id` if neither sets one.
    ///
    /// # Errors
    /// Fails as [`apply`](Self::apply) does, and with `NotSingleValueField` (54) if the filter
    /// gives one field twice.
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
                // Expressions can turn values into names, which were not validated as names
                // before.
                crate::validate(&updated)?;
                check_id(&updated)?;
                with_id(id, &updated)?
            }
            Self::Operators(operators) => {
                let mut tree = Tree::new(document);
                let is_dynamic = |(path, _): &(Path, Action)| positional::is_positional(path);
                // Conflicts of static paths were detected by the parser; dynamic ones depend on
                // the document.
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

/// Returns the result of a pipeline with the `_id` of the old document.
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

/// Checks that the `_id` has an allowed type.
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

/// Prepares a document for insertion: `_id` becomes the first field, and is created if missing.
///
/// # Errors
/// `InvalidIdField` (53) or `DollarPrefixedFieldName` (52) for an invalid `_id`;
/// `BSONObjectTooLarge` (10334) if the document exceeds 16 MiB.
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

/// Returns the equalities of a filter as a document; only `_id` for a replacement.
fn seed(filter: &Filter, only_id: bool) -> Result<RawDocumentBuf> {
    let empty = RawDocumentBuf::new();
    let mut tree = Tree::new(&empty);
    let mut seen = PathTree::default();
    // As in the server, new fields are in the order of their paths.
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
