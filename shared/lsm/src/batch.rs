//! Rows with their history: value columns, sequence numbers and row kinds, side by side.
//!
//! Neighbours: made by `buffer` and `reader`, merged by `merge`, written by `writer`.
//! Invariants (checked by [`KeyValueBatch::new`]): 1. all three parts have the same length; 2. numbers and kinds are never null;
//! 3. kinds are 0..=3.

use std::sync::Arc;

use arrow::{
    array::{Array, Int8Array, Int64Array, RecordBatch},
    datatypes::SchemaRef,
};

use crate::{error::LsmError, keys::KeyColumns};

/// Row kind +I: an insert.
pub const INSERT: i8 = 0;
/// Row kind -U: the old side of an update; only in changelogs.
pub const UPDATE_BEFORE: i8 = 1;
/// Row kind +U: the new side of an update.
pub const UPDATE_AFTER: i8 = 2;
/// Row kind -D: a delete.
pub const DELETE: i8 = 3;

/// Whether a row of this kind takes something back (-U or -D).
#[must_use]
pub fn is_retract(kind: i8) -> bool {
    kind == UPDATE_BEFORE || kind == DELETE
}

/// A batch of rows in the form of a data file, key columns not repeated.
#[derive(Debug, Clone)]
pub struct KeyValueBatch {
    /// Value columns in schema order.
    pub values: RecordBatch,
    /// Sequence number of each row.
    pub sequence: Int64Array,
    /// Row kind of each row, Paimon's byte values.
    pub kind: Int8Array,
    /// The keys in comparable form, where the reader had to make them anyway.
    pub(crate) keys: Option<Arc<KeyColumns>>,
}

impl KeyValueBatch {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`LsmError::Rows`] when an invariant of this module does not hold.
    pub fn new(values: RecordBatch, sequence: Int64Array, kind: Int8Array) -> Result<Self, LsmError> {
        if values.num_rows() != sequence.len() || sequence.len() != kind.len() {
            return Err(LsmError::Rows("columns of different lengths".to_owned()));
        }
        if sequence.null_count() > 0 || kind.null_count() > 0 {
            return Err(LsmError::Rows("a sequence number or row kind is null".to_owned()));
        }
        if let Some(bad) = kind.values().iter().find(|k| !(INSERT..=DELETE).contains(k)) {
            return Err(LsmError::Rows(format!("{bad} is not a row kind (0 to 3)")));
        }
        Ok(Self { values, sequence, kind, keys: None })
    }

    /// An empty batch of the given value columns.
    #[must_use]
    pub fn empty(values: SchemaRef) -> Self {
        Self {
            values: RecordBatch::new_empty(values),
            sequence: Int64Array::from(Vec::<i64>::new()),
            kind: Int8Array::from(Vec::<i8>::new()),
            keys: None,
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sequence.len()
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }

    /// Rows `offset..offset + length`, sharing the columns' memory.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            values: self.values.slice(offset, length),
            sequence: self.sequence.slice(offset, length),
            kind: self.kind.slice(offset, length),
            keys: None,
        }
    }
}
