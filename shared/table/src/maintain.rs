//! What the schedule does: repair publication, plan missed compactions, expire, sweep, free slots, check the event source mapping.
//!
//! Neighbours: the `maintain` function and `silt expire`; the protocols are `commit`'s. Invariants: 1. each task is independent: one that fails
//! is reported and does not stop the others; 2. every task may run at any time, any number of times, beside any other.

use serde::{Deserialize, Serialize};
use siltstone_commit::protocol::{self, ExpireOptions, SweepOptions};
use siltstone_format::options::Purpose;
use siltstone_store::{
    item::{Attr, Item, ItemCondition},
    mapping::{EventSourceMappings, MappingSettings, StartingPosition},
};

use crate::{
    compact,
    debt::{CompactTask, renew_task},
    driver::drive,
    error::{Result, TableError},
    name::TableRef,
    ports::Ports,
    settings::Feed,
    table::Table,
};

/// Sort key of the record of what the event source mapping was seen to be.
pub const MAPPING_ITEM: &str = "mapping";

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MaintainReport {
    /// Current snapshot; its publication was repaired where needed.
    pub snapshot: Option<i64>,
    /// Task objects put for buckets over the trigger.
    pub tasks: u64,
    /// Snapshots expired.
    pub expired: u64,
    /// Objects deleted by expiry.
    pub deleted: u64,
    /// Orphans found (a dry run) or deleted.
    pub orphans: u64,
    /// Bytes of them.
    pub orphan_bytes: u64,
    /// Slots freed.
    pub slots_freed: u64,
    /// What is wrong with the event source mapping.
    pub mapping_faults: Vec<String>,
    /// Tasks that failed, in words.
    pub failures: Vec<String>,
}

/// Which tasks to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaintainRequest {
    /// Expire snapshots.
    pub expire: bool,
    /// Look for orphans; deleted only without `dry_run`.
    pub sweep: bool,
    /// The sweep only counts.
    pub dry_run: bool,
}

/// Runs all tasks on one table.
///
/// # Errors
/// Only when the table cannot be opened; failures of single tasks stand in the report.
pub async fn run(
    table: &Table,
    mappings: Option<(&dyn EventSourceMappings, &str)>,
    request: &MaintainRequest,
) -> Result<MaintainReport> {
    let mut report = MaintainReport::default();
    let loaded = drive(protocol::load(&table.context, false), &table.ports, &table.at).await?;
    report.snapshot = loaded.snapshot.map(|s| s.id.0);
    let mut note = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            report.failures.push(format!("{what}: {error}"));
        }
    };
    let mut tasks = 0;
    note("plan", plan(table).await.map(|n| tasks = n));
    let mut expired = (0, 0);
    if request.expire && !table.options.write_only {
        note("expire", expire(table).await.map(|e| expired = (e.snapshots.len() as u64, e.keys.len() as u64)));
    }
    let mut orphans = (0, 0);
    if request.sweep {
        note("sweep", sweep(table, request.dry_run).await.map(|s| orphans = (s.keys.len() as u64, s.bytes)));
    }
    let mut slots = 0;
    note(
        "slots",
        drive(protocol::release_slots(&table.context), &table.ports, &table.at).await.map(|s| slots = s.len() as u64),
    );
    let mut faults = Vec::new();
    if let Some((mappings, function)) = mappings {
        note("mapping", check_mapping(&table.ports, &table.at, mappings, function).await.map(|f| faults = f));
    }
    Ok(MaintainReport {
        tasks,
        expired: expired.0,
        deleted: expired.1,
        orphans: orphans.0,
        orphan_bytes: orphans.1,
        slots_freed: slots,
        mapping_faults: faults,
        ..report
    })
}

/// Puts a task for every bucket at or over the trigger by its real manifests, over one that is there: its event may be lost.
///
/// # Errors
/// When manifests cannot be read or a task cannot be put.
pub async fn plan(table: &Table) -> Result<u64> {
    if !table.compacts_here() {
        return Ok(0);
    }
    let Some(snapshot) = table.current().await? else { return Ok(0) };
    let mut tasks = 0;
    for (partition, bucket, runs) in compact::buckets(table).await? {
        if runs >= table.options.compaction.trigger {
            let path = table.partition_path(&table.partition_values(&partition)?)?;
            renew_task(table, &path, &CompactTask::new(&table.at, &partition, bucket, snapshot.id, 0)).await?;
            tasks += 1;
        }
    }
    Ok(tasks)
}

