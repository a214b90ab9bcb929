//! The fields of commands and their types. Commands are checked against them before they reach the
//! store. This part of MongoDB's wire protocol does not concern the SDK.

use bson::{Bson, Document};

use crate::commands::{Failure, failure, refused};

/// The type of a field. Null counts as a missing field, except for strict types.
#[derive(Clone, Copy)]
enum Kind {
    Any,
    Array,
    Flag,
    /// A boolean; neither a number nor null.
    StrictFlag,
    /// An index, by its name or its keys.
    Hint,
    Number,
    Object,
    StrictObject,
    ReadConcern,
    Text,
    /// An update, which is checked when it is parsed.
    Update,
}

use Kind::{Any, Array, Flag, Hint, Number, Object, ReadConcern, StrictFlag, StrictObject, Text, Update};

type Fields = &'static [(&'static str, Kind)];

const EVERYWHERE: Fields = &[
    ("$db", Any),
    ("apiDeprecationErrors", Any),
    ("apiStrict", Any),
    ("apiVersion", Any),
    ("collation", Object),
    ("comment", Any),
    ("lsid", Any),
    ("maxTimeMS", Number),
    ("readConcern", ReadConcern),
    ("writeConcern", Object),
];

/// The fields of each command, followed by the names of its required fields.
const COMMANDS: &[(&str, Fields, &[&str])] = &[
    (
        "aggregate",
        &[
            ("allowDiskUse", StrictFlag),
            ("bypassDocumentValidation", Flag),
            ("cursor", StrictObject),
            ("explain", Flag),
            ("hint", Hint),
            ("let", Object),
            ("pipeline", Array),
        ],
        &["pipeline"],
    ),
    ("count", &[("fields", Any), ("hint", Hint), ("limit", Any), ("query", Object), ("skip", Number)], &[]),
    (
        "createIndexes",
        &[("commitQuorum", Any), ("ignoreUnknownIndexOptions", StrictFlag), ("indexes", Array)],
        &["indexes"],
    ),
    ("delete", &[("deletes", Array), ("let", Object), ("ordered", Flag)], &["deletes"]),
    ("distinct", &[("hint", Hint), ("key", Text), ("query", Object)], &["key"]),
    ("dropIndexes", &[("index", Any)], &["index"]),
    (
        "find",
        &[
            ("allowDiskUse", Flag),
            ("allowPartialResults", Flag),
            ("awaitData", Flag),
            ("batchSize", Number),
            ("filter", StrictObject),
            ("hint", Hint),
            ("let", Object),
            ("limit", Number),
            ("max", Object),
            ("min", Object),
            ("noCursorTimeout", Flag),
            ("projection", Object),
            ("returnKey", Flag),
            ("showRecordId", Flag),
            ("singleBatch", Flag),
            ("skip", Number),
            ("sort", Object),
            ("tailable", Flag),
        ],
        &[],
    ),
    (
        "findAndModify",
        &[
            ("arrayFilters", Array),
            ("bypassDocumentValidation", Flag),
            ("fields", Object),
            ("hint", Hint),
            ("let", Object),
            ("new", Flag),
            ("query", Object),
            ("remove", Flag),
            ("sort", Object),
            ("update", Update),
            ("upsert", Flag),
        ],
        &[],
    ),
    ("insert", &[("bypassDocumentValidation", Flag), ("documents", Array), ("ordered", Flag)], &["documents"]),
    (
        "listIndexes",
        &[("cursor", Object), ("includeBuildUUIDs", StrictFlag), ("includeIndexBuildInfo", StrictFlag)],
        &[],
    ),
    (
        "update",
        &[("bypassDocumentValidation", Flag), ("let", Object), ("ordered", Flag), ("updates", Array)],
        &["updates"],
    ),
];

