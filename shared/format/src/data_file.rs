//! The description of one data file in a manifest (`_FILE`; paimon-format.md section 5).
//!
//! Neighbours: `manifest` carries it per entry, `lsm` makes it when a file is closed, `commit` compares identities.
//! Rows are kept as BinaryRow bytes without the arity prefix together with their arity: DELETE entries must repeat them verbatim.

use crate::id::{Level, SchemaId, SequenceNumber};

/// A BinaryRow as stored in manifests: arity and the bytes behind the arity prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredRow {
    /// Number of fields.
    pub arity: i32,
    /// BinaryRow bytes (header, null bits, slots, variable part).
    pub bytes: Vec<u8>,
}

/// Statistics over some columns of a file or manifest. Minima and maxima are rows of nullable columns (null: unknown).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SimpleStats {
    /// Smallest values.
    pub min: StoredRow,
    /// Largest values.
    pub max: StoredRow,
    /// Nulls per column; `None` where unknown. Never absent as a whole: Java's readers fail on that.
    pub null_counts: Vec<Option<i64>>,
}

/// Where a data file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileSource {
    /// Written by a writer; kept when the file is upgraded.
    Append,
    /// Written by a compaction.
    Compact,
}

/// One data file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataFileMeta {
    /// Name without path; ends in its format.
    pub file_name: String,
    /// Exact size in bytes.
    pub file_size: i64,
    /// Exact number of rows.
    pub row_count: i64,
    /// Trimmed primary key of the first row, untruncated.
    pub min_key: StoredRow,
    /// Trimmed primary key of the last row, untruncated.
    pub max_key: StoredRow,
    /// Statistics of the key columns, full arity.
    pub key_stats: SimpleStats,
    /// Statistics of the value columns named by `value_stats_cols`.
    pub value_stats: SimpleStats,
    /// Smallest sequence number of any row.
    pub min_sequence_number: SequenceNumber,
    /// Largest sequence number of any row (may be padded upwards).
    pub max_sequence_number: SequenceNumber,
    /// Schema the file was written under.
    pub schema_id: SchemaId,
    /// Level in the LSM tree.
    pub level: Level,
    /// Side files of this file.
    pub extra_files: Vec<String>,
    /// Milliseconds since 1970 (Java writes local wall-clock time as if UTC).
    pub creation_time_ms: Option<i64>,
    /// Rows of kind -D or -U; `None` where an old writer did not say.
    pub delete_row_count: Option<i64>,
    /// Index bytes kept in the manifest; part of the identity.
    pub embedded_index: Option<Vec<u8>>,
    /// Origin.
    pub file_source: Option<FileSource>,
    /// Columns of `value_stats`: `None` all, empty none.
    pub value_stats_cols: Option<Vec<String>>,
    /// Full path, where the file is not in the table's directory.
    pub external_path: Option<String>,
    /// Row tracking (append tables); carried verbatim.
    pub first_row_id: Option<i64>,
    /// Partial-column files (append tables); carried verbatim.
    pub write_cols: Option<Vec<String>>,
}
