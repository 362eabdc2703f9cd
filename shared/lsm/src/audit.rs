//! Compares every row of one data or changelog file with everything that its manifest entry says of it.
//!
//! Neighbours: `reader` finds what no reader would survive (pages, order, counts, ranges), this module what readers would believe: deletes,
//! key ranges, statistics, bucket and partition. `table` runs it for each file of a deep check, and its tests hold a damaged table for each
//! fault. One batch is in memory at a time.
//! Invariants: 1. a statistic that is a bound (truncated text, rounded range) is true if it bounds; 2. what is unknown (null, no statistics)
//! is never false; 3. the faults of a file are told by kind, each once, and never with row contents.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, Scalar},
    compute::kernels::cmp,
    datatypes::{DataType as Arrow, FieldRef, Float32Type, Float64Type},
};
use parquet::file::reader::ChunkReader;
use siltstone_format::{
    binary_row::decode_row,
    bucket::Bucketer,
    data_file::{DataFileMeta, SimpleStats},
    id::Bucket,
    schema::TableSchema,
    value::{Value, compare_rows},
};

use crate::{
    batch::{KeyValueBatch, UPDATE_BEFORE, is_retract},
    error::{ErrorKind, LsmError},
    keys::KeyEncoder,
    layout::FileLayout,
    reader,
    rows::{array_of, row_at},
};

/// What a manifest entry says of its file.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The file's description.
    pub meta: &'a DataFileMeta,
    /// Values of the partition columns, in the order of the partition keys.
    pub partition: &'a [Value],
    /// The bucket, and what finds the bucket of a row; `None` where rows are not put into buckets by a function.
    pub bucket: Option<(Bucket, Bucketer)>,
    /// A changelog file: keys may stand more than once, and updates have their old sides.
    pub changelog: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// False for what every reader copes with.
    pub grave: bool,
    /// What is wrong, of "it".
    pub detail: String,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audited {
    /// Rows read.
    pub rows: u64,
    /// What is wrong; none for a good file.
    pub faults: Vec<Fault>,
}

/// Reads a whole file, written under `schema`, and compares it with what is said of it.
///
/// # Errors
/// [`LsmError::Unavailable`] when bytes cannot be fetched; what is wrong with the file is in the result.
pub fn audit<R: ChunkReader + 'static>(
    source: R,
    expected: &Expected<'_>,
    schema: &Arc<TableSchema>,
) -> Result<Audited, LsmError> {
    let mut audit = match Audit::new(expected, schema) {
        Ok(audit) => audit,
        Err(error) => return Ok(Audited { rows: 0, faults: vec![graver(&error)?] }),
    };
    let opened = reader::open_all(source, expected.meta, &audit.layout, !expected.changelog);
    let batches = match opened {
        Ok(batches) => batches,
        Err(error) => {
            audit.add(graver(&error)?);
            return Ok(audit.done);
        }
    };
    for batch in batches {
        let looked = batch.and_then(|batch| audit.batch(&batch));
        if let Err(error) = looked {
            audit.add(graver(&error)?);
            return Ok(audit.done);
        }
    }
    audit.finish();
    Ok(audit.done)
}

/// The file's fault, or an error that is not the file's.
fn graver(error: &LsmError) -> Result<Fault, LsmError> {
    match error {
        LsmError::Corrupt { detail, .. } => Ok(Fault { grave: true, detail: detail.clone() }),
        LsmError::Unsupported { what, .. } => {
            Ok(Fault { grave: false, detail: format!("{what}: it was not looked into") })
        }
        LsmError::Unavailable { object, detail } => {
            Err(LsmError::Unavailable { object: object.clone(), detail: detail.clone() })
        }
        other if other.kind() == ErrorKind::Bug => Err(LsmError::Encode(other.to_string())),
        other => Ok(Fault { grave: true, detail: other.to_string() }),
    }
}

