//! Parses a value into an [`Expression`].

use std::collections::HashMap;

use bson::raw::{RawBsonRef, RawDocument};

use super::{
    Expression,
    call::{FUNCTIONS, Form, Function},
};
use crate::{
    Error, ErrorCode, Path, Result, budget,
    document::{elements, get, items, with_stack},
};

/// The names of the variables in scope, the innermost last.
#[derive(Default)]
pub(super) struct Names {
    bound: Vec<String>,
    /// The indexes of the variables with each name.
    places: HashMap<String, Vec<usize>>,
}

impl Names {
    /// Returns the index of the innermost variable with a name.
    fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name)?.last().copied()
    }

    /// Parses something with further variables in scope.
    fn with<T>(&mut self, bound: Vec<String>, parse: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.bound.len();
        for name in bound {
            self.places.entry(name.clone()).or_default().push(self.bound.len());
            self.bound.push(name);
        }
        let parsed = parse(self);
        for name in self.bound.drain(before..) {
            self.places.get_mut(&name).map(Vec::pop);
        }
        parsed
    }
}

/// Operators that the server has and Userkeep does not support.
const UNSUPPORTED: &[&str] = &[
    "$accumulator",
    "$acos",
    "$acosh",
    "$asin",
    "$asinh",
    "$atan",
    "$atan2",
    "$atanh",
    "$bitAnd",
    "$bitNot",
    "$bitOr",
    "$bitXor",
    "$bottom",
    "$bottomN",
    "$convert",
    "$cos",
    "$cosh",
    "$count",
    "$covariancePop",
    "$covarianceSamp",
    "$createObjectId",
    "$currentDate",
    "$dateAdd",
    "$dateDiff",
    "$dateFromParts",
    "$dateFromString",
    "$dateSubtract",
    "$dateToParts",
    "$dateToString",
    "$dateTrunc",
    "$dayOfMonth",
    "$dayOfWeek",
    "$dayOfYear",
    "$degreesToRadians",
    "$denseRank",
    "$derivative",
    "$documentNumber",
    "$encStrContains",
    "$expMovingAvg",
    "$firstN",
    "$function",
    "$getField",
    "$hash",
    "$hexHash",
    "$hour",
    "$integral",
    "$isoDayOfWeek",
    "$isoWeek",
    "$isoWeekYear",
    "$lastN",
    "$linearFill",
    "$locf",
    "$maxN",
    "$median",
    "$meta",
    "$millisecond",
    "$minN",
    "$minMaxScaler",
    "$minute",
    "$month",
    "$percentile",
    "$push",
    "$radiansToDegrees",
    "$rand",
    "$rank",
    "$sampleRate",
    "$second",
    "$serializeEJSON",
    "$deserializeEJSON",
    "$setField",
    "$shift",
    "$sigmoid",
    "$similarityCosine",
    "$similarityDotProduct",
    "$similarityEuclidean",
    "$sin",
    "$sinh",
    "$sortArray",
    "$stdDevPop",
    "$stdDevSamp",
    "$subtype",
    "$tan",
    "$tanh",
    "$toHashedIndexKey",
    "$toUUID",
    "$top",
    "$topN",
    "$tsIncrement",
    "$tsSecond",
    "$unsetField",
    "$week",
    "$year",
    "$zip",
];

pub(super) fn expression(value: RawBsonRef<'_>, names: &mut Names) -> Result<Expression> {
    budget::charge(1)?;
    Ok(match value {
        RawBsonRef::String(text) => match text.strip_prefix('$') {
            None => Expression::Literal(value.into()),
            Some(rest) => reference(text, rest, names)?,
        },
        RawBsonRef::Document(inner) => with_stack(|| document(inner, names))?,
        RawBsonRef::Array(array) => {
            Expression::Array(items(array).map(|item| expression(item, names)).collect::<Result<_>>()?)
        }
        value => Expression::Literal(value.into()),
    })
}

