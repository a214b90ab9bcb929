//! The first phase of reading a definition: its environment, its secrets and its values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    files::{Files, Parsed},
    reader::Reader,
    report::{Report, Severity},
    templates::{Templates, kind},
};
use crate::{
    constants::{Constants, EnvironmentValues, Values},
    definition::did_you_mean,
    secrets::Secrets,
};

/// The environments of App Services that a definition can select.
const ENVIRONMENTS: &[&str] = &["development", "testing", "qa", "production"];

/// The maximum length of a secret in App Services, in characters.
const MOST_CHARACTERS: usize = 500;

/// Reads the constants of a definition. Missing secrets are one problem with the given severity;
/// placeholders stand for them.
pub(super) fn read(
    files: &Files,
    parsed: &mut Parsed,
    secrets: &Secrets,
    severity: Severity,
    report: &mut Report,
) -> Constants {
    let environment = read_environment(files, parsed, report);
    let mut constants = Constants { environment, values: Values::default() };
    let secrets = match files.secrets(report) {
        Some(file) => secrets.clone().with_file(file),
        None => secrets.clone(),
    };
    let mut missing = MissingSecrets::default();
    let is_value = |path: &str| path.strip_prefix("values/").is_some_and(|name| !name.contains('/'));
    for (path, value) in parsed.iter_mut().filter(|(path, _)| is_value(path)) {
        Templates { constants: &constants, is_value: true, severity: Severity::Refused }.expand(value, path, report);
        read_value(&mut Reader::new(path, value, report), &secrets, &mut missing, &mut constants.values);
    }
    missing.add_to(severity, report);
    constants
}

fn read_environment(files: &Files, parsed: &Parsed, report: &mut Report) -> EnvironmentValues {
    let tag = files.environment();
    let path = files.environment_path();
    let Some(value) = parsed.get(&path) else {
        if !tag.is_empty() && !files.contains(&path) {
            let suggestion = did_you_mean(&tag, ENVIRONMENTS.iter().copied());
            let message = format!("the environment '{tag}' has no file {path}, and so no values{suggestion}");
            report.note(files.root(), "$.environment", &message);
        }
        return EnvironmentValues { tag, values: serde_json::Map::new() };
    };
    let mut reader = Reader::new(&path, value, report);
    let values = match reader.get("values") {
        None => serde_json::Map::new(),
        Some(Value::Object(values)) => values.clone(),
        Some(other) => {
            reader.refuse("values", &format!("expected an object, got {}", kind(other)));
            serde_json::Map::new()
        }
    };
    reader.finish();
    EnvironmentValues { tag, values }
}

/// Reads a file of `values/`. No message shows the value.
fn read_value(reader: &mut Reader<'_>, secrets: &Secrets, missing: &mut MissingSecrets, values: &mut Values) {
    let name = reader.text("name").unwrap_or_default();
    let is_secret = reader.flag("from_secret").unwrap_or(false);
    let value = reader.get("value");
    reader.known(&["id", "private"]);
    if name.is_empty() {
        reader.refuse_missing("name", "is required: the name of the value");
    }
    if value.is_none() {
        reader.refuse_missing("value", "is required: any JSON, or the name of a secret");
    }
    let value = match value {
        Some(Value::String(secret)) if is_secret && !secret.is_empty() => {
            Some(Value::String(secret_text(secret, reader, secrets, missing)))
        }
        Some(other) if is_secret => {
            reader.refuse("value", &format!("expected the name of a secret, got {}", kind(other)));
            None
        }
        value => value.cloned(),
    };
    if let Some(value) = value
        && !name.is_empty()
        && !values.add(&name, value, is_secret)
    {
        reader.refuse("name", &format!("another file has a value '{name}' too"));
    }
    reader.finish();
}

/// Returns the text of a secret, or a placeholder if it is missing.
fn secret_text(name: &str, reader: &mut Reader<'_>, secrets: &Secrets, missing: &mut MissingSecrets) -> String {
    let Some(secret) = secrets.get(name) else {
        missing.users.entry(name.to_owned()).or_default().push(reader.place("value"));
        return format!("placeholder for the secret {name}");
    };
    if secret.expose().chars().count() > MOST_CHARACTERS {
        let message =
            format!("the secret '{name}' has more than {MOST_CHARACTERS} characters, the limit of App Services");
        reader.note("value", &message);
    }
    secret.expose().to_owned()
}

/// The missing secrets by their names, each with the places that use it.
#[derive(Default)]
struct MissingSecrets {
    users: BTreeMap<String, Vec<(String, String)>>,
}

impl MissingSecrets {
    /// Reports all missing secrets as one problem, at the first place that uses one.
    fn add_to(self, severity: Severity, report: &mut Report) {
        let Some((file, path)) = self.users.values().flatten().min().cloned() else { return };
        let shown = |(name, places): (&String, &Vec<(String, String)>)| {
            let files: Vec<_> = places.iter().map(|(file, _)| file.as_str()).collect();
            format!("'{name}' (used by {})", files.join(", "))
        };
        let secrets: Vec<_> = self.users.iter().map(shown).collect();
        let variable = self.users.keys().next().map(|name| Secrets::variable(name)).unwrap_or_default();
        let message = format!(
            "missing secrets: {}; give each one in the option 'secrets', in secrets.json beside the definition's files, \
             or in an environment variable such as {variable}",
            secrets.join(", ")
        );
        report.add(severity, &file, &path, &message);
    }
}
