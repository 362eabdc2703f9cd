//! Reads task objects, compacts their buckets, removes finished tasks.
//!
//! Neighbours: `event`, `siltstone_table::{compact, debt}`. One compactor per bucket by a lease with expiry: for thrift only, the commit's checks
//! are what makes it safe. Invariants: 1. duplicates and any order of events are harmless; 2. a task is removed only after its bucket was
//! compacted or needed nothing; 3. an unfinished job puts the next task itself, with a hop count.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use siltstone_store::{
    item::{Attr, Item, ItemCondition, ItemError},
    meter::Meter,
    object::ObjectErrorKind,
};
use siltstone_table::{
    Authority, Ports, Purpose, Table, TableError,
    compact::{self, CompactReport, CompactRequest, Compacted},
    debt::{CompactTask, HOPS_MAX, put_task},
    emf::{self, Metering, Metric},
    settings::{CompactLimits, FunctionSettings},
};

use crate::event::S3Event;

/// A lease that is not renewed is taken over after this long, ms: so long a bucket waits after its compactor died.
const LEASE_MS: i64 = 15_000;
/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// What an invocation did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompactSummary {
    /// Buckets compacted.
    pub compacted: u64,
    /// Tasks whose bucket needed nothing.
    pub nothing: u64,
    /// Tasks whose object was gone (a duplicate event).
    pub gone: u64,
    /// Tasks whose bucket another invocation is compacting.
    pub leased: u64,
    /// Compactions that lost a race; a later event or the schedule does them.
    pub conflicts: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

/// A warm `compact` function.
#[derive(Debug)]
pub struct Handler {
    ports: Ports,
    settings: FunctionSettings,
    metering: Option<Metering>,
    limits: CompactLimits,
}

impl Handler {
    /// A handler over `ports`.
    #[must_use]
    pub fn new(ports: Ports, settings: FunctionSettings) -> Self {
        let limits = CompactLimits {
            memory_bytes: settings.memory_mb << 20,
            lateness_ms: settings.lateness_ms,
            ..CompactLimits::default()
        };
        Self { ports, settings, metering: None, limits }
    }

    /// Adds the requests that `meter` counts to the metrics.
    #[must_use]
    pub fn with_meter(self, meter: Arc<Meter>) -> Self {
        Self { metering: Some(Metering::new(meter)), ..self }
    }

    /// Handles one event.
    ///
    /// # Errors
    /// When a service does not answer or an object is damaged: Lambda delivers the event again, twice, then to the on-failure destination.
    pub async fn handle(
        &self,
        event: S3Event,
        deadline_ms: i64,
        metrics: impl FnOnce(String),
    ) -> Result<CompactSummary, TableError> {
        let started = self.ports.clock.now_ms();
        let mut summary = CompactSummary::default();
        let mut result = Ok(());
        for record in event.records {
            let key = record.key();
            if record.s3.bucket.name != self.settings.bucket {
                let other = record.s3.bucket.name;
                result = Err(TableError::Invalid(format!(
                    "event of bucket {other}, this function serves {}: point that bucket's notification at the function of its own table",
                    self.settings.bucket
                )));
                break;
            }
            if let Err(error) = self.task(&key, deadline_ms, &mut summary).await {
                result = Err(error);
                break;
            }
        }
        let now = self.ports.clock.now_ms();
        let mut measured = measured(&summary, result.is_err(), now - started);
        measured.extend(self.metering.iter().flat_map(Metering::metrics));
        metrics(emf::document("compact", &self.settings.table.name.to_string(), &measured, now));
        result.map(|()| summary)
    }

    /// Handles an event given as JSON text.
    ///
    /// # Errors
    /// As [`Handler::handle`]; also for text that is not an event.
    pub async fn handle_json(
        &self,
        payload: &[u8],
        deadline_ms: i64,
        metrics: impl FnOnce(String),
    ) -> Result<Vec<u8>, TableError> {
        let event: S3Event = serde_json::from_slice(payload)
            .map_err(|e| {
                TableError::Invalid(format!(
                    "the payload is not an S3 event: {e}; `compact` is for S3 notifications of task objects, or a file like events/compact-task.json"
                ))
            })?;
        let summary = self.handle(event, deadline_ms, metrics).await?;
        serde_json::to_vec(&summary).map_err(|e| TableError::Bug(e.to_string()))
    }

