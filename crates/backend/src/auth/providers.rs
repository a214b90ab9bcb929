//! The authentication providers. Each provider has a file in `providers/` and a row in [`TABLE`].

mod anonymous;
mod custom_function;
mod email_password;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bson::raw::RawDocumentBuf;
use futures_util::future::{self, BoxFuture, FutureExt};
use protocol::SecretDocument;

use super::users::User;
use crate::{
    Error, ErrorCode, RequestContext, Result,
    context::Context,
    definition::{Definition, Functions, Reader, did_you_mean},
    request::{Action, LogIn, ProviderAction, Request},
};

/// An enabled authentication provider.
pub(crate) trait Provider: fmt::Debug + Send + Sync {
    /// Checks that the payload of a log-in is complete, and returns the account name in it, if
    /// there is one. Failed log-ins are rate limited per account. Called before the limits are
    /// read, so that an incomplete request costs no work of the store.
    ///
    /// # Errors
    /// `MissingParameter` or `InvalidParameter`, as [`authenticate`](Self::authenticate).
    fn account<'p>(&self, payload: &'p SecretDocument) -> Result<Option<&'p str>>;

    /// Does the same for an action. The account is the name that [`act`](Self::act) uses, and not
    /// that of another field, which a client could choose at will.
    ///
    /// # Errors
    /// `MissingParameter` or `InvalidParameter`, as [`act`](Self::act).
    fn account_of_action<'p>(&self, _action: Action, _payload: &'p SecretDocument) -> Result<Option<&'p str>> {
        Ok(None)
    }

    /// True if an action, or a log-in without one, may create a user, so that it has the rate
    /// limit of registrations.
    fn creates_users(&self, _action: Option<Action>) -> bool {
        false
    }

    /// True if an action, or a log-in without one, may run a function of the operator's, so that a
    /// network has a limit of simultaneous requests.
    fn runs_function(&self, _action: Option<Action>) -> bool {
        false
    }

    /// Returns the name of the function that resets passwords, if there is one.
    fn reset_function(&self) -> Option<&str> {
        None
    }

    /// Verifies the identity of a user.
    ///
    /// # Errors
    /// An error such as `InvalidPassword`, with a message for the client.
    fn authenticate<'a>(
        &'a self,
        context: &'a Arc<Context>,
        payload: &'a SecretDocument,
        circumstances: &'a RequestContext,
    ) -> BoxFuture<'a, Result<Proven>>;

    /// Carries out an action other than a log-in.
    ///
    /// # Errors
    /// By default `BadRequest`, because the provider has no actions.
    fn act<'a>(
        &'a self,
        _context: &'a Arc<Context>,
        _action: Action,
        _payload: &'a SecretDocument,
        _circumstances: &'a RequestContext,
    ) -> BoxFuture<'a, Result<()>> {
        future::ready(Err(Error::bad_request("this provider has no such action"))).boxed()
    }
}

/// The result of an authentication.
pub(crate) enum Proven {
    /// The user exists.
    User(User),
    /// The identity is new, and the backend must create a user for it.
    NewUser(NewUser),
}

/// A user to create.
pub(crate) struct NewUser {
    /// The type of the provider.
    pub(crate) provider: &'static str,
    /// The provider's unique name for the user.
    pub(crate) name: String,
    /// The id of the identity; `None` for a new one.
    pub(crate) identity_id: Option<String>,
    /// The data of the profile.
    pub(crate) data: RawDocumentBuf,
    /// The hash of the password, if the user has one.
    pub(crate) password_hash: Option<String>,
    /// True if the user is deleted after 90 days without activity.
    pub(crate) expires: bool,
}

