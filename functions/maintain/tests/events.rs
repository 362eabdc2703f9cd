//! The schedule's event of `events/` through the maintain handler, over in-memory ports: what it plans, sweeps, checks and reports.
//!
//! Neighbours: `world` (the table that the ingest samples leave), `siltstone_table::maintain`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../ingest/tests/world/mod.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value as Json;
use siltstone_maintain::{Handler, handler::MaintainEvent};
use siltstone_store::{
    mapping::{EventSourceMappings, MappingError, MappingSettings, StartingPosition},
    memory::{ManualClock, MemoryMappings},
    object::PutMode,
};
use siltstone_table::{
    ErrorKind, TableError,
    maintain::{MaintainReport, require_mapping},
};
use world::{FAR, Metrics, START, STREAM, TASK, World, all_orders, sample, sample_json, settings, value};

/// A day and an hour: older than the sweep's age floor.
const LONG: Duration = Duration::from_secs(25 * 3_600);

fn handler(world: &World) -> Handler {
    Handler::new(world.ports.clone(), None, settings(&[])).with_meter(world.meter.clone())
}

/// A handler that sees these mappings of the function `ingest`.
fn checking(world: &World, mappings: Vec<MappingSettings>) -> Handler {
    let seen = MemoryMappings::new();
    seen.set("ingest", mappings);
    Handler::new(world.ports.clone(), Some(Arc::new(seen)), settings(&[("SILTSTONE_FUNCTION_INGEST", "ingest")]))
}

fn mapping() -> MappingSettings {
    MappingSettings {
        stream_arn: STREAM.to_owned(),
        parallelization_factor: Some(1),
        maximum_retry_attempts: Some(-1),
        maximum_record_age_seconds: Some(-1),
        starting_position: Some(StartingPosition::TrimHorizon),
        ..MappingSettings::default()
    }
}

/// Runs a handler; the report as JSON and its metrics.
async fn run(handler: &Handler) -> (MaintainReport, Json) {
    run_on(handler, &sample("maintain-schedule"), FAR).await
}

async fn run_on(handler: &Handler, event: &str, deadline_ms: i64) -> (MaintainReport, Json) {
    let metrics = Metrics::default();
    let answer = handler.handle_json(event.as_bytes(), deadline_ms, metrics.take()).await.unwrap();
    (serde_json::from_slice(&answer).unwrap(), metrics.document().unwrap())
}

/// What fails, in words.
async fn refused(handler: &Handler) -> TableError {
    handler.handle_json(b"{}", FAR, |_| {}).await.unwrap_err()
}

/// The swept runs among these.
async fn sweeps(handler: &Handler, world: &World, hours: &[u64]) -> Vec<bool> {
    let mut swept = Vec::new();
    for hour in hours {
        world.clock.advance(Duration::from_secs(hour * 3_600));
        swept.push(run(handler).await.0.swept);
    }
    swept
}

