//! Files written, described, read back and compacted: the engine end to end in memory.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use siltstone_format::{
    bucket::{BucketFunction, Bucketer},
    data_file::{DataFileMeta, FileSource},
    id::{Level, SequenceNumber},
    options::StatsMode,
    schema::{Column, TableSchema},
    types::DataType,
    value::Value,
};

use parquet::file::metadata::ParquetMetaDataReader;

use crate::{
    batch::{DELETE, INSERT, KeyValueBatch, UPDATE_BEFORE},
    buffer::Splitter,
    compact::{CompactStep, CompactionJob, OpenFile},
    error::LsmError,
    layout::FileLayout,
    merge::{DropDeletes, MergeSettings, RunBatches},
    reader,
    rows::{batch_of, row_at},
    section::sections,
    writer::{RunWriter, WriterSettings},
};

const TYPES: [&str; 20] = [
    "BIGINT NOT NULL",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL(9, 2)",
    "DECIMAL(18, 4)",
    "DECIMAL(38, 10)",
    "STRING",
    "BYTES",
    "DATE",
    "TIME(3)",
    "TIMESTAMP(3)",
    "TIMESTAMP(6)",
    "TIMESTAMP(9)",
    "TIMESTAMP(6) WITH LOCAL TIME ZONE",
    "CHAR(3)",
    "VARBINARY(9)",
];

fn schema(types: &[&str], extra: Vec<(String, DataType)>, options: &[(&str, &str)]) -> TableSchema {
    let mut columns: Vec<Column> =
        types.iter().enumerate().map(|(i, t)| Column::new(format!("c{i}"), DataType::parse(t).unwrap())).collect();
    columns.extend(extra.into_iter().map(|(name, t)| Column::new(name, t)));
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    TableSchema::create(columns, vec![], vec!["c0".into()], options, None, 0).unwrap()
}

fn nested() -> Vec<(String, DataType)> {
    let json = [
        r#"{"type":"ARRAY","element":"INT"}"#,
        r#"{"type":"MAP","key":"STRING NOT NULL","value":"INT"}"#,
        r#"{"type":"ROW","fields":[{"id":0,"name":"x","type":"INT"},{"id":0,"name":"y","type":{"type":"ARRAY","element":"STRING"}}]}"#,
    ];
    json.iter()
        .enumerate()
        .map(|(i, j)| {
            let parsed = serde_json::from_str(j).unwrap();
            (format!("n{i}"), siltstone_format::schema::type_from_json(&parsed, 0).unwrap())
        })
        .collect()
}

fn typed_row(key: i64) -> Vec<Value> {
    let n = i32::try_from(key).unwrap();
    vec![
        Value::BigInt(key),
        Value::Boolean(key % 2 == 0),
        Value::TinyInt((-n) as i8),
        Value::SmallInt(n as i16),
        Value::Int(-n),
        Value::Float(n as f32 / 3.0),
        Value::Double(-f64::from(n) / 7.0),
        Value::Decimal(i128::from(key) - 5),
        Value::Decimal(-i128::from(key) * 100_000_000_000),
        Value::Decimal(i128::from(key) * 1_000_000_000_000_000_000_000),
        Value::String(format!("text number {key}, longer than sixteen")),
        Value::Bytes(vec![n as u8; 3]),
        Value::Date(-n),
        Value::Time(n * 1000),
        Value::Timestamp { millis: -key, nanos: 0 },
        Value::Timestamp { millis: -key, nanos: 1_000 * (n as u32 % 999) },
        Value::Timestamp { millis: key, nanos: n as u32 % 999 },
        Value::Timestamp { millis: key, nanos: 5_000 },
        Value::String("abc".into()),
        Value::Bytes(vec![]),
        Value::Array(vec![Value::Int(n), Value::Null]),
        Value::Map(vec![(Value::String("a".into()), Value::Int(n)), (Value::String("b".into()), Value::Null)]),
        Value::Row(vec![Value::Int(n), Value::Array(vec![Value::String("é".into())])]),
    ]
}

fn null_row(key: i64) -> Vec<Value> {
    let mut row = vec![Value::Null; 23];
    row[0] = Value::BigInt(key);
    row
}

