//! Writes one data file: sorted, unique rows in, Parquet bytes and the file's description out.
//!
//! Neighbours: `buffer` and `compact` feed it; `stats` turns Parquet statistics into Paimon's. Finished bytes can be taken at any
//! time, so the caller streams them to a multipart upload and memory is bounded by one row group.
//! Invariants: 1. rows are in ascending key order, each key once (checked by the feeding merge); 2. the description is exact: rows,
//! bytes, first and last key, sequence range, delete rows; 3. only PLAIN and RLE_DICTIONARY encodings (trap 36); 4. every byte is under
//! the checksum in the footer (see `checksum`).

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::DataType,
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};
use siltstone_format::{
    binary_row::encode_row,
    data_file::{DataFileMeta, FileSource},
    id::{Level, SequenceNumber},
    options::{FileCompression, StatsMode},
    value::Value,
};

use crate::{
    batch::{KeyValueBatch, is_retract},
    checksum,
    error::LsmError,
    layout::{FileLayout, KEY_PREFIX, SEQUENCE_NUMBER},
    rows::row_at,
    stats::{key_stats, value_stats},
};

/// Decimals of more digits are stored in more than 64 bits.
const INT64_DIGITS: u8 = 18;

/// How files are written. Write-side only: any reader reads any of these.
#[derive(Debug, Clone, PartialEq)]
pub struct WriterSettings {
    /// Compression.
    pub compression: FileCompression,
    /// A row group is closed at so many encoded bytes: what a writer holds in memory.
    pub row_group_bytes: usize,
    /// A row group is closed at so many rows.
    pub row_group_rows: usize,
    /// Statistics of value columns, per column (`metadata.stats-mode`, `fields.*.stats-mode`).
    pub stats: Vec<StatsMode>,
    /// Columns without statistics are left out of the list of statistics, not null in it (`metadata.stats-dense-store`).
    pub stats_dense: bool,
    /// A compaction starts a new file at about so many bytes (`target-file-size`).
    pub target_file_bytes: u64,
    /// And at so many rows (`target-file-row-num`).
    pub target_file_rows: u64,
    /// Prefix of file names (`data-file.prefix`).
    pub prefix: String,
    /// What file names end in: the format, and the codec where `file.suffix.include.compression` says so.
    pub suffix: String,
}

impl WriterSettings {
    /// Paimon's defaults for a table of `columns` columns.
    #[must_use]
    pub fn defaults(columns: usize) -> Self {
        Self {
            compression: FileCompression::Zstd(1),
            row_group_bytes: 32 << 20,
            row_group_rows: 1 << 20,
            stats: vec![StatsMode::Truncate(16); columns],
            stats_dense: true,
            target_file_bytes: 128 << 20,
            target_file_rows: u64::MAX,
            prefix: "data-".to_owned(),
            suffix: ".parquet".to_owned(),
        }
    }

    /// The name of a file with this unique part.
    #[must_use]
    pub fn file_name(&self, id: &str) -> String {
        format!("{}{id}{}", self.prefix, self.suffix)
    }
}

/// An open data file.
pub struct RunWriter {
    layout: FileLayout,
    settings: Arc<WriterSettings>,
    writer: ArrowWriter<Vec<u8>>,
    level: Level,
    source: FileSource,
    taken: u64,
    sum: crc32fast::Hasher,
    rows: i64,
    deletes: i64,
    sequence: Option<(i64, i64)>,
    first_key: Option<Vec<Value>>,
    last_key: Vec<Value>,
    nan: Vec<bool>,
}

impl std::fmt::Debug for RunWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunWriter").field("level", &self.level).field("rows", &self.rows).finish()
    }
}

/// Key and sequence columns are different in every row: a dictionary of them overflows, is thrown away and costs 5-11 % of the time.
/// Decimals of more than 18 digits have none either, as Java's: Paimon up to 1.4 compares the dictionary with the bytes of a literal that are
/// cut to what the number needs, and skips row groups that hold it.
fn properties(layout: &FileLayout, settings: &WriterSettings) -> Result<WriterProperties, LsmError> {
    let compression = match settings.compression {
        FileCompression::None => Compression::UNCOMPRESSED,
        FileCompression::Zstd(level) => Compression::ZSTD(ZstdLevel::try_new(level).map_err(LsmError::encode)?),
        FileCompression::Snappy => Compression::SNAPPY,
        FileCompression::Lz4 => Compression::LZ4_RAW,
        FileCompression::Gzip => Compression::GZIP(parquet::basic::GzipLevel::default()),
    };
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(checksum::CREATED_BY.to_owned())
        .set_compression(compression)
        .set_max_row_group_row_count(Some(settings.row_group_rows.max(1)))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(None)
        .set_offset_index_disabled(true)
        .set_data_page_row_count_limit(20_000);
    let path = |name: &str| ColumnPath::from(vec![name.to_owned()]);
    builder = builder.set_column_dictionary_enabled(path(SEQUENCE_NUMBER), false);
    for &key in layout.key() {
        if let Some(field) = layout.values().fields().get(key) {
            builder = builder.set_column_dictionary_enabled(path(&format!("{KEY_PREFIX}{}", field.name())), false);
            if layout.key().len() == 1 {
                builder = builder.set_column_dictionary_enabled(path(field.name()), false);
            }
        }
    }
    for field in layout.values().fields() {
        if matches!(field.data_type(), DataType::Decimal128(precision, _) if *precision > INT64_DIGITS) {
            builder = builder.set_column_dictionary_enabled(path(field.name()), false);
        }
    }
    Ok(builder.build())
}

