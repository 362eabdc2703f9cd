//! Every sample event of `events/` through the ingest handler, over in-memory ports: what becomes of its records, and of broken events.
//!
//! Neighbours: `world` (the table), `events/` (made by `shared/decode/tests/events`), `shared/table/tests/flow.rs` (crashes at each request).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};
use siltstone_ingest::{Handler, event::KinesisEvent};
use siltstone_store::{
    item::{Attr, Item, ItemCondition},
    meter::Metered,
};
use siltstone_table::{ErrorKind, TableError, catalog, maintain::MAPPING_ITEM, quarantine, text};
use world::{
    FAR, Metrics, START, STREAM, World, all_orders, assert_part, orders, sample, sample_json, settings, value,
};

/// The answer that acknowledges a batch: Lambda takes an empty list as success (`ReportBatchItemFailures`).
const ACKNOWLEDGED: &str = r#"{"batchItemFailures":[]}"#;

fn handler(world: &World) -> Handler {
    let streams = Arc::new(Metered::new(world.streams.clone(), world.meter.clone()));
    Handler::new(world.ports.clone(), Some(streams), settings(&[])).with_meter(world.meter.clone())
}

/// Feeds an event that must be acknowledged; returns its metrics.
async fn feed_json(handler: &Handler, event: &[u8]) -> Option<Json> {
    let metrics = Metrics::default();
    let answer = handler.handle_json(event, FAR, metrics.take()).await.unwrap();
    assert_eq!(std::str::from_utf8(&answer).unwrap(), ACKNOWLEDGED);
    metrics.document()
}

async fn feed(handler: &Handler, name: &str) -> Option<Json> {
    feed_json(handler, sample(name).as_bytes()).await
}