async fn put_orphan(world: &World) -> String {
    let key = "demo.db/orders/bucket-0/data-00000000-0000-4000-8000-000000000000-0.parquet";
    world.ports.objects.put(key, b"left by a dead writer".to_vec().into(), PutMode::Overwrite).await.unwrap();
    key.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_event_asks_for_nothing_and_what_is_no_event_is_refused() {
    assert_eq!(sample_json("maintain-schedule")["detail-type"], "Scheduled Event");
    let event: MaintainEvent = serde_json::from_str(&sample("maintain-schedule")).unwrap();
    assert_eq!(event, MaintainEvent::default());
    let handler = handler(&World::new().await);
    for bad in ["", "[", r#"{"sweep": "now"}"#] {
        let error = handler.handle_json(bad.as_bytes(), FAR, |_| {}).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(r#"{"sweep": true}"#), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_table_needs_nothing() {
    let world = World::new().await;
    let rev = world.rev().await;
    let (report, metrics) = run(&handler(&world)).await;
    assert_eq!(report, MaintainReport { swept: true, ..MaintainReport::default() });
    let names = [
        "Failed",
        "Left",
        "Tasks",
        "ExpiredSnapshots",
        "DeletedObjects",
        "MappingFaults",
        "StaleTasks",
        "Orphans",
        "OrphanBytes",
    ];
    assert_eq!(names.map(|name| value(&metrics, name)), [0; 9]);
    assert_eq!(world.rev().await, rev);
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_is_done_once_a_day_and_when_it_is_asked_for() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    assert_eq!(sweeps(&handler, &world, &[0, 0, 23, 1, 0]).await, [true, false, false, true, false]);
    let (report, metrics) = run(&handler).await;
    assert!(!report.swept && metrics.get("Orphans").is_none(), "what was not looked at has no value: {metrics}");
    assert!(run_on(&handler, r#"{"sweep": true}"#, FAR).await.0.swept);
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_that_failed_is_tried_again_after_an_hour() {
    let world =
        World::with(&[], &[("changelog.num-retained.max", "2147483647"), ("changelog.time-retained", "30 d")]).await;
    let handler = handler(&world);
    let mut tried = Vec::new();
    for minutes in [0, 5, 54, 1] {
        world.clock.advance(Duration::from_secs(60 * minutes));
        tried.push(refused(&handler).await.to_string().contains("sweep: "));
    }
    assert_eq!(tried, [true, false, false, true]);
}

/// Mappings whose answer takes a minute.
#[derive(Debug)]
struct SlowMappings(MemoryMappings, Arc<ManualClock>);

#[async_trait]
impl EventSourceMappings for SlowMappings {
    async fn kinesis_mappings(&self, function: &str) -> Result<Vec<MappingSettings>, MappingError> {
        self.1.advance(Duration::from_secs(60));
        self.0.kinesis_mappings(function).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mapping_is_checked_first_and_what_time_did_not_suffice_for_is_named() {
    let world = World::new().await;
    world.commit_samples().await;
    let seen = MemoryMappings::new();
    seen.set("ingest", vec![mapping()]);
    let slow = Arc::new(SlowMappings(seen, world.clock.clone()));
    let handler = Handler::new(world.ports.clone(), Some(slow), settings(&[("SILTSTONE_FUNCTION_INGEST", "ingest")]));
    let (report, metrics) = run_on(&handler, "{}", START + 60_000).await;
    let left: Vec<String> = ["publication", "fold", "plan", "expire", "slots", "sweep"].map(str::to_owned).into();
    assert_eq!(report, MaintainReport { left, ..MaintainReport::default() });
    assert_eq!((value(&metrics, "Left"), value(&metrics, "Failed")), (6, 0));
    require_mapping(&world.ports, &settings(&[]).table, STREAM).await.expect("ingest goes on");
    let (report, _) = run_on(&handler, "{}", START + 600_000).await;
    assert_eq!((report.left.len(), report.snapshot, report.swept), (0, Some(5), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_nobody_comes_for_are_removed_after_a_day() {
    let world = World::new().await;
    world.commit_samples().await;
    let left = TASK.replace("5-0.json", "4-0.json");
    let body = world.ports.objects.get(TASK).await.unwrap().bytes;
    world.ports.objects.put(&left, body, PutMode::Overwrite).await.unwrap();
    assert_eq!((run(&handler(&world)).await.0.stale_tasks, world.exists(&left).await), (0, true));
    world.clock.advance(LONG);
    let (report, metrics) = run(&handler(&world)).await;
    assert_eq!((report.stale_tasks, value(&metrics, "StaleTasks"), world.exists(&left).await), (1, 1, false));
    assert!(world.exists(TASK).await, "this one is due, and was put again");
}

#[tokio::test(flavor = "multi_thread")]
async fn bucket_whose_event_was_lost_gets_a_task_that_s3_tells_again() {
    let world = World::new().await;
    world.commit_samples().await;
    let put_at = async |world: &World| world.ports.objects.head(TASK).await.unwrap().last_modified_ms;
    // The task object is there, its event came to nobody, and nothing is written to the table any more.
    let first = put_at(&world).await;
    world.clock.advance(Duration::from_secs(300));
    let (report, metrics) = run(&handler(&world)).await;
    assert_eq!((report.snapshot, report.tasks, value(&metrics, "Tasks")), (Some(5), 1, 1));
    assert_eq!(put_at(&world).await, first + 300_000, "only a put makes S3 send an event");
    assert_eq!(world.orders().await, all_orders());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_expire_and_the_rows_stay() {
    let options = [("snapshot.num-retained.min", "1"), ("snapshot.time-retained", "1 s")];
    let world = World::with(&[], &options).await;
    world.commit_samples().await;
    world.clock.advance(Duration::from_secs(3_600));
    let (report, metrics) = run(&handler(&world)).await;
    assert!(report.expired > 0 && report.deleted > 0, "{report:?}");
    assert_eq!(value(&metrics, "ExpiredSnapshots"), report.expired);
    assert_eq!(value(&metrics, "DeletedObjects"), report.deleted);
    assert_eq!((world.snapshot().await, world.orders().await), (Some(5), all_orders()));
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_counted_by_default_and_deleted_only_where_the_settings_say_so() {
    let world = World::new().await;
    world.commit_samples().await;
    let orphan = put_orphan(&world).await;
    let young = run(&handler(&world)).await.0;
    assert!(young.swept);
    assert_eq!(young.orphans, 0, "a young file may be of a commit that is on its way");
    world.clock.advance(LONG);
    let (report, metrics) = run(&handler(&world)).await;
    assert_eq!((report.orphans, report.orphan_bytes, world.exists(&orphan).await), (1, 21, true));
    assert_eq!((value(&metrics, "Orphans"), value(&metrics, "OrphanBytes")), (1, 21));
    let deleting = Handler::new(world.ports.clone(), None, settings(&[("SILTSTONE_SWEEP", "delete")]));
    let sweep = async || run_on(&deleting, r#"{"sweep": true}"#, FAR).await.0;
    assert_eq!(sweep().await.orphans, 1);
    assert!(!world.exists(&orphan).await);
    let again = sweep().await;
    assert_eq!((again.swept, again.orphans), (true, 0));
    assert_eq!(world.orders().await, all_orders());
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_mapping_is_recorded_and_lets_ingest_run() {
    let world = World::new().await;
    let at = settings(&[]).table;
    assert!(require_mapping(&world.ports, &at, STREAM).await.is_err());
    let (report, _) = run(&checking(&world, vec![mapping()])).await;
    assert_eq!(report.mapping_faults, [""; 0]);
    require_mapping(&world.ports, &at, STREAM).await.unwrap();
}

/// `maintain` is disabled, or lost its right to look: what has become of the mapping since is not known.
#[tokio::test(flavor = "multi_thread")]
async fn mapping_that_nobody_checked_for_a_day_stops_ingest() {
    let world = World::new().await;
    let at = settings(&[]).table;
    run(&checking(&world, vec![mapping()])).await;
    world.clock.advance(Duration::from_secs(86_399));
    require_mapping(&world.ports, &at, STREAM).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    let refused = require_mapping(&world.ports, &at, STREAM).await.unwrap_err().to_string();
    assert!(refused.contains("24 hours ago") && refused.contains("may list mappings"), "{refused}");
    run(&checking(&world, vec![mapping()])).await;
    require_mapping(&world.ports, &at, STREAM).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_mapping_is_reported_and_stops_ingest() {
    let world = World::new().await;
    let at = settings(&[]).table;
    run(&checking(&world, vec![mapping()])).await;
    let cases = [
        (vec![MappingSettings { parallelization_factor: Some(2), ..mapping() }], "ParallelizationFactor"),
        (vec![MappingSettings { maximum_retry_attempts: Some(3), ..mapping() }], "MaximumRetryAttempts"),
        (vec![MappingSettings { maximum_record_age_seconds: Some(60), ..mapping() }], "MaximumRecordAgeInSeconds"),
        (vec![MappingSettings { filters: 1, ..mapping() }], "FilterCriteria"),
        (vec![MappingSettings { tumbling_window_seconds: Some(30), ..mapping() }], "TumblingWindowInSeconds"),
        (vec![MappingSettings { starting_position: Some(StartingPosition::Latest), ..mapping() }], "TRIM_HORIZON"),
        (vec![MappingSettings { stream_arn: "arn:other".to_owned(), ..mapping() }], "has no event source mapping"),
        (vec![mapping(), mapping()], "has 2 mappings"),
        (vec![], "has no event source mapping"),
    ];
    for (mappings, words) in cases {
        let (report, metrics) = run(&checking(&world, mappings)).await;
        assert_eq!((report.mapping_faults.len(), value(&metrics, "MappingFaults")), (1, 1), "{words}");
        assert!(report.mapping_faults[0].contains(words), "{report:?}");
        let refused = require_mapping(&world.ports, &at, STREAM).await.unwrap_err().to_string();
        assert!(refused.contains(words) && refused.contains("invoke `maintain`"), "{refused}");
    }
    run(&checking(&world, vec![mapping()])).await;
    require_mapping(&world.ports, &at, STREAM).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_others_compact_is_maintained_and_gets_no_tasks() {
    let world = World::with(&[], &[("changelog-producer", "lookup")]).await;
    world.commit_samples().await;
    assert!(!world.exists(TASK).await, "a task would only fail");
    let (report, _) = run(&checking(&world, vec![mapping()])).await;
    assert_eq!((report.snapshot, report.tasks, report.failures.len()), (Some(5), 0, 0), "{report:?}");
    require_mapping(&world.ports, &settings(&[]).table, STREAM).await.expect("ingest goes on");
    assert_eq!(world.orders().await, all_orders());
}

#[tokio::test(flavor = "multi_thread")]
async fn table_that_others_expire_has_its_mapping_checked_all_the_same() {
    let world =
        World::with(&[], &[("changelog.num-retained.max", "2147483647"), ("changelog.time-retained", "30 d")]).await;
    let error = refused(&checking(&world, vec![mapping()])).await.to_string();
    assert!(error.contains("expire: ") && error.contains("sweep: ") && error.contains("changelog"), "{error}");
    require_mapping(&world.ports, &settings(&[]).table, STREAM).await.expect("ingest goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_task_fails_the_invocation_and_stops_no_other() {
    let world = World::new().await;
    world.commit_samples().await;
    world.ports.objects.delete(&[TASK.to_owned()]).await.unwrap();
    let nobody = settings(&[("SILTSTONE_FUNCTION_INGEST", "nobody")]);
    let handler = Handler::new(world.ports.clone(), Some(Arc::new(MemoryMappings::new())), nobody);
    let metrics = Metrics::default();
    let error = handler.handle_json(b"{}", FAR, metrics.take()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("mapping") && error.to_string().contains("nobody"), "{error}");
    let document = metrics.document().unwrap();
    assert_eq!((value(&document, "Failed"), value(&document, "Tasks")), (1, 1));
    assert!(world.exists(TASK).await, "the missed compaction was planned all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_of_an_unknown_table_says_how_to_create_it() {
    let world = World::new().await;
    let handler = Handler::new(world.ports.clone(), None, settings(&[("SILTSTONE_TABLE", "demo.payments")]));
    let error = refused(&handler).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("demo.payments") && error.to_string().contains("silt table create"), "{error}");
}
