//! `demo.orders` in memory, as the sample events of `events/` mean it: a bucket named `lake`, a warehouse at its root, Debezium JSON.
//!
//! Neighbours: the handler tests of all three functions take this file. Invariants: 1. the clock stands after the last arrival of the
//! samples; 2. each sample, in the order of [`SAMPLES`], is one commit: the fifth makes the task that `compact-task.json` names.
#![allow(dead_code, reason = "each function's tests use their part")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};
use siltstone_format::value::Value;
use siltstone_store::{
    ids::SeededIds,
    memory::{ManualClock, MemoryItemStore, MemoryObjectStore, MemoryStreams},
    meter::{Meter, Metered},
    stream::StreamAdmin,
};
use siltstone_table::{
    Authority, Ports, Purpose, Table,
    catalog::{self, NewTable},
    compact,
    ingest::{Ingest, StreamBatch, StreamRecord},
    scan::{ScanRequest, ScannedRow, scan},
    settings::{Feed, FunctionSettings, IngestLimits},
};

/// The page of the function under test.
const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
pub(crate) const STREAM: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
/// 2025-06-02T08:30:00Z: after everything in the samples.
pub(crate) const START: i64 = 1_748_853_000_000;
/// A deadline that nothing reaches, also where every poll of a waiting task moves the clock.
pub(crate) const FAR: i64 = i64::MAX;
/// The samples that each make a snapshot, in stream order.
pub(crate) const SAMPLES: [&str; 5] =
    ["ingest-normal", "ingest-duplicate", "ingest-poison", "ingest-kpl", "ingest-after-split"];
/// The object that `compact-task.json` names.
pub(crate) const TASK: &str = "_siltstone/tasks/demo.db/orders/bucket-0/00000000000000000005-0.json";

/// A committed sample, as text.
pub(crate) fn sample(name: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../events")).join(format!("{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn sample_json(name: &str) -> Json {
    serde_json::from_str(&sample(name)).unwrap()
}

/// A sample as the batch that `ingest` makes of it.
pub(crate) fn batch(name: &str) -> StreamBatch {
    let event = sample_json(name);
    let text = |v: &Json| v.as_str().unwrap().to_owned();
    let records = event["Records"].as_array().unwrap();
    let shard = text(&records[0]["eventID"]).split(':').next().unwrap().to_owned();
    let records = records
        .iter()
        .map(|r| &r["kinesis"])
        .map(|k| StreamRecord {
            sequence: text(&k["sequenceNumber"]),
            arrival_ms: (k["approximateArrivalTimestamp"].as_f64().unwrap() * 1000.0).round() as i64,
            partition_key: text(&k["partitionKey"]),
            data: STANDARD.decode(text(&k["data"])).unwrap().into(),
        })
        .collect();
    StreamBatch { stream_arn: STREAM.to_owned(), shard, records }
}

/// Settings as read from an environment that says `more` beside the table's place.
pub(crate) fn settings(more: &[(&str, &str)]) -> FunctionSettings {
    let fixed = [
        ("SILTSTONE_BUCKET", "lake"),
        ("SILTSTONE_WAREHOUSE", ""),
        ("SILTSTONE_TABLE", "demo.orders"),
        ("SILTSTONE_REQUIRE_MAPPING", "false"),
    ];
    let value = |name: &str| more.iter().chain(&fixed).find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    FunctionSettings::read(value).unwrap()
}

pub(crate) struct World {
    pub(crate) ports: Ports,
    /// Counts the requests to objects and items.
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) streams: Arc<MemoryStreams>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(&[], &[]).await
    }

    /// A table with these partition columns and options, and a stream of one shard.
    pub(crate) async fn with(partition: &[&str], options: &[(&str, &str)]) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let meter = Meter::new();
        let ports = Ports {
            objects: Arc::new(Metered::new(MemoryObjectStore::with_clock("lake", clock.clone()), meter.clone())),
            items: Arc::new(Metered::new(MemoryItemStore::new(), meter.clone())),
            clock: clock.clone(),
            ids: Arc::new(SeededIds::new(11)),
        };
        let streams = Arc::new(MemoryStreams::with_clock(clock.clone()));
        streams.create("orders", 1).await.unwrap();
        let world = Self { ports, meter, clock, streams };
        world.create(partition, options).await;
        world
    }

    /// Creates the table, also one that was dropped.
    pub(crate) async fn create(&self, partition: &[&str], options: &[(&str, &str)]) {
        let columns = [
            ("order_id", "BIGINT"),
            ("customer", "STRING"),
            ("status", "STRING"),
            ("amount", "DECIMAL(12, 2)"),
            ("ordered", "DATE"),
            ("updated_at", "TIMESTAMP(3)"),
        ];
        let table = NewTable {
            columns: columns.map(|(n, t)| (n.to_owned(), t.to_owned())).into(),
            partition_keys: partition.iter().map(|c| (*c).to_owned()).collect(),
            primary_keys: partition.iter().copied().chain(["order_id"]).map(str::to_owned).collect(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            comment: None,
        };
        let at = settings(&[]).table;
        catalog::create(&self.ports, &at, &table).await.unwrap();
        let decoder = serde_json::from_value(json!({"format": "debezium-json"})).unwrap();
        Feed { stream_arn: STREAM.to_owned(), decoder }.save(&self.ports, &at).await.unwrap();
    }

    /// Splits the stream's shard: its children are the shards 1 and 2.
    pub(crate) async fn split(&self) {
        self.streams.split("orders", "shardId-000000000000", 1 << 127).await.unwrap();
    }

    /// Commits every sample, one snapshot each.
    pub(crate) async fn commit_samples(&self) {
        self.split().await;
        let streams: Arc<dyn StreamAdmin> = self.streams.clone();
        let ingest = Ingest::new(self.ports.clone(), settings(&[]).table, Some(streams), IngestLimits::default());
        for (number, name) in (1..).zip(SAMPLES) {
            let report = ingest.handle(&batch(name), FAR).await.unwrap();
            assert_eq!(report.snapshot, Some(number), "{name}");
        }
    }

    pub(crate) async fn table(&self) -> Table {
        Table::open(&self.ports, &settings(&[]).table, Authority::Pointer, Purpose::Read).await.unwrap()
    }

    /// The table's rows by order number.
    pub(crate) async fn scanned(&self) -> Vec<ScannedRow> {
        let mut rows = Vec::new();
        scan(&self.table().await, &ScanRequest::default(), |row| {
            rows.push(row);
            true
        })
        .await
        .unwrap();
        rows.sort_by_key(id_of);
        rows
    }

    /// Order number and status of every row.
    pub(crate) async fn orders(&self) -> Vec<(i64, String)> {
        let status = |row: &ScannedRow| match &row.values[2] {
            Value::String(status) => status.clone(),
            other => panic!("{other:?}"),
        };
        self.scanned().await.iter().map(|row| (id_of(row), status(row))).collect()
    }

    /// Runs of each bucket.
    pub(crate) async fn runs(&self) -> Vec<usize> {
        compact::buckets(&self.table().await).await.unwrap().into_iter().map(|(_, _, runs)| runs).collect()
    }

    pub(crate) async fn snapshot(&self) -> Option<i64> {
        self.table().await.current().await.unwrap().map(|snapshot| snapshot.id.0)
    }

    /// Revision of the pointer: grows with every write that took effect.
    pub(crate) async fn rev(&self) -> u64 {
        self.table().await.pointer().await.unwrap().rev
    }

    pub(crate) async fn exists(&self, key: &str) -> bool {
        self.ports.objects.head(key).await.is_ok()
    }
}

