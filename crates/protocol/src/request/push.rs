use serde_json::json;

use super::{Form, Received, text, written};
use crate::{Endpoint, Result, Secret};

/// Registers a device for push notifications, or removes the registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The user's access token.
    pub access_token: Secret,
    /// The name of the push service.
    pub service: String,
    /// The action.
    pub action: PushAction,
}

/// An action on the registration of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum PushAction {
    /// Registers the device.
    Register {
        /// The token that the push service gave the device.
        registration_token: Secret,
    },
    /// Removes the registration.
    Deregister,
}

impl Push {
    pub(super) fn decode(received: &Received<'_>) -> Result<Self> {
        let action = match received.endpoint {
            Endpoint::RegisterPush => {
                PushAction::Register { registration_token: text(&received.object()?, "registrationToken")?.into() }
            }
            _ => PushAction::Deregister,
        };
        Ok(Self { access_token: received.token()?, service: received.parameter("service")?, action })
    }
}

impl Form for Push {
    fn endpoint(&self) -> Endpoint {
        match self.action {
            PushAction::Register { .. } => Endpoint::RegisterPush,
            PushAction::Deregister => Endpoint::DeregisterPush,
        }
    }

    fn token(&self) -> Option<&Secret> {
        Some(&self.access_token)
    }

    fn parameter(&self, _: &str) -> &str {
        &self.service
    }

    fn body(&self) -> Result<Option<Vec<u8>>> {
        match &self.action {
            PushAction::Register { registration_token } => {
                written(&json!({ "registrationToken": registration_token.expose() })).map(Some)
            }
            PushAction::Deregister => Ok(None),
        }
    }
}
