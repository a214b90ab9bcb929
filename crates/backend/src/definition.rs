//! The app definition, read from a directory that `appservices pull` or `realm-cli pull` exported.
//!
//! A definition does not load if it uses an unsupported feature that restricts access or checks
//! data. Other unsupported features and unknown keys are only reported.

mod custom_user_data;
mod data_sources;
mod files;
mod fingerprint;
mod functions;
mod indexes;
mod json;
mod layout;
mod reader;
mod report;
mod rules;
mod suggest;
mod templates;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path as FilePath,
    sync::Arc,
};

use serde_json::Value;
use store::Namespace;

pub use crate::auth::providers::Providers;
pub use custom_user_data::CustomUserData;
pub use data_sources::Service;
pub use functions::{Function, Functions, RunAs};
pub use report::{DefinitionError, Problem, Severity};

use crate::{
    constants::{Constants, EnvironmentValues, Values},
    secrets::Secrets,
};
use files::Files;
pub(crate) use fingerprint::Fingerprint;
pub(crate) use reader::Reader;
use report::Report;
pub(crate) use suggest::did_you_mean;

/// The definition of an app.
#[derive(Debug)]
pub struct Definition {
    /// The app's display name.
    pub name: Option<String>,
    /// The client app id, if the export contains it.
    pub app_id: Option<String>,
    /// The origins whose pages may make requests; if empty, all origins may.
    pub allowed_request_origins: Vec<String>,
    /// The enabled authentication providers.
    pub providers: Providers,
    /// The configuration of custom user data, if it is enabled.
    pub custom_user_data: Option<CustomUserData>,
    /// The data sources by the names that `mongoClient` takes.
    pub services: BTreeMap<String, Service>,
    /// The functions.
    pub functions: Functions,
    /// The selected environment with its values.
    pub environment: EnvironmentValues,
    /// The app's values, with the texts of secrets.
    pub values: Values,
    /// Problems that do not keep the definition from loading: parts of it that are not used.
    pub reported: Vec<Problem>,
    /// The directory that the definition was read from, for the log.
    pub origin: String,
    /// The state of the files before they were read.
    pub(crate) fingerprint: Fingerprint,
    /// The number of times that the app had read its definition again; 0 if another read it.
    pub(crate) reading: u64,
}

/// The parts of a definition that are known before its files are read one by one.
struct Known {
    /// The names of the data sources.
    sources: BTreeSet<String>,
    constants: Constants,
}

/// The result of [`Definition::check`].
#[derive(Debug)]
pub struct Checked {
    /// All problems, in the order in which they were found.
    pub problems: Vec<Problem>,
    /// True if the definition loads, and pages of any origin may make requests.
    pub allows_any_origin: bool,
    /// The functions, whose sources can only be checked by JavaScript.
    pub functions: Functions,
    /// The names of the functions that other parts of the definition mention.
    pub mentioned_functions: BTreeSet<String>,
    /// The name of the function that resets passwords, if there is one.
    pub reset_function: Option<String>,
}

impl Definition {
    /// Reads an export directory, in the layout of `appservices` or of `realm-cli`. The values of
    /// the definition get their secrets from `secrets` and from the file `secrets.json`.
    ///
    /// # Errors
    /// All problems that keep the definition from loading, each with its file and JSON path. All
    /// missing secrets are one problem.
    pub fn load(directory: &FilePath, secrets: &Secrets) -> Result<Self, DefinitionError> {
        let origin = directory.display().to_string();
        let fingerprint = Fingerprint::of(directory);
        let files = Files::read(directory)
            .map_err(|problem| DefinitionError { origin: origin.clone(), problems: vec![problem] })?;
        Ok(Self { fingerprint, ..Self::from_files(&files, origin, secrets)? })
    }

    /// Lists all problems of an export directory, whether or not they keep it from loading.
    /// Missing secrets are only reported, so that a definition can be checked without them.
    pub fn check(directory: &FilePath, secrets: &Secrets) -> Checked {
        let origin = directory.display().to_string();
        let files = match Files::read(directory) {
            Ok(files) => files,
            Err(problem) => {
                return Checked {
                    problems: vec![problem],
                    allows_any_origin: false,
                    functions: Functions::default(),
                    mentioned_functions: BTreeSet::new(),
                    reset_function: None,
                };
            }
        };
        let parsed = files.parse(&mut Report::default());
        let (definition, problems) = Self::read(&files, origin, secrets, Severity::Reported);
        let loads = problems.iter().all(|problem| problem.severity == Severity::Reported);
        Checked {
            problems,
            allows_any_origin: loads && definition.allowed_request_origins.is_empty(),
            mentioned_functions: functions::mentioned(&definition.functions, &parsed),
            reset_function: definition.providers.reset_function(),
            functions: definition.functions,
        }
    }

