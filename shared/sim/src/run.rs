//! One history: the scheduler that lets everything happen, in the order and with the faults that the seed says.
//!
//! Neighbours: `actors` is what runs, `process` and `ports` are where it stops, `world` is what it changes. A turn is one decision: who goes on with
//! which call, and what becomes of it. Invariants: 1. a seed is one history, byte for byte; 2. nothing happens but in a turn; 3. once
//! faults stop, everything is acknowledged (23).

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

    // --- before and after ------------------------------------------------------------------------------------------

    fn create(&mut self) {
        let table = self.profile.table();
        let (ports, ..) = ports_of(&self.world, &Arc::new(Desk::default()), 0, 1);
        drop(ports);
        let schema = table.schema(START_MS).unwrap_or_else(|e| panic!("{e}"));
        let location = TableLocation::new(&self.at.location()).unwrap_or_else(|e| panic!("{e}"));
        let schema = Arc::new(schema);
        let context = TableContext::new(location, schema.clone()).unwrap_or_else(|e| panic!("{e}"));
        let layout = FileLayout::new(schema).unwrap_or_else(|e| panic!("{e}"));
        self.world.watch(Simulated { at: self.at.clone(), context, layout });
        now(self.world.streams().create(STREAM, self.profile.shards)).unwrap_or_else(|e| panic!("{e}"));
        let settings = MappingSettings {
            uuid: "mapping".to_owned(),
            stream_arn: ARN.to_owned(),
            state: "Enabled".to_owned(),
            parallelization_factor: Some(1),
            maximum_retry_attempts: Some(-1),
            maximum_record_age_seconds: Some(-1),
            starting_position: Some(StartingPosition::TrimHorizon),
            ..MappingSettings::default()
        };
        self.mappings.set(actors::INGEST, vec![settings]);
        let (at, mappings) = (self.at.clone(), self.mappings.clone());
        self.alone(move |ports| {
            async move {
                catalog::create(&ports, &at, &table).await?;
                let format = Format::Json;
                let decoder = DecoderConfig { format, op_field: Some("op".to_owned()), ..DecoderConfig::default() };
                Feed { stream_arn: ARN.to_owned(), decoder }.save(&ports, &at).await?;
                maintain::check_mapping(&ports, &at, mappings.as_ref(), actors::INGEST).await
            }
            .boxed()
        });
        self.mapping.refresh(self.world.streams());
    }

    /// Runs something that must succeed with nobody beside it and nothing going wrong.
    fn alone<T: Send + 'static>(&mut self, work: impl FnOnce(Ports) -> BoxFuture<'static, Result<T, TableError>>) -> T {
        self.try_alone(work).unwrap_or_else(|e| panic!("invariant 23: with nothing going wrong: {e}"))
    }

    fn try_alone<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Ports) -> BoxFuture<'static, Result<T, TableError>>,
    ) -> Result<T, TableError> {
        let desk = Arc::new(Desk::default());
        let seed = self.chance.of(Decision::Ids, u64::MAX - self.history.turns).draw();
        let (ports, ..) = ports_of(&self.world, &desk, 0, seed);
        let mut process = Process::with_threads(desk, work(ports));
        let mut end = process.settle();
        loop {
            if let Some(end) = end {
                return end;
            }
            let call = process.calls().into_iter().min_by_key(|(number, call)| (call.not_before_ms, *number));
            let Some((number, call)) = call else { panic!("a process without a call") };
            self.world.advance(1.max(call.not_before_ms - self.world.now_ms()));
            process.decide(number, Verdict::Perform, 0);
            end = process.answer(number);
        }
    }

    fn finish(&mut self) {
        let at = self.at.clone();
        // Another engine may have taken the name of a compaction that nobody has published yet.
        let settled = self.try_alone(|ports| actors::repair(ports, at).boxed());
        if settled.is_err_and(|error| error.kind() == ErrorKind::Forked) {
            let at = self.at.clone();
            self.alone(|ports| actors::repair(ports, at).boxed());
        }
        let (at, mappings) = (self.at.clone(), self.mappings.clone());
        let report = self.alone(move |ports| actors::maintain(ports, at, mappings, false, i64::MAX).boxed());
        assert!(report.failures.is_empty(), "invariant 23: with nothing going wrong: {:?}", report.failures);
        self.world.check();
        let at = self.at.clone();
        let found = self.alone(move |ports| {
            async move {
                let table = Table::open(&ports, &at, Authority::Pointer, Purpose::Read).await?;
                let checked = check::check(&table).await?;
                let deep = check::deep(&table, &checked, |_| ()).await?;
                let mut rows = Vec::new();
                scan(&table, &ScanRequest::default(), |row| {
                    rows.push(row.values);
                    true
                })
                .await?;
                let findings: Vec<_> = checked.findings.into_iter().chain(deep.findings).collect();
                Ok((findings, rows, quarantine::read(&table).await?.records))
            }
            .boxed()
        });
        let (findings, rows, quarantined) = found;
        let errors: Vec<_> =
            findings.iter().filter(|f| f.severity == siltstone_commit::protocol::Severity::Error).collect();
        assert!(errors.is_empty(), "check: {errors:?}");
        self.compare_rows(&rows);
        self.compare_quarantine(&quarantined);
    }

    /// What a reader sees at the end: each key's last record, and the rows of other engines.
    fn compare_rows(&self, rows: &[Vec<siltstone_format::value::Value>]) {
        use siltstone_format::value::Value;
        let (mut found, mut theirs) = (BTreeMap::new(), BTreeSet::new());
        for row in rows {
            match row.as_slice() {
                [Value::Int(key), Value::Int(0), Value::BigInt(number)] => {
                    let double = found.insert(*key, *number);
                    assert!(double.is_none(), "2: key {key} is read twice");
                }
                [Value::Int(_), Value::Int(1), Value::BigInt(number)] => drop(theirs.insert(number.unsigned_abs())),
                other => panic!("2: a row that nobody wrote: {other:?}"),
            }
        }
        let expected = self.world.oracle(|oracle| {
            let mut expected = BTreeMap::new();
            for record in oracle.records() {
                match record.says {
                    Says::Upsert => drop(expected.insert(record.key, i64::try_from(record.number).unwrap_or(-1))),
                    Says::Delete => drop(expected.remove(&record.key)),
                    Says::Bad => {}
                }
            }
            expected
        });
        assert_eq!(Some(found), expected, "invariant 2: what a scan reads at the end");
        assert!(
            self.foreign_known.is_subset(&theirs),
            "8: of rows {:?} of others, {theirs:?} are there",
            self.foreign_known
        );
    }

    fn compare_quarantine(&self, quarantined: &[siltstone_decode::quarantine::QuarantinedRecord]) {
        let mut found = BTreeSet::new();
        for record in quarantined {
            let text: serde_json::Value = serde_json::from_slice(&record.data).unwrap_or_default();
            let number = text["n"].as_u64();
            let new = number.is_some_and(|number| found.insert(number));
            assert!(new, "invariant 1: quarantine holds record {number:?} twice, or what nobody sent");
        }
        let expected = self.world.oracle(|oracle| oracle.bad_numbers());
        assert_eq!(Some(found), expected, "invariant 1: the quarantine at the end");
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.history.trace.hash(&mut hasher);
        for object in now(list_all(self.world.objects(), "")).unwrap_or_default() {
            (object.key, object.etag.as_str(), object.last_modified_ms).hash(&mut hasher);
        }
        hasher.finish()
    }

    // --- turns -----------------------------------------------------------------------------------------------------

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

    fn arrivals(&mut self) {
        let now_ms = self.world.now_ms();
        for late in self.world.take_late() {
            let mut r = self.chance.of(Decision::Event, self.history.turns);
            let longest = if r.per_mille(200) { LATE_MS } else { 20_000 };
            let due = now_ms + 500 + i64::try_from(r.below(longest.unsigned_abs())).unwrap_or(0);
            self.late.push((due, late));
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= now_ms);
        self.late = rest;
        for (_, late) in due {
            self.say(format!("late: {}", describe(&late)));
            self.world.arrive(late);
        }
        for key in self.world.take_tasks() {
            let mut r = self.chance.of(Decision::Event, self.history.turns ^ 0x7a5c);
            // Lost, once, or twice; now, or much later.
            let copies = if self.calm { 1 } else { [0, 1, 1, 1, 2][usize::try_from(r.below(5)).unwrap_or(1)] };
            for _ in 0..copies {
                let longest = if r.per_mille(100) { 20 * MINUTE_MS } else { 3_000 };
                let due = now_ms + i64::try_from(r.below(longest.unsigned_abs())).unwrap_or(0);
                self.events.push((due, key.clone(), 0));
            }
        }
    }

    /// What begins by itself.
    fn outside(&mut self) {
        let now_ms = self.world.now_ms();
        if self.produced < self.profile.records && self.drawn.per_mille(100) {
            self.produce();
        }
        if self.resharded < self.profile.reshards && !self.calm && self.drawn.per_mille(4) {
            self.reshard();
        }
        for shard in self.mapping.ready(now_ms) {
            if self.drawn.per_mille(300) {
                self.start_ingest(shard);
            }
        }
        let due = self.events.iter().position(|(due, ..)| *due <= now_ms);
        if let Some(due) = due {
            let (_, key, attempt) = self.events.swap_remove(due);
            self.start_compact(key, attempt);
        }
        if self.next_schedule_ms <= now_ms {
            self.next_schedule_ms = now_ms + SCHEDULE_MS;
            self.start_maintain();
        }
        if u64::from(self.foreign) < self.profile.foreign && !self.calm && self.drawn.per_mille(3) {
            self.start_foreign();
        }
        self.backups();
        if self.repair_ms.is_some_and(|due| due <= now_ms)
            && !self.actors.iter().any(|a| matches!(a.role, Role::Repair))
        {
            self.start_repair();
        }
        let sleeping = self.actors.iter().all(|actor| actor.frozen_until_ms > now_ms);
        if sleeping && !self.calm && self.drawn.per_mille(15) {
            let minutes = 1 + i64::try_from(self.drawn.below(90)).unwrap_or(0);
            self.say(format!("{minutes} minutes pass"));
            self.world.advance(minutes * MINUTE_MS);
        }
    }

    fn produce(&mut self) {
        let many = (1 + self.drawn.below(8)).min(self.profile.records - self.produced);
        for number in self.produced..self.produced + many {
            let mut r = self.chance.of(Decision::Record, number);
            let key = i32::try_from(r.below(self.profile.keys)).unwrap_or(0);
            let what = r.below(1_000);
            let (says, data) = if what < self.profile.bad {
                (Says::Bad, json!({"id": "x", "src": 0, "n": number}))
            } else if what < self.profile.bad + self.profile.deletes {
                (Says::Delete, json!({"id": key, "src": 0, "n": number, "op": "delete"}))
            } else {
                (Says::Upsert, json!({"id": key, "src": 0, "n": number}))
            };
            let record =
                PutRecord { data: data.to_string().into(), partition_key: key.to_string(), explicit_hash_key: None };
            let put = now(self.world.streams().put_records(STREAM, &[record])).unwrap_or_else(|e| panic!("{e}"));
            let Some(Ok(put)) = put.into_iter().next() else { panic!("the stream takes every record") };
            let shard = siltstone_commit::checkpoint::ShardId::new(put.shard).unwrap_or_else(|e| panic!("{e}"));
            let position = put.sequence.parse().unwrap_or_else(|e| panic!("{e:?}"));
            self.world.oracle(|oracle| oracle.produced(Record { number, key, says, shard, position }));
        }
        self.produced += many;
        self.mapping.refresh(self.world.streams());
        self.say(format!("produced up to record {}", self.produced));
    }

    fn reshard(&mut self) {
        let open = self.mapping.open_shards();
        let mut r = self.chance.of(Decision::Record, u64::MAX - self.history.turns);
        let Some(shard) = open.get(usize::try_from(r.below(open.len() as u64)).unwrap_or(0)) else { return };
        let beside = open.iter().find(|other| other.hash_start.checked_sub(1) == Some(shard.hash_end));
        let done = match beside.filter(|_| r.per_mille(500)) {
            Some(beside) => now(self.world.streams().merge(STREAM, &shard.id, &beside.id))
                .map(|()| format!("merged with {}", beside.id)),
            None => {
                let half = shard.hash_start + (shard.hash_end - shard.hash_start) / 2 + 1;
                now(self.world.streams().split(STREAM, &shard.id, half)).map(|()| "split".to_owned())
            }
        };
        if let Ok(done) = done {
            self.resharded += 1;
            self.mapping.refresh(self.world.streams());
            self.count("reshards");
            self.say(format!("{} {done}", shard.id));
        }
    }

    /// Now and then a backup of the pointer is made, and later it comes back, the processes of that time gone.
    fn backups(&mut self) {
        if self.profile.restores == self.restored || self.calm || self.behind {
            return;
        }
        if self.backup.is_none() && self.drawn.per_mille(5) {
            self.backup = self.world.pointer_item();
            self.say("the pointer is backed up".to_owned());
        } else if self.drawn.per_mille(2)
            && let Some(backup) = self.backup.take()
        {
            self.say(format!("the pointer is restored as of revision {}", backup.rev));
            self.count("restores");
            while let Some(actor) = self.actors.pop() {
                self.give_up(&actor);
                self.drop_sandbox(&actor);
            }
            // An operator restores when nothing is under way any more.
            self.late.clear();
            drop(self.world.take_late());
            self.world.restore_pointer(&backup);
            self.restored += 1;
            self.behind = true;
            self.repair_ms = Some(self.world.now_ms() + 1_000 + i64::try_from(self.drawn.below(300_000)).unwrap_or(0));
        }
    }

    // --- starting --------------------------------------------------------------------------------------------------

    fn skew(&self, number: u64) -> i64 {
        let wide = self.profile.skew_ms;
        let mut r = self.chance.of(Decision::Ids, number ^ 0x51ce);
        i64::try_from(r.below(2 * wide + 1)).unwrap_or(0) - i64::try_from(wide).unwrap_or(0)
    }

    /// New ports, as of a cold start.
    fn cold(&mut self) -> (Arc<Desk>, Ports, Arc<siltstone_store::retry::Retry>, Arc<dyn StreamAdmin>, i64) {
        self.spawned += 1;
        let desk = Arc::new(Desk::default());
        let seed = self.chance.of(Decision::Ids, self.spawned).draw();
        let skew_ms = self.skew(self.spawned);
        let (ports, retry, streams) = ports_of(&self.world, &desk, skew_ms, seed);
        (desk, ports, retry, streams, skew_ms)
    }

    fn start(&mut self, role: Role, desk: Arc<Desk>, future: BoxFuture<'static, End>, lasts_ms: i64) {
        self.spawned += 1;
        let started_ms = self.world.now_ms();
        let merges = matches!(role, Role::Compact { .. });
        let process = if merges { Process::with_threads(desk, future) } else { Process::new(desk, future) };
        let mut actor = Actor {
            id: self.spawned,
            role,
            process,
            started_ms,
            deadline_ms: started_ms + lasts_ms,
            frozen_until_ms: 0,
            stale: false,
        };
        self.say(format!("#{} starts: {}", actor.id, name(&actor.role)));
        match actor.process.settle() {
            Some(end) => self.ended(actor, end),
            None => self.actors.push(actor),
        }
    }

    fn start_ingest(&mut self, shard: usize) {
        let free = self.sandboxes.iter().find(|(_, sandbox)| !sandbox.busy).map(|(place, _)| *place);
        let place = free.unwrap_or_else(|| {
            let (desk, ports, retry, streams, skew_ms) = self.cold();
            let limits = IngestLimits {
                lateness_ms: LATENESS_MS,
                mapping_trusted_ms: Some(TRUSTED_MS),
                ..IngestLimits::default()
            };
            let ingest = Ingest::new(ports, self.at.clone(), Some(streams), limits);
            let place = usize::try_from(self.spawned).unwrap_or(0);
            self.sandboxes.insert(place, Sandbox { desk, retry, ingest: Arc::new(ingest), skew_ms, busy: false });
            place
        });
        let batch_max = self.profile.batch_max;
        let Some((handed, batch)) = self.mapping.take(shard, batch_max, &mut self.drawn) else { return };
        let Some(sandbox) = self.sandboxes.get_mut(&place) else { return };
        sandbox.busy = true;
        let deadline_ms = self.world.now_ms() + TIMEOUT_MS + sandbox.skew_ms;
        sandbox.retry.set_deadline_ms(deadline_ms);
        let (desk, warm, whole) = (sandbox.desk.clone(), sandbox.ingest.clone(), batch.clone());
        let work = async move { End::Ingest(warm.handle(&whole, deadline_ms).await) };
        let role = Role::Ingest { handed, batch, sandbox: place, current: true };
        self.start(role, desk, work.boxed(), TIMEOUT_MS);
    }

    fn start_compact(&mut self, key: String, attempt: u32) {
        let (desk, ports, retry, _, skew_ms) = self.cold();
        let deadline_ms = self.world.now_ms() + 5 * MINUTE_MS + skew_ms;
        retry.set_deadline_ms(deadline_ms);
        let (at, task) = (self.at.clone(), key.clone());
        let limits = CompactLimits { lateness_ms: LATENESS_MS, ..CompactLimits::default() };
        let work = async move { End::Compact(task::work_off(&ports, &at, &task, &limits, deadline_ms).await) };
        self.start(Role::Compact { key, attempt }, desk, work.boxed(), 5 * MINUTE_MS);
    }

    fn start_maintain(&mut self) {
        let (desk, ports, retry, _, skew_ms) = self.cold();
        let deadline_ms = self.world.now_ms() + 5 * MINUTE_MS + skew_ms;
        retry.set_deadline_ms(deadline_ms);
        // Nothing protects files of another engine that are older than a sweep's age when it commits: there are none where the age is minutes.
        let sweep_young = self.profile.foreign == 0 && self.drawn.per_mille(500);
        let work = actors::maintain(ports, self.at.clone(), self.mappings.clone(), sweep_young, deadline_ms);
        self.start(Role::Maintain, desk, work.map(End::Maintain).boxed(), 5 * MINUTE_MS);
    }

    fn start_foreign(&mut self) {
        self.foreign += 1;
        let (desk, ports, ..) = self.cold();
        let work = actors::foreign(ports, self.at.clone(), self.foreign);
        self.start(Role::Foreign(self.foreign), desk, work.map(End::Foreign).boxed(), 5 * MINUTE_MS);
    }

    fn start_repair(&mut self) {
        let (desk, ports, ..) = self.cold();
        let work = actors::repair(ports, self.at.clone());
        self.start(Role::Repair, desk, work.map(End::Repair).boxed(), 15 * MINUTE_MS);
    }

    // --- going on --------------------------------------------------------------------------------------------------

    fn go_on(&mut self, place: usize, number: u64, call: &Call) {
        let fault = if call.verdict.is_none() { self.draw(call) } else { None };
        let actor = &mut self.actors[place];
        let (id, what) = (actor.id, format!("{} {}", call.operation, call.key));
        if let Some(fault) = fault {
            let step = format!("{} {}", call.operation, self.world.kind_of(call.operation, &call.key));
            self.history.hits.push(Hit { turn: self.history.turns, fault, step });
            self.say(format!("#{id} {what}: {}", fault.name()));
            return self.break_it(place, number, fault);
        }
        if call.verdict.is_none() {
            actor.process.decide(number, Verdict::Perform, 0);
        }
        self.say(format!("#{id} {what}"));
        self.answer(place, number);
    }

    fn draw(&self, call: &Call) -> Option<Fault> {
        let turn = self.history.turns;
        if self.calm || self.limits.only.as_ref().is_some_and(|only| !only.contains(&turn)) {
            return None;
        }
        let fault = Fault::draw(&mut self.chance.of(Decision::Fault, turn), self.profile.faults)?;
        let object = matches!(call.operation, "put" | "delete");
        let fits = match fault {
            Fault::Conflict => call.operation == "put" && call.conditional,
            Fault::Late => object || call.operation == "put_item",
            Fault::CrashMiddle => call.operation == "delete",
            Fault::CrashAfter => call.write,
            _ => true,
        };
        fits.then_some(fault)
    }

    fn break_it(&mut self, place: usize, number: u64, fault: Fault) {
        let now_ms = self.world.now_ms();
        let mut r = self.chance.of(Decision::Fault, self.history.turns ^ 0xbad);
        let some = |r: &mut Random, longest: i64| i64::try_from(r.below(longest.unsigned_abs())).unwrap_or(0);
        let verdict = match fault {
            Fault::Throttled => Verdict::Throttle,
            Fault::Conflict => Verdict::Conflict,
            Fault::Unavailable => Verdict::Unavailable,
            Fault::LostRequest => Verdict::LoseRequest,
            Fault::LostAnswer => Verdict::LoseAnswer,
            Fault::Late => Verdict::Late,
            Fault::Slow => {
                let until = now_ms + 500 + some(&mut r, 15_000);
                return self.actors[place].process.decide(number, Verdict::Perform, until);
            }
            Fault::CrashBefore | Fault::TimedOut => return self.die(place),
            Fault::CrashAfter | Fault::CrashMiddle => {
                let middle = fault == Fault::CrashMiddle;
                let verdict = if middle { Verdict::PartAndDie } else { Verdict::PerformAndDie };
                self.actors[place].process.last(number, verdict);
                return self.die(place);
            }
            Fault::Frozen => {
                let longest = if r.per_mille(300) { LIFE_MS } else { 2 * MINUTE_MS };
                self.actors[place].frozen_until_ms = now_ms + 1_000 + some(&mut r, longest);
                return self.abandon(place);
            }
            Fault::Abandoned => return self.abandon(place),
        };
        self.actors[place].process.decide(number, verdict, 0);
        if matches!(fault, Fault::LostRequest | Fault::LostAnswer | Fault::Late) {
            // The caller waits for its answer in vain.
            self.actors[place].frozen_until_ms = now_ms + 1_000 + some(&mut r, 8_000);
        }
        self.answer(place, number);
    }

    fn answer(&mut self, place: usize, number: u64) {
        if let Some(end) = self.actors[place].process.answer(number) {
            let actor = self.actors.swap_remove(place);
            self.ended(actor, end);
        }
    }

    /// Nobody waits for it any more.
    fn abandon(&mut self, place: usize) {
        let mut actor = self.actors.swap_remove(place);
        self.give_up(&actor);
        if let Role::Ingest { current, .. } = &mut actor.role {
            *current = false;
        }
        actor.stale = true;
        let thawed_ms = actor.frozen_until_ms.max(actor.deadline_ms);
        actor.deadline_ms = (thawed_ms + TIMEOUT_MS).min(actor.started_ms + LIFE_MS);
        self.actors.push(actor);
    }

    /// Whoever called it hears that it failed.
    fn give_up(&mut self, actor: &Actor) {
        let now_ms = self.world.now_ms();
        match &actor.role {
            Role::Ingest { handed, current: true, .. } => {
                let handed = handed.clone();
                self.mapping.failed(&handed, now_ms, &mut self.drawn);
            }
            Role::Compact { key, attempt } if !actor.stale => self.retry_event(key.clone(), *attempt),
            Role::Repair if !actor.stale => self.repair_ms = Some(now_ms + MINUTE_MS),
            _ => {}
        }
    }

    /// Asynchronous invocations are tried three times in all.
    fn retry_event(&mut self, key: String, attempt: u32) {
        if attempt < 2 {
            self.events.push((self.world.now_ms() + MINUTE_MS, key, attempt + 1));
        }
    }

    fn die(&mut self, place: usize) {
        let actor = self.actors.swap_remove(place);
        self.count("deaths");
        self.give_up(&actor);
        self.drop_sandbox(&actor);
    }

    fn drop_sandbox(&mut self, actor: &Actor) {
        if let Role::Ingest { sandbox, .. } = actor.role {
            self.sandboxes.remove(&sandbox);
        }
    }

    fn deadlines(&mut self) {
        let now_ms = self.world.now_ms();
        let late = |actor: &Actor| actor.deadline_ms < now_ms && actor.frozen_until_ms <= now_ms;
        while let Some(place) = self.actors.iter().position(late) {
            let id = self.actors[place].id;
            self.say(format!("#{id} is out of time"));
            self.history.hits.push(Hit {
                turn: self.history.turns,
                fault: Fault::TimedOut,
                step: "deadline".to_owned(),
            });
            self.die(place);
        }
    }

    // --- ending ----------------------------------------------------------------------------------------------------

    fn ended(&mut self, actor: Actor, end: End) {
        let failure = match &end {
            End::Ingest(Err(e))
            | End::Compact(Err(e))
            | End::Maintain(Err(e))
            | End::Foreign(Err(e))
            | End::Repair(Err(e)) => Some(e),
            _ => None,
        };
        match failure {
            Some(error) => self.failed(&actor, error),
            None => self.succeeded(&actor, &end),
        }
        if let Role::Ingest { sandbox, .. } = &actor.role
            && let Some(sandbox) = self.sandboxes.get_mut(sandbox)
        {
            sandbox.busy = false;
        }
    }

    fn failed(&mut self, actor: &Actor, error: &TableError) {
        self.say(format!("#{} failed: {error}", actor.id));
        self.count("failures");
        self.give_up(actor);
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Conflict => {}
            ErrorKind::Forked => {
                self.repair_ms.get_or_insert(self.world.now_ms() + MINUTE_MS);
            }
            // A process that slept while its files expired.
            ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid
                if actor.stale || self.behind || actor.started_ms <= self.repaired_ms => {}
            _ => {
                let age = self.world.now_ms() - actor.started_ms;
                self.world.violate(format!("{} failed after {age} ms: {error}", name(&actor.role)));
            }
        }
    }

    fn succeeded(&mut self, actor: &Actor, end: &End) {
        match (&actor.role, end) {
            (Role::Ingest { handed, batch, current, .. }, End::Ingest(Ok(report))) => {
                self.say(format!("#{} ok: {} changes, snapshot {:?}", actor.id, report.changes, report.snapshot));
                self.count("batches");
                self.acknowledged(batch, report);
                if *current {
                    let handed = handed.clone();
                    self.mapping.succeeded(&handed, &mut self.drawn);
                }
            }
            (_, End::Compact(Ok(Fate::Done(_)))) => self.count("compactions"),
            (_, End::Compact(Ok(Fate::Leased))) => self.count("leased tasks"),
            (_, End::Maintain(Ok(report))) => {
                self.say(format!(
                    "#{} ok: expired {}, swept {}, {:?}",
                    actor.id, report.expired, report.orphans, report.failures
                ));
                self.count("maintenances");
                *self.history.done.entry("expired").or_default() += report.expired;
                *self.history.done.entry("swept").or_default() += report.orphans;
            }
            (Role::Foreign(number), End::Foreign(Ok(true))) => {
                self.say(format!("#{} ok: another engine's row {number}", actor.id));
                self.count("foreign commits");
                self.foreign_known.insert(u64::from(*number));
            }
            (_, End::Repair(Ok(plan))) => {
                self.say(format!("#{} repaired: {plan:?}", actor.id));
                self.count("repairs");
                self.repair_ms = None;
                self.repaired_ms = self.world.now_ms();
                self.behind = false;
            }
            _ => {}
        }
    }

    /// 5: acknowledged is covered and published.
    fn acknowledged(&self, batch: &StreamBatch, report: &IngestReport) {
        let Some((pointer, last)) = self.world.pointer().zip(batch.records.last()) else { return };
        let shard = siltstone_commit::checkpoint::ShardId::new(&batch.shard).unwrap_or_else(|e| panic!("{e}"));
        let position = last.sequence.parse().unwrap_or_else(|e| panic!("{e:?}"));
        let covered = match pointer.checkpoints.get(&shard) {
            Lookup::Found(checkpoint) => checkpoint.position >= position,
            _ => false,
        };
        let published = report.snapshot.is_none_or(|id| self.world.published(id));
        if !(covered && published) {
            let what = format!(
                "invariant 5: {} up to {position} acknowledged, covered {covered}, published {published}",
                batch.shard
            );
            self.world.violate(what);
        }
    }
}

fn name(role: &Role) -> String {
    match role {
        Role::Ingest { batch, .. } => {
            let ends = batch.records.first().zip(batch.records.last());
            let ends = ends.map_or_else(String::new, |(a, b)| format!("{}..={}", tail(&a.sequence), tail(&b.sequence)));
            format!("ingest {} {ends}", batch.shard)
        }
        Role::Compact { key, attempt } => format!("compact {key}, attempt {attempt}"),
        Role::Maintain => "maintain".to_owned(),
        Role::Foreign(number) => format!("another engine, row {number}"),
        Role::Repair => "repair".to_owned(),
    }
}

/// The digits of a sequence number that differ.
fn tail(sequence: &str) -> &str {
    let from = sequence.len().saturating_sub(6);
    sequence.get(from..).unwrap_or(sequence)
}

fn describe(late: &Late) -> String {
    match late {
        Late::Put { key, .. } => format!("put {key}"),
        Late::Delete(keys) => format!("delete {} objects", keys.len()),
        Late::PutItem { item, .. } => format!("put_item {} at {}", item.sort, item.rev),
    }
}
