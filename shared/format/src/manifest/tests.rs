//! Manifests: golden bytes, round trips, and what corrupt input answers.

use proptest::prelude::*;

use super::*;
use crate::{
    avro::{
        Compression,
        container::{Writer, unsealed},
        cursor::{put_bytes, put_long, put_optional},
    },
    binary_row::encode_row,
    data_file::FileSource,
    id::SequenceNumber,
    types::DataType,
    value::Value,
};

fn row(values: &[i32]) -> StoredRow {
    let values: Vec<Value> = values.iter().map(|v| Value::Int(*v)).collect();
    let types = vec![DataType::parse("INT").unwrap(); values.len()];
    encode_row(&values, &types).unwrap()
}

fn stats(min: &[i32], max: &[i32]) -> SimpleStats {
    SimpleStats { min: row(min), max: row(max), null_counts: vec![Some(0); min.len()] }
}

pub(crate) fn entry(i: i32) -> ManifestEntry {
    ManifestEntry {
        kind: if i % 3 == 2 { FileKind::Delete } else { FileKind::Add },
        partition: StoredRow::empty(),
        bucket: Bucket(i % 4),
        total_buckets: 4,
        file: DataFileMeta {
            file_name: format!("data-4b2a-{i}.parquet"),
            file_size: 1000 + i64::from(i),
            row_count: 10,
            min_key: row(&[i]),
            max_key: row(&[i + 9]),
            key_stats: stats(&[i], &[i + 9]),
            value_stats: SimpleStats { min: StoredRow::empty(), max: StoredRow::empty(), null_counts: vec![] },
            min_sequence_number: SequenceNumber(i64::from(i) * 10),
            max_sequence_number: SequenceNumber(i64::from(i) * 10 + 9),
            schema_id: SchemaId(0),
            level: Level(i % 6),
            extra_files: if i % 2 == 0 { vec![] } else { vec!["a.index".into()] },
            creation_time_ms: Some(1_700_000_000_000),
            delete_row_count: Some(0),
            embedded_index: (i % 5 == 0).then(|| vec![1, 2, 3]),
            file_source: (i % 7 != 0).then_some(if i % 2 == 0 { FileSource::Append } else { FileSource::Compact }),
            value_stats_cols: Some(vec![]),
            external_path: (i % 11 == 0).then(|| "s3://b/x".into()),
            first_row_id: None,
            write_cols: (i % 13 == 0).then(|| vec!["k".into(), "v".into()]),
        },
    }
}

fn meta(i: i64) -> ManifestFileMeta {
    ManifestFileMeta {
        file_name: format!("manifest-4b2a-{i}"),
        file_size: i,
        num_added_files: i + 1,
        num_deleted_files: 2,
        partition_stats: stats(&[1, 2], &[3, 4]),
        schema_id: SchemaId(1),
        buckets: (i % 2 == 0).then_some((Bucket(0), Bucket(3))),
        levels: (i % 2 == 0).then_some((Level(0), Level(5))),
    }
}

#[test]
fn packed_entries_survive_a_round_trip_and_one_takes_little_room() {
    let entries: Vec<_> = (0..1000).map(entry).collect();
    assert_eq!(unpack_entries("item", &pack_entries(&entries).unwrap()).unwrap(), entries);
    assert_eq!(unpack_entries("item", &pack_entries(&[]).unwrap()).unwrap(), []);
    let one = pack_entries(&entries[..1]).unwrap();
    assert!(one.len() < 250, "{}", one.len());
}

#[test]
fn packed_entries_that_are_cut_or_of_another_layout_are_refused() {
    let entries: Vec<_> = (0..3).map(entry).collect();
    let bytes = pack_entries(&entries).unwrap();
    for end in 0..bytes.len() {
        assert!(unpack_entries("item", &bytes[..end]).is_err(), "cut at {end}");
    }
    let mut other = bytes.clone();
    other[0] = 2;
    assert!(unpack_entries("item", &other).unwrap_err().to_string().contains("unknown version"));
    other = bytes;
    other[1] += 2;
    assert!(unpack_entries("item", &other).is_err(), "one entry more than there is");
}