fn id_of(row: &ScannedRow) -> i64 {
    match &row.values[0] {
        Value::BigInt(id) => *id,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn orders(list: &[(i64, &str)]) -> Vec<(i64, String)> {
    list.iter().map(|(id, status)| (*id, (*status).to_owned())).collect()
}

/// What all samples together leave in the table.
pub(crate) fn all_orders() -> Vec<(i64, String)> {
    orders(&[
        (1, "P"),
        (2, "F"),
        (4, "O"),
        (5, "O"),
        (6, "O"),
        (10, "O"),
        (11, "F"),
        (12, "O"),
        (20, "O"),
        (30, "O"),
        (31, "O"),
    ])
}

/// Takes the metrics of one invocation.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<Option<String>>);

impl Metrics {
    pub(crate) fn take(&self) -> impl FnOnce(String) + '_ {
        |line| assert!(self.0.lock().unwrap().replace(line).is_none(), "one document an invocation")
    }

    /// The document, if there was one: one line, and each metric that it declares has a value and stands in the README with its unit.
    pub(crate) fn document(&self) -> Option<Json> {
        let line = self.0.lock().unwrap().take()?;
        assert!(!line.contains('\n'), "{line}");
        let document: Json = serde_json::from_str(&line).unwrap();
        let declared = &document["_aws"]["CloudWatchMetrics"][0];
        assert_eq!((&declared["Namespace"], &document["Table"]), (&json!("Siltstone"), &json!("demo.orders")));
        for metric in declared["Metrics"].as_array().unwrap() {
            let (name, unit) = (metric["Name"].as_str().unwrap(), metric["Unit"].as_str().unwrap());
            assert!(document[name].is_number(), "{name} has no value");
            let row = README.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
            assert!(row.is_some_and(|row| row.contains(unit)), "README.md: {name} in {unit}");
        }
        Some(document)
    }
}

/// A metric's value as a whole number.
pub(crate) fn value(document: &Json, name: &str) -> u64 {
    document[name].as_f64().unwrap_or_else(|| panic!("no metric {name} in {document}")) as u64
}

/// Every value in `part` stands in `whole` at the same place; numbers are compared by value (`0.10` is `0.1`).
pub(crate) fn assert_part(part: &Json, whole: &Json, at: &str) {
    match (part, whole) {
        (Json::Object(part), Json::Object(whole)) => {
            for (name, value) in part {
                assert_part(value, whole.get(name).unwrap_or(&Json::Null), &format!("{at}.{name}"));
            }
        }
        (Json::Array(part), Json::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{at}");
            for (n, (part, whole)) in part.iter().zip(whole).enumerate() {
                assert_part(part, whole, &format!("{at}[{n}]"));
            }
        }
        (Json::Number(part), Json::Number(whole)) => assert_eq!(part.as_f64(), whole.as_f64(), "{at}"),
        _ => assert_eq!(part, whole, "{at}"),
    }
}
