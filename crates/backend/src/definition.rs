//! The app definition, read from a directory that `appservices pull` or `realm-cli pull` exported.
//!
//! A definition does not load if it uses an unsupported feature that restricts access or checks
//! data. Other unsupported features and unknown keys are only reported.

mod files;
mod json;
mod reader;
mod report;
mod rules;
mod suggest;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path as FilePath,
    sync::Arc,
};

use query::Path;
use serde_json::Value;
use store::{Index, Namespace, ReadPreference};

pub use crate::auth::providers::Providers;
pub use report::{DefinitionError, Problem, Severity};

use crate::rules::RuleSet;
use files::Files;
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
    /// Problems that do not keep the definition from loading: parts of it that are not used.
    pub reported: Vec<Problem>,
    /// The directory that the definition was read from, for the log.
    pub origin: String,
}

/// The configuration of custom user data, `auth/custom_user_data.json`.
#[derive(Debug, Clone)]
pub struct CustomUserData {
    /// The name of the data source.
    pub service: String,
    /// The collection that contains the custom data.
    pub namespace: Namespace,
    /// The field that contains the user's id, as a string or an ObjectId.
    pub user_id_field: Path,
}

/// The result of [`Definition::check`].
#[derive(Debug)]
pub struct Checked {
    /// All problems, in the order of the files.
    pub problems: Vec<Problem>,
    /// True if the definition loads, and pages of any origin may make requests.
    pub allows_any_origin: bool,
}

/// A data source: its rules, its indexes and its options.
#[derive(Debug, Default)]
pub struct Service {
    /// The rules of collections without rules of their own.
    pub default_rules: Option<Arc<RuleSet>>,
    /// The rules of collections.
    pub collections: HashMap<Namespace, Arc<RuleSet>>,
    /// The indexes of collections, from `indexes.json` beside their rules.
    pub indexes: Vec<(Namespace, Vec<Index>)>,
    /// The collections with pre-images (`changeStreamPreAndPostImages`), from `collection.json`
    /// beside their rules.
    pub pre_images: Vec<Namespace>,
    /// The read preference on a replica set, if the data source has one.
    pub read_preference: Option<ReadPreference>,
}

impl Service {
    /// Returns the rules of a collection: its own if they have a role, or else the default rules.
    /// The two are never combined.
    pub fn rules(&self, namespace: &Namespace) -> Option<&Arc<RuleSet>> {
        self.collections.get(namespace).or(self.default_rules.as_ref())
    }
}

impl Definition {
    /// Reads an export directory, in the layout of `appservices` or of `realm-cli`.
    ///
    /// # Errors
    /// All problems that keep the definition from loading, each with its file and JSON path.
    pub fn load(directory: &FilePath) -> Result<Self, DefinitionError> {
        let origin = directory.display().to_string();
        let files = Files::read(directory)
            .map_err(|problem| DefinitionError { origin: origin.clone(), problems: vec![problem] })?;
        Self::from_files(files, origin)
    }

    /// Lists all problems of an export directory, whether or not they keep it from loading.
    pub fn check(directory: &FilePath) -> Checked {
        let origin = directory.display().to_string();
        let files = match Files::read(directory) {
            Ok(files) => files,
            Err(problem) => return Checked { problems: vec![problem], allows_any_origin: false },
        };
        let (definition, problems) = Self::read(&files, origin);
        let loads = problems.iter().all(|problem| problem.severity == Severity::Reported);
        Checked { problems, allows_any_origin: loads && definition.allowed_request_origins.is_empty() }
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
        Self::from_files(Files::development(), "the built-in development definition".into())
    }

    /// Returns the files of the development definition as pairs of path and text, as a starting
    /// point for an app.
    pub fn development_files() -> Vec<(String, String)> {
        Files::development().into_texts().collect()
    }

