//! Decode, call, encode. Generic over the ports, so it runs alike in Lambda, in the local stack and in tests.
//!
//! Neighbours: `event`, `siltstone_table::ingest`. Invariant: 1. an error fails the invocation: nothing is acknowledged and Kinesis redelivers.

use std::sync::Arc;

use siltstone_store::{meter::Meter, stream::StreamAdmin};
use siltstone_table::{
    ErrorKind, Ports, TableError,
    emf::{self, Metering, Metric},
    ingest::{Ingest, IngestReport},
    settings::{FunctionSettings, IngestLimits},
};

use crate::event::{BatchResponse, KinesisEvent};

/// The recorded event source mapping is looked at again after this long, ms.
const MAPPING_TRUSTED_MS: i64 = 600_000;

/// A warm `ingest` function.
#[derive(Debug)]
pub struct Handler {
    ports: Ports,
    ingest: Ingest,
    settings: FunctionSettings,
    metering: Option<Metering>,
}

impl Handler {
    /// A handler over `ports`; `streams` finds the parents of new shards.
    #[must_use]
    pub fn new(ports: Ports, streams: Option<Arc<dyn StreamAdmin>>, settings: FunctionSettings) -> Self {
        let mapping_trusted_ms = settings.require_mapping.then_some(MAPPING_TRUSTED_MS);
        let limits = IngestLimits { lateness_ms: settings.lateness_ms, mapping_trusted_ms, ..IngestLimits::default() };
        let ingest = Ingest::new(ports.clone(), settings.table.clone(), streams, limits);
        Self { ports, ingest, settings, metering: None }
    }

    /// Adds the requests that `meter` counts to the metrics.
    #[must_use]
    pub fn with_meter(self, meter: Arc<Meter>) -> Self {
        Self { metering: Some(Metering::new(meter)), ..self }
    }

    /// Handles one event; the invocation ends at `deadline_ms`. Metrics go to `metrics`, one line.
    ///
    /// # Errors
    /// As the use-case: the invocation fails and nothing is acknowledged.
    pub async fn handle(
        &self,
        event: KinesisEvent,
        deadline_ms: i64,
        metrics: impl FnOnce(String),
    ) -> Result<BatchResponse, TableError> {
        let started = self.ports.clock.now_ms();
        let Some(batch) = event.into_batch()? else { return Ok(BatchResponse::default()) };
        let result = self.ingest.handle(&batch, deadline_ms).await;
        let now = self.ports.clock.now_ms();
        let forked = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Forked);
        let report = result.as_ref().ok();
        let mut measured = measured(report, forked, started, now);
        measured.extend(self.metering.iter().flat_map(Metering::metrics));
        metrics(emf::document("ingest", &self.settings.table.name.to_string(), &measured, now));
        let report = result?;
        tracing::info!(
            shard = batch.shard,
            records = report.records,
            redelivered = report.redelivered,
            changes = report.changes,
            files = report.files,
            snapshot = report.snapshot,
            ms = now - started,
            "batch committed"
        );
        Ok(BatchResponse::default())
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
        let event: KinesisEvent = serde_json::from_slice(payload)
            .map_err(|e| {
                TableError::Invalid(format!(
                    "the payload is not a Kinesis event: {e}; `ingest` is for an event source mapping, or a file like events/ingest-normal.json"
                ))
            })?;
        let response = self.handle(event, deadline_ms, metrics).await?;
        serde_json::to_vec(&response).map_err(|e| TableError::Bug(e.to_string()))
    }
}

fn measured(report: Option<&IngestReport>, forked: bool, started: i64, now: i64) -> Vec<Metric> {
    let millis = |ms: i64| u64::try_from(ms).unwrap_or(0);
    let mut metrics = vec![
        Metric::millis("Duration", millis(now - started)),
        Metric::count("Failed", u64::from(report.is_none())),
        Metric::count("Forked", u64::from(forked)),
    ];
    if let Some(report) = report {
        metrics.extend([
            Metric::count("Records", report.records),
            Metric::count("Redelivered", report.redelivered),
            Metric::count("Changes", report.changes),
            Metric::count("Late", report.late),
            Metric::count("UnreadFields", report.unread_fields),
            Metric::count("Ignored", report.ignored.values().sum()),
            Metric::count("Quarantined", report.quarantined.values().sum()),
            Metric::count("Files", report.files),
            Metric::bytes("Bytes", report.bytes),
            Metric::count("Buckets", report.buckets),
            Metric::count("Tasks", report.tasks),
            Metric::count("Replans", report.replans),
            Metric::count("Staged", u64::from(report.staged)),
            Metric::count("Folded", report.folded),
        ]);
        if let Some(oldest) = report.oldest_arrival_ms {
            metrics.push(Metric::millis("Freshness", millis(now - oldest)));
        }
    }
    metrics
}
