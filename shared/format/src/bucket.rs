//! Which bucket a row belongs to (paimon-format.md section 8).
//!
//! Neighbours: `binary_row` makes the bytes that are hashed; `options` says which function; `lsm` asks per row.
//! Invariant: 1. equal to Java's for every key: a row in another bucket vanishes under key filters.

use crate::{
    binary_row::encode_row,
    data_file::StoredRow,
    error::{FormatError, Result},
    id::Bucket,
    types::{DataType, TypeKind},
    value::Value,
};

/// Option `bucket-function.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BucketFunction {
    /// `default`: Murmur3 over the BinaryRow of the bucket key.
    #[default]
    Murmur,
    /// `mod`: floor modulus of a single INT or BIGINT bucket key.
    Mod,
}

/// Murmur3-32 with seed 42 over whole 32-bit little-endian words; trailing bytes that fill no word are left out (rows have none).
#[must_use]
pub fn hash(bytes: &[u8]) -> i32 {
    let (words, _) = bytes.as_chunks::<4>();
    hash_words(words.iter().map(|word| u32::from_le_bytes(*word)), bytes.len())
}

fn hash_words(words: impl Iterator<Item = u32>, length: usize) -> i32 {
    let mut h = 42_u32;
    for word in words {
        let k = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
        h = (h ^ k).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    // Rows are below 2 GiB, as Java's are.
    h ^= length as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    (h ^ (h >> 16)).cast_signed()
}

/// The hash of the row of one INT (or DATE, TIME) that is not null.
#[must_use]
pub fn hash_int(value: i32) -> i32 {
    hash_words([0, 0, value.cast_unsigned(), 0].into_iter(), 16)
}

/// The hash of the row of one BIGINT (or narrow decimal, timestamp of precision <= 3) that is not null.
#[must_use]
pub fn hash_bigint(value: i64) -> i32 {
    let bits = value.cast_unsigned();
    hash_words([0, 0, bits as u32, (bits >> 32) as u32].into_iter(), 16)
}

/// The hash of the row of one string or byte value that is not null, without building the row.
#[must_use]
pub fn hash_bytes(value: &[u8]) -> i32 {
    if value.len() <= 7 {
        let mut slot = [0; 8];
        for (to, from) in slot.iter_mut().zip(value) {
            *to = *from;
        }
        slot[7] = 0x80 | value.len() as u8;
        return hash_bigint(i64::from_le_bytes(slot));
    }
    // The slot holds (offset 16, length); the data is padded with zeros to a whole number of 8 bytes.
    let (words, rest) = value.as_chunks::<4>();
    let padded = value.len().next_multiple_of(8);
    let mut tail = [0; 8];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    let (tail, _) = tail.as_chunks::<4>();
    let head = [0, 0, value.len() as u32, 16];
    let body = words.iter().chain(tail).take(padded / 4).map(|word| u32::from_le_bytes(*word));
    hash_words(head.into_iter().chain(body), 16 + padded)
}

/// The bucket of a hash among `buckets`; at least one bucket is assumed.
#[must_use]
pub const fn bucket_of_hash(hash: i32, buckets: i32) -> Bucket {
    let buckets = if buckets < 1 { 1 } else { buckets };
    Bucket((hash % buckets).abs())
}

/// The bucket of a bucket key's BinaryRow bytes (without the arity prefix) by the default function.
#[must_use]
pub fn bucket_of(row: &[u8], buckets: i32) -> Bucket {
    bucket_of_hash(hash(row), buckets)
}

/// The bucket of a single integer key by the `mod` function.
#[must_use]
pub const fn bucket_of_mod(key: i64, buckets: i32) -> Bucket {
    let buckets = if buckets < 1 { 1 } else { buckets };
    // The remainder is below an i32.
    Bucket(key.rem_euclid(buckets as i64) as i32)
}

/// Finds buckets for the keys of one table.
#[derive(Debug, Clone)]
pub struct Bucketer {
    types: Vec<DataType>,
    function: BucketFunction,
    buckets: i32,
}

impl Bucketer {
    /// For bucket keys of these types.
    ///
    /// # Errors
    /// Invalid when there is no bucket, or `mod` is asked for other than a single INT or BIGINT key.
    pub fn new(types: Vec<DataType>, function: BucketFunction, buckets: i32) -> Result<Self> {
        if buckets < 1 {
            return Err(FormatError::invalid(format!("bucket = {buckets}"), "a fixed number of buckets is at least 1"));
        }
        if function == BucketFunction::Mod
            && !matches!(types.as_slice(), [DataType { kind: TypeKind::Int | TypeKind::BigInt, .. }])
        {
            return Err(FormatError::invalid(
                "bucket-function.type = mod",
                "needs a bucket key of a single INT or BIGINT column",
            ));
        }
        Ok(Self { types, function, buckets })
    }

    /// The number of buckets.
    #[must_use]
    pub const fn buckets(&self) -> i32 {
        self.buckets
    }

    /// The bucket of a key given as values.
    ///
    /// # Errors
    /// Invalid when a value is not of its column's type.
    pub fn bucket(&self, key: &[Value]) -> Result<Bucket> {
        let hash = match (self.function, key) {
            (BucketFunction::Mod, [Value::Int(v)]) => return Ok(bucket_of_mod(i64::from(*v), self.buckets)),
            (BucketFunction::Mod, [Value::BigInt(v)]) => return Ok(bucket_of_mod(*v, self.buckets)),
            (BucketFunction::Mod, _) => {
                return Err(FormatError::invalid("bucket key", "`mod` needs an INT or BIGINT that is not null"));
            }
            (BucketFunction::Murmur, [Value::Int(v)]) if self.is_single(&TypeKind::Int) => hash_int(*v),
            (BucketFunction::Murmur, [Value::BigInt(v)]) if self.is_single(&TypeKind::BigInt) => hash_bigint(*v),
            (BucketFunction::Murmur, [Value::String(v)]) if self.is_single_text() => hash_bytes(v.as_bytes()),
            (BucketFunction::Murmur, _) => hash(&encode_row(key, &self.types)?.bytes),
        };
        Ok(bucket_of_hash(hash, self.buckets))
    }

    /// The bucket of a bucket key that is already a row.
    ///
    /// # Errors
    /// Corrupt when the row is not one of this table's bucket keys (`mod` decodes it).
    pub fn bucket_of_row(&self, object: &str, row: &StoredRow) -> Result<Bucket> {
        match self.function {
            BucketFunction::Murmur => Ok(bucket_of(&row.bytes, self.buckets)),
            BucketFunction::Mod => self.bucket(&crate::binary_row::decode_row(object, row, &self.types)?),
        }
    }

    fn is_single(&self, kind: &TypeKind) -> bool {
        matches!(self.types.as_slice(), [only] if only.kind == *kind)
    }

    fn is_single_text(&self) -> bool {
        matches!(self.types.as_slice(), [DataType { kind: TypeKind::Char(_) | TypeKind::VarChar(_), .. }])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table of paimon-format.md section 8, seen from Java: type, key, hash, bucket of 4, bucket of 7.
    #[test]
    fn golden_hashes_equal_java() {
        let ts = |nanos| Value::Timestamp { millis: 1_700_000_000_123, nanos };
        let text = |s: &str| Value::String(s.into());
        let cases = [
            ("INT", Value::Int(1), 1_465_514_398, 2, 5),
            ("BIGINT", Value::BigInt(1), 1_465_514_398, 2, 5),
            ("BOOLEAN", Value::Boolean(true), 1_465_514_398, 2, 5),
            ("INT", Value::Int(-1), 1_133_687_267, 3, 6),
            ("STRING", text("abc"), -101_922_419, 3, 4),
            ("STRING", text(""), 302_122_119, 3, 5),
            ("STRING", text("1234567"), 199_144_172, 0, 3),
            ("STRING", text("hello paimon"), 168_916_036, 0, 2),
            ("BYTES", Value::Bytes(vec![1, 2, 3]), 1_066_645_297, 1, 4),
            ("DECIMAL(10, 2)", Value::Decimal(150), -616_511_498, 2, 1),
            ("DECIMAL(30, 2)", Value::Decimal(-150), 635_775_811, 3, 6),
            ("TIMESTAMP(3)", ts(0), -1_285_420_957, 1, 2),
            ("TIMESTAMP(6)", ts(456_000), 1_196_670_069, 1, 0),
            ("DATE", Value::Date(19_700), 542_528_753, 1, 4),
            ("DOUBLE", Value::Double(1.5), 1_860_889_473, 1, 2),
            ("FLOAT", Value::Float(1.5), -173_842_779, 3, 5),
            ("TINYINT", Value::TinyInt(-1), 2_004_758_659, 3, 1),
            ("SMALLINT", Value::SmallInt(-2), 557_672_611, 3, 6),
        ];
        for (name, value, expected, four, seven) in cases {
            let types = vec![DataType::parse(name).unwrap()];
            let key = [value];
            assert_eq!(hash(&encode_row(&key, &types).unwrap().bytes), expected, "{name} {key:?}");
            for (n, bucket) in [(4, four), (7, seven)] {
                let bucketer = Bucketer::new(types.clone(), BucketFunction::Murmur, n).unwrap();
                assert_eq!(bucketer.bucket(&key).unwrap(), Bucket(bucket), "{name} {key:?} {n}");
                let row = encode_row(&key, &types).unwrap();
                assert_eq!(bucketer.bucket_of_row("m", &row).unwrap(), Bucket(bucket), "{name} {key:?} {n}");
            }
        }
        let types = vec![DataType::parse("INT").unwrap(), DataType::parse("STRING").unwrap()];
        let row = encode_row(&[Value::Int(7), text("héllo")], &types).unwrap();
        assert_eq!(
            (hash(&row.bytes), bucket_of(&row.bytes, 4), bucket_of(&row.bytes, 7)),
            (42_243_723, Bucket(3), Bucket(4))
        );
    }

    #[test]
    fn mod_takes_the_floor_modulus() {
        let bucketer = Bucketer::new(vec![DataType::parse("INT").unwrap()], BucketFunction::Mod, 5).unwrap();
        let bucket = |v| bucketer.bucket(&[Value::Int(v)]).unwrap().0;
        assert_eq!((bucket(7), bucket(-1), bucket(-5), bucket(i32::MIN)), (2, 4, 0, 2));
        let row = encode_row(&[Value::Int(-1)], &[DataType::parse("INT").unwrap()]).unwrap();
        assert_eq!((bucketer.bucket_of_row("m", &row).unwrap(), bucketer.buckets()), (Bucket(4), 5));
        assert_eq!(bucket_of_mod(i64::MIN, 5), Bucket(2));
        assert!(Bucketer::new(vec![DataType::parse("STRING").unwrap()], BucketFunction::Mod, 5).is_err());
        assert!(Bucketer::new(vec![], BucketFunction::Murmur, 0).is_err());
    }

    #[test]
    fn smallest_hash_has_a_bucket() {
        assert_eq!(bucket_of_hash(i32::MIN, 7), Bucket(2));
        assert_eq!(bucket_of_hash(i32::MIN, 1), Bucket(0));
    }

    #[test]
    fn no_bucket_counts_as_one() {
        for none in [0, -1, i32::MIN] {
            assert_eq!((bucket_of_hash(7, none), bucket_of_mod(7, none)), (Bucket(0), Bucket(0)));
        }
    }

    #[test]
    fn keys_of_another_type_have_no_bucket() {
        let text = || Value::String("a".into());
        let cases: [(&[&str], &[Value]); 6] = [
            (&["BIGINT"], &[Value::Int(1)]),
            (&["INT"], &[Value::BigInt(1)]),
            (&["BYTES"], &[text()]),
            (&["INT", "INT"], &[Value::Int(1)]),
            (&["STRING", "INT"], &[text()]),
            (&["INT"], &[]),
        ];
        for (types, key) in cases {
            let parsed = types.iter().map(|text| DataType::parse(text).unwrap()).collect();
            let bucketer = Bucketer::new(parsed, BucketFunction::Murmur, 4).unwrap();
            assert!(bucketer.bucket(key).is_err(), "{types:?} {key:?}");
        }
    }

    proptest! {
        #[test]
        fn fast_paths_equal_the_row_hash(int in any::<i32>(), long in any::<i64>(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let row = |value: Value, text: &str| hash(&encode_row(&[value], &[DataType::parse(text).unwrap()]).unwrap().bytes);
            prop_assert_eq!(hash_int(int), row(Value::Int(int), "INT"));
            prop_assert_eq!(hash_bigint(long), row(Value::BigInt(long), "BIGINT"));
            prop_assert_eq!(hash_bytes(&bytes), row(Value::Bytes(bytes.clone()), "BYTES"));
        }
    }
}
