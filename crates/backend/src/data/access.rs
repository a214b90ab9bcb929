//! The permission to call a function of a data source.

use std::sync::Arc;

use bson::oid::ObjectId;
use store::Store;

use super::{Authorization, Call, no_rule};
use crate::{Error, ErrorCode, Result, context::Context, request::Arguments, rules::RuleSet};

/// A call that the rules of the collection permit in principle.
pub(super) struct Authorized<'c> {
    pub(super) call: Call,
    pub(super) authorization: Authorization,
    pub(super) rules: &'c Arc<RuleSet>,
    pub(super) store: &'c Arc<dyn Store>,
}

/// Finds the collection of a call and its rules for a user, whose claim must be confirmed before
/// anything is returned to the user.
///
/// # Errors
/// `FunctionNotFound` for a function of the app, `NoMatchingRuleFound` if the collection has no
/// rules, and an error if the data source or the arguments are not valid.
pub(super) async fn authorize(
    context: &Context,
    user_id: ObjectId,
    name: String,
    arguments: Arguments,
) -> Result<Authorized<'_>> {
    let Arguments::Service { service, argument } = arguments else {
        return Err(Error::new(ErrorCode::FunctionNotFound, format!("function not found: '{name}'")));
    };
    let call = context.collections.read(&context.definition, &service, name, argument)?;
    let services = &context.definition.services;
    let rules = services
        .get(&service)
        .and_then(|service| service.rules(&call.namespace))
        .ok_or_else(|| no_rule(&call.namespace))?;
    let authorization = context.authorize(user_id, rules, &call.namespace).await?;
    Ok(Authorized { call, authorization, rules, store: context.stores.of(&service) })
}
