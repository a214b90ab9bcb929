//! The provider `local-userpass`: log-in with an e-mail address, or another name, and a password.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use protocol::SecretDocument;
use serde_json::Value;

use super::{Proven, Provider};
use crate::{
    Error, ErrorCode, RequestContext, Result,
    auth::{email_password, password_reset},
    context::Context,
    definition::{Functions, Reader},
    request::Action,
};

/// The configuration of the provider.
#[derive(Debug)]
struct EmailPassword {
    confirmation: Confirmation,
    /// The function that resets passwords, if there is one. Mails are not supported yet.
    reset_function: Option<String>,
}

/// The way in which registrations are confirmed.
#[derive(Debug)]
enum Confirmation {
    /// At once.
    Automatic,
    /// By a function.
    Function(String),
    /// By a function that the definition does not name, so that registration is rejected.
    NoFunction,
    /// By mail, which is not supported yet, so that registration is rejected.
    Mail,
}

/// The warning about other kinds of confirmation.
const REJECTED: &str =
    "without automatic confirmation or a confirmation function, registration is rejected: mails are not supported yet";

pub(super) fn read(provider: &mut Reader<'_>, functions: &Functions) -> Arc<dyn Provider> {
    let config = provider.get("config").cloned().unwrap_or(Value::Object(serde_json::Map::new()));
    let mut config = provider.inside(".config", &config);
    let confirmation = read_confirmation(&mut config, functions);
    let reset_function = read_reset(&mut config, functions);
    config.known(&[
        "confirmationFunctionId",
        "confirmEmailSubject",
        "emailConfirmationUrl",
        "resetFunctionId",
        "resetPasswordSubject",
        "resetPasswordUrl",
    ]);
    config.finish();
    Arc::new(EmailPassword { confirmation, reset_function })
}

fn read_confirmation(config: &mut Reader<'_>, functions: &Functions) -> Confirmation {
    let key = "confirmationFunctionName";
    let auto_confirm = config.flag("autoConfirm");
    if config.flag("runConfirmationFunction").unwrap_or(false) {
        if auto_confirm == Some(true) {
            config.note("autoConfirm", "is not used, because a confirmation function is enabled");
        }
        return match functions.named_by(config, key, "registration is rejected") {
            Some(name) => Confirmation::Function(name),
            None => {
                config.note_missing(key, "is missing, so registration is rejected");
                Confirmation::NoFunction
            }
        };
    }
    config.known(&[key]);
    match auto_confirm {
        Some(true) => return Confirmation::Automatic,
        Some(false) => config.note("", REJECTED),
        None => config.note_missing("autoConfirm", &format!("is missing, and {REJECTED}")),
    }
    Confirmation::Mail
}

fn read_reset(config: &mut Reader<'_>, functions: &Functions) -> Option<String> {
    let key = "resetFunctionName";
    if !config.flag("runResetFunction").unwrap_or(false) {
        config.known(&[key]);
        return None;
    }
    let name = functions.named_by(config, key, "passwords cannot be reset");
    if name.is_none() {
        config.note_missing(key, "is missing, so passwords cannot be reset");
    }
    name
}

impl EmailPassword {
    async fn register(
        &self,
        context: &Arc<Context>,
        payload: &SecretDocument,
        circumstances: &RequestContext,
    ) -> Result<()> {
        let (email, password) = (payload.text("email")?, payload.secret("password")?);
        let function = match &self.confirmation {
            Confirmation::Automatic => None,
            Confirmation::Function(name) => Some(name.as_str()),
            Confirmation::Mail | Confirmation::NoFunction => return Err(email_password::not_confirmed(email)),
        };
        email_password::register(context, email, password, function, circumstances).await
    }

    /// Sends the confirmation mail again, which needs another kind of confirmation.
    async fn send_confirmation(&self, context: &Context, email: &str) -> Result<()> {
        match self.confirmation {
            // Users whose registration is not confirmed are from an earlier configuration.
            Confirmation::Automatic | Confirmation::Mail => {
                email_password::unconfirmed_user(context, email).await?;
                Err(Error::bad_request("error processing request"))
            }
            Confirmation::Function(_) | Confirmation::NoFunction => {
                email_password::unconfirmed_user(context, email).await?;
                Err(Error::bad_request("please use confirm via function"))
            }
        }
    }

