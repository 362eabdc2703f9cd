//! What streams and services deliver: records of both formats, KPL aggregates, the events of Kinesis and S3, and the decoder's configuration.
//!
//! Below: `decode`, and the `event` modules of the functions. Invariants: 1. what a record decodes to has one value a column; 2. the same bytes decode
//! alike twice.

use bytes::Bytes;
use md5::{Digest, Md5};
use siltstone_compact::event::S3Event;
use siltstone_decode::{
    Decoded, Decoder, DecoderConfig,
    aggregate::{aggregate, deaggregate},
    config::Format,
};
use siltstone_format::{
    schema::{Column, TableSchema},
    types::DataType,
};
use siltstone_ingest::event::KinesisEvent;

use super::{Memory, Outcome, Target, survives, tables::JSON, texts_of};
use crate::{corpus::Corpus, mutate::Shape};

/// Records are read in place; what compression may open to is `UNPACKED`.
const RECORD: Memory = Memory { per_byte: 400, constant: 2 << 20 };
const UNPACKED: usize = 256 << 10;

const WORDS: &[&str] = &[
    "before",
    "after",
    "op",
    "c",
    "u",
    "d",
    "r",
    "t",
    "m",
    "payload",
    "schema",
    "source",
    "ts_ms",
    "ddl",
    "databaseName",
    "status",
    "BEGIN",
    "END",
    "event_count",
    "connector",
    "__debezium_unavailable_value",
    "id",
    "b",
    "i8",
    "i16",
    "i32",
    "i64",
    "f32",
    "f64",
    "dec",
    "dec38",
    "text",
    "chars",
    "bytes",
    "day",
    "clock",
    "at3",
    "at6",
    "at9",
    "ltz",
    "list",
    "map",
    "nested",
    "deep",
    "Infinity",
    "-Infinity",
    "NaN",
    "2024-02-30",
    "24:00:00",
    "2024-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999+14:00",
    "true",
    "null",
    "1e400",
    "99999999999999999999999999999999999999",
    "scale",
    "value",
    "AQ==",
    "Records",
    "kinesis",
    "data",
    "eventID",
    "eventSourceARN",
    "approximateArrivalTimestamp",
    "partitionKey",
    "sequenceNumber",
    "eventSource",
    "aws.s3",
    "aws:s3",
    "s3",
    "bucket",
    "object",
    "name",
    "key",
    "%2F",
    "+",
    "%",
    "format",
    "debezium-json",
    "json",
    "op-field",
    "deletes",
    "upserts",
    "timestamp-unit",
    "millis",
    "nanos",
    "decimals",
    "base64",
    "columns",
    "path",
    "constant",
    "date-of",
    "offset-minutes",
    "mask",
    "sha256",
    "keep-last4",
    "unknown-columns",
    "quarantine",
    "max-record-bytes",
    "partitions",
    "days-back",
    "per-batch",
    "%Y-%m-%d",
];

const PLAIN: &[&str] = &[
    r#"{"id": 1, "b": true, "i8": -128, "i16": 32767, "i32": 7, "i64": "9223372036854775807", "f32": 1.5, "f64": 1e308, "dec": 12.50,
       "dec38": "1234567890123456789012345678.0123456789", "text": "Zażółć", "chars": "abc", "bytes": "AQID", "day": "2024-02-29", "clock": "13:05:00.250",
       "at3": 1700000000123, "at6": "2024-01-01T00:00:00.123456", "at9": "2024-01-01 00:00:00.123456789", "ltz": "2024-01-01T00:00:00+02:00",
       "list": [1, null, 3], "map": {"a": 1, "b": null}, "nested": {"x": 1, "y": "z"}, "deep": [{"name": "n", "tags": {"t": ["2024-01-01"]}}]}"#,
    r#"{"id": 2, "op": "d", "day": 19700}"#,
    r#"{"id": 3, "day": "1969-12-31", "unknown": {"deep": [[[[[]]]]]}, "text": "\ud83d\ude00\u0000"}"#,
];

const DEBEZIUM: &[&str] = &[
    r#"{"before":null,"after":{"id":1,"dec":"12.50","text":"a","day":19700,"at3":1700000000123},"source":{"version":"3.1","connector":"postgresql","name":"shop","ts_ms":1,"db":"shop"},"op":"c","ts_ms":1}"#,
    r#"{"schema":{"type":"struct"},"payload":{"before":{"id":1,"day":1},"after":{"id":2,"day":1,"text":"__debezium_unavailable_value"},"op":"u","source":{"connector":"mysql"}}}"#,
    r#"{"before":{"id":1,"day":19700},"after":null,"op":"d"}"#,
    r#"{"op":"t","source":{}}"#,
    r#"{"op":"m","message":{"prefix":"p","content":"AQ=="}}"#,
    r#"{"status":"BEGIN","id":"571:53","event_count":null,"data_collections":null}"#,
    r#"{"databaseName":"shop","ddl":"ALTER TABLE x","tableChanges":[],"source":{}}"#,
    r#"{"ts_ms":1700000000000}"#,
];

