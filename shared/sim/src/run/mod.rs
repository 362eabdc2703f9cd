//! One history: the scheduler that lets everything happen, in the order and with the faults that the seed says.
//!
//! Below: `whole`, `outside`, `starting`, `faults`, `ending`. Neighbours: `actors` is what runs, `process` and `ports` are where it stops, `world` is what it changes. A turn is one decision: who goes on with
//! which call, and what becomes of it. Invariants: 1. a seed is one history, byte for byte; 2. nothing happens but in a turn; 3. once
//! faults stop, everything is acknowledged (23).

mod ending;
mod faults;
mod outside;
mod starting;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use serde_json::json;
use siltstone_commit::{checkpoint::Lookup, context::TableContext, testing::Random};
use siltstone_decode::{DecoderConfig, config::Format};
use siltstone_format::path::TableLocation;
use siltstone_lsm::layout::FileLayout;
use siltstone_store::{
    item::Item,
    mapping::{MappingSettings, StartingPosition},
    memory::MemoryMappings,
    object::list_all,
    stream::{PutRecord, StreamAdmin, StreamWriter},
};
use siltstone_table::{
    Authority, ErrorKind, Ports, Purpose, Table, TableError, TableRef, catalog, check,
    ingest::{Ingest, IngestReport, StreamBatch},
    maintain, quarantine,
    repair::Plan,
    scan::{ScanRequest, scan},
    settings::{CompactLimits, Feed, IngestLimits},
    task::{self, Fate},
};

use crate::{
    actors,
    chance::{Chance, Decision},
    mapping::{Handed, Mapping},
    oracle::{Record, Says},
    ports::ports_of,
    process::{Call, Desk, Process, Verdict},
    profile::{Fault, Profile},
    world::{Late, Simulated, World},
};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/changes";
const STREAM: &str = "changes";
/// 2026-01-01, a Thursday.
const START_MS: i64 = 1_767_225_600_000;
const MINUTE_MS: i64 = 60_000;
/// How long an invocation may take.
const TIMEOUT_MS: i64 = 60_000;
/// How long a warm `ingest` trusts what it has read of the mapping.
const TRUSTED_MS: i64 = 10 * MINUTE_MS;
/// Younger deletes survive a compaction.
const LATENESS_MS: i64 = 10 * MINUTE_MS;
/// How often the schedule comes.
const SCHEDULE_MS: i64 = 10 * MINUTE_MS;
/// No process of ours outlives this: the longest time-out of a function. What it asked for last takes effect within [`LATE_MS`]. Expiry counts on
/// both: a name is deleted 20 minutes after its successor was written.
const LIFE_MS: i64 = 15 * MINUTE_MS;
/// How long a request may be under way.
const LATE_MS: i64 = 4 * MINUTE_MS;
/// A history that has more turns than this after faults have stopped does not end.
const TURNS_MAX: u64 = 30_000;

/// What is left out of a seed's history.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Only the faults of these turns.
    pub only: Option<BTreeSet<u64>>,
    /// No more records than this.
    pub records: Option<u64>,
}

/// A fault that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The turn.
    pub turn: u64,
    /// What.
    pub fault: Fault,
    /// At which step: operation and kind of thing.
    pub step: String,
}

/// What became of a history.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The seed.
    pub seed: u64,
    /// What was broken, if anything.
    pub violation: Option<String>,
    /// Turns.
    pub turns: u64,
    /// What happened, a line a turn.
    pub trace: Vec<String>,
    /// Of trace and final state.
    pub digest: u64,
    /// The faults that came.
    pub hits: Vec<Hit>,
    /// What was done: batches, compactions, and so on.
    pub done: BTreeMap<&'static str, u64>,
}

/// How an actor ended.
enum End {
    Ingest(Result<IngestReport, TableError>),
    Compact(Result<Fate, TableError>),
    Maintain(Result<maintain::MaintainReport, TableError>),
    Foreign(Result<bool, TableError>),
    Repair(Result<Plan, TableError>),
}

enum Role {
    Ingest { handed: Handed, batch: StreamBatch, sandbox: usize, current: bool },
    Compact { key: String, attempt: u32 },
    Maintain,
    Foreign(u32),
    Repair,
}

struct Actor {
    id: u64,
    role: Role,
    process: Process<End>,
    started_ms: i64,
    deadline_ms: i64,
    frozen_until_ms: i64,
    /// It was frozen or given up: what it says counts for nothing.
    stale: bool,
}

/// A warm environment of `ingest`.
struct Sandbox {
    desk: Arc<Desk>,
    retry: Arc<siltstone_store::retry::Retry>,
    ingest: Arc<Ingest>,
    skew_ms: i64,
    busy: bool,
}

struct Run<'a> {
    chance: Chance,
    limits: &'a Limits,
    profile: Profile,
    world: World,
    at: TableRef,
    mappings: Arc<MemoryMappings>,
    mapping: Mapping,
    actors: Vec<Actor>,
    sandboxes: BTreeMap<usize, Sandbox>,
    late: Vec<(i64, Late)>,
    events: Vec<(i64, String, u32)>,
    next_schedule_ms: i64,
    repair_ms: Option<i64>,
    backup: Option<Item>,
    produced: u64,
    spawned: u64,
    resharded: u64,
    foreign: u32,
    foreign_known: BTreeSet<u64>,
    restored: u64,
    /// True between a restored pointer and its repair: refusals are right.
    behind: bool,
    /// When the pointer was repaired last: what started before knows another incarnation.
    repaired_ms: i64,
    calm: bool,
    drawn: Random,
    history: History,
}

