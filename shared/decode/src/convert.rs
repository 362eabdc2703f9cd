//! JSON values to typed values, exactly.
//!
//! Neighbours: `plain` and `debezium` say which form a value has ([`Form`]). Invariants: 1. no rounding, cutting or wrapping; 2. numbers keep
//! all their digits (the JSON reader keeps them as text).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Number, Value as Json};
use siltstone_format::{
    types::{DataType, TypeKind},
    value::Value,
};

use crate::{
    reject::{Reject, RejectCode},
    time::{self, Unit},
};

/// How a value is written, where JSON alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// Unit of numeric dates, times and timestamps; `None` for the column type's own: days, ms, ms.
    pub(crate) unit: Option<Unit>,
    /// Decimals are base64 of the big-endian unscaled value with this scale (Kafka Connect's `Decimal`).
    pub(crate) decimal_scale: Option<u8>,
    /// Text columns hold a date or time as number: keep the number's digits.
    pub(crate) base64_bytes: bool,
}

/// As people write JSON.
pub(crate) const PLAIN: Form = Form { unit: None, decimal_scale: None, base64_bytes: true };

fn wrong(json: &Json, wanted: &str) -> Reject {
    let found = match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    };
    Reject::new(RejectCode::WrongType, format!("expected {wanted}, found {found}"))
}

fn range(what: impl Into<String>) -> Reject {
    Reject::new(RejectCode::OutOfRange, what)
}

/// `json` as a value of `data_type`; JSON null is null whatever the type (the caller checks NOT NULL).
pub(crate) fn convert(json: &Json, data_type: &DataType, form: Form) -> Result<Value, Reject> {
    if json.is_null() {
        return Ok(Value::Null);
    }
    match &data_type.kind {
        TypeKind::Boolean => boolean(json),
        TypeKind::TinyInt => {
            integer(json, "a TINYINT")?.try_into().map(Value::TinyInt).map_err(|_| range("does not fit a TINYINT"))
        }
        TypeKind::SmallInt => {
            integer(json, "a SMALLINT")?.try_into().map(Value::SmallInt).map_err(|_| range("does not fit a SMALLINT"))
        }
        TypeKind::Int => integer(json, "an INT")?.try_into().map(Value::Int).map_err(|_| range("does not fit an INT")),
        TypeKind::BigInt => {
            integer(json, "a BIGINT")?.try_into().map(Value::BigInt).map_err(|_| range("does not fit a BIGINT"))
        }
        TypeKind::Float => float(json).and_then(|f| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "nearest float is what FLOAT means; overflow is checked"
            )]
            let narrow = f as f32;
            if narrow.is_infinite() && f.is_finite() {
                Err(range("does not fit a FLOAT"))
            } else {
                Ok(Value::Float(narrow))
            }
        }),
        TypeKind::Double => float(json).map(Value::Double),
        TypeKind::Decimal { precision, scale } => decimal(json, *precision, *scale, form),
        TypeKind::Char(n) | TypeKind::VarChar(n) => text(json, *n),
        TypeKind::Binary(n) | TypeKind::VarBinary(n) => bytes(json, *n, form),
        TypeKind::Date => date(json, form),
        TypeKind::Time(precision) => time_of_day(json, *precision, form),
        TypeKind::Timestamp(precision) => timestamp(json, *precision, false, form),
        TypeKind::LocalTimestamp(precision) => timestamp(json, *precision, true, form),
        TypeKind::Array(element) => {
            let items = json.as_array().ok_or_else(|| wrong(json, "an array"))?;
            let values: Result<Vec<_>, _> = items
                .iter()
                .enumerate()
                .map(|(i, item)| required(item, element, form).map_err(|r| r.at(&i.to_string())))
                .collect();
            values.map(Value::Array)
        }
        TypeKind::Map(key, value) => map(json, key, value, form),
        TypeKind::Multiset(element) => map(json, element, &DataType { kind: TypeKind::Int, nullable: false }, form),
        TypeKind::Row(fields) => {
            let object = json.as_object().ok_or_else(|| wrong(json, "an object"))?;
            let values: Result<Vec<_>, _> = fields
                .iter()
                .map(|f| {
                    required(object.get(&f.name).unwrap_or(&Json::Null), &f.data_type, form).map_err(|r| r.at(&f.name))
                })
                .collect();
            values.map(Value::Row)
        }
    }
}