fn reference(text: &str, rest: &str, names: &Names) -> Result<Expression> {
    let Some(variable) = rest.strip_prefix('$') else {
        if rest.is_empty() {
            return Err(Error::new(ErrorCode::InvalidFieldPath, "'$' by itself is not a valid FieldPath"));
        }
        return Ok(Expression::Field(Path::of_fields(rest)?));
    };
    let (name, path) = variable.split_once('.').map_or((variable, None), |(name, path)| (name, Some(path)));
    let path = path.map(Path::of_fields).transpose()?;
    if let Some(place) = names.place(name) {
        let path = path.map(|path| path.parts().to_vec()).unwrap_or_default();
        return Ok(Expression::Variable { place, path });
    }
    match (name, path) {
        ("ROOT" | "CURRENT", None) => Ok(Expression::Root),
        ("ROOT" | "CURRENT", Some(path)) => Ok(Expression::Field(path)),
        ("REMOVE", _) => Ok(Expression::Remove),
        ("", _) => Err(Error::parse("empty variable names are not allowed")),
        ("CLUSTER_TIME" | "JS_SCOPE" | "IS_MR" | "SEARCH_META" | "USER_ROLES" | "DESCEND" | "PRUNE" | "KEEP", _) => {
            Err(Error::unsupported(format_args!("the variable {text}")))
        }
        (name, path) => Ok(Expression::Free {
            name: name.to_owned(),
            path: path.map(|path| path.parts().to_vec()).unwrap_or_default(),
        }),
    }
}

fn document(document: &RawDocument, names: &mut Names) -> Result<Expression> {
    let mut fields = Vec::new();
    for (name, value) in elements(document) {
        if !name.starts_with('$') {
            if name.contains('.') {
                let message = format!("FieldPath field names may not contain '.'. Given '{name}'.");
                return Err(Error::location(16412, message));
            }
            fields.push((name.to_owned(), expression(value, names)?));
            continue;
        }
        if elements(document).count() != 1 {
            return Err(Error::location(
                15983,
                format!("an object representing an expression must have exactly one field, found more than {name}"),
            ));
        }
        return operator(name, value, names);
    }
    Ok(Expression::Document(fields))
}

fn operator(name: &str, value: RawBsonRef<'_>, names: &mut Names) -> Result<Expression> {
    match name {
        "$literal" | "$const" => Ok(Expression::Literal(value.into())),
        "$and" => list(value, names).map(Expression::And),
        "$or" => list(value, names).map(Expression::Or),
        "$cond" => cond(value, names),
        "$ifNull" => {
            let operands = list(value, names)?;
            if operands.len() < 2 {
                let message = format!("$ifNull needs at least two arguments, had: {}", operands.len());
                return Err(Error::location(1_257_300, message));
            }
            Ok(Expression::IfNull(operands))
        }
        "$switch" => switch(value, names),
        "$let" => bind(value, names),
        "$map" => {
            let parts = members(name, value, &["input", "in"], &["as"], [16878, 16879, 16880], &[("in", 16882)])?;
            let input = expression(parts[0].unwrap_or(RawBsonRef::Null), names)?;
            let bound = variable_name(parts[2], "this")?;
            let body = names.with(vec![bound], |names| expression(parts[1].unwrap_or(RawBsonRef::Null), names))?;
            Ok(Expression::Map(Box::new([input, body])))
        }
        "$filter" => {
            let codes = [28646, 28647, 28648];
            let parts = members(name, value, &["input", "cond"], &["as", "limit"], codes, &[("cond", 28650)])?;
            let input = expression(parts[0].unwrap_or(RawBsonRef::Null), names)?;
            let bound = variable_name(parts[2], "this")?;
            let limit = parts[3].map(|limit| expression(limit, names)).transpose()?;
            let body = names.with(vec![bound], |names| expression(parts[1].unwrap_or(RawBsonRef::Null), names))?;
            Ok(Expression::Filter(Box::new([input, body]), limit.map(Box::new)))
        }
        "$reduce" => {
            let required = ["input", "initialValue", "in"];
            let missing = [("initialValue", 40078), ("in", 40079)];
            let parts = members(name, value, &required, &[], [40075, 40076, 40077], &missing)?;
            let input = expression(parts[0].unwrap_or(RawBsonRef::Null), names)?;
            let initial = expression(parts[1].unwrap_or(RawBsonRef::Null), names)?;
            let bound = vec!["value".to_owned(), "this".to_owned()];
            let body = names.with(bound, |names| expression(parts[2].unwrap_or(RawBsonRef::Null), names))?;
            Ok(Expression::Reduce(Box::new([input, initial, body])))
        }
        _ => match FUNCTIONS.iter().find(|function| function.name == name) {
            Some(function) => call(function, value, names),
            None if UNSUPPORTED.contains(&name) => Err(Error::unsupported(format_args!("the expression {name}"))),
            None => Err(Error::new(ErrorCode::InvalidPipelineOperator, format!("Unrecognized expression '{name}'"))),
        },
    }
}

