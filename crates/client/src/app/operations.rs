//! The operations and the state of an app by name, with documents for parameters and results, as a
//! binding needs them.

use backend::{
    request::{Action, ApiKeyAction, Credentials, ProviderAction, PushAction},
    response::ApiKey,
};
use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr},
    rawdoc,
};

use super::App;
use crate::{Error, Handle, Result, UserView};

impl App {
    /// Runs an operation by its name. `payload` has its parameters. Returns nothing if the
    /// operation has no result.
    ///
    /// # Errors
    /// The error of the operation; also if the name is unknown or a parameter is missing.
    pub async fn run(&self, operation: &str, user: Handle, payload: &RawDocument) -> Result<Option<RawBson>> {
        let text = |key: &str| {
            payload.get_str(key).map(str::to_owned).map_err(|_| Error::custom(format!("{operation} needs '{key}'")))
        };
        let reuse = payload.get_bool("reuse").unwrap_or(true);
        match operation {
            "logIn" => {
                let handle = self.log_in(credentials(payload)?, reuse).await?;
                return Ok(Some(RawBson::Document(entry(handle, &self.user_id(handle)?))));
            }
            "logOut" => self.log_out(user).await?,
            "switchUser" => self.switch_user(user)?,
            "removeUser" => self.remove_user(user).await?,
            "deleteUser" => self.delete_user(user).await?,
            "refreshCustomData" => self.refresh_custom_data(user).await?,
            "link" => self.link(user, credentials(payload)?, reuse).await?,
            "apiKeys" => {
                let keys = self.api_keys(user, api_key_action(&text("action")?, || text("value"))?).await?;
                return Ok(Some(RawBson::Array(keys.into_iter().map(api_key).collect())));
            }
            "push" => {
                let action = match payload.get_str("token") {
                    Ok(token) => PushAction::Register { registration_token: token.to_owned().into() },
                    Err(_) => PushAction::Deregister,
                };
                self.push(user, text("service")?, action).await?;
            }
            action => {
                let known = Action::by_name(action);
                let action = known.ok_or_else(|| Error::custom(format!("there is no operation '{action}'")))?;
                self.act(ProviderAction::email_password(action, payload.to_owned())).await?;
            }
        }
        Ok(None)
    }

    /// True if an operation changes the state on this device before it sends a request. A binding
    /// must poll such an operation before its call returns.
    pub fn changes_state_first(operation: &str) -> bool {
        matches!(operation, "logOut" | "removeUser" | "switchUser")
    }

    /// Reads the state on this device by name, without waiting: `currentUser`, `allUsers`, `user`,
    /// `userState`, `customData` or `profile`. The last two are documents; other values are in the
    /// field `v` of a document. Returns nothing if there is no value.
    ///
    /// # Errors
    /// `ClientUserNotFound` (4100) if there is no such user; also if the name is unknown.
    pub fn read(&self, what: &str, user: Handle) -> Result<Option<RawDocumentBuf>> {
        Ok(match what {
            "currentUser" => match self.current_user() {
                Some(user) => Some(rawdoc! { "v": entry(user, &self.user_id(user)?) }),
                None => None,
            },
            "allUsers" => {
                let users: RawArrayBuf = self.all_users().into_iter().map(|(user, id)| entry(user, &id)).collect();
                Some(rawdoc! { "v": users })
            }
            "user" => Some(rawdoc! { "v": described(self.user(user)?) }),
            "userState" => Some(rawdoc! { "v": self.user_state(user)?.name() }),
            "customData" => self.custom_data(user)?,
            "profile" => Some(self.profile(user)?),
            _ => return Err(Error::custom(format!("there is nothing to read called '{what}'"))),
        })
    }
}

/// Encodes the local data of a user.
fn described(user: UserView) -> RawDocumentBuf {
    let identities = user.identities.into_iter();
    let identities: RawArrayBuf =
        identities.map(|identity| rawdoc! { "id": identity.id, "providerType": identity.provider_type }).collect();
    rawdoc! {
        "id": user.id,
        "state": user.state.name(),
        "accessToken": user.access_token,
        "refreshToken": user.refresh_token,
        "deviceId": user.device_id,
        "identities": identities,
    }
}

/// Describes a user by the handle and the id.
fn entry(handle: Handle, id: &str) -> RawDocumentBuf {
    rawdoc! { "handle": i64::from(handle), "id": id }
}

fn credentials(payload: &RawDocument) -> Result<Credentials> {
    let missing = |key: &str| Error::custom(format!("the credentials need '{key}'"));
    let provider = payload.get_str("provider").map_err(|_| missing("provider"))?.to_owned();
    let payload = payload.get_document("payload").map_err(|_| missing("payload"))?.to_owned();
    Ok(Credentials { provider, payload: payload.into() })
}

fn api_key_action(action: &str, value: impl Fn() -> Result<String>) -> Result<ApiKeyAction> {
    Ok(match action {
        "create" => ApiKeyAction::Create { name: value()? },
        "fetch" => ApiKeyAction::Fetch { id: value()? },
        "delete" => ApiKeyAction::Delete { id: value()? },
        "enable" => ApiKeyAction::Enable { id: value()? },
        "disable" => ApiKeyAction::Disable { id: value()? },
        _ => ApiKeyAction::FetchAll,
    })
}

/// Encodes an API key in the format of the SDK: `{ _id, key?, name, disabled }`.
fn api_key(key: ApiKey) -> RawDocumentBuf {
    let mut document = rawdoc! { "_id": key.id, "name": key.name, "disabled": key.disabled };
    if let Some(secret) = &key.key {
        document.append(cstr!("key"), secret.expose());
    }
    document
}
