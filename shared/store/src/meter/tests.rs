//! What each layer of requests adds to the count.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{
    item::{Attr, Item, ItemCondition, ItemStore},
    memory::{Fault, FaultPlan, Faulty, MemoryItemStore, MemoryObjectStore, MemoryStreams},
    object::{ObjectStore, PutMode},
    stream::{PutRecord, StreamAdmin, StreamWriter},
};

#[tokio::test]
async fn object_requests_are_counted_by_class_with_their_bytes() {
    let meter = Meter::new();
    let store = Metered::new(MemoryObjectStore::new(), meter.clone());
    store.put("a", Bytes::from_static(b"12345"), PutMode::IfAbsent).await.unwrap();
    store.put("a", Bytes::from_static(b"12345"), PutMode::IfAbsent).await.unwrap_err();
    store.get("a").await.unwrap();
    store.get_range("a", 1..3).await.unwrap();
    store.head("none").await.unwrap_err();
    store.list("", None, 10).await.unwrap();
    let mut upload = store.upload("u").await.unwrap();
    upload.part(Bytes::from_static(b"xyz")).await.unwrap();
    upload.complete(PutMode::Overwrite).await.unwrap();
    let keys: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    store.delete(&keys).await.unwrap();
    let usage = meter.snapshot();
    assert_eq!(usage.count(RequestKind::S3Put), Count { requests: 2, refused: 0, bytes: 5 });
    assert_eq!(usage.count(RequestKind::S3Part), Count { requests: 1, refused: 0, bytes: 3 });
    assert_eq!(usage.count(RequestKind::S3Get), Count { requests: 2, refused: 0, bytes: 7 });
    assert_eq!((usage.s3_put_class(), usage.s3_get_class()), (6, 3));
    assert_eq!(usage.count(RequestKind::S3Delete).requests, 2);
}

#[tokio::test]
async fn deletes_of_a_thousand_keys_are_one_request() {
    for (keys, requests) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2), (2_001, 3)] {
        let meter = Meter::new();
        let store = Metered::new(MemoryObjectStore::new(), meter.clone());
        store.delete(&(0..keys).map(|n: u32| n.to_string()).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(meter.snapshot().count(RequestKind::S3Delete).requests, requests, "{keys} keys");
    }
}

#[tokio::test]
async fn refused_requests_are_not_billed_and_lost_ones_are() {
    let meter = Meter::new();
    let plan = FaultPlan::none().at(1, Fault::Throttle).at(2, Fault::LoseAnswer);
    let store = Metered::new(Faulty::new(MemoryObjectStore::new(), plan), meter.clone());
    for _ in 0..2 {
        store.put("k", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap_err();
    }
    assert_eq!(meter.snapshot().count(RequestKind::S3Put), Count { requests: 1, refused: 1, bytes: 0 });
}

#[tokio::test]
async fn item_units_follow_the_whole_item_also_when_the_condition_fails() {
    let meter = Meter::new();
    let store = Metered::new(MemoryItemStore::new(), meter.clone());
    let large = Item::new("p", "s", 1).with("x", Attr::B(Bytes::from(vec![0; 5_000])));
    store.put(&large, ItemCondition::Absent).await.unwrap();
    assert_eq!(meter.snapshot().write_units, 5);
    let before = meter.snapshot();
    store.put(&Item::new("p", "s", 2), ItemCondition::RevIs(9)).await.unwrap_err();
    assert_eq!(meter.snapshot().since(&before).write_units, 5);
    store.get("p", "s").await.unwrap();
    store.get("p", "none").await.unwrap();
    store.query("p", "", None, 10).await.unwrap();
    store.add("p", "n", "n", 1).await.unwrap();
    let usage = meter.snapshot().since(&before);
    assert_eq!((usage.read_units, usage.write_units, usage.dynamo()), (2 + 1 + 2, 6, 5));
}

#[tokio::test]
async fn stream_units_are_25_kb_per_record() {
    let meter = Meter::new();
    let streams = MemoryStreams::new();
    streams.create("s", 1).await.unwrap();
    let store = Metered::new(streams, meter.clone());
    let record =
        |size| PutRecord { data: Bytes::from(vec![0; size]), partition_key: "k".to_owned(), explicit_hash_key: None };
    store.put_records("s", &[record(10), record(25_600), record(25_601)]).await.unwrap();
    let usage = meter.snapshot();
    assert_eq!((usage.put_payload_units, usage.stream_bytes), (4, 51_211));
    store.list_shards("s").await.unwrap();
    store.describe("none").await.unwrap_err();
    let usage = meter.snapshot();
    let admin = usage.count(RequestKind::KinesisAdmin);
    assert_eq!((admin.requests, admin.refused, usage.kinesis()), (1, 1, 2));
}

#[test]
fn invocations_add_up_to_gb_seconds_and_usages_to_one_another() {
    let meter = Meter::new();
    meter.invocation(512, Duration::from_micros(1_999_500));
    let mut usage = meter.snapshot();
    assert!((usage.gb_seconds() - 1.0).abs() < 1e-9, "{}", usage.gb_seconds());
    usage.add(&meter.snapshot());
    assert_eq!(usage.count(RequestKind::LambdaInvoke).requests, 2);
    assert_eq!(usage.lambda_mb_ms, 2 * 1_024_000);
}
