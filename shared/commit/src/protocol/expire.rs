//! Expires snapshots by Paimon's options (rule 4; paimon-format.md section 12).
//!
//! Neighbours: `roots` says what else pins files, `sweep` takes what no snapshot ever named.
//! Invariants: 1. `earliest` in the pointer is raised before anything is deleted, so no commit and no reader of the pointer comes below it;
//! 2. a name goes only [`ExpireOptions::name_grace_ms`] after its successor was written, so that no sleeping publisher brings it back;
//! 3. files go before the lists that name them, and lists before names, so that a crash leaves the walk repeatable; 4. LATEST is
//! at a kept snapshot before any name goes (10); 5. a file that a tag or a branch holds stays; 6. what is damaged is met before anything is
//! written.

use std::collections::{BTreeMap, BTreeSet};

use siltstone_format::{
    id::SnapshotId,
    manifest::{FileKind, ManifestEntry},
    options::ExpiryOptions,
    snapshot::Snapshot,
};

use super::{
    need_pointer, publish,
    roots::{self, MayMiss, Reach, Root},
    tip::{self, Swap},
};
use crate::{
    codec,
    context::TableContext,
    error::CommitError,
    io::Io,
    manifests::{self, Scope},
    pointer::Pointer,
    steps,
};

/// What expiry keeps: Paimon's `snapshot.*` options, by their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpireOptions {
    /// `snapshot.num-retained.min`
    pub retain_min: u64,
    /// `snapshot.num-retained.max`
    pub retain_max: u64,
    /// `snapshot.time-retained`, ms
    pub time_retained_ms: i64,
    /// `snapshot.expire.limit`
    pub limit: u64,
    /// A name stays so long after its successor was written: longer than any Lambda can sleep and still run.
    pub name_grace_ms: i64,
    /// True when changelogs outlive snapshots (`changelog.*-retained`): such a table is refused.
    pub decoupled_changelog: bool,
}

impl From<&ExpiryOptions> for ExpireOptions {
    fn from(options: &ExpiryOptions) -> Self {
        Self {
            retain_min: options.retain_min,
            retain_max: options.retain_max,
            time_retained_ms: options.time_retained_ms,
            limit: options.limit,
            decoupled_changelog: options.decoupled_changelog,
            ..Self::default()
        }
    }
}

impl Default for ExpireOptions {
    fn default() -> Self {
        Self {
            retain_min: 10,
            retain_max: u64::MAX,
            time_retained_ms: 3_600_000,
            limit: 50,
            name_grace_ms: 20 * 60_000,
            decoupled_changelog: false,
        }
    }
}

/// What expiry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Snapshots that are gone, ascending.
    pub snapshots: Vec<SnapshotId>,
    /// Keys that were deleted, snapshots included.
    pub keys: Vec<String>,
    /// The earliest snapshot that is kept.
    pub earliest: SnapshotId,
}

pub(crate) async fn run(io: Io, context: TableContext, options: ExpireOptions) -> Result<Expired, CommitError> {
    need_pointer(&context)?;
    if options.decoupled_changelog {
        let reason =
            "expiry does not keep changelogs beyond their snapshots; unset `changelog.*-retained`, or let Flink or \
                      Spark expire this table's snapshots"
                .to_owned();
        return Err(CommitError::InvalidChange { reason });
    }
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let pointer = tip::settle(&io, &context).await?;
        let names = tip::list_snapshots(&io, steps::EXPIRE_READ, &context).await?;
        let Some((begin, _)) = names.first().copied() else { return Ok(nothing(&pointer)) };
        let end = first_kept(&io, &context, &options, &pointer, &names).await?.max(pointer.earliest);
        if begin >= end {
            return Ok(nothing(&pointer));
        }
        let doomed = match doomed(&io, &context, begin, end).await {
            Ok(doomed) => doomed,
            // Another run may have expired what is looked at.
            Err(_) if !tip::unchanged(&io, &context, &pointer).await? => {
                io.pause(attempt).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if end > pointer.earliest {
            let next = Pointer { rev: pointer.rev + 1, earliest: end, ..pointer.clone() };
            if tip::swap(&io, steps::EXPIRE_RAISE, &context, &pointer, &next).await? != Swap::Swapped {
                io.pause(attempt).await;
                continue;
            }
        }
        publish::ensure_latest(&io, &context, pointer.version()).await?;
        return remove(&io, &context, begin, end, names, doomed).await;
    }
    Err(CommitError::Contended { protocol: "expire", attempts: context.settings.max_attempts })
}

fn nothing(pointer: &Pointer) -> Expired {
    Expired { snapshots: Vec::new(), keys: Vec::new(), earliest: pointer.earliest }
}

/// The first snapshot that has to stay.
async fn first_kept(
    io: &Io,
    context: &TableContext,
    options: &ExpireOptions,
    pointer: &Pointer,
    names: &[(SnapshotId, i64)],
) -> Result<SnapshotId, CommitError> {
    let step = steps::EXPIRE_READ;
    let now = io.now(step).await?;
    let latest = pointer.version().0;
    let kept_from = |count: u64| latest.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).saturating_add(1);
    let from = names.first().map_or(latest, |(id, _)| id.0).max(pointer.earliest.0);
    let limit = from.saturating_add(i64::try_from(options.limit).unwrap_or(i64::MAX));
    let bound = kept_from(options.retain_min.max(1)).min(limit).min(consumers(io, context).await?);
    let written: BTreeMap<SnapshotId, i64> = names.iter().copied().collect();
    let ids = (from + 1..=bound).map(SnapshotId);
    let successors = roots::snapshots(io, step, context, ids).await?;
    for id in from..bound {
        let successor = SnapshotId(id + 1);
        let (Some(snapshot), Some(written)) = (successors.get(&successor), written.get(&successor)) else {
            return Ok(SnapshotId(id)); // a hole: `silt check` reports it, expiry stays below
        };
        let surplus = id < kept_from(options.retain_max);
        let old = snapshot.time_millis < now.saturating_sub(options.time_retained_ms);
        let settled = *written <= now.saturating_sub(options.name_grace_ms);
        if !(surplus || old) || !settled {
            return Ok(SnapshotId(id));
        }
    }
    Ok(SnapshotId(bound.max(from)))
}

