//! The protocols: each function returns a [`Machine`] that its driver runs to the end (see `io`).
//!
//! Neighbours: `steps` says in which order each of them writes and why; `context` is the table, `changes` what is committed.
//! Invariants: 1. every protocol under a pointer begins with a settled tip, so each of them also repairs; 2. every protocol may be
//! stopped after any step and run again, by anyone, any number of times.

mod adopt;
mod bare;
mod build;
mod check;
mod commit;
mod contention;
mod create;
mod expire;
mod group;
mod packed;
mod publish;
mod restore;
mod rollback;
mod roots;
pub(crate) mod slots;
mod sweep;
mod tip;

#[cfg(test)]
mod tests;

use siltstone_format::{
    id::SequenceNumber,
    manifest::{ManifestEntry, ManifestFileMeta},
    snapshot::Snapshot,
};

pub use self::{
    check::{Checked, Finding, ReachedFile, Severity},
    expire::{ExpireOptions, Expired},
    group::Folds,
    rollback::RollbackTarget,
    sweep::{SweepOptions, Swept},
};
use crate::{
    changes::{Change, ChangeId, CommitReport, Outcome},
    checkpoint::{Checkpoints, Lookup, ShardId},
    context::{Authority, TableContext},
    error::CommitError,
    io::{Io, Machine},
    manifests::{self, Scope},
    pointer::Pointer,
    sequence::Reservation,
    steps,
};

/// The state that a caller plans on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedTable {
    /// The pointer; `None` on a bare warehouse.
    pub pointer: Option<Pointer>,
    /// The current snapshot.
    pub snapshot: Option<Snapshot>,
}

/// Commits a change. Run the same change again after an error or an unknown outcome: it takes effect at most once.
#[must_use]
pub fn commit(context: &TableContext, change: Change) -> Machine<Outcome> {
    commit_on(context, change, None)
}

/// As [`commit`], with the pointer that the change was planned on: saves its second reading. If it has moved since, the change is
/// evaluated on what it is then.
#[must_use]
pub fn commit_on(context: &TableContext, change: Change, planned_on: Option<Pointer>) -> Machine<Outcome> {
    let context = context.clone();
    Machine::new(move |io| async move { Ok(run_commit(io, context, change, planned_on, None).await?.outcome) })
}

/// As [`commit_on`], and says what else the run did: under contention it may have committed the changes of others. After `until_ms` (the world's
/// clock) it waits for nobody: the outcome is unknown then, and a run that begins later only races.
#[must_use]
pub fn commit_until(
    context: &TableContext,
    change: Change,
    planned_on: Option<Pointer>,
    until_ms: i64,
) -> Machine<CommitReport> {
    let context = context.clone();
    Machine::new(move |io| run_commit(io, context, change, planned_on, Some(until_ms)))
}

async fn run_commit(
    io: Io,
    context: TableContext,
    change: Change,
    planned_on: Option<Pointer>,
    until_ms: Option<i64>,
) -> Result<CommitReport, CommitError> {
    match context.authority {
        Authority::Pointer => commit::run(io, context, change, planned_on, until_ms).await,
        Authority::Bare => bare::run(io, context, change).await.map(CommitReport::plain),
    }
}

/// Commits and answers whatever is staged, as a lease holder without a change of its own: writers may have died. Does nothing while somebody
/// holds the lease.
#[must_use]
pub fn fold_staged(context: &TableContext) -> Machine<Folds> {
    let context = context.clone();
    Machine::new(move |io| group::fold_staged(io, context))
}

/// Reads the current state; publication is repaired and foreign snapshots are adopted first. With `load_checkpoints` the
/// packed object with the checkpoints of the less recent shards is read too.
#[must_use]
pub fn load(context: &TableContext, load_checkpoints: bool) -> Machine<LoadedTable> {
    let context = context.clone();
    Machine::new(move |io| async move {
        if context.authority == Authority::Bare {
            let snapshot = bare::latest(&io, &context).await?;
            return Ok(LoadedTable { pointer: None, snapshot });
        }
        let mut pointer = tip::settle(&io, &context).await?;
        if load_checkpoints {
            packed::load_others(&io, steps::COMMIT_READ, &context, &mut pointer.checkpoints).await?;
        }
        Ok(LoadedTable { snapshot: pointer.snapshot.clone(), pointer: Some(pointer) })
    })
}

/// The checkpoints of a pointer, those of its packed object included. Changes nothing.
#[must_use]
pub fn checkpoints(context: &TableContext, pointer: Pointer) -> Machine<Checkpoints> {
    let context = context.clone();
    Machine::new(move |io| async move {
        let mut checkpoints = pointer.checkpoints;
        packed::load_others(&io, steps::CHECK_READ, &context, &mut checkpoints).await?;
        Ok(checkpoints)
    })
}

/// As [`load`] for the writer of one shard: the packed object with the less recent shards is read if this one is not among the recent.
#[must_use]
pub fn load_for(context: &TableContext, shard: ShardId) -> Machine<Pointer> {
    let context = context.clone();
    Machine::new(move |io| async move {
        need_pointer(&context)?;
        let mut pointer = tip::settle(&io, &context).await?;
        if pointer.checkpoints.get(&shard) == Lookup::NotLoaded {
            packed::load_others(&io, steps::COMMIT_READ, &context, &mut pointer.checkpoints).await?;
        }
        Ok(pointer)
    })
}

/// Live data files of a snapshot in a scope, DELETE entries applied, in a fixed order.
#[must_use]
pub fn live_files(context: &TableContext, snapshot: Snapshot, scope: Scope) -> Machine<Vec<ManifestEntry>> {
    let context = context.clone();
    Machine::new(move |io| async move {
        let manifests = manifests::read_manifests(&io, steps::CHECK_READ, &context, &snapshot).await?;
        let live = manifests::read_live(&io, steps::CHECK_READ, &context, &manifests.all(), &scope).await?;
        Ok(live.into_files())
    })
}

