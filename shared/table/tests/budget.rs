//! What each use-case asks of S3 and DynamoDB, counted: a request more is a price rise for everybody, so the counts are exact.
//! The schedule's are in `functions/maintain/tests/budget.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::sync::Arc;

use bytes::Bytes;
use siltstone_commit::context::Authority;
use siltstone_format::options::Purpose;
use siltstone_store::meter::{Meter, Metered, RequestKind, Usage};
use siltstone_table::{
    Ports, Table,
    compact::{CompactRequest, Compacted, buckets, compact_bucket},
    ingest::{Ingest, IngestReport},
    settings::{CompactLimits, IngestLimits},
};
use world::*;

/// Bytes of the largest event that Lambda hands over.
const EVENT: usize = 6 << 20;

/// The world's ports, counted.
fn metered(world: &World) -> (Ports, Arc<Meter>) {
    let meter = Meter::new();
    let ports = Ports {
        objects: Arc::new(Metered::new(world.ports.objects.clone(), meter.clone())),
        items: Arc::new(Metered::new(world.ports.items.clone(), meter.clone())),
        ..world.ports.clone()
    };
    (ports, meter)
}

/// 6 MB of rows, spread over some days.
fn event(first: u64, days: u64) -> Vec<Bytes> {
    let mut rows = Vec::new();
    let mut size = 0;
    for n in first.. {
        let day = format!("2023-11-{:02}", 1 + n % days);
        let row =
            serde_json::json!({"id": n, "note": format!("{:0900}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)), "dt": day});
        let row = Bytes::from(row.to_string());
        size += row.len();
        if size > EVENT {
            break;
        }
        rows.push(row);
    }
    rows
}

/// Ingests a small batch, so that the function is warm, then the event; says what the event took.
async fn ingest_event(world: &World, days: u64) -> (IngestReport, Usage) {
    let (ports, meter) = metered(world);
    let ingest = Ingest::new(ports, world.at.clone(), None, IngestLimits::default());
    ingest.handle(&batch(1, &[row(1, "first")]), FAR).await.unwrap();
    let before = meter.snapshot();
    let report = ingest.handle(&raw_batch(10, &event(10, days)), FAR).await.unwrap();
    assert!(report.changes > 6_000, "{report:?}");
    (report, meter.snapshot().since(&before))
}

fn counts(usage: &Usage) -> [(&'static str, u64); 6] {
    let count = |kind| usage.count(kind).requests;
    [
        ("S3 put class", usage.s3_put_class()),
        ("S3 get class", usage.s3_get_class()),
        ("S3 list", count(RequestKind::S3List)),
        ("DynamoDB read", count(RequestKind::DynamoRead)),
        ("DynamoDB write", count(RequestKind::DynamoWrite)),
        ("S3 delete", count(RequestKind::S3Delete)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_event_into_one_bucket_costs_six_puts_and_three_items() {
    let world = world(false, &[("bucket", "1")]).await;
    let (_, usage) = ingest_event(&world, 1).await;
    // Put: data file, manifest, two manifest lists, snapshot, LATEST. Got: the tip and the name above it when planning and when committing,
    // the two lists of the snapshot before, LATEST.
    let wanted = [
        ("S3 put class", 6),
        ("S3 get class", 7),
        ("S3 list", 0),
        ("DynamoDB read", 1),
        ("DynamoDB write", 2),
        ("S3 delete", 0),
    ];
    assert_eq!(counts(&usage), wanted);
    assert_eq!(usage.write_units, 2, "the pointer's and the hint's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changelog_costs_its_file_its_manifest_and_its_list() {
    let world = world(false, &[("bucket", "1"), ("changelog-producer", "input")]).await;
    let (_, usage) = ingest_event(&world, 1).await;
    assert_eq!(usage.s3_put_class(), 9);
    assert_eq!(usage.dynamo(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_further_bucket_costs_its_file_and_its_hint() {
    let world = world(true, &[("bucket", "4")]).await;
    let (report, usage) = ingest_event(&world, 16).await;
    assert_eq!((report.buckets, report.files), (64, 64));
    assert_eq!(usage.s3_put_class(), 5 + 64);
    assert_eq!(usage.dynamo(), 2 + 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_event_writes_nothing() {
    let world = world(false, &[("bucket", "1")]).await;
    let (ports, meter) = metered(&world);
    let ingest = Ingest::new(ports, world.at.clone(), None, IngestLimits::default());
    let again = raw_batch(1, &event(1, 1));
    ingest.handle(&again, FAR).await.unwrap();
    let before = meter.snapshot();
    let report = ingest.handle(&again, FAR).await.unwrap();
    assert_eq!(report.redelivered, report.records);
    let usage = meter.snapshot().since(&before);
    assert_eq!((usage.s3_put_class(), usage.s3_get_class(), usage.dynamo()), (0, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_of_five_runs_costs_as_many_puts_as_an_event() {
    let world = world(false, &[("bucket", "1")]).await;
    let ingest = world.ingest();
    for n in 0..5 {
        ingest.handle(&batch(1 + 10 * n, &[row(n as i64, "x"), row(100, "y")]), FAR).await.unwrap();
    }
    let (ports, meter) = metered(&world);
    let table = Table::open(&ports, &world.at, Authority::Pointer, Purpose::Compact).await.unwrap();
    let (partition, bucket, runs) = buckets(&table).await.unwrap().remove(0);
    assert_eq!(runs, 5);
    let before = meter.snapshot();
    let limits = CompactLimits { lateness_ms: 0, ..CompactLimits::default() };
    let done = compact_bucket(&table, &partition, bucket, CompactRequest::Full, &limits, FAR).await.unwrap();
    assert!(matches!(done, Compacted::Done(_)), "{done:?}");
    let usage = meter.snapshot().since(&before);
    assert_eq!(usage.s3_put_class(), 6, "{usage:?}");
    assert_eq!(usage.dynamo(), 4, "{usage:?}");
}
