//! The names and numbers of BSON types, as `$type` accepts them
//! (<https://www.mongodb.com/docs/manual/reference/operator/query/type/>).

use bson::raw::{RawArrayBuf, RawBsonRef};

use crate::{Error, Number, Result, document::items, type_name};

/// A set of BSON types, by the aliases of `$type`, such as `string` and `objectId`. The alias
/// `number` stands for all four numeric types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeSet {
    names: Vec<&'static str>,
}

const TYPES: [(&str, i64); 21] = [
    ("double", 1),
    ("string", 2),
    ("object", 3),
    ("array", 4),
    ("binData", 5),
    ("undefined", 6),
    ("objectId", 7),
    ("bool", 8),
    ("date", 9),
    ("null", 10),
    ("regex", 11),
    ("dbPointer", 12),
    ("javascript", 13),
    ("symbol", 14),
    ("javascriptWithScope", 15),
    ("int", 16),
    ("timestamp", 17),
    ("long", 18),
    ("decimal", 19),
    ("minKey", -1),
    ("maxKey", 127),
];

const NUMBERS: [&str; 4] = ["int", "long", "double", "decimal"];

impl TypeSet {
    /// Creates the set that contains only the array type.
    pub fn of_arrays() -> Self {
        Self { names: vec!["array"] }
    }

    /// Parses a type by its name or number, or an array of types.
    pub(crate) fn parse(value: RawBsonRef<'_>) -> Result<Self> {
        let mut types = Self::default();
        match value {
            RawBsonRef::Array(array) => items(array).try_for_each(|item| types.add(item))?,
            value => types.add(value)?,
        }
        if types.names.is_empty() {
            return Err(Error::parse("type must match at least one type"));
        }
        Ok(types)
    }

    fn add(&mut self, value: RawBsonRef<'_>) -> Result<()> {
        match value {
            RawBsonRef::String(name) => self.add_name(name),
            value if Number::of(value).is_some() => {
                let number = crate::integer(value);
                let found = TYPES.iter().find(|(_, code)| Some(*code) == number);
                let (name, _) = found.ok_or_else(|| {
                    Error::bad_value(format!("Invalid numerical type code: {}", crate::update::text(&value.into())))
                })?;
                self.insert(name);
                Ok(())
            }
            other => Err(Error::type_mismatch(format!(
                "type must be represented as a number or a string, not {}",
                type_name(other)
            ))),
        }
    }

    /// Adds the type with this name; `number` adds all numeric types.
    pub(crate) fn add_name(&mut self, name: &str) -> Result<()> {
        if name == "number" {
            NUMBERS.into_iter().for_each(|name| self.insert(name));
            return Ok(());
        }
        let (known, _) = TYPES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| Error::bad_value(format!("Unknown type name alias: {name}")))?;
        self.insert(known);
        Ok(())
    }

    /// Adds a type once, so that the set stays small for any input.
    fn insert(&mut self, name: &'static str) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// Returns the names as an operand of `$type`.
    pub(crate) fn to_array(&self) -> RawArrayBuf {
        let mut names = RawArrayBuf::new();
        self.names.iter().for_each(|name| names.push(*name));
        names
    }

    /// True if the value has one of the types.
    pub(crate) fn contains(&self, value: RawBsonRef<'_>) -> bool {
        self.names.contains(&type_name(value))
    }
}
