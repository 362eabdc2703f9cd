//! Works off a task object: one bucket compacted under its lease.
//!
//! Neighbours: the `compact` function calls this for each event; `debt` puts and reads tasks; `maintain` removes those that stay.
//! Invariants: 1. duplicates and any order of events are harmless; 2. a task is removed only after its bucket was compacted or needed nothing;
//! 3. an unfinished job puts the next task before its own goes, with a hop count.

use siltstone_commit::context::Authority;
use siltstone_format::{id::Bucket, options::Purpose};
use siltstone_store::object::ObjectErrorKind;

use crate::{
    compact::{CompactReport, CompactRequest, Compacted, compact_bucket},
    debt::{CompactTask, HOPS_MAX, put_task},
    error::{Result, TableError},
    lease::Lease,
    name::TableRef,
    ports::Ports,
    settings::CompactLimits,
    table::Table,
};

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its object was gone: a duplicate event.
    Gone,
    /// Another invocation is compacting the bucket. The object stays; `maintain` removes it.
    Leased,
    /// The bucket needed nothing.
    Nothing,
    /// The bucket was compacted.
    Done(Box<CompactReport>),
    /// The compaction lost a race, in words. The object stays; a later event or the schedule does what is still due.
    Conflict(String),
}

/// Works off the task in object `key`, which must be one of table `own`.
///
/// # Errors
/// When a service does not answer or an object is damaged: the task stays, and its event is to be delivered again.
pub async fn work_off(
    ports: &Ports,
    own: &TableRef,
    key: &str,
    limits: &CompactLimits,
    deadline_ms: i64,
) -> Result<Fate> {
    let object = match ports.objects.get(key).await {
        Ok(object) => object,
        Err(error) if error.kind() == ObjectErrorKind::NotFound => return Ok(Fate::Gone),
        Err(error) => return Err((*error).into()),
    };
    let task = CompactTask::parse(key, &object.bytes)?;
    let at = task.table_ref()?;
    if at != *own {
        return Err(TableError::Invalid(format!(
            "task {key} is for {} ({}), this function serves {} ({}): let the notification's prefix end at the table's own tasks",
            at.name,
            at.location(),
            own.name,
            own.location()
        )));
    }
    let table = Table::open(ports, own, Authority::Pointer, Purpose::Compact).await?;
    let partition = task.partition_row()?;
    let values = table.partition_values(&partition).map_err(|e| {
        TableError::Invalid(format!(
            "task {key}: its partition is not one of {}: {e}; delete the object, `maintain` plans again what is due",
            own.name
        ))
    })?;
    let path = table.partition_path(&values)?;
    let Some(lease) = Lease::take(&table, &format!("{path}/bucket-{}", task.bucket)).await? else {
        return Ok(Fate::Leased);
    };
    let working = compact_bucket(&table, &partition, Bucket(task.bucket), CompactRequest::Picked, limits, deadline_ms);
    // In this order, so that a simulation is the same each time.
    let compacted = tokio::select! {
        biased;
        compacted = working => compacted,
        never = lease.keep() => match never {},
    };
    lease.free().await;
    let fate = match compacted? {
        Compacted::Nothing => Fate::Nothing,
        Compacted::Done(report) => {
            if !report.complete && task.hops < HOPS_MAX {
                put_task(&table, &path, &CompactTask { hops: task.hops + 1, ..task }).await?;
            }
            Fate::Done(report)
        }
        Compacted::Conflict(reason) => return Ok(Fate::Conflict(reason)),
    };
    ports.objects.delete(&[key.to_owned()]).await.map_err(|e| *e)?;
    Ok(fate)
}
