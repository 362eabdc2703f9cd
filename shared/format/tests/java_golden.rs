//! The metadata of a table that Java Paimon 1.4.2 wrote, read and written again: testdata/java-1.4.2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "the core does no I/O; its tests read their own fixtures")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use siltstone_format::{
    avro,
    binary_row::{decode_row, encode_row},
    compare::KeyComparator,
    data_file::{FileSource, SimpleStats},
    id::{Level, SchemaId, SnapshotId},
    manifest::{
        FileKind, ManifestEntry, ManifestFileMeta, decode_manifest, decode_manifest_list, encode_manifest,
        encode_manifest_list,
    },
    options::{Purpose, TableOptions},
    path::{ObjectName, TableLocation},
    schema::{Column, TableSchema},
    snapshot::{CommitKind, Snapshot},
    stats::partition_stats,
    types::DataType,
    value::Value,
};

const COMMITS: i64 = 4;

fn location() -> TableLocation {
    TableLocation::in_warehouse("wh", "db", "golden").unwrap()
}

fn read(key: &str) -> Vec<u8> {
    let path = key.strip_prefix("wh/db.db/golden/").unwrap();
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/java-1.4.2").join(path)).unwrap()
}

fn schema() -> TableSchema {
    let key = location().schema(SchemaId(0));
    TableSchema::from_json(&key, &read(&key)).unwrap()
}

fn snapshot(id: i64) -> Snapshot {
    let key = location().snapshot(SnapshotId(id));
    Snapshot::from_json(&key, &read(&key)).unwrap()
}

fn list(name: &str) -> Vec<ManifestFileMeta> {
    let key = location().manifest(name);
    decode_manifest_list(&key, &read(&key)).unwrap()
}

fn manifest(name: &str) -> Vec<ManifestEntry> {
    let key = location().manifest(name);
    decode_manifest(&key, &read(&key)).unwrap()
}

fn delta(id: i64) -> Vec<ManifestEntry> {
    list(&snapshot(id).delta_manifest_list).iter().flat_map(|meta| manifest(&meta.file_name)).collect()
}

fn all_entries() -> Vec<ManifestEntry> {
    (1..=COMMITS).flat_map(delta).collect()
}

/// The Avro schema in a container file's header: from its first brace to the one that closes it.
fn avro_schema(file: &[u8]) -> String {
    let start = file.windows(16).position(|w| w == br#"{"type":"record""#).unwrap();
    let mut depth = 0_i32;
    let length = file[start..].iter().position(|byte| {
        depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
        depth == 0
    });
    String::from_utf8(file[start..=start + length.unwrap()].to_vec()).unwrap()
}

#[test]
fn schema_reads_as_java_meant_it_and_is_written_with_the_same_content() {
    let schema = schema();
    assert_eq!(
        (schema.highest_field_id, schema.trimmed_primary_key(), schema.partition_indices()),
        (18, vec![2, 3], vec![0, 1])
    );
    assert_eq!(schema.fields[10].data_type.to_string(), "MAP<STRING NOT NULL, ROW<x INT, y ARRAY<DOUBLE>>>");
    let java: serde_json::Value = serde_json::from_slice(&read(&location().schema(SchemaId(0)))).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&schema.to_json()).unwrap(), java);
}

#[test]
fn a_table_made_here_gets_the_ids_that_java_gives() {
    let java = schema();
    let columns = java.fields.iter().map(|field| {
        let mut data_type = field.data_type.clone();
        data_type.nullable = true;
        Column { description: field.description.clone(), ..Column::new(field.name.clone(), data_type) }
    });
    let (partition, primary) = (java.partition_keys.clone(), java.primary_keys.clone());
    let ours = TableSchema::create(
        columns.collect(),
        partition,
        primary,
        java.options.clone(),
        java.comment.clone(),
        java.time_millis,
    );
    assert_eq!(ours.unwrap(), java);
}

#[test]
fn snapshots_are_written_with_the_same_content() {
    for id in 1..=COMMITS {
        let key = location().snapshot(SnapshotId(id));
        let java: serde_json::Value = serde_json::from_slice(&read(&key)).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&snapshot(id).to_json()).unwrap(), java);
    }
    assert_eq!((1..=COMMITS).map(|id| snapshot(id).commit_kind).collect::<Vec<_>>().last(), Some(&CommitKind::Compact));
    assert_eq!(snapshot(COMMITS).other, BTreeMap::new());
}

#[test]
fn written_avro_schemas_equal_those_of_java() {
    let metas = list(&snapshot(1).delta_manifest_list);
    let java = read(&location().manifest(&metas[0].file_name));
    assert_eq!(avro_schema(&encode_manifest(&[]).unwrap()), avro_schema(&java));
    let java = read(&location().manifest(&snapshot(1).delta_manifest_list));
    assert_eq!(avro_schema(&encode_manifest_list(&[]).unwrap()), avro_schema(&java));
    assert!(java.len() < avro::MAX_FILE_BYTES);
}

