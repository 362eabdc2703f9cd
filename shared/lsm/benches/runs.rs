//! Runs written and merged: rows of an orders table through the run writer, and through merges of 2 to 128 overlapping runs.
//!
//! Run: `cargo bench -p siltstone-lsm`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking, and criterion's macros make undocumented functions"
)]

use std::{hint::black_box, sync::Arc};

use arrow::array::{Int8Array, Int64Array};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siltstone_format::{
    data_file::FileSource,
    id::Level,
    schema::{Column, TableSchema},
    types::DataType,
    value::Value,
};
use siltstone_lsm::{
    batch::KeyValueBatch,
    layout::FileLayout,
    merge::{DropDeletes, Merge, MergeSettings, RunBatches},
    rows::batch_of,
    writer::{RunWriter, WriterSettings},
};

const COLUMNS: [(&str, &str); 7] = [
    ("order_id", "BIGINT"),
    ("customer", "STRING"),
    ("status", "STRING"),
    ("amount", "DECIMAL(12, 2)"),
    ("quantity", "INT"),
    ("updated_at", "TIMESTAMP(3)"),
    ("comment", "STRING"),
];
const WRITTEN: u64 = 200_000;
const MERGED: u64 = 400_000;
const BATCH: usize = 8_192;

fn layout() -> FileLayout {
    let columns = COLUMNS.iter().map(|(n, t)| Column::new(*n, DataType::parse(t).unwrap())).collect();
    let table = TableSchema::create(columns, vec![], vec!["order_id".to_owned()], Default::default(), None, 0).unwrap();
    FileLayout::new(Arc::new(table)).unwrap()
}

/// A sequence of numbers that looks like chance and is the same in every run.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    n ^ (n >> 29)
}

fn row(key: u64, version: u64) -> Vec<Value> {
    let luck = mixed(key ^ (version << 40));
    vec![
        Value::BigInt(key as i64),
        Value::String(format!("Customer#{:09}", luck % 150_000)),
        Value::String(["O", "F", "P"][(luck % 3) as usize].to_owned()),
        Value::Decimal(i128::from(luck % 50_000_000)),
        Value::Int((luck % 50) as i32),
        Value::Timestamp { millis: 1_700_000_000_000 + (luck % 86_400_000) as i64, nanos: 0 },
        Value::String(format!("carefully packed {luck:016x} requests {:08x}", luck % 997)),
    ]
}

/// A run of every `step`th key, as batches.
fn run(layout: &FileLayout, rows: u64, step: u64, version: u64) -> Vec<KeyValueBatch> {
    let keys: Vec<u64> = (0..rows).map(|i| i * step + mixed(i ^ version) % step).collect();
    keys.chunks(BATCH)
        .map(|keys| {
            let rows: Vec<Vec<Value>> = keys.iter().map(|key| row(*key, version)).collect();
            let sequence = Int64Array::from_iter_values(keys.iter().map(|_| version as i64));
            let kind = Int8Array::from_iter_values(keys.iter().map(|_| 0));
            KeyValueBatch::new(batch_of(layout, &rows).unwrap(), sequence, kind).unwrap()
        })
        .collect()
}

fn write(c: &mut Criterion) {
    let layout = layout();
    let batches = run(&layout, WRITTEN, 4, 1);
    let settings = Arc::new(WriterSettings::defaults(COLUMNS.len()));
    let mut group = c.benchmark_group("write");
    group.sample_size(20).throughput(Throughput::Elements(WRITTEN));
    group.bench_function("run", |b| {
        b.iter(|| {
            let mut writer = RunWriter::new(&layout, settings.clone(), Level(0), FileSource::Append).unwrap();
            for batch in &batches {
                writer.write(batch).unwrap();
            }
            black_box(writer.finish("data-bench.parquet".to_owned(), 0).unwrap())
        });
    });
    group.finish();
}

fn merge(c: &mut Criterion) {
    let layout = layout();
    let mut group = c.benchmark_group("merge");
    group.sample_size(20).throughput(Throughput::Elements(MERGED));
    for fan_in in [2_u64, 8, 32, 128] {
        let runs: Vec<_> = (0..fan_in).map(|n| run(&layout, MERGED / fan_in, fan_in, n + 1)).collect();
        group.bench_function(BenchmarkId::new("fan-in", fan_in), |b| {
            b.iter(|| {
                let inputs: Vec<RunBatches<'_>> =
                    runs.iter().rev().map(|r| Box::new(r.iter().cloned().map(Ok)) as RunBatches<'_>).collect();
                let settings = MergeSettings { drop_deletes: DropDeletes::All, ..MergeSettings::default() };
                let rows: usize =
                    Merge::new(&layout, inputs, settings).unwrap().map(|batch| batch.unwrap().len()).sum();
                black_box(rows)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, write, merge);
criterion_main!(benches);
