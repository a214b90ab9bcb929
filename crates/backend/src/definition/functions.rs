//! The functions of a definition: their manifest and their sources.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    files::{Files, Parsed},
    reader::{Reader, shown},
    report::Report,
    templates::kind,
};
use crate::{constants::Constants, rules::Condition};

/// The functions of an app by their names
/// (<https://www.mongodb.com/docs/atlas/app-services/reference/config/functions/>).
#[derive(Debug, Default)]
pub struct Functions {
    functions: BTreeMap<String, Function>,
    has_package: bool,
}

/// A function: the operator's JavaScript, with the conditions under which it runs.
#[derive(Debug)]
pub struct Function {
    /// The name, with `/` between the directories of a nested function and its own name.
    pub name: String,
    /// The path of the source in the definition's directory.
    pub file: String,
    /// The source; `None` if the definition does not contain it, and then calls must fail.
    pub source: Option<String>,
    /// True if users may not call the function.
    pub private: bool,
    /// The user that the function runs as.
    pub run_as: RunAs,
    /// True if logs may contain the arguments of a call.
    pub log_arguments: bool,
    /// The condition under which users may call the function, if it has one.
    pub condition: Option<Condition>,
}

/// The user that a function runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    /// The user who calls the function.
    Caller,
    /// The system user, to whom no rules apply.
    System,
    /// The user with this id.
    User(String),
    /// The user whose id this source of a function returns.
    Script(String),
}

impl Functions {
    /// Returns the function of a name.
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// Returns all functions, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// Returns the name of a function under a key of another file, unless it is empty. Reports a
    /// name that no function has; `effect` says what happens then.
    pub(crate) fn named_by(&self, reader: &mut Reader<'_>, key: &str, effect: &str) -> Option<String> {
        let name = reader.text(key).filter(|name| !name.is_empty())?;
        if self.get(&name).is_none() {
            reader.note(key, &format!("the definition has no function '{name}', so {effect}"));
        }
        Some(name)
    }

    /// True if the definition has a `functions/package.json`, which lists packages for functions.
    pub fn has_package(&self) -> bool {
        self.has_package
    }
}

/// The directory of the functions.
const DIRECTORY: &str = "functions/";

/// The manifest of all functions.
const MANIFEST: &str = "functions/config.json";

/// The maximum number of names in a message.
const MOST_NAMES: usize = 10;

/// Reads the manifest and the sources of all functions, in the current layout
/// (`functions/NAME.js`) and in the older one (`functions/NAME/source.js` beside `config.json`).
pub(super) fn read(files: &Files, parsed: &Parsed, constants: &Constants, report: &mut Report) -> Functions {
    let mut reading = Reading { constants, functions: BTreeMap::new(), older: BTreeSet::new(), report };
    reading.read_manifest(parsed.get(MANIFEST));
    for (path, value) in parsed.range(DIRECTORY.to_owned()..).take_while(|(path, _)| path.starts_with(DIRECTORY)) {
        let directory = path.strip_prefix(DIRECTORY).and_then(|path| path.strip_suffix("/config.json"));
        if let Some(name) = directory {
            reading.read_older(name, path, value, files);
        }
    }
    let unlisted = reading.add_sources(files);
    let without_source: Vec<_> =
        reading.functions.values().filter(|function| function.source.is_none()).map(|it| it.name.as_str()).collect();
    if let Some(names) = listed(&without_source) {
        let message = format!("the definition has no source of {names}; a call of it fails");
        reading.report.note(MANIFEST, "", &message);
    }
    if let Some(names) = listed(&unlisted) {
        let message = format!("not listed here, so that all users may call it: {names}");
        reading.report.note(MANIFEST, "", &message);
    }
    Functions { functions: reading.functions, has_package: files.has_package() }
}

