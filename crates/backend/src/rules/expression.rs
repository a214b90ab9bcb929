//! Rule expressions, compiled when the definition is loaded.
//!
//! The value of an expansion is only compared: it is never interpreted as an operator or a path.

mod equality;
mod membership;
mod operand;
mod ordering;
mod parse;

use bson::raw::RawDocument;
use query::{Filter, Path, budget};
use serde_json::Value;

pub use operand::{Constant, Operand};
pub use ordering::Order;
pub(super) use parse::{Scope, expression as compile};

use crate::constants::Constants;

/// The result of an expression in three-valued logic. It is unresolved if an expansion or a field
/// is missing, or if values cannot be compared. Only `True` allows an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// The expression is true.
    True,
    /// The expression is false.
    False,
    /// The expression has no truth value.
    Unresolved,
}

/// A compiled rule expression.
///
/// ```
/// use backend::{constants::Constants, rules::{Context, Expression, Truth}};
///
/// let own = serde_json::json!({ "owner": "%%user.id" });
/// let own = Expression::parse(&own, &Constants::default()).unwrap();
/// let document = bson::rawdoc! { "owner": "u1" };
/// let context = Context::new("u1", None, &document);
/// assert_eq!(own.evaluate(&context), Truth::True);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// `true` or `false`; `{}` is true.
    Constant(bool),
    /// `%and`, or the fields of one object: true if all parts are true.
    All(Vec<Expression>),
    /// `%or`: true if any part is true.
    Any(Vec<Expression>),
    /// `{ "%%true": … }` or `{ "%%false": … }`: true if the inner expression has this truth value.
    Asserts(bool, Box<Expression>),
    /// True if the two operands are equal.
    Equal(Operand, Operand),
    /// `%gt` and its kin: true if the first operand is greater, or less, than the second.
    Ordered(Order, Operand, Operand),
    /// `%in`: true if the first operand equals an item of the second, which is a list.
    In(Operand, Operand),
    /// `%exists`: true if the operand has a value.
    Exists(Operand),
}

/// The user and the document that an expression is evaluated for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The user's id.
    pub user_id: &'a str,
    /// The user's current custom data; `None` if there is none.
    pub custom_data: Option<&'a RawDocument>,
    /// The document; for a function's condition, its first argument.
    pub document: &'a RawDocument,
    /// The complete user, which only the condition of a function has.
    pub(super) user: Option<&'a RawDocument>,
    /// The request, which only the condition of a function has.
    pub(super) request: Option<&'a RawDocument>,
}

impl<'a> Context<'a> {
    /// Creates the context of a rule for one user and one document.
    pub fn new(user_id: &'a str, custom_data: Option<&'a RawDocument>, document: &'a RawDocument) -> Self {
        Self { user_id, custom_data, document, user: None, request: None }
    }
}

