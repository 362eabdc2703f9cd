//! One run from its beginning to its verdict: the stack, the load, the kills, the witness, and in the end the comparison.
//!
//! Neighbours: everything here. The driver lives while functions and stack die. Invariants: 1. faults end before the verdict; 2. the verdict is over a table at
//! rest.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rustix::process::Signal;
use siltstone_aws::{KinesisStream, Stores};
use siltstone_decode::DecoderConfig;
use siltstone_local::{Kinesis, host};
use siltstone_store::{Clock, RandomIds, SystemClock, stream::StreamAdmin};
use siltstone_table::{
    Authority, Ports, Purpose, Table, TableRef,
    catalog::{self, NewTable},
    settings::Feed,
};
use tokio::sync::{Mutex, watch};

use crate::{
    producer::{Load, SHARDS, STREAM, produce},
    proxy::{Proxy, signal},
    report::Report,
    source::COLUMNS,
    stack::StackProcess,
    verify::verify,
    witness::Witness,
};

/// The table.
pub(crate) const TABLE: &str = "chaos.changes";
const BUCKET: &str = "siltstone";
/// Time between two kills of the stack, ms; shorter in a short run.
const STACK_KILLS_MS: std::ops::Range<u64> = 45_000..75_000;
/// How long functions that outlive their stack may be frozen, ms.
const FROZEN_MS: std::ops::Range<u64> = 1_000..15_000;
/// And how long they may go on then.
const THAWED: Duration = Duration::from_secs(15);
/// How long the last records may take.
const DRAIN: Duration = Duration::from_secs(240);
/// In which `maintain` runs undisturbed.
const REST: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What the parts of a run have in common.
pub(crate) struct Shared {
    pub(crate) streams: KinesisStream,
    /// Held by a call of the producer, and while the stack is down.
    pub(crate) up: Mutex<()>,
    pub(crate) produced: AtomicU64,
    /// Different changes read back.
    pub(crate) witnessed: Arc<AtomicU64>,
    pub(crate) shards: AtomicU64,
    pub(crate) splits: AtomicU64,
    pub(crate) merges: AtomicU64,
    stack_kills: AtomicU64,
    frozen: AtomicU64,
    proxy: Proxy,
}

/// Runs, and compares.
pub(crate) async fn run(dir: &Path, load: Load) -> Result<Report, String> {
    let began = Instant::now();
    let (proxy, proxies) = Proxy::start(load.seed).await.map_err(|e| format!("the proxy does not start: {e}"))?;
    let stack = StackProcess::start(dir, load.seed, &proxies).await?;
    let endpoints = stack.endpoints();
    proxy.stand_before(endpoints.clone());
    let clients = host::clients(&endpoints).await;
    let streams = KinesisStream::new(clients.kinesis.clone());
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let stores = Stores::new(&clients, BUCKET, BUCKET, clock.clone(), ids.clone());
    let table = create(&streams, Ports { objects: stores.objects, items: stores.items, clock, ids }).await?;
    let shared = Arc::new(Shared {
        streams,
        up: Mutex::new(()),
        produced: AtomicU64::new(0),
        witnessed: Arc::default(),
        shards: AtomicU64::new(SHARDS.into()),
        splits: AtomicU64::new(0),
        merges: AtomicU64::new(0),
        stack_kills: AtomicU64::new(0),
        frozen: AtomicU64::new(0),
        proxy,
    });
    let mut report = Report { seed: load.seed, ..Report::default() };
    under_load(&shared, stack, &table, load, &mut report).await?;
    report.seconds = began.elapsed().as_secs();
    Ok(report)
}

/// The stream, the table, and that one feeds the other.
async fn create(streams: &KinesisStream, ports: Ports) -> Result<Table, String> {
    let words = |e: siltstone_table::TableError| format!("the table cannot be made: {e}");
    let wait = |e: siltstone_store::stream::StreamError| format!("the stream cannot be made: {e}");
    streams.create(STREAM, SHARDS).await.map_err(wait)?;
    let at = TableRef::new("warehouse", TABLE.parse().map_err(words)?);
    let options = [
        ("bucket", "4"),
        ("changelog-producer", "input"),
        ("snapshot.num-retained.min", "20"),
        ("snapshot.num-retained.max", "2000"),
        ("snapshot.time-retained", "3 min"),
        ("snapshot.expire.limit", "200"),
    ];
    let text = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    let table = NewTable {
        columns: COLUMNS.map(text).into(),
        primary_keys: vec!["id".to_owned()],
        options: options.map(text).into(),
        ..NewTable::default()
    };
    // The host makes bucket and items table once it is up.
    let mut made = catalog::create(&ports, &at, &table).await;
    for _ in 0..50 {
        if made.is_ok() {
            break;
        }
        SystemClock.sleep(LOOK_EVERY).await;
        made = catalog::create(&ports, &at, &table).await;
    }
    made.map_err(words)?;
    let decoder = DecoderConfig { op_field: Some("op".to_owned()), ..DecoderConfig::default() };
    Feed { stream_arn: Kinesis::arn(STREAM), decoder }.save(&ports, &at).await.map_err(words)?;
    Table::open(&ports, &at, Authority::Pointer, Purpose::Read).await.map_err(words)
}

