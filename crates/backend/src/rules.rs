//! Rules of collections: roles with their expressions, and the guard that a store checks each
//! document with (<https://www.mongodb.com/docs/atlas/app-services/rules/>).

mod condition;
mod expression;
mod guard;

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Filter, Path};
use store::GuardFilters;

pub use condition::Condition;
pub use expression::{Constant, Context, Expression, ExpressionError, Operand, Order, Truth};
pub use guard::{RuleGuard, RuleUser};

/// The roles of a collection, or the default roles of a data source.
#[derive(Debug)]
pub struct RuleSet {
    roles: Vec<Role>,
    needs_custom_data: bool,
}

/// A role: the documents that it applies to, and the permissions that it grants there.
#[derive(Debug)]
pub struct Role {
    /// The role's name, for the operator's log.
    pub name: String,
    /// The condition on a document under which the role applies.
    pub apply_when: Expression,
    /// Conditions that a document must meet before `read` and `write` are evaluated.
    pub document_filters: Option<DocumentFilters>,
    /// The permission to read all fields.
    pub read: Option<Expression>,
    /// The permission to write all fields, which implies reading them.
    pub write: Option<Expression>,
    /// The permission to insert documents; a missing expression allows it where `write` does.
    pub insert: Option<Expression>,
    /// The permission to delete documents; a missing expression allows it where `write` does.
    pub delete: Option<Expression>,
}

/// `document_filters`: conditions on whole documents. A missing condition allows nothing.
#[derive(Debug)]
pub struct DocumentFilters {
    /// The condition under which the document may be read.
    pub read: Option<Expression>,
    /// The condition under which the document may be written, and so read.
    pub write: Option<Expression>,
}

impl RuleSet {
    /// Creates the rules of a collection. The first role that applies to a document decides.
    pub fn new(roles: Vec<Role>) -> Self {
        let needs_custom_data = roles.iter().flat_map(Role::expressions).any(Expression::needs_custom_data);
        Self { roles, needs_custom_data }
    }

    /// True if a role may let its users insert documents: if neither `write` nor `insert` is
    /// always false.
    pub fn may_insert(&self) -> bool {
        let is_never = |expression: &Option<Expression>| matches!(expression, Some(Expression::Constant(false)));
        self.roles.iter().any(|role| role.write.is_some() && !is_never(&role.write) && !is_never(&role.insert))
    }

    /// True if an expression of a role uses the user's custom data.
    pub fn needs_custom_data(&self) -> bool {
        self.needs_custom_data
    }

    /// Returns the user's permissions as filters; `None` if no filters express them exactly.
    fn filters(&self, user: &RuleUser) -> Option<GuardFilters> {
        let nothing = RawDocumentBuf::new();
        let context = context(user, &nothing);
        let (mut before, mut seen, mut updatable, mut deletable) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut paths: Vec<Path> = Vec::new();
        for role in &self.roles {
            let applies = role.apply_when.filter(&context, true)?;
            // The first role that applies to a document decides.
            let is_its = Filter::all_of([Filter::none_of(before.clone()), applies.clone()]);
            let and = |allowed: Filter| Filter::all_of([is_its.clone(), allowed]);
            seen.push(and(role.readable(|expression| allowed(expression, &context))?));
            updatable.push(and(role.writable(&context)?));
            deletable.push(and(Filter::all_of([role.writable(&context)?, role.deletable(&context)?])));
            before.push(applies);
            paths.extend(role.expressions().flat_map(Expression::fields).cloned());
        }
        let any = |filters: Vec<Filter>| Filter::any_of(filters);
        Some(GuardFilters { seen: any(seen), updatable: any(updatable), deletable: any(deletable), paths })
    }

    /// Returns a filter that matches at least every document that a user may read; `None` if it
    /// would match all documents, or if the operation's budget is exhausted.
    fn superset(&self, user: &RuleUser) -> Option<Filter> {
        let nothing = RawDocumentBuf::new();
        let context = context(user, &nothing);
        let superset = |expression: &Option<Expression>| {
            let none = Some(Filter::Always(false));
            expression.as_ref().map_or(none, |expression| expression.superset(&context, true))
        };
        let of_role =
            |role: &Role| Some(Filter::all_of([role.apply_when.superset(&context, true)?, role.readable(superset)?]));
        let any = Filter::any_of(self.roles.iter().map(of_role).collect::<Option<Vec<_>>>()?);
        (any != Filter::Always(true)).then_some(any)
    }

    /// Returns the first role that applies to a document.
    fn role(&self, context: &Context<'_>) -> Option<&Role> {
        self.roles.iter().find(|role| role.apply_when.allows(context))
    }
}

impl Role {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let filters = self.document_filters.iter().flat_map(|filters| [&filters.read, &filters.write]);
        [&self.read, &self.write, &self.insert, &self.delete]
            .into_iter()
            .chain(filters)
            .flatten()
            .chain(std::iter::once(&self.apply_when))
    }

    /// [`may_read`](Self::may_read) as a filter; `allowed` converts each expression to a filter.
    fn readable(&self, allowed: impl Fn(&Option<Expression>) -> Option<Filter>) -> Option<Filter> {
        let either = |read: &Option<Expression>, write: &Option<Expression>| {
            Some(Filter::any_of([allowed(read)?, allowed(write)?]))
        };
        let filtered = match &self.document_filters {
            Some(filters) => either(&filters.read, &filters.write)?,
            None => Filter::Always(true),
        };
        Some(Filter::all_of([filtered, either(&self.read, &self.write)?]))
    }

    /// [`may_write`](Self::may_write) as a filter.
    fn writable(&self, context: &Context<'_>) -> Option<Filter> {
        let filtered = match &self.document_filters {
            Some(filters) => allowed(&filters.write, context)?,
            None => Filter::Always(true),
        };
        Some(Filter::all_of([filtered, allowed(&self.write, context)?]))
    }

    /// The additional condition of `delete` as a filter.
    fn deletable(&self, context: &Context<'_>) -> Option<Filter> {
        match &self.delete {
            Some(expression) => expression.filter(context, true),
            None => Some(Filter::Always(true)),
        }
    }

    /// Evaluates the read permission: the document filters, then `read` or `write`, which implies
    /// it.
    fn may_read(&self, context: &Context<'_>) -> bool {
        let allows =
            |expression: &Option<Expression>| expression.as_ref().is_some_and(|expression| expression.allows(context));
        let filtered =
            self.document_filters.as_ref().is_none_or(|filters| allows(&filters.read) || allows(&filters.write));
        filtered && (allows(&self.read) || allows(&self.write))
    }

    /// Evaluates the write permission for one version of a document: the document filters, then
    /// `write`.
    fn may_write(&self, context: &Context<'_>) -> Result<(), &'static str> {
        let allows =
            |expression: &Option<Expression>| expression.as_ref().is_some_and(|expression| expression.allows(context));
        if !self.document_filters.as_ref().is_none_or(|filters| allows(&filters.write)) {
            return Err("document_filters.write is not true");
        }
        if allows(&self.write) { Ok(()) } else { Err("write is not true") }
    }
}

/// Returns the documents that an expression allows as a filter; a missing expression allows none.
fn allowed(expression: &Option<Expression>, context: &Context<'_>) -> Option<Filter> {
    expression.as_ref().map_or(Some(Filter::Always(false)), |expression| expression.filter(context, true))
}

/// The context of the rules for one version of a document.
fn context<'a>(user: &'a RuleUser, document: &'a RawDocument) -> Context<'a> {
    Context::new(&user.id, user.custom_data.as_deref().map(|data| &**data), document)
}

#[cfg(test)]
mod tests;
