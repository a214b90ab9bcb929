//! `$project`, `$addFields` and `$unset`: fields kept, computed and dropped.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Number, Path, Projection, Result, Variables,
    document::{elements, items, truthy},
    expression::Expression,
};

/// `$addFields`: computed fields beside what is there.
#[derive(Debug, Clone)]
pub(super) struct AddFields(Vec<(Path, Expression)>);

/// `$project`: what stays of the document, and what is computed from it.
#[derive(Debug, Clone)]
pub(super) struct Project {
    keep: Projection,
    /// Computed within a field that is there: set before the rest is dropped, so that every item of an array has it.
    nested: Vec<(Path, Expression)>,
    /// Computed anew, behind what is kept.
    computed: Vec<(Path, Expression)>,
}

/// The values of a specification by path; a nested document without an operator is the same as dotted paths.
fn leaves<'a>(specification: &'a RawDocument, prefix: &str) -> Result<Vec<(Path, RawBsonRef<'a>)>> {
    let mut found = Vec::new();
    for (name, value) in elements(specification) {
        let path = field_path(&format!("{prefix}{name}"))?;
        match value {
            RawBsonRef::Document(inner)
                if !inner.is_empty() && !elements(inner).any(|(name, _)| name.starts_with('$')) =>
            {
                found.extend(leaves(inner, &format!("{}.", path.as_str()))?);
            }
            value => found.push((path, value)),
        }
    }
    Ok(found)
}

pub(super) fn field_path(text: &str) -> Result<Path> {
    if text.ends_with(".$") {
        return Err(Error::location(31324, "Cannot use positional projection in aggregation projection"));
    }
    Path::of_fields(text)
}

impl AddFields {
    pub(super) fn parse(specification: &RawDocument) -> Result<Self> {
        let parse = |(path, value)| Ok((path, Expression::parse(value)?));
        leaves(specification, "")?.into_iter().map(parse).collect::<Result<_>>().map(Self)
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.0.iter().map(|(_, expression)| expression)
    }

    pub(super) fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, expression)| expression.bind(variables))
    }

    pub(super) fn apply(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        set_all(document.to_owned(), &self.0, document)
    }
}

/// Sets computed fields. Every expression sees the document as it came in.
fn set_all(
    mut current: RawDocumentBuf,
    computed: &[(Path, Expression)],
    document: &RawDocument,
) -> Result<RawDocumentBuf> {
    for (path, expression) in computed {
        current = set_in(&current, path.parts(), expression.evaluate(document)?.as_ref());
    }
    Ok(current)
}

/// Sets a field, in every document of an array on the way; no value takes the field out.
pub(crate) fn set_in(document: &RawDocument, parts: &[String], value: Option<&RawBson>) -> RawDocumentBuf {
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
        // Where there is no value, what would lead to it is made all the same, as the server does.
        _ if !found && !rest.is_empty() => {
            crate::append(&mut result, first, &set_in(crate::document::empty(), rest, value));
        }
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

/// `$unset` as the projection that drops its fields.
pub(super) fn unset(value: RawBsonRef<'_>) -> Result<Projection> {
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

/// An expression of a projection, where one that does not exist has a number of its own.
fn projected(value: RawBsonRef<'_>) -> Result<Expression> {
    Expression::parse(value).map_err(|error| match error.code {
        ErrorCode::InvalidPipelineOperator => Error::location(31325, error.message),
        _ => error,
    })
}

impl Project {
    pub(super) fn parse(specification: &RawDocument) -> Result<Self> {
        if specification.is_empty() {
            return Err(Error::new(
                ErrorCode::ProjectWithoutField,
                "Invalid $project :: caused by :: projection specification must have at least one field",
            ));
        }
        let mut flags = RawDocumentBuf::new();
        let (mut nested, mut computed) = (Vec::new(), Vec::new());
        for (path, value) in leaves(specification, "")? {
            // A number or a boolean keeps or drops the field; a literal is written as { $literal: 1 }.
            if matches!(value, RawBsonRef::Boolean(_)) || Number::of(value).is_some() {
                crate::append(&mut flags, path.as_str(), value);
            } else if path.parts().len() > 1 {
                nested.push((path, projected(value)?));
            } else {
                computed.push((path, projected(value)?));
            }
        }
        if nested.is_empty() && computed.is_empty() {
            return Ok(Self { keep: Projection::parse(&flags)?, nested, computed });
        }
        // Computed fields make it an inclusion even where nothing else is kept; _id stays unless excluded.
        if let Some((name, _)) = elements(&flags).find(|(name, value)| *name != "_id" && !truthy(*value)) {
            return Err(Error::new(
                ErrorCode::MixedProjection,
                format!("Invalid $project :: caused by :: Cannot do exclusion on field {name} in inclusion projection"),
            ));
        }
        let computes_id = computed.iter().any(|(path, _)| path.as_str() == "_id");
        let with_id = !computes_id && crate::get(&flags, "_id").is_none_or(truthy);
        let kept: Vec<Path> =
            elements(&flags).map(|(name, _)| Path::new(name)).filter(|path| path.as_str() != "_id").collect();
        let kept = kept.iter().chain(nested.iter().map(|(path, _)| path));
        Ok(Self { keep: Projection::including(kept, with_id)?, nested, computed })
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.nested.iter().chain(&self.computed).map(|(_, expression)| expression)
    }

    pub(super) fn bind(&mut self, variables: &Variables) -> Result<()> {
        let all = self.nested.iter_mut().chain(&mut self.computed);
        all.into_iter().try_for_each(|(_, expression)| expression.bind(variables))
    }

    pub(super) fn apply(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        let kept = if self.nested.is_empty() {
            self.keep.keep(document)
        } else {
            self.keep.keep(&set_all(document.to_owned(), &self.nested, document)?)
        };
        set_all(kept, &self.computed, document)
    }
}
