//! Runs all maintenance tasks of a table, whatever the schedule's event says.
//!
//! Neighbours: `siltstone_table::maintain`. Invariant: 1. a task that fails is reported, fails the invocation at the end, and stops no other.

use std::sync::Arc;

use siltstone_store::{mapping::EventSourceMappings, meter::Meter};
use siltstone_table::{
    Authority, Ports, Purpose, Table, TableError,
    emf::{self, Metering, Metric},
    maintain::{self, MaintainReport, MaintainRequest},
    settings::FunctionSettings,
};

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

    /// Handles one event of the schedule.
    ///
    /// # Errors
    /// The failed tasks, in words; the others were done.
    pub async fn handle(&self, metrics: impl FnOnce(String)) -> Result<MaintainReport, TableError> {
        let started = self.ports.clock.now_ms();
        // Opened as widely as can be: what an option leaves to other engines is refused task by task, and the mapping is checked for all.
        let table = Table::open(&self.ports, &self.settings.table, Authority::Pointer, Purpose::Read).await?;
        let request = MaintainRequest { expire: true, sweep: true, dry_run: !self.settings.sweep_deletes };
        let mapping = self.mappings.as_deref().zip(self.settings.ingest_function.as_deref());
        let result = maintain::run(&table, mapping, &request).await;
        let now = self.ports.clock.now_ms();
        let report = result.as_ref().ok();
        let mut measured = measured(report, now - started);
        measured.extend(self.metering.iter().flat_map(Metering::metrics));
        metrics(emf::document("maintain", &self.settings.table.name.to_string(), &measured, now));
        let report = result?;
        for fault in &report.mapping_faults {
            tracing::error!(table = %self.settings.table.name, fault, "the event source mapping is unsafe: ingest is stopped");
        }
        if report.failures.is_empty() { Ok(report) } else { Err(TableError::Unavailable(report.failures.join("; "))) }
    }

    /// As [`Handler::handle`], with the report as JSON text.
    ///
    /// # Errors
    /// As [`Handler::handle`].
    pub async fn handle_json(&self, metrics: impl FnOnce(String)) -> Result<Vec<u8>, TableError> {
        let report = self.handle(metrics).await?;
        serde_json::to_vec(&report).map_err(|e| TableError::Bug(e.to_string()))
    }
}

fn measured(report: Option<&MaintainReport>, ms: i64) -> Vec<Metric> {
    let mut metrics = vec![
        Metric::millis("Duration", u64::try_from(ms).unwrap_or(0)),
        Metric::count("Failed", u64::from(report.is_none_or(|r| !r.failures.is_empty()))),
    ];
    if let Some(report) = report {
        metrics.extend([
            Metric::count("Tasks", report.tasks),
            Metric::count("ExpiredSnapshots", report.expired),
            Metric::count("DeletedObjects", report.deleted),
            Metric::count("Orphans", report.orphans),
            Metric::bytes("OrphanBytes", report.orphan_bytes),
            Metric::count("MappingFaults", report.mapping_faults.len() as u64),
        ]);
    }
    metrics
}
