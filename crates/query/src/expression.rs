//! Aggregation expressions: field paths, literals, documents and arrays of expressions. The operators have an issue
//! of their own; any but the few here is refused by its name.

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf},
};

use crate::{
    Error, ErrorCode, Path, Result,
    document::{as_document, elements, get, items, type_name},
};

/// A parsed expression.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Literal(RawBson),
    /// `$path`, through the documents in arrays.
    Field(Path),
    /// `$$ROOT` and `$$CURRENT`.
    Root,
    /// `$$REMOVE`: no value.
    Remove,
    Document(Vec<(String, Expression)>),
    Array(Vec<Expression>),
    Split(Box<(Expression, Expression)>),
    ArrayElemAt(Box<(Expression, Expression)>),
}

impl Expression {
    pub(crate) fn parse(value: RawBsonRef<'_>) -> Result<Self> {
        Ok(match value {
            RawBsonRef::String(text) => match text.strip_prefix('$') {
                None => Self::Literal(value.into()),
                Some(rest) => Self::reference(text, rest)?,
            },
            RawBsonRef::Document(document) => Self::document(document)?,
            RawBsonRef::Array(array) => Self::Array(items(array).map(Self::parse).collect::<Result<_>>()?),
            value => Self::Literal(value.into()),
        })
    }

    fn reference(text: &str, rest: &str) -> Result<Self> {
        let Some(variable) = rest.strip_prefix('$') else {
            if rest.is_empty() {
                return Err(Error::new(ErrorCode::InvalidFieldPath, "'$' by itself is not a valid FieldPath"));
            }
            return Ok(Self::Field(field_path(rest)?));
        };
        let (name, path) = variable.split_once('.').map_or((variable, None), |(name, path)| (name, Some(path)));
        match (name, path) {
            ("ROOT" | "CURRENT", None) => Ok(Self::Root),
            ("ROOT" | "CURRENT", Some(path)) => Ok(Self::Field(field_path(path)?)),
            ("REMOVE", None) => Ok(Self::Remove),
            _ => Err(Error::unsupported(format_args!("the variable {text}"))),
        }
    }

    fn document(document: &RawDocument) -> Result<Self> {
        let mut fields = Vec::new();
        for (name, value) in elements(document) {
            if !name.starts_with('$') {
                fields.push((name.to_owned(), Self::parse(value)?));
                continue;
            }
            if elements(document).count() != 1 {
                return Err(Error::new(
                    ErrorCode::InvalidPipelineOperator,
                    format!("an expression must have exactly one field, its operator, beside {name}"),
                ));
            }
            return match name {
                "$literal" => Ok(Self::Literal(value.into())),
                "$split" => Ok(Self::Split(Box::new(two(name, value)?))),
                "$arrayElemAt" => Ok(Self::ArrayElemAt(Box::new(two(name, value)?))),
                _ => Err(Error::unsupported(format_args!("the expression {name}"))),
            };
        }
        Ok(Self::Document(fields))
    }

    /// The value for a document, `None` where the expression has none, as a path to a missing field.
    pub(crate) fn evaluate(&self, root: &RawDocument) -> Result<Option<RawBson>> {
        Ok(match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Field(path) => reach(RawBsonRef::Document(root), path.parts()),
            Self::Root => Some(RawBson::Document(root.to_owned())),
            Self::Remove => None,
            Self::Document(fields) => {
                let mut document = RawDocumentBuf::new();
                for (name, expression) in fields {
                    if let Some(value) = expression.evaluate(root)? {
                        crate::append(&mut document, name, &value);
                    }
                }
                Some(RawBson::Document(document))
            }
            Self::Array(expressions) => {
                let mut array = RawArrayBuf::new();
                for expression in expressions {
                    array.push(expression.evaluate(root)?.unwrap_or(RawBson::Null));
                }
                Some(RawBson::Array(array))
            }
            Self::Split(operands) => match (operands.0.evaluate(root)?, operands.1.evaluate(root)?) {
                (None | Some(RawBson::Null), _) | (_, None | Some(RawBson::Null)) => Some(RawBson::Null),
                (Some(RawBson::String(_)), Some(RawBson::String(delimiter))) if delimiter.is_empty() => {
                    return Err(Error::new(ErrorCode::BadValue, "$split requires a non-empty separator"));
                }
                (Some(RawBson::String(text)), Some(RawBson::String(delimiter))) => {
                    let mut parts = RawArrayBuf::new();
                    text.split(&delimiter).for_each(|part| parts.push(part));
                    Some(RawBson::Array(parts))
                }
                (Some(RawBson::String(_)), Some(other)) | (Some(other), _) => {
                    return Err(Error::type_mismatch(format!(
                        "$split requires strings, found: {}",
                        type_name(other.as_raw_bson_ref())
                    )));
                }
            },
            Self::ArrayElemAt(operands) => match (operands.0.evaluate(root)?, operands.1.evaluate(root)?) {
                (None | Some(RawBson::Null), _) | (_, None | Some(RawBson::Null)) => Some(RawBson::Null),
                (Some(RawBson::Array(array)), Some(index)) => {
                    let Some(index) = crate::integer(index.as_raw_bson_ref()) else {
                        return Err(Error::type_mismatch(
                            "$arrayElemAt's second argument must be representable as a 32-bit integer",
                        ));
                    };
                    let length = items(&array).count() as i64;
                    let index = if index < 0 { index.saturating_add(length) } else { index };
                    usize::try_from(index).ok().and_then(|index| items(&array).nth(index)).map(Into::into)
                }
                (Some(other), _) => {
                    return Err(Error::type_mismatch(format!(
                        "$arrayElemAt's first argument must be an array, but is {}",
                        type_name(other.as_raw_bson_ref())
                    )));
                }
            },
        })
    }
}

fn field_path(text: &str) -> Result<Path> {
    let path = Path::strict(text)?;
    match path.parts().iter().find(|part| part.starts_with('$')) {
        Some(part) => Err(Error::new(
            ErrorCode::InvalidFieldPath,
            format!("FieldPath field names may not start with '$'. Given '{part}'."),
        )),
        None => Ok(path),
    }
}

fn two(operator: &str, value: RawBsonRef<'_>) -> Result<(Expression, Expression)> {
    if let RawBsonRef::Array(array) = value {
        let operands: Vec<_> = items(array).map(Expression::parse).collect::<Result<_>>()?;
        if let Ok([first, second]) = <[Expression; 2]>::try_from(operands) {
            return Ok((first, second));
        }
    }
    Err(Error::new(ErrorCode::BadValue, format!("Expression {operator} takes exactly 2 arguments")))
}

/// A path in an expression maps over arrays instead of matching any item, and knows no indexes.
fn reach(value: RawBsonRef<'_>, parts: &[String]) -> Option<RawBson> {
    let Some((first, rest)) = parts.split_first() else { return Some(value.into()) };
    match value {
        RawBsonRef::Document(document) => reach(get(document, first)?, rest),
        RawBsonRef::Array(array) => {
            let mut mapped = RawArrayBuf::new();
            elements(as_document(array))
                .filter_map(|(_, item)| reach(item, parts))
                .for_each(|value| mapped.push(value));
            Some(RawBson::Array(mapped))
        }
        _ => None,
    }
}