async fn refused(handler: &Handler, event: &[u8]) -> TableError {
    handler.handle_json(event, FAR, |_| {}).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn normal_event_becomes_rows_and_is_acknowledged_whole() {
    let world = World::new().await;
    let metrics = feed(&handler(&world), "ingest-normal").await.unwrap();
    assert_eq!(world.orders().await, orders(&[(1, "F"), (2, "O"), (4, "O"), (5, "O")]));
    let counts = [
        "Records",
        "Redelivered",
        "Changes",
        "Ignored",
        "Quarantined",
        "Failed",
        "Files",
        "Buckets",
        "Late",
        "UnreadFields",
    ];
    assert_eq!(counts.map(|name| value(&metrics, name)), [8, 0, 7, 1, 0, 0, 1, 1, 0, 0]);
    let requests = ["S3PutRequests", "S3GetRequests", "DynamoRequests", "DynamoReadUnits", "DynamoWriteUnits"];
    assert!(requests.iter().all(|name| value(&metrics, name) > 0), "{metrics}");
    assert_eq!(value(&metrics, "Freshness"), (START - 1_748_851_200_010) as u64);
    let schema = world.table().await.schema;
    let first = &world.scanned().await[0];
    let shown: Vec<String> =
        first.values.iter().zip(&schema.fields).map(|(v, field)| text::show(v, &field.data_type)).collect();
    assert_eq!(shown, ["1", "Customer#000000007", "F", "99.95", "2025-06-01", "2025-06-02T00:05:00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_older_than_the_lateness_and_fields_without_a_column_are_metrics() {
    let world = World::new().await;
    // The sample's records arrived half an hour ago.
    let strict = settings(&[("SILTSTONE_LATENESS_MS", "1000000")]);
    let handler = Handler::new(world.ports.clone(), Some(world.streams.clone()), strict);
    let mut event = sample_json("ingest-normal");
    let first = &mut event["Records"][0]["kinesis"]["data"];
    *first = json!(
        STANDARD.encode(r#"{"op":"c","after":{"order_id":1,"customer":"a","status":"O","amount":"1","coupon":"x"}}"#)
    );
    let metrics = feed_json(&handler, event.to_string().as_bytes()).await.unwrap();
    assert_eq!(["Changes", "Late", "UnreadFields"].map(|name| value(&metrics, name)), [7, 7, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_event_is_acknowledged_and_touches_nothing() {
    let world = World::new().await;
    let before = world.rev().await;
    assert_eq!(feed(&handler(&world), "ingest-empty").await, None);
    assert_eq!((world.rev().await, world.snapshot().await), (before, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_event_applies_only_its_unseen_records() {
    let world = World::new().await;
    let handler = handler(&world);
    feed(&handler, "ingest-normal").await;
    let counted = |m: &Json| ["Records", "Redelivered", "Changes"].map(|name| value(m, name));
    let longer = feed(&handler, "ingest-duplicate").await.unwrap();
    assert_eq!(counted(&longer), [10, 8, 2]);
    let rows = orders(&[(1, "F"), (2, "F"), (4, "O"), (5, "O"), (6, "O")]);
    assert_eq!(world.orders().await, rows);
    let (rev, snapshot) = (world.rev().await, world.snapshot().await);
    for name in ["ingest-duplicate", "ingest-normal"] {
        let again = feed(&handler, name).await.unwrap();
        assert_eq!(value(&again, "Redelivered"), value(&again, "Records"), "{name}");
        let nothing = ["Changes", "Files", "S3PutRequests", "DynamoWriteUnits"].map(|metric| value(&again, metric));
        assert_eq!(nothing, [0; 4], "{name}");
    }
    assert_eq!((world.rev().await, world.snapshot().await), (rev, snapshot), "nothing was committed");
    assert_eq!(world.orders().await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_event_of_a_cold_function_is_recognised_by_the_table() {
    let world = World::new().await;
    feed(&handler(&world), "ingest-normal").await;
    let again = feed(&handler(&world), "ingest-normal").await.unwrap();
    assert_eq!((value(&again, "Redelivered"), world.snapshot().await), (8, Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_quarantined_with_position_and_reason_and_the_rest_goes_through() {
    let world = World::new().await;
    let handler = handler(&world);
    let metrics = feed(&handler, "ingest-poison").await.unwrap();
    assert_eq!(world.orders().await, orders(&[(30, "O"), (31, "O")]));
    assert_eq!(["Records", "Changes", "Quarantined"].map(|name| value(&metrics, name)), [12, 2, 10]);

    let reasons = [
        "not-utf8",
        "not-json",
        "wrong-type",
        "missing-key",
        "out-of-range",
        "out-of-range",
        "too-deep",
        "unavailable-value",
        "bad-compression",
        "bad-aggregate",
    ];
    let batch = world::batch("ingest-poison");
    let listed = quarantine::read(&world.table().await).await.unwrap().records;
    assert_eq!(listed.iter().map(|r| r.reject.code.to_string()).collect::<Vec<_>>(), reasons);
    // The first and the last record are good.
    for (record, sent) in listed.iter().zip(&batch.records[1..11]) {
        assert_eq!(record.position(), format!("shardId-000000000000/{}", sent.sequence));
        assert_eq!((&record.stream[..], record.arrival_ms), (STREAM, sent.arrival_ms));
        assert_eq!((&record.partition_key, &record.data[..]), (&sent.partition_key, &sent.data[..]), "raw bytes");
    }
    feed(&handler, "ingest-poison").await;
    assert_eq!(quarantine::read(&world.table().await).await.unwrap().records, listed, "redelivery doubles nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn kpl_user_records_are_all_applied_in_order() {
    let world = World::new().await;
    let handler = handler(&world);
    let metrics = feed(&handler, "ingest-kpl").await.unwrap();
    assert_eq!(world.orders().await, orders(&[(10, "O"), (11, "F"), (12, "O")]));
    // One aggregate of three user records, and a plain record.
    assert_eq!(["Records", "Changes", "Quarantined"].map(|name| value(&metrics, name)), [2, 4, 0]);
    let again = feed(&handler, "ingest-kpl").await.unwrap();
    assert_eq!((value(&again, "Redelivered"), world.snapshot().await), (2, Some(1)), "an aggregate is never cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_shard_after_its_parent_goes_on_above_it_and_closes_it() {
    let world = World::new().await;
    let handler = handler(&world);
    feed(&handler, "ingest-normal").await;
    let parent_last = world.scanned().await.iter().map(|row| row.sequence).max().unwrap();
    world.split().await;
    let metrics = feed(&handler, "ingest-after-split").await.unwrap();
    assert_eq!(value(&metrics, "KinesisRequests"), 1, "the shards are listed for the parents of a new one");
    let rows = orders(&[(1, "P"), (2, "O"), (4, "O"), (5, "O"), (20, "O")]);
    assert_eq!(world.orders().await, rows);
    let sequences: Vec<i64> = world.scanned().await.iter().map(|row| row.sequence).collect();
    assert!(sequences[0] > parent_last && sequences[4] > parent_last, "{sequences:?} above {parent_last}");
    let checkpoints = world.table().await.pointer().await.unwrap().checkpoints;
    let closed: Vec<(String, bool)> = checkpoints.all().into_iter().map(|(s, c)| (s.to_string(), c.closed)).collect();
    let shard = |n: u32| format!("shardId-{n:012}");
    assert_eq!(closed, [(shard(0), true), (shard(1), false)]);

    // The parent's last batch again is recognised; records of it that the table never saw are refused, not silently skipped.
    let again = feed(&handler, "ingest-normal").await.unwrap();
    assert_eq!(value(&again, "Redelivered"), 8);
    let error = refused(&handler, sample("ingest-duplicate").as_bytes()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let words = error.to_string();
    assert!(words.contains("shardId-000000000000") && words.contains("closed"), "{words}");
    assert_eq!(world.orders().await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_samples_one_after_the_other_leave_what_their_makers_wrote() {
    let world = World::new().await;
    let handler = handler(&world);
    world.split().await;
    for name in world::SAMPLES {
        feed(&handler, name).await;
    }
    assert_eq!(world.orders().await, all_orders());
    assert!(world.exists(world::TASK).await, "the fifth run of the bucket makes the compaction due");
}

#[test]
fn events_survive_reading_and_writing_unchanged() {
    for name in world::SAMPLES.iter().chain(&["ingest-empty"]) {
        let event: KinesisEvent = serde_json::from_str(&sample(name)).unwrap();
        let written = serde_json::to_string(&event).unwrap();
        assert_part(&serde_json::from_str(&written).unwrap(), &sample_json(name), name);
        assert_eq!(serde_json::from_str::<KinesisEvent>(&written).unwrap(), event, "{name}");
        let batch = event.into_batch().unwrap();
        assert_eq!(batch.is_none(), *name == "ingest-empty");
        if let Some(batch) = batch {
            assert_eq!(batch, world::batch(name), "{name}");
        }
    }
}

/// The normal event with one thing changed.
fn changed(change: impl FnOnce(&mut Json)) -> Vec<u8> {
    let mut event = sample_json("ingest-normal");
    change(&mut event);
    event.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_events_are_refused_in_words_and_change_nothing() {
    let world = World::new().await;
    let handler = handler(&world);
    let before = world.rev().await;
    let other = "arn:aws:kinesis:us-east-1:123456789012:stream/payments";
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (b"".to_vec(), &["not a Kinesis event", "event source mapping"]),
        (b"not json".to_vec(), &["not a Kinesis event", "event source mapping"]),
        ([b'['; 100_000].to_vec(), &["not a Kinesis event"]),
        (b"{}".to_vec(), &["missing field `Records`"]),
        (br#"{"Records": 7}"#.to_vec(), &["not a Kinesis event", "line 1 column"]),
        (sample("compact-task").into_bytes(), &["not a Kinesis event", "eventID"]),
        (sample("maintain-schedule").into_bytes(), &["missing field `Records`"]),
        (changed(|e| e["Records"][2]["kinesis"]["data"] = json!("@@@")), &["0000000000000003", "not base64"]),
        (changed(|e| e["Records"][2]["eventID"] = json!("nothing")), &["`nothing`", "shard"]),
        (
            changed(|e| e["Records"][2]["eventID"] = json!("shardId-000000000009:1")),
            &["several shards", "event source mapping"],
        ),
        (changed(|e| e["Records"][2]["eventSourceARN"] = json!(other)), &["several shards"]),
        (changed(|e| e["Records"][2]["kinesis"]["sequenceNumber"] = json!("12x")), &["`12x`", "sequence number"]),
        (
            changed(|e| e["Records"][2]["kinesis"]["approximateArrivalTimestamp"] = json!(1e300)),
            &["arrival time", "no sequence number"],
        ),
        (
            changed(|e| {
                e["Records"].as_array_mut().unwrap().iter_mut().for_each(|r| r["eventSourceARN"] = json!(other))
            }),
            &["stream/orders", "stream/payments", "point the event source mapping"],
        ),
    ];
    for (event, words) in cases {
        let error = refused(&handler, &event).await.to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
        assert!(!error.contains("Customer#"), "contents of records: {error}");
    }
    assert_eq!((world.rev().await, world.snapshot().await), (before, None));
    feed(&handler, "ingest-normal").await;
    assert_eq!(world.snapshot().await, Some(1), "and the function goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_cut_short_anywhere_is_refused() {
    let world = World::new().await;
    let handler = handler(&world);
    let whole = sample("ingest-kpl");
    let whole = whole.trim_end().as_bytes();
    for end in (0..whole.len()).step_by(61).chain([whole.len() - 1]) {
        let error = refused(&handler, &whole[..end]).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "cut at {end}: {error}");
    }
    assert_eq!(world.snapshot().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_of_an_unknown_table_says_how_to_create_it() {
    let world = World::new().await;
    let settings = settings(&[("SILTSTONE_TABLE", "demo.payments")]);
    let handler = Handler::new(world.ports.clone(), None, settings);
    let error = refused(&handler, sample("ingest-normal").as_bytes()).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let words = error.to_string();
    assert!(words.contains("demo.payments") && words.contains("silt table create"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unchecked_event_source_mapping_stops_ingest() {
    let world = World::new().await;
    let settings = settings(&[("SILTSTONE_REQUIRE_MAPPING", "true")]);
    let handler = Handler::new(world.ports.clone(), None, settings);
    let error = refused(&handler, sample("ingest-normal").as_bytes()).await.to_string();
    assert!(error.contains("not checked yet") && error.contains("invoke `maintain`"), "{error}");
    assert_eq!(world.snapshot().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn mapping_of_a_table_created_again_is_asked_for_again() {
    let world = World::new().await;
    let settings = settings(&[("SILTSTONE_REQUIRE_MAPPING", "true")]);
    let at = settings.table.clone();
    let seen = Item::new(at.partition(), MAPPING_ITEM, 1)
        .with("checked", Attr::N(world.ports.clock.now_ms()))
        .with("faults", Attr::S("[]".to_owned()))
        .with("stream", Attr::S(STREAM.to_owned()));
    world.ports.items.put(&seen, ItemCondition::None).await.unwrap();
    let handler = Handler::new(world.ports.clone(), None, settings);
    feed(&handler, "ingest-normal").await;
    catalog::drop(&world.ports, &at, true).await.unwrap();
    world.create(&[], &[]).await;
    let event = sample("ingest-normal");
    let error = refused(&handler, event.as_bytes()).await.to_string();
    assert!(error.contains("not checked yet"), "{error}");
    assert_eq!(world.snapshot().await, None);
    world.ports.items.put(&seen, ItemCondition::None).await.unwrap();
    feed(&handler, "ingest-normal").await;
    assert_eq!(world.snapshot().await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn invocation_without_time_left_fails_before_it_writes() {
    let world = World::new().await;
    let handler = handler(&world);
    let metrics = Metrics::default();
    let event = sample("ingest-normal");
    let error = handler.handle_json(event.as_bytes(), START + 500, metrics.take()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("raise the function's timeout"), "{error}");
    assert_eq!(value(&metrics.document().unwrap(), "Failed"), 1);
    assert_eq!(world.snapshot().await, None);
}

#[test]
fn arrival_times_keep_their_milliseconds() {
    // Times 1,000, some of them fall short of the whole millisecond by a rounding.
    for wanted in [START, 1_079_354_203_978, 2_149_026_880_956, 2_184_958_958_792] {
        let seconds = wanted as f64 / 1_000.0;
        let event = changed(|e| e["Records"][0]["kinesis"]["approximateArrivalTimestamp"] = json!(seconds));
        let event: KinesisEvent = serde_json::from_slice(&event).unwrap();
        assert_eq!(event.into_batch().unwrap().unwrap().records[0].arrival_ms, wanted, "{seconds}");
    }
}
