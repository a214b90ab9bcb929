//! The data sources of a definition, and the checks of their names.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;
use store::{Index, Namespace, ReadPreference};

use super::{reader::Reader, report::Report, suggest::did_you_mean};
use crate::rules::RuleSet;

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

/// Reads `config.json` of a data source. Only its read preference is used.
pub(super) fn read_config(directory: &str, reader: &mut Reader<'_>) -> Option<ReadPreference> {
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

/// Reads `{ "changeStreamPreAndPostImages": { "enabled": true } }`, as `create` and `collMod` take
/// it. The file is Userkeep's addition to the export.
pub(super) fn read_pre_images(reader: &mut Reader<'_>) -> bool {
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

/// Checks that MongoDB accepts the names that a collection's directory stands for. A database name
/// that it rejects is one problem, however many collections the database has.
pub(super) fn check_directory(service: &str, database: &str, collection: &str, report: &mut Report) {
    if let Err((part, message)) = check_names(database, collection) {
        let directory = match part {
            NamePart::Database => format!("data_sources/{service}/{database}"),
            NamePart::Collection => format!("data_sources/{service}/{database}/{collection}"),
        };
        report.refuse(&directory, "", &message);
    }
}

/// The part of a full name that MongoDB rejects.
pub(super) enum NamePart {
    Database,
    Collection,
}

/// Checks that MongoDB accepts the names.
pub(super) fn check_names(database: &str, collection: &str) -> Result<(), (NamePart, String)> {
    // The shortest name of a collection shows if the database's name is wrong by itself.
    let is_database_valid = Namespace::new(database, "c").check().is_ok();
    Namespace::new(database, collection).check().map_err(|error| {
        let part = if is_database_valid { NamePart::Collection } else { NamePart::Database };
        (part, error.to_string())
    })
}

/// Returns the message about a data source that is not defined.
pub(super) fn undefined_data_source(name: &str, data_sources: &BTreeSet<String>) -> String {
    let suggestion = did_you_mean(name, data_sources.iter().map(String::as_str));
    format!("there is no data source '{name}': the definition has {}{suggestion}", listed(data_sources))
}

/// Returns the names of the data sources, for a message.
pub(super) fn listed(data_sources: &BTreeSet<String>) -> String {
    let names: Vec<_> = data_sources.iter().map(|name| format!("'{name}'")).collect();
    if names.is_empty() { "no data source".to_owned() } else { format!("the data sources {}", names.join(", ")) }
}
