//! How a Debezium message's fields are written: by the schema of its envelope, else by the column's type and the configuration.
//!
//! Neighbours: `debezium` asks per field, `convert` obeys. Spec: Debezium reference, "Data types" of each connector; Kafka Connect's logical
//! types. Invariant: 1. a semantic type decides unit and meaning; nothing is guessed against it.

use siltstone_format::types::{DataType, TypeKind};

use crate::{
    config::Decimals,
    convert::{Form, Meaning, PLAIN},
    decoder::Decoder,
    json::Node,
    mapping::Mapping,
    reject::Reject,
    time::Unit,
};

/// What the envelope says of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Described {
    meaning: Meaning,
    unit: Option<Unit>,
    /// It is Connect's `Decimal`; the scale, if the schema has one.
    decimal: Option<Option<i32>>,
}

/// What the envelope's schema of `after` (or `before`) says, by the mapping's slots. Empty without schema.
pub(crate) fn fields(schema: Option<Node<'_>>, mapping: &Mapping) -> Result<Vec<Option<Described>>, Reject> {
    let Some(schema) = schema else { return Ok(Vec::new()) };
    let top = list(schema)?;
    let row = match member(&top, "after")? {
        Some(row) => Some(row),
        None => member(&top, "before")?,
    };
    let Some(row) = row else { return Ok(Vec::new()) };
    let mut out = vec![None; mapping.width()];
    for field in list(row)? {
        let Some([Some(name), semantic, parameters, items]) = field.fields(["field", "name", "parameters", "items"])?
        else {
            continue;
        };
        let Some(slot) = name.string()?.and_then(|name| mapping.slot(&name)) else { continue };
        // The elements of an array are described by `items`.
        let described = match (semantic, items) {
            (None, Some(items)) => {
                let [semantic, parameters] = items.fields(["name", "parameters"])?.unwrap_or_default();
                describe(semantic, parameters)?
            }
            _ => describe(semantic, parameters)?,
        };
        if let Some(place) = out.get_mut(slot) {
            *place = described;
        }
    }
    Ok(out)
}

fn list(schema: Node<'_>) -> Result<Vec<Node<'_>>, Reject> {
    schema.field("fields")?.map_or(Ok(None), Node::items).map(Option::unwrap_or_default)
}

fn member<'a>(fields: &[Node<'a>], name: &str) -> Result<Option<Node<'a>>, Reject> {
    for field in fields {
        if field.field("field")?.map_or(Ok(None), Node::string)?.as_deref() == Some(name) {
            return Ok(Some(*field));
        }
    }
    Ok(None)
}

fn describe(semantic: Option<Node<'_>>, parameters: Option<Node<'_>>) -> Result<Option<Described>, Reject> {
    let Some(name) = semantic.map_or(Ok(None), Node::string)? else { return Ok(None) };
    let temporal = |meaning, unit| Some(Described { meaning, unit, decimal: None });
    Ok(match name.as_ref() {
        "org.apache.kafka.connect.data.Decimal" => {
            let scale = parameters.map_or(Ok(None), |p| p.field("scale"))?;
            let scale = match scale {
                Some(scale) => scale.string()?.unwrap_or_else(|| scale.raw().into()).parse().ok(),
                None => None,
            };
            Some(Described { meaning: Meaning::NotTemporal, unit: None, decimal: Some(scale) })
        }
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => temporal(Meaning::Date, Some(Unit::Days)),
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => temporal(Meaning::Time, Some(Unit::Millis)),
        "io.debezium.time.MicroTime" => temporal(Meaning::Time, Some(Unit::Micros)),
        "io.debezium.time.NanoTime" => temporal(Meaning::Time, Some(Unit::Nanos)),
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
            temporal(Meaning::Timestamp, Some(Unit::Millis))
        }
        "io.debezium.time.MicroTimestamp" => temporal(Meaning::Timestamp, Some(Unit::Micros)),
        "io.debezium.time.NanoTimestamp" => temporal(Meaning::Timestamp, Some(Unit::Nanos)),
        // Year, MicroDuration, NanoDuration; the ones that are text (ZonedTimestamp, Interval) are read as text.
        name if name.starts_with("io.debezium.time.") => temporal(Meaning::NotTemporal, None),
        _ => None,
    })
}

/// How a field is written.
pub(crate) fn form(decoder: &Decoder, described: Option<&Described>, data_type: Option<&DataType>) -> Form {
    match described {
        Some(Described { decimal: Some(scale), .. }) => {
            let own = match data_type.map(|t| &t.kind) {
                Some(TypeKind::Decimal { scale, .. }) => i32::from(*scale),
                _ => 0,
            };
            Form { meaning: Meaning::NotTemporal, unit: None, decimal_scale: Some(scale.unwrap_or(own)) }
        }
        Some(Described { meaning, unit, .. }) => Form { meaning: *meaning, unit: *unit, decimal_scale: None },
        None => undescribed(decoder, data_type),
    }
}

/// Debezium's `time.precision.mode` = adaptive without a schema: ms up to three digits, µs up to six, ns above. A field that is no column has
/// only the configured unit.
fn undescribed(decoder: &Decoder, data_type: Option<&DataType>) -> Form {
    match data_type.map(|t| leaf(&t.kind)) {
        None => Form { unit: decoder.configured_unit(), ..PLAIN },
        Some(TypeKind::Decimal { scale, .. }) if decoder.config.decimals == Decimals::Base64 => {
            Form { decimal_scale: Some(i32::from(*scale)), ..PLAIN }
        }
        Some(TypeKind::Time(precision) | TypeKind::Timestamp(precision) | TypeKind::LocalTimestamp(precision)) => {
            let adaptive = match precision {
                0..=3 => Unit::Millis,
                4..=6 => Unit::Micros,
                _ => Unit::Nanos,
            };
            Form { unit: Some(decoder.configured_unit().unwrap_or(adaptive)), ..PLAIN }
        }
        _ => PLAIN,
    }
}

/// The type of an array's elements, through any number of arrays.
fn leaf(kind: &TypeKind) -> &TypeKind {
    match kind {
        TypeKind::Array(element) => leaf(&element.kind),
        kind => kind,
    }
}
