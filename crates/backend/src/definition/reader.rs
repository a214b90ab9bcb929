//! Reads one JSON object and records the keys that are used, so that unknown keys can be reported.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    report::{Report, Severity},
    suggest,
};

pub(crate) struct Reader<'a> {
    file: &'a str,
    path: String,
    object: &'a Map<String, Value>,
    seen: HashSet<String>,
    /// Missing keys with the severity and the message of each, which `finish` reports.
    missing: Vec<(&'static str, Severity, String)>,
    /// True if the value is not an object, which is then the only problem reported.
    is_other: bool,
    report: &'a mut Report,
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, value: &'a Value, report: &'a mut Report) -> Self {
        Self::at(file, "$".into(), value, report)
    }

    /// Creates a reader of the value at a path in a file.
    pub(super) fn at(file: &'a str, path: String, value: &'a Value, report: &'a mut Report) -> Self {
        let object = value.as_object().unwrap_or_else(|| {
            report.refuse(file, &path, &format!("expected an object, got {}", shown(value)));
            &EMPTY
        });
        let is_other = !value.is_object();
        Self { file, path, object, seen: HashSet::new(), missing: Vec::new(), is_other, report }
    }

    /// Returns a reader of a value inside this one.
    pub(crate) fn inside<'b>(&'b mut self, path: &str, value: &'b Value) -> Reader<'b>
    where
        'a: 'b,
    {
        Reader::at(self.file, format!("{}{path}", self.path), value, self.report)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.object.iter()
    }

    pub(crate) fn get(&mut self, key: &str) -> Option<&'a Value> {
        self.seen.insert(key.to_owned());
        self.object.get(key)
    }

    pub(crate) fn known(&mut self, keys: &[&str]) {
        self.seen.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.refuse(key, &format!("expected a string, got {}", shown(other)));
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                self.refuse(key, &format!("expected true or false, got {}", shown(other)));
                None
            }
        }
    }

    pub(crate) fn array(&mut self, key: &str) -> &'a [Value] {
        match self.get(key) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.refuse(key, &format!("expected an array, got {}", shown(other)));
                &[]
            }
        }
    }

    /// True if the value is an object.
    pub(crate) fn is_object(&self) -> bool {
        !self.is_other
    }

    /// Records a missing key as an error. Values of a wrong type are reported elsewhere.
    pub(super) fn refuse_missing(&mut self, key: &'static str, message: &str) {
        self.add_missing(key, Severity::Refused, message);
    }

    /// Records a missing key as a warning.
    pub(crate) fn note_missing(&mut self, key: &'static str, message: &str) {
        self.add_missing(key, Severity::Reported, message);
    }

    fn add_missing(&mut self, key: &'static str, severity: Severity, message: &str) {
        if !self.is_other {
            self.missing.push((key, severity, message.to_owned()));
        }
    }

    pub(crate) fn refuse(&mut self, key: &str, message: &str) {
        let path = self.path_of(key);
        self.report.refuse(self.file, &path, message);
    }

    pub(crate) fn note(&mut self, key: &str, message: &str) {
        let path = self.path_of(key);
        self.report.note(self.file, &path, message);
    }

    /// Returns the file and the JSON path of a key.
    pub(super) fn place(&self, key: &str) -> (String, String) {
        (self.file.to_owned(), self.path_of(key))
    }

    fn path_of(&self, key: &str) -> String {
        if key.is_empty() || key.starts_with('[') {
            format!("{}{key}", self.path)
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports missing keys and unknown keys. A missing key and its misspelling are one problem.
    pub(crate) fn finish(&mut self) {
        let mut unknown: Vec<_> = self.object.keys().filter(|key| !self.seen.contains(*key)).collect();
        let missing = std::mem::take(&mut self.missing);
        // If one key is missing and one is unknown, they are taken as one mistake, however
        // different they are.
        let is_only = missing.len() == 1 && unknown.len() == 1;
        for (key, severity, message) in &missing {
            let similar = unknown.iter().position(|name| suggest::closest(name, [*key]).is_some());
            let message = match similar.or((is_only && *severity == Severity::Refused).then_some(0)) {
                Some(place) => {
                    format!("{message}; the key '{}' beside it is not known and not used", unknown.remove(place))
                }
                None => message.clone(),
            };
            match severity {
                Severity::Refused => self.refuse(key, &message),
                Severity::Reported => self.note(key, &message),
            }
        }
        for key in unknown {
            let absent = self.seen.iter().filter(|name| !self.object.contains_key(*name)).map(String::as_str);
            let suggestion = suggest::did_you_mean(key, absent);
            self.note(key, &format!("the key is not known and not used{suggestion}"));
        }
    }
}

/// The maximum length of a string in a message, in characters.
const MOST_SHOWN: usize = 40;

/// Returns a value as a message shows it: complete only if it is a short scalar.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() > MOST_SHOWN => "a long string".to_owned(),
        Value::String(_) => value.to_string(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
