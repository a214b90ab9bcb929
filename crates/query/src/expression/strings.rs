//! String functions and regular expressions.

use std::{cmp::Ordering, collections::HashSet, ops::Range};

use bson::{
    RawBson,
    raw::{RawArrayBuf, RawDocumentBuf},
};

use super::{
    Value,
    call::{Operands, operand},
    is_nullish, null, type_of,
};
use crate::{Error, Number, Result, budget, regex::Regex};

fn text(text: impl Into<String>) -> Result<Value> {
    Ok(Some(RawBson::String(text.into())))
}

/// Converts a value to text if the server coerces it: dates and numbers too. Missing and null
/// become the empty string.
fn coerced(value: &Value) -> Result<String> {
    match value {
        value if is_nullish(value) => Ok(String::new()),
        Some(RawBson::String(text) | RawBson::Symbol(text) | RawBson::JavaScriptCode(text)) => Ok(text.clone()),
        Some(
            RawBson::DateTime(_) | RawBson::Int32(_) | RawBson::Int64(_) | RawBson::Double(_) | RawBson::Decimal128(_),
        ) => match super::convert::to("string", value)? {
            Some(RawBson::String(text)) => Ok(text),
            _ => Ok(String::new()),
        },
        Some(RawBson::Timestamp(time)) => Ok(written(*time)),
        other => Err(Error::location(16007, format!("can't convert from BSON type {} to String", type_of(other)))),
    }
}

/// Formats a timestamp as the server does: month, day and time of day in UTC, and the increment.
fn written(timestamp: bson::Timestamp) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time =
        bson::DateTime::from_millis(i64::from(timestamp.time) * 1000).try_to_rfc3339_string().unwrap_or_default();
    let number = |from: usize| time.get(from..from + 2).and_then(|digits| digits.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(number(5).saturating_sub(1)).copied().unwrap_or_default();
    format!("{month} {:2} {}:{}", number(8), time.get(11..19).unwrap_or_default(), timestamp.increment)
}

pub(super) fn concat(operands: Operands<'_>) -> Result<Value> {
    let mut all = String::new();
    for value in operands.iter().flatten() {
        match value {
            Some(RawBson::String(part)) => all.push_str(part),
            value if is_nullish(value) => return null(),
            other => {
                return Err(Error::location(16702, format!("$concat only supports strings, not {}", type_of(other))));
            }
        }
    }
    text(all)
}

pub(super) fn to_lower(operands: Operands<'_>) -> Result<Value> {
    text(coerced(operand(operands, 0))?.to_ascii_lowercase())
}

pub(super) fn to_upper(operands: Operands<'_>) -> Result<Value> {
    text(coerced(operand(operands, 0))?.to_ascii_uppercase())
}

pub(super) fn length_in_bytes(operands: Operands<'_>) -> Result<Value> {
    length("$strLenBytes", operands, 34473, str::len)
}

pub(super) fn length_in_code_points(operands: Operands<'_>) -> Result<Value> {
    length("$strLenCP", operands, 34471, |text| text.chars().count())
}

fn length(name: &str, operands: Operands<'_>, code: i32, measure: fn(&str) -> usize) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::String(text)) => Ok(Some(RawBson::Int32(measure(text) as i32))),
        other => Err(Error::location(code, format!("{name} requires a string argument, found: {}", type_of(other)))),
    }
}

pub(super) fn compare_without_case(operands: Operands<'_>) -> Result<Value> {
    let upper = |place| coerced(operand(operands, place)).map(|text| text.to_ascii_uppercase());
    let order: Ordering = upper(0)?.as_bytes().cmp(upper(1)?.as_bytes());
    Ok(Some(RawBson::Int32(order as i32)))
}

pub(super) fn split(operands: Operands<'_>) -> Result<Value> {
    let (whole, separator) = (operand(operands, 0), operand(operands, 1));
    if is_nullish(whole) || is_nullish(separator) {
        return null();
    }
    let wrong = |code, which: &str, value: &Value| {
        Err(Error::location(
            code,
            format!(
                "$split requires an expression that evaluates to a string as a {which} argument, found: {}",
                type_of(value)
            ),
        ))
    };
    let Some(RawBson::String(whole)) = whole else { return wrong(40085, "first", whole) };
    let Some(RawBson::String(separator)) = separator else { return wrong(10_503_900, "second", separator) };
    if separator.is_empty() {
        return Err(Error::location(40087, "$split requires a non-empty separator"));
    }
    let mut parts = RawArrayBuf::new();
    whole.split(separator.as_str()).for_each(|part| parts.push(part));
    Ok(Some(RawBson::Array(parts)))
}

