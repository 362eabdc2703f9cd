//! How many batches a table takes, and how soon they can be read: many shards at once over services that take time and have limits.
//!
//! Neighbours: `process` and `ports` as in `run`; nothing goes wrong here but what load brings. Time is simulated: a call takes what its service
//! takes (`Services`), the work between two calls takes nothing. Invariants: 1. a seed is one course; 2. what is counted is what the meter of
//! the product counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use serde_json::{Value, json};
use siltstone_commit::testing::Random;
use siltstone_decode::{DecoderConfig, config::Format};
use siltstone_store::{
    meter::{Meter, Usage},
    stream::StreamAdmin,
};
use siltstone_table::{
    TableError, TableRef, catalog,
    catalog::NewTable,
    ingest::{Ingest, IngestReport, StreamBatch, StreamRecord},
    settings::{Feed, IngestLimits},
};

use crate::{
    actors,
    chance::{Chance, Decision},
    ports::metered_ports_of,
    process::{Call, Desk, Process, Verdict},
    world::World,
};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/load";
const STREAM: &str = "load";
const START_MS: i64 = 1_767_225_600_000;
const TIMEOUT_MS: i64 = 60_000;
/// Kinesis answers five reads a second and shard.
const POLL_MS: i64 = 200;
/// One record so often in each shard.
const RECORD_MS: i64 = 100;
/// Memory of a function, for its bill.
const MEMORY_MB: u32 = 512;

/// What is asked of a table.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Shards, each read by one function at a time.
    pub shards: u32,
    /// Time before anything is counted: cold starts, slots.
    pub warm_seconds: u32,
    /// Time that is counted.
    pub seconds: u32,
    /// Of all draws.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Shards.
    pub shards: u32,
    /// Seconds counted.
    pub seconds: u32,
    /// Batches acknowledged.
    pub batches: u64,
    /// Invocations that failed, and come again.
    pub failures: u64,
    /// Snapshots made.
    pub snapshots: u64,
    /// Batches that another writer committed.
    pub staged: u64,
    /// Arrival of a record to the answer of its batch, which is when it can be read, ms: median.
    pub visible_p50_ms: i64,
    /// The same, of 99 in 100.
    pub visible_p99_ms: i64,
    /// Duration of an invocation, ms, on average: what is billed, waiting included.
    pub billed_ms: f64,
    /// Until every shard had its first batch committed, ms.
    pub all_started_ms: Option<i64>,
    /// Requests.
    pub usage: Usage,
}

impl Figures {
    fn per_batch(&self, count: u64) -> f64 {
        count as f64 / self.batches.max(1) as f64
    }

    /// The names and values of all figures, in the order of a table's columns.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let two = |value: f64| (value * 100.0).round() / 100.0;
        let refused: u64 = self.usage.counts.values().map(|count| count.refused).sum();
        json!({
            "shards": self.shards,
            "batches_per_s": two(self.batches as f64 / f64::from(self.seconds)),
            "snapshots_per_s": two(self.snapshots as f64 / f64::from(self.seconds)),
            "visible_p50_ms": self.visible_p50_ms,
            "visible_p99_ms": self.visible_p99_ms,
            "billed_ms": two(self.billed_ms),
            "s3_put_class": two(self.per_batch(self.usage.s3_put_class())),
            "s3_get_class": two(self.per_batch(self.usage.s3_get_class())),
            "dynamo": two(self.per_batch(self.usage.dynamo())),
            "write_units": two(self.per_batch(self.usage.write_units)),
            "read_units": two(self.per_batch(self.usage.read_units)),
            "staged": two(self.per_batch(self.staged)),
            "refused": two(self.per_batch(refused)),
            "failures": self.failures,
            "all_started_ms": self.all_started_ms,
        })
    }
}

/// Requests of a kind that a service takes: so many a second, a second's worth at once.
#[derive(Debug)]
struct Capacity {
    a_second: f64,
    left: f64,
    seen_ms: i64,
}

