//! Debezium JSON change events, with and without the schema envelope (Debezium reference, "Data change events"; Kafka Connect's
//! `JsonConverter` with `schemas.enable` true or false).
//!
//! Neighbours: `decoder`, `mapping`. What `u` means depends on the key: an unchanged key is an upsert, a changed key or partition is a delete
//! of the old row and an insert of the new one. Invariants: 1. messages without rows are named and counted, never guessed at; 2. a left-out
//! value (`__debezium_unavailable_value`) is taken from the old row or the record is rejected: a wrong row is never stored.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use siltstone_format::types::{DataType, TypeKind};

use crate::{
    config::Decimals,
    convert::Form,
    decoder::{Decoded, Decoder, Forms, IgnoredKind, Object, RowChange, RowKind},
    mapping::Side,
    reject::{Reject, RejectCode},
    time::Unit,
};

/// What Debezium writes for a value that the database did not log; base64 of it in binary columns.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";

pub(crate) fn decode(decoder: &Decoder, json: &Json) -> Result<Decoded, Reject> {
    let outer = match json {
        Json::Null => return Ok(Decoded::Ignored(IgnoredKind::Tombstone)),
        Json::Object(object) => object,
        _ => return Err(Reject::new(RejectCode::NotJson, "is not a JSON object")),
    };
    let (message, fields) = match (outer.get("payload"), outer.get("schema")) {
        (Some(Json::Null), Some(_)) => return Ok(Decoded::Ignored(IgnoredKind::Tombstone)),
        (Some(Json::Object(payload)), Some(schema)) if outer.len() == 2 => (payload, envelope_fields(schema)),
        _ => (outer, BTreeMap::new()),
    };
    if let Some(ignored) = without_rows(message) {
        return Ok(Decoded::Ignored(ignored));
    }
    let form = |name: &str, data_type: &DataType| form_of(decoder, fields.get(name), data_type);
    let side = |name: &str| match message.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Reject::new(RejectCode::WrongType, "is not an object").at(name)),
    };
    let (before, after) = (side("before")?, side("after")?);
    match message.get("op").and_then(Json::as_str) {
        Some("c" | "r") => {
            let after = after.ok_or_else(|| Reject::new(RejectCode::MissingColumn, "has no new row").at("after"))?;
            stored(decoder, after, before, RowKind::Insert, &form).map(|change| Decoded::Changes(vec![change]))
        }
        Some("u") => {
            let after = after.ok_or_else(|| Reject::new(RejectCode::MissingColumn, "has no new row").at("after"))?;
            update(decoder, before, after, &form)
        }
        Some("d") => {
            let before = before.ok_or_else(|| {
                Reject::new(
                    RejectCode::MissingBefore,
                    "a delete without its old row: set the source table's replica identity or \
                     before-image so that at least the key is logged",
                )
                .at("before")
            })?;
            let row = decoder.mapping.row(before, Side::Retracted, &form)?;
            Ok(Decoded::Changes(vec![RowChange { kind: RowKind::Delete, row }]))
        }
        Some(_) => Err(Reject::new(RejectCode::UnknownOperation, "is not one of c, u, d, r, t, m").at("op")),
        None => {
            Err(Reject::new(RejectCode::UnknownOperation, "is missing: this is not a Debezium change event").at("op"))
        }
    }
}

/// Messages of a connector that carry no row.
fn without_rows(message: &Object) -> Option<IgnoredKind> {
    match message.get("op").and_then(Json::as_str) {
        Some("t") => return Some(IgnoredKind::Truncate),
        Some("m") => return Some(IgnoredKind::LogicalMessage),
        Some(_) => return None,
        None => {}
    }
    if message.contains_key("ddl") || message.contains_key("tableChanges") {
        Some(IgnoredKind::SchemaChange)
    } else if message.contains_key("status") && message.contains_key("id") && message.contains_key("event_count") {
        Some(IgnoredKind::Transaction)
    } else if message.contains_key("ts_ms") && !message.contains_key("after") && !message.contains_key("before") {
        Some(IgnoredKind::Heartbeat)
    } else {
        None
    }
}

fn update(decoder: &Decoder, before: Option<&Object>, after: &Object, form: Forms<'_>) -> Result<Decoded, Reject> {
    let new = stored(decoder, after, before, RowKind::UpdateAfter, form)?;
    if let Some(before) = before {
        // An old row that only carries non-key columns says nothing about the key: then the key did not change.
        match decoder.mapping.row(before, Side::Retracted, form) {
            Ok(old) if !decoder.mapping.same_key(&old, &new.row) => {
                let delete = RowChange { kind: RowKind::Delete, row: old };
                return Ok(Decoded::Changes(vec![delete, RowChange { kind: RowKind::Insert, ..new }]));
            }
            Ok(_) => {}
            Err(reject) if reject.code == RejectCode::MissingKey => {}
            Err(reject) => return Err(reject),
        }
    }
    Ok(Decoded::Changes(vec![new]))
}