fn number_at(operands: Operands<'_>, place: usize, code: i32, what: &str) -> Result<i64> {
    let value = operand(operands, place);
    let number = value.as_ref().and_then(|value| Number::of(value.as_raw_bson_ref()));
    let number = number.and_then(Number::truncated);
    number.ok_or_else(|| {
        Error::location(code, format!("{what} must be a numeric type (is BSON type {})", type_of(value)))
    })
}

pub(super) fn substring_of_bytes(operands: Operands<'_>) -> Result<Value> {
    let whole = coerced(operand(operands, 0))?;
    let start = number_at(operands, 1, 16034, "$substrBytes: starting index")?;
    let length = number_at(operands, 2, 16035, "$substrBytes: length")?;
    let start = usize::try_from(start).map_err(|_| {
        Error::location(50752, format!("$substrBytes: starting index must be non-negative (got: {start})"))
    })?;
    let end = usize::try_from(length).map_or(whole.len(), |length| start.saturating_add(length).min(whole.len()));
    if start >= whole.len() {
        return text("");
    }
    if !whole.is_char_boundary(start) {
        return Err(Error::location(
            28656,
            "$substrBytes: Invalid range, starting index is a UTF-8 continuation byte.",
        ));
    }
    if !whole.is_char_boundary(end) {
        return Err(Error::location(
            28657,
            "$substrBytes: Invalid range, ending index is in the middle of a UTF-8 character.",
        ));
    }
    text(&whole[start..end])
}

/// Returns a non-negative 32-bit integer operand of a function that counts code points.
fn whole_at(operands: Operands<'_>, place: usize, codes: [i32; 3], what: &str) -> Result<usize> {
    let [not_number, not_whole, negative] = codes;
    let value = operand(operands, place);
    if value.as_ref().and_then(|value| Number::of(value.as_raw_bson_ref())).is_none() {
        let message = format!("{what} must be a numeric type (is BSON type {})", type_of(value));
        return Err(Error::location(not_number, message));
    }
    let whole = value.as_ref().and_then(|value| crate::integer(value.as_raw_bson_ref()));
    let whole = whole.and_then(|whole| i32::try_from(whole).ok()).ok_or_else(|| {
        Error::location(not_whole, format!("{what} cannot be represented as a 32-bit integral value"))
    })?;
    usize::try_from(whole).map_err(|_| Error::location(negative, format!("{what} must be a nonnegative integer.")))
}

pub(super) fn substring_of_code_points(operands: Operands<'_>) -> Result<Value> {
    let whole = coerced(operand(operands, 0))?;
    let start = whole_at(operands, 1, [34450, 34451, 34455], "$substrCP: starting index")?;
    let length = whole_at(operands, 2, [34452, 34453, 34454], "$substrCP: length")?;
    text(whole.chars().skip(start).take(length).collect::<String>())
}

pub(super) fn index_of_bytes(operands: Operands<'_>) -> Result<Value> {
    index_of("$indexOfBytes", operands, [40091, 40092], |whole, part, start, end| {
        let end = end.min(whole.len());
        if start > end || part.is_empty() {
            return (start <= end).then_some(start);
        }
        // A match can only begin and end at character boundaries.
        let from = (start..end).find(|place| whole.is_char_boundary(*place))?;
        let to = (from..=end).rev().find(|place| whole.is_char_boundary(*place))?;
        whole[from..to].find(part).map(|place| from + place)
    })
}

pub(super) fn index_of_code_points(operands: Operands<'_>) -> Result<Value> {
    index_of("$indexOfCP", operands, [40093, 40094], |whole, part, start, end| {
        let end = end.min(whole.chars().count());
        if start > end || part.is_empty() {
            return (start <= end).then_some(start);
        }
        let byte = |place: usize| whole.char_indices().nth(place).map_or(whole.len(), |(byte, _)| byte);
        let within = &whole[byte(start)..byte(end)];
        within.find(part).map(|place| start + within[..place].chars().count())
    })
}

