//! Removes secrets from texts and arguments before they are stored.

use std::sync::Arc;

use bson::raw::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};
use query::elements;
use serde_json::Value;

use crate::definition::Definition;

/// The text in the place of a secret.
const REDACTED: &str = "***";

/// Parts of the names of fields with secrets, in lower case without `_` and `-`.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "secret", "apikey", "privatekey", "authorization", "token", "credential"];

/// The minimum length of a secret of the definition that is removed from texts, in bytes. A
/// shorter one would occur in ordinary words.
const SHORTEST: usize = 4;

/// The secrets of a definition, which no entry contains. The `Debug` output does not show them.
#[derive(Clone, Default)]
pub(crate) struct Redaction(Arc<[String]>);

impl std::fmt::Debug for Redaction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Redaction")
    }
}

impl Redaction {
    /// Finds the texts of the secrets in the values of a definition.
    pub(crate) fn of(definition: &Definition) -> Self {
        let mut texts = Vec::new();
        definition.values.secrets().for_each(|value| collect(value, &mut texts));
        // A secret that contains another one is removed first.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        Self(texts.into())
    }

    /// Returns a text without secrets of the definition and without tokens.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut redacted = without_tokens(text);
        for secret in self.0.iter().filter(|secret| redacted.contains(secret.as_str())).collect::<Vec<_>>() {
            redacted = redacted.replace(secret.as_str(), REDACTED);
        }
        redacted
    }

    /// Returns an array without secrets: also without the values of fields such as `password`.
    pub(crate) fn array(&self, array: &RawArray) -> RawArrayBuf {
        let mut redacted = RawArrayBuf::new();
        for value in array.into_iter().filter_map(Result::ok) {
            self.value(value, |value| redacted.push(value));
        }
        redacted
    }

    fn document(&self, document: &RawDocument) -> RawDocumentBuf {
        let mut redacted = RawDocumentBuf::new();
        for (key, value) in elements(document) {
            let key = self.text(key);
            if is_secret(&key) {
                query::append(&mut redacted, &key, RawBsonRef::String(REDACTED));
            } else {
                self.value(value, |value| query::append(&mut redacted, &key, value));
            }
        }
        redacted
    }

    fn value(&self, value: RawBsonRef<'_>, add: impl FnOnce(RawBsonRef<'_>)) {
        match value {
            RawBsonRef::String(text) => add(RawBsonRef::String(&self.text(text))),
            RawBsonRef::Document(document) => add(RawBsonRef::Document(&self.document(document))),
            RawBsonRef::Array(array) => add(RawBsonRef::Array(&self.array(array))),
            value => add(value),
        }
    }
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() >= SHORTEST => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, texts)),
        _ => {}
    }
}

/// True if the values of a field of this name are secrets.
fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(|letter| !matches!(letter, '_' | '-')).collect();
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// Replaces the JSON Web Tokens in a text: three parts in base64, of which the first begins with
/// `{"`.
fn without_tokens(text: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let end = rest[at..].find(|letter| !is_part(letter)).map_or(rest.len(), |length| at + length);
        let is_token = rest[at..end].matches('.').count() >= 2;
        redacted.push_str(&rest[..at]);
        redacted.push_str(if is_token { REDACTED } else { &rest[at..end] });
        rest = &rest[end..];
    }
    redacted.push_str(rest);
    redacted
}
