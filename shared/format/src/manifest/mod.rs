//! Manifest entries and manifest list rows (paimon-format.md section 4).
//!
//! Below: `entry`, `list` and `index` (bytes), `layout` (Avro schemas), `codec` (what both share). Neighbours: `data_file` for `_FILE`;
//! `commit` merges and applies entries.

mod codec;
mod entry;
mod index;
mod layout;
mod list;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    codec::MAX_ROWS,
    entry::{decode_manifest, encode_manifest, encode_manifest_with, pack_entries, unpack_entries},
    index::{IndexFile, decode_index_manifest},
    list::{decode_manifest_list, encode_manifest_list, encode_manifest_list_with},
};
use crate::{
    data_file::{DataFileMeta, SimpleStats, StoredRow},
    id::{Bucket, Level, SchemaId},
};

/// Whether an entry adds or deletes its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The file becomes live.
    Add,
    /// The file is no longer live.
    Delete,
}

/// One row of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestEntry {
    /// Added or deleted.
    pub kind: FileKind,
    /// Partition row; arity 0 on tables without partitions.
    pub partition: StoredRow,
    /// Bucket in the partition.
    pub bucket: Bucket,
    /// Bucket count of the partition when the file was written.
    pub total_buckets: i32,
    /// The file.
    pub file: DataFileMeta,
}

/// What makes two entries speak of one file: a DELETE removes the ADD with an equal identity (a new level is a new identity).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Partition row.
    pub partition: StoredRow,
    /// Bucket.
    pub bucket: Bucket,
    /// Level.
    pub level: Level,
    /// Name.
    pub file_name: String,
    /// Side files.
    pub extra_files: Vec<String>,
    /// Embedded index bytes.
    pub embedded_index: Option<Vec<u8>>,
    /// Full path where set.
    pub external_path: Option<String>,
}

impl ManifestEntry {
    /// The identity of this entry's file.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        FileIdentity {
            partition: self.partition.clone(),
            bucket: self.bucket,
            level: self.file.level,
            file_name: self.file.file_name.clone(),
            extra_files: self.file.extra_files.clone(),
            embedded_index: self.file.embedded_index.clone(),
            external_path: self.file.external_path.clone(),
        }
    }
}

/// One row of a manifest list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestFileMeta {
    /// Name without path.
    pub file_name: String,
    /// Exact size in bytes.
    pub file_size: i64,
    /// ADD entries, exact.
    pub num_added_files: i64,
    /// DELETE entries, exact.
    pub num_deleted_files: i64,
    /// Statistics of the partition columns over all entries, full arity.
    pub partition_stats: SimpleStats,
    /// Largest schema id of the entries.
    pub schema_id: SchemaId,
    /// Smallest and largest bucket, for pruning; `None` where an older writer did not say.
    pub buckets: Option<(Bucket, Bucket)>,
    /// Smallest and largest level, for pruning; `None` where an older writer did not say.
    pub levels: Option<(Level, Level)>,
}
