//! Templates in the strings of a definition's files: `%(%%environment.values.name)`
//! (<https://www.mongodb.com/docs/atlas/app-services/reference/config/template-expansions/>).

use serde_json::Value;

use super::{
    files::{self, Files, Parsed},
    report::{Report, Severity},
};
use crate::constants::Constants;

/// The key of a function's source in a manifest, which is no configuration.
const SOURCE: &str = "run_as_user_id_script_source";

/// Replaces the templates in all files but those of the environments, and of the values, whose
/// templates were replaced when they were read.
pub(super) fn expand(files: &Files, parsed: &mut Parsed, constants: &Constants, report: &mut Report) {
    let environment = files.environment_path();
    let is_read = |path: &str| path.starts_with("environments/") || path.starts_with("values/");
    for (path, value) in parsed.iter_mut().filter(|(path, _)| !is_read(path)) {
        let severity = files::severity(path, &environment);
        Templates { constants, is_value: false, severity }.expand(value, path, report);
    }
}

/// Replaces the templates in a file.
pub(super) struct Templates<'c> {
    /// The constants, or only those of the environment.
    pub constants: &'c Constants,
    /// True in the file of a value, which may not refer to other values.
    pub is_value: bool,
    pub severity: Severity,
}

impl Templates<'_> {
    /// Replaces the templates in all strings of a JSON value, except in sources of functions.
    pub(super) fn expand(&self, value: &mut Value, file: &str, report: &mut Report) {
        self.expand_at(value, file, "$", report);
    }

    fn expand_at(&self, value: &mut Value, file: &str, path: &str, report: &mut Report) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.expand_at(item, file, &format!("{path}[{index}]"), report);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut().filter(|(name, _)| *name != SOURCE) {
                    self.expand_at(field, file, &format!("{path}.{name}"), report);
                }
            }
            Value::String(text) if text.contains("%(") => match self.expand_text(text) {
                Ok(expanded) => *text = expanded,
                Err(message) => report.add(self.severity, file, path, &message),
            },
            _ => {}
        }
    }

    /// Returns the text with its templates replaced. Other text with `%(` stays as it is.
    fn expand_text(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("%(") {
            let (before, template) = rest.split_at(start);
            let inner = &template[2..];
            expanded.push_str(before);
            if inner.trim_start().starts_with("%%") {
                let end = inner.find(')').ok_or_else(|| "a template has no closing parenthesis".to_owned())?;
                expanded.push_str(&self.text_of(inner[..end].trim())?);
                rest = &inner[end + 1..];
            } else {
                expanded.push_str("%(");
                rest = inner;
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// Returns the text of a constant. A secret has none: parts of the configuration appear in
    /// messages.
    fn text_of(&self, expansion: &str) -> Result<String, String> {
        let name = expansion.trim_start_matches("%%");
        if self.is_value && name.starts_with("values") {
            return Err(format!("a value cannot refer to {expansion}, which is another value"));
        }
        if self.constants.is_secret(name) {
            return Err(format!("{expansion} is a secret, which a template cannot insert"));
        }
        let found = self.constants.find(name);
        match found.unwrap_or_else(|| Err(format!("{expansion} is neither an environment value nor a value")))? {
            Value::String(text) => Ok(text),
            other => Err(format!("{expansion} is {}, and a template can insert only a string", kind(&other))),
        }
    }
}

/// Returns the type of a JSON value, for a message that must not show the value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