/// Returns the command without null fields, if every field belongs to the command and has an
/// allowed type.
pub(crate) fn checked(command: &Document) -> Result<Document, Failure> {
    let mut all = command.iter();
    let (name, target) = all.next().ok_or_else(|| failure(59, "no command"))?;
    let Some((_, fields, required)) = COMMANDS.iter().find(|(other, ..)| other == name) else {
        return Ok(command.clone());
    };
    check_target(name, target)?;
    let mut checked = Document::new();
    checked.insert(name, target.clone());
    for (field, value) in all {
        let Some((_, kind)) = EVERYWHERE.iter().chain(*fields).find(|(known, _)| known == field) else {
            return Err(match field.as_str() {
                // A field of the wire protocol that belongs to another command.
                "capped" | "timeseries" | "viewOn" | "validator" => refused(format_args!("the option {field}")),
                _ => failure(40415, format!("BSON field '{name}.{field}' is an unknown field.")),
            });
        };
        if is_of(*kind, value)? {
            checked.insert(field, value.clone());
        } else if !matches!(value, Bson::Null) || matches!(kind, StrictFlag | StrictObject) {
            return Err(failure(14, format!("BSON field '{name}.{field}' is the wrong type: {value}")));
        }
    }
    match required.iter().find(|field| !checked.contains_key(field)) {
        Some(field) => Err(failure(40414, format!("BSON field '{name}.{field}' is missing but a required field"))),
        None => Ok(checked),
    }
}

fn check_target(name: &str, target: &Bson) -> Result<(), Failure> {
    match target {
        Bson::String(collection) if !collection.is_empty() && !collection.starts_with(['$', '.']) => Ok(()),
        Bson::Int32(1) | Bson::Int64(1) if name == "aggregate" => Ok(()),
        Bson::Double(number) if name == "aggregate" && *number == 1.0 => Ok(()),
        other => Err(failure(73, format!("Invalid namespace specified: {other}"))),
    }
}

fn is_of(kind: Kind, value: &Bson) -> Result<bool, Failure> {
    let is_number = matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_));
    Ok(match kind {
        Any | Update => true,
        Array => matches!(value, Bson::Array(_)),
        Flag => is_number || matches!(value, Bson::Boolean(_)),
        StrictFlag => matches!(value, Bson::Boolean(_)),
        Number => is_number,
        Object | StrictObject => matches!(value, Bson::Document(_)),
        ReadConcern => match value {
            Bson::Document(concern) => check_read_concern(concern)?,
            _ => false,
        },
        Text => matches!(value, Bson::String(_)),
        Hint => match value {
            Bson::Document(_) | Bson::String(_) => true,
            _ => return Err(failure(9, "Hint must be a string or an object")),
        },
    })
}

/// Checks the required fields of an index and the types of its options.
pub(crate) fn check_index(specification: &Document) -> Result<(), Failure> {
    const FIELDS: &[(&str, Kind)] = &[
        ("2dsphereIndexVersion", Number),
        ("bits", Number),
        ("default_language", Text),
        ("key", StrictObject),
        ("language_override", Text),
        ("max", Number),
        ("min", Number),
        ("name", Text),
        ("storageEngine", StrictObject),
        ("textIndexVersion", Number),
        ("weights", Any),
        ("wildcardProjection", StrictObject),
    ];
    for (field, value) in specification {
        if let Some((_, kind)) = FIELDS.iter().find(|(known, _)| known == field)
            && !is_of(*kind, value)?
        {
            return Err(failure(14, format!("The field '{field}' has the wrong type: {value}")));
        }
    }
    match ["key", "name"].iter().find(|field| !specification.contains_key(field)) {
        Some(field) => Err(failure(9, format!("The '{field}' field is a required property of an index specification"))),
        None => Ok(()),
    }
}

fn check_read_concern(concern: &Document) -> Result<bool, Failure> {
    for (field, value) in concern {
        let known = match (field.as_str(), value) {
            ("level", Bson::String(level)) => {
                ["local", "majority", "linearizable", "available", "snapshot"].contains(&level.as_str())
            }
            ("provenance", Bson::String(provenance)) => {
                ["clientSupplied", "implicitDefault", "customDefault", "getLastErrorDefaults"]
                    .contains(&provenance.as_str())
            }
            ("level" | "provenance", Bson::Null) => true,
            ("afterClusterTime", Bson::Timestamp(_)) => true,
            ("atClusterTime", Bson::Timestamp(_)) => return Err(failure(72, "atClusterTime needs level snapshot")),
            ("level" | "provenance" | "afterClusterTime" | "atClusterTime", _) => return Ok(false),
            _ => return Err(failure(40415, format!("BSON field 'readConcern.{field}' is an unknown field."))),
        };
        if !known {
            return Err(failure(2, format!("the value of readConcern.{field} is not allowed")));
        }
    }
    Ok(true)
}
