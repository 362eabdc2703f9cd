//! Quarantined records are replayed once, under their old numbers, and only lists that a commit named count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use siltstone_decode::{
    DecoderConfig,
    config::{BadRecords, ColumnRule, PartitionLimits},
};
use siltstone_store::memory::{FaultPlan, Faulty};
use siltstone_table::{
    Ports, Table, TableRef,
    quarantine::{self, Quarantine},
    replay::{Replayed, replay},
    scan::{ScanRequest, changelog},
    settings::{Feed, LATENESS_MS},
};
use world::*;

const LOGGED: (&str, &str) = ("changelog-producer", "input");

/// A decoder that takes the key from `identifier` where the first one looks for `id`.
fn mended() -> DecoderConfig {
    let rule = ColumnRule { path: Some("/identifier".to_owned()), ..ColumnRule::default() };
    DecoderConfig {
        op_field: Some("op".to_owned()),
        columns: BTreeMap::from([("id".to_owned(), rule)]),
        ..DecoderConfig::default()
    }
}

fn bad(id: i64, note: &str) -> serde_json::Value {
    json!({"identifier": id, "note": note, "dt": "2023-11-14"})
}

async fn read(world: &World) -> Quarantine {
    quarantine::read(&world.open().await).await.unwrap()
}

async fn positions(world: &World) -> Vec<String> {
    read(world).await.open().map(|record| record.position()).collect()
}

/// Notes in the changelog, sorted.
async fn logged(world: &World) -> Vec<String> {
    let mut notes = Vec::new();
    changelog(&world.open().await, &ScanRequest::default(), |_, row| {
        notes.push(format!("{:?}", row.values[1]));
        true
    })
    .await
    .unwrap();
    notes.sort();
    notes
}

async fn faulty(world: &World, plan: &FaultPlan) -> Table {
    let ports = Ports {
        objects: std::sync::Arc::new(Faulty::new(world.ports.objects.clone(), plan.clone())),
        items: std::sync::Arc::new(Faulty::new(world.ports.items.clone(), plan.clone())),
        ..world.ports.clone()
    };
    let mut table = world.open().await;
    table.ports = ports;
    table
}

