//! Values as people write and read them: literals of filters, cells of tables, JSON and CSV of `silt scan`.
//!
//! Neighbours: `filter` parses with it, `silt` prints with it. Forms: decimals with all digits of their scale, dates `YYYY-MM-DD`,
//! timestamps `YYYY-MM-DDTHH:MM:SS[.fraction]`, bytes as hex. Invariant: 1. [`parse_value`] reads what [`show`] writes.

use serde_json::{Map, Number, json};
use siltstone_format::{
    calendar::{date_of, days_of},
    types::{DataType, TypeKind},
    value::Value,
};

/// A date as `YYYY-MM-DD`.
#[must_use]
pub fn show_date(days: i64) -> String {
    let (y, m, d) = date_of(days);
    format!("{y:04}-{m:02}-{d:02}")
}

fn show_time(millis: i64) -> String {
    let (s, ms) = (millis / 1000, millis % 1000);
    let clock = format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    if ms == 0 { clock } else { format!("{clock}.{ms:03}") }
}

/// A timestamp as ISO text; fractions only as long as needed in steps of three digits.
#[must_use]
pub fn show_timestamp(millis: i64, nanos: u32) -> String {
    let day = millis.div_euclid(86_400_000);
    let of_day = millis.rem_euclid(86_400_000);
    let seconds = show_time(of_day - of_day % 1000);
    let fraction = (of_day % 1000) * 1_000_000 + i64::from(nanos);
    let fraction = match fraction {
        0 => String::new(),
        f if f % 1_000_000 == 0 => format!(".{:03}", f / 1_000_000),
        f if f % 1_000 == 0 => format!(".{:06}", f / 1_000),
        f => format!(".{f:09}"),
    };
    format!("{}T{seconds}{fraction}", show_date(day))
}

