//! Compares keys that are still BinaryRow bytes, without decoding them whole.
//!
//! Neighbours: `lsm` sorts files by minimum and maximum key, `commit` checks that levels are disjoint.
//! Invariant: 1. the order is [`crate::value::compare_rows`] of the decoded rows, for every key type.

use std::cmp::Ordering;

use crate::{
    binary_row::decode_row,
    data_file::StoredRow,
    error::Result,
    types::{DataType, TypeKind},
    value::compare_rows,
};

/// Compares rows of the same key columns.
#[derive(Debug, Clone)]
pub struct KeyComparator {
    types: Vec<DataType>,
    single: Option<Single>,
}

/// Keys of one column that are compared in place.
#[derive(Debug, Clone, Copy)]
enum Single {
    Int,
    BigInt,
}

impl KeyComparator {
    /// For keys of these types, in key order.
    #[must_use]
    pub fn new(types: Vec<DataType>) -> Self {
        let single = match types.as_slice() {
            [only] => match only.kind {
                TypeKind::Int | TypeKind::Date | TypeKind::Time(_) => Some(Single::Int),
                TypeKind::BigInt => Some(Single::BigInt),
                _ => None,
            },
            _ => None,
        };
        Self { types, single }
    }

    /// The types this compares.
    #[must_use]
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The order of two keys. Rows that do not decode compare by their bytes: callers that must know decode with
    /// [`KeyComparator::check`] first, which every key read from a manifest passes once.
    #[must_use]
    pub fn compare(&self, a: &StoredRow, b: &StoredRow) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        if let Some(order) = self.single.and_then(|single| compare_single(single, a, b)) {
            return order;
        }
        match (decode_row("key", a, &self.types), decode_row("key", b, &self.types)) {
            (Ok(x), Ok(y)) => compare_rows(&x, &y),
            _ => a.cmp(b),
        }
    }

    /// Checks that a key decodes.
    ///
    /// # Errors
    /// Corrupt, naming `object`.
    pub fn check(&self, object: &str, key: &StoredRow) -> Result<()> {
        decode_row(object, key, &self.types).map(drop)
    }
}

/// The order of two rows of one integer column; `None` when one is null or too short.
fn compare_single(single: Single, a: &StoredRow, b: &StoredRow) -> Option<Ordering> {
    let slot = |row: &StoredRow| match row.bytes.as_chunks::<8>().0 {
        [header, slot, ..] if row.arity == 1 && header[1] & 1 == 0 => Some(*slot),
        _ => None,
    };
    let (a, b) = (slot(a)?, slot(b)?);
    Some(match single {
        Single::Int => int(a).cmp(&int(b)),
        Single::BigInt => i64::from_le_bytes(a).cmp(&i64::from_le_bytes(b)),
    })
}

fn int(slot: [u8; 8]) -> i32 {
    // The low half: BinaryRow does not extend the sign.
    i64::from_le_bytes(slot) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{binary_row::encode_row, value::Value};

    fn row(values: &[Value], comparator: &KeyComparator) -> StoredRow {
        encode_row(values, comparator.types()).unwrap()
    }

    fn comparator(texts: &[&str]) -> KeyComparator {
        KeyComparator::new(texts.iter().map(|t| DataType::parse(t).unwrap()).collect())
    }

    /// The order of paimon-format.md section 7.
    #[test]
    fn strings_order_by_unsigned_bytes() {
        let keys = comparator(&["STRING NOT NULL"]);
        let sorted = ["", "B", "a", "a\0", "ab", "é", "\u{ffff}", "\u{1f600}"];
        for pair in sorted.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|s| row(&[Value::String(s.into())], &keys));
            assert_eq!(
                (keys.compare(&a, &b), keys.compare(&b, &a), keys.compare(&a, &a)),
                (Ordering::Less, Ordering::Greater, Ordering::Equal)
            );
        }
    }

    #[test]
    fn floats_order_as_java_and_null_comes_first() {
        let keys = comparator(&["DOUBLE"]);
        let sorted = [
            Value::Null,
            Value::Double(f64::NEG_INFINITY),
            Value::Double(-0.0),
            Value::Double(0.0),
            Value::Double(f64::INFINITY),
            Value::Double(f64::NAN),
        ];
        for pair in sorted.windows(2) {
            assert_eq!(keys.compare(&row(&pair[..1], &keys), &row(&pair[1..], &keys)), Ordering::Less);
        }
        let keys = comparator(&["INT"]);
        assert_eq!(keys.compare(&row(&[Value::Null], &keys), &row(&[Value::Int(i32::MIN)], &keys)), Ordering::Less);
    }

    #[test]
    fn damaged_keys_are_found_by_check_and_compare_without_panic() {
        let keys = comparator(&["BIGINT"]);
        let short = StoredRow { arity: 1, bytes: vec![0; 9] };
        assert!(keys.check("m", &short).is_err());
        let good = row(&[Value::BigInt(1)], &keys);
        assert_ne!(keys.compare(&short, &good), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn order_equals_that_of_the_decoded_rows(a in any::<(i32, i64, i32)>(), b in any::<(i32, i64, i32)>()) {
            for (texts, pick) in [(vec!["INT"], 0), (vec!["BIGINT"], 1), (vec!["INT", "BIGINT", "DATE"], 2)] {
                let keys = comparator(&texts);
                let values = |(x, y, z): (i32, i64, i32)| match pick {
                    0 => vec![Value::Int(x)],
                    1 => vec![Value::BigInt(y)],
                    _ => vec![Value::Int(x % 2), Value::BigInt(y % 2), Value::Date(z)],
                };
                let (x, y) = (values(a), values(b));
                prop_assert_eq!(keys.compare(&row(&x, &keys), &row(&y, &keys)), compare_rows(&x, &y));
            }
        }
    }
}