fn batch(layout: &FileLayout, rows: &[(Vec<Value>, i64, i8)]) -> KeyValueBatch {
    let values: Vec<Vec<Value>> = rows.iter().map(|r| r.0.clone()).collect();
    KeyValueBatch::new(
        batch_of(layout, &values).unwrap(),
        rows.iter().map(|r| r.1).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.2).collect::<Vec<_>>().into(),
    )
    .unwrap()
}

fn write(
    layout: &FileLayout,
    settings: WriterSettings,
    batches: &[KeyValueBatch],
    name: &str,
) -> (Bytes, DataFileMeta) {
    let mut writer = RunWriter::new(layout, Arc::new(settings), Level(0), FileSource::Append).unwrap();
    let mut bytes = Vec::new();
    for batch in batches {
        writer.write(batch).unwrap();
        bytes.extend_from_slice(&writer.take_bytes());
    }
    let (rest, meta) = writer.finish(name.to_owned(), 17).unwrap();
    bytes.extend_from_slice(&rest);
    (Bytes::from(bytes), meta)
}

fn read(
    bytes: &Bytes,
    meta: &DataFileMeta,
    file: &TableSchema,
    layout: &FileLayout,
) -> Result<Vec<Vec<Value>>, LsmError> {
    let all: Vec<usize> = (0..layout.values().fields().len()).collect();
    let mut rows = Vec::new();
    for batch in reader::open(bytes.clone(), meta, file, layout)? {
        let batch = batch?;
        rows.extend((0..batch.len()).map(|i| row_at(&batch.values, &all, i)));
    }
    Ok(rows)
}

fn all_types() -> (TableSchema, FileLayout) {
    let schema = schema(&TYPES, nested(), &[]);
    let layout = FileLayout::new(Arc::new(schema.clone())).unwrap();
    (schema, layout)
}

#[test]
fn every_type_is_read_back_as_written_nulls_included() {
    let (schema, layout) = all_types();
    let rows: Vec<Vec<Value>> = (1..200).map(|k| if k % 5 == 0 { null_row(k) } else { typed_row(k) }).collect();
    let input: Vec<_> = rows.iter().enumerate().map(|(i, r)| (r.clone(), 1000 - i as i64, INSERT)).collect();
    let mut settings = WriterSettings::defaults(23);
    settings.row_group_rows = 50;
    let (bytes, meta) = write(&layout, settings, &[batch(&layout, &input)], "data-a-0.parquet");
    assert_eq!(meta.file_size, bytes.len() as i64);
    assert_eq!((meta.row_count, meta.delete_row_count), (199, Some(0)));
    assert_eq!((meta.min_sequence_number, meta.max_sequence_number), (SequenceNumber(802), SequenceNumber(1000)));
    assert_eq!(read(&bytes, &meta, &schema, &layout).unwrap(), rows);
}

/// Random history of seed 20: Paimon 1.4.2 looked literals of `=` up in dictionaries of wide decimals, and found none.
#[test]
fn decimals_of_more_than_18_digits_have_no_dictionary() {
    let (_, layout) = all_types();
    let input: Vec<_> = (1..200).map(|k| (typed_row(k), k, INSERT)).collect();
    let (bytes, _) = write(&layout, WriterSettings::defaults(23), &[batch(&layout, &input)], "data-a-0.parquet");
    let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
    let has = |name: &str| {
        let chunk = footer.row_group(0).columns().iter().find(|c| c.column_path().string() == name).unwrap();
        chunk.dictionary_page_offset().is_some()
    };
    assert_eq!(["c7", "c8", "c9"].map(has), [true, true, false]);
    // Nor have columns whose values are all different.
    assert_eq!(["_KEY_c0", "_SEQUENCE_NUMBER", "c0", "c10"].map(has), [false, false, false, true]);
}

