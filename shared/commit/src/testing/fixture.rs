//! Tables, data files and changes for tests. A data file's content is text: one line `key sequence-number shard position` per row.
//!
//! Neighbours: `monitor` reads these lines back to count rows. Invariant: 1. a file's metadata is what its lines say.

use std::{collections::BTreeMap, sync::Arc};

use siltstone_format::{
    binary_row::encode_row,
    data_file::{DataFileMeta, FileSource, SimpleStats, StoredRow},
    id::{Bucket, Level, SchemaId, SequenceNumber},
    manifest::{FileKind, ManifestEntry},
    path::TableLocation,
    schema::{Column, TableSchema},
    types::DataType,
    value::Value,
};

use super::world::World;
use crate::{
    changes::{Change, ChangeId, ChangeKind},
    checkpoint::{Position, ShardId, ShardRange},
    codec,
    context::TableContext,
    sequence::{Slot, padded},
};

/// A row of a test file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Primary key.
    pub key: i32,
    /// Sequence number.
    pub sequence: i64,
    /// Shard it came from.
    pub shard: u32,
    /// Position in that shard.
    pub position: u64,
}

/// Table `db.t`: INT key, one bucket count, no partitions.
///
/// # Panics
/// If the schema is not valid.
#[must_use]
pub fn context() -> TableContext {
    table(&[])
}

/// Table `db.t`, partitioned by `dt` (INT).
#[must_use]
pub fn partitioned() -> TableContext {
    table(&["dt"])
}

fn table(partitions: &[&str]) -> TableContext {
    let column = |name: &str, text: &str| DataType::parse(text).map(|t| Column::new(name, t));
    let columns = [("k", "INT NOT NULL"), ("dt", "INT NOT NULL"), ("v", "BIGINT")];
    let columns: Vec<Column> = columns.into_iter().filter_map(|(name, text)| column(name, text).ok()).collect();
    let partition: Vec<String> = partitions.iter().map(|p| (*p).to_owned()).collect();
    let mut primary = partition.clone();
    primary.push("k".to_owned());
    let options = BTreeMap::from([("bucket".to_owned(), "2".to_owned())]);
    let schema = TableSchema::create(columns, partition, primary, options, None, 1_700_000_000_000);
    let location = TableLocation::in_warehouse("wh", "db", "t");
    match (schema, location) {
        (Ok(schema), Ok(location)) => TableContext::new(location, Arc::new(schema)).unwrap_or_else(|e| panic!("{e}")),
        (schema, location) => panic!("{schema:?} {location:?}"),
    }
}

/// Name of shard `n`.
///
/// # Panics
/// Never.
#[must_use]
pub fn shard(n: u32) -> ShardId {
    ShardId::new(format!("shardId-{n:012}")).unwrap_or_else(|e| panic!("{e}"))
}

fn int_row(value: i32) -> StoredRow {
    encode_row(&[Value::Int(value)], &int_types()).unwrap_or_else(|e| panic!("{e}"))
}

fn int_types() -> Vec<DataType> {
    DataType::parse("INT NOT NULL").into_iter().collect()
}

/// Writes a data file and describes it.
pub fn data_file(
    world: &mut World,
    context: &TableContext,
    partition: Option<i32>,
    bucket: i32,
    level: i32,
    rows: &[Row],
) -> ManifestEntry {
    let name = format!("data-{}-0.parquet", world.uuid());
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let body: String = rows.iter().map(|r| format!("{} {} {} {}\n", r.key, r.sequence, r.shard, r.position)).collect();
    let (low, high) = (rows.first().map_or(0, |r| r.key), rows.last().map_or(0, |r| r.key));
    let sequences = rows.iter().map(|r| r.sequence);
    let (min, max) = (int_row(low), int_row(high));
    let none = SimpleStats { min: StoredRow::empty(), max: StoredRow::empty(), null_counts: Vec::new() };
    let file = DataFileMeta {
        file_name: name.clone(),
        file_size: i64::try_from(body.len()).unwrap_or(0),
        row_count: i64::try_from(rows.len()).unwrap_or(0),
        key_stats: SimpleStats { min: min.clone(), max: max.clone(), null_counts: vec![Some(0)] },
        min_key: min,
        max_key: max,
        value_stats: none,
        min_sequence_number: SequenceNumber(sequences.clone().min().unwrap_or(0)),
        max_sequence_number: padded(SequenceNumber(sequences.max().unwrap_or(0))),
        schema_id: SchemaId(0),
        level: Level(level),
        extra_files: Vec::new(),
        creation_time_ms: Some(world.now_ms),
        delete_row_count: Some(0),
        embedded_index: None,
        file_source: Some(if level == 0 { FileSource::Append } else { FileSource::Compact }),
        value_stats_cols: Some(Vec::new()),
        external_path: None,
        first_row_id: None,
        write_cols: None,
    };
    let partition = partition.map_or_else(StoredRow::empty, int_row);
    let entry = ManifestEntry { kind: FileKind::Add, partition, bucket: Bucket(bucket), total_buckets: 2, file };
    let key = codec::bucket_file(context, &entry, &name).unwrap_or_else(|e| panic!("{e}"));
    world.put(&key, body);
    entry
}