    async fn call_confirmation(
        &self,
        context: &Arc<Context>,
        email: &str,
        circumstances: &RequestContext,
    ) -> Result<()> {
        match &self.confirmation {
            Confirmation::Automatic => Err(Error::bad_request(format!(
                "cannot run confirmation for {email}: automatic confirmation is enabled"
            ))),
            Confirmation::Mail => Err(Error::bad_request("please use confirm via email")),
            Confirmation::NoFunction => {
                Err(Error::bad_request("cannot run confirmation: the confirmation function is missing"))
            }
            Confirmation::Function(name) => {
                email_password::retry_confirmation(context, email, name, circumstances).await
            }
        }
    }

    /// Sends the mail that resets a password, which is not supported yet.
    async fn send_reset(&self, context: &Context, email: &str) -> Result<()> {
        if self.reset_function.is_some() {
            return Err(Error::bad_request("please use reset password via function"));
        }
        password_reset::confirmed_user(context, email).await?;
        Err(Error::bad_request("error processing request"))
    }

    async fn call_reset(
        &self,
        context: &Arc<Context>,
        payload: &SecretDocument,
        circumstances: &RequestContext,
    ) -> Result<()> {
        match &self.reset_function {
            Some(name) => password_reset::call_reset(context, payload, name, circumstances).await,
            None => Err(Error::bad_request("please use reset password via email")),
        }
    }
}

impl Provider for EmailPassword {
    fn account<'p>(&self, payload: &'p SecretDocument) -> Result<Option<&'p str>> {
        let name = payload.text("username")?;
        payload.text("password")?;
        Ok(Some(name))
    }

    fn account_of_action<'p>(&self, action: Action, payload: &'p SecretDocument) -> Result<Option<&'p str>> {
        let email = match action {
            Action::Confirm | Action::Reset => return Ok(None),
            Action::Register
            | Action::SendConfirmation
            | Action::CallConfirmation
            | Action::SendReset
            | Action::CallReset => payload.text("email")?,
        };
        if matches!(action, Action::Register | Action::CallReset) {
            payload.text("password")?;
        }
        Ok(Some(email))
    }

    fn creates_users(&self, action: Option<Action>) -> bool {
        action == Some(Action::Register)
    }

    fn runs_function(&self, action: Option<Action>) -> bool {
        match action {
            Some(Action::Register | Action::CallConfirmation) => {
                matches!(self.confirmation, Confirmation::Function(_))
            }
            Some(Action::CallReset) => self.reset_function.is_some(),
            _ => false,
        }
    }

    fn reset_function(&self) -> Option<&str> {
        self.reset_function.as_deref()
    }

    fn authenticate<'a>(
        &'a self,
        context: &'a Arc<Context>,
        payload: &'a SecretDocument,
        _: &'a RequestContext,
    ) -> BoxFuture<'a, Result<Proven>> {
        async {
            let (name, password) = (payload.text("username")?, payload.secret("password")?);
            let user = context.users.by_email(name).await?;
            let hash = user.as_ref().and_then(|user| user.password_hash.clone());
            // The password of an unknown user is hashed too, so that both take the same time.
            let is_right = context.passwords.verify(password, hash).await?;
            let user = user.filter(|_| is_right);
            user.map(Proven::User).ok_or_else(|| Error::new(ErrorCode::InvalidPassword, "unauthorized"))
        }
        .boxed()
    }

    fn act<'a>(
        &'a self,
        context: &'a Arc<Context>,
        action: Action,
        payload: &'a SecretDocument,
        circumstances: &'a RequestContext,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            match action {
                Action::Register => self.register(context, payload, circumstances).await,
                Action::SendConfirmation => self.send_confirmation(context, payload.text("email")?).await,
                Action::CallConfirmation => {
                    self.call_confirmation(context, payload.text("email")?, circumstances).await
                }
                Action::SendReset => self.send_reset(context, payload.text("email")?).await,
                Action::CallReset => self.call_reset(context, payload, circumstances).await,
                Action::Confirm => email_password::confirm(context, payload, circumstances).await,
                Action::Reset => password_reset::reset(context, payload).await,
            }
        }
        .boxed()
    }
}