#[test]
fn manifest_survives_a_round_trip_with_every_codec() {
    let entries: Vec<_> = (0..1000).map(entry).collect();
    for codec in [Compression::None, Compression::Deflate, Compression::Zstandard, Compression::Snappy] {
        let bytes = encode_manifest_with(&entries, codec, "m").unwrap();
        assert_eq!(decode_manifest("m", &bytes).unwrap(), entries);
    }
    assert_eq!(decode_manifest("m", &encode_manifest(&[]).unwrap()).unwrap(), []);
}

#[test]
fn list_survives_a_round_trip() {
    let metas: Vec<_> = (0..100).map(meta).collect();
    assert_eq!(decode_manifest_list("l", &encode_manifest_list(&metas).unwrap()).unwrap(), metas);
}

#[test]
fn equal_entries_give_equal_bytes() {
    let entries: Vec<_> = (0..10).map(entry).collect();
    assert_eq!(encode_manifest(&entries).unwrap(), encode_manifest(&entries).unwrap());
}

/// An independent reader takes what is written, field for field and null for null.
#[test]
fn arrow_avro_reads_what_is_written() {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
    let entries: Vec<_> = (0..500).map(entry).collect();
    let bytes = encode_manifest(&entries).unwrap();
    let reader =
        arrow_avro::reader::ReaderBuilder::new().with_batch_size(1000).build(std::io::Cursor::new(bytes)).unwrap();
    let batches: Vec<_> = reader.map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 500);
    let mut i = 0;
    for batch in batches {
        let file = batch["_FILE"].as_struct();
        let number = |name: &str, at: usize| file.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(at);
        for at in 0..batch.num_rows() {
            let expected = &entries[i];
            assert_eq!(
                batch["_KIND"].as_primitive::<Int32Type>().value(at),
                i32::from(expected.kind == FileKind::Delete)
            );
            assert_eq!(batch["_PARTITION"].as_binary::<i32>().value(at), [0; 12]);
            assert_eq!(
                file.column_by_name("_FILE_NAME").unwrap().as_string::<i32>().value(at),
                expected.file.file_name
            );
            assert_eq!(number("_FILE_SIZE", at), expected.file.file_size);
            assert_eq!(number("_MAX_SEQUENCE_NUMBER", at), expected.file.max_sequence_number.0);
            let min = file.column_by_name("_KEY_STATS").unwrap().as_struct().column_by_name("_MIN_VALUES").unwrap();
            assert_eq!(min.as_binary::<i32>().value(at), expected.file.key_stats.min.to_prefixed());
            let created = file.column_by_name("_CREATION_TIME").unwrap().as_primitive::<TimestampMillisecondType>();
            assert_eq!(created.value(at), expected.file.creation_time_ms.unwrap());
            let source = file.column_by_name("_FILE_SOURCE").unwrap();
            assert_eq!(source.is_null(at), expected.file.file_source.is_none());
            let write_cols = file.column_by_name("_WRITE_COLS").unwrap();
            assert_eq!(write_cols.is_null(at), expected.file.write_cols.is_none());
            i += 1;
        }
    }
}