#[test]
fn entries_say_what_java_did() {
    let kinds = |id: i64| delta(id).iter().map(|e| (e.kind, e.file.level, e.file.file_source)).collect::<BTreeSet<_>>();
    let (add, delete) = (FileKind::Add, FileKind::Delete);
    for id in [1, 2] {
        assert_eq!(kinds(id), BTreeSet::from([(add, Level(0), Some(FileSource::Append))]));
        assert_eq!(delta(id).iter().map(|e| e.file.row_count).sum::<i64>(), snapshot(id).delta_record_count.unwrap());
    }
    let expected =
        BTreeSet::from([(delete, Level(0), Some(FileSource::Append)), (add, Level(5), Some(FileSource::Compact))]);
    assert_eq!(kinds(COMMITS), expected);
    assert_eq!(
        all_entries().iter().map(|e| e.file.delete_row_count.unwrap()).sum::<i64>(),
        2,
        "added once, deleted once"
    );
    let entries = delta(COMMITS);
    assert!(encode_manifest(&entries).is_ok_and(|bytes| decode_manifest("m", &bytes).unwrap() == entries));
}

#[test]
fn file_keys_lead_to_the_files_that_java_wrote() {
    let (schema, location) = (schema(), location());
    let paths = TableOptions::for_purpose(&schema, Purpose::Write).unwrap().partition_paths(&schema);
    let types = schema.types_at(&schema.partition_indices());
    let listed = String::from_utf8(read("wh/db.db/golden/files.tsv")).unwrap();
    let listed: BTreeMap<String, i64> = listed
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(k, n)| (location.root().to_owned() + "/" + k, n.parse().unwrap()))
        .collect();
    let mut named = BTreeMap::new();
    for entry in all_entries() {
        let values = decode_row("partition", &entry.partition, &types).unwrap();
        let partition_path = paths.path(&values).unwrap();
        let key = location.bucket_file(None, &partition_path, entry.bucket, &entry.file.file_name);
        let expected = ObjectName::BucketFile { partition_path, bucket: entry.bucket, file_name: entry.file.file_name };
        assert_eq!(location.parse(None, &key), expected);
        named.insert(key, entry.file.file_size);
    }
    assert_eq!(named, listed);
}

#[test]
fn keys_and_partitions_have_javas_bytes_and_buckets() {
    let schema = schema();
    let (keys, partitions) =
        (schema.types_at(&schema.trimmed_primary_key()), schema.types_at(&schema.partition_indices()));
    let bucketer = TableOptions::from_schema(&schema).unwrap().bucketer(&schema).unwrap();
    let comparator = KeyComparator::new(keys.clone());
    for entry in all_entries() {
        let partition = decode_row("partition", &entry.partition, &partitions).unwrap();
        assert_eq!(encode_row(&partition, &partitions).unwrap(), entry.partition);
        for key in [&entry.file.min_key, &entry.file.max_key] {
            let values = decode_row("key", key, &keys).unwrap();
            assert_eq!(&encode_row(&values, &keys).unwrap(), key);
            assert_eq!(
                (bucketer.bucket(&values).unwrap(), bucketer.bucket_of_row("key", key).unwrap()),
                (entry.bucket, entry.bucket)
            );
        }
        assert!(comparator.compare(&entry.file.min_key, &entry.file.max_key).is_le());
    }
}

/// Value statistics cover every type and hold nulls of wide decimals and timestamps: all bytes come out as Java made them.
#[test]
fn value_statistics_have_javas_bytes() {
    let schema = schema();
    let nullable = |names: Option<&Vec<String>>| -> Vec<DataType> {
        let wanted = schema.fields.iter().filter(|f| names.is_none_or(|names| names.contains(&f.name)));
        wanted.map(|f| DataType::nullable(f.data_type.kind.clone())).collect()
    };
    let mut seen = 0;
    for entry in all_entries() {
        let types = nullable(entry.file.value_stats_cols.as_ref());
        for row in [&entry.file.value_stats.min, &entry.file.value_stats.max] {
            let values = decode_row("stats", row, &types).unwrap();
            assert_eq!(&encode_row(&values, &types).unwrap(), row);
            seen += values.iter().filter(|value| **value != Value::Null).count();
        }
        assert_eq!(entry.file.value_stats.null_counts.len(), types.len());
    }
    assert!(seen > 100, "{seen} values");
}

#[test]
fn lists_count_and_prune_as_java_does() {
    let types = schema().types_at(&schema().partition_indices());
    for id in 1..=COMMITS {
        for meta in list(&snapshot(id).delta_manifest_list) {
            let entries = manifest(&meta.file_name);
            let count = |kind: FileKind| i64::try_from(entries.iter().filter(|e| e.kind == kind).count()).unwrap();
            assert_eq!((meta.num_added_files, meta.num_deleted_files), (count(FileKind::Add), count(FileKind::Delete)));
            assert_eq!(i64::try_from(read(&location().manifest(&meta.file_name)).len()).unwrap(), meta.file_size);
            let ours: SimpleStats = partition_stats("m", entries.iter().map(|e| &e.partition), &types).unwrap();
            assert_eq!(ours, meta.partition_stats);
            let buckets =
                (entries.iter().map(|e| e.bucket).min().unwrap(), entries.iter().map(|e| e.bucket).max().unwrap());
            let levels = (
                entries.iter().map(|e| e.file.level).min().unwrap(),
                entries.iter().map(|e| e.file.level).max().unwrap(),
            );
            assert_eq!((meta.buckets, meta.levels), (Some(buckets), Some(levels)));
        }
        let metas = list(&snapshot(id).delta_manifest_list);
        assert_eq!(decode_manifest_list("l", &encode_manifest_list(&metas).unwrap()).unwrap(), metas);
    }
}
