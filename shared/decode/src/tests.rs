//! Whole messages through a decoder.

mod kinds;
mod properties;

use serde_json::{Value as Json, json};
use siltstone_format::{
    schema::{Column, TableSchema},
    types::DataType,
    value::Value,
};

use crate::{
    BatchGuard, Decoded, Decoder, DecoderConfig, IgnoredKind, Reject, RejectCode, RowKind,
    config::{ColumnRule, Format, Mask, UnknownColumns},
    quarantine::QuarantinedRecord,
};

fn schema(columns: &[(&str, &str)], partition: &[&str], key: &[&str]) -> TableSchema {
    let columns = columns.iter().map(|(n, t)| Column::new(*n, DataType::parse(t).unwrap())).collect();
    let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
    TableSchema::create(columns, names(partition), names(key), Default::default(), None, 0).unwrap()
}

fn orders() -> TableSchema {
    schema(
        &[("id", "BIGINT"), ("note", "STRING"), ("amount", "DECIMAL(12, 2)"), ("day", "DATE"), ("at", "TIMESTAMP(3)")],
        &[],
        &["id"],
    )
}

fn config(format: Format) -> DecoderConfig {
    DecoderConfig { format, ..DecoderConfig::default() }
}

fn decode(decoder: &Decoder, json: &Json) -> Decoded {
    decoder.decode(json.to_string().as_bytes())
}

fn changes(decoded: Decoded) -> Vec<(RowKind, Vec<Value>)> {
    match decoded {
        Decoded::Changes(changes) => changes.into_iter().map(|c| (c.kind, c.row)).collect(),
        other => panic!("{other:?}"),
    }
}

fn code(decoded: Decoded) -> RejectCode {
    match decoded {
        Decoded::Rejected(reject) => reject.code,
        other => panic!("{other:?}"),
    }
}

fn row(id: i64, note: &str, cents: i128) -> Vec<Value> {
    vec![
        Value::BigInt(id),
        Value::String(note.into()),
        Value::Decimal(cents),
        Value::Date(19_782),
        Value::Timestamp { millis: 1_700_000_000_123, nanos: 0 },
    ]
}

fn image(id: i64, note: &str, amount: &str) -> Json {
    json!({"id": id, "note": note, "amount": amount, "day": 19_782, "at": 1_700_000_000_123_i64})
}

#[test]
fn plain_objects_are_upserts_and_an_op_field_may_delete() {
    let config = DecoderConfig { op_field: Some("op".into()), ..config(Format::Json) };
    let decoder = Decoder::new(&orders(), &config).unwrap();
    let mut message = image(1, "a", "1.50");
    assert_eq!(changes(decode(&decoder, &message)), [(RowKind::Insert, row(1, "a", 150))]);
    message["op"] = json!("D");
    assert_eq!(changes(decode(&decoder, &message))[0].0, RowKind::Delete);
    assert_eq!(changes(decode(&decoder, &json!({"id": 1, "op": "delete"})))[0].1[1], Value::Null);
    message["op"] = json!("explode");
    assert_eq!(code(decode(&decoder, &message)), RejectCode::UnknownOperation);
    assert_eq!(code(decode(&decoder, &json!({"note": "x"}))), RejectCode::MissingKey);
    assert_eq!(code(decode(&decoder, &json!([1]))), RejectCode::NotJson);
    assert_eq!(decoder.decode(b"null"), Decoded::Ignored(IgnoredKind::Tombstone));
    assert_eq!(decoder.decode(b""), Decoded::Ignored(IgnoredKind::Tombstone));
}

