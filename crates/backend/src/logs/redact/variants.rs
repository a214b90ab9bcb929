//! The forms in which a text appears when a function writes it.

use std::fmt::Write as _;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use super::SHORTEST;

/// The minimum length of a line of a secret, and of a part in base64, in bytes. A shorter one
/// would occur in other texts.
const SHORTEST_PART: usize = 8;

/// Returns a secret and its other forms: escaped in quotation marks, in one line, each of its
/// lines, percent-encoded and in base64.
pub(super) fn of(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), secret.trim().to_owned()];
    forms.extend(escaped(secret));
    forms.extend(in_one_line(secret));
    let lines = secret.lines().map(str::trim);
    // The frame of a key in PEM is not secret.
    forms.extend(lines.filter(|line| line.len() >= SHORTEST_PART && !line.starts_with("-----")).map(ToOwned::to_owned));
    forms.extend(["", "!'()*", "!'()*~"].map(|kept| percent_encoded(secret, kept)));
    forms.push(percent_encoded(secret, "").replace("%20", "+"));
    forms.extend(in_base64(secret));
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

/// Returns a text as JSON and as `util.inspect` show it, without the quotation marks.
fn escaped(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let inspected = json.replace("\\\"", "\"");
    // A text that contains text in JSON is escaped twice.
    let twice = json.replace('\\', "\\\\").replace('"', "\\\"");
    vec![inspected.replace('\'', "\\'"), inspected, json, twice]
}

/// Returns a text in one line, as the console writes it, and with single spaces.
fn in_one_line(secret: &str) -> Vec<String> {
    let mut line = String::new();
    for part in secret.split(['\r', '\n']) {
        let is_first = line.is_empty();
        let part = if is_first { part } else { part.trim_start_matches(' ') };
        if !part.is_empty() {
            line.push_str(if is_first { "" } else { " " });
            line.push_str(part);
        }
    }
    let words: Vec<&str> = secret.split_whitespace().collect();
    vec![words.join(" "), words.concat(), line]
}

/// Percent-encodes a text, except letters, digits, `-_.` and `kept`.
fn percent_encoded(text: &str, kept: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || "-_.".contains(letter) || kept.contains(letter) {
            encoded.push(letter);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Returns the letters that contain only the text, wherever it stands.
fn in_base64(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(text.as_bytes());
        let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.extend(encoded.get(from..to).filter(|part| part.len() >= SHORTEST_PART).map(ToOwned::to_owned));
        }
    }
    forms
}