impl Capacity {
    fn new(a_second: f64, now_ms: i64) -> Self {
        Self { a_second, left: a_second, seen_ms: now_ms }
    }

    fn take(&mut self, units: u64, now_ms: i64) -> bool {
        let gained = (now_ms - self.seen_ms) as f64 / 1_000.0 * self.a_second;
        (self.left, self.seen_ms) = ((self.left + gained).min(self.a_second), now_ms);
        let taken = self.left >= units as f64;
        if taken {
            self.left -= units as f64;
        }
        taken
    }
}

/// Service times and limits, after AWS's documents: S3 3,500 writes and 5,500 reads a second and prefix (the table is taken for one), DynamoDB
/// 1,000 write and 3,000 read units a second and partition key.
#[derive(Debug)]
struct Services {
    random: Random,
    puts: Capacity,
    gets: Capacity,
    writes: BTreeMap<String, Capacity>,
    reads: BTreeMap<String, Capacity>,
}

impl Services {
    fn new(seed: u64) -> Self {
        Self {
            random: Chance::new(seed).of(Decision::World, 1),
            puts: Capacity::new(3_500.0, START_MS),
            gets: Capacity::new(5_500.0, START_MS),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
        }
    }

    /// Log-normal around a median, so that one in a hundred takes some three times as long.
    fn time(&mut self, median_ms: f64) -> i64 {
        let uniform = |r: &mut Random| (r.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        let (radius, angle) = (1.0 - uniform(&mut self.random), uniform(&mut self.random));
        let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        (median_ms * (0.5 * normal).exp()).round().max(1.0) as i64
    }

    /// What becomes of a call that is made now, and how long that takes.
    fn answer(&mut self, call: &Call, now_ms: i64) -> (Verdict, i64) {
        let item = !call.partition.is_empty();
        if item {
            let (of, a_second) = if call.write { (&mut self.writes, 1_000.0) } else { (&mut self.reads, 3_000.0) };
            let capacity = of.entry(call.partition.clone()).or_insert_with(|| Capacity::new(a_second, now_ms));
            let verdict = if capacity.take(call.units, now_ms) { Verdict::Perform } else { Verdict::Throttle };
            return (verdict, self.time(8.0));
        }
        let capacity = if call.write || call.operation == "list" { &mut self.puts } else { &mut self.gets };
        let taken = capacity.take(1, now_ms);
        let verdict = match self.random.below(1_000) {
            _ if !taken => Verdict::Throttle,
            0 => Verdict::Unavailable,
            1 if call.conditional => Verdict::Conflict,
            _ => Verdict::Perform,
        };
        (verdict, self.time(if call.write { 30.0 } else { 15.0 }))
    }
}

type End = Result<IngestReport, TableError>;

struct Reader {
    ingest: Arc<Ingest>,
    desk: Arc<Desk>,
    retry: Arc<siltstone_store::retry::Retry>,
    process: Option<Process<End>>,
    /// Calls with a lower number have their answer under way.
    known: u64,
    /// Records before this one are acknowledged.
    done: i64,
    batch: StreamBatch,
    started_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Start,
    Answer(u64),
}

struct Course {
    load: Load,
    world: World,
    services: Services,
    meter: Arc<Meter>,
    readers: Vec<Reader>,
    due: BinaryHeap<Reverse<(i64, u64, usize, Event)>>,
    events: u64,
    first_ms: i64,
    counting: bool,
    visible_ms: Vec<i64>,
    billed_ms: i64,
    figures: Figures,
}

/// Runs a load to its end.
///
/// # Panics
/// When the table cannot be created, or an invocation fails for a reason that load does not give.
#[must_use]
pub fn run(load: Load) -> Figures {
    let world = World::new(START_MS);
    let at = TableRef::new("wh", "sim.load".parse().unwrap_or_else(|e| panic!("{e}")));
    create(&world, &at, load);
    let meter = Meter::new();
    let reader = |shard: u32| {
        let desk = Arc::new(Desk::default());
        let (ports, retry, streams) = metered_ports_of(&world, &desk, 0, load.seed ^ u64::from(shard) << 20, &meter);
        let ingest = Arc::new(Ingest::new(ports, at.clone(), Some(streams), IngestLimits::default()));
        let name = format!("shardId-{shard:012}");
        let batch = StreamBatch { stream_arn: ARN.to_owned(), shard: name, records: Vec::new() };
        Reader { ingest, desk, retry, process: None, known: 0, done: 0, batch, started_ms: 0 }
    };
    let readers = (0..load.shards).map(reader).collect();
    let figures = Figures { shards: load.shards, seconds: load.seconds, ..Figures::default() };
    let course = Course {
        load,
        services: Services::new(load.seed),
        meter,
        readers,
        due: BinaryHeap::new(),
        events: 0,
        first_ms: world.now_ms(),
        world,
        counting: false,
        visible_ms: Vec::new(),
        billed_ms: 0,
        figures,
    };
    course.run()
}

fn create(world: &World, at: &TableRef, load: Load) {
    let options = [("bucket", "1"), ("manifest.merge-min-count", "30")];
    let table = NewTable {
        columns: [("id", "BIGINT"), ("n", "BIGINT")].map(|(name, of)| (name.to_owned(), of.to_owned())).into(),
        partition_keys: Vec::new(),
        primary_keys: vec!["id".to_owned()],
        options: options.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        comment: None,
    };
    let created = world.streams().create(STREAM, load.shards).now_or_never();
    assert!(matches!(created, Some(Ok(()))), "a stream in memory is created at once: {created:?}");
    let at = at.clone();
    let done = actors::alone(world, load.seed, move |ports| {
        async move {
            catalog::create(&ports, &at, &table).await?;
            let decoder = DecoderConfig { format: Format::Json, ..DecoderConfig::default() };
            Feed { stream_arn: ARN.to_owned(), decoder }.save(&ports, &at).await
        }
        .boxed()
    });
    done.unwrap_or_else(|e| panic!("{e}"));
}

impl Course {
    fn run(mut self) -> Figures {
        let mut random = Chance::new(self.load.seed).of(Decision::World, 2);
        for reader in 0..self.readers.len() {
            let after = i64::try_from(random.below(1_000)).unwrap_or(0);
            self.later(self.first_ms + RECORD_MS + after, reader, Event::Start);
        }
        let counted_from = self.first_ms + i64::from(self.load.warm_seconds) * 1_000;
        let end = counted_from + i64::from(self.load.seconds) * 1_000;
        let (mut before, mut snapshots) = (Usage::default(), 0);
        while let Some(Reverse((due, _, reader, event))) = self.due.pop() {
            if due >= counted_from && !self.counting {
                self.counting = true;
                (before, snapshots) = (self.meter.snapshot(), self.version());
            }
            if due >= end {
                break;
            }
            self.world.advance(due - self.world.now_ms());
            match event {
                Event::Start => self.start(reader),
                Event::Answer(number) => self.answer(reader, number),
            }
        }
        self.figures.usage = self.meter.snapshot().since(&before);
        self.figures.snapshots = self.version() - snapshots;
        self.visible_ms.sort_unstable();
        let at = |of: usize| self.visible_ms.get(self.visible_ms.len() * of / 100).copied().unwrap_or(0);
        (self.figures.visible_p50_ms, self.figures.visible_p99_ms) = (at(50), at(99));
        self.figures.billed_ms = self.billed_ms as f64 / self.figures.batches.max(1) as f64;
        self.figures
    }

