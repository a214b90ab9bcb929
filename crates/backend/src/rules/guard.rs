//! The guard that evaluates rules for a store.

use std::sync::{Arc, OnceLock};

use bson::raw::{RawDocument, RawDocumentBuf};
use query::Filter;
use store::{Denied, Guard, GuardFilters, Namespace};

use super::{RuleSet, context};

/// The user of a request.
#[derive(Debug, Clone)]
pub struct RuleUser {
    /// The user's id.
    pub id: Arc<str>,
    /// The user's current custom data; `None` if there is none or if no rule uses it.
    pub custom_data: Option<Arc<RawDocumentBuf>>,
}

/// The rules of a collection for one user.
#[derive(Debug)]
pub struct RuleGuard {
    rules: Arc<RuleSet>,
    user: RuleUser,
    namespace: Namespace,
    /// The request's span. Writes are checked on the writer thread, and the log needs the request.
    span: tracing::Span,
    filters: OnceLock<Option<GuardFilters>>,
    superset: OnceLock<Option<Filter>>,
}

impl RuleGuard {
    /// Creates the guard of a user's request. The namespace and the current span are only for the
    /// log.
    pub fn new(rules: Arc<RuleSet>, user: RuleUser, namespace: Namespace) -> Self {
        let span = tracing::Span::current();
        Self { rules, user, namespace, span, filters: OnceLock::new(), superset: OnceLock::new() }
    }

    /// Logs the reason for the operator, and returns the error for the client.
    fn deny(&self, action: &'static str, role: Option<&str>, reason: &str) -> Denied {
        let _in_request = self.span.enter();
        tracing::debug!(user = %self.user.id, namespace = %self.namespace, action, role, reason, "denied by the rules");
        Denied(format!("{action} not permitted"))
    }
}

impl Guard for RuleGuard {
    fn filters(&self) -> Option<&GuardFilters> {
        self.filters.get_or_init(|| self.rules.filters(&self.user)).as_ref()
    }

    fn superset(&self) -> Option<&Filter> {
        self.superset.get_or_init(|| self.rules.superset(&self.user)).as_ref()
    }

    fn may_see(&self, document: &RawDocument) -> bool {
        let context = context(&self.user, document);
        self.rules.role(&context).is_some_and(|role| role.may_read(&context))
    }

    fn check_write(&self, before: Option<&RawDocument>, after: Option<&RawDocument>) -> Result<(), Denied> {
        let (action, stored) = match (before, after) {
            (None, Some(after)) => ("insert", after),
            (Some(before), None) => ("delete", before),
            (Some(before), Some(_)) => ("update", before),
            (None, None) => return Ok(()),
        };
        let Some(role) = self.rules.role(&context(&self.user, stored)) else {
            return Err(self.deny(action, None, "no role applies"));
        };
        for (version, document) in [("before", before), ("after", after)] {
            let Some(document) = document else { continue };
            if let Err(reason) = role.may_write(&context(&self.user, document)) {
                return Err(self.deny(action, Some(&role.name), &format!("{reason} {version} the operation")));
            }
        }
        let also = match action {
            "insert" => &role.insert,
            "delete" => &role.delete,
            _ => &None,
        };
        let context = context(&self.user, stored);
        match also {
            Some(expression) if !expression.allows(&context) => {
                Err(self.deny(action, Some(&role.name), &format!("{action} is not true")))
            }
            _ => Ok(()),
        }
    }
}
