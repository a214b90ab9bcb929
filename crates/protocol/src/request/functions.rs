use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocumentBuf},
};
use ejson::{Canonical, Json};
use serde::Serialize;

use super::{Form, Received, decoded, object, text, too_large, written};
use crate::{Endpoint, Error, Result, Secret};

/// A call of a function of the app, or of a function of a data source such as `find`.
#[derive(Debug, Clone, PartialEq)]
pub struct CallFunction {
    /// The access token of the user who calls.
    pub access_token: Secret,
    /// The name of the function.
    pub name: String,
    /// The arguments.
    pub arguments: Arguments,
}

/// The arguments of a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// The one argument of a data source's function: `{ database, collection, … }`.
    Service {
        /// The name of the data source.
        service: String,
        /// The argument.
        argument: RawDocumentBuf,
    },
    /// The arguments of a function of the app, in order. An `undefined` one is `Undefined`.
    Function(RawArrayBuf),
}

impl Arguments {
    /// The name of the data source, if it is one's function.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Function(_) => None,
        }
    }

    /// The size of the arguments as BSON, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Service { argument, .. } => argument.as_bytes().len(),
            Self::Function(arguments) => arguments.as_bytes().len(),
        }
    }

    /// The arguments as JSON had them.
    ///
    /// # Errors
    /// If a data source's function has not exactly one argument, a document; if they have more than
    /// `largest` bytes; or if they are not valid Extended JSON.
    fn decode(service: Option<String>, arguments: Vec<Json<'_>>, largest: usize) -> Result<Self> {
        let Some(service) = service else {
            return match decoded(Json::Array(arguments), largest)? {
                RawBson::Array(arguments) => Ok(Self::Function(arguments)),
                _ => Err(Error::bad_request("'arguments' must be an array")),
            };
        };
        let Ok([argument]) = <[Json<'_>; 1]>::try_from(arguments) else {
            return Err(Error::bad_request("a function of a data source takes one argument"));
        };
        match decoded(argument, largest)? {
            RawBson::Document(argument) => Ok(Self::Service { service, argument }),
            _ => Err(Error::bad_request("the argument must be a document")),
        }
    }
}

/// The body of a call, in the order in which realm-web writes it.
#[derive(Serialize)]
struct Body<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    arguments: Vec<Canonical<'a>>,
}

impl CallFunction {
    pub(super) fn decode(received: &Received<'_>) -> Result<Self> {
        Self::read(received.body, received.token()?, received.largest)
    }

    /// Reads a call from its JSON: a body, or the decoded query of a stream of events.
    ///
    /// # Errors
    /// If the JSON or its arguments are not valid, or have more than `largest` bytes as BSON.
    pub fn read(json: &[u8], access_token: Secret, largest: usize) -> Result<Self> {
        let mut body = object(json)?;
        let name = text(&body, "name")?;
        let service = body.get("service").map(|_| text(&body, "service")).transpose()?;
        let arguments = match body.remove("arguments") {
            None => Vec::new(),
            Some(Json::Array(arguments)) => arguments,
            Some(_) => return Err(Error::bad_request("'arguments' must be an array")),
        };
        let arguments = Arguments::decode(service, arguments, largest)?;
        if arguments.size() > largest {
            return Err(too_large(largest));
        }
        Ok(Self { access_token, name, arguments })
    }
}

impl Form for CallFunction {
    fn endpoint(&self) -> Endpoint {
        Endpoint::CallFunction
    }

    fn token(&self) -> Option<&Secret> {
        Some(&self.access_token)
    }

    fn body(&self) -> Result<Option<Vec<u8>>> {
        let damaged =
            |error: bson::error::Error| Error::bad_request(format!("the arguments are not valid BSON: {error}"));
        let arguments = match &self.arguments {
            Arguments::Service { argument, .. } => vec![Canonical(RawBsonRef::Document(argument))],
            Arguments::Function(arguments) => {
                let items = arguments.into_iter().map(|item| item.map(Canonical));
                items.collect::<Result<_, _>>().map_err(damaged)?
            }
        };
        written(&Body { name: &self.name, service: self.arguments.service(), arguments }).map(Some)
    }
}
