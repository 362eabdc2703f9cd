//! What kind of history a seed is: how much of everything, and how much goes wrong.
//!
//! Neighbours: `run` reads it. Invariant: 1. a history is short, so that thousands fit a minute; what is rare is made likely instead.

use std::collections::BTreeMap;

use siltstone_commit::testing::Random;
use siltstone_table::catalog::NewTable;

use crate::chance::{Chance, Decision};

/// Dials of one history.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Shards at the start.
    pub shards: u32,
    /// Records in all.
    pub records: u64,
    /// Different primary keys.
    pub keys: u64,
    /// Largest batch.
    pub batch_max: u64,
    /// Of a thousand records, how many cannot be read.
    pub bad: u64,
    /// Of a thousand records, how many are deletes.
    pub deletes: u64,
    /// Buckets of the table.
    pub buckets: u64,
    /// Runs that make a bucket due.
    pub trigger: u64,
    /// Times as many faults as usual; 0 for none.
    pub faults: u64,
    /// Splits and merges.
    pub reshards: u64,
    /// Commits by another engine.
    pub foreign: u64,
    /// Pointers restored from a backup.
    pub restores: u64,
    /// How far a sandbox's clock may be wrong, ms.
    pub skew_ms: u64,
    /// Turns after which faults stop, at the latest.
    pub turns: u64,
}

impl Profile {
    /// That of a seed.
    #[must_use]
    pub fn of(chance: Chance) -> Self {
        let mut r = chance.of(Decision::Profile, 0);
        let mut one_of = |choices: &[u64]| choices[usize::try_from(r.below(choices.len() as u64)).unwrap_or(0)];
        Self {
            shards: u32::try_from(one_of(&[1, 1, 2, 3])).unwrap_or(1),
            records: one_of(&[8, 20, 40, 80]),
            keys: one_of(&[2, 6, 30]),
            batch_max: one_of(&[3, 8, 20]),
            bad: one_of(&[0, 30, 200]),
            deletes: one_of(&[0, 100, 400]),
            buckets: one_of(&[1, 1, 2]),
            trigger: one_of(&[2, 3, 5]),
            faults: one_of(&[0, 1, 1, 3]),
            reshards: one_of(&[0, 0, 1, 3]),
            foreign: one_of(&[0, 0, 1, 3]),
            restores: one_of(&[0, 0, 0, 1]),
            skew_ms: one_of(&[0, 500, 20_000]),
            turns: 3_000,
        }
    }

    /// The table: `id`, where a row comes from (0 for the stream), and its record's number there.
    #[must_use]
    pub fn table(&self) -> NewTable {
        let columns = [("id", "INT"), ("src", "INT"), ("n", "BIGINT")];
        let options = [
            ("bucket", self.buckets.to_string()),
            ("changelog-producer", "input".to_owned()),
            ("num-sorted-run.compaction-trigger", self.trigger.to_string()),
            ("manifest.merge-min-count", "4".to_owned()),
            ("snapshot.num-retained.min", "2".to_owned()),
            ("snapshot.num-retained.max", "12".to_owned()),
            ("snapshot.time-retained", "10 min".to_owned()),
        ];
        NewTable {
            columns: columns.map(|(name, of)| (name.to_owned(), of.to_owned())).into(),
            partition_keys: Vec::new(),
            primary_keys: vec!["id".to_owned()],
            options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
            comment: None,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Refused: slow down.
    Throttled,
    /// Refused: 409.
    Conflict,
    /// Refused: unavailable.
    Unavailable,
    /// The request is lost.
    LostRequest,
    /// It takes effect, the answer is lost.
    LostAnswer,
    /// It takes effect after its writer gave up, or died.
    Late,
    /// The answer takes long.
    Slow,
    /// The process dies before.
    CrashBefore,
    /// The process dies after.
    CrashAfter,
    /// The process dies while a part is done.
    CrashMiddle,
    /// The process freezes for minutes; it is given up meanwhile, and then goes on.
    Frozen,
    /// It is given up and started again elsewhere, and goes on.
    Abandoned,
    /// Its time is over.
    TimedOut,
}

/// Faults and how often each is drawn, of 10,000 calls.
const RATES: [(Fault, u64); 12] = [
    (Fault::Throttled, 60),
    (Fault::Conflict, 60),
    (Fault::Unavailable, 40),
    (Fault::LostRequest, 60),
    (Fault::LostAnswer, 80),
    (Fault::Late, 60),
    (Fault::Slow, 60),
    (Fault::CrashBefore, 30),
    (Fault::CrashAfter, 30),
    (Fault::CrashMiddle, 30),
    (Fault::Frozen, 20),
    (Fault::Abandoned, 20),
];

impl Fault {
    /// Draws what goes wrong with a call, if anything.
    #[must_use]
    pub fn draw(r: &mut Random, times: u64) -> Option<Self> {
        let mut left = r.below(10_000);
        for (fault, rate) in RATES {
            match left.checked_sub(rate * times) {
                Some(rest) => left = rest,
                None => return Some(fault),
            }
        }
        None
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::LostRequest => "lost-request",
            Self::LostAnswer => "lost-answer",
            Self::Late => "late-effect",
            Self::Slow => "slow",
            Self::CrashBefore => "crash-before",
            Self::CrashAfter => "crash-after",
            Self::CrashMiddle => "crash-middle",
            Self::Frozen => "frozen",
            Self::Abandoned => "abandoned",
            Self::TimedOut => "timed-out",
        }
    }
}
