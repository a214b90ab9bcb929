//! The stages but `$group`.

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::{
    Documents,
    group::Group,
    project::{AddFields, Project, field_path, set_in, unset},
    single_field,
};
use crate::{
    Error, ErrorCode, Filter, Path, Projection, Result, Sort, Variables,
    document::{elements, items, type_name},
    expression::Expression,
};

/// What the server has and this version does not.
const UNSUPPORTED: &[&str] = &[
    "$bucket",
    "$bucketAuto",
    "$changeStream",
    "$changeStreamSplitLargeEvent",
    "$collStats",
    "$currentOp",
    "$densify",
    "$facet",
    "$fill",
    "$geoNear",
    "$graphLookup",
    "$indexStats",
    "$listLocalSessions",
    "$listSearchIndexes",
    "$listSessions",
    "$lookup",
    "$merge",
    "$out",
    "$planCacheStats",
    "$redact",
    "$sample",
    "$search",
    "$searchMeta",
    "$setWindowFields",
    "$sortByCount",
    "$unionWith",
    "$vectorSearch",
];

#[derive(Debug, Clone)]
pub(super) enum Stage {
    Match(Filter),
    Sort(Sort),
    Skip(u64),
    Limit(u64),
    Count(String),
    Project(Project),
    AddFields(AddFields),
    Unset(Projection),
    Unwind(Unwind),
    Group(Group),
    ReplaceRoot(Expression),
    /// `$documents`: what an expression makes goes on, and nothing that came in.
    Documents(Expression),
}

#[derive(Debug, Clone)]
pub(super) struct Unwind {
    path: Path,
    index: Option<Path>,
    keep_empty: bool,
}

/// Whether the server has such a stage, whether or not it is of its form or of this version.
pub(crate) fn is_stage(stage: &RawDocument) -> bool {
    !matches!(Stage::parse(stage), Err(error) if error.code == ErrorCode::UnrecognizedStage)
}

impl Stage {
    pub(super) fn parse(stage: &RawDocument) -> Result<Self> {
        let (name, value) = single_field(stage)?;
        Ok(match name {
            "$match" => Self::Match(Filter::parse(document(name, value)?)?),
            "$sort" => {
                let sort = Sort::parse(document(name, value)?)?;
                if sort.is_empty() {
                    return Err(Error::new(ErrorCode::BadValue, "$sort stage must have at least one sort key"));
                }
                Self::Sort(sort)
            }
            "$skip" => Self::Skip(count(name, value)?),
            "$limit" => match count(name, value)? {
                0 => return Err(Error::new(ErrorCode::LimitNotPositive, "the limit must be positive")),
                limit => Self::Limit(limit),
            },
            "$count" => match value {
                RawBsonRef::String(field)
                    if !field.is_empty() && !field.starts_with('$') && !field.contains(['.', '\0']) =>
                {
                    Self::Count(field.to_owned())
                }
                _ => {
                    return Err(Error::new(
                        ErrorCode::InvalidCountField,
                        "the count field must be a non-empty string without '.', '$' or null bytes",
                    ));
                }
            },
            "$project" => Self::Project(Project::parse(document(name, value)?)?),
            "$addFields" | "$set" => Self::AddFields(AddFields::parse(document(name, value)?)?),
            "$unset" => Self::Unset(unset(value)?),
            "$unwind" => Self::Unwind(Unwind::parse(value)?),
            "$documents" => Self::Documents(Expression::parse(value)?),
            "$replaceWith" => Self::ReplaceRoot(Expression::parse(value)?),
            "$replaceRoot" => {
                let specification = value.as_document().ok_or_else(|| {
                    let message =
                        format!("expected an object as specification for $replaceRoot stage, got {}", type_name(value));
                    Error::location(40229, message)
                })?;
                if let Some((other, _)) = elements(specification).find(|(name, _)| *name != "newRoot") {
                    let message = format!("BSON field '$replaceRoot.{other}' is an unknown field.");
                    return Err(Error::location(40415, message));
                }
                let root = crate::get(specification, "newRoot").ok_or_else(|| {
                    Error::location(40414, "BSON field '$replaceRoot.newRoot' is missing but a required field")
                })?;
                Self::ReplaceRoot(Expression::parse(root)?)
            }
            "$group" => Self::Group(Group::parse(document(name, value)?)?),
            _ if UNSUPPORTED.contains(&name) => {
                return Err(Error::unsupported(format_args!("the pipeline stage {name}")));
            }
            _ => {
                return Err(Error::new(
                    ErrorCode::UnrecognizedStage,
                    format!("Unrecognized pipeline stage name: '{name}'."),
                ));
            }
        })
    }