/// As [`convert`], and NOT NULL is checked.
pub(crate) fn required(json: &Json, data_type: &DataType, form: Form) -> Result<Value, Reject> {
    let value = convert(json, data_type, form)?;
    if value.is_null() && !data_type.nullable {
        return Err(Reject::new(RejectCode::MissingColumn, "is NOT NULL and the record has nothing there"));
    }
    Ok(value)
}

/// Map keys are JSON object names, or `[key, value]` pairs.
fn map(json: &Json, key: &DataType, value: &DataType, form: Form) -> Result<Value, Reject> {
    let pair = |k: &Json, v: &Json| Ok((required(k, key, form)?, required(v, value, form)?));
    let pairs: Result<Vec<_>, Reject> = match json {
        Json::Object(object) => object
            .iter()
            .map(|(name, v)| {
                let name_as_text = Json::String(name.clone());
                pair(&name_as_text, v)
            })
            .collect(),
        Json::Array(items) => items
            .iter()
            .map(|item| match item.as_array().map(Vec::as_slice) {
                Some([k, v]) => pair(k, v),
                _ => Err(wrong(item, "a [key, value] pair")),
            })
            .collect(),
        other => Err(wrong(other, "an object")),
    };
    pairs.map(Value::Map)
}

fn boolean(json: &Json) -> Result<Value, Reject> {
    match json {
        Json::Bool(b) => Ok(Value::Boolean(*b)),
        // MySQL's TINYINT(1) arrives as a number.
        Json::Number(n) if n.as_i64() == Some(0) || n.as_i64() == Some(1) => Ok(Value::Boolean(n.as_i64() == Some(1))),
        other => Err(wrong(other, "a boolean")),
    }
}

fn integer(json: &Json, wanted: &str) -> Result<i128, Reject> {
    let digits = match json {
        Json::Number(n) => n.to_string(),
        Json::String(s) => s.trim().to_owned(),
        Json::Bool(b) => return Ok(i128::from(*b)),
        other => return Err(wrong(other, wanted)),
    };
    match parse_decimal(&digits, 0) {
        Some(Exact::Value(v)) => Ok(v),
        Some(_) => Err(range(format!("is not a whole number that fits {wanted}"))),
        None => Err(wrong(json, wanted)),
    }
}

fn float(json: &Json) -> Result<f64, Reject> {
    let parsed = match json {
        Json::Number(n) => number_as_f64(n),
        Json::String(s) => match s.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            other => other.parse().ok().filter(|f: &f64| f.is_finite()),
        },
        other => return Err(wrong(other, "a number")),
    };
    parsed.ok_or_else(|| range("does not fit a floating point number"))
}

fn number_as_f64(n: &Number) -> Option<f64> {
    n.to_string().parse().ok().filter(|f: &f64| f.is_finite())
}

enum Exact {
    Value(i128),
    TooLarge,
    TooFine,
}

/// Decimal text (with exponent) as an unscaled value of `scale`; `None` when it is not a number.
fn parse_decimal(text: &str, scale: u8) -> Option<Exact> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !plain(whole) || !plain(fraction) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(Exact::Value(0));
    }
    let fraction_len = i64::try_from(fraction.len()).ok()?;
    let shift = i64::from(scale) + i64::from(exponent) - fraction_len;
    let unscaled = if shift >= 0 {
        if significant.len() as i64 + shift > 39 {
            return Some(Exact::TooLarge);
        }
        format!("{significant}{}", "0".repeat(usize::try_from(shift).ok()?))
    } else {
        let cut = usize::try_from(-shift).unwrap_or(usize::MAX);
        let kept = significant.len().checked_sub(cut);
        match kept {
            Some(kept) if significant.bytes().skip(kept).all(|b| b == b'0') => significant.get(..kept)?.to_owned(),
            _ => return Some(Exact::TooFine),
        }
    };
    if unscaled.is_empty() {
        return Some(Exact::Value(0));
    }
    match unscaled.parse::<i128>() {
        Ok(v) => Some(Exact::Value(if negative { -v } else { v })),
        Err(_) => Some(Exact::TooLarge),
    }
}

