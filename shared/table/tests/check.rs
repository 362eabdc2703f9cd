//! A deep check finds each way in which a file and its manifest entry can contradict each other, and nothing in a good table.
//!
//! Every test starts from a table whose newest file is wrong in one way, committed as another engine's writer would: on a bare warehouse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::sync::Arc;

use bytes::Bytes;
use siltstone_commit::{
    changes::{Change, ChangeId, ChangeKind, Outcome},
    protocol::{self, Severity},
};
use siltstone_format::{
    binary_row::encode_row,
    data_file::{FileSource, SimpleStats},
    id::{Bucket, Level, SchemaId, SequenceNumber},
    manifest::{FileKind, ManifestEntry},
    types::DataType,
    value::Value,
};
use siltstone_lsm::{
    batch::{DELETE, INSERT, KeyValueBatch},
    rows::batch_of,
    writer::{RunWriter, WriterSettings},
};
use siltstone_store::object::PutMode;
use siltstone_table::{Authority, Purpose, Table, check, driver::drive};
use world::*;

const DAY: &str = "2023-11-14";

/// One row: key, partition, sequence number, kind.
type Row = (i64, &'static str, i64, i8);

struct Written {
    table: Table,
    entry: ManifestEntry,
    bytes: Bytes,
}

/// The first keys of a bucket of two.
fn keys(table: &Table, bucket: i32, count: usize) -> Vec<i64> {
    let bucketer = table.bucketer().unwrap();
    (0..).filter(|k| bucketer.bucket(&[Value::BigInt(*k)]).unwrap() == Bucket(bucket)).take(count).collect()
}

/// Writes a file of rows as they are given, and describes it as it is.
async fn written(rows: impl FnOnce(&Table) -> Vec<Row>) -> Written {
    let world = world(true, &[("bucket", "2")]).await;
    let table = Table::open(&world.ports, &world.at, Authority::Bare, Purpose::Compact).await.unwrap();
    let rows = rows(&table);
    let note = |k: i64| if k % 3 == 0 { Value::Null } else { Value::String(format!("note {k} of some length")) };
    let values: Vec<Vec<Value>> =
        rows.iter().map(|r| vec![Value::BigInt(r.0), note(r.0), Value::String(r.1.to_owned())]).collect();
    let batch = KeyValueBatch::new(
        batch_of(&table.layout, &values).unwrap(),
        rows.iter().map(|r| r.2).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.3).collect::<Vec<_>>().into(),
    )
    .unwrap();
    let settings = Arc::new(WriterSettings::defaults(3));
    let mut writer = RunWriter::new(&table.layout, settings, Level(0), FileSource::Append).unwrap();
    writer.write(&batch).unwrap();
    let (bytes, file) = writer.finish("data-1.parquet".to_owned(), START).unwrap();
    let partition = encode_row(&[Value::String(DAY.to_owned())], &table.schema.types_at(&[2])).unwrap();
    let entry = ManifestEntry { kind: FileKind::Add, partition, bucket: Bucket(0), total_buckets: 2, file };
    Written { table, entry, bytes }
}

/// Ten rows of bucket 0, the second one a delete.
fn good(table: &Table) -> Vec<Row> {
    let kind = |i| if i == 1 { DELETE } else { INSERT };
    keys(table, 0, 10).into_iter().enumerate().map(|(i, k)| (k, DAY, 100 + i as i64, kind(i))).collect()
}

impl Written {
    async fn commit(&self, entries: &[ManifestEntry], changelog: &[ManifestEntry]) {
        for entry in entries.iter().chain(changelog) {
            let partition = self.table.partition_values(&entry.partition).unwrap();
            let key = self.table.data_key(&partition, entry.bucket, &entry.file.file_name).unwrap();
            self.table.ports.objects.put(&key, self.bytes.clone(), PutMode::Overwrite).await.unwrap();
        }
        let id = ChangeId(self.table.ports.ids.uuid().as_u128());
        let mut change = Change::new(id, ChangeKind::Append, SchemaId(0), START);
        (change.files, change.changelog) = (entries.to_vec(), changelog.to_vec());
        let machine = protocol::commit(&self.table.context, change);
        let outcome = drive(machine, &self.table.ports, &self.table.at).await.unwrap();
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }

