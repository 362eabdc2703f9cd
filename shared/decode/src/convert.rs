//! JSON values to typed values, exactly.
//!
//! Neighbours: `plain` and `debezium` say how a value is written ([`Form`]), `mapping` asks column by column, `json` has the slices.
//! Invariants: 1. no rounding, cutting or wrapping (a float is the nearest one, which is what FLOAT and DOUBLE mean); 2. numbers are read
//! from their own digits; 3. a reject never repeats the value.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use siltstone_format::{
    types::{DataType, RowField, TypeKind},
    value::Value,
};

use crate::{
    json::{Kind, Node},
    number::{Exact, parse_decimal, rescale, unscaled},
    reject::{Reject, RejectCode},
    time::{self, Unit},
};

/// How a value is written, where JSON alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Form {
    /// What the source says that a number stands for.
    pub(crate) meaning: Meaning,
    /// Unit of numeric times and timestamps; `None` for the column type's own: ms.
    pub(crate) unit: Option<Unit>,
    /// Text in a DECIMAL column is base64 of the big-endian unscaled value with this scale (Kafka Connect's `Decimal`).
    pub(crate) decimal_scale: Option<i32>,
}

/// What a number of the source stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Meaning {
    /// Nobody says: what the column's type suggests.
    #[default]
    Unsaid,
    /// A day.
    Date,
    /// A time of a day.
    Time,
    /// A point in time.
    Timestamp,
    /// Something that is none of these: a year, a duration.
    NotTemporal,
}

/// As people write JSON.
pub(crate) const PLAIN: Form = Form { meaning: Meaning::Unsaid, unit: None, decimal_scale: None };

pub(crate) fn wrong(node: Node<'_>, wanted: &str) -> Reject {
    Reject::new(RejectCode::WrongType, format!("expected {wanted}, found {}", node.kind().words()))
}

fn range(what: impl Into<String>) -> Reject {
    Reject::new(RejectCode::OutOfRange, what)
}

/// `node` as a value of `data_type`; JSON null is null whatever the type (the caller checks NOT NULL).
pub(crate) fn convert(node: Node<'_>, data_type: &DataType, form: Form) -> Result<Value, Reject> {
    if node.is_null() {
        return Ok(Value::Null);
    }
    match &data_type.kind {
        TypeKind::Boolean => boolean(node),
        TypeKind::TinyInt => whole(node, "a TINYINT", Value::TinyInt),
        TypeKind::SmallInt => whole(node, "a SMALLINT", Value::SmallInt),
        TypeKind::Int => whole(node, "an INT", Value::Int),
        TypeKind::BigInt => whole(node, "a BIGINT", Value::BigInt),
        TypeKind::Float => float(node, "a FLOAT", f32::is_finite).map(Value::Float),
        TypeKind::Double => float(node, "a DOUBLE", f64::is_finite).map(Value::Double),
        TypeKind::Decimal { precision, scale } => decimal(node, *precision, *scale, form),
        TypeKind::Char(n) | TypeKind::VarChar(n) => text(node, *n),
        TypeKind::Binary(n) | TypeKind::VarBinary(n) => bytes(node, *n),
        TypeKind::Date => date(node, form),
        TypeKind::Time(precision) => time_of_day(node, *precision, form),
        TypeKind::Timestamp(precision) | TypeKind::LocalTimestamp(precision) => timestamp(node, *precision, form),
        TypeKind::Array(element) => array(node, element, form),
        TypeKind::Map(key, value) => map(node, key, value, form),
        TypeKind::Multiset(element) => map(node, element, &DataType::not_null(TypeKind::Int), form),
        TypeKind::Row(fields) => row(node, fields, form),
    }
}

/// As [`convert`], and NOT NULL is checked.
fn required(node: Option<Node<'_>>, data_type: &DataType, form: Form) -> Result<Value, Reject> {
    let value = node.map_or(Ok(Value::Null), |node| convert(node, data_type, form))?;
    if value.is_null() && !data_type.nullable {
        return Err(Reject::new(RejectCode::MissingColumn, "is NOT NULL and the record has nothing there"));
    }
    Ok(value)
}

fn array(node: Node<'_>, element: &DataType, form: Form) -> Result<Value, Reject> {
    let items = node.items()?.ok_or_else(|| wrong(node, "an array"))?;
    let element = |(place, item)| required(Some(item), element, form).map_err(|r: Reject| r.at(&format!("{place}")));
    items.into_iter().enumerate().map(element).collect::<Result<_, _>>().map(Value::Array)
}

