//! From a batch of changes to rows per partition and bucket: split, sort, merge to one row per key.
//!
//! Neighbours: `table`'s ingest gives a batch and writes each [`BucketRows`] with one `writer` at a time, so a batch that touches 10,000
//! partitions costs files, not memory. Invariants: 1. every row goes to exactly one bucket; 2. rows of a bucket are sorted by key and
//! each key stands once (trap 3); 3. changelog rows are all rows, sorted by key, then age.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use siltstone_format::{binary_row::encode_row, bucket::Bucketer, data_file::StoredRow, id::Bucket, value::Value};

use crate::{
    batch::{KeyValueBatch, UPDATE_BEFORE, is_retract},
    error::LsmError,
    keys::{KeyColumns, KeyEncoder},
    layout::FileLayout,
    rows::row_at,
};

/// Rows of one bucket, ready to be written.
#[derive(Debug)]
pub struct BucketRows {
    /// Partition values, in partition key order.
    pub partition: Vec<Value>,
    /// The same as a row.
    pub partition_row: StoredRow,
    /// Bucket.
    pub bucket: Bucket,
    /// One row per key, ascending.
    pub rows: KeyValueBatch,
    /// All rows, by key, then age; only where asked for.
    pub changelog: Option<KeyValueBatch>,
}

/// Splits batches of one table by partition and bucket.
#[derive(Debug)]
pub struct Splitter {
    layout: FileLayout,
    partition: Vec<usize>,
    bucket_key: Vec<usize>,
    bucketer: Bucketer,
    encoder: KeyEncoder,
    changelog: bool,
}

type Groups = BTreeMap<(StoredRow, Bucket), (Vec<Value>, Vec<u32>)>;

impl Splitter {
    /// A splitter; `bucketer` is the table's bucket function, `changelog` asks for unmerged rows too.
    ///
    /// # Errors
    /// When the schema's bucket key names no column or a key type has no order.
    pub fn new(layout: &FileLayout, bucketer: Bucketer, changelog: bool) -> Result<Self, LsmError> {
        Ok(Self {
            partition: layout.table().partition_indices(),
            bucket_key: layout.table().bucket_key_indices()?,
            bucketer,
            encoder: KeyEncoder::new(layout)?,
            layout: layout.clone(),
            changelog,
        })
    }

    /// The buckets that `batch` touches, with their rows' indices; ordered by partition, then bucket.
    ///
    /// # Errors
    /// When a partition value or bucket key cannot be laid out.
    pub fn split(&self, batch: &KeyValueBatch) -> Result<Vec<Touched>, LsmError> {
        let types = self.layout.types_of(&self.partition);
        let keys = Arc::new(self.encoder.encode(&batch.values)?);
        let mut groups: Groups = BTreeMap::new();
        let mut known: Option<(Vec<Value>, StoredRow)> = None;
        for row in 0..batch.len() {
            let bucket = self.bucketer.bucket(&row_at(&batch.values, &self.bucket_key, row))?;
            let values = row_at(&batch.values, &self.partition, row);
            let stored = match &known {
                Some((last, stored)) if *last == values => stored.clone(),
                _ => encode_row(&values, &types)?,
            };
            known = Some((values.clone(), stored.clone()));
            let index = u32::try_from(row).map_err(|_| LsmError::Rows("more than 4 billion rows".to_owned()))?;
            groups.entry((stored, bucket)).or_insert_with(|| (values, Vec::new())).1.push(index);
        }
        Ok(groups
            .into_iter()
            .map(|((partition_row, bucket), (partition, rows))| Touched {
                partition,
                partition_row,
                bucket,
                rows,
                keys: keys.clone(),
            })
            .collect())
    }

    /// The rows of one touched bucket, sorted and merged.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when columns cannot be gathered.
    pub fn bucket_rows(&self, batch: &KeyValueBatch, touched: Touched) -> Result<BucketRows, LsmError> {
        let keys = &touched.keys;
        let sequence = batch.sequence.values();
        let kind = batch.kind.values();
        let at = |i: u32| i as usize;
        let number = |i: u32| sequence.get(at(i)).copied().unwrap_or(0);
        let retract = |i: u32| kind.get(at(i)).is_some_and(|k| is_retract(*k));
        let mut order = touched.rows;
        order.sort_unstable_by(|&a, &b| {
            keys.compare(at(a), keys, at(b))
                .then_with(|| keys.compare_order(at(a), keys, at(b)))
                .then_with(|| number(a).cmp(&number(b)))
                .then_with(|| retract(b).cmp(&retract(a)))
                .then(a.cmp(&b))
        });
        let changelog = if self.changelog {
            let mut by_age = order.clone();
            by_age.sort_by(|&a, &b| keys.compare(at(a), keys, at(b)).then_with(|| number(a).cmp(&number(b))));
            Some(take(batch, by_age)?)
        } else {
            None
        };
        let mut newest: Vec<u32> = Vec::with_capacity(order.len());
        for &row in &order {
            match newest.last_mut() {
                Some(last) if keys.compare(at(*last), keys, at(row)).is_eq() => *last = row,
                _ => newest.push(row),
            }
        }
        // A key whose newest row is -U has gone: the data file says so with a delete (trap 39).
        let mut rows = take(batch, newest)?;
        if rows.kind.values().contains(&UPDATE_BEFORE) {
            rows.kind = rows.kind.unary(|k| if k == UPDATE_BEFORE { crate::batch::DELETE } else { k });
        }
        Ok(BucketRows {
            partition: touched.partition,
            partition_row: touched.partition_row,
            bucket: touched.bucket,
            rows,
            changelog,
        })
    }
}

/// A bucket that a batch touches.
#[derive(Debug, Clone)]
pub struct Touched {
    /// Partition values.
    pub partition: Vec<Value>,
    /// The same as a row.
    pub partition_row: StoredRow,
    /// Bucket.
    pub bucket: Bucket,
    rows: Vec<u32>,
    /// Keys of the whole batch, made once for all buckets.
    keys: Arc<KeyColumns>,
}

fn take(batch: &KeyValueBatch, rows: Vec<u32>) -> Result<KeyValueBatch, LsmError> {
    let indices = UInt32Array::from(rows);
    let gather = |array: &dyn Array| arrow::compute::take(array, &indices, None).map_err(LsmError::encode);
    let columns = batch.values.columns().iter().map(|column| gather(column.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    let values =
        RecordBatch::try_new_with_options(batch.values.schema(), columns, &options).map_err(LsmError::encode)?;
    let sequence = gather(&batch.sequence)?;
    let kind = gather(&batch.kind)?;
    Ok(KeyValueBatch {
        values,
        sequence: AsArray::as_primitive::<arrow::datatypes::Int64Type>(&Arc::clone(&sequence)).clone(),
        kind: AsArray::as_primitive::<arrow::datatypes::Int8Type>(&Arc::clone(&kind)).clone(),
        keys: None,
    })
}
