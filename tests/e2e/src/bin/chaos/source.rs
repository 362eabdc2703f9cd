//! The load: changes of a bounded set of keys, and the oracle of what the table must hold.
//!
//! Neighbours: `producer` puts what [`Changes`] yields, `verify` asks the [`Oracle`]. No type of Siltstone is used here.
//! Invariants: 1. a change's number is unique and grows; 2. a call has one record of a key at the most, so that none passes another;
//! 3. what a row must hold follows from its key and the number of its last change.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Columns of the table: name and type.
pub(crate) const COLUMNS: [(&str, &str); 3] = [("id", "BIGINT NOT NULL"), ("change", "BIGINT"), ("value", "STRING")];

/// Keys are below this.
pub(crate) const KEYS: usize = 40_000;
/// Keys that change all the time.
const HOT_KEYS: usize = 300;
/// Of a hundred changes.
const HOT: u32 = 15;
const DELETES: u32 = 12;
/// Of a thousand records.
const MALFORMED: u32 = 1;

/// What is put into the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Change { key: usize, number: u64, delete: bool },
    Malformed { number: u64 },
}

impl Record {
    pub(crate) fn partition_key(&self) -> String {
        match self {
            Self::Change { key, .. } => key.to_string(),
            Self::Malformed { number } => format!("malformed-{number}"),
        }
    }

    /// JSON, or no JSON.
    pub(crate) fn payload(&self) -> Vec<u8> {
        match self {
            Self::Change { key, number, delete: true } => {
                format!(r#"{{"op":"d","id":{key},"change":{number}}}"#).into()
            }
            Self::Change { key, number, delete: false } => {
                format!(r#"{{"op":"u","id":{key},"change":{number},"value":"{}"}}"#, value(*number)).into()
            }
            Self::Malformed { number } => malformed(*number),
        }
    }
}

/// Records that no decoder takes, each bad in its own way; the only digits are the number.
fn malformed(number: u64) -> Vec<u8> {
    match number % 4 {
        0 => format!(r#"{{"op":"u","change":{number}"#).into(),
        1 => format!("[{number}]").into(),
        2 => format!(r#"{{"op":"u","id":"seven","change":{number}}}"#).into(),
        _ => [b"\xff\xfe".as_slice(), number.to_string().as_bytes()].concat(),
    }
}

/// The number of a malformed record, read back from its bytes.
pub(crate) fn malformed_number(data: &[u8]) -> Option<u64> {
    let digits: String = data.iter().copied().filter(u8::is_ascii_digit).map(char::from).collect();
    digits.parse().ok()
}

/// What a row holds after a change: looks like nothing else, and is of changing length.
pub(crate) fn value(number: u64) -> String {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016x}{}", "-".repeat((mixed >> 60) as usize))
}

/// An endless, seeded stream of changes.
pub(crate) struct Changes {
    rng: SmallRng,
    next: u64,
    next_malformed: u64,
}

impl Changes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), next: 1, next_malformed: 1 }
    }

    /// The records of one call.
    pub(crate) fn call(&mut self, records: usize) -> Vec<Record> {
        let (mut call, mut keys) = (Vec::with_capacity(records), BTreeSet::new());
        while call.len() < records {
            if self.rng.random_range(0..1_000) < MALFORMED {
                call.push(Record::Malformed { number: self.next_malformed });
                self.next_malformed += 1;
                continue;
            }
            let hot = self.rng.random_range(0..100) < HOT;
            let key = self.rng.random_range(0..if hot { HOT_KEYS } else { KEYS });
            if keys.insert(key) {
                let delete = self.rng.random_range(0..100) < DELETES;
                call.push(Record::Change { key, number: self.next, delete });
                self.next += 1;
            }
        }
        call
    }
}

/// What the table must hold.
#[derive(Debug)]
pub(crate) struct Oracle {
    /// By key: the change that wrote the row; 0 without a row.
    rows: Vec<u64>,
    pub(crate) changes: u64,
    pub(crate) malformed: u64,
}