    /// Names each operator of a filter or an expression in it.
    pub(super) fn operators(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::Match(filter) => filter.operators(visit),
            Self::Project(project) => project.expressions().for_each(|expression| expression.operators(visit)),
            Self::AddFields(fields) => fields.expressions().for_each(|expression| expression.operators(visit)),
            Self::Group(group) => group.expressions().for_each(|expression| expression.operators(visit)),
            Self::ReplaceRoot(expression) | Self::Documents(expression) => expression.operators(visit),
            Self::Sort(_) | Self::Skip(_) | Self::Limit(_) | Self::Count(_) | Self::Unset(_) | Self::Unwind(_) => {}
        }
    }

    /// Puts in what the variables of its expressions stand for.
    pub(super) fn bind(&mut self, variables: &Variables) -> Result<()> {
        match self {
            Self::Match(filter) => filter.bind(variables),
            Self::Project(project) => project.bind(variables),
            Self::AddFields(fields) => fields.bind(variables),
            Self::Group(group) => group.bind(variables),
            Self::ReplaceRoot(expression) | Self::Documents(expression) => expression.bind(variables),
            Self::Sort(_) | Self::Skip(_) | Self::Limit(_) | Self::Count(_) | Self::Unset(_) | Self::Unwind(_) => {
                Ok(())
            }
        }
    }

    pub(super) fn run<'a>(&'a self, documents: Documents<'a>) -> Documents<'a> {
        match self {
            Self::Match(filter) => Box::new(documents.filter_map(|document| {
                match document.and_then(|document| Ok((filter.try_matches(&document)?, document))) {
                    Ok((true, document)) => Some(Ok(document)),
                    Ok((false, _)) => None,
                    Err(error) => Some(Err(error)),
                }
            })),
            Self::Skip(skip) => Box::new(documents.skip(usize::try_from(*skip).unwrap_or(usize::MAX))),
            Self::Limit(limit) => Box::new(documents.take(usize::try_from(*limit).unwrap_or(usize::MAX))),
            Self::Project(project) => Box::new(documents.map(|document| project.apply(&document?))),
            Self::AddFields(fields) => Box::new(documents.map(|document| fields.apply(&document?))),
            Self::Unset(projection) => Box::new(documents.map(|document| Ok(projection.keep(&document?)))),
            Self::Unwind(unwind) => Box::new(documents.flat_map(|document| match document {
                Ok(document) => unwind.apply(&document).into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })),
            Self::Sort(sort) => collected(documents, |mut documents| {
                sort.sort(&mut documents);
                Ok(documents)
            }),
            Self::Count(field) => collected(documents, move |documents| {
                if documents.is_empty() {
                    return Ok(Vec::new());
                }
                let mut counted = RawDocumentBuf::new();
                crate::append(&mut counted, field, count_value(documents.len()));
                Ok(vec![counted])
            }),
            Self::Group(group) => collected(documents, |documents| group.run(documents)),
            Self::Documents(expression) => match made(expression) {
                Ok(documents) => Box::new(documents.into_iter().map(Ok)),
                Err(error) => Box::new(std::iter::once(Err(error))),
            },
            Self::ReplaceRoot(root) => Box::new(documents.map(|document| match root.evaluate(&document?)? {
                Some(RawBson::Document(root)) => Ok(root),
                other => {
                    let found = other.map_or("missing", |other| type_name(other.as_raw_bson_ref()));
                    let message = format!("'newRoot' expression must evaluate to an object, but its type is {found}");
                    Err(Error::location(40228, message))
                }
            })),
        }
    }
}

