//! The output batch of a merge as a plan of row ranges, gathered column by column.
//!
//! Neighbours: `super::Merge` pushes ranges. Invariants: 1. rows come out in the order pushed; 2. a batch is held only while a cursor
//! stands in it or the plan names it.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, MutableArrayData, RecordBatch, RecordBatchOptions, make_array},
    datatypes::{Int8Type, Int64Type, SchemaRef},
};

use crate::{batch::KeyValueBatch, error::LsmError};

/// A stretch of rows of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    source: usize,
    start: usize,
    rows: usize,
}

/// The plan of the batch being filled.
#[derive(Debug)]
pub(crate) struct Output {
    schema: SchemaRef,
    sources: Vec<Arc<KeyValueBatch>>,
    ranges: Vec<Range>,
    rows: usize,
}

impl Output {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, sources: Vec::new(), ranges: Vec::new(), rows: 0 }
    }

    /// Rows planned so far.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Registers a batch that ranges may name.
    pub(crate) fn add_source(&mut self, batch: Arc<KeyValueBatch>) -> usize {
        self.sources.push(batch);
        self.sources.len() - 1
    }

    /// Plans rows `start..start + rows` of a source; adjacent stretches grow together.
    pub(crate) fn push_range(&mut self, source: usize, start: usize, rows: usize) {
        if rows == 0 {
            return;
        }
        self.rows += rows;
        match self.ranges.last_mut() {
            Some(last) if last.source == source && last.start + last.rows == start => last.rows += rows,
            _ => self.ranges.push(Range { source, start, rows }),
        }
    }

    /// Gathers the planned rows and forgets sources that are not `live`; also tells where the live ones moved.
    pub(crate) fn take(&mut self, live: &[usize]) -> Result<(KeyValueBatch, HashMap<usize, usize>), LsmError> {
        let batch = self.gather()?;
        self.ranges.clear();
        self.rows = 0;
        let mut moved = HashMap::new();
        let mut kept = Vec::new();
        for &source in live {
            if let Some(batch) = self.sources.get(source) {
                moved.insert(source, kept.len());
                kept.push(batch.clone());
            }
        }
        self.sources = kept;
        Ok((batch, moved))
    }

    /// Batches held.
    pub(crate) fn sources(&self) -> usize {
        self.sources.len()
    }

    fn gather(&self) -> Result<KeyValueBatch, LsmError> {
        if self.ranges.is_empty() {
            return Ok(KeyValueBatch::empty(self.schema.clone()));
        }
        if let [only] = self.ranges.as_slice()
            && let Some(source) = self.sources.get(only.source)
        {
            return Ok(source.slice(only.start, only.rows));
        }
        // Only sources that the plan names take part: MutableArrayData's cost grows with the number of its inputs.
        let mut place: HashMap<usize, usize> = HashMap::new();
        let mut used: Vec<&Arc<KeyValueBatch>> = Vec::new();
        for range in &self.ranges {
            if let Some(source) = self.sources.get(range.source) {
                place.entry(range.source).or_insert_with(|| {
                    used.push(source);
                    used.len() - 1
                });
            }
        }
        let ranges: Vec<Range> =
            self.ranges.iter().filter_map(|r| place.get(&r.source).map(|&source| Range { source, ..*r })).collect();
        let column = |pick: &dyn Fn(&KeyValueBatch) -> Option<ArrayRef>| -> Result<ArrayRef, LsmError> {
            let arrays: Option<Vec<ArrayRef>> = used.iter().map(|b| pick(b)).collect();
            gather_column(&arrays.ok_or_else(|| LsmError::encode("a run lacks a column"))?, &ranges, self.rows)
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
        })
    }
}

fn gather_column(arrays: &[ArrayRef], ranges: &[Range], rows: usize) -> Result<ArrayRef, LsmError> {
    let Some(first) = arrays.first() else { return Err(LsmError::encode("nothing to gather")) };
    if arrays.iter().any(|a| a.data_type() != first.data_type()) {
        return Err(LsmError::encode("runs of different column types"));
    }
    // Short ranges: the typed kernels of `interleave` beat the generic copy; long ones: memcpy of stretches wins.
    if ranges.len().saturating_mul(4) > rows {
        let refs: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let indices: Vec<(usize, usize)> =
            ranges.iter().flat_map(|r| (r.start..r.start + r.rows).map(|row| (r.source, row))).collect();
        return arrow::compute::interleave(&refs, &indices).map_err(LsmError::encode);
    }
    let data: Vec<_> = arrays.iter().map(|a| a.to_data()).collect();
    let mut out = MutableArrayData::new(data.iter().collect(), false, rows);
    for range in ranges {
        out.try_extend(range.source, range.start, range.start + range.rows).map_err(LsmError::encode)?;
    }
    Ok(make_array(out.freeze()))
}