fn rows(list: &[(i64, &str)]) -> Vec<(i64, String)> {
    list.iter().map(|(id, note)| (*id, (*note).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_takes_its_place_before_what_came_later_for_its_key() {
    let world = world(false, &[LOGGED, ("bucket", "2")]).await;
    let ingest = world.ingest();
    ingest.handle(&batch(1, &[row(1, "old"), bad(1, "bad"), bad(2, "bad"), row(3, "three")]), FAR).await.unwrap();
    ingest.handle(&batch(10, &[row(1, "new")]), FAR).await.unwrap();
    let numbers: Vec<i64> = read(&world).await.records.iter().map(|record| record.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");

    let table = world.open().await;
    let done = replay(&table, &[], &mended(), LATENESS_MS).await.unwrap();
    assert_eq!((done.records.len(), done.rows, done.before, done.snapshot), (2, 2, 0, Some(3)));
    assert_eq!(world.rows(None).await, rows(&[(1, "new"), (2, "bad"), (3, "three")]), "the newer row of key 1 stays");
    assert!(positions(&world).await.is_empty());
    assert_eq!(read(&world).await.records.len(), 2, "the records themselves are kept");

    let again = replay(&table, &done.records, &mended(), LATENESS_MS).await.unwrap();
    assert_eq!(again, Replayed { before: 2, ..Replayed::default() });
    assert_eq!(logged(&world).await.len(), 5, "each change once");
    world.clock.advance(std::time::Duration::from_secs(10));
    world.compact_all(siltstone_table::compact::CompactRequest::Full).await;
    assert_eq!(world.rows(None).await, rows(&[(1, "new"), (2, "bad"), (3, "three")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_wins_over_what_came_before_it() {
    let world = world(false, &[]).await;
    world.ingest().handle(&batch(1, &[row(1, "old"), bad(1, "newer")]), FAR).await.unwrap();
    assert_eq!(world.rows(None).await, rows(&[(1, "old")]));
    replay(&world.open().await, &[], &mended(), LATENESS_MS).await.unwrap();
    assert_eq!(world.rows(None).await, rows(&[(1, "newer")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_records_are_replayed_and_those_that_are_rejected_again_stay() {
    let world = world(false, &[]).await;
    let records = [bad(1, "a").to_string().into(), Bytes::from_static(b"no JSON"), bad(2, "b").to_string().into()];
    world.ingest().handle(&raw_batch(1, &records), FAR).await.unwrap();
    let all = positions(&world).await;
    let table = world.open().await;
    let done = replay(&table, &all[1..], &mended(), LATENESS_MS).await.unwrap();
    assert_eq!(done.records, all[2..]);
    assert_eq!(done.rejected.iter().map(|r| r.position()).collect::<Vec<_>>(), all[1..2]);
    assert_eq!(positions(&world).await, all[..2]);
    let unchanged = replay(&table, &[], &world_decoder(&world).await, LATENESS_MS).await.unwrap();
    assert_eq!((unchanged.records.len(), unchanged.rejected.len(), unchanged.snapshot), (0, 2, None));
    let error =
        replay(&table, &["shardId-000000000000/1".to_owned()], &mended(), LATENESS_MS).await.unwrap_err().to_string();
    assert!(error.contains("no quarantined record at shardId-000000000000/1"), "{error}");
}

async fn world_decoder(world: &World) -> DecoderConfig {
    Feed::load(&world.ports, &world.at).await.unwrap().decoder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_of_a_replay_neither_loses_nor_doubles() {
    for plan in [FaultPlan::crash_after, FaultPlan::crash_losing_answer] {
        let mut n = 0;
        loop {
            n += 1;
            let world = world(true, &[LOGGED, ("bucket", "2")]).await;
            let first = batch(1, &[row(1, "a"), bad(1, "b"), bad(2, "c"), row(1, "d")]);
            world.ingest().handle(&first, FAR).await.unwrap();
            let crashed = replay(&faulty(&world, &plan(n)).await, &[], &mended(), LATENESS_MS).await.is_err();
            replay(&world.open().await, &[], &mended(), LATENESS_MS).await.unwrap();
            assert_eq!(world.rows(None).await, rows(&[(1, "d"), (2, "c")]), "crash after request {n}");
            assert_eq!(logged(&world).await.len(), 4, "crash after request {n}");
            assert!(positions(&world).await.is_empty(), "crash after request {n}");
            if !crashed {
                break;
            }
        }
        assert!(n > 8, "{n} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replays_at_once_each_record_counts_once() {
    for (one, other) in [(0..2, 1..3), (0..1, 2..3), (0..3, 0..3)] {
        let world = world(false, &[LOGGED]).await;
        world.ingest().handle(&batch(1, &[bad(1, "a"), bad(2, "b"), bad(3, "c")]), FAR).await.unwrap();
        let all = positions(&world).await;
        let (ports, at, chosen) = (world.ports.clone(), world.at.clone(), all[other.clone()].to_vec());
        let beside = FaultPlan::none().act_before("put_item", "pointer", 1, move || replay_beside(ports, at, chosen));
        let done = replay(&faulty(&world, &beside).await, &all[one.clone()], &mended(), LATENESS_MS).await.unwrap();
        assert!(done.rejected.is_empty());
        let expected: std::collections::BTreeSet<usize> = one.chain(other).collect();
        assert_eq!(logged(&world).await.len(), expected.len(), "each once: {done:?}");
        assert_eq!(positions(&world).await.len(), 3 - expected.len());
    }
}

async fn replay_beside(ports: Ports, at: TableRef, chosen: Vec<String>) {
    let table = Table::open(&ports, &at, siltstone_table::Authority::Pointer, siltstone_table::Purpose::Write);
    replay(&table.await.unwrap(), &chosen, &mended(), LATENESS_MS).await.unwrap();
}

/// What a batch may open depends on how it is cut: the second partition of a batch is rejected here, the first never.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_an_attempt_that_was_never_committed_does_not_count() {
    let world = world(true, &[]).await;
    let partitions = PartitionLimits { per_batch: 1, ..PartitionLimits::default() };
    let decoder = DecoderConfig { partitions, ..world_decoder(&world).await };
    Feed { stream_arn: STREAM.to_owned(), decoder }.save(&world.ports, &world.at).await.unwrap();
    let (one, two) = (row(1, "a"), json!({"id": 2, "note": "b", "dt": "2023-11-15"}));
    let whole = batch(1, &[one.clone(), two.clone()]);
    let before_the_swap = FaultPlan::none().on("put_item", "pointer", 1, siltstone_store::memory::Fault::CrashBefore);
    assert!(world.faulty(&before_the_swap).handle(&whole, FAR).await.is_err());
    for cut in [batch(1, &[one]), batch(2, &[two])] {
        world.ingest().handle(&cut, FAR).await.unwrap();
    }
    assert_eq!(world.rows(None).await, rows(&[(1, "a"), (2, "b")]));
    assert_eq!(read(&world).await.records, [], "it is in the table");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_policy_fail_a_bad_record_stops_its_shard_and_nothing_of_the_batch_is_taken() {
    let world = world(false, &[]).await;
    let strict = DecoderConfig { bad_records: BadRecords::Fail, ..world_decoder(&world).await };
    Feed { stream_arn: STREAM.to_owned(), decoder: strict.clone() }.save(&world.ports, &world.at).await.unwrap();
    let (ingest, mixed) = (world.ingest(), batch(1, &[row(1, "a"), bad(2, "b")]));
    let error = ingest.handle(&mixed, FAR).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("shardId-000000000000/") && words.contains("bad-records"), "{words}");
    assert!(world.rows(None).await.is_empty() && read(&world).await.records.is_empty());
    let decoder = DecoderConfig { bad_records: BadRecords::Quarantine, ..strict };
    Feed { stream_arn: STREAM.to_owned(), decoder }.save(&world.ports, &world.at).await.unwrap();
    ingest.handle(&mixed, FAR).await.unwrap();
    assert_eq!((world.rows(None).await, positions(&world).await.len()), (rows(&[(1, "a")]), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_list_is_named() {
    let world = world(false, &[]).await;
    world.ingest().handle(&batch(1, &[bad(1, "a")]), FAR).await.unwrap();
    world.ingest().handle(&batch(5, &[bad(2, "b")]), FAR).await.unwrap();
    let objects = world.ports.objects.clone();
    let keys = siltstone_store::object::list_all(objects.as_ref(), &world.at.quarantine()).await.unwrap();
    for key in keys.iter().map(|object| &object.key) {
        let whole = objects.get(key).await.unwrap().bytes;
        for damaged in [Some(whole.slice(..whole.len() - 1)), None] {
            match damaged {
                Some(bytes) => {
                    drop(objects.put(key, bytes, siltstone_store::object::PutMode::Overwrite).await.unwrap())
                }
                None => objects.delete(std::slice::from_ref(key)).await.unwrap(),
            }
            let error = quarantine::read(&world.open().await).await.unwrap_err().to_string();
            assert!(error.contains(key.as_str()) && error.contains("restore it"), "{error}");
        }
        objects.put(key, whole, siltstone_store::object::PutMode::Overwrite).await.unwrap();
    }
    assert_eq!(positions(&world).await.len(), 2);
}
