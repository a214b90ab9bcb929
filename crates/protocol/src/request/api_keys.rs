use serde_json::json;

use super::{Form, Received, text, written};
use crate::{Endpoint, Result, Secret};

/// Lists or changes the API keys of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKeys {
    /// The refresh token of the user's session.
    pub refresh_token: Secret,
    /// The action.
    pub action: ApiKeyAction,
}

/// An action on the API keys of a user. An `id` has 24 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyAction {
    /// Creates a key with this name. Only the response to this action contains the key itself.
    Create {
        /// The name.
        name: String,
    },
    /// Returns all keys.
    FetchAll,
    /// Returns one key.
    Fetch {
        /// The key's id.
        id: String,
    },
    /// Deletes a key.
    Delete {
        /// The key's id.
        id: String,
    },
    /// Enables a key.
    Enable {
        /// The key's id.
        id: String,
    },
    /// Disables a key.
    Disable {
        /// The key's id.
        id: String,
    },
}

impl ApiKeys {
    pub(super) fn decode(received: &Received<'_>) -> Result<Self> {
        let id = || received.parameter("id");
        let action = match received.endpoint {
            Endpoint::CreateApiKey => ApiKeyAction::Create { name: text(&received.object()?, "name")? },
            Endpoint::FetchApiKey => ApiKeyAction::Fetch { id: id()? },
            Endpoint::DeleteApiKey => ApiKeyAction::Delete { id: id()? },
            Endpoint::EnableApiKey => ApiKeyAction::Enable { id: id()? },
            Endpoint::DisableApiKey => ApiKeyAction::Disable { id: id()? },
            _ => ApiKeyAction::FetchAll,
        };
        Ok(Self { refresh_token: received.token()?, action })
    }
}

impl Form for ApiKeys {
    fn endpoint(&self) -> Endpoint {
        match self.action {
            ApiKeyAction::Create { .. } => Endpoint::CreateApiKey,
            ApiKeyAction::FetchAll => Endpoint::FetchApiKeys,
            ApiKeyAction::Fetch { .. } => Endpoint::FetchApiKey,
            ApiKeyAction::Delete { .. } => Endpoint::DeleteApiKey,
            ApiKeyAction::Enable { .. } => Endpoint::EnableApiKey,
            ApiKeyAction::Disable { .. } => Endpoint::DisableApiKey,
        }
    }

    fn token(&self) -> Option<&Secret> {
        Some(&self.refresh_token)
    }

    fn parameter(&self, _: &str) -> &str {
        match &self.action {
            ApiKeyAction::Create { .. } | ApiKeyAction::FetchAll => "",
            ApiKeyAction::Fetch { id }
            | ApiKeyAction::Delete { id }
            | ApiKeyAction::Enable { id }
            | ApiKeyAction::Disable { id } => id,
        }
    }

    fn body(&self) -> Result<Option<Vec<u8>>> {
        match &self.action {
            ApiKeyAction::Create { name } => written(&json!({ "name": name })).map(Some),
            _ => Ok(None),
        }
    }
}