/// A table with a column of every type, in partitions.
pub(super) fn wide() -> Option<TableSchema> {
    let columns = [
        ("id", "BIGINT"),
        ("b", "BOOLEAN"),
        ("i8", "TINYINT"),
        ("i16", "SMALLINT"),
        ("i32", "INT"),
        ("i64", "BIGINT"),
        ("f32", "FLOAT"),
        ("f64", "DOUBLE"),
        ("dec", "DECIMAL(12, 2)"),
        ("dec38", "DECIMAL(38, 10)"),
        ("text", "STRING"),
        ("chars", "CHAR(5)"),
        ("bytes", "BYTES"),
        ("day", "DATE"),
        ("clock", "TIME(3)"),
        ("at3", "TIMESTAMP(3)"),
        ("at6", "TIMESTAMP(6)"),
        ("at9", "TIMESTAMP(9)"),
        ("ltz", "TIMESTAMP(3) WITH LOCAL TIME ZONE"),
        ("list", "ARRAY<INT>"),
        ("map", "MAP<STRING NOT NULL, BIGINT>"),
        ("nested", "ROW<x INT, y STRING>"),
        ("deep", "ARRAY<ROW<name STRING, tags MAP<STRING NOT NULL, ARRAY<DATE>>>>"),
    ];
    let columns =
        columns.iter().map(|(name, t)| DataType::parse_sql(t).map(|t| Column::new(*name, t))).collect::<Result<_, _>>();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    TableSchema::create(columns.ok()?, names(&["day"]), names(&["id", "day"]), Default::default(), None, 0).ok()
}

pub(super) fn targets(corpus: &Corpus) -> Vec<Target> {
    let Some(schema) = wide() else { return Vec::new() };
    let decoder = |format, op: Option<&str>| {
        let config = DecoderConfig {
            format,
            op_field: op.map(str::to_owned),
            max_record_bytes: UNPACKED,
            ..DecoderConfig::default()
        };
        Decoder::new(&schema, &config)
    };
    let (Ok(plain), Ok(debezium)) = (decoder(Format::Json, Some("op")), decoder(Format::DebeziumJson, None)) else {
        return Vec::new();
    };
    let columns = schema.fields.len();
    let packed = |list: &[&str]| {
        let mut seeds = texts_of(list);
        seeds.extend(list.iter().take(1).filter_map(|text| zstd::bulk::compress(text.as_bytes(), 1).ok()));
        // A gzip member of one stored block: magic, deflate, no flags; the check sum is left to chance.
        seeds.push([&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 0, 0xfd, 0xff][..], b"{}"].concat());
        seeds
    };
    let target = |name, shape, memory, seeds, run| Target { name, shape, words: WORDS, memory, seeds, run };
    vec![
        target(
            "json-record",
            Shape::Json,
            RECORD,
            packed(PLAIN),
            Box::new(move |bytes| record(&plain, columns, bytes)),
        ),
        target(
            "debezium-record",
            Shape::Json,
            RECORD,
            packed(DEBEZIUM),
            Box::new(move |bytes| record(&debezium, columns, bytes)),
        ),
        target(
            "kpl-aggregate",
            Shape::Bytes,
            Memory { per_byte: 200, constant: 64 << 10 },
            aggregates(),
            Box::new(kpl),
        ),
        target("kinesis-event", Shape::Json, JSON, corpus.events("ingest"), Box::new(kinesis)),
        target("s3-event", Shape::Json, JSON, corpus.events("compact"), Box::new(s3)),
        target(
            "decoder-config",
            Shape::Json,
            Memory { per_byte: 4_000, constant: 1 << 20 },
            configs(),
            Box::new(move |bytes| config(&schema, bytes)),
        ),
    ]
}

