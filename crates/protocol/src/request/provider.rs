use super::{Form, Received, members, written};
use crate::{Endpoint, Result, SecretDocument, provider};

/// An action of a provider, other than a log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Creates a user: `{ email, password }`.
    Register,
    /// Confirms a registration: `{ token, tokenId }`.
    Confirm,
    /// Sends the confirmation mail again: `{ email }`.
    SendConfirmation,
    /// Runs the confirmation function again: `{ email }`.
    CallConfirmation,
    /// Sets a new password: `{ password, token, tokenId }`.
    Reset,
    /// Sends the mail that resets a password: `{ email }`.
    SendReset,
    /// Runs the reset function: `{ email, password, arguments: [ … ] }`.
    CallReset,
}

/// The endpoint of each action, and its name in an embedded client.
const ACTIONS: [(Action, Endpoint, &str); 7] = [
    (Action::Register, Endpoint::Register, "register"),
    (Action::Confirm, Endpoint::Confirm, "confirm"),
    (Action::SendConfirmation, Endpoint::SendConfirmation, "confirm/send"),
    (Action::CallConfirmation, Endpoint::CallConfirmation, "confirm/call"),
    (Action::Reset, Endpoint::Reset, "reset"),
    (Action::SendReset, Endpoint::SendReset, "reset/send"),
    (Action::CallReset, Endpoint::CallReset, "reset/call"),
];

impl Action {
    /// Every action.
    pub fn all() -> impl Iterator<Item = Self> {
        ACTIONS.into_iter().map(|(action, ..)| action)
    }

    /// Returns the action of an endpoint, if it has one.
    pub(super) fn of(endpoint: Endpoint) -> Option<Self> {
        ACTIONS.into_iter().find(|row| row.1 == endpoint).map(|row| row.0)
    }

    /// Returns the action with a name, which is the end of its path, such as `confirm/send`.
    pub fn by_name(name: &str) -> Option<Self> {
        ACTIONS.into_iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// Returns the name of the action.
    pub fn name(self) -> &'static str {
        ACTIONS.into_iter().find(|row| row.0 == self).map_or("register", |row| row.2)
    }

    fn endpoint(self) -> Endpoint {
        ACTIONS.into_iter().find(|row| row.0 == self).map_or(Endpoint::Register, |row| row.1)
    }
}

/// Requests an action of a provider other than a log-in. Only the provider reads the payload.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderAction {
    /// The type of the provider. Only [`provider::EMAIL_PASSWORD`] has actions.
    pub provider: String,
    /// The action.
    pub action: Action,
    /// The payload, with the field names of the HTTP format.
    pub payload: SecretDocument,
}

impl ProviderAction {
    /// Creates an action of the provider for e-mail addresses and passwords.
    pub fn email_password(action: Action, payload: impl Into<SecretDocument>) -> Self {
        Self { provider: provider::EMAIL_PASSWORD.to_owned(), action, payload: payload.into() }
    }

    pub(super) fn decode(action: Action, received: &Received<'_>) -> Result<Self> {
        let payload = received.document(received.object()?)?;
        Ok(Self::email_password(action, payload))
    }
}

impl Form for ProviderAction {
    fn endpoint(&self) -> Endpoint {
        self.action.endpoint()
    }

    fn body(&self) -> Result<Option<Vec<u8>>> {
        written(&members(&self.payload)?).map(Some)
    }
}
