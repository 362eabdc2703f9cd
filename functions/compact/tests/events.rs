//! The task event of `events/` through the compact handler, over in-memory ports: what becomes of the bucket, and of broken events.
//!
//! Neighbours: `world` (the table that the ingest samples leave), `shared/table/tests/flow.rs`. The reads after are the reads before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../../ingest/tests/world/mod.rs"]
mod world;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value as Json, json};
use siltstone_compact::{Handler, event::S3Event, handler::CompactSummary};
use siltstone_format::id::SnapshotId;
use siltstone_store::{
    item::{Attr, Item, ItemCondition},
    object::{PutMode, list_all},
};
use siltstone_table::{
    ErrorKind, TableError, compact,
    debt::{CompactTask, put_task},
};
use world::{FAR, Metrics, START, TASK, World, all_orders, assert_part, sample, sample_json, settings, value};

fn handler(world: &World) -> Handler {
    Handler::new(world.ports.clone(), settings(&[])).with_meter(world.meter.clone())
}

/// The sample with these objects in place of its own.
fn event(keys: &[&str]) -> Vec<u8> {
    let mut event = sample_json("compact-task");
    let record = event["Records"][0].clone();
    let records = keys.iter().map(|key| {
        let mut record = record.clone();
        record["s3"]["object"]["key"] = json!(key);
        record
    });
    event["Records"] = records.collect();
    event.to_string().into_bytes()
}

/// Counts of a summary, by name; those that are 0 are left out.
async fn feed(handler: &Handler, event: &[u8]) -> BTreeMap<String, u64> {
    let metrics = Metrics::default();
    let answer = handler.handle_json(event, FAR, metrics.take()).await.unwrap();
    let counts: BTreeMap<String, u64> = serde_json::from_slice(&answer).unwrap();
    let document = metrics.document().unwrap();
    for (field, metric) in [("compacted", "Compacted"), ("conflicts", "Conflicts"), ("rowsIn", "RowsIn")] {
        assert_eq!(value(&document, metric), counts[field], "{metric}");
    }
    assert_eq!(value(&document, "Failed"), 0);
    counts.into_iter().filter(|(_, n)| *n > 0).collect()
}

/// Of [`feed`], what became of the tasks.
async fn fates(handler: &Handler, event: &[u8]) -> Vec<(String, u64)> {
    let fates = ["compacted", "nothing", "gone", "leased", "conflicts"];
    feed(handler, event).await.into_iter().filter(|(name, _)| fates.contains(&name.as_str())).collect()
}