#[test]
fn columns_of_a_composite_key_have_a_dictionary_beside_their_key_column() {
    let columns = ["a", "b"].map(|name| Column::new(name, DataType::parse("INT").unwrap()));
    let keys = vec!["a".into(), "b".into()];
    let schema = TableSchema::create(columns.into(), vec![], keys, Default::default(), None, 0).unwrap();
    let layout = FileLayout::new(Arc::new(schema)).unwrap();
    let input: Vec<_> = (0..50).map(|k| (vec![Value::Int(1), Value::Int(k)], i64::from(k), INSERT)).collect();
    let (bytes, _) = write(&layout, WriterSettings::defaults(2), &[batch(&layout, &input)], "data-a-0.parquet");
    let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
    let chunks = footer.row_group(0).columns().iter();
    let has: Vec<_> = chunks.map(|c| (c.column_path().string(), c.dictionary_page_offset().is_some())).collect();
    let expected = [
        ("_KEY_a", false),
        ("_KEY_b", false),
        ("_SEQUENCE_NUMBER", false),
        ("_VALUE_KIND", true),
        ("a", true),
        ("b", true),
    ];
    assert_eq!(has, expected.map(|(name, dictionary)| (name.to_owned(), dictionary)));
}

#[test]
fn row_groups_end_at_the_bytes_given() {
    let (_, layout) = all_types();
    let batches: Vec<_> = (1..5).map(|k| batch(&layout, &[(typed_row(k), k, INSERT)])).collect();
    let groups = |row_group_bytes| {
        let settings = WriterSettings { row_group_bytes, ..WriterSettings::defaults(23) };
        let (bytes, _) = write(&layout, settings, &batches, "data-a-0.parquet");
        ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap().num_row_groups()
    };
    assert_eq!((groups(1), groups(32 << 20)), (4, 1));
    let defaults = WriterSettings::defaults(1);
    let sizes = (defaults.row_group_bytes, defaults.row_group_rows, defaults.target_file_bytes);
    assert_eq!(sizes, (33_554_432, 1_048_576, 134_217_728));
    let mut writer = RunWriter::new(&layout, Arc::new(defaults), Level(0), FileSource::Append).unwrap();
    writer.write(&batches[0]).unwrap();
    writer.write(&batches[1]).unwrap();
    assert_eq!(writer.rows(), 2);
    assert!(writer.finish("data-a-0.parquet".to_owned(), 0).is_ok());
}

#[test]
fn a_changed_byte_contradicts_the_checksum_of_the_file() {
    use crate::checksum::{Claim, Stated, check_whole, crc32_of, stated};
    let (_, layout) = all_types();
    let rows: Vec<_> = (1..60).map(|k| (typed_row(k), k, INSERT)).collect();
    let (bytes, _) = write(&layout, WriterSettings::defaults(23), &[batch(&layout, &rows)], "data-a-0.parquet");
    check_whole(&bytes, "data-a-0.parquet").unwrap();
    let Stated::Sum(claim) = stated(&bytes, "data-a-0.parquet").unwrap() else { panic!("a checksum") };
    assert_eq!(crc32_of(&bytes, claim.digits_at), claim.crc32);
    let at = usize::try_from(claim.digits_at).unwrap();
    assert_eq!(bytes[at..at + 8], *format!("{:08x}", claim.crc32).as_bytes());
    assert!(Claim { crc32: !claim.crc32, ..claim }.check("data-a-0.parquet", claim.crc32).is_err());
    // Where the name of the checksum is damaged, the file is as one without.
    let name = at - "siltstone.crc32".len() - 2..at;
    for place in (0..bytes.len()).step_by(11).chain(at..at + 8) {
        let mut changed = bytes.to_vec();
        changed[place] ^= 0x01;
        let found = check_whole(&Bytes::from(changed), "data-a-0.parquet");
        assert_eq!(found.is_err(), !name.contains(&place), "byte {place}");
    }
    let mut nameless = bytes.to_vec();
    nameless[name.start] = b'S';
    assert_eq!(stated(&Bytes::from(nameless), "data-a-0.parquet").unwrap(), Stated::Missing);
}

