//! Compiles JSON into expressions.

use bson::{
    Bson, RawBson,
    raw::{RawArrayBuf, RawBsonRef, RawDocumentBuf},
};
use query::Path;
use serde_json::Value;

use super::{Expression, ExpressionError, operand::Constant, operand::Operand, ordering, ordering::Order};
use crate::constants::Constants;

/// The place of an expression, which decides about the expansions that it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) enum Scope {
    /// A rule, which is evaluated for a document.
    Rule,
    /// The condition of a function, which is evaluated for the arguments of a call.
    Function,
}

/// The operators on a value that stands before them: `{ "field": { "%gt": 1 } }`.
const ON_VALUES: &[&str] = &["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "and", "or", "not", "nor"];

/// Operators of App Services' expressions that this version does not support.
const UNSUPPORTED: &[&str] =
    &["function", "stringToOid", "oidToString", "stringToUuid", "uuidToString", "regex", "size", "all", "elemMatch"];

/// Expansions that name a document or a part of one.
const OF_DOCUMENTS: &[&str] = &["root", "prevRoot", "this", "prev", "partition"];

type Parsed<T> = Result<T, ExpressionError>;

/// Compiles an expression.
///
/// # Errors
/// If the value is not an expression, or uses an operator or expansion that is not supported in
/// `scope`.
pub(in crate::rules) fn expression(value: &Value, constants: &Constants, scope: Scope) -> Parsed<Expression> {
    Parser { constants, scope }.expression(value, "")
}

struct Parser<'c> {
    constants: &'c Constants,
    scope: Scope,
}