    fn version(&self) -> u64 {
        let listed = siltstone_store::object::list_all(self.world.objects(), "wh/sim.db/load/snapshot/snapshot-");
        listed.now_or_never().and_then(Result::ok).map_or(0, |names| names.len() as u64)
    }

    fn later(&mut self, due: i64, reader: usize, event: Event) {
        self.events += 1;
        self.due.push(Reverse((due, self.events, reader, event)));
    }

    /// The mapping hands over all that has come to the shard.
    fn start(&mut self, place: usize) {
        let now_ms = self.world.now_ms();
        let come = (now_ms - self.first_ms) / RECORD_MS;
        let reader = &mut self.readers[place];
        let of = |number: i64| StreamRecord {
            sequence: format!("{}", 49_600_000_000_i64 + number),
            arrival_ms: self.first_ms + number * RECORD_MS,
            partition_key: number.to_string(),
            data: Bytes::from(format!("{{\"id\": {}, \"n\": {number}}}", place as i64 * 1_000_003 + number % 997)),
        };
        reader.batch.records = (reader.done + 1..=come).map(of).collect();
        if reader.batch.records.is_empty() {
            return self.later(now_ms + POLL_MS, place, Event::Start);
        }
        reader.started_ms = now_ms;
        let deadline_ms = now_ms + TIMEOUT_MS;
        reader.retry.set_deadline_ms(deadline_ms);
        let (ingest, batch) = (reader.ingest.clone(), reader.batch.clone());
        let work = async move { ingest.handle(&batch, deadline_ms).await };
        let mut process = Process::new(reader.desk.clone(), work.boxed());
        let end = process.settle();
        reader.process = Some(process);
        self.went_on(place, end);
    }