#[test]
fn statistics_bound_every_value_and_count_nulls() {
    let (schema, layout) = all_types();
    let mut rows: Vec<Vec<Value>> = (1..100).map(|k| if k % 5 == 0 { null_row(k) } else { typed_row(k) }).collect();
    rows[0][6] = Value::Double(f64::NAN);
    rows[1][5] = Value::Float(f32::NAN);
    let input: Vec<_> = rows.iter().enumerate().map(|(i, r)| (r.clone(), i as i64, INSERT)).collect();
    let mut settings = WriterSettings::defaults(23);
    settings.row_group_rows = 30;
    let (_, meta) = write(&layout, settings, &[batch(&layout, &input)], "data-a-0.parquet");
    assert_eq!(meta.value_stats_cols, None);
    let types: Vec<DataType> =
        schema.fields.iter().map(|f| DataType { nullable: true, ..f.data_type.clone() }).collect();
    let decode = |row| siltstone_format::binary_row::decode_row("stats", row, &types).unwrap();
    let (min, max) = (decode(&meta.value_stats.min), decode(&meta.value_stats.max));
    for column in 0..20 {
        let nulls = rows.iter().filter(|r| r[column].is_null()).count() as i64;
        assert_eq!(meta.value_stats.null_counts[column], Some(nulls), "column {column}");
        let unknown = [5, 6, 11, 19].contains(&column);
        assert_eq!(min[column].is_null(), unknown, "column {column}");
        for row in rows.iter().filter(|r| !unknown && !r[column].is_null()) {
            assert!(min[column].compare(&row[column]).is_le() && max[column].compare(&row[column]).is_ge(), "{column}");
        }
    }
    assert_eq!(meta.value_stats.null_counts[20], None, "nested columns are unknown");
    assert_eq!(min[10], Value::String("text number 1, l".into()));
    let time = |millis, nanos| Value::Timestamp { millis, nanos };
    assert_eq!([14, 15, 16].map(|i| min[i].clone()), [time(-99, 0), time(-99, 99_000), time(1, 1)]);
    assert_eq!([14, 15, 16].map(|i| max[i].clone()), [time(-1, 0), time(-1, 1_000), time(99, 99)]);
}

#[test]
fn row_groups_of_nulls_leave_a_column_its_range() {
    let schema = schema(&["BIGINT NOT NULL", "INT"], vec![], &[]);
    let layout = FileLayout::new(Arc::new(schema)).unwrap();
    let values = [Value::Null, Value::Null, Value::Int(7), Value::Int(3), Value::Null, Value::Null];
    let rows: Vec<_> = (0..).zip(values).map(|(k, value)| (vec![Value::BigInt(k), value], k, INSERT)).collect();
    let settings = WriterSettings { row_group_rows: 2, ..WriterSettings::defaults(2) };
    let (_, meta) = write(&layout, settings, &[batch(&layout, &rows)], "data-a-0.parquet");
    let types = ["BIGINT", "INT"].map(|text| DataType::parse(text).unwrap());
    let decode = |row| siltstone_format::binary_row::decode_row("stats", row, &types).unwrap();
    assert_eq!(decode(&meta.value_stats.min), [Value::BigInt(0), Value::Int(3)]);
    assert_eq!(decode(&meta.value_stats.max), [Value::BigInt(5), Value::Int(7)]);
    assert_eq!(meta.value_stats.null_counts, [Some(0), Some(4)]);
}

#[test]
fn the_first_column_of_a_key_is_bounded_by_the_first_and_last_key_whatever_its_type() {
    let column = Column::new("k", DataType::parse("BYTES").unwrap());
    let schema = TableSchema::create(vec![column], vec![], vec!["k".into()], Default::default(), None, 0).unwrap();
    let layout = FileLayout::new(Arc::new(schema)).unwrap();
    let rows: Vec<_> = (0..3).map(|k: u8| (vec![Value::Bytes(vec![k])], 1, INSERT)).collect();
    let (_, meta) = write(&layout, WriterSettings::defaults(1), &[batch(&layout, &rows)], "data-a-0.parquet");
    assert_eq!((meta.key_stats.min, meta.key_stats.max), (meta.min_key, meta.max_key));
}

