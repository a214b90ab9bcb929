//! Reads `auth/custom_user_data.json`.

use std::collections::BTreeSet;

use query::Path;
use store::Namespace;

use super::{
    data_sources::{NamePart, check_names, listed, undefined_data_source},
    functions::Functions,
    reader::Reader,
};

/// The key of the function that runs before a user is created.
const CREATION_FUNCTION: &str = "on_user_creation_function_name";

/// The configuration of custom user data, `auth/custom_user_data.json`.
#[derive(Debug, Clone)]
pub struct CustomUserData {
    /// The name of the data source.
    pub service: String,
    /// The collection that contains the custom data.
    pub namespace: Namespace,
    /// The field that contains the user's id, as a string or an ObjectId.
    pub user_id_field: Path,
    /// The name of the function that runs before a user is created, if there is one.
    pub creation_function: Option<String>,
}

pub(super) fn read(
    data_sources: &BTreeSet<String>,
    functions: &Functions,
    reader: &mut Reader<'_>,
) -> Option<CustomUserData> {
    let enabled = reader.flag("enabled").unwrap_or(false);
    let service = required_text(reader, "mongo_service_name");
    let database = required_text(reader, "database_name");
    let collection = required_text(reader, "collection_name");
    let field = required_text(reader, "user_id_field");
    // A disabled configuration may name a data source that does not exist.
    if !enabled {
        reader.known(&[CREATION_FUNCTION]);
        reader.finish();
        return None;
    }
    let creation_function = functions.named_by(reader, CREATION_FUNCTION, "no user can be created");
    let service = choose_data_source(data_sources, service, reader);
    let mut required = |key, value| match value {
        Text::Is(text) => Some(text),
        Text::Other => None,
        Text::Missing => {
            reader.refuse_missing(key, "is required if custom user data is enabled");
            None
        }
    };
    let database = required("database_name", database);
    let collection = required("collection_name", collection);
    let field = required("user_id_field", field);
    reader.finish();
    if let (Some(database), Some(collection)) = (&database, &collection)
        && let Err((part, message)) = check_names(database, collection)
    {
        let key = match part {
            NamePart::Database => "database_name",
            NamePart::Collection => "collection_name",
        };
        reader.refuse(key, &message);
    }
    let user_id_field = match Path::strict(&field?) {
        Ok(path) => path,
        Err(error) => {
            reader.refuse("user_id_field", &error.message);
            return None;
        }
    };
    let namespace = Namespace::new(&database?, &collection?);
    Some(CustomUserData { service: service?, namespace, user_id_field, creation_function })
}

/// A required string.
enum Text {
    Is(String),
    Missing,
    /// A value of another type, which has been reported already.
    Other,
}

fn required_text(reader: &mut Reader<'_>, key: &str) -> Text {
    let is_there = reader.get(key).is_some();
    match reader.text(key) {
        Some(text) if !text.is_empty() => Text::Is(text),
        None if is_there => Text::Other,
        _ => Text::Missing,
    }
}

/// Returns the data source of custom user data: the named one, which must exist, or else the only
/// one.
fn choose_data_source(data_sources: &BTreeSet<String>, named: Text, reader: &mut Reader<'_>) -> Option<String> {
    let key = "mongo_service_name";
    match named {
        Text::Other => None,
        Text::Missing if data_sources.len() == 1 => data_sources.first().cloned(),
        Text::Missing => {
            let message =
                format!("is required if custom user data is enabled: the definition has {}", listed(data_sources));
            reader.refuse_missing(key, &message);
            None
        }
        Text::Is(name) if data_sources.contains(&name) => Some(name),
        Text::Is(name) => {
            reader.refuse(key, &undefined_data_source(&name, data_sources));
            None
        }
    }
}
