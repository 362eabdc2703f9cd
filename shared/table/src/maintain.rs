//! What the schedule does: check the event source mapping, repair publication, plan missed compactions, expire, free slots; once a day, sweep.
//!
//! Neighbours: the `maintain` function and `silt expire`; the protocols are `commit`'s. Invariants: 1. each task is independent: one that fails
//! is reported and does not stop the others; 2. every task may run at any time, any number of times, beside any other; 3. no task begins when
//! time is over, and those left are named; 4. an idle table costs a run no listing of its files.

use std::future::Future;

use serde::{Deserialize, Serialize};
use siltstone_commit::protocol::{self, ExpireOptions, SweepOptions};
use siltstone_format::options::Purpose;
use siltstone_store::{
    item::{Attr, Item, ItemCondition},
    mapping::{EventSourceMappings, MappingSettings, StartingPosition},
};

use crate::{
    compact,
    debt::{self, CompactTask, renew_task},
    driver::drive,
    error::{Result, TableError},
    name::TableRef,
    ports::Ports,
    settings::Feed,
    table::Table,
};

/// Sort key of the record of what the event source mapping was seen to be.
pub const MAPPING_ITEM: &str = "mapping";
/// A check of the mapping says nothing any more after this time: `maintain` runs every few minutes, unless it is disabled or may not look.
const MAPPING_STALE_MS: i64 = 86_400_000;
/// Sort key of the item that says when the next sweep is due.
pub const SWEEP_ITEM: &str = "sweep";
/// A sweep lists all of a table's objects, and an orphan is at least a day old: one a day is enough.
const SWEEP_EVERY_MS: i64 = 86_400_000;
/// A sweep that failed, or whose function was stopped, is tried again after this long.
const SWEEP_AGAIN_MS: i64 = 3_600_000;
/// Retries of an event end after six hours: nobody comes any more for a task object of this age.
const TASK_AGE_MS: i64 = 86_400_000;
/// With less time left, ms, no task begins.
const TASK_MS: i64 = 10_000;

/// What one run did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MaintainReport {
    /// Current snapshot; its publication was repaired where needed.
    pub snapshot: Option<i64>,
    /// Staged changes of dead writers, committed.
    pub folded: u64,
    /// Task objects put for buckets over the trigger.
    pub tasks: u64,
    /// Snapshots expired.
    pub expired: u64,
    /// Objects deleted by expiry.
    pub deleted: u64,
    /// Whether this run swept: once a day, or as it was told to.
    pub swept: bool,
    /// Task objects removed that nobody came for.
    pub stale_tasks: u64,
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
    /// Tasks that were not begun because time was over.
    pub left: Vec<String>,
}

/// How to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaintainRequest {
    /// Sweep now, though it is not due.
    pub sweep_now: bool,
    /// The sweep only counts orphans.
    pub dry_run: bool,
    /// When time is over, ms since 1970.
    pub deadline_ms: i64,
}

/// Runs all tasks on one table. What fails, and what time did not suffice for, stands in the report.
///
/// The mapping is first, since `ingest` stands still until it is checked; the sweep, which may take long, is last.
pub async fn run(
    table: &Table,
    mappings: Option<(&dyn EventSourceMappings, &str)>,
    request: &MaintainRequest,
) -> MaintainReport {
    let mut run = Run { table, deadline_ms: request.deadline_ms, report: MaintainReport::default() };
    if let Some((mappings, function)) = mappings {
        let check = check_mapping(&table.ports, &table.at, mappings, function);
        run.task("mapping", check, |report, faults| report.mapping_faults = faults).await;
    }
    let load = drive(protocol::load(&table.context, false), &table.ports, &table.at);
    run.task("publication", load, |report, loaded| report.snapshot = loaded.snapshot.map(|s| s.id.0)).await;
    run.task("fold", fold(table), |report, folded| report.folded = folded).await;
    run.task("plan", plan(table), |report, tasks| report.tasks = tasks).await;
    if !table.options.write_only {
        run.task("expire", expire(table), |report, expired| {
            report.expired = expired.snapshots.len() as u64;
            report.deleted = expired.keys.len() as u64;
        })
        .await;
    }
    let slots = drive(protocol::release_slots(&table.context), &table.ports, &table.at);
    run.task("slots", slots, |report, freed| report.slots_freed = freed.len() as u64).await;
    run.task("sweep", sweep_if_due(table, request), |report, found| {
        if let Some((stale_tasks, swept)) = found {
            report.swept = true;
            report.stale_tasks = stale_tasks;
            report.orphans = swept.keys.len() as u64;
            report.orphan_bytes = swept.bytes;
        }
    })
    .await;
    run.report
}

