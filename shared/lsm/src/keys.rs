//! Keys of a batch in a form that compares fast: integers and bytes in place where the key is one such column, else memcmp-able rows.
//!
//! Neighbours: `buffer` sorts by them, `reader` checks with them, `merge` compares cursors by them. Order: paimon-format.md section 7
//! (strings and bytes unsigned, floats as Java, false before true), then `sequence.field` columns (nulls first in both directions).
//! Invariants: 1. two [`KeyColumns`] of encoders of one layout compare like the rows they came from; 2. [`KeyColumns::prefix`] never
//! contradicts that order, and decides it alone where [`KeyEncoder::is_exact`].

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch},
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        ArrowPrimitiveType, DataType as Arrow, Date32Type, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType,
    },
};
use arrow_row::{RowConverter, Rows, SortField};
use siltstone_format::value::Value;

use crate::{error::LsmError, layout::FileLayout, rows::array_of};

/// Turns key (and order) columns of batches into comparable form. One encoder per table layout.
#[derive(Debug)]
pub struct KeyEncoder {
    key: Vec<usize>,
    fields: Vec<FieldRef>,
    order: Vec<usize>,
    form: Form,
    order_rows: Option<RowConverter>,
}

#[derive(Debug)]
enum Form {
    Integer,
    Bytes,
    Rows(RowConverter),
}

/// The keys of one batch.
#[derive(Debug)]
pub struct KeyColumns {
    keys: Keys,
    order: Option<Rows>,
}

#[derive(Debug)]
enum Keys {
    Integers(ScalarBuffer<i64>),
    Bytes { offsets: OffsetBuffer<i32>, data: Buffer },
    Rows(Rows),
}

impl KeyEncoder {
    /// An encoder for `layout`'s primary key and `sequence.field`.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when a key column's type has no order.
    pub fn new(layout: &FileLayout) -> Result<Self, LsmError> {
        let fields_at = |columns: &[usize]| -> Vec<FieldRef> {
            columns.iter().filter_map(|&i| layout.values().fields().get(i).cloned()).collect()
        };
        let converter = |fields: &[FieldRef], descending: bool| {
            let options = arrow::compute::SortOptions { descending, nulls_first: true };
            let fields = fields.iter().map(|f| SortField::new_with_options(f.data_type().clone(), options)).collect();
            RowConverter::new(fields).map_err(LsmError::encode)
        };
        let (fields, order_fields) = (fields_at(layout.key()), fields_at(layout.order()));
        let form = match fields.as_slice() {
            [only] if is_integer(only.data_type()) => Form::Integer,
            [only] if matches!(only.data_type(), Arrow::Utf8 | Arrow::Binary) => Form::Bytes,
            _ => Form::Rows(converter(&fields, false)?),
        };
        Ok(Self {
            key: layout.key().to_vec(),
            order: layout.order().to_vec(),
            order_rows: match order_fields.as_slice() {
                [] => None,
                some => Some(converter(some, layout.order_descending())?),
            },
            fields,
            form,
        })
    }

    /// Whether equal prefixes mean equal keys.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self.form, Form::Integer)
    }

    /// The comparable keys of `values`.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when a column is missing.
    pub fn encode(&self, values: &RecordBatch) -> Result<KeyColumns, LsmError> {
        let columns = |indices: &[usize]| -> Result<Vec<ArrayRef>, LsmError> {
            indices
                .iter()
                .map(|&i| values.columns().get(i).ok_or_else(|| LsmError::encode("a key column is missing")))
                .map(|column| column.map(one_nan))
                .collect()
        };
        let order = match &self.order_rows {
            Some(converter) => Some(converter.convert_columns(&columns(&self.order)?).map_err(LsmError::encode)?),
            None => None,
        };
        Ok(KeyColumns { keys: self.keys(&columns(&self.key)?)?, order })
    }

    /// The comparable form of a single key, in key order; it has no `sequence.field`.
    ///
    /// # Errors
    /// [`LsmError::Rows`] when the values are not a key of this table.
    pub fn encode_key(&self, key: &[Value]) -> Result<KeyColumns, LsmError> {
        if key.len() != self.fields.len() {
            return Err(LsmError::Rows(format!("a key has {} values, the table's {}", key.len(), self.fields.len())));
        }
        let columns = self.fields.iter().zip(key).map(|(field, value)| array_of(field, &[value]));
        let columns = columns.map(|c| c.map(|c| one_nan(&c))).collect::<Result<Vec<_>, _>>()?;
        Ok(KeyColumns { keys: self.keys(&columns)?, order: None })
    }

    fn keys(&self, columns: &[ArrayRef]) -> Result<Keys, LsmError> {
        Ok(match (&self.form, columns) {
            (Form::Integer, [only]) => Keys::Integers(integers(only)?),
            (Form::Bytes, [only]) => bytes(only)?,
            (Form::Rows(converter), _) => Keys::Rows(converter.convert_columns(columns).map_err(LsmError::encode)?),
            _ => return Err(LsmError::encode("a key of one column has one column")),
        })
    }
}

