//! Functions: operators that compute their result from the values of their operands.

use super::{Value, arithmetic, arrays, convert, objects, order, sets, strings};
use crate::Result;
use bson::RawBson;

/// The values of a function's operands. The outer `None` stands for an omitted operand, the inner
/// one for an operand without a value.
pub(crate) type Operands<'a> = &'a [Option<Value>];

/// A function of the expression language, such as `$add`: its name, the form of its operands, and
/// its implementation. [`Expression::Call`](crate::Expression::Call) refers to it.
pub struct Function {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) compute: fn(Operands<'_>) -> Result<Value>,
}

/// The syntax of a function's operands.
pub(crate) enum Form {
    /// An array of operands, with their minimum and maximum number. One operand needs no array.
    List(usize, usize),
    /// An object with required and optional names. The error codes are for an operand that is not
    /// an object, for an unknown name, and for a missing name.
    Named(&'static [&'static str], &'static [&'static str], [i32; 3]),
}

impl std::fmt::Debug for Function {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

const ANY: usize = usize::MAX;

const fn list(name: &'static str, least: usize, most: usize, compute: fn(Operands<'_>) -> Result<Value>) -> Function {
    Function { name, form: Form::List(least, most), compute }
}

const fn named(
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
    errors: [i32; 3],
    compute: fn(Operands<'_>) -> Result<Value>,
) -> Function {
    Function { name, form: Form::Named(required, optional, errors), compute }
}

fn boolean(value: bool) -> Result<Value> {
    Ok(Some(RawBson::Boolean(value)))
}

/// Returns the value of an operand; `None` if it was omitted.
pub(crate) fn operand(operands: Operands<'_>, place: usize) -> &Value {
    operands.get(place).and_then(Option::as_ref).unwrap_or(&None)
}

fn ordered(operands: Operands<'_>) -> std::cmp::Ordering {
    order(operand(operands, 0), operand(operands, 1))
}

/// All functions, in no particular order.
pub(crate) static FUNCTIONS: &[Function] = &[
    list("$eq", 2, 2, |operands| boolean(ordered(operands).is_eq())),
    list("$ne", 2, 2, |operands| boolean(ordered(operands).is_ne())),
    list("$gt", 2, 2, |operands| boolean(ordered(operands).is_gt())),
    list("$gte", 2, 2, |operands| boolean(ordered(operands).is_ge())),
    list("$lt", 2, 2, |operands| boolean(ordered(operands).is_lt())),
    list("$lte", 2, 2, |operands| boolean(ordered(operands).is_le())),
    list("$cmp", 2, 2, |operands| Ok(Some(RawBson::Int32(ordered(operands) as i32)))),
    list("$not", 1, 1, |operands| boolean(!super::is_true(operand(operands, 0)))),
    list("$sum", 0, ANY, arithmetic::sum),
    list("$avg", 0, ANY, arithmetic::avg),
    list("$max", 0, ANY, |operands| arithmetic::extreme(operands, std::cmp::Ordering::Greater)),
    list("$min", 0, ANY, |operands| arithmetic::extreme(operands, std::cmp::Ordering::Less)),
    list("$add", 0, ANY, arithmetic::add),
    list("$subtract", 2, 2, arithmetic::subtract),
    list("$multiply", 0, ANY, arithmetic::multiply),
    list("$divide", 2, 2, arithmetic::divide),
    list("$mod", 2, 2, arithmetic::modulo),
    list("$abs", 1, 1, arithmetic::abs),
    list("$ceil", 1, 1, arithmetic::ceil),
    list("$floor", 1, 1, arithmetic::floor),
    list("$sqrt", 1, 1, arithmetic::sqrt),
    list("$exp", 1, 1, arithmetic::exp),
    list("$ln", 1, 1, arithmetic::ln),
    list("$log10", 1, 1, arithmetic::log10),
    list("$log", 2, 2, arithmetic::log),
    list("$pow", 2, 2, arithmetic::pow),
    list("$round", 1, 2, arithmetic::round),
    list("$trunc", 1, 2, arithmetic::trunc),
    list("$concat", 0, ANY, strings::concat),
    list("$toLower", 1, 1, strings::to_lower),
    list("$toUpper", 1, 1, strings::to_upper),
    list("$strLenBytes", 1, 1, strings::length_in_bytes),
    list("$strLenCP", 1, 1, strings::length_in_code_points),
    list("$strcasecmp", 2, 2, strings::compare_without_case),
    list("$split", 2, 2, strings::split),
    list("$substr", 3, 3, strings::substring_of_bytes),
    list("$substrBytes", 3, 3, strings::substring_of_bytes),
    list("$substrCP", 3, 3, strings::substring_of_code_points),
    list("$indexOfBytes", 2, 4, strings::index_of_bytes),
    list("$indexOfCP", 2, 4, strings::index_of_code_points),
    named("$trim", &["input"], &["chars"], [50696, 50694, 50695], |operands| {
        strings::trim("$trim", operands, true, true)
    }),
    named("$ltrim", &["input"], &["chars"], [50696, 50694, 50695], |operands| {
        strings::trim("$ltrim", operands, true, false)
    }),
    named("$rtrim", &["input"], &["chars"], [50696, 50694, 50695], |operands| {
        strings::trim("$rtrim", operands, false, true)
    }),
    named("$replaceOne", &["input", "find", "replacement"], &[], [51751, 51750, 51749], |operands| {
        strings::replace("$replaceOne", operands, false)
    }),
    named("$replaceAll", &["input", "find", "replacement"], &[], [51751, 51750, 51749], |operands| {
        strings::replace("$replaceAll", operands, true)
    }),
    named("$regexMatch", &["input", "regex"], &["options"], [51103, 31024, 31022], strings::regex_match),
    named("$regexFind", &["input", "regex"], &["options"], [51103, 31024, 31022], strings::regex_find),
    named("$regexFindAll", &["input", "regex"], &["options"], [51103, 31024, 31022], strings::regex_find_all),
    list("$arrayElemAt", 2, 2, arrays::element_at),
    list("$first", 1, 1, arrays::first),
    list("$last", 1, 1, arrays::last),
    list("$concatArrays", 0, ANY, arrays::concat),
    list("$size", 1, 1, arrays::size),
    list("$isArray", 1, 1, |operands| boolean(matches!(operand(operands, 0), Some(RawBson::Array(_))))),
    list("$in", 2, 2, arrays::contains),
    list("$indexOfArray", 2, 4, arrays::index_of),
    list("$reverseArray", 1, 1, arrays::reverse),
    list("$slice", 2, 3, arrays::slice),
    list("$range", 2, 3, arrays::range),
    list("$arrayToObject", 1, 1, objects::from_array),
    list("$objectToArray", 1, 1, objects::to_array),
    list("$mergeObjects", 0, ANY, objects::merge),
    list("$setUnion", 0, ANY, sets::union),
    list("$setIntersection", 0, ANY, sets::intersection),
    list("$setDifference", 2, 2, sets::difference),
    list("$setEquals", 2, ANY, sets::equals),
    list("$setIsSubset", 2, 2, sets::is_subset),
    list("$anyElementTrue", 1, 1, sets::any_true),
    list("$allElementsTrue", 1, 1, sets::all_true),
    list("$type", 1, 1, |operands| Ok(Some(RawBson::String(super::type_of(operand(operands, 0)).to_owned())))),
    list("$isNumber", 1, 1, |operands| {
        boolean(operand(operands, 0).as_ref().is_some_and(|value| crate::Number::of(value.as_raw_bson_ref()).is_some()))
    }),
    list("$toBool", 1, 1, |operands| convert::to("bool", operand(operands, 0))),
    list("$toInt", 1, 1, |operands| convert::to("int", operand(operands, 0))),
    list("$toLong", 1, 1, |operands| convert::to("long", operand(operands, 0))),
    list("$toDouble", 1, 1, |operands| convert::to("double", operand(operands, 0))),
    list("$toDecimal", 1, 1, |operands| convert::to("decimal", operand(operands, 0))),
    list("$toString", 1, 1, |operands| convert::to("string", operand(operands, 0))),
    list("$toObjectId", 1, 1, |operands| convert::to("objectId", operand(operands, 0))),
    list("$toDate", 1, 1, |operands| convert::to("date", operand(operands, 0))),
    list("$binarySize", 1, 1, strings::binary_size),
    list("$bsonSize", 1, 1, objects::size),
];
