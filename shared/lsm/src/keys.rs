//! Keys of a batch in a form that compares fast: plain integers where the key is one integer-like column, else memcmp-able rows.
//!
//! Neighbours: `buffer` sorts by them, `merge` compares cursors by them. Order: paimon-format.md section 7 (strings and bytes
//! unsigned, floats as Java, false before true), then `sequence.field` columns (nulls first in both directions).
//! Invariant: 1. two [`KeyColumns`] of one [`KeyEncoder`] compare like the rows they came from.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    buffer::ScalarBuffer,
    datatypes::{
        DataType as Arrow, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    },
};
use arrow_row::{RowConverter, Rows, SortField};

use crate::{error::LsmError, layout::FileLayout};

/// Turns key (and order) columns of batches into comparable form. One encoder per table layout.
#[derive(Debug)]
pub struct KeyEncoder {
    key: Vec<usize>,
    order: Vec<usize>,
    key_rows: Option<RowConverter>,
    order_rows: Option<RowConverter>,
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
    Rows(Rows),
}

impl KeyEncoder {
    /// An encoder for `layout`'s primary key and `sequence.field`.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when a key column's type has no order.
    pub fn new(layout: &FileLayout) -> Result<Self, LsmError> {
        let types = |columns: &[usize], descending: bool| -> Vec<SortField> {
            let options = arrow::compute::SortOptions { descending, nulls_first: true };
            columns
                .iter()
                .filter_map(|&i| layout.values().fields().get(i))
                .map(|f| SortField::new_with_options(f.data_type().clone(), options))
                .collect()
        };
        let single_integer = match layout.key() {
            [only] => layout.values().fields().get(*only).is_some_and(|f| is_integer(f.data_type())),
            _ => false,
        };
        let converter = |fields| RowConverter::new(fields).map_err(LsmError::encode);
        Ok(Self {
            key: layout.key().to_vec(),
            order: layout.order().to_vec(),
            key_rows: if single_integer { None } else { Some(converter(types(layout.key(), false))?) },
            order_rows: if layout.order().is_empty() {
                None
            } else {
                Some(converter(types(layout.order(), layout.order_descending()))?)
            },
        })
    }

    /// The comparable keys of `values`.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when a column is missing.
    pub fn encode(&self, values: &RecordBatch) -> Result<KeyColumns, LsmError> {
        let columns = |indices: &[usize]| -> Result<Vec<ArrayRef>, LsmError> {
            indices
                .iter()
                .map(|&i| values.columns().get(i).cloned().ok_or_else(|| LsmError::encode("a key column is missing")))
                .collect()
        };
        let key = columns(&self.key)?;
        let keys = match (&self.key_rows, key.as_slice()) {
            (None, [only]) => Keys::Integers(integers(only)?),
            (Some(converter), _) => Keys::Rows(converter.convert_columns(&key).map_err(LsmError::encode)?),
            (None, _) => return Err(LsmError::encode("an integer key has one column")),
        };
        let order = match &self.order_rows {
            Some(converter) => Some(converter.convert_columns(&columns(&self.order)?).map_err(LsmError::encode)?),
            None => None,
        };
        Ok(KeyColumns { keys, order })
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
            (Keys::Rows(a), Keys::Rows(b)) if i < a.num_rows() && j < b.num_rows() => a.row(i).cmp(&b.row(j)),
            _ => Ordering::Equal,
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
            Keys::Rows(_) => (1..self.len()).find(|&i| self.compare(i - 1, self, i) != Ordering::Less),
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