fn record(decoder: &Decoder, columns: usize, bytes: &[u8]) -> Outcome {
    let decoded = decoder.decode(bytes);
    let guarded = decoder.batch_guard().decode(bytes, 1_700_000_000_000);
    match decoded {
        Decoded::Rejected(_) => Outcome::Refused,
        Decoded::Changes(changes) if changes.iter().any(|change| change.row.len() != columns) => {
            Outcome::Broken("a row has other than one value a column".to_owned())
        }
        other if format!("{other:?}") == format!("{:?}", decoder.decode(bytes)) => {
            drop(guarded);
            Outcome::Taken
        }
        _ => Outcome::Broken("the same bytes decode differently".to_owned()),
    }
}

/// Bodies of aggregates: what stands between the magic and the MD5.
fn aggregates() -> Vec<Vec<u8>> {
    let records = [
        ("a".to_owned(), Bytes::from_static(b"{\"id\": 1}")),
        ("b".to_owned(), Bytes::new()),
        ("a".to_owned(), Bytes::from_static(b"x")),
    ];
    let whole = aggregate(&records);
    vec![whole.get(4..whole.len().saturating_sub(16)).unwrap_or_default().to_vec(), whole.to_vec(), Vec::new()]
}

fn kpl(body: &[u8]) -> Outcome {
    let _ = deaggregate(&Bytes::copy_from_slice(body));
    let sealed = [&[0xf3, 0x89, 0x9a, 0xc2], body, Md5::digest(body).as_slice()].concat();
    let Ok(records) = deaggregate(&Bytes::from(sealed)) else { return Outcome::Refused };
    let plain: Option<Vec<(String, Bytes)>> = records
        .iter()
        .map(|r| {
            (r.explicit_hash_key.is_none())
                .then(|| (r.partition_key.as_deref().unwrap_or_default().to_owned(), r.data.clone()))
        })
        .collect();
    let Some(plain) = plain else { return Outcome::Taken };
    match deaggregate(&aggregate(&plain)) {
        Ok(again) if again == records => Outcome::Taken,
        _ => Outcome::Broken("records that are packed again come out differently".to_owned()),
    }
}

fn kinesis(bytes: &[u8]) -> Outcome {
    let read = |bytes: &[u8]| {
        let mut event: KinesisEvent = serde_json::from_slice(bytes)?;
        // serde_json may be off by the last bit of a number of 17 digits: what counts are milliseconds of our era.
        for record in &mut event.records {
            let time = &mut record.kinesis.approximate_arrival_timestamp;
            *time = if time.abs() < 1e11 { (*time * 1000.0).round() } else { 0.0 };
        }
        Ok::<_, serde_json::Error>(event)
    };
    let first = read(bytes);
    if let Ok(event) = serde_json::from_slice::<KinesisEvent>(bytes) {
        let _ = event.into_batch();
    }
    let seconds = |event: &KinesisEvent| {
        let mut event = event.clone();
        event.records.iter_mut().for_each(|record| record.kinesis.approximate_arrival_timestamp /= 1000.0);
        serde_json::to_vec(&event)
    };
    survives(first, seconds, read)
}

fn s3(bytes: &[u8]) -> Outcome {
    let read = |bytes: &[u8]| serde_json::from_slice::<S3Event>(bytes);
    let first = read(bytes);
    if let Ok(event) = &first {
        event.records.iter().for_each(|record| drop(record.key()));
    }
    survives(first, serde_json::to_vec, read)
}

fn configs() -> Vec<Vec<u8>> {
    texts_of(&[
        "{}",
        r#"{"format":"json","op-field":"op","deletes":["x"],"timestamp-unit":"micros","columns":{"id":{"path":"a.b"},"day":{"date-of":"at3","offset-minutes":-90},
           "text":{"mask":"sha256"},"i32":{"constant":7},"at6":{"path":"t","format":"%d/%m/%Y %H:%M:%S"}},"unknown-columns":"quarantine"}"#,
        r#"{"format":"debezium-json","decimals":"base64","max-record-bytes":1000,"partitions":{"days-back":10,"days-ahead":1,"per-batch":3}}"#,
    ])
}

fn config(schema: &TableSchema, bytes: &[u8]) -> Outcome {
    let read = |bytes: &[u8]| serde_json::from_slice::<DecoderConfig>(bytes);
    let first = read(bytes);
    if let Ok(mut config) = first.as_ref().cloned().map_err(|_| ()) {
        config.max_record_bytes = config.max_record_bytes.min(UNPACKED);
        if let Ok(decoder) = Decoder::new(schema, &config) {
            for text in PLAIN.iter().chain(DEBEZIUM) {
                let _ = decoder.batch_guard().decode(text.as_bytes(), 1_700_000_000_000);
            }
        }
    }
    survives(first.map_err(drop), serde_json::to_vec, |b| read(b).map_err(|e| e.to_string()))
}