/// Reads the configuration of an enabled provider.
type Read = fn(&mut Reader<'_>, &Functions) -> Arc<dyn Provider>;

/// The supported providers.
const TABLE: &[(&str, Read)] = &[
    (protocol::provider::ANONYMOUS, anonymous::read),
    (protocol::provider::CUSTOM_FUNCTION, custom_function::read),
    (protocol::provider::EMAIL_PASSWORD, email_password::read),
];

/// The providers of App Services that are not supported yet.
const UNAVAILABLE: &[&str] = &["api-key", "custom-token", "oauth2-apple", "oauth2-facebook", "oauth2-google"];

/// The enabled authentication providers.
#[derive(Debug, Default)]
pub struct Providers(BTreeMap<&'static str, Arc<dyn Provider>>);

impl Providers {
    /// True if log-ins with a type of provider are enabled, such as `anon-user`.
    pub fn is_enabled(&self, provider: &str) -> bool {
        self.0.contains_key(provider)
    }

    /// Returns the name of the function that resets passwords, if there is one.
    pub(crate) fn reset_function(&self) -> Option<String> {
        self.0.values().find_map(|provider| provider.reset_function()).map(str::to_owned)
    }

    /// Returns the enabled provider of a type.
    pub(crate) fn get(&self, provider: &str) -> Option<&Arc<dyn Provider>> {
        self.0.get(provider)
    }

    /// Reads `auth/providers.json`.
    pub(crate) fn read(file: &mut Reader<'_>, functions: &Functions) -> Self {
        let mut providers = Self::default();
        let mut has_unknown = false;
        for (name, value) in file.keys() {
            has_unknown |= !known().any(|known| known == name);
            let mut provider = file.inside(&format!(".{name}"), value);
            providers.read_provider(name, &mut provider, functions);
        }
        if file.is_object() && !has_unknown && providers.0.is_empty() {
            file.note("", "no supported authentication provider is enabled, so no user can log in");
        }
        providers
    }

    fn read_provider(&mut self, name: &str, provider: &mut Reader<'_>, functions: &Functions) {
        provider.known(&["id", "name", "type"]);
        if provider.flag("disabled").unwrap_or(false) {
            return;
        }
        if UNAVAILABLE.contains(&name) {
            return provider.note("", "the provider is not supported yet; log-ins with it are rejected");
        }
        if !provider.array("domain_restrictions").iter().all(|domain| domain == "") {
            provider
                .refuse("domain_restrictions", "is not supported yet, and without it users of any domain could log in");
        }
        provider.known(&["metadata_fields", "redirect_uris", "secret_config", "config"]);
        let Some((kind, read)) = TABLE.iter().find(|(kind, _)| *kind == name) else {
            let suggestion = did_you_mean(name, known());
            // The unknown keys in it are not reported, because they have the same cause.
            return provider.note("", &format!("the provider is not known and not used{suggestion}"));
        };
        self.0.insert(kind, read(provider, functions));
        provider.finish();
    }
}

fn known() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(kind, _)| *kind).chain(UNAVAILABLE.iter().copied())
}

/// True if a request may run a function of the operator's.
pub(crate) fn may_run_function(definition: &Definition, request: &Request) -> bool {
    let (provider, action) = match request {
        Request::LogIn(LogIn { credentials, .. }) => (&credentials.provider, None),
        Request::ProviderAction(ProviderAction { provider, action, .. }) => (provider, Some(*action)),
        _ => return false,
    };
    let configuration = definition.custom_user_data.as_ref();
    let has_creation = configuration.is_some_and(|configuration| configuration.creation_function.is_some());
    definition.providers.get(provider).is_some_and(|provider| {
        let creates = provider.creates_users(action) || action == Some(Action::Confirm);
        provider.runs_function(action) || (has_creation && creates)
    })
}

/// Carries out an action of a provider other than a log-in.
///
/// # Errors
/// `AuthProviderNotFound` if the provider is not enabled, and the errors of the provider.
pub(crate) async fn act(context: &Arc<Context>, request: ProviderAction, circumstances: &RequestContext) -> Result<()> {
    let ProviderAction { provider, action, payload } = request;
    let enabled = context.definition.providers.get(&provider).ok_or_else(|| provider_not_found(&provider))?;
    context.prepare().await?;
    enabled.act(context, action, &payload, circumstances).await
}

/// Returns the error of a log-in with a provider that is not enabled.
pub(crate) fn provider_not_found(provider: &str) -> Error {
    Error::new(ErrorCode::AuthProviderNotFound, format!("authentication via '{provider}' is unsupported"))
}
