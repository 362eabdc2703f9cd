//! Values to Arrow columns and back.
//!
//! Neighbours: `buffer` builds batches from decoded rows; `writer`, `scan` and tests read single values.
//! Invariant: 1. `value_at(array_of(values)) == values` for every supported type.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int8Array, Int16Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray, StructArray,
        Time32MillisecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        new_null_array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        DataType as Arrow, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType,
    },
};
use siltstone_format::value::Value;

use crate::{error::LsmError, layout::FileLayout};

/// Builds the value columns of `layout` from rows in schema order.
///
/// # Errors
/// [`LsmError::Rows`] naming the column whose value does not have its type, or is null where null is not allowed.
pub fn batch_of(layout: &FileLayout, rows: &[Vec<Value>]) -> Result<RecordBatch, LsmError> {
    let schema = layout.values();
    if let Some(row) = rows.iter().find(|r| r.len() != schema.fields().len()) {
        return Err(LsmError::Rows(format!("a row has {} values, the table {}", row.len(), schema.fields().len())));
    }
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let values: Vec<&Value> = rows.iter().filter_map(|row| row.get(i)).collect();
            array_of(field, &values)
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len())),
    )
    .map_err(|e| LsmError::Rows(e.to_string()))
}

macro_rules! primitive {
    ($array:ty, $field:expr, $values:expr, $pattern:pat => $out:expr) => {{
        let values: Result<Vec<_>, LsmError> = $values
            .iter()
            .map(|value| match value {
                Value::Null => Ok(None),
                $pattern => Ok(Some($out)),
                other => Err(mismatch($field, other)),
            })
            .collect();
        Arc::new(<$array>::from(values?)) as ArrayRef
    }};
}

/// One column of `field`'s type.
///
/// # Errors
/// As [`batch_of`].
pub fn array_of(field: &FieldRef, values: &[&Value]) -> Result<ArrayRef, LsmError> {
    if !field.is_nullable() && values.iter().any(|v| v.is_null()) {
        return Err(LsmError::Rows(format!("column `{}` is NOT NULL and a row has null there", field.name())));
    }
    Ok(match field.data_type() {
        Arrow::Boolean => primitive!(BooleanArray, field, values, Value::Boolean(v) => *v),
        Arrow::Int8 => primitive!(Int8Array, field, values, Value::TinyInt(v) => *v),
        Arrow::Int16 => primitive!(Int16Array, field, values, Value::SmallInt(v) => *v),
        Arrow::Int32 => primitive!(Int32Array, field, values, Value::Int(v) => *v),
        Arrow::Int64 => primitive!(Int64Array, field, values, Value::BigInt(v) => *v),
        Arrow::Float32 => primitive!(Float32Array, field, values, Value::Float(v) => *v),
        Arrow::Float64 => primitive!(Float64Array, field, values, Value::Double(v) => *v),
        Arrow::Date32 => primitive!(Date32Array, field, values, Value::Date(v) => *v),
        Arrow::Time32(_) => primitive!(Time32MillisecondArray, field, values, Value::Time(v) => *v),
        Arrow::Utf8 => primitive!(StringArray, field, values, Value::String(v) => v.as_str()),
        Arrow::Binary => primitive!(BinaryArray, field, values, Value::Bytes(v) => v.as_slice()),
        Arrow::Decimal128(precision, scale) => {
            let values: Result<Vec<_>, LsmError> = values
                .iter()
                .map(|value| match value {
                    Value::Null => Ok(None),
                    Value::Decimal(v) => Ok(Some(*v)),
                    other => Err(mismatch(field, other)),
                })
                .collect();
            let array = Decimal128Array::from(values?).with_precision_and_scale(*precision, *scale);
            Arc::new(array.map_err(|e| LsmError::Rows(e.to_string()))?)
        }
        Arrow::Timestamp(unit, zone) => timestamps(field, values, *unit, zone.clone())?,
        Arrow::List(element) => lists(field, element, values)?,
        Arrow::Map(entries, _) => maps(field, entries, values)?,
        Arrow::Struct(fields) => structs(field, fields, values)?,
        other => return Err(LsmError::encode(format!("no column of type {other}"))),
    })
}