/// The error of an expression that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// The JSON path within the expression.
    pub path: String,
    /// The reason.
    pub message: String,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// If the value is not an expression, or uses an operator or expansion that this version does
    /// not support. Such rules never load, so that no check is dropped.
    pub fn parse(value: &Value, constants: &Constants) -> Result<Self, ExpressionError> {
        parse::expression(value, constants, Scope::Rule)
    }

    /// True if the expression is true and the operation's budget is not exhausted.
    pub fn allows(&self, context: &Context<'_>) -> bool {
        self.evaluate(context) == Truth::True && budget::spend(1)
    }

    /// Evaluates the expression in three-valued logic. It is unresolved once the operation's
    /// budget is exhausted.
    pub fn evaluate(&self, context: &Context<'_>) -> Truth {
        if !budget::spend(1) {
            return Truth::Unresolved;
        }
        match self {
            Self::Constant(value) => Truth::from(*value),
            Self::All(all) => fold(all, context, Truth::False, Truth::True),
            Self::Any(any) => fold(any, context, Truth::True, Truth::False),
            Self::Asserts(expected, inner) => match inner.evaluate(context) {
                Truth::Unresolved => Truth::Unresolved,
                truth => Truth::from((truth == Truth::True) == *expected),
            },
            Self::Equal(left, right) => equality::compare(&left.values(context), &right.values(context)),
            Self::Ordered(order, left, right) => ordering::evaluate(*order, left, right, context),
            Self::In(left, list) => membership::contains(left, list, context),
            Self::Exists(operand) => membership::exists(operand, context),
        }
    }

    /// Returns the filter for the documents for which the expression has the truth value `truth`.
    /// It ignores the document of `context`. Returns `None` if no filter expresses it exactly, or
    /// if the operation's budget is exhausted.
    pub fn filter(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let filter = self.to_filter(context, truth)?;
        // Comparisons without a budget have no result.
        budget::spend(1).then_some(filter)
    }

    fn to_filter(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let each = |parts: &[Self]| parts.iter().map(|part| part.to_filter(context, truth)).collect::<Option<Vec<_>>>();
        match self {
            Self::Constant(value) => Some(Filter::Always(*value == truth)),
            // One decisive part decides, whatever the others are.
            Self::All(parts) if truth => each(parts).map(Filter::all_of),
            Self::All(parts) => each(parts).map(Filter::any_of),
            Self::Any(parts) if truth => each(parts).map(Filter::any_of),
            Self::Any(parts) => each(parts).map(Filter::all_of),
            Self::Asserts(expected, inner) => inner.to_filter(context, *expected == truth),
            Self::Equal(left, right) => equality::filter(left, right, context, truth),
            Self::Ordered(order, left, right) => ordering::filter(*order, left, right, context, truth),
            Self::In(left, list) => membership::filter(left, list, context, truth),
            Self::Exists(operand) => membership::exists_filter(operand, context, truth),
        }
    }

    /// Returns a filter that matches at least the documents for which the expression has the truth
    /// value `truth`: the same as [`filter`](Self::filter) if that exists. Returns `None` if the
    /// operation's budget is exhausted.
    pub fn superset(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let superset = self.to_superset(context, truth);
        budget::spend(1).then_some(superset)
    }

    fn to_superset(&self, context: &Context<'_>, truth: bool) -> Filter {
        let each = |parts: &[Self]| parts.iter().map(|part| part.to_superset(context, truth)).collect::<Vec<_>>();
        match self {
            Self::Constant(value) => Filter::Always(*value == truth),
            Self::All(parts) if truth => Filter::all_of(each(parts)),
            Self::Any(parts) if !truth => Filter::all_of(each(parts)),
            Self::All(parts) | Self::Any(parts) => Filter::any_of(each(parts)),
            Self::Asserts(expected, inner) => inner.to_superset(context, *expected == truth),
            Self::Equal(..) | Self::Ordered(..) | Self::In(..) | Self::Exists(_) => {
                self.to_filter(context, truth).unwrap_or_else(|| match self {
                    Self::Equal(left, right) => equality::superset(left, right, context, truth),
                    Self::Ordered(order, left, right) => ordering::superset(*order, left, right, context, truth),
                    Self::In(left, list) => membership::superset(left, list, context, truth),
                    _ => Filter::Always(true),
                })
            }
        }
    }

    /// Returns the paths of the document's fields that the expression uses.
    pub fn fields(&self) -> Vec<&Path> {
        let fields = self.operands().into_iter();
        fields.filter_map(|operand| if let Operand::Field(path) = operand { Some(path) } else { None }).collect()
    }

    /// True if the expression uses the user's custom data.
    pub fn needs_custom_data(&self) -> bool {
        self.operands().into_iter().any(Operand::needs_custom_data)
    }

    /// Returns the operands of the expression and of its parts.
    fn operands(&self) -> Vec<&Operand> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::operands).collect(),
            Self::Asserts(_, inner) => inner.operands(),
            Self::Equal(left, right) | Self::Ordered(_, left, right) | Self::In(left, right) => vec![left, right],
            Self::Exists(operand) => vec![operand],
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Evaluates `%and` or `%or`: one `decisive` part decides; otherwise an unresolved part makes the
/// result unresolved.
fn fold(parts: &[Expression], context: &Context<'_>, decisive: Truth, otherwise: Truth) -> Truth {
    let mut truth = otherwise;
    for part in parts {
        match part.evaluate(context) {
            part if part == decisive => return decisive,
            Truth::Unresolved => truth = Truth::Unresolved,
            _ => {}
        }
    }
    truth
}
