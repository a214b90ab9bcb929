use serde_json::Value;

use super::{reader::Reader, suggest::did_you_mean};

/// The enabled authentication providers.
#[derive(Debug, Default)]
pub struct Providers {
    /// True if `anon-user` is enabled.
    pub anonymous: bool,
    /// The configuration of `local-userpass`, if it is enabled.
    pub email_password: Option<EmailPassword>,
}

/// The configuration of `local-userpass`.
#[derive(Debug, Clone, Copy)]
pub struct EmailPassword {
    /// True if users are confirmed on registration. Other kinds of confirmation are not supported
    /// yet, and registration is rejected.
    pub auto_confirm: bool,
}

/// The providers of App Services that are not supported yet.
const UNAVAILABLE: &[&str] =
    &["api-key", "custom-function", "custom-token", "oauth2-apple", "oauth2-facebook", "oauth2-google"];

/// The supported providers.
const KNOWN: &[&str] = &["anon-user", "local-userpass"];

impl Providers {
    pub(super) fn read(file: &mut Reader<'_>) -> Self {
        let mut providers = Self::default();
        let mut has_unknown = false;
        for (name, value) in file.keys() {
            has_unknown |= !KNOWN.contains(&name.as_str()) && !UNAVAILABLE.contains(&name.as_str());
            let mut provider = file.inside(&format!(".{name}"), value);
            providers.read_provider(name, &mut provider);
        }
        if file.is_object() && !has_unknown && !providers.anonymous && providers.email_password.is_none() {
            file.note("", "no supported authentication provider is enabled, so no user can log in");
        }
        providers
    }

    fn read_provider(&mut self, name: &str, provider: &mut Reader<'_>) {
        provider.known(&["id", "name", "type"]);
        if provider.flag("disabled").unwrap_or(false) {
            return;
        }
        if UNAVAILABLE.contains(&name) {
            return provider.note("", "the provider is not supported yet; log-ins with it are rejected");
        }
        if !provider.array("domain_restrictions").iter().all(|domain| domain == "") {
            provider
                .refuse("domain_restrictions", "is not supported yet, and without it users of any domain could log in");
        }
        provider.known(&["metadata_fields", "redirect_uris", "secret_config", "config"]);
        match name {
            "anon-user" => self.anonymous = true,
            "local-userpass" => {
                let config = provider.get("config").cloned().unwrap_or(Value::Object(serde_json::Map::new()));
                let mut config = provider.inside(".config", &config);
                const REJECTED: &str = "only automatic confirmation is supported yet, so registration is rejected";
                let auto_confirm = config.flag("autoConfirm");
                let by_function = config.flag("runConfirmationFunction").unwrap_or(false);
                if auto_confirm == Some(false) || by_function {
                    config.note("", REJECTED);
                } else if auto_confirm.is_none() {
                    config.note_missing("autoConfirm", &format!("is missing, and {REJECTED}"));
                }
                let auto_confirm = auto_confirm.unwrap_or(false);
                if config.flag("runResetFunction").unwrap_or(false) {
                    config.note("runResetFunction", "passwords cannot be reset yet");
                }
                config.known(&[
                    "confirmationFunctionName",
                    "confirmEmailSubject",
                    "emailConfirmationUrl",
                    "resetFunctionName",
                    "resetPasswordSubject",
                    "resetPasswordUrl",
                ]);
                config.finish();
                self.email_password = Some(EmailPassword { auto_confirm: auto_confirm && !by_function });
            }
            _ => {
                let all = KNOWN.iter().chain(UNAVAILABLE).copied();
                let suggestion = did_you_mean(name, all);
                provider.note("", &format!("the provider is not known and not used{suggestion}"));
                // Its keys are not reported, because they belong to the same mistake.
                return;
            }
        }
        provider.finish();
    }
}