fn index_of(
    name: &str,
    operands: Operands<'_>,
    codes: [i32; 2],
    find: impl Fn(&str, &str, usize, usize) -> Option<usize>,
) -> Result<Value> {
    let (whole, part) = (operand(operands, 0), operand(operands, 1));
    if is_nullish(whole) {
        return null();
    }
    let Some(RawBson::String(whole)) = whole else {
        let message = format!("{name} requires a string as the first argument, found: {}", type_of(whole));
        return Err(Error::location(codes[0], message));
    };
    let Some(RawBson::String(part)) = part else {
        let message = format!("{name} requires a string as the second argument, found: {}", type_of(part));
        return Err(Error::location(codes[1], message));
    };
    let bound = |place: usize, usual, what: &str| match operands.get(place) {
        None => Ok(usual),
        Some(value) => index_bound(name, what, value.as_ref().unwrap_or(&None), [40096, 40097]),
    };
    let (start, end) = (bound(2, 0, "starting")?, bound(3, usize::MAX, "ending")?);
    budget::charge_bytes(whole.len())?;
    Ok(Some(RawBson::Int32(find(whole, part, start, end).map_or(-1, |place| place as i32))))
}

/// Returns the start or the end index of a search.
pub(super) fn index_bound(name: &str, what: &str, value: &Value, codes: [i32; 2]) -> Result<usize> {
    let whole = value.as_ref().and_then(|value| crate::integer(value.as_raw_bson_ref()));
    let whole = whole.and_then(|whole| i32::try_from(whole).ok());
    let whole = whole.ok_or_else(|| {
        Error::location(
            codes[0],
            format!("{name} requires an integral {what} index, found a value of type: {}", type_of(value)),
        )
    })?;
    usize::try_from(whole)
        .map_err(|_| Error::location(codes[1], format!("{name} requires a nonnegative {what} index, found: {whole}")))
}

/// True if the server treats the character as white space.
fn is_blank(character: char) -> bool {
    matches!(character, '\0' | '\t'..='\r' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}')
}

pub(super) fn trim(name: &str, operands: Operands<'_>, left: bool, right: bool) -> Result<Value> {
    let (input, chars) = (operand(operands, 0), operands.get(1).and_then(Option::as_ref));
    if is_nullish(input) {
        return null();
    }
    let Some(RawBson::String(input)) = input else {
        return Err(Error::location(
            50699,
            format!("{name} requires its input to be a string, got {}", type_of(input)),
        ));
    };
    let chars = match chars {
        None => None,
        Some(chars) if is_nullish(chars) => return null(),
        Some(Some(RawBson::String(chars))) => Some(chars),
        Some(other) => {
            let message = format!("{name} requires 'chars' to be a string, got {}", type_of(other));
            return Err(Error::location(50700, message));
        }
    };
    budget::charge_bytes(input.len())?;
    budget::charge(chars.map_or(0, |chars| chars.len() as u64 / 4))?;
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let goes = |character: char| chars.as_ref().map_or_else(|| is_blank(character), |chars| chars.contains(&character));
    let mut rest = input.as_str();
    if left {
        rest = rest.trim_start_matches(goes);
    }
    if right {
        rest = rest.trim_end_matches(goes);
    }
    text(rest)
}

pub(super) fn replace(name: &str, operands: Operands<'_>, all: bool) -> Result<Value> {
    let mut parts = Vec::new();
    for (place, (what, code)) in
        [("input", 10_503_904), ("find", 10_503_901), ("replacement", 10_503_902)].into_iter().enumerate()
    {
        parts.push(match operand(operands, place) {
            Some(RawBson::String(text)) => Some(text.as_str()),
            value if is_nullish(value) => None,
            other => {
                let message = format!("{name} requires that '{what}' be a string, found: {}", type_of(other));
                return Err(Error::location(code, message));
            }
        });
    }
    let [Some(input), Some(find), Some(replacement)] = parts[..] else { return null() };
    budget::charge_bytes(input.len())?;
    let count = if all { input.matches(find).count() } else { 1 };
    super::check_size(input.len().saturating_sub(count * find.len()) + count.saturating_mul(replacement.len()))?;
    text(if all { input.replace(find, replacement) } else { input.replacen(find, replacement, 1) })
}

