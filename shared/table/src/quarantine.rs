//! Reads the quarantine of a table.
//!
//! Neighbours: `ingest` writes the objects, `silt quarantine` shows them. Invariants: 1. a record is listed once, by its position, however
//! often its batch was delivered or re-cut; 2. records above the checkpoint are not listed: their batch was never acknowledged.

use std::collections::BTreeMap;

use siltstone_commit::checkpoint::{Lookup, Position, ShardId};
use siltstone_decode::quarantine::QuarantinedRecord;
use siltstone_store::object::list_all;

use crate::{
    error::{Result, TableError},
    table::Table,
};

/// Largest quarantine object that is read.
const OBJECT_BYTES_MAX: u64 = 256 << 20;

/// The quarantined records of a table, by shard and position.
///
/// # Errors
/// When an object is damaged or cannot be read.
pub async fn list(table: &Table) -> Result<Vec<QuarantinedRecord>> {
    let pointer = table.pointer().await?;
    let objects = list_all(table.ports.objects.as_ref(), &table.at.quarantine()).await.map_err(|e| *e)?;
    let mut records: BTreeMap<(String, Position, u64), QuarantinedRecord> = BTreeMap::new();
    for object in objects {
        if object.size > OBJECT_BYTES_MAX {
            return Err(TableError::Corrupt(format!("quarantine object {} has {} bytes", object.key, object.size)));
        }
        let bytes = table.ports.objects.get(&object.key).await.map_err(|e| *e)?.bytes;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| TableError::Corrupt(format!("quarantine object {} is not UTF-8", object.key)))?;
        for (number, line) in text.lines().enumerate() {
            let damaged = |detail: String| {
                TableError::Corrupt(format!("quarantine object {}, line {}: {detail}", object.key, number + 1))
            };
            let record = QuarantinedRecord::from_json_line(line).map_err(damaged)?;
            let position: Position =
                record.sequence.parse().map_err(|_| damaged("its sequence number is not one".to_owned()))?;
            let shard = ShardId::new(&record.shard)?;
            let covered = match pointer.checkpoints.get(&shard) {
                Lookup::Found(checkpoint) => position <= checkpoint.position,
                Lookup::Absent => false,
                Lookup::NotLoaded => true,
            };
            if covered {
                records.entry((record.shard.clone(), position, record.sub_sequence)).or_insert(record);
            }
        }
    }
    Ok(records.into_values().collect())
}

/// The record at `position` (`shard/sequence[.sub]`).
///
/// # Errors
/// [`TableError::NotFound`] when there is none.
pub async fn find(table: &Table, position: &str) -> Result<QuarantinedRecord> {
    list(table).await?.into_iter().find(|r| r.position() == position).ok_or_else(|| {
        TableError::NotFound(format!(
            "no quarantined record at {position}; `silt quarantine list {}` shows positions",
            table.at.name
        ))
    })
}
