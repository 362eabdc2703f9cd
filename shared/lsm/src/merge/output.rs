//! The output batch of a merge as a plan of row ranges, gathered column by column.
//!
//! Neighbours: `super::Merge` pushes ranges. Invariants: 1. rows come out in the order pushed; 2. a batch is held only while a cursor
//! stands in it or the plan names it.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, MutableArrayData, RecordBatch, RecordBatchOptions, make_array},
    datatypes::{Int8Type, Int64Type, SchemaRef},
};

use crate::{batch::KeyValueBatch, error::LsmError, keys::KeyColumns};

/// A stretch of rows of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    source: usize,
    start: usize,
    rows: usize,
}

/// A batch that ranges may name.
#[derive(Debug)]
struct Source {
    batch: KeyValueBatch,
    keys: Arc<KeyColumns>,
    /// Average bytes of a row.
    row_bytes: usize,
}

/// The plan of the batch being filled.
#[derive(Debug)]
pub(crate) struct Output {
    schema: SchemaRef,
    sources: Vec<Source>,
    ranges: Vec<Range>,
    rows: usize,
    bytes: usize,
}

impl Output {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, sources: Vec::new(), ranges: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Rows planned so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes planned so far, by the sources' average rows.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Batches held.
    pub(crate) fn sources(&self) -> usize {
        self.sources.len()
    }

    /// The keys of a source.
    pub(crate) fn keys(&self, source: usize) -> Option<&KeyColumns> {
        self.sources.get(source).map(|s| s.keys.as_ref())
    }

    /// Rows of a source that can be added before the plan holds `bytes`.
    pub(crate) fn rows_that_fit(&self, source: usize, bytes: usize) -> usize {
        let row_bytes = self.sources.get(source).map_or(1, |s| s.row_bytes);
        bytes.saturating_sub(self.bytes) / row_bytes
    }

    /// Registers a batch that ranges may name.
    pub(crate) fn add_source(&mut self, batch: KeyValueBatch, keys: Arc<KeyColumns>) -> usize {
        let bytes: usize =
            batch.values.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum();
        let row_bytes = (bytes / batch.len().max(1)).max(1);
        self.sources.push(Source { batch, keys, row_bytes });
        self.sources.len() - 1
    }

    /// Plans rows `start..start + rows` of a source; adjacent stretches grow together.
    pub(crate) fn push_range(&mut self, source: usize, start: usize, rows: usize) {
        if rows == 0 {
            return;
        }
        self.rows += rows;
        self.bytes += rows * self.sources.get(source).map_or(1, |s| s.row_bytes);
        match self.ranges.last_mut() {
            Some(last) if last.source == source && last.start + last.rows == start => last.rows += rows,
            _ => self.ranges.push(Range { source, start, rows }),
        }
    }

    /// Gathers the planned rows and forgets all sources but the `live` ones, which then stand in this order from 0 on.
    pub(crate) fn take(&mut self, live: &[usize]) -> Result<KeyValueBatch, LsmError> {
        let batch = self.gather()?;
        self.ranges.clear();
        (self.rows, self.bytes) = (0, 0);
        let mut old: Vec<Option<Source>> = std::mem::take(&mut self.sources).into_iter().map(Some).collect();
        self.sources = live.iter().filter_map(|&source| old.get_mut(source)?.take()).collect();
        Ok(batch)
    }

    fn gather(&self) -> Result<KeyValueBatch, LsmError> {
        if self.ranges.is_empty() {
            return Ok(KeyValueBatch::empty(self.schema.clone()));
        }
        if let [only] = self.ranges.as_slice()
            && let Some(source) = self.sources.get(only.source)
        {
            return Ok(source.batch.slice(only.start, only.rows));
        }
        let plan = Plan::new(&self.ranges, self.sources.len(), self.rows);
        let batches: Vec<&KeyValueBatch> =
            plan.used.iter().filter_map(|&source| self.sources.get(source)).map(|s| &s.batch).collect();
        let column = |pick: &dyn Fn(&KeyValueBatch) -> Option<ArrayRef>| -> Result<ArrayRef, LsmError> {
            let arrays: Option<Vec<ArrayRef>> = batches.iter().map(|b| pick(b)).collect();
            plan.gather(&arrays.ok_or_else(|| LsmError::encode("a run lacks a column"))?)
        };
        let values = (0..self.schema.fields().len())
            .map(|i| column(&|b| b.values.columns().get(i).cloned()))
            .collect::<Result<Vec<_>, _>>()?;
        let sequence = column(&|b| Some(Arc::new(b.sequence.clone())))?;
        let kind = column(&|b| Some(Arc::new(b.kind.clone())))?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let values =
            RecordBatch::try_new_with_options(self.schema.clone(), values, &options).map_err(LsmError::encode)?;
        Ok(KeyValueBatch {
            values,
            sequence: sequence.as_primitive::<Int64Type>().clone(),
            kind: kind.as_primitive::<Int8Type>().clone(),
            keys: None,
        })
    }
}

/// How columns are gathered; the same for all of them. Only sources that are named take part: the cost of gathering grows with them.
struct Plan {
    used: Vec<usize>,
    ranges: Vec<Range>,
    rows: usize,
    /// (input, row) pairs; empty where whole stretches are copied.
    indices: Vec<(usize, usize)>,
}

impl Plan {
    fn new(ranges: &[Range], sources: usize, rows: usize) -> Self {
        let mut place = vec![usize::MAX; sources];
        let mut used = Vec::new();
        let mut placed = Vec::with_capacity(ranges.len());
        for range in ranges {
            if let Some(place) = place.get_mut(range.source) {
                if *place == usize::MAX {
                    *place = used.len();
                    used.push(range.source);
                }
                placed.push(Range { source: *place, ..*range });
            }
        }
        // Short ranges: the typed kernels of `interleave` beat the generic copy; long ones: memcpy of stretches wins.
        let indices = if placed.len().saturating_mul(4) > rows {
            placed.iter().flat_map(|r| (r.start..r.start + r.rows).map(|row| (r.source, row))).collect()
        } else {
            Vec::new()
        };
        Self { used, ranges: placed, rows, indices }
    }

    fn gather(&self, arrays: &[ArrayRef]) -> Result<ArrayRef, LsmError> {
        let Some(first) = arrays.first() else { return Err(LsmError::encode("nothing to gather")) };
        if arrays.iter().any(|a| a.data_type() != first.data_type()) {
            return Err(LsmError::encode("runs of different column types"));
        }
        if !self.indices.is_empty() {
            let refs: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            return arrow::compute::interleave(&refs, &self.indices).map_err(LsmError::encode);
        }
        let data: Vec<_> = arrays.iter().map(|a| a.to_data()).collect();
        let mut out = MutableArrayData::new(data.iter().collect(), false, self.rows);
        for range in &self.ranges {
            out.try_extend(range.source, range.start, range.start + range.rows).map_err(LsmError::encode)?;
        }
        Ok(make_array(out.freeze()))
    }
}
