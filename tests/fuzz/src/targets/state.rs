//! The state that Siltstone keeps itself: the pointer's item, packed checkpoints, the table of sequence slots, quarantine lines, tasks.
//!
//! Below: `commit`, `decode`, `table`. An item is JSON here: attributes as `{"N": 1}`, `{"S": "text"}` or `{"B": "hex"}`.
//! Invariant: 1. packed forms are canonical: equal values give equal bytes.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use siltstone_commit::{
    changes::ChangeId,
    checkpoint::{Checkpoints, ListId, Position, ShardId, ShardRange},
    context::{Incarnation, TableLocation},
    io::{Attr, ItemRecord},
    pointer::Pointer,
    sequence::{SlotTable, first_of},
};
use siltstone_decode::quarantine::QuarantinedRecord;
use siltstone_format::{data_file::StoredRow, id::SchemaId, snapshot::Snapshot};
use siltstone_table::debt::CompactTask;

use super::{Memory, Outcome, Target, always, survives, tables::JSON, texts_of};
use crate::{corpus::Corpus, driver::hex, mutate::Shape};

const PACKED: Memory = Memory { per_byte: 400, constant: 64 << 10 };
const WORDS: &[&str] = &[
    "protocol",
    "incarnation",
    "table_uuid",
    "state",
    "version",
    "snapshot",
    "schema_id",
    "checkpoints",
    "checkpoints_object",
    "earliest",
    "published",
    "sweep_cutoff",
    "floor",
    "change_ids",
    "active",
    "paused",
    "forked",
    "N",
    "S",
    "B",
    "rev",
    "stream",
    "shard",
    "sequence",
    "subSequence",
    "arrivalMs",
    "partitionKey",
    "number",
    "schemaId",
    "reject",
    "code",
    "column",
    "detail",
    "data",
    "table",
    "warehouse",
    "bucket",
    "partition",
    "partitionArity",
    "version",
    "hops",
    "+f",
];

pub(super) fn targets(corpus: &Corpus) -> Vec<Target> {
    let target = |name, shape, memory, seeds, run| Target { name, shape, words: WORDS, memory, seeds, run };
    let [pointers, packed, slots] = seeds(corpus);
    let lines = texts_of(&[
        r#"{"stream":"arn:aws:kinesis:eu-west-1:1:stream/s","shard":"shardId-000000000001","sequence":"49590338271490256608559692538361571095921575989136588898","subSequence":3,"arrivalMs":1700000000000,"partitionKey":"k","number":7,"schemaId":0,"reject":{"code":"not-json","detail":"is no JSON"},"data":"eyJh"}"#,
    ]);
    let tasks = texts_of(&[
        r#"{"table":"shop.orders","warehouse":"lake/wh","partitionArity":0,"partition":"0000000000000000","bucket":3,"version":7,"hops":1}"#,
    ]);
    vec![
        target("pointer", Shape::Json, Memory { per_byte: 600, constant: 128 << 10 }, pointers, Box::new(pointer)),
        target("checkpoints", Shape::Bytes, PACKED, packed, Box::new(checkpoints)),
        target(
            "slots",
            Shape::Bytes,
            PACKED,
            slots,
            Box::new(|bytes| survives(SlotTable::unpack(bytes), always(SlotTable::pack), SlotTable::unpack)),
        ),
        target(
            "position",
            Shape::Bytes,
            PACKED,
            texts_of(&["0", "49590338271490256608559692538361571095921575989136588898.7", "1.0"]),
            Box::new(position),
        ),
        target("quarantined", Shape::Json, JSON, lines, Box::new(quarantined)),
        target("compact-task", Shape::Json, JSON, tasks, Box::new(task)),
    ]
}

