//! What every protocol is told about its table: where it is, whose authority it is under, and how to read its rows.
//!
//! Neighbours: `protocol` passes it along; the table options that matter here are parsed by the caller into [`Settings`].
//! Invariant: 1. every object key comes from the location, so nothing outside the table's prefix is ever touched.

use std::{fmt, sync::Arc};

pub use siltstone_format::path::TableLocation;
use siltstone_format::{
    avro::Compression, compare::KeyComparator, options::TableOptions, path::PartitionPaths, schema::TableSchema,
    types::DataType,
};

use crate::error::CommitError;

const USER_PREFIX: &str = "siltstone-";
/// Directory of Siltstone's own objects below the table; no engine lists it.
pub const OWN_DIRECTORY: &str = "siltstone";

/// Who decides which snapshot is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authority {
    /// Siltstone's pointer: one conditional write.
    Pointer,
    /// Nobody: a plain Paimon warehouse. `snapshot-N` is put if absent, which protects against other conditional writers only.
    Bare,
}

/// One life of a table under a pointer; a new one begins with creation and with every restore.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub String);

impl Incarnation {
    /// `commitUser` of every snapshot of this life.
    #[must_use]
    pub fn commit_user(&self) -> String {
        format!("{USER_PREFIX}{}", self.0)
    }

    /// True for the user of any life of any table of Siltstone.
    #[must_use]
    pub fn is_ours(commit_user: &str) -> bool {
        commit_user.starts_with(USER_PREFIX)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Limits and sizes; the defaults are Paimon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Lost races before a protocol gives up (`commit.max-retries`).
    pub max_attempts: u32,
    /// `manifest.target-file-size`, bytes.
    pub manifest_target_size: u64,
    /// `manifest.full-compaction-threshold-size`, bytes.
    pub manifest_full_threshold: u64,
    /// `manifest.merge-min-count`.
    pub manifest_merge_min_count: usize,
    /// `manifest.compression`.
    pub manifest_compression: Compression,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            manifest_target_size: 8 << 20,
            manifest_full_threshold: 16 << 20,
            manifest_merge_min_count: 30,
            manifest_compression: Compression::Zstandard,
        }
    }
}

/// What is derived from the schema once.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) keys: KeyComparator,
    pub(crate) partition_types: Vec<DataType>,
    pub(crate) partition_paths: PartitionPaths,
    pub(crate) data_directory: Option<String>,
}

/// A table, as every protocol sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TableContext {
    /// Where.
    pub location: TableLocation,
    /// Latest schema known to the caller: types of the key and partition columns, partition defaults.
    pub schema: Arc<TableSchema>,
    /// CRC-32 of the bytes of its object, where the caller has read them: snapshots vouch for it.
    pub schema_sum: Option<u32>,
    /// Whose word counts.
    pub authority: Authority,
    /// The life of the table that the caller planned in; another one is refused. `None` takes whatever the pointer says.
    pub incarnation: Option<Incarnation>,
    /// Limits.
    pub settings: Settings,
    pub(crate) shape: Arc<Shape>,
}

impl TableContext {
    /// A table under a pointer, of whatever incarnation, with the settings of its options.
    ///
    /// # Errors
    /// `InvalidInput` for an option whose value cannot be read. What is not done with the table is the caller's to refuse.
    pub fn new(location: TableLocation, schema: Arc<TableSchema>) -> Result<Self, CommitError> {
        let options = TableOptions::from_schema(&schema)?;
        let shape = Shape {
            keys: KeyComparator::new(schema.types_at(&schema.trimmed_primary_key())),
            partition_types: schema.types_at(&schema.partition_indices()),
            partition_paths: options.partition_paths(&schema),
            data_directory: options.files.path_directory.clone(),
        };
        let settings = Settings {
            max_attempts: options.commit.max_retries.saturating_add(1),
            manifest_target_size: options.manifests.target_size.unsigned_abs(),
            manifest_full_threshold: options.manifests.full_compaction_threshold.unsigned_abs(),
            manifest_merge_min_count: options.manifests.merge_min_count,
            manifest_compression: options.manifests.compression,
        };
        let (authority, shape) = (Authority::Pointer, Arc::new(shape));
        Ok(Self { location, schema, schema_sum: None, authority, incarnation: None, settings, shape })
    }

    /// The key of something below the table.
    #[must_use]
    pub fn key(&self, relative: &str) -> String {
        format!("{}/{relative}", self.location.root())
    }
}