/// A manifest as other writers lay it out: union on top, `_FILE` reordered, fields missing and added.
fn foreign_file() -> Vec<u8> {
    const SCHEMA: &str = r#"["null",{"type":"record","name":"ManifestEntry","fields":[{"name":"_VERSION","type":"int"},{"name":"_KIND","type":"int"},
      {"name":"_PARTITION","type":"bytes"},{"name":"_BUCKET","type":"int"},{"name":"_TOTAL_BUCKETS","type":"int"},{"name":"_FILE","type":
      {"type":"record","name":"DataFileMeta","fields":[{"name":"_LEVEL","type":"int"},{"name":"_NEW","type":{"type":"map","values":["null","double"]}},
      {"name":"_FILE_NAME","type":"string"},{"name":"_FILE_SIZE","type":"int"},{"name":"_ROW_COUNT","type":"long"},{"name":"_MIN_KEY","type":"bytes"},
      {"name":"_MAX_KEY","type":"bytes"},{"name":"_KEY_STATS","type":{"type":"record","name":"SimpleStats","fields":[{"name":"_MIN_VALUES","type":"bytes"},
      {"name":"_MAX_VALUES","type":"bytes"},{"name":"_NULL_COUNTS","type":["null",{"type":"array","items":["null","long"]}]}]}},
      {"name":"_VALUE_STATS","type":"SimpleStats"},{"name":"_MIN_SEQUENCE_NUMBER","type":"long"},{"name":"_MAX_SEQUENCE_NUMBER","type":"long"},
      {"name":"_SCHEMA_ID","type":"long"},{"name":"_EXTRA_FILES","type":{"type":"array","items":["null","string"]}}]}}]}]"#;
    let mut writer = Writer::new(SCHEMA, Compression::Deflate);
    writer
        .row(|out| {
            for number in [1, 2, 0] {
                put_long(out, number);
            }
            put_bytes(out, &StoredRow::empty().to_prefixed());
            put_long(out, 3);
            put_long(out, 4);
            put_long(out, 5);
            // _NEW in a block of known size: {"x": 1.5}.
            put_long(out, -1);
            put_long(out, 11);
            put_bytes(out, b"x");
            put_optional(out, Some(1.5_f64), |out, v| out.extend_from_slice(&v.to_le_bytes()));
            put_long(out, 0);
            put_bytes(out, b"data-0.parquet");
            put_long(out, 77);
            put_long(out, 10);
            for bytes in [row(&[1]), row(&[9]), row(&[1]), row(&[9])] {
                put_bytes(out, &bytes.to_prefixed());
            }
            put_long(out, 0);
            put_bytes(out, &StoredRow::empty().to_prefixed());
            put_bytes(out, &StoredRow::empty().to_prefixed());
            put_long(out, 1);
            put_long(out, 0);
            for number in [100, 109, 0] {
                put_long(out, number);
            }
            put_long(out, 1);
            put_optional(out, Some("a.index"), |out, v| put_bytes(out, v.as_bytes()));
            put_long(out, 0);
        })
        .unwrap();
    unsealed(writer.finish().unwrap())
}

#[test]
fn foreign_layouts_are_read_by_name() {
    let entries = decode_manifest("m", &foreign_file()).unwrap();
    let file = &entries[0].file;
    assert_eq!((entries.len(), entries[0].bucket, entries[0].total_buckets), (1, Bucket(3), 4));
    assert_eq!((file.file_name.as_str(), file.file_size, file.level), ("data-0.parquet", 77, Level(5)));
    assert_eq!(
        (file.key_stats.null_counts.as_slice(), file.value_stats.null_counts.as_slice()),
        ([None].as_slice(), [].as_slice())
    );
    assert_eq!(file.max_sequence_number, SequenceNumber(109));
    assert_eq!(
        (file.extra_files.as_slice(), file.creation_time_ms, file.file_source),
        (["a.index".to_owned()].as_slice(), None, None)
    );
    // What was read is written as ours and keeps its identity.
    let again = decode_manifest("m", &encode_manifest(&entries).unwrap()).unwrap();
    assert_eq!(again[0].identity(), entries[0].identity());
}

