//! The operator's functions: requests to the backend, and the HTTP server.

use std::path::PathBuf;

use backend::AdminRequest;
use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};
use client::Error;
use napi::{Env, bindgen_prelude::External};
use napi_derive::napi;

use crate::{
    bridge::Bridge,
    operations::{address, document, wrap},
    outbox::Started,
};

/// Carries out a request of the operator by its name. `payload` is a document of its parameters.
#[napi]
pub(crate) fn admin(
    env: &Env,
    bridge: &External<Bridge>,
    handle: u32,
    operation: String,
    payload: &[u8],
) -> napi::Result<Started> {
    let payload = document(payload)?;
    bridge.run(env, handle, false, |opened| async move {
        let request = request(&operation, &payload)?;
        match opened.embedded()?.backend().admin().run(request, opened.progress()).await? {
            RawBson::Null => Ok(None),
            value => Ok(wrap(&value)),
        }
    })
}

fn request(operation: &str, payload: &RawDocument) -> Result<AdminRequest, Error> {
    let text = |name: &str| {
        payload.get_str(name).map(str::to_owned).map_err(|_| Error::custom(format!("{operation} needs '{name}'")))
    };
    let path = |name: &str| text(name).map(PathBuf::from);
    let flag = |name: &str| match payload.get(name) {
        Ok(Some(RawBsonRef::Boolean(flag))) => Ok(flag),
        Ok(None) => Ok(false),
        _ => Err(Error::custom(format!("{operation} needs '{name}' to be true or false"))),
    };
    Ok(match operation {
        "rotateKeys" => AdminRequest::RotateKeys,
        "storedApps" => AdminRequest::StoredApps,
        "backup" => AdminRequest::Backup { file: path("file")? },
        "export" => AdminRequest::Export { directory: path("directory")? },
        "import" => AdminRequest::Import { directory: path("directory")?, ignore_indexes: flag("ignoreIndexes")? },
        "migrate" => {
            let names = payload.get_array("databases").map_err(|_| Error::custom("migrate needs 'databases'"))?;
            let name = |name: bson::error::Result<RawBsonRef<'_>>| name.ok()?.as_str().map(str::to_owned);
            let databases: Option<Vec<String>> = names.into_iter().map(name).collect();
            let databases = databases.ok_or_else(|| Error::custom("a database's name must be a string"))?;
            AdminRequest::Migrate { to: address(&text("to")?), databases, ignore_indexes: flag("ignoreIndexes")? }
        }
        "check" => AdminRequest::Check { repair: flag("repair")? },
        _ => return Err(Error::custom(format!("there is no operation '{operation}'"))),
    })
}
