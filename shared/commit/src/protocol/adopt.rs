//! What to think of snapshots that are not ours, and of ours that are gone (rule 8).
//!
//! Neighbours: `tip` calls it, `restore` takes over when the pointer is behind its own snapshots, `repair` ends a fork.
//! Invariants: 1. a foreign N+1 is adopted only if its base is our N, file by file; 2. adoption raises the floor above every
//! foreign sequence number; 3. where a snapshot of ours stands above the pointer, nothing is adopted, not even what is foreign below it: the pointer
//! was restored;
//! 4. a published snapshot that is gone is refused, not put again: its files may be gone too; unless 5. only foreign snapshots above it
//! are left and its lists are gone, too: then another engine has committed on it and expired it, and the newest is adopted.

use siltstone_format::{id::SnapshotId, snapshot::Snapshot};

use super::{
    create, roots,
    tip::{self, Swap},
};
use crate::{
    context::{Incarnation, TableContext},
    error::CommitError,
    io::Io,
    manifests::{self, Scope},
    pointer::Pointer,
    steps,
};

/// A snapshot stands above the pointer's. `None`: look again. Those up to `foreign` are known as others' from earlier looks.
pub(crate) async fn adopt_next(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    foreign: &mut SnapshotId,
) -> Result<Option<Pointer>, CommitError> {
    let next = pointer.version().next();
    let names = tip::list_snapshots(io, steps::SETTLE_PROVE, context).await?;
    let unknown = names.into_iter().map(|(id, _)| id).filter(|id| *id == next || *id > next.max(*foreign));
    let mut above = roots::snapshots(io, steps::SETTLE_PROVE, context, unknown).await?;
    // Only now: another writer may have committed and published them since the pointer was read.
    if !tip::unchanged(io, context, pointer).await? {
        return Ok(None);
    }
    if let Some(ours) = above.values().find(|snapshot| Incarnation::is_ours(&snapshot.commit_user)) {
        let table = context.location.root().to_owned();
        return Err(CommitError::PointerBehind { table, pointer: pointer.version(), found: ours.id });
    }
    *foreign = above.last_key_value().map_or(*foreign, |(id, _)| *id).max(*foreign);
    let Some(theirs) = above.remove(&next) else { return Ok(None) };
    let proof = adopted(io, context, pointer, theirs).await;
    // Others adopted it meanwhile, and expired what the proof needs.
    if proof.is_err() && !tip::unchanged(io, context, pointer).await? {
        return Ok(None);
    }
    let Some(adopted) = proof? else {
        tip::mark_forked(io, context, pointer).await?;
        return Ok(None);
    };
    match tip::swap(io, steps::SETTLE_SWAP, context, pointer, &adopted).await? {
        Swap::Swapped | Swap::Moved { .. } | Swap::Unknown => Ok(None),
    }
}

/// The pointer that says the foreign snapshot; `None` if that one does not stand on ours.
async fn adopted(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    foreign: Snapshot,
) -> Result<Option<Pointer>, CommitError> {
    let theirs = manifests::read_manifests(io, steps::SETTLE_PROVE, context, &foreign).await?;
    if !stands_on(io, context, pointer.snapshot.as_ref(), &theirs.base).await? {
        return Ok(None);
    }
    let delta = manifests::read_entries(io, steps::SETTLE_PROVE, context, &theirs.delta).await?;
    let numbers = delta.iter().flatten().map(|e| e.file.max_sequence_number);
    let floor = tip::raised_floor(pointer.floor, numbers);
    Ok(Some(Pointer {
        rev: pointer.rev + 1,
        published: foreign.id,
        schema_id: pointer.schema_id.max(foreign.schema_id),
        floor,
        snapshot: Some(slim(foreign)),
        ..pointer.clone()
    }))
}

/// What the pointer keeps of a foreign snapshot: its properties and unknown fields stay on S3, where it was published.
pub(crate) fn slim(mut foreign: Snapshot) -> Snapshot {
    foreign.properties = None;
    foreign.other.clear();
    foreign
}