#[test]
fn key_statistics_bound_each_column_of_a_composite_key_by_itself() {
    let columns = [("a", "STRING"), ("b", "INT"), ("c", "DOUBLE"), ("d", "BYTES")];
    let columns = columns.map(|(name, t)| Column::new(name, DataType::parse(t).unwrap()));
    let keys = columns.iter().map(|c| c.name.clone()).collect();
    let schema = TableSchema::create(columns.into(), vec![], keys, Default::default(), None, 0).unwrap();
    let layout = FileLayout::new(Arc::new(schema)).unwrap();
    let row = |a: &str, b, c| vec![Value::String(a.into()), Value::Int(b), Value::Double(c), Value::Bytes(vec![1])];
    let rows = [row("a", 7, 0.0), row("b", -3, f64::NAN), row("c", 9, 1.0), row("d", 5, 2.0)];
    let input: Vec<_> = rows.iter().map(|r| (r.clone(), 1, INSERT)).collect();
    let mut settings = WriterSettings::defaults(4);
    settings.row_group_rows = 2;
    let (_, meta) = write(&layout, settings, &[batch(&layout, &input)], "data-a-0.parquet");
    let types: Vec<DataType> = layout.key_types();
    let decode = |stored| siltstone_format::binary_row::decode_row("stats", stored, &types).unwrap();
    // NaN and bytes have no range, as in value statistics.
    let bounds = |a: &str, b| vec![Value::String(a.into()), Value::Int(b), Value::Null, Value::Null];
    assert_eq!((decode(&meta.key_stats.min), decode(&meta.key_stats.max)), (bounds("a", -3), bounds("d", 9)));
    assert_eq!(meta.key_stats.null_counts, [Some(0); 4]);
    assert_eq!((decode(&meta.min_key), decode(&meta.max_key)), (rows[0].clone(), rows[3].clone()));
}

#[test]
fn statistics_modes_leave_columns_out_densely() {
    let (_, layout) = all_types();
    let mut settings = WriterSettings::defaults(23);
    settings.stats = vec![StatsMode::None; 23];
    let rows = batch(&layout, &[(typed_row(1), 1, INSERT)]);
    let (_, none) = write(&layout, settings.clone(), std::slice::from_ref(&rows), "data-a-0.parquet");
    assert_eq!((none.value_stats_cols, none.value_stats.min.arity), (Some(vec![]), 0));
    settings.stats[4] = StatsMode::Full;
    settings.stats[5] = StatsMode::Counts;
    let (_, two) = write(&layout, settings, &[rows], "data-a-0.parquet");
    assert_eq!(two.value_stats_cols, Some(vec!["c4".to_owned(), "c5".to_owned()]));
    assert_eq!(two.value_stats.min.arity, 2);
}

#[test]
fn columns_follow_their_field_id_through_rename_widen_drop_and_re_add() {
    let old = schema(&["BIGINT NOT NULL", "INT", "STRING", "STRING"], vec![], &[]);
    let old_layout = FileLayout::new(Arc::new(old.clone())).unwrap();
    let row = vec![Value::BigInt(1), Value::Int(7), Value::String("gone".into()), Value::String("kept".into())];
    let (bytes, meta) =
        write(&old_layout, WriterSettings::defaults(4), &[batch(&old_layout, &[(row, 5, INSERT)])], "data-a-0.parquet");
    let mut new = old.clone();
    new.id = siltstone_format::id::SchemaId(1);
    new.fields[1].data_type = DataType::parse("BIGINT").unwrap(); // widened
    new.fields[2].id = siltstone_format::id::FieldId(9); // dropped and added again under its old name
    new.fields[3].name = "renamed".into();
    let layout = FileLayout::new(Arc::new(new)).unwrap();
    assert_eq!(
        read(&bytes, &meta, &old, &layout).unwrap(),
        [[Value::BigInt(1), Value::BigInt(7), Value::Null, Value::String("kept".into())]]
    );
}

