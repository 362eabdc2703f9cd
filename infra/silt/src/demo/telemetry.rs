//! What the functions say of themselves, added up: their metrics (EMF lines), as CloudWatch would.
//!
//! Neighbours: the host hands over every line a function prints; `view` shows the sums, the summary ends with them.
//! Invariant: 1. only metrics are counted, so a killed invocation counts for nothing, as on AWS.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use siltstone_local::{glue::process::Output, host::Role};
use siltstone_store::{Cost, Count, LIST_PRICES, RequestKind, Usage};

/// Log lines kept for a look after a failure.
const LOG_LINES: usize = 200;

/// Sums since the start.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) usage: Usage,
    pub(crate) ingest_batches: u64,
    pub(crate) records: u64,
    pub(crate) redelivered: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) compactions: u64,
    pub(crate) rows_compacted: u64,
    pub(crate) conflicts: u64,
    pub(crate) failed: u64,
    /// Of each committed batch: from the arrival of its oldest record to its commit, ms.
    pub(crate) freshness: Vec<u64>,
    /// What functions logged last.
    pub(crate) log: VecDeque<String>,
}

/// Shared sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct Telemetry(Arc<Mutex<Sums>>);

impl Telemetry {
    pub(crate) fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's sink.
    pub(crate) fn output(&self) -> Output {
        let telemetry = self.clone();
        Arc::new(move |line: &str| telemetry.take(line))
    }

    fn take(&self, line: &str) {
        let document = serde_json::from_str::<Value>(line).unwrap_or_default();
        let mut sums = self.sums();
        if document.get("_aws").is_none() {
            if sums.log.len() == LOG_LINES {
                sums.log.pop_front();
            }
            sums.log.push_back(line.to_owned());
            return;
        }
        let number = |name: &str| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "metrics are whole and not negative"
            )]
            let value = document.get(name).and_then(Value::as_f64).unwrap_or(0.0) as u64;
            value
        };
        let function = document.get("Function").and_then(Value::as_str).unwrap_or_default();
        let memory_mb = Role::of_name(function).map_or(0, Role::memory_mb);
        let mut used = Usage {
            read_units: number("DynamoReadUnits"),
            write_units: number("DynamoWriteUnits"),
            lambda_mb_ms: memory_mb * number("Duration"),
            ..Usage::default()
        };
        for (kind, requests) in [
            (RequestKind::S3Put, number("S3PutRequests")),
            (RequestKind::S3Get, number("S3GetRequests")),
            (RequestKind::DynamoWrite, number("DynamoRequests")),
            (RequestKind::LambdaInvoke, 1),
        ] {
            used.counts.insert(kind, Count { requests, ..Count::default() });
        }
        sums.usage.add(&used);
        sums.failed += number("Failed");
        match function {
            "ingest" if number("Failed") == 0 => {
                sums.ingest_batches += 1;
                sums.records += number("Records");
                sums.redelivered += number("Redelivered");
                sums.files += number("Files");
                sums.bytes += number("Bytes");
                if document.get("Freshness").is_some() {
                    sums.freshness.push(number("Freshness"));
                }
            }
            "compact" => {
                sums.compactions += number("Compacted");
                sums.rows_compacted += number("RowsIn");
                sums.conflicts += number("Conflicts");
            }
            _ => {}
        }
    }

    /// The last log lines, for standard error.
    pub(crate) fn tell_log(&self) {
        for line in &self.sums().log {
            drop(writeln!(std::io::stderr(), "{line}"));
        }
    }
}

impl Sums {
    /// The `per_mille` quantile of freshness, ms.
    pub(crate) fn freshness(&self, per_mille: usize) -> Option<u64> {
        let mut sorted = self.freshness.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * per_mille / 1000).min(sorted.len().checked_sub(1)?);
        sorted.get(place).copied()
    }

    /// What it cost at list prices, without the stream.
    pub(crate) fn cost(&self) -> Cost {
        Cost::of(&self.usage, &LIST_PRICES)
    }
}

#[cfg(test)]
mod tests {
    use siltstone_table::emf::{Metric, document};

    use super::*;

    #[test]
    fn metrics_are_added_up_and_logs_kept_apart() {
        let telemetry = Telemetry::default();
        for millis in [10, 30, 20] {
            let metrics = [
                Metric::count("Records", 5),
                Metric::count("Redelivered", 1),
                Metric::millis("Freshness", millis),
                Metric::count("S3PutRequests", 7),
                Metric::millis("Duration", 100),
            ];
            telemetry.take(&document("ingest", "demo.orders", &metrics, 0));
        }
        telemetry.take("plain words");
        let sums = telemetry.sums();
        assert_eq!((sums.records, sums.redelivered, sums.ingest_batches, sums.log.len()), (15, 3, 3, 1));
        assert_eq!((sums.freshness(500), sums.freshness(990)), (Some(20), Some(30)));
        assert_eq!(sums.usage.s3_put_class(), 21);
        assert_eq!(sums.usage.lambda_mb_ms, 3 * 100 * Role::Ingest.memory_mb());
    }
}
