//! Reads a table: the newest version of every row, merged on read, or its changelog.
//!
//! Neighbours: `state` says which files, `lsm` merges them, `silt scan` and tests print. Partitions, buckets and key ranges that cannot
//! hold a match are skipped; rows are filtered after the merge, never before (an older version might match).
//! Invariants: 1. a key is returned at most once; 2. rows whose newest kind is -U or -D are not returned.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use siltstone_commit::manifests::Scope;
use siltstone_format::{
    bucket::Bucketer, compare::KeyComparator, id::SnapshotId, manifest::ManifestEntry, options::ChangelogProducer,
    value::Value,
};
use siltstone_lsm::{
    batch::{INSERT, KeyValueBatch, UPDATE_AFTER},
    compact::run_batches,
    error::LsmError,
    merge::{DropDeletes, Merge, MergeSettings},
    reader::{BATCH_BYTES, open_changelog},
    rows::value_at,
    section::sections,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    error::{Result, TableError},
    filter::Filter,
    memory::columns_of,
    open_files::opener,
    source::{FileSource, SourceSizes},
    state,
    table::{Table, Version},
};

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ScanRequest {
    /// The state to read.
    pub version: Version,
    /// Rows to keep.
    pub filter: Filter,
    /// At most so many rows.
    pub limit: Option<usize>,
}

/// A row of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannedRow {
    /// Row kind: +I for table rows; as written for changelogs.
    pub kind: i8,
    /// LSM sequence number.
    pub sequence: i64,
    /// Values in schema order.
    pub values: Vec<Value>,
}

/// Reads rows and hands each to `sink`; stops early when it returns false.
///
/// # Errors
/// When the snapshot does not exist, an object is missing or damaged, or a service does not answer.
pub async fn scan(
    table: &Table,
    request: &ScanRequest,
    mut sink: impl FnMut(ScannedRow) -> bool + Send,
) -> Result<u64> {
    let Some(snapshot) = table.snapshot(&request.version).await? else { return Ok(0) };
    let wanted = Wanted::new(table, &request.filter)?;
    let entries = state::live_files(table, &snapshot, Scope::Everything).await?;
    let mut read = 0u64;
    for ((partition, bucket), files) in state::by_bucket(entries) {
        if !wanted.bucket(&table.partition_values(&partition)?, bucket, &files)? {
            continue;
        }
        let left = request.limit.map(|limit| limit.saturating_sub(usize::try_from(read).unwrap_or(usize::MAX)));
        if left == Some(0) {
            break;
        }
        let mut batches = merged(table, files).await?;
        while let Some(batch) = batches.recv().await {
            let batch = batch?;
            for row in 0..batch.values.num_rows() {
                let values = row_values(&batch.values, row);
                if !request.filter.accepts(&values) {
                    continue;
                }
                read += 1;
                let kind = INSERT;
                let more = sink(ScannedRow { kind, sequence: batch.sequence.value(row), values });
                if !more || request.limit.is_some_and(|limit| read >= limit as u64) {
                    return Ok(read);
                }
            }
        }
    }
    Ok(read)
}

/// Changelog rows of one snapshot, or of all snapshots in order.
///
/// # Errors
/// As [`scan`]; [`TableError::Invalid`] for a table whose `changelog-producer` writes none.
pub async fn changelog(
    table: &Table,
    request: &ScanRequest,
    mut sink: impl FnMut(SnapshotId, ScannedRow) -> bool + Send,
) -> Result<u64> {
    // The snapshot vouches for the schema that this option is taken from.
    table.snapshot(&request.version).await?;
    if table.options.changelog_producer == ChangelogProducer::None {
        return Err(TableError::invalid(format!(
            "{} writes no changelog (changelog-producer = none): create it with --option changelog-producer=input",
            table.at.name
        )));
    }
    let ids = match &request.version {
        Version::Snapshot(id) => vec![*id],
        Version::Tag(name) => {
            return Err(TableError::invalid(format!("tag {name} holds no changelog: name the snapshot")));
        }
        Version::Current => state::snapshot_ids(table).await?,
    };
    let mut read = 0u64;
    for id in ids {
        let snapshot = state::read_snapshot(table, id).await?;
        let files = state::delta_files(table, &snapshot).await?.changelog;
        for entry in files {
            let mut batches = raw(table, entry).await?;
            while let Some(batch) = batches.recv().await {
                let batch = batch?;
                for row in 0..batch.values.num_rows() {
                    let values = row_values(&batch.values, row);
                    if !request.filter.accepts(&values) {
                        continue;
                    }
                    read += 1;
                    let row = ScannedRow { kind: batch.kind.value(row), sequence: batch.sequence.value(row), values };
                    if !sink(id, row) || request.limit.is_some_and(|limit| read >= limit as u64) {
                        return Ok(read);
                    }
                }
            }
        }
    }
    Ok(read)
}

/// Batches from a blocking thread. Its end counts only if it ended well: a thread that died has not sent everything.
struct Batches {
    receive: mpsc::Receiver<Result<KeyValueBatch>>,
    worker: Option<JoinHandle<()>>,
}

impl Batches {
    fn start(work: impl FnOnce(mpsc::Sender<Result<KeyValueBatch>>) + Send + 'static) -> Self {
        let (send, receive) = mpsc::channel(2);
        Self { receive, worker: Some(tokio::task::spawn_blocking(move || work(send))) }
    }

    async fn recv(&mut self) -> Option<Result<KeyValueBatch>> {
        if let Some(batch) = self.receive.recv().await {
            return Some(batch);
        }
        let ended = self.worker.take()?.await;
        ended.err().map(|died| Err(TableError::Bug(format!("the reading thread died: {died}"))))
    }
}