    fn from_files(files: Files, origin: String) -> Result<Self, DefinitionError> {
        let (mut definition, problems) = Self::read(&files, origin);
        let (refused, reported): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Refused);
        if !refused.is_empty() {
            return Err(DefinitionError { origin: definition.origin, problems: refused });
        }
        definition.reported = reported;
        Ok(definition)
    }

    /// Returns the definition, which is complete unless a problem has the severity `Refused`, and
    /// its problems.
    fn read(files: &Files, origin: String) -> (Self, Vec<Problem>) {
        let mut report = Report::default();
        let parsed = files.parse(&mut report);
        let mut definition = Self {
            name: None,
            app_id: None,
            allowed_request_origins: Vec::new(),
            providers: Providers::default(),
            custom_user_data: None,
            services: BTreeMap::new(),
            reported: Vec::new(),
            origin,
        };
        let data_sources = files.data_sources();
        for (path, value) in &parsed {
            definition.read_file(path, value, &data_sources, &mut report);
        }
        if !parsed.contains_key("auth/providers.json") {
            report.refuse("auth/providers.json", "", "the file is missing; is this directory an app's export?");
        }
        if let Some(custom_user_data) = &definition.custom_user_data {
            definition.services.entry(custom_user_data.service.clone()).or_default();
        }
        (definition, report.into_problems())
    }

    fn read_file(&mut self, path: &str, value: &Value, data_sources: &BTreeSet<String>, report: &mut Report) {
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
            ["auth", "providers.json"] => self.providers = Providers::read(&mut Reader::new(path, value, report)),
            ["auth", "custom_user_data.json"] => {
                self.custom_user_data = read_custom_user_data(data_sources, &mut Reader::new(path, value, report));
            }
            ["data_sources", service, "config.json"] => {
                let read_preference = read_service(service, &mut Reader::new(path, value, report));
                self.services.entry(service.to_owned()).or_default().read_preference = read_preference;
            }
            ["data_sources", service, "default_rule.json"] => {
                let rules = rules::read(&mut Reader::new(path, value, report));
                self.services.entry(service.to_owned()).or_default().default_rules = rules.map(Arc::new);
            }
            ["data_sources", service, database, collection, "rules.json"] => {
                check_directory(service, database, collection, report);
                let rules = rules::read_of_collection(database, collection, &mut Reader::new(path, value, report));
                if let Some(rules) = rules {
                    let collections = &mut self.services.entry(service.to_owned()).or_default().collections;
                    collections.insert(Namespace::new(database, collection), Arc::new(rules));
                }
            }
            ["data_sources", service, database, collection, "indexes.json"] => {
                check_directory(service, database, collection, report);
                let indexes = read_indexes(path, value, report);
                let service = self.services.entry(service.to_owned()).or_default();
                service.indexes.push((Namespace::new(database, collection), indexes));
            }
            ["data_sources", service, database, collection, "collection.json"] => {
                check_directory(service, database, collection, report);
                if read_pre_images(&mut Reader::new(path, value, report)) {
                    let service = self.services.entry(service.to_owned()).or_default();
                    service.pre_images.push(Namespace::new(database, collection));
                }
            }
            ["data_sources", _, _, _, "schema.json"] => {
                if !value.as_object().is_some_and(serde_json::Map::is_empty) {
                    report.refuse(
                        path,
                        "",
                        "schema validation is not supported yet, and without it writes would go unchecked",
                    );
                }
            }
            ["data_sources", _, _, _, "relationships.json"] => {}
            ["environments", _] => {}
            ["functions", "config.json"] => unavailable(value, "functions cannot be called yet", path, report),
            ["functions", ..] => {}
            ["triggers", _] => note_trigger(path, value, data_sources, report),
            ["values", _] => report.note(path, "", "values are not available yet"),
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
            _ => note_unknown(path, &parts, report),
        }
    }

    fn read_root(&mut self, root: &mut Reader<'_>) {
        self.name = root.text("name");
        self.app_id = root.text("app_id").filter(|id| !id.is_empty());
        // Known keys that are not used here: the environment is read earlier, and others describe
        // where the app ran.
        root.known(&[
            "config_version",
            "deployment_model",
            "environment",
            "hosting",
            "location",
            "provider_region",
            "sync",
        ]);
        for (index, origin) in root.array("allowed_request_origins").iter().enumerate() {
            match origin.as_str() {
                Some(origin) => self.allowed_request_origins.push(origin.trim_end_matches('/').to_owned()),
                None => root.refuse(&format!("allowed_request_origins[{index}]"), "expected a string"),
            }
        }
        root.finish();
    }
}

/// The directories of an export.
const DIRECTORIES: &[&str] = &[
    "auth",
    "data_sources",
    "environments",
    "functions",
    "graphql",
    "hosting",
    "http_endpoints",
    "https_endpoints",
    "log_forwarders",
    "services",
    "sync",
    "triggers",
    "values",
];