fn decimal(json: &Json, precision: u8, scale: u8, form: Form) -> Result<Value, Reject> {
    let exact = match (json, form.decimal_scale) {
        (Json::String(s), Some(source)) => Some(rescale(unscaled_base64(s)?, source, scale)),
        (Json::String(s), None) => parse_decimal(s.trim(), scale),
        (Json::Number(n), _) => parse_decimal(&n.to_string(), scale),
        // Debezium's VariableScaleDecimal.
        (Json::Object(object), _) => {
            let source = object.get("scale").and_then(Json::as_u64).and_then(|s| u8::try_from(s).ok());
            match (source, object.get("value").and_then(Json::as_str)) {
                (Some(source), Some(value)) => Some(rescale(unscaled_base64(value)?, source, scale)),
                _ => None,
            }
        }
        _ => None,
    };
    match exact {
        Some(Exact::Value(v)) if v.unsigned_abs() < 10u128.pow(u32::from(precision)) => Ok(Value::Decimal(v)),
        Some(Exact::Value(_) | Exact::TooLarge) => {
            Err(range(format!("has more digits than DECIMAL({precision}, {scale})")))
        }
        Some(Exact::TooFine) => Err(range(format!("has more than {scale} digits after the point"))),
        None => Err(wrong(json, "a decimal")),
    }
}

fn unscaled_base64(text: &str) -> Result<i128, Reject> {
    let bytes = STANDARD.decode(text).map_err(|_| Reject::new(RejectCode::WrongType, "is not a base64 decimal"))?;
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xffu8 } else { 0 };
    let significant: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == fill).collect();
    if significant.len() > 16 {
        return Err(range("has more than 38 digits"));
    }
    let mut wide = [fill; 16];
    if let Some(end) = wide.get_mut(16 - significant.len()..) {
        end.copy_from_slice(&significant);
    }
    let value = i128::from_be_bytes(wide);
    if (value < 0) == (fill != 0) { Ok(value) } else { Err(range("has more than 38 digits")) }
}

fn rescale(unscaled: i128, from: u8, to: u8) -> Exact {
    if to >= from {
        match unscaled.checked_mul(10i128.checked_pow(u32::from(to - from)).unwrap_or(i128::MAX)) {
            Some(v) => Exact::Value(v),
            None => Exact::TooLarge,
        }
    } else {
        match 10i128.checked_pow(u32::from(from - to)) {
            Some(step) if unscaled % step == 0 => Exact::Value(unscaled / step),
            _ if unscaled == 0 => Exact::Value(0),
            _ => Exact::TooFine,
        }
    }
}

fn text(json: &Json, limit: u32) -> Result<Value, Reject> {
    let text = match json {
        Json::String(s) => s.clone(),
        // Numbers and booleans as their JSON text; objects and arrays are kept as JSON (json columns).
        other => other.to_string(),
    };
    if text.chars().count() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(range(format!("is longer than {limit} characters")));
    }
    Ok(Value::String(text))
}

fn bytes(json: &Json, limit: u32, form: Form) -> Result<Value, Reject> {
    let text = json.as_str().ok_or_else(|| wrong(json, "base64 text"))?;
    let bytes = if form.base64_bytes {
        STANDARD.decode(text).map_err(|_| Reject::new(RejectCode::WrongType, "is not base64"))?
    } else {
        text.as_bytes().to_vec()
    };
    if bytes.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(range(format!("is longer than {limit} bytes")));
    }
    Ok(Value::Bytes(bytes))
}

