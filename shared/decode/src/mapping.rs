//! From a JSON row to the table's columns: rename, constant, computed day, mask, unknown columns.
//!
//! Above: `plain` and `debezium` read a row's object by [`Mapping::read`] and ask for values. Beside: `rules` checks the configuration,
//! `convert` types a value. Invariants: 1. a row has the schema's columns in the schema's order; 2. NOT NULL holds, save for columns of a
//! delete that are not part of the key: nobody reads those, and they get a stand-in; 3. a row that is stored is whole: a value that the
//! source left out comes from the old row or the record is rejected.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use siltstone_format::{
    schema::TableSchema,
    types::{DataType, TypeKind},
    value::Value,
};

use crate::{
    config::{ColumnRule, ConfigFault, DecoderConfig, Mask, UnknownColumns},
    convert::{Form, PLAIN, convert, instant, wrong},
    debezium::is_unavailable,
    json::{Left, Node},
    reject::{Reject, RejectCode},
    rules, time,
};

/// A column with where it comes from.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    data_type: DataType,
    /// Part of the primary key or the partition.
    key: bool,
    /// Named by `sequence.field`.
    order: bool,
    source: Source,
    mask: Option<Mask>,
}

/// Where a column's value comes from.
#[derive(Debug, Clone)]
enum Source {
    Constant(Value),
    /// A field, and the path inside it.
    Field {
        slot: usize,
        path: Vec<String>,
    },
    /// The day of a field; `like` is the type by whose precision an unsaid unit is guessed.
    Day {
        slot: usize,
        path: Vec<String>,
        offset_minutes: i32,
        format: Option<String>,
        like: Option<DataType>,
    },
}

/// The checked mapping of a table.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    columns: Vec<Column>,
    unknown: UnknownColumns,
    /// Fields of a row's object that somebody reads, by name.
    slots: HashMap<String, usize>,
    /// The slot of the operation, for `json` with an op field.
    pub(crate) op_slot: Option<usize>,
}

/// The fields of one row's object that somebody reads, by slot.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Vec<Option<Node<'a>>>);

/// How fields are written: by slot (`None` for a field's inside, or where no slot is), and by the type of the column.
pub(crate) type Forms<'f> = &'f dyn Fn(Option<usize>, Option<&DataType>) -> Form;

/// A row as the record has it.
pub(crate) struct Image<'r, 'a> {
    /// The row.
    pub(crate) fields: &'r Fields<'a>,
    /// The row before it, for values that were left out.
    pub(crate) old: Option<&'r Fields<'a>>,
    /// True where values may be left out by Debezium's placeholder.
    pub(crate) placeholders: bool,
    /// How fields are written.
    pub(crate) forms: Forms<'r>,
}

/// Which side of a change a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It is stored: all columns count.
    Stored,
    /// It is taken back: only the columns of the key and of `sequence.field` count.
    Retracted,
}

/// What an old row says about the key of a new one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyChange {
    /// The same, as far as the old row says.
    Same,
    /// Another one.
    Changed,
}

impl<'a> Fields<'a> {
    /// The field of a slot, if the object has it.
    pub(crate) fn at(&self, slot: usize) -> Option<Node<'a>> {
        self.0.get(slot).copied().flatten()
    }

    fn inside(&self, slot: usize, path: &[String]) -> Result<Option<Node<'a>>, Reject> {
        let mut node = self.at(slot);
        for step in path {
            node = match node {
                None => return Ok(None),
                Some(node) => match node.items()? {
                    Some(items) => step.parse::<usize>().ok().and_then(|place| items.get(place).copied()),
                    None => node.field(step)?,
                },
            };
        }
        Ok(node)
    }
}

impl Mapping {
    pub(crate) fn new(schema: &TableSchema, config: &DecoderConfig) -> Result<Self, Vec<ConfigFault>> {
        let faults = rules::faults(schema, config);
        if !faults.is_empty() {
            return Err(faults);
        }
        let order = schema.options.get("sequence.field").map(String::as_str).unwrap_or_default();
        let mut slots = Slots::default();
        let op_slot = config.op_field.as_deref().map(|name| slots.of(name));
        let mut columns = Vec::with_capacity(schema.fields.len());
        for field in &schema.fields {
            let rule = config.columns.get(&field.name).cloned().unwrap_or_default();
            columns.push(Column {
                name: field.name.clone(),
                data_type: field.data_type.clone(),
                key: schema.primary_keys.contains(&field.name) || schema.partition_keys.contains(&field.name),
                order: order.split(',').any(|name| name.trim() == field.name),
                source: source(schema, &field.name, &field.data_type, &rule, &mut slots)?,
                mask: rule.mask,
            });
        }
        Ok(Self { columns, unknown: config.unknown_columns, slots: slots.0, op_slot })
    }