#[test]
fn debezium_operations_become_rows() {
    let decoder = Decoder::new(&orders(), &config(Format::DebeziumJson)).unwrap();
    let event = |op: &str, before: Json, after: Json| json!({"op": op, "before": before, "after": after, "ts_ms": 1});
    let (a, b) = (image(1, "a", "1.00"), image(1, "b", "2.00"));
    for op in ["c", "r"] {
        assert_eq!(changes(decode(&decoder, &event(op, Json::Null, a.clone()))), [(RowKind::Insert, row(1, "a", 100))]);
    }
    assert_eq!(
        changes(decode(&decoder, &event("u", a.clone(), b.clone()))),
        [(RowKind::UpdateAfter, row(1, "b", 200))]
    );
    assert_eq!(
        changes(decode(&decoder, &event("u", Json::Null, b.clone()))),
        [(RowKind::UpdateAfter, row(1, "b", 200))]
    );
    assert_eq!(changes(decode(&decoder, &event("d", a.clone(), Json::Null))), [(RowKind::Delete, row(1, "a", 100))]);
    assert_eq!(changes(decode(&decoder, &event("d", json!({"id": 1}), Json::Null)))[0].1[0], Value::BigInt(1));
    assert_eq!(code(decode(&decoder, &event("d", Json::Null, Json::Null))), RejectCode::MissingBefore);
    assert_eq!(code(decode(&decoder, &event("c", Json::Null, Json::Null))), RejectCode::MissingColumn);
    assert_eq!(code(decode(&decoder, &event("x", a, Json::Null))), RejectCode::UnknownOperation);
    assert_eq!(code(decode(&decoder, &json!({"hello": 1}))), RejectCode::UnknownOperation);
}

#[test]
fn a_changed_key_is_a_delete_and_an_insert() {
    let decoder = Decoder::new(&orders(), &config(Format::DebeziumJson)).unwrap();
    let event = json!({"op": "u", "before": image(1, "a", "1.00"), "after": image(2, "a", "1.00")});
    assert_eq!(
        changes(decode(&decoder, &event)),
        [(RowKind::Delete, row(1, "a", 100)), (RowKind::Insert, row(2, "a", 100))]
    );
}

#[test]
fn messages_without_rows_are_named() {
    let decoder = Decoder::new(&orders(), &config(Format::DebeziumJson)).unwrap();
    let cases = [
        (json!({"ts_ms": 5}), IgnoredKind::Heartbeat),
        (json!({"op": "t", "source": {}}), IgnoredKind::Truncate),
        (json!({"op": "m", "message": {}}), IgnoredKind::LogicalMessage),
        (json!({"ddl": "alter table x", "source": {}}), IgnoredKind::SchemaChange),
        (json!({"status": "BEGIN", "id": "1", "event_count": null}), IgnoredKind::Transaction),
        (json!({"schema": null, "payload": null}), IgnoredKind::Tombstone),
    ];
    for (message, kind) in cases {
        assert_eq!(decode(&decoder, &message), Decoded::Ignored(kind), "{message}");
    }
}

#[test]
fn the_schema_envelope_says_how_values_are_written() {
    let table = schema(
        &[
            ("id", "INT"),
            ("amount", "DECIMAL(12, 2)"),
            ("d", "DATE"),
            ("t", "TIME(3)"),
            ("ms", "TIMESTAMP(3)"),
            ("us", "TIMESTAMP(6)"),
            ("ns", "TIMESTAMP(9)"),
            ("z", "TIMESTAMP(3) WITH LOCAL TIME ZONE"),
        ],
        &[],
        &["id"],
    );
    let decoder = Decoder::new(&table, &config(Format::DebeziumJson)).unwrap();
    let field = |name: &str, semantic: &str| json!({"field": name, "type": "int64", "name": semantic});
    let fields = json!([
        {"field": "id", "type": "int32"},
        {"field": "amount", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}},
        field("d", "io.debezium.time.Date"), field("t", "io.debezium.time.MicroTime"),
        field("ms", "io.debezium.time.MicroTimestamp"), field("us", "io.debezium.time.NanoTimestamp"),
        field("ns", "io.debezium.time.NanoTimestamp"), field("z", "io.debezium.time.ZonedTimestamp"),
    ]);
    let message = json!({
        "schema": {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]},
        "payload": {"op": "c", "before": null, "after": {
            "id": 1, "amount": "BNI=", "d": 1, "t": 3_600_000_000_i64, "ms": 5_000, "us": 7_000, "ns": 9, "z": "1970-01-01T01:00:00+01:00"}},
    });
    let stamp = |millis, nanos| Value::Timestamp { millis, nanos };
    assert_eq!(
        changes(decode(&decoder, &message))[0].1,
        [
            Value::Int(1),
            Value::Decimal(1234),
            Value::Date(1),
            Value::Time(3_600_000),
            stamp(5, 0),
            stamp(0, 7_000),
            stamp(0, 9),
            stamp(0, 0)
        ]
    );
}

