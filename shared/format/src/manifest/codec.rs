//! Rows and statistics inside manifests, shared by `entry` and `list`.
//!
//! Below: `layout`, `avro`. Invariants: 1. a row's arity fits its bytes before it is kept; 2. null counts are as many as columns.

use super::layout::{StatsField, StatsPlan, StatsStep};
use crate::{
    avro::{
        container::Reader,
        cursor::{Cursor, Fault, put_array, put_bytes, put_long, put_optional},
        schema::Schema,
    },
    binary_row::{MAX_ARITY, is_long_enough},
    data_file::{SimpleStats, StoredRow},
    error::{FormatError, Result},
};

/// Most entries of one manifest and most manifests of one list that are read. Java's manifests of 8 MB hold some 10,000 entries.
pub const MAX_ROWS: usize = 4_000_000;
/// The only layout of entries that Java takes.
pub(super) const ENTRY_VERSION: i32 = 2;

/// Where a value that cannot be read stands.
pub(super) struct Damage {
    pub(super) field: &'static str,
    pub(super) fault: Fault,
}

/// Reads all rows of a container file with `read`, which gets a cursor and says what is damaged.
pub(super) fn read_rows<R>(
    object: &str,
    mut reader: Reader<'_>,
    wrapped: bool,
    mut read: impl FnMut(&mut Cursor<'_>) -> std::result::Result<R, Damage>,
) -> Result<Vec<R>> {
    let mut out = Vec::new();
    while let Some(block) = reader.next_block()? {
        if out.len() + block.rows > MAX_ROWS {
            return Err(FormatError::corrupt(object, format!("it has more than the {MAX_ROWS} rows that are read")));
        }
        // A row takes at least some 40 bytes: a damaged count reserves no more than its block explains.
        out.reserve(block.rows.min(block.bytes.len().div_ceil(40)));
        let mut cursor = Cursor::new(&block.bytes);
        for _ in 0..block.rows {
            let present = if wrapped { cursor.present() } else { Ok(true) };
            let row = match present {
                Ok(true) => read(&mut cursor),
                Ok(false) => Err(Damage { field: "row", fault: "is null" }),
                Err(fault) => Err(Damage { field: "row", fault }),
            };
            let detail =
                |d: Damage| FormatError::corrupt(object, format!("row {}, {}: {}", out.len(), d.field, d.fault));
            let row = row.map_err(detail)?;
            out.push(row);
        }
        if !cursor.is_empty() {
            return Err(FormatError::corrupt(
                object,
                format!("{} bytes are left over behind row {}", cursor.remaining(), out.len()),
            ));
        }
    }
    Ok(out)
}

/// The record of a file's rows and whether a union wraps it.
pub(super) fn row_fields<'s>(object: &str, schema: &'s Schema) -> Result<(&'s [(String, Schema)], bool)> {
    schema.top_level().ok_or_else(|| FormatError::corrupt(object, "its Avro schema is no record"))
}

pub(super) fn read_row(bytes: &[u8]) -> std::result::Result<StoredRow, Fault> {
    let (prefix, row) = bytes.split_first_chunk::<4>().ok_or("a row is too short")?;
    let arity = i32::from_be_bytes(*prefix);
    if !(0..=MAX_ARITY).contains(&arity) || !is_long_enough(row, arity) {
        return Err("a row is too short for the columns it claims");
    }
    Ok(StoredRow { arity, bytes: row.to_vec() })
}

pub(super) fn read_stats(cursor: &mut Cursor<'_>, plan: &StatsPlan<'_>) -> std::result::Result<SimpleStats, Fault> {
    let (mut min, mut max, mut counts) = (None, None, None);
    for step in &plan.steps {
        match step {
            StatsStep::Skip(schema) => cursor.skip(schema)?,
            StatsStep::Read { field: StatsField::Min, .. } => min = Some(read_row(cursor.bytes()?)?),
            StatsStep::Read { field: StatsField::Max, .. } => max = Some(read_row(cursor.bytes()?)?),
            StatsStep::Read { field: StatsField::NullCounts, nullable, nullable_items } => {
                if !*nullable || cursor.present()? {
                    let mut out = Vec::new();
                    cursor.array(|cursor| {
                        let known = !*nullable_items || cursor.present()?;
                        out.push(if known { Some(cursor.long()?) } else { None });
                        Ok(())
                    })?;
                    counts = Some(out);
                }
            }
        }
    }
    let (Some(min), Some(max)) = (min, max) else { return Err("statistics lack a minimum or maximum") };
    if min.arity != max.arity {
        return Err("statistics have other than as many minima as maxima");
    }
    let columns = usize::try_from(min.arity).unwrap_or_default();
    let null_counts = counts.unwrap_or_else(|| vec![None; columns]);
    if null_counts.len() != columns {
        return Err("statistics have other than as many null counts as columns");
    }
    Ok(SimpleStats { min, max, null_counts })
}

pub(super) fn put_row(out: &mut Vec<u8>, row: &StoredRow) {
    put_long(out, row.bytes.len() as i64 + 4);
    out.extend_from_slice(&row.arity.to_be_bytes());
    out.extend_from_slice(&row.bytes);
}

pub(super) fn put_stats(out: &mut Vec<u8>, stats: &SimpleStats) {
    put_row(out, &stats.min);
    put_row(out, &stats.max);
    put_optional(out, Some(&stats.null_counts), |out, counts| {
        put_array(out, counts, |out, count| put_optional(out, *count, put_long));
    });
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(super) fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    put_array(out, texts, |out, text| put_text(out, text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{Compression, container::Writer};

    #[test]
    fn as_many_rows_are_read_as_the_limit_says() {
        let rows = |count: usize| {
            let mut writer = Writer::new(r#"{"type":"record","name":"r","fields":[]}"#, Compression::None);
            for _ in 0..count {
                writer.row(|out| out.push(0)).unwrap();
            }
            let file = writer.finish().unwrap();
            let read = |cursor: &mut Cursor<'_>| cursor.long().map_err(|fault| Damage { field: "x", fault });
            read_rows("m", Reader::new("m", &file)?, false, read).map(|rows| rows.len())
        };
        assert_eq!(rows(MAX_ROWS).unwrap(), MAX_ROWS);
        assert!(rows(MAX_ROWS + 1).unwrap_err().to_string().contains("more than the"));
    }
}
