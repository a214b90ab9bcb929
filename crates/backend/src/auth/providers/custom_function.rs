//! The provider `custom-function`: a function of the operator's authenticates users
//! (<https://www.mongodb.com/docs/atlas/app-services/authentication/custom-function/>).

use std::sync::Arc;

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
    rawdoc,
};
use futures_util::future::{BoxFuture, FutureExt};
use protocol::SecretDocument;
use serde_json::Value;

use super::{NewUser, Proven, Provider};
use crate::{
    Error, ErrorCode, RequestContext, Result,
    context::Context,
    definition::{Functions, Reader},
    functions::{Hook, arguments, is_of_function, kind, run_hook},
    request::Action,
};

/// The maximum length of the id that a function returns, in bytes.
const LONGEST_ID: usize = 1024;

/// The maximum length of the name that a function returns, in bytes.
const LONGEST_NAME: usize = 4096;

/// The configuration of the provider.
#[derive(Debug)]
struct CustomFunction {
    /// The name of the function; `None` if the definition has none, and log-ins fail.
    function: Option<String>,
}

pub(super) fn read(provider: &mut Reader<'_>, functions: &Functions) -> Arc<dyn Provider> {
    let config = provider.get("config").cloned().unwrap_or(Value::Object(serde_json::Map::new()));
    let mut config = provider.inside(".config", &config);
    let function = functions.named_by(&mut config, "authFunctionName", "log-ins with it are rejected");
    if function.is_none() {
        config.note_missing("authFunctionName", "is missing, and log-ins with the provider are rejected");
    }
    config.known(&["authFunctionId"]);
    config.finish();
    Arc::new(CustomFunction { function })
}

impl Provider for CustomFunction {
    fn account<'p>(&self, _: &'p SecretDocument) -> Result<Option<&'p str>> {
        Ok(None)
    }

    fn creates_users(&self, action: Option<Action>) -> bool {
        action.is_none()
    }

    fn runs_function(&self, action: Option<Action>) -> bool {
        action.is_none()
    }

    fn authenticate<'a>(
        &'a self,
        context: &'a Arc<Context>,
        payload: &'a SecretDocument,
        circumstances: &'a RequestContext,
    ) -> BoxFuture<'a, Result<Proven>> {
        async {
            let function = self.function.as_deref().ok_or_else(|| Error::new(ErrorCode::AuthError, "unauthorized"))?;
            let payload = arguments(&without_options(payload.expose()), []);
            let answer = run_hook(context, Hook::Authentication, function, payload, circumstances, None).await;
            let identity = identity_of(answer.map_err(refused)?)?;
            let provider = protocol::provider::CUSTOM_FUNCTION;
            let Some(user) = context.users.by_name(provider, &identity.id).await? else {
                return Ok(Proven::NewUser(new_user(identity)));
            };
            if let Some(name) = &identity.name
                && !user.disabled
                && user.data.get_str("name").ok() != Some(name.as_str())
            {
                context.users.set_name(user.id, name).await?;
            }
            Ok(Proven::User(user))
        }
        .boxed()
    }
}

/// Returns a payload without the options that the SDK adds for the device.
fn without_options(payload: &RawDocument) -> RawDocumentBuf {
    let mut kept = RawDocumentBuf::new();
    for (key, value) in query::elements(payload).filter(|(key, _)| *key != "options") {
        query::append(&mut kept, key, value);
    }
    kept
}

/// The user whom a function has authenticated.
#[derive(Debug, PartialEq)]
struct Identity {
    /// The operator's unique id of the user, which is not the user's id in the app.
    id: String,
    name: Option<String>,
}

fn new_user(identity: Identity) -> NewUser {
    let Identity { id, name } = identity;
    NewUser {
        provider: protocol::provider::CUSTOM_FUNCTION,
        identity_id: Some(id.clone()),
        name: id,
        data: name.map_or_else(RawDocumentBuf::new, |name| rawdoc! { "name": name }),
        password_hash: None,
        expires: false,
    }
}

/// Returns the client's error of a function that fails: the function's own message.
fn refused(error: Error) -> Error {
    if !is_of_function(&error) || error.code == ErrorCode::ExecutionTimeLimitExceeded {
        return error;
    }
    Error { logged: error.logged, ..Error::new(ErrorCode::AuthError, error.message) }
}

/// Reads the answer of a function: a string, or `{ id, name }`.
fn identity_of(answer: RawBson) -> Result<Identity> {
    let wrong = |what: &str| {
        let message = format!("the authentication function must return a string or {{ id, name }}, and not {what}");
        Error::new(ErrorCode::AuthError, message)
    };
    let (id, name) = match answer {
        RawBson::String(id) => (id, None),
        RawBson::Document(answer) => {
            let id = match answer.get("id").ok().flatten() {
                Some(RawBsonRef::String(id)) => id.to_owned(),
                Some(other) => return Err(wrong(&format!("{} as the id", kind(other)))),
                None => return Err(wrong("an object without an id")),
            };
            let name = match answer.get("name").ok().flatten() {
                Some(RawBsonRef::String(name)) => Some(name.to_owned()),
                None | Some(RawBsonRef::Null | RawBsonRef::Undefined) => None,
                Some(other) => return Err(wrong(&format!("{} as the name", kind(other)))),
            };
            (id, name)
        }
        other => return Err(wrong(kind(other.as_raw_bson_ref()))),
    };
    // Surrogates without a partner have become such characters, and different ids would be equal.
    if id.contains(char::REPLACEMENT_CHARACTER) {
        return Err(wrong("an id that is not well-formed Unicode"));
    }
    if id.is_empty() {
        return Err(wrong("an empty id"));
    }
    if id.len() > LONGEST_ID || name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME) {
        return Err(wrong(&format!("an id of more than {LONGEST_ID} or a name of more than {LONGEST_NAME} bytes")));
    }
    Ok(Identity { id, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_string_or_an_object() {
        let read = |answer: RawBson| identity_of(answer).map_err(|error| error.message.into_owned());
        let named = |id: &str, name: Option<&str>| Ok(Identity { id: id.to_owned(), name: name.map(str::to_owned) });
        assert_eq!(read(RawBson::String("a".to_owned())), named("a", None));
        assert_eq!(read(rawdoc! { "id": "a", "name": "A" }.into()), named("a", Some("A")));
        assert_eq!(read(rawdoc! { "id": "a", "name": null }.into()), named("a", None));
        let message = "the authentication function must return a string or { id, name }, and not ";
        for (answer, what) in [
            (RawBson::ObjectId(bson::oid::ObjectId::new()), "an ObjectId"),
            (RawBson::Undefined, "nothing"),
            (RawBson::String(String::new()), "an empty id"),
            (RawBson::String("a\u{fffd}".to_owned()), "an id that is not well-formed Unicode"),
            (rawdoc! { "id": "\u{fffd}" }.into(), "an id that is not well-formed Unicode"),
            (rawdoc! { "id": 5 }.into(), "a number as the id"),
            (rawdoc! { "name": "A" }.into(), "an object without an id"),
            (rawdoc! { "id": "a", "name": 1 }.into(), "a number as the name"),
        ] {
            assert_eq!(read(answer), Err(format!("{message}{what}")));
        }
        assert!(read(RawBson::String("a".repeat(1025))).is_err());
    }
}