/// All NaNs as one: Java holds them equal and greatest, the row format orders them by sign and payload.
fn one_nan(column: &ArrayRef) -> ArrayRef {
    fn canonical<T: ArrowPrimitiveType>(
        array: &PrimitiveArray<T>,
        is_nan: fn(T::Native) -> bool,
        nan: T::Native,
    ) -> ArrayRef {
        if array.values().iter().any(|v| is_nan(*v)) {
            Arc::new(array.unary::<_, T>(|v| if is_nan(v) { nan } else { v }))
        } else {
            Arc::new(array.clone())
        }
    }
    match column.data_type() {
        Arrow::Float32 => canonical(column.as_primitive::<Float32Type>(), f32::is_nan, f32::NAN),
        Arrow::Float64 => canonical(column.as_primitive::<Float64Type>(), f64::is_nan, f64::NAN),
        _ => column.clone(),
    }
}

fn bytes(array: &ArrayRef) -> Result<Keys, LsmError> {
    if array.null_count() > 0 {
        return Err(LsmError::Rows("a key is null".to_owned()));
    }
    if let Some(text) = array.as_string_opt::<i32>() {
        return Ok(Keys::Bytes { offsets: text.offsets().clone(), data: text.values().clone() });
    }
    match array.as_binary_opt::<i32>() {
        Some(binary) => Ok(Keys::Bytes { offsets: binary.offsets().clone(), data: binary.values().clone() }),
        None => Err(LsmError::encode(format!("{} is not a key of bytes", array.data_type()))),
    }
}

/// Value `i` of a byte column; empty out of range.
#[inline]
fn value<'b>(offsets: &OffsetBuffer<i32>, data: &'b Buffer, i: usize) -> &'b [u8] {
    let at = |i: usize| offsets.get(i).and_then(|&o| usize::try_from(o).ok());
    at(i).zip(at(i + 1)).and_then(|(from, to)| data.as_slice().get(from..to)).unwrap_or_default()
}

/// The first eight bytes as a number that orders like them; shorter values are filled with zeros.
#[inline]
fn leading(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => bytes.iter().enumerate().fold(0, |sum, (i, b)| sum | u64::from(*b) << (56 - 8 * i)),
    }
}

fn is_integer(data_type: &Arrow) -> bool {
    matches!(
        data_type,
        Arrow::Int8
            | Arrow::Int16
            | Arrow::Int32
            | Arrow::Int64
            | Arrow::Date32
            | Arrow::Time32(_)
            | Arrow::Timestamp(..)
    )
}

fn integers(array: &ArrayRef) -> Result<ScalarBuffer<i64>, LsmError> {
    if array.null_count() > 0 {
        return Err(LsmError::Rows("a key is null".to_owned()));
    }
    macro_rules! widen {
        ($t:ty) => {
            array.as_primitive::<$t>().values().iter().map(|&v| i64::from(v)).collect()
        };
    }
    Ok(match array.data_type() {
        Arrow::Int8 => widen!(Int8Type),
        Arrow::Int16 => widen!(Int16Type),
        Arrow::Int32 => widen!(Int32Type),
        Arrow::Date32 => widen!(Date32Type),
        Arrow::Time32(_) => widen!(Time32MillisecondType),
        Arrow::Int64 => array.as_primitive::<Int64Type>().values().clone(),
        Arrow::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().values().clone(),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().values().clone(),
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => array.as_primitive::<TimestampNanosecondType>().values().clone(),
        other => return Err(LsmError::encode(format!("{other} is not an integer key"))),
    })
}