fn row(node: Node<'_>, fields: &[RowField], form: Form) -> Result<Value, Reject> {
    let mut slots = vec![None; fields.len()];
    if node.pick(&|name| fields.iter().position(|f| f.name == name), &mut slots)?.is_none() {
        return Err(wrong(node, "an object"));
    }
    let value = |(field, slot): (&RowField, Option<Node<'_>>)| {
        required(slot, &field.data_type, form).map_err(|r| r.at(&field.name))
    };
    fields.iter().zip(slots).map(value).collect::<Result<_, _>>().map(Value::Row)
}

/// Map keys are JSON object names, or `[key, value]` pairs for keys that are no text.
fn map(node: Node<'_>, key: &DataType, value: &DataType, form: Form) -> Result<Value, Reject> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match node.kind() {
        Kind::Object => {
            for (place, (name, node)) in node.entries()?.into_iter().enumerate() {
                let at = |r: Reject| r.at(&format!("{place}"));
                // The name as a JSON string again: one way to read keys and values.
                let quoted = serde_json::Value::String(name.into_owned()).to_string();
                let name = Node::parse(quoted.as_bytes())?;
                pairs.push((map_key(name, key, form).map_err(at)?, required(Some(node), value, form).map_err(at)?));
            }
        }
        Kind::Array => {
            for (place, item) in node.items()?.unwrap_or_default().into_iter().enumerate() {
                let at = |r: Reject| r.at(&format!("{place}"));
                match item.items()?.as_deref() {
                    Some([k, v]) => {
                        pairs.push((map_key(*k, key, form).map_err(at)?, required(Some(*v), value, form).map_err(at)?));
                    }
                    _ => return Err(wrong(item, "a [key, value] pair").at(&format!("{place}"))),
                }
            }
        }
        _ => return Err(wrong(node, "an object")),
    }
    let mut sorted: Vec<&Value> = pairs.iter().map(|(k, _)| k).collect();
    if !key.is_nested() {
        sorted.sort_by(|a, b| a.compare(b));
        if sorted.windows(2).any(|pair| pair.first() == pair.get(1)) {
            return Err(Reject::new(RejectCode::DuplicateField, "has a key twice"));
        }
    }
    Ok(Value::Map(pairs))
}

/// Map keys are never null, whatever the type says: no engine reads one back.
fn map_key(node: Node<'_>, key: &DataType, form: Form) -> Result<Value, Reject> {
    match required(Some(node), key, form)? {
        Value::Null => Err(Reject::new(RejectCode::MissingColumn, "has null as a key")),
        value => Ok(value),
    }
}

fn boolean(node: Node<'_>) -> Result<Value, Reject> {
    match (node.kind(), node.raw()) {
        (Kind::Boolean(b), _) => Ok(Value::Boolean(b)),
        // MySQL's TINYINT(1) arrives as a number.
        (_, "0") => Ok(Value::Boolean(false)),
        (_, "1") => Ok(Value::Boolean(true)),
        _ => Err(wrong(node, "a boolean")),
    }
}

/// A whole number of the wanted width: a number, its digits as text, or a boolean as 0 and 1.
fn whole<T: TryFrom<i128>>(node: Node<'_>, wanted: &str, make: fn(T) -> Value) -> Result<Value, Reject> {
    T::try_from(integer(node, wanted)?).map(make).map_err(|_| range(format!("does not fit {wanted}")))
}

fn integer(node: Node<'_>, wanted: &str) -> Result<i128, Reject> {
    let text = match node.kind() {
        Kind::Number => match node.raw().parse::<i64>() {
            Ok(n) => return Ok(i128::from(n)),
            Err(_) => node.raw().into(),
        },
        Kind::String => node.string()?.unwrap_or_default(),
        Kind::Boolean(b) => return Ok(i128::from(b)),
        _ => return Err(wrong(node, wanted)),
    };
    match parse_decimal(text.trim(), 0) {
        Some(Exact::Value(v)) => Ok(v),
        Some(Exact::TooLarge) => Err(range(format!("does not fit {wanted}"))),
        Some(Exact::TooFine) => Err(range(format!("is no whole number and does not fit {wanted}"))),
        None => Err(Reject::new(RejectCode::WrongType, format!("expected {wanted}, found text that is no number"))),
    }
}