    /// Number of slots.
    pub(crate) fn width(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a field's name.
    pub(crate) fn slot(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied()
    }

    /// Takes a row's object apart; also says how many fields no column reads.
    pub(crate) fn read<'a>(&self, object: Node<'a>) -> Result<(Fields<'a>, u64), Reject> {
        let mut fields = vec![None; self.width()];
        let left = object.pick(&|name| self.slot(name), &mut fields)?.ok_or_else(|| wrong(object, "an object"))?;
        match (self.unknown, left) {
            (UnknownColumns::Quarantine, Left { first: Some(name), .. }) => {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
                Err(Reject::new(RejectCode::UnknownColumn, "is not a column of the table").at(&shown))
            }
            (_, left) => Ok((Fields(fields), left.count)),
        }
    }

    /// The row of an image.
    pub(crate) fn row(&self, image: &Image<'_, '_>, side: Side) -> Result<Vec<Value>, Reject> {
        self.columns.iter().map(|column| column.value(image, side).map_err(|r| r.at(&column.name))).collect()
    }

    /// Whether the old image has another key or partition than the stored row. Columns that the old image lacks are taken as unchanged
    /// while nothing else changed (a database may log keys only).
    pub(crate) fn key_change(&self, old: &Image<'_, '_>, stored: &[Value]) -> Result<KeyChange, Reject> {
        let (mut changed, mut missing) = (false, None);
        for (column, new) in self.columns.iter().zip(stored).filter(|(column, _)| column.key) {
            match column.found(old, Side::Retracted).map_err(|r| r.at(&column.name))? {
                Value::Null if !new.is_null() => missing = missing.or(Some(&column.name)),
                value => changed |= value != *new,
            }
        }
        match (changed, missing) {
            (false, _) => Ok(KeyChange::Same),
            (true, None) => Ok(KeyChange::Changed),
            (true, Some(name)) => Err(Reject::new(
                RejectCode::MissingBefore,
                "is missing in the old row and the key changed, so that the old row cannot be found: have the source log whole rows",
            )
            .at(name)),
        }
    }
}

#[derive(Default)]
struct Slots(HashMap<String, usize>);

impl Slots {
    fn of(&mut self, name: &str) -> usize {
        let next = self.0.len();
        *self.0.entry(name.to_owned()).or_insert(next)
    }

    /// The slot and inner path of a JSON pointer.
    fn pointer(&mut self, pointer: &str) -> (usize, Vec<String>) {
        let mut steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
        (self.of(&steps.next().unwrap_or_default()), steps.collect())
    }
}

fn source(
    schema: &TableSchema,
    name: &str,
    data_type: &DataType,
    rule: &ColumnRule,
    slots: &mut Slots,
) -> Result<Source, Vec<ConfigFault>> {
    if let Some(constant) = &rule.constant {
        let value = rules::constant(constant, data_type);
        let fault = |reject: Reject| vec![ConfigFault { at: format!("columns.{name}"), problem: reject.to_string() }];
        return value.map(Source::Constant).map_err(fault);
    }
    if let Some(pointer) = &rule.date_of {
        let (slot, path) = slots.pointer(pointer);
        // The day of a field that is also a column: written as that column.
        let like = path.is_empty().then(|| schema.field(pointer.get(1..)?)).flatten().map(|f| f.data_type.clone());
        let (offset_minutes, format) = (rule.offset_minutes, rule.format.clone());
        return Ok(Source::Day { slot, path, offset_minutes, format, like });
    }
    let (slot, path) = match &rule.path {
        Some(pointer) => slots.pointer(pointer),
        None => (slots.of(name), Vec::new()),
    };
    Ok(Source::Field { slot, path })
}