/// The entries of a snapshot's own commit, and of its changelog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// Data files, as committed.
    pub files: Vec<ManifestEntry>,
    /// Changelog files.
    pub changelog: Vec<ManifestEntry>,
}

/// Reads what a snapshot's commit added, deleted and logged.
#[must_use]
pub fn delta_files(context: &TableContext, snapshot: Snapshot) -> Machine<Delta> {
    let context = context.clone();
    Machine::new(move |io| async move {
        let step = steps::CHECK_READ;
        let lists = manifests::read_manifests(&io, step, &context, &snapshot).await?;
        let files = manifests::read_entries(&io, step, &context, &lists.delta).await?.concat();
        let changelog: Vec<ManifestFileMeta> = match &snapshot.changelog_manifest_list {
            Some(name) => manifests::read_list(&io, step, &context, name).await?.ok_or_else(|| {
                let by = context.location.snapshot(snapshot.id);
                CommitError::corrupt(
                    context.location.manifest(name),
                    format!(
                        "{by} names it and it does not exist; restore it from a backup, its changes are in the table"
                    ),
                )
            })?,
            None => Vec::new(),
        };
        let changelog = manifests::read_entries(&io, step, &context, &changelog).await?.concat();
        Ok(Delta { files, changelog })
    })
}

/// Creates a table: `schema-0` (the context's schema), then the pointer. Running it again with the same `table_uuid` (or, before
/// anything was committed, with an equal schema) finishes an interrupted run.
#[must_use]
pub fn create(context: &TableContext, table_uuid: Option<String>) -> Machine<Pointer> {
    let context = context.clone();
    Machine::new(move |io| async move { create::create(io, context, table_uuid).await })
}

/// Puts a pointer over an existing Paimon table, as [`restore`] does where there is none; its snapshots stay what they are.
#[cfg(test)]
pub(crate) fn adopt_table(context: &TableContext) -> Machine<Pointer> {
    let context = context.clone();
    Machine::new(move |io| async move { create::adopt_table(io, context).await })
}

/// Stops all commits (`true`), or takes them again.
#[must_use]
pub fn set_paused(context: &TableContext, paused: bool) -> Machine<Pointer> {
    let context = context.clone();
    Machine::new(move |io| async move { create::set_paused(io, context, paused).await })
}

/// Expires snapshots: raises `earliest`, then deletes what only they needed.
#[must_use]
pub fn expire(context: &TableContext, options: ExpireOptions) -> Machine<Expired> {
    let context = context.clone();
    Machine::new(move |io| async move { expire::run(io, context, options).await })
}

/// Deletes (or, in a dry run, names) files that nothing refers to.
#[must_use]
pub fn sweep(context: &TableContext, options: SweepOptions) -> Machine<Swept> {
    let context = context.clone();
    Machine::new(move |io| async move { sweep::run(io, context, options).await })
}

/// A new snapshot with the content of an older one; stream positions stay. The id makes repetitions harmless.
#[must_use]
pub fn rollback(context: &TableContext, target: RollbackTarget, id: ChangeId) -> Machine<Outcome> {
    let context = context.clone();
    Machine::new(move |io| async move { rollback::run(io, context, target, id).await })
}

/// Rolls a missing or outdated pointer forward to what S3 holds, as a new incarnation. A pointer that is up to date stays as it is,
/// and its publication is repaired.
#[must_use]
pub fn restore(context: &TableContext) -> Machine<Pointer> {
    let context = context.clone();
    Machine::new(move |io| async move { restore::restore(io, context).await })
}

/// Ends the state `forked`: keeps the foreign snapshot and applies our APPEND again on top of it.
#[must_use]
pub fn repair_fork(context: &TableContext) -> Machine<Pointer> {
    let context = context.clone();
    Machine::new(move |io| async move { restore::repair_fork(io, context).await })
}

/// Reads everything that is reachable and says what is wrong; changes nothing.
#[must_use]
pub fn check(context: &TableContext) -> Machine<Checked> {
    let context = context.clone();
    Machine::new(move |io| async move { check::run(io, context).await })
}

/// Reserves (or finds) the sequence slot of a shard.
#[must_use]
pub fn reserve_slot(context: &TableContext, shard: ShardId) -> Machine<Reservation> {
    let context = context.clone();
    Machine::new(move |io| async move { slots::reserve(io, context, shard, Vec::new()).await })
}

/// The same; where the shard has none yet, others that are about to begin get theirs by the same write.
#[must_use]
pub fn reserve_slots(context: &TableContext, shard: ShardId, ahead: Vec<ShardId>) -> Machine<Reservation> {
    let context = context.clone();
    Machine::new(move |io| async move { slots::reserve(io, context, shard, ahead).await })
}

/// Frees the slots of shards that their children have closed. Returns the shards.
#[must_use]
pub fn release_slots(context: &TableContext) -> Machine<Vec<ShardId>> {
    let context = context.clone();
    Machine::new(move |io| async move { slots::release(io, context).await })
}

/// Above which number new rows of a shard must start: give this, the shard's last number and its parents' to the allocator.
#[must_use]
pub fn sequence_floor(pointer: &Pointer, reservation: Reservation) -> SequenceNumber {
    pointer.floor.max(reservation.floor)
}

/// The error of a protocol that needs a pointer, asked of a bare warehouse.
fn need_pointer(context: &TableContext) -> Result<(), CommitError> {
    match context.authority {
        Authority::Pointer => Ok(()),
        Authority::Bare => Err(CommitError::NoTable { table: context.location.root().to_owned() }),
    }
}
