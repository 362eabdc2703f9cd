//! Interleaves writers, a compactor, expiry and the sweep at random, one effect at a time, with crashes, zombies and faults.
//!
//! Neighbours: `world` performs, `monitor` stops at the first broken invariant. Invariants: 1. a seed is one run, for ever; 2. once faults
//! stop, everything that was produced is acknowledged (23); 3. the table then equals the oracle: the newest row of each key (1, 2).

use siltstone_format::{
    id::{Bucket, Level, SequenceNumber},
    manifest::ManifestEntry,
};

use super::{
    Random, fixture,
    world::{Faults, World},
};
use crate::{
    changes::{Change, ChangeKind, CommitReport, Conflict, Outcome},
    checkpoint::Lookup,
    context::TableContext,
    error::{CommitError, ErrorKind},
    io::{ItemName, Machine, Reply, Step},
    manifests::Scope,
    pointer::Pointer,
    protocol::{self, ExpireOptions, Expired, Folds, SweepOptions, Swept},
};

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Shards, each with one writer (and its zombies).
    pub writers: u32,
    /// Positions that each writer has to bring in.
    pub positions: u64,
    /// A compactor too.
    pub compactor: bool,
    /// Expiry and sweep too.
    pub maintenance: bool,
    /// Faults until the work is done half.
    pub faults: Faults,
    /// Chance in a thousand that a machine dies before an effect.
    pub crash: u64,
}

enum Running {
    Commit(Machine<CommitReport>, Change),
    Fold(Machine<Folds>),
    Expire(Machine<Expired>),
    Sweep(Machine<Swept>),
}

struct Actor {
    running: Running,
    request: Option<crate::io::Request>,
    shard: Option<u32>,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Effects performed.
    pub effects: usize,
    /// Commits acknowledged.
    pub committed: u64,
    /// Changes refused.
    pub refused: u64,
    /// Machines that died.
    pub crashed: u64,
    /// Snapshots that expired.
    pub expired: usize,
    /// Orphans swept.
    pub swept: usize,
    /// Compactions among the commits.
    pub compacted: u64,
    /// Commits that were staged.
    pub staged: u64,
    /// Staged changes committed by a lease holder.
    pub folded: u64,
    /// The last snapshot.
    pub snapshots: i64,
}

struct Run<'a> {
    context: &'a TableContext,
    world: World,
    random: Random,
    plan: &'a Plan,
    actors: Vec<Actor>,
    summary: Summary,
    batches: u64,
    pointer: Option<Pointer>,
}

/// Runs one seed to the end.
///
/// # Panics
/// At the first broken invariant, with the seed.
#[must_use]
pub fn run(context: &TableContext, seed: u64, plan: &Plan) -> Summary {
    let mut world = World::new(context, seed);
    world.ok(protocol::create(context, None));
    world.faults = plan.faults;
    let (random, summary) = (Random::new(seed ^ 0x5eed), Summary::default());
    let mut run = Run { context, world, random, plan, actors: Vec::new(), summary, batches: 0, pointer: None };
    let mut rounds = 0;
    run.refresh();
    while !run.done() {
        rounds += 1;
        assert!(rounds < 60_000, "invariant 23: seed {seed}: work is left after {rounds} rounds");
        if rounds == 400 {
            run.world.faults = Faults::default();
            run.world.settle_late();
        }
        run.spawn();
        run.step(rounds < 400);
        run.refresh();
    }
    run.finish(seed)
}

