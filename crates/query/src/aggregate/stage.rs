//! The stages but `$group`.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use super::{Documents, group::Group, single_field};
use crate::{
    Error, ErrorCode, Filter, Number, Path, Projection, Result, Sort,
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
    "$documents",
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
    "$replaceRoot",
    "$replaceWith",
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
    AddFields(Vec<(Path, Expression)>),
    Unset(Projection),
    Unwind(Unwind),
    Group(Group),
}

/// `$project`: what stays of the document, and what is computed from it.
#[derive(Debug, Clone)]
pub(super) struct Project {
    keep: Projection,
    computed: Vec<(Path, Expression)>,
}

#[derive(Debug, Clone)]
pub(super) struct Unwind {
    path: Path,
    index: Option<Path>,
    keep_empty: bool,
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
            "$addFields" | "$set" => Self::AddFields(fields(document(name, value)?, "")?),
            "$unset" => Self::Unset(unset(value)?),
            "$unwind" => Self::Unwind(Unwind::parse(value)?),
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

    pub(super) fn run<'a>(&'a self, documents: Documents<'a>) -> Documents<'a> {
        match self {
            Self::Match(filter) => Box::new(
                documents.filter(|document| document.as_ref().map_or(true, |document| filter.matches(document))),
            ),
            Self::Skip(skip) => Box::new(documents.skip(usize::try_from(*skip).unwrap_or(usize::MAX))),
            Self::Limit(limit) => Box::new(documents.take(usize::try_from(*limit).unwrap_or(usize::MAX))),
            Self::Project(project) => Box::new(documents.map(|document| project.apply(&document?))),
            Self::AddFields(fields) => Box::new(documents.map(|document| add(&document?, fields))),
            Self::Unset(projection) => Box::new(documents.map(|document| Ok(projection.apply(&document?)))),
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
        }
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
    value.as_document().ok_or_else(|| {
        Error::new(ErrorCode::FailedToParse, format!("the {stage} stage must be an object, not {}", type_name(value)))
    })
}

fn count(stage: &str, value: RawBsonRef<'_>) -> Result<u64> {
    crate::integer(value).and_then(|count| u64::try_from(count).ok()).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidCount,
            format!("invalid argument to {stage} stage: expected a non-negative number of documents"),
        )
    })
}

/// Expressions by path; a nested document without an operator is the same as dotted paths.
fn fields(specification: &RawDocument, prefix: &str) -> Result<Vec<(Path, Expression)>> {
    let mut computed = Vec::new();
    for (name, value) in elements(specification) {
        let path = field_path(&format!("{prefix}{name}"))?;
        match value {
            RawBsonRef::Document(inner)
                if !inner.is_empty() && !elements(inner).any(|(name, _)| name.starts_with('$')) =>
            {
                computed.extend(fields(inner, &format!("{}.", path.as_str()))?);
            }
            value => computed.push((path, Expression::parse(value)?)),
        }
    }
    Ok(computed)
}

fn field_path(text: &str) -> Result<Path> {
    let path = Path::strict(text)?;
    if path.parts().iter().any(|part| part.starts_with('$')) {
        return Err(Error::new(
            ErrorCode::InvalidFieldPath,
            format!("FieldPath field names may not start with '$'. Given '{text}'."),
        ));
    }
    Ok(path)
}

fn add(document: &RawDocument, fields: &[(Path, Expression)]) -> Result<RawDocumentBuf> {
    let mut current = document.to_owned();
    for (path, expression) in fields {
        // Every expression sees the document as it came in.
        current = set_in(&current, path.parts(), expression.evaluate(document)?.as_ref());
    }
    Ok(current)
}

