//! Reads a data file of any writer as batches in the current schema.
//!
//! Neighbours: `scan` and `compact` open files with it; `conform` turns file columns into table columns. Bytes come from a
//! `ChunkReader` that the caller gives: whole objects in memory, or a source that fetches ranges. Page by page, never a whole row
//! group: Java writes row groups of 128 MB and more.
//! Invariants: 1. columns are matched by field id against the schema the file was written under, never by today's names;
//! 2. a file that contradicts its manifest entry (rows, sequence range, key order) ends in an error that names it;
//! 3. key columns are taken from the value columns, so fat and thin files read alike; 4. a damaged file never ends in a panic.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, RecordBatchOptions},
    datatypes::{DataType as Arrow, Int8Type, Int64Type},
};
use parquet::{
    arrow::{
        PARQUET_FIELD_ID_META_KEY, ProjectionMask,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData},
        reader::ChunkReader,
    },
};
use siltstone_format::{data_file::DataFileMeta, schema::TableSchema};

use crate::{
    batch::{DELETE, INSERT, KeyValueBatch},
    checksum,
    conform::conform,
    error::LsmError,
    footer,
    keys::{KeyColumns, KeyEncoder},
    layout::{FileLayout, KEY_PREFIX, SEQUENCE_NUMBER, VALUE_KIND},
    rows::nulls,
};

/// Rows decoded at a time: large enough to amortise, small enough that one batch per run stays in cache (see the merge bench).
pub const BATCH_ROWS: usize = 8192;

/// Decoded bytes of a batch where the caller sets no bound, by the file's average row: wide rows come in fewer.
pub const BATCH_BYTES: usize = 8 << 20;

/// A larger footer is refused before it is fetched: it would take more memory than a whole merge.
const FOOTER_MAX: u64 = 64 << 20;

/// Opens `meta`'s bytes, written under `file_schema`, for reading as rows of `layout`.
///
/// # Errors
/// [`LsmError::Corrupt`] when the footer is damaged or lacks system columns; [`LsmError::Unsupported`] for formats other than Parquet.
pub fn open<R: ChunkReader + 'static>(
    source: R,
    meta: &DataFileMeta,
    file_schema: &TableSchema,
    layout: &FileLayout,
) -> Result<FileBatches, LsmError> {
    open_bounded(source, meta, file_schema, layout, BATCH_BYTES)
}

/// As [`open`], with batches of about `batch_bytes` decoded bytes at the most: a merge holds two of each run.
///
/// # Errors
/// As [`open`].
pub fn open_bounded<R: ChunkReader + 'static>(
    source: R,
    meta: &DataFileMeta,
    file_schema: &TableSchema,
    layout: &FileLayout,
    batch_bytes: usize,
) -> Result<FileBatches, LsmError> {
    open_as(source, meta, file_schema, layout, Reading { unique_keys: true, key_columns: false, batch_bytes })
}

/// Opens a changelog file: as [`open`], but a key may stand more than once.
///
/// # Errors
/// As [`open`].
pub fn open_changelog<R: ChunkReader + 'static>(
    source: R,
    meta: &DataFileMeta,
    file_schema: &TableSchema,
    layout: &FileLayout,
) -> Result<FileBatches, LsmError> {
    let reading = Reading { unique_keys: false, key_columns: false, batch_bytes: BATCH_BYTES };
    open_as(source, meta, file_schema, layout, reading)
}

/// Opens a data or changelog file for an audit: the key columns of a fat file are read too, and must equal the value columns.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_all<R: ChunkReader + 'static>(
    source: R,
    meta: &DataFileMeta,
    layout: &FileLayout,
    unique_keys: bool,
) -> Result<FileBatches, LsmError> {
    let reading = Reading { unique_keys, key_columns: true, batch_bytes: BATCH_BYTES };
    open_as(source, meta, layout.table(), layout, reading)
}

/// How a file is read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// False for changelogs.
    unique_keys: bool,
    /// Whether key columns are read beside the value columns.
    key_columns: bool,
    /// Decoded bytes of a batch.
    batch_bytes: usize,
}