impl RunWriter {
    /// Starts a file on `level`.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when the layout cannot be written as Parquet.
    pub fn new(
        layout: &FileLayout,
        settings: Arc<WriterSettings>,
        level: Level,
        source: FileSource,
    ) -> Result<Self, LsmError> {
        let options = ArrowWriterOptions::new()
            .with_properties(properties(layout, &settings)?)
            .with_skip_arrow_metadata(true)
            .with_schema_root("paimon_schema".to_owned());
        let writer =
            ArrowWriter::try_new_with_options(Vec::new(), layout.file().clone(), options).map_err(LsmError::encode)?;
        Ok(Self {
            nan: vec![false; layout.values().fields().len()],
            layout: layout.clone(),
            settings,
            writer,
            level,
            source,
            taken: 0,
            sum: crc32fast::Hasher::new(),
            rows: 0,
            deletes: 0,
            sequence: None,
            first_key: None,
            last_key: Vec::new(),
        })
    }

    /// Appends rows that follow all rows written before.
    ///
    /// # Errors
    /// [`LsmError::Encode`] when encoding fails.
    pub fn write(&mut self, batch: &KeyValueBatch) -> Result<(), LsmError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.describe(batch);
        let key = self.layout.key();
        let mut columns: Vec<ArrayRef> = key.iter().filter_map(|&i| batch.values.columns().get(i).cloned()).collect();
        columns.push(Arc::new(batch.sequence.clone()));
        columns.push(Arc::new(batch.kind.clone()));
        columns.extend(batch.values.columns().iter().cloned());
        let options = RecordBatchOptions::new().with_row_count(Some(batch.len()));
        let rows = RecordBatch::try_new_with_options(self.layout.file().clone(), columns, &options)
            .map_err(|e| LsmError::Rows(e.to_string()))?;
        self.writer.write(&rows).map_err(LsmError::encode)?;
        if self.writer.in_progress_size() >= self.settings.row_group_bytes {
            self.writer.flush().map_err(LsmError::encode)?;
        }
        Ok(())
    }

    fn describe(&mut self, batch: &KeyValueBatch) {
        self.rows += i64::try_from(batch.len()).unwrap_or(i64::MAX);
        self.deletes += batch.kind.values().iter().map(|k| i64::from(is_retract(*k))).sum::<i64>();
        let numbers = batch.sequence.values();
        if let (Some(&low), Some(&high)) = (numbers.iter().min(), numbers.iter().max()) {
            let (min, max) = self.sequence.unwrap_or((low, high));
            self.sequence = Some((min.min(low), max.max(high)));
        }
        if self.first_key.is_none() {
            self.first_key = Some(row_at(&batch.values, self.layout.key(), 0));
        }
        self.last_key = row_at(&batch.values, self.layout.key(), batch.len() - 1);
        for (nan, column) in self.nan.iter_mut().zip(batch.values.columns()) {
            *nan = *nan || crate::stats::has_nan(column);
        }
    }

    /// Rows written so far.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// Bytes of the file so far, the open row group estimated.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        self.writer.bytes_written() as u64 + self.writer.in_progress_size() as u64
    }

    /// Takes the finished bytes; may be empty. All takes and the rest from [`RunWriter::finish`], in order, are the file.
    pub fn take_bytes(&mut self) -> Bytes {
        let bytes = std::mem::take(self.writer.inner_mut());
        self.taken += bytes.len() as u64;
        self.sum.update(&bytes);
        Bytes::from(bytes)
    }

    /// Closes the file: its remaining bytes and its description.
    ///
    /// # Errors
    /// [`LsmError::Rows`] for a file without rows; [`LsmError::Encode`] when encoding fails.
    pub fn finish(mut self, file_name: String, creation_time_ms: i64) -> Result<(Bytes, DataFileMeta), LsmError> {
        let (Some((min, max)), Some(first)) = (self.sequence, self.first_key.take()) else {
            return Err(LsmError::Rows("a data file needs at least one row".to_owned()));
        };
        self.writer.append_key_value_metadata(checksum::key_value());
        let footer = self.writer.finish().map_err(LsmError::encode)?;
        let mut rest = std::mem::take(self.writer.inner_mut());
        self.taken += rest.len() as u64;
        checksum::seal(std::mem::take(&mut self.sum), &mut rest)?;
        let rest = Bytes::from(rest);
        let types = self.layout.key_types();
        let (min_key, max_key) = (encode_row(&first, &types)?, encode_row(&self.last_key, &types)?);
        let key_stats = key_stats(&self.layout, &footer, (&first, &self.last_key), &self.nan)?;
        let (value_stats, value_stats_cols) = value_stats(&self.layout, &footer, &self.settings, &self.nan)?;
        let meta = DataFileMeta {
            file_name,
            file_size: i64::try_from(self.taken).unwrap_or(i64::MAX),
            row_count: self.rows,
            key_stats,
            min_key,
            max_key,
            value_stats,
            min_sequence_number: SequenceNumber(min),
            max_sequence_number: SequenceNumber(max),
            schema_id: self.layout.table().id,
            level: self.level,
            extra_files: Vec::new(),
            creation_time_ms: Some(creation_time_ms),
            delete_row_count: Some(self.deletes),
            embedded_index: None,
            file_source: Some(self.source),
            value_stats_cols,
            external_path: None,
            first_row_id: None,
            write_cols: None,
        };
        Ok((rest, meta))
    }
}