/// Returns the input and the regular expression of a function; `None` if either is null or
/// missing.
fn regex_operands<'a>(name: &str, operands: Operands<'a>) -> Result<Option<(&'a str, Regex)>> {
    let (input, regex, options) = (operand(operands, 0), operand(operands, 1), operand(operands, 2));
    let input = match input {
        Some(RawBson::String(input)) => Some(input.as_str()),
        value if is_nullish(value) => None,
        other => {
            let message = format!("{name} needs 'input' to be of type string, found: {}", type_of(other));
            return Err(Error::location(51104, message));
        }
    };
    let options = match options {
        Some(RawBson::String(options)) => Some(options.as_str()),
        value if is_nullish(value) => None,
        other => {
            let message = format!("{name} needs 'options' to be of type string, found: {}", type_of(other));
            return Err(Error::location(51106, message));
        }
    };
    let check = |options: &str| match options.chars().find(|flag| !"imsxu".contains(*flag)) {
        Some(flag) => Err(Error::location(51108, format!("invalid flag in regex options: {flag}"))),
        None => Ok(()),
    };
    let regex = match regex {
        value if is_nullish(value) => {
            options.map_or(Ok(()), check)?;
            return Ok(None);
        }
        Some(RawBson::String(pattern)) => Regex::new(pattern, options.unwrap_or_default()),
        Some(RawBson::RegularExpression(regex)) => {
            if options.is_some() && !regex.options.as_str().is_empty() {
                let message = format!("{name} found regex option(s) specified in both 'regex' and 'option' fields");
                return Err(Error::location(51107, message));
            }
            Regex::new(regex.pattern.as_str(), options.unwrap_or(regex.options.as_str()))
        }
        other => {
            let message = format!("{name} needs 'regex' to be of type string or regex, found: {}", type_of(other));
            return Err(Error::location(51105, message));
        }
    };
    let regex = regex.map_err(|error| match error.code {
        crate::ErrorCode::Location(51091) => Error::location(51111, error.message),
        crate::ErrorCode::BadValue => Error::location(51109, error.message),
        _ => error,
    })?;
    Ok(input.map(|input| (input, regex)))
}

pub(super) fn regex_match(operands: Operands<'_>) -> Result<Value> {
    let matches = regex_operands("$regexMatch", operands)?.is_some_and(|(input, regex)| regex.is_match(input));
    Ok(Some(RawBson::Boolean(matches)))
}

/// Converts byte offsets to code point offsets, continuing from the last conversion.
#[derive(Default)]
struct Counter {
    byte: usize,
    code_points: usize,
}

impl Counter {
    fn code_points(&mut self, input: &str, byte: usize) -> i32 {
        self.code_points += input.get(self.byte..byte).unwrap_or_default().chars().count();
        self.byte = byte;
        self.code_points as i32
    }
}

/// Returns a match as a document: the text, its offset in code points, and the groups.
fn found(input: &str, places: &[Option<Range<usize>>], counter: &mut Counter) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    let of = |place: &Range<usize>| input.get(place.clone()).unwrap_or_default();
    if let Some(Some(whole)) = places.first() {
        crate::append(&mut document, "match", of(whole));
        crate::append(&mut document, "idx", counter.code_points(input, whole.start));
    }
    let mut groups = RawArrayBuf::new();
    for group in places.iter().skip(1) {
        match group {
            Some(group) => groups.push(of(group)),
            None => groups.push(RawBson::Null),
        }
    }
    crate::append(&mut document, "captures", &groups);
    document
}

pub(super) fn regex_find(operands: Operands<'_>) -> Result<Value> {
    let Some((input, regex)) = regex_operands("$regexFind", operands)? else { return null() };
    let found = regex.matches_in(input).next().map(|places| found(input, &places, &mut Counter::default()));
    budget::charge(1)?;
    Ok(Some(found.map_or(RawBson::Null, RawBson::Document)))
}

pub(super) fn regex_find_all(operands: Operands<'_>) -> Result<Value> {
    let mut all = RawArrayBuf::new();
    if let Some((input, regex)) = regex_operands("$regexFindAll", operands)? {
        let mut counter = Counter::default();
        for places in regex.matches_in(input) {
            budget::charge(places.len() as u64)?;
            all.push(found(input, &places, &mut counter));
            super::check_size(all.as_bytes().len())?;
        }
        budget::charge(1)?;
    }
    Ok(Some(RawBson::Array(all)))
}

pub(super) fn binary_size(operands: Operands<'_>) -> Result<Value> {
    match operand(operands, 0) {
        Some(RawBson::String(text)) => Ok(Some(RawBson::Int32(text.len() as i32))),
        Some(RawBson::Binary(binary)) => Ok(Some(RawBson::Int32(binary.bytes.len() as i32))),
        value if is_nullish(value) => null(),
        other => Err(Error::location(
            51276,
            format!("$binarySize requires a string or BinData argument, found: {}", type_of(other)),
        )),
    }
}