fn mismatch(field: &FieldRef, value: &Value) -> LsmError {
    let found = match value {
        Value::Null => "null",
        Value::Boolean(_) => "BOOLEAN",
        Value::TinyInt(_) => "TINYINT",
        Value::SmallInt(_) => "SMALLINT",
        Value::Int(_) => "INT",
        Value::BigInt(_) => "BIGINT",
        Value::Float(_) => "FLOAT",
        Value::Double(_) => "DOUBLE",
        Value::Decimal(_) => "DECIMAL",
        Value::String(_) => "STRING",
        Value::Bytes(_) => "BYTES",
        Value::Date(_) => "DATE",
        Value::Time(_) => "TIME",
        Value::Timestamp { .. } => "TIMESTAMP",
        Value::Array(_) => "ARRAY",
        Value::Map(_) => "MAP",
        Value::Row(_) => "ROW",
    };
    LsmError::Rows(format!("column `{}` takes {}, a row has {found}", field.name(), field.data_type()))
}

fn timestamps(
    field: &FieldRef,
    values: &[&Value],
    unit: TimeUnit,
    zone: Option<Arc<str>>,
) -> Result<ArrayRef, LsmError> {
    let too_far = || LsmError::Rows(format!("column `{}`: a timestamp is out of range", field.name()));
    let ticks = values
        .iter()
        .map(|value| match value {
            Value::Null => Ok(None),
            Value::Timestamp { millis, nanos } => match unit {
                TimeUnit::Millisecond => Some(*millis),
                TimeUnit::Microsecond => {
                    millis.checked_mul(1_000).and_then(|m| m.checked_add(i64::from(nanos / 1_000)))
                }
                _ => millis.checked_mul(1_000_000).and_then(|m| m.checked_add(i64::from(*nanos))),
            }
            .map(Some)
            .ok_or_else(too_far),
            other => Err(mismatch(field, other)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match unit {
        TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::from(ticks).with_timezone_opt(zone)),
        TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::from(ticks).with_timezone_opt(zone)),
        _ => Arc::new(TimestampNanosecondArray::from(ticks).with_timezone_opt(zone)),
    })
}

fn validity(values: &[&Value]) -> Option<NullBuffer> {
    let buffer: NullBuffer = values.iter().map(|v| !v.is_null()).collect();
    (buffer.null_count() > 0).then_some(buffer)
}

fn lists(field: &FieldRef, element: &FieldRef, values: &[&Value]) -> Result<ArrayRef, LsmError> {
    let mut items: Vec<&Value> = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::Null => lengths.push(0),
            Value::Array(list) => {
                lengths.push(list.len());
                items.extend(list);
            }
            other => return Err(mismatch(field, other)),
        }
    }
    let child = array_of(element, &items)?;
    ListArray::try_new(element.clone(), OffsetBuffer::from_lengths(lengths), child, validity(values))
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| LsmError::Rows(e.to_string()))
}

fn maps(field: &FieldRef, entries: &FieldRef, values: &[&Value]) -> Result<ArrayRef, LsmError> {
    let Arrow::Struct(pair) = entries.data_type() else { return Err(LsmError::encode("a map without entries")) };
    let [key_field, value_field] = pair.as_ref() else { return Err(LsmError::encode("a map without key and value")) };
    let (mut keys, mut items): (Vec<&Value>, Vec<&Value>) = (Vec::new(), Vec::new());
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::Null => lengths.push(0),
            Value::Map(pairs) => {
                lengths.push(pairs.len());
                keys.extend(pairs.iter().map(|(k, _)| k));
                items.extend(pairs.iter().map(|(_, v)| v));
            }
            other => return Err(mismatch(field, other)),
        }
    }
    let columns = vec![array_of(key_field, &keys)?, array_of(value_field, &items)?];
    let child = StructArray::try_new(pair.clone(), columns, None).map_err(|e| LsmError::Rows(e.to_string()))?;
    MapArray::try_new(entries.clone(), OffsetBuffer::from_lengths(lengths), child, validity(values), false)
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| LsmError::Rows(e.to_string()))
}