impl KeyColumns {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.keys {
            Keys::Integers(values) => values.len(),
            Keys::Bytes { offsets, .. } => offsets.len().saturating_sub(1),
            Keys::Rows(rows) => rows.num_rows(),
        }
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Order of row `i`'s key relative to row `j`'s key of `other`. Rows out of range compare as equal.
    #[must_use]
    #[inline]
    pub fn compare(&self, i: usize, other: &Self, j: usize) -> Ordering {
        match (&self.keys, &other.keys) {
            (Keys::Integers(a), Keys::Integers(b)) => match (a.get(i), b.get(j)) {
                (Some(x), Some(y)) => x.cmp(y),
                _ => Ordering::Equal,
            },
            (Keys::Bytes { offsets: a, data: x }, Keys::Bytes { offsets: b, data: y }) => {
                value(a, x, i).cmp(value(b, y, j))
            }
            (Keys::Rows(a), Keys::Rows(b)) if i < a.num_rows() && j < b.num_rows() => a.row(i).cmp(&b.row(j)),
            _ => Ordering::Equal,
        }
    }

    /// A number that is smaller only if row `i`'s key is smaller.
    #[must_use]
    #[inline]
    pub fn prefix(&self, i: usize) -> u64 {
        match &self.keys {
            Keys::Integers(values) => values.get(i).copied().unwrap_or(0).cast_unsigned() ^ (1 << 63),
            Keys::Bytes { offsets, data } => leading(value(offsets, data, i)),
            Keys::Rows(rows) if i < rows.num_rows() => leading(rows.row(i).as_ref()),
            Keys::Rows(_) => 0,
        }
    }

    /// Order of row `i` relative to row `j` of `other` by `sequence.field`; equal where the table has none.
    #[must_use]
    #[inline]
    pub fn compare_order(&self, i: usize, other: &Self, j: usize) -> Ordering {
        match (&self.order, &other.order) {
            (Some(a), Some(b)) if i < a.num_rows() && j < b.num_rows() => a.row(i).cmp(&b.row(j)),
            _ => Ordering::Equal,
        }
    }

    /// The first row at which the keys stop ascending strictly.
    #[must_use]
    pub fn first_not_ascending(&self) -> Option<usize> {
        match &self.keys {
            Keys::Integers(values) => values.iter().zip(values.iter().skip(1)).position(|(a, b)| a >= b).map(|i| i + 1),
            Keys::Bytes { .. } | Keys::Rows(_) => {
                (1..self.len()).find(|&i| self.compare(i - 1, self, i) != Ordering::Less)
            }
        }
    }

    /// The number of rows from `from` on whose key is below row `j`'s of `other` (rows ascend).
    #[must_use]
    pub fn count_below(&self, from: usize, other: &Self, j: usize) -> usize {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.compare(middle, other, j) == Ordering::Less { low = middle + 1 } else { high = middle }
        }
        low - from
    }
}

#[cfg(test)]
mod tests {
    use siltstone_format::{
        schema::{Column, TableSchema},
        types::DataType,
    };

    use super::*;

    fn keys(data_type: &str, values: &[Value]) -> (KeyColumns, KeyEncoder) {
        let column = Column::new("k", DataType::parse(data_type).unwrap());
        let schema = TableSchema::create(vec![column], vec![], vec!["k".into()], Default::default(), None, 0).unwrap();
        let layout = FileLayout::new(Arc::new(schema)).unwrap();
        let rows: Vec<Vec<Value>> = values.iter().map(|v| vec![v.clone()]).collect();
        let encoder = KeyEncoder::new(&layout).unwrap();
        (encoder.encode(&crate::rows::batch_of(&layout, &rows).unwrap()).unwrap(), encoder)
    }