    /// Returns the built-in definition for development: anonymous and e-mail/password users with
    /// automatic confirmation, each of whom may read and write only the document of his or her own
    /// custom data.
    ///
    /// ```
    /// use backend::Definition;
    ///
    /// let definition = Definition::development().unwrap();
    /// assert!(definition.providers.is_enabled("anon-user"));
    /// assert!(definition.services.contains_key("mongodb-atlas"));
    /// ```
    ///
    /// # Errors
    /// None: a test checks that it loads.
    pub fn development() -> Result<Self, DefinitionError> {
        let origin = "the built-in development definition".into();
        Self::from_files(&Files::development(), origin, &Secrets::default())
    }

    /// Returns the files of the development definition as pairs of path and text, as a starting
    /// point for an app.
    pub fn development_files() -> Vec<(String, String)> {
        Files::development().into_texts().collect()
    }

    fn from_files(files: &Files, origin: String, secrets: &Secrets) -> Result<Self, DefinitionError> {
        let (mut definition, problems) = Self::read(files, origin, secrets, Severity::Refused);
        let (refused, reported): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Refused);
        if !refused.is_empty() {
            return Err(DefinitionError { origin: definition.origin, problems: refused });
        }
        definition.reported = reported;
        Ok(definition)
    }

    /// Returns the definition, which is complete unless a problem has the severity `Refused`, and
    /// its problems. `missing` is the severity of missing secrets.
    ///
    /// The constants are read first, because all other parts may refer to them.
    fn read(files: &Files, origin: String, secrets: &Secrets, missing: Severity) -> (Self, Vec<Problem>) {
        let mut report = Report::default();
        let mut parsed = files.parse(&mut report);
        let constants = values::read(files, &mut parsed, secrets, missing, &mut report);
        templates::expand(files, &mut parsed, &constants, &mut report);
        let mut definition = Self {
            name: None,
            app_id: None,
            allowed_request_origins: Vec::new(),
            providers: Providers::default(),
            custom_user_data: None,
            services: BTreeMap::new(),
            functions: functions::read(files, &parsed, &constants, &mut report),
            environment: EnvironmentValues::default(),
            values: Values::default(),
            reported: Vec::new(),
            origin,
            fingerprint: Fingerprint::default(),
            reading: 0,
        };
        let known = Known { sources: files.data_sources(), constants };
        for (path, value) in &parsed {
            definition.read_file(path, value, &known, &mut report);
        }
        if !parsed.contains_key("auth/providers.json") {
            report.refuse("auth/providers.json", "", "the file is missing; is this directory an app's export?");
        }
        if let Some(custom_user_data) = &definition.custom_user_data {
            definition.services.entry(custom_user_data.service.clone()).or_default();
        }
        Constants { environment: definition.environment, values: definition.values } = known.constants;
        (definition, report.into_problems())
    }

    fn read_file(&mut self, path: &str, value: &Value, known: &Known, report: &mut Report) {
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["root_config.json" | "realm_config.json"] => self.read_root(&mut Reader::new(path, value, report)),
            ["config.json" | "stitch.json" | "app_config.json"] => {
                report.refuse(
                    path,
                    "",
                    "the export layout of 2018 is not supported; export the app again with a current CLI",
                );
            }
            ["auth", "providers.json"] => {
                self.providers = Providers::read(&mut Reader::new(path, value, report), &self.functions);
            }
            ["auth", "custom_user_data.json"] => {
                let mut reader = Reader::new(path, value, report);
                self.custom_user_data = custom_user_data::read(&known.sources, &self.functions, &mut reader);
            }
            ["data_sources", service, ref rest @ ..] => {
                self.read_data_source(service, rest, path, value, known, report);
            }
            // These are read apart from the other files.
            ["environments" | "values", _] | ["functions", ..] => {}
            ["triggers", _] => note_trigger(path, value, &known.sources, report),
            ["http_endpoints" | "https_endpoints", "config.json"] => {
                unavailable(value, "HTTPS endpoints are not served", path, report);
            }
            ["http_endpoints" | "https_endpoints", "data_api_config.json"] => {
                if !value.get("disabled").is_some_and(|disabled| disabled == true) {
                    report.note(path, "", "the Data API is not served");
                }
            }
            ["sync", "config.json"] => unavailable(value, "Device Sync is not supported", path, report),
            ["graphql", ..] => {}
            ["log_forwarders" | "hosting" | "services", ..] => report.note(path, "", "not used"),
            _ => layout::note_unknown(path, &parts, report),
        }
    }

    /// Reads the file at `rest` in the directory of a data source.
    fn read_data_source(
        &mut self,
        service: &str,
        rest: &[&str],
        path: &str,
        value: &Value,
        known: &Known,
        report: &mut Report,
    ) {
        match *rest {
            ["config.json"] => {
                let read_preference = data_sources::read_config(service, &mut Reader::new(path, value, report));
                self.services.entry(service.to_owned()).or_default().read_preference = read_preference;
            }
            ["default_rule.json"] => {
                let rules = rules::read(&mut Reader::new(path, value, report), &known.constants);
                self.services.entry(service.to_owned()).or_default().default_rules = rules.map(Arc::new);
            }
            [database, collection, "rules.json"] => {
                data_sources::check_directory(service, database, collection, report);
                let rules = rules::read_of_collection(
                    database,
                    collection,
                    &mut Reader::new(path, value, report),
                    &known.constants,
                );
                if let Some(rules) = rules {
                    let collections = &mut self.services.entry(service.to_owned()).or_default().collections;
                    collections.insert(Namespace::new(database, collection), Arc::new(rules));
                }
            }
            [database, collection, "indexes.json"] => {
                data_sources::check_directory(service, database, collection, report);
                let indexes = indexes::read(path, value, report);
                let service = self.services.entry(service.to_owned()).or_default();
                service.indexes.push((Namespace::new(database, collection), indexes));
            }
            [database, collection, "collection.json"] => {
                data_sources::check_directory(service, database, collection, report);
                if data_sources::read_pre_images(&mut Reader::new(path, value, report)) {
                    let service = self.services.entry(service.to_owned()).or_default();
                    service.pre_images.push(Namespace::new(database, collection));
                }
            }
            [_, _, "schema.json"] => {
                if !value.as_object().is_some_and(serde_json::Map::is_empty) {
                    report.refuse(
                        path,
                        "",
                        "schema validation is not supported yet, and without it writes would go unchecked",
                    );
                }
            }
            [_, _, "relationships.json"] => {}
            _ => layout::note_unknown(path, &path.split('/').collect::<Vec<_>>(), report),
        }
    }

    fn read_root(&mut self, root: &mut Reader<'_>) {
        self.name = root.text("name");
        self.app_id = root.text("app_id").filter(|id| !id.is_empty());
        // The environment is read earlier, but only if it is a string.
        root.text("environment");
        // Known keys that are not used: they describe where the app ran.
        root.known(&["config_version", "deployment_model", "hosting", "location", "provider_region", "sync"]);
        for (index, origin) in root.array("allowed_request_origins").iter().enumerate() {
            match origin.as_str() {
                Some(origin) => self.allowed_request_origins.push(origin.trim_end_matches('/').to_owned()),
                None => root.refuse(&format!("allowed_request_origins[{index}]"), "expected a string"),
            }
        }
        root.finish();
    }
}

/// Reports a file of an unsupported feature unless it is empty.
fn unavailable(value: &Value, message: &str, path: &str, report: &mut Report) {
    let is_empty = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if !is_empty {
        report.note(path, "", message);
    }
}

/// Reports a trigger, and its data source if that is not defined.
fn note_trigger(path: &str, trigger: &Value, sources: &BTreeSet<String>, report: &mut Report) {
    report.note(path, "", "triggers do not run yet");
    let service = trigger.get("config").and_then(|config| config.get("service_name")).and_then(Value::as_str);
    if let Some(name) = service.filter(|name| !name.is_empty() && !sources.contains(*name)) {
        report.note(path, "$.config.service_name", &data_sources::undefined_data_source(name, sources));
    }
}

#[cfg(test)]
mod tests;