async fn under_load(
    shared: &Arc<Shared>,
    stack: StackProcess,
    table: &Table,
    load: Load,
    report: &mut Report,
) -> Result<(), String> {
    let (end, ended) = watch::channel(false);
    let keeper = tokio::spawn(keep_killing(shared.clone(), stack, load, ended.clone()));
    let witness = tokio::spawn(bear_witness(shared.clone(), table.clone(), ended));
    let teller = tokio::spawn(tell(shared.clone()));
    let oracle = produce(shared, load).await?;
    shared.proxy.end_faults();
    let last = Instant::now();
    report.drained = drain(shared, oracle.changes).await;
    report.drain_seconds = last.elapsed().as_secs();
    SystemClock.sleep(REST).await;
    teller.abort();
    end.send_replace(true);
    let died = |e: tokio::task::JoinError| format!("a part of the driver died: {e}");
    let mut witness = witness.await.map_err(died)?;
    let mut stack = keeper.await.map_err(died)??;
    stack.restart_without_functions().await?;
    for pid in shared.proxy.living() {
        signal(pid, Signal::KILL);
    }
    witness.catch_up(table).await.map_err(|e| format!("the changelog cannot be read: {e}"))?;
    report.verdict = verify(table, &oracle).await?;
    report.testimony = witness.testimony(oracle.changes);
    report.snapshots = table.current().await.map_err(|e| e.to_string())?.map_or(0, |snapshot| snapshot.id.0);
    (report.records, report.injected, report.rows) =
        (oracle.changes + oracle.malformed, oracle.malformed, oracle.live());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    (report.splits, report.merges) = (count(&shared.splits), count(&shared.merges));
    (report.stack_kills, report.frozen) = (count(&shared.stack_kills), count(&shared.frozen));
    report.counts = shared.proxy.counts();
    Ok(())
}

/// Waits until all changes can be read back; false if that takes too long.
async fn drain(shared: &Shared, changes: u64) -> bool {
    let began = Instant::now();
    while shared.witnessed.load(Ordering::Relaxed) < changes {
        if began.elapsed() > DRAIN {
            return false;
        }
        SystemClock.sleep(LOOK_EVERY).await;
    }
    true
}

/// Kills the stack now and then while the load runs.
async fn keep_killing(
    shared: Arc<Shared>,
    mut stack: StackProcess,
    load: Load,
    mut ended: watch::Receiver<bool>,
) -> Result<StackProcess, String> {
    let mut rng = SmallRng::seed_from_u64(load.seed.rotate_left(32));
    let quarter = u64::try_from(load.time.as_millis()).unwrap_or(u64::MAX) / 4;
    let mut wait = quarter.min(rng.random_range(STACK_KILLS_MS));
    let mut left = load.time;
    loop {
        let pause = Duration::from_millis(wait);
        // None that the load's end would cut short.
        if pause >= left {
            ended.wait_for(|ended| *ended).await.ok();
            return Ok(stack);
        }
        let began = Instant::now();
        if tokio::time::timeout(pause, ended.wait_for(|ended| *ended)).await.is_ok() {
            return Ok(stack);
        }
        kill_stack(&shared, &mut stack, &mut rng).await?;
        left = left.saturating_sub(began.elapsed());
        wait = quarter.min(rng.random_range(STACK_KILLS_MS));
    }
}

/// Kills the stack and starts it again. Of its functions, which live on, every second one freezes, and wakes when successors have done its work.
async fn kill_stack(shared: &Arc<Shared>, stack: &mut StackProcess, rng: &mut SmallRng) -> Result<(), String> {
    let up = shared.up.lock().await;
    let orphans = shared.proxy.orphan();
    let mut frozen = orphans.clone();
    frozen.retain(|pid| rng.random_bool(0.5) && signal(*pid, Signal::STOP));
    stack.kill_and_restart().await?;
    drop(up);
    shared.stack_kills.fetch_add(1, Ordering::Relaxed);
    shared.frozen.fetch_add(frozen.len() as u64, Ordering::Relaxed);
    let asleep = Duration::from_millis(rng.random_range(FROZEN_MS));
    tokio::spawn(async move {
        SystemClock.sleep(asleep).await;
        for pid in frozen {
            signal(pid, Signal::CONT);
        }
        SystemClock.sleep(THAWED).await;
        for pid in orphans {
            signal(pid, Signal::KILL);
        }
    });
    Ok(())
}

/// Reads the changelog as it grows. What cannot be read while the stack is down is read later.
async fn bear_witness(shared: Arc<Shared>, table: Table, ended: watch::Receiver<bool>) -> Witness {
    let mut witness = Witness::new(shared.witnessed.clone());
    while !*ended.borrow() {
        if let Err(error) = witness.catch_up(&table).await {
            tracing::debug!(%error, "the changelog cannot be read now");
        }
        SystemClock.sleep(LOOK_EVERY).await;
    }
    witness
}

/// A line every few seconds.
async fn tell(shared: Arc<Shared>) {
    let began = Instant::now();
    loop {
        SystemClock.sleep(TELL_EVERY).await;
        let counts = shared.proxy.counts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        eprintln!(
            "{:>5} s  {:>9} records, {:>9} read back, {} shards, {} kills after {} kinds of steps, {} of the stack, {} faults",
            began.elapsed().as_secs(),
            count(&shared.produced),
            count(&shared.witnessed),
            count(&shared.shards),
            counts.kills(),
            counts.kills_by_step.len(),
            count(&shared.stack_kills),
            counts.faults.values().sum::<u64>()
        );
    }
}
