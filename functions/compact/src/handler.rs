//! Works off the task objects that an event names, and says what became of them.
//!
//! Neighbours: `event`, `siltstone_table::task` (all rules). Invariant: 1. an error fails the invocation, so that the event is delivered again.

use std::sync::Arc;

use serde::Serialize;
use siltstone_store::meter::Meter;
use siltstone_table::{
    Ports, TableError,
    emf::{self, Metering, Metric},
    settings::{CompactLimits, FunctionSettings},
    task::{self, Fate},
};

use crate::event::S3Event;

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
            match task::work_off(&self.ports, &self.settings.table, &key, &self.limits, deadline_ms).await {
                Ok(fate) => {
                    tracing::info!(task = key, ?fate, "a task was worked off");
                    summary.count(&fate);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
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
}

impl CompactSummary {
    fn count(&mut self, fate: &Fate) {
        match fate {
            Fate::Gone => self.gone += 1,
            Fate::Leased => self.leased += 1,
            Fate::Nothing => self.nothing += 1,
            Fate::Conflict(_) => self.conflicts += 1,
            Fate::Done(report) => {
                self.compacted += 1;
                self.rows_in += report.rows_in;
                self.rows_out += report.rows_out;
                self.bytes_in += report.bytes_in;
                self.bytes_out += report.bytes_out;
            }
        }
    }
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
