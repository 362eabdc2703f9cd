//! 6 MB of Debezium JSON, about what one event carries, with and without the schema envelope: decoded into typed rows.
//!
//! Run: `cargo bench -p siltstone-decode`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a bench fails by panicking, and criterion's macros make undocumented functions"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value as Json, json};
use siltstone_decode::{Decoded, Decoder, DecoderConfig, config::Format};
use siltstone_format::{
    schema::{Column, TableSchema},
    types::DataType,
};

const EVENT_BYTES: usize = 6_000_000;

fn decoder() -> Decoder {
    let columns = [("id", "BIGINT"), ("customer", "STRING"), ("amount", "DECIMAL(12, 2)"), ("at", "TIMESTAMP(3)")];
    let columns = columns.iter().map(|(n, t)| Column::new(*n, DataType::parse(t).unwrap())).collect();
    let table = TableSchema::create(columns, vec![], vec!["id".to_owned()], Default::default(), None, 0).unwrap();
    Decoder::new(&table, &DecoderConfig { format: Format::DebeziumJson, ..DecoderConfig::default() }).unwrap()
}

fn message(id: usize) -> Json {
    let row = |amount: &str| json!({"id": id, "customer": format!("Customer#{id:09}"), "amount": amount, "at": 1_700_000_000_000_i64});
    json!({"before": row("10.00"), "after": row("12.50"), "op": "u", "ts_ms": 1_700_000_000_500_i64,
        "source": {"version": "3.1.1.Final", "connector": "postgresql", "name": "shop", "db": "shop", "table": "orders", "lsn": id}})
}

fn enveloped(id: usize) -> Json {
    let field = |name: &str, kind: &str| json!({"type": kind, "optional": true, "field": name});
    let fields = json!([field("id", "int64"), field("customer", "string"), field("amount", "string"),
        {"type": "int64", "name": "io.debezium.time.Timestamp", "version": 1, "field": "at"}]);
    let row = |name: &str| json!({"type": "struct", "fields": fields, "optional": true, "field": name});
    json!({"schema": {"type": "struct", "fields": [row("before"), row("after")]}, "payload": message(id)})
}

fn event(make: fn(usize) -> Json) -> Vec<Vec<u8>> {
    let mut total = 0;
    let records = (0..).map(|id| make(id).to_string().into_bytes());
    records
        .take_while(|record| {
            total += record.len();
            total <= EVENT_BYTES
        })
        .collect()
}

fn decode(c: &mut Criterion) {
    let decoder = decoder();
    let mut group = c.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Bytes(EVENT_BYTES as u64));
    for (name, make) in [("debezium", message as fn(usize) -> Json), ("debezium-with-envelope", enveloped)] {
        let records = event(make);
        group.bench_with_input(BenchmarkId::new(name, records.len()), &records, |b, records| {
            b.iter(|| {
                let mut guard = decoder.batch_guard();
                for record in records {
                    match guard.decode(black_box(record), 1_700_000_000_000) {
                        Decoded::Changes(changes) => black_box(changes),
                        other => panic!("{other:?}"),
                    };
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
