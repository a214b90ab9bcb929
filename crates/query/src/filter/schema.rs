//! `$jsonSchema` (<https://www.mongodb.com/docs/manual/reference/operator/query/jsonSchema/>):
//! JSON Schema, draft 4, on BSON, with the keyword `bsonType`.

use std::collections::{HashMap, HashSet};

use bson::{
    RawBson,
    raw::{RawBsonRef, RawDocument},
};

use crate::{
    Error, Number, Result, budget,
    document::{elements, get, items, truthy, type_name, with_stack},
    encode_key,
    filter::Candidates,
    regex::Regex,
    sorting::sorted,
    types::TypeSet,
};

/// A parsed JSON schema: a list of rules that a value must satisfy.
///
/// As in JSON Schema, a rule about one type allows all values of other types: `maxLength` alone
/// allows any number. The keywords `title` and `description` have no effect.
///
/// ```
/// use bson::rawdoc;
/// use query::Schema;
///
/// let schema = Schema::parse(&rawdoc! {
///     "required": ["name"],
///     "properties": { "name": { "bsonType": "string" } },
/// })
/// .unwrap();
/// assert!(schema.matches(&rawdoc! { "name": "fern" }));
/// assert!(!schema.matches(&rawdoc! { "name": 1 }));
/// assert!(!schema.matches(&rawdoc! {}));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Type(TypeSet),
    Enum(Candidates),
    AllOf(Vec<Schema>),
    AnyOf(Vec<Schema>),
    OneOf(Vec<Schema>),
    Not(Schema),
    MultipleOf(RawBson),
    Maximum {
        bound: RawBson,
        exclusive: bool,
    },
    Minimum {
        bound: RawBson,
        exclusive: bool,
    },
    MaxLength(u64),
    MinLength(u64),
    Pattern(Regex),
    MaxItems(u64),
    MinItems(u64),
    UniqueItems,
    Items(Schema),
    /// Schemas by array index, and the rule for the items after them.
    ItemsByPlace(Vec<Schema>, Additional),
    MaxProperties(u64),
    MinProperties(u64),
    Required(Vec<String>),
    Properties {
        by_name: HashMap<String, Vec<Schema>>,
        by_pattern: Vec<(Regex, Schema)>,
        additional: Additional,
    },
    /// An object with this property must have the other ones.
    DependsOnProperties(String, Vec<String>),
    /// An object with this property must match the schema.
    DependsOnSchema(String, Schema),
}

/// The rule for properties or items that the schema does not list.
#[derive(Debug, Clone, PartialEq)]
enum Additional {
    Allowed,
    Forbidden,
    Of(Box<Schema>),
}

/// Keywords of draft 4 that the server rejects.
const REFUSED: [&str; 5] = ["$ref", "$schema", "default", "definitions", "format"];

/// The type names of JSON Schema, with the BSON aliases that they stand for.
const JSON_TYPES: [(&str, &str); 6] = [
    ("array", "array"),
    ("boolean", "bool"),
    ("null", "null"),
    ("number", "number"),
    ("object", "object"),
    ("string", "string"),
];

impl Schema {
    /// Parses a schema document.
    ///
    /// # Errors
    /// The server's own: `FailedToParse` (9) for unknown keywords, unsupported ones, and invalid
    /// combinations; `TypeMismatch` (14) for operands of the wrong type; `BadValue` (2) for
    /// unknown type names and empty lists of schemas.
    pub fn parse(schema: &RawDocument) -> Result<Self> {
        let schema = with_stack(|| Self::parse_document(schema))?;
        budget::charge(1)?;
        Ok(schema)
    }

