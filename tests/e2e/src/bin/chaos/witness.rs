//! Reads the changelog snapshot by snapshot while the run goes on, before expiry takes it: each change must be in it once, each key's in order.
//!
//! Neighbours: `drive` runs it beside the load; the producer waits for it, so that it never falls far behind. Invariants: 1. a snapshot counts
//! once it was read whole, and once; 2. what cannot be read now (the stack may be down) is read later.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use siltstone_format::{id::SnapshotId, value::Value};
use siltstone_table::{
    Table, TableError, Version,
    scan::{ScanRequest, changelog},
};

use crate::source::KEYS;

/// Kind of the old image of an update.
const UPDATE_BEFORE: i8 = 1;

/// One change as the changelog has it; sorts as a key's changes follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    key: usize,
    sequence: i64,
    number: u64,
}

/// What the changelog bears witness to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// Changes too much.
    pub(crate) duplicates: u64,
    /// Changes that are not in it.
    pub(crate) missing: u64,
    /// Changes that came after a newer one of their key.
    pub(crate) disordered: u64,
    /// Rows that no change was.
    pub(crate) strange: u64,
}

/// What was read so far.
#[derive(Debug)]
pub(crate) struct Witness {
    next: SnapshotId,
    /// By the number of a change: how often it was seen.
    times: Vec<u8>,
    /// By key: the newest change seen.
    newest: Vec<u64>,
    testimony: Testimony,
    /// Different changes seen, for those who wait.
    distinct: Arc<AtomicU64>,
}

impl Witness {
    pub(crate) fn new(distinct: Arc<AtomicU64>) -> Self {
        let (times, newest) = (Vec::new(), vec![0; KEYS]);
        Self { next: SnapshotId(1), times, newest, testimony: Testimony::default(), distinct }
    }

    /// Reads all snapshots that there are by now.
    pub(crate) async fn catch_up(&mut self, table: &Table) -> Result<(), TableError> {
        let Some(tip) = table.current().await? else { return Ok(()) };
        while self.next <= tip.id {
            let (mut rows, mut strange) = (Vec::new(), 0);
            let request = ScanRequest { version: Version::Snapshot(self.next), ..ScanRequest::default() };
            changelog(table, &request, |_, row| {
                if row.kind != UPDATE_BEFORE {
                    match seen(&row.values, row.sequence) {
                        Some(seen) => rows.push(seen),
                        None => strange += 1,
                    }
                }
                true
            })
            .await?;
            self.testimony.strange += strange;
            self.take(rows);
            self.next = SnapshotId(self.next.0 + 1);
        }
        Ok(())
    }

    /// Takes the changes of one snapshot.
    fn take(&mut self, mut rows: Vec<Seen>) {
        rows.sort_unstable();
        for Seen { key, number, .. } in rows {
            let place = usize::try_from(number).unwrap_or(0);
            if place >= self.times.len() {
                self.times.resize(place + 1, 0);
            }
            let Some((times, newest)) = self.times.get_mut(place).zip(self.newest.get_mut(key)) else { continue };
            if *times == 0 {
                self.distinct.fetch_add(1, Ordering::Relaxed);
            } else {
                self.testimony.duplicates += 1;
            }
            *times = times.saturating_add(1);
            if number < *newest {
                self.testimony.disordered += 1;
            }
            *newest = number.max(*newest);
        }
    }

    /// What is known, if the changes up to this number were made.
    pub(crate) fn testimony(&self, changes: u64) -> Testimony {
        let made = usize::try_from(changes).unwrap_or(usize::MAX);
        let once = |times: &&u8| **times > 0;
        let seen = self.times.iter().skip(1).take(made).filter(once).count() as u64;
        let beyond = self.times.iter().skip(made.saturating_add(1)).filter(once).count() as u64;
        let strange = self.testimony.strange + beyond;
        Testimony { missing: changes.saturating_sub(seen), strange, ..self.testimony }
    }
}

/// A row of the changelog; none if its key or number is none of ours.
fn seen(values: &[Value], sequence: i64) -> Option<Seen> {
    let [Value::BigInt(key), Value::BigInt(number), ..] = values else { return None };
    let key = usize::try_from(*key).ok().filter(|key| *key < KEYS)?;
    // A number that is far off is no number of a run.
    let number = u64::try_from(*number).ok().filter(|number| (1..1 << 32).contains(number))?;
    Some(Seen { key, sequence, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(snapshots: &[&[(usize, i64, u64)]]) -> Witness {
        let mut witness = Witness::new(Arc::default());
        for rows in snapshots {
            witness.take(rows.iter().map(|&(key, sequence, number)| Seen { key, sequence, number }).collect());
        }
        witness
    }

    #[test]
    fn changes_once_and_in_order_are_well_whatever_the_order_of_rows_within_a_snapshot() {
        let witness = witness(&[&[(7, 2, 3), (7, 1, 1), (8, 1, 2)], &[(7, 3, 4)]]);
        assert_eq!(witness.testimony(4), Testimony::default());
        assert_eq!(witness.distinct.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn what_is_missing_doubled_disordered_or_never_made_is_counted() {
        let witness = witness(&[&[(7, 1, 1), (7, 2, 4)], &[(7, 3, 3)], &[(8, 1, 1), (9, 1, 9)]]);
        let wanted = Testimony { duplicates: 1, missing: 2, disordered: 1, strange: 1 };
        assert_eq!(witness.testimony(5), wanted);
    }

    #[test]
    fn rows_that_are_no_change_are_strange() {
        let number = Value::BigInt(1);
        assert!(seen(&[Value::BigInt(1), number.clone()], 1).is_some());
        assert!(seen(&[Value::BigInt(-1), number.clone()], 1).is_none());
        assert!(seen(&[Value::BigInt(1), Value::Null], 1).is_none());
    }
}
