//! The condition of a function, `can_evaluate`: an expression about the caller, the request and
//! the arguments.

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use serde_json::Value;

use super::{
    Context, Expression, ExpressionError,
    expression::{self, Scope},
};
use crate::constants::Constants;

/// A compiled condition under which a function may be called
/// (<https://www.mongodb.com/docs/atlas/app-services/functions/>).
///
/// ```
/// use backend::{constants::Constants, rules::Condition};
/// use bson::rawdoc;
///
/// let condition = serde_json::json!({ "%%user.data.email": { "%in": ["ann@example.com"] } });
/// let condition = Condition::parse(&condition, &Constants::default()).unwrap();
/// let user = rawdoc! { "id": "u1", "data": { "email": "ann@example.com" } };
/// assert!(condition.allows(&user, &rawdoc! {}, None));
/// assert!(!condition.allows(&rawdoc! { "id": "u2", "data": {} }, &rawdoc! {}, None));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Expression);

impl Condition {
    /// Compiles a condition. A field without `%%` names a field of the first argument.
    ///
    /// # Errors
    /// If the value is not an expression, names a document, or uses an operator or expansion that
    /// this version does not support. Such a function never loads, so that no check is dropped.
    pub fn parse(value: &Value, constants: &Constants) -> Result<Self, ExpressionError> {
        expression::compile(value, constants, Scope::Function).map(Self)
    }

    /// True if the condition is true and the operation's budget is not exhausted.
    ///
    /// `user` and `request` are `context.user` and `context.request` of the function.
    pub fn allows(&self, user: &RawDocument, request: &RawDocument, first_argument: Option<RawBsonRef<'_>>) -> bool {
        let nothing = RawDocumentBuf::new();
        let document = match first_argument {
            Some(RawBsonRef::Document(document)) => document,
            _ => &*nothing,
        };
        let context = Context { user: Some(user), request: Some(request), ..Context::new("", None, document) };
        self.0.allows(&context)
    }

    /// True if the condition uses the user's custom data.
    pub fn needs_custom_data(&self) -> bool {
        self.0.needs_custom_data()
    }
}
