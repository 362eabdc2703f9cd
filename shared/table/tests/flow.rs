//! One record end to end, in memory: stream batch in, committed table out, scanned, compacted, scanned again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use siltstone_commit::{
    checkpoint::Checkpoints,
    manifests::Scope,
    protocol,
    sequence::{millis_of, padded},
};
use siltstone_decode::{aggregate::aggregate, quarantine::QuarantinedRecord};
use siltstone_format::{id::SnapshotId, value::Value};
use siltstone_store::{
    item::ItemCondition,
    memory::{Fault, FaultPlan, MemoryStreams},
    object::{PutMode, list_all},
    stream::{PutRecord, StreamAdmin, StreamWriter},
};
use siltstone_table::{
    ErrorKind, Version,
    backlog::backlog,
    catalog,
    compact::{self, CompactRequest, Compacted},
    driver::drive,
    filter::Filter,
    ingest::{Ingest, StreamBatch, StreamRecord},
    maintain, quarantine,
    repair::{self, Plan},
    scan::{ScanRequest, changelog, scan},
    settings::{CompactLimits, Feed, IngestLimits},
    state,
};
use world::*;

async fn quarantined(world: &World) -> Vec<QuarantinedRecord> {
    quarantine::read(&world.open().await).await.unwrap().records
}