fn stored(
    decoder: &Decoder,
    after: &Object,
    before: Option<&Object>,
    kind: RowKind,
    form: Forms<'_>,
) -> Result<RowChange, Reject> {
    let filled = fill_unavailable(after, before)?;
    let row = decoder.mapping.row(filled.as_ref().unwrap_or(after), Side::Stored, form)?;
    Ok(RowChange { kind, row })
}

fn is_unavailable(value: &Json) -> bool {
    value.as_str().is_some_and(|s| s == UNAVAILABLE || s == UNAVAILABLE_BASE64)
}

/// The new row with left-out values taken from the old one; `None` when nothing was left out.
fn fill_unavailable(after: &Object, before: Option<&Object>) -> Result<Option<Object>, Reject> {
    if !after.values().any(is_unavailable) {
        return Ok(None);
    }
    let mut filled = after.clone();
    for (name, value) in filled.iter_mut().filter(|(_, value)| is_unavailable(value)) {
        match before.and_then(|b| b.get(name.as_str())).filter(|old| !is_unavailable(old)) {
            Some(old) => *value = old.clone(),
            None => {
                return Err(Reject::new(
                    RejectCode::UnavailableValue,
                    "was left out by the database and the old row does not carry it: set REPLICA IDENTITY FULL on the source table",
                )
                .at(name));
            }
        }
    }
    Ok(Some(filled))
}

/// What the envelope says of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    name: String,
    scale: Option<u8>,
}

/// Fields of the row by name, from the envelope's schema of `after` (or `before`).
fn envelope_fields(schema: &Json) -> BTreeMap<String, Described> {
    let of = |json: &Json| json.get("fields").and_then(Json::as_array).cloned().unwrap_or_default();
    let named = |fields: &[Json], name: &str| {
        fields.iter().find(|f| f.get("field").and_then(Json::as_str) == Some(name)).cloned()
    };
    let top = of(schema);
    let Some(row) = named(&top, "after").or_else(|| named(&top, "before")) else { return BTreeMap::new() };
    of(&row)
        .iter()
        .filter_map(|field| {
            let key = field.get("field").and_then(Json::as_str)?;
            let name = field.get("name").and_then(Json::as_str).unwrap_or_default().to_owned();
            let scale = field.get("parameters").and_then(|p| p.get("scale")).and_then(|s| match s {
                Json::String(text) => text.parse().ok(),
                other => other.as_u64().and_then(|n| u8::try_from(n).ok()),
            });
            Some((key.to_owned(), Described { name, scale }))
        })
        .collect()
}

/// How a field is written: by its semantic name where the envelope gives one, else by Debezium's defaults for the column's type.
fn form_of(decoder: &Decoder, described: Option<&Described>, data_type: &DataType) -> Form {
    let mut form = Form { unit: None, decimal_scale: None, base64_bytes: true };
    match described.map(|d| d.name.as_str()) {
        Some("org.apache.kafka.connect.data.Decimal") => {
            form.decimal_scale = Some(described.and_then(|d| d.scale).unwrap_or(0));
        }
        Some("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date") => form.unit = Some(Unit::Days),
        Some(
            "io.debezium.time.Time"
            | "io.debezium.time.Timestamp"
            | "org.apache.kafka.connect.data.Time"
            | "org.apache.kafka.connect.data.Timestamp",
        ) => form.unit = Some(Unit::Millis),
        Some("io.debezium.time.MicroTime" | "io.debezium.time.MicroTimestamp") => form.unit = Some(Unit::Micros),
        Some("io.debezium.time.NanoTime" | "io.debezium.time.NanoTimestamp") => form.unit = Some(Unit::Nanos),
        _ => undescribed(decoder, data_type, &mut form),
    }
    form
}

/// Debezium's `time.precision.mode` = adaptive without a schema: milliseconds up to three digits, microseconds above.
fn undescribed(decoder: &Decoder, data_type: &DataType, form: &mut Form) {
    match data_type.kind {
        TypeKind::Decimal { scale, .. } if decoder.config.decimals == Decimals::Base64 => {
            form.decimal_scale = Some(scale);
        }
        TypeKind::Time(precision) => {
            form.unit = Some(if precision > 3 { Unit::Micros } else { Unit::Millis });
        }
        TypeKind::Timestamp(precision) | TypeKind::LocalTimestamp(precision) => {
            let own = if precision > 3 { Unit::Micros } else { Unit::Millis };
            form.unit = Some(decoder.configured_unit().unwrap_or(own));
        }
        _ => {}
    }
}