fn counted(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

async fn refused(handler: &Handler, event: &[u8]) -> TableError {
    handler.handle_json(event, FAR, |_| {}).await.unwrap_err()
}

async fn put(world: &World, key: &str, body: impl Into<Vec<u8>>) {
    let body: Vec<u8> = body.into();
    world.ports.objects.put(key, body.into(), PutMode::Overwrite).await.unwrap();
}

/// A task for each bucket of the table; their keys.
async fn put_tasks(world: &World) -> Vec<String> {
    let table = world.table().await;
    for (partition, bucket, _) in compact::buckets(&table).await.unwrap() {
        put_task(&table, "", &CompactTask::new(&table.at, &partition, bucket, SnapshotId(9), 0)).await.unwrap();
    }
    let tasks = list_all(world.ports.objects.as_ref(), &settings(&[]).table.tasks()).await.unwrap();
    tasks.into_iter().map(|object| object.key).filter(|key| key.ends_with("9-0.json")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn task_event_compacts_its_bucket_and_no_row_changes() {
    let world = World::new().await;
    world.commit_samples().await;
    let before = world.scanned().await;
    assert_eq!((world.runs().await, world.exists(TASK).await), (vec![5], true));
    let counts = feed(&handler(&world), sample("compact-task").as_bytes()).await;
    assert_eq!(counts["compacted"], 1);
    assert!(counts["rowsIn"] > counts["rowsOut"] && counts["bytesIn"] > 0 && counts["bytesOut"] > 0, "{counts:?}");
    assert_eq!(world.scanned().await, before, "rows and their sequence numbers");
    assert_eq!(world.orders().await, all_orders());
    assert_eq!((world.runs().await, world.snapshot().await), (vec![1], Some(6)));
    assert!(!world.exists(TASK).await, "a finished task is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn task_event_given_again_finds_its_task_gone() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    feed(&handler, sample("compact-task").as_bytes()).await;
    let (rev, rows) = (world.rev().await, world.scanned().await);
    assert_eq!(fates(&handler, sample("compact-task").as_bytes()).await, counted(&[("gone", 1)]));
    assert_eq!((world.rev().await, world.scanned().await), (rev, rows), "nothing was committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_twice_and_in_any_order_leave_the_same_table() {
    let mut seen = Vec::new();
    for order in [[0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]] {
        let world = World::with(&[], &[("bucket", "2"), ("num-sorted-run.compaction-trigger", "2")]).await;
        world.commit_samples().await;
        let tasks = put_tasks(&world).await;
        assert_eq!(tasks.len(), 2);
        let keys = order.map(|n: usize| tasks[n].as_str());
        let handler = handler(&world);
        // Half of the events together, the others one by one.
        let mut fates = fates(&handler, &event(&keys[..2])).await;
        for key in &keys[2..] {
            fates.extend(self::fates(&handler, &event(&[key])).await);
        }
        let of = |name: &str| fates.iter().filter(|(n, _)| n == name).map(|(_, n)| n).sum::<u64>();
        assert_eq!((of("compacted"), of("gone")), (2, 2), "{order:?}: {fates:?}");
        assert_eq!(world.runs().await, [1, 1], "{order:?}");
        seen.push(world.scanned().await);
        assert_eq!(world.orders().await, all_orders());
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_task_of_a_compacted_bucket_does_nothing_and_is_removed() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    feed(&handler, sample("compact-task").as_bytes()).await;
    let (late, rev) = (put_tasks(&world).await, world.rev().await);
    assert_eq!(fates(&handler, &event(&[&late[0]])).await, counted(&[("nothing", 1)]));
    assert_eq!((world.rev().await, world.exists(&late[0]).await), (rev, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn bucket_under_a_lease_is_left_alone_until_the_lease_runs_out() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    let partition = settings(&[]).table.partition();
    let lease = Item::new(partition, "lease#/bucket-0", 1).with("until", Attr::N(START + 900_000));
    world.ports.items.put(&lease, ItemCondition::Absent).await.unwrap();
    assert_eq!(fates(&handler, sample("compact-task").as_bytes()).await, counted(&[("leased", 1)]));
    assert_eq!((world.runs().await, world.exists(TASK).await), (vec![5], true), "the task stays");
    world.clock.advance(Duration::from_secs(900));
    assert_eq!(fates(&handler, sample("compact-task").as_bytes()).await, counted(&[("compacted", 1)]));
    assert_eq!(world.orders().await, all_orders());
}

#[tokio::test(flavor = "multi_thread")]
async fn key_of_a_partition_is_decoded_as_s3_encodes_it() {
    let world = World::with(&["ordered"], &[]).await;
    world.commit_samples().await;
    // Paimon names a partition by a date's day number unless `partition.legacy-name` is off: 20240 is 2025-06-01.
    let key = "_siltstone/tasks/demo.db/orders/ordered=20240/bucket-0/00000000000000000005-0.json";
    assert!(world.exists(key).await);
    assert_eq!(fates(&handler(&world), &event(&[&key.replace('=', "%3D")])).await, counted(&[("compacted", 1)]));
    assert_eq!((world.orders().await, world.exists(key).await), (all_orders(), false));
}

#[test]
fn event_survives_reading_and_writing_unchanged() {
    let read: S3Event = serde_json::from_str(&sample("compact-task")).unwrap();
    assert_eq!(read.records[0].key(), TASK);
    let written: Json = serde_json::to_value(&read).unwrap();
    assert_part(&written, &sample_json("compact-task"), "compact-task");
    assert_eq!(serde_json::from_value::<S3Event>(written).unwrap(), read);
}

#[test]
fn summary_of_an_event_without_work_is_all_zero() {
    let summary: BTreeMap<String, u64> =
        serde_json::from_value(serde_json::to_value(CompactSummary::default()).unwrap()).unwrap();
    assert_eq!((summary.len(), summary.values().sum::<u64>()), (9, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_events_are_refused_in_words_and_change_nothing() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    let rev = world.rev().await;
    let mut elsewhere = sample_json("compact-task");
    elsewhere["Records"][0]["s3"]["bucket"]["name"] = json!("pond");
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (b"".to_vec(), &["not an S3 event", "compact-task.json"]),
        (b"{".to_vec(), &["not an S3 event", "S3 notifications"]),
        ([b'['; 100_000].to_vec(), &["not an S3 event"]),
        (b"{}".to_vec(), &["missing field `Records`"]),
        (br#"{"Records": {}}"#.to_vec(), &["not an S3 event"]),
        (sample("ingest-normal").into_bytes(), &["not an S3 event", "missing field `s3`"]),
        (sample("maintain-schedule").into_bytes(), &["missing field `Records`"]),
        (elsewhere.to_string().into_bytes(), &["bucket pond", "serves lake", "point that bucket's notification"]),
    ];
    for (event, words) in cases {
        let error = refused(&handler, &event).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
        }
    }
    assert_eq!((world.rev().await, world.runs().await), (rev, vec![5]));
    assert!(world.exists(TASK).await, "the task of the good event still waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_tasks_are_refused_by_name_and_change_nothing() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    let rev = world.rev().await;
    let good: Json = serde_json::from_slice(&world.ports.objects.get(TASK).await.unwrap().bytes).unwrap();
    let task = |change: &dyn Fn(&mut Json)| {
        let mut task = good.clone();
        change(&mut task);
        task.to_string().into_bytes()
    };
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "not a compaction task"),
        (b"\xff\xfe".to_vec(), "not a compaction task"),
        (vec![b' '; (64 << 10) + 1], "not a compaction task"),
        (task(&|t| t["bucket"] = json!("x")), "not a compaction task"),
        (task(&|t| t["more"] = json!(1)), "unknown field `more`"),
        (task(&|t| t["table"] = json!("a/b.c")), "not a table name"),
        (task(&|t| t["table"] = json!("demo.payments")), "for demo.payments"),
        (task(&|t| t["warehouse"] = json!("elsewhere")), "elsewhere/demo.db/orders"),
        (task(&|t| t["partition"] = json!("0g")), "not hex"),
        (task(&|t| t["partition"] = json!("000")), "not hex"),
        (task(&|t| t["partition"] = json!("ff")), "broken-10.json: its partition"),
        (task(&|t| t["partitionArity"] = json!(i32::MAX)), "broken-11.json: its partition"),
    ];
    for (number, (body, word)) in bodies.into_iter().enumerate() {
        let key = format!("_siltstone/tasks/demo.db/orders/bucket-0/broken-{number}.json");
        put(&world, &key, body).await;
        let error = refused(&handler, &event(&[&key])).await;
        assert!(error.to_string().contains(word), "task {number}: `{word}` is not in: {error}");
        assert!(world.exists(&key).await, "what could not be read stays, for somebody to look at");
    }
    assert_eq!((world.rev().await, world.runs().await), (rev, vec![5]));
    put(&world, "_siltstone/tasks/demo.db/orders/bucket-0/b.json", task(&|t| t["bucket"] = json!(-7))).await;
    let none = fates(&handler, &event(&["_siltstone/tasks/demo.db/orders/bucket-0/b.json"])).await;
    assert_eq!(none, counted(&[("nothing", 1)]), "a bucket without files");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_task_is_measured_and_the_event_is_tried_again() {
    let world = World::new().await;
    world.commit_samples().await;
    let handler = handler(&world);
    put(&world, "_siltstone/tasks/demo.db/orders/x.json", "x").await;
    let metrics = Metrics::default();
    let both = event(&["_siltstone/tasks/demo.db/orders/x.json", TASK]);
    assert!(handler.handle_json(&both, FAR, metrics.take()).await.is_err());
    assert_eq!(value(&metrics.document().unwrap(), "Failed"), 1);
    assert_eq!(fates(&handler, &event(&[TASK])).await, counted(&[("compacted", 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_summary_are_those_of_the_files_read_and_written() {
    let world = World::new().await;
    world.commit_samples().await;
    let sizes = || async {
        let objects = list_all(world.ports.objects.as_ref(), &settings(&[]).table.location()).await.unwrap();
        let data = objects.into_iter().filter(|object| object.key.contains("/data-"));
        data.map(|object| (object.key, object.size)).collect::<BTreeMap<String, u64>>()
    };
    let before = sizes().await;
    let counts = feed(&handler(&world), sample("compact-task").as_bytes()).await;
    let written: u64 = sizes().await.iter().filter(|(key, _)| !before.contains_key(*key)).map(|(_, size)| size).sum();
    assert_eq!((counts["bytesIn"], counts["bytesOut"]), (before.values().sum(), written));
}

#[tokio::test]
async fn memory_of_the_function_in_mb_limits_its_merges_in_bytes() {
    let settings = settings(&[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769")]);
    let handler = Handler::new(World::new().await.ports.clone(), settings);
    let shown = format!("{handler:?}");
    assert!(shown.contains(&format!("memory_bytes: {}", 1_769_u64 << 20)), "{shown}");
}
