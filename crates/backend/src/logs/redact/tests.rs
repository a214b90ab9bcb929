// cspell:disable: texts in base64 and parts of words
#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

const PEM: &str =
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----\n";

fn redaction(secrets: &[&str]) -> Redaction {
    let mut definition = Definition::development().unwrap();
    definition.values.add("all", serde_json::json!(secrets), true);
    Redaction::of(&definition)
}

#[test]
fn a_secret_is_found_in_other_forms() {
    let secrets = [PEM, "it's \"quoted\" \\ secret", "p@ss/word+1", "plain-secret"];
    let redaction = redaction(&secrets);
    let one_line = PEM.trim().replace('\n', " ");
    let json = serde_json::json!({ "pem": PEM, "it": secrets[1] }).to_string();
    let twice = serde_json::json!({ "json": json }).to_string();
    let shown = format!("{{ pem: '{}' }}", PEM.replace('\n', "\\n"));
    let in_base64 = ["", "u", "us", "user:"].map(|before| STANDARD.encode(format!("{before}{}", secrets[3])));
    let texts = [
        PEM.to_owned(),
        one_line,
        json,
        twice,
        shown,
        "['it\\'s \"quoted\" \\\\ secret']".to_owned(),
        "a line: EFAASCBKcwggSjAgEAAoIBAQC7".to_owned(),
        "p%40ss%2Fword%2B1".to_owned(),
    ];
    for text in texts.iter().chain(&in_base64) {
        let redacted = redaction.text(text);
        assert!(redacted.contains(REDACTED), "{text}");
        for part in
            ["MIIEvQ", "EFAASCBKcwggSj", "quoted\\\"", "\"quoted\"", "p%40ss", "bGFpbi1zZWNyZX", "YWluLXNlY3Jld"]
        {
            assert!(!redacted.contains(part), "{redacted}");
        }
    }
    assert_eq!(redaction.text("nothing of it"), "nothing of it");
}

#[test]
fn the_beginning_of_a_secret_is_removed_where_a_text_was_cut() {
    let redaction = redaction(&["secret-of-the-operator", "über-secret"]);
    let cut = |text: &str| {
        let mut text = text.to_owned();
        redaction.end(&mut text);
        text
    };
    assert_eq!(cut("ab secret-of-the"), "ab ***");
    assert_eq!(cut("ab secr"), "ab ***");
    assert_eq!(cut("ab sec"), "ab sec");
    assert_eq!(cut("ab über"), "ab ***");
    assert_eq!(cut(""), "");
    assert_eq!(cut("ä eyJhbGciOiJ.eyJzdWIi"), "ä ***");
    assert_eq!(cut("eyJhbGciOiJ"), "***");
    assert_eq!(cut("eyJhbGciOiJ ends"), "eyJhbGciOiJ ends");
}

#[test]
fn tokens_of_headers_are_removed() {
    let text = Redaction::default().text("a Bearer sk_live_123 b Basic dXNlcg== c Bearer ");
    assert_eq!(text, "a Bearer *** b Basic *** c Bearer ");
}

#[test]
fn names_of_secret_fields_are_known() {
    for name in [
        "pwd",
        "pass",
        "passphrase",
        "jwt",
        "otp",
        "Cookie",
        "set-cookie",
        "pin",
        "userPin",
        "user_pin",
        "sessionId",
        "accessKey",
        "auth",
        "PIN",
        "X-Auth",
    ] {
        assert!(is_secret(name), "{name}");
    }
    for name in ["shipping", "author", "compass", "passenger", "pinned", "name", "session"] {
        assert!(!is_secret(name), "{name}");
    }
}