impl Parser<'_> {
    fn expression(&self, value: &Value, at: &str) -> Parsed<Expression> {
        match value {
            Value::Bool(value) => Ok(Expression::Constant(*value)),
            Value::Object(fields) => {
                let parse = |(key, value): (&String, &Value)| self.field(key, value, &format!("{at}.{key}"));
                fields.iter().map(parse).collect::<Parsed<_>>().map(all)
            }
            _ => Err(error(at, "an expression must be true, false or an object")),
        }
    }

    fn field(&self, key: &str, value: &Value, at: &str) -> Parsed<Expression> {
        let each = || list(key, value, at, |item, at| self.expression(item, at));
        match key {
            "%%true" | "%%false" => Ok(asserts(key == "%%true", self.expression(value, at)?)),
            _ if key.starts_with("%%") => self.condition(&self.expansion(key, at)?, value, at),
            _ => match key.strip_prefix(['%', '$']) {
                None => self.condition(&Operand::Field(Path::new(key)), value, at),
                Some("and") => Ok(Expression::All(each()?)),
                Some("or") => Ok(Expression::Any(each()?)),
                Some("nor") => Ok(asserts(false, Expression::Any(each()?))),
                Some("not") => Ok(asserts(false, self.expression(value, at)?)),
                Some(name) if ON_VALUES.contains(&name) => {
                    Err(error(at, &format!("{key} has no operand: write {{ \"field\": {{ \"{key}\": … }} }}")))
                }
                Some(_) => Err(unknown_operator(key, at)),
            },
        }
    }

    /// Compiles a condition on an operand: operators, which must all hold, or a value that it must
    /// equal.
    fn condition(&self, left: &Operand, value: &Value, at: &str) -> Parsed<Expression> {
        let Value::Object(fields) = value else {
            return Ok(Expression::Equal(left.clone(), self.value(value, at)?));
        };
        if !fields.keys().any(|key| operator(key).is_some()) {
            return Ok(Expression::Equal(left.clone(), self.value(value, at)?));
        }
        let parse = |(key, value): (&String, &Value)| {
            let at = format!("{at}.{key}");
            match operator(key) {
                Some(name) => self.operator(name, key, left, value, &at),
                None if key.starts_with(['%', '$']) => Err(unknown_operator(key, &at)),
                None => Err(error(&at, &format!("'{key}' is a field beside operators, which an operand cannot have"))),
            }
        };
        fields.iter().map(parse).collect::<Parsed<_>>().map(all)
    }

    /// Compiles an operator on an operand. `name` is `key` without its `%` or `$`.
    fn operator(&self, name: &str, key: &str, left: &Operand, value: &Value, at: &str) -> Parsed<Expression> {
        let each = || list(key, value, at, |item, at| self.condition(left, item, at));
        let equal = || Ok(Expression::Equal(left.clone(), self.value(value, at)?));
        match name {
            "eq" => equal(),
            "ne" => Ok(asserts(false, equal()?)),
            "in" => self.contained(key, left, value, at),
            "nin" => Ok(asserts(false, self.contained(key, left, value, at)?)),
            "exists" => {
                let expected = match value {
                    Value::Bool(expected) => *expected,
                    Value::String(text) if text == "%%true" || text == "%%false" => text == "%%true",
                    _ => return Err(error(at, &format!("{key} takes true or false"))),
                };
                let exists = Expression::Exists(left.clone());
                Ok(if expected { exists } else { asserts(false, exists) })
            }
            "and" => Ok(Expression::All(each()?)),
            "or" => Ok(Expression::Any(each()?)),
            "nor" => Ok(asserts(false, Expression::Any(each()?))),
            "not" => Ok(asserts(false, self.condition(left, value, at)?)),
            _ => match Order::of(name) {
                Some(order) => self.ordered(order, key, left, value, at),
                None => Err(unknown_operator(key, at)),
            },
        }
    }

    fn ordered(&self, order: Order, key: &str, left: &Operand, value: &Value, at: &str) -> Parsed<Expression> {
        let right = self.value(value, at)?;
        let known = constant(&right);
        if known.is_some_and(|value| !ordering::is_ordered(value)) {
            return Err(error(at, &format!("{key} takes a number, a string, a date, an ObjectId or a timestamp")));
        }
        Ok(Expression::Ordered(order, left.clone(), right))
    }

    /// Compiles `%in`. Each expansion in a list is an equality of its own, because its value is
    /// not known yet.
    fn contained(&self, key: &str, left: &Operand, value: &Value, at: &str) -> Parsed<Expression> {
        let no_list = || error(at, &format!("{key} takes a list, or an expansion whose value is a list"));
        let Value::Array(values) = value else {
            let list = if value.is_string() { self.value(value, at)? } else { return Err(no_list()) };
            let is_list = constant(&list).is_none_or(|value| matches!(value, RawBsonRef::Array(_)));
            return if is_list { Ok(Expression::In(left.clone(), list)) } else { Err(no_list()) };
        };
        let mut items = RawArrayBuf::new();
        let mut parts = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match self.value(value, &format!("{at}[{index}]"))? {
                Operand::Literal(item) => items.push(item),
                expansion => parts.push(Expression::Equal(left.clone(), expansion)),
            }
        }
        let contained = Expression::In(left.clone(), Operand::Literal(RawBson::Array(items)));
        if parts.is_empty() {
            return Ok(contained);
        }
        parts.insert(0, contained);
        Ok(Expression::Any(parts))
    }

    /// Compiles a value: an expansion, or a literal in Extended JSON.
    fn value(&self, value: &Value, at: &str) -> Parsed<Operand> {
        match value {
            Value::String(text) if text.starts_with("%%") => self.expansion(text, at),
            Value::Object(fields) => {
                if let Some(operator) = fields.keys().find(|key| key.starts_with('%')) {
                    return Err(unknown_operator(operator, at));
                }
                match Bson::try_from(value.clone()) {
                    // Extended JSON such as `{ "$oid": … }` is converted to the value that it
                    // represents.
                    Ok(Bson::Document(document)) => match document.keys().find(|key| key.starts_with('$')) {
                        Some(operator) => Err(unknown_operator(operator, at)),
                        None => literal(Bson::Document(document), at),
                    },
                    Ok(value) => literal(value, at),
                    Err(_) => {
                        let operator = fields.keys().find(|key| key.starts_with('$')).map_or("", String::as_str);
                        Err(unknown_operator(operator, at))
                    }
                }
            }
            value => literal(Bson::try_from(value.clone()).map_err(|cause| error(at, &cause.to_string()))?, at),
        }
    }

    fn expansion(&self, text: &str, at: &str) -> Parsed<Operand> {
        // The sample in App Services' documentation ends with `%%`, and so do exports that copied
        // it.
        let name = text.trim_start_matches("%%").trim_end_matches("%%");
        if name == "true" || name == "false" {
            return Ok(Operand::Literal(RawBson::Boolean(name == "true")));
        }
        if let Some(found) = self.constants.find(name) {
            let found = found.and_then(|value| plain(&value));
            let value = found.map_err(|message| error(at, &message))?;
            return Ok(Operand::Constant(Constant { expansion: format!("%%{name}"), value }));
        }
        let operand = match self.scope {
            Scope::Rule => of_rule(name),
            Scope::Function => of_function(name),
        };
        match operand {
            Some(operand) => operand.map_err(|message| error(at, &message)),
            None if self.scope == Scope::Function && OF_DOCUMENTS.contains(&name.split('.').next().unwrap_or(name)) => {
                let message =
                    format!("the expansion {text} names a document, but the condition of a function has none");
                Err(error(at, &message))
            }
            None => Err(error(at, &format!("the expansion {text} is not supported yet"))),
        }
    }
}