#[test]
fn a_file_that_contradicts_its_entry_is_refused_by_name() {
    let (schema, layout) = all_types();
    let rows = batch(&layout, &[(typed_row(1), 5, INSERT), (typed_row(2), 6, INSERT)]);
    let (bytes, meta) = write(&layout, WriterSettings::defaults(23), &[rows], "data-a-0.parquet");
    let refused = |change: &dyn Fn(&mut DataFileMeta)| {
        let mut wrong = meta.clone();
        change(&mut wrong);
        read(&bytes, &wrong, &schema, &layout).unwrap_err().to_string()
    };
    assert!(refused(&|m| m.row_count = 3).contains("data-a-0.parquet"));
    assert!(refused(&|m| m.max_sequence_number = SequenceNumber(5)).contains("sequence number 6"));
    assert!(refused(&|m| m.file_name = "data-a-0.orc".into()).contains("not Parquet"));
    let unsorted = batch(&layout, &[(typed_row(2), 5, INSERT), (typed_row(1), 6, INSERT)]);
    let (bytes, meta) = write(&layout, WriterSettings::defaults(23), &[unsorted], "data-u-0.parquet");
    assert!(read(&bytes, &meta, &schema, &layout).unwrap_err().to_string().contains("ascend"));
}

#[test]
fn a_truncated_or_flipped_file_gives_an_error_and_never_a_panic() {
    let (schema, layout) = all_types();
    let rows: Vec<_> = (1..60).map(|k| (typed_row(k), k, INSERT)).collect();
    let (bytes, meta) = write(&layout, WriterSettings::defaults(23), &[batch(&layout, &rows)], "data-a-0.parquet");
    for cut in (0..bytes.len()).step_by(bytes.len() / 50) {
        assert!(read(&bytes.slice(..cut), &meta, &schema, &layout).is_err(), "cut at {cut}");
        let mut flipped = bytes.to_vec();
        flipped[cut] ^= 0x10;
        let _ = read(&Bytes::from(flipped), &meta, &schema, &layout); // may still decode: Parquet has no page checksums here
    }
}

#[test]
fn a_batch_is_split_by_bucket_sorted_and_merged_with_its_changelog() {
    let schema = schema(&["BIGINT NOT NULL", "STRING"], vec![], &[("bucket", "4")]);
    let layout = FileLayout::new(Arc::new(schema.clone())).unwrap();
    let bucketer = || Bucketer::new(layout.key_types(), BucketFunction::default(), 4).unwrap();
    let splitter = Splitter::new(&layout, bucketer(), true).unwrap();
    let row = |k: i64, v: &str| vec![Value::BigInt(k), Value::String(v.to_owned())];
    let rows: Vec<_> = (0..100)
        .map(|i| (row(i % 10, &format!("v{i}")), 1000 + i, INSERT))
        .chain([(row(3, "x"), 2000, DELETE), (row(4, "y"), 2001, UPDATE_BEFORE)])
        .collect();
    let input = batch(&layout, &rows);
    let (mut seen, mut logged) = (Vec::new(), 0);
    for touched in splitter.split(&input).unwrap() {
        let bucket = touched.bucket;
        let out = splitter.bucket_rows(&input, touched).unwrap();
        logged += out.changelog.as_ref().unwrap().len();
        for i in 0..out.rows.len() {
            let cells = row_at(&out.rows.values, &[0, 1], i);
            assert_eq!(bucketer().bucket(&cells[..1]).unwrap(), bucket);
            seen.push((cells, out.rows.kind.value(i)));
        }
    }
    seen.sort_by(|a, b| a.0[0].compare(&b.0[0]));
    assert_eq!(logged, 102);
    assert_eq!(seen.len(), 10);
    assert_eq!(seen[0], (row(0, "v90"), INSERT));
    assert_eq!(seen[3], (row(3, "x"), DELETE));
    assert_eq!(seen[4], (row(4, "y"), DELETE), "a key that ends in -U is gone");
}

#[test]
fn ten_thousand_partitions_are_ten_thousand_groups_written_one_at_a_time() {
    let columns =
        vec![Column::new("p", DataType::parse("INT").unwrap()), Column::new("k", DataType::parse("INT").unwrap())];
    let schema =
        TableSchema::create(columns, vec!["p".into()], vec!["p".into(), "k".into()], Default::default(), None, 0)
            .unwrap();
    let layout = FileLayout::new(Arc::new(schema)).unwrap();
    let bucketer = Bucketer::new(layout.key_types(), BucketFunction::default(), 1).unwrap();
    let splitter = Splitter::new(&layout, bucketer, false).unwrap();
    let rows: Vec<_> =
        (0..20_000).map(|i| (vec![Value::Int(i % 10_000), Value::Int(i)], i64::from(i), INSERT)).collect();
    let touched = splitter.split(&batch(&layout, &rows)).unwrap();
    assert_eq!(touched.len(), 10_000);
    assert!(touched.iter().any(|t| t.partition == [Value::Int(7)]));
}

