//! Makes a failing history small: leaves out faults and records as long as something is still broken.
//!
//! Neighbours: `run` replays with [`Limits`]. Invariant: 1. what comes out fails, and replays from the seed and the limits alone.

use std::collections::BTreeSet;

use crate::run::{History, Limits, run};

/// Replays before it is small enough.
const TRIES: u32 = 300;

/// The smallest failing history that was found, and its limits. `None` if the seed does not fail.
#[must_use]
pub fn shrink(seed: u64) -> Option<(Limits, History)> {
    let mut best = Best::of(seed, Limits::default())?;
    best.fewer_records();
    best.fewer_faults();
    Some((best.limits, best.history))
}

struct Best {
    limits: Limits,
    history: History,
    tries: u32,
}

impl Best {
    fn of(seed: u64, limits: Limits) -> Option<Self> {
        let history = run(seed, &limits);
        history.violation.is_some().then_some(Self { limits, history, tries: 0 })
    }

    /// Takes these limits if something is still broken under them.
    fn take(&mut self, limits: Limits) -> bool {
        self.tries += 1;
        let smaller = if self.tries <= TRIES { Self::of(self.history.seed, limits) } else { None };
        match smaller {
            Some(smaller) => {
                (self.limits, self.history) = (smaller.limits, smaller.history);
                true
            }
            None => false,
        }
    }

    fn fewer_records(&mut self) {
        for records in [2, 5, 10, 20, 40, 80] {
            if self.take(Limits { records: Some(records), ..self.limits.clone() }) {
                return;
            }
        }
    }

    /// Half of the faults, a quarter, and so on down to single ones.
    fn fewer_faults(&mut self) {
        let mut size = self.hits().len();
        while size > 0 {
            let mut from = 0;
            while from < self.hits().len() {
                let hits = self.hits();
                let kept = hits.iter().take(from).chain(hits.iter().skip(from + size)).copied().collect();
                if !self.take(Limits { only: Some(kept), ..self.limits.clone() }) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Turns of the faults that came.
    fn hits(&self) -> BTreeSet<u64> {
        self.history.hits.iter().filter(|hit| hit.step != "deadline").map(|hit| hit.turn).collect()
    }
}
