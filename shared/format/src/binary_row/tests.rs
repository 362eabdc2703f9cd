//! BinaryRow: golden bytes, round trips, and what corrupt input answers.

use proptest::prelude::*;

use super::*;
use crate::{
    id::FieldId,
    types::{DataType, RowField, TypeKind},
    value::Value,
};

pub(crate) fn types(texts: &[&str]) -> Vec<DataType> {
    texts.iter().map(|text| DataType::parse(text).unwrap()).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| c.is_ascii_hexdigit()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// Example 1 of paimon-format.md section 6, equal in Java and pypaimon.
#[test]
fn golden_row_of_simple_types_equals_java() {
    let types = types(&["INT", "STRING", "STRING", "BIGINT", "BOOLEAN"]);
    let values = [
        Value::Int(42),
        Value::String("paimon".into()),
        Value::String("primary key table".into()),
        Value::Null,
        Value::Boolean(true),
    ];
    let golden = hex(
        "00000005 0008000000000000 2a00000000000000 7061696d6f6e0086 1100000030000000 0000000000000000 0100000000000000
        7072696d617279206b6579207461626c65 00000000000000",
    );
    let row = encode_row(&values, &types).unwrap();
    assert_eq!(row.to_prefixed(), golden);
    let back = StoredRow::from_prefixed("m", &golden).unwrap();
    assert_eq!(decode_row("m", &back, &types).unwrap(), values);
}

/// Example 2 of paimon-format.md section 6: a null timestamp reserves its bytes.
#[test]
fn golden_row_of_decimals_and_timestamps_equals_java() {
    let types = types(&["DECIMAL(10, 2)", "DECIMAL(20, 2)", "TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMP(9)"]);
    let millis = 1_700_000_000_123;
    let values = [
        Value::Decimal(-1234),
        Value::Decimal(1_234_567_890_123_456_789),
        Value::Timestamp { millis, nanos: 0 },
        Value::Timestamp { millis, nanos: 456_000 },
        Value::Null,
    ];
    let golden = hex(
        "00000005 0010000000000000 2efbffffffffffff 0800000030000000 7b68e5cf8b010000 40f5060040000000 0000000048000000
        112210f47de98115 0000000000000000 7b68e5cf8b010000 0000000000000000",
    );
    let row = encode_row(&values, &types).unwrap();
    assert_eq!(row.to_prefixed(), golden);
    assert_eq!(decode_row("m", &row, &types).unwrap(), values);
}

#[test]
fn empty_row_is_twelve_zero_bytes() {
    assert_eq!(StoredRow::empty().to_prefixed(), [0; 12]);
    assert_eq!(encode_row(&[], &[]).unwrap(), StoredRow::empty());
    assert_eq!(decode_row("m", &StoredRow::empty(), &[]).unwrap(), []);
}

#[test]
fn header_grows_with_the_57th_field() {
    for (arity, header) in [(1, 8), (56, 8), (57, 16), (120, 16), (121, 24)] {
        let row = encode_row(&vec![Value::Null; arity], &vec![DataType::nullable(TypeKind::Int); arity]).unwrap();
        assert_eq!(row.bytes.len(), header + 8 * arity);
    }
}

#[test]
fn small_integers_are_not_sign_extended() {
    let row = encode_row(&[Value::SmallInt(-2)], &types(&["SMALLINT"])).unwrap();
    assert_eq!(row.bytes[8..], [0xfe, 0xff, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn null_wide_decimal_reserves_sixteen_bytes() {
    let row = encode_row(&[Value::Null], &types(&["DECIMAL(30, 2)"])).unwrap();
    assert_eq!(row.bytes, hex("0001000000000000 0000000010000000 00000000000000000000000000000000"));
}

#[test]
fn array_and_map_lay_out_as_section_6_says() {
    let array = DataType::nullable(TypeKind::Array(Box::new(DataType::nullable(TypeKind::Int))));
    let row = encode_row(&[Value::Array(vec![Value::Int(1), Value::Null, Value::Int(3)])], &[array]).unwrap();
    assert_eq!(
        row.bytes,
        hex("0000000000000000 1800000010000000 03000000 02000000 01000000 00000000 03000000 00000000")
    );
    let map = DataType::nullable(TypeKind::Map(
        Box::new(DataType::nullable(TypeKind::TinyInt)),
        Box::new(DataType::nullable(TypeKind::BigInt)),
    ));
    let row = encode_row(&[Value::Map(vec![(Value::TinyInt(5), Value::BigInt(-1))])], &[map]).unwrap();
    let expected = "0000000000000000 2400000010000000 10000000 01000000 00000000 05000000 00000000 01000000 00000000 ffffffffffffffff 00000000";
    assert_eq!(row.bytes, hex(expected));
}

#[test]
fn only_wide_decimals_and_timestamps_that_are_null_reserve_bytes() {
    for (text, length) in [
        ("DECIMAL(18, 2)", 16),
        ("DECIMAL(19, 2)", 32),
        ("TIMESTAMP(3)", 16),
        ("TIMESTAMP(4)", 24),
        ("TIMESTAMP(3) WITH LOCAL TIME ZONE", 16),
        ("TIMESTAMP(4) WITH LOCAL TIME ZONE", 24),
        ("STRING", 16),
    ] {
        assert_eq!(encode_row(&[Value::Null], &types(&[text])).unwrap().bytes.len(), length, "{text}");
    }
}

/// As `BigInteger.toByteArray` gives them; the slot's low half is their number.
#[test]
fn wide_decimals_have_the_fewest_bytes_that_keep_their_sign() {
    let cases: [(i128, &[u8]); 9] = [
        (0, &[0]),
        (127, &[0x7f]),
        (128, &[0, 0x80]),
        (255, &[0, 0xff]),
        (256, &[1, 0]),
        (-1, &[0xff]),
        (-128, &[0x80]),
        (-129, &[0xff, 0x7f]),
        (-256, &[0xff, 0]),
    ];
    let types = types(&["DECIMAL(19, 0)"]);
    for (unscaled, bytes) in cases {
        let row = encode_row(&[Value::Decimal(unscaled)], &types).unwrap();
        assert_eq!((usize::from(row.bytes[8]), &row.bytes[16..16 + bytes.len()]), (bytes.len(), bytes), "{unscaled}");
        assert_eq!(decode_row("m", &row, &types).unwrap(), [Value::Decimal(unscaled)]);
    }
    let narrow = encode_row(&[Value::Decimal(-2)], &[DataType::parse("DECIMAL(18, 0)").unwrap()]).unwrap();
    assert_eq!(narrow.bytes, hex("0000000000000000 feffffffffffffff"));
}

#[test]
fn elements_of_arrays_are_as_wide_as_their_type() {
    for (text, value, slots) in [
        ("BOOLEAN", Value::Boolean(true), "01010000"),
        ("TINYINT", Value::TinyInt(-2), "fefe0000"),
        ("SMALLINT", Value::SmallInt(-2), "fefffeff"),
        ("FLOAT", Value::Float(1.0), "0000803f0000803f"),
        ("DATE", Value::Date(1), "0100000001000000"),
        ("TIME(3)", Value::Time(1), "0100000001000000"),
        ("DOUBLE", Value::Double(1.0), "000000000000f03f000000000000f03f"),
    ] {
        let element = DataType::nullable(DataType::parse(text).unwrap().kind);
        let array = DataType::nullable(TypeKind::Array(Box::new(element)));
        let row = encode_row(&[Value::Array(vec![value.clone(), value])], &[array]).unwrap();
        let slots = hex(slots);
        assert_eq!(row.bytes[16..24], hex("02000000 00000000"), "{text}");
        assert_eq!(row.bytes[24..24 + slots.len()], slots, "{text}");
    }
}

#[test]
fn nanoseconds_stay_inside_a_millisecond() {
    let types = types(&["TIMESTAMP(9)"]);
    let mut row = encode_row(&[Value::Timestamp { millis: 1, nanos: 999_999 }], &types).unwrap();
    assert_eq!(decode_row("m", &row, &types).unwrap(), [Value::Timestamp { millis: 1, nanos: 999_999 }]);
    row.bytes[8..12].copy_from_slice(&1_000_000_u32.to_le_bytes());
    assert!(decode_row("m", &row, &types).is_err());
}

/// Nulls have no bytes that a reader would miss.
#[test]
fn rows_too_short_for_their_slots_are_refused_though_all_is_null() {
    let row = StoredRow { arity: 9, bytes: [&[0, 0xff, 1][..], &[0; 37]].concat() };
    assert!(decode_row("m", &row, &vec![DataType::nullable(TypeKind::Int); 9]).is_err());
    let whole = StoredRow { bytes: [&row.bytes[..], &[0; 40]].concat(), ..row };
    assert_eq!(decode_row("m", &whole, &vec![DataType::nullable(TypeKind::Int); 9]).unwrap(), vec![Value::Null; 9]);
}

#[test]
fn prefixed_rows_hold_the_columns_that_they_claim() {
    let claim =
        |arity: i32, length| StoredRow::from_prefixed("m", &[&arity.to_be_bytes()[..], &vec![0; length]].concat());
    assert_eq!(claim(2, 24).unwrap(), StoredRow { arity: 2, bytes: vec![0; 24] });
    for (arity, length) in [(2, 23), (0, 7), (-1, 24), (MAX_ARITY + 1, 2_000_000)] {
        assert!(claim(arity, length).is_err(), "{arity} in {length}");
    }
    assert!(StoredRow::from_prefixed("m", &[0; 3]).is_err());
}

#[test]
fn values_of_another_type_are_refused() {
    for (value, text) in [
        (Value::Int(1), "BIGINT"),
        (Value::String("a".into()), "BYTES"),
        (Value::Decimal(1000), "DECIMAL(3, 0)"),
        (Value::Timestamp { millis: 0, nanos: 1_000_000 }, "TIMESTAMP(9)"),
    ] {
        assert!(encode_row(&[value], &types(&[text])).is_err(), "{text}");
    }
    assert!(encode_row(&[], &types(&["INT"])).is_err());
    assert!(decode_row("m", &StoredRow::empty(), &types(&["INT"])).is_err());
}

#[test]
fn overlapping_nested_values_cannot_multiply_memory() {
    // 1,000 arrays that all point at one array of 1,000 bytes.
    let inner = DataType::nullable(TypeKind::Array(Box::new(DataType::nullable(TypeKind::TinyInt))));
    let outer = DataType::nullable(TypeKind::Array(Box::new(inner)));
    let once = Value::Array(vec![Value::TinyInt(7); 1000]);
    let mut row = encode_row(&[Value::Array(vec![once; 1000])], std::slice::from_ref(&outer)).unwrap();
    let slots = 16 + 4 + 1000_usize.div_ceil(32) * 4;
    let first: [u8; 8] = row.bytes[slots..slots + 8].try_into().unwrap();
    for i in 0..1000 {
        row.bytes[slots + i * 8..slots + i * 8 + 8].copy_from_slice(&first);
    }
    row.bytes.truncate(16 + 4 + 128 + 8000 + 8 + 1200);
    let length = u32::try_from(row.bytes.len() - 16).unwrap();
    row.bytes[8..12].copy_from_slice(&length.to_le_bytes());
    assert!(decode_row("m", &row, &[outer]).unwrap_err().to_string().contains("overlap"));
}

fn leaf() -> impl Strategy<Value = (TypeKind, BoxedStrategy<Value>)> {
    let wide = 10_i128.pow(38) - 1;
    let texts = [
        ("BOOLEAN", any::<bool>().prop_map(Value::Boolean).boxed()),
        ("TINYINT", any::<i8>().prop_map(Value::TinyInt).boxed()),
        ("SMALLINT", any::<i16>().prop_map(Value::SmallInt).boxed()),
        ("INT", any::<i32>().prop_map(Value::Int).boxed()),
        ("BIGINT", any::<i64>().prop_map(Value::BigInt).boxed()),
        ("FLOAT", any::<i32>().prop_map(|v| Value::Float(v as f32)).boxed()),
        ("DOUBLE", any::<i64>().prop_map(|v| Value::Double(v as f64)).boxed()),
        ("DATE", any::<i32>().prop_map(Value::Date).boxed()),
        ("TIME(3)", any::<i32>().prop_map(Value::Time).boxed()),
        ("DECIMAL(18, 3)", (-999_999_999_999_999_999_i128..=999_999_999_999_999_999).prop_map(Value::Decimal).boxed()),
        ("DECIMAL(38, 3)", (-wide..=wide).prop_map(Value::Decimal).boxed()),
        ("TIMESTAMP(3)", any::<i64>().prop_map(|millis| Value::Timestamp { millis, nanos: 0 }).boxed()),
        (
            "TIMESTAMP(9)",
            (any::<i64>(), 0..1_000_000_u32).prop_map(|(millis, nanos)| Value::Timestamp { millis, nanos }).boxed(),
        ),
        ("STRING", "\\PC{0,12}".prop_map(Value::String).boxed()),
        ("BYTES", proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes).boxed()),
    ];
    proptest::sample::select(texts.map(|(text, values)| (DataType::parse(text).unwrap().kind, values)).to_vec())
}

type Typed = (TypeKind, BoxedStrategy<Value>);

fn or_null(values: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 4 => values].boxed()
}

fn typed() -> BoxedStrategy<Typed> {
    let boxed = |kind: TypeKind| Box::new(DataType::nullable(kind));
    leaf()
        .prop_recursive(3, 8, 3, move |inner| {
            let (a, m, r) = (inner.clone(), (inner.clone(), inner.clone()), proptest::collection::vec(inner, 1..4));
            prop_oneof![
                a.prop_map(move |(kind, values)| {
                    (
                        TypeKind::Array(boxed(kind)),
                        proptest::collection::vec(or_null(values), 0..40).prop_map(Value::Array).boxed(),
                    )
                }),
                m.prop_map(move |((k, ks), (v, vs))| {
                    let entries = proptest::collection::vec((ks, or_null(vs)), 0..5).prop_map(Value::Map).boxed();
                    (TypeKind::Map(boxed(k), boxed(v)), entries)
                }),
                r.prop_map(|fields| {
                    let (kinds, values): (Vec<_>, Vec<_>) = fields.into_iter().map(|(k, v)| (k, or_null(v))).unzip();
                    let field = |(i, kind)| RowField {
                        id: FieldId(i),
                        name: format!("f{i}"),
                        data_type: DataType::nullable(kind),
                        description: None,
                    };
                    (TypeKind::Row((0..).zip(kinds).map(field).collect()), values.prop_map(Value::Row).boxed())
                }),
            ]
        })
        .boxed()
}

fn typed_row() -> impl Strategy<Value = (Vec<DataType>, Vec<Value>)> {
    proptest::collection::vec(typed(), 0..6).prop_flat_map(|columns| {
        let (kinds, values): (Vec<_>, Vec<_>) =
            columns.into_iter().map(|(k, v)| (DataType::nullable(k), or_null(v))).unzip();
        (Just(kinds), values)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_row_survives_a_round_trip((types, values) in typed_row()) {
        let row = encode_row(&values, &types).unwrap();
        prop_assert_eq!(row.bytes.len() % 8, 0);
        prop_assert_eq!(decode_row("m", &row, &types).unwrap(), values);
    }

    #[test]
    fn damaged_rows_never_panic((types, values) in typed_row(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut row = encode_row(&values, &types).unwrap();
        for end in 0..row.bytes.len() {
            let cut = StoredRow { arity: row.arity, bytes: row.bytes[..end].to_vec() };
            let _ = decode_row("m", &cut, &types);
        }
        let at = at.index(row.bytes.len());
        row.bytes[at] = byte;
        let _ = decode_row("m", &row, &types);
    }
}
