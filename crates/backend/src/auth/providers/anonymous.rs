//! The provider `anon-user`: each log-in creates a new user, without credentials.

use std::sync::Arc;

use bson::raw::RawDocumentBuf;
use futures_util::future::{BoxFuture, FutureExt};
use protocol::SecretDocument;

use super::{NewUser, Proven, Provider};
use crate::{
    RequestContext, Result,
    context::Context,
    definition::{Functions, Reader},
    request::Action,
};

#[derive(Debug)]
struct Anonymous;

pub(super) fn read(_: &mut Reader<'_>, _: &Functions) -> Arc<dyn Provider> {
    Arc::new(Anonymous)
}

impl Provider for Anonymous {
    fn account<'p>(&self, _: &'p SecretDocument) -> Result<Option<&'p str>> {
        Ok(None)
    }

    fn creates_users(&self, action: Option<Action>) -> bool {
        action.is_none()
    }

    fn authenticate<'a>(
        &'a self,
        context: &'a Arc<Context>,
        _: &'a SecretDocument,
        _: &'a RequestContext,
    ) -> BoxFuture<'a, Result<Proven>> {
        async {
            Ok(Proven::NewUser(NewUser {
                provider: protocol::provider::ANONYMOUS,
                name: context.environment.new_id().to_hex(),
                identity_id: None,
                data: RawDocumentBuf::new(),
                password_hash: None,
                expires: true,
            }))
        }
        .boxed()
    }
}