fn float<T: std::str::FromStr + Copy>(node: Node<'_>, wanted: &str, is_finite: fn(T) -> bool) -> Result<T, Reject> {
    let text = match node.kind() {
        Kind::Number => node.raw().into(),
        Kind::String => node.string()?.unwrap_or_default(),
        _ => return Err(wrong(node, wanted)),
    };
    let parsed = || text.parse::<T>().ok();
    // As Debezium and Java write them; other spellings that Rust would take (`inf`, `infinity`) are no numbers.
    if node.kind() == Kind::String && matches!(text.as_ref(), "NaN" | "Infinity" | "-Infinity") {
        return parsed().ok_or_else(|| wrong(node, wanted));
    }
    match parsed() {
        Some(f) if is_finite(f) => Ok(f),
        Some(_) if parse_decimal(&text, 0).is_some() => Err(range(format!("does not fit {wanted}"))),
        _ => Err(Reject::new(RejectCode::WrongType, format!("expected {wanted}, found text that is no number"))),
    }
}

fn decimal(node: Node<'_>, precision: u8, scale: u8, form: Form) -> Result<Value, Reject> {
    let exact = match (node.kind(), form.decimal_scale) {
        (Kind::String, Some(source)) => rescale(unscaled_base64(node)?, source, scale),
        (Kind::String, None) => parse_decimal(node.string()?.unwrap_or_default().trim(), scale).ok_or_else(|| {
            let detail = "expected a decimal, found text that is no number (for base64 of precise decimals set `decimals` to `base64`)";
            Reject::new(RejectCode::WrongType, detail)
        })?,
        (Kind::Number, _) => parse_decimal(node.raw(), scale).ok_or_else(|| wrong(node, "a decimal"))?,
        // Debezium's VariableScaleDecimal.
        (Kind::Object, _) => {
            let [source, value] = node.fields(["scale", "value"])?.unwrap_or_default();
            match (source.and_then(|s| s.raw().parse::<i32>().ok()), value) {
                (Some(source), Some(value)) => rescale(unscaled_base64(value)?, source, scale),
                _ => return Err(wrong(node, "a decimal")),
            }
        }
        _ => return Err(wrong(node, "a decimal")),
    };
    match exact {
        Exact::Value(v) if v.unsigned_abs() < 10_u128.saturating_pow(u32::from(precision)) => Ok(Value::Decimal(v)),
        Exact::Value(_) | Exact::TooLarge => Err(range(format!("has more digits than DECIMAL({precision}, {scale})"))),
        Exact::TooFine => Err(range(format!("has more than {scale} digits after the point"))),
    }
}

fn unscaled_base64(node: Node<'_>) -> Result<i128, Reject> {
    let bytes = base64(node)?;
    if bytes.is_empty() {
        return Err(Reject::new(RejectCode::WrongType, "is an empty base64 decimal"));
    }
    unscaled(&bytes).ok_or_else(|| range("has more than 38 digits"))
}

fn text(node: Node<'_>, limit: u32) -> Result<Value, Reject> {
    // Numbers, booleans, objects and arrays as their JSON text: `json` columns, points, enums of numbers.
    let text = node.string()?.unwrap_or_else(|| node.raw().into());
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if text.len() > limit && text.chars().count() > limit {
        return Err(range(format!("is longer than {limit} characters")));
    }
    Ok(Value::String(text.into_owned()))
}

fn bytes(node: Node<'_>, limit: u32) -> Result<Value, Reject> {
    let bytes = base64(node)?;
    if bytes.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(range(format!("is longer than {limit} bytes")));
    }
    Ok(Value::Bytes(bytes))
}

/// Base64 in either alphabet, padded or not (`binary.handling.mode` = bytes, base64, base64-url-safe).
fn base64(node: Node<'_>) -> Result<Vec<u8>, Reject> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const PLAIN_ALPHABET: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
    const URL_ALPHABET: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);
    let text = node.string()?.ok_or_else(|| wrong(node, "base64 text"))?;
    let engine = if text.contains(['-', '_']) { URL_ALPHABET } else { PLAIN_ALPHABET };
    engine.decode(text.as_bytes()).map_err(|_| Reject::new(RejectCode::WrongType, "is not base64"))
}

fn ticks(node: Node<'_>, unit: Unit, wanted: &str) -> Result<i128, Reject> {
    integer(node, wanted)?.checked_mul(unit.nanos()).ok_or_else(|| range(format!("does not fit {wanted}")))
}

/// Checks that a number which the source calls something may go into a column of this type.
fn allowed(form: Form, meanings: &[Meaning], wanted: &str) -> Result<(), Reject> {
    if form.meaning == Meaning::Unsaid || meanings.contains(&form.meaning) {
        return Ok(());
    }
    let what = match form.meaning {
        Meaning::Date => "a date",
        Meaning::Time => "a time of day",
        Meaning::Timestamp => "a timestamp",
        Meaning::Unsaid | Meaning::NotTemporal => "a year or duration",
    };
    Err(Reject::new(
        RejectCode::WrongType,
        format!("expected {wanted}, and the source's schema says that it is {what}"),
    ))
}

