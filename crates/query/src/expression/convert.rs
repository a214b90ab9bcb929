//! Conversions between types. See
//! <https://www.mongodb.com/docs/manual/reference/operator/aggregation/convert/>.

use bson::{DateTime, RawBson, oid::ObjectId};

use super::{Value, is_nullish, type_of};
use crate::{
    Error, ErrorCode, Number, Result,
    decimal::{self, Parts},
};

fn failed(value: &Value, to: &str, why: &str) -> Error {
    let from = type_of(value);
    Error::new(
        ErrorCode::ConversionFailure,
        format!("Failed to convert {from} to {to} in $convert with no onError value: {why}"),
    )
}

/// Shortens text for an error message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Converts a value to a type; the result of null is null.
pub(super) fn to(name: &str, value: &Value) -> Result<Value> {
    if is_nullish(value) {
        return Ok(Some(RawBson::Null));
    }
    let Some(from) = value else { return Ok(None) };
    let unsupported = || failed(value, name, &format!("Unsupported conversion from {} to {name}", type_of(value)));
    let number = Number::of(from.as_raw_bson_ref());
    Ok(Some(match (name, from) {
        ("bool", RawBson::Boolean(flag)) => RawBson::Boolean(*flag),
        ("bool", _) => RawBson::Boolean(crate::document::truthy(from.as_raw_bson_ref())),
        ("int" | "long" | "double" | "decimal", RawBson::Boolean(flag)) => {
            numeric(name, value, Number::Int32((*flag).into()))?
        }
        ("int" | "long" | "double" | "decimal", RawBson::String(text)) => of_text(name, value, text)?,
        ("long" | "double" | "decimal", RawBson::DateTime(time)) => {
            numeric(name, value, Number::Int64(time.timestamp_millis()))?
        }
        ("int" | "long" | "double" | "decimal", _) => numeric(name, value, number.ok_or_else(unsupported)?)?,
        ("string", RawBson::String(_)) => from.clone(),
        ("string", RawBson::Boolean(flag)) => RawBson::String(flag.to_string()),
        ("string", RawBson::ObjectId(id)) => RawBson::String(id.to_hex()),
        ("string", RawBson::DateTime(time)) => RawBson::String(date_text(*time).ok_or_else(unsupported)?),
        ("string", _) => RawBson::String(number_text(number.ok_or_else(unsupported)?)),
        ("objectId", RawBson::ObjectId(_)) => from.clone(),
        ("objectId", RawBson::String(text)) => RawBson::ObjectId(
            ObjectId::parse_str(text)
                .map_err(|_| failed(value, name, &format!("Failed to parse objectId '{}'", shortened(text))))?,
        ),
        ("date", RawBson::DateTime(_)) => from.clone(),
        ("date", RawBson::ObjectId(id)) => RawBson::DateTime(id.timestamp()),
        ("date", RawBson::Timestamp(time)) => RawBson::DateTime(DateTime::from_millis(i64::from(time.time) * 1000)),
        ("date", RawBson::String(text)) => RawBson::DateTime(
            DateTime::parse_rfc3339_str(text)
                .map_err(|_| failed(value, name, &format!("Error parsing date string '{}'", shortened(text))))?,
        ),
        ("date", RawBson::Int64(_) | RawBson::Double(_) | RawBson::Decimal128(_)) => {
            let whole = number.and_then(Number::truncated).ok_or_else(|| failed(value, name, "out of range"))?;
            RawBson::DateTime(DateTime::from_millis(whole))
        }
        _ => return Err(unsupported()),
    }))
}

fn numeric(name: &str, value: &Value, number: Number) -> Result<RawBson> {
    let whole = || number.truncated().ok_or_else(|| failed(value, name, "Conversion would overflow target type"));
    Ok(match name {
        "int" => RawBson::Int32(
            i32::try_from(whole()?).map_err(|_| failed(value, name, "Conversion would overflow target type"))?,
        ),
        "long" => RawBson::Int64(whole()?),
        "double" => {
            let double = number.to_f64();
            let is_infinite =
                matches!(number, Number::Decimal(decimal) if matches!(Parts::of(decimal), Parts::Infinity { .. }));
            if double.is_infinite() && matches!(number, Number::Decimal(_)) && !is_infinite {
                return Err(failed(value, name, "Conversion would overflow target type"));
            }
            RawBson::Double(double)
        }
        _ => RawBson::Decimal128(match number {
            Number::Decimal(decimal) => decimal,
            Number::Double(_) => number.decimal_parts().text().parse().unwrap_or_else(|_| decimal::zero()),
            whole => whole.to_integer().unwrap_or_default().to_string().parse().unwrap_or_else(|_| decimal::zero()),
        }),
    })
}

fn of_text(name: &str, value: &Value, text: &str) -> Result<RawBson> {
    let invalid = || failed(value, name, &format!("Failed to parse number '{}'", shortened(text)));
    let is_plain = !text.is_empty() && !text.contains(char::is_whitespace) && !text.to_ascii_lowercase().contains("0x");
    if !is_plain {
        return Err(invalid());
    }
    Ok(match name {
        "int" => RawBson::Int32(text.parse().map_err(|_| invalid())?),
        "long" => RawBson::Int64(text.parse().map_err(|_| invalid())?),
        "double" => {
            let double: f64 = text.parse().map_err(|_| invalid())?;
            if double.is_infinite() && !text.to_ascii_lowercase().contains("inf") {
                return Err(invalid());
            }
            RawBson::Double(double)
        }
        _ => RawBson::Decimal128(text.parse().map_err(|_| invalid())?),
    })
}

fn date_text(time: DateTime) -> Option<String> {
    let text = time.try_to_rfc3339_string().ok()?;
    let (head, tail) = text.strip_suffix('Z')?.split_once('.').map_or((text.strip_suffix('Z')?, ""), |parts| parts);
    Some(format!("{head}.{tail:0<3}Z"))
}

/// Formats a number as the server does.
fn number_text(number: Number) -> String {
    match number {
        Number::Int32(value) => value.to_string(),
        Number::Int64(value) => value.to_string(),
        Number::Double(value) if value.is_nan() => "NaN".to_owned(),
        Number::Double(value) if value.is_infinite() => (if value > 0.0 { "Infinity" } else { "-Infinity" }).to_owned(),
        Number::Double(value) if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) => {
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            match exponent.strip_prefix('-') {
                Some(exponent) => format!("{digits}e-{exponent:0>2}"),
                None => format!("{digits}e+{exponent:0>2}"),
            }
        }
        Number::Double(value) => value.to_string(),
        Number::Decimal(value) => value.to_string(),
    }
}