/// True if the contents of the file at `path` are read. Other files need not be JSON.
fn is_read(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts[..],
        ["root_config.json" | "realm_config.json"]
            | ["auth", "providers.json" | "custom_user_data.json"]
            | ["data_sources", _, "config.json" | "default_rule.json"]
            | ["data_sources", _, _, _, "rules.json" | "indexes.json" | "collection.json" | "schema.json"]
            | ["environments" | "triggers" | "values", _]
            | ["functions" | "sync", "config.json"]
            | ["http_endpoints" | "https_endpoints", "config.json" | "data_api_config.json"]
    )
}

/// Reports a file in an export's directories that is unknown, or any file whose name resembles a
/// known one. Other files do not belong to the export.
fn note_unknown(path: &str, parts: &[&str], report: &mut Report) {
    let known: &[&str] = match parts {
        ["auth", _] => &["providers.json", "custom_user_data.json"],
        ["data_sources", _, _] => &["config.json", "default_rule.json"],
        ["data_sources", _, _, _, _] => {
            &["rules.json", "indexes.json", "collection.json", "schema.json", "relationships.json"]
        }
        [directory, _, ..] if !DIRECTORIES.contains(directory) => DIRECTORIES,
        [_] => &["root_config.json", "realm_config.json"],
        _ => &[],
    };
    let is_part = parts.len() > 1 && DIRECTORIES.contains(&parts[0]);
    let name = if is_part { parts[parts.len() - 1] } else { parts[0] };
    // All names end with `.json`, so the ending would make them similar.
    let stem = |name: &str| name.trim_end_matches(".json").to_owned();
    let stems: Vec<_> = known.iter().map(|known| stem(known)).collect();
    let meant = suggest::closest(&stem(name), stems.iter().map(String::as_str));
    let meant = meant.and_then(|meant| known.iter().find(|known| stem(known) == meant));
    match meant {
        Some(meant) => report.note(path, "", &format!("the file is not known and not used; did you mean '{meant}'?")),
        None if is_part => report.note(path, "", "the file is not known and not used"),
        None => {}
    }
}

/// Checks that MongoDB accepts the names that a collection's directory stands for. A database name
/// that it rejects is one problem, however many collections the database has.
fn check_directory(service: &str, database: &str, collection: &str, report: &mut Report) {
    if let Err((part, message)) = check_names(database, collection) {
        let directory = match part {
            NamePart::Database => format!("data_sources/{service}/{database}"),
            NamePart::Collection => format!("data_sources/{service}/{database}/{collection}"),
        };
        report.refuse(&directory, "", &message);
    }
}

/// The part of a full name that MongoDB rejects.
enum NamePart {
    Database,
    Collection,
}

/// Checks that MongoDB accepts the names.
fn check_names(database: &str, collection: &str) -> Result<(), (NamePart, String)> {
    // The shortest name of a collection shows if the database's name is wrong by itself.
    let is_database_valid = Namespace::new(database, "c").check().is_ok();
    Namespace::new(database, collection).check().map_err(|error| {
        let part = if is_database_valid { NamePart::Collection } else { NamePart::Database };
        (part, error.to_string())
    })
}

/// Reports a trigger, and its data source if that is not defined.
fn note_trigger(path: &str, trigger: &Value, data_sources: &BTreeSet<String>, report: &mut Report) {
    report.note(path, "", "triggers do not run yet");
    let service = trigger.get("config").and_then(|config| config.get("service_name")).and_then(Value::as_str);
    if let Some(name) = service.filter(|name| !name.is_empty() && !data_sources.contains(*name)) {
        report.note(path, "$.config.service_name", &undefined_data_source(name, data_sources));
    }
}

/// Reads a list of indexes in the format of `createIndexes`, as Extended JSON. The file is
/// Userkeep's addition to the export.
fn read_indexes(path: &str, value: &Value, report: &mut Report) -> Vec<Index> {
    let Value::Array(items) = value else {
        report.refuse(
            path,
            "",
            "expected a list of indexes, each as createIndexes takes it: [{ \"key\": { \"field\": 1 } }]",
        );
        return Vec::new();
    };
    // The indexes to create, with their places in the file.
    let mut indexes: Vec<(usize, Index)> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let index = bson::Bson::try_from(item.clone())
            .ok()
            .and_then(|item| bson::raw::RawDocumentBuf::try_from(item.as_document()?.clone()).ok())
            .ok_or_else(|| "expected an index in Extended JSON".to_owned())
            .and_then(|item| {
                query::validate(&item).map_err(|error| error.to_string())?;
                let index = Index::parse(&item).map_err(|error| error.to_string())?;
                Ok(is_new(&index, &indexes)?.then_some(index))
            });
        match index {
            // The index on `_id` counts too, and one problem stands for all that are too many.
            Ok(Some(_)) if indexes.len() + 1 >= MOST_INDEXES => {
                let message =
                    format!("too many indexes: a collection has up to {MOST_INDEXES}, including the one on _id");
                report.refuse(path, &format!("$[{place}]"), &message);
                break;
            }
            Ok(Some(index)) => indexes.push((place, index)),
            Ok(None) => {}
            Err(message) => report.refuse(path, &format!("$[{place}]"), &message),
        }
    }
    indexes.into_iter().map(|(_, index)| index).collect()
}