/// A column with what is said of it.
struct Column {
    index: usize,
    name: String,
    field: FieldRef,
    kind: &'static str,
    min: Option<ArrayRef>,
    max: Option<ArrayRef>,
    nulls: Option<i64>,
    seen_nulls: i64,
    below: bool,
    above: bool,
}

struct Audit<'a> {
    expected: &'a Expected<'a>,
    layout: FileLayout,
    encoder: KeyEncoder,
    columns: Vec<Column>,
    partition: Vec<(usize, ArrayRef)>,
    bucket_key: Vec<usize>,
    /// First key, last key, and the last batch's keys for the order of changelogs.
    first: Option<Vec<Value>>,
    last: Vec<Value>,
    previous: Option<RecordBatch>,
    /// A row of another bucket was told of.
    misplaced: bool,
    deletes: i64,
    sequence: Option<(i64, i64)>,
    done: Audited,
}

impl<'a> Audit<'a> {
    fn new(expected: &'a Expected<'a>, schema: &Arc<TableSchema>) -> Result<Self, LsmError> {
        let layout = FileLayout::new(schema.clone())?;
        let encoder = KeyEncoder::new(&layout)?;
        let mut partition = Vec::new();
        for (&index, value) in schema.partition_indices().iter().zip(expected.partition) {
            if let Some(field) = layout.values().fields().get(index) {
                partition.push((index, array_of(&nullable(field), &[value])?));
            }
        }
        let bucket_key = schema.bucket_key_indices()?;
        let mut audit = Self {
            expected,
            encoder,
            columns: Vec::new(),
            partition,
            bucket_key,
            first: None,
            last: Vec::new(),
            previous: None,
            misplaced: false,
            deletes: 0,
            sequence: None,
            done: Audited::default(),
            layout,
        };
        audit.key_statistics();
        audit.value_statistics();
        Ok(audit)
    }

    fn add(&mut self, fault: Fault) {
        if !self.done.faults.contains(&fault) {
            self.done.faults.push(fault);
        }
    }

    fn error(&mut self, detail: impl Into<String>) {
        self.add(Fault { grave: true, detail: detail.into() });
    }

    fn note(&mut self, detail: impl Into<String>) {
        self.add(Fault { grave: false, detail: detail.into() });
    }

    fn key_statistics(&mut self) {
        let stats = &self.expected.meta.key_stats;
        let key = self.layout.key().to_vec();
        if stats.min.arity == 0 && stats.max.arity == 0 {
            return;
        }
        match columns(&self.layout, &key, stats, "key") {
            Ok(columns) => self.columns.extend(columns),
            Err(detail) => self.error(format!("its key statistics cannot be read: {detail}")),
        }
    }

    fn value_statistics(&mut self) {
        let meta = self.expected.meta;
        let names = meta.value_stats_cols.as_ref().or(meta.write_cols.as_ref());
        let fields = &self.layout.table().fields;
        let indices: Result<Vec<usize>, String> = match names {
            None => Ok((0..fields.len()).collect()),
            Some(names) => names
                .iter()
                .map(|name| {
                    fields.iter().position(|f| f.name == *name).ok_or_else(|| format!("there is no column `{name}`"))
                })
                .collect(),
        };
        let found = indices.and_then(|indices| columns(&self.layout, &indices, &meta.value_stats, "value"));
        match found {
            Ok(columns) => self.columns.extend(columns),
            Err(detail) => self.error(format!("its value statistics cannot be read: {detail}")),
        }
    }

