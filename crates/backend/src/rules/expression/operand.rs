//! The operands of expressions, and their values.

use std::fmt;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};
use query::{Path, budget, elements};

use super::Context;

/// An operand, which has a value for a user and a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A literal of the expression.
    Literal(RawBson),
    /// `%%values` or `%%environment`: a constant of the definition.
    Constant(Constant),
    /// A field of the document; in a function's condition, of the first argument.
    Field(Path),
    /// `%%user.id` in a rule: the user's id.
    UserId,
    /// `%%user.custom_data` in a rule, or a field of it.
    CustomData(Option<Path>),
    /// `%%user` in a function's condition, or a field of it.
    User(Option<Path>),
    /// `%%request` in a function's condition, or a field of it.
    Request(Option<Path>),
    /// `%%request.requestHeaders.NAME`: the values of a header. The letters' case is ignored.
    Header(String),
}

/// A constant of the definition. Its `Debug` output shows only the expansion, because a value may
/// contain a secret.
#[derive(Clone, PartialEq)]
pub struct Constant {
    pub(super) expansion: String,
    pub(super) value: RawBson,
}

impl fmt::Debug for Constant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.expansion)
    }
}

impl Operand {
    /// Returns the values that another operand may equal.
    pub(super) fn values<'a>(&'a self, context: &Context<'a>) -> Values<'a> {
        match self {
            Self::Literal(value) | Self::Constant(Constant { value, .. }) => Values::of(value.as_raw_bson_ref()),
            Self::Field(path) => Values::at(path, context.document),
            Self::UserId => Values::of(RawBsonRef::String(context.user_id)),
            Self::CustomData(path) => Values::within(context.custom_data, path.as_ref()),
            Self::User(path) => Values::within(context.user, path.as_ref()),
            Self::Request(path) => Values::within(context.request, path.as_ref()),
            Self::Header(name) => header(context, name).map_or_else(Values::missing, Values::of),
        }
    }

    /// Returns the one value of the operand. A path to it leads only through documents.
    pub(super) fn value<'a>(&'a self, context: &Context<'a>) -> Option<RawBsonRef<'a>> {
        let within = |document: Option<&'a RawDocument>, path: &Option<Path>| match path {
            None => document.map(RawBsonRef::Document),
            Some(path) => path.value_in(document?),
        };
        match self {
            Self::Literal(value) | Self::Constant(Constant { value, .. }) => Some(value.as_raw_bson_ref()),
            Self::Field(path) => path.value_in(context.document),
            Self::UserId => Some(RawBsonRef::String(context.user_id)),
            Self::CustomData(path) => within(context.custom_data, path),
            Self::User(path) => within(context.user, path),
            Self::Request(path) => within(context.request, path),
            Self::Header(name) => header(context, name),
        }
    }

    /// True if the value depends on the user's custom data.
    pub(super) fn needs_custom_data(&self) -> bool {
        match self {
            Self::CustomData(_) | Self::User(None) => true,
            Self::User(Some(path)) => path.parts().first().is_some_and(|part| part == "custom_data"),
            _ => false,
        }
    }
}

/// Returns the values of a header: the array under its name in any case.
fn header<'a>(context: &Context<'a>, name: &str) -> Option<RawBsonRef<'a>> {
    let Ok(Some(RawBsonRef::Document(headers))) = context.request?.get("requestHeaders") else { return None };
    let is_its = |(header, _): &(&str, RawBsonRef<'_>)| budget::spend(1) && header.eq_ignore_ascii_case(name);
    elements(headers).find(is_its).map(|(_, values)| values)
}

/// The values of an operand that another operand may equal.
pub(super) struct Values<'a> {
    /// False if the operand is missing. An operand that is present may still have no comparable
    /// values.
    pub(super) is_there: bool,
    pub(super) all: Vec<RawBsonRef<'a>>,
}

impl<'a> Values<'a> {
    /// A missing operand.
    pub(super) fn missing() -> Self {
        Self { is_there: false, all: Vec::new() }
    }

    /// The value itself, and its items if it is an array, except booleans.
    pub(super) fn of(value: RawBsonRef<'a>) -> Self {
        let mut all = vec![value];
        if let RawBsonRef::Array(array) = value
            && let Ok(items) = RawDocument::from_bytes(array.as_bytes())
        {
            all.extend(elements(items).map(|(_, item)| item).filter(|item| !is_boolean(item)));
        }
        Self { is_there: true, all }
    }

    /// The values at a path in a document, or the document itself.
    fn within(document: Option<&'a RawDocument>, path: Option<&Path>) -> Self {
        match (document, path) {
            (None, _) => Self::missing(),
            (Some(document), None) => Self::of(RawBsonRef::Document(document)),
            (Some(document), Some(path)) => Self::at(path, document),
        }
    }

    /// The values at a path: through documents, through documents in arrays, and the items of an
    /// array at the end. A boolean is reached only through documents. A flag in an array is no
    /// flag, because the array could contain both true and false.
    pub(super) fn at(path: &Path, document: &'a RawDocument) -> Self {
        let mut all = path.values_in(document);
        let is_there = !all.is_empty();
        if all.iter().any(is_boolean) {
            all.retain(|value| !is_boolean(value));
            all.extend(path.value_in(document).filter(is_boolean));
        }
        Self { is_there, all }
    }
}

pub(super) fn is_boolean(value: &RawBsonRef<'_>) -> bool {
    matches!(value, RawBsonRef::Boolean(_))
}
