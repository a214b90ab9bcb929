//! The files of a definition, read, parsed, and with the values of the environment inserted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Problem, Severity, json,
    layout::{DIRECTORIES, is_read},
    report::Report,
};

/// The JSON files by their path in the definition's directory, with `/` between the parts.
pub(super) struct Files(BTreeMap<String, Contents>);

/// The contents of a file.
enum Contents {
    Text(String),
    /// The file is not read, because its contents are not used.
    Unread,
    /// The error of a file or a directory that cannot be read.
    Unreadable(String),
}

/// The maximum depth of an export's directories, with room for nested functions.
const MAX_DEPTH: usize = 12;

/// The maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The maximum number of files and directories of a definition.
const MAX_ENTRIES: usize = 100_000;

impl Files {
    pub(super) fn read(directory: &Path) -> Result<Self, Problem> {
        let mut reader = Reader { files: BTreeMap::new(), entries: 0 };
        reader.collect(directory, "", &mut Vec::new()).map_err(|error| Problem {
            severity: Severity::Refused,
            file: directory.display().to_string(),
            path: String::new(),
            message: format!("cannot be read: {error}"),
        })?;
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
        Self(files.into_iter().map(|(path, text)| (path.to_owned(), Contents::Text(text.to_owned()))).collect())
    }

    /// Returns the paths and the texts of the files that were read.
    pub(super) fn into_texts(self) -> impl Iterator<Item = (String, String)> {
        self.0.into_iter().filter_map(|(path, contents)| match contents {
            Contents::Text(text) => Some((path, text)),
            Contents::Unread | Contents::Unreadable(_) => None,
        })
    }

    /// Returns the names of the data sources, which are the names of their directories.
    pub(super) fn data_sources(&self) -> BTreeSet<String> {
        let names = self.0.keys().filter_map(|path| path.strip_prefix("data_sources/")?.split_once('/'));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// Parses the files that are read, with null for the others, and replaces
    /// `%(%%environment.values.name)` by the values of the environment.
    pub(super) fn parse(&self, report: &mut Report) -> BTreeMap<String, Value> {
        let environment = self.environment();
        let mut parsed = BTreeMap::new();
        for (path, contents) in &self.0 {
            let severity = severity(path, &environment);
            let mut fail = |message: String| match severity {
                Severity::Refused => report.refuse(path, "", &message),
                Severity::Reported => report.note(path, "", &format!("the file is not used, and {message}")),
            };
            match contents {
                Contents::Unread => {
                    parsed.insert(path.clone(), Value::Null);
                }
                Contents::Unreadable(error) => fail(format!("cannot be read: {error}")),
                Contents::Text(text) => match parse(text) {
                    Ok((value, twice)) => {
                        for place in twice {
                            let message = "the name is there twice, and only one of the two values would be used";
                            report.add(severity, path, &place, message);
                        }
                        parsed.insert(path.clone(), value);
                    }
                    Err(error) => fail(format!("is not JSON: {error}")),
                },
            }
        }
        let values = parsed.get(&environment).and_then(|file| file.get("values")).cloned();
        for (path, value) in parsed.iter_mut().filter(|(path, _)| !path.starts_with("environments/")) {
            expand(value, values.as_ref(), path, "$", severity(path, &environment), report);
        }
        parsed
    }

    /// Returns the path of the file with the values of the selected environment.
    fn environment(&self) -> String {
        let root = ["root_config.json", "realm_config.json"].into_iter().find_map(|name| match self.0.get(name)? {
            // `parse` reports a file that is not JSON.
            Contents::Text(text) => parse(text).ok(),
            _ => None,
        });
        let name = root.as_ref().and_then(|(root, _)| root.get("environment")?.as_str());
        format!("environments/{}.json", name.filter(|name| !name.is_empty()).unwrap_or("no-environment"))
    }
}

/// Parses a file's text as [`json::parse`] does, after a byte order mark.
fn parse(text: &str) -> Result<(Value, Vec<String>), serde_json::Error> {
    json::parse(text.trim_start_matches('\u{feff}'))
}

/// Returns the severity of a problem with the contents of a file. Problems of a file that is not
/// used are only reported.
fn severity(path: &str, environment: &str) -> Severity {
    match path.split('/').next() {
        Some("triggers" | "values") => Severity::Reported,
        Some("environments") if path != environment => Severity::Reported,
        _ => Severity::Refused,
    }
}

/// Reads the files of a directory and the directories in it.
struct Reader {
    files: BTreeMap<String, Contents>,
    /// The number of entries so far. Symbolic links can make a few directories look like many.
    entries: usize,
}

impl Reader {
    /// Reads a directory whose path in the definition is `prefix`. `above` are the canonical paths
    /// of the directories that contain it: a link to one of them leads nowhere new.
    ///
    /// # Errors
    /// If the directory itself cannot be read, or there are too many files.
    fn collect(&mut self, directory: &Path, prefix: &str, above: &mut Vec<PathBuf>) -> Result<(), std::io::Error> {
        let canonical = directory.canonicalize()?;
        if above.len() > MAX_DEPTH || above.contains(&canonical) {
            return Ok(());
        }
        above.push(canonical);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(std::io::Error::other(format!("the definition has more than {MAX_ENTRIES} files")));
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "node_modules" || name == "package.json" || name == "package-lock.json"
            {
                continue;
            }
            let path = entry.path();
            let file = format!("{prefix}{name}");
            if path.is_dir() {
                // Directories that are no part of an export need not be readable.
                let is_part = DIRECTORIES.contains(&file.split('/').next().unwrap_or_default());
                if let Err(error) = self.collect(&path, &format!("{file}/"), above) {
                    if self.entries > MAX_ENTRIES {
                        return Err(error);
                    }
                    if is_part {
                        self.files.insert(file, Contents::Unreadable(error.to_string()));
                    }
                }
            } else if name.ends_with(".json") && !prefix.starts_with("hosting/files/") {
                self.add(file, prefix, &path);
            }
        }
        above.pop();
        Ok(())
    }

    fn add(&mut self, file: String, prefix: &str, path: &Path) {
        let contents = match is_read(&file) {
            true => read(path).map_or_else(|error| Contents::Unreadable(error.to_string()), Contents::Text),
            false => Contents::Unread,
        };
        // An empty file configures nothing, unless the export has a file of that name.
        let is_empty = match &contents {
            Contents::Text(text) => {
                text.trim().is_empty() && ["environments/", "triggers/", "values/"].contains(&prefix)
            }
            Contents::Unread => fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0),
            Contents::Unreadable(_) => false,
        };
        if !is_empty {
            self.files.insert(file, contents);
        }
    }
}

/// Reads a regular file of a limited size. A named pipe or a device could be read for ever.
fn read(path: &Path) -> std::io::Result<String> {
    let bytes = files::read_regular(path, MAX_FILE_BYTES)?;
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}

fn expand(value: &mut Value, values: Option<&Value>, file: &str, path: &str, severity: Severity, report: &mut Report) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, values, file, &format!("{path}[{index}]"), severity, report);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                expand(field, values, file, &format!("{path}.{name}"), severity, report);
            }
        }
        Value::String(text) if text.contains("%(") => match expand_text(text, values) {
            Ok(expanded) => *value = expanded,
            Err(name) => report.add(severity, file, path, &format!("the environment has no value for {name}")),
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
