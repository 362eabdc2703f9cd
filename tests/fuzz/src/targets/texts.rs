//! What people write: types as schema files and as SQL have them, options, literals, filters.
//!
//! Below: `format`, `table`. Options are lines `name=value`; a literal is a line with its type and one with its text.
//! Invariant: 1. what is shown of a value is read back as the same value.

use std::collections::BTreeMap;

use siltstone_format::{
    schema::{TableSchema, type_from_json, type_to_json},
    types::{DataType, TypeKind},
    value::Value,
};
use siltstone_table::{
    filter::Filter,
    text::{parse_value, show},
};

use super::{
    Memory, Outcome, Target, always, events, survives,
    tables::{JSON, build_from},
    texts_of,
};
use crate::{corpus::Corpus, mutate::Shape};

const TEXT: Memory = Memory { per_byte: 600, constant: 128 << 10 };

const TYPES: &[&str] = &[
    "BOOLEAN",
    "INT NOT NULL",
    "decimal(10,2)",
    "NUMERIC( 7 )",
    "TIMESTAMP (3) WITHOUT TIME ZONE",
    "timestamp_ltz(3)",
    "VARCHAR(2147483647)",
    "TIMESTAMP(6) WITH LOCAL TIME ZONE NOT NULL",
    "DOUBLE PRECISION",
    "ARRAY<STRING NOT NULL> NOT NULL",
    "MULTISET<STRING>",
    "MAP<INT NOT NULL, DECIMAL(20, 2)>",
    "ROW<x INT, at TIMESTAMP(6), y ARRAY<DOUBLE>>",
    "ARRAY<ROW<name STRING, tags MAP<STRING NOT NULL, ARRAY<DATE>> NOT NULL>>",
];

const WORDS: &[&str] = &[
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "CHAR",
    "VARCHAR",
    "STRING",
    "BINARY",
    "VARBINARY",
    "BYTES",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "WITH LOCAL TIME ZONE",
    "WITHOUT TIME ZONE",
    "NOT NULL",
    "NULL",
    "ARRAY<",
    "MAP<",
    "MULTISET<",
    "ROW<",
    ">",
    "(",
    ")",
    ", ",
    " ",
    "VARIANT",
    "BLOB",
    "\u{a0}",
    "ß",
    "'",
    "\"",
    "`",
    "\\",
    ";",
    "/*",
    "--",
    "type",
    "element",
    "key",
    "value",
    "fields",
    "name",
    "id",
    "and",
    "or",
    "=",
    ">=",
    "<=",
    "<",
    ">",
    "<>",
    "!=",
    "in",
    "is null",
    "not",
    "like",
    "true",
    "false",
    "1 kb",
    "8 mb",
    "-1",
    "1 h",
    "10 s",
    "9223372036854775807 gb",
    "2147483648",
    "1e9",
    "0.2",
    "NaN",
    "inf",
    "ascending",
    "descending",
    "none",
    "full",
    "counts",
    "truncate(16)",
    "truncate(2147483648)",
    "deduplicate",
    "partial-update",
    "aggregation",
    "first-row",
    "zstd",
    "lz4",
    "0:lz4,5:snappy",
    "=\n",
    "2024-02-29",
    "-0001-01-01",
    "9999-12-31",
    "12:34:56.789",
    "2024-01-01T00:00:00.000000001",
];

const OPTIONS: &str = "bucket=4\nbucket-key=id\nmerge-engine=deduplicate\nsequence.field=i32\nsequence.field.sort-order=descending\nignore-delete=true\n\
    changelog-producer=input\nfile.format=parquet\nfile.compression=zstd\nfile.compression.per.level=0:lz4,5:snappy\nfile.compression.zstd-level=3\n\
    data-file.prefix=run-\nchangelog-file.prefix=log-\ndata-file.path-directory=data\nfile.suffix.include.compression=true\npartition.default-name=none\n\
    partition.legacy-name=false\ntarget-file-size=8 kb\ntarget-file-row-num=100\nnum-levels=4\nnum-sorted-run.compaction-trigger=5\nnum-sorted-run.stop-trigger=8\n\
    compaction.max-size-amplification-percent=200\ncompaction.size-ratio=1\ncompaction.small-file-ratio=0.7\ncompaction.optimization-interval=1 h\n\
    compaction.total-size-threshold=1 gb\ncompaction.offpeak.start.hour=22\ncompaction.offpeak.end.hour=4\ncompaction.offpeak-ratio=10\n\
    metadata.stats-mode=truncate(16)\nmetadata.stats-mode.per.level=0:none\nfields.text.stats-mode=full\nmetadata.stats-keep-first-n-columns=3\n\
    manifest.target-file-size=8 mb\nmanifest.full-compaction-threshold-size=16 mb\nmanifest.merge-min-count=30\nmanifest.compression=snappy\n\
    commit.max-retries=10\ncommit.timeout=1 min\nsnapshot.num-retained.min=10\nsnapshot.num-retained.max=20\nsnapshot.time-retained=1 h\n\
    snapshot.expire.limit=50\nwrite-only=true\nrowkind.field=text\ndata-file.thin-mode=true\nwrite-buffer-size=1 mb\n";

const REFUSED: &str = "deletion-vectors.enabled=true\nforce-lookup=true\nsequence.snapshot-ordering=true\nrow-tracking.enabled=true\nmetadata.iceberg.storage=x\n\
    file.format.per.level=0:avro\nbucket=-1\nmerge-engine=first-row\nfields.text.aggregate-function=sum\nfull-compaction.delta-commits=1\ntype=format-table\n";

