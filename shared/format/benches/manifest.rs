//! Manifests read and written at 1,000 and 100,000 entries, beside `arrow-avro` reading the same bytes into columns.
//!
//! Run: `cargo bench -p siltstone-format`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking, and criterion's macros make undocumented functions"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siltstone_format::{
    binary_row::encode_row,
    data_file::{DataFileMeta, FileSource, SimpleStats, StoredRow},
    id::{Bucket, Level, SchemaId, SequenceNumber},
    manifest::{FileKind, ManifestEntry, decode_manifest, encode_manifest},
    types::DataType,
    value::Value,
};

fn row(key: i64) -> StoredRow {
    encode_row(&[Value::BigInt(key)], &[DataType::parse("BIGINT NOT NULL").unwrap()]).unwrap()
}

fn entry(i: i64) -> ManifestEntry {
    let (min, max) = (row(i * 1000), row(i * 1000 + 999));
    ManifestEntry {
        kind: FileKind::Add,
        partition: encode_row(&[Value::Date(20_000 + (i % 30) as i32)], &[DataType::parse("DATE").unwrap()]).unwrap(),
        bucket: Bucket((i % 16) as i32),
        total_buckets: 16,
        file: DataFileMeta {
            file_name: format!("data-5f1c2a7e-0b0e-4c63-9a51-2f0f8f3f{:04x}-{i}.parquet", i % 65_536),
            file_size: 4_000_000 + i,
            row_count: 1000,
            key_stats: SimpleStats { min: min.clone(), max: max.clone(), null_counts: vec![Some(0)] },
            min_key: min,
            max_key: max,
            value_stats: SimpleStats::empty(),
            min_sequence_number: SequenceNumber(i << 21),
            max_sequence_number: SequenceNumber((i << 21) + 999),
            schema_id: SchemaId(0),
            level: Level(0),
            extra_files: Vec::new(),
            creation_time_ms: Some(1_700_000_000_000 + i),
            delete_row_count: Some(0),
            embedded_index: None,
            file_source: Some(FileSource::Append),
            value_stats_cols: Some(Vec::new()),
            external_path: None,
            first_row_id: None,
            write_cols: None,
        },
    }
}

fn manifests(c: &mut Criterion) {
    let mut group = c.benchmark_group("manifest");
    group.sample_size(20);
    for count in [1_000_i64, 100_000] {
        let entries: Vec<_> = (0..count).map(entry).collect();
        let bytes = encode_manifest(&entries).unwrap();
        group.throughput(Throughput::Elements(count.unsigned_abs()));
        group.bench_with_input(BenchmarkId::new("write", count), &entries, |b, entries| {
            b.iter(|| encode_manifest(black_box(entries)).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("read", count), &bytes, |b, bytes| {
            b.iter(|| decode_manifest("m", black_box(bytes)).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("arrow-avro into columns", count), &bytes, |b, bytes| {
            b.iter(|| {
                let reader =
                    arrow_avro::reader::ReaderBuilder::new().with_batch_size(8192).build(std::io::Cursor::new(bytes));
                reader.unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, manifests);
criterion_main!(benches);
