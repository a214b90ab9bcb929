//! All stages except `$group`.

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::{
    Documents, Run, collect,
    group::Group,
    project::{AddFields, Project, unset},
    single_field,
    unwind::Unwind,
};
use crate::{
    Error, ErrorCode, Filter, Projection, Result, Sort, Variables, budget,
    document::{elements, items, type_name},
    expression::Expression,
};

/// Stages that the server has and Userkeep does not support.
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
    /// `$documents`: replaces the input by the documents of an expression.
    Documents(Expression),
}

/// True if the server has a stage of this name, even if it is malformed or unsupported here.
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

    /// Calls `visit` with the name of each operator in the stage's filters and expressions.
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

    /// Replaces the variables in the stage's expressions by their values.
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

    /// Runs documents through the stage lazily. The budget of the run accounts for collected
    /// bytes.
    pub(super) fn run<'a>(&'a self, documents: Documents<'a>, run: &Run) -> Documents<'a> {
        let budget = run.budget.clone();
        match self {
            Self::Match(filter) => Box::new(documents.filter_map(|document| {
                match document.and_then(|document| Ok((filter.try_matches(&document)?, document))) {
                    Ok((true, document)) => Some(Ok(document)),
                    Ok((false, _)) => None,
                    Err(error) => Some(Err(error)),
                }
            })),
            Self::Skip(skip) => Box::new(skipped(documents, *skip)),
            Self::Limit(limit) => Box::new(documents.take(usize::try_from(*limit).unwrap_or(usize::MAX))),
            Self::Project(project) => Box::new(documents.map(|document| project.apply(&document?))),
            Self::AddFields(fields) => Box::new(documents.map(|document| fields.apply(&document?))),
            Self::Unset(projection) => Box::new(documents.map(|document| {
                let kept = projection.keep(&document?);
                budget::charge(1)?;
                Ok(kept)
            })),
            Self::Unwind(unwind) => Box::new(documents.flat_map(|document| unwind.apply(document))),
            Self::Sort(sort) => lazily(move || collect::sorted(sort, documents, None, &budget)),
            Self::Count(field) => lazily(move || counted(field, documents)),
            Self::Group(group) => lazily(move || group.run(documents, &budget)),
            Self::Documents(expression) => lazily(move || Ok(made(expression)?.into_iter().map(Ok))),
            Self::ReplaceRoot(root) => Box::new(documents.map(|document| replaced(root, &document?))),
        }
    }

    /// Sorts documents and returns only the first `most`.
    pub(super) fn run_first<'a>(sort: &'a Sort, most: u64, documents: Documents<'a>, run: &Run) -> Documents<'a> {
        let budget = run.budget.clone();
        lazily(move || collect::sorted(sort, documents, usize::try_from(most).ok(), &budget))
    }
}

/// Runs a blocking stage when its first result is requested.
fn lazily<'a, I>(run: impl FnOnce() -> Result<I> + 'a) -> Documents<'a>
where
    I: Iterator<Item = Result<RawDocumentBuf>> + 'a,
{
    let answers = std::iter::once_with(run).flat_map(|answers| -> Documents<'a> {
        match answers {
            Ok(answers) => Box::new(answers),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    });
    Box::new(answers)
}

/// Skips the first documents. Errors pass through and do not count.
fn skipped(documents: Documents<'_>, skip: u64) -> impl Iterator<Item = Result<RawDocumentBuf>> {
    let mut left = skip;
    documents.filter_map(move |document| {
        if left == 0 || document.is_err() {
            return Some(document);
        }
        left -= 1;
        budget::charge(1).err().map(Err)
    })
}

/// Returns one document with the number of input documents, or nothing if there are none.
fn counted(field: &str, documents: Documents<'_>) -> Result<impl Iterator<Item = Result<RawDocumentBuf>>> {
    let mut count = 0;
    for document in documents {
        document?;
        budget::charge(1)?;
        count += 1;
    }
    Ok((count > 0)
        .then(|| {
            let mut counted = RawDocumentBuf::new();
            crate::append(&mut counted, field, count_value(count));
            Ok(counted)
        })
        .into_iter())
}

fn replaced(root: &Expression, document: &RawDocument) -> Result<RawDocumentBuf> {
    match root.evaluate(document)? {
        Some(RawBson::Document(root)) => Ok(root),
        other => {
            let found = other.map_or("missing", |other| type_name(other.as_raw_bson_ref()));
            let message = format!("'newRoot' expression must evaluate to an object, but its type is {found}");
            Err(Error::location(40228, message))
        }
    }
}

/// Evaluates the expression of `$documents`, which sees no document.
fn made(expression: &Expression) -> Result<Vec<RawDocumentBuf>> {
    let wrong = || Error::location(5_858_203, "$documents must evaluate to an array of objects");
    match expression.evaluate(crate::document::empty())? {
        Some(RawBson::Array(array)) => {
            items(&array).map(|item| item.as_document().map(RawDocument::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// Returns a count as int32 if it fits and as int64 otherwise, as the server does.
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
