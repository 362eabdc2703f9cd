//! The sample events in `events/`: made here, compared with the committed files, and decoded.
//!
//! Neighbours: handler tests and `cargo lambda invoke` use the files. The table is `demo.orders` (see [`orders`]), fed by Debezium JSON.
//! After a change here: `cargo test -p siltstone-decode --test events -- --ignored` rewrites the files.
//! Invariants: 1. a committed file is exactly what this makes; 2. each file decodes to what its name says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod samples;

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value as Json;
use siltstone_decode::{Decoded, Decoder, DecoderConfig, RowKind, UserRecord, config::Format, deaggregate};
use siltstone_format::{
    schema::{Column, TableSchema},
    types::DataType,
    value::Value,
};

/// `demo.orders`: the table that the samples are for.
fn orders() -> TableSchema {
    let columns = [
        ("order_id", "BIGINT"),
        ("customer", "STRING"),
        ("status", "STRING"),
        ("amount", "DECIMAL(12, 2)"),
        ("ordered", "DATE"),
        ("updated_at", "TIMESTAMP(3)"),
    ];
    let columns = columns.iter().map(|(n, t)| Column::new(*n, DataType::parse(t).unwrap())).collect();
    TableSchema::create(columns, Vec::new(), vec!["order_id".to_owned()], BTreeMap::new(), None, 0).unwrap()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../events")).join(name)
}

fn text(event: &Json) -> String {
    format!("{event:#}\n")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "compares committed files")]
fn committed_events_are_what_this_makes() {
    for (name, event) in samples::all() {
        let committed = std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(committed == text(&event), "events/{name} is not up to date: see the header of this file");
    }
}

#[test]
#[ignore = "rewrites the files in events/"]
#[expect(clippy::disallowed_methods, reason = "writes the committed files")]
fn rewrite_the_committed_events() {
    for (name, event) in samples::all() {
        std::fs::write(path(name), text(&event)).unwrap();
    }
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    rows: BTreeMap<i64, String>,
    deleted: Vec<i64>,
    ignored: Vec<String>,
    rejected: Vec<String>,
}

fn seen(name: &str) -> Seen {
    let config = DecoderConfig { format: Format::DebeziumJson, ..DecoderConfig::default() };
    let decoder = Decoder::new(&orders(), &config).unwrap();
    let mut guard = decoder.batch_guard();
    let mut seen = Seen::default();
    let event = samples::all().into_iter().find(|(n, _)| *n == name).unwrap().1;
    for record in event["Records"].as_array().unwrap() {
        let data = Bytes::from(STANDARD.decode(record["kinesis"]["data"].as_str().unwrap()).unwrap());
        let users: Vec<UserRecord> = match deaggregate(&data) {
            Ok(users) => users,
            Err(reject) => {
                seen.rejected.push(reject.code.to_string());
                continue;
            }
        };
        for user in users {
            note(guard.decode(&user.data, samples::ARRIVAL_MS), &mut seen);
        }
    }
    seen
}

fn note(decoded: Decoded, seen: &mut Seen) {
    match decoded {
        Decoded::Ignored(kind) => seen.ignored.push(kind.to_string()),
        Decoded::Rejected(reject) => seen.rejected.push(reject.code.to_string()),
        Decoded::Changes(changes) => {
            for change in changes {
                let (Value::BigInt(id), status) = (&change.row[0], &change.row[2]) else { panic!("{:?}", change.row) };
                if change.kind == RowKind::Delete {
                    seen.rows.remove(id);
                    seen.deleted.push(*id);
                } else if let Value::String(status) = status {
                    seen.rows.insert(*id, status.clone());
                }
            }
        }
    }
}

fn rows(list: &[(i64, &str)]) -> BTreeMap<i64, String> {
    list.iter().map(|(id, status)| (*id, (*status).to_owned())).collect()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn each_event_decodes_to_what_its_name_says() {
    let normal = Seen {
        rows: rows(&[(1, "F"), (2, "O"), (4, "O"), (5, "O")]),
        deleted: vec![3],
        ignored: words(&["heartbeat"]),
        rejected: vec![],
    };
    assert_eq!(seen("ingest-normal.json"), normal);
    assert_eq!(seen("ingest-empty.json"), Seen::default());
    let again = Seen { rows: rows(&[(1, "F"), (2, "F"), (4, "O"), (5, "O"), (6, "O")]), ..normal };
    assert_eq!(seen("ingest-duplicate.json"), again);
    let kpl = Seen { rows: rows(&[(10, "O"), (11, "F"), (12, "O")]), ..Seen::default() };
    assert_eq!(seen("ingest-kpl.json"), kpl);
    let split = Seen { rows: rows(&[(1, "P"), (20, "O")]), ..Seen::default() };
    assert_eq!(seen("ingest-after-split.json"), split);
}

#[test]
fn each_poisoned_record_has_its_own_reason_and_the_rest_goes_through() {
    let poison = seen("ingest-poison.json");
    assert_eq!(poison.rows, rows(&[(30, "O"), (31, "O")]));
    let reasons = [
        "not-utf8",
        "not-json",
        "wrong-type",
        "missing-key",
        "out-of-range",
        "out-of-range",
        "too-deep",
        "unavailable-value",
        "bad-compression",
        "bad-aggregate",
    ];
    assert_eq!(poison.rejected, words(&reasons));
}
