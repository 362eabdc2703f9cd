//! Compares keys that are still BinaryRow bytes, without decoding them whole.
//!
//! Neighbours: `lsm` sorts files by minimum and maximum key, `commit` checks that levels are disjoint.
//! Invariant: 1. the order is [`crate::value::compare_rows`] of the decoded rows, for every key type.

use std::cmp::Ordering;

use crate::{
    binary_row::{compare_stored, decode_row},
    data_file::StoredRow,
    error::Result,
    types::DataType,
};

/// Compares rows of the same key columns.
#[derive(Debug, Clone)]
pub struct KeyComparator {
    types: Vec<DataType>,
}

impl KeyComparator {
    /// For keys of these types, in key order.
    #[must_use]
    pub fn new(types: Vec<DataType>) -> Self {
        Self { types }
    }

    /// The types this compares.
    #[must_use]
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The order of two keys. Rows that do not hold such columns compare by their bytes: who must know checks each key that
    /// comes from outside once with [`KeyComparator::check`].
    #[must_use]
    pub fn compare(&self, a: &StoredRow, b: &StoredRow) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        compare_stored(a, b, &self.types).unwrap_or_else(|| a.cmp(b))
    }

    /// Checks that a key decodes.
    ///
    /// # Errors
    /// Corrupt, naming `object`.
    pub fn check(&self, object: &str, key: &StoredRow) -> Result<()> {
        decode_row(object, key, &self.types).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        binary_row::encode_row,
        value::{Value, compare_rows},
    };

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
        fn text_order_equals_that_of_the_decoded_rows(a in ("\\PC{0,12}", 0..2), b in ("\\PC{0,12}", 0..2)) {
            let keys = comparator(&["INT", "STRING", "BYTES"]);
            let values = |(text, int): &(String, i32)| {
                vec![Value::Int(*int), Value::String(text.chars().take(9).collect()), Value::Bytes(text.clone().into_bytes())]
            };
            let (x, y) = (values(&a), values(&b));
            prop_assert_eq!(keys.compare(&row(&x, &keys), &row(&y, &keys)), compare_rows(&x, &y));
        }

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
