//! Runs all maintenance tasks of a table.
//!
//! Neighbours: `siltstone_table::maintain`. Invariant: 1. a task that fails is reported, fails the invocation at the end, and stops no other.

use std::sync::Arc;

use serde::Deserialize;
use siltstone_store::{mapping::EventSourceMappings, meter::Meter};
use siltstone_table::{
    Authority, Ports, Purpose, Table, TableError,
    emf::{self, Metering, Metric},
    maintain::{self, MaintainReport, MaintainRequest},
    settings::FunctionSettings,
};

/// What an event may ask for. The schedule's asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct MaintainEvent {
    /// Sweep now, though it is not due: `{"sweep": true}`.
    #[serde(default)]
    pub sweep: bool,
}

/// A warm `maintain` function.
#[derive(Debug)]
pub struct Handler {
    ports: Ports,
    mappings: Option<Arc<dyn EventSourceMappings>>,
    settings: FunctionSettings,
    metering: Option<Metering>,
}

impl Handler {
    /// A handler over `ports`; `mappings` reads the real event source mapping.
    #[must_use]
    pub fn new(ports: Ports, mappings: Option<Arc<dyn EventSourceMappings>>, settings: FunctionSettings) -> Self {
        Self { ports, mappings, settings, metering: None }
    }

    /// Adds the requests that `meter` counts to the metrics.
    #[must_use]
    pub fn with_meter(self, meter: Arc<Meter>) -> Self {
        Self { metering: Some(Metering::new(meter)), ..self }
    }

    /// Handles one event; the invocation ends at `deadline_ms`.
    ///
    /// # Errors
    /// The failed tasks, in words; the others were done.
    pub async fn handle(
        &self,
        event: MaintainEvent,
        deadline_ms: i64,
        metrics: impl FnOnce(String),
    ) -> Result<MaintainReport, TableError> {
        let started = self.ports.clock.now_ms();
        // Opened as widely as can be: what an option leaves to other engines is refused task by task, and the mapping is checked for all.
        let table = Table::open(&self.ports, &self.settings.table, Authority::Pointer, Purpose::Read).await?;
        let request = MaintainRequest { sweep_now: event.sweep, dry_run: !self.settings.sweep_deletes, deadline_ms };
        let mapping = self.mappings.as_deref().zip(self.settings.ingest_function.as_deref());
        let report = maintain::run(&table, mapping, &request).await;
        let now = self.ports.clock.now_ms();
        let mut measured = measured(&report, now - started);
        measured.extend(self.metering.iter().flat_map(Metering::metrics));
        metrics(emf::document("maintain", &self.settings.table.name.to_string(), &measured, now));
        for fault in &report.mapping_faults {
            tracing::error!(table = %self.settings.table.name, fault, "the event source mapping is unsafe: ingest is stopped");
        }
        if !report.left.is_empty() {
            tracing::warn!(table = %self.settings.table.name, left = ?report.left, "time was over: the next run does these tasks; give `maintain` more");
        }
        if report.failures.is_empty() { Ok(report) } else { Err(TableError::Unavailable(report.failures.join("; "))) }
    }

    /// Handles an event given as JSON text; the report as JSON text.
    ///
    /// # Errors
    /// As [`Handler::handle`]; also for text that is no event.
    pub async fn handle_json(
        &self,
        payload: &[u8],
        deadline_ms: i64,
        metrics: impl FnOnce(String),
    ) -> Result<Vec<u8>, TableError> {
        let event: MaintainEvent = serde_json::from_slice(payload).map_err(|e| {
            TableError::Invalid(format!(
                "the payload is not an event: {e}; `maintain` takes a schedule's event, or `{{\"sweep\": true}}` to sweep at once"
            ))
        })?;
        let report = self.handle(event, deadline_ms, metrics).await?;
        serde_json::to_vec(&report).map_err(|e| TableError::Bug(e.to_string()))
    }
}

fn measured(report: &MaintainReport, ms: i64) -> Vec<Metric> {
    let mut metrics = vec![
        Metric::millis("Duration", u64::try_from(ms).unwrap_or(0)),
        Metric::count("Failed", u64::from(!report.failures.is_empty())),
        Metric::count("Left", report.left.len() as u64),
        Metric::count("Folded", report.folded),
        Metric::count("Tasks", report.tasks),
        Metric::count("ExpiredSnapshots", report.expired),
        Metric::count("DeletedObjects", report.deleted),
        Metric::count("MappingFaults", report.mapping_faults.len() as u64),
    ];
    if report.swept {
        metrics.extend([
            Metric::count("StaleTasks", report.stale_tasks),
            Metric::count("Orphans", report.orphans),
            Metric::bytes("OrphanBytes", report.orphan_bytes),
        ]);
    }
    metrics
}
