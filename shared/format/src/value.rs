//! One value of a Paimon type, for keys, partitions, statistics and the rows that decoders make.
//!
//! Neighbours: `binary_row` encodes and decodes rows of these; `decode` makes them from events; bulk data stays in Arrow.
//! Invariant: 1. [`Value::compare`] is the sort order of data files (paimon-format.md section 7) for two values of one type.

use std::cmp::Ordering;

/// A value. Which variants a type takes is said at each; no variant carries its type's parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Absent.
    Null,
    /// `BOOLEAN`
    Boolean(bool),
    /// `TINYINT`
    TinyInt(i8),
    /// `SMALLINT`
    SmallInt(i16),
    /// `INT`
    Int(i32),
    /// `BIGINT`
    BigInt(i64),
    /// `FLOAT`
    Float(f32),
    /// `DOUBLE`
    Double(f64),
    /// `DECIMAL(p, s)`: the unscaled value
    Decimal(i128),
    /// `CHAR`, `VARCHAR`, `STRING`
    String(String),
    /// `BINARY`, `VARBINARY`, `BYTES`
    Bytes(Vec<u8>),
    /// `DATE`: days since 1970-01-01
    Date(i32),
    /// `TIME`: milliseconds of the day
    Time(i32),
    /// `TIMESTAMP` and `TIMESTAMP WITH LOCAL TIME ZONE`: milliseconds since 1970 (floor) and 0..=999_999 nanoseconds of that milli
    Timestamp {
        /// Milliseconds since 1970-01-01T00:00:00 (UTC for local time zone), rounded down.
        millis: i64,
        /// Nanoseconds inside the millisecond, 0..=999_999.
        nanos: u32,
    },
    /// `ARRAY`
    Array(Vec<Value>),
    /// `MAP` (and `MULTISET` with INT counts), in insertion order
    Map(Vec<(Value, Value)>),
    /// `ROW`
    Row(Vec<Value>),
}

impl Value {
    /// True for [`Value::Null`].
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The order of a data file for two values of one type: null first; strings and bytes unsigned; floats as Java
    /// compares them (-0.0 below 0.0, NaN greatest). Values of different types compare as equal: callers pair them by schema.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::TinyInt(a), Self::TinyInt(b)) => a.cmp(b),
            (Self::SmallInt(a), Self::SmallInt(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Date(a), Self::Date(b)) | (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::BigInt(a), Self::BigInt(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => java_float_order(f64::from(*a), f64::from(*b)),
            (Self::Double(a), Self::Double(b)) => java_float_order(*a, *b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Timestamp { millis: a, nanos: x }, Self::Timestamp { millis: b, nanos: y }) => (a, x).cmp(&(b, y)),
            _ => Ordering::Equal,
        }
    }
}

/// `Double.compare` of Java: all NaN are equal and greatest, -0.0 is below 0.0.
fn java_float_order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.total_cmp(&b),
    }
}

/// Compares two rows column by column with [`Value::compare`]; the shorter row is smaller if it is a prefix.
#[must_use]
pub fn compare_rows(a: &[Value], b: &[Value]) -> Ordering {
    a.iter().zip(b).map(|(x, y)| x.compare(y)).find(|o| *o != Ordering::Equal).unwrap_or_else(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_type_have_the_order_of_data_files() {
        let time = |millis, nanos| Value::Timestamp { millis, nanos };
        let ascending = [
            [Value::Boolean(false), Value::Boolean(true)],
            [Value::TinyInt(-1), Value::TinyInt(0)],
            [Value::SmallInt(-1), Value::SmallInt(0)],
            [Value::Int(-1), Value::Int(0)],
            [Value::Date(-1), Value::Date(0)],
            [Value::Time(1), Value::Time(2)],
            [Value::BigInt(-1), Value::BigInt(0)],
            [Value::Float(-0.0), Value::Float(0.0)],
            [Value::Float(f32::INFINITY), Value::Float(-f32::NAN)],
            [Value::Double(-0.0), Value::Double(0.0)],
            [Value::Double(f64::INFINITY), Value::Double(-f64::NAN)],
            [Value::Decimal(-1), Value::Decimal(0)],
            [Value::String("z".into()), Value::String("é".into())],
            [Value::Bytes(vec![0x7f]), Value::Bytes(vec![0x80])],
            [time(-1, 9), time(0, 0)],
            [time(0, 0), time(0, 1)],
        ];
        for [low, high] in ascending {
            assert_eq!(
                (low.compare(&high), high.compare(&low)),
                (Ordering::Less, Ordering::Greater),
                "{low:?} {high:?}"
            );
            assert_eq!(
                (low.compare(&low), high.compare(&high)),
                (Ordering::Equal, Ordering::Equal),
                "{low:?} {high:?}"
            );
            assert_eq!((Value::Null.compare(&low), low.compare(&Value::Null)), (Ordering::Less, Ordering::Greater));
        }
        assert_eq!(Value::Null.compare(&Value::Null), Ordering::Equal);
        assert_eq!(Value::Double(f64::NAN).compare(&Value::Double(-f64::NAN)), Ordering::Equal);
    }

    #[test]
    fn rows_order_by_their_first_difference_and_a_prefix_comes_first() {
        let row = |values: &[i32]| values.iter().map(|v| Value::Int(*v)).collect::<Vec<_>>();
        let ascending = [row(&[]), row(&[1]), row(&[1, 2]), row(&[1, 3]), row(&[2, 0])];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare_rows(a, b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }
}
