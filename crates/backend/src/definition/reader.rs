//! Reading one JSON object, remembering which keys were asked for.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::report::Report;

pub(super) struct Reader<'a> {
    file: &'a str,
    path: String,
    object: &'a Map<String, Value>,
    seen: HashSet<String>,
    report: &'a mut Report,
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, value: &'a Value, report: &'a mut Report) -> Self {
        Self::at(file, "$".into(), value, report)
    }

    fn at(file: &'a str, path: String, value: &'a Value, report: &'a mut Report) -> Self {
        let object = value.as_object().unwrap_or_else(|| {
            report.refuse(file, &path, &format!("expected an object, got {}", kind(value)));
            &EMPTY
        });
        Self { file, path, object, seen: HashSet::new(), report }
    }

    /// A reader of a value inside this one.
    pub(super) fn inside<'b>(&'b mut self, path: &str, value: &'b Value) -> Reader<'b>
    where
        'a: 'b,
    {
        Reader::at(self.file, format!("{}{path}", self.path), value, self.report)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.object.iter()
    }

    pub(super) fn get(&mut self, key: &str) -> Option<&'a Value> {
        self.seen.insert(key.to_owned());
        self.object.get(key)
    }

    pub(super) fn known(&mut self, keys: &[&str]) {
        self.seen.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.refuse(key, &format!("expected a string, got {}", kind(other)));
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                self.refuse(key, &format!("expected true or false, got {}", kind(other)));
                None
            }
        }
    }

    pub(super) fn array(&mut self, key: &str) -> &'a [Value] {
        match self.get(key) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.refuse(key, &format!("expected an array, got {}", kind(other)));
                &[]
            }
        }
    }

    pub(super) fn refuse(&mut self, key: &str, message: &str) {
        let path = self.path_of(key);
        self.report.refuse(self.file, &path, message);
    }

    pub(super) fn note(&mut self, key: &str, message: &str) {
        let path = self.path_of(key);
        self.report.note(self.file, &path, message);
    }

    fn path_of(&self, key: &str) -> String {
        if key.is_empty() || key.starts_with('[') {
            format!("{}{key}", self.path)
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(&mut self) {
        let unknown: Vec<_> = self.object.keys().filter(|key| !self.seen.contains(*key)).cloned().collect();
        for key in unknown {
            self.note(&key, "the key is not known and not used");
        }
    }
}

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