/// Sends all batches, or the error that there are none. False when nothing more is wanted or can come.
fn forward<E, F>(
    batches: Result<impl Iterator<Item = Result<KeyValueBatch, E>>, F>,
    send: &mpsc::Sender<Result<KeyValueBatch>>,
) -> bool
where
    TableError: From<E> + From<F>,
{
    let batches = match batches {
        Ok(batches) => batches,
        Err(error) => {
            // A receiver that is gone wants no error either.
            drop(send.blocking_send(Err(error.into())));
            return false;
        }
    };
    for batch in batches {
        let failed = batch.is_err();
        if send.blocking_send(batch.map_err(TableError::from)).is_err() || failed {
            return false;
        }
    }
    true
}

/// Merges the files of one bucket on a blocking thread.
async fn merged(table: &Table, files: Vec<ManifestEntry>) -> Result<Batches> {
    let open = opener(table, &files, SourceSizes::alone(columns_of(&table.layout)), BATCH_BYTES).await?;
    let layout = table.layout.clone();
    Ok(Batches::start(move |send| {
        let keys = KeyComparator::new(layout.key_types());
        let compare = |a: &_, b: &_| keys.compare(a, b);
        for section in sections(state::files_of(&files), &compare) {
            let runs = section.runs.into_iter().map(|run| run_batches(run, open.clone())).collect();
            let settings = MergeSettings { drop_deletes: DropDeletes::All, ..MergeSettings::default() };
            if !forward(Merge::new(&layout, runs, settings), &send) {
                return;
            }
        }
    }))
}

/// The rows of one changelog file as they stand.
async fn raw(table: &Table, entry: ManifestEntry) -> Result<Batches> {
    let schemas = crate::open_files::schemas_of(table, std::slice::from_ref(&entry)).await?;
    let partition = table.partition_values(&entry.partition)?;
    let key = table.data_key(&partition, entry.bucket, &entry.file.file_name)?;
    let size = u64::try_from(entry.file.file_size).unwrap_or(0);
    let sizes = SourceSizes::alone(columns_of(&table.layout));
    let source = FileSource::open(&table.ports.objects, &key, size, sizes).await.map_err(|e| *e)?;
    if parquet::file::reader::Length::len(&source) != size {
        let detail =
            format!("has {} bytes, its manifest entry says {size}", parquet::file::reader::Length::len(&source));
        return Err(LsmError::Corrupt { object: key, detail }.into());
    }
    source.check_whole(&key)?;
    let layout = table.layout.clone();
    Ok(Batches::start(move |send| {
        let batches = match schemas.get(&entry.file.schema_id) {
            Some(schema) => open_changelog(source, &entry.file, schema, &layout)
                .map(|batches| batches.map(|batch| batch.map_err(|e| e.found_in(&key))))
                .map_err(|e| TableError::from(e.found_in(&key))),
            None => Err(TableError::Bug(format!("schema {} of {key} was not loaded", entry.file.schema_id))),
        };
        forward(batches, &send);
    }))
}

fn row_values(batch: &RecordBatch, row: usize) -> Vec<Value> {
    batch.columns().iter().map(|c| value_at(Arc::clone(c).as_ref() as &dyn Array, row)).collect()
}

/// Whether a row of this kind adds (+I, +U).
#[must_use]
pub fn adds(kind: i8) -> bool {
    kind == INSERT || kind == UPDATE_AFTER
}

/// Pruning by what a filter can match.
struct Wanted<'a> {
    filter: &'a Filter,
    partition: Vec<usize>,
    bucket_key: Vec<usize>,
    key: Vec<usize>,
    bucketer: Option<Bucketer>,
    table: &'a Table,
}

impl<'a> Wanted<'a> {
    fn new(table: &'a Table, filter: &'a Filter) -> Result<Self> {
        let bucket_key = table.schema.bucket_key_indices()?;
        let pinned = bucket_key.iter().all(|&column| filter.equal_to(column).is_some());
        let bucketer = if pinned { Some(table.bucketer()?) } else { None };
        Ok(Self {
            filter,
            partition: table.schema.partition_indices(),
            key: table.schema.trimmed_primary_key(),
            bucket_key,
            bucketer,
            table,
        })
    }

    fn bucket(
        &self,
        partition: &[Value],
        bucket: siltstone_format::id::Bucket,
        files: &[ManifestEntry],
    ) -> Result<bool> {
        let partition_fits =
            self.partition.iter().zip(partition).all(|(&column, value)| {
                self.filter.terms.iter().filter(|t| t.column == column).all(|t| t.accepts(value))
            });
        if !partition_fits {
            return Ok(false);
        }
        if let Some(bucketer) = &self.bucketer {
            let values: Vec<Value> =
                self.bucket_key.iter().filter_map(|&column| self.filter.equal_to(column).cloned()).collect();
            let same_count = files.iter().all(|f| Some(f.total_buckets) == self.table.bucket_count());
            if same_count && bucketer.bucket(&values)? != bucket {
                return Ok(false);
            }
        }
        let types = self.table.layout.key_types();
        for entry in files {
            let min = siltstone_format::binary_row::decode_row(&entry.file.file_name, &entry.file.min_key, &types)?;
            let max = siltstone_format::binary_row::decode_row(&entry.file.file_name, &entry.file.max_key, &types)?;
            // Only the first key column is ordered by itself.
            let first = self.key.first().zip(min.first().zip(max.first()));
            if first.is_none_or(|(&column, (low, high))| self.filter.may_accept_range(column, low, high)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reading_thread_that_dies_is_an_error_and_no_end() {
        let mut batches = Batches::start(|_| panic!("on purpose"));
        assert!(batches.recv().await.unwrap().is_err());
        assert!(batches.recv().await.is_none());
        assert!(Batches::start(|_| ()).recv().await.is_none());
    }
}
