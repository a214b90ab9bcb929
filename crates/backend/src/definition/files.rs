//! The files of a definition, read and parsed.

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
    templates::kind,
};

/// The files of a definition by their paths in its directory, with `/` between the parts.
#[derive(Default)]
pub(super) struct Files {
    json: BTreeMap<String, Contents>,
    /// The sources of functions: the JavaScript files in `functions/`.
    sources: BTreeMap<String, Contents>,
    /// `secrets.json`, apart from the files whose contents messages may show.
    secrets: Option<Contents>,
    /// True if there is a `functions/package.json`.
    has_package: bool,
}

/// The JSON files by their paths, with null for the files that are not read.
pub(super) type Parsed = BTreeMap<String, Value>;

/// The contents of a file.
enum Contents {
    Text(String),
    /// The file is not read, because its contents are not used.
    Unread,
    /// The error of a file or a directory that cannot be read.
    Unreadable(String),
}

/// True for the names of files and directories that are no part of an export.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || ["node_modules", "package.json", "package-lock.json"].contains(&name)
}

/// The maximum depth of an export's directories, with room for nested functions.
pub(super) const MAX_DEPTH: usize = 12;

/// The maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The maximum number of files and directories of a definition.
pub(super) const MAX_ENTRIES: usize = 100_000;

impl Files {
    pub(super) fn read(directory: &Path) -> Result<Self, Problem> {
        let mut reader = Reader { files: Self::default(), entries: 0 };
        reader.collect(directory, "", &mut Vec::new()).map_err(|error| Problem {
            severity: Severity::Refused,
            file: directory.display().to_string(),
            path: String::new(),
            message: format!("cannot be read: {error}"),
        })?;
        Ok(reader.files)
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
        let json = files.into_iter().map(|(path, text)| (path.to_owned(), Contents::Text(text.to_owned()))).collect();
        Self { json, ..Self::default() }
    }

    /// Returns the paths and the texts of the files that were read.
    pub(super) fn into_texts(self) -> impl Iterator<Item = (String, String)> {
        self.json.into_iter().filter_map(|(path, contents)| match contents {
            Contents::Text(text) => Some((path, text)),
            Contents::Unread | Contents::Unreadable(_) => None,
        })
    }

    /// Returns the names of the data sources, which are the names of their directories.
    pub(super) fn data_sources(&self) -> BTreeSet<String> {
        let names = self.json.keys().filter_map(|path| path.strip_prefix("data_sources/")?.split_once('/'));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// Returns the texts of the sources of functions, or the errors of reading them, by their
    /// paths.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&str, Result<&str, &str>)> {
        self.sources.iter().filter_map(|(path, contents)| match contents {
            Contents::Text(text) => Some((path.as_str(), Ok(text.as_str()))),
            Contents::Unreadable(error) => Some((path.as_str(), Err(error.as_str()))),
            Contents::Unread => None,
        })
    }

    /// True if there is the source of a function at the path, whether or not it can be read.
    pub(super) fn has_source(&self, path: &str) -> bool {
        self.sources.contains_key(path)
    }

    /// True if there is a `functions/package.json`, which lists packages for functions.
    pub(super) fn has_package(&self) -> bool {
        self.has_package
    }

