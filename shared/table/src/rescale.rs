//! Whether a table's files have the number of buckets that its schema says.
//!
//! Neighbours: `ingest` and `replay` ask before they write rows. Another engine's `ALTER TABLE .. SET ('bucket' = ..)` changes the option alone;
//! the files change only when it rewrites each partition. Between the two, rows written by the new number would come into a second bucket of
//! their key, and readers would see both (paimon-format.md section 4). Invariants: 1. a table that was never
//! altered costs no request; 2. manifests are read only where the option was changed once: else the earlier schemas suffice.

use futures::{StreamExt, TryStreamExt, stream};
use siltstone_commit::manifests::Scope;
use siltstone_format::id::SchemaId;

use crate::{
    error::{Result, TableError},
    state,
    table::{Table, read_schema},
};

/// Name of the option.
const BUCKET: &str = "bucket";
/// Schemas that are read at once.
const AT_ONCE: usize = 16;

/// Refuses to write into a table with files of another number of buckets.
///
/// # Errors
/// [`TableError::Invalid`] naming a partition that was not rewritten, and what to do.
pub(crate) async fn require_rescaled(table: &Table) -> Result<()> {
    let Some(count) = table.bucket_count().filter(|_| table.schema.id > SchemaId(0)) else { return Ok(()) };
    if !was_altered(table).await? {
        return Ok(());
    }
    let Some(snapshot) = table.current().await? else { return Ok(()) };
    let files = state::live_files(table, &snapshot, Scope::Everything).await?;
    let Some(other) = files.iter().find(|entry| entry.total_buckets != count) else { return Ok(()) };
    let partition = table.partition_words(&table.partition_values(&other.partition)?)?;
    let place = if partition.is_empty() { "the table".to_owned() } else { format!("partition {partition}") };
    let before = other.total_buckets;
    Err(TableError::invalid(format!(
        "{}: {place} has files of {before} buckets, and the option `bucket` was changed to {count}: a key would be in two buckets. Rewrite it by \
         INSERT OVERWRITE in Spark or Flink, or set `bucket` back to {before}; nothing is written until then",
        table.at.name
    )))
}

/// Whether an earlier schema says another number.
async fn was_altered(table: &Table) -> Result<bool> {
    let now = table.schema.options.get(BUCKET);
    let earlier = stream::iter(0..table.schema.id.0)
        .map(|id| async move {
            match read_schema(&table.ports, &table.location, SchemaId(id)).await {
                Ok(schema) => Ok(schema.options.get(BUCKET) != now),
                // It may have said anything.
                Err(TableError::NotFound(_)) => Ok(true),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(AT_ONCE);
    earlier.try_fold(false, |any, other| async move { Ok(any || other) }).await
}