fn ticks(json: &Json, unit: Unit) -> Result<i128, Reject> {
    integer(json, "a time").map(|n| n.saturating_mul(unit.nanos()))
}

fn date(json: &Json, form: Form) -> Result<Value, Reject> {
    let days = match json {
        Json::String(s) => match time::parse_date(s.trim()) {
            Some(days) => i128::from(days),
            None => match time::parse_timestamp(s.trim()) {
                Some((nanos, _)) => nanos.div_euclid(Unit::Days.nanos()),
                None => return Err(Reject::new(RejectCode::WrongType, "is not a date like 2026-01-31")),
            },
        },
        Json::Number(_) => ticks(json, form.unit.unwrap_or(Unit::Days))?.div_euclid(Unit::Days.nanos()),
        other => return Err(wrong(other, "a date")),
    };
    i32::try_from(days).map(Value::Date).map_err(|_| range("is a date out of range"))
}

fn time_of_day(json: &Json, precision: u8, form: Form) -> Result<Value, Reject> {
    let nanos = match json {
        Json::String(s) => time::parse_time(s.trim().trim_end_matches('Z'))
            .ok_or_else(|| Reject::new(RejectCode::WrongType, "is not a time like 13:05:00"))?,
        Json::Number(_) => ticks(json, form.unit.unwrap_or(Unit::Millis))?,
        other => return Err(wrong(other, "a time")),
    };
    if !(0..Unit::Days.nanos()).contains(&nanos) {
        return Err(range("is not a time of a day"));
    }
    // TIME is stored in milliseconds whatever its precision.
    if nanos % time::step(precision.min(3)) != 0 {
        return Err(range("has more digits than the column"));
    }
    i32::try_from(nanos / 1_000_000).map(Value::Time).map_err(|_| range("is not a time of a day"))
}

