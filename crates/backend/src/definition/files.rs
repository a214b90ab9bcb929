//! The files of a definition, read, parsed, and with the values of the environment inserted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Problem, Severity, is_read, json, report::Report};

/// The texts of the JSON files by their path in the definition's directory, with `/` between the
/// parts; `None` for files whose contents are not used.
pub(super) struct Files(BTreeMap<String, Option<String>>);

/// The maximum depth of an export's directories, with room for nested functions.
const MAX_DEPTH: usize = 12;

/// The maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The maximum number of files and directories of a definition.
const MAX_ENTRIES: usize = 100_000;

impl Files {
    pub(super) fn read(directory: &Path) -> Result<Self, Problem> {
        let mut reader = Reader { files: BTreeMap::new(), entries: 0, root: directory };
        reader.collect(directory, "", &mut Vec::new())?;
        Ok(Self(reader.files))
    }

    pub(super) fn development() -> Self {
        let files = [
            ("root_config.json", r#"{ "name": "development" }"#),
            (
                "auth/providers.json",
                r#"{ "anon-user": { "name": "anon-user", "type": "anon-user", "disabled": false },
                     "local-userpass": { "name": "local-userpass", "type": "local-userpass", "disabled": false, "config": { "autoConfirm": true } } }"#,
            ),
            (
                "auth/custom_user_data.json",
                r#"{ "enabled": true, "mongo_service_name": "mongodb-atlas", "database_name": "custom-user-data-database",
                     "collection_name": "custom-user-data", "user_id_field": "userId" }"#,
            ),
            (
                "data_sources/mongodb-atlas/custom-user-data-database/custom-user-data/rules.json",
                r#"{ "database": "custom-user-data-database", "collection": "custom-user-data", "filters": [],
                     "roles": [ { "name": "ThisUser", "apply_when": { "userId": "%%user.id" },
                       "document_filters": { "read": { "userId": "%%user.id" }, "write": { "userId": "%%user.id" } },
                       "read": true, "write": true, "insert": true, "delete": true, "search": true } ] }"#,
            ),
        ];
        Self(files.into_iter().map(|(path, text)| (path.to_owned(), Some(text.to_owned()))).collect())
    }

    /// Returns the names of the data sources, which are the names of their directories.
    pub(super) fn data_sources(&self) -> BTreeSet<String> {
        let names = self.0.keys().filter_map(|path| path.strip_prefix("data_sources/")?.split_once('/'));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// Parses the files that are used, with null for the others, and replaces
    /// `%(%%environment.values.name)` by the values of the environment.
    pub(super) fn parse(&self, report: &mut Report) -> BTreeMap<String, Value> {
        let mut parsed = BTreeMap::new();
        for (path, text) in &self.0 {
            let Some(text) = text else {
                parsed.insert(path.clone(), Value::Null);
                continue;
            };
            match json::parse(text.trim_start_matches('\u{feff}')) {
                Ok((value, twice)) => {
                    for place in twice {
                        report.refuse(
                            path,
                            &place,
                            "the name is there twice, and only one of the two values would be used",
                        );
                    }
                    parsed.insert(path.clone(), value);
                }
                Err(error) => report.refuse(path, "", &format!("is not JSON: {error}")),
            }
        }
        let root = parsed.get("root_config.json").or_else(|| parsed.get("realm_config.json"));
        let environment =
            root.and_then(|root| root.get("environment")).and_then(Value::as_str).filter(|name| !name.is_empty());
        let values = parsed
            .get(&format!("environments/{}.json", environment.unwrap_or("no-environment")))
            .and_then(|file| file.get("values"))
            .cloned();
        for (path, value) in parsed.iter_mut().filter(|(path, _)| !path.starts_with("environments/")) {
            expand(value, values.as_ref(), path, "$", report);
        }
        parsed
    }
}

impl IntoIterator for Files {
    type Item = (String, Option<String>);
    type IntoIter = std::collections::btree_map::IntoIter<String, Option<String>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Reads the files of a directory and the directories in it.
struct Reader<'d> {
    files: BTreeMap<String, Option<String>>,
    /// The number of entries so far. Symbolic links can make a few directories look like many.
    entries: usize,
    root: &'d Path,
}

impl Reader<'_> {
    /// Reads a directory whose path in the definition is `prefix`. `above` are the canonical paths
    /// of the directory and those that contain it: a link to one of them leads nowhere new.
    fn collect(&mut self, directory: &Path, prefix: &str, above: &mut Vec<PathBuf>) -> Result<(), Problem> {
        let whole =
            if prefix.is_empty() { self.root.display().to_string() } else { prefix.trim_end_matches('/').into() };
        let problem = |error: std::io::Error| unreadable(whole.clone(), &error);
        let canonical = directory.canonicalize().map_err(problem)?;
        if above.len() > MAX_DEPTH || above.contains(&canonical) {
            return Ok(());
        }
        above.push(canonical);
        for entry in fs::read_dir(directory).map_err(problem)? {
            let entry = entry.map_err(problem)?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                let root = self.root.display().to_string();
                return Err(unreadable(root, &format_args!("it has more than {MAX_ENTRIES} files")));
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "node_modules" || name == "package.json" || name == "package-lock.json"
            {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                self.collect(&path, &format!("{prefix}{name}/"), above)?;
            } else if name.ends_with(".json") && !prefix.starts_with("hosting/files/") {
                let file = format!("{prefix}{name}");
                if is_read(&file) {
                    let text = read(&path).map_err(|error| unreadable(file.clone(), &error))?;
                    self.files.insert(file, Some(text));
                } else if entry.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                    // An empty file configures nothing, whatever its name is.
                    self.files.insert(file, None);
                }
            }
        }
        above.pop();
        Ok(())
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let bytes = files::read_regular(path, MAX_FILE_BYTES)?;
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}

fn unreadable(file: String, error: &dyn std::fmt::Display) -> Problem {
    Problem { severity: Severity::Refused, file, path: String::new(), message: format!("cannot be read: {error}") }
}

fn expand(value: &mut Value, values: Option<&Value>, file: &str, path: &str, report: &mut Report) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, values, file, &format!("{path}[{index}]"), report);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                expand(field, values, file, &format!("{path}.{name}"), report);
            }
        }
        Value::String(text) if text.contains("%(") => match expand_text(text, values) {
            Ok(expanded) => *value = expanded,
            Err(name) => report.refuse(file, path, &format!("the environment has no value for {name}")),
        },
        _ => {}
    }
}

/// Returns the text with its templates replaced. A text that consists of one template becomes the
/// value itself.
fn expand_text(text: &str, values: Option<&Value>) -> Result<Value, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("%(") {
        let Some(length) = rest[start..].find(')') else { break };
        let template = &rest[start..=start + length];
        let name = template[2..template.len() - 1].trim();
        let found = name.strip_prefix("%%environment.values.").and_then(|name| values?.get(name));
        let Some(found) = found else { return Err(name.to_owned()) };
        if template == text {
            return Ok(found.clone());
        }
        expanded.push_str(&rest[..start]);
        match found {
            Value::String(found) => expanded.push_str(found),
            other => expanded.push_str(&other.to_string()),
        }
        rest = &rest[start + length + 1..];
    }
    expanded.push_str(rest);
    Ok(Value::String(expanded))
}
