//! Rules: roles with their expressions, and the guard that asks them about each document.

mod expression;
mod guard;

use bson::raw::{RawDocument, RawDocumentBuf};
use query::{Filter, Path};
use store::GuardFilters;

pub use expression::{Context, Expression, ExpressionError, Truth};
pub use guard::{RuleGuard, RuleUser};

/// The roles of a collection, or the default ones of a data source.
#[derive(Debug)]
pub struct RuleSet {
    roles: Vec<Role>,
    needs_custom_data: bool,
}

/// One role: to which documents it applies, and what it allows there.
#[derive(Debug)]
pub struct Role {
    /// Its name, for the operator.
    pub name: String,
    /// Whether it is the role for a document.
    pub apply_when: Expression,
    /// What must hold of a document as a whole.
    pub document_filters: Option<DocumentFilters>,
    /// Whether all fields may be read.
    pub read: Option<Expression>,
    /// Whether all fields may be written, and so read.
    pub write: Option<Expression>,
    /// Whether documents may be inserted; true if missing.
    pub insert: Option<Expression>,
    /// Whether documents may be deleted; true if missing.
    pub delete: Option<Expression>,
}

/// `document_filters`. What is missing allows nothing.
#[derive(Debug)]
pub struct DocumentFilters {
    /// Whether the document may be read.
    pub read: Option<Expression>,
    /// Whether the document may be written, and so read.
    pub write: Option<Expression>,
}

impl RuleSet {
    /// The roles in the order in which they are tried.
    pub fn new(roles: Vec<Role>) -> Self {
        let needs_custom_data = roles.iter().flat_map(Role::expressions).any(Expression::needs_custom_data);
        Self { roles, needs_custom_data }
    }

    /// True if a role may let its users insert documents: if neither `write` nor `insert` is always false.
    pub fn may_insert(&self) -> bool {
        let is_never = |expression: &Option<Expression>| matches!(expression, Some(Expression::Constant(false)));
        self.roles.iter().any(|role| role.write.is_some() && !is_never(&role.write) && !is_never(&role.insert))
    }

    /// Whether any role asks for the user's custom data.
    pub fn needs_custom_data(&self) -> bool {
        self.needs_custom_data
    }

    /// What the rules allow a user, as filters; none where no filters say exactly that.
    fn filters(&self, user: &RuleUser) -> Option<GuardFilters> {
        let nothing = RawDocumentBuf::new();
        let context = context(user, &nothing);
        let (mut before, mut seen, mut updatable, mut deletable) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut paths: Vec<Path> = Vec::new();
        for role in &self.roles {
            let applies = role.apply_when.filter(&context, true)?;
            // A document has the first role that applies to it.
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

    /// A filter that matches at least every document that a user may read; none if it would match all, and none once the
    /// operation's budget is exhausted.
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

    /// The first role that applies to a document.
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

    /// [`may_read`](Self::may_read) as a filter, made of the filters for what expressions allow.
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

    /// What `delete` adds to it, as a filter.
    fn deletable(&self, context: &Context<'_>) -> Option<Filter> {
        match &self.delete {
            Some(expression) => expression.filter(context, true),
            None => Some(Filter::Always(true)),
        }
    }

    /// The read flow: the document filters, then the role's `read`, with `write` implying it.
    fn may_read(&self, context: &Context<'_>) -> bool {
        let allows =
            |expression: &Option<Expression>| expression.as_ref().is_some_and(|expression| expression.allows(context));
        let filtered =
            self.document_filters.as_ref().is_none_or(|filters| allows(&filters.read) || allows(&filters.write));
        filtered && (allows(&self.read) || allows(&self.write))
    }

    /// The write flow for one version of a document: the document filters, then `write` on all fields.
    fn may_write(&self, context: &Context<'_>) -> Result<(), &'static str> {
        let allows =
            |expression: &Option<Expression>| expression.as_ref().is_some_and(|expression| expression.allows(context));
        if !self.document_filters.as_ref().is_none_or(|filters| allows(&filters.write)) {
            return Err("document_filters.write is not true");
        }
        if allows(&self.write) { Ok(()) } else { Err("write is not true") }
    }
}

/// The filter for what an expression allows, which is nothing where there is none.
fn allowed(expression: &Option<Expression>, context: &Context<'_>) -> Option<Filter> {
    expression.as_ref().map_or(Some(Filter::Always(false)), |expression| expression.filter(context, true))
}

/// A version of a document as rules see it.
fn context<'a>(user: &'a RuleUser, document: &'a RawDocument) -> Context<'a> {
    Context { user_id: &user.id, custom_data: user.custom_data.as_deref().map(|data| &**data), document }
}

#[cfg(test)]
mod tests;