    fn parse_document(schema: &RawDocument) -> Result<Self> {
        let mut rules = Vec::new();
        let wrong =
            |name: &str, what: &str| Error::type_mismatch(format!("$jsonSchema keyword '{name}' must be {what}"));
        for (name, value) in elements(schema) {
            budget::charge(1)?;
            let document = || value.as_document().ok_or_else(|| wrong(name, "an object"));
            let array = || value.as_array().ok_or_else(|| wrong(name, "an array"));
            let count = || count(name, value);
            rules.push(match name {
                "bsonType" => Rule::Type(bson_types(name, value)?),
                "type" => Rule::Type(json_types(value)?),
                "enum" => {
                    let values: Vec<RawBson> = items(array()?).map(Into::into).collect();
                    if values.is_empty() {
                        return Err(Error::parse("$jsonSchema keyword 'enum' cannot be an empty array"));
                    }
                    let values = Candidates::from(values);
                    if values.sorted_keys().windows(2).any(|pair| pair[0] == pair[1]) {
                        return Err(Error::parse("$jsonSchema keyword 'enum' array cannot contain duplicate values"));
                    }
                    Rule::Enum(values)
                }
                "allOf" => Rule::AllOf(branches(name, array()?)?),
                "anyOf" => Rule::AnyOf(branches(name, array()?)?),
                "oneOf" => Rule::OneOf(branches(name, array()?)?),
                "not" => Rule::Not(Self::parse(document()?)?),
                "multipleOf" => {
                    let number = Number::of(value).ok_or_else(|| wrong(name, "a number"))?;
                    if number.compare(Number::Int32(0)).is_le() || number.to_f64().is_nan() {
                        return Err(Error::parse("$jsonSchema keyword 'multipleOf' must have a positive value"));
                    }
                    Rule::MultipleOf(value.into())
                }
                "maximum" => Rule::Maximum {
                    bound: Number::of(value).ok_or_else(|| wrong(name, "a number"))?.to_bson(),
                    exclusive: flag(schema, "exclusiveMaximum")?,
                },
                "minimum" => Rule::Minimum {
                    bound: Number::of(value).ok_or_else(|| wrong(name, "a number"))?.to_bson(),
                    exclusive: flag(schema, "exclusiveMinimum")?,
                },
                "exclusiveMaximum" | "exclusiveMinimum" => {
                    flag(schema, name)?;
                    let bound = if name == "exclusiveMaximum" { "maximum" } else { "minimum" };
                    if get(schema, bound).is_none() {
                        return Err(Error::parse(format!(
                            "$jsonSchema keyword '{bound}' must be a present if {name} is present"
                        )));
                    }
                    continue;
                }
                "maxLength" => Rule::MaxLength(count()?),
                "minLength" => Rule::MinLength(count()?),
                "pattern" => match value {
                    RawBsonRef::String(pattern) => Rule::Pattern(Regex::new(pattern, "")?),
                    _ => return Err(wrong(name, "a string")),
                },
                "maxItems" => Rule::MaxItems(count()?),
                "minItems" => Rule::MinItems(count()?),
                "uniqueItems" => match value {
                    RawBsonRef::Boolean(true) => Rule::UniqueItems,
                    RawBsonRef::Boolean(false) => continue,
                    _ => return Err(wrong(name, "a boolean")),
                },
                "items" => match value {
                    RawBsonRef::Document(schema) => Rule::Items(Self::parse(schema)?),
                    RawBsonRef::Array(schemas) => {
                        let schemas = items(schemas).map(|item| sub_schema(name, item)).collect::<Result<_>>()?;
                        Rule::ItemsByPlace(schemas, additional(schema, "additionalItems")?)
                    }
                    _ => return Err(wrong(name, "an array or an object")),
                },
                "additionalItems" => {
                    additional(schema, name)?;
                    continue;
                }
                "maxProperties" => Rule::MaxProperties(count()?),
                "minProperties" => Rule::MinProperties(count()?),
                "required" => {
                    let names = names(name, array()?)?;
                    if names.is_empty() {
                        return Err(Error::parse("$jsonSchema keyword 'required' cannot be an empty array"));
                    }
                    Rule::Required(names)
                }
                // One rule covers the three keywords, because `additionalProperties` depends on
                // the other two.
                "properties" | "patternProperties" | "additionalProperties" => {
                    let first = ["properties", "patternProperties", "additionalProperties"]
                        .into_iter()
                        .find(|keyword| get(schema, keyword).is_some());
                    if first != Some(name) {
                        continue;
                    }
                    properties(schema)?
                }
                "dependencies" => {
                    for (property, dependency) in elements(document()?) {
                        budget::charge(1)?;
                        rules.push(match dependency {
                            RawBsonRef::Document(schema) => {
                                Rule::DependsOnSchema(property.to_owned(), Self::parse(schema)?)
                            }
                            RawBsonRef::Array(array) => {
                                let names = names(name, array)?;
                                if names.is_empty() {
                                    return Err(Error::parse("$jsonSchema keyword 'dependencies' has an empty array"));
                                }
                                Rule::DependsOnProperties(property.to_owned(), names)
                            }
                            _ => return Err(wrong(name, "of objects and arrays")),
                        });
                    }
                    continue;
                }
                "title" | "description" => match value {
                    RawBsonRef::String(_) => continue,
                    _ => return Err(wrong(name, "a string")),
                },
                _ if REFUSED.contains(&name) => {
                    return Err(Error::parse(format!("$jsonSchema keyword '{name}' is not currently supported")));
                }
                _ => return Err(Error::parse(format!("Unknown $jsonSchema keyword: {name}"))),
            });
        }
        if get(schema, "bsonType").is_some() && get(schema, "type").is_some() {
            return Err(Error::parse("Cannot specify both $jsonSchema keywords 'type' and 'bsonType'"));
        }
        Ok(Self { rules })
    }

