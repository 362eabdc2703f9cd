//! Reads the quarantine of a table: the records that could not become rows, and which of them a replay has taken since.
//!
//! Neighbours: `ingest` puts the lists, `replay` takes records out, `silt quarantine` shows them. Invariants: 1. a record is in it once, however
//! often its batch was delivered or re-cut; 2. only lists that a committed change named count: what is in the table is not in quarantine;
//! 3. a replay counts only if the table's checkpoint of replays leads to it.

use std::collections::BTreeSet;

use siltstone_commit::{
    checkpoint::{Checkpoints, ListId, ShardId},
    protocol,
};
use siltstone_decode::quarantine::QuarantinedRecord;

use crate::{
    driver::drive,
    error::{Result, TableError},
    lists, replay,
    table::Table,
};

/// The quarantine as the table's pointer vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Every record, by shard, in stream order.
    pub records: Vec<QuarantinedRecord>,
    /// Positions that were replayed.
    pub replayed: BTreeSet<String>,
    /// How many replays there were, and the list of the last.
    pub(crate) replays: (u64, Option<ListId>),
}

impl Quarantine {
    /// Records that are still out of the table.
    pub fn open(&self) -> impl Iterator<Item = &QuarantinedRecord> {
        self.records.iter().filter(|record| !self.replayed.contains(&record.position()))
    }

    /// The record at `position` (`shard/sequence[.sub]`), replayed or not.
    ///
    /// # Errors
    /// [`TableError::NotFound`] when there is none.
    pub fn find(&self, table: &Table, position: &str) -> Result<&QuarantinedRecord> {
        self.records.iter().find(|record| record.position() == position).ok_or_else(|| {
            TableError::NotFound(format!(
                "no quarantined record at {position}; `silt quarantine list {}` shows positions",
                table.at.name
            ))
        })
    }
}

/// Reads the whole quarantine of a table.
///
/// # Errors
/// When a list is missing or damaged, or cannot be read.
pub async fn read(table: &Table) -> Result<Quarantine> {
    let checkpoints = checkpoints(table).await?;
    let mut records = Vec::new();
    for (shard, checkpoint) in checkpoints.all() {
        if shard.as_str() != replay::REPLAYS {
            records.append(&mut of_shard(table, &shard, checkpoint.list).await?);
        }
    }
    let (count, last) = replay::last(&checkpoints)?;
    let replayed = replay::chain(table, last).await?.into_iter().flat_map(|list| list.lines).collect();
    Ok(Quarantine { records, replayed, replays: (count, last) })
}

/// All checkpoints of the table, read from the pointer as it is now.
pub(crate) async fn checkpoints(table: &Table) -> Result<Checkpoints> {
    let pointer = table.pointer().await?;
    drive(protocol::checkpoints(&table.context, pointer), &table.ports, &table.at).await
}

async fn of_shard(table: &Table, shard: &ShardId, last: Option<ListId>) -> Result<Vec<QuarantinedRecord>> {
    let prefix = format!("{}{shard}/", table.at.quarantine());
    let mut records = Vec::new();
    for list in lists::chain(&table.ports, &prefix, last).await?.into_iter().rev() {
        for (number, line) in list.lines.iter().enumerate() {
            let record = QuarantinedRecord::from_json_line(line)
                .map_err(|detail| TableError::Corrupt(format!("object {}, line {}: {detail}", list.key, number + 2)))?;
            records.push(record);
        }
    }
    Ok(records)
}
