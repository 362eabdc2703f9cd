//! Decides what becomes of each request: passed on, disturbed, or done and its process killed.
//!
//! Neighbours: `proxy` asks, `report` shows the counts. Choices are drawn from the seed, but which request meets which choice is up to the
//! machine: a seed repeats the load and the kinds of trouble, not their order. Invariants: 1. nothing happens once it is ended; 2. kills are
//! spread over the steps as evenly as these come.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{fault::Fault, step::Asked};

/// Of a thousand requests, so many are disturbed.
const FAULTS: u32 = 15;
const BETWEEN_KILLS_MS: std::ops::Range<u64> = 400..1_500;
/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    Disturb(Fault),
    /// To be done, then its process is killed.
    Kill,
}

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    /// Of functions whose stack was killed.
    pub(crate) orphans_requests: u64,
    pub(crate) kills_by_step: BTreeMap<String, u64>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(crate) fn kills(&self) -> u64 {
        self.kills_by_step.values().sum()
    }
}

/// The plan of one run.
pub(crate) struct Plan {
    rng: SmallRng,
    ended: bool,
    counts: Counts,
    seen: BTreeSet<String>,
    next_kill: Instant,
}

impl Plan {
    pub(crate) fn new(seed: u64, now: Instant) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            ended: false,
            counts: Counts::default(),
            seen: BTreeSet::new(),
            next_kill: now,
        }
    }

    /// A function asks whose stack was killed.
    pub(crate) fn orphan_asked(&mut self) {
        self.counts.orphans_requests += 1;
    }

    /// From now on all is passed on.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// `step` names what the request leaves behind and who asks, if it can be killed.
    pub(crate) fn decide(&mut self, asked: &Asked, step: Option<&str>, now: Instant) -> Act {
        self.counts.requests += 1;
        if self.ended {
            return Act::Pass;
        }
        if let Some(step) = step
            && self.is_target(step, now)
        {
            return Act::Kill;
        }
        if self.rng.random_range(0..1_000) >= FAULTS {
            return Act::Pass;
        }
        let fault = Fault::draw(&mut self.rng, asked);
        *self.counts.faults.entry(fault.name(asked.service)).or_insert(0) += 1;
        Act::Disturb(fault)
    }

    /// A process was killed after this step.
    pub(crate) fn killed(&mut self, step: &str, now: Instant) {
        *self.counts.kills_by_step.entry(step.to_owned()).or_insert(0) += 1;
        self.next_kill = now + Duration::from_millis(self.rng.random_range(BETWEEN_KILLS_MS));
    }

    /// Whether a kill is due and this step had no more than others. The longer the kill waits, the more it may have had: some steps come seldom.
    fn is_target(&mut self, step: &str, now: Instant) -> bool {
        if !self.seen.contains(step) {
            self.seen.insert(step.to_owned());
        }
        let Some(waited) = now.checked_duration_since(self.next_kill) else { return false };
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let average_1000 = self.counts.kills() * 1_000 / self.seen.len() as u64;
        let had = self.counts.kills_by_step.get(step).copied().unwrap_or(0);
        had * 1_000 <= average_1000.saturating_add((average_1000 / 1_000 + 1).saturating_mul(waited_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::step::Service;

    fn put() -> Asked {
        Asked { service: Service::S3, step: Some("put".to_owned()), conditional: false, lists_snapshots: false }
    }

    #[test]
    fn kills_are_spread_evenly_although_steps_come_unevenly_and_none_comes_after_the_end() {
        let start = Instant::now();
        let mut plan = Plan::new(7, start);
        let (often, seldom) = ("ingest put data-file", "maintain put pointer");
        let mut at = start;
        let mut kills = 0;
        for turn in 0..20_000 {
            at += Duration::from_millis(10);
            // Each second three of the one and one of the other.
            let step = if turn % 100 == 0 { seldom } else { often };
            let comes = turn % 30 == 0 || turn % 100 == 0;
            if comes && plan.decide(&put(), Some(step), at) == Act::Kill {
                plan.killed(step, at);
                kills += 1;
            }
        }
        let counts = plan.counts();
        assert_eq!(counts.kills(), kills);
        let [a, b] = [often, seldom].map(|step| counts.kills_by_step[step]);
        assert!(kills > 100 && a < 2 * b, "{a} and {b}");
        assert!(counts.faults.len() > 3, "{counts:?}");
        plan.end();
        let at = at + Duration::from_secs(60);
        assert!((0..1_000).all(|_| plan.decide(&put(), Some(often), at) == Act::Pass));
    }

    #[test]
    fn a_step_that_had_most_is_killed_again_when_no_other_comes() {
        let start = Instant::now();
        let mut plan = Plan::new(7, start);
        plan.decide(&put(), Some("a"), start);
        (0..10).for_each(|_| plan.killed("b", start));
        let at = |ms| start + Duration::from_secs(1) + Duration::from_millis(ms);
        let kill_after = (0..10_000).step_by(10).find(|ms| plan.decide(&put(), Some("b"), at(*ms)) == Act::Kill);
        assert!(kill_after.is_some_and(|ms| (100..2_000).contains(&ms)), "{kill_after:?}");
        assert_eq!(plan.decide(&put(), Some("a"), at(0)), Act::Kill, "one that had none need not wait");
    }
}
