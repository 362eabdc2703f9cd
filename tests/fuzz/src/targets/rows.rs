//! Rows: BinaryRow, BinaryArray and BinaryMap of every type, and whole Parquet files.
//!
//! Below: `format`, `lsm`. An input of `row` begins with a byte that picks the types, one of `data-file` and `audit` with a byte that picks whose
//! manifest entry describes it. Invariants: 1. rows that decode encode to the bytes that decode to the same; 2. two rows compare as their values do.

use std::{cmp::Ordering, rc::Rc, sync::Arc};

use bytes::Bytes;
use siltstone_format::{
    binary_row::{decode_row, encode_row},
    compare::KeyComparator,
    data_file::StoredRow,
    id::FieldId,
    stats::ColumnRanges,
    types::{DataType, RowField, TypeKind},
    value::{Value, compare_rows},
};
use siltstone_lsm::{
    audit::{Expected, audit},
    layout::FileLayout,
    reader,
};

use super::{Memory, Outcome, Target};
use crate::{
    corpus::{Corpus, DataFile},
    mutate::Shape,
};

/// Pages are opened to what they claim, one column at a time; batches are bounded by rows and bytes.
const FILE: Memory = Memory { per_byte: 2_000, constant: 32 << 20 };

/// Types that a row may have: the first byte of an input picks one list.
fn shapes(corpus: &Corpus) -> Vec<Vec<DataType>> {
    let parse = |texts: &[&str]| texts.iter().filter_map(|text| DataType::parse_sql(text).ok()).collect::<Vec<_>>();
    let mut shapes = vec![
        parse(&["BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DATE", "TIME(3)"]),
        parse(&["DECIMAL(9, 3)", "DECIMAL(18, 0)", "DECIMAL(19, 2)", "DECIMAL(38, 10)"]),
        parse(&["TIMESTAMP(0)", "TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMP(9)", "TIMESTAMP(3) WITH LOCAL TIME ZONE"]),
        parse(&["CHAR(7)", "VARCHAR(20)", "STRING", "BINARY(4)", "VARBINARY(16)", "BYTES"]),
        parse(&[
            "ARRAY<INT>",
            "ARRAY<STRING>",
            "MAP<STRING NOT NULL, BIGINT>",
            "MULTISET<STRING NOT NULL>",
            "ROW<x INT, y STRING>",
        ]),
        parse(&[
            "ARRAY<ROW<a DECIMAL(20, 2), b MAP<INT NOT NULL, ARRAY<TIMESTAMP(6)>>>>",
            "ARRAY<BOOLEAN>",
            "ARRAY<TINYINT>",
        ]),
        parse(&["BIGINT"; 70]),
        Vec::new(),
    ];
    for (_, _, written, _) in corpus.described() {
        let all: Vec<DataType> = written.fields.iter().map(|field| field.data_type.clone()).collect();
        for types in
            [written.types_at(&written.trimmed_primary_key()), written.types_at(&written.partition_indices()), all]
        {
            if !shapes.contains(&types) && shapes.len() < 256 {
                shapes.push(types);
            }
        }
    }
    shapes
}

/// A value of a type; `n` makes different ones.
fn sample(kind: &TypeKind, n: i32) -> Value {
    let text = ["", "a", "1234567", "12345678", "Zażółć gęślą jaźń"][n.rem_euclid(5) as usize];
    let digits = |precision: u8| i128::from(n) % 10_i128.pow(u32::from(precision.min(6)));
    match kind {
        TypeKind::Boolean => Value::Boolean(n % 2 == 0),
        TypeKind::TinyInt => Value::TinyInt(n as i8),
        TypeKind::SmallInt => Value::SmallInt(n as i16),
        TypeKind::Int => Value::Int(n),
        TypeKind::BigInt => Value::BigInt(i64::from(n) << 20),
        TypeKind::Float => Value::Float(n as f32 / 3.0),
        TypeKind::Double => Value::Double(f64::from(n) / 3.0),
        TypeKind::Date => Value::Date(n),
        TypeKind::Time(_) => Value::Time(n.unsigned_abs() as i32 % 86_400_000),
        TypeKind::Decimal { precision, .. } => Value::Decimal(digits(*precision)),
        TypeKind::Timestamp(_) | TypeKind::LocalTimestamp(_) => Value::Timestamp { millis: i64::from(n), nanos: 0 },
        TypeKind::Char(_) | TypeKind::VarChar(_) => Value::String(text.to_owned()),
        TypeKind::Binary(_) | TypeKind::VarBinary(_) => Value::Bytes(text.as_bytes().to_vec()),
        TypeKind::Array(element) => {
            let items = (0..n.rem_euclid(4)).map(|i| sample(&element.kind, n + i));
            Value::Array(items.chain(element.nullable.then_some(Value::Null)).collect())
        }
        TypeKind::Map(key, value) => {
            Value::Map((0..n.rem_euclid(3)).map(|i| (sample(&key.kind, i), sample(&value.kind, n + i))).collect())
        }
        TypeKind::Multiset(key) => {
            Value::Map((0..n.rem_euclid(3)).map(|i| (sample(&key.kind, i), Value::Int(n))).collect())
        }
        TypeKind::Row(fields) => Value::Row(fields.iter().map(|field| sample(&field.data_type.kind, n)).collect()),
    }
}