    /// True if there is a JSON file at the path, whether or not it can be read.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.json.contains_key(path)
    }

    /// Parses the files that are read.
    pub(super) fn parse(&self, report: &mut Report) -> Parsed {
        let environment = self.environment_path();
        let mut parsed = Parsed::new();
        for (path, contents) in &self.json {
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
        parsed
    }

    /// Returns the secrets in `secrets.json`, if there is such a file and it can be used. No
    /// message shows a part of it.
    pub(super) fn secrets(&self, report: &mut Report) -> Option<Vec<(String, String)>> {
        let text = match self.secrets.as_ref()? {
            Contents::Text(text) => text,
            Contents::Unreadable(error) => {
                report.refuse(SECRETS, "", &format!("cannot be used: {error}"));
                return None;
            }
            Contents::Unread => return None,
        };
        match parse(text) {
            Ok((Value::Object(fields), twice)) => {
                for place in twice {
                    report.refuse(SECRETS, &place, "the name is there twice, and only one of the two would be used");
                }
                Some(fields.into_iter().filter_map(|(name, value)| secret(name, value, report)).collect())
            }
            Ok((other, _)) => {
                report.refuse(SECRETS, "$", &format!("expected an object of strings, got {}", kind(&other)));
                None
            }
            Err(error) => {
                report.refuse(SECRETS, "", &format!("is not JSON: {error}"));
                None
            }
        }
    }

    /// Returns the path of the file with the definition's own settings.
    pub(super) fn root(&self) -> &'static str {
        ROOTS.into_iter().find(|name| self.contains(name)).unwrap_or(ROOTS[0])
    }

    /// Returns the name of the selected environment, or an empty text.
    pub(super) fn environment(&self) -> String {
        let root = match self.json.get(self.root()) {
            // `parse` reports a file that is not JSON.
            Some(Contents::Text(text)) => parse(text).ok(),
            _ => None,
        };
        let name = root.as_ref().and_then(|(root, _)| root.get("environment")?.as_str());
        name.unwrap_or_default().to_owned()
    }

    /// Returns the path of the file with the values of the selected environment.
    pub(super) fn environment_path(&self) -> String {
        let name = self.environment();
        format!("environments/{}.json", if name.is_empty() { "no-environment" } else { &name })
    }
}

/// Returns a secret of `secrets.json`, which must be a string.
fn secret(name: String, value: Value, report: &mut Report) -> Option<(String, String)> {
    match value {
        Value::String(text) => Some((name, text)),
        other => {
            report.refuse(SECRETS, &format!("$.{name}"), &format!("expected a string, got {}", kind(&other)));
            None
        }
    }
}

/// The names of the file with the definition's own settings.
const ROOTS: [&str; 2] = ["root_config.json", "realm_config.json"];

/// The file with the app's secrets. It is no part of an export.
const SECRETS: &str = "secrets.json";

/// Parses a file's text as [`json::parse`] does, after a byte order mark.
fn parse(text: &str) -> Result<(Value, Vec<String>), serde_json::Error> {
    json::parse(text.trim_start_matches('\u{feff}'))
}

/// Returns the severity of a problem with the contents of a file. Problems of a file that is not
/// used are only reported.
pub(super) fn severity(path: &str, environment: &str) -> Severity {
    match path.split('/').next() {
        Some("triggers") => Severity::Reported,
        Some("environments") if path != environment => Severity::Reported,
        _ => Severity::Refused,
    }
}

/// Reads the files of a directory and the directories in it.
struct Reader {
    files: Files,
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
            if name == "package.json" && prefix == "functions/" {
                self.files.has_package = true;
            }
            if is_ignored(&name) {
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
                        self.files.json.insert(file, Contents::Unreadable(error.to_string()));
                    }
                }
            } else if file == SECRETS {
                self.files.secrets = Some(read_private(&path).map_or_else(unreadable, Contents::Text));
            } else if name.ends_with(".js") && prefix.starts_with("functions/") {
                self.files.sources.insert(file, read(&path).map_or_else(unreadable, Contents::Text));
            } else if name.ends_with(".json") && !prefix.starts_with("hosting/files/") {
                self.add(file, prefix, &path);
            }
        }
        above.pop();
        Ok(())
    }

    fn add(&mut self, file: String, prefix: &str, path: &Path) {
        let contents = match is_read(&file) {
            true => read(path).map_or_else(unreadable, Contents::Text),
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
            self.files.json.insert(file, contents);
        }
    }
}

#[expect(clippy::needless_pass_by_value)]
fn unreadable(error: std::io::Error) -> Contents {
    Contents::Unreadable(error.to_string())
}

/// Reads a regular file of a limited size. A named pipe or a device could be read for ever.
fn read(path: &Path) -> std::io::Result<String> {
    let bytes = files::read_regular(path, MAX_FILE_BYTES)?;
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}

/// Reads a file as [`read`] does, unless users other than its owner may read or write it.
fn read_private(path: &Path) -> std::io::Result<String> {
    #[cfg(unix)]
    {
        let metadata = files::open_regular(path)?.metadata()?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            let message = format!("its mode is {mode:04o}, so other users have access to it; run chmod 600 on it");
            return Err(std::io::Error::other(message));
        }
    }
    read(path)
}
