//! What a snapshot says: its live data files, its changelog files, its neighbours.
//!
//! Neighbours: `commit` reads manifests and replays their entries; `scan`, `compact` and the verbs of `silt` read through here.
//! Invariant: 1. a missing or damaged object ends in an error that names it.

use std::collections::BTreeMap;

use siltstone_commit::{
    context::Authority,
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
        Ok(object) => {
            let snapshot = Snapshot::from_json(&key, &object.bytes)?;
            table.check_snapshot(&key, &snapshot)?;
            Ok(snapshot)
        }
        Err(error) if error.kind() == ObjectErrorKind::NotFound => {
            unpublished(table, id).await?.ok_or_else(|| {
                TableError::NotFound(format!(
                    "snapshot {id} of {} does not exist (object {key}): it was never made, or it has expired; `silt snapshots` lists what \
                     is there",
                    table.at.name
                ))
            })
        }
        Err(error) => Err((*error).into()),
    }
}

/// Reads the snapshot that a tag holds.
///
/// # Errors
/// [`TableError::NotFound`] when there is no such tag; [`TableError::Invalid`] for what can be no tag's name.
pub async fn read_tag(table: &Table, name: &str) -> Result<Snapshot> {
    if name.is_empty() || name.contains(['/', '\\']) {
        return Err(TableError::invalid(format!("{name:?} is no name of a tag")));
    }
    let key = table.location.tag(name);
    match table.ports.objects.get(&key).await {
        Ok(object) => {
            let snapshot = Snapshot::from_json(&key, &object.bytes)?;
            table.check_snapshot(&key, &snapshot)?;
            Ok(snapshot)
        }
        Err(error) if error.kind() == ObjectErrorKind::NotFound => {
            Err(TableError::NotFound(format!("{} has no tag {name} (object {key})", table.at.name)))
        }
        Err(error) => Err((*error).into()),
    }
}

/// A snapshot that is committed, and whose object is not there (yet): its next commit or schedule publishes it.
async fn unpublished(table: &Table, id: SnapshotId) -> Result<Option<Snapshot>> {
    if table.context.authority == Authority::Bare {
        return Ok(None);
    }
    let pointer = table.pointer().await?;
    Ok(pointer.published_snapshot().filter(|snapshot| snapshot.id == id))
}

/// The newest snapshot of a table without pointer: LATEST if it names one without successor, else the listing.
pub(crate) async fn latest_snapshot(table: &Table) -> Result<Option<Snapshot>> {
    if let Some(id) = latest_hint(table).await?
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

async fn latest_hint(table: &Table) -> Result<Option<SnapshotId>> {
    match table.ports.objects.get(&table.location.latest_hint()).await {
        Ok(object) => Ok(parse_hint(&object.bytes)),
        Err(error) if error.kind() == ObjectErrorKind::NotFound => Ok(None),
        Err(error) => Err((*error).into()),
    }
}

/// Nobody writes LATEST before its snapshot, and a rollback lowers it first: if it is above every snapshot, the newest one is lost, and an older
/// one would be the wrong answer.
async fn refuse_lost_tip(table: &Table, newest: Option<SnapshotId>) -> Result<()> {
    match latest_hint(table).await?.filter(|id| newest.is_none_or(|newest| newest < *id)) {
        Some(lost) if !exists(table, lost).await? => Err(TableError::Corrupt(format!(
            "{} names {}, which does not exist: restore the snapshot, or write the newest id ({}) into LATEST to go on from there",
            table.location.latest_hint(),
            table.location.snapshot(lost),
            newest.map_or_else(|| "there is none".to_owned(), |id| id.to_string())
        ))),
        _ => Ok(()),
    }
}

/// The newest snapshot above `version`, if other engines have put one there. They may have expired those between, too.
pub(crate) async fn newer_than(table: &Table, version: SnapshotId) -> Result<Option<Snapshot>> {
    let grown = exists(table, version.next()).await?;
    if !grown && (version.0 == 0 || exists(table, version).await?) {
        return Ok(None);
    }
    match listed_ids(table).await?.last() {
        Some(newest) if *newest > version => read_snapshot(table, *newest).await.map(Some),
        _ => Ok(None),
    }
}

async fn exists(table: &Table, id: SnapshotId) -> Result<bool> {
    crate::table::exists(&table.ports, &table.location.snapshot(id)).await
}

/// Ids of the snapshots that are on S3, ascending, whatever is missing among them.
pub(crate) async fn listed_ids(table: &Table) -> Result<Vec<SnapshotId>> {
    let objects = list_all(table.ports.objects.as_ref(), &table.location.snapshot_prefix()).await.map_err(|e| *e)?;
    let mut ids: Vec<SnapshotId> =
        objects.iter().filter_map(|o| o.key.rsplit('/').next().and_then(parse_snapshot_name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Ids of all snapshots, ascending and without a gap. What is missing below all others has expired, by whomever.
///
/// # Errors
/// When listing fails, [`TableError::NotFound`] naming the first snapshot that is missing between others, and [`TableError::Corrupt`] when the
/// newest one of a bare table is lost.
pub async fn snapshot_ids(table: &Table) -> Result<Vec<SnapshotId>> {
    let mut ids = listed_ids(table).await?;
    if table.context.authority == Authority::Pointer {
        let pointer = table.pointer().await?;
        ids.retain(|id| *id >= pointer.earliest);
        let version = pointer.version();
        if version > SnapshotId(0) && ids.last().is_none_or(|last| *last < version) {
            ids.push(version);
        }
    } else {
        refuse_lost_tip(table, ids.last().copied()).await?;
    }
    let missing = ids.windows(2).find_map(|pair| match pair {
        [one, next] if one.next() < *next => Some(one.next()),
        _ => None,
    });
    match missing {
        None => Ok(ids),
        Some(id) => Err(TableError::NotFound(format!(
            "snapshot {id} of {} is missing among the others (object {}): it expired just now, and the same again will do, or it is lost: \
             `silt check` says more",
            table.at.name,
            table.location.snapshot(id)
        ))),
    }
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
