//! The provider `local-userpass`: log-in with an e-mail address, or another name, and a password.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use protocol::SecretDocument;
use serde_json::Value;

use super::{Proven, Provider};
use crate::{
    Error, ErrorCode, Result,
    auth::email_password::{self, existing_user},
    context::Context,
    definition::Reader,
    request::Action,
};

/// The configuration of the provider.
#[derive(Debug)]
struct EmailPassword {
    /// True if users are confirmed on registration. Other kinds of confirmation are not supported
    /// yet, and registration is rejected.
    auto_confirm: bool,
}

/// The warning about other kinds of confirmation.
const REJECTED: &str = "only automatic confirmation is supported yet, so registration is rejected";

pub(super) fn read(provider: &mut Reader<'_>) -> Arc<dyn Provider> {
    let config = provider.get("config").cloned().unwrap_or(Value::Object(serde_json::Map::new()));
    let mut config = provider.inside(".config", &config);
    let auto_confirm = config.flag("autoConfirm");
    let by_function = config.flag("runConfirmationFunction").unwrap_or(false);
    if auto_confirm == Some(false) || by_function {
        config.note("", REJECTED);
    } else if auto_confirm.is_none() {
        config.note_missing("autoConfirm", &format!("is missing, and {REJECTED}"));
    }
    let auto_confirm = auto_confirm.unwrap_or(false);
    if config.flag("runResetFunction").unwrap_or(false) {
        config.note("runResetFunction", "passwords cannot be reset yet");
    }
    config.known(&[
        "confirmationFunctionName",
        "confirmEmailSubject",
        "emailConfirmationUrl",
        "resetFunctionName",
        "resetPasswordSubject",
        "resetPasswordUrl",
    ]);
    config.finish();
    Arc::new(EmailPassword { auto_confirm: auto_confirm && !by_function })
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
        if action == Action::Register {
            payload.text("password")?;
        }
        Ok(Some(email))
    }

    fn creates_users(&self, action: Option<Action>) -> bool {
        action == Some(Action::Register)
    }

    fn authenticate<'a>(
        &'a self,
        context: &'a Arc<Context>,
        payload: &'a SecretDocument,
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
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let email = || payload.text("email");
            match action {
                Action::Register => {
                    let (email, password) = (email()?, payload.secret("password")?);
                    if !self.auto_confirm {
                        return Err(Error::bad_request(format!("failed to confirm user \"{email}\"")));
                    }
                    email_password::register(context, email, password).await
                }
                Action::SendConfirmation => {
                    existing_user(context, email()?).await?;
                    Err(Error::new(ErrorCode::UserAlreadyConfirmed, "already confirmed"))
                }
                Action::CallConfirmation => Err(Error::bad_request(format!(
                    "cannot run confirmation for {}: automatic confirmation is enabled",
                    email()?
                ))),
                Action::SendReset => {
                    email()?;
                    Err(Error::bad_request("error processing request"))
                }
                Action::CallReset => {
                    Err(Error::bad_request(format!("failed to reset password for user \"{}\"", email()?)))
                }
                Action::Confirm | Action::Reset => {
                    Err(Error::new(ErrorCode::UserpassTokenInvalid, "invalid token data"))
                }
            }
        }
        .boxed()
    }
}