/// Expires snapshots by the table's options.
///
/// # Errors
/// As the protocol; also when an option of the table leaves expiry to other engines.
pub async fn expire(table: &Table) -> Result<protocol::Expired> {
    table.options.check(&table.schema, Purpose::Expire)?;
    let options = ExpireOptions::from(&table.options.expiry);
    drive(protocol::expire(&table.context, options), &table.ports, &table.at).await
}

/// Names or deletes files that nothing refers to.
///
/// # Errors
/// As [`expire`].
pub async fn sweep(table: &Table, dry_run: bool) -> Result<protocol::Swept> {
    table.options.check(&table.schema, Purpose::Expire)?;
    let options = SweepOptions { dry_run, ..SweepOptions::default() };
    drive(protocol::sweep(&table.context, options), &table.ports, &table.at).await
}

/// What makes a mapping unsafe: late sub-batches would look like duplicates and be lost.
#[must_use]
pub fn mapping_faults(settings: &MappingSettings) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |bad: bool, fault: &str| {
        if bad {
            faults.push(fault.to_owned());
        }
    };
    check(
        settings.parallelization_factor.is_some_and(|n| n != 1),
        "ParallelizationFactor must be 1: batches of one shard must come one at a time",
    );
    check(
        settings.maximum_retry_attempts.is_some_and(|n| n != -1),
        "MaximumRetryAttempts must be -1: a batch that is given up is lost",
    );
    check(
        settings.maximum_record_age_seconds.is_some_and(|n| n != -1),
        "MaximumRecordAgeInSeconds must be -1: an old record that is given up is lost",
    );
    check(settings.filters > 0, "FilterCriteria must be empty: filtered records leave gaps that look like losses");
    check(settings.tumbling_window_seconds.is_some_and(|n| n != 0), "TumblingWindowInSeconds must be 0");
    check(
        settings.starting_position.is_some_and(|p| p != StartingPosition::TrimHorizon),
        "StartingPosition must be TRIM_HORIZON: records before the mapping's creation would be skipped",
    );
    faults
}

/// Reads the real event source mapping, records what was seen, and returns its faults. `ingest` fails closed while the record is
/// missing or has faults.
///
/// # Errors
/// When the control plane or the item store does not answer.
pub async fn check_mapping(
    ports: &Ports,
    at: &TableRef,
    mappings: &dyn EventSourceMappings,
    function: &str,
) -> Result<Vec<String>> {
    let feed = Feed::load(ports, at).await?;
    let seen = mappings
        .kinesis_mappings(function)
        .await
        .map_err(|e| TableError::Unavailable(format!("the event source mapping of {function} cannot be read: {e}")))?;
    let own: Vec<&MappingSettings> = seen.iter().filter(|m| m.stream_arn == feed.stream_arn).collect();
    let mut faults: Vec<String> = match own.as_slice() {
        [] => vec![format!("function {function} has no event source mapping for {}", feed.stream_arn)],
        [one] => mapping_faults(one),
        several => {
            vec![format!("function {function} has {} mappings for {}: keep one", several.len(), feed.stream_arn)]
        }
    };
    faults.sort();
    let text = serde_json::to_string(&faults).map_err(|e| TableError::Bug(e.to_string()))?;
    let item = Item::new(at.partition(), MAPPING_ITEM, 1)
        .with("checked", Attr::N(ports.clock.now_ms()))
        .with("faults", Attr::S(text))
        .with("stream", Attr::S(feed.stream_arn));
    ports.items.put(&item, ItemCondition::None).await?;
    Ok(faults)
}

/// Whether `ingest` may run: the recorded mapping of `stream_arn` is there and has no fault.
///
/// # Errors
/// [`TableError::Invalid`] in words for the operator; Kinesis keeps the records meanwhile.
pub async fn require_mapping(ports: &Ports, at: &TableRef, stream_arn: &str) -> Result<()> {
    let item = ports.items.get(&at.partition(), MAPPING_ITEM).await?;
    let refuse = |why: String| {
        Err(TableError::invalid(format!(
            "{}: {why}. Nothing is ingested until this is mended (Kinesis keeps the records); invoke `maintain` to check again",
            at.name
        )))
    };
    let Some(item) = item else { return refuse("the event source mapping was not checked yet".to_owned()) };
    let text = |name: &str| item.attributes.get(name).and_then(Attr::as_s).unwrap_or_default();
    if text("stream") != stream_arn {
        return refuse(format!("the checked mapping is of {}, not of {stream_arn}", text("stream")));
    }
    let faults: Vec<String> =
        serde_json::from_str(text("faults")).unwrap_or_else(|_| vec!["unreadable record".to_owned()]);
    if faults.is_empty() {
        Ok(())
    } else {
        refuse(format!("the event source mapping is unsafe: {}", faults.join("; ")))
    }
}
