//! Statistics of a finished data file, from its Parquet footer (paimon-format.md section 5).
//!
//! Neighbours: `writer`. Invariants: 1. a stored minimum is never above, a maximum never below any value; 2. what is unknown is null:
//! nested columns, columns with NaN, bytes (as Java does); 3. a truncated maximum is incremented, or both are null; 4. key statistics
//! bound each key column by itself: the first and the last key do so for the leading column only.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType as Arrow, Float32Type, Float64Type},
};
use parquet::file::{metadata::ParquetMetaData, statistics::Statistics};
use siltstone_format::{
    binary_row::encode_row,
    data_file::SimpleStats,
    options::StatsMode,
    stats::{truncate_max, truncate_min},
    types::{DataType, TypeKind},
    value::Value,
};

use crate::{error::LsmError, layout::FileLayout, writer::WriterSettings};

/// Key statistics, column by column, nothing null; `first` and `last` are the ends of the file in key order.
pub(crate) fn key_stats(
    layout: &FileLayout,
    footer: &ParquetMetaData,
    (first, last): (&[Value], &[Value]),
    nan: &[bool],
) -> Result<SimpleStats, LsmError> {
    let system = system_columns(layout);
    let types = layout.key_types();
    let (mut mins, mut maxs) = (Vec::new(), Vec::new());
    for (place, (column, data_type)) in layout.key().iter().zip(&types).enumerate() {
        let (min, max) = match (place, first.first(), last.first()) {
            (0, Some(min), Some(max)) => (min.clone(), max.clone()),
            _ if nan.get(*column).copied().unwrap_or(true) => (Value::Null, Value::Null),
            _ => {
                let range = column_range(footer, layout, system + column, data_type);
                (range.min, range.max)
            }
        };
        mins.push(min);
        maxs.push(max);
    }
    let null_counts = vec![Some(0); types.len()];
    Ok(SimpleStats { min: encode_row(&mins, &types)?, max: encode_row(&maxs, &types)?, null_counts })
}

/// Columns of a file before those of the table.
fn system_columns(layout: &FileLayout) -> usize {
    layout.file().fields().len() - layout.values().fields().len()
}

/// Whether a float column holds a NaN: its order differs between engines, so its range is left out.
pub(crate) fn has_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        Arrow::Float32 => column.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan()),
        Arrow::Float64 => column.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan()),
        _ => false,
    }
}

/// Value statistics with the names of their columns: `None` when all columns are there, with statistics or null.
pub(crate) fn value_stats(
    layout: &FileLayout,
    footer: &ParquetMetaData,
    settings: &WriterSettings,
    nan: &[bool],
) -> Result<(SimpleStats, Option<Vec<String>>), LsmError> {
    let system = system_columns(layout);
    let (mut types, mut mins, mut maxs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut null_counts, mut names) = (Vec::new(), Vec::new());
    for (i, field) in layout.table().fields.iter().enumerate() {
        let mode = settings.stats.get(i).copied().unwrap_or(StatsMode::None);
        let column = match mode {
            StatsMode::None if settings.stats_dense => continue,
            StatsMode::None => ColumnRange::unknown(),
            _ => column_range(footer, layout, system + i, &field.data_type),
        };
        let (min, max) = match mode {
            _ if nan.get(i).copied().unwrap_or(true) => (Value::Null, Value::Null),
            StatsMode::Counts | StatsMode::None => (Value::Null, Value::Null),
            StatsMode::Truncate(n) => truncate(column.min, column.max, n),
            StatsMode::Full => (column.min, column.max),
        };
        types.push(DataType { kind: field.data_type.kind.clone(), nullable: true });
        mins.push(min);
        maxs.push(max);
        null_counts.push(column.nulls);
        names.push(field.name.clone());
    }
    if names.is_empty() {
        return Ok((SimpleStats::empty(), Some(Vec::new())));
    }
    let dense = (names.len() < layout.table().fields.len()).then_some(names);
    let stats = SimpleStats { min: encode_row(&mins, &types)?, max: encode_row(&maxs, &types)?, null_counts };
    Ok((stats, dense))
}

struct ColumnRange {
    min: Value,
    max: Value,
    nulls: Option<i64>,
}

impl ColumnRange {
    const fn unknown() -> Self {
        Self { min: Value::Null, max: Value::Null, nulls: None }
    }
}

/// Merges a root column's statistics over all row groups; nested columns have no leaf of their own and stay unknown.
fn column_range(footer: &ParquetMetaData, layout: &FileLayout, root: usize, data_type: &DataType) -> ColumnRange {
    let unknown = ColumnRange::unknown();
    let nested =
        matches!(data_type.kind, TypeKind::Array(_) | TypeKind::Map(..) | TypeKind::Multiset(_) | TypeKind::Row(_));
    let Some(name) = layout.file().fields().get(root).map(|f| f.name().as_str()).filter(|_| !nested) else {
        return unknown;
    };
    let (mut range, mut nulls): (Option<(Value, Value)>, Option<i64>) = (None, Some(0));
    let mut complete = true;
    for group in footer.row_groups() {
        let leaf = group.columns().iter().find(|c| c.column_path().parts() == [name]);
        let Some((column, stats)) = leaf.and_then(|c| c.statistics().map(|s| (c, s))) else { return unknown };
        let null_count = stats.null_count_opt().and_then(|n| i64::try_from(n).ok());
        nulls = nulls.zip(null_count).map(|(a, b)| a + b);
        let all_null = null_count == Some(column.num_values());
        match bounds(stats, data_type) {
            Some((low, high)) => {
                range = Some(match range {
                    None => (low, high),
                    Some((min, max)) => (lesser(min, low), greater(max, high)),
                });
            }
            None if all_null => {}
            None => complete = false,
        }
    }
    match range.filter(|_| complete) {
        Some((min, max)) => ColumnRange { min, max, nulls },
        None => ColumnRange { nulls, ..unknown },
    }
}