fn structs(field: &FieldRef, fields: &arrow::datatypes::Fields, values: &[&Value]) -> Result<ArrayRef, LsmError> {
    let mut columns = Vec::with_capacity(fields.len());
    for (i, child) in fields.iter().enumerate() {
        let nulls = Value::Null;
        let cells = values
            .iter()
            .map(|value| match value {
                Value::Null => Ok(&nulls),
                Value::Row(cells) if cells.len() == fields.len() => Ok(cells.get(i).unwrap_or(&nulls)),
                other => Err(mismatch(field, other)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        // A required field under a null row has no value to give: build it as nullable, the row's null hides it.
        let lenient = Arc::new(child.as_ref().clone().with_nullable(true));
        let array = array_of(&lenient, &cells)?;
        if !child.is_nullable() && values.iter().zip(&cells).any(|(row, cell)| !row.is_null() && cell.is_null()) {
            return Err(LsmError::Rows(format!("field `{}` is NOT NULL and a row has null there", child.name())));
        }
        columns.push(array);
    }
    StructArray::try_new_with_length(fields.clone(), columns, validity(values), values.len())
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| LsmError::Rows(e.to_string()))
}

/// The value at `row` of `array`, whose type came from [`crate::layout::arrow_type`]. Types that no layout makes read as null.
#[must_use]
pub fn value_at(array: &dyn Array, row: usize) -> Value {
    if row >= array.len() || array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        Arrow::Boolean => Value::Boolean(array.as_boolean().value(row)),
        Arrow::Int8 => Value::TinyInt(array.as_primitive::<Int8Type>().value(row)),
        Arrow::Int16 => Value::SmallInt(array.as_primitive::<Int16Type>().value(row)),
        Arrow::Int32 => Value::Int(array.as_primitive::<Int32Type>().value(row)),
        Arrow::Int64 => Value::BigInt(array.as_primitive::<Int64Type>().value(row)),
        Arrow::Float32 => Value::Float(array.as_primitive::<Float32Type>().value(row)),
        Arrow::Float64 => Value::Double(array.as_primitive::<Float64Type>().value(row)),
        Arrow::Decimal128(..) => Value::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        Arrow::Utf8 => Value::String(array.as_string::<i32>().value(row).to_owned()),
        Arrow::Binary => Value::Bytes(array.as_binary::<i32>().value(row).to_owned()),
        Arrow::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        Arrow::Time32(_) => Value::Time(array.as_primitive::<Time32MillisecondType>().value(row)),
        Arrow::Timestamp(TimeUnit::Millisecond, _) => {
            Value::Timestamp { millis: array.as_primitive::<TimestampMillisecondType>().value(row), nanos: 0 }
        }
        Arrow::Timestamp(TimeUnit::Microsecond, _) => {
            timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000, 1_000)
        }
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => {
            timestamp(array.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000, 1)
        }
        Arrow::List(_) => Value::Array(all(&array.as_list::<i32>().value(row))),
        Arrow::Map(..) => {
            let pairs = array.as_map().value(row);
            let column = |i: usize| pairs.columns().get(i).map(all).unwrap_or_default();
            Value::Map(column(0).into_iter().zip(column(1)).collect())
        }
        Arrow::Struct(_) => Value::Row(array.as_struct().columns().iter().map(|c| value_at(c, row)).collect()),
        _ => Value::Null,
    }
}

fn timestamp(ticks: i64, per_milli: i64, nanos_per_tick: i64) -> Value {
    let nanos = u32::try_from(ticks.rem_euclid(per_milli) * nanos_per_tick).unwrap_or(0);
    Value::Timestamp { millis: ticks.div_euclid(per_milli), nanos }
}

fn all(array: &ArrayRef) -> Vec<Value> {
    (0..array.len()).map(|i| value_at(array, i)).collect()
}

/// A row of values of the columns at `indices`.
#[must_use]
pub fn row_at(batch: &RecordBatch, indices: &[usize], row: usize) -> Vec<Value> {
    indices.iter().map(|&i| batch.columns().get(i).map_or(Value::Null, |c| value_at(c, row))).collect()
}

/// A column of nulls, for columns that a file does not have.
pub(crate) fn nulls(field: &FieldRef, rows: usize) -> ArrayRef {
    new_null_array(field.data_type(), rows)
}