#[test]
fn foreign_lists_are_read_by_name() {
    const SCHEMA: &str = r#"{"type":"record","name":"ManifestFileMeta","fields":[{"name":"_VERSION","type":"int"},{"name":"_FILE_NAME","type":"string"},
      {"name":"_FILE_SIZE","type":"long"},{"name":"_NUM_ADDED_FILES","type":"long"},{"name":"_NUM_DELETED_FILES","type":"long"},
      {"name":"_PARTITION_STATS","type":{"type":"record","name":"S","fields":[{"name":"_MIN_VALUES","type":"bytes"},{"name":"_MAX_VALUES","type":"bytes"},
      {"name":"_NULL_COUNTS","type":["null",{"type":"array","items":["null","long"]}]}]}},{"name":"_SCHEMA_ID","type":"long"},
      {"name":"_TOTAL_BUCKETS","type":["null","int"]},{"name":"_EXTRA_FILES","type":["null",{"type":"array","items":"string"}]}]}"#;
    let mut writer = Writer::new(SCHEMA, Compression::Zstandard);
    writer
        .row(|out| {
            put_long(out, 2);
            put_bytes(out, b"manifest-x-0");
            for number in [10, 1, 0] {
                put_long(out, number);
            }
            put_bytes(out, &StoredRow::empty().to_prefixed());
            put_bytes(out, &StoredRow::empty().to_prefixed());
            out.push(0);
            put_long(out, 0);
            put_optional(out, Some(4), put_long);
            out.push(0);
        })
        .unwrap();
    let metas = decode_manifest_list("l", &writer.finish().unwrap()).unwrap();
    assert_eq!((metas[0].file_name.as_str(), metas[0].buckets, metas[0].levels), ("manifest-x-0", None, None));
}