    fn assert_ascending(data_type: &str, values: &[Value]) {
        let (columns, encoder) = keys(data_type, values);
        for (i, low) in values.iter().enumerate() {
            for (j, high) in values.iter().enumerate() {
                assert_eq!(columns.compare(i, &columns, j), i.cmp(&j), "{data_type}: {low:?} {high:?}");
                let (x, y) = (columns.prefix(i), columns.prefix(j));
                assert!(
                    x == y && !encoder.is_exact() || x.cmp(&y) == i.cmp(&j),
                    "{data_type}: prefix of {low:?} {high:?}"
                );
            }
            let one = encoder.encode_key(std::slice::from_ref(low)).unwrap();
            assert_eq!(columns.compare(i, &one, 0), Ordering::Equal);
        }
        assert_eq!(columns.first_not_ascending(), None);
    }

    #[test]
    fn keys_order_as_java_orders_them() {
        let text = |t: &str| Value::String(t.to_owned());
        let texts = ["", "B", "a", "a\0", "ab", "abcdefgh", "abcdefgh\0", "abcdefghi", "é", "\u{ffff}", "\u{1f600}"];
        assert_ascending("STRING", &texts.map(text));
        assert_ascending(
            "BYTES",
            &[vec![], vec![0], vec![0, 0], vec![1; 9], vec![1; 10], vec![0xff]].map(Value::Bytes),
        );
        assert_ascending("INT", &[i32::MIN, -1, 0, 1, i32::MAX].map(Value::Int));
        assert_ascending("BIGINT", &[i64::MIN, -1, 0, 1, i64::MAX].map(Value::BigInt));
        assert_ascending("BOOLEAN", &[false, true].map(Value::Boolean));
        assert_ascending("DECIMAL(20, 2)", &[-1_i128 << 70, -1, 0, 1, 1 << 60].map(Value::Decimal));
        let doubles = [f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN];
        assert_ascending("DOUBLE", &doubles.map(Value::Double));
        let floats = [f32::NEG_INFINITY, -0.0, 0.0, f32::INFINITY, f32::NAN];
        assert_ascending("FLOAT", &floats.map(Value::Float));
        assert_ascending("TINYINT", &[i8::MIN, 0, i8::MAX].map(Value::TinyInt));
        assert_ascending("SMALLINT", &[i16::MIN, 0, i16::MAX].map(Value::SmallInt));
        assert_ascending("DATE", &[-1, 0, 1].map(Value::Date));
        assert_ascending("TIME(3)", &[0, 1, 2].map(Value::Time));
        for precision in [3, 6, 9] {
            let times = [-1, 0, 1].map(|millis| Value::Timestamp { millis, nanos: 0 });
            assert_ascending(&format!("TIMESTAMP({precision})"), &times);
        }
    }

    #[test]
    fn keys_of_one_integer_alone_are_exact() {
        let is_exact = |data_type| keys(data_type, &[]).1.is_exact();
        assert_eq!(["BIGINT", "STRING", "BOOLEAN"].map(is_exact), [true, false, false]);
    }

    #[test]
    fn rows_out_of_range_compare_as_equal() {
        for (data_type, values) in [
            ("INT", [Value::Int(1), Value::Int(2)]),
            ("STRING", [Value::String(String::new()), Value::String("a".into())]),
            ("BOOLEAN", [Value::Boolean(false), Value::Boolean(true)]),
        ] {
            let (columns, _) = keys(data_type, &values);
            assert_eq!((columns.len(), columns.is_empty()), (2, false));
            assert_eq!(
                (columns.compare(2, &columns, 0), columns.compare(0, &columns, 2)),
                (Ordering::Equal, Ordering::Equal)
            );
            assert_eq!(columns.compare_order(2, &columns, 0), Ordering::Equal);
            assert_eq!(columns.prefix(2), if data_type == "INT" { 1 << 63 } else { 0 });
        }
        assert!(keys("INT", &[]).0.is_empty());
    }