impl Column {
    fn value(&self, image: &Image<'_, '_>, side: Side) -> Result<Value, Reject> {
        let retracted = side == Side::Retracted;
        let value = match self.found(image, side) {
            Ok(value) => value,
            // Values of a delete that nobody reads may be of any form.
            Err(_) if retracted && !self.key && !self.order => Value::Null,
            Err(reject) => return Err(reject),
        };
        if retracted && self.order && value.is_null() {
            let detail =
                "is the table's `sequence.field` and a delete without it could lose against the row that it deletes";
            return Err(Reject::new(RejectCode::MissingBefore, detail));
        }
        if !value.is_null() || self.data_type.nullable {
            return Ok(value);
        }
        match (self.key, retracted) {
            (true, _) => {
                Err(Reject::new(RejectCode::MissingKey, "is part of the key and the record has nothing there"))
            }
            (false, true) => Ok(stand_in(&self.data_type)),
            (false, false) => {
                Err(Reject::new(RejectCode::MissingColumn, "is NOT NULL and the record has nothing there"))
            }
        }
    }

    /// The value of the column's source, masked.
    fn found(&self, image: &Image<'_, '_>, side: Side) -> Result<Value, Reject> {
        let said = |slot: usize, path: &[String]| path.is_empty().then_some(slot);
        let value = match &self.source {
            Source::Constant(value) => value.clone(),
            Source::Field { slot, path } => match node(image, *slot, path, side)? {
                None => Value::Null,
                Some(node) => convert(node, &self.data_type, (image.forms)(said(*slot, path), Some(&self.data_type)))?,
            },
            Source::Day { slot, path, offset_minutes, format, like } => match node(image, *slot, path, side)? {
                Some(node) if !node.is_null() => {
                    let nanos = instant(node, (image.forms)(said(*slot, path), like.as_ref()))?;
                    day(nanos, *offset_minutes, format.as_deref(), &self.data_type)?
                }
                _ => Value::Null,
            },
        };
        Ok(match self.mask {
            None => value,
            Some(mask) => masked(mask, value),
        })
    }
}

/// The node of a field; one that the source left out is taken from the old row.
fn node<'a>(image: &Image<'_, 'a>, slot: usize, path: &[String], side: Side) -> Result<Option<Node<'a>>, Reject> {
    let here = image.fields.inside(slot, path)?;
    if !image.placeholders || !left_out(here)? {
        return Ok(here);
    }
    if side == Side::Retracted {
        return Ok(None);
    }
    let before = image.old.map_or(Ok(None), |old| old.inside(slot, path))?;
    if before.is_none() || left_out(before)? {
        let detail = "was left out by the database and the old row does not carry it: set REPLICA IDENTITY FULL on the source table";
        return Err(Reject::new(RejectCode::UnavailableValue, detail));
    }
    Ok(before)
}

fn left_out(node: Option<Node<'_>>) -> Result<bool, Reject> {
    node.map_or(Ok(false), is_unavailable)
}

/// The day (or, by format, the hour) of a point in time at an offset.
fn day(nanos: i128, offset_minutes: i32, format: Option<&str>, data_type: &DataType) -> Result<Value, Reject> {
    let far = || Reject::new(RejectCode::OutOfRange, "is a day beyond what a DATE holds");
    let minutes = nanos.div_euclid(60_000_000_000) + i128::from(offset_minutes);
    let days = i32::try_from(minutes.div_euclid(1440)).map_err(|_| far())?;
    if data_type.kind == TypeKind::Date {
        return Ok(Value::Date(days));
    }
    let minute = i64::try_from(minutes.rem_euclid(1440)).map_err(|_| far())?;
    let text = time::show(format.unwrap_or("%Y-%m-%d"), i64::from(days), minute);
    convert(Node::parse(serde_json::Value::String(text).to_string().as_bytes())?, data_type, PLAIN)
}

fn masked(mask: Mask, value: Value) -> Value {
    match (mask, value) {
        (Mask::Null, _) | (_, Value::Null) => Value::Null,
        (Mask::Sha256, Value::String(text)) => {
            Value::String(Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect())
        }
        (Mask::KeepLast4, Value::String(text)) => {
            let hidden = text.chars().count().saturating_sub(4);
            Value::String(text.chars().enumerate().map(|(i, c)| if i < hidden { '*' } else { c }).collect())
        }
        (_, value) => value,
    }
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
