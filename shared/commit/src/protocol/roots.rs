//! What pins files besides the snapshots: tags, branches and decoupled changelogs. Read by expiry and by the sweep.
//!
//! Neighbours: `expire`, `sweep`, `check`. Invariant: 1. a root that vanishes while it is read was deleted by its owner and pins nothing;
//! one that cannot be read stops everything.

use std::collections::{BTreeMap, BTreeSet};

use siltstone_format::{
    id::SnapshotId,
    manifest::{ManifestEntry, ManifestFileMeta},
    snapshot::Snapshot,
};

use crate::{
    codec, context::TableContext, error::CommitError, io::Io, manifests, pointer::PROPERTY_CHECKPOINTS_OBJECT,
    steps::StepName,
};

/// A snapshot that is kept for its own sake.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Root {
    pub(crate) snapshot: Snapshot,
    /// Its lists may have been cleaned on purpose: only what is still there counts.
    pub(crate) partial: bool,
}

impl Root {
    /// What of it may be gone. Java's expiry takes the changelog of an expired snapshot away, also where a tag holds its rows.
    pub(crate) fn may_miss(&self) -> MayMiss {
        if self.partial { MayMiss::Everything } else { MayMiss::Changelog }
    }
}

/// Which lists of a snapshot may be gone without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MayMiss {
    Nothing,
    Changelog,
    Everything,
}

/// Tags, branches' snapshots and tags, decoupled changelogs.
pub(crate) async fn pinned(io: &Io, step: StepName, context: &TableContext) -> Result<Vec<Root>, CommitError> {
    let mut keys = Vec::new();
    for (prefix, partial) in [(context.location.tag_prefix(), false), (context.key("changelog/changelog-"), true)] {
        keys.extend(io.list(step, prefix).await?.into_iter().map(|o| (o.key, partial)));
    }
    for object in io.list(step, context.key("branch/branch-")).await? {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        if name.starts_with("snapshot-") || name.starts_with("tag-") {
            keys.push((object.key, false));
        }
    }
    read_roots(io, step, keys).await
}

async fn read_roots(io: &Io, step: StepName, keys: Vec<(String, bool)>) -> Result<Vec<Root>, CommitError> {
    let objects = io.get_all(step, keys.iter().map(|(key, _)| key.clone()).collect()).await?;
    let mut roots = Vec::new();
    for ((key, partial), object) in keys.into_iter().zip(objects) {
        if let Some(object) = object {
            roots.push(Root { snapshot: codec::decode_snapshot(&key, &object.body)?, partial });
        }
    }
    Ok(roots)
}

/// Snapshots by id; `None` for those that are not there (any more).
pub(crate) async fn snapshots(
    io: &Io,
    step: StepName,
    context: &TableContext,
    ids: impl IntoIterator<Item = SnapshotId>,
) -> Result<BTreeMap<SnapshotId, Snapshot>, CommitError> {
    let ids: Vec<SnapshotId> = ids.into_iter().collect();
    let keys: Vec<String> = ids.iter().map(|id| context.location.snapshot(*id)).collect();
    let objects = io.get_all(step, keys.clone()).await?;
    let mut found = BTreeMap::new();
    for ((id, key), object) in ids.into_iter().zip(keys).zip(objects) {
        if let Some(object) = object {
            found.insert(id, codec::decode_snapshot(&key, &object.body)?);
        }
    }
    Ok(found)
}

/// Keys that some snapshots refer to, as they are collected.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Everything that may not be deleted: lists, manifests, data and changelog files, statistics, checkpoints.
    pub(crate) keys: BTreeSet<String>,
    manifests: BTreeMap<String, ManifestFileMeta>,
}

impl Reach {
    /// Adds a snapshot's lists and remembers its manifests. A list that may be gone and is, is passed over.
    pub(crate) async fn add_lists(
        &mut self,
        io: &Io,
        step: StepName,
        context: &TableContext,
        snapshot: &Snapshot,
        may_miss: MayMiss,
    ) -> Result<(), CommitError> {
        let (any, changelog) = (may_miss == MayMiss::Everything, may_miss != MayMiss::Nothing);
        let lists = [
            Some((&snapshot.base_manifest_list, any)),
            Some((&snapshot.delta_manifest_list, any)),
            snapshot.changelog_manifest_list.as_ref().map(|name| (name, changelog)),
        ];
        for (name, may_miss) in lists.into_iter().flatten() {
            let key = context.location.manifest(name);
            match manifests::read_list(io, step, context, name).await? {
                Some(metas) => self.manifests.extend(metas.into_iter().map(|m| (m.file_name.clone(), m))),
                None if may_miss => {}
                None => return Err(CommitError::corrupt(key, "a snapshot names it and it does not exist")),
            }
            self.keys.insert(key);
        }
        self.keys.extend(snapshot.index_manifest.iter().map(|name| context.location.manifest(name)));
        self.keys.extend(snapshot.statistics.iter().map(|name| context.location.statistics(name)));
        let own = snapshot.properties.as_ref().and_then(|p| p.get(PROPERTY_CHECKPOINTS_OBJECT));
        self.keys.extend(own.map(|name| context.key(name)));
        Ok(())
    }

    /// Adds the manifests remembered so far, and every file that they name, deleted ones included: more than is live, never less.
    pub(crate) async fn add_files(
        &mut self,
        io: &Io,
        step: StepName,
        context: &TableContext,
        may_miss: bool,
    ) -> Result<(), CommitError> {
        for meta in std::mem::take(&mut self.manifests).into_values() {
            let key = context.location.manifest(&meta.file_name);
            if !self.keys.insert(key) {
                continue;
            }
            match manifests::read_entries(io, step, context, &[meta]).await {
                Ok(entries) => {
                    for entry in entries.into_iter().flatten() {
                        self.add_entry(context, &entry)?;
                    }
                }
                Err(error) if may_miss && error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds the manifests remembered so far by name only.
    pub(crate) fn add_manifest_names(&mut self, context: &TableContext) {
        let names = std::mem::take(&mut self.manifests).into_keys();
        self.keys.extend(names.map(|name| context.location.manifest(&name)));
    }

    fn add_entry(&mut self, context: &TableContext, entry: &ManifestEntry) -> Result<(), CommitError> {
        self.keys.extend(codec::files_of(context, entry)?);
        Ok(())
    }
}
