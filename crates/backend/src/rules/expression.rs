//! Rule expressions, compiled when the definition is loaded.
//!
//! The value of an expansion is only compared: it is never interpreted as an operator or a path.

use std::collections::HashSet;

use bson::{
    Bson, RawBson,
    raw::{RawBsonRef, RawDocument, RawDocumentBuf},
};
use query::{Filter, Path, PathFilter, Predicate, budget, elements};
use serde_json::Value;

/// The result of an expression in three-valued logic. It is unresolved if an expansion or a field
/// is missing, or if values cannot be compared. Only `True` allows an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// The expression is true.
    True,
    /// The expression is false.
    False,
    /// The expression has no truth value.
    Unresolved,
}

/// A compiled rule expression.
///
/// ```
/// use backend::rules::{Context, Expression, Truth};
///
/// let own = Expression::parse(&serde_json::json!({ "owner": "%%user.id" })).unwrap();
/// let document = bson::rawdoc! { "owner": "u1" };
/// let context = Context { user_id: "u1", custom_data: None, document: &document };
/// assert_eq!(own.evaluate(&context), Truth::True);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// `true` or `false`; `{}` is true.
    Constant(bool),
    /// `%and`, or the fields of one object: true if all parts are true.
    All(Vec<Expression>),
    /// `%or`: true if any part is true.
    Any(Vec<Expression>),
    /// `{ "%%true": … }` or `{ "%%false": … }`: true if the inner expression has this truth value.
    Asserts(bool, Box<Expression>),
    /// True if the two operands are equal.
    Equal(Operand, Operand),
}

/// An operand, which has a value for a user and a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A constant of the definition.
    Literal(RawBson),
    /// A field of the document.
    Field(Path),
    /// `%%user.id`: the user's id.
    UserId,
    /// `%%user.custom_data`, or a field of it.
    CustomData(Option<Path>),
}

/// The user and the document that an expression is evaluated for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The user's id.
    pub user_id: &'a str,
    /// The user's current custom data; `None` if there is none.
    pub custom_data: Option<&'a RawDocument>,
    /// The document.
    pub document: &'a RawDocument,
}

/// The error of an expression that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// The JSON path within the expression.
    pub path: String,
    /// The reason.
    pub message: String,
}