/// Sets a field, in every document of an array on the way; no value takes the field out.
fn set_in(document: &RawDocument, parts: &[String], value: Option<&RawBson>) -> RawDocumentBuf {
    let Some((first, rest)) = parts.split_first() else { return document.to_owned() };
    let mut result = RawDocumentBuf::new();
    let mut found = false;
    for (name, old) in elements(document) {
        if name != first {
            crate::append(&mut result, name, old);
            continue;
        }
        found = true;
        if rest.is_empty() {
            if let Some(value) = value {
                crate::append(&mut result, name, value);
            }
        } else {
            crate::append(&mut result, name, &set_below(old, rest, value));
        }
    }
    match value {
        Some(value) if !found && rest.is_empty() => crate::append(&mut result, first, value),
        Some(_) if !found => crate::append(&mut result, first, &set_in(crate::document::empty(), rest, value)),
        _ => {}
    }
    result
}

fn set_below(old: RawBsonRef<'_>, rest: &[String], value: Option<&RawBson>) -> RawBson {
    match old {
        RawBsonRef::Document(inner) => RawBson::Document(set_in(inner, rest, value)),
        RawBsonRef::Array(array) => {
            let mut mapped = RawArrayBuf::new();
            items(array).for_each(|item| mapped.push(set_below(item, rest, value)));
            RawBson::Array(mapped)
        }
        _ => RawBson::Document(set_in(crate::document::empty(), rest, value)),
    }
}

fn unset(value: RawBsonRef<'_>) -> Result<Projection> {
    let mut excluded = RawDocumentBuf::new();
    let invalid =
        || Error::new(ErrorCode::FailedToParse, "$unset specification must be a string or an array of strings");
    match value {
        RawBsonRef::String(name) => crate::append(&mut excluded, field_path(name)?.as_str(), 0),
        RawBsonRef::Array(array) if !array.is_empty() => {
            for item in items(array) {
                crate::append(&mut excluded, field_path(item.as_str().ok_or_else(invalid)?)?.as_str(), 0);
            }
        }
        _ => return Err(invalid()),
    }
    Projection::parse(&excluded)
}

impl Project {
    fn parse(specification: &RawDocument) -> Result<Self> {
        if specification.is_empty() {
            return Err(Error::new(
                ErrorCode::FailedToParse,
                "Invalid $project :: caused by :: projection specification must have at least one field",
            ));
        }
        let mut flags = RawDocumentBuf::new();
        let mut computed = Vec::new();
        for (path, expression) in fields(specification, "")? {
            match &expression {
                // A number or a boolean keeps or drops the field; a literal is written as { $literal: 1 }.
                Expression::Literal(value @ RawBson::Boolean(_)) => crate::append(&mut flags, path.as_str(), value),
                Expression::Literal(value)
                    if Number::of(value.as_raw_bson_ref()).is_some() && !is_literal(specification, &path) =>
                {
                    crate::append(&mut flags, path.as_str(), value);
                }
                _ => computed.push((path, expression)),
            }
        }
        if !computed.is_empty() {
            if let Some((name, _)) =
                elements(&flags).find(|(name, value)| *name != "_id" && !crate::document::truthy(*value))
            {
                return Err(Error::new(
                    ErrorCode::MixedProjection,
                    format!(
                        "Invalid $project :: caused by :: Cannot do exclusion on field {name} in inclusion projection"
                    ),
                ));
            }
            // Computed fields make it an inclusion even where nothing else is kept; _id stays unless excluded.
            if elements(&flags).all(|(name, _)| name == "_id") {
                let with_id = crate::get(&flags, "_id").is_none_or(crate::document::truthy);
                flags = RawDocumentBuf::new();
                crate::append(&mut flags, "_id", 1);
                if !with_id || computed.iter().any(|(path, _)| path.as_str() == "_id") {
                    // An inclusion of a name that no document has.
                    flags = RawDocumentBuf::new();
                    crate::append(&mut flags, "_id", false);
                    crate::append(&mut flags, "\u{1}", true);
                }
            }
        }
        Ok(Self { keep: Projection::parse(&flags)?, computed })
    }

    fn apply(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        let mut projected = self.keep.apply(document);
        for (path, expression) in &self.computed {
            projected = set_in(&projected, path.parts(), expression.evaluate(document)?.as_ref());
        }
        Ok(projected)
    }
}

fn is_literal(specification: &RawDocument, path: &Path) -> bool {
    path.value_in(specification).is_some_and(|value| matches!(value, RawBsonRef::Document(_)))
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
