//! The tables of other engines in `tests/golden`: read here, every one must hold the rows that its catalogue says.
//!
//! Rows become the canonical text of `tests/interop/canon.py`, and count and SHA-256 of the sorted lines are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{fmt::Write, path::PathBuf, sync::Arc};

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use siltstone_commit::context::Authority;
use siltstone_format::{
    options::Purpose,
    types::{DataType, TypeKind},
    value::Value,
};
use siltstone_store::{FsObjectStore, RandomIds, SystemClock, memory::MemoryItemStore};
use siltstone_table::{
    Ports, Table, TableError, TableName, TableRef,
    scan::{ScanRequest, scan},
    text::show_decimal,
};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn catalogue() -> serde_json::Map<String, Json> {
    let text = std::fs::read_to_string(golden().join("catalogue.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ports() -> Ports {
    Ports {
        objects: Arc::new(FsObjectStore::open_unsynced(golden().join("tables")).unwrap()),
        items: Arc::new(MemoryItemStore::new()),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
    }
}

async fn open(name: &str) -> Result<Table, TableError> {
    let name = TableName { database: "golden".to_owned(), table: name.to_owned() };
    Table::open(&ports(), &TableRef::new("", name), Authority::Bare, Purpose::Read).await
}

/// Rows and the digest of their canonical lines.
async fn read(table: &Table, snapshot: Option<i64>) -> (u64, String) {
    let types: Vec<DataType> = table.schema.fields.iter().map(|f| f.data_type.clone()).collect();
    let request = ScanRequest { version: snapshot.into(), ..ScanRequest::default() };
    let mut lines = Vec::new();
    scan(table, &request, |row| {
        lines.push(list(row.values.iter().zip(&types).map(|(value, t)| cell(value, t))));
        true
    })
    .await
    .unwrap();
    lines.sort();
    let digest = Sha256::digest(lines.join("\n").as_bytes());
    let hex = digest.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    });
    (lines.len() as u64, hex)
}

fn list(cells: impl Iterator<Item = String>) -> String {
    format!("[{}]", cells.collect::<Vec<_>>().join(","))
}

/// A value as `canon.py` writes its cell.
fn cell(value: &Value, data_type: &DataType) -> String {
    let int = DataType::not_null(TypeKind::Int);
    match (value, &data_type.kind) {
        (Value::Null, _) => "null".to_owned(),
        (Value::Boolean(v), _) => v.to_string(),
        (Value::TinyInt(v), _) => v.to_string(),
        (Value::SmallInt(v), _) => v.to_string(),
        (Value::Int(v) | Value::Date(v) | Value::Time(v), _) => v.to_string(),
        (Value::BigInt(v), _) => v.to_string(),
        (Value::Float(v), _) => format!("\"{:08x}\"", v.to_bits()),
        (Value::Double(v), _) => format!("\"{:016x}\"", v.to_bits()),
        (Value::Decimal(v), TypeKind::Decimal { scale, .. }) => format!("\"{}\"", show_decimal(*v, *scale)),
        (Value::String(v), _) => ascii(v),
        (Value::Bytes(v), _) => format!("\"{}\"", v.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        (Value::Timestamp { millis, nanos }, _) => (i128::from(*millis) * 1_000_000 + i128::from(*nanos)).to_string(),
        (Value::Array(items), TypeKind::Array(element)) => list(items.iter().map(|item| cell(item, element))),
        (Value::Row(values), TypeKind::Row(fields)) => {
            list(values.iter().zip(fields).map(|(v, f)| cell(v, &f.data_type)))
        }
        (Value::Map(pairs), TypeKind::Map(key, item)) => map(pairs, key, item),
        (Value::Map(pairs), TypeKind::Multiset(key)) => map(pairs, key, &int),
        other => panic!("{other:?}"),
    }
}

fn map(pairs: &[(Value, Value)], key: &DataType, item: &DataType) -> String {
    let mut pairs: Vec<_> = pairs.iter().map(|(k, v)| (cell(k, key), cell(v, item))).collect();
    pairs.sort();
    list(pairs.into_iter().map(|(k, v)| format!("[{k},{v}]")))
}

/// Text as Python's `json.dumps` writes it: ASCII, pairs of surrogates above the basic plane.
fn ascii(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='\u{7e}' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").unwrap();
                }
            }
        }
    }
    out + "\""
}

fn expected(facts: &Json) -> (u64, String) {
    (facts["rows"].as_u64().unwrap(), facts["sha256"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn tables_of_every_engine_hold_the_rows_of_the_catalogue() {
    let catalogue = catalogue();
    assert!(catalogue.len() >= 20, "{} tables", catalogue.len());
    for (name, facts) in &catalogue {
        let table = open(name).await.unwrap();
        for (field, told) in table.schema.fields.iter().zip(facts["columns"].as_array().unwrap()) {
            assert_eq!(field.name, told[0].as_str().unwrap(), "{name}");
            if !field.data_type.is_nested() {
                // An engine makes key columns NOT NULL by itself.
                let (is, told) = (field.data_type.to_string(), told[1].as_str().unwrap());
                assert_eq!(
                    is.trim_end_matches(" NOT NULL"),
                    told.trim_end_matches(" NOT NULL"),
                    "{name}.{}",
                    field.name
                );
            }
        }
        assert_eq!(read(&table, None).await, expected(facts), "{name}");
        let older = facts["older"].as_object().unwrap();
        for (snapshot, facts) in older.iter().filter_map(|(name, facts)| Some((name.parse().ok()?, facts))) {
            assert_eq!(read(&table, Some(snapshot)).await, expected(facts), "{name} at snapshot {snapshot}");
        }
    }
}

/// The canonical text itself, so that an error in it cannot hide behind equal errors.
#[test]
fn cells_are_written_as_python_writes_them() {
    assert_eq!(ascii("é\u{1f600}\u{7f}\n\"\\/"), r#""\u00e9\ud83d\ude00\u007f\n\"\\/""#);
    let of = |text: &str| DataType::parse_sql(text).unwrap();
    assert_eq!(cell(&Value::Decimal(-5), &of("DECIMAL(10, 2)")), "\"-0.05\"");
    assert_eq!(cell(&Value::Timestamp { millis: -1, nanos: 999_999 }, &of("TIMESTAMP(9)")), "-1");
    let pairs = vec![(Value::Int(9), Value::Null), (Value::Int(10), Value::Boolean(true))];
    assert_eq!(cell(&Value::Map(pairs), &of("MAP<INT NOT NULL, BOOLEAN>")), "[[10,true],[9,null]]");
    assert_eq!(cell(&Value::Float(1.0), &of("FLOAT")), "\"3f800000\"");
}