fn open_as<R: ChunkReader + 'static>(
    source: R,
    meta: &DataFileMeta,
    file_schema: &TableSchema,
    layout: &FileLayout,
    reading: Reading,
) -> Result<FileBatches, LsmError> {
    let object = meta.file_name.as_str();
    if !object.ends_with(".parquet") {
        return Err(LsmError::Unsupported {
            what: format!("data file {object}, which is not Parquet"),
            remedy: "let its own engine rewrite it with file.format=parquet and no file.format.per.level".to_owned(),
        });
    }
    let length = footer_length(&source, object)?;
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes =
        source.get_bytes(source.len().saturating_sub(8 + length), bytes).map_err(|e| LsmError::read(object, &e))?;
    footer::check(&bytes).map_err(|fault| LsmError::corrupt(object, fault))?;
    let options =
        ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_page_index_policy(PageIndexPolicy::Skip);
    let builder = guarded(object, || ParquetRecordBatchReaderBuilder::try_new_with_options(source, options))?
        .map_err(|e| LsmError::read(object, &e))?;
    let rows = builder.metadata().file_metadata().num_rows();
    if rows != meta.row_count {
        return Err(LsmError::corrupt(
            object,
            format!("holds {rows} rows, its manifest entry says {}", meta.row_count),
        ));
    }
    let mut columns = Columns::find(builder.schema().fields(), file_schema, layout, object)?;
    if checksum::is_ours(builder.metadata()) {
        columns.check_ids(builder.schema().fields(), object)?;
    }
    if reading.key_columns {
        columns.find_keys(builder.schema().fields(), layout);
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns.roots());
    let batch_rows = batch_rows(builder.metadata(), &mask, reading.batch_bytes);
    let reader = guarded(object, || builder.with_projection(mask).with_batch_size(batch_rows).build())?
        .map_err(|e| LsmError::read(object, &e))?;
    Ok(FileBatches {
        reader,
        columns,
        layout: layout.clone(),
        encoder: KeyEncoder::new(layout)?,
        meta: meta.clone(),
        unique_keys: reading.unique_keys,
        last: None,
        read: 0,
        done: false,
    })
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a decoder whose panics become errors: a program's panic hook need not print those.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs a part of the Parquet decoder. It panics on some damaged pages (an index out of bounds); that is the file's fault.
fn guarded<T>(object: &str, decode: impl FnOnce() -> T) -> Result<T, LsmError> {
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(before);
    result.map_err(|panic| {
        let words =
            panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        LsmError::corrupt(object, format!("its pages cannot be decoded ({})", words.unwrap_or("no reason given")))
    })
}

/// The last eight bytes say how long the footer is; a damaged length must not be allocated.
pub(crate) fn footer_length<R: ChunkReader>(source: &R, object: &str) -> Result<u64, LsmError> {
    let size = source.len();
    let Some(start) = size.checked_sub(8) else {
        return Err(LsmError::corrupt(object, format!("has {size} bytes: not a Parquet file")));
    };
    let tail = source.get_bytes(start, 8).map_err(|e| LsmError::read(object, &e))?;
    let length = tail.first_chunk::<4>().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    if length > FOOTER_MAX.min(start) {
        return Err(LsmError::corrupt(
            object,
            format!("its footer of {length} bytes is longer than the file, or than {FOOTER_MAX}"),
        ));
    }
    Ok(length)
}

/// Rows of a batch such that it stays near `batch_bytes`.
fn batch_rows(footer: &ParquetMetaData, mask: &ProjectionMask, batch_bytes: usize) -> usize {
    let widest = footer.row_groups().iter().map(|group| {
        let read = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        // Text behind a dictionary is larger than its chunk; writers that know say so.
        let bytes = read.map(|(_, c)| c.uncompressed_size().max(c.unencoded_byte_array_data_bytes().unwrap_or(0)));
        let bytes = bytes.fold(0_i64, i64::saturating_add);
        u64::try_from(bytes).unwrap_or(0) / u64::try_from(group.num_rows()).unwrap_or(0).max(1)
    });
    let rows = batch_bytes as u64 / widest.max().unwrap_or(0).max(1);
    usize::try_from(rows).unwrap_or(BATCH_ROWS).clamp(16, BATCH_ROWS)
}

/// Where each needed column stands among the file's root columns.
#[derive(Debug)]
struct Columns {
    sequence: usize,
    kind: usize,
    /// Per table column: root column and the file schema's column, or nothing when the file does not have it.
    values: Vec<Option<(usize, usize)>>,
    /// Key columns to be compared: root column and value column.
    keys: Vec<(usize, usize)>,
    file_schema: Arc<TableSchema>,
}

impl Columns {
    fn find(
        fields: &arrow::datatypes::Fields,
        file_schema: &TableSchema,
        layout: &FileLayout,
        object: &str,
    ) -> Result<Self, LsmError> {
        let root = |name: &str| fields.iter().position(|f| f.name() == name);
        let system = |name: &str| {
            root(name)
                .ok_or_else(|| LsmError::corrupt(object, format!("has no column {name}: not a primary-key data file")))
        };
        let values = layout
            .table()
            .fields
            .iter()
            .map(|field| {
                let old = file_schema.fields.iter().position(|f| f.id == field.id)?;
                root(&file_schema.fields.get(old)?.name).map(|root| (root, old))
            })
            .collect();
        Ok(Self {
            sequence: system(SEQUENCE_NUMBER)?,
            kind: system(VALUE_KIND)?,
            values,
            keys: Vec::new(),
            file_schema: Arc::new(file_schema.clone()),
        })
    }

    /// Our files carry the field ids of their schema: a schema that names or numbers them otherwise is not the one they were written under,
    /// and by name alone a renamed column would read as nulls.
    fn check_ids(&self, fields: &arrow::datatypes::Fields, object: &str) -> Result<(), LsmError> {
        for column in &self.file_schema.fields {
            let same = |f: &&Arc<arrow::datatypes::Field>| f.name() == &column.name;
            let id = fields.iter().find(same).and_then(|f| f.metadata().get(PARQUET_FIELD_ID_META_KEY));
            if id.is_none_or(|id| *id != column.id.0.to_string()) {
                let schema = self.file_schema.id;
                let detail =
                    format!("has no column `{}` of field id {}, as its schema {schema} says", column.name, column.id);
                return Err(LsmError::corrupt(object, detail));
            }
        }
        Ok(())
    }

    fn find_keys(&mut self, fields: &arrow::datatypes::Fields, layout: &FileLayout) {
        let key = layout.key().iter().filter_map(|&value| layout.table().fields.get(value).map(|f| (value, &f.name)));
        self.keys = key
            .filter_map(|(value, name)| {
                let name = format!("{KEY_PREFIX}{name}");
                fields.iter().position(|f| *f.name() == name).map(|root| (root, value))
            })
            .collect();
    }

    fn roots(&self) -> Vec<usize> {
        let mut roots: Vec<usize> = self.values.iter().flatten().map(|(root, _)| *root).collect();
        roots.extend([self.sequence, self.kind]);
        roots.extend(self.keys.iter().map(|(root, _)| *root));
        roots.sort_unstable();
        roots.dedup();
        roots
    }
}

/// The rows of one data file, as batches.
pub struct FileBatches {
    reader: ParquetRecordBatchReader,
    columns: Columns,
    layout: FileLayout,
    encoder: KeyEncoder,
    meta: DataFileMeta,
    /// False for changelogs.
    unique_keys: bool,
    last: Option<(Arc<KeyColumns>, usize)>,
    read: i64,
    done: bool,
}

impl std::fmt::Debug for FileBatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBatches").field("file", &self.meta.file_name).field("read", &self.read).finish()
    }
}