/// Pointers, packed checkpoints and slot tables as this product writes them.
fn seeds(corpus: &Corpus) -> [Vec<Vec<u8>>; 3] {
    let mut checkpoints = Checkpoints::default();
    let mut slots = SlotTable::default();
    for name in ["shardId-000000000001", "shardId-000000000002", "other/stream:shardId-000000000001", "s"] {
        let Ok(shard) = ShardId::new(name) else { continue };
        let Ok(reserved) = slots.reserve(&shard) else { continue };
        let to = "49590338271490256608559692538361571095921575989136588898.4".parse().unwrap_or(Position::from(1));
        let last_sequence = first_of(1_700_000_000_000);
        let (first_sequence, slot, parents) = (Some(last_sequence), reserved.slot, Vec::new());
        let list = name.starts_with("shardId").then_some(ListId(0x1234_5678_9abc_def0));
        checkpoints.advance(&ShardRange { shard, from: None, to, first_sequence, last_sequence, slot, parents, list });
    }
    if let Ok(gone) = ShardId::new("s") {
        slots.release(&gone, first_of(1_700_000_000_000));
    }
    let Ok(location) = TableLocation::new("w/db.db/t") else { return Default::default() };
    let mut pointer = Pointer::new(Incarnation("a1".to_owned()), "7d1f".to_owned(), SchemaId(0));
    pointer.remember(ChangeId::derive("x"));
    let mut pointers = vec![pointer.clone()];
    pointer.checkpoints = checkpoints.clone();
    pointers.push(pointer.clone());
    for bytes in corpus.named(|name| name.starts_with("snapshot-")).iter().take(3) {
        pointer.snapshot = Snapshot::from_json("snapshot", bytes).ok();
        pointers.push(pointer.clone());
    }
    let records = pointers.iter().filter_map(|p| p.to_record(&location).ok());
    [
        records.map(|record| shown(&record)).collect(),
        vec![checkpoints.pack(), Checkpoints::default().pack()],
        vec![slots.pack()],
    ]
}

fn shown(record: &ItemRecord) -> Vec<u8> {
    let attributes = record.attributes.iter().map(|(name, attr)| {
        let value = match attr {
            Attr::S(text) => json!({"S": text}),
            Attr::N(number) => json!({"N": number}),
            Attr::B(bytes) => json!({"B": hex(bytes)}),
        };
        (name.clone(), value)
    });
    json!({"rev": record.rev, "attributes": attributes.collect::<serde_json::Map<_, _>>()}).to_string().into_bytes()
}

fn record_of(bytes: &[u8]) -> Option<ItemRecord> {
    let json: Json = serde_json::from_slice(bytes).ok()?;
    let mut attributes = BTreeMap::new();
    for (name, value) in json.get("attributes")?.as_object()? {
        let attr = match value.as_object()?.iter().next()? {
            (kind, Json::String(text)) if kind == "S" => Attr::S(text.clone()),
            (kind, Json::Number(number)) if kind == "N" => Attr::N(number.as_i64()?),
            (kind, Json::String(text)) if kind == "B" => {
                let pairs =
                    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
                Attr::B(pairs.collect::<Option<_>>()?)
            }
            _ => return None,
        };
        attributes.insert(name.clone(), attr);
    }
    Some(ItemRecord { rev: json.get("rev")?.as_u64()?, attributes })
}

fn pointer(bytes: &[u8]) -> Outcome {
    let (Some(record), Ok(location)) = (record_of(bytes), TableLocation::new("w/db.db/t")) else {
        return Outcome::Refused;
    };
    let Ok(pointer) = Pointer::from_record(&record, &location) else { return Outcome::Refused };
    let _ = pointer.published_snapshot();
    // A pointer that is too large to be written is refused then.
    let Ok(written) = pointer.to_record(&location) else { return Outcome::Refused };
    match Pointer::from_record(&written, &location) {
        Ok(again) if again == pointer => Outcome::Taken,
        Ok(_) => Outcome::Broken("what was written reads as something else".to_owned()),
        Err(error) => Outcome::Broken(format!("what was written cannot be read: {error}")),
    }
}

fn checkpoints(bytes: &[u8]) -> Outcome {
    let _ = Checkpoints::unpack_others("checkpoints", bytes);
    let first = Checkpoints::unpack(bytes, None);
    if let Ok(first) = &first {
        let _ = (first.all(), first.overflows());
    }
    survives(first, always(Checkpoints::pack), |b| Checkpoints::unpack(b, None))
}

fn position(bytes: &[u8]) -> Outcome {
    let read = |bytes: &[u8]| {
        std::str::from_utf8(bytes).map_err(|_| ()).and_then(|text| text.parse::<Position>().map_err(|_| ()))
    };
    survives(read(bytes), always(|p: &Position| p.to_string().into_bytes()), read)
}

fn quarantined(bytes: &[u8]) -> Outcome {
    let read = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        QuarantinedRecord::from_json_line(text)
    };
    let first = read(bytes);
    if let Ok(record) = &first {
        let _ = record.position();
    }
    survives(first, always(|r: &QuarantinedRecord| r.to_json_line().into_bytes()), read)
}

fn task(bytes: &[u8]) -> Outcome {
    let first = CompactTask::parse("task", bytes);
    if let Ok(task) = &first {
        let _ = task.table_ref();
        let shown = |row: &StoredRow| hex(&row.bytes);
        if task.partition_row().is_ok_and(|row| shown(&row) != task.partition.to_ascii_lowercase()) {
            return Outcome::Broken("two texts for one partition".to_owned());
        }
    }
    survives(first, serde_json::to_vec, |b| CompactTask::parse("task", b))
}