fn timestamp(json: &Json, precision: u8, local: bool, form: Form) -> Result<Value, Reject> {
    let nanos = match json {
        Json::String(s) => {
            let s = s.trim();
            match (time::parse_timestamp(s), time::parse_date(s)) {
                (Some((nanos, _)), _) => nanos,
                (None, Some(days)) => i128::from(days) * Unit::Days.nanos(),
                (None, None) => {
                    let wanted = if local { "2026-01-31T13:05:00Z" } else { "2026-01-31T13:05:00" };
                    return Err(Reject::new(RejectCode::WrongType, format!("is not a timestamp like {wanted}")));
                }
            }
        }
        Json::Number(_) => ticks(json, form.unit.unwrap_or(Unit::Millis))?,
        other => return Err(wrong(other, "a timestamp")),
    };
    time::timestamp(nanos, precision).ok_or_else(|| range(format!("does not fit TIMESTAMP({precision})")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(json: Json, text: &str) -> Result<Value, RejectCode> {
        convert(&json, &DataType::parse(text).unwrap(), PLAIN).map_err(|r| r.code)
    }

    fn parsed(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_keep_every_digit_or_are_refused() {
        assert_eq!(of(parsed("9223372036854775807"), "BIGINT"), Ok(Value::BigInt(i64::MAX)));
        assert_eq!(of(parsed("9223372036854775808"), "BIGINT"), Err(RejectCode::OutOfRange));
        assert_eq!(of(parsed("1.5"), "INT"), Err(RejectCode::OutOfRange));
        assert_eq!(of(parsed("1e3"), "INT"), Ok(Value::Int(1000)));
        assert_eq!(of(parsed("1.0"), "INT"), Ok(Value::Int(1)));
        assert_eq!(of(json!(128), "TINYINT"), Err(RejectCode::OutOfRange));
        assert_eq!(of(json!(true), "STRING"), Ok(Value::String("true".into())));
        assert_eq!(of(json!("x"), "INT"), Err(RejectCode::WrongType));
        assert_eq!(of(parsed("1e400"), "DOUBLE"), Err(RejectCode::OutOfRange));
        assert_eq!(of(parsed("1e39"), "FLOAT"), Err(RejectCode::OutOfRange));
    }

    #[test]
    fn decimals_come_as_number_text_or_base64() {
        let d = |j| of(j, "DECIMAL(12, 2)");
        assert_eq!(d(parsed("12345678.90")), Ok(Value::Decimal(1_234_567_890)));
        assert_eq!(d(json!("-0.05")), Ok(Value::Decimal(-5)));
        assert_eq!(d(json!("1.005")), Err(RejectCode::OutOfRange));
        assert_eq!(d(json!("1.500")), Ok(Value::Decimal(150)));
        assert_eq!(d(json!("12345678901")), Err(RejectCode::OutOfRange));
        assert_eq!(d(json!({"scale": 3, "value": "AfQ="})), Ok(Value::Decimal(50)));
        assert_eq!(d(json!("abc")), Err(RejectCode::WrongType));
        let connect = Form { decimal_scale: Some(2), ..PLAIN };
        let t = DataType::parse("DECIMAL(12, 2)").unwrap();
        assert_eq!(convert(&json!("/w=="), &t, connect), Ok(Value::Decimal(-1)));
        assert_eq!(convert(&json!("BNI="), &t, connect), Ok(Value::Decimal(1234)));
        assert_eq!(of(parsed("1e-400000000"), "DECIMAL(12, 2)"), Err(RejectCode::OutOfRange));
        assert_eq!(of(parsed("1e400000000"), "DECIMAL(12, 2)"), Err(RejectCode::OutOfRange));
    }

    #[test]
    fn temporals_come_as_iso_text_or_numbers() {
        assert_eq!(of(json!("2024-02-29"), "DATE"), Ok(Value::Date(19_782)));
        assert_eq!(of(json!(19_782), "DATE"), Ok(Value::Date(19_782)));
        assert_eq!(of(json!("2023-02-29"), "DATE"), Err(RejectCode::WrongType));
        assert_eq!(of(json!("13:00:01.5"), "TIME(3)"), Ok(Value::Time(46_801_500)));
        assert_eq!(of(json!(90_000_000), "TIME(3)"), Err(RejectCode::OutOfRange));
        let ts = Value::Timestamp { millis: 1_700_000_000_123, nanos: 0 };
        assert_eq!(of(json!(1_700_000_000_123_i64), "TIMESTAMP(3)"), Ok(ts.clone()));
        assert_eq!(of(json!("2023-11-14T22:13:20.123Z"), "TIMESTAMP(3)"), Ok(ts));
        assert_eq!(of(json!("2023-11-14T22:13:20.1234"), "TIMESTAMP(3)"), Err(RejectCode::OutOfRange));
    }

    #[test]
    fn nested_values_name_the_place_of_the_fault() {
        let row = siltstone_format::schema::type_from_json(
            &parsed(
                r#"{"type":"ROW","fields":[{"id":1,"name":"x","type":{"type":"ARRAY","element":"INT NOT NULL"}}]}"#,
            ),
            0,
        )
        .unwrap();
        let got = convert(&parsed(r#"{"x":[1,null]}"#), &row, PLAIN).unwrap_err();
        assert_eq!((got.code, got.column.as_deref()), (RejectCode::MissingColumn, Some("x.1")));
        assert_eq!(
            convert(&parsed(r#"{"x":[1,2]}"#), &row, PLAIN),
            Ok(Value::Row(vec![Value::Array(vec![Value::Int(1), Value::Int(2)])]))
        );
    }

    #[test]
    fn text_and_bytes_are_never_cut() {
        assert_eq!(of(json!("abc"), "VARCHAR(2)"), Err(RejectCode::OutOfRange));
        assert_eq!(of(json!("äb"), "VARCHAR(2)"), Ok(Value::String("äb".into())));
        assert_eq!(of(json!("AAEC"), "VARBINARY(2)"), Err(RejectCode::OutOfRange));
        assert_eq!(of(json!("AAEC"), "BYTES"), Ok(Value::Bytes(vec![0, 1, 2])));
    }
}