/// Merges files of one bucket into one with the newest row of each key.
pub fn compaction(
    world: &mut World,
    context: &TableContext,
    name: &str,
    inputs: &[ManifestEntry],
    level: Level,
) -> Change {
    let mut newest: BTreeMap<i32, Row> = BTreeMap::new();
    for entry in inputs {
        let key = codec::bucket_file(context, entry, &entry.file.file_name).unwrap_or_default();
        for row in world.objects.get(&key).map(|o| rows(&o.body)).unwrap_or_default() {
            let best = newest.entry(row.key).or_insert(row);
            if row.sequence > best.sequence {
                *best = row;
            }
        }
    }
    let created = world.now_ms;
    let mut change = Change::new(ChangeId::derive(name), ChangeKind::Compact, SchemaId(0), created);
    let merged: Vec<Row> = newest.into_values().collect();
    let bucket = inputs.first().map_or(0, |e| e.bucket.0);
    change.files = inputs.iter().map(delete).collect();
    change.files.push(data_file(world, context, None, bucket, level.0, &merged));
    change
}

/// The DELETE of a live file.
#[must_use]
pub fn delete(entry: &ManifestEntry) -> ManifestEntry {
    ManifestEntry { kind: FileKind::Delete, ..entry.clone() }
}

/// Reads a test file's lines.
#[must_use]
pub fn rows(body: &[u8]) -> Vec<Row> {
    let text = String::from_utf8_lossy(body);
    let row = |line: &str| {
        let mut parts = line.split(' ');
        Some(Row {
            key: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
            shard: parts.next()?.parse().ok()?,
            position: parts.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(row).collect()
}

/// Rows of positions `from+1 ..= to` of a shard, over few keys, numbered by the hybrid clock's layout.
#[must_use]
pub fn stream(n: u32, from: u64, to: u64, above: SequenceNumber, now_ms: i64) -> Vec<Row> {
    let slot = Slot(u16::try_from(n + 1).unwrap_or(1));
    let arrivals = (from..to).map(|_| now_ms);
    let numbers = crate::sequence::allocate(slot, [above], arrivals).unwrap_or_default();
    let key = |position: u64| i32::try_from((position * 7 + u64::from(n) * 3) % 11).unwrap_or(0);
    let positions = from + 1..=to;
    positions.zip(numbers).map(|(p, s)| Row { key: key(p), sequence: s.0, shard: n, position: p }).collect()
}

/// An append of one shard's range with the given files.
#[must_use]
pub fn append(n: u32, from: Option<u64>, to: u64, files: Vec<ManifestEntry>, created_after_ms: i64) -> Change {
    let id = ChangeId::derive(&format!("append {n} {from:?} {to}"));
    let mut change = Change::new(id, ChangeKind::Append, SchemaId(0), created_after_ms);
    let first = files.iter().map(|e| e.file.min_sequence_number).min();
    // The true last number, not the padded one that the metadata states.
    let last = files.iter().map(|e| e.file.max_sequence_number).max().unwrap_or(SequenceNumber(0));
    change.ranges.push(ShardRange {
        shard: shard(n),
        from: from.map(Position::from),
        to: to.into(),
        first_sequence: first,
        last_sequence: last,
        slot: Slot(u16::try_from(n + 1).unwrap_or(1)),
        parents: Vec::new(),
        list: None,
    });
    change.files = files;
    change
}

/// Writes the file of one batch and makes its change: positions `from+1 ..= to` into one bucket.
pub fn batch(
    world: &mut World,
    context: &TableContext,
    n: u32,
    from: Option<u64>,
    to: u64,
    above: SequenceNumber,
) -> Change {
    let created = world.now_ms;
    let partition = (!context.schema.partition_keys.is_empty()).then_some(1);
    let now = world.now_ms;
    let rows = stream(n, from.unwrap_or(0), to, above, now);
    let mut files = Vec::new();
    for bucket in 0..2 {
        let part: Vec<Row> = rows.iter().filter(|r| r.key % 2 == bucket).copied().collect();
        if !part.is_empty() {
            files.push(data_file(world, context, partition, bucket, 0, &part));
        }
    }
    append(n, from, to, files, created)
}