/// Operators of App Services' expressions that this version does not support.
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
    /// If the value is not an expression, or uses an operator or expansion that this version does
    /// not support. Such rules never load, so that no check is dropped.
    pub fn parse(value: &Value) -> Result<Self, ExpressionError> {
        parse(value, "")
    }

    /// True if the expression is true and the operation's budget is not exhausted.
    pub fn allows(&self, context: &Context<'_>) -> bool {
        self.evaluate(context) == Truth::True && budget::spend(1)
    }

    /// Evaluates the expression in three-valued logic. It is unresolved once the operation's
    /// budget is exhausted.
    pub fn evaluate(&self, context: &Context<'_>) -> Truth {
        if !budget::spend(1) {
            return Truth::Unresolved;
        }
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

    /// Returns the filter for the documents for which the expression has the truth value `truth`.
    /// It ignores the document of `context`. Returns `None` if no filter expresses it exactly, or
    /// if the operation's budget is exhausted.
    pub fn filter(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let filter = self.to_filter(context, truth)?;
        // Comparisons without a budget have no result.
        budget::spend(1).then_some(filter)
    }

    fn to_filter(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let each = |parts: &[Self]| parts.iter().map(|part| part.to_filter(context, truth)).collect::<Option<Vec<_>>>();
        match self {
            Self::Constant(value) => Some(Filter::Always(*value == truth)),
            // One decisive part decides, whatever the others are.
            Self::All(parts) if truth => each(parts).map(Filter::all_of),
            Self::All(parts) => each(parts).map(Filter::any_of),
            Self::Any(parts) if truth => each(parts).map(Filter::any_of),
            Self::Any(parts) => each(parts).map(Filter::all_of),
            Self::Asserts(expected, inner) => inner.to_filter(context, *expected == truth),
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

    /// Returns a filter that matches at least the documents for which the expression has the truth
    /// value `truth`: the same as [`filter`](Self::filter) if that exists. Returns `None` if the
    /// operation's budget is exhausted.
    pub fn superset(&self, context: &Context<'_>, truth: bool) -> Option<Filter> {
        let superset = self.to_superset(context, truth);
        budget::spend(1).then_some(superset)
    }

    fn to_superset(&self, context: &Context<'_>, truth: bool) -> Filter {
        let each = |parts: &[Self]| parts.iter().map(|part| part.to_superset(context, truth)).collect::<Vec<_>>();
        match self {
            Self::Constant(value) => Filter::Always(*value == truth),
            Self::All(parts) if truth => Filter::all_of(each(parts)),
            Self::Any(parts) if !truth => Filter::all_of(each(parts)),
            Self::All(parts) | Self::Any(parts) => Filter::any_of(each(parts)),
            Self::Asserts(expected, inner) => inner.to_superset(context, *expected == truth),
            Self::Equal(left, right) => self.to_filter(context, truth).unwrap_or_else(|| match (left, right) {
                (Operand::Field(one), Operand::Field(other)) => Filter::all_of([is_there(one), is_there(other)]),
                (Operand::Field(path), other) | (other, Operand::Field(path)) => {
                    field_superset(path, &other.values(context), truth)
                }
                _ => Filter::Always(true),
            }),
        }
    }

    /// Returns the paths of the document's fields that the expression uses.
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

    /// True if the expression uses the user's custom data.
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

/// Evaluates `%and` or `%or`: one `decisive` part decides; otherwise an unresolved part makes the
/// result unresolved.
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

/// The values of an operand that another operand may equal.
struct Values<'a> {
    /// False if the operand is missing. An operand that is present may still have no comparable
    /// values.
    is_there: bool,
    all: Vec<RawBsonRef<'a>>,
}

impl<'a> Values<'a> {
    /// A missing operand.
    fn missing() -> Self {
        Self { is_there: false, all: Vec::new() }
    }

    /// The value itself, and its items if it is an array, except booleans.
    fn of(value: RawBsonRef<'a>) -> Self {
        let mut all = vec![value];
        if let RawBsonRef::Array(array) = value
            && let Ok(items) = RawDocument::from_bytes(array.as_bytes())
        {
            all.extend(elements(items).map(|(_, item)| item).filter(|item| !is_boolean(item)));
        }
        Self { is_there: true, all }
    }

    /// The values at a path: through documents, through documents in arrays, and the items of an
    /// array at the end. A boolean is reached only through documents. A flag in an array is no
    /// flag, because the array could contain both true and false.
    fn at(path: &Path, document: &'a RawDocument) -> Self {
        let mut all = path.values_in(document);
        let is_there = !all.is_empty();
        if all.iter().any(is_boolean) {
            all.retain(|value| !is_boolean(value));
            all.extend(path.value_in(document).filter(is_boolean));
        }
        Self { is_there, all }
    }
}

fn is_boolean(value: &RawBsonRef<'_>) -> bool {
    matches!(value, RawBsonRef::Boolean(_))
}

impl Operand {
    fn values<'a>(&'a self, context: &Context<'a>) -> Values<'a> {
        match self {
            Self::Literal(value) => Values::of(value.as_raw_bson_ref()),
            Self::Field(path) => Values::at(path, context.document),
            Self::UserId => Values::of(RawBsonRef::String(context.user_id)),
            Self::CustomData(path) => match (context.custom_data, path) {
                (None, _) => Values::missing(),
                (Some(data), None) => Values::of(RawBsonRef::Document(data)),
                (Some(data), Some(path)) => Values::at(path, data),
            },
        }
    }
}

/// Returns the filter for the documents in which a field equals one of the values (`truth`), or
/// exists and equals none of them.
fn field_filter(path: &Path, values: &Values<'_>, truth: bool) -> Option<Filter> {
    // In a filter, null also matches a missing field, and a regular expression is a pattern.
    let is_plain = |value: &RawBsonRef<'_>| {
        !matches!(value, RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::RegularExpression(_))
    };
    if !values.is_there {
        return Some(Filter::Always(false));
    }
    if !values.all.iter().all(is_plain) {
        return None;
    }
    let on_path = |predicate| Filter::Path(PathFilter { path: path.clone(), predicate });
    let equal = match values.all[..] {
        [] => Filter::Always(false),
        // An operand with a boolean has no other values.
        [value @ RawBsonRef::Boolean(_)] => {
            Filter::all_of([on_path(Predicate::Eq(value.into())), without_arrays(path)?])
        }
        [value] => on_path(Predicate::Eq(value.into())),
        ref values => on_path(Predicate::In(values.iter().map(|value| (*value).into()).collect(), Vec::new())),
    };
    Some(match truth {
        true => equal,
        false => Filter::all_of([on_path(Predicate::Exists), Filter::none_of([equal])]),
    })
}

/// Returns a filter that matches at least the documents of [`field_filter`], which has no exact
/// filter.
fn field_superset(path: &Path, values: &Values<'_>, truth: bool) -> Filter {
    use RawBsonRef::{Boolean, Null, RegularExpression, Undefined};
    let is_in = |values: Vec<RawBson>| {
        Filter::Path(PathFilter { path: path.clone(), predicate: Predicate::In(values.into(), Vec::new()) })
    };
    let is_pattern = |value: &RawBsonRef<'_>| matches!(value, Undefined | RegularExpression(_));
    let is_plain = |value: &RawBsonRef<'_>| !is_pattern(value) && !matches!(value, Null | Boolean(_));
    let owned = |value: &RawBsonRef<'_>| RawBson::from(*value);
    let there = is_there(path);
    match truth {
        _ if there == Filter::Always(true) => there,
        // Servers differ in their comparison of undefined, and match by regular expressions.
        true if values.all.iter().any(is_pattern) => there,
        // Null also matches a missing field.
        true => Filter::all_of([there, is_in(values.all.iter().map(owned).collect())]),
        false => {
            let plain: Vec<_> = values.all.iter().filter(|value| is_plain(value)).map(owned).collect();
            let equal = if plain.is_empty() { Filter::Always(false) } else { is_in(plain) };
            Filter::all_of([there, Filter::none_of([equal])])
        }
    }
}

/// Returns the filter for the documents that have a field; all documents if a server may interpret
/// its name differently.
fn is_there(path: &Path) -> Filter {
    if path.parts().iter().any(|part| part.is_empty() || part.starts_with('$')) {
        return Filter::Always(true);
    }
    Filter::Path(PathFilter { path: path.clone(), predicate: Predicate::Exists })
}

/// Returns the filter for the documents in which neither the field nor a parent of it is an array.
fn without_arrays(path: &Path) -> Option<Filter> {
    let is_array = |length: usize| {
        let mut is_array = RawDocumentBuf::new();
        let mut condition = RawDocumentBuf::new();
        query::append(&mut condition, "$type", "array");
        query::append(&mut is_array, &path.parts()[..length].join("."), &condition);
        Filter::parse(&is_array).ok()
    };
    (1..=path.parts().len()).map(is_array).collect::<Option<Vec<_>>>().map(Filter::none_of)
}

/// The maximum number of pairs of values that are compared directly; for more, the values' keys
/// are looked up in a set.
const FEW_PAIRS: usize = 64;

/// Compares two operands. An array equals itself and each value that one of its items equals. A
/// boolean equals only a boolean.
fn compare(left: &Values<'_>, right: &Values<'_>) -> Truth {
    if !left.is_there || !right.is_there || !budget::spend((left.all.len() + right.all.len()) as u64) {
        return Truth::Unresolved;
    }
    let (few, many) = if left.all.len() < right.all.len() { (&left.all, &right.all) } else { (&right.all, &left.all) };
    if few.len() == 1 || few.len() * many.len() <= FEW_PAIRS {
        return Truth::from(few.iter().any(|a| many.iter().any(|b| query::equal(*a, *b))));
    }
    let keys: HashSet<Vec<u8>> = few.iter().map(|value| query::encode_key(*value)).collect();
    Truth::from(many.iter().any(|value| keys.contains(&query::encode_key(*value))))
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

fn literal(value: Bson, at: &str) -> Result<Operand, ExpressionError> {
    let value = RawBson::try_from(value).map_err(|cause| error(at, &cause.to_string()))?;
    let mut holder = RawDocumentBuf::new();
    query::append(&mut holder, "value", &value);
    query::validate(&holder).map_err(|cause| error(at, &cause.message))?;
    Ok(Operand::Literal(value))
}

fn expansion(text: &str, at: &str) -> Result<Operand, ExpressionError> {
    // The sample in App Services' documentation ends with `%%`, and so do exports that copied it.
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
