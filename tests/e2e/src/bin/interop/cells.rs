//! Rows as lines of canonical cells (tests/interop/canon.py says what a cell is), so that a reader's rows compare as text.
//!
//! Neighbours: `main` reads, Python compares. Invariant: 1. the same value gives the same text as Java's peer gives, pairs of maps sorted.

use siltstone_format::{
    types::{DataType, TypeKind},
    value::Value,
};

const NANOS_PER_MILLI: i128 = 1_000_000;

/// One row as a JSON list.
pub(crate) fn line(row: &[Value], types: &[&DataType]) -> String {
    let mut out = String::with_capacity(16 * row.len());
    list(&mut out, row.iter().zip(types), |out, (value, data_type)| cell(out, value, data_type));
    out
}

fn list<T>(out: &mut String, items: impl Iterator<Item = T>, mut each: impl FnMut(&mut String, T)) {
    out.push('[');
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(',');
        }
        each(out, item);
    }
    out.push(']');
}

fn cell(out: &mut String, value: &Value, data_type: &DataType) {
    match (value, &data_type.kind) {
        (Value::Null, _) => out.push_str("null"),
        (Value::Boolean(v), _) => show(out, v),
        (Value::TinyInt(v), _) => show(out, v),
        (Value::SmallInt(v), _) => show(out, v),
        (Value::Int(v) | Value::Date(v) | Value::Time(v), _) => show(out, v),
        (Value::BigInt(v), _) => show(out, v),
        (Value::Float(v), _) => show(out, format_args!("\"{:08x}\"", v.to_bits())),
        (Value::Double(v), _) => show(out, format_args!("\"{:016x}\"", v.to_bits())),
        (Value::Decimal(v), TypeKind::Decimal { scale, .. }) => decimal(out, *v, usize::from(*scale)),
        (Value::String(v), _) => out.push_str(&serde_json::Value::from(v.as_str()).to_string()),
        (Value::Bytes(v), _) => {
            out.push('"');
            v.iter().for_each(|byte| show(out, format_args!("{byte:02x}")));
            out.push('"');
        }
        (Value::Timestamp { millis, nanos }, _) => {
            show(out, i128::from(*millis) * NANOS_PER_MILLI + i128::from(*nanos));
        }
        (Value::Array(items), TypeKind::Array(item)) => list(out, items.iter(), |out, v| cell(out, v, item)),
        (Value::Row(values), TypeKind::Row(fields)) => {
            list(out, values.iter().zip(fields), |out, (v, field)| cell(out, v, &field.data_type));
        }
        (Value::Map(entries), TypeKind::Map(key, item)) => pairs(out, entries, key, item),
        (Value::Map(entries), TypeKind::Multiset(key)) => pairs(out, entries, key, &DataType::nullable(TypeKind::Int)),
        // A value that is not of its type is no cell of anybody's: the comparison shows it.
        (other, kind) => out.push_str(&serde_json::Value::from(format!("{other:?} is no {kind:?}")).to_string()),
    }
}

fn pairs(out: &mut String, entries: &[(Value, Value)], key: &DataType, item: &DataType) {
    let text = |value, data_type| {
        let mut text = String::new();
        cell(&mut text, value, data_type);
        text
    };
    let mut pairs: Vec<(String, String)> = entries.iter().map(|(k, v)| (text(k, key), text(v, item))).collect();
    pairs.sort();
    list(out, pairs.iter(), |out, (k, v)| show(out, format_args!("[{k},{v}]")));
}

fn decimal(out: &mut String, unscaled: i128, scale: usize) {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale == 0 { "" } else { "." };
    show(out, format_args!("\"{sign}{whole}{point}{fraction}\""));
}

fn show(out: &mut String, value: impl std::fmt::Display) {
    out.push_str(&value.to_string());
}
