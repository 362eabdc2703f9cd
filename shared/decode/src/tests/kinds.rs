//! Every kind of value, message and edge of Debezium, as tables.

use super::*;

const DEBEZIUM: &str = "io.debezium.time.";
const CONNECT: &str = "org.apache.kafka.connect.data.";

fn one_column(data_type: &str) -> TableSchema {
    schema(&[("id", "INT"), ("v", data_type)], &[], &["id"])
}

/// A message with an envelope that describes column `v`.
fn enveloped(field: Json, value: Json) -> Json {
    let mut field = field;
    field["field"] = json!("v");
    let row = json!({"field": "after", "type": "struct", "fields": [{"field": "id", "type": "int32"}, field]});
    json!({"schema": {"type": "struct", "fields": [row]}, "payload": {"op": "c", "before": null, "after": {"id": 1, "v": value}}})
}

fn read(data_type: &str, message: &Json) -> Result<Value, RejectCode> {
    let decoder = Decoder::new(&one_column(data_type), &config(Format::DebeziumJson)).unwrap();
    match decode(&decoder, message) {
        Decoded::Changes(mut changes) => Ok(changes.remove(0).row.remove(1)),
        Decoded::Rejected(reject) => {
            assert_eq!(reject.column.as_deref(), Some("v"), "{reject}");
            Err(reject.code)
        }
        other => panic!("{other:?}"),
    }
}

fn stamp(millis: i64, nanos: u32) -> Result<Value, RejectCode> {
    Ok(Value::Timestamp { millis, nanos })
}

#[test]
fn every_debezium_temporal_is_read_by_its_own_unit() {
    use RejectCode::{OutOfRange, WrongType};
    const NOON: i64 = 43_200_000;
    let d = |name: &str| format!("{DEBEZIUM}{name}");
    let c = |name: &str| format!("{CONNECT}{name}");
    let text = |s: &str| Ok(Value::String(s.into()));
    let cases: Vec<(String, Json, &str, Result<Value, RejectCode>)> = vec![
        (d("Date"), json!(19_782), "DATE", Ok(Value::Date(19_782))),
        (c("Date"), json!(-1), "DATE", Ok(Value::Date(-1))),
        (d("Date"), json!(1), "TIMESTAMP(3)", stamp(86_400_000, 0)),
        (d("Date"), json!(1), "TIME(3)", Err(WrongType)),
        (d("Time"), json!(NOON), "TIME(3)", Ok(Value::Time(43_200_000))),
        (c("Time"), json!(NOON), "TIME(0)", Ok(Value::Time(43_200_000))),
        (d("MicroTime"), json!(NOON * 1000), "TIME(6)", Ok(Value::Time(43_200_000))),
        (d("MicroTime"), json!(NOON * 1000 + 1), "TIME(6)", Err(OutOfRange)),
        (d("NanoTime"), json!(NOON * 1_000_000), "TIME(3)", Ok(Value::Time(43_200_000))),
        (d("MicroTime"), json!(-1_000_000), "TIME(3)", Err(OutOfRange)),
        (d("MicroTime"), json!(90_000_000_000_i64), "TIME(3)", Err(OutOfRange)),
        (d("Time"), json!(1), "TIMESTAMP(3)", Err(WrongType)),
        (d("Timestamp"), json!(1_700_000_000_123_i64), "TIMESTAMP(3)", stamp(1_700_000_000_123, 0)),
        (c("Timestamp"), json!(1_700_000_000_123_i64), "TIMESTAMP(6)", stamp(1_700_000_000_123, 0)),
        (d("MicroTimestamp"), json!(1_700_000_000_123_456_i64), "TIMESTAMP(6)", stamp(1_700_000_000_123, 456_000)),
        (d("MicroTimestamp"), json!(1_700_000_000_123_456_i64), "TIMESTAMP(3)", Err(OutOfRange)),
        (d("MicroTimestamp"), json!(1_700_000_000_123_000_i64), "TIMESTAMP(3)", stamp(1_700_000_000_123, 0)),
        (d("NanoTimestamp"), json!(1_700_000_000_123_456_789_i64), "TIMESTAMP(9)", stamp(1_700_000_000_123, 456_789)),
        (d("NanoTimestamp"), json!(-1), "TIMESTAMP(9)", stamp(-1, 999_999)),
        (d("Timestamp"), json!(86_400_000), "DATE", Ok(Value::Date(1))),
        (d("Timestamp"), json!(86_400_001), "DATE", Err(OutOfRange)),
        (d("Timestamp"), json!(5), "BIGINT", Ok(Value::BigInt(5))),
        (d("Timestamp"), json!(i64::MAX), "TIMESTAMP(6)", Err(OutOfRange)),
        (
            d("ZonedTimestamp"),
            json!("2023-11-14T22:13:20.123456Z"),
            "TIMESTAMP(6) WITH LOCAL TIME ZONE",
            stamp(1_700_000_000_123, 456_000),
        ),
        (d("ZonedTimestamp"), json!("2023-11-15T00:13:20.123+02:00"), "TIMESTAMP(3)", stamp(1_700_000_000_123, 0)),
        (d("ZonedTimestamp"), json!("2023-11-14T22:13:20Z"), "STRING", text("2023-11-14T22:13:20Z")),
        (d("ZonedTime"), json!("12:00:00Z"), "TIME(3)", Ok(Value::Time(43_200_000))),
        (d("ZonedTime"), json!("12:00:00+01:00"), "TIME(3)", Err(WrongType)),
        (d("Year"), json!(2024), "INT", Ok(Value::Int(2024))),
        (d("Year"), json!(2024), "DATE", Err(WrongType)),
        (d("MicroDuration"), json!(5_000_000), "BIGINT", Ok(Value::BigInt(5_000_000))),
        (d("MicroDuration"), json!(5_000_000), "TIME(3)", Err(WrongType)),
        (d("NanoDuration"), json!(5), "TIMESTAMP(9)", Err(WrongType)),
        (d("Interval"), json!("P1Y2M3DT4H5M6.78S"), "STRING", text("P1Y2M3DT4H5M6.78S")),
        (d("Interval"), json!("P1D"), "TIME(3)", Err(WrongType)),
    ];
    for (name, value, data_type, wanted) in cases {
        let message = enveloped(json!({"type": "int64", "name": name}), value.clone());
        assert_eq!(read(data_type, &message), wanted, "{name} {value} as {data_type}");
    }
}