/// A run on its way.
struct Run<'a> {
    table: &'a Table,
    deadline_ms: i64,
    report: MaintainReport,
}

impl Run<'_> {
    /// Runs a task unless time is over, and notes what it found.
    async fn task<T>(
        &mut self,
        name: &str,
        task: impl Future<Output = Result<T>>,
        note: impl FnOnce(&mut MaintainReport, T),
    ) {
        if self.table.ports.clock.now_ms().saturating_add(TASK_MS) > self.deadline_ms {
            self.report.left.push(name.to_owned());
            return;
        }
        match task.await {
            Ok(found) => note(&mut self.report, found),
            Err(error) => self.report.failures.push(format!("{name}: {error}")),
        }
    }
}

/// Commits and answers what writers have staged and left: those whose invocation died or ran out of time. Returns how many changes it was.
///
/// # Errors
/// As the protocol.
pub async fn fold(table: &Table) -> Result<u64> {
    let folds = drive(protocol::fold_staged(&table.context), &table.ports, &table.at).await?;
    debt::add(table, &folds.runs, i64::MAX).await;
    Ok(folds.folded)
}

/// Puts a task for every bucket in which a compaction would find work by its real manifests, over one that is there: its event may be lost. Nobody
/// else asks for what is due by time or size, below the trigger.
///
/// # Errors
/// When manifests cannot be read or a task cannot be put.
pub async fn plan(table: &Table) -> Result<u64> {
    if !table.compacts_here() {
        return Ok(0);
    }
    let Some(snapshot) = table.current().await? else { return Ok(0) };
    let mut tasks = 0;
    for (partition, bucket) in compact::due(table, &snapshot).await? {
        let path = table.partition_path(&table.partition_values(&partition)?)?;
        renew_task(table, &path, &CompactTask::new(&table.at, &partition, bucket, snapshot.id, 0)).await?;
        tasks += 1;
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

/// Sweeps, and removes task objects that nobody came for, once a day or as told; how many those were, and what was swept.
async fn sweep_if_due(table: &Table, request: &MaintainRequest) -> Result<Option<(u64, protocol::Swept)>> {
    let now = table.ports.clock.now_ms();
    let item = table.ports.items.get(&table.at.partition(), SWEEP_ITEM).await?;
    let due = item.and_then(|item| item.attributes.get("due")?.as_n()).unwrap_or(0);
    if now < due && !request.sweep_now {
        return Ok(None);
    }
    // Before it begins: one that takes more time than there is must not begin again with each run.
    set_sweep_due(table, now + SWEEP_AGAIN_MS).await?;
    let stale = debt::remove_tasks(table, now - TASK_AGE_MS).await?;
    let swept = sweep(table, request.dry_run).await?;
    set_sweep_due(table, now + SWEEP_EVERY_MS).await?;
    Ok(Some((stale, swept)))
}

async fn set_sweep_due(table: &Table, due_ms: i64) -> Result<()> {
    let item = Item::new(table.at.partition(), SWEEP_ITEM, 1).with("due", Attr::N(due_ms));
    Ok(table.ports.items.put(&item, ItemCondition::None).await?)
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

/// Whether `ingest` may run: the recorded mapping of `stream_arn` is there, was checked within a day, and has no fault.
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
    let checked = item.attributes.get("checked").and_then(Attr::as_n).unwrap_or(0);
    let age_ms = ports.clock.now_ms().saturating_sub(checked);
    if age_ms >= MAPPING_STALE_MS {
        return refuse(format!(
            "the event source mapping was last checked {} hours ago: see whether `maintain` runs and may list mappings",
            age_ms / 3_600_000
        ));
    }
    let faults: Vec<String> =
        serde_json::from_str(text("faults")).unwrap_or_else(|_| vec!["unreadable record".to_owned()]);
    if faults.is_empty() {
        Ok(())
    } else {
        refuse(format!("the event source mapping is unsafe: {}", faults.join("; ")))
    }
}
