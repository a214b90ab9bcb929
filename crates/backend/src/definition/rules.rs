//! Reads `rules.json` and `default_rule.json`.

use serde_json::Value;

use super::reader::Reader;
use crate::constants::Constants;
use crate::rules::{DocumentFilters, Expression, Role, RuleSet};

/// Reads the rules of a collection. Without a role it returns `None`, and the default rules apply.
pub(super) fn read_of_collection(
    database: &str,
    collection: &str,
    file: &mut Reader<'_>,
    constants: &Constants,
) -> Option<RuleSet> {
    for (key, directory) in [("database", database), ("collection", collection)] {
        if file.text(key).is_some_and(|name| name != directory) {
            file.note(key, &format!("differs from its directory '{directory}', which is used"));
        }
    }
    if file.get("schema").is_some_and(|schema| schema.as_object().is_none_or(|schema| !schema.is_empty())) {
        file.refuse("schema", "schema validation is not supported yet, and without it writes would go unchecked");
    }
    file.known(&["id", "relationships"]);
    read(file, constants)
}

pub(super) fn read(file: &mut Reader<'_>, constants: &Constants) -> Option<RuleSet> {
    file.known(&["id"]);
    if !file.array("filters").is_empty() {
        file.refuse("filters", "filters are not supported yet, and without them more documents could be read");
    }
    let mut roles = Vec::new();
    for (index, role) in file.array("roles").iter().enumerate() {
        roles.push(read_role(&mut file.inside(&format!(".roles[{index}]"), role), constants));
    }
    file.finish();
    (!roles.is_empty()).then(|| RuleSet::new(roles))
}

fn read_role(role: &mut Reader<'_>, constants: &Constants) -> Role {
    let name = role.text("name").unwrap_or_default();
    let apply_when = expression(role, "apply_when", constants).unwrap_or_else(|| {
        role.refuse_missing("apply_when", "is required: a role must say when it applies ({} for always)");
        Expression::Constant(false)
    });
    let document_filters = role.get("document_filters").map(|filters| {
        let mut filters = role.inside(".document_filters", filters);
        let read = expression(&mut filters, "read", constants);
        let write = expression(&mut filters, "write", constants);
        for (key, value) in [("read", &read), ("write", &write)] {
            if value.is_none() {
                filters.note_missing(key, "is missing, which allows nothing");
            }
        }
        filters.finish();
        DocumentFilters { read, write }
    });
    let [read, write, insert, delete, search] =
        ["read", "write", "insert", "delete", "search"].map(|key| expression(role, key, constants));
    for (key, value) in [("insert", &insert), ("delete", &delete), ("search", &search)] {
        if value.is_none() {
            role.note_missing(key, "is missing, which means true if writing is allowed");
        }
    }
    for key in ["fields", "additional_fields"] {
        if role.get(key).is_some_and(|fields| fields.as_object().is_none_or(|fields| !fields.is_empty())) {
            role.refuse(
                key,
                "rules for single fields are not supported yet, and without them more fields could be read",
            );
        }
    }
    role.known(&["id"]);
    role.finish();
    Role { name, apply_when, document_filters, read, write, insert, delete }
}

fn expression(role: &mut Reader<'_>, key: &str, constants: &Constants) -> Option<Expression> {
    let value: &Value = role.get(key)?;
    match Expression::parse(value, constants) {
        Ok(expression) => Some(expression),
        Err(error) => {
            role.refuse(&format!("{key}{}", error.path), &error.message);
            Some(Expression::Constant(false))
        }
    }
}