/// Whether a base list says exactly the files of our snapshot. Equal names suffice; merged manifests are replayed.
async fn stands_on(
    io: &Io,
    context: &TableContext,
    ours: Option<&Snapshot>,
    base: &[siltstone_format::manifest::ManifestFileMeta],
) -> Result<bool, CommitError> {
    let ours = match ours {
        Some(snapshot) => manifests::read_manifests(io, steps::SETTLE_PROVE, context, snapshot).await?.all(),
        None => Vec::new(),
    };
    let names = |metas: &[siltstone_format::manifest::ManifestFileMeta]| {
        metas.iter().map(|m| m.file_name.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    if names(&ours) == names(base) {
        return Ok(true);
    }
    let everything = Scope::Everything;
    let one = manifests::read_live(io, steps::SETTLE_PROVE, context, &ours, &everything).await?;
    let other = manifests::read_live(io, steps::SETTLE_PROVE, context, base, &everything).await?;
    Ok(one.files().map(manifests::file_key).eq(other.files().map(manifests::file_key)))
}

/// The pointer's snapshot was not on S3. That is an author who died before publishing, unless there is proof of more. `false`: look
/// again, the pointer moved on while the proof was gathered (so it proves nothing), or was moved here.
pub(crate) async fn may_publish(io: &Io, context: &TableContext, pointer: &Pointer) -> Result<bool, CommitError> {
    let Some(snapshot) = &pointer.snapshot else { return Ok(true) };
    let table = context.location.root().to_owned();
    let there: Vec<SnapshotId> =
        tip::list_snapshots(io, steps::SETTLE_PROVE, context).await?.into_iter().map(|(id, _)| id).collect();
    // Java's rollback deletes the lists of what it rolls back; and N could not be committed before N-1 was published.
    let list = context.location.manifest(&snapshot.delta_manifest_list);
    let list_gone = io.head_all(steps::SETTLE_PROVE, &[list]).await?.pop().flatten().is_none();
    // Only now: what was seen above is a proof if the pointer still said N afterwards.
    if !tip::unchanged(io, context, pointer).await? {
        return Ok(false);
    }
    let newest = there.last().copied();
    if let Some(found) = newest.filter(|id| *id > snapshot.id) {
        let expired = there.first().is_some_and(|oldest| *oldest > snapshot.id);
        if expired && (list_gone || is_pinned(io, context, snapshot).await?) {
            return adopt_after_expiry(io, context, pointer, &there).await;
        }
        return Err(CommitError::PointerBehind { table, pointer: snapshot.id, found });
    }
    let before_gone = snapshot.id > pointer.earliest && newest.is_none_or(|id| id.next() < snapshot.id);
    if pointer.published >= snapshot.id || list_gone || before_gone {
        return Err(CommitError::ForeignRollback { table, missing: snapshot.id });
    }
    Ok(true)
}

/// Whether a tag or a branch names this snapshot: it was published then, and an expiry leaves its lists.
async fn is_pinned(io: &Io, context: &TableContext, snapshot: &Snapshot) -> Result<bool, CommitError> {
    let roots = roots::pinned(io, steps::SETTLE_PROVE, context).await?;
    let lists = |s: &Snapshot| (s.id, s.base_manifest_list.clone(), s.delta_manifest_list.clone());
    Ok(roots.iter().any(|root| lists(&root.snapshot) == lists(snapshot)))
}

/// Nothing of ours was ever committed, and others have expired the first snapshots of theirs. `None`: look again.
pub(crate) async fn adopt_first(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
) -> Result<Option<Pointer>, CommitError> {
    if tip::unchanged(io, context, pointer).await? {
        let there = tip::list_snapshots(io, steps::SETTLE_PROVE, context).await?;
        let there: Vec<SnapshotId> = there.into_iter().map(|(id, _)| id).collect();
        adopt_after_expiry(io, context, pointer, &there).await?;
    }
    Ok(None)
}

/// Only snapshots above the pointer's are left, and its lists are gone (or a tag holds them). Nobody deletes the lists of an unpublished snapshot so soon: our sweep
/// knows the pointer, an orphan removal of others spares what is younger than a day. So ours was published, others committed on top of
/// it and expired it. What they did cannot be held against our files any more; their newest snapshot is what every reader sees.
async fn adopt_after_expiry(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    there: &[SnapshotId],
) -> Result<bool, CommitError> {
    let mut snapshots = roots::snapshots(io, steps::SETTLE_PROVE, context, there.iter().copied()).await?;
    if let Some(ours) = snapshots.values().find(|s| Incarnation::is_ours(&s.commit_user)) {
        let table = context.location.root().to_owned();
        return Err(CommitError::PointerBehind { table, pointer: pointer.version(), found: ours.id });
    }
    let earliest = snapshots.keys().next().copied();
    let (Some(earliest), Some((newest, foreign))) = (earliest, snapshots.pop_last()) else {
        return Ok(false); // all of them vanished while they were read
    };
    let floor = create::floor_of(io, context, &foreign).await?.max(pointer.floor);
    let next = Pointer {
        rev: pointer.rev + 1,
        published: newest,
        earliest: earliest.max(pointer.earliest),
        schema_id: pointer.schema_id.max(foreign.schema_id),
        floor,
        snapshot: Some(slim(foreign)),
        ..pointer.clone()
    };
    match tip::swap(io, steps::SETTLE_SWAP, context, pointer, &next).await? {
        Swap::Swapped | Swap::Moved { .. } | Swap::Unknown => Ok(false),
    }
}