/// Returns the names of the functions that files outside of `functions/` mention by name or by id:
/// triggers, endpoints and providers. Any string counts, so that none is overlooked.
pub(super) fn mentioned(functions: &Functions, parsed: &Parsed) -> BTreeSet<String> {
    let (own, others): (Vec<_>, Vec<_>) = parsed.iter().partition(|(path, _)| path.starts_with(DIRECTORY));
    let mut texts = BTreeSet::new();
    for (_, value) in others {
        collect_texts(value, &mut texts);
    }
    let mut names: BTreeSet<String> =
        functions.iter().map(|function| &function.name).filter(|name| texts.contains(name.as_str())).cloned().collect();
    let entries =
        own.into_iter().flat_map(|(_, value)| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    for entry in entries {
        let text = |key| entry.get(key).and_then(Value::as_str);
        if let Some(name) = text("name")
            && ["id", "_id"].into_iter().filter_map(text).any(|id| texts.contains(id))
        {
            names.insert(name.to_owned());
        }
    }
    names
}

fn collect_texts<'v>(value: &'v Value, texts: &mut BTreeSet<&'v str>) {
    match value {
        Value::String(text) => drop(texts.insert(text)),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(fields) => fields.values().for_each(|field| collect_texts(field, texts)),
        _ => {}
    }
}

/// The functions that were read so far.
struct Reading<'a> {
    constants: &'a Constants,
    functions: BTreeMap<String, Function>,
    /// The names of the functions in the older layout.
    older: BTreeSet<String>,
    report: &'a mut Report,
}

impl Reading<'_> {
    fn read_manifest(&mut self, manifest: Option<&Value>) {
        match manifest {
            None | Some(Value::Null) => {}
            // An export without functions may contain an empty object.
            Some(Value::Object(fields)) if fields.is_empty() => {}
            Some(Value::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    let mut reader = Reader::at(MANIFEST, format!("$[{index}]"), entry, self.report);
                    let name = reader.text("name");
                    if !reader.is_object() {
                        continue;
                    }
                    let function = read_function(name.unwrap_or_default(), &mut reader, self.constants);
                    if let Err(message) = check_name(&function.name) {
                        reader.refuse("name", &message);
                    } else if self.functions.contains_key(&function.name) {
                        reader.refuse("name", &format!("the function '{}' is listed twice", function.name));
                    } else {
                        self.functions.insert(function.name.clone(), function);
                    }
                }
            }
            Some(other) => {
                self.report.refuse(MANIFEST, "$", &format!("expected a list of functions, got {}", kind(other)));
            }
        }
    }

    /// Reads the manifest of one function in the older layout.
    fn read_older(&mut self, name: &str, path: &str, value: &Value, files: &Files) {
        // Other tools have files of this name too.
        let source = format!("{DIRECTORY}{name}/source.js");
        if value.get("name").is_none() && !files.has_source(&source) {
            self.report.note(path, "", "the file is not known and not used");
            return;
        }
        let mut reader = Reader::new(path, value, self.report);
        if reader.text("name").is_some_and(|other| other != name) {
            reader.note("name", "differs from the name of its directory, which is used");
        }
        let function = Function { file: source, ..read_function(name.to_owned(), &mut reader, self.constants) };
        if let Err(message) = check_name(name) {
            self.report.refuse(path, "", &message);
        } else if self.functions.contains_key(name) {
            self.report.refuse(path, "", &format!("the function '{name}' is listed in {MANIFEST} too"));
        } else {
            self.older.insert(name.to_owned());
            self.functions.insert(name.to_owned(), function);
        }
    }

    /// Adds the sources to their functions. Returns the names of functions that no manifest lists.
    fn add_sources(&mut self, files: &Files) -> Vec<String> {
        let mut unlisted = Vec::new();
        for (path, source) in files.sources() {
            let Some(name) = path.strip_prefix(DIRECTORY).and_then(|path| path.strip_suffix(".js")) else { continue };
            let older = name.strip_suffix("/source").filter(|name| self.older.contains(*name));
            let name = older.unwrap_or(name);
            if let Err(message) = check_name(name) {
                self.report.refuse(path, "", &message);
                continue;
            }
            if !self.functions.contains_key(name) {
                self.functions.insert(name.to_owned(), unlisted_function(name));
                unlisted.push(name.to_owned());
            }
            let Some(function) = self.functions.get_mut(name) else { continue };
            if function.file != path {
                let message = format!("the function '{name}' has the source {} too", function.file);
                self.report.refuse(path, "", &message);
                continue;
            }
            match source {
                Ok(source) => function.source = Some(source.trim_start_matches('\u{feff}').to_owned()),
                Err(error) => self.report.note(path, "", &format!("cannot be read: {error}")),
            }
        }
        unlisted
    }
}