const LITERALS: &[&str] = &[
    "BOOLEAN\ntrue",
    "TINYINT\n-128",
    "DECIMAL(10, 2)\n-12.50",
    "DECIMAL(38, 38)\n0.00000000000000000000000000000000000001",
    "DATE\n2024-02-29",
    "TIME(3)\n13:05:00.250",
    "TIMESTAMP(9)\n1969-12-31T23:59:59.999999999",
    "TIMESTAMP(3) WITH LOCAL TIME ZONE\n2024-01-01T00:00:00Z",
    "STRING\nZażółć",
    "BYTES\n00ff",
    "DOUBLE\n1e308",
    "FLOAT\n-0.0",
    "BIGINT\n-9223372036854775808",
];

const FILTERS: &[&str] = &[
    "id = 1",
    "id >= -5 and id < 10",
    "text = 'it''s' AND day > 2024-01-01",
    "dec = 12.50 and at3 <= '2024-01-01T00:00:00'",
    "b = true and bytes = '00ff'",
    "text = \"x\"",
    "f64 < 1e3",
];

pub(super) fn targets(corpus: &Corpus) -> Vec<Target> {
    let target = |name, shape, memory, seeds, run| Target { name, shape, words: WORDS, memory, seeds, run };
    let Some(schema) = events::wide() else { return Vec::new() };
    let mut json: Vec<Vec<u8>> = TYPES
        .iter()
        .filter_map(|t| DataType::parse_sql(t).ok())
        .map(|t| type_to_json(&t).to_string().into_bytes())
        .collect();
    let mut lines = texts_of(&[OPTIONS, REFUSED]);
    for (_, _, _, newest) in corpus.described().into_iter().take(200) {
        json.extend(newest.fields.iter().map(|field| type_to_json(&field.data_type).to_string().into_bytes()));
        let text: String = newest.options.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        lines.push(text.into_bytes());
    }
    json.sort();
    json.dedup();
    lines.sort();
    lines.dedup();
    let for_options = schema.clone();
    vec![
        target("type-text", Shape::Bytes, TEXT, texts_of(TYPES), Box::new(|bytes| typed(bytes, DataType::parse))),
        target("type-sql", Shape::Bytes, TEXT, texts_of(TYPES), Box::new(|bytes| typed(bytes, DataType::parse_sql))),
        target("type-json", Shape::Json, JSON, json, Box::new(type_json)),
        target(
            "options",
            Shape::Bytes,
            Memory { per_byte: 600, constant: 1 << 20 },
            lines,
            Box::new(move |bytes| options(bytes, &for_options)),
        ),
        target("literal", Shape::Bytes, TEXT, texts_of(LITERALS), Box::new(literal)),
        target("filter", Shape::Bytes, TEXT, texts_of(FILTERS), Box::new(move |bytes| filter(bytes, &schema))),
    ]
}

fn typed(bytes: &[u8], parse: fn(&str) -> siltstone_format::Result<DataType>) -> Outcome {
    let read = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => parse(text).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    survives(read(bytes), always(|t: &DataType| t.to_string().into_bytes()), read)
}

fn type_json(bytes: &[u8]) -> Outcome {
    let read = |bytes: &[u8]| {
        let json = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        type_from_json(&json, 0).map_err(|e| e.to_string())
    };
    survives(read(bytes), always(|t: &DataType| type_to_json(t).to_string().into_bytes()), read)
}

fn options(bytes: &[u8], schema: &TableSchema) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return Outcome::Refused };
    let options: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let schema = TableSchema { options, ..schema.clone() };
    build_from(&schema);
    let first = siltstone_format::options::TableOptions::from_schema(&schema);
    if first.is_ok() { Outcome::Taken } else { Outcome::Refused }
}

fn literal(bytes: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return Outcome::Refused };
    let Some((kind, text)) = text.split_once('\n') else { return Outcome::Refused };
    let Ok(kind) = DataType::parse_sql(kind) else { return Outcome::Refused };
    let Ok(value) = parse_value(text, &kind) else { return Outcome::Refused };
    let shown = show(&value, &kind);
    let is_nan = matches!(value, Value::Float(f) if f.is_nan()) || matches!(value, Value::Double(f) if f.is_nan());
    let nested = matches!(kind.kind, TypeKind::Array(_) | TypeKind::Map(..) | TypeKind::Multiset(_) | TypeKind::Row(_));
    match parse_value(&shown, &kind) {
        Ok(again) if again == value || is_nan || nested => Outcome::Taken,
        Ok(again) => Outcome::Broken(format!("`{text:.80}` is {value:?}, shown as `{shown:.80}`, which is {again:?}")),
        Err(error) => Outcome::Broken(format!("`{text:.80}` is shown as `{shown:.80}`: {error:.300}")),
    }
}

fn filter(bytes: &[u8], schema: &TableSchema) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return Outcome::Refused };
    let Ok(filter) = Filter::parse(text, schema) else { return Outcome::Refused };
    let row = vec![Value::Null; schema.fields.len()];
    let _ = filter.accepts(&row);
    for column in 0..schema.fields.len() {
        let _ = (filter.may_accept_range(column, &Value::Null, &Value::Null), filter.equal_to(column));
    }
    Outcome::Taken
}
