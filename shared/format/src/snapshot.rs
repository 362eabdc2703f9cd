//! A snapshot object (`snapshot/snapshot-<id>`; paimon-format.md section 3).
//!
//! Neighbours: `commit` makes one per committed change; readers start from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{CommitIdentifier, SchemaId, SnapshotId};

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CommitKind {
    /// New data.
    Append,
    /// Rewritten or moved data, same rows.
    Compact,
    /// Replaced data.
    Overwrite,
    /// Statistics only.
    Analyze,
}

/// One committed state of a table, as JSON with these field names (camelCase).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Layout version, 3.
    #[serde(default = "current_version")]
    pub version: i32,
    /// Random id of this very object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Id, equal to the file name's.
    pub id: SnapshotId,
    /// Latest schema id when committed.
    pub schema_id: SchemaId,
    /// List of all manifests of the state before this commit, possibly merged.
    pub base_manifest_list: String,
    /// Exact size of the base list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_manifest_list_size: Option<i64>,
    /// List of this commit's manifests.
    pub delta_manifest_list: String,
    /// Exact size of the delta list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_manifest_list_size: Option<i64>,
    /// List of this commit's changelog manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changelog_manifest_list: Option<String>,
    /// Exact size of the changelog list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changelog_manifest_list_size: Option<i64>,
    /// Index manifest, carried over while unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_manifest: Option<String>,
    /// Who committed.
    pub commit_user: String,
    /// Grows per commit user.
    pub commit_identifier: CommitIdentifier,
    /// What the commit did.
    pub commit_kind: CommitKind,
    /// Commit time in ms since 1970; never below the previous snapshot's.
    pub time_millis: i64,
    /// Physical rows of all live files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_record_count: Option<i64>,
    /// Physical rows added minus deleted by this commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_record_count: Option<i64>,
    /// Rows of this commit's changelog files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changelog_record_count: Option<i64>,
    /// Event-time watermark, carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Statistics file, carried over while the schema id is unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
    /// Private properties; not inherited. Siltstone keeps its checkpoints here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Row tracking; carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_row_id: Option<i64>,
    /// Fields this version does not know, kept so that a rewrite loses nothing.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

fn current_version() -> i32 {
    3
}
