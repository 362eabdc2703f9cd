//! What a snapshot says: its live data files, its changelog files, its neighbours.
//!
//! Neighbours: `commit` reads manifests and replays their entries; `scan`, `compact` and `inspect` read through here.
//! Invariant: 1. a missing or damaged object ends in an error that names it.

use std::collections::BTreeMap;

use siltstone_commit::{
    manifests::Scope,
    protocol::{self, Delta},
};
use siltstone_format::{
    data_file::{DataFileMeta, StoredRow},
    id::{Bucket, SnapshotId},
    manifest::ManifestEntry,
    path::{parse_hint, parse_snapshot_name},
    snapshot::Snapshot,
};
use siltstone_store::object::{ObjectErrorKind, list_all};

use crate::{
    driver::drive,
    error::{Result, TableError},
    table::Table,
};

/// Reads snapshot `id`.
///
/// # Errors
/// [`TableError::NotFound`] when it does not exist.
pub async fn read_snapshot(table: &Table, id: SnapshotId) -> Result<Snapshot> {
    let key = table.location.snapshot(id);
    match table.ports.objects.get(&key).await {
        Ok(object) => Ok(Snapshot::from_json(&key, &object.bytes)?),
        Err(error) if error.kind() == ObjectErrorKind::NotFound => Err(TableError::NotFound(format!(
            "snapshot {id} of {} does not exist (object {key}): it was never made, or it has expired; `silt snapshots` lists what is there",
            table.at.name
        ))),
        Err(error) => Err((*error).into()),
    }
}

/// The newest snapshot of a table without pointer: LATEST if it names one without successor, else the listing.
pub(crate) async fn latest_snapshot(table: &Table) -> Result<Option<Snapshot>> {
    let hint = match table.ports.objects.get(&table.location.latest_hint()).await {
        Ok(object) => parse_hint(&object.bytes),
        Err(error) if error.kind() == ObjectErrorKind::NotFound => None,
        Err(error) => return Err((*error).into()),
    };
    if let Some(id) = hint
        && !exists(table, id.next()).await?
        && exists(table, id).await?
    {
        return read_snapshot(table, id).await.map(Some);
    }
    match snapshot_ids(table).await?.last() {
        Some(id) => read_snapshot(table, *id).await.map(Some),
        None => Ok(None),
    }
}

/// The newest snapshot above `version`, if other engines have put one there. They may have expired those between, too.
pub(crate) async fn newer_than(table: &Table, version: SnapshotId) -> Result<Option<Snapshot>> {
    let grown = exists(table, version.next()).await?;
    if !grown && (version.0 == 0 || exists(table, version).await?) {
        return Ok(None);
    }
    match snapshot_ids(table).await?.last() {
        Some(newest) if *newest > version => read_snapshot(table, *newest).await.map(Some),
        _ => Ok(None),
    }
}

async fn exists(table: &Table, id: SnapshotId) -> Result<bool> {
    crate::table::exists(&table.ports, &table.location.snapshot(id)).await
}

/// Ids of all snapshots on S3, ascending.
///
/// # Errors
/// When listing fails.
pub async fn snapshot_ids(table: &Table) -> Result<Vec<SnapshotId>> {
    let objects = list_all(table.ports.objects.as_ref(), &table.location.snapshot_prefix()).await.map_err(|e| *e)?;
    let mut ids: Vec<SnapshotId> =
        objects.iter().filter_map(|o| o.key.rsplit('/').next().and_then(parse_snapshot_name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Live data files of a snapshot in a scope.
///
/// # Errors
/// When a list or manifest is missing or damaged.
pub async fn live_files(table: &Table, snapshot: &Snapshot, scope: Scope) -> Result<Vec<ManifestEntry>> {
    drive(protocol::live_files(&table.context, snapshot.clone(), scope), &table.ports, &table.at).await
}

/// The entries of a snapshot's own commit, and of its changelog.
///
/// # Errors
/// As [`live_files`].
pub async fn delta_files(table: &Table, snapshot: &Snapshot) -> Result<Delta> {
    drive(protocol::delta_files(&table.context, snapshot.clone()), &table.ports, &table.at).await
}

/// Live files by partition and bucket, each with its manifest entries.
#[must_use]
pub fn by_bucket(entries: Vec<ManifestEntry>) -> BTreeMap<(StoredRow, Bucket), Vec<ManifestEntry>> {
    let mut buckets: BTreeMap<(StoredRow, Bucket), Vec<ManifestEntry>> = BTreeMap::new();
    for entry in entries {
        buckets.entry((entry.partition.clone(), entry.bucket)).or_default().push(entry);
    }
    buckets
}

/// The files alone.
#[must_use]
pub fn files_of(entries: &[ManifestEntry]) -> Vec<DataFileMeta> {
    entries.iter().map(|e| e.file.clone()).collect()
}