/// Returns true if an index is to be created beside the earlier ones of its file, and false if it
/// exists already.
///
/// # Errors
/// If no store can create the index.
fn is_new(index: &Index, earlier: &[(usize, Index)]) -> Result<bool, String> {
    if let [(path, _)] = index.keys.fields()
        && *path == Path::new("_id")
    {
        let is_ascending = index.keys == query::KeyPattern::of(Path::new("_id"));
        let message = "the index on _id alone is ascending, and every collection has it";
        return if is_ascending { Ok(false) } else { Err(message.to_owned()) };
    }
    if index.name == "_id_" {
        return Err("the index name '_id_' is for the index on _id alone".to_owned());
    }
    for (place, other) in earlier {
        if other == index {
            return Ok(false);
        }
        if other.name == index.name {
            return Err(format!("the index $[{place}] has the same name '{}'", index.name));
        }
        let options = |index: &Index| (index.keys.clone(), index.partial.clone(), index.unique, index.sparse);
        if options(other) == options(index) {
            return Err(format!("the index $[{place}] has the same fields and options"));
        }
    }
    Ok(true)
}

/// The maximum number of indexes of a collection
/// (<https://www.mongodb.com/docs/manual/reference/limits/#indexes>).
const MOST_INDEXES: usize = 64;

/// Reads `{ "changeStreamPreAndPostImages": { "enabled": true } }`, as `create` and `collMod` take
/// it. The file is Userkeep's addition to the export.
fn read_pre_images(reader: &mut Reader<'_>) -> bool {
    const OPTION: &str = "changeStreamPreAndPostImages";
    let only = |reader: &mut Reader<'_>, known: &str| {
        let unknown: Vec<_> = reader.keys().map(|(key, _)| key.clone()).filter(|key| key != known).collect();
        for key in unknown {
            reader.refuse(&key, &format!("is not known: expected only '{known}'"));
        }
    };
    only(reader, OPTION);
    let Some(value) = reader.get(OPTION) else { return false };
    let mut option = reader.inside(&format!(".{OPTION}"), value);
    only(&mut option, "enabled");
    let enabled = option.flag("enabled");
    if value.is_object() && option.get("enabled").is_none() {
        option.refuse("enabled", "is missing: expected true or false");
    }
    enabled.unwrap_or(false)
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

fn read_custom_user_data(data_sources: &BTreeSet<String>, reader: &mut Reader<'_>) -> Option<CustomUserData> {
    let enabled = reader.flag("enabled").unwrap_or(false);
    let service = required_text(reader, "mongo_service_name");
    let database = required_text(reader, "database_name");
    let collection = required_text(reader, "collection_name");
    let field = required_text(reader, "user_id_field");
    let creation_function = reader.text("on_user_creation_function_name");
    // A disabled configuration may name a data source that does not exist.
    if !enabled {
        reader.finish();
        return None;
    }
    if creation_function.is_some_and(|name| !name.is_empty()) {
        reader.refuse(
            "on_user_creation_function_name",
            "user creation functions are not supported yet, and without it users would be created unchecked",
        );
    }
    let service = choose_data_source(data_sources, service, reader);
    let mut required = |key, value| match value {
        Text::Is(text) => Some(text),
        Text::Other => None,
        Text::Missing => {
            reader.refuse_missing(key, "is required if custom user data is enabled");
            None
        }
    };
    let database = required("database_name", database);
    let collection = required("collection_name", collection);
    let field = required("user_id_field", field);
    reader.finish();
    if let (Some(database), Some(collection)) = (&database, &collection)
        && let Err((part, message)) = check_names(database, collection)
    {
        let key = match part {
            NamePart::Database => "database_name",
            NamePart::Collection => "collection_name",
        };
        reader.refuse(key, &message);
    }
    let user_id_field = match Path::strict(&field?) {
        Ok(path) => path,
        Err(error) => {
            reader.refuse("user_id_field", &error.message);
            return None;
        }
    };
    Some(CustomUserData { service: service?, namespace: Namespace::new(&database?, &collection?), user_id_field })
}

