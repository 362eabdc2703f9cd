//! Rolls a pointer that is lost, or behind what S3 holds, forward to the newest published snapshot (rule 9), and ends a fork (rule 8).
//!
//! Neighbours: `pointer` writes into each snapshot's properties what is read here; `adopt` sends callers here.
//! Invariants: 1. a restored pointer is a new incarnation, and its `rev` is far above any that the lost one can have reached: no write that
//! is still under way fits it; 2. checkpoints, floor and cutoff never end up lower than any snapshot says (3); the cutoff is now, so
//! that no unfinished change names a file that was swept after the last snapshot; 3. nothing acknowledged is lost: it was published.

use std::collections::BTreeMap;

use siltstone_format::{
    id::{SequenceNumber, SnapshotId},
    snapshot::{CommitKind, Snapshot},
};

use super::{adopt, build, create, need_pointer, packed, publish, roots, tip};
use crate::{
    base64,
    checkpoint::Checkpoints,
    context::{Incarnation, TableContext},
    error::CommitError,
    io::{Effect, Io, ItemName, Reply},
    manifests::{self, Names},
    pointer::{
        CHANGE_IDS, PROPERTY_CHANGE, PROPERTY_CHECKPOINTS, PROPERTY_CHECKPOINTS_OBJECT, PROPERTY_FLOOR, PROPERTY_TABLE,
        Pointer, TableState, split_ids,
    },
    steps,
};

/// Above every `rev` that a lost pointer can have reached since its last published snapshot.
const REV_JUMP: u64 = 1 << 20;

pub(crate) async fn restore(io: Io, context: TableContext) -> Result<Pointer, CommitError> {
    need_pointer(&context)?;
    let any = TableContext { incarnation: None, ..context };
    let there = tip::find_pointer(&io, steps::RESTORE_FIND, &any).await?;
    let names = tip::list_snapshots(&io, steps::RESTORE_FIND, &any).await?;
    let newest = names.last().map(|(id, _)| *id);
    let Some(newest) = newest.filter(|id| there.as_ref().is_none_or(|p| p.version() < *id)) else {
        return if there.is_some() { tip::settle(&io, &any).await } else { create::adopt_table(io, any).await };
    };
    if let Some(forked) = there.as_ref().filter(|p| p.state == TableState::Forked) {
        let reason = "a foreign snapshot stands in place of ours; repair the fork first".to_owned();
        return Err(CommitError::Forked { table: any.location.root().to_owned(), at: forked.version(), reason });
    }
    let pointer = rebuild(&io, &any, there.as_ref(), newest, &names).await?;
    write(&io, &any, there.as_ref(), pointer).await
}

/// The pointer that the snapshots' properties say.
async fn rebuild(
    io: &Io,
    context: &TableContext,
    there: Option<&Pointer>,
    newest: SnapshotId,
    names: &[(SnapshotId, i64)],
) -> Result<Pointer, CommitError> {
    let step = steps::RESTORE_READ;
    let recent = names.iter().rev().take(CHANGE_IDS).map(|(id, _)| *id);
    let snapshots = roots::snapshots(io, step, context, recent).await?;
    let Some(snapshot) = snapshots.get(&newest) else {
        return Err(CommitError::corrupt(
            context.location.snapshot(newest),
            "it vanished while it was read; try again",
        ));
    };
    let property =
        |name: &str| snapshots.values().rev().find_map(|s| s.properties.as_ref().and_then(|p| p.get(name)).cloned());
    let incarnation = create::new_incarnation(io, steps::RESTORE_POINTER).await?;
    let uuid = match property(PROPERTY_TABLE).or_else(|| there.map(|p| p.table_uuid.clone())) {
        Some(uuid) => uuid,
        None => io.uuid(steps::RESTORE_POINTER).await?,
    };
    let schema = create::latest_schema(io, step, context).await?;
    let mut pointer = Pointer::new(incarnation, uuid, schema.max(snapshot.schema_id));
    pointer.checkpoints = checkpoints(io, context, there, &snapshots).await?;
    let floor = property(PROPERTY_FLOOR).and_then(|f| f.parse().ok()).map_or(SequenceNumber(0), SequenceNumber);
    let rows = create::floor_of(io, context, snapshot).await?;
    pointer.floor = floor.max(rows).max(there.map_or(SequenceNumber(0), |p| p.floor));
    pointer.sweep_cutoff_ms = io.now(steps::RESTORE_POINTER).await?;
    pointer.earliest = contiguous_from(names).max(there.map_or(SnapshotId(0), |p| p.earliest));
    pointer.published = newest;
    pointer.state = there.map_or(TableState::Active, |p| p.state);
    let identifiers = snapshots.values().filter(|s| Incarnation::is_ours(&s.commit_user));
    let highest = identifiers.map(|s| s.commit_identifier.0.unsigned_abs()).max().unwrap_or(0);
    pointer.rev = highest.max(there.map_or(0, |p| p.rev)).saturating_add(REV_JUMP);
    let ids = snapshots.values().filter_map(|s| s.properties.as_ref()?.get(PROPERTY_CHANGE));
    ids.flat_map(|ids| split_ids(ids)).for_each(|id| pointer.remember(id));
    pointer.snapshot = Some(adopt::slim(snapshot.clone()));
    Ok(pointer)
}