#[test]
fn without_envelope_timestamps_follow_the_columns_precision() {
    let table = schema(&[("id", "INT"), ("ms", "TIMESTAMP(3)"), ("us", "TIMESTAMP(6)")], &[], &["id"]);
    let decoder = Decoder::new(&table, &config(Format::DebeziumJson)).unwrap();
    let event = json!({"op": "c", "after": {"id": 1, "ms": 5, "us": 5}});
    let got = changes(decode(&decoder, &event)).remove(0).1;
    assert_eq!(got[1..], [Value::Timestamp { millis: 5, nanos: 0 }, Value::Timestamp { millis: 0, nanos: 5_000 }]);
}

#[test]
fn a_left_out_value_comes_from_the_old_row_or_the_record_is_rejected() {
    let decoder = Decoder::new(&orders(), &config(Format::DebeziumJson)).unwrap();
    let mut after = image(1, "__debezium_unavailable_value", "2.00");
    let event = |before: Json, after: &Json| json!({"op": "u", "before": before, "after": after});
    assert_eq!(changes(decode(&decoder, &event(image(1, "long", "1.00"), &after)))[0].1, row(1, "long", 200));
    assert_eq!(code(decode(&decoder, &event(Json::Null, &after))), RejectCode::UnavailableValue);
    after["note"] = json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==");
    assert_eq!(code(decode(&decoder, &event(Json::Null, &after))), RejectCode::UnavailableValue);
}