/// The lowest snapshot that a consumer still wants.
async fn consumers(io: &Io, context: &TableContext) -> Result<i64, CommitError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Consumer {
        next_snapshot: i64,
    }
    let step = steps::EXPIRE_READ;
    let keys: Vec<String> =
        io.list(step, context.location.consumer_prefix()).await?.into_iter().map(|o| o.key).collect();
    let mut lowest = i64::MAX;
    for (key, object) in keys.iter().zip(io.get_all(step, keys.clone()).await?) {
        let Some(object) = object else { continue };
        let consumer: Consumer =
            serde_json::from_slice(&object.body).map_err(|e| CommitError::corrupt(key, format!("no consumer: {e}")))?;
        lowest = lowest.min(consumer.next_snapshot);
    }
    Ok(lowest)
}

/// What an expiry deletes before the names, and the roots that were looked at for it.
struct Doomed {
    data: Vec<String>,
    lists: Vec<String>,
    pinned: Vec<Root>,
}

/// Step 3 over `[begin, end)`. `begin` may lie below what the pointer has as earliest: leftovers of a run that died. Whatever is damaged is met
/// here, before anything is written.
async fn doomed(io: &Io, context: &TableContext, begin: SnapshotId, end: SnapshotId) -> Result<Doomed, CommitError> {
    let pinned = roots::pinned(io, steps::EXPIRE_WALK, context).await?;
    let ids = (begin.0..=end.0).map(SnapshotId);
    let snapshots = roots::snapshots(io, steps::EXPIRE_WALK, context, ids).await?;
    let Some(kept) = snapshots.get(&end) else {
        let key = context.location.snapshot(end);
        return Err(CommitError::corrupt(key, "the first snapshot to keep does not exist"));
    };
    let data = dead_files(io, context, begin, end, &snapshots, &pinned).await?;
    let lists = dead_manifests(io, context, end, &snapshots, kept, &pinned).await?;
    Ok(Doomed { data, lists, pinned })
}

/// Steps 4 to 7, after `earliest` was raised: a tag that appears from now on may only name what is kept, one that came just before counts.
async fn remove(
    io: &Io,
    context: &TableContext,
    begin: SnapshotId,
    end: SnapshotId,
    names: Vec<(SnapshotId, i64)>,
    mut doomed: Doomed,
) -> Result<Expired, CommitError> {
    if roots::pinned(io, steps::EXPIRE_WALK, context).await? != doomed.pinned {
        doomed = self::doomed(io, context, begin, end).await?;
    }
    let mut keys = Vec::new();
    io.delete(steps::EXPIRE_DATA, &doomed.data).await?;
    keys.extend(doomed.data);
    io.delete(steps::EXPIRE_MANIFESTS, &doomed.lists).await?;
    keys.extend(doomed.lists);

    let gone: Vec<SnapshotId> = names.into_iter().map(|(id, _)| id).filter(|id| *id < end).collect();
    let gone_keys: Vec<String> = gone.iter().map(|id| context.location.snapshot(*id)).collect();
    io.delete(steps::EXPIRE_NAMES, &gone_keys).await?;
    keys.extend(gone_keys);

    publish::raise_earliest(io, context, end).await?;
    Ok(Expired { snapshots: gone, keys, earliest: end })
}

