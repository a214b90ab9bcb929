//! The secrets of an app: given by the operator, because an export never contains them.

use std::collections::BTreeMap;

use protocol::Secret;

/// The prefix of the environment variables that hold secrets.
const VARIABLE: &str = "USERKEEP_SECRET_";

/// The secrets of an app by their names. The `Debug` output shows only the names.
///
/// A secret given by name takes precedence over one in `secrets.json`, and that over one in an
/// environment variable.
///
/// ```
/// use backend::Secrets;
///
/// let given = [("apiKey".to_owned(), "k3y".to_owned())];
/// let variables = [("USERKEEP_SECRET_MAIL".to_owned(), "hidden".to_owned())];
/// let secrets = Secrets::new(given).with_variables(variables);
/// assert!(!format!("{secrets:?}").contains("k3y") && !format!("{secrets:?}").contains("hidden"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Secrets {
    given: BTreeMap<String, Secret>,
    /// The contents of `secrets.json`.
    file: BTreeMap<String, Secret>,
    /// The contents of the environment variables, by the rest of their names.
    variables: BTreeMap<String, Secret>,
}

impl Secrets {
    /// Creates the secrets that the option `secrets` gives.
    pub fn new(given: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { given: protected(given), ..Self::default() }
    }

    /// Adds the secrets in environment variables, given by their complete names. Variables that do
    /// not begin with `USERKEEP_SECRET_` are ignored.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter();
        self.variables =
            protected(variables.filter_map(|(name, text)| Some((name.strip_prefix(VARIABLE)?.to_owned(), text))));
        self
    }

    /// Adds the secrets of `secrets.json`.
    pub(crate) fn with_file(mut self, file: impl IntoIterator<Item = (String, String)>) -> Self {
        self.file = protected(file);
        self
    }

    /// Returns the secret of a name. An empty one counts as missing: it would protect nothing.
    ///
    /// A variable may spell the name as it is, or as shells can: in upper case, with `_` for every
    /// character that is neither a letter nor a digit.
    pub(crate) fn get(&self, name: &str) -> Option<&Secret> {
        let is_usable = |secret: &&Secret| !secret.expose().is_empty();
        let spelled = || self.variables.get(&in_upper_case(name)).filter(is_usable);
        let places = [&self.given, &self.file, &self.variables];
        places.into_iter().find_map(|place| place.get(name).filter(is_usable)).or_else(spelled)
    }

    /// Returns the name of the environment variable for a secret, as shells can spell it.
    pub(crate) fn variable(name: &str) -> String {
        format!("{VARIABLE}{}", in_upper_case(name))
    }
}

fn protected(texts: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, Secret> {
    texts.into_iter().map(|(name, text)| (name, Secret::from(text))).collect()
}

fn in_upper_case(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }).collect()
}