fn date(node: Node<'_>, form: Form) -> Result<Value, Reject> {
    let nanos = match node.kind() {
        Kind::String => {
            let text = node.string()?.unwrap_or_default();
            let text = text.trim();
            let day = time::parse_date(text).map(|days| i128::from(days) * Unit::Days.nanos());
            day.or_else(|| time::parse_timestamp(text).map(|(nanos, _)| nanos))
                .ok_or_else(|| Reject::new(RejectCode::WrongType, "is not a date like 2026-01-31"))?
        }
        Kind::Number => {
            allowed(form, &[Meaning::Date, Meaning::Timestamp], "a DATE")?;
            let unit = if form.meaning == Meaning::Timestamp { form.unit } else { None };
            ticks(node, unit.unwrap_or(Unit::Days), "a DATE")?
        }
        _ => return Err(wrong(node, "a date")),
    };
    if nanos.rem_euclid(Unit::Days.nanos()) != 0 {
        return Err(range("has a time of day and the column is a DATE (take the day by `date-of` in the mapping)"));
    }
    i32::try_from(nanos.div_euclid(Unit::Days.nanos())).map(Value::Date).map_err(|_| range("does not fit a DATE"))
}

fn time_of_day(node: Node<'_>, precision: u8, form: Form) -> Result<Value, Reject> {
    let nanos = match node.kind() {
        // ZonedTime is written in UTC.
        Kind::String => time::parse_time(node.string()?.unwrap_or_default().trim().trim_end_matches('Z'))
            .ok_or_else(|| Reject::new(RejectCode::WrongType, "is not a time like 13:05:00"))?,
        Kind::Number => {
            allowed(form, &[Meaning::Time], "a TIME")?;
            ticks(node, form.unit.unwrap_or(Unit::Millis), "a TIME")?
        }
        _ => return Err(wrong(node, "a time")),
    };
    if !(0..Unit::Days.nanos()).contains(&nanos) {
        return Err(range("is not a time of a day"));
    }
    // TIME is stored in milliseconds whatever its precision.
    if nanos % time::step(precision.min(3)) != 0 {
        return Err(range(format!("has more digits than TIME({precision}) keeps")));
    }
    i32::try_from(nanos / 1_000_000).map(Value::Time).map_err(|_| range("is not a time of a day"))
}

/// A point in time in nanoseconds since 1970; text without offset is taken as UTC. A number without a known unit is a reject.
pub(crate) fn instant(node: Node<'_>, form: Form) -> Result<i128, Reject> {
    match node.kind() {
        Kind::String => {
            let text = node.string()?.unwrap_or_default();
            let text = text.trim();
            time::parse_timestamp(text)
                .map(|(nanos, _)| nanos)
                .or_else(|| time::parse_date(text).map(|days| i128::from(days) * Unit::Days.nanos()))
                .ok_or_else(|| Reject::new(RejectCode::WrongType, "is not a timestamp like 2026-01-31T13:05:00Z"))
        }
        Kind::Number => {
            allowed(form, &[Meaning::Timestamp, Meaning::Date], "a timestamp")?;
            let unit = form.unit.ok_or_else(|| {
                Reject::new(RejectCode::WrongType, "is a number and nothing says its unit: set `timestamp-unit`")
            })?;
            ticks(node, unit, "a timestamp")
        }
        _ => Err(wrong(node, "a timestamp")),
    }
}

fn timestamp(node: Node<'_>, precision: u8, form: Form) -> Result<Value, Reject> {
    let nanos = instant(node, Form { unit: Some(form.unit.unwrap_or(Unit::Millis)), ..form })?;
    time::timestamp(nanos, precision).ok_or_else(|| range(format!("does not fit TIMESTAMP({precision})")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn typed(json: &Json, data_type: &DataType, form: Form) -> Result<Value, Reject> {
        convert(Node::parse(json.to_string().as_bytes()).unwrap(), data_type, form)
    }

    fn of(json: Json, text: &str) -> Result<Value, RejectCode> {
        typed(&json, &DataType::parse(text).unwrap(), PLAIN).map_err(|r| r.code)
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
        assert_eq!(typed(&json!("/w=="), &t, connect), Ok(Value::Decimal(-1)));
        assert_eq!(typed(&json!("BNI="), &t, connect), Ok(Value::Decimal(1234)));
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
        let got = typed(&parsed(r#"{"x":[1,null]}"#), &row, PLAIN).unwrap_err();
        assert_eq!((got.code, got.column.as_deref()), (RejectCode::MissingColumn, Some("x.1")));
        assert_eq!(
            typed(&parsed(r#"{"x":[1,2]}"#), &row, PLAIN),
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