    /// True if a document satisfies the schema. The caller checks the budget, as for
    /// [`Filter::matches`](crate::Filter::matches).
    pub fn matches(&self, document: &RawDocument) -> bool {
        self.allows(RawBsonRef::Document(document))
    }

    fn allows(&self, value: RawBsonRef<'_>) -> bool {
        with_stack(|| budget::spend(1) && self.rules.iter().all(|rule| budget::spend(1) && rule.allows(value)))
    }
}

impl Rule {
    /// Evaluates a rule. A rule about one type allows all values of other types.
    fn allows(&self, value: RawBsonRef<'_>) -> bool {
        let number = || Number::of(value);
        let text = |rule: &dyn Fn(&str) -> bool| match value {
            RawBsonRef::String(text) => rule(text),
            _ => true,
        };
        let array = |rule: &dyn Fn(Vec<RawBsonRef<'_>>) -> bool| match value {
            RawBsonRef::Array(array) => rule(items(array).collect()),
            _ => true,
        };
        let object = |rule: &dyn Fn(&RawDocument) -> bool| match value {
            RawBsonRef::Document(document) => rule(document),
            _ => true,
        };
        let has = |document: &RawDocument, name: &String| get(document, name).is_some();
        let is_at_most = |count: usize, most: u64| count as u64 <= most;
        match self {
            Self::Type(types) => types.contains(value),
            Self::Enum(values) => values.contain(Some(value)),
            Self::AllOf(schemas) => schemas.iter().all(|schema| schema.allows(value)),
            Self::AnyOf(schemas) => schemas.iter().any(|schema| !budget::spend(1) || schema.allows(value)),
            Self::OneOf(schemas) => {
                let schemas = schemas.iter().take_while(|_| budget::spend(1));
                schemas.filter(|schema| schema.allows(value)).count() == 1
            }
            Self::Not(schema) => !schema.allows(value),
            Self::MultipleOf(of) => match (number(), Number::of(of.as_raw_bson_ref())) {
                (Some(number), Some(of)) => number.is_multiple_of(of),
                _ => true,
            },
            Self::Maximum { bound, exclusive } => {
                bounded(number(), bound, |order| if *exclusive { order.is_lt() } else { order.is_le() })
            }
            Self::Minimum { bound, exclusive } => {
                bounded(number(), bound, |order| if *exclusive { order.is_gt() } else { order.is_ge() })
            }
            Self::MaxLength(most) => text(&|text| is_at_most(length(text), *most)),
            Self::MinLength(least) => text(&|text| length(text) as u64 >= *least),
            Self::Pattern(regex) => text(&|text| regex.is_match(text)),
            Self::MaxItems(most) => array(&|items| is_at_most(items.len(), *most)),
            Self::MinItems(least) => array(&|items| items.len() as u64 >= *least),
            Self::UniqueItems => array(&|items| {
                let keys = items.into_iter().take_while(|_| budget::spend(1)).map(encode_key).collect();
                let keys = sorted(keys, Ord::cmp).unwrap_or_default();
                keys.windows(2).all(|pair: &[Vec<u8>]| pair[0] != pair[1])
            }),
            Self::Items(schema) => {
                array(&|items| items.into_iter().all(|item| budget::spend(1) && schema.allows(item)))
            }
            Self::ItemsByPlace(schemas, additional) => array(&|items| {
                items.into_iter().enumerate().all(|(place, item)| match schemas.get(place) {
                    _ if !budget::spend(1) => false,
                    Some(schema) => schema.allows(item),
                    None => additional.allows(item),
                })
            }),
            Self::MaxProperties(most) => object(&|document| is_at_most(elements(document).count(), *most)),
            Self::MinProperties(least) => object(&|document| elements(document).count() as u64 >= *least),
            Self::Required(names) => object(&|document| has_all(document, names)),
            Self::Properties { by_name, by_pattern, additional } => object(&|document| {
                elements(document).all(|(name, value)| {
                    if !budget::spend(1) {
                        return false;
                    }
                    let named = by_name.get(name).into_iter().flatten();
                    let patterns = by_pattern.iter().take_while(|_| budget::spend(1));
                    let matched = patterns.filter(|(regex, _)| regex.is_match(name)).map(|(_, schema)| schema);
                    let mut schemas = named.chain(matched).peekable();
                    if schemas.peek().is_none() {
                        return additional.allows(value);
                    }
                    schemas.all(|schema| schema.allows(value))
                })
            }),
            Self::DependsOnProperties(property, names) => {
                object(&|document| !has(document, property) || has_all(document, names))
            }
            Self::DependsOnSchema(property, schema) => {
                object(&|document| !has(document, property) || schema.matches(document))
            }
        }
    }
}