/// The positions that the newest snapshot of ours says; the old pointer's where they are further.
async fn checkpoints(
    io: &Io,
    context: &TableContext,
    there: Option<&Pointer>,
    snapshots: &BTreeMap<SnapshotId, Snapshot>,
) -> Result<Checkpoints, CommitError> {
    let own = snapshots.iter().rev().find_map(|(id, s)| {
        let properties = s.properties.as_ref()?;
        Some((*id, properties.get(PROPERTY_CHECKPOINTS)?.clone(), properties.get(PROPERTY_CHECKPOINTS_OBJECT).cloned()))
    });
    let Some((id, packed, object)) = own else {
        return Ok(there.map(|p| p.checkpoints.clone()).unwrap_or_default());
    };
    let key = context.location.snapshot(id);
    let bytes = base64::decode(&packed).ok_or_else(|| CommitError::corrupt(&key, "its checkpoints are no base64"))?;
    let mut checkpoints = Checkpoints::unpack(&bytes, object).map_err(|reason| CommitError::corrupt(&key, reason))?;
    packed::load_others(io, steps::RESTORE_READ, context, &mut checkpoints).await?;
    if let Some(there) = there {
        let mut old = there.checkpoints.clone();
        packed::load_others(io, steps::RESTORE_READ, context, &mut old).await?;
        checkpoints.raise(&old.all());
    }
    if checkpoints.overflows() {
        packed::spill(io, context, &mut checkpoints).await?;
    }
    Ok(checkpoints)
}

/// First name of the run of names that ends with the newest.
fn contiguous_from(names: &[(SnapshotId, i64)]) -> SnapshotId {
    let mut ids = names.iter().rev().map(|(id, _)| *id);
    let newest = ids.next().unwrap_or(SnapshotId::FIRST);
    ids.fold((newest, true), |(low, unbroken), id| if unbroken && id.next() == low { (id, true) } else { (low, false) })
        .0
}

async fn write(
    io: &Io,
    context: &TableContext,
    there: Option<&Pointer>,
    pointer: Pointer,
) -> Result<Pointer, CommitError> {
    let Some(there) = there else {
        let written = create::create_pointer(io, context, pointer.clone()).await?;
        let mine = written.incarnation == pointer.incarnation;
        return if mine { Ok(written) } else { tip::settle(io, context).await };
    };
    let name = ItemName::Pointer;
    let record = pointer.to_record(&context.location)?;
    for attempt in 1..=crate::effects::TRIES {
        let effect = Effect::SwapItem { name, expected_rev: there.rev, record: record.clone() };
        if io.ask(steps::RESTORE_POINTER, effect).await == Reply::Done {
            return Ok(pointer);
        }
        let now = tip::load_pointer(io, steps::RESTORE_POINTER, context).await?;
        if now.incarnation == pointer.incarnation {
            return Ok(pointer);
        }
        if now.rev != there.rev {
            return Err(CommitError::Contended { protocol: "restore", attempts: attempt });
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "restore", attempts: crate::effects::TRIES })
}

