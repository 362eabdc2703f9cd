//! A table in memory, fed by hand: what the tests of the use-cases stand on.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::json;
use siltstone_commit::context::Authority;
use siltstone_decode::{DecoderConfig, config::Format};
use siltstone_format::{
    id::{FieldId, SchemaId},
    options::Purpose,
    schema::{Field, TableSchema},
    value::Value,
};
use siltstone_store::{
    ids::SeededIds,
    memory::{FaultPlan, Faulty, ManualClock, MemoryItemStore, MemoryObjectStore},
    object::{ObjectStore, PutMode},
};
use siltstone_table::{
    Ports, Table, TableRef,
    catalog::{self, NewTable},
    compact::{self, CompactRequest, Compacted},
    ingest::{Ingest, StreamBatch, StreamRecord},
    scan::{ScanRequest, scan},
    settings::{CompactLimits, Feed, IngestLimits},
};

pub const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
pub const START: i64 = 1_700_000_000_000;
pub const FAR: i64 = START + 900_000_000;

pub struct World {
    pub ports: Ports,
    pub clock: Arc<ManualClock>,
    pub at: TableRef,
}

pub async fn world(partition: bool, options: &[(&str, &str)]) -> World {
    world_of(partition, options, 7).await
}

/// A world whose ids come from a seed of its own.
pub async fn world_of(partition: bool, options: &[(&str, &str)], seed: u64) -> World {
    world_with(&new_table(partition, options), seed).await
}

/// A world with a table of its own.
pub async fn world_with(table: &NewTable, seed: u64) -> World {
    let clock = Arc::new(ManualClock::new(START));
    let objects = Arc::new(MemoryObjectStore::with_clock("lake", clock.clone()));
    world_over(objects, clock, table, seed).await
}

/// A world whose objects are elsewhere.
pub async fn world_over(objects: Arc<dyn ObjectStore>, clock: Arc<ManualClock>, table: &NewTable, seed: u64) -> World {
    let ports = Ports {
        objects,
        items: Arc::new(MemoryItemStore::new()),
        clock: clock.clone(),
        ids: Arc::new(SeededIds::new(seed)),
    };
    let name = if seed == 7 { "demo.orders" } else { "demo.others" };
    let at = TableRef::new("wh", name.parse().unwrap());
    catalog::create(&ports, &at, table).await.unwrap();
    let decoder = DecoderConfig { format: Format::Json, op_field: Some("op".into()), ..DecoderConfig::default() };
    Feed { stream_arn: STREAM.to_owned(), decoder }.save(&ports, &at).await.unwrap();
    World { ports, clock, at }
}

pub fn new_table(partition: bool, options: &[(&str, &str)]) -> NewTable {
    let key = if partition { vec!["dt", "id"] } else { vec!["id"] };
    NewTable {
        columns: [("id", "BIGINT"), ("note", "STRING"), ("dt", "STRING")]
            .map(|(n, t)| (n.to_owned(), t.to_owned()))
            .into(),
        partition_keys: if partition { vec!["dt".to_owned()] } else { vec![] },
        primary_keys: key.into_iter().map(str::to_owned).collect(),
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        comment: None,
    }
}

pub fn batch(first: u64, rows: &[serde_json::Value]) -> StreamBatch {
    let raw: Vec<Bytes> = rows.iter().map(|r| Bytes::from(r.to_string())).collect();
    raw_batch(first, &raw)
}

pub fn raw_batch(first: u64, rows: &[Bytes]) -> StreamBatch {
    let records = rows
        .iter()
        .enumerate()
        .map(|(i, data)| StreamRecord {
            sequence: format!("4959033827149025660855969253836157109592157598913658{:04}", first + i as u64),
            arrival_ms: START + (first as i64 + i as i64),
            partition_key: "k".into(),
            data: data.clone(),
        })
        .collect();
    StreamBatch { stream_arn: STREAM.to_owned(), shard: "shardId-000000000000".into(), records }
}

