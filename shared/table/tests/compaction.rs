//! Compactions that meet a limit: of time, of memory, or the end of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use siltstone_commit::{
    context::Authority,
    protocol::{self, Severity},
};
use siltstone_format::options::Purpose;
use siltstone_store::memory::{FaultPlan, Faulty};
use siltstone_table::{
    ErrorKind, Ports, Result, Table,
    compact::{self, CompactReport, CompactRequest, Compacted, compact_bucket},
    driver::drive,
    maintain::{self, MaintainRequest},
    settings::CompactLimits,
};
use world::*;

/// What one compaction may take of the clock; `LIMITS` keeps 20 s of it for the commit.
const TIME_MS: i64 = 60_000;
const LIMITS: CompactLimits = CompactLimits { memory_bytes: 512 << 20, reserve_ms: 20_000, lateness_ms: 0 };

/// A bucket of two sections of two runs each, which are rewritten one after the other.
async fn two_sections() -> World {
    let world = world(false, &[("bucket", "1"), ("target-file-size", "1 b")]).await;
    let ingest = world.ingest();
    for n in 0..2 {
        for section in [0, 1_000] {
            let rows = [1, 2, 3].map(|id| row(section + id, &format!("v{n}")));
            ingest.handle(&batch(1 + 10 * (2 * n + section as u64 / 1_000), &rows), FAR).await.unwrap();
        }
    }
    world.clock.advance(Duration::from_secs(10));
    world
}

/// Compacts the only bucket fully, behind a plan of faults, with [`TIME_MS`] left.
async fn compact(world: &World, plan: &FaultPlan, limits: &CompactLimits) -> Result<Compacted> {
    let ports = broken(world, plan);
    let table = Table::open(&ports, &world.at, Authority::Pointer, Purpose::Compact).await?;
    let (partition, bucket, _) = compact::buckets(&table).await?.remove(0);
    let deadline = world.clock_ms() + TIME_MS;
    compact_bucket(&table, &partition, bucket, CompactRequest::Full, limits, deadline).await
}

fn broken(world: &World, plan: &FaultPlan) -> Ports {
    Ports {
        objects: Arc::new(Faulty::new(world.ports.objects.clone(), plan.clone())),
        items: Arc::new(Faulty::new(world.ports.items.clone(), plan.clone())),
        ..world.ports.clone()
    }
}

fn done(compacted: Result<Compacted>) -> CompactReport {
    match compacted.unwrap() {
        Compacted::Done(report) => *report,
        other => panic!("{other:?}"),
    }
}

/// Time passes while the `nth` data file is read.
fn slow_read(world: &World, nth: u64, time: Duration) -> FaultPlan {
    let clock = world.clock.clone();
    FaultPlan::none().act_before("get", "bucket-0/data-", nth, move || async move { clock.advance(time) })
}

