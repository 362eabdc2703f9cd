//! Brings a table's pointer and what S3 holds in line again: a lost pointer, one that is behind, a fork.
//!
//! Neighbours: `commit` has the protocols (`restore`, `repair_fork`); `silt repair` shows the plan first. Invariants: 1. looking writes nothing;
//! 2. nothing that was acknowledged is lost (rule 9 of the commit protocol), and a repair that is repeated changes nothing.

use siltstone_commit::{
    context::Authority,
    pointer::{Pointer, TableState},
    protocol,
};
use siltstone_format::{id::SnapshotId, options::Purpose};

use crate::{
    driver::drive,
    error::{Result, TableError},
    name::TableRef,
    ports::Ports,
    state,
    table::{Table, load_pointer},
};

/// What a repair would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the pointer says what S3 holds, or its snapshot only waits for its publication, which is done.
    Settle,
    /// There is no pointer: one is made over the newest snapshot, with the stream positions that it holds.
    MakePointer(SnapshotId),
    /// The pointer is behind our own snapshots (an old copy was restored): it is rolled forward.
    RollForward(SnapshotId),
    /// Another engine put its snapshot in place of ours: its snapshot is kept, our commit is applied again on top, unless that was done before and the pointer
    /// is a copy from the time of the fork.
    EndFork(SnapshotId),
}

/// Opens a table that may have no pointer, and says what is to be done.
///
/// # Errors
/// [`TableError::NotFound`] when there is no such table on S3.
pub async fn plan(ports: &Ports, at: &TableRef) -> Result<(Table, Plan)> {
    let mut table = Table::open(ports, at, Authority::Bare, Purpose::Read).await?;
    table.context.authority = Authority::Pointer;
    let newest = state::listed_ids(&table).await?.last().copied();
    let plan = match (load_pointer(ports, at, &table.location).await, newest) {
        (Ok((pointer, _)), _) if pointer.state == TableState::Forked => Plan::EndFork(pointer.version()),
        (Ok((pointer, _)), Some(newest)) if newest > pointer.version() => Plan::RollForward(newest),
        (Ok(_), _) => Plan::Settle,
        (Err(TableError::NotFound(_)), newest) => Plan::MakePointer(newest.unwrap_or(SnapshotId(0))),
        (Err(error), _) => return Err(error),
    };
    Ok((table, plan))
}

/// Carries a plan out.
///
/// # Errors
/// When a service does not answer (repeat it), or when what S3 holds does not fit together.
pub async fn run(table: &Table, plan: Plan) -> Result<Pointer> {
    let machine = match plan {
        Plan::EndFork(_) => protocol::repair_fork(&table.context),
        Plan::Settle | Plan::MakePointer(_) | Plan::RollForward(_) => protocol::restore(&table.context),
    };
    drive(machine, &table.ports, &table.at).await
}