fn pairs(list: &[(i64, &str)]) -> Vec<(i64, String)> {
    list.iter().map(|(k, v)| (*k, (*v).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_rows_and_newer_rows_win_across_batches_and_compaction() {
    let world = world(false, &[("bucket", "2")]).await;
    let ingest = world.ingest();
    let report = ingest.handle(&batch(1, &[row(1, "a"), row(2, "b"), row(1, "a2")]), FAR).await.unwrap();
    assert_eq!((report.changes, report.snapshot, report.redelivered), (3, Some(1), 0));
    assert_eq!(world.rows(None).await, pairs(&[(1, "a2"), (2, "b")]));
    for n in 0..6u64 {
        let next = [row(1, &format!("v{n}")), row(10 + n as i64, "x")];
        ingest.handle(&batch(10 + 2 * n, &next), FAR).await.unwrap();
    }
    ingest.handle(&batch(40, &[json!({"id": 2, "op": "delete", "dt": "2023-11-14"})]), FAR).await.unwrap();
    let before = world.rows(None).await;
    assert_eq!(before.len(), 7);
    assert_eq!(before[0], (1, "v5".to_owned()));
    world.clock.advance(std::time::Duration::from_secs(10));
    let compacted = world.compact_all(CompactRequest::Full).await;
    assert!(compacted.iter().all(|c| matches!(c, Compacted::Done(r) if r.complete)), "{compacted:?}");
    assert_eq!(world.rows(None).await, before);
    assert_eq!(world.rows(Some(1)).await, pairs(&[(1, "a2"), (2, "b")]), "time travel");
    assert_eq!(world.compact_all(CompactRequest::Full).await, [Compacted::Nothing, Compacted::Nothing]);
    assert_eq!(compact::buckets(&world.open().await).await.unwrap().iter().map(|b| b.2).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_batch_changes_nothing_and_a_longer_one_is_trimmed() {
    let world = world(false, &[("changelog-producer", "input")]).await;
    let first = batch(1, &[row(1, "a"), row(2, "b")]);
    world.ingest().handle(&first, FAR).await.unwrap();
    let again = world.ingest().handle(&first, FAR).await.unwrap();
    assert_eq!((again.redelivered, again.changes, again.snapshot), (2, 0, None));
    let longer = batch(1, &[row(1, "a"), row(2, "b"), row(3, "c")]);
    let trimmed = world.ingest().handle(&longer, FAR).await.unwrap();
    assert_eq!((trimmed.redelivered, trimmed.changes, trimmed.snapshot), (2, 1, Some(2)));
    assert_eq!(world.rows(None).await, pairs(&[(1, "a"), (2, "b"), (3, "c")]));
    let mut logged = Vec::new();
    changelog(&world.open().await, &ScanRequest::default(), |id, row| {
        logged.push((id.0, row.values[0].clone()));
        true
    })
    .await
    .unwrap();
    assert_eq!(logged, [(1, Value::BigInt(1)), (1, Value::BigInt(2)), (2, Value::BigInt(3))], "each record once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_changelog_is_an_error_and_no_empty_one() {
    let world = world(false, &[("changelog-producer", "input")]).await;
    for n in 0..3 {
        world.ingest().handle(&batch(1 + 10 * n, &[row(n as i64, "a")]), FAR).await.unwrap();
    }
    let table = world.open().await;
    let snapshot = table.snapshot(&Version::Snapshot(SnapshotId(2))).await.unwrap().unwrap();
    let list = table.location.manifest(&snapshot.changelog_manifest_list.unwrap());
    world.ports.objects.delete(std::slice::from_ref(&list)).await.unwrap();
    world.ports.objects.put(&table.location.latest_hint(), "junk".into(), PutMode::Overwrite).await.unwrap();
    let error = changelog(&table, &ScanRequest::default(), |_, _| true).await.unwrap_err().to_string();
    assert!(error.contains(&list), "{error}");
    let checked = drive(protocol::check(&table.context), &world.ports, &world.at).await.unwrap();
    let objects: Vec<&str> = checked.findings.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(objects, [table.location.latest_hint().as_str(), list.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pointer_is_made_again_and_the_stream_goes_on_where_it_was() {
    let world = world(false, &[]).await;
    let first = batch(1, &[row(1, "a"), row(2, "b")]);
    world.ingest().handle(&first, FAR).await.unwrap();
    assert_eq!(repair::plan(&world.ports, &world.at).await.unwrap().1, Plan::Settle);
    world.ports.items.delete(&world.at.partition(), "pointer", ItemCondition::None).await.unwrap();
    assert!(world.ingest().handle(&first, FAR).await.is_err(), "no pointer, no commit");
    let (table, plan) = repair::plan(&world.ports, &world.at).await.unwrap();
    assert_eq!(plan, Plan::MakePointer(SnapshotId(1)));
    repair::run(&table, plan).await.unwrap();
    // Changes begun before the repair may name files that were swept; later ones are taken.
    world.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(repair::plan(&world.ports, &world.at).await.unwrap().1, Plan::Settle);
    let longer = batch(1, &[row(1, "a"), row(2, "b"), row(3, "c")]);
    let report = world.ingest().handle(&longer, FAR).await.unwrap();
    assert_eq!((report.redelivered, report.changes), (2, 1));
    assert_eq!(world.rows(None).await, pairs(&[(1, "a"), (2, "b"), (3, "c")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_stopped_before_the_feed_is_finished_and_a_fed_table_is_not_touched() {
    let world = world(false, &[]).await;
    let again = |options: &[(&str, &str)]| new_table(false, options);
    let exists = catalog::create(&world.ports, &world.at, &again(&[])).await.unwrap_err().to_string();
    assert!(exists.contains("exists already"), "{exists}");
    world.ports.items.delete(&world.at.partition(), "feed", ItemCondition::None).await.unwrap();
    catalog::create(&world.ports, &world.at, &again(&[])).await.unwrap();
    assert!(catalog::create(&world.ports, &world.at, &again(&[("bucket", "2")])).await.is_err(), "another schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_ingest_meets_a_table_that_was_dropped_and_created_again_as_new() {
    let world = world(false, &[]).await;
    let ingest = world.ingest();
    ingest.handle(&batch(100, &[row(1, "old")]), FAR).await.unwrap();
    let feed = Feed::load(&world.ports, &world.at).await.unwrap();
    catalog::drop(&world.ports, &world.at, true).await.unwrap();
    let gone = ingest.handle(&batch(101, &[row(1, "nowhere")]), FAR).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    // The same schema id says other columns: the note has become the third.
    let mut table = new_table(false, &[("bucket", "2")]);
    table.columns.swap(1, 2);
    catalog::create(&world.ports, &world.at, &table).await.unwrap();
    feed.save(&world.ports, &world.at).await.unwrap();
    // A stream read again from its beginning starts below the old table's checkpoint.
    let report = ingest.handle(&batch(50, &[row(1, "new"), row(2, "b")]), FAR).await.unwrap();
    assert_eq!((report.redelivered, report.changes, report.snapshot), (0, 2, Some(1)));
    let (day, new) = (text("2023-11-14"), text("new"));
    let rows = [vec![Value::BigInt(1), day.clone(), new], vec![Value::BigInt(2), day, text("b")]];
    assert_eq!(world.values().await, rows);
    let findings = drive(protocol::check(&world.open().await.context), &world.ports, &world.at).await.unwrap().findings;
    assert_eq!(findings, []);
    let slots = world.ports.items.get(&world.at.partition(), "slots").await.unwrap();
    assert!(slots.is_some(), "the slot is reserved in the new table");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_quarantined_once_and_the_rest_goes_through() {
    let world = world(false, &[]).await;
    let bad = raw_batch(
        1,
        &[
            Bytes::from_static(b"\xff\xfe"),
            Bytes::from(row(1, "a").to_string()),
            Bytes::from_static(b"{\"id\": \"x\"}"),
            Bytes::from_static(b"{\"note\": 1}"),
        ],
    );
    let report = world.ingest().handle(&bad, FAR).await.unwrap();
    assert_eq!(report.quarantined.values().sum::<u64>(), 3);
    world.ingest().handle(&bad, FAR).await.unwrap();
    let listed = quarantined(&world).await;
    let codes: Vec<String> = listed.iter().map(|r| r.reject.code.to_string()).collect();
    assert_eq!(codes, ["not-utf8", "wrong-type", "missing-key"]);
    assert_eq!(listed[0].data, b"\xff\xfe");
    let table = world.open().await;
    assert_eq!(quarantine::read(&table).await.unwrap().find(&table, &listed[1].position()).unwrap(), &listed[1]);
    assert_eq!(world.rows(None).await, pairs(&[(1, "a")]));
    let only_bad = raw_batch(10, &[Bytes::from_static(b"nope")]);
    assert_eq!(world.ingest().handle(&only_bad, FAR).await.unwrap().snapshot, Some(2), "a list makes one");
    let again = world.ingest().handle(&only_bad, FAR).await.unwrap();
    assert_eq!(again.redelivered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_of_one_aggregate_have_places_of_their_own() {
    let world = world(false, &[]).await;
    let users: Vec<(String, Bytes)> =
        [row(1, "a").to_string(), "first".into(), row(2, "b").to_string(), "second".into()]
            .map(|text| ("k".to_owned(), Bytes::from(text)))
            .into();
    let report = world.ingest().handle(&raw_batch(1, &[aggregate(&users)]), FAR).await.unwrap();
    assert_eq!((report.changes, report.quarantined.values().sum::<u64>()), (2, 2));
    let table = world.open().await;
    let read = quarantine::read(&table).await.unwrap();
    assert_eq!(read.records.iter().map(|r| r.sub_sequence).collect::<Vec<_>>(), [1, 3], "counted from 0");
    for (record, data) in read.records.iter().zip(["first", "second"]) {
        assert_eq!(read.find(&table, &record.position()).unwrap().data, data.as_bytes(), "{}", record.position());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_record_that_made_no_row_is_known_by_its_arrival() {
    let world = world(false, &[("ignore-delete", "true")]).await;
    let mut first = batch(1, &[row(1, "a"), json!({"id": 2, "op": "delete", "dt": "2023-11-14"})]);
    first.records[1].arrival_ms = START + 60_000;
    let report = world.ingest().handle(&first, FAR).await.unwrap();
    assert_eq!((report.changes, report.ignored.values().sum::<u64>()), (1, 1));
    let again = world.ingest().handle(&first, FAR).await.unwrap();
    assert_eq!((again.redelivered, again.changes), (2, 0), "it is no stream created again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_upload_took_all_the_time_is_not_committed() {
    let world = world(false, &[]).await;
    let clock = world.clock.clone();
    let slow = FaultPlan::none()
        .act_before("put", "bucket-", 1, move || async move { clock.advance(Duration::from_secs(59)) });
    let first = batch(1, &[row(1, "a")]);
    let error = world.faulty(&slow).handle(&first, world.clock_ms() + 60_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("ms are left"), "{error}");
    assert_eq!(world.open().await.pointer().await.unwrap().snapshot, None);
    assert_eq!(world.ingest().handle(&first, FAR).await.unwrap().snapshot, Some(1), "and the next delivery is");
    assert_eq!(world.rows(None).await, pairs(&[(1, "a")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_states_its_largest_number_padded_to_the_end_of_its_millisecond() {
    let world = world(false, &[("changelog-producer", "input")]).await;
    world.ingest().handle(&batch(1, &[row(1, "a"), row(2, "b")]), FAR).await.unwrap();
    let table = world.open().await;
    let snapshot = table.current().await.unwrap().unwrap();
    let files = state::live_files(&table, &snapshot, Scope::Everything).await.unwrap();
    let logged = state::delta_files(&table, &snapshot).await.unwrap().changelog;
    for entry in files.iter().chain(&logged) {
        let stated = entry.file.max_sequence_number;
        assert!(stated > entry.file.min_sequence_number && stated == padded(stated), "{stated}");
        assert_eq!(millis_of(stated), START + 2, "the arrival of the last record");
    }
    assert_eq!((files.len(), logged.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_table_takes_and_writes_nothing_until_it_is_resumed() {
    let world = world(false, &[]).await;
    world.ingest().handle(&batch(1, &[row(1, "a")]), FAR).await.unwrap();
    let table = world.open().await;
    let set =
        async |paused| drive(protocol::set_paused(&table.context, paused), &world.ports, &world.at).await.unwrap();
    set(true).await;
    let objects = async || list_all(world.ports.objects.as_ref(), "").await.unwrap().len();
    let before = objects().await;
    let next = batch(5, &[row(2, "b")]);
    let refused = world.ingest().handle(&next, FAR).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Unavailable && refused.to_string().contains("silt resume"), "{refused}");
    let (partition, bucket, _) = compact::buckets(&table).await.unwrap().remove(0);
    let limits = CompactLimits::default();
    let refused = compact::compact_bucket(&table, &partition, bucket, CompactRequest::Full, &limits, FAR).await;
    assert!(refused.unwrap_err().to_string().contains("paused"));
    assert_eq!(objects().await, before, "nothing is written for it");
    set(false).await;
    world.ingest().handle(&next, FAR).await.unwrap();
    assert_eq!(world.rows(None).await, pairs(&[(1, "a"), (2, "b")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_drained_once_nothing_follows_its_checkpoint() {
    let world = world(false, &[]).await;
    let stream = MemoryStreams::with_clock(world.clock.clone());
    stream.create("orders", 2).await.unwrap();
    let table = world.open().await;
    assert_eq!(backlog(&table, &stream, "orders").await.unwrap(), [], "an empty stream");
    let mut put: BTreeMap<String, Vec<StreamRecord>> = BTreeMap::new();
    for n in 0..40 {
        world.clock.advance(std::time::Duration::from_millis(5));
        let record =
            PutRecord { data: row(n, "x").to_string().into(), partition_key: n.to_string(), explicit_hash_key: None };
        let done = stream.put_records("orders", std::slice::from_ref(&record)).await.unwrap().remove(0).unwrap();
        put.entry(done.shard).or_default().push(StreamRecord {
            sequence: done.sequence,
            arrival_ms: START,
            partition_key: record.partition_key,
            data: record.data,
        });
    }
    let shards =
        async || backlog(&table, &stream, "orders").await.unwrap().into_iter().map(|s| s.shard).collect::<Vec<_>>();
    assert_eq!(shards().await, put.keys().cloned().collect::<Vec<_>>());
    let mut left: Vec<String> = put.keys().cloned().collect();
    for (shard, records) in put {
        let batch = |records: &[StreamRecord]| StreamBatch {
            stream_arn: STREAM.into(),
            shard: shard.clone(),
            records: records.to_vec(),
        };
        let (first, rest) = records.split_at(1);
        world.ingest().handle(&batch(first), FAR).await.unwrap();
        assert_eq!(shards().await, left, "records follow");
        world.ingest().handle(&batch(rest), FAR).await.unwrap();
        left.remove(0);
        assert_eq!(shards().await, left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_tells_the_kind_and_what_it_cannot_mean_is_quarantined() {
    let world = world(false, &[("rowkind.field", "dt")]).await;
    let told = |id: i64, note: &str, kind: &str| json!({"id": id, "note": note, "dt": kind});
    let rows = [
        told(1, "a", "+I"),
        told(2, "b", "+U"),
        told(1, "a", "-D"),
        told(3, "c", "?"),
        told(2, "b", "-U"),
        told(2, "b2", "+U"),
    ];
    let report = world.ingest().handle(&batch(1, &rows), FAR).await.unwrap();
    assert_eq!((report.changes, report.quarantined), (5, BTreeMap::from([("unknown-operation".to_owned(), 1)])));
    assert_eq!(world.rows(None).await, pairs(&[(2, "b2")]));
    let rejected = &quarantined(&world).await[0].reject;
    assert_eq!(rejected.column.as_deref(), Some("dt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_that_an_option_leaves_out_are_counted_and_gone() {
    let delete = |id: i64| json!({"id": id, "op": "delete"});
    for (option, ignored, left) in [("ignore-delete", 1, vec![(1, "a")]), ("ignore-update-before", 0, vec![])] {
        let world = world(false, &[(option, "true")]).await;
        let report = world.ingest().handle(&batch(1, &[row(1, "a"), delete(1)]), FAR).await.unwrap();
        assert_eq!(report.ignored.get(option).copied().unwrap_or(0), ignored);
        assert_eq!(report.changes + ignored, 2);
        assert_eq!(world.rows(None).await, pairs(&left));
    }
}

/// Rule 7: below this line a compaction may have dropped a newer delete of the row's key.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_after_the_lateness_are_counted() {
    let world = world(false, &[]).await;
    let ingest = world.ingest();
    let on_time = ingest.handle(&batch(1, &[row(1, "a"), row(2, "b")]), FAR).await.unwrap();
    assert_eq!((on_time.changes, on_time.late), (2, 0));
    // Records 10 and 11 arrive 10 and 11 ms after the start: an hour later the first of them is late.
    world.clock.advance(Duration::from_millis(3_600_011));
    let report = ingest.handle(&batch(10, &[row(3, "c"), row(4, "d")]), FAR).await.unwrap();
    assert_eq!((report.changes, report.late), (2, 1));
    assert_eq!(world.rows(None).await.len(), 4, "late rows are taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_no_column_reads_are_left_out_and_counted() {
    let world = world(false, &[]).await;
    let more = json!({"id": 1, "note": "a", "dt": "2023-11-14", "extra": 1, "nested": {"id": 9}});
    let report = world.ingest().handle(&batch(1, &[more, row(2, "b")]), FAR).await.unwrap();
    assert_eq!((report.changes, report.unread_fields), (2, 2));
    assert_eq!(world.rows(None).await, pairs(&[(1, "a"), (2, "b")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_found_to_be_committed_names_a_snapshot_that_holds_it() {
    let world = world(false, &[]).await;
    let (other, mut rows) = (world.ingest(), batch(1, &[row(2, "b")]));
    rows.shard = "shardId-000000000001".to_owned();
    // The answer of the commit is lost, and another shard commits before it is looked up.
    let plan = FaultPlan::none().on("put_item", "pointer", 1, Fault::LoseAnswer).act_before(
        "get_item",
        "pointer",
        3,
        move || async move {
            other.handle(&rows, FAR).await.unwrap();
        },
    );
    let report = world.faulty(&plan).handle(&batch(1, &[row(1, "a")]), FAR).await.unwrap();
    assert_eq!(report.snapshot, Some(2), "the other's, on top of this one's");
    assert_eq!(world.rows(report.snapshot).await, pairs(&[(1, "a"), (2, "b")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_loses_and_doubles_nothing() {
    crash_everywhere(FaultPlan::crash_after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_with_a_lost_answer_at_any_request_loses_and_doubles_nothing() {
    crash_everywhere(FaultPlan::crash_losing_answer).await;
}

async fn crash_everywhere(plan: fn(u64) -> FaultPlan) {
    let mut crashes = 0;
    for n in 1.. {
        let world = world(true, &[("bucket", "2"), ("changelog-producer", "input")]).await;
        let first = batch(1, &[row(1, "a"), row(2, "b")]);
        world.ingest().handle(&first, FAR).await.unwrap();
        let second = raw_batch(
            10,
            &[row(1, "a2").to_string().into(), Bytes::from_static(b"bad"), row(3, "c").to_string().into()],
        );
        let crashed = world.faulty(&plan(n)).handle(&second, FAR).await.is_err();
        let report = world.ingest().handle(&second, FAR).await.unwrap();
        assert_eq!(world.rows(None).await, pairs(&[(1, "a2"), (2, "b"), (3, "c")]), "crash after request {n}");
        assert_eq!(quarantined(&world).await.len(), 1, "crash after request {n}");
        let mut logged = 0;
        changelog(&world.open().await, &ScanRequest::default(), |_, _| {
            logged += 1;
            true
        })
        .await
        .unwrap();
        assert_eq!(logged, 4, "each record once in the changelog, crash after request {n}");
        if !crashed {
            assert_eq!(report.redelivered, 3);
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 10, "{crashes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_plans_expires_and_reports() {
    let world = world(false, &[("snapshot.num-retained.min", "1"), ("snapshot.time-retained", "1 s")]).await;
    let ingest = world.ingest();
    for n in 0..6u64 {
        ingest.handle(&batch(10 * (n + 1), &[row(1, &format!("v{n}"))]), FAR).await.unwrap();
    }
    world.clock.advance(std::time::Duration::from_secs(3_600));
    let request = maintain::MaintainRequest { sweep_now: false, dry_run: true, deadline_ms: FAR };
    let report = maintain::run(&world.open().await, None, &request).await;
    assert_eq!((report.snapshot, report.tasks, report.failures.len()), (Some(6), 1, 0), "{report:?}");
    assert!(report.expired >= 4, "{report:?}");
    assert_eq!(world.rows(None).await, pairs(&[(1, "v5")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_created_again_under_its_name_fails_and_does_not_skip() {
    let world = world(false, &[]).await;
    world.ingest().handle(&batch(100, &[row(1, "a")]), FAR).await.unwrap();
    let mut other = batch(5, &[row(2, "b")]);
    other.records[0].arrival_ms = START + 1_000_000;
    let error = world.ingest().handle(&other, FAR).await.unwrap_err().to_string();
    assert!(error.contains("created again"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_function_sees_a_changed_feed_within_ten_seconds_and_another_stream_at_once() {
    let world = world(false, &[]).await;
    let ingest = world.ingest();
    let deleted = |id: i64| json!({"kind": "gone", "id": id, "note": "x", "dt": "2023-11-14"});
    ingest.handle(&batch(100, &[row(1, "a"), row(2, "b")]), FAR).await.unwrap();
    let mut feed = Feed::load(&world.ports, &world.at).await.unwrap();
    (feed.decoder.op_field, feed.decoder.deletes) = (Some("kind".to_owned()), vec!["gone".to_owned()]);
    feed.save(&world.ports, &world.at).await.unwrap();
    ingest.handle(&batch(200, &[deleted(1)]), FAR).await.unwrap();
    assert_eq!(world.rows(None).await, pairs(&[(1, "x"), (2, "b")]), "not yet");
    world.clock.advance(Duration::from_secs(10));
    ingest.handle(&batch(300, &[deleted(1)]), FAR).await.unwrap();
    assert_eq!(world.rows(None).await, pairs(&[(2, "b")]));

    feed.stream_arn = STREAM.replace("stream/", "stream/other-");
    feed.save(&world.ports, &world.at).await.unwrap();
    let mut other = batch(400, &[row(3, "c")]);
    other.stream_arn.clone_from(&feed.stream_arn);
    ingest.handle(&other, FAR).await.unwrap();
    assert_eq!(world.rows(None).await, pairs(&[(2, "b"), (3, "c")]));
    assert!(ingest.handle(&batch(500, &[row(4, "d")]), FAR).await.unwrap_err().to_string().contains("is fed by"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_goes_on_above_its_nearest_ancestors_with_records_and_closes_them() {
    let world = world(false, &[("bucket", "1")]).await;
    let shard = |n: usize| format!("shardId-{n:012}");
    let streams = Arc::new(MemoryStreams::with_clock(world.clock.clone()));
    streams.create("orders", 2).await.unwrap();
    let ingest = Ingest::new(world.ports.clone(), world.at.clone(), Some(streams.clone()), IngestLimits::default());
    let late = START + 5_000_000;
    let mut of_shard = Vec::new();
    for (n, arrival) in [(0, late), (1, late + 1_000)] {
        let mut batch = batch(10, &[row(1, &format!("shard {n}"))]);
        batch.shard = shard(n);
        batch.records[0].arrival_ms = arrival;
        of_shard.push(batch);
    }
    for batch in &of_shard {
        ingest.handle(batch, FAR).await.unwrap();
    }
    // 0 is split into 2 and 3, 1 into 4 and 5; 3 and 4 are merged into 6. Only 0, 1 and 6 have records.
    streams.split("orders", &shard(0), 1 << 126).await.unwrap();
    streams.split("orders", &shard(1), 3 << 126).await.unwrap();
    streams.merge("orders", &shard(3), &shard(4)).await.unwrap();
    let mut child = batch(20, &[row(1, "shard 6")]);
    child.shard = shard(6);
    // Its clock is behind those of its ancestors.
    child.records[0].arrival_ms = START;
    ingest.handle(&child, FAR).await.unwrap();
    assert_eq!(world.rows(None).await, pairs(&[(1, "shard 6")]));
    let closed = |checkpoints: Checkpoints| -> Vec<_> {
        checkpoints.all().into_iter().map(|(shard, c)| (shard.to_string(), c.closed)).collect()
    };
    let table = world.open().await;
    let pointer = table.pointer().await.unwrap();
    assert_eq!(closed(pointer.checkpoints), [(shard(0), true), (shard(1), true), (shard(6), false)]);
    let freed = drive(protocol::release_slots(&table.context), &world.ports, &world.at).await.unwrap();
    assert_eq!(freed.iter().map(ToString::to_string).collect::<Vec<_>>(), [shard(0), shard(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_without_an_answer_take_no_time_from_the_answer_of_a_batch_that_is_committed() {
    let world = world(true, &[("bucket", "1")]).await;
    let rows: Vec<_> = (1..=40).map(|day| json!({"id": 1, "note": "a", "dt": format!("day-{day}")})).collect();
    let clock = world.clock.clone();
    let slow = FaultPlan::none()
        .act_before("add_item", "debt#", 1, move || async move { clock.advance(std::time::Duration::from_secs(59)) });
    let deadline = world.clock_ms() + 59_400;
    let report = world.faulty(&slow).handle(&batch(1, &rows), deadline).await.unwrap();
    assert_eq!((report.buckets, report.snapshot), (40, Some(1)));
    let asked = slow.log().iter().filter(|operation| operation.name == "add_item").count();
    assert!(asked <= 8, "{asked} hints were begun though time was over after the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_partitions_are_found() {
    let world = world(true, &[("bucket", "2")]).await;
    let report = world.ingest().handle(&batch(1, &[row(1, "a"), row(2, "b")]), FAR).await.unwrap();
    assert_eq!(report.changes, 2, "{report:?}");
    assert_eq!(world.rows(None).await, pairs(&[(1, "a"), (2, "b")]));
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// Random history of seed 8: the stream's new fields were left out until another engine committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_another_engine_adds_is_filled_by_a_warm_ingest_without_a_foreign_commit() {
    let world = world(false, &[]).await;
    let ingest = world.ingest();
    ingest.handle(&batch(1, &[row(1, "a")]), FAR).await.unwrap();
    world.add_column("extra").await;
    world.clock.advance(std::time::Duration::from_secs(10));
    let with = json!({"id": 2, "note": "b", "dt": "2023-11-14", "extra": "new"});
    let report = ingest.handle(&batch(2, &[with]), FAR).await.unwrap();
    assert_eq!(report.changes, 1);
    let day = text("2023-11-14");
    assert_eq!(
        world.values().await,
        [
            vec![Value::BigInt(1), text("a"), day.clone(), Value::Null],
            vec![Value::BigInt(2), text("b"), day, text("new")]
        ]
    );
    let pointer = world.open().await.pointer().await.unwrap();
    assert_eq!(pointer.schema_id.0, 1, "the next function learns of it from the pointer");
}

/// Between Paimon's `ALTER TABLE .. SET ('bucket' = ..)` and the rewriting of the partitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_files_have_another_number_of_buckets_takes_no_rows() {
    let world = world(false, &[("bucket", "2")]).await;
    let ingest = world.ingest();
    ingest.handle(&batch(1, &[row(1, "a"), row(2, "a"), row(3, "a"), row(4, "a")]), FAR).await.unwrap();
    world.set_option("bucket", "4").await;
    world.clock.advance(std::time::Duration::from_secs(10));
    let again = batch(11, &[row(1, "b"), row(2, "b"), row(3, "b"), row(4, "b")]);
    for ingest in [ingest, world.ingest()] {
        let refused = ingest.handle(&again, FAR).await.unwrap_err().to_string();
        assert!(refused.contains("has files of 2 buckets") && refused.contains("INSERT OVERWRITE"), "{refused}");
    }
    world.set_option("bucket", "2").await;
    world.ingest().handle(&again, FAR).await.unwrap();
    let rows = world.rows(None).await;
    assert_eq!(rows, (1..=4).map(|id| (id, "b".to_owned())).collect::<Vec<_>>());
}

/// The bucket that a key has by the new number says nothing of files of the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_found_by_its_key_in_files_of_another_number_of_buckets() {
    let world = world(false, &[("bucket", "2")]).await;
    let rows: Vec<_> = (1..=16).map(|id| row(id, "a")).collect();
    world.ingest().handle(&batch(1, &rows), FAR).await.unwrap();
    for buckets in ["2", "4", "1"] {
        world.set_option("bucket", buckets).await;
        let table = world.open().await;
        assert_eq!(table.schema.options["bucket"], buckets);
        for id in 1..=16 {
            let filter = Filter::parse(&format!("id = {id}"), &table.schema).unwrap();
            let request = ScanRequest { filter, ..ScanRequest::default() };
            let found = scan(&table, &request, |row| row.values[0] == Value::BigInt(id)).await.unwrap();
            assert_eq!(found, 1, "row {id}, now {buckets} buckets");
        }
    }
}

/// Nothing was written by the old number yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_files_takes_rows_by_its_new_number_of_buckets() {
    let world = world(false, &[("bucket", "2")]).await;
    world.set_option("bucket", "4").await;
    world.ingest().handle(&batch(1, &[row(1, "a"), row(2, "a")]), FAR).await.unwrap();
    assert_eq!(world.rows(None).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compactor_that_opened_the_table_before_it_was_altered_keeps_the_new_column() {
    let world = world(false, &[("bucket", "1")]).await;
    world.ingest().handle(&batch(1, &[row(1, "a")]), FAR).await.unwrap();
    let opened = world.open().await;
    world.add_column("extra").await;
    let with = json!({"id": 1, "note": "b", "dt": "2023-11-14", "extra": "new"});
    world.ingest().handle(&batch(2, &[with]), FAR).await.unwrap();
    let (partition, bucket, _) = compact::buckets(&opened).await.unwrap().remove(0);
    let limits = CompactLimits { lateness_ms: 0, ..CompactLimits::default() };
    let full = CompactRequest::Full;
    let done = compact::compact_bucket(&opened, &partition, bucket, full, &limits, FAR).await.unwrap();
    assert!(matches!(&done, Compacted::Done(report) if report.rows_out == 1), "{done:?}");
    assert_eq!(world.values().await, [vec![Value::BigInt(1), text("b"), text("2023-11-14"), text("new")]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_is_read_with_the_columns_of_its_time_by_snapshot_and_by_tag() {
    let world = world(false, &[]).await;
    world.ingest().handle(&batch(1, &[row(1, "a")]), FAR).await.unwrap();
    let tagged = world.ports.objects.get("wh/demo.db/orders/snapshot/snapshot-1").await.unwrap().bytes;
    world.ports.objects.put("wh/demo.db/orders/tag/tag-first", tagged, PutMode::IfAbsent).await.unwrap();
    world.add_column("extra").await;
    world.ingest().handle(&batch(2, &[row(1, "b")]), FAR).await.unwrap();
    let now = world.open().await;
    for version in [Version::Snapshot(SnapshotId(1)), Version::Tag("first".to_owned())] {
        let then = now.as_of(&version).await.unwrap();
        let mut rows = Vec::new();
        scan(&then, &ScanRequest { version, ..ScanRequest::default() }, |row| {
            rows.push(row.values);
            true
        })
        .await
        .unwrap();
        assert_eq!(rows, [vec![Value::BigInt(1), text("a"), text("2023-11-14")]]);
    }
    assert_eq!(world.values().await[0].len(), 4);
    for (name, wanted) in [("second", "has no tag second"), ("../x", "is no name of a tag")] {
        let error = now.as_of(&Version::Tag(name.to_owned())).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}