/// What Java refuses is refused here, with the field's name.
#[test]
fn layouts_that_java_refuses_are_refused() {
    let cases = [
        (r#"{"name":"_BUCKET","type":"int"}"#, r#"{"name":"_BUCKET","type":["null","int"]}"#, "another type"),
        (
            r#"{"name":"_VERSION","type":"int"},{"name":"_KIND","type":"int"}"#,
            r#"{"name":"_KIND","type":"int"},{"name":"_VERSION","type":"int"}"#,
            "instead of",
        ),
        (
            r#"{"name":"_BUCKET","type":"int"},"#,
            r#"{"name":"_BUCKET","type":"int"},{"name":"_X","type":"int"},"#,
            "instead of",
        ),
        (r#"["null","bytes"]"#, r#"["bytes","null"]"#, "_EMBEDDED_FILE_INDEX is a union"),
        (r#"{"name":"_ROW_COUNT","type":"long"},"#, "", "_ROW_COUNT is missing"),
        (
            r#"{"name":"_ROW_COUNT","type":"long"}"#,
            r#"{"name":"_ROW_COUNT","type":"string"}"#,
            "_ROW_COUNT has another type",
        ),
        (r#"{"name":"_ROW_COUNT","type":"long"}"#, r#"{"name":"_FILE_SIZE","type":"long"}"#, "_FILE_SIZE stands twice"),
    ];
    for (from, to, words) in cases {
        let schema = layout::MANIFEST_SCHEMA.replacen(from, to, 1);
        assert_ne!(schema, layout::MANIFEST_SCHEMA, "{from}");
        let error = decode_manifest("t/manifest/m", &Writer::new(schema.leak(), Compression::None).finish().unwrap());
        let error = error.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with("t/manifest/m is damaged") && error.contains(words), "{words}: {error}");
    }
}

#[test]
fn damaged_values_name_row_and_field() {
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut writer = Writer::new(layout::MANIFEST_SCHEMA, Compression::None);
        let whole = decode_block(&encode_manifest_with(&[entry(1)], Compression::None, "").unwrap());
        writer
            .row(|out| {
                out.extend_from_slice(&whole);
                change(out);
            })
            .unwrap();
        decode_manifest("m", &writer.finish().unwrap()).unwrap_err().to_string()
    };
    assert!(damage(&|out| out[0] = 6).contains("row 0, _VERSION: is not 2"));
    assert!(damage(&|out| out[1] = 8).contains("row 0, _KIND: is neither"));
    assert!(damage(&|out| out[2] = 2).contains("row 0, _PARTITION: a row is too short"));
    assert!(damage(&|out| out[6] = 5).contains("row 0, _PARTITION: a row is too short for the columns it claims"));
    assert!(damage(&|out| out.push(0)).contains("1 bytes are left over"));
    assert!(damage(&|out| out.truncate(40)).contains("beyond the end"));
    let slash = damage(&|out| {
        let at = out.windows(4).position(|w| w == b"data").unwrap();
        out[at] = b'/';
    });
    assert!(slash.contains("holds a slash"), "{slash}");
}

fn decode_block(file: &[u8]) -> Vec<u8> {
    crate::avro::container::Reader::new("m", file).unwrap().next_block().unwrap().unwrap().bytes
}

#[test]
fn what_readers_rely_on_is_checked_before_writing() {
    let refused = |change: fn(&mut DataFileMeta)| {
        let mut changed = entry(1);
        change(&mut changed.file);
        encode_manifest(&[changed]).is_err()
    };
    let wrong: [fn(&mut DataFileMeta); 9] = [
        |file| file.file_name = "a/b.parquet".into(),
        |file| file.file_name = String::new(),
        |file| file.extra_files = vec!["ok".into(), "a/b".into()],
        |file| file.extra_files = vec![String::new()],
        |file| file.file_size = -1,
        |file| file.row_count = -1,
        |file| file.delete_row_count = Some(-1),
        |file| file.level = Level(-1),
        |file| file.schema_id = SchemaId(-1),
    ];
    for (i, change) in wrong.into_iter().enumerate() {
        assert!(refused(change), "{i}");
    }
    assert!(!refused(|file| (file.file_size, file.row_count, file.delete_row_count) = (0, 0, Some(0))));
}

#[test]
fn what_readers_of_lists_rely_on_is_checked_before_writing() {
    let refused = |change: fn(&mut ManifestFileMeta)| {
        let mut changed = meta(1);
        change(&mut changed);
        encode_manifest_list(&[changed]).is_err()
    };
    let wrong: [fn(&mut ManifestFileMeta); 6] = [
        |meta| meta.file_name = "a/b".into(),
        |meta| meta.file_name = String::new(),
        |meta| meta.file_size = -1,
        |meta| meta.num_added_files = -1,
        |meta| meta.num_deleted_files = -1,
        |meta| meta.schema_id = SchemaId(-1),
    ];
    for (i, change) in wrong.into_iter().enumerate() {
        assert!(refused(change), "{i}");
    }
    assert!(!refused(|meta| {
        (meta.file_size, meta.num_added_files, meta.num_deleted_files, meta.schema_id) = (0, 0, 0, SchemaId(0));
    }));
}

#[test]
fn cut_files_never_panic_and_are_never_read_as_whole() {
    let entries: Vec<_> = (0..5).map(entry).collect();
    for file in [encode_manifest(&entries).unwrap(), foreign_file()] {
        let whole = decode_manifest("m", &file).unwrap();
        for end in 0..file.len() {
            assert!(decode_manifest("m", &file[..end]).map_or(true, |cut| cut.len() < whole.len()), "cut at {end}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn changed_bytes_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), length in 1_usize..9) {
        let entries: Vec<_> = (0..5).map(entry).collect();
        let ours = [encode_manifest_with(&entries, Compression::None, "").unwrap(), encode_manifest_list(&[meta(0)]).unwrap()];
        let foreign = ours.clone().map(unsealed);
        for mut file in ours.into_iter().chain(foreign).chain([foreign_file()]) {
            let at = at.index(file.len());
            let end = file.len().min(at + length);
            file[at..end].fill(byte);
            let _ = decode_manifest("m", &file);
            let _ = decode_manifest_list("m", &file);
        }
    }

    #[test]
    fn random_entries_survive_a_round_trip(
        seeds in proptest::collection::vec((any::<u16>(), any::<i64>(), any::<Option<i64>>(), "\\PC{1,9}"), 0..20),
    ) {
        let entries: Vec<_> = seeds.into_iter().map(|(i, long, optional, name)| {
            let mut entry = entry(i32::from(i));
            entry.file.max_sequence_number = SequenceNumber(long);
            entry.file.creation_time_ms = optional;
            entry.file.first_row_id = optional;
            entry.file.key_stats.null_counts = vec![optional];
            entry.file.file_name = name.replace('/', "_");
            entry
        }).collect();
        prop_assert_eq!(decode_manifest("m", &encode_manifest(&entries).unwrap()).unwrap(), entries);
    }
}