    fn batch(&mut self, batch: &KeyValueBatch) -> Result<(), LsmError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.done.rows += batch.len() as u64;
        self.deletes += batch.kind.values().iter().map(|k| i64::from(is_retract(*k))).sum::<i64>();
        if !self.expected.changelog && batch.kind.values().contains(&UPDATE_BEFORE) {
            self.note(
                "it holds rows of kind -U, which belong into changelogs only: readers that take it raw show them",
            );
        }
        for &number in batch.sequence.values() {
            let (min, max) = self.sequence.unwrap_or((number, number));
            self.sequence = Some((min.min(number), max.max(number)));
        }
        let key = self.layout.key().to_vec();
        if self.first.is_none() {
            self.first = Some(row_at(&batch.values, &key, 0));
        }
        self.last = row_at(&batch.values, &key, batch.len() - 1);
        if self.expected.changelog {
            self.changelog_order(&batch.values)?;
        }
        for column in &mut self.columns {
            if let Some(array) = batch.values.columns().get(column.index) {
                column.look(array)?;
            }
        }
        self.place(&batch.values)
    }

    /// Changelogs are sorted by key, a key's changes one after another.
    fn changelog_order(&mut self, values: &RecordBatch) -> Result<(), LsmError> {
        let keys = self.encoder.encode(values)?;
        let within = (1..keys.len()).all(|i| keys.compare(i - 1, &keys, i) != Ordering::Greater);
        let across = match &self.previous {
            Some(previous) => self.encoder.encode(previous)?.compare(0, &keys, 0) != Ordering::Greater,
            None => true,
        };
        if !within || !across {
            self.note("its changes are not sorted by key");
        }
        self.previous = Some(values.slice(values.num_rows() - 1, 1));
        Ok(())
    }

    /// Whether the rows belong where they lie.
    fn place(&mut self, values: &RecordBatch) -> Result<(), LsmError> {
        let mut elsewhere = false;
        for (index, wanted) in &self.partition {
            let Some(array) = values.columns().get(*index) else { continue };
            elsewhere |= cmp::distinct(array, &Scalar::new(wanted.clone())).map_err(LsmError::encode)?.true_count() > 0;
        }
        if elsewhere {
            self.error("it holds rows of another partition: filters on the partition miss them");
        }
        let Some((bucket, bucketer)) = &self.expected.bucket else { return Ok(()) };
        for row in 0..values.num_rows() {
            let found = bucketer.bucket(&row_at(values, &self.bucket_key, row))?;
            if found != *bucket && !std::mem::replace(&mut self.misplaced, true) {
                let detail =
                    format!("it lies in bucket {bucket} and holds a row of bucket {found}: filters on the key miss it");
                self.error(detail);
                return Ok(());
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.counts();
        self.key_range();
        let faults: Vec<String> = self.columns.iter().flat_map(Column::faults).collect();
        faults.into_iter().for_each(|detail| self.error(detail));
    }

    fn counts(&mut self) {
        let meta = self.expected.meta;
        let deletes = self.deletes;
        match meta.delete_row_count {
            // Nobody takes a changelog for live rows.
            _ if self.expected.changelog => {}
            Some(said) if said != deletes => {
                let harm = "readers that trust it serve deleted rows";
                self.error(format!("it holds {deletes} delete rows, its manifest entry says {said}: {harm}"));
            }
            None if deletes > 0 => self.error(format!(
                "it holds {deletes} delete rows and its manifest entry does not say so: readers serve them as live"
            )),
            _ => {}
        }
        let (low, high) = (meta.min_sequence_number.0, meta.max_sequence_number.0);
        if let Some((min, max)) = self.sequence
            && (low != min || (high != max && high != max | PADDING))
        {
            self.note(format!(
                "its sequence numbers are {min} to {max}, its manifest entry says {low} to {high}; later rows start higher than they must"
            ));
        }
    }

    fn key_range(&mut self) {
        let meta = self.expected.meta;
        let types = self.layout.key_types();
        let decoded = [&meta.min_key, &meta.max_key].map(|key| decode_row(&meta.file_name, key, &types));
        let ([Ok(min), Ok(max)], Some(first)) = (&decoded, &self.first) else {
            return self.error("its smallest or largest key cannot be read from its manifest entry");
        };
        let (low, high) = (compare_rows(first, min), compare_rows(&self.last, max));
        if low == Ordering::Less || high == Ordering::Greater {
            self.error("it holds keys outside the range of its manifest entry: readers miss them or serve them twice");
        } else if low != Ordering::Equal || high != Ordering::Equal {
            self.note("the key range of its manifest entry is wider than its keys");
        }
    }
}

/// Siltstone pads the largest number of a file to the end of its millisecond (`commit::sequence::padded`).
const PADDING: i64 = (1 << 21) - 1;

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_nullable(true))
}

