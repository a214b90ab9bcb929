use bson::{
    RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocumentBuf},
};
use ejson::{Canonical, DecodedCall, Json};
use serde::Serialize;

use super::{Form, Received, decoded, object, text, too_large, written};
use crate::{Endpoint, Error, Result, Secret};

/// A call of a function of the app, or of a function of a data source such as `find`.
#[derive(Debug, Clone, PartialEq)]
pub struct CallFunction {
    /// The access token of the calling user.
    pub access_token: Secret,
    /// The name of the function.
    pub name: String,
    /// The arguments.
    pub arguments: Arguments,
}

/// The arguments of a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// The only argument of a data source's function: `{ database, collection, … }`.
    Service {
        /// The name of the data source.
        service: String,
        /// The argument.
        argument: RawDocumentBuf,
    },
    /// The arguments of a function of the app, in order. `undefined` is passed as BSON
    /// `Undefined`.
    Function(RawArrayBuf),
}

impl Arguments {
    /// Returns the name of the data source if the function belongs to one.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Function(_) => None,
        }
    }

    /// Returns the size of the arguments, in bytes of BSON.
    pub fn size(&self) -> usize {
        match self {
            Self::Service { argument, .. } => argument.as_bytes().len(),
            Self::Function(arguments) => arguments.as_bytes().len(),
        }
    }

    /// Converts the arguments from JSON.
    ///
    /// # Errors
    /// - If a data source's function does not have exactly one argument, which must be a document.
    /// - If the arguments have more than `largest` bytes as BSON.
    /// - If the arguments are not valid Extended JSON.
    fn decode(service: Option<String>, arguments: Vec<Json<'_>>, largest: usize) -> Result<Self> {
        let Some(service) = service else {
            return match decoded(Json::Array(arguments), largest)? {
                RawBson::Array(arguments) => Ok(Self::Function(arguments)),
                _ => Err(not_an_array()),
            };
        };
        let Ok([argument]) = <[Json<'_>; 1]>::try_from(arguments) else { return Err(not_one_argument()) };
        match decoded(argument, largest)? {
            RawBson::Document(argument) => Ok(Self::Service { service, argument }),
            _ => Err(not_a_document()),
        }
    }

    /// Converts the arguments of a call that was decoded while it arrived.
    fn of_decoded(service: Option<String>, arguments: Option<ejson::Arguments>) -> Result<Self> {
        if arguments.as_ref().is_some_and(|arguments| !arguments.is_array()) {
            return Err(not_an_array());
        }
        match (service, arguments) {
            (Some(service), Some(arguments)) if arguments.count() == 1 => {
                let argument = arguments.into_only_document()?.ok_or_else(not_a_document)?;
                Ok(Self::Service { service, argument })
            }
            (Some(_), _) => Err(not_one_argument()),
            (None, None) => Ok(Self::Function(RawArrayBuf::new())),
            (None, Some(arguments)) => {
                let all = arguments.into_all()?;
                let items = all.get_array("arguments").map_err(|_| not_an_array())?;
                Ok(Self::Function(items.to_owned()))
            }
        }
    }
}

fn not_an_array() -> Error {
    Error::bad_request("'arguments' must be an array")
}

fn not_one_argument() -> Error {
    Error::bad_request("a function of a data source takes one argument")
}

fn not_a_document() -> Error {
    Error::bad_request("the argument must be a document")
}

/// The name of a function, and the name of its service if it has one.
fn names(head: &Json<'_>) -> Result<(String, Option<String>)> {
    let name = text(head, "name")?;
    let service = head.get("service").map(|_| text(head, "service")).transpose()?;
    Ok((name, service))
}

/// The body of a call, with the members in the same order as in realm-web.
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

    /// Reads a call from JSON: a request body, or the decoded query of a stream of events.
    ///
    /// # Errors
    /// If the JSON or the arguments are not valid, or if the arguments have more than `largest`
    /// bytes as BSON.
    pub fn read(json: &[u8], access_token: Secret, largest: usize) -> Result<Self> {
        let mut body = object(json)?;
        let (name, service) = names(&body)?;
        let arguments = match body.remove("arguments") {
            None => Vec::new(),
            Some(Json::Array(arguments)) => arguments,
            Some(_) => return Err(not_an_array()),
        };
        Self::checked(access_token, name, Arguments::decode(service, arguments, largest)?, largest)
    }

    /// Creates the request from a call that was decoded while it arrived.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub fn of_decoded(call: DecodedCall, access_token: Secret, largest: usize) -> Result<Self> {
        let (name, service) = names(&call.head)?;
        Self::checked(access_token, name, Arguments::of_decoded(service, call.arguments)?, largest)
    }

    fn checked(access_token: Secret, name: String, arguments: Arguments, largest: usize) -> Result<Self> {
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