/// Parses operands in an array, or a single one without.
fn list(value: RawBsonRef<'_>, names: &mut Names) -> Result<Vec<Expression>> {
    match value {
        RawBsonRef::Array(array) => items(array).map(|item| expression(item, names)).collect(),
        value => Ok(vec![expression(value, names)?]),
    }
}

fn call(function: &'static Function, value: RawBsonRef<'_>, names: &mut Names) -> Result<Expression> {
    let operands = match function.form {
        Form::List(least, most) => {
            let operands = list(value, names)?;
            if !(least..=most).contains(&operands.len()) {
                let (name, given) = (function.name, operands.len());
                let converts = function.name.starts_with("$to") && !matches!(function.name, "$toLower" | "$toUpper");
                return Err(if converts {
                    Error::location(50723, format!("{name} requires a single argument, got {given}"))
                } else if name == "$setEquals" {
                    Error::location(17045, "$setEquals needs at least two arguments")
                } else if least == most {
                    let message = format!("Expression {name} takes exactly {least} arguments. {given} were passed in.");
                    Error::location(16020, message)
                } else {
                    let message = format!(
                        "Expression {name} takes at least {least} arguments, and at most {most}, but {given} were passed in."
                    );
                    Error::location(28667, message)
                });
            }
            operands.into_iter().map(Some).collect()
        }
        Form::Named(required, optional, codes) => {
            let missing: &[(&str, i32)] = match function.name {
                "$replaceOne" | "$replaceAll" => &[("find", 51748), ("replacement", 51747)],
                "$regexMatch" | "$regexFind" | "$regexFindAll" => &[("regex", 31023)],
                _ => &[],
            };
            let parts = members(function.name, value, required, optional, codes, missing)?;
            parts.into_iter().map(|part| part.map(|part| expression(part, names)).transpose()).collect::<Result<_>>()?
        }
    };
    Ok(Expression::Call(function, operands))
}

/// Returns the members of an operator's object, the required ones first.
///
/// `codes` are the errors for an operand that is not an object, for an unknown name, and for a
/// missing one. `missing` lists names whose absence has its own code.
fn members<'a>(
    operator: &str,
    value: RawBsonRef<'a>,
    required: &[&str],
    optional: &[&str],
    codes: [i32; 3],
    missing: &[(&str, i32)],
) -> Result<Vec<Option<RawBsonRef<'a>>>> {
    let [not_object, unknown, absent] = codes;
    let RawBsonRef::Document(document) = value else {
        return Err(Error::location(not_object, format!("{operator} only supports an object as its argument")));
    };
    let known = || required.iter().chain(optional);
    if let Some((name, _)) = elements(document).find(|(name, _)| !known().any(|other| other == name)) {
        return Err(Error::location(unknown, format!("Unrecognized parameter to {operator}: {name}")));
    }
    if let Some(name) = required.iter().find(|name| get(document, name).is_none()) {
        let code = missing.iter().find(|(other, _)| other == name).map_or(absent, |(_, code)| *code);
        return Err(Error::location(code, format!("Missing '{name}' parameter to {operator}")));
    }
    Ok(known().map(|name| get(document, name)).collect())
}