impl Additional {
    fn allows(&self, value: RawBsonRef<'_>) -> bool {
        match self {
            Self::Allowed => true,
            Self::Forbidden => false,
            Self::Of(schema) => schema.allows(value),
        }
    }
}

fn bounded(number: Option<Number>, bound: &RawBson, holds: impl Fn(std::cmp::Ordering) -> bool) -> bool {
    match (number, Number::of(bound.as_raw_bson_ref())) {
        (Some(number), Some(bound)) if number.is_nan() || bound.is_nan() => {
            number.is_nan() && bound.is_nan() && holds(std::cmp::Ordering::Equal)
        }
        (Some(number), Some(bound)) => holds(number.compare(bound)),
        _ => true,
    }
}

/// Returns the length of a string in code points.
fn length(text: &str) -> usize {
    budget::spend_bytes(text.len());
    text.chars().count()
}

/// From this number of names on, the fields of a document are read once into a set.
const MANY_NAMES: usize = 8;

fn has_all(document: &RawDocument, names: &[String]) -> bool {
    if names.len() < MANY_NAMES {
        return names.iter().all(|name| get(document, name).is_some());
    }
    let fields: HashSet<&str> = elements(document).map(|(name, _)| name).collect();
    names.iter().all(|name| budget::spend(1) && fields.contains(name.as_str()))
}

fn bson_types(name: &str, value: RawBsonRef<'_>) -> Result<TypeSet> {
    let mut types = TypeSet::default();
    let mut seen: HashSet<&str> = HashSet::new();
    let add = |value: RawBsonRef<'_>| match value {
        RawBsonRef::String(_) => Ok(()),
        other => Err(Error::type_mismatch(format!(
            "$jsonSchema keyword '{name}' array elements must be strings, not {}",
            type_name(other)
        ))),
    };
    match value {
        RawBsonRef::Array(array) => {
            for item in items(array) {
                add(item)?;
                let text = item.as_str().unwrap_or_default();
                if !seen.insert(text) {
                    return Err(Error::parse(format!("$jsonSchema keyword '{name}' has duplicate value: {text}")));
                }
                types.add_name(text)?;
            }
            if seen.is_empty() {
                return Err(Error::parse(format!("$jsonSchema keyword '{name}' must name at least one type")));
            }
        }
        RawBsonRef::String(text) => types.add_name(text)?,
        _ => {
            return Err(Error::type_mismatch(format!(
                "$jsonSchema keyword '{name}' must be either a string or an array of strings"
            )));
        }
    }
    Ok(types)
}