async fn assert_sound(world: &World, what: &str) {
    let findings = drive(protocol::check(&world.open().await.context), &world.ports, &world.at).await.unwrap().findings;
    // Notes say what the next commit or expiry puts right, as a hint that is behind.
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_overruns_is_given_up_and_what_is_finished_is_committed() {
    let world = two_sections().await;
    let before = world.rows(None).await;
    for overrun in [Duration::from_secs(50), Duration::from_secs(3_600)] {
        let report = done(compact(&world, &slow_read(&world, 3, overrun), &LIMITS).await);
        assert_eq!((report.complete, report.files_in, report.files_out), (false, 2, 1), "{report:?}");
        assert_eq!(world.rows(None).await, before);
        assert_sound(&world, "after a part").await;
        // The next one finds the rest and nothing else.
        let report = done(compact(&world, &FaultPlan::none(), &LIMITS).await);
        assert!(report.complete && report.files_in >= 2, "{report:?}");
        assert_eq!(world.rows(None).await, before);
        assert_eq!(compact::buckets(&world.open().await).await.unwrap()[0].2, 1);
        for section in [0, 1_000] {
            let rows = [1, 2, 3].map(|id| row(section + id, "v1"));
            world.ingest().handle(&batch(100 + world.revision().await * 10, &rows), FAR).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_group_that_overruns_is_named_while_there_is_time_and_changes_nothing() {
    let world = two_sections().await;
    let before = (world.rows(None).await, world.revision().await);
    let started = world.clock_ms();
    let error = compact(&world, &slow_read(&world, 1, Duration::from_secs(45)), &LIMITS).await.unwrap_err();
    assert!(world.clock_ms() < started + TIME_MS, "the function can still answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let words = error.to_string();
    assert!(words.contains("bucket 0") && words.contains("2 files") && words.contains("data-"), "{words}");
    assert_eq!((world.rows(None).await, world.revision().await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_runs_than_memory_allows_are_merged_in_passes_with_the_same_rows() {
    let world = world(false, &[("bucket", "1")]).await;
    let ingest = world.ingest();
    for n in 0..11u64 {
        let mut rows: Vec<_> = (0..5).map(|id| row((id * 3 + n as i64) % 20, &format!("v{n}"))).collect();
        rows.push(json!({"id": n % 7, "op": "delete", "dt": "2023-11-14"}));
        ingest.handle(&batch(1 + 10 * n, &rows), FAR).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(10));
    let before = world.rows(None).await;
    let limits = CompactLimits { memory_bytes: 1, ..LIMITS };
    let report = done(compact(&world, &FaultPlan::none(), &limits).await);
    assert!(report.complete && report.files_in > 11, "several passes: {report:?}");
    assert_eq!(world.rows(None).await, before);
    let buckets = compact::buckets(&world.open().await).await.unwrap();
    assert_eq!(buckets[0].2, 1, "one run is left");
    assert_sound(&world, "after passes").await;
    let whole = done(compact(&world, &FaultPlan::none(), &LIMITS).await.map(|again| match again {
        Compacted::Nothing => Compacted::Done(Box::new(report.clone())),
        other => panic!("no delete is left to be dropped: {other:?}"),
    }));
    assert_eq!(whole, report);
}

/// The run that stays outside is the newest by its largest number, and holds a row older than the delete in those that are merged.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_stays_while_a_newer_run_outside_holds_an_older_row_of_its_key() {
    let world = world(false, &[("bucket", "1")]).await;
    let ingest = world.ingest();
    ingest.handle(&batch(1, &[row(1, "first"), row(2, "kept")]), FAR).await.unwrap();
    ingest.handle(&batch(51, &[json!({"id": 1, "op": "delete", "dt": "2023-11-14"})]), FAR).await.unwrap();
    let mut late = batch(21, &[row(1, "late"), row(3, "newest")]);
    late.shard = "shardId-000000000001".into();
    late.records[1].arrival_ms = START + 81;
    ingest.handle(&late, FAR).await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    let before = world.rows(None).await;
    let expected = [(2, "kept"), (3, "newest")].map(|(id, note)| (id, note.to_owned()));
    assert_eq!(before, expected, "the delete is newer than the row that came after it");
    let limits = CompactLimits { memory_bytes: 1, ..LIMITS };
    let report = done(compact(&world, &FaultPlan::none(), &limits).await);
    assert!(report.complete && report.files_in == 4, "two of three runs first, then the rest: {report:?}");
    assert_eq!(world.rows(None).await, before);
    assert_sound(&world, "after passes").await;
}

/// A table with a compaction, expiry and a sweep ahead of it.
async fn worn() -> World {
    let options = [
        ("bucket", "1"),
        ("num-sorted-run.compaction-trigger", "3"),
        ("snapshot.num-retained.min", "1"),
        ("snapshot.num-retained.max", "2"),
        ("snapshot.time-retained", "1 h"),
    ];
    let world = world(false, &options).await;
    let ingest = world.ingest();
    for n in 0..4u64 {
        let rows = [row(1, &format!("v{n}")), row(10 + n as i64, "x")];
        ingest.handle(&batch(1 + 10 * n, &rows), FAR).await.unwrap();
    }
    ingest.handle(&batch(90, &[json!({"id": 11, "op": "delete", "dt": "2023-11-14"})]), FAR).await.unwrap();
    world.clock.advance(Duration::from_secs(7_200));
    world
}

/// Runs `work` with a crash after each of its requests, then again without, and looks at the table each time.
async fn crash_everywhere<F: Future<Output = Result<()>>>(
    make: fn(u64) -> FaultPlan,
    prepare: impl AsyncFn() -> World,
    work: impl Fn(Ports, World) -> F,
) -> u64 {
    for n in 1.. {
        let world = prepare().await;
        let before = world.rows(None).await;
        let plan = make(n);
        let crashed = work(broken(&world, &plan), world.again()).await.is_err() || plan.crashed();
        let what = format!("crash after request {n}");
        assert_eq!(world.rows(None).await, before, "{what}");
        work(world.ports.clone(), world.again()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(world.rows(None).await, before, "{what}, and again");
        assert_sound(&world, &what).await;
        // The stream goes on.
        world.ingest().handle(&batch(500, &[row(2, "later")]), FAR).await.unwrap();
        assert_eq!(world.rows(None).await.len(), before.len() + 1, "{what}");
        if !crashed {
            return n - 1;
        }
    }
    0
}

async fn compact_all(ports: Ports, world: World) -> Result<()> {
    let table = Table::open(&ports, &world.at, Authority::Pointer, Purpose::Compact).await?;
    for (partition, bucket, _) in compact::buckets(&table).await? {
        compact_bucket(&table, &partition, bucket, CompactRequest::Full, &LIMITS, FAR).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_of_a_compaction_changes_no_row() {
    for make in [FaultPlan::crash_after, FaultPlan::crash_losing_answer] {
        let crashes = crash_everywhere(make, worn, compact_all).await;
        assert!(crashes > 15, "{crashes}");
    }
}

async fn maintain(ports: Ports, world: World) -> Result<()> {
    let table = Table::open(&ports, &world.at, Authority::Pointer, Purpose::Compact).await?;
    let request = MaintainRequest { sweep_now: true, dry_run: false, deadline_ms: FAR };
    let report = maintain::run(&table, None, &request).await;
    match report.failures.is_empty() {
        true => Ok(()),
        false => Err(siltstone_table::TableError::Unavailable(report.failures.join("; "))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_of_maintenance_changes_no_row() {
    let prepare = async || {
        let world = worn().await;
        compact_all(world.ports.clone(), world.again()).await.unwrap();
        // What a compaction that died has left.
        let orphan = "wh/demo.db/orders/bucket-0/data-orphan-0.parquet";
        world
            .ports
            .objects
            .put(orphan, "left behind".into(), siltstone_store::object::PutMode::Overwrite)
            .await
            .unwrap();
        world.clock.advance(Duration::from_secs(3 * 86_400));
        world
    };
    for make in [FaultPlan::crash_after, FaultPlan::crash_losing_answer] {
        let crashes = crash_everywhere(make, prepare, maintain).await;
        assert!(crashes > 30, "{crashes}");
    }
    let world = prepare().await;
    maintain(world.ports.clone(), world.again()).await.unwrap();
    let gone = world.ports.objects.head("wh/demo.db/orders/bucket-0/data-orphan-0.parquet").await;
    assert!(gone.is_err(), "the sweep had something to do");
    let first = world.ports.objects.head("wh/demo.db/orders/snapshot/snapshot-1").await;
    assert!(first.is_err(), "and so had expiry");
}
