//! Writes the rows of one batch as level-0 files, one per touched bucket, and names them in the change that will commit them.
//!
//! Above: `ingest` and `replay` number the rows and commit the change. Below: `lsm` splits, sorts, merges and encodes. Invariants: 1. files are
//! made one at a time, their uploads run side by side, and only those are in memory; 2. every file is durable when this returns: the commit may name it;
//! 3. a file states its largest sequence number padded to the end of the millisecond: a foreign writer goes on in nobody's slot.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use siltstone_commit::{changes::Change, sequence::padded};
use siltstone_format::{
    data_file::{DataFileMeta, FileSource},
    id::Level,
    manifest::{FileKind, ManifestEntry},
};
use siltstone_lsm::{
    batch::KeyValueBatch,
    buffer::{BucketRows, Splitter},
    writer::{RunWriter, WriterSettings},
};
use siltstone_store::object::PutMode;

use crate::{
    error::{Result, TableError},
    table::Table,
    writing::{changelog_settings, writer_settings, writes_changelog},
};

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Buckets touched.
    pub(crate) buckets: u64,
    /// Data and changelog files.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Writes one level-0 file per touched bucket (and its changelog file), `parallel_uploads` at a time, and names them in `change`.
///
/// # Errors
/// When rows cannot be laid out, or the store refuses or does not answer; what was written then is an orphan.
pub(crate) async fn write(
    table: &Table,
    rows: &KeyValueBatch,
    parallel_uploads: usize,
    change: &mut Change,
) -> Result<Written> {
    let splitter = Splitter::new(&table.layout, table.bucketer()?, writes_changelog(table))?;
    let touched = splitter.split(rows)?;
    let maker = Maker {
        table,
        data: Arc::new(writer_settings(table, Level::ZERO)),
        changelog: Arc::new(changelog_settings(table)),
    };
    let writer_id = table.ports.ids.uuid();
    let uploaded: Vec<Uploaded> = stream::iter(touched.iter().cloned().enumerate())
        .map(|(number, bucket)| {
            let rows = splitter.bucket_rows(rows, bucket).map_err(TableError::from);
            let made = rows.and_then(|rows| maker.make(rows, &format!("{writer_id}-{number}")));
            async move {
                let made = made?;
                let mut uploaded = Uploaded { data: made.data, changelog: made.changelog, files: 0, bytes: 0 };
                for (key, bytes) in made.objects {
                    uploaded.files += 1;
                    uploaded.bytes += bytes.len() as u64;
                    table.ports.objects.put(&key, bytes, PutMode::Overwrite).await.map_err(|e| *e)?;
                }
                Ok::<_, TableError>(uploaded)
            }
        })
        .buffered(parallel_uploads.max(1))
        .try_collect()
        .await?;
    let mut written = Written { buckets: touched.len() as u64, ..Written::default() };
    for file in uploaded {
        written.files += file.files;
        written.bytes += file.bytes;
        change.files.push(file.data);
        change.changelog.extend(file.changelog);
    }
    Ok(written)
}

/// The files of one bucket.
struct Made {
    data: ManifestEntry,
    changelog: Option<ManifestEntry>,
    objects: Vec<(String, Bytes)>,
}

/// The files of one bucket, without their bytes: a batch may touch thousands of buckets.
struct Uploaded {
    data: ManifestEntry,
    changelog: Option<ManifestEntry>,
    files: u64,
    bytes: u64,
}

/// Makes files of one table.
struct Maker<'t> {
    table: &'t Table,
    data: Arc<WriterSettings>,
    changelog: Arc<WriterSettings>,
}

impl Maker<'_> {
    fn make(&self, rows: BucketRows, id: &str) -> Result<Made> {
        let entry = |file: DataFileMeta| ManifestEntry {
            kind: FileKind::Add,
            partition: rows.partition_row.clone(),
            bucket: rows.bucket,
            total_buckets: self.table.bucket_count().unwrap_or(1),
            file,
        };
        let now = self.table.ports.clock.now_ms();
        let mut objects = Vec::new();
        let mut write = |batch: &KeyValueBatch, settings: &Arc<WriterSettings>| -> Result<DataFileMeta> {
            let mut writer = RunWriter::new(&self.table.layout, settings.clone(), Level::ZERO, FileSource::Append)?;
            writer.write(batch)?;
            let (bytes, mut meta) = writer.finish(settings.file_name(id), now)?;
            meta.max_sequence_number = padded(meta.max_sequence_number);
            objects.push((self.table.data_key(&rows.partition, rows.bucket, &meta.file_name)?, bytes));
            Ok(meta)
        };
        let data = entry(write(&rows.rows, &self.data)?);
        let changelog = match &rows.changelog {
            Some(batch) => Some(entry(write(batch, &self.changelog)?)),
            None => None,
        };
        Ok(Made { data, changelog, objects })
    }
}