    async fn task(&self, key: &str, deadline_ms: i64, summary: &mut CompactSummary) -> Result<(), TableError> {
        let object = match self.ports.objects.get(key).await {
            Ok(object) => object,
            Err(error) if error.kind() == ObjectErrorKind::NotFound => {
                summary.gone += 1;
                return Ok(());
            }
            Err(error) => return Err((*error).into()),
        };
        let task = CompactTask::parse(key, &object.bytes)?;
        let at = task.table_ref()?;
        if at != self.settings.table {
            return Err(TableError::Invalid(format!(
                "task {key} is for {} ({}), this function serves {} ({}): let the notification's prefix end at the table's own tasks",
                at.name,
                at.location(),
                self.settings.table.name,
                self.settings.table.location()
            )));
        }
        let table = Table::open(&self.ports, &at, Authority::Pointer, Purpose::Compact).await?;
        let partition = task.partition_row()?;
        let values = table.partition_values(&partition).map_err(|e| {
            TableError::Invalid(format!(
                "task {key}: its partition is not one of {}: {e}; delete the object, `maintain` plans again what is due",
                at.name
            ))
        })?;
        let path = table.partition_path(&values)?;
        let lease = format!("lease#{path}/bucket-{}", task.bucket);
        let Some(held) = self.take_lease(&table, &lease).await?.map(AtomicU64::new) else {
            summary.leased += 1;
            return Ok(());
        };
        let bucket = siltstone_format::id::Bucket(task.bucket);
        let working =
            compact::compact_bucket(&table, &partition, bucket, CompactRequest::Picked, &self.limits, deadline_ms);
        let result = tokio::select! {
            result = working => result,
            never = self.keep_lease(&table, &lease, &held) => match never {},
        };
        self.free_lease(&table, &lease, held.into_inner()).await;
        match result? {
            Compacted::Nothing => summary.nothing += 1,
            Compacted::Done(report) => {
                count(summary, &report);
                if !report.complete && task.hops < HOPS_MAX {
                    let next = CompactTask { hops: task.hops + 1, ..task.clone() };
                    put_task(&table, &path, &next).await?;
                }
            }
            Compacted::Conflict(reason) => {
                tracing::info!(table = %at.name, bucket = task.bucket, reason, "compaction lost a race");
                summary.conflicts += 1;
                return Ok(());
            }
        }
        self.ports.objects.delete(&[key.to_owned()]).await.map_err(|e| (*e).into())
    }

    /// Takes the bucket's lease if it is free or has run out; its revision then.
    async fn take_lease(&self, table: &Table, sort: &str) -> Result<Option<u64>, TableError> {
        let now = self.ports.clock.now_ms();
        let partition = table.at.partition();
        let (rev, condition) = match self.ports.items.get(&partition, sort).await? {
            None => (1, ItemCondition::Absent),
            Some(item) => {
                let until = item.attributes.get("until").and_then(Attr::as_n).unwrap_or(0);
                if until > now {
                    return Ok(None);
                }
                (item.rev + 1, ItemCondition::RevIs(item.rev))
            }
        };
        let item = Item::new(partition, sort, rev).with("until", Attr::N(now + LEASE_MS));
        match self.ports.items.put(&item, condition).await {
            Ok(()) => Ok(Some(rev)),
            Err(ItemError::ConditionFailed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Renews the lease for as long as it is polled. One that was taken over is let go: the commit's checks decide between the two.
    async fn keep_lease(&self, table: &Table, sort: &str, held: &AtomicU64) -> Infallible {
        loop {
            self.ports.clock.sleep(RENEW_EVERY).await;
            let until = self.ports.clock.now_ms() + LEASE_MS;
            let rev = held.load(Ordering::Relaxed);
            let item = Item::new(table.at.partition(), sort, rev + 1).with("until", Attr::N(until));
            match self.ports.items.put(&item, ItemCondition::RevIs(rev)).await {
                Ok(()) => held.store(rev + 1, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, sort, "a lease was not renewed"),
            }
        }
    }

    /// Frees the lease, unless somebody has taken it over.
    async fn free_lease(&self, table: &Table, sort: &str, rev: u64) {
        let freed = self.ports.items.delete(&table.at.partition(), sort, ItemCondition::RevIs(rev)).await;
        if let Err(error) = freed {
            tracing::warn!(%error, sort, "a lease was not freed; it runs out by itself");
        }
    }
}

fn count(summary: &mut CompactSummary, report: &CompactReport) {
    summary.compacted += 1;
    summary.rows_in += report.rows_in;
    summary.rows_out += report.rows_out;
    summary.bytes_in += report.bytes_in;
    summary.bytes_out += report.bytes_out;
}

fn measured(summary: &CompactSummary, failed: bool, ms: i64) -> Vec<Metric> {
    vec![
        Metric::millis("Duration", u64::try_from(ms).unwrap_or(0)),
        Metric::count("Failed", u64::from(failed)),
        Metric::count("Compacted", summary.compacted),
        Metric::count("Conflicts", summary.conflicts),
        Metric::count("RowsIn", summary.rows_in),
        Metric::count("RowsOut", summary.rows_out),
        Metric::bytes("BytesIn", summary.bytes_in),
        Metric::bytes("BytesOut", summary.bytes_out),
    ]
}
