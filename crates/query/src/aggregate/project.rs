//! `$project`, `$addFields` and `$unset`: they keep, compute and drop fields.

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};

use super::computed::Computed;
use crate::{
    Error, ErrorCode, Number, Path, Projection, Result, Variables, budget,
    budget::Held,
    document::{elements, items, truthy},
    expression::Expression,
};

/// `$addFields`: adds computed fields to the document.
#[derive(Debug, Clone)]
pub(super) struct AddFields(Computed);

/// `$project`: keeps some fields of the document and computes others.
#[derive(Debug, Clone)]
pub(super) struct Project {
    keep: Projection,
    /// Fields computed within an existing field. They are set before the other fields are dropped,
    /// so that every item of an array gets them.
    nested: Computed,
    /// Newly computed top-level fields, which follow the kept fields.
    computed: Computed,
}

/// Flattens a specification to values by path. A nested document without an operator means the
/// same as dotted paths.
fn leaves(specification: &RawDocument) -> Result<Vec<(Path, RawBsonRef<'_>)>> {
    let mut found = Vec::new();
    collect_leaves(specification, "", &mut found, &mut budget::hold(0)?)?;
    Ok(found)
}

fn collect_leaves<'a>(
    specification: &'a RawDocument,
    prefix: &str,
    found: &mut Vec<(Path, RawBsonRef<'a>)>,
    held: &mut Held,
) -> Result<()> {
    for (name, value) in elements(specification) {
        // Every path repeats the names that lead to it.
        budget::charge_bytes(prefix.len())?;
        held.grow(prefix.len())?;
        let path = field_path(&format!("{prefix}{name}"))?;
        match value {
            RawBsonRef::Document(inner)
                if !inner.is_empty() && !elements(inner).any(|(name, _)| name.starts_with('$')) =>
            {
                collect_leaves(inner, &format!("{}.", path.as_str()), found, held)?;
            }
            value => found.push((path, value)),
        }
        budget::charge(1)?;
    }
    Ok(())
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
        let fields = leaves(specification)?.into_iter().map(parse).collect::<Result<_>>()?;
        Computed::new(fields).map(Self)
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.0.expressions()
    }

    pub(super) fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.0.bind(variables)
    }

    pub(super) fn apply(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        self.0.set(document, document)
    }
}

/// Parses `$unset` as the projection that excludes its fields.
pub(super) fn unset(value: RawBsonRef<'_>) -> Result<Projection> {
    let mut excluded = RawDocumentBuf::new();
    let invalid =
        || Error::new(ErrorCode::FailedToParse, "$unset specification must be a string or an array of strings");
    match value {
        RawBsonRef::String(name) => crate::append(&mut excluded, field_path(name)?.as_str(), 0),
        RawBsonRef::Array(array) if !array.is_empty() => {
            for item in items(array) {
                budget::charge(1)?;
                crate::append(&mut excluded, field_path(item.as_str().ok_or_else(invalid)?)?.as_str(), 0);
            }
        }
        _ => return Err(invalid()),
    }
    Projection::parse(&excluded)
}

/// Parses an expression of a projection, in which an unknown operator has its own error code.
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
        for (path, value) in leaves(specification)? {
            // A number or a boolean keeps or drops the field; a literal is written `{ $literal: 1
            // }`.
            if matches!(value, RawBsonRef::Boolean(_)) || Number::of(value).is_some() {
                crate::append(&mut flags, path.as_str(), value);
            } else if path.parts().len() > 1 {
                nested.push((path, projected(value)?));
            } else {
                computed.push((path, projected(value)?));
            }
        }
        if nested.is_empty() && computed.is_empty() {
            let keep = Projection::parse(&flags)?;
            return Ok(Self { keep, nested: Computed::new(nested)?, computed: Computed::new(computed)? });
        }
        // Computed fields make it an inclusion even if it keeps nothing else; `_id` stays unless
        // it is excluded.
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
        let keep = Projection::including(kept, with_id)?;
        Ok(Self { keep, nested: Computed::new(nested)?, computed: Computed::new(computed)? })
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.nested.expressions().chain(self.computed.expressions())
    }

    pub(super) fn bind(&mut self, variables: &Variables) -> Result<()> {
        self.nested.bind(variables)?;
        self.computed.bind(variables)
    }

    pub(super) fn apply(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        let kept = if self.nested.is_empty() {
            self.keep.keep(document)
        } else {
            self.keep.keep(&self.nested.set(document, document)?)
        };
        budget::charge(1)?;
        if self.computed.is_empty() { Ok(kept) } else { self.computed.set(&kept, document) }
    }
}