#[test]
fn every_form_of_a_decimal_is_exact() {
    use RejectCode::{OutOfRange, WrongType};
    let connect =
        |scale: Json| json!({"type": "bytes", "name": format!("{CONNECT}Decimal"), "parameters": {"scale": scale}});
    let plain = || json!({"type": "string"});
    let variable = || json!({"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"});
    let d = |v: i128| Ok(Value::Decimal(v));
    let cases: Vec<(Json, Json, Result<Value, RejectCode>)> = vec![
        (connect(json!("2")), json!("BNI="), d(1234)),
        (connect(json!(2)), json!("BNI"), d(1234)),
        (connect(json!("1")), json!("Aw=="), d(30)),
        (connect(json!("3")), json!("BNI="), Err(OutOfRange)),
        (connect(json!("3")), json!("AfQ="), d(50)),
        (connect(json!("0")), json!("/w=="), d(-100)),
        (connect(json!("2")), json!("gAAAAAAAAAAAAAAAAAAAAA=="), Err(OutOfRange)),
        (connect(json!("2")), json!(""), Err(WrongType)),
        (connect(json!("2")), json!("!"), Err(WrongType)),
        (json!({"type": "bytes", "name": format!("{CONNECT}Decimal")}), json!("BNI="), d(1234)),
        (variable(), json!({"scale": 3, "value": "AfQ="}), d(50)),
        (variable(), json!({"scale": -1, "value": "Aw=="}), d(3000)),
        (variable(), json!({"value": "Aw=="}), Err(WrongType)),
        (plain(), json!("12.34"), d(1234)),
        (plain(), json!(" -12.340 "), d(-1234)),
        (plain(), json!("1.2e1"), d(1200)),
        (plain(), json!("12.345"), Err(OutOfRange)),
        (plain(), json!("NaN"), Err(WrongType)),
        (json!({"type": "double"}), json!(12.34), d(1234)),
        (json!({"type": "double"}), json!(12.345), Err(OutOfRange)),
        (plain(), json!("99999999.99"), d(9_999_999_999)),
        (plain(), json!("100000000.00"), Err(OutOfRange)),
        (plain(), json!(true), Err(WrongType)),
    ];
    for (field, value, wanted) in cases {
        assert_eq!(read("DECIMAL(10, 2)", &enveloped(field.clone(), value.clone())), wanted, "{field} {value}");
    }
}