/// Ends the state `forked`: theirs stays, our APPEND is applied again on top of it. A COMPACT or OVERWRITE of ours is dropped: its
/// author was never told that it had been committed, and its inputs may not be live in theirs.
pub(crate) async fn repair_fork(io: Io, context: TableContext) -> Result<Pointer, CommitError> {
    need_pointer(&context)?;
    let pointer = tip::load_pointer(&io, steps::REPAIR_READ, &context).await?;
    let Some(ours) = pointer.snapshot.clone().filter(|_| pointer.state == TableState::Forked) else {
        return tip::settle(&io, &context).await;
    };
    let names = tip::list_snapshots(&io, steps::REPAIR_READ, &context).await?;
    let ids = names.iter().map(|(id, _)| *id).filter(|id| *id >= ours.id);
    let theirs = roots::snapshots(&io, steps::REPAIR_READ, &context, ids).await?;
    let of_ours =
        |(id, snapshot): (&SnapshotId, &Snapshot)| *id > ours.id && Incarnation::is_ours(&snapshot.commit_user);
    if let Some((newest, _)) = theirs.last_key_value().filter(|_| theirs.iter().any(of_ours)) {
        return forget_fork(&io, context, pointer, *newest, &names).await;
    }
    let table = context.location.root().to_owned();
    let (Some(same), Some((newest, tip_snapshot))) = (theirs.get(&ours.id), theirs.last_key_value()) else {
        return Err(CommitError::ForeignRollback { table, missing: ours.id });
    };
    let mut next = Pointer { rev: pointer.rev + 1, state: TableState::Active, ..pointer.clone() };
    if tip::same_snapshot(same, &ours) {
        if *newest > ours.id {
            let reason = "a foreign snapshot above ours was made from another state; roll back to one of ours by hand"
                .to_owned();
            return Err(CommitError::Forked { table, at: *newest, reason });
        }
    } else {
        next.floor = next.floor.max(create::floor_of(&io, &context, tip_snapshot).await?);
        next.schema_id = next.schema_id.max(tip_snapshot.schema_id);
        next.published = *newest;
        if ours.commit_kind == CommitKind::Append {
            next.snapshot = Some(reapplied(&io, &context, &ours, tip_snapshot, next.rev).await?);
        } else {
            let ids = ours.properties.as_ref().and_then(|p| p.get(PROPERTY_CHANGE));
            let ids: Vec<_> = ids.into_iter().flat_map(|ids| split_ids(ids)).collect();
            next.change_ids.retain(|known| !ids.contains(known));
            next.snapshot = Some(adopt::slim(tip_snapshot.clone()));
        }
    }
    match tip::swap(&io, steps::REPAIR_SWAP, &context, &pointer, &next).await? {
        tip::Swap::Swapped => publish::publish(&io, &context, &next).await?,
        tip::Swap::Moved { .. } | tip::Swap::Unknown => {
            return Err(CommitError::Contended { protocol: "repair", attempts: 1 });
        }
    }
    Ok(next)
}

/// A fork that was ended before: nothing is committed in one, so a snapshot of ours above it shows that the pointer was restored from a copy made
/// in the fork. It is rolled forward as any that is behind; to repair it again would apply our APPEND twice.
async fn forget_fork(
    io: &Io,
    context: TableContext,
    forked: Pointer,
    newest: SnapshotId,
    names: &[(SnapshotId, i64)],
) -> Result<Pointer, CommitError> {
    let any = TableContext { incarnation: None, ..context };
    let there = Pointer { state: TableState::Active, ..forked };
    let pointer = rebuild(io, &any, Some(&there), newest, names).await?;
    write(io, &any, Some(&there), pointer).await
}

/// Our delta, by the manifests that it has, on top of theirs.
async fn reapplied(
    io: &Io,
    context: &TableContext,
    ours: &Snapshot,
    theirs: &Snapshot,
    rev: u64,
) -> Result<Snapshot, CommitError> {
    let step = steps::REPAIR_READ;
    let mut names = Names::new(io.uuid(steps::REPAIR_LISTS).await?);
    let base = manifests::read_manifests(io, step, context, theirs).await?.all();
    let delta = manifests::read_manifests(io, step, context, ours).await?.delta;
    let changelog = match &ours.changelog_manifest_list {
        Some(name) => manifests::read_list(io, step, context, name).await?.unwrap_or_default(),
        None => Vec::new(),
    };
    let merged = manifests::merge_base(io, step, context, &mut names, base).await?;
    io.put_new(steps::REPAIR_LISTS, merged.objects).await?;
    let lists = build::Lists::write(io, context, &mut names, &merged.metas, &delta, &changelog).await?;
    let uuid = io.uuid(steps::REPAIR_LISTS).await?;
    let now = io.now(steps::REPAIR_LISTS).await?;
    Ok(lists.snapshot_again(ours, theirs, rev, uuid, now))
}
