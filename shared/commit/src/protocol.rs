//! The protocols: each constructor returns a [`Machine`] that its driver runs to the end.
//!
//! Neighbours: `io` (machine and effects), `context` (the table), `changes` (what is committed).

use siltstone_format::{
    id::{SequenceNumber, SnapshotId},
    manifest::ManifestEntry,
    schema::TableSchema,
    snapshot::Snapshot,
};

use crate::{
    changes::{Change, Outcome},
    checkpoint::ShardId,
    context::TableContext,
    error::CommitError,
    io::Machine,
    pointer::Pointer,
    sequence::Reservation,
};

/// The state that a caller plans on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// The pointer; `None` on a bare warehouse.
    pub pointer: Option<Pointer>,
    /// The current snapshot.
    pub snapshot: Option<Snapshot>,
}

/// What a removal did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Keys.
    pub keys: Vec<String>,
}

fn unfinished<T: Send + 'static>() -> Machine<T> {
    Machine::new(|_| async { Err(CommitError::bug("this protocol is not in this build")) })
}

/// Commits a change.
#[must_use]
pub fn commit(context: &TableContext, change: Change) -> Machine<Outcome> {
    let _ = (context, change);
    unfinished()
}

/// Reads the current state; publication is repaired first. With `load_checkpoints` the packed object with the checkpoints of
/// the less recent shards is read too.
#[must_use]
pub fn load(context: &TableContext, load_checkpoints: bool) -> Machine<TableState> {
    let _ = (context, load_checkpoints);
    unfinished()
}

/// Live data files of a snapshot, DELETE entries applied.
#[must_use]
pub fn live_files(context: &TableContext, snapshot: Snapshot) -> Machine<Vec<ManifestEntry>> {
    let _ = (context, snapshot);
    unfinished()
}

/// Creates a table: schema-0, then the pointer. Running it again with the same `table_uuid` and schema finishes an interrupted run.
#[must_use]
pub fn create(context: &TableContext, schema: TableSchema, table_uuid: Option<String>) -> Machine<Pointer> {
    let _ = (context, schema, table_uuid);
    unfinished()
}

/// Puts a pointer over an existing Paimon table.
#[must_use]
pub fn adopt_table(context: &TableContext) -> Machine<Pointer> {
    let _ = context;
    unfinished()
}

/// Reserves (or finds) the sequence slot of a shard.
#[must_use]
pub fn reserve_slot(context: &TableContext, shard: ShardId) -> Machine<Reservation> {
    let _ = (context, shard);
    unfinished()
}

/// Frees the slots of shards that their children have closed. Returns the shards.
#[must_use]
pub fn release_slots(context: &TableContext) -> Machine<Vec<ShardId>> {
    let _ = context;
    unfinished()
}

/// What expiry keeps: Paimon's `snapshot.*` options.
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
}

/// What the orphan sweep may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepOptions {
    /// Only files older than this, ms; a day by default.
    pub older_than_ms: i64,
    /// Only say what would be deleted.
    pub dry_run: bool,
}

/// Expires snapshots.
#[must_use]
pub fn expire(context: &TableContext, options: ExpireOptions) -> Machine<Removed> {
    let _ = (context, options);
    unfinished()
}

/// Deletes files that nothing refers to.
#[must_use]
pub fn sweep(context: &TableContext, options: SweepOptions) -> Machine<Removed> {
    let _ = (context, options);
    unfinished()
}

/// A new snapshot with the content of `target`; stream positions stay.
#[must_use]
pub fn rollback(context: &TableContext, target: SnapshotId) -> Machine<Outcome> {
    let _ = (context, target);
    unfinished()
}

/// Rolls a missing or outdated pointer forward to what S3 holds, as a new incarnation.
#[must_use]
pub fn restore(context: &TableContext) -> Machine<Pointer> {
    let _ = context;
    unfinished()
}

/// Ends the state `forked`: keeps the foreign snapshot and re-applies our APPEND on top of it.
#[must_use]
pub fn repair_fork(context: &TableContext) -> Machine<Pointer> {
    let _ = context;
    unfinished()
}

/// Something that `check` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Object key or item.
    pub object: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Reads everything that is reachable and reports what is wrong; changes nothing.
#[must_use]
pub fn check(context: &TableContext) -> Machine<Vec<Finding>> {
    let _ = context;
    unfinished()
}

/// Above which number new rows of a shard must start.
#[must_use]
pub fn sequence_floor(pointer: &Pointer, reservation: Reservation) -> SequenceNumber {
    pointer.floor.max(reservation.floor)
}