fn variable_name(value: Option<RawBsonRef<'_>>, usual: &str) -> Result<String> {
    let name = match value {
        None => return Ok(usual.to_owned()),
        Some(RawBsonRef::String(name)) => name,
        Some(_) => return Err(Error::parse("a variable's name must be a string")),
    };
    check_variable(name)?;
    Ok(name.to_owned())
}

pub(crate) fn check_variable(name: &str) -> Result<()> {
    let begins = |c: char| c.is_ascii_lowercase() || !c.is_ascii();
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    let is_name = name.chars().next().is_some_and(begins) && name.chars().all(goes_on);
    if is_name || name == "CURRENT" {
        return Ok(());
    }
    Err(Error::parse(format!("'{name}' starts with an invalid character for a user variable name")))
}

fn cond(value: RawBsonRef<'_>, names: &mut Names) -> Result<Expression> {
    let parts: Vec<Expression> = match value {
        RawBsonRef::Document(document) if !elements(document).any(|(name, _)| name.starts_with('$')) => {
            let missing = [("if", 17080), ("then", 17081), ("else", 17082)];
            members("$cond", value, &["if", "then", "else"], &[], [17083, 17083, 17080], &missing)?
                .into_iter()
                .flatten()
                .map(|part| expression(part, names))
                .collect::<Result<_>>()?
        }
        value => list(value, names)?,
    };
    let given = parts.len();
    let parts: [Expression; 3] = parts.try_into().map_err(|_| {
        Error::location(16020, format!("Expression $cond takes exactly 3 arguments. {given} were passed in."))
    })?;
    Ok(Expression::Cond(Box::new(parts)))
}

fn switch(value: RawBsonRef<'_>, names: &mut Names) -> Result<Expression> {
    let RawBsonRef::Document(document) = value else {
        return Err(Error::location(40060, "$switch requires an object as an argument"));
    };
    let (mut branches, mut default) = (Vec::new(), None);
    for (name, value) in elements(document) {
        match name {
            "branches" => {
                let RawBsonRef::Array(array) = value else {
                    return Err(Error::location(40061, "$switch expected an array for 'branches'"));
                };
                for branch in items(array) {
                    let RawBsonRef::Document(branch) = branch else {
                        return Err(Error::location(40062, "$switch expected each branch to be an object"));
                    };
                    if let Some((name, _)) = elements(branch).find(|(name, _)| !["case", "then"].contains(name)) {
                        return Err(Error::location(
                            40063,
                            format!("$switch found an unknown argument to a branch: {name}"),
                        ));
                    }
                    let part = |name, code| {
                        get(branch, name).ok_or_else(|| {
                            Error::location(code, format!("$switch requires each branch have a '{name}' expression"))
                        })
                    };
                    let (case, then) = (part("case", 40064)?, part("then", 40065)?);
                    branches.push((expression(case, names)?, expression(then, names)?));
                }
            }
            "default" => default = Some(Box::new(expression(value, names)?)),
            other => return Err(Error::location(40067, format!("$switch found an unknown argument: {other}"))),
        }
    }
    if branches.is_empty() {
        return Err(Error::location(40068, "$switch requires at least one branch."));
    }
    Ok(Expression::Switch { branches, default })
}

fn bind(value: RawBsonRef<'_>, names: &mut Names) -> Result<Expression> {
    let parts = members("$let", value, &["vars", "in"], &[], [16874, 16875, 16876], &[("in", 16877)])?;
    let Some(RawBsonRef::Document(variables)) = parts[0] else {
        return Err(Error::location(10065, "invalid parameter: expected an object (vars)"));
    };
    let mut bound = Vec::new();
    let mut values = Vec::new();
    for (name, value) in elements(variables) {
        check_variable(name)?;
        values.push(expression(value, names)?);
        bound.push(name.to_owned());
    }
    let body = names.with(bound, |names| expression(parts[1].unwrap_or(RawBsonRef::Null), names))?;
    Ok(Expression::Let(values, Box::new(body)))
}