/// Data files whose DELETE lies in `(begin, end]`, and changelog files of `[begin, end)`, minus what is pinned.
async fn dead_files(
    io: &Io,
    context: &TableContext,
    begin: SnapshotId,
    end: SnapshotId,
    snapshots: &BTreeMap<SnapshotId, Snapshot>,
    pinned: &[Root],
) -> Result<Vec<String>, CommitError> {
    let step = steps::EXPIRE_WALK;
    let mut dead = BTreeSet::new();
    for (id, snapshot) in snapshots {
        if *id > begin {
            let entries = list_entries(io, context, &snapshot.delta_manifest_list, *id < end).await?;
            for entry in &entries {
                if entry.kind == FileKind::Delete {
                    dead.extend(codec::files_of(context, entry)?);
                }
            }
            // An upgrade deletes and adds one name in one commit: the file lives on, whatever the order of the entries.
            for entry in entries.iter().filter(|e| e.kind == FileKind::Add) {
                for key in codec::files_of(context, entry)? {
                    dead.remove(&key);
                }
            }
        }
        if let (true, Some(list)) = (*id < end, &snapshot.changelog_manifest_list) {
            for entry in list_entries(io, context, list, true).await? {
                dead.extend(codec::files_of(context, &entry)?);
            }
        }
    }
    let pinned = if dead.is_empty() { &[] } else { pinned };
    for root in pinned {
        for key in held(io, step, context, root).await? {
            dead.remove(&key);
        }
    }
    Ok(dead.into_iter().collect())
}

/// Entries of a list's manifests. Leftovers of an earlier run may have lost theirs; their files went before.
async fn list_entries(
    io: &Io,
    context: &TableContext,
    list: &str,
    may_miss: bool,
) -> Result<Vec<ManifestEntry>, CommitError> {
    let step = steps::EXPIRE_WALK;
    let Some(metas) = manifests::read_list(io, step, context, list).await? else {
        let key = context.location.manifest(list);
        return if may_miss { Ok(Vec::new()) } else { Err(CommitError::corrupt(key, "it does not exist")) };
    };
    let mut all = Vec::new();
    for meta in &metas {
        match manifests::read_entries(io, step, context, std::slice::from_ref(meta)).await {
            Ok(entries) => all.extend(entries.into_iter().flatten()),
            Err(error) if may_miss && error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Files that a root needs: its live files, and its changelog.
async fn held(io: &Io, step: steps::StepName, context: &TableContext, root: &Root) -> Result<Vec<String>, CommitError> {
    let mut keys = Vec::new();
    if !root.partial {
        let lists = manifests::read_manifests(io, step, context, &root.snapshot).await?;
        let live = manifests::read_live(io, step, context, &lists.all(), &Scope::Everything).await?;
        for entry in live.files() {
            keys.extend(codec::files_of(context, entry)?);
        }
    }
    let partial = [&root.snapshot.base_manifest_list, &root.snapshot.delta_manifest_list];
    let lists = partial.into_iter().filter(|_| root.partial).chain(root.snapshot.changelog_manifest_list.as_ref());
    for list in lists {
        for entry in list_entries(io, context, list, true).await? {
            keys.extend(codec::files_of(context, &entry)?);
        }
    }
    Ok(keys)
}

/// Lists, manifests and statistics of `[begin, end)` that neither the first kept snapshot nor a root names. What later
/// snapshots share with expired ones, the first kept one shares too.
async fn dead_manifests(
    io: &Io,
    context: &TableContext,
    end: SnapshotId,
    snapshots: &BTreeMap<SnapshotId, Snapshot>,
    kept: &Snapshot,
    pinned: &[Root],
) -> Result<Vec<String>, CommitError> {
    let step = steps::EXPIRE_WALK;
    let mut alive = Reach::default();
    alive.add_lists(io, step, context, kept, MayMiss::Nothing).await?;
    for root in pinned {
        alive.add_lists(io, step, context, &root.snapshot, root.may_miss()).await?;
    }
    alive.add_manifest_names(context);
    let mut dead = Reach::default();
    for (_, snapshot) in snapshots.iter().filter(|(id, _)| **id < end) {
        dead.add_lists(io, step, context, snapshot, MayMiss::Everything).await?;
        // Index manifests name files that this build does not read: they stay for an engine that does. Checkpoints are swept.
        dead.keys.retain(|key| !key.contains("/index-manifest-") && !key.contains("/checkpoints-"));
    }
    dead.add_manifest_names(context);
    Ok(dead.keys.difference(&alive.keys).cloned().collect())
}
