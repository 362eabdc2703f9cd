//! Debt hints: how many runs a bucket has probably gained, and the task objects that ask for a compaction.
//!
//! Neighbours: `ingest` and `maintain` add after a commit, `compact` takes off, the S3 event of a task object starts the `compact` function, and the
//! schedule re-plans from real manifests what hints or events lost. Invariants: 1. nothing here is trusted for safety: a wrong hint costs
//! money, never data; 2. a failure here never fails a committed batch.

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use siltstone_commit::changes::NewRuns;
use siltstone_format::{
    data_file::StoredRow,
    id::{Bucket, SnapshotId},
};
use siltstone_store::object::{PutMode, list_all};

use crate::{
    error::{Result, TableError},
    name::{TableName, TableRef},
    table::Table,
};

/// Task objects larger than this are not ours.
const TASK_BYTES_MAX: usize = 64 << 10;
/// A chain of tasks that put tasks ends here (architecture.md section 9: Lambda stops at about 16).
pub const HOPS_MAX: u32 = 12;

/// What a task object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompactTask {
    /// `db.table`.
    pub table: String,
    /// Warehouse prefix.
    pub warehouse: String,
    /// Partition row: number of fields, and bytes as hex.
    pub partition_arity: i32,
    /// See `partition_arity`.
    pub partition: String,
    /// Bucket.
    pub bucket: i32,
    /// Snapshot that made the task due.
    pub version: i64,
    /// How many tasks put one another before this one.
    #[serde(default)]
    pub hops: u32,
}

impl CompactTask {
    /// A task for one bucket.
    #[must_use]
    pub fn new(at: &TableRef, partition: &StoredRow, bucket: Bucket, version: SnapshotId, hops: u32) -> Self {
        Self {
            table: at.name.to_string(),
            warehouse: at.warehouse.clone(),
            partition_arity: partition.arity,
            partition: partition.bytes.iter().map(|b| format!("{b:02x}")).collect(),
            bucket: bucket.0,
            version: version.0,
            hops,
        }
    }

    /// Reads a task object.
    ///
    /// # Errors
    /// [`TableError::Invalid`] naming the object when it is not a task.
    pub fn parse(object: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > TASK_BYTES_MAX {
            return Err(TableError::invalid(format!(
                "object {object} has {} bytes: not a compaction task",
                bytes.len()
            )));
        }
        serde_json::from_slice(bytes).map_err(|e| {
            TableError::invalid(format!(
                "object {object} is not a compaction task: {e}; delete it, `maintain` plans again what is due"
            ))
        })
    }

    /// The table it speaks of.
    ///
    /// # Errors
    /// When its name is not one.
    pub fn table_ref(&self) -> Result<TableRef> {
        Ok(TableRef::new(&self.warehouse, self.table.parse::<TableName>()?))
    }

    /// The partition row.
    ///
    /// # Errors
    /// When the hex is not.
    pub fn partition_row(&self) -> Result<StoredRow> {
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
        // The number parser alone would take `+f`.
        let plain = self.partition.len().is_multiple_of(2) && self.partition.bytes().all(|b| b.is_ascii_hexdigit());
        let bytes: Option<Vec<u8>> = self.partition.as_bytes().chunks(2).map(byte).collect();
        match bytes.filter(|_| plain) {
            Some(bytes) => Ok(StoredRow { arity: self.partition_arity, bytes }),
            None => Err(TableError::invalid(format!("task for {}: `partition` is not hex", self.table))),
        }
    }
}

/// Sort key of a bucket's hint.
fn hint(path: &str, bucket: Bucket) -> String {
    format!("debt#{path}/bucket-{bucket}")
}

