//! Makes the objects of the next snapshot and the pointer that names them.
//!
//! Neighbours: `commit`, `bare` and `rollback` call it after `fold` has said yes; `manifests` merges the base.
//! Invariants: 1. DELETE entries stand before ADD entries (20); 2. counts, sizes and totals are exact; 3. `timeMillis` never falls;
//! 4. everything that outlives a commit is carried over: index manifest, watermark, statistics of the same schema.

use std::collections::BTreeMap;

use bytes::Bytes;
use siltstone_format::{
    data_file::StoredRow,
    id::{Bucket, CommitIdentifier, Level, SchemaId, SnapshotId},
    manifest::{FileKind, ManifestEntry, ManifestFileMeta},
    snapshot::{CommitKind, Snapshot},
};

use super::{contention, packed::spill};
use crate::{
    changes::{ChangeKind, NewRuns},
    codec,
    context::TableContext,
    error::CommitError,
    fold::Accumulated,
    io::Io,
    manifests::{self, Names, Written},
    pointer::{PROPERTY_CHANGE, PROPERTY_CHANGES, PROPERTY_SCHEMA, Pointer, join_ids},
    steps,
};

/// Who commits, and as what.
pub(crate) struct Author {
    pub(crate) user: String,
    pub(crate) identifier: CommitIdentifier,
    pub(crate) properties: BTreeMap<String, String>,
}

/// Writes manifests and lists of the accumulated state and returns the pointer that makes them the table.
pub(crate) async fn next_pointer(
    io: &Io,
    context: &TableContext,
    names: &mut Names,
    pointer: &Pointer,
    state: Accumulated,
    started_ms: i64,
) -> Result<Pointer, CommitError> {
    if started_ms <= pointer.sweep_cutoff_ms {
        let (table, cutoff_ms) = (context.location.root().to_owned(), pointer.sweep_cutoff_ms);
        return Err(CommitError::OlderThanSweep { table, started_ms, cutoff_ms });
    }
    let mut next = Pointer { rev: pointer.rev + 1, schema_id: state.schema_id, ..pointer.clone() };
    next.checkpoints = state.checkpoints.clone();
    state.ids.iter().for_each(|id| next.remember(*id));
    if next.checkpoints.overflows() {
        spill(io, context, &mut next.checkpoints).await?;
    }
    if state.kind.is_none() {
        return Ok(next);
    }
    let identifier = CommitIdentifier(i64::try_from(next.rev).unwrap_or(i64::MAX));
    let mut properties = BTreeMap::new();
    if !state.ids.is_empty() {
        properties.insert(PROPERTY_CHANGE.to_owned(), join_ids(&state.ids));
    }
    let changes = state.applied.max(contention::expected(pointer, started_ms) / 2);
    if changes > 1 {
        properties.insert(PROPERTY_CHANGES.to_owned(), changes.to_string());
    }
    let author = Author { user: pointer.incarnation.commit_user(), identifier, properties };
    let snapshot = write_snapshot(io, context, names, pointer.snapshot.as_ref(), state, author).await?;
    next.snapshot = Some(snapshot);
    Ok(next)
}

/// The level-0 files that a delta adds to the pointer's table, counted by bucket.
pub(crate) fn new_runs(pointer: &Pointer, files: &[ManifestEntry]) -> Vec<NewRuns> {
    let snapshot = pointer.version().next();
    let mut counts: BTreeMap<(&StoredRow, Bucket), u64> = BTreeMap::new();
    for entry in files.iter().filter(|e| e.kind == FileKind::Add && e.file.level == Level::ZERO) {
        *counts.entry((&entry.partition, entry.bucket)).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|((partition, bucket), runs)| NewRuns { snapshot, partition: partition.clone(), bucket, runs })
        .collect()
}

/// Steps 4 and 5: manifests of delta and changelog, the merged base, and the lists that name them.
pub(crate) async fn write_snapshot(
    io: &Io,
    context: &TableContext,
    names: &mut Names,
    before: Option<&Snapshot>,
    state: Accumulated,
    author: Author,
) -> Result<Snapshot, CommitError> {
    let base = match before {
        Some(snapshot) => manifests::read_manifests(io, steps::COMMIT_READ, context, snapshot).await?.all(),
        None => Vec::new(),
    };
    let mut merged = manifests::merge_base(io, steps::COMMIT_READ, context, names, base).await?;
    let (mut delta, mut changelog) = (Written::default(), Written::default());
    delta.add(context, names, &deletes_first(&state.files))?;
    changelog.add(context, names, &state.changelog)?;
    let mut objects = std::mem::take(&mut merged.objects);
    objects.append(&mut delta.objects);
    objects.append(&mut changelog.objects);
    io.put_new(steps::COMMIT_MANIFESTS, objects).await?;

    let lists = Lists::write(io, context, names, &merged.metas, &delta.metas, &changelog.metas).await?;
    let now = io.now(steps::COMMIT_LISTS).await?;
    let uuid = io.uuid(steps::COMMIT_LISTS).await?;
    let mut snapshot = snapshot(before, &state, lists, author, uuid, now);
    if let Some(sum) = context.schema_sum.filter(|_| context.schema.id == snapshot.schema_id) {
        snapshot.properties.get_or_insert_default().insert(PROPERTY_SCHEMA.to_owned(), format!("{sum:08x}"));
    }
    Ok(snapshot)
}