/// Statistics with the columns that they are of.
fn columns(
    layout: &FileLayout,
    indices: &[usize],
    stats: &SimpleStats,
    kind: &'static str,
) -> Result<Vec<Column>, String> {
    let types = layout.types_of(indices);
    let decode = |row, end| decode_row(end, row, &types).map_err(|e| e.to_string());
    let (min, max) = (decode(&stats.min, "minimum")?, decode(&stats.max, "maximum")?);
    if stats.null_counts.len() != indices.len() {
        return Err(format!("{} null counts for {} columns", stats.null_counts.len(), indices.len()));
    }
    let mut columns = Vec::new();
    for ((&index, data_type), ((min, max), nulls)) in
        indices.iter().zip(&types).zip(min.iter().zip(&max).zip(&stats.null_counts))
    {
        let Some(field) = layout.values().fields().get(index).filter(|_| !data_type.is_nested()) else { continue };
        let field = nullable(field);
        let bound = |value: &Value| match value {
            Value::Null => Ok(None),
            value => array_of(&field, &[value]).map(Some).map_err(|e| e.to_string()),
        };
        let (min, max) = (bound(min)?, bound(max)?);
        let name = field.name().clone();
        let (nulls, seen_nulls) = (*nulls, 0);
        columns.push(Column { index, name, field, kind, min, max, nulls, seen_nulls, below: false, above: false });
    }
    Ok(columns)
}

impl Column {
    fn look(&mut self, array: &ArrayRef) -> Result<(), LsmError> {
        self.seen_nulls += i64::try_from(array.null_count()).unwrap_or(i64::MAX);
        self.below = self.below || self.any_outside(array, self.min.as_ref(), Ordering::Less)?;
        self.above = self.above || self.any_outside(array, self.max.as_ref(), Ordering::Greater)?;
        Ok(())
    }

    /// Whether a value stands on the wrong side of a bound. Engines order NaN and the two zeros differently, so these count as inside.
    fn any_outside(&self, array: &ArrayRef, bound: Option<&ArrayRef>, side: Ordering) -> Result<bool, LsmError> {
        let Some(bound) = bound else { return Ok(false) };
        let outside = |value: f64, bound: f64| value.partial_cmp(&bound) == Some(side);
        match self.field.data_type() {
            Arrow::Float32 => {
                let bound = f64::from(bound.as_primitive::<Float32Type>().value(0));
                Ok(array.as_primitive::<Float32Type>().iter().flatten().any(|v| outside(f64::from(v), bound)))
            }
            Arrow::Float64 => {
                let bound = bound.as_primitive::<Float64Type>().value(0);
                Ok(array.as_primitive::<Float64Type>().iter().flatten().any(|v| outside(v, bound)))
            }
            _ => {
                let bound = Scalar::new(bound.clone());
                let outside = if side == Ordering::Less { cmp::lt(array, &bound) } else { cmp::gt(array, &bound) };
                Ok(outside.map_err(LsmError::encode)?.true_count() > 0)
            }
        }
    }

    fn faults(&self) -> Vec<String> {
        let what = format!("its {} statistics of column `{}`", self.kind, self.name);
        let mut faults = Vec::new();
        if self.below {
            faults.push(format!("{what} give a minimum above a value: filters miss rows"));
        }
        if self.above {
            faults.push(format!("{what} give a maximum below a value: filters miss rows"));
        }
        if let Some(said) = self.nulls.filter(|said| *said != self.seen_nulls) {
            let seen = self.seen_nulls;
            faults.push(format!("{what} say {said} nulls, there are {seen}: filters on null miss rows"));
        }
        faults
    }
}
