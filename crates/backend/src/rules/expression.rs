//! Rule expressions, compiled when the definition is loaded.
//!
//! A value stays a value: what an expansion stands for is compared and never read as an operator or a path.

use bson::{
    Bson, RawBson,
    raw::{RawBsonRef, RawDocument},
};
use query::{Filter, Path, PathFilter, Predicate, elements};
use serde_json::Value;

/// What an expression comes to. An expansion or a field that is not there, or values that cannot be compared, leave
/// it unresolved, and only true allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unresolved,
}

/// A compiled rule expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// `true`, `false`, and `{}` for true.
    Constant(bool),
    /// `%and`, and the fields of one object.
    All(Vec<Expression>),
    /// `%or`.
    Any(Vec<Expression>),
    /// An expression that must come to a certain truth, as `{ "%%true": … }` asserts.
    Asserts(bool, Box<Expression>),
    /// Two operands that must be equal.
    Equal(Operand, Operand),
}

/// Something that has a value for a user and a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A value from the definition.
    Literal(RawBson),
    /// A field of the document.
    Field(Path),
    /// `%%user.id`
    UserId,
    /// `%%user.custom_data`, or something in it.
    CustomData(Option<Path>),
}

/// What an expression is asked about.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The user's id.
    pub user_id: &'a str,
    /// The user's custom data as it is now; missing if there is none.
    pub custom_data: Option<&'a RawDocument>,
    /// The document.
    pub document: &'a RawDocument,
}

/// Why an expression cannot be compiled, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// The JSON path within the expression.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Operators that the language has and this version does not.
const UNSUPPORTED: &[&str] = &[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "nin",
    "exists",
    "not",
    "nor",
    "function",
    "stringToOid",
    "oidToString",
    "stringToUuid",
    "uuidToString",
    "regex",
    "size",
    "all",
    "elemMatch",
];

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// Where it is not one, or uses what this version does not have: a rule that is not understood never loads.
    pub fn parse(value: &Value) -> Result<Self, ExpressionError> {
        parse(value, "")
    }

    /// Whether it holds. Only true allows.
    pub fn allows(&self, context: &Context<'_>) -> bool {
        self.evaluate(context) == Truth::True
    }

    /// What it comes to, in three-valued logic.
    pub fn evaluate(&self, context: &Context<'_>) -> Truth {
        match self {
            Self::Constant(value) => Truth::from(*value),
            Self::All(all) => fold(all, context, Truth::False, Truth::True),
            Self::Any(any) => fold(any, context, Truth::True, Truth::False),
            Self::Asserts(expected, inner) => match inner.evaluate(context) {
                Truth::Unresolved => Truth::Unresolved,
                truth => Truth::from((truth == Truth::True) == *expected),
            },
            Self::Equal(left, right) => compare(&left.values(context), &right.values(context)),
        }
    }

    /// The filter for the documents for which it comes to a certain truth, whatever `context` has for a document; none where no
    /// filter says exactly that.
    pub fn filter(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let each = |parts: &[Self]| parts.iter().map(|part| part.filter(context, truth)).collect::<Option<Vec<_>>>();
        match self {
            Self::Constant(value) => Some(Filter::Always(*value == truth)),
            // One that is decisive decides, whatever the others are.
            Self::All(parts) if truth => each(parts).map(Filter::all_of),
            Self::All(parts) => each(parts).map(Filter::any_of),
            Self::Any(parts) if truth => each(parts).map(Filter::any_of),
            Self::Any(parts) => each(parts).map(Filter::all_of),
            Self::Asserts(expected, inner) => inner.filter(context, *expected == truth),
            Self::Equal(left, right) => match (left, right) {
                (Operand::Field(_), Operand::Field(_)) => None,
                (Operand::Field(path), other) | (other, Operand::Field(path)) => {
                    field_filter(path, &other.values(context), truth)
                }
                (left, right) => {
                    Some(Filter::Always(compare(&left.values(context), &right.values(context)) == Truth::from(truth)))
                }
            },
        }
    }

    /// The fields of the document that it asks about.
    pub fn fields<'e>(&'e self) -> Vec<&'e Path> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::fields).collect(),
            Self::Asserts(_, inner) => inner.fields(),
            Self::Equal(left, right) => {
                let field = |operand: &'e Operand| if let Operand::Field(path) = operand { Some(path) } else { None };
                [field(left), field(right)].into_iter().flatten().collect()
            }
        }
    }

    /// Whether it asks for the user's custom data.
    pub fn needs_custom_data(&self) -> bool {
        match self {
            Self::Constant(_) => false,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::needs_custom_data),
            Self::Asserts(_, inner) => inner.needs_custom_data(),
            Self::Equal(left, right) => {
                [left, right].into_iter().any(|operand| matches!(operand, Operand::CustomData(_)))
            }
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Or and and: one `decisive` decides whatever the others are, and otherwise one unresolved leaves all unresolved.
fn fold(parts: &[Expression], context: &Context<'_>, decisive: Truth, otherwise: Truth) -> Truth {
    let mut truth = otherwise;
    for part in parts {
        match part.evaluate(context) {
            part if part == decisive => return decisive,
            Truth::Unresolved => truth = Truth::Unresolved,
            _ => {}
        }
    }
    truth
}

impl Operand {
    /// What it reaches: nothing where it is missing, and several values through the documents in arrays.
    fn values<'a>(&'a self, context: &Context<'a>) -> Vec<RawBsonRef<'a>> {
        match self {
            Self::Literal(value) => with_items(value.as_raw_bson_ref()),
            Self::Field(path) => path.values_in(context.document),
            Self::UserId => vec![RawBsonRef::String(context.user_id)],
            Self::CustomData(None) => context.custom_data.map(RawBsonRef::Document).into_iter().collect(),
            Self::CustomData(Some(path)) => context.custom_data.map(|data| path.values_in(data)).unwrap_or_default(),
        }
    }
}

/// The filter for the documents in which a field is equal to one of the values, or is there and is not.
fn field_filter(path: &Path, values: &[RawBsonRef<'_>], truth: bool) -> Option<Filter> {
    // To a filter, null is what is not there, too, and a regular expression is a pattern.
    let is_plain = |value: &RawBsonRef<'_>| {
        !matches!(value, RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::RegularExpression(_))
    };
    if values.is_empty() {
        return Some(Filter::Always(false));
    }
    if !values.iter().all(is_plain) {
        return None;
    }
    let on_path = |predicate| Filter::Path(PathFilter { path: path.clone(), predicate });
    let equal = match values {
        [value] => Predicate::Eq((*value).into()),
        values => Predicate::In(values.iter().map(|value| (*value).into()).collect(), Vec::new()),
    };
    Some(match truth {
        true => on_path(equal),
        false => Filter::all_of([on_path(Predicate::Exists), Filter::none_of([on_path(equal)])]),
    })
}

/// Equality with arrays on either side, of which all items are there beside them: an array equals what one of its items equals,
/// and itself.
fn compare(left: &[RawBsonRef<'_>], right: &[RawBsonRef<'_>]) -> Truth {
    if left.is_empty() || right.is_empty() {
        return Truth::Unresolved;
    }
    Truth::from(left.iter().any(|a| right.iter().any(|b| query::equal(*a, *b))))
}

fn with_items(value: RawBsonRef<'_>) -> Vec<RawBsonRef<'_>> {
    let mut values = vec![value];
    if let RawBsonRef::Array(array) = value
        && let Ok(items) = RawDocument::from_bytes(array.as_bytes())
    {
        values.extend(elements(items).map(|(_, item)| item));
    }
    values
}

fn parse(value: &Value, at: &str) -> Result<Expression, ExpressionError> {
    match value {
        Value::Bool(value) => Ok(Expression::Constant(*value)),
        Value::Object(fields) => {
            let mut all = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                all.push(parse_field(key, value, &format!("{at}.{key}"))?);
            }
            Ok(match all.len() {
                0 => Expression::Constant(true),
                1 => all.remove(0),
                _ => Expression::All(all),
            })
        }
        _ => Err(error(at, "an expression must be true, false or an object")),
    }
}

fn parse_field(key: &str, value: &Value, at: &str) -> Result<Expression, ExpressionError> {
    if key.starts_with("%%") {
        return match key {
            "%%true" => Ok(Expression::Asserts(true, Box::new(parse(value, at)?))),
            "%%false" => Ok(Expression::Asserts(false, Box::new(parse(value, at)?))),
            _ => Ok(Expression::Equal(expansion(key, at)?, parse_value(value, at)?)),
        };
    }
    if let Some(operator) = key.strip_prefix(['%', '$']) {
        let branches = || match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| parse(item, &format!("{at}[{index}]"))).collect()
            }
            _ => Err(error(at, &format!("{key} takes an array of expressions"))),
        };
        return match operator {
            "and" => Ok(Expression::All(branches()?)),
            "or" => Ok(Expression::Any(branches()?)),
            _ => Err(unknown_operator(key, at)),
        };
    }
    Ok(Expression::Equal(Operand::Field(Path::new(key)), parse_value(value, at)?))
}

