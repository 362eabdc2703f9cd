//! What the table has to hold, from the records that were produced alone; and what its changelog bears witness of.
//!
//! Neighbours: `world` asks after every commit. Numbers in messages are those of the invariants in architecture.md section 3.
//! Invariants: 1. nothing here is taken from the code that is tested, but checkpoints, which say how far it has come; 2. the changelog holds
//! each record once, also where a newer record of its key hides it in the table.

use std::collections::{BTreeMap, BTreeSet};

use siltstone_commit::checkpoint::{Checkpoint, Position, ShardId};

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// The newest version of its row.
    Upsert,
    /// That its row is gone.
    Delete,
    /// Nothing that can be read.
    Bad,
}

/// A record of the stream.
#[derive(Debug, Clone)]
pub struct Record {
    /// From 0, in the order of production.
    pub number: u64,
    /// Primary key.
    pub key: i32,
    /// What it says.
    pub says: Says,
    /// Where it went.
    pub shard: ShardId,
    /// Its place there.
    pub position: Position,
}

/// A row of a data or changelog file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimRow {
    /// Primary key.
    pub key: i32,
    /// Sequence number.
    pub sequence: i64,
    /// True for -U and -D.
    pub retracts: bool,
    /// 0 for the stream, else another engine.
    pub source: u32,
    /// Number of the record that it came from.
    pub number: u64,
}

/// Records and witness.
#[derive(Debug, Default)]
pub struct Oracle {
    records: Vec<Record>,
    logged: BTreeMap<u64, i64>,
}

type Positions = BTreeMap<ShardId, Checkpoint>;

fn covered(positions: &Positions, record: &Record) -> bool {
    positions.get(&record.shard).is_some_and(|checkpoint| record.position <= checkpoint.position)
}

impl Oracle {
    /// A record was put into the stream.
    pub fn produced(&mut self, record: Record) {
        self.records.push(record);
    }

    /// The records so far.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A commit brought these rows of its changelog.
    ///
    /// # Errors
    /// When a record comes twice (6).
    pub fn log(&mut self, rows: &[SimRow]) -> Result<(), String> {
        for row in rows.iter().filter(|row| row.source == 0) {
            if let Some(before) = self.logged.insert(row.number, row.sequence) {
                return Err(format!("6: record {} came again, with {} after {before}", row.number, row.sequence));
            }
        }
        Ok(())
    }

    /// A snapshot lost its name to another engine's: its rows may come once more.
    pub fn forget(&mut self, rows: &[SimRow]) {
        for row in rows {
            self.logged.remove(&row.number);
        }
    }

    /// Compares the table's merged rows, key to number, with the records below the checkpoints: 1, 2, 17, 18.
    ///
    /// # Errors
    /// The first key that differs.
    pub fn compare(&self, positions: &Positions, rows: &[SimRow]) -> Result<(), String> {
        let mut expected: BTreeMap<i32, u64> = BTreeMap::new();
        let mut good = 0;
        for record in self.records.iter().filter(|record| covered(positions, record)) {
            match record.says {
                Says::Upsert => drop(expected.insert(record.key, record.number)),
                Says::Delete => drop(expected.remove(&record.key)),
                Says::Bad => {}
            }
            good += usize::from(record.says != Says::Bad);
        }
        let found = newest(rows);
        if found != expected {
            let keys: BTreeSet<&i32> = found.keys().chain(expected.keys()).collect();
            let wrong = keys.into_iter().find(|key| found.get(key) != expected.get(key));
            let key = wrong.copied().unwrap_or_default();
            let (found, expected) = (found.get(&key), expected.get(&key));
            return Err(format!("1/2: key {key} is of record {found:?}, expected {expected:?}"));
        }
        if self.logged.len() != good {
            return Err(format!("1: {} records are in the changelog, {good} below the checkpoints", self.logged.len()));
        }
        Ok(())
    }

    /// Numbers of one key follow the order of its records (15).
    ///
    /// # Errors
    /// The first pair that does not.
    pub fn ordered(&self) -> Result<(), String> {
        let mut last: BTreeMap<i32, (u64, i64)> = BTreeMap::new();
        for record in &self.records {
            let Some(sequence) = self.logged.get(&record.number) else { continue };
            if let Some((before, lower)) = last.insert(record.key, (record.number, *sequence))
                && lower >= *sequence
            {
                return Err(format!("15: record {} has {sequence}, record {before} before it {lower}", record.number));
            }
        }
        Ok(())
    }

    /// Whether a position is known to be covered with all before it in its shard.
    #[must_use]
    pub fn bad_numbers(&self) -> BTreeSet<u64> {
        self.records.iter().filter(|record| record.says == Says::Bad).map(|record| record.number).collect()
    }
}

/// Merged rows of the stream: the record of each key's newest row, where that is no delete.
fn newest(rows: &[SimRow]) -> BTreeMap<i32, u64> {
    let mut best: BTreeMap<i32, &SimRow> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.source == 0) {
        let place = best.entry(row.key).or_insert(row);
        if row.sequence > place.sequence {
            *place = row;
        }
    }
    best.into_iter().filter(|(_, row)| !row.retracts).map(|(key, row)| (key, row.number)).collect()
}