    #[test]
    fn rows_order_by_their_sequence_field_and_those_out_of_range_not_at_all() {
        let columns = ["k", "s"].map(|name| Column::new(name, DataType::parse("INT").unwrap()));
        let options = [("sequence.field".to_owned(), "s".to_owned())].into();
        let schema = TableSchema::create(columns.into(), vec![], vec!["k".into()], options, None, 0).unwrap();
        let layout = FileLayout::new(Arc::new(schema)).unwrap();
        let rows = [(1, 5), (2, 4)].map(|(k, s)| vec![Value::Int(k), Value::Int(s)]);
        let encoder = KeyEncoder::new(&layout).unwrap();
        let keys = encoder.encode(&crate::rows::batch_of(&layout, &rows).unwrap()).unwrap();
        assert_eq!(
            (keys.compare_order(0, &keys, 1), keys.compare_order(1, &keys, 0)),
            (Ordering::Greater, Ordering::Less)
        );
        assert_eq!(
            (keys.compare_order(2, &keys, 0), keys.compare_order(0, &keys, 2)),
            (Ordering::Equal, Ordering::Equal)
        );
        assert!(encoder.encode_key(&[Value::Int(1), Value::Int(5)]).is_err(), "a key is without it");
    }

    #[test]
    fn the_first_row_that_does_not_ascend_is_found() {
        let texts = |words: &[&str]| words.iter().map(|w| Value::String((*w).to_owned())).collect::<Vec<_>>();
        let ints = |numbers: &[i32]| numbers.iter().map(|n| Value::Int(*n)).collect::<Vec<_>>();
        let first = |data_type, values: &[Value]| keys(data_type, values).0.first_not_ascending();
        assert_eq!((first("INT", &ints(&[1, 2, 2])), first("INT", &ints(&[1, 3, 2, 1]))), (Some(2), Some(2)));
        assert_eq!(
            (first("STRING", &texts(&["a", "b", "b"])), first("STRING", &texts(&["b", "a"]))),
            (Some(2), Some(1))
        );
        assert_eq!((first("INT", &ints(&[1])), first("STRING", &[])), (None, None));
    }

    #[test]
    fn keys_below_another_are_counted_from_any_row_on() {
        let values: Vec<Value> = (0..9).map(|n| Value::Int(n * 2)).collect();
        let (columns, encoder) = keys("INT", &values);
        for bound in -1..19 {
            let other = encoder.encode_key(&[Value::Int(bound)]).unwrap();
            for from in 0..9 {
                let below = (from..9).filter(|n| *n as i32 * 2 < bound).count();
                assert_eq!(columns.count_below(from, &other, 0), below, "{bound} from {from}");
            }
        }
    }

    #[test]
    fn keys_that_are_null_are_refused() {
        use arrow::{
            array::{Int32Array, StringArray},
            datatypes::{Field, Schema},
        };
        let null: [(&str, Arrow, ArrayRef); 2] = [
            ("INT", Arrow::Int32, Arc::new(Int32Array::from(vec![None::<i32>]))),
            ("STRING", Arrow::Utf8, Arc::new(StringArray::from(vec![None::<&str>]))),
        ];
        for (name, data_type, column) in null {
            let (_, encoder) = keys(name, &[]);
            let schema = Arc::new(Schema::new(vec![Field::new("k", data_type, true)]));
            let error = encoder.encode(&RecordBatch::try_new(schema, vec![column]).unwrap()).unwrap_err();
            assert!(error.to_string().contains("a key is null"), "{error}");
        }
    }

    #[test]
    fn every_nan_is_the_same_key() {
        let (columns, _) = keys("DOUBLE", &[Value::Double(f64::NAN), Value::Double(-f64::NAN), Value::Double(1.0)]);
        assert_eq!(columns.compare(0, &columns, 1), Ordering::Equal);
        assert_eq!(columns.compare(1, &columns, 2), Ordering::Greater);
        let (columns, _) = keys("FLOAT", &[Value::Float(f32::NAN), Value::Float(-f32::NAN)]);
        assert_eq!(columns.compare(0, &columns, 1), Ordering::Equal);
    }
}