pub(super) fn targets(corpus: &Corpus) -> Vec<Target> {
    let shapes = shapes(corpus);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (place, types) in shapes.iter().enumerate() {
        for n in [0, 1, 2, -3, 40_004] {
            let values: Vec<Value> = types
                .iter()
                .enumerate()
                .map(|(i, t)| if n == 2 && i % 2 == 0 { Value::Null } else { sample(&t.kind, n + i as i32) })
                .collect();
            if let (Ok(row), Ok(place)) = (encode_row(&values, types), u8::try_from(place)) {
                seeds.push([vec![place], row.to_prefixed()].concat());
            }
        }
    }
    let nested = RowField {
        id: FieldId(0),
        name: String::new(),
        data_type: DataType::nullable(TypeKind::Int),
        description: None,
    };
    debug_assert_eq!(sample(&TypeKind::Row(vec![nested]), 1), Value::Row(vec![Value::Int(1)]));
    let row = Target {
        name: "row",
        shape: Shape::Bytes,
        words: &[],
        // A null of one bit becomes a value of 32 bytes, and the row stands there as bytes, values and bytes again.
        memory: Memory { per_byte: 600, constant: 64 << 10 },
        seeds,
        run: Box::new(move |bytes| row(bytes, &shapes)),
    };
    let files = Rc::new(corpus.data_files());
    let seeds = seeds_of(&files);
    let words: &[&str] = &["PAR1", "_KEY_", "_SEQUENCE_NUMBER", "_VALUE_KIND", "ARROW:schema"];
    let for_audit = files.clone();
    let target = |name, run| Target { name, shape: Shape::Bytes, words, memory: FILE, seeds: seeds.clone(), run };
    vec![
        row,
        target("data-file", Box::new(move |bytes| data_file(bytes, &files))),
        target("audit", Box::new(move |bytes| audited(bytes, &for_audit))),
    ]
}

fn seeds_of(files: &[DataFile]) -> Vec<Vec<u8>> {
    let numbered = files.iter().enumerate().filter_map(|(i, file)| Some((u8::try_from(i).ok()?, file)));
    numbered.map(|(i, file)| [vec![i], file.bytes.clone()].concat()).collect()
}

fn row(bytes: &[u8], shapes: &[Vec<DataType>]) -> Outcome {
    let Some((place, bytes)) = bytes.split_first() else { return Outcome::Refused };
    let Some(types) = shapes.get(usize::from(*place) % shapes.len()) else { return Outcome::Refused };
    let Ok(stored) = StoredRow::from_prefixed("row", bytes) else { return Outcome::Refused };
    let decoded = decode_row("row", &stored, types);
    let keys = KeyComparator::new(types.clone());
    let leaf = types.iter().all(|t| !t.is_nested());
    let known: Vec<Value> = types.iter().map(|t| sample(&t.kind, 1)).collect();
    let Ok(other) = encode_row(&known, types) else { return Outcome::Broken("a sample does not encode".to_owned()) };
    if leaf {
        let (there, back) = (keys.compare(&stored, &other), keys.compare(&other, &stored));
        if there != back.reverse() {
            return Outcome::Broken("two rows compare as greater both ways".to_owned());
        }
        if let Ok(values) = &decoded
            && there != compare_rows(values, &known)
            && (there == Ordering::Equal || stored != other)
        {
            return Outcome::Broken("two rows compare otherwise than their values".to_owned());
        }
    }
    let Ok(values) = decoded else { return Outcome::Refused };
    let mut ranges = ColumnRanges::new(types);
    if let (Ok(()), true) = (ranges.add(&values), leaf) {
        let _ = ranges.finish();
    }
    let Ok(first) = encode_row(&values, types) else {
        return Outcome::Broken("a row that decodes does not encode".to_owned());
    };
    // Bytes and not values are compared: NaN is not equal to itself.
    match decode_row("row", &first, types).and_then(|again| encode_row(&again, types)) {
        Ok(second) if second == first => Outcome::Taken,
        Ok(_) => Outcome::Broken("a row changes when it is written twice".to_owned()),
        Err(error) => Outcome::Broken(format!("a row that was written does not decode: {error}")),
    }
}

fn described<'f>(bytes: &[u8], files: &'f [DataFile]) -> Option<(Bytes, &'f DataFile)> {
    let (place, bytes) = bytes.split_first()?;
    Some((Bytes::copy_from_slice(bytes), files.get(usize::from(*place) % files.len().max(1))?))
}

fn data_file(bytes: &[u8], files: &[DataFile]) -> Outcome {
    let Some((bytes, file)) = described(bytes, files) else { return Outcome::Refused };
    let Ok(layout) = FileLayout::new(Arc::new(file.newest.clone())) else {
        return Outcome::Broken("a schema of the corpus has no layout".to_owned());
    };
    let open = if file.changelog { reader::open_changelog } else { reader::open };
    let Ok(batches) = open(bytes, &file.meta, &file.written, &layout) else { return Outcome::Refused };
    let mut rows = 0;
    for batch in batches {
        match batch {
            Ok(batch) => rows += batch.values.num_rows() as i64,
            Err(_) => return Outcome::Refused,
        }
    }
    if rows == file.meta.row_count {
        Outcome::Taken
    } else {
        Outcome::Broken(format!("{rows} rows, {} were told of", file.meta.row_count))
    }
}

fn audited(bytes: &[u8], files: &[DataFile]) -> Outcome {
    let Some((bytes, file)) = described(bytes, files) else { return Outcome::Refused };
    let expected = Expected { meta: &file.meta, partition: &[], bucket: None, changelog: file.changelog };
    match audit(bytes, &expected, &Arc::new(file.written.clone())) {
        Ok(audited) if audited.faults.iter().all(|fault| !fault.grave) => Outcome::Taken,
        Ok(_) => Outcome::Refused,
        Err(error) => Outcome::Broken(format!("an audit of bytes that are there failed: {error}")),
    }
}