impl Default for Oracle {
    fn default() -> Self {
        Self { rows: vec![0; KEYS], changes: 0, malformed: 0 }
    }
}

/// A scan against the oracle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) wrong: u64,
    pub(crate) extra: u64,
}

impl Oracle {
    /// Takes a record that the stream took.
    pub(crate) fn apply(&mut self, record: &Record) {
        match *record {
            Record::Malformed { .. } => self.malformed += 1,
            Record::Change { key, number, delete } => {
                self.changes += 1;
                if let Some(row) = self.rows.get_mut(key) {
                    *row = if delete { 0 } else { number };
                }
            }
        }
    }

    pub(crate) fn live(&self) -> u64 {
        self.rows.iter().filter(|row| **row != 0).count() as u64
    }

    /// Starts to compare.
    pub(crate) fn compare(&self) -> Comparison<'_> {
        Comparison { oracle: self, seen: vec![false; self.rows.len()], difference: Difference::default() }
    }
}

/// A comparison on its way.
pub(crate) struct Comparison<'a> {
    oracle: &'a Oracle,
    seen: Vec<bool>,
    difference: Difference,
}

impl Comparison<'_> {
    /// One row of the scan.
    pub(crate) fn row(&mut self, key: i64, change: i64, text: &str) {
        let place = usize::try_from(key).ok().filter(|key| *key < self.seen.len());
        let Some(place) = place else {
            self.difference.extra += 1;
            return;
        };
        let wanted = self.oracle.rows.get(place).copied().unwrap_or(0);
        let seen = self.seen.get_mut(place).is_some_and(|seen| std::mem::replace(seen, true));
        match u64::try_from(change) {
            _ if seen => self.difference.doubled += 1,
            _ if wanted == 0 => self.difference.extra += 1,
            Ok(change) if change == wanted && text == value(wanted) => {}
            _ => self.difference.wrong += 1,
        }
    }

    pub(crate) fn end(mut self) -> Difference {
        let rows = self.oracle.rows.iter().zip(&self.seen);
        self.difference.lost = rows.filter(|(row, seen)| **row != 0 && !**seen).count() as u64;
        self.difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_calls_with_one_record_of_a_key() {
        let calls = |seed| {
            let mut changes = Changes::new(seed);
            (0..20).map(|_| changes.call(500)).collect::<Vec<_>>()
        };
        assert_eq!(calls(7), calls(7));
        assert_ne!(calls(7), calls(8));
        for call in calls(7) {
            let keys: BTreeSet<String> = call.iter().map(Record::partition_key).collect();
            assert_eq!((call.len(), keys.len()), (500, 500));
        }
    }

    #[test]
    fn malformed_records_tell_their_number() {
        let numbers: Vec<_> = (1..9).map(|number| malformed_number(&Record::Malformed { number }.payload())).collect();
        assert_eq!(numbers, (1..9).map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn a_comparison_names_lost_doubled_wrong_and_extra_rows() {
        let mut oracle = Oracle::default();
        for (key, number) in [(1, 10), (2, 11), (3, 12), (4, 13)] {
            oracle.apply(&Record::Change { key, number, delete: false });
        }
        oracle.apply(&Record::Change { key: 4, number: 14, delete: true });
        let mut right = oracle.compare();
        for (key, change) in [(1, 10), (2, 11), (3, 12)] {
            right.row(key, change, &value(change.unsigned_abs()));
        }
        assert_eq!((right.end(), oracle.live()), (Difference::default(), 3));
        let mut comparison = oracle.compare();
        comparison.row(1, 10, &value(10));
        comparison.row(1, 10, &value(10));
        comparison.row(2, 11, "other");
        comparison.row(4, 13, &value(13));
        assert_eq!(comparison.end(), Difference { lost: 1, doubled: 1, wrong: 1, extra: 1 });
    }
}