#[test]
fn other_types_are_read_as_they_are_written() {
    use RejectCode::WrongType;
    let text = |s: &str| Ok(Value::String(s.into()));
    let cases: Vec<(Json, Json, &str, Result<Value, RejectCode>)> = vec![
        (json!({"name": "io.debezium.data.Bits"}), json!("AQI="), "BYTES", Ok(Value::Bytes(vec![1, 2]))),
        (json!({"type": "boolean"}), json!(true), "BOOLEAN", Ok(Value::Boolean(true))),
        (json!({"type": "int16"}), json!(1), "BOOLEAN", Ok(Value::Boolean(true))),
        (json!({"type": "int16"}), json!(2), "BOOLEAN", Err(WrongType)),
        (json!({"name": "io.debezium.data.Enum"}), json!("red"), "STRING", text("red")),
        (json!({"name": "io.debezium.data.Json"}), json!("{\"a\":1}"), "STRING", text("{\"a\":1}")),
        (
            json!({"name": "io.debezium.data.Uuid"}),
            json!("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
            "STRING",
            text("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ),
        (
            json!({"name": "io.debezium.data.geometry.Point"}),
            json!({"x": 1.5, "y": 2}),
            "STRING",
            text("{\"x\":1.5,\"y\":2}"),
        ),
        (json!({"type": "bytes"}), json!("-_8="), "BYTES", Ok(Value::Bytes(vec![0xfb, 0xff]))),
        (
            json!({"type": "array", "items": {"type": "int32", "name": "io.debezium.time.Date"}}),
            json!([1, 2]),
            "ARRAY",
            Ok(Value::Array(vec![Value::Date(1), Value::Date(2)])),
        ),
        (
            json!({"type": "array", "items": {"type": "int32", "name": "io.debezium.time.Year"}}),
            json!([2024]),
            "ARRAY",
            Err(WrongType),
        ),
    ];
    for (field, value, data_type, wanted) in cases {
        let message = enveloped(field, value);
        if data_type != "ARRAY" {
            assert_eq!(read(data_type, &message), wanted, "{message}");
            continue;
        }
        let element = DataType::nullable(siltstone_format::types::TypeKind::Date);
        let array = DataType::nullable(siltstone_format::types::TypeKind::Array(Box::new(element)));
        let columns = vec![Column::new("id", DataType::parse("INT").unwrap()), Column::new("v", array)];
        let table = TableSchema::create(columns, vec![], vec!["id".to_owned()], Default::default(), None, 0).unwrap();
        let decoder = Decoder::new(&table, &config(Format::DebeziumJson)).unwrap();
        let got = match decode(&decoder, &message) {
            Decoded::Changes(mut changes) => Ok(changes.remove(0).row.remove(1)),
            other => Err(code(other)),
        };
        assert_eq!(got, wanted, "{message}");
    }
}

#[test]
fn without_envelope_the_unit_follows_the_columns_precision_or_the_configuration() {
    let event = json!({"op": "c", "after": {"id": 1, "v": 7_200_000_000_i64}});
    let cases = [
        ("TIMESTAMP(3)", None, stamp(7_200_000_000, 0)),
        ("TIMESTAMP(6)", None, stamp(7_200_000, 0)),
        ("TIMESTAMP(9)", None, stamp(7_200, 0)),
        ("TIME(6)", None, Ok(Value::Time(7_200_000))),
        ("TIMESTAMP(6)", Some(crate::config::TimeUnit::Millis), stamp(7_200_000_000, 0)),
        ("TIMESTAMP(3)", Some(crate::config::TimeUnit::Seconds), stamp(7_200_000_000_000, 0)),
        ("TIME(3)", None, Err(RejectCode::OutOfRange)),
    ];
    for (data_type, timestamp_unit, wanted) in cases {
        let config = DecoderConfig { timestamp_unit, ..config(Format::DebeziumJson) };
        let decoder = Decoder::new(&one_column(data_type), &config).unwrap();
        let got = match decode(&decoder, &event) {
            Decoded::Changes(mut changes) => Ok(changes.remove(0).row.remove(1)),
            other => Err(code(other)),
        };
        assert_eq!(got, wanted, "{data_type} {timestamp_unit:?}");
    }
}

#[test]
fn the_placeholder_is_known_in_every_form_and_only_where_a_column_reads_it() {
    let decoder = Decoder::new(&one_column("STRING"), &config(Format::DebeziumJson)).unwrap();
    let text = "__debezium_unavailable_value";
    let bytes: Vec<u8> = text.bytes().collect();
    for form in [
        json!(text),
        json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
        json!("5f5f646562657a69756d5f756e617661696c61626c655f76616c7565"),
        json!([text]),
        json!(bytes),
        json!({text: text}),
    ] {
        let event = |before: Json| json!({"op": "u", "before": before, "after": {"id": 1, "v": form}});
        assert_eq!(code(decode(&decoder, &event(Json::Null))), RejectCode::UnavailableValue, "{form}");
        assert_eq!(code(decode(&decoder, &event(json!({"id": 1, "v": form})))), RejectCode::UnavailableValue, "{form}");
        let got = changes(decode(&decoder, &event(json!({"id": 1, "v": "old"}))));
        assert_eq!(got, [(RowKind::UpdateAfter, vec![Value::Int(1), Value::String("old".into())])]);
        // A delete keeps no placeholder as if it were text.
        let gone = json!({"op": "d", "before": {"id": 1, "v": form}});
        assert_eq!(changes(decode(&decoder, &gone)), [(RowKind::Delete, vec![Value::Int(1), Value::Null])]);
        let elsewhere = json!({"op": "u", "before": null, "after": {"id": 1, "v": "x", "other": form}});
        assert!(matches!(decode(&decoder, &elsewhere), Decoded::Changes(_)));
    }
    let plain = Decoder::new(&one_column("STRING"), &config(Format::Json)).unwrap();
    assert_eq!(changes(decode(&plain, &json!({"id": 1, "v": text})))[0].1[1], Value::String(text.into()));
}

fn partitioned() -> (TableSchema, DecoderConfig) {
    let table = schema(&[("id", "INT"), ("dt", "STRING"), ("at", "TIMESTAMP(3)")], &["dt"], &["dt", "id"]);
    let mut config = config(Format::DebeziumJson);
    let rule = ColumnRule { date_of: Some("/at".into()), format: Some("%Y%m%d-%H".into()), ..ColumnRule::default() };
    config.columns.insert("dt".into(), rule);
    (table, config)
}

#[test]
fn a_changed_partition_is_a_delete_there_and_an_insert_here() {
    let (table, config) = partitioned();
    let decoder = Decoder::new(&table, &config).unwrap();
    let row = |id: i64, at: Json| json!({"id": id, "at": at});
    let event = |before: Json, after: Json| json!({"op": "u", "before": before, "after": after});
    let full = |id: i32, dt: &str, at: i64| {
        vec![Value::Int(id), Value::String(dt.into()), Value::Timestamp { millis: at, nanos: 0 }]
    };
    let moved = event(row(1, json!(0)), row(1, json!(3_600_000)));
    let wanted = [(RowKind::Delete, full(1, "19700101-00", 0)), (RowKind::Insert, full(1, "19700101-01", 3_600_000))];
    assert_eq!(changes(decode(&decoder, &moved)), wanted);
    // The old row has its key only, and the key is the same: nothing says that the partition changed.
    let same = event(row(1, Json::Null), row(1, json!(5)));
    assert_eq!(changes(decode(&decoder, &same)), [(RowKind::UpdateAfter, full(1, "19700101-00", 5))]);
    // The key changed and the old partition is not known: the old row could not be found.
    let lost = event(row(2, Json::Null), row(1, json!(5)));
    assert_eq!(code(decode(&decoder, &lost)), RejectCode::MissingBefore);
    let delete = json!({"op": "d", "before": {"id": 1}});
    assert_eq!(code(decode(&decoder, &delete)), RejectCode::MissingKey);
}

#[test]
fn the_day_of_a_number_whose_unit_nobody_says_is_a_reject() {
    let (table, mut config) = partitioned();
    config.columns.get_mut("dt").unwrap().date_of = Some("/elsewhere".into());
    let event = json!({"op": "c", "after": {"id": 1, "at": 5, "elsewhere": 1_700_000_000_000_i64}});
    let decoder = Decoder::new(&table, &config).unwrap();
    let Decoded::Rejected(reject) = decode(&decoder, &event) else { panic!("taken") };
    assert_eq!((reject.code, reject.column.as_deref()), (RejectCode::WrongType, Some("dt")));
    config.timestamp_unit = Some(crate::config::TimeUnit::Millis);
    let decoder = Decoder::new(&table, &config).unwrap();
    assert_eq!(changes(decode(&decoder, &event))[0].1[1], Value::String("20231114-22".into()));
}

#[test]
fn a_delete_takes_the_key_that_the_message_carries() {
    let decoder = Decoder::new(&one_column("STRING"), &config(Format::DebeziumJson)).unwrap();
    let gone = [(RowKind::Delete, vec![Value::Int(7), Value::Null])];
    for message in [
        json!({"op": "d", "before": null, "key": {"id": 7}}),
        json!({"key": {"id": 7}, "value": {"op": "d", "before": null}}),
        json!({"key": {"schema": {}, "payload": {"id": 7}}, "value": {"schema": {}, "payload": {"op": "d"}}}),
    ] {
        assert_eq!(changes(decode(&decoder, &message)), gone, "{message}");
    }
    assert_eq!(decode(&decoder, &json!({"key": {"id": 7}, "value": null})), Decoded::Ignored(IgnoredKind::Tombstone));
}

#[test]
fn a_delete_without_the_sequence_field_is_a_reject() {
    let mut table = schema(&[("id", "INT"), ("v", "BIGINT")], &[], &["id"]);
    table.options.insert("sequence.field".into(), "v".into());
    let decoder = Decoder::new(&table, &config(Format::DebeziumJson)).unwrap();
    assert_eq!(code(decode(&decoder, &json!({"op": "d", "before": {"id": 1}}))), RejectCode::MissingBefore);
    let whole = json!({"op": "d", "before": {"id": 1, "v": 5}});
    assert_eq!(changes(decode(&decoder, &whole)), [(RowKind::Delete, vec![Value::Int(1), Value::BigInt(5)])]);
}

#[test]
fn not_null_columns_of_a_delete_get_a_stand_in_and_of_an_insert_are_missed() {
    let table = schema(&[("id", "INT"), ("v", "STRING NOT NULL")], &[], &["id"]);
    let decoder = Decoder::new(&table, &config(Format::DebeziumJson)).unwrap();
    let gone = json!({"op": "d", "before": {"id": 1}});
    assert_eq!(
        changes(decode(&decoder, &gone)),
        [(RowKind::Delete, vec![Value::Int(1), Value::String(String::new())])]
    );
    assert_eq!(code(decode(&decoder, &json!({"op": "c", "after": {"id": 1}}))), RejectCode::MissingColumn);
}

#[test]
fn a_field_that_stands_twice_is_a_reject_where_it_is_read() {
    let decoder = Decoder::new(&one_column("STRING"), &config(Format::DebeziumJson)).unwrap();
    let twice = br#"{"op":"c","after":{"id":1,"id":2}}"#;
    assert_eq!(code(decoder.decode(twice)), RejectCode::DuplicateField);
    let op_twice = br#"{"op":"c","op":"d","after":{"id":1}}"#;
    assert_eq!(code(decoder.decode(op_twice)), RejectCode::DuplicateField);
    let unread = br#"{"op":"c","after":{"id":1,"x":1,"x":2}}"#;
    assert!(matches!(decoder.decode(unread), Decoded::Changes(_)));
}

#[test]
fn fields_that_no_column_reads_are_counted() {
    let decoder = Decoder::new(&one_column("STRING"), &config(Format::Json)).unwrap();
    let mut guard = decoder.batch_guard();
    for message in [json!({"id": 1, "a": 1, "b": [1, 2]}), json!({"id": 2, "v": "x"}), json!({"id": 3, "a": {"id": 9}})]
    {
        assert!(matches!(guard.decode(message.to_string().as_bytes(), 0), Decoded::Changes(_)));
    }
    assert_eq!(guard.unread_fields(), 3);
}

#[test]
fn rejects_never_repeat_what_the_record_says() {
    let table = schema(
        &[
            ("id", "INT"),
            ("amount", "DECIMAL(5, 2)"),
            ("d", "DATE"),
            ("t", "TIMESTAMP(3)"),
            ("s", "VARCHAR(3)"),
            ("b", "BYTES"),
        ],
        &[],
        &["id"],
    );
    let decoder = Decoder::new(&table, &config(Format::Json)).unwrap();
    for column in ["id", "amount", "d", "t", "s", "b"] {
        for secret in
            [json!("top-secret-4711"), json!(471_147_114_711_i64), json!({"top-secret": 4711}), json!([47.114_711])]
        {
            let mut message = json!({"id": 1});
            message[column] = secret;
            if let Decoded::Rejected(reject) = decode(&decoder, &message) {
                let words = reject.to_string();
                assert!(!words.contains("secret") && !words.contains("4711") && !words.contains("47.11"), "{words}");
            }
        }
    }
    let Decoded::Rejected(reject) = decoder.decode(b"{\"id\": secret4711}") else { panic!("taken") };
    assert!(!reject.to_string().contains("4711"), "{reject}");
}

#[test]
fn packed_payloads_decode_like_plain_ones() {
    let decoder = Decoder::new(&one_column("STRING"), &config(Format::Json)).unwrap();
    let packed = zstd::encode_all(&br#"{"id":5,"v":"x"}"#[..], 3).unwrap();
    assert_eq!(decoder.decode(&packed), decoder.decode(br#"{"id":5,"v":"x"}"#));
}

#[test]
fn settings_that_would_do_nothing_are_faults() {
    let faults = |config: DecoderConfig| Decoder::new(&orders(), &config).map(|_| ()).unwrap_err();
    let rule = |rule: ColumnRule| [("note".to_owned(), rule)].into();
    let base = || config(Format::DebeziumJson);
    let cases = [
        (DecoderConfig { op_field: Some("op".into()), ..base() }, "op-field"),
        (DecoderConfig { decimals: crate::config::Decimals::Base64, ..config(Format::Json) }, "decimals"),
        (DecoderConfig { max_record_bytes: 0, ..base() }, "max-record-bytes"),
        (
            DecoderConfig { columns: rule(ColumnRule { offset_minutes: 60, ..Default::default() }), ..base() },
            "columns.note",
        ),
        (
            DecoderConfig { columns: rule(ColumnRule { format: Some("%Y".into()), ..Default::default() }), ..base() },
            "columns.note",
        ),
        (
            DecoderConfig {
                columns: rule(ColumnRule {
                    date_of: Some("/at".into()),
                    format: Some("%x".into()),
                    ..Default::default()
                }),
                ..base()
            },
            "columns.note",
        ),
    ];
    for (config, at) in cases {
        let found = faults(config);
        assert_eq!(found.iter().map(|f| f.at.as_str()).collect::<Vec<_>>(), [at], "{found:?}");
    }
    let both = DecoderConfig { op_field: Some("op".into()), deletes: vec!["U".into()], ..config(Format::Json) };
    assert_eq!(faults(both)[0].at, "deletes");
}

#[test]
fn offsets_of_both_signs_are_taken_off() {
    let noon = 1_700_000_000_000 / 86_400_000 * 86_400_000 + 43_200_000;
    for (zone, hours) in
        [("Z", 0.0), ("+02:00", -2.0), ("-02:00", 2.0), ("-0530", 5.5), ("+05:30", -5.5), ("-18", 18.0)]
    {
        let text = format!("2023-11-14T12:00:00{zone}");
        let field = json!({"name": "io.debezium.time.ZonedTimestamp"});
        let wanted = stamp(noon + (hours * 3_600_000.0) as i64, 0);
        assert_eq!(read("TIMESTAMP(3) WITH LOCAL TIME ZONE", &enveloped(field, json!(text))), wanted, "{zone}");
    }
}

#[test]
fn a_map_has_no_null_among_its_keys() {
    use siltstone_format::types::TypeKind;
    let text = || DataType::parse("STRING").unwrap();
    let map = DataType::nullable(TypeKind::Map(Box::new(text()), Box::new(text())));
    let columns = vec![Column::new("id", DataType::parse("INT").unwrap()), Column::new("v", map)];
    let table = TableSchema::create(columns, vec![], vec!["id".to_owned()], Default::default(), None, 0).unwrap();
    let decoder = Decoder::new(&table, &config(Format::Json)).unwrap();
    let of = |pairs: Json| decode(&decoder, &json!({"id": 1, "v": pairs}));
    assert_eq!(code(of(json!([["a", "x"], [null, "y"]]))), RejectCode::MissingColumn);
    assert!(matches!(of(json!([["a", null]])), Decoded::Changes(_)), "a value may be null");
}
