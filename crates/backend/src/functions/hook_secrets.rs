//! The texts of hooks that fail, without the secrets in their arguments: a function may throw its
//! argument, with the password and the tokens in it.

use std::sync::Arc;

use bson::{
    RawArray,
    raw::{RawBsonRef, RawDocument},
};

use super::Hook;

/// The maximum length of the text of an error, in characters.
const LONGEST_TEXT: usize = 1000;

/// The minimum length of a secret, in characters. A shorter one would occur in ordinary words.
const SHORTEST: usize = 4;

/// The maximum number of secrets that are looked for. A text of a hook with more is not shown.
const MOST_SECRETS: usize = 256;

/// The text in the place of a secret.
const HIDDEN: &str = "***";

/// The fields of the first argument of a confirmation or reset function that are secret.
const SECRET_FIELDS: [&str; 3] = ["password", "token", "tokenId"];

/// The secrets in the arguments of a hook. The `Debug` output does not show them.
#[derive(Clone)]
pub(super) struct HookSecrets(Arc<[String]>);

impl std::fmt::Debug for HookSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HookSecrets")
    }
}

impl HookSecrets {
    /// Finds the secrets in the arguments of a hook. All texts from a client who is not logged in
    /// count as secret, because only the operator knows what they mean.
    pub(super) fn of(hook: Hook, arguments: &RawArray) -> Self {
        let mut texts = Vec::new();
        let mut arguments = arguments.into_iter().filter_map(Result::ok);
        match (hook, arguments.next()) {
            (Hook::UserCreation, _) => return Self(texts.into()),
            (Hook::Confirmation | Hook::PasswordReset, Some(RawBsonRef::Document(first))) => {
                let secret = |(key, value)| SECRET_FIELDS.contains(&key).then_some(value);
                query::elements(first).filter_map(secret).for_each(|value| collect(value, &mut texts));
            }
            (_, first) => first.into_iter().for_each(|value| collect(value, &mut texts)),
        }
        arguments.for_each(|value| collect(value, &mut texts));
        // A secret that contains another one is hidden first.
        texts.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        texts.dedup();
        Self(texts.into())
    }

    /// Returns a text without the secrets, with at most 1,000 characters.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.0.len() > MOST_SECRETS {
            return "the text is not shown, because the arguments have too many texts that may be secret".to_owned();
        }
        let (mut shown, mut length, mut rest) = (String::new(), 0, text);
        while length < LONGEST_TEXT
            && let Some(letter) = rest.chars().next()
        {
            let secret = self.0.iter().find(|secret| rest.starts_with(secret.as_str()));
            let (show, skip) = match secret {
                Some(secret) => (HIDDEN, secret.len()),
                None => {
                    rest.split_at_checked(letter.len_utf8()).map_or((rest, rest.len()), |(one, _)| (one, one.len()))
                }
            };
            shown.push_str(show);
            length += show.chars().count();
            rest = rest.get(skip..).unwrap_or_default();
        }
        if !rest.is_empty() {
            shown.push('…');
        }
        shown
    }
}

/// Cuts a text to 1,000 characters.
pub(super) fn cut(text: &str) -> String {
    HookSecrets(Arc::default()).hide(text)
}

/// Collects the texts in a value, also as they look in JSON.
fn collect(value: RawBsonRef<'_>, texts: &mut Vec<String>) {
    let mut left = vec![value];
    // One more is enough to see that there are too many.
    while texts.len() <= MOST_SECRETS
        && let Some(value) = left.pop()
    {
        match value {
            RawBsonRef::String(text) if text.chars().nth(SHORTEST - 1).is_some() => {
                let json = serde_json::Value::from(text).to_string();
                let json = json.get(1..json.len() - 1).unwrap_or_default();
                texts.extend((json != text).then(|| json.to_owned()));
                texts.push(text.to_owned());
            }
            RawBsonRef::Document(document) => left.extend(values(document)),
            RawBsonRef::Array(array) => left.extend(array.into_iter().filter_map(Result::ok)),
            _ => {}
        }
    }
}

fn values(document: &RawDocument) -> impl Iterator<Item = RawBsonRef<'_>> {
    query::elements(document).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use bson::{RawBson, raw::RawArrayBuf, rawdoc};

    use super::*;

    fn secrets(hook: Hook, arguments: impl IntoIterator<Item = RawBson>) -> HookSecrets {
        HookSecrets::of(hook, &arguments.into_iter().collect::<RawArrayBuf>())
    }

    #[test]
    fn secrets_in_the_arguments_are_hidden() {
        let first =
            rawdoc! { "username": "ada@example.com", "password": "pass\"word", "token": "abcdef", "tokenId": "012345" };
        let of_reset = secrets(Hook::PasswordReset, [first.into(), RawBson::String("answer".to_owned())]);
        let thrown = r#"ada@example.com pass"word {"password":"pass\"word","token":"abcdef012345"} answer"#;
        assert_eq!(of_reset.hide(thrown), r#"ada@example.com *** {"password":"***","token":"******"} ***"#);
        let payload = rawdoc! { "user": { "names": ["adam"], "pin": "123" } };
        assert_eq!(secrets(Hook::Authentication, [payload.into()]).hide("adam 123"), "*** 123");
        assert_eq!(secrets(Hook::UserCreation, [rawdoc! { "id": "abcdef" }.into()]).hide("abcdef"), "abcdef");
    }

    #[test]
    fn a_secret_that_contains_another_one_is_hidden_as_a_whole() {
        let payload = rawdoc! { "a": "pass", "b": "password" };
        assert_eq!(secrets(Hook::Authentication, [payload.into()]).hide("a password, a pass"), "a ***, a ***");
    }

    #[test]
    fn long_texts_are_cut_without_a_part_of_a_secret() {
        let payload = rawdoc! { "a": "secret".repeat(200) };
        let of_payload = secrets(Hook::Authentication, [payload.into()]);
        assert_eq!(of_payload.hide(&"secret".repeat(400)), "******");
        assert_eq!(
            of_payload.hide(&format!("{}{}", "x".repeat(999), "secret".repeat(200))),
            format!("{}***", "x".repeat(999))
        );
        assert_eq!(cut(&"é".repeat(5_000_000)), format!("{}…", "é".repeat(1000)));
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn a_text_is_not_shown_if_there_are_too_many_secrets() {
        let many: RawArrayBuf = (0..10_000).map(|n| format!("secret {n}")).collect();
        let text = secrets(Hook::Authentication, [RawBson::Array(many)]).hide("secret 1");
        assert!(!text.contains("secret 1"), "{text}");
    }
}
