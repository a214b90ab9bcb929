//! A JSON parser that reports duplicate names in an object, because parsers differ in which of the
//! values they use.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses JSON, and returns the value and the JSON paths of all members with a duplicate name.
///
/// # Errors
/// If the text is not JSON.
pub(super) fn parse(text: &str) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut found = Found { path: "$".into(), twice: Vec::new() };
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = AnyValue(&mut found).deserialize(&mut parser)?;
    parser.end()?;
    Ok((value, found.twice))
}

struct Found {
    /// The path of the value that is being read.
    path: String,
    twice: Vec<String>,
}

impl Found {
    /// Reads a value one step deeper in the path.
    fn inside<T>(&mut self, step: fmt::Arguments<'_>, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        // Writing to a string does not fail.
        let _ = fmt::Write::write_fmt(&mut self.path, step);
        let value = read(self);
        self.path.truncate(length);
        value
    }
}

struct AnyValue<'f>(&'f mut Found);

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("the number is too large"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        let next = |found: &mut Found, items: &mut A, index: usize| {
            found.inside(format_args!("[{index}]"), |found| items.next_element_seed(AnyValue(found)))
        };
        while let Some(item) = next(self.0, &mut items, array.len())? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let is_twice = object.contains_key(&name);
            let value = self.0.inside(format_args!(".{name}"), |found| {
                if is_twice {
                    found.twice.push(found.path.clone());
                }
                members.next_value_seed(AnyValue(found))
            })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