/// A required string.
enum Text {
    Is(String),
    Missing,
    /// A value of another type, which has been reported already.
    Other,
}

fn required_text(reader: &mut Reader<'_>, key: &str) -> Text {
    let is_there = reader.get(key).is_some();
    match reader.text(key) {
        Some(text) if !text.is_empty() => Text::Is(text),
        None if is_there => Text::Other,
        _ => Text::Missing,
    }
}

/// Returns the data source of custom user data: the named one, which must exist, or else the only
/// one.
fn choose_data_source(data_sources: &BTreeSet<String>, named: Text, reader: &mut Reader<'_>) -> Option<String> {
    let key = "mongo_service_name";
    match named {
        Text::Other => None,
        Text::Missing if data_sources.len() == 1 => data_sources.first().cloned(),
        Text::Missing => {
            let message =
                format!("is required if custom user data is enabled: the definition has {}", listed(data_sources));
            reader.refuse_missing(key, &message);
            None
        }
        Text::Is(name) if data_sources.contains(&name) => Some(name),
        Text::Is(name) => {
            reader.refuse(key, &undefined_data_source(&name, data_sources));
            None
        }
    }
}

/// Returns the message about a data source that is not defined.
fn undefined_data_source(name: &str, data_sources: &BTreeSet<String>) -> String {
    let suggestion = did_you_mean(name, data_sources.iter().map(String::as_str));
    format!("there is no data source '{name}': the definition has {}{suggestion}", listed(data_sources))
}

/// Returns the names of the data sources, for a message.
fn listed(data_sources: &BTreeSet<String>) -> String {
    let names: Vec<_> = data_sources.iter().map(|name| format!("'{name}'")).collect();
    if names.is_empty() { "no data source".to_owned() } else { format!("the data sources {}", names.join(", ")) }
}

/// Reads `config.json` of a data source. Only its read preference is used.
fn read_service(directory: &str, reader: &mut Reader<'_>) -> Option<ReadPreference> {
    if reader.text("name").is_some_and(|name| name != directory) {
        reader.note("name", "differs from the name of its directory, which is used");
    }
    if reader.text("type").is_some_and(|kind| kind != "mongodb" && kind != "mongodb-atlas") {
        reader.note("type", "is not MongoDB; its collections are stored like those of MongoDB");
    }
    reader.known(&["version", "secret_config", "id"]);
    let read_preference =
        reader.get("config").and_then(|config| read_preference(&mut reader.inside(".config", config)));
    reader.finish();
    read_preference
}

fn read_preference(reader: &mut Reader<'_>) -> Option<ReadPreference> {
    reader.known(&[
        "clusterName",
        "clusterType",
        "dataLakeName",
        "wireProtocolEnabled",
        "groupId",
        "orgId",
        "hostname",
    ]);
    let mode = reader.text("readPreference").filter(|mode| !mode.is_empty());
    let mut tag_sets = Vec::new();
    for (index, tags) in reader.array("readPreferenceTagSets").iter().enumerate() {
        let at = format!("readPreferenceTagSets[{index}]");
        match read_tags(tags) {
            Some(tags) => tag_sets.push(tags),
            None => reader.refuse(&at, "expected an object of strings, or a list of { \"name\", \"value\" }"),
        }
    }
    reader.finish();
    // An export without tag sets contains one empty set.
    if tag_sets.iter().all(HashMap::is_empty) {
        tag_sets.clear();
    }
    let preference = ReadPreference { mode: mode.clone().unwrap_or_else(|| "primary".to_owned()), tag_sets };
    if let Err(error) = preference.check() {
        reader.refuse("readPreference", &error);
        return None;
    }
    mode.map(|_| preference)
}

fn read_tags(tags: &Value) -> Option<HashMap<String, String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match tags {
        Value::Object(tags) => tags.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect(),
        Value::Array(tags) => {
            tags.iter().map(|tag| Some((text(tag.get("name")?)?, text(tag.get("value")?)?))).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