/// The documents that an expression makes of nothing.
fn made(expression: &Expression) -> Result<Vec<RawDocumentBuf>> {
    let wrong = || Error::location(5_858_203, "$documents must evaluate to an array of objects");
    match expression.evaluate(crate::document::empty())? {
        Some(RawBson::Array(array)) => {
            items(&array).map(|item| item.as_document().map(RawDocument::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// A stage that needs all of its input before its first answer.
fn collected<'a>(
    documents: Documents<'a>,
    run: impl FnOnce(Vec<RawDocumentBuf>) -> Result<Vec<RawDocumentBuf>> + 'a,
) -> Documents<'a> {
    match documents.collect::<Result<Vec<_>>>().and_then(run) {
        Ok(documents) => Box::new(documents.into_iter().map(Ok)),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// A count in the smallest integer type that holds it, as the server answers.
pub(super) fn count_value(count: usize) -> RawBsonRef<'static> {
    i32::try_from(count).map_or(RawBsonRef::Int64(count as i64), RawBsonRef::Int32)
}

fn document<'a>(stage: &str, value: RawBsonRef<'a>) -> Result<&'a RawDocument> {
    let code = match stage {
        "$group" => ErrorCode::GroupNotObject,
        "$sort" => ErrorCode::SortNotObject,
        _ => ErrorCode::FailedToParse,
    };
    value
        .as_document()
        .ok_or_else(|| Error::new(code, format!("the {stage} stage must be an object, not {}", type_name(value))))
}

fn count(stage: &str, value: RawBsonRef<'_>) -> Result<u64> {
    crate::integer(value).and_then(|count| u64::try_from(count).ok()).ok_or_else(|| {
        Error::new(
            if stage == "$limit" { ErrorCode::InvalidLimit } else { ErrorCode::InvalidSkip },
            format!("invalid argument to {stage} stage: expected a non-negative number of documents"),
        )
    })
}

impl Unwind {
    fn parse(value: RawBsonRef<'_>) -> Result<Self> {
        let invalid = |message: &str| Error::new(ErrorCode::InvalidUnwind, message.to_owned());
        let path = |text: &str| match text.strip_prefix('$') {
            Some(path) => field_path(path),
            None => Err(invalid(&format!("path option to $unwind stage should be prefixed with a '$': {text}"))),
        };
        match value {
            RawBsonRef::String(text) => Ok(Self { path: path(text)?, index: None, keep_empty: false }),
            RawBsonRef::Document(options) => {
                let mut unwind = Self { path: Path::new(""), index: None, keep_empty: false };
                for (name, value) in elements(options) {
                    match (name, value) {
                        ("path", RawBsonRef::String(text)) => unwind.path = path(text)?,
                        ("includeArrayIndex", RawBsonRef::String(text)) => unwind.index = Some(field_path(text)?),
                        ("preserveNullAndEmptyArrays", RawBsonRef::Boolean(keep)) => unwind.keep_empty = keep,
                        _ => {
                            return Err(invalid(&format!(
                                "unrecognized or wrongly typed option to $unwind stage: {name}"
                            )));
                        }
                    }
                }
                if unwind.path.as_str().is_empty() {
                    return Err(invalid("no path specified to $unwind stage"));
                }
                Ok(unwind)
            }
            other => Err(invalid(&format!(
                "expected either a string or an object as specification for $unwind stage, got {}",
                type_name(other)
            ))),
        }
    }

    fn apply(&self, document: &RawDocument) -> Vec<RawDocumentBuf> {
        let with_index = |document: RawDocumentBuf, index: Option<usize>| match &self.index {
            Some(path) => {
                let index = index.map_or(RawBson::Null, |index| RawBson::Int64(index as i64));
                set_in(&document, path.parts(), Some(&index))
            }
            None => document,
        };
        match self.path.value_in(document) {
            Some(RawBsonRef::Array(array)) if !array.is_empty() => items(array)
                .enumerate()
                .map(|(index, item)| with_index(set_in(document, self.path.parts(), Some(&item.into())), Some(index)))
                .collect(),
            Some(RawBsonRef::Array(_)) if self.keep_empty => {
                vec![with_index(set_in(document, self.path.parts(), None), None)]
            }
            None | Some(RawBsonRef::Null | RawBsonRef::Undefined) if self.keep_empty => {
                vec![with_index(document.to_owned(), None)]
            }
            None | Some(RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::Array(_)) => Vec::new(),
            Some(_) => vec![with_index(document.to_owned(), None)],
        }
    }
}
