//! The names of the files and directories of an export.

use super::{report::Report, suggest};

/// The directories of an export.
pub(super) const DIRECTORIES: &[&str] = &[
    "auth",
    "data_sources",
    "environments",
    "functions",
    "graphql",
    "hosting",
    "http_endpoints",
    "https_endpoints",
    "log_forwarders",
    "services",
    "sync",
    "triggers",
    "values",
];

/// True if the contents of the file at `path` are read. Other files need not be JSON.
pub(super) fn is_read(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts[..],
        ["root_config.json" | "realm_config.json"]
            | ["auth", "providers.json" | "custom_user_data.json"]
            | ["data_sources", _, "config.json" | "default_rule.json"]
            | ["data_sources", _, _, _, "rules.json" | "indexes.json" | "collection.json" | "schema.json"]
            | ["environments" | "triggers" | "values", _]
            | ["functions", .., "config.json"]
            | ["sync", "config.json"]
            | ["http_endpoints" | "https_endpoints", "config.json" | "data_api_config.json"]
    )
}

/// Reports a file in an export's directories that is unknown, or any file whose name resembles a
/// known one. Other files do not belong to the export.
pub(super) fn note_unknown(path: &str, parts: &[&str], report: &mut Report) {
    let known: &[&str] = match parts {
        ["auth", _] => &["providers.json", "custom_user_data.json"],
        ["data_sources", _, _] => &["config.json", "default_rule.json"],
        ["data_sources", _, _, _, _] => {
            &["rules.json", "indexes.json", "collection.json", "schema.json", "relationships.json"]
        }
        [directory, _, ..] if !DIRECTORIES.contains(directory) => DIRECTORIES,
        [_] => &["root_config.json", "realm_config.json"],
        _ => &[],
    };
    let is_part = parts.len() > 1 && DIRECTORIES.contains(&parts[0]);
    let name = if is_part { parts[parts.len() - 1] } else { parts[0] };
    // All names end with `.json`, so the ending would make them similar.
    let stem = |name: &str| name.trim_end_matches(".json").to_owned();
    let stems: Vec<_> = known.iter().map(|known| stem(known)).collect();
    let meant = suggest::closest(&stem(name), stems.iter().map(String::as_str));
    let meant = meant.and_then(|meant| known.iter().find(|known| stem(known) == meant));
    match meant {
        Some(meant) => report.note(path, "", &format!("the file is not known and not used; did you mean '{meant}'?")),
        None if is_part => report.note(path, "", "the file is not known and not used"),
        None => {}
    }
}