    fn answer(&mut self, place: usize, number: u64) {
        let Some(process) = &mut self.readers[place].process else { return };
        // A call that nobody waits for any more.
        if !process.calls().iter().any(|(waiting, _)| *waiting == number) {
            return;
        }
        let end = process.answer(number);
        self.went_on(place, end);
    }

    fn went_on(&mut self, place: usize, end: Option<End>) {
        if let Some(end) = end {
            self.readers[place].process = None;
            return self.ended(place, end);
        }
        let now_ms = self.world.now_ms();
        let reader = &mut self.readers[place];
        let Some(process) = &reader.process else { return };
        let mut made = process.calls();
        made.retain(|(number, _)| *number > reader.known);
        reader.known = made.iter().map(|(number, _)| *number).max().unwrap_or(reader.known);
        let mut answers = Vec::with_capacity(made.len());
        for (number, call) in made {
            let due = if call.operation == "sleep" {
                call.not_before_ms
            } else {
                let (verdict, takes_ms) = self.services.answer(&call, now_ms);
                process.decide(number, verdict, now_ms + takes_ms);
                now_ms + takes_ms
            };
            answers.push((due, number));
        }
        for (due, number) in answers {
            self.later(due, place, Event::Answer(number));
        }
    }

    fn ended(&mut self, place: usize, end: End) {
        let now_ms = self.world.now_ms();
        let reader = &mut self.readers[place];
        let billed = now_ms - reader.started_ms;
        let next = now_ms.max(reader.started_ms + POLL_MS);
        match end {
            Ok(report) => {
                let arrived = reader.batch.records.iter().map(|record| record.arrival_ms);
                if self.counting {
                    self.figures.batches += 1;
                    self.figures.staged += u64::from(report.staged);
                    self.visible_ms.extend(arrived.map(|ms| now_ms - ms));
                }
                reader.done += reader.batch.records.len() as i64;
            }
            Err(error) => {
                use siltstone_table::ErrorKind::{Conflict, Unavailable};
                assert!(matches!(error.kind(), Conflict | Unavailable), "{error}");
                self.figures.failures += u64::from(self.counting);
            }
        }
        if self.counting {
            self.billed_ms += billed;
            self.meter.invocation(MEMORY_MB, Duration::from_millis(billed.unsigned_abs()));
        }
        if self.figures.all_started_ms.is_none() && self.readers.iter().all(|reader| reader.done > 0) {
            self.figures.all_started_ms = Some(now_ms - self.first_ms);
        }
        self.later(next, place, Event::Start);
    }
}