    /// What a check of everything says: severity, object, message.
    async fn findings(&self) -> Vec<(Severity, String, String)> {
        let checked = check::check(&self.table).await.unwrap();
        let deep = check::deep(&self.table, &checked, |_| ()).await.unwrap();
        let all = checked.findings.into_iter().chain(deep.findings);
        all.map(|f| (f.severity, f.object, f.message)).collect()
    }

    /// Commits the file, described otherwise, and gives the one finding that must be the result.
    async fn one(self, change: impl FnOnce(&mut ManifestEntry)) -> (Severity, String) {
        let mut entry = self.entry.clone();
        change(&mut entry);
        self.commit(std::slice::from_ref(&entry), &[]).await;
        let findings = self.findings().await;
        let [(severity, object, message)] = findings.as_slice() else { panic!("{findings:?}") };
        assert!(object.ends_with(&entry.file.file_name), "{object}");
        (*severity, message.clone())
    }
}

async fn error(words: &str, rows: impl FnOnce(&Table) -> Vec<Row>, change: impl FnOnce(&mut ManifestEntry)) {
    let (severity, message) = written(rows).await.one(change).await;
    assert_eq!(severity, Severity::Error, "{message}");
    assert!(message.contains(words), "{message}");
}

async fn note(words: &str, change: impl FnOnce(&mut ManifestEntry)) {
    let (severity, message) = written(good).await.one(change).await;
    assert_eq!(severity, Severity::Note, "{message}");
    assert!(message.contains(words), "{message}");
}

fn long(values: &[i64]) -> siltstone_format::data_file::StoredRow {
    let types: Vec<DataType> = values.iter().map(|_| DataType::parse("BIGINT").unwrap()).collect();
    encode_row(&values.iter().map(|v| Value::BigInt(*v)).collect::<Vec<_>>(), &types).unwrap()
}