impl Run<'_> {
    fn refresh(&mut self) {
        let rev = self.world.items.get(&ItemName::Pointer).map(|r| r.rev);
        if self.pointer.as_ref().map(|p| p.rev) != rev {
            self.pointer = self.world.monitor.read_pointer(&self.world);
        }
    }

    fn covered(&self, n: u32) -> (u64, SequenceNumber) {
        let checkpoint = self.pointer.as_ref().map(|p| (p.checkpoints.get(&fixture::shard(n)), p.floor));
        match checkpoint {
            Some((Lookup::Found(found), floor)) => {
                let position = (0..=self.plan.positions).find(|p| found.position == (*p).into()).unwrap_or(0);
                (position, found.last_sequence.max(floor))
            }
            Some((_, floor)) => (0, floor),
            None => (0, SequenceNumber(0)),
        }
    }

    fn done(&self) -> bool {
        (0..self.plan.writers).all(|n| self.covered(n).0 == self.plan.positions) && self.actors.is_empty()
    }

    /// Starts what is missing, and now and then a second machine for the same shard: a zombie and its successor.
    fn spawn(&mut self) {
        for n in 0..self.plan.writers {
            let running = self.actors.iter().filter(|a| a.shard == Some(n)).count();
            if running == 0 || (running < 3 && self.random.per_mille(10)) {
                self.spawn_writer(n);
            }
        }
        let others = self.actors.iter().filter(|a| a.shard.is_none()).count();
        let busy = (0..self.plan.writers).any(|n| self.covered(n).0 < self.plan.positions);
        if busy && others < 2 && self.random.per_mille(60) {
            self.spawn_other();
        }
    }

    fn spawn_writer(&mut self, n: u32) {
        let (from, above) = self.covered(n);
        if from >= self.plan.positions {
            return;
        }
        let to = (from + 1 + self.random.below(4)).min(self.plan.positions);
        let start = (from > 0).then_some(from);
        let mut change = fixture::batch(&mut self.world, self.context, n, start, to, above);
        if self.random.per_mille(50) {
            change.files.clear(); // its records leave nothing behind
            change.ranges.iter_mut().for_each(|r| r.first_sequence = None);
        }
        self.push_commit(change, Some(n));
    }

    /// A commit with much patience, or with so little that its outcome may stay unknown.
    fn push_commit(&mut self, change: Change, shard: Option<u32>) {
        let patience = if self.random.per_mille(300) { 20 + self.random.below(2_000) } else { 60_000 };
        let until = self.world.now_ms + i64::try_from(patience).unwrap_or(0);
        let machine = protocol::commit_until(self.context, change.clone(), self.planned_on(), until);
        self.push(Running::Commit(machine, change), shard);
    }

    fn spawn_other(&mut self) {
        match self.random.below(5) {
            0 | 1 if self.plan.compactor => self.spawn_compaction(),
            2 if self.plan.maintenance => {
                let options =
                    ExpireOptions { retain_min: 1, retain_max: 3, time_retained_ms: 1_000, ..ExpireOptions::default() };
                self.world.now_ms += 30 * 60_000;
                self.push(Running::Expire(protocol::expire(self.context, options)), None);
            }
            3 if self.plan.maintenance => {
                let options =
                    SweepOptions { older_than_ms: 100, clock_skew_ms: 10, dry_run: false, ..SweepOptions::default() };
                self.push(Running::Sweep(protocol::sweep(self.context, options)), None);
            }
            4 if self.plan.maintenance => self.push(Running::Fold(protocol::fold_staged(self.context)), None),
            _ => {}
        }
    }

    /// All files of one bucket, or some of them, merged into the newest row per key at some level.
    fn spawn_compaction(&mut self) {
        let Some(snapshot) = self.world.monitor.read_pointer(&self.world).and_then(|p| p.snapshot) else { return };
        let faults = std::mem::take(&mut self.world.faults);
        let live = self.world.run(protocol::live_files(self.context, snapshot, Scope::Everything));
        self.world.faults = faults;
        let Some(Ok(live)) = live else { return };
        let bucket = Bucket(i32::try_from(self.random.below(2)).unwrap_or(0));
        let mut inputs: Vec<ManifestEntry> = live.into_iter().filter(|e| e.bucket == bucket).collect();
        if self.random.per_mille(500) {
            // A part of the files: what comes of it may overlap with what another part became (rule 6).
            inputs.retain(|_| self.random.per_mille(600));
        }
        if inputs.len() < 2 {
            return;
        }
        self.batches += 1;
        let level = Level(1 + i32::try_from(self.random.below(5)).unwrap_or(0));
        let name = format!("compaction {}", self.batches);
        let change = fixture::compaction(&mut self.world, self.context, &name, &inputs, level);
        self.push_commit(change, None);
    }

    /// The pointer of now, which is an old one by the time that the commit looks at it, or none.
    fn planned_on(&mut self) -> Option<Pointer> {
        if self.random.per_mille(500) { self.world.monitor.read_pointer(&self.world) } else { None }
    }

    fn push(&mut self, running: Running, shard: Option<u32>) {
        let mut actor = Actor { running, request: None, shard };
        if !self.resume(&mut actor, None) {
            self.actors.push(actor);
        }
    }

    /// One effect of one actor, or its death.
    fn step(&mut self, crashes: bool) {
        if self.actors.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(self.actors.len() as u64)).unwrap_or(0);
        let mut actor = self.actors.swap_remove(index);
        if crashes && self.random.per_mille(self.plan.crash) {
            self.summary.crashed += 1;
            return;
        }
        let reply = actor.request.take().and_then(|request| self.world.perform(&request));
        if !self.resume(&mut actor, reply) {
            self.actors.push(actor);
        }
    }

    /// True if it ended.
    fn resume(&mut self, actor: &mut Actor, reply: Option<Reply>) -> bool {
        match &mut actor.running {
            Running::Commit(machine, change) => match machine.resume(reply) {
                Step::Do(request) => return keep(&mut actor.request, request),
                Step::Done(result) => {
                    let change = change.clone();
                    self.committed(&change, result);
                }
            },
            Running::Fold(machine) => match machine.resume(reply) {
                Step::Do(request) => return keep(&mut actor.request, request),
                Step::Done(result) => self.summary.folded += benign(result).map_or(0, |f| f.folded),
            },
            Running::Expire(machine) => match machine.resume(reply) {
                Step::Do(request) => return keep(&mut actor.request, request),
                Step::Done(result) => self.summary.expired += benign(result).map_or(0, |e| e.snapshots.len()),
            },
            Running::Sweep(machine) => match machine.resume(reply) {
                Step::Do(request) => return keep(&mut actor.request, request),
                Step::Done(result) => self.summary.swept += benign(result).map_or(0, |s| s.keys.len()),
            },
        }
        true
    }

    fn committed(&mut self, change: &Change, result: Result<CommitReport, CommitError>) {
        let Some(report) = benign(result) else { return };
        self.summary.staged += u64::from(report.staged);
        self.summary.folded += report.folded;
        let outcome = report.outcome;
        self.world.watch(|monitor, world| monitor.answered(world, change, &outcome));
        match outcome {
            Outcome::Committed { already, .. } => {
                self.summary.committed += 1;
                let compacted = change.kind == ChangeKind::Compact && !already;
                self.summary.compacted += u64::from(compacted);
            }
            Outcome::Conflict(Conflict::Gap { .. }) => panic!("no writer of this run leaves a gap"),
            Outcome::Conflict(_) => self.summary.refused += 1,
            Outcome::Unknown { .. } => {}
        }
    }

    fn finish(mut self, seed: u64) -> Summary {
        self.world.settle_late();
        self.world.ok(protocol::load(self.context, true));
        self.world.check();
        let findings = self.world.ok(protocol::check(self.context)).findings;
        let bad: Vec<_> = findings.iter().filter(|f| f.severity == protocol::Severity::Error).collect();
        assert!(bad.is_empty(), "seed {seed}: {bad:?}");
        // The oracle: of all rows that an APPEND ever brought, the newest of each key.
        let newest = self.world.watch(|monitor, world| monitor.newest(world));
        let witnessed = self.world.monitor.newest_witnessed();
        assert_eq!(newest, *witnessed, "invariant 2: seed {seed}");
        self.summary.effects = self.world.log.len();
        self.summary.snapshots = self.world.monitor.read_pointer(&self.world).map_or(0, |p| p.version().0);
        self.summary
    }
}

fn keep(place: &mut Option<crate::io::Request>, request: crate::io::Request) -> bool {
    *place = Some(request);
    false
}

/// Errors that mean "try again later" are part of life here; any other is a defect.
fn benign<T>(result: Result<T, CommitError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) => None,
        Err(error) => panic!("{error}"),
    }
}