fn parse_value(value: &Value, at: &str) -> Result<Operand, ExpressionError> {
    match value {
        Value::String(text) if text.starts_with("%%") => expansion(text, at),
        Value::Object(fields) => {
            if let Some(operator) = fields.keys().find(|key| key.starts_with('%')) {
                return Err(unknown_operator(operator, at));
            }
            match Bson::try_from(value.clone()) {
                // Extended JSON for a value of another type, as { "$oid": … }, becomes that value.
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

fn literal(value: Bson, at: &str) -> Result<Operand, ExpressionError> {
    RawBson::try_from(value).map(Operand::Literal).map_err(|cause| error(at, &cause.to_string()))
}

fn expansion(text: &str, at: &str) -> Result<Operand, ExpressionError> {
    // The documentation's own sample has the closing signs, and exports copied from it have them too.
    let name = text.trim_start_matches("%%").trim_end_matches("%%");
    match name {
        "user.id" => return Ok(Operand::UserId),
        "user.custom_data" => return Ok(Operand::CustomData(None)),
        "true" | "false" => return Ok(Operand::Literal(RawBson::Boolean(name == "true"))),
        _ => {}
    }
    match name.strip_prefix("user.custom_data.") {
        Some(path) => {
            Path::strict(path).map(|path| Operand::CustomData(Some(path))).map_err(|cause| error(at, &cause.message))
        }
        None => Err(error(at, &format!("the expansion {text} is not supported yet"))),
    }
}

fn unknown_operator(operator: &str, at: &str) -> ExpressionError {
    let known = operator
        .strip_prefix(['%', '$'])
        .is_some_and(|name| UNSUPPORTED.contains(&name) || matches!(name, "and" | "or"));
    let message = if known {
        format!("the operator {operator} is not supported yet")
    } else {
        format!("{operator} is not an operator")
    };
    error(at, &message)
}

fn error(at: &str, message: &str) -> ExpressionError {
    ExpressionError { path: at.to_owned(), message: message.to_owned() }
}
