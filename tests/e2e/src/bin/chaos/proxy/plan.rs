//! Decides what becomes of each request: passed on, disturbed, or done and its process killed.
//!
//! Neighbours: `proxy` asks, `report` shows the counts. Choices are drawn from the seed, but which request meets which choice is up to the
//! machine: a seed repeats the load and the kinds of trouble, not their order. Invariants: 1. nothing happens once it is ended; 2. kills are
//! spread over the steps as evenly as these come.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{fault::Fault, step::Asked};

/// Of a thousand requests, so many are disturbed.
const FAULTS: u32 = 15;
/// Time between kills of one function. Those that come seldom, and do much one after the other, must also get through at times.
const BETWEEN_KILLS_MS: [(&str, std::ops::Range<u64>); 3] =
    [("ingest", 400..1_600), ("compact", 4_000..12_000), ("maintain", 6_000..30_000)];
/// Of a hundred steps that may be killed, so many are: the first of several would else keep the others from ever being reached.
const HITS: u32 = 30;
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
    functions: BTreeMap<String, Function>,
}

/// What is known of one function.
#[derive(Debug, Default)]
struct Function {
    /// Kills, by step; those that had none as well.
    kills: BTreeMap<String, u64>,
    next_kill: Option<Instant>,
}

impl Function {
    /// Whether a kill is due and this step had no more than others. The longer the kill waits, the more it may have had: some steps come seldom.
    fn is_target(&mut self, step: &str, now: Instant) -> bool {
        if !self.kills.contains_key(step) {
            self.kills.insert(step.to_owned(), 0);
        }
        let Some(waited) = now.checked_duration_since(*self.next_kill.get_or_insert(now)) else { return false };
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let average_1000 = self.kills.values().sum::<u64>() * 1_000 / self.kills.len() as u64;
        let had = self.kills.get(step).copied().unwrap_or(0);
        had * 1_000 <= average_1000.saturating_add((average_1000 / 1_000 + 1).saturating_mul(waited_ms))
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), ended: false, counts: Counts::default(), functions: BTreeMap::new() }
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
            && self.functions.entry(function_of(step).to_owned()).or_default().is_target(step, now)
            && self.rng.random_range(0..100) < HITS
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
        let name = function_of(step);
        let between = BETWEEN_KILLS_MS.into_iter().find(|(of, _)| *of == name).map_or(1_000..2_000, |(_, ms)| ms);
        let pause = Duration::from_millis(self.rng.random_range(between));
        let function = self.functions.entry(name.to_owned()).or_default();
        *function.kills.entry(step.to_owned()).or_insert(0) += 1;
        function.next_kill = Some(now + pause);
    }
}

/// The first word of a step.
fn function_of(step: &str) -> &str {
    step.split(' ').next().unwrap_or_default()
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
        let mut plan = Plan::new(7);
        let (often, seldom) = ("ingest put data-file", "ingest put slots");
        let mut at = start;
        for turn in 0..60_000 {
            at += Duration::from_millis(10);
            let step = if turn % 100 == 0 { seldom } else { often };
            if turn % 10 == 0 && plan.decide(&put(), Some(step), at) == Act::Kill {
                plan.killed(step, at);
            }
        }
        let counts = plan.counts();
        let [a, b] = [often, seldom].map(|step| counts.kills_by_step[step]);
        assert_eq!((counts.kills(), counts.requests), (a + b, 6_000));
        assert!(b > 50 && a < 3 * b, "{a} and {b}, of ten times as many");
        assert!(counts.faults.len() > 3, "{counts:?}");
        plan.end();
        let at = at + Duration::from_secs(60);
        assert!((0..1_000).all(|_| plan.decide(&put(), Some(often), at) == Act::Pass));
    }

    #[test]
    fn the_first_of_several_steps_lets_the_last_be_reached() {
        let start = Instant::now();
        let mut plan = Plan::new(7);
        // Each a run of maintain: it ends with a kill.
        for run in 0..500 {
            let at = start + Duration::from_secs(10 * run);
            let steps =
                ["maintain put mapping", "maintain put group-lease", "maintain put task", "maintain delete snapshot"];
            if let Some(step) = steps.into_iter().find(|step| plan.decide(&put(), Some(step), at) == Act::Kill) {
                plan.killed(step, at);
            }
        }
        let kills = plan.counts().kills_by_step;
        assert!(kills.len() == 4 && kills.values().all(|times| *times > 20), "{kills:?}");
    }

    #[test]
    fn a_step_that_had_most_is_killed_again_when_no_other_comes() {
        let start = Instant::now();
        let mut plan = Plan::new(7);
        plan.decide(&put(), Some("ingest a"), start);
        (0..10).for_each(|_| plan.killed("ingest b", start));
        let at = |ms| start + Duration::from_secs(1) + Duration::from_millis(ms);
        let kill_after = (0..10_000).step_by(10).find(|ms| plan.decide(&put(), Some("ingest b"), at(*ms)) == Act::Kill);
        assert!(kill_after.is_some_and(|ms| (100..3_000).contains(&ms)), "{kill_after:?}");
    }
}
