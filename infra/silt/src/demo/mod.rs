//! `silt demo`: a change stream, faults, compaction, and a proof that nothing was lost.
//!
//! Neighbours: `source` makes the changes and knows the truth, `faults` breaks things, `telemetry` listens, `view` shows, `verify`
//! compares, `price` says what it would cost.
//! The functions are processes of their own, this same program started as a Lambda `bootstrap`, so a kill is a kill.

mod faults;
mod price;
pub(crate) mod source;
mod telemetry;
mod verify;
mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use siltstone_aws::KinesisStream;
use siltstone_commit::checkpoint::{Lookup, Position, ShardId};
use siltstone_decode::{DecoderConfig, config::Format};
use siltstone_format::{bucket::Bucketer, value::Value as Cell};
use siltstone_local::{
    Kinesis, Stack, StackConfig,
    host::{Bootstraps, Host, HostConfig, Hosted, Mode},
};
use siltstone_store::{
    Clock, SystemClock,
    stream::{PutRecord, StreamAdmin},
};
use siltstone_table::{
    Authority, Purpose, Table, TableRef,
    catalog::{self, NewTable},
    compact,
    settings::Feed,
};
use tokio::task::JoinHandle;

use crate::{
    FUNCTION,
    args::Demo,
    commands::produce::{Pending, Sent, hash_key, send},
    failure::{Done, Failure},
    out::{Out, Steps},
    place::need_text,
};
use source::{COLUMNS, Change, Oracle, OrderChanges, TABLE};
use telemetry::Telemetry;
use verify::ByPypaimon;
use view::{Moment, View};

const STREAM: &str = "orders";
const BUCKETS: i32 = 4;
const TICK: Duration = Duration::from_millis(50);
/// Kills that are tried, spread over the time.
const KILLS: u64 = 7;
/// How long the end waits for the last records.
const DRAIN: Duration = Duration::from_secs(60);
/// How long compactions may go on after the last record.
const SETTLE: Duration = Duration::from_secs(10);

/// What happens when, in per mille of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Follow,
    Fulfil,
    Delete,
    Kill,
    Split,
    Merge,
    Malformed(usize),
}

fn plan() -> VecDeque<(u64, Act)> {
    let mut acts =
        vec![(60, Act::Follow), (300, Act::Split), (400, Act::Fulfil), (600, Act::Merge), (750, Act::Delete)];
    acts.extend((0..KILLS).map(|n| (120 + n * 110, Act::Kill)));
    acts.extend((0..faults::MALFORMED.len()).map(|n| (150 + n as u64 * 90, Act::Malformed(n))));
    acts.sort_by_key(|(at, _)| *at);
    acts.into()
}

/// The stack, the table and everything that runs.
struct World {
    stack: Stack,
    host: Host,
    hosted: Arc<Hosted>,
    table: Table,
    streams: Arc<KinesisStream>,
    bucketer: Bucketer,
    telemetry: Telemetry,
    /// Last sequence number that each shard gave.
    placed: BTreeMap<String, String>,
    sent: Sent,
    oracle: Oracle,
    injected: u64,
    splits: u64,
    merges: u64,
    kills: u64,
    started_ms: i64,
    first_row: JoinHandle<Option<u64>>,
}