/// Runs one seed to its end.
#[must_use]
pub fn run(seed: u64, limits: &Limits) -> History {
    let chance = Chance::new(seed);
    let mut profile = Profile::of(chance);
    profile.records = limits.records.unwrap_or(u64::MAX).min(profile.records);
    let world = World::new(START_MS);
    let at = TableRef::new("wh", "sim.rows".parse().unwrap_or_else(|e| panic!("{e}")));
    let mut run = Run {
        chance,
        limits,
        profile,
        at,
        world,
        mappings: Arc::new(MemoryMappings::new()),
        mapping: Mapping::new(ARN),
        actors: Vec::new(),
        sandboxes: BTreeMap::new(),
        late: Vec::new(),
        events: Vec::new(),
        next_schedule_ms: START_MS + SCHEDULE_MS,
        repair_ms: None,
        backup: None,
        produced: 0,
        spawned: 0,
        resharded: 0,
        foreign: 0,
        foreign_known: BTreeSet::new(),
        restored: 0,
        behind: false,
        repaired_ms: 0,
        calm: false,
        drawn: chance.of(Decision::World, 0),
        history: History { seed, ..History::default() },
    };
    let ended = catch_unwind(AssertUnwindSafe(|| run.all()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        run.world.violate(text.unwrap_or_else(|| "a panic without words".to_owned()));
    }
    run.history.violation = run.world.violation();
    run.history.digest = run.digest();
    run.history
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("what is in memory never waits")
}

impl Run<'_> {
    fn all(&mut self) {
        self.create();
        while self.world.violation().is_none() && !(self.calm && self.idle()) {
            self.turn();
            let over = self.history.turns > self.profile.turns + TURNS_MAX;
            assert!(!over, "invariant 23: work is left after {} turns", self.history.turns);
        }
        if self.world.violation().is_none() {
            self.finish();
        }
    }

    fn idle(&self) -> bool {
        let sent = self.produced == self.profile.records;
        sent && self.mapping.drained() && self.actors.is_empty() && self.late.is_empty() && self.repair_ms.is_none()
    }

    fn count(&mut self, what: &'static str) {
        *self.history.done.entry(what).or_default() += 1;
    }

    fn say(&mut self, line: String) {
        let time = self.world.now_ms() - START_MS;
        self.history.trace.push(format!("{time:>9} {line}"));
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.history.trace.hash(&mut hasher);
        for object in now(list_all(self.world.objects(), "")).unwrap_or_default() {
            (object.key, object.etag.as_str(), object.last_modified_ms).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn turn(&mut self) {
        self.history.turns += 1;
        let turn = self.history.turns;
        self.drawn = self.chance.of(Decision::World, turn);
        self.world.advance(1 + i64::try_from(self.drawn.below(15)).unwrap_or(0));
        if !self.calm && (turn > self.profile.turns || self.produced == self.profile.records && self.drawn.per_mille(5))
        {
            self.calm = true;
            self.say("faults stop".to_owned());
        }
        self.arrivals();
        self.outside();
        self.deadlines();
        let ready = self.ready();
        if ready.is_empty() {
            return self.wait();
        }
        let mut r = self.chance.of(Decision::Turn, turn);
        let actors: Vec<usize> = ready.keys().copied().collect();
        let actor = actors[usize::try_from(r.below(actors.len() as u64)).unwrap_or(0)];
        let calls = &ready[&actor];
        let (number, call) = calls[usize::try_from(r.below(calls.len() as u64)).unwrap_or(0)].clone();
        self.go_on(actor, number, &call);
    }

    /// Calls that may go on, by actor.
    fn ready(&self) -> BTreeMap<usize, Vec<(u64, Call)>> {
        let now_ms = self.world.now_ms();
        let mut ready = BTreeMap::new();
        for (place, actor) in self.actors.iter().enumerate().filter(|(_, actor)| actor.frozen_until_ms <= now_ms) {
            let mut calls = actor.process.calls();
            calls.retain(|(_, call)| call.not_before_ms <= now_ms);
            if !calls.is_empty() {
                ready.insert(place, calls);
            }
        }
        ready
    }

    /// Nothing can go on: time moves to the next moment at which something may.
    fn wait(&mut self) {
        let now_ms = self.world.now_ms();
        let mut next = vec![self.next_schedule_ms];
        for actor in &self.actors {
            next.push(
                actor
                    .frozen_until_ms
                    .max(actor.process.calls().iter().map(|(_, c)| c.not_before_ms).min().unwrap_or(0)),
            );
        }
        next.extend(self.late.iter().map(|(due, _)| *due));
        next.extend(self.events.iter().map(|(due, ..)| *due));
        next.extend(self.mapping.next_ms());
        next.extend(self.repair_ms);
        let next = next.into_iter().filter(|due| *due > now_ms).min().unwrap_or(now_ms);
        // While there are records to come, time does not run away from them.
        let step = if self.produced < self.profile.records { (next - now_ms).min(2_000) } else { next - now_ms };
        self.world.advance(step);
    }
}
