//! Schemas: what is read is written back, what is unsupported is refused by name.

use super::*;
use crate::{error::ErrorKind, types::TypeKind};

const EXAMPLE: &str = r#"{"version":3,"id":0,"fields":[{"id":0,"name":"k","type":"INT NOT NULL","description":"the key"},
 {"id":1,"name":"a","type":{"type":"ARRAY","element":"STRING NOT NULL"}},
 {"id":2,"name":"m","type":{"type":"MAP NOT NULL","key":"INT","value":{"type":"ROW","fields":[{"id":3,"name":"x","type":"INT"}]}}},
 {"id":4,"name":"s","type":{"type":"MULTISET","element":"DATE"},"defaultValue":"d"}],
 "highestFieldId":7,"partitionKeys":[],"primaryKeys":["k"],"options":{"bucket":"4"},"comment":"c","timeMillis":1700000000000,"unknown":{"a":1}}"#;

fn edit(path: &str, value: serde_json::Value) -> Vec<u8> {
    let mut json: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    *json.pointer_mut(path).unwrap() = value;
    serde_json::to_vec(&json).unwrap()
}

fn column(name: &str, text: &str) -> Column {
    Column::new(name, DataType::parse(text).unwrap())
}

#[test]
fn example_file_survives_a_round_trip() {
    let schema = TableSchema::from_json("t/schema/schema-0", EXAMPLE.as_bytes()).unwrap();
    assert_eq!(schema.fields[1].data_type.to_string(), "ARRAY<STRING NOT NULL>");
    assert_eq!(schema.fields[2].data_type.to_string(), "MAP<INT, ROW<x INT>> NOT NULL");
    let bytes = schema.to_json();
    assert_eq!(TableSchema::from_json("schema-0", &bytes).unwrap(), schema);
    let mut given: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    given.as_object_mut().unwrap().remove("unknown");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(), given);
}