fn json_types(value: RawBsonRef<'_>) -> Result<TypeSet> {
    let mut types = TypeSet::default();
    let mut add = |name: &str| {
        if name == "integer" {
            return Err(Error::parse("$jsonSchema type 'integer' is not currently supported."));
        }
        let (_, bson) = JSON_TYPES
            .iter()
            .find(|(json, _)| *json == name)
            .ok_or_else(|| Error::bad_value(format!("Unknown type name alias: {name}")))?;
        types.add_name(bson)
    };
    match value {
        RawBsonRef::String(name) => add(name)?,
        RawBsonRef::Array(array) => {
            let names = names("type", array)?;
            if names.is_empty() {
                return Err(Error::parse("$jsonSchema keyword 'type' must name at least one type"));
            }
            names.iter().try_for_each(|name| add(name))?;
        }
        _ => {
            return Err(Error::type_mismatch(
                "$jsonSchema keyword 'type' must be either a string or an array of strings",
            ));
        }
    }
    Ok(types)
}

fn branches(name: &str, array: &bson::raw::RawArray) -> Result<Vec<Schema>> {
    let schemas: Vec<_> = items(array).map(|item| sub_schema(name, item)).collect::<Result<_>>()?;
    if schemas.is_empty() {
        return Err(Error::bad_value(format!("$jsonSchema keyword '{name}' must be a non-empty array")));
    }
    Ok(schemas)
}

fn sub_schema(name: &str, value: RawBsonRef<'_>) -> Result<Schema> {
    match value {
        RawBsonRef::Document(schema) => Schema::parse(schema),
        other => Err(Error::type_mismatch(format!(
            "$jsonSchema keyword '{name}' must be made of objects, but found an element of type {}",
            type_name(other)
        ))),
    }
}

fn names(keyword: &str, array: &bson::raw::RawArray) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for item in items(array) {
        budget::charge(1)?;
        let RawBsonRef::String(name) = item else {
            return Err(Error::type_mismatch(format!("$jsonSchema keyword '{keyword}' must be made of strings")));
        };
        if !seen.insert(name) {
            return Err(Error::parse(format!("$jsonSchema keyword '{keyword}' array cannot contain duplicate values")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn count(name: &str, value: RawBsonRef<'_>) -> Result<u64> {
    if Number::of(value).is_none() {
        return Err(Error::parse(format!("$jsonSchema keyword '{name}' must be a number")));
    }
    let whole = crate::integer(value).and_then(|number| u64::try_from(number).ok());
    whole.ok_or_else(|| Error::parse(format!("$jsonSchema keyword '{name}' must be a non-negative whole number")))
}

fn flag(schema: &RawDocument, name: &str) -> Result<bool> {
    match get(schema, name) {
        None => Ok(false),
        Some(RawBsonRef::Boolean(flag)) => Ok(flag),
        Some(_) => Err(Error::type_mismatch(format!("$jsonSchema keyword '{name}' must be a boolean"))),
    }
}

fn additional(schema: &RawDocument, name: &str) -> Result<Additional> {
    match get(schema, name) {
        None => Ok(Additional::Allowed),
        Some(value @ RawBsonRef::Boolean(_)) => {
            Ok(if truthy(value) { Additional::Allowed } else { Additional::Forbidden })
        }
        Some(RawBsonRef::Document(schema)) => Ok(Additional::Of(Box::new(Schema::parse(schema)?))),
        Some(_) => {
            Err(Error::type_mismatch(format!("$jsonSchema keyword '{name}' must be either an object or a boolean")))
        }
    }
}

fn properties(schema: &RawDocument) -> Result<Rule> {
    let document = |name: &'static str| match get(schema, name) {
        None => Ok(None),
        Some(RawBsonRef::Document(document)) => Ok(Some(document)),
        Some(_) => Err(Error::type_mismatch(format!("$jsonSchema keyword '{name}' must be an object"))),
    };
    let mut by_name: HashMap<String, Vec<Schema>> = HashMap::new();
    for (name, value) in document("properties")?.into_iter().flat_map(elements) {
        by_name.entry(name.to_owned()).or_default().push(sub_schema("properties", value)?);
    }
    let mut by_pattern = Vec::new();
    for (pattern, value) in document("patternProperties")?.into_iter().flat_map(elements) {
        by_pattern.push((Regex::new(pattern, "")?, sub_schema("patternProperties", value)?));
    }
    Ok(Rule::Properties { by_name, by_pattern, additional: additional(schema, "additionalProperties")? })
}