/// Counts the new runs of each bucket and puts the task objects that became due; returns how many. Begins nothing from `until_ms` on: the
/// change is committed and must be answered.
pub(crate) async fn add(table: &Table, new: &[NewRuns], until_ms: i64) -> u64 {
    if !table.compacts_here() {
        return 0;
    }
    let due: Vec<bool> = stream::iter(new.to_vec())
        .map(|new| async move {
            add_to(table, &new, until_ms).await.unwrap_or_else(|error| {
                tracing::warn!(table = %table.at.name, %error, "a debt hint was not written; the schedule plans this bucket");
                false
            })
        })
        .buffer_unordered(8)
        .collect()
        .await;
    due.into_iter().filter(|due| *due).count() as u64
}

/// True if a task was due: the count came to the trigger, or to a multiple of it, by these runs.
async fn add_to(table: &Table, new: &NewRuns, until_ms: i64) -> Result<bool> {
    if table.ports.clock.now_ms() >= until_ms {
        return Err(TableError::Unavailable("no time is left in this invocation".to_owned()));
    }
    let trigger = i64::try_from(table.options.compaction.trigger).unwrap_or(i64::MAX).max(1);
    let path = table.partition_path(&table.partition_values(&new.partition)?)?;
    let added = i64::try_from(new.runs).unwrap_or(i64::MAX);
    let runs = table.ports.items.add(&table.at.partition(), &hint(&path, new.bucket), "runs", added).await?;
    let due = runs.div_euclid(trigger) > (runs - added).div_euclid(trigger).max(0);
    if due {
        put_task(table, &path, &CompactTask::new(&table.at, &new.partition, new.bucket, new.snapshot, 0)).await?;
    }
    Ok(due)
}

/// Puts a task object; one that is there already was put by somebody else for the same version.
///
/// # Errors
/// When the store refuses or does not answer.
pub async fn put_task(table: &Table, partition_path: &str, task: &CompactTask) -> Result<()> {
    put(table, partition_path, task, PutMode::IfAbsent).await
}

/// Puts a task object, also over one that is there already: S3 sends an event for a put and for nothing else, and the event of
/// the object that is there may be lost.
///
/// # Errors
/// As [`put_task`].
pub async fn renew_task(table: &Table, partition_path: &str, task: &CompactTask) -> Result<()> {
    put(table, partition_path, task, PutMode::Overwrite).await
}

async fn put(table: &Table, partition_path: &str, task: &CompactTask, mode: PutMode) -> Result<()> {
    let key = format!(
        "{}{}bucket-{}/{:020}-{}.json",
        table.at.tasks(),
        if partition_path.is_empty() { String::new() } else { format!("{partition_path}/") },
        task.bucket,
        task.version,
        task.hops
    );
    let body = serde_json::to_vec(task).map_err(|e| TableError::Bug(e.to_string()))?;
    match table.ports.objects.put(&key, body.into(), mode).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == siltstone_store::object::ObjectErrorKind::PreconditionFailed => Ok(()),
        Err(error) => Err((*error).into()),
    }
}

/// Removes task objects that were put before a time: of lost races, of buckets that somebody else was compacting. What is still due is put
/// again by the schedule. Returns how many.
pub(crate) async fn remove_tasks(table: &Table, before_ms: i64) -> Result<u64> {
    let tasks = list_all(table.ports.objects.as_ref(), &table.at.tasks()).await.map_err(|e| *e)?;
    let old: Vec<String> = tasks.into_iter().filter(|o| o.last_modified_ms < before_ms).map(|o| o.key).collect();
    if !old.is_empty() {
        table.ports.objects.delete(&old).await.map_err(|e| *e)?;
    }
    Ok(old.len() as u64)
}

/// Takes compacted runs off a bucket's hint.
pub(crate) async fn take_off(table: &Table, partition_path: &str, bucket: Bucket, runs: usize) {
    let runs = i64::try_from(runs).unwrap_or(i64::MAX);
    let sort = hint(partition_path, bucket);
    if let Err(error) = table.ports.items.add(&table.at.partition(), &sort, "runs", -runs).await {
        tracing::warn!(table = %table.at.name, %error, "a debt hint was not lowered; the next compaction finds less to do");
    }
}