/// Returns the operand for an expansion of a rule, given without its `%%`.
fn of_rule(name: &str) -> Option<Result<Operand, String>> {
    match name {
        "user.id" => Some(Ok(Operand::UserId)),
        _ => below(name, "user.custom_data").map(|path| path.map(Operand::CustomData)),
    }
}

/// Returns the operand for an expansion of a function's condition, given without its `%%`.
fn of_function(name: &str) -> Option<Result<Operand, String>> {
    if let Some(header) = name.strip_prefix("request.requestHeaders.") {
        return Some(Ok(Operand::Header(header.to_owned())));
    }
    let of_user = below(name, "user").map(|path| path.map(Operand::User));
    of_user.or_else(|| below(name, "request").map(|path| path.map(Operand::Request)))
}

/// Returns the path in an expansion below `root`: nothing if the expansion is `root` itself.
fn below(name: &str, root: &str) -> Option<Result<Option<Path>, String>> {
    match name.strip_prefix(root)?.strip_prefix('.') {
        Some(path) => Some(Path::strict(path).map(Some).map_err(|cause| cause.message)),
        None => (name == root).then_some(Ok(None)),
    }
}

/// Returns the name of a supported operator on values.
fn operator(key: &str) -> Option<&str> {
    key.strip_prefix(['%', '$']).filter(|name| ON_VALUES.contains(name))
}

/// Returns the value of an operand that is the same for all users and documents.
fn constant(operand: &Operand) -> Option<RawBsonRef<'_>> {
    match operand {
        Operand::Literal(value) | Operand::Constant(Constant { value, .. }) => Some(value.as_raw_bson_ref()),
        _ => None,
    }
}

fn list<T>(key: &str, value: &Value, at: &str, parse: impl Fn(&Value, &str) -> Parsed<T>) -> Parsed<Vec<T>> {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| parse(item, &format!("{at}[{index}]"))).collect()
        }
        _ => Err(error(at, &format!("{key} takes an array of expressions"))),
    }
}

fn all(mut parts: Vec<Expression>) -> Expression {
    match parts.len() {
        0 => Expression::Constant(true),
        1 => parts.remove(0),
        _ => Expression::All(parts),
    }
}

fn asserts(expected: bool, inner: Expression) -> Expression {
    Expression::Asserts(expected, Box::new(inner))
}

fn literal(value: Bson, at: &str) -> Parsed<Operand> {
    let value = RawBson::try_from(value).map_err(|cause| error(at, &cause.to_string()))?;
    validated(value).map(Operand::Literal).map_err(|message| error(at, &message))
}

/// Converts JSON to BSON without a meaning for names such as `$oid`. No error shows the value.
fn plain(value: &Value) -> Result<RawBson, String> {
    fn convert(value: &Value) -> Bson {
        match value {
            Value::Null => Bson::Null,
            Value::Bool(value) => Bson::Boolean(*value),
            Value::String(text) => Bson::String(text.clone()),
            Value::Array(items) => Bson::Array(items.iter().map(convert).collect()),
            Value::Object(fields) => {
                Bson::Document(fields.iter().map(|(name, value)| (name.clone(), convert(value))).collect())
            }
            Value::Number(number) => match number.as_i64() {
                Some(whole) => i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32),
                None => number.as_f64().map_or(Bson::Null, Bson::Double),
            },
        }
    }
    let message = "the value cannot be converted to BSON".to_owned();
    validated(RawBson::try_from(convert(value)).map_err(|_| message.clone())?).map_err(|_| message)
}

fn validated(value: RawBson) -> Result<RawBson, String> {
    let mut holder = RawDocumentBuf::new();
    query::append(&mut holder, "value", &value);
    query::validate(&holder).map_err(|cause| cause.message)?;
    Ok(value)
}

fn unknown_operator(operator: &str, at: &str) -> ExpressionError {
    let name = operator.strip_prefix(['%', '$']).unwrap_or(operator);
    let message = if UNSUPPORTED.contains(&name) {
        format!("the operator {operator} is not supported yet")
    } else if ON_VALUES.contains(&name) {
        format!("the operator {operator} cannot be part of a value")
    } else {
        format!("{operator} is not an operator")
    };
    error(at, &message)
}

fn error(at: &str, message: &str) -> ExpressionError {
    ExpressionError { path: at.to_owned(), message: message.to_owned() }
}
