//! From a JSON row to the table's columns: rename, constant, computed day, mask, unknown columns.
//!
//! Neighbours: `plain` and `debezium` call [`Mapping::row`] with the row's object and each column's form.
//! Invariants: 1. the result has the schema's columns in the schema's order; 2. NOT NULL holds, save for columns of a delete that are not
//! part of the key: those are never read and get a stand-in.

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use siltstone_format::{
    schema::TableSchema,
    types::{DataType, TypeKind},
    value::Value,
};

use crate::{
    config::{ColumnRule, ConfigFault, DecoderConfig, Mask, UnknownColumns},
    convert::{Form, PLAIN, convert},
    reject::{Reject, RejectCode},
    time,
};

/// A column with where it comes from.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    data_type: DataType,
    key: bool,
    order: bool,
    rule: ColumnRule,
}

/// The checked mapping of a table.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    columns: Vec<Column>,
    unknown: UnknownColumns,
    /// Fields of a row that some column reads, or that are known to mean something else.
    known: Vec<String>,
}

/// Which side of a change a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It is stored: all columns count.
    Stored,
    /// It is taken back: only key (and order) columns count.
    Retracted,
}

impl Mapping {
    pub(crate) fn new(schema: &TableSchema, config: &DecoderConfig) -> Result<Self, Vec<ConfigFault>> {
        let mut faults = Vec::new();
        for (name, rule) in &config.columns {
            let at = format!("columns.{name}");
            let mut fault = |problem: &str| faults.push(ConfigFault { at: at.clone(), problem: problem.to_owned() });
            let Some(field) = schema.fields.iter().find(|f| f.name == *name) else {
                fault("the table has no such column");
                continue;
            };
            let sources = [rule.path.is_some(), rule.constant.is_some(), rule.date_of.is_some()];
            if sources.iter().filter(|s| **s).count() > 1 {
                fault("give one of path, constant and date-of");
            }
            for pointer in [&rule.path, &rule.date_of].into_iter().flatten() {
                if !pointer.starts_with('/') {
                    fault("a path is a JSON pointer and begins with `/`");
                }
            }
            let text = matches!(field.data_type.kind, TypeKind::Char(_) | TypeKind::VarChar(_));
            if rule.date_of.is_some() && !text && field.data_type.kind != TypeKind::Date {
                fault("date-of needs a DATE or STRING column");
            }
            if matches!(rule.mask, Some(Mask::Sha256 | Mask::KeepLast4)) && !text {
                fault("this mask needs a STRING column");
            }
            if rule.mask == Some(Mask::Null) && !field.data_type.nullable {
                fault("the mask `null` needs a nullable column");
            }
            if let Some(constant) = &rule.constant
                && let Err(reject) = convert(constant, &field.data_type, PLAIN)
            {
                fault(&format!("the constant does not fit the column: {reject}"));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let order = schema.options.get("sequence.field").map(String::as_str).unwrap_or_default();
        let columns: Vec<Column> = schema
            .fields
            .iter()
            .map(|f| Column {
                name: f.name.clone(),
                data_type: f.data_type.clone(),
                key: schema.primary_keys.contains(&f.name) || schema.partition_keys.contains(&f.name),
                order: order.split(',').any(|o| o.trim() == f.name),
                rule: config.columns.get(&f.name).cloned().unwrap_or_default(),
            })
            .collect();
        let mut known: Vec<String> = config.op_field.iter().cloned().collect();
        for column in &columns {
            match column.rule.path.as_ref().or(column.rule.date_of.as_ref()) {
                Some(pointer) => known.extend(pointer.split('/').nth(1).map(str::to_owned)),
                None => known.push(column.name.clone()),
            }
        }
        Ok(Self { columns, unknown: config.unknown_columns, known })
    }

    /// The row of `object`; `form` tells how each field is written.
    pub(crate) fn row(
        &self,
        object: &Map<String, Json>,
        side: Side,
        form: &dyn Fn(&str, &DataType) -> Form,
    ) -> Result<Vec<Value>, Reject> {
        if self.unknown == UnknownColumns::Quarantine
            && let Some(name) = object.keys().find(|name| !self.known.contains(name))
        {
            let shown: String = name.chars().take(80).collect();
            return Err(Reject::new(RejectCode::UnknownColumn, "is not a column of the table").at(&shown));
        }
        self.columns.iter().map(|column| column.value(object, side, form).map_err(|r| r.at(&column.name))).collect()
    }

    /// Whether two rows have the same primary key and partition.
    pub(crate) fn same_key(&self, a: &[Value], b: &[Value]) -> bool {
        self.columns.iter().zip(a.iter().zip(b)).filter(|(c, _)| c.key).all(|(_, (x, y))| x == y)
    }
}

impl Column {
    fn value(
        &self,
        object: &Map<String, Json>,
        side: Side,
        form: &dyn Fn(&str, &DataType) -> Form,
    ) -> Result<Value, Reject> {
        let value = match self.found(object, form) {
            Ok(value) => self.masked(value),
            // Values of a delete that nobody reads may be of any form (Postgres leaves them out or null).
            Err(_) if side == Side::Retracted && !self.key && !self.order => Value::Null,
            Err(reject) => return Err(reject),
        };
        if !value.is_null() || self.data_type.nullable {
            return Ok(value);
        }
        match (self.key, side) {
            (true, _) => {
                Err(Reject::new(RejectCode::MissingKey, "is part of the key and the record has nothing there"))
            }
            (false, Side::Retracted) => Ok(stand_in(&self.data_type)),
            (false, Side::Stored) => {
                Err(Reject::new(RejectCode::MissingColumn, "is NOT NULL and the record has nothing there"))
            }
        }
    }

    fn found(&self, object: &Map<String, Json>, form: &dyn Fn(&str, &DataType) -> Form) -> Result<Value, Reject> {
        if let Some(constant) = &self.rule.constant {
            return convert(constant, &self.data_type, PLAIN);
        }
        if let Some(pointer) = &self.rule.date_of {
            let source = DataType { kind: TypeKind::Timestamp(9), nullable: true };
            let name = pointer.trim_start_matches('/');
            let Some(json) = at(object, pointer) else { return Ok(Value::Null) };
            return convert(json, &source, form(name, &source)).map(|stamp| self.day(&stamp));
        }
        let (name, json) = match &self.rule.path {
            Some(pointer) => (pointer.trim_start_matches('/'), at(object, pointer)),
            None => (self.name.as_str(), object.get(&self.name)),
        };
        json.map_or(Ok(Value::Null), |json| convert(json, &self.data_type, form(name, &self.data_type)))
    }

    fn day(&self, stamp: &Value) -> Value {
        let Value::Timestamp { millis, .. } = stamp else { return Value::Null };
        let local = millis.saturating_add(i64::from(self.rule.offset_minutes) * 60_000);
        let days = local.div_euclid(86_400_000);
        match (&self.data_type.kind, i32::try_from(days)) {
            (TypeKind::Date, Ok(days)) => Value::Date(days),
            (_, Ok(_)) => Value::String(time::show_date(days)),
            _ => Value::Null,
        }
    }

    fn masked(&self, value: Value) -> Value {
        match (self.rule.mask, value) {
            (None, value) => value,
            (Some(Mask::Null), _) | (_, Value::Null) => Value::Null,
            (Some(Mask::Sha256), Value::String(s)) => {
                Value::String(Sha256::digest(s.as_bytes()).iter().map(|b| format!("{b:02x}")).collect())
            }
            (Some(Mask::KeepLast4), Value::String(s)) => {
                let hidden = s.chars().count().saturating_sub(4);
                Value::String(s.chars().enumerate().map(|(i, c)| if i < hidden { '*' } else { c }).collect())
            }
            (Some(_), value) => value,
        }
    }
}

fn at<'j>(object: &'j Map<String, Json>, pointer: &str) -> Option<&'j Json> {
    let mut parts = pointer.split('/').skip(1).map(|p| p.replace("~1", "/").replace("~0", "~"));
    let mut json = object.get(&parts.next()?)?;
    for part in parts {
        json = match json {
            Json::Object(inner) => inner.get(&part)?,
            Json::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(json)
}

/// A value for a NOT NULL column of a delete row, which no reader looks at.
fn stand_in(data_type: &DataType) -> Value {
    match &data_type.kind {
        TypeKind::Boolean => Value::Boolean(false),
        TypeKind::TinyInt => Value::TinyInt(0),
        TypeKind::SmallInt => Value::SmallInt(0),
        TypeKind::Int => Value::Int(0),
        TypeKind::BigInt => Value::BigInt(0),
        TypeKind::Float => Value::Float(0.0),
        TypeKind::Double => Value::Double(0.0),
        TypeKind::Decimal { .. } => Value::Decimal(0),
        TypeKind::Char(_) | TypeKind::VarChar(_) => Value::String(String::new()),
        TypeKind::Binary(_) | TypeKind::VarBinary(_) => Value::Bytes(Vec::new()),
        TypeKind::Date => Value::Date(0),
        TypeKind::Time(_) => Value::Time(0),
        TypeKind::Timestamp(_) | TypeKind::LocalTimestamp(_) => Value::Timestamp { millis: 0, nanos: 0 },
        TypeKind::Array(_) => Value::Array(Vec::new()),
        TypeKind::Map(..) | TypeKind::Multiset(_) => Value::Map(Vec::new()),
        TypeKind::Row(fields) => Value::Row(
            fields.iter().map(|f| if f.data_type.nullable { Value::Null } else { stand_in(&f.data_type) }).collect(),
        ),
    }
}