fn value_stats(entry: &mut ManifestEntry, min: [Value; 3], max: [Value; 3], nulls: [Option<i64>; 3]) {
    let types = ["BIGINT", "STRING", "STRING"].map(|t| DataType::parse(t).unwrap());
    let row = |values: &[Value]| encode_row(values, &types).unwrap();
    entry.file.value_stats = SimpleStats { min: row(&min), max: row(&max), null_counts: nulls.to_vec() };
    entry.file.value_stats_cols = None;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_table_with_every_kind_of_file_has_no_findings() {
    let file = written(good).await;
    let mut logged = file.entry.clone();
    logged.file.file_name = "data-9.parquet".to_owned();
    let log =
        Written { bytes: renamed(&file, "data-9.parquet").await, entry: logged.clone(), table: file.table.clone() };
    log.commit(&[], std::slice::from_ref(&logged)).await;
    file.commit(std::slice::from_ref(&file.entry), &[]).await;
    assert_eq!(file.findings().await, []);
    let checked = check::check(&file.table).await.unwrap();
    let mut bytes = 0;
    let deep = check::deep(&file.table, &checked, |read| bytes += read).await.unwrap();
    assert_eq!((deep.files, deep.rows, deep.bytes), (2, 20, bytes));
    assert_eq!(checked.files.values().filter(|f| f.changelog).count(), 1);
}

/// The same rows in a file of another name.
async fn renamed(file: &Written, name: &str) -> Bytes {
    let schema = &file.table.schema;
    let batches =
        siltstone_lsm::reader::open(file.bytes.clone(), &file.entry.file, schema, &file.table.layout).unwrap();
    let settings = Arc::new(WriterSettings::defaults(3));
    let mut writer = RunWriter::new(&file.table.layout, settings, Level(0), FileSource::Append).unwrap();
    batches.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    let mut bytes = writer.take_bytes().to_vec();
    let (rest, meta) = writer.finish(name.to_owned(), START).unwrap();
    bytes.extend_from_slice(&rest);
    assert_eq!(meta.row_count, 10);
    Bytes::from(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_anywhere_is_found() {
    let file = written(good).await;
    file.commit(std::slice::from_ref(&file.entry), &[]).await;
    let key = file.table.data_key(&[Value::String(DAY.to_owned())], Bucket(0), "data-1.parquet").unwrap();
    for at in (0..file.bytes.len()).step_by(97) {
        let mut bytes = file.bytes.to_vec();
        bytes[at] ^= 0x10;
        file.table.ports.objects.put(&key, bytes.into(), PutMode::Overwrite).await.unwrap();
        let findings = file.findings().await;
        let known = |words: &str| words.contains("states no checksum");
        assert!(
            findings.iter().any(|(s, object, words)| *object == key && (*s == Severity::Error || known(words))),
            "byte {at}: {findings:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsorted_file_and_a_key_twice_are_found() {
    let swapped = |table: &Table| {
        let mut rows = good(table);
        rows.swap(3, 4);
        rows
    };
    error("do not strictly ascend", swapped, |_| ()).await;
    let twice = |table: &Table| {
        let mut rows = good(table);
        rows[4].0 = rows[3].0;
        rows
    };
    error("do not strictly ascend", twice, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_counts_are_found() {
    error("holds 10 rows, its manifest entry says 9", good, |e| e.file.row_count = 9).await;
    error("holds 1 delete rows, its manifest entry says 0", good, |e| e.file.delete_row_count = Some(0)).await;
    error("does not say so", good, |e| e.file.delete_row_count = None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_size_is_found() {
    error("readers fail on it", good, |e| e.file.file_size += 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_outside_the_range_are_found_and_a_wider_range_is_noted() {
    error("outside the range", good, |e| e.file.min_key = long(&[5])).await;
    error("outside the range", good, |e| e.file.max_key = long(&[5])).await;
    note("wider than its keys", |e| e.file.max_key = long(&[5_000])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequence_numbers_outside_the_range_are_found_and_a_wider_range_is_noted() {
    error("sequence number 109 is outside", good, |e| e.file.max_sequence_number = SequenceNumber(108)).await;
    error("sequence number 100 is outside", good, |e| e.file.min_sequence_number = SequenceNumber(101)).await;
    note("100 to 109", |e| e.file.max_sequence_number = SequenceNumber(1 << 40)).await;
    let padded = written(good).await;
    let mut entry = padded.entry.clone();
    entry.file.max_sequence_number = SequenceNumber((1 << 21) - 1);
    padded.commit(&[entry], &[]).await;
    assert_eq!(padded.findings().await, [], "padded to the end of its millisecond");
}

#[tokio::test(flavor = "multi_thread")]
async fn false_key_statistics_are_found_and_none_are_fine() {
    let stats = |e: &mut ManifestEntry, min: i64, max: i64, nulls| {
        e.file.key_stats = SimpleStats { min: long(&[min]), max: long(&[max]), null_counts: vec![Some(nulls)] };
    };
    error("key statistics of column `id` give a minimum above", good, |e| stats(e, 5, 5_000, 0)).await;
    error("key statistics of column `id` give a maximum below", good, |e| stats(e, 0, 5, 0)).await;
    error("key statistics of column `id` say 3 nulls, there are 0", good, |e| stats(e, 0, 5_000, 3)).await;
    let bare = written(good).await;
    let mut entry = bare.entry.clone();
    entry.file.key_stats = SimpleStats::empty();
    bare.commit(&[entry], &[]).await;
    assert_eq!(bare.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn false_value_statistics_are_found_and_bounds_and_unknowns_are_fine() {
    let text = |t: &str| Value::String(t.to_owned());
    let none = [Value::Null, Value::Null, Value::Null];
    let unknown = [None, None, None];
    let min = |note: &str| [Value::Null, text(note), Value::Null];
    let words = "value statistics of column `note` ";
    error(&format!("{words}give a minimum above"), good, |e| value_stats(e, min("o"), none.clone(), unknown)).await;
    error(&format!("{words}give a maximum below"), good, |e| value_stats(e, none.clone(), min("n"), unknown)).await;
    let nulls = [None, Some(0), None];
    error(&format!("{words}say 0 nulls"), good, |e| value_stats(e, none.clone(), none.clone(), nulls)).await;
    error("value statistics cannot be read", good, |e| {
        e.file.value_stats = SimpleStats::empty();
        e.file.value_stats_cols = None;
    })
    .await;
    error("there is no column `notes`", good, |e| e.file.value_stats_cols = Some(vec!["notes".into()])).await;
    for (low, high) in [(min("note"), min("notf")), (none.clone(), none.clone())] {
        let file = written(good).await;
        let mut entry = file.entry.clone();
        value_stats(&mut entry, low, high, unknown);
        file.commit(&[entry], &[]).await;
        assert_eq!(file.findings().await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_another_bucket_or_partition_are_found() {
    let foreign = |table: &Table| {
        let mut rows = good(table);
        rows.last_mut().unwrap().0 = keys(table, 1, 40).pop().unwrap();
        rows
    };
    error("holds a row of bucket 1", foreign, |_| ()).await;
    let other_day = |table: &Table| {
        let mut rows = good(table);
        rows[2].1 = "2023-11-15";
        rows
    };
    error("rows of another partition", other_day, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_place_of_another_is_found() {
    let other =
        |table: &Table| good(table).into_iter().map(|(k, day, n, kind)| (k, day, n + 1_000_000, kind)).collect();
    let (file, other) = (written(good).await, written(other).await);
    let size = other.entry.file.file_size;
    let swapped = Written { table: file.table, entry: file.entry, bytes: other.bytes };
    let (severity, message) = swapped.one(|e| e.file.file_size = size).await;
    assert!(severity == Severity::Error && message.contains("sequence number 1000100 is outside"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_level_that_overlap_are_found() {
    let file = written(good).await;
    let mut entries = [file.entry.clone(), file.entry.clone()];
    entries[1].file.file_name = "data-2.parquet".to_owned();
    entries.iter_mut().for_each(|e| e.file.level = Level(5));
    let other =
        Written { bytes: renamed(&file, "data-2.parquet").await, entry: entries[1].clone(), table: file.table.clone() };
    file.commit(&entries[..1], &[]).await;
    other.commit(&entries[1..], &[]).await;
    let findings = file.findings().await;
    let [(Severity::Error, object, message)] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(object.ends_with("snapshot-2") && message.contains("data-1.parquet"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_descriptions_of_one_file_are_found() {
    let file = written(good).await;
    file.commit(std::slice::from_ref(&file.entry), &[]).await;
    let mut other = file.entry.clone();
    (other.file.level, other.file.max_sequence_number) = (Level(5), SequenceNumber(110));
    let id = ChangeId(7);
    let mut change = Change::new(id, ChangeKind::Compact, SchemaId(0), START);
    change.files = vec![ManifestEntry { kind: FileKind::Delete, ..file.entry.clone() }, other];
    drive(protocol::commit(&file.table.context, change), &file.table.ports, &file.table.at).await.unwrap();
    let findings = file.findings().await;
    assert!(findings.iter().any(|f| f.2.contains("two manifests describe it differently")), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_tags_are_read_and_a_damaged_tag_is_found() {
    let file = written(good).await;
    let mut entry = file.entry.clone();
    entry.file.delete_row_count = Some(0);
    file.commit(&[entry], &[]).await;
    let objects = &file.table.ports.objects;
    let (from, to) = (
        file.table.location.snapshot(siltstone_format::id::SnapshotId(1)),
        format!("{}v1", file.table.location.tag_prefix()),
    );
    let body = objects.get(&from).await.unwrap().bytes;
    objects.put(&to, body, PutMode::Overwrite).await.unwrap();
    objects.delete(&[from, file.table.location.latest_hint()]).await.unwrap();
    let findings = file.findings().await;
    assert!(findings.iter().any(|f| f.2.contains("1 delete rows")), "{findings:?}");
    objects.put(&to, "{".into(), PutMode::Overwrite).await.unwrap();
    let findings = file.findings().await;
    assert!(findings.iter().any(|f| f.1 == to && f.0 == Severity::Error), "{findings:?}");
}