#[test]
fn columns_are_renamed_computed_set_and_masked() {
    let table = schema(
        &[
            ("id", "BIGINT"),
            ("dt", "DATE"),
            ("city", "STRING"),
            ("origin", "STRING"),
            ("card", "STRING"),
            ("mail", "STRING"),
        ],
        &["dt"],
        &["dt", "id"],
    );
    let rule = |f: &dyn Fn(&mut ColumnRule)| {
        let mut rule = ColumnRule::default();
        f(&mut rule);
        rule
    };
    let mut config = config(Format::Json);
    config.unknown_columns = UnknownColumns::Quarantine;
    config.columns = [
        ("id".to_owned(), rule(&|r| r.path = Some("/key".into()))),
        (
            "dt".to_owned(),
            rule(&|r| {
                r.date_of = Some("/at".into());
                r.offset_minutes = 60;
            }),
        ),
        ("city".to_owned(), rule(&|r| r.path = Some("/address/city".into()))),
        ("origin".to_owned(), rule(&|r| r.constant = Some(json!("shop")))),
        ("card".to_owned(), rule(&|r| r.mask = Some(Mask::KeepLast4))),
        ("mail".to_owned(), rule(&|r| r.mask = Some(Mask::Sha256))),
    ]
    .into();
    let decoder = Decoder::new(&table, &config).unwrap();
    let message =
        json!({"key": 7, "at": "1970-01-01T23:30:00Z", "address": {"city": "Ulm"}, "card": "123456789", "mail": "abc"});
    let text = |s: &str| Value::String(s.into());
    assert_eq!(
        changes(decode(&decoder, &message))[0].1,
        [
            Value::BigInt(7),
            Value::Date(1),
            text("Ulm"),
            text("shop"),
            text("*****6789"),
            text("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        ]
    );
    let mut strange = message;
    strange["what"] = json!(1);
    assert_eq!(code(decode(&decoder, &strange)), RejectCode::UnknownColumn);
}

#[test]
fn all_faults_of_a_configuration_are_reported_together() {
    let mut bad = config(Format::Json);
    bad.columns.insert("nope".into(), ColumnRule::default());
    bad.columns
        .insert("id".into(), ColumnRule { path: Some("key".into()), mask: Some(Mask::Null), ..Default::default() });
    bad.columns.insert("amount".into(), ColumnRule { constant: Some(json!("x")), ..Default::default() });
    assert_eq!(Decoder::new(&orders(), &bad).unwrap_err().len(), 4);
    assert!(
        serde_json::from_str::<DecoderConfig>(r#"{"formt": "json"}"#).is_err(),
        "a misspelt setting is not ignored"
    );
}

#[test]
fn a_batch_may_not_open_implausible_or_too_many_partitions() {
    let table = schema(&[("id", "INT"), ("dt", "DATE")], &["dt"], &["dt", "id"]);
    let mut limited = config(Format::Json);
    limited.partitions.per_batch = 2;
    limited.partitions.days_back = 100;
    limited.partitions.days_ahead = 1;
    let decoder = Decoder::new(&table, &limited).unwrap();
    let mut guard = decoder.batch_guard();
    let now = 20_000 * 86_400_000;
    let mut on = |day: i64| guard.decode(json!({"id": 1, "dt": day}).to_string().as_bytes(), now);
    assert!(matches!(on(20_000), Decoded::Changes(_)));
    assert_eq!(code(on(20_002)), RejectCode::ImplausiblePartition);
    assert_eq!(code(on(19_899)), RejectCode::ImplausiblePartition);
    assert!(matches!(on(19_901), Decoded::Changes(_)));
    assert!(matches!(on(20_000), Decoded::Changes(_)));
    assert_eq!(code(on(19_999)), RejectCode::ImplausiblePartition, "a third partition");
}

#[test]
fn payloads_of_one_stream_record_unpack_to_a_bounded_size_together() {
    let decoder = Decoder::new(&orders(), &config(Format::Json)).unwrap();
    let mut guard = decoder.batch_guard();
    let payload = json!({"id": 1, "note": "x".repeat(9 << 20)}).to_string();
    let packed = zstd::encode_all(payload.as_bytes(), 1).unwrap();
    assert!(packed.len() < 10_000);
    for _ in 0..2 {
        guard.begin_stream_record();
        for taken in [true, true, true, false, false] {
            let decoded = guard.decode(&packed, 0);
            match taken {
                true => assert!(matches!(decoded, Decoded::Changes(_)), "{taken}"),
                false => assert_eq!(code(decoded), RejectCode::TooLarge),
            }
        }
        assert!(matches!(guard.decode(br#"{"id": 1}"#, 0), Decoded::Changes(_)), "a small one still fits");
    }
}

#[test]
fn by_default_a_broken_time_opens_no_partitions_and_a_history_of_decades_does() {
    let table = schema(&[("id", "INT"), ("at", "TIMESTAMP(3)"), ("dt", "DATE")], &["dt"], &["dt", "id"]);
    let mut daily = config(Format::Json);
    daily.columns.insert("dt".to_owned(), ColumnRule { date_of: Some("/at".to_owned()), ..ColumnRule::default() });
    let decoder = Decoder::new(&table, &daily).unwrap();
    const DAY: i64 = 86_400_000;
    let now = 1_767_225_600_000; // 2026-01-01
    let decode =
        |guard: &mut BatchGuard<'_>, at: i64| guard.decode(json!({"id": 1, "at": at}).to_string().as_bytes(), now);

    let mut guard = decoder.batch_guard();
    let epoch_1980 = 315_532_800_000;
    for (broken, why) in
        [(now / 1_000, "seconds read as ms"), (0, "1970"), (epoch_1980, "1980"), (now + 367 * DAY, "ahead")]
    {
        let Decoded::Rejected(reject) = decode(&mut guard, broken) else { panic!("{why} is taken") };
        assert_eq!(reject.code, RejectCode::ImplausiblePartition, "{why}");
        assert!(reject.detail.contains("raise `partitions.days-back` or `days-ahead`"), "{why}: {reject:?}");
    }
    for good in [now, now + 366 * DAY, now - 14_610 * DAY] {
        assert!(matches!(decode(&mut guard, good), Decoded::Changes(_)), "{good}");
    }

    // Noise in place of a time: the batch goes on, with what fits.
    let mut guard = decoder.batch_guard();
    let rejects: Vec<Reject> = (0..3_000)
        .filter_map(|n| match decode(&mut guard, now - n * DAY) {
            Decoded::Rejected(reject) => Some(reject),
            _ => None,
        })
        .collect();
    assert_eq!(rejects.len(), 2_500);
    assert_eq!(rejects[0].code, RejectCode::ImplausiblePartition);
    assert!(rejects[0].detail.contains("500 partitions") && rejects[0].detail.contains("raise `partitions.per-batch`"));
    assert!(matches!(decode(&mut guard, now), Decoded::Changes(_)), "a partition that is open already");

    daily.partitions.per_batch = 3_000;
    let raised = Decoder::new(&table, &daily).unwrap();
    let mut guard = raised.batch_guard();
    assert!((0..3_000).all(|n| matches!(decode(&mut guard, now - n * DAY), Decoded::Changes(_))));
}

#[test]
fn a_partition_value_that_no_object_key_can_hold_is_rejected() {
    let table = schema(&[("id", "INT"), ("p", "STRING")], &["p"], &["p", "id"]);
    let decoder = Decoder::new(&table, &config(Format::Json)).unwrap();
    let mut guard = decoder.batch_guard();
    let mut with = |p: &str| guard.decode(json!({"id": 1, "p": p}).to_string().as_bytes(), 0);
    assert!(matches!(with(&"x".repeat(600)), Decoded::Changes(_)));
    assert_eq!(code(with(&"x".repeat(1_000))), RejectCode::OutOfRange);
    assert_eq!(code(with(&"/".repeat(300))), RejectCode::OutOfRange, "escaped it is three times as long");
    assert_eq!(code(with("a\u{ffff}")), RejectCode::OutOfRange);
}

#[test]
fn the_configuration_that_the_readme_shows_is_one() {
    let readme = include_str!("../../../functions/ingest/README.md");
    let shown = readme.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let read: DecoderConfig = serde_json::from_str(shown).unwrap();
    assert_eq!(read.partitions, DecoderConfig::default().partitions, "the defaults that it states");
    let written = serde_json::to_value(DecoderConfig::default()).unwrap();
    for field in written.as_object().unwrap().keys() {
        assert!(readme.contains(&format!("`{field}`")), "{field} is not in its table");
    }
}

#[test]
fn a_quarantined_record_keeps_its_bytes_and_place() {
    let record = QuarantinedRecord {
        stream: "arn:aws:kinesis:us-east-1:000000000000:stream/s".into(),
        shard: "shardId-000000000001".into(),
        sequence: "49590338271490256608559692538361571095921575989136588898".into(),
        sub_sequence: 3,
        arrival_ms: 17,
        partition_key: "k".into(),
        number: 7,
        schema_id: 0,
        reject: Reject { code: RejectCode::NotUtf8, column: None, detail: "is not UTF-8 at byte 0".into() },
        data: vec![0xff, 0x00, b'\n'],
    };
    let line = record.to_json_line();
    assert!(!line.contains('\n'));
    assert_eq!(QuarantinedRecord::from_json_line(&line).unwrap(), record);
    assert!(record.position().ends_with("898.3"));
    assert!(QuarantinedRecord::from_json_line("{}").is_err());
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), json in "[\\[\\]{}\":,0-9a-z. -]{0,80}") {
        for format in [Format::Json, Format::DebeziumJson] {
            let decoder = Decoder::new(&orders(), &config(format)).unwrap();
            let _ = decoder.decode(&bytes);
            let _ = decoder.decode(json.as_bytes());
            let _ = crate::aggregate::deaggregate(&bytes.clone().into());
        }
    }
}