fn lesser(a: Value, b: Value) -> Value {
    if b.compare(&a) == std::cmp::Ordering::Less { b } else { a }
}

fn greater(a: Value, b: Value) -> Value {
    if b.compare(&a) == std::cmp::Ordering::Greater { b } else { a }
}

/// Typed bounds of one chunk.
fn bounds(stats: &Statistics, data_type: &DataType) -> Option<(Value, Value)> {
    let int = |v: i64| integer(v, data_type);
    match stats {
        Statistics::Boolean(s) => Some((Value::Boolean(*s.min_opt()?), Value::Boolean(*s.max_opt()?))),
        Statistics::Int32(s) => Some((int(i64::from(*s.min_opt()?))?, int(i64::from(*s.max_opt()?))?)),
        Statistics::Int64(s) => Some((int(*s.min_opt()?)?, int(*s.max_opt()?)?)),
        Statistics::Float(s) => Some((Value::Float(*s.min_opt()?), Value::Float(*s.max_opt()?))),
        Statistics::Double(s) => Some((Value::Double(*s.min_opt()?), Value::Double(*s.max_opt()?))),
        Statistics::ByteArray(s) => {
            Some((text(s.min_opt()?.data(), data_type)?, text(s.max_opt()?.data(), data_type)?))
        }
        Statistics::FixedLenByteArray(s) => {
            Some((decimal(s.min_opt()?.data(), data_type)?, decimal(s.max_opt()?.data(), data_type)?))
        }
        Statistics::Int96(_) => None,
    }
}

fn integer(v: i64, data_type: &DataType) -> Option<Value> {
    let timestamp = |per_milli: i64, nanos: i64| {
        Some(Value::Timestamp {
            millis: v.div_euclid(per_milli),
            nanos: u32::try_from(v.rem_euclid(per_milli) * nanos).ok()?,
        })
    };
    match data_type.kind {
        TypeKind::TinyInt => v.try_into().ok().map(Value::TinyInt),
        TypeKind::SmallInt => v.try_into().ok().map(Value::SmallInt),
        TypeKind::Int => v.try_into().ok().map(Value::Int),
        TypeKind::BigInt => Some(Value::BigInt(v)),
        TypeKind::Date => v.try_into().ok().map(Value::Date),
        TypeKind::Time(_) => v.try_into().ok().map(Value::Time),
        TypeKind::Decimal { .. } => Some(Value::Decimal(i128::from(v))),
        TypeKind::Timestamp(p) | TypeKind::LocalTimestamp(p) => match p {
            0..=3 => timestamp(1, 0),
            4..=6 => timestamp(1_000, 1_000),
            _ => timestamp(1_000_000, 1),
        },
        _ => None,
    }
}

fn text(bytes: &[u8], data_type: &DataType) -> Option<Value> {
    match data_type.kind {
        TypeKind::Char(_) | TypeKind::VarChar(_) => String::from_utf8(bytes.to_vec()).ok().map(Value::String),
        _ => None,
    }
}

fn decimal(bytes: &[u8], data_type: &DataType) -> Option<Value> {
    if !matches!(data_type.kind, TypeKind::Decimal { .. }) || bytes.len() > 16 {
        return None;
    }
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 16];
    let start = 16 - bytes.len();
    wide.get_mut(start..)?.copy_from_slice(bytes);
    Some(Value::Decimal(i128::from_be_bytes(wide)))
}

/// Cuts text bounds to `n` characters; a maximum that cannot be raised makes both unknown.
fn truncate(min: Value, max: Value, n: usize) -> (Value, Value) {
    match truncate_max(max, n) {
        Some(max) => (truncate_min(min, n), max),
        None => (Value::Null, Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_big_endian_decimals_keep_their_sign() {
        let d = DataType { kind: TypeKind::Decimal { precision: 20, scale: 2 }, nullable: true };
        assert_eq!(decimal(&[0xff, 0xfe], &d), Some(Value::Decimal(-2)));
        assert_eq!(decimal(&[0x01, 0x00], &d), Some(Value::Decimal(256)));
        assert_eq!(decimal(&[0x7f; 16], &d), Some(Value::Decimal(i128::from_be_bytes([0x7f; 16]))));
    }

    #[test]
    fn bytes_that_are_no_decimal_have_no_bounds() {
        let d = DataType { kind: TypeKind::Decimal { precision: 38, scale: 2 }, nullable: true };
        assert_eq!(decimal(&[0; 17], &d), None);
        assert_eq!(decimal(&[1], &DataType { kind: TypeKind::Binary(1), nullable: true }), None);
    }
}
