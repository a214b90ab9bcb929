//! The constants of an app definition: the values of its environment, and its own values with
//! their secrets. They are known before any other part of the definition is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Deref,
};

use serde_json::{Map, Value, json};

use crate::definition::did_you_mean;

/// The selected environment of an app
/// (<https://www.mongodb.com/docs/atlas/app-services/values-and-secrets/define-environment-values/>).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnvironmentValues {
    /// The name of the environment; empty if the definition selects none.
    pub tag: String,
    /// The values by their names, as JSON.
    pub values: Map<String, Value>,
}

/// The values of an app by their names, with the texts of secrets
/// (<https://www.mongodb.com/docs/atlas/app-services/values-and-secrets/define-a-value/>). Its
/// `Debug` output shows only the names.
#[derive(Clone, Default, PartialEq)]
pub struct Values {
    values: BTreeMap<String, Value>,
    /// The names of the values that contain a secret.
    secret: BTreeSet<String>,
}

impl Values {
    /// Returns the values that contain a secret.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Value> {
        self.secret.iter().filter_map(|name| self.values.get(name))
    }

    /// Adds a value. Returns false if there is one of this name already, which then stays.
    pub(crate) fn add(&mut self, name: &str, value: Value, is_secret: bool) -> bool {
        if self.values.contains_key(name) {
            return false;
        }
        self.values.insert(name.to_owned(), value);
        if is_secret {
            self.secret.insert(name.to_owned());
        }
        true
    }
}

impl Deref for Values {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

/// The constants that expressions and templates refer to.
///
/// ```
/// use backend::constants::{Constants, EnvironmentValues};
///
/// let environment = EnvironmentValues { tag: "testing".into(), ..EnvironmentValues::default() };
/// let constants = Constants { environment, ..Constants::default() };
/// assert_eq!(constants.find("environment.tag").unwrap().unwrap(), "testing");
/// assert!(constants.find("values.none").unwrap().is_err());
/// assert!(constants.find("user.id").is_none());
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constants {
    /// The selected environment: `%%environment`.
    pub environment: EnvironmentValues,
    /// The app's values: `%%values`.
    pub values: Values,
}

impl Constants {
    /// Returns the constant that an expansion refers to, given without its `%%`; `None` if the
    /// expansion refers to something else.
    ///
    /// # Errors
    /// The message about a constant that does not exist.
    pub fn find(&self, name: &str) -> Option<Result<Value, String>> {
        let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
        match kind {
            "values" => Some(self.value(rest)),
            "environment" => Some(self.of_environment(rest)),
            _ => None,
        }
    }

    /// True if an expansion refers to a value that contains a secret.
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        let Some(name) = name.strip_prefix("values.") else { return false };
        let is_its =
            |secret: &String| name.strip_prefix(secret).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.values.secret.iter().any(is_its)
    }

    fn value(&self, name: &str) -> Result<Value, String> {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        let Some(value) = self.values.get(first) else {
            let suggestion = did_you_mean(first, self.values.keys().map(String::as_str));
            return Err(format!("there is no value '{first}'{suggestion}"));
        };
        at(value, rest).cloned().ok_or_else(|| format!("the value '{first}' has no field '{rest}'"))
    }

    fn of_environment(&self, path: &str) -> Result<Value, String> {
        let EnvironmentValues { tag, values } = &self.environment;
        match path.split_once('.').unwrap_or((path, "")) {
            ("", _) => Ok(json!({ "tag": tag, "values": values })),
            ("tag", "") => Ok(Value::String(tag.clone())),
            ("values", "") => Ok(Value::Object(values.clone())),
            ("values", name) => {
                let (first, rest) = name.split_once('.').unwrap_or((name, ""));
                let value = values.get(name).or_else(|| at(values.get(first)?, rest));
                value.cloned().ok_or_else(|| {
                    let suggestion = did_you_mean(name, values.keys().map(String::as_str));
                    format!("the environment has no value for %%environment.values.{name}{suggestion}")
                })
            }
            _ => Err(format!("there is no %%environment.{path}: it has 'tag' and 'values'")),
        }
    }
}

/// Returns the part of a JSON value at a path of field names and indexes.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(value, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        value => value.get(part),
    })
}