/// Returns a function that no manifest lists.
fn unlisted_function(name: &str) -> Function {
    Function {
        name: name.to_owned(),
        file: format!("{DIRECTORY}{name}.js"),
        source: None,
        private: false,
        run_as: RunAs::Caller,
        log_arguments: true,
        condition: None,
    }
}

/// Reads an entry of the manifest.
fn read_function(name: String, reader: &mut Reader<'_>, constants: &Constants) -> Function {
    reader.known(&["id"]);
    let private = reader.flag("private").unwrap_or(false);
    let log_arguments = !reader.flag("disable_arg_logs").unwrap_or(false);
    let run_as = read_run_as(reader);
    let condition = read_condition(reader, constants);
    reader.finish();
    Function { private, run_as, log_arguments, condition, ..unlisted_function(&name) }
}

fn read_run_as(reader: &mut Reader<'_>) -> RunAs {
    let is_system = reader.flag("run_as_system").unwrap_or(false);
    let [user, script] = ["run_as_user_id", "run_as_user_id_script_source"]
        .map(|key| reader.text(key).filter(|text| !text.trim().is_empty()));
    match (is_system, user, script) {
        (true, None, None) => RunAs::System,
        (true, ..) => {
            reader.note("run_as_system", "the function runs as the system user, and not as the user that is named too");
            RunAs::System
        }
        (false, None, None) => RunAs::Caller,
        (false, Some(user), None) => RunAs::User(user),
        (false, None, Some(script)) => RunAs::Script(script),
        (false, Some(_), Some(_)) => {
            reader.refuse("run_as_user_id", "cannot be combined with run_as_user_id_script_source");
            RunAs::Caller
        }
    }
}

fn read_condition(reader: &mut Reader<'_>, constants: &Constants) -> Option<Condition> {
    let key = "can_evaluate";
    let value = reader.get(key)?;
    if let Some(fields) = value.as_object() {
        if fields.is_empty() {
            return None;
        }
        if fields.keys().all(|key| ["dirty", "input", "error"].contains(&key.as_str())) && fields.contains_key("input")
        {
            let input = fields.get("input").and_then(Value::as_str).map(str::trim);
            match input {
                Some("" | "{}") => reader.note(key, "contains the state of an empty editor, and so no condition"),
                _ => reader.refuse(key, "contains the state of an editor: expected the expression itself"),
            }
            return None;
        }
    }
    match Condition::parse(value, constants) {
        Ok(condition) => Some(condition),
        Err(error) => {
            reader.refuse(&format!("{key}{}", error.path), &error.message);
            None
        }
    }
}

/// Checks that a name consists of the names of directories and a function, and leads nowhere else.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is required: the name of the function".to_owned());
    }
    let is_valid = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !name.split('/').all(is_valid) || name.contains(|letter: char| letter == '\\' || letter.is_control()) {
        let shown = shown(&Value::from(name));
        return Err(format!("{shown} is not the name of a function: expected names with '/' between them"));
    }
    Ok(())
}

/// Returns the names for a message: the first few, and the number of the others.
fn listed(names: &[impl AsRef<str>]) -> Option<String> {
    let shown: Vec<_> = names.iter().take(MOST_NAMES).map(|name| format!("'{}'", name.as_ref())).collect();
    let others = names.len().saturating_sub(MOST_NAMES);
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    (!shown.is_empty()).then(|| format!("{}{others}", shown.join(", ")))
}
