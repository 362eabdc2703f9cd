//! Builders for data file descriptions in this crate's tests: one BIGINT key, shown as a number.

use std::{cmp::Ordering, ops::RangeInclusive};

use siltstone_format::{
    data_file::{DataFileMeta, FileSource, SimpleStats, StoredRow},
    id::{Level, SchemaId, SequenceNumber},
};

/// A key row whose bytes are the big-endian number: enough for tests that never decode it.
pub(crate) fn key(n: i64) -> StoredRow {
    StoredRow { arity: 1, bytes: n.to_be_bytes().to_vec() }
}

/// Order of [`key`]s (not negative).
pub(crate) fn keys(a: &StoredRow, b: &StoredRow) -> Ordering {
    a.bytes.cmp(&b.bytes)
}

pub(crate) struct FileBuilder(DataFileMeta);

/// A file of 100 bytes on `level` with keys `range` and the largest sequence number `sequence`.
pub(crate) fn file(name: &str, level: i32, range: RangeInclusive<i64>, sequence: i64) -> FileBuilder {
    let (min, max) = (key(*range.start()), key(*range.end()));
    let stats = SimpleStats { min: min.clone(), max: max.clone(), null_counts: vec![Some(0)] };
    let none = StoredRow { arity: 0, bytes: vec![0; 8] };
    FileBuilder(DataFileMeta {
        file_name: name.to_owned(),
        file_size: 100,
        row_count: range.end() - range.start() + 1,
        min_key: min,
        max_key: max,
        key_stats: stats,
        value_stats: SimpleStats { min: none.clone(), max: none, null_counts: vec![] },
        min_sequence_number: SequenceNumber(sequence),
        max_sequence_number: SequenceNumber(sequence),
        schema_id: SchemaId(0),
        level: Level(level),
        extra_files: vec![],
        creation_time_ms: Some(0),
        delete_row_count: Some(0),
        embedded_index: None,
        file_source: Some(FileSource::Append),
        value_stats_cols: Some(vec![]),
        external_path: None,
        first_row_id: None,
        write_cols: None,
    })
}

impl FileBuilder {
    pub(crate) fn size(mut self, bytes: i64) -> Self {
        self.0.file_size = bytes;
        self
    }

    pub(crate) fn deletes(mut self, rows: i64) -> Self {
        self.0.delete_row_count = Some(rows);
        self
    }

    pub(crate) fn created(mut self, ms: i64) -> Self {
        self.0.creation_time_ms = Some(ms);
        self
    }

    pub(crate) fn build(self) -> DataFileMeta {
        self.0
    }
}