pub fn row(id: i64, note: &str) -> serde_json::Value {
    json!({"id": id, "note": note, "dt": "2023-11-14"})
}

impl World {
    /// The same world, for another use of it.
    pub fn again(&self) -> Self {
        Self { ports: self.ports.clone(), clock: self.clock.clone(), at: self.at.clone() }
    }

    pub fn clock_ms(&self) -> i64 {
        self.ports.clock.now_ms()
    }

    /// Of the pointer: grows by one with each write.
    pub async fn revision(&self) -> u64 {
        self.open().await.pointer().await.unwrap().rev
    }

    pub fn ingest(&self) -> Ingest {
        Ingest::new(self.ports.clone(), self.at.clone(), None, IngestLimits::default())
    }

    /// The same world behind a plan of faults.
    pub fn faulty(&self, plan: &FaultPlan) -> Ingest {
        Ingest::new(self.faulty_ports(plan), self.at.clone(), None, IngestLimits::default())
    }

    /// Its ports behind a plan of faults.
    pub fn faulty_ports(&self, plan: &FaultPlan) -> Ports {
        Ports {
            objects: Arc::new(Faulty::new(self.ports.objects.clone(), plan.clone())),
            items: Arc::new(Faulty::new(self.ports.items.clone(), plan.clone())),
            ..self.ports.clone()
        }
    }

    pub async fn open(&self) -> Table {
        Table::open(&self.ports, &self.at, Authority::Pointer, Purpose::Compact).await.unwrap()
    }

    pub async fn rows(&self, snapshot: Option<i64>) -> Vec<(i64, String)> {
        let table = self.open().await;
        let request = ScanRequest { version: snapshot.into(), ..ScanRequest::default() };
        let mut rows = Vec::new();
        scan(&table, &request, |row| {
            match &row.values[..2] {
                [Value::BigInt(id), Value::String(note)] => rows.push((*id, note.clone())),
                other => panic!("{other:?}"),
            }
            true
        })
        .await
        .unwrap();
        rows.sort();
        rows
    }

    /// What another engine's ALTER TABLE leaves: one schema more, with a nullable STRING column at the end.
    pub async fn add_column(&self, name: &str) {
        let table = self.open().await;
        let mut schema = TableSchema::clone(&table.schema);
        let id = schema.highest_field_id + 1;
        schema.id = SchemaId(schema.id.0 + 1);
        schema.highest_field_id = id;
        schema.fields.push(Field { id: FieldId(id), ..schema.fields[1].clone() });
        schema.fields.last_mut().unwrap().name = name.to_owned();
        let key = table.location.schema(schema.id);
        self.ports.objects.put(&key, schema.to_json().into(), PutMode::IfAbsent).await.unwrap();
    }

    /// What another engine's ALTER TABLE leaves that sets an option: one schema more.
    pub async fn set_option(&self, name: &str, value: &str) {
        let table = self.open().await;
        let mut schema = TableSchema::clone(&table.schema);
        schema.id = SchemaId(schema.id.0 + 1);
        schema.options.insert(name.to_owned(), value.to_owned());
        let key = table.location.schema(schema.id);
        self.ports.objects.put(&key, schema.to_json().into(), PutMode::IfAbsent).await.unwrap();
    }

    /// Values of all rows, sorted by the first.
    pub async fn values(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        scan(&self.open().await, &ScanRequest::default(), |row| {
            rows.push(row.values);
            true
        })
        .await
        .unwrap();
        rows.sort_by_key(|row| format!("{:?}", row[0]));
        rows
    }

    pub async fn compact_all(&self, request: CompactRequest) -> Vec<Compacted> {
        let table = self.open().await;
        let mut out = Vec::new();
        for (partition, bucket, _) in compact::buckets(&table).await.unwrap() {
            let limits = CompactLimits { lateness_ms: 0, ..CompactLimits::default() };
            out.push(compact::compact_bucket(&table, &partition, bucket, request, &limits, FAR).await.unwrap());
        }
        out
    }
}