#[test]
fn broken_rules_are_named_with_the_object() {
    let cases = [
        ("/primaryKeys", serde_json::json!(["nope"]), "no column has this name"),
        ("/primaryKeys", serde_json::json!(["k", "k"]), "stands twice"),
        ("/partitionKeys", serde_json::json!(["k"]), "nothing is left"),
        ("/primaryKeys", serde_json::json!(["k", "a"]), "cannot be keys"),
        ("/fields/0/type", serde_json::json!("INT"), "must be NOT NULL"),
        ("/fields/1/id", serde_json::json!(3), "stands twice"),
        ("/fields/1/name", serde_json::json!("k"), "stands twice"),
        ("/fields/1/name", serde_json::json!("_KEY_k"), "reserved"),
        ("/highestFieldId", serde_json::json!(3), "highestFieldId"),
        ("/id", serde_json::json!(1), "its id is 1"),
        ("/version", serde_json::json!(0), "versions start at 1"),
        ("/fields/1/name", serde_json::json!("_LEVEL"), "reserved"),
        ("/fields/1/name", serde_json::json!(""), "needs a name"),
        ("/fields/1/id", serde_json::json!(-1), "must be 0 to"),
        ("/fields/0/type", serde_json::json!(7), "neither text nor an object"),
        ("/fields/0/type", serde_json::json!({"type": "ARRAY"}), "`element` is missing"),
        ("/fields/0/type", serde_json::json!("NOPE"), "no type of Paimon"),
    ];
    for (path, value, words) in cases {
        let error = TableSchema::from_json("t/schema/schema-0", &edit(path, value)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(
            error.to_string().starts_with("t/schema/schema-0 is damaged") && error.to_string().contains(words),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_carried_is_refused_by_name() {
    let cases = [
        (
            "/version",
            serde_json::json!(4),
            "schema version 4 is not supported; use a Siltstone that knows this version",
        ),
        ("/version", serde_json::json!(2), "ORC data files"),
        ("/primaryKeys", serde_json::json!([]), "without a primary key"),
        ("/fields/1/type", serde_json::json!("VARIANT"), "VARIANT of column `a`"),
        (
            "/fields/1/type",
            serde_json::json!({"type": "VECTOR", "element": "FLOAT", "length": 3}),
            "VECTOR of column `a`",
        ),
    ];
    for (path, value, words) in cases {
        let error = TableSchema::from_json("schema-0", &edit(path, value)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn ids_of_schemas_have_31_bits() {
    for id in [-1, 1_i64 << 31] {
        let error = TableSchema::from_json("schema", &edit("/id", serde_json::json!(id))).unwrap_err();
        assert!(error.to_string().contains("must be 0 to 2147483647"), "{error}");
    }
    assert!(TableSchema::from_json("schema", &edit("/id", serde_json::json!(i32::MAX))).is_ok());
}

#[test]
fn nullable_keys_are_told_from_damage_by_their_option() {
    let mut json: serde_json::Value =
        serde_json::from_slice(&edit("/fields/0/type", serde_json::json!("INT"))).unwrap();
    json["options"]["primary-key.nullable"] = "true".into();
    let error = TableSchema::from_json("schema-0", &serde_json::to_vec(&json).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn schema_files_larger_than_any_are_refused() {
    let padded = |length: usize| {
        TableSchema::from_json("schema-0", &[EXAMPLE.as_bytes(), &vec![b' '; length - EXAMPLE.len()]].concat())
    };
    assert!(padded(MAX_SCHEMA_BYTES).is_ok());
    assert!(padded(MAX_SCHEMA_BYTES + 1).unwrap_err().to_string().contains("more than a schema file has"));
}

#[test]
fn every_kind_of_nesting_counts_towards_the_depth_of_a_type() {
    let kinds: [fn(serde_json::Value) -> serde_json::Value; 4] = [
        |inner| serde_json::json!({"type": "ARRAY", "element": inner}),
        |inner| serde_json::json!({"type": "MAP", "key": "INT", "value": inner}),
        |inner| serde_json::json!({"type": "MAP", "key": inner, "value": "INT"}),
        |inner| serde_json::json!({"type": "ROW", "fields": [{"id": 0, "name": "x", "type": inner}]}),
    ];
    for (i, nest) in kinds.into_iter().enumerate() {
        let deep = |n: usize| type_from_json(&(0..n).fold(serde_json::json!("INT"), |inner, _| nest(inner)), 0);
        assert!(deep(32).is_ok(), "{i}");
        assert!(deep(33).unwrap_err().to_string().contains("deeper"), "{i}");
    }
}

#[test]
fn partitions_that_engines_name_differently_are_refused_for_new_tables() {
    for (partition, refused) in [("DOUBLE", true), ("BYTES", true), ("DATE", false)] {
        let columns = vec![column("p", partition), column("k", "INT")];
        let made =
            TableSchema::create(columns, vec!["p".into()], vec!["p".into(), "k".into()], BTreeMap::new(), None, 0);
        assert_eq!(made.is_err(), refused, "{partition}");
    }
}

#[test]
fn fields_inside_maps_get_ids_too() {
    let row = |name: &str| DataType::parse_sql(&format!("ROW<{name} INT>")).unwrap();
    let map = DataType::nullable(TypeKind::Map(Box::new(row("a")), Box::new(row("b"))));
    let columns = vec![column("k", "INT"), Column::new("m", map)];
    let schema = TableSchema::create(columns, vec![], vec!["k".into()], BTreeMap::new(), None, 0).unwrap();
    let mut nested = Vec::new();
    schema.fields[1].data_type.nested_ids(&mut nested);
    assert_eq!((nested, schema.highest_field_id), (vec![FieldId(2), FieldId(3)], 3));
}

#[test]
fn missing_version_reads_as_java_reads_it() {
    let text = EXAMPLE.replace("\"version\":3,", "");
    let error = TableSchema::from_json("schema-0", text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("ORC"), "{error}");
    let text = text.replace("{\"bucket\":\"4\"}", "{\"file.format\":\"parquet\"}");
    let schema = TableSchema::from_json("schema-0", text.as_bytes()).unwrap();
    assert_eq!(schema.options["bucket"], "1");
}

#[test]
fn truncated_or_deep_files_never_panic() {
    for end in 0..EXAMPLE.len() {
        assert!(TableSchema::from_json("schema-0", &EXAMPLE.as_bytes()[..end]).is_err());
    }
    let mut deep = serde_json::json!("INT");
    for _ in 0..60 {
        deep = serde_json::json!({"type": "ARRAY", "element": deep});
    }
    assert!(
        TableSchema::from_json("schema-0", &edit("/fields/1/type", deep)).unwrap_err().to_string().contains("deeper")
    );
    assert!(TableSchema::from_json("schema-0", "[".repeat(200_000).as_bytes()).is_err());
}

#[test]
fn new_table_gets_ids_depth_first_and_key_columns_not_null() {
    let row = r#"{"type":"ROW","fields":[{"id":0,"name":"x","type":"INT"},{"id":0,"name":"y","type":{"type":"ARRAY","element":{"type":"ROW","fields":[{"id":9,"name":"z","type":"INT"}]}}}]}"#;
    let row = type_from_json(&serde_json::from_str(row).unwrap(), 0).unwrap();
    let columns = vec![column("dt", "DATE"), Column::new("r", row), column("k", "BIGINT"), column("v", "STRING")];
    let schema =
        TableSchema::create(columns, vec!["dt".into()], vec!["dt".into(), "k".into()], BTreeMap::new(), None, 5)
            .unwrap();
    let ids: Vec<i32> = schema.fields.iter().map(|f| f.id.0).collect();
    assert_eq!((ids, schema.highest_field_id), (vec![0, 1, 5, 6], 6));
    let mut nested = Vec::new();
    schema.fields[1].data_type.nested_ids(&mut nested);
    assert_eq!(nested, [FieldId(2), FieldId(3), FieldId(4)]);
    assert!(
        !schema.fields[0].data_type.nullable
            && !schema.fields[2].data_type.nullable
            && schema.fields[3].data_type.nullable
    );
    assert_eq!(schema.options["bucket"], "1");
    assert_eq!((schema.trimmed_primary_key(), schema.partition_indices()), (vec![2], vec![0]));
    assert_eq!(schema.primary_key_indices(), [0, 2]);
    assert_eq!(TableSchema::from_json("schema-0", &schema.to_json()).unwrap(), schema);
}

#[test]
fn bucket_key_must_be_inside_the_trimmed_primary_key() {
    let make = |key: &str| {
        let columns = vec![column("p", "INT"), column("a", "INT"), column("b", "INT"), column("v", "INT")];
        let keys = vec!["p".into(), "a".into(), "b".into()];
        TableSchema::create(
            columns,
            vec!["p".into()],
            keys,
            BTreeMap::from([("bucket-key".into(), key.into())]),
            None,
            0,
        )
    };
    assert_eq!(make("b").unwrap().bucket_key_indices().unwrap(), [2]);
    assert_eq!(make(" b , a").unwrap().bucket_key_indices().unwrap(), [2, 1]);
    for wrong in ["v", "p", "x", "a,a", "a,"] {
        assert_eq!(make(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
    }
}

#[test]
fn names_that_java_keeps_for_itself_are_refused_for_new_tables() {
    for name in ["rowkind", "_KEY_a", "_VALUE_KIND"] {
        let columns = vec![column("k", "INT"), column(name, "INT")];
        let made = TableSchema::create(columns, vec![], vec!["k".into()], BTreeMap::new(), None, 0);
        assert_eq!(made.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
}
