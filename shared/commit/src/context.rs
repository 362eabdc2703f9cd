//! What every protocol is told about its table: where it is, whose authority it is under, and how to read its rows.
//!
//! Neighbours: `protocol` passes it along; the table options that matter here are parsed by the caller into [`Settings`].
//! Invariant: 1. every object key comes from the location, so nothing outside the table's prefix is ever touched.

use std::{fmt, sync::Arc};

pub use siltstone_format::path::TableLocation;
use siltstone_format::{
    compare::KeyComparator,
    path::{DEFAULT_PARTITION_NAME, PartitionPaths},
    schema::TableSchema,
    types::DataType,
};

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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            manifest_target_size: 8 << 20,
            manifest_full_threshold: 16 << 20,
            manifest_merge_min_count: 30,
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
    /// Whose word counts.
    pub authority: Authority,
    /// The life of the table that the caller planned in; another one is refused. `None` takes whatever the pointer says.
    pub incarnation: Option<Incarnation>,
    /// Limits.
    pub settings: Settings,
    pub(crate) shape: Arc<Shape>,
}

impl TableContext {
    /// A table under a pointer, of whatever incarnation, with Paimon's default settings.
    #[must_use]
    pub fn new(location: TableLocation, schema: Arc<TableSchema>) -> Self {
        let option = |name: &str| schema.options.get(name).map(String::as_str);
        let default_name = option("partition.default-name").unwrap_or(DEFAULT_PARTITION_NAME);
        let legacy = option("partition.legacy-name").is_none_or(|v| !v.eq_ignore_ascii_case("false"));
        let shape = Shape {
            keys: KeyComparator::new(schema.types_at(&schema.trimmed_primary_key())),
            partition_types: schema.types_at(&schema.partition_indices()),
            partition_paths: PartitionPaths::new(&schema, default_name, legacy),
            data_directory: option("data-file.path-directory").map(str::to_owned),
        };
        let settings = Settings::default();
        Self { location, schema, authority: Authority::Pointer, incarnation: None, settings, shape: Arc::new(shape) }
    }

    /// The key of something below the table.
    #[must_use]
    pub fn key(&self, relative: &str) -> String {
        format!("{}/{relative}", self.location.root())
    }
}
