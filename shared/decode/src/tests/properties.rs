//! Properties: every type comes back as it was, and no bytes do harm.

use proptest::prelude::*;
use siltstone_format::types::{RowField, TypeKind};

use super::*;

/// A type with one of its values; `depth` bounds nesting.
fn typed(depth: u32) -> BoxedStrategy<(DataType, Value)> {
    let of = |text: &'static str| DataType::parse(text).unwrap();
    let finite = |f: &f64| f.is_finite();
    let leaf = prop_oneof![
        any::<bool>().prop_map(move |v| (of("BOOLEAN"), Value::Boolean(v))),
        any::<i8>().prop_map(move |v| (of("TINYINT"), Value::TinyInt(v))),
        any::<i16>().prop_map(move |v| (of("SMALLINT"), Value::SmallInt(v))),
        any::<i32>().prop_map(move |v| (of("INT"), Value::Int(v))),
        any::<i64>().prop_map(move |v| (of("BIGINT"), Value::BigInt(v))),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(move |v| (of("FLOAT"), Value::Float(v))),
        any::<f64>().prop_filter("finite", finite).prop_map(move |v| (of("DOUBLE"), Value::Double(v))),
        (-(10_i128.pow(38) - 1)..10_i128.pow(38)).prop_map(move |v| (of("DECIMAL(38, 10)"), Value::Decimal(v))),
        any::<String>().prop_map(move |v| (of("STRING"), Value::String(v))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(move |v| (of("BYTES"), Value::Bytes(v))),
        (-3_000_000..3_000_000_i32).prop_map(move |v| (of("DATE"), Value::Date(v))),
        (0..86_400_000_i32).prop_map(move |v| (of("TIME(3)"), Value::Time(v))),
        (-8_000_000_000_000_i64..8_000_000_000_000)
            .prop_map(move |millis| (of("TIMESTAMP(3)"), Value::Timestamp { millis, nanos: 0 })),
        Just((of("INT"), Value::Null)),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || typed(depth - 1);
    prop_oneof![
        4 => leaf,
        1 => (inner(), 0..4_usize).prop_map(|((element, value), n)| {
            (DataType::nullable(TypeKind::Array(Box::new(element))), Value::Array(vec![value; n]))
        }),
        1 => (any::<String>(), inner()).prop_map(|(key, (data_type, value))| {
            let text = Box::new(DataType::parse("STRING").unwrap());
            let map = DataType::nullable(TypeKind::Map(text, Box::new(data_type)));
            (map, Value::Map(vec![(Value::String(key), value)]))
        }),
        1 => prop::collection::vec(inner(), 1..4).prop_map(|fields| {
            let (types, values): (Vec<DataType>, Vec<Value>) = fields.into_iter().unzip();
            let fields = types.into_iter().enumerate().map(|(i, data_type)| RowField {
                id: siltstone_format::id::FieldId(100 + i as i32),
                name: format!("f{i}"),
                data_type,
                description: None,
            });
            (DataType::nullable(TypeKind::Row(fields.collect())), Value::Row(values))
        }),
    ]
    .boxed()
}

/// A value as people write it.
fn written(data_type: &DataType, value: &Value) -> Json {
    let number = |text: String| serde_json::from_str(&text).unwrap();
    match (value, &data_type.kind) {
        (Value::Null, _) => Json::Null,
        (Value::Boolean(v), _) => json!(v),
        (Value::TinyInt(v), _) => json!(v),
        (Value::SmallInt(v), _) => json!(v),
        (Value::Int(v), _) => json!(v),
        (Value::BigInt(v), _) => json!(v),
        (Value::Float(v), _) => number(format!("{v:?}")),
        (Value::Double(v), _) => number(format!("{v:?}")),
        (Value::Decimal(v), TypeKind::Decimal { scale, .. }) => number(format!("{v}e-{scale}")),
        (Value::String(v), _) => json!(v),
        (Value::Bytes(v), _) => json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, v)),
        (Value::Date(v), _) => json!(v),
        (Value::Time(v), _) => json!(v),
        (Value::Timestamp { millis, .. }, _) => json!(millis),
        (Value::Array(items), TypeKind::Array(element)) => items.iter().map(|v| written(element, v)).collect(),
        (Value::Map(pairs), TypeKind::Map(_, of)) => pairs
            .iter()
            .map(|(k, v)| match k {
                Value::String(k) => (k.clone(), written(of, v)),
                other => panic!("{other:?}"),
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        (Value::Row(values), TypeKind::Row(fields)) => fields
            .iter()
            .zip(values)
            .map(|(f, v)| (f.name.clone(), written(&f.data_type, v)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn plain_json_of_every_type_comes_back_as_it_was((data_type, value) in typed(2)) {
        let columns = vec![Column::new("id", DataType::parse("INT").unwrap()), Column::new("v", data_type.clone())];
        let table = TableSchema::create(columns, vec![], vec!["id".to_owned()], Default::default(), None, 0).unwrap();
        let decoder = Decoder::new(&table, &config(Format::Json)).unwrap();
        let message = json!({"id": 1, "v": written(&data_type, &value)});
        let got = changes(decode(&decoder, &message)).remove(0).1.remove(1);
        prop_assert_eq!(got, value, "{}", message);
    }

    #[test]
    fn damaged_messages_never_panic(place in 0..2000_usize, byte in any::<u8>(), cut in 0..2000_usize) {
        let decoder = Decoder::new(&orders(), &config(Format::DebeziumJson)).unwrap();
        let event = json!({"schema": {"fields": [{"field": "after", "fields": [{"field": "amount",
            "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}]}]},
            "payload": {"op": "u", "before": image(1, "a", "1.00"), "after": image(2, "__debezium_unavailable_value", "BNI=")}});
        let mut bytes = event.to_string().into_bytes();
        if let Some(hit) = bytes.get_mut(place) {
            *hit = byte;
        }
        let _ = decoder.decode(&bytes);
        let _ = decoder.decode(&bytes[..cut.min(bytes.len())]);
    }

    #[test]
    fn quarantine_lines_keep_any_bytes(data in prop::collection::vec(any::<u8>(), 0..300), key in any::<String>(), detail in any::<String>()) {
        let record = QuarantinedRecord {
            stream: "s".into(), shard: "x".into(), sequence: "1".into(), sub_sequence: 0, arrival_ms: 5, partition_key: key, number: i64::MAX, schema_id: 1,
            reject: Reject { code: RejectCode::TooDeep, column: None, detail }, data,
        };
        let line = record.to_json_line();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(QuarantinedRecord::from_json_line(&line).unwrap(), record);
    }
}