/// Files in memory by name, opened as the table's rows.
fn opener(files: HashMap<String, Bytes>, schema: TableSchema, layout: FileLayout) -> OpenFile<'static> {
    Arc::new(move |meta: &DataFileMeta| {
        let bytes = files.get(&meta.file_name).cloned().unwrap_or_default();
        reader::open(bytes, meta, &schema, &layout).map(|b| Box::new(b) as RunBatches<'static>)
    })
}

#[test]
fn a_compaction_gives_the_same_rows_in_rolled_disjoint_files() {
    let schema = schema(&["BIGINT NOT NULL", "STRING"], vec![], &[]);
    let layout = FileLayout::new(Arc::new(schema.clone())).unwrap();
    let (mut files, mut metas, mut newest) = (HashMap::new(), Vec::new(), std::collections::BTreeMap::new());
    let mut settings = WriterSettings::defaults(2);
    settings.row_group_rows = 1_000;
    for run in 0..5i64 {
        let rows: Vec<_> = (0..6_000i64)
            .filter(|k| (k * 31 + run) % 3 == 0)
            .map(|k| {
                let kind = if (k + run) % 11 == 0 { DELETE } else { INSERT };
                let text = format!("{}-{}", k.wrapping_mul(6_364_136_223_846_793_005), run);
                newest.insert(k, (kind, text.clone()));
                (vec![Value::BigInt(k), Value::String(text)], run * 100_000 + k, kind)
            })
            .collect();
        let name = format!("data-{run}-0.parquet");
        let (bytes, meta) = write(&layout, settings.clone(), &[batch(&layout, &rows)], &name);
        files.insert(name, bytes);
        metas.push(meta);
    }
    settings.target_file_bytes = 20_000;
    let keys = |a: &_, b: &_| siltstone_format::compare::KeyComparator::new(layout.key_types()).compare(a, b);
    let groups = vec![sections(metas, &keys)];
    let mut number = 0;
    let mut job = CompactionJob::new(
        &layout,
        Arc::new(settings),
        MergeSettings { drop_deletes: DropDeletes::All, batch_rows: 500, ..MergeSettings::default() },
        Level(5),
        groups,
        opener(files, schema.clone(), layout.clone()),
        Box::new(move || {
            number += 1;
            (format!("data-out-{number}.parquet"), 99)
        }),
    );
    let (mut current, mut out, mut rows): (Vec<u8>, Vec<DataFileMeta>, Vec<Vec<Value>>) = Default::default();
    let stats = loop {
        match job.step().unwrap() {
            CompactStep::Bytes(bytes) => current.extend_from_slice(&bytes),
            CompactStep::FileDone(bytes, meta) => {
                current.extend_from_slice(&bytes);
                assert_eq!(current.len() as i64, meta.file_size);
                rows.extend(read(&Bytes::from(std::mem::take(&mut current)), &meta, &schema, &layout).unwrap());
                out.push(*meta);
            }
            CompactStep::Finished(stats) => break stats,
        }
    };
    let want: Vec<Vec<Value>> = newest
        .into_iter()
        .filter(|(_, (kind, _))| *kind == INSERT)
        .map(|(k, (_, text))| vec![Value::BigInt(k), Value::String(text)])
        .collect();
    assert_eq!(rows, want);
    assert_eq!((stats.rows_in, stats.rows_out), (10_000, want.len() as u64));
    assert!(out.len() > 2, "rolled into {} files", out.len());
    assert!(out.iter().all(|f| f.level == Level(5) && f.delete_row_count == Some(0)));
    crate::run::SortedRun::new(out, &keys).unwrap();
}