impl World {
    async fn start(args: &Demo, telemetry: Telemetry) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::Problem(format!("this program cannot be found: {e}")))?;
        if let Some(dir) = &args.keep {
            need_text(dir)?;
            crate::commands::local::make(dir)?;
        }
        let stack = Stack::start(StackConfig { dir: args.keep.clone(), port: 0 }).await?;
        let mode = Mode::Processes(Bootstraps::Program(program, vec![FUNCTION.to_owned()]));
        let mut config = HostConfig::new(mode, args.keep.clone());
        config.rough_events = Some(args.seed);
        // A minute is short, and the machine is busy with everything else.
        config.cpu_share = false;
        let host = Host::start(&stack, config, telemetry.output()).await?;
        let ports = host.ports();
        let at = TableRef::new("warehouse", TABLE.parse().map_err(Failure::from)?);
        let table = NewTable {
            columns: COLUMNS.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect(),
            primary_keys: vec!["o_orderkey".to_owned()],
            options: [("bucket", BUCKETS.to_string()), ("changelog-producer", "input".to_owned())]
                .map(|(k, v)| (k.to_owned(), v))
                .into(),
            ..NewTable::default()
        };
        let clients = host.clients();
        let streams = Arc::new(KinesisStream::new(clients.kinesis.clone()));
        streams
            .create(STREAM, args.shards)
            .await
            .map_err(|e| Failure::Usage(format!("{e}; --keep wants a directory that no demo has used before")))?;
        catalog::create(&ports, &at, &table).await?;
        let decoder = DecoderConfig { format: Format::DebeziumJson, ..DecoderConfig::default() };
        Feed { stream_arn: Kinesis::arn(STREAM), decoder }.save(&ports, &at).await?;
        let hosted = host.served(&at.name).await;
        let table = Table::open(&ports, &at, Authority::Pointer, Purpose::Read).await?;
        let bucketer = table.bucketer()?;
        let started_ms = SystemClock.now_ms();
        let first_row = tokio::spawn(first_row(table.clone(), started_ms));
        Ok(Self {
            stack,
            host,
            hosted,
            table,
            streams,
            bucketer,
            telemetry,
            placed: BTreeMap::new(),
            sent: Sent::default(),
            oracle: Oracle::default(),
            injected: 0,
            splits: 0,
            merges: 0,
            kills: 0,
            started_ms,
            first_row,
        })
    }

    fn millis(&self) -> u64 {
        u64::try_from(SystemClock.now_ms() - self.started_ms).unwrap_or(0)
    }

    /// Puts changes into the stream, in their order; the oracle hears of each that the stream took.
    async fn produce(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        let mut records: VecDeque<PutRecord> = VecDeque::new();
        for change in &changes {
            let partition_key = change.key.to_string();
            let explicit_hash_key = hash_key(&self.bucketer, &[Cell::BigInt(change.key)], &partition_key);
            records.push_back(PutRecord { data: change.payload.clone().into(), partition_key, explicit_hash_key });
        }
        self.put(records).await?;
        changes.iter().for_each(|change| self.oracle.apply(change));
        Ok(())
    }

    async fn put(&mut self, records: VecDeque<PutRecord>) -> Result<(), Failure> {
        let mut records = records.into_iter().map(|record| Pending { line: 0, record }).collect::<VecDeque<_>>();
        let placed = &mut self.placed;
        while !records.is_empty() {
            let mut place = |shard: String, sequence: String| {
                let last = placed.entry(shard).or_default();
                // Kinesis numbers of one shard have the same number of digits, or grow in digits.
                if (last.len(), last.as_str()) < (sequence.len(), sequence.as_str()) {
                    *last = sequence;
                }
            };
            send(&*self.streams, STREAM, &mut records, &mut self.sent, &mut place).await?;
        }
        Ok(())
    }

    /// Whether everything produced is committed.
    async fn drained(&self) -> Result<bool, Failure> {
        let pointer = self.table.pointer().await?;
        for (shard, sequence) in &self.placed {
            let wanted: Position =
                sequence.parse().map_err(|_| Failure::Problem(format!("{sequence} is no position")))?;
            let shard = ShardId::new(shard.as_str()).map_err(|e| Failure::Problem(e.to_string()))?;
            match pointer.checkpoints.get(&shard) {
                Lookup::Found(checkpoint) if checkpoint.position >= wanted => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn moment(&self, args: &Demo, runs: Vec<usize>) -> Moment {
        let shards = self.stack.kinesis().shards(STREAM).iter().filter(|s| !s.closed).count();
        Moment {
            millis: self.millis(),
            seconds: args.seconds,
            produced: self.sent.records,
            runs,
            shards,
            kills: self.kills,
            injected: self.injected,
        }
    }
}

/// When the first rows could be read, ms after the start.
async fn first_row(table: Table, started_ms: i64) -> Option<u64> {
    loop {
        let snapshot = table.current().await.ok().flatten();
        if snapshot.and_then(|s| s.total_record_count).is_some_and(|rows| rows > 0) {
            return u64::try_from(SystemClock.now_ms() - started_ms).ok();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn run(args: Demo, out: &mut Out) -> Result<Done, Failure> {
    let began = SystemClock.now_ms();
    let telemetry = Telemetry::default();
    let mut world = World::start(&args, telemetry.clone()).await?;
    let up_ms = SystemClock.now_ms() - began;
    let warehouse = "s3://siltstone/warehouse";
    out.say(format!(
        "The stack is up after {up_ms} ms: S3, DynamoDB, Kinesis, Lambda on loopback;\ntable {TABLE}, {} shards, {BUCKETS} buckets.\n\n{}\n\
         Read along while it runs:\n\n{}",
        args.shards,
        world.stack.exports(),
        verify::snippet(&world.stack.endpoints(), warehouse)
    ))?;
    let mut view = View::new(out.json);
    let followed = perform(&args, &mut world, &mut view).await;
    let drained = match &followed {
        Ok(_) => drain(&args, &mut world, &mut view).await,
        Err(_) => Ok(()),
    };
    view.end();
    if followed.is_err() || drained.is_err() {
        telemetry.tell_log();
    }
    let followed = followed?;
    drained?;
    let done = finish(&args, &mut world, followed, warehouse, out).await;
    if !matches!(done, Ok(Done::Well)) {
        telemetry.tell_log();
    }
    let World { stack, host, .. } = world;
    drop(host);
    stack.shutdown().await;
    done
}

/// Produces for the demo's time and acts by the plan; returns the key of the followed order.
async fn perform(args: &Demo, world: &mut World, view: &mut View) -> Result<i64, Failure> {
    let mut changes = OrderChanges::new(args.seed);
    let (mut plan, mut followed, mut runs) = (plan(), 0, Vec::new());
    let mut runs_due = 0;
    let mut due_before = 0u64;
    let mut kill: Option<JoinHandle<bool>> = None;
    loop {
        let millis = world.millis();
        if millis >= args.seconds * 1000 {
            break;
        }
        let due = millis * args.rate / 1000;
        let now = SystemClock.now_ms();
        let batch: Vec<Change> = (due_before..due).map(|_| changes.next(now)).collect();
        due_before = due;
        world.produce(batch).await?;
        while let Some((_, act)) = plan.pop_front_if(|(at, _)| millis >= *at * args.seconds) {
            let now = SystemClock.now_ms();
            let text = match act {
                Act::Follow => {
                    let change = changes.follow(now);
                    followed = change.key;
                    world.produce(vec![change]).await?;
                    format!("order {followed} is opened (O)")
                }
                Act::Fulfil => {
                    world.produce(changes.fulfil_followed(now).into_iter().collect()).await?;
                    format!("order {followed} is fulfilled (F)")
                }
                Act::Delete => {
                    world.produce(changes.delete_followed(now).into_iter().collect()).await?;
                    format!("order {followed} is deleted")
                }
                Act::Split => {
                    let text = faults::split(&*world.streams, STREAM).await?;
                    world.splits += 1;
                    text
                }
                Act::Merge => {
                    let text = faults::merge(&*world.streams, STREAM).await?;
                    world.merges += 1;
                    text
                }
                Act::Malformed(number) => {
                    let data = faults::MALFORMED.get(number).copied().unwrap_or_default();
                    let partition_key = format!("malformed-{number}");
                    let record = PutRecord { data: data.into(), partition_key, explicit_hash_key: None };
                    world.put(VecDeque::from([record])).await?;
                    world.injected += 1;
                    continue;
                }
                Act::Kill => {
                    if kill.is_none() {
                        let (s3, hosted) = (world.stack.s3().clone(), world.hosted.clone());
                        kill = Some(tokio::spawn(async move { faults::kill_before_publication(&s3, &hosted).await }));
                    }
                    continue;
                }
            };
            view.event(millis, &text)?;
        }
        if let Some(done) = kill.take_if(|k| k.is_finished())
            && done.await.unwrap_or(false)
        {
            world.kills += 1;
            view.event(millis, "killed (SIGKILL) between commit and publication; Lambda delivers the batch again")?;
        }
        if millis >= runs_due {
            runs = bucket_runs(&world.table).await;
            runs_due = millis + 500;
        }
        let moment = world.moment(args, runs.clone()).await;
        view.show(&moment, &world.telemetry.sums())?;
        tokio::time::sleep(TICK).await;
    }
    if let Some(done) = kill {
        world.kills += u64::from(done.await.unwrap_or(false));
    }
    Ok(followed)
}

async fn bucket_runs(table: &Table) -> Vec<usize> {
    let mut runs = vec![0; usize::try_from(BUCKETS).unwrap_or(0)];
    for (_, bucket, count) in compact::buckets(table).await.unwrap_or_default() {
        if let Some(place) = usize::try_from(bucket.0).ok().and_then(|b| runs.get_mut(b)) {
            *place = count;
        }
    }
    runs
}

/// Waits for the last records, then for compactions to come to rest.
async fn drain(args: &Demo, world: &mut World, view: &mut View) -> Result<(), Failure> {
    view.phase(world.millis(), "waiting until the last records are committed")?;
    let waiting = async {
        while !world.drained().await? {
            let moment = world.moment(args, bucket_runs(&world.table).await).await;
            view.show(&moment, &world.telemetry.sums())?;
            tokio::time::sleep(TICK * 4).await;
        }
        Ok::<(), Failure>(())
    };
    tokio::time::timeout(DRAIN, waiting).await.map_err(|_| {
        Failure::Problem(format!("after {} s there are records in the stream that no commit covers", DRAIN.as_secs()))
    })??;
    view.phase(world.millis(), "waiting until compactions come to rest")?;
    let started = SystemClock.now_ms();
    let mut before = (0, 0);
    while SystemClock.now_ms() - started < i64::try_from(SETTLE.as_millis()).unwrap_or(0) {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let runs = bucket_runs(&world.table).await;
        let moment = world.moment(args, runs).await;
        let now = {
            let sums = world.telemetry.sums();
            view.show(&moment, &sums)?;
            (sums.usage.s3_put_class(), sums.compactions)
        };
        if now == before {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Compares, and tells.
async fn finish(
    args: &Demo,
    world: &mut World,
    followed: i64,
    warehouse: &str,
    out: &mut Out,
) -> Result<Done, Failure> {
    out.say("\nComparing what can be read with what was produced.")?;
    let steps = Steps::new();
    let difference = verify::by_scan(&world.table, &world.oracle, &steps).await?;
    let witness = verify::by_changelog(&world.table, &world.oracle, &steps).await?;
    steps.show("reading the quarantine");
    let (quarantined, shown) = verify::quarantined(&world.table).await?;
    steps.show("reading one order in every snapshot that changed it");
    let life = verify::life_of(&world.table, followed).await?;
    steps.show("looking for a Python with pypaimon, and reading the table with it");
    let pypaimon = verify::by_pypaimon(&world.stack.endpoints(), warehouse, &world.oracle).await;
    drop(steps);
    let first_row_ms = if world.first_row.is_finished() { (&mut world.first_row).await.ok().flatten() } else { None };
    let moment = world.moment(args, bucket_runs(&world.table).await).await;
    let snapshots = world.table.current().await?.map(|s| s.id.0);
    let sums = world.telemetry.sums();
    let run = price::Run {
        seconds: args.seconds,
        changes: world.oracle.changes,
        produced_bytes: world.sent.bytes,
        stored_bytes: sums.bytes,
        shards: moment.shards,
        batches: sums.ingest_batches,
        cost: sums.cost(),
    };
    let month = run.month();
    let statuses: Vec<Option<String>> = life.iter().map(|(_, status)| status.clone()).collect();
    let lived = statuses == [Some("O".to_owned()), Some("F".to_owned()), None];
    let summary = json!({
        "produced": world.sent.records, "changes": world.oracle.changes, "rows": world.oracle.rows.len(),
        "lost": difference.lost, "doubled": difference.doubled, "wrong": difference.wrong, "extra": difference.extra,
        "witness_duplicates": witness.duplicates, "witness_missing": witness.missing,
        "injected": world.injected, "quarantined": quarantined, "redelivered_after_commit": sums.redelivered,
        "kills": world.kills, "splits": world.splits, "merges": world.merges, "compactions": sums.compactions,
        "compaction_conflicts": sums.conflicts, "pypaimon": pypaimon_json(&pypaimon), "followed": life,
        "first_row_ms": first_row_ms, "freshness_p50_ms": sums.freshness(500),
        "freshness_p99_ms": sums.freshness(990), "snapshots": snapshots, "batches": sums.ingest_batches, "files": sums.files,
        "s3_put": sums.usage.s3_put_class(), "s3_get": sums.usage.s3_get_class(), "dynamo_write_units": sums.usage.write_units,
        "dynamo_read_units": sums.usage.read_units, "gb_seconds": sums.usage.gb_seconds(), "cost_usd": run.cost.added(),
        "firehose_s3tables_usd": run.managed_usd(), "month_usd": {"as_run": month.as_run, "batch_each_10_s": month.deployed,
            "batch_each_minute": month.by_minute, "firehose_s3tables": month.managed}, "seed": args.seed});
    let pypaimon_well = match &pypaimon {
        ByPypaimon::NotInstalled => true,
        ByPypaimon::Failed(_) => false,
        ByPypaimon::Read(difference) => *difference == source::Difference::default(),
    };
    let well = difference == source::Difference::default()
        && (witness.duplicates, witness.missing) == (0, 0)
        && quarantined == world.injected
        && pypaimon_well
        && lived;
    out.say(format!(
        "\n{} changes, {} live orders.\n\
         First row readable after {} ms; freshness p50 {} ms, p99 {} ms.\n\
         Against what was produced: {} lost, {} doubled, {} wrong, {} extra.\n\
         Changelog: {} duplicates, {} missing. pypaimon: {}.\n\
         {} kills between commit and publication; {} records were delivered again after\n\
         their commit, and skipped. {} split, {} merge, {} compactions.\n\
         Order {followed} by time travel:\n  {}.\n\
         Quarantined {} of {} malformed records; one of them:\n\n{}\n\n{}\n",
        world.oracle.changes,
        world.oracle.rows.len(),
        first_row_ms.unwrap_or(0),
        sums.freshness(500).unwrap_or(0),
        sums.freshness(990).unwrap_or(0),
        difference.lost,
        difference.doubled,
        difference.wrong,
        difference.extra,
        witness.duplicates,
        witness.missing,
        pypaimon_words(&pypaimon),
        world.kills,
        sums.redelivered,
        world.splits,
        world.merges,
        sums.compactions,
        life.iter()
            .map(|(s, status)| format!("{} in snapshot {s}", status.as_deref().unwrap_or("gone")))
            .collect::<Vec<_>>()
            .join(", "),
        quarantined,
        world.injected,
        shown.unwrap_or_default(),
        run.words(),
    ))?;
    if let Some(dir) = &args.keep {
        out.say(format!("The state is kept: silt --local {} scan {TABLE} --limit 5", dir.display()))?;
    }
    out.object(&summary, if well { "All is as it was produced." } else { "NOT all is as it was produced." })?;
    Ok(if well { Done::Well } else { Done::Problems })
}

fn pypaimon_json(found: &ByPypaimon) -> Value {
    match found {
        ByPypaimon::NotInstalled => json!("not installed"),
        ByPypaimon::Failed(reason) => json!({"failed": reason}),
        ByPypaimon::Read(d) => json!({"lost": d.lost, "doubled": d.doubled, "wrong": d.wrong, "extra": d.extra}),
    }
}

fn pypaimon_words(found: &ByPypaimon) -> String {
    match found {
        ByPypaimon::NotInstalled => "not installed here".to_owned(),
        ByPypaimon::Failed(reason) => format!("could not read ({reason})"),
        ByPypaimon::Read(d) if *d == source::Difference::default() => "reads the same".to_owned(),
        ByPypaimon::Read(d) => format!("{} lost, {} doubled, {} wrong, {} extra", d.lost, d.doubled, d.wrong, d.extra),
    }
}
