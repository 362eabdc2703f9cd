//! What every protocol is told about its table: where it is, whose authority it is under, and how to read its rows.
//!
//! Neighbours: `protocol` passes it along; the table options that matter here are parsed by the caller into [`Settings`].
//! Invariant: 1. every object key comes from [`TableLocation`], so nothing outside the table's prefix is ever touched.

use std::{fmt, sync::Arc};

use siltstone_format::{
    id::{SchemaId, SnapshotId},
    schema::TableSchema,
};

/// Directory of Siltstone's own objects below the table; no engine lists it.
pub const OWN_DIRECTORY: &str = "siltstone";

/// Key prefix of a table, as in `warehouse/db.db/orders`, without a slash at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableLocation(String);

impl TableLocation {
    /// Takes the prefix; slashes at the ends are dropped.
    pub fn new(prefix: impl AsRef<str>) -> Self {
        Self(prefix.as_ref().trim_matches('/').to_owned())
    }

    /// The prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of something below the table.
    #[must_use]
    pub fn key(&self, relative: &str) -> String {
        if self.0.is_empty() { relative.to_owned() } else { format!("{}/{relative}", self.0) }
    }

    /// What lies below the table, for a key of it.
    #[must_use]
    pub fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.0.is_empty() { Some(key) } else { key.strip_prefix(self.0.as_str())?.strip_prefix('/') }
    }

    /// `snapshot/snapshot-<id>`
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> String {
        self.key(&format!("snapshot/snapshot-{id}"))
    }

    /// `schema/schema-<id>`
    #[must_use]
    pub fn schema(&self, id: SchemaId) -> String {
        self.key(&format!("schema/schema-{id}"))
    }

    /// `manifest/<name>`, for manifests and manifest lists.
    #[must_use]
    pub fn manifest(&self, name: &str) -> String {
        self.key(&format!("manifest/{name}"))
    }
}

impl fmt::Display for TableLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
        format!("siltstone-{}", self.0)
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
}
