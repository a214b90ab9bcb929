//! Removes secrets from texts and arguments before they are stored.

mod variants;

use std::sync::Arc;

use bson::raw::{RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};
use query::elements;
use serde_json::Value;

use crate::definition::Definition;

/// The text in the place of a secret.
const REDACTED: &str = "***";

/// Parts of the names of fields with secrets, in lower case without `_` and `-`.
const SECRET_NAMES: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "token",
    "jwt",
    "credential",
    "cookie",
    "sessionid",
    "passcode",
];

/// Words in the names of fields with secrets. As parts of words, they would occur in others, such
/// as `shipping` and `author`.
const SECRET_WORDS: [&str; 4] = ["pass", "otp", "pin", "auth"];

/// The words before a token in the header `Authorization`.
const SCHEMES: [&str; 2] = ["Bearer ", "Basic "];

/// The minimum length of a secret of the definition that is removed from texts, in bytes. A
/// shorter one would occur in ordinary words. The same holds for the beginning of one where a text
/// was cut.
const SHORTEST: usize = 4;

/// The secrets of a definition, which no entry contains, each in the forms in which functions
/// usually write it. The `Debug` output does not show them.
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
        let mut texts: Vec<String> = texts.iter().flat_map(|text| variants::of(text)).collect();
        // A secret that contains another one is removed first.
        texts.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        texts.dedup();
        Self(texts.into())
    }

    /// Returns a text without secrets of the definition and without tokens.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut redacted = without_headers(&without_tokens(text));
        for secret in self.0.iter().filter(|secret| redacted.contains(secret.as_str())).collect::<Vec<_>>() {
            redacted = redacted.replace(secret.as_str(), REDACTED);
        }
        redacted
    }

    /// Removes the beginning of a secret or a token from the end of a text that was cut there.
    pub(crate) fn end(&self, text: &mut String) {
        let last_word = text.rfind(|letter| !is_token_letter(letter)).unwrap_or(0);
        if let Some(at) = text[last_word..].find("eyJ") {
            text.truncate(last_word + at);
            text.push_str(REDACTED);
        }
        let longest = self.0.iter().map(|secret| beginning_at_end(text, secret)).max().unwrap_or(0);
        if longest > 0 {
            text.truncate(text.len() - longest);
            text.push_str(REDACTED);
        }
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

/// Returns the length of the longest beginning of a secret with which a text ends, or 0.
fn beginning_at_end(text: &str, secret: &str) -> usize {
    let (text, secret) = (text.as_bytes(), secret.as_bytes());
    let most = text.len().min(secret.len().saturating_sub(1));
    let (Some(last), true) = (text.last(), most >= SHORTEST) else { return 0 };
    (SHORTEST..=most)
        .rev()
        .filter(|length| secret[length - 1] == *last)
        .find(|length| text.ends_with(&secret[..*length]))
        .filter(|length| std::str::from_utf8(&secret[..*length]).is_ok())
        .unwrap_or(0)
}

/// True if a name consists of words of which one is secret, as in `userPin` and `user_pin`.
fn has_secret_word(name: &str) -> bool {
    let mut word = String::new();
    let is_last = |word: &mut String| SECRET_WORDS.contains(&std::mem::take(word).as_str());
    for letter in name.chars() {
        let is_start = letter.is_ascii_uppercase() && !word.is_empty();
        if (is_start || !letter.is_ascii_alphabetic()) && is_last(&mut word) {
            return true;
        }
        if letter.is_ascii_alphabetic() {
            word.push(letter.to_ascii_lowercase());
        }
    }
    is_last(&mut word)
}

/// True if the values of a field of this name are secrets.
fn is_secret(name: &str) -> bool {
    if has_secret_word(name) || SECRET_WORDS.contains(&name.to_ascii_lowercase().as_str()) {
        return true;
    }
    let name: String = name.chars().filter(|letter| !matches!(letter, '_' | '-')).collect();
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// Replaces the tokens after `Bearer` and `Basic` in a text.
fn without_headers(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    let next = |rest: &str| SCHEMES.iter().filter_map(|scheme| Some(rest.find(scheme)? + scheme.len())).min();
    while let Some(at) = next(rest) {
        let length = rest[at..].find(char::is_whitespace).unwrap_or(rest.len() - at);
        redacted.push_str(&rest[..at]);
        redacted.push_str(if length > 0 { REDACTED } else { "" });
        rest = &rest[at + length..];
    }
    redacted.push_str(rest);
    redacted
}

/// True for the letters of a JSON Web Token.
fn is_token_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

/// Replaces the JSON Web Tokens in a text: three parts in base64, of which the first begins with
/// `{"`.
fn without_tokens(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let end = rest[at..].find(|letter| !is_token_letter(letter)).map_or(rest.len(), |length| at + length);
        let is_token = rest[at..end].matches('.').count() >= 2;
        redacted.push_str(&rest[..at]);
        redacted.push_str(if is_token { REDACTED } else { &rest[at..end] });
        rest = &rest[end..];
    }
    redacted.push_str(rest);
    redacted
}

#[cfg(test)]
mod tests;