pub(crate) fn deletes_first(files: &[ManifestEntry]) -> Vec<ManifestEntry> {
    let of = |kind| files.iter().filter(move |e| e.kind == kind).cloned();
    of(FileKind::Delete).chain(of(FileKind::Add)).collect()
}

/// Names and exact sizes of the lists of one snapshot.
pub(crate) struct Lists {
    base: (String, i64),
    delta: (String, i64),
    changelog: Option<(String, i64)>,
}

impl Lists {
    pub(crate) async fn write(
        io: &Io,
        context: &TableContext,
        names: &mut Names,
        base: &[ManifestFileMeta],
        delta: &[ManifestFileMeta],
        changelog: &[ManifestFileMeta],
    ) -> Result<Self, CommitError> {
        let mut objects = Vec::new();
        let mut list = |metas: &[ManifestFileMeta]| -> Result<(String, i64), CommitError> {
            let name = names.list();
            let bytes = Bytes::from(codec::encode_list(context, metas, &name)?);
            let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            objects.push((context.location.manifest(&name), bytes));
            Ok((name, size))
        };
        let (base, delta) = (list(base)?, list(delta)?);
        let changelog = if changelog.is_empty() { None } else { Some(list(changelog)?) };
        io.put_new(steps::COMMIT_LISTS, objects).await?;
        Ok(Self { base, delta, changelog })
    }

    /// The snapshot that applies `ours` once more, on top of `theirs`.
    pub(crate) fn snapshot_again(
        self,
        ours: &Snapshot,
        theirs: &Snapshot,
        rev: u64,
        uuid: String,
        now: i64,
    ) -> Snapshot {
        let (changelog, changelog_size) = self.changelog.unzip();
        let delta_rows = ours.delta_record_count.unwrap_or(0);
        Snapshot {
            uuid: Some(uuid),
            id: theirs.id.next(),
            schema_id: ours.schema_id.max(theirs.schema_id),
            base_manifest_list: self.base.0,
            base_manifest_list_size: Some(self.base.1),
            delta_manifest_list: self.delta.0,
            delta_manifest_list_size: Some(self.delta.1),
            changelog_manifest_list: changelog,
            changelog_manifest_list_size: changelog_size,
            index_manifest: theirs.index_manifest.clone(),
            commit_identifier: CommitIdentifier(i64::try_from(rev).unwrap_or(i64::MAX)),
            time_millis: theirs.time_millis.max(now),
            total_record_count: theirs.total_record_count.map(|t| t + delta_rows),
            watermark: ours.watermark.max(theirs.watermark),
            statistics: None,
            next_row_id: theirs.next_row_id,
            ..ours.clone()
        }
    }
}

pub(crate) fn rows(files: &[ManifestEntry]) -> i64 {
    files.iter().map(|e| if e.kind == FileKind::Add { e.file.row_count } else { -e.file.row_count }).sum()
}

fn snapshot(
    before: Option<&Snapshot>,
    state: &Accumulated,
    lists: Lists,
    author: Author,
    uuid: String,
    now_ms: i64,
) -> Snapshot {
    let delta_rows = rows(&state.files);
    let schema_id: SchemaId = state.schema_id.max(before.map_or(SchemaId(0), |s| s.schema_id));
    let changelog_rows = lists.changelog.as_ref().map(|_| rows(&state.changelog));
    let (changelog_list, changelog_size) = lists.changelog.unzip();
    Snapshot {
        version: 3,
        uuid: Some(uuid),
        id: before.map_or(SnapshotId::FIRST, |s| s.id.next()),
        schema_id,
        base_manifest_list: lists.base.0,
        base_manifest_list_size: Some(lists.base.1),
        delta_manifest_list: lists.delta.0,
        delta_manifest_list_size: Some(lists.delta.1),
        changelog_manifest_list: changelog_list,
        changelog_manifest_list_size: changelog_size,
        index_manifest: before.and_then(|s| s.index_manifest.clone()),
        commit_user: author.user,
        commit_identifier: author.identifier,
        commit_kind: match state.kind {
            Some(ChangeKind::Compact) => CommitKind::Compact,
            Some(ChangeKind::Overwrite) => CommitKind::Overwrite,
            Some(ChangeKind::Append) | None => CommitKind::Append,
        },
        time_millis: before.map_or(now_ms, |s| s.time_millis.max(now_ms)),
        total_record_count: Some(before.map_or(Some(0), |s| s.total_record_count).unwrap_or(0) + delta_rows),
        delta_record_count: Some(delta_rows),
        changelog_record_count: changelog_rows,
        watermark: before.and_then(|s| s.watermark),
        statistics: before.filter(|s| s.schema_id == schema_id).and_then(|s| s.statistics.clone()),
        properties: (!author.properties.is_empty()).then_some(author.properties),
        next_row_id: before.and_then(|s| s.next_row_id),
        other: BTreeMap::new(),
    }
}