/// A decimal with all digits of its scale.
#[must_use]
pub fn show_decimal(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// One value as a person reads it; null is empty text.
#[must_use]
pub fn show(value: &Value, data_type: &DataType) -> String {
    match (value, &data_type.kind) {
        (Value::Null, _) => String::new(),
        (Value::String(s), _) => s.clone(),
        _ => match to_json(value, data_type) {
            serde_json::Value::String(s) => s,
            other => other.to_string(),
        },
    }
}

/// One value as JSON: numbers as numbers, decimals, dates, times and bytes (hex) as text, NaN and infinities as text.
#[must_use]
pub fn to_json(value: &Value, data_type: &DataType) -> serde_json::Value {
    let float = |f: f64, text: String| {
        if f.is_finite() { text.parse::<Number>().map_or(json!(f), serde_json::Value::Number) } else { json!(text) }
    };
    match (value, &data_type.kind) {
        (Value::Null, _) => serde_json::Value::Null,
        (Value::Boolean(b), _) => json!(b),
        (Value::TinyInt(n), _) => json!(n),
        (Value::SmallInt(n), _) => json!(n),
        (Value::Int(n), _) => json!(n),
        (Value::BigInt(n), _) => json!(n),
        (Value::Float(f), _) => float(f64::from(*f), format!("{f:?}")),
        (Value::Double(f), _) => float(*f, format!("{f:?}")),
        (Value::Decimal(d), TypeKind::Decimal { scale, .. }) => json!(show_decimal(*d, *scale)),
        (Value::Decimal(d), _) => json!(d.to_string()),
        (Value::String(s), _) => json!(s),
        (Value::Bytes(b), _) => json!(hex(b)),
        (Value::Date(d), _) => json!(show_date(i64::from(*d))),
        (Value::Time(t), _) => json!(show_time(i64::from(*t))),
        (Value::Timestamp { millis, nanos }, _) => json!(show_timestamp(*millis, *nanos)),
        (Value::Array(items), TypeKind::Array(element)) => items.iter().map(|v| to_json(v, element)).collect(),
        (Value::Map(pairs), TypeKind::Map(key, item)) => map_json(pairs, key, item),
        (Value::Map(pairs), TypeKind::Multiset(key)) => {
            map_json(pairs, key, &DataType { kind: TypeKind::Int, nullable: false })
        }
        (Value::Row(values), TypeKind::Row(fields)) => serde_json::Value::Object(
            fields.iter().zip(values).map(|(f, v)| (f.name.clone(), to_json(v, &f.data_type))).collect::<Map<_, _>>(),
        ),
        (Value::Array(_) | Value::Map(_) | Value::Row(_), _) => serde_json::Value::Null,
    }
}

/// Maps become a list of `[key, value]` pairs: keys need not be text, and order is kept.
fn map_json(pairs: &[(Value, Value)], key: &DataType, item: &DataType) -> serde_json::Value {
    pairs.iter().map(|(k, v)| json!([to_json(k, key), to_json(v, item)])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a literal of `data_type` from text.
///
/// # Errors
/// A sentence with the text, the type, and the expected form.
pub fn parse_value(text: &str, data_type: &DataType) -> Result<Value, String> {
    let bad = |form: &str| format!("`{text}` is not {form}");
    let int = |form: &str| text.parse::<i64>().map_err(|_| bad(form));
    match &data_type.kind {
        TypeKind::Boolean => text.to_ascii_lowercase().parse().map(Value::Boolean).map_err(|_| bad("true or false")),
        TypeKind::TinyInt => int("a TINYINT")?.try_into().map(Value::TinyInt).map_err(|_| bad("a TINYINT")),
        TypeKind::SmallInt => int("a SMALLINT")?.try_into().map(Value::SmallInt).map_err(|_| bad("a SMALLINT")),
        TypeKind::Int => int("an INT")?.try_into().map(Value::Int).map_err(|_| bad("an INT")),
        TypeKind::BigInt => int("a BIGINT").map(Value::BigInt),
        TypeKind::Float => text.parse().map(Value::Float).map_err(|_| bad("a number")),
        TypeKind::Double => text.parse().map(Value::Double).map_err(|_| bad("a number")),
        TypeKind::Decimal { scale, .. } => {
            parse_decimal(text, *scale).map(Value::Decimal).ok_or_else(|| bad("a decimal of the column's scale"))
        }
        TypeKind::Char(_) | TypeKind::VarChar(_) => Ok(Value::String(text.to_owned())),
        TypeKind::Binary(_) | TypeKind::VarBinary(_) => unhex(text).map(Value::Bytes).ok_or_else(|| bad("hex bytes")),
        TypeKind::Date => {
            let days = parse_date(text).and_then(|d| i32::try_from(d).ok());
            days.map(Value::Date).ok_or_else(|| bad("a date like 2026-01-31"))
        }
        TypeKind::Time(_) => parse_time(text)
            .and_then(|n| i32::try_from(n / 1_000_000).ok())
            .map(Value::Time)
            .ok_or_else(|| bad("a time like 13:05:00.250")),
        TypeKind::Timestamp(_) | TypeKind::LocalTimestamp(_) => {
            parse_timestamp(text).ok_or_else(|| bad("a timestamp like 2026-01-31T13:05:00.250"))
        }
        TypeKind::Array(_) | TypeKind::Map(..) | TypeKind::Multiset(_) | TypeKind::Row(_) => {
            Err("nested columns cannot be compared in a filter".to_owned())
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    // The number parser alone would take `+f`.
    let plain = bytes.len().is_multiple_of(2) && bytes.iter().all(u8::is_ascii_hexdigit);
    plain.then(|| bytes.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect())?
}

fn parse_decimal(text: &str, scale: u8) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let places = usize::from(scale);
    // Zeros beyond the scale change nothing.
    let (kept, beyond) = fraction.split_at_checked(places.min(fraction.len()))?;
    let fits = beyond.bytes().all(|b| b == b'0');
    if whole.is_empty() && fraction.is_empty() || !plain(whole) || !plain(kept) || !fits {
        return None;
    }
    let unscaled: i128 = format!("{whole}{kept:0<places$}").parse().ok()?;
    Some(if negative { -unscaled } else { unscaled })
}

/// No type reaches further: milliseconds in 64 bits end 292 million years from 1970.
const YEAR_MAX: i64 = 300_000_000;

fn parse_date(text: &str) -> Option<i64> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let mut parts = rest.splitn(3, '-').map(|p| p.parse::<i64>().ok());
    let (y, m, d) = (parts.next()??, parts.next()??, parts.next()??);
    if !(0..=YEAR_MAX).contains(&y) || !(1..=12).contains(&m) || !(1..=31).contains(&d) {
        return None;
    }
    let days = days_of(if negative { -y } else { y }, m, d);
    (date_of(days).1 == m).then_some(days)
}

/// Nanoseconds of the day.
fn parse_time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.splitn(3, ':').map(|p| p.parse::<i64>().ok());
    let (h, m, s) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let nanos = match fraction.len() {
        0 => 0,
        len @ 1..=9 if fraction.bytes().all(|b| b.is_ascii_digit()) => {
            fraction.parse::<i64>().ok()? * 10i64.pow(9 - u32::try_from(len).ok()?)
        }
        _ => return None,
    };
    let on_the_clock = (0..24).contains(&h) && (0..60).contains(&m) && (0..60).contains(&s);
    on_the_clock.then(|| ((h * 60 + m) * 60 + s) * 1_000_000_000 + nanos)
}

fn parse_timestamp(text: &str) -> Option<Value> {
    let text = text.trim_end_matches('Z');
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let (days, nanos) = (parse_date(date)?, parse_time(time)?);
    let millis = days.checked_mul(86_400_000)?.checked_add(nanos / 1_000_000)?;
    Some(Value::Timestamp { millis, nanos: u32::try_from(nanos % 1_000_000).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: TypeKind) -> DataType {
        DataType { kind, nullable: true }
    }

    /// Found by fuzzing: multiplied before the range was looked at.
    #[test]
    fn dates_and_clocks_of_impossible_size_are_refused() {
        for (text, kind) in [
            ("5:9223372036854775807", TypeKind::Time(3)),
            ("9223372036854775807:0:0", TypeKind::Time(3)),
            ("9,-1-1T9.9999", TypeKind::Timestamp(9)),
            ("9223372036854775807-01-01", TypeKind::Date),
            ("-9223372036854775807-01-01T00:00:00", TypeKind::Timestamp(3)),
            ("2024-9223372036854775807-01", TypeKind::Date),
            ("2024-01-9223372036854775807", TypeKind::Date),
            ("2024-01--1", TypeKind::Date),
            ("+f", TypeKind::VarBinary(1)),
        ] {
            assert!(parse_value(text, &of(kind)).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let cases = [
            (Value::Boolean(true), TypeKind::Boolean, "true"),
            (Value::TinyInt(-128), TypeKind::TinyInt, "-128"),
            (Value::BigInt(i64::MIN), TypeKind::BigInt, "-9223372036854775808"),
            (Value::Double(0.1), TypeKind::Double, "0.1"),
            (Value::Decimal(-5), TypeKind::Decimal { precision: 9, scale: 3 }, "-0.005"),
            (Value::Decimal(120), TypeKind::Decimal { precision: 9, scale: 0 }, "120"),
            (Value::String("a'b".into()), TypeKind::VarChar(9), "a'b"),
            (Value::Bytes(vec![0, 255]), TypeKind::VarBinary(9), "00ff"),
            (Value::Date(-1), TypeKind::Date, "1969-12-31"),
            (Value::Date(19_782), TypeKind::Date, "2024-02-29"),
            (Value::Time(3_723_004), TypeKind::Time(3), "01:02:03.004"),
            (Value::Timestamp { millis: -1, nanos: 1_000 }, TypeKind::Timestamp(6), "1969-12-31T23:59:59.999001"),
            (Value::Timestamp { millis: 0, nanos: 0 }, TypeKind::Timestamp(3), "1970-01-01T00:00:00"),
        ];
        for (value, kind, text) in cases {
            let data_type = of(kind);
            assert_eq!(show(&value, &data_type), text);
            assert_eq!(parse_value(text, &data_type), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_decimal_may_have_fewer_places_than_its_column_and_zeros_beyond_them() {
        for (text, scale, unscaled) in [
            ("10.500", 2, 1_050),
            ("10.5", 2, 1_050),
            ("10", 2, 1_000),
            ("-.50000", 1, -5),
            ("7.", 0, 7),
            ("7.00", 0, 7),
        ] {
            let kind = TypeKind::Decimal { precision: 12, scale };
            assert_eq!(parse_value(text, &of(kind)), Ok(Value::Decimal(unscaled)), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, kind) in [
            ("128", TypeKind::TinyInt),
            ("1.001", TypeKind::Decimal { precision: 9, scale: 2 }),
            ("1.00x", TypeKind::Decimal { precision: 9, scale: 2 }),
            ("1.0é", TypeKind::Decimal { precision: 9, scale: 2 }),
            ("1.é", TypeKind::Decimal { precision: 9, scale: 1 }),
            (".", TypeKind::Decimal { precision: 9, scale: 2 }),
            ("2023-02-29", TypeKind::Date),
            ("2023-13-01", TypeKind::Date),
            ("25:00", TypeKind::Time(0)),
            ("0g", TypeKind::VarBinary(4)),
            ("maybe", TypeKind::Boolean),
        ] {
            assert!(parse_value(text, &of(kind)).is_err(), "{text}");
        }
    }
}