impl FileBatches {
    fn fail<T>(&self, detail: impl Into<String>) -> Result<T, LsmError> {
        Err(LsmError::corrupt(&self.meta.file_name, detail))
    }

    fn read_next(&mut self) -> Result<Option<KeyValueBatch>, LsmError> {
        let reader = &mut self.reader;
        let Some(batch) = guarded(&self.meta.file_name, || reader.next())? else {
            if self.read != self.meta.row_count {
                return self.fail(format!("ends after {} of {} rows", self.read, self.meta.row_count));
            }
            return Ok(None);
        };
        let batch = batch.map_err(|e| LsmError::decode(&self.meta.file_name, &e))?;
        self.read += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        let mut converted = self.convert(&batch)?;
        converted.keys = self.check(&converted)?;
        Ok(Some(converted))
    }

    fn convert(&self, batch: &RecordBatch) -> Result<KeyValueBatch, LsmError> {
        let roots = self.columns.roots();
        let column = |root: usize| -> Result<&ArrayRef, LsmError> {
            let place = roots.binary_search(&root).ok().and_then(|i| batch.columns().get(i));
            place.ok_or_else(|| LsmError::corrupt(&self.meta.file_name, "a column disappeared between two batches"))
        };
        let object = self.meta.file_name.as_str();
        let mut values = Vec::with_capacity(self.columns.values.len());
        for (i, place) in self.columns.values.iter().enumerate() {
            let (Some(field), Some(to)) = (self.layout.values().fields().get(i), self.layout.table().fields.get(i))
            else {
                return Err(LsmError::encode("layout and schema disagree"));
            };
            let array = match place {
                None => nulls(field, batch.num_rows()),
                Some((root, old)) => {
                    let Some(from) = self.columns.file_schema.fields.get(*old) else {
                        return Err(LsmError::encode("file schema shrank"));
                    };
                    conform(column(*root)?, &from.data_type, &to.data_type, field)
                        .map_err(|detail| LsmError::corrupt(object, format!("column `{}`: {detail}", from.name)))?
                }
            };
            if !field.is_nullable() && array.null_count() > 0 {
                return self.fail(format!("column `{}` is NOT NULL and holds nulls", field.name()));
            }
            values.push(array);
        }
        for (root, value) in &self.columns.keys {
            self.check_key(column(*root)?, *value, &values)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let values = RecordBatch::try_new_with_options(self.layout.values().clone(), values, &options)
            .map_err(|e| LsmError::corrupt(object, e.to_string()))?;
        let sequence = self.system::<Int64Type>(column(self.columns.sequence)?, &Arrow::Int64)?;
        let kind = self.system::<Int8Type>(column(self.columns.kind)?, &Arrow::Int8)?;
        Ok(KeyValueBatch { values, sequence, kind, keys: None })
    }

    /// Other readers take keys from the key columns: both must be the same.
    fn check_key(&self, key: &ArrayRef, value: usize, values: &[ArrayRef]) -> Result<(), LsmError> {
        let (Some(field), Some(column), Some(array)) =
            (self.layout.values().fields().get(value), self.layout.table().fields.get(value), values.get(value))
        else {
            return Err(LsmError::encode("layout and schema disagree"));
        };
        let key = conform(key, &column.data_type, &column.data_type, field).map_err(|detail| {
            LsmError::corrupt(&self.meta.file_name, format!("key column `{}`: {detail}", column.name))
        })?;
        if key.to_data() == array.to_data() {
            return Ok(());
        }
        self.fail(format!("its key column `{KEY_PREFIX}{0}` differs from its column `{0}`", column.name))
    }

    /// A system column; other integer widths are as good (plain INT32 kinds occur).
    fn system<T: arrow::datatypes::ArrowPrimitiveType>(
        &self,
        column: &ArrayRef,
        to: &Arrow,
    ) -> Result<arrow::array::PrimitiveArray<T>, LsmError> {
        let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
        let cast = arrow::compute::cast_with_options(column, to, &options)
            .map_err(|e| LsmError::corrupt(&self.meta.file_name, e.to_string()))?;
        match cast.as_primitive_opt::<T>() {
            Some(array) if array.null_count() == 0 => Ok(array.clone()),
            _ => self.fail("a system column holds nulls or has another type"),
        }
    }

    /// Invariant 2: kinds are kinds, numbers are inside the entry's range, keys ascend, also across batches. The keys that
    /// this needs are handed on, so that a merge does not make them again.
    fn check(&mut self, batch: &KeyValueBatch) -> Result<Option<Arc<KeyColumns>>, LsmError> {
        if let Some(bad) = invalid_kind(&batch.kind) {
            return self.fail(format!("{bad} is not a row kind"));
        }
        let (min, max) = (self.meta.min_sequence_number.0, self.meta.max_sequence_number.0);
        if let Some(bad) = outside(&batch.sequence, min, max) {
            return self.fail(format!("sequence number {bad} is outside its manifest entry's range {min}..={max}"));
        }
        if !self.unique_keys {
            return Ok(None);
        }
        let keys = Arc::new(self.encoder.encode(&batch.values)?);
        let ascends = match &self.last {
            Some((last, row)) if !keys.is_empty() => last.compare(*row, &keys, 0) == std::cmp::Ordering::Less,
            _ => true,
        };
        if !ascends || keys.first_not_ascending().is_some() {
            return self.fail("its keys do not strictly ascend: readers would serve a key twice");
        }
        if let Some(row) = keys.len().checked_sub(1) {
            self.last = Some((keys.clone(), row));
        }
        Ok(Some(keys))
    }
}

fn invalid_kind(kinds: &Int8Array) -> Option<i8> {
    kinds.values().iter().copied().find(|k| !(INSERT..=DELETE).contains(k))
}

fn outside(numbers: &Int64Array, min: i64, max: i64) -> Option<i64> {
    numbers.values().iter().copied().find(|n| *n < min || *n > max)
}

impl Iterator for FileBatches {
    type Item = Result<KeyValueBatch, LsmError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = self.read_next().transpose();
        self.done = !matches!(result, Some(Ok(_)));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_panics_is_a_damaged_file() {
        let error = guarded::<()>("data-1.parquet", || {
            assert!(is_guarded());
            panic!("index out of bounds")
        })
        .unwrap_err();
        assert!(!is_guarded());
        let words = error.to_string();
        assert!(words.contains("data-1.parquet") && words.contains("index out of bounds"), "{words}");
    }
}
