//! CloudWatch metrics in embedded metric format: one JSON line on standard output, no API call, nothing else to run.
//!
//! Neighbours: the three functions print a document per invocation. Dimensions are bounded by construction: the table and the
//! function, nothing that grows with data. Format: CloudWatch "Embedded metric format specification", version 0.
//! Invariants: 1. at most 100 metrics and 30 dimensions a document; 2. no record contents, keys or positions.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use siltstone_store::meter::{Meter, Usage};

/// Units that CloudWatch knows and Siltstone uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Bytes => "Bytes",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Name, `UpperCamelCase`.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// Value.
    pub value: f64,
}

impl Metric {
    /// A count of things.
    #[must_use]
    pub fn count(name: &'static str, value: u64) -> Self {
        Self::of(name, Unit::Count, value)
    }

    /// A number of bytes.
    #[must_use]
    pub fn bytes(name: &'static str, value: u64) -> Self {
        Self::of(name, Unit::Bytes, value)
    }

    /// A duration in ms.
    #[must_use]
    pub fn millis(name: &'static str, value: u64) -> Self {
        Self::of(name, Unit::Milliseconds, value)
    }

    fn of(name: &'static str, unit: Unit, value: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "metrics are charted, 53 bits are plenty")]
        Self { name, unit, value: value as f64 }
    }
}

/// Requests of one process as metrics: what was used since the last document, so that the sum over all documents is exact.
#[derive(Debug)]
pub struct Metering {
    meter: Arc<Meter>,
    told: Mutex<Usage>,
}

impl Metering {
    /// Metrics of `meter`, from now on.
    #[must_use]
    pub fn new(meter: Arc<Meter>) -> Self {
        let told = Mutex::new(meter.snapshot());
        Self { meter, told }
    }

    /// What was used since the last call.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let now = self.meter.snapshot();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let used = now.since(&told);
        *told = now;
        let mut metrics = vec![
            Metric::count("S3PutRequests", used.s3_put_class()),
            Metric::count("S3GetRequests", used.s3_get_class()),
            Metric::count("DynamoRequests", used.dynamo()),
            Metric::count("DynamoReadUnits", used.read_units),
            Metric::count("DynamoWriteUnits", used.write_units),
        ];
        // Rare, and CloudWatch bills a metric by the hours in which it has values.
        if used.kinesis() > 0 {
            metrics.push(Metric::count("KinesisRequests", used.kinesis()));
        }
        metrics
    }
}

/// The namespace of all of Siltstone's metrics.
pub const NAMESPACE: &str = "Siltstone";

/// The document for one invocation of `function` on `table`.
#[must_use]
pub fn document(function: &str, table: &str, metrics: &[Metric], now_ms: i64) -> String {
    let definitions: Vec<Value> =
        metrics.iter().take(100).map(|m| json!({"Name": m.name, "Unit": m.unit.name()})).collect();
    let mut root = Map::new();
    root.insert(
        "_aws".to_owned(),
        json!({"Timestamp": now_ms, "CloudWatchMetrics": [{
            "Namespace": NAMESPACE, "Dimensions": [["Function", "Table"]], "Metrics": definitions}]}),
    );
    root.insert("Function".to_owned(), json!(function));
    root.insert("Table".to_owned(), json!(table));
    for metric in metrics.iter().take(100) {
        root.insert(metric.name.to_owned(), json!(metric.value));
    }
    Value::Object(root).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_declared_with_its_unit_and_given_a_value() {
        let line = document("ingest", "demo.orders", &[Metric::count("Records", 3), Metric::bytes("Bytes", 9)], 17);
        let parsed: Value = serde_json::from_str(&line).unwrap();
        let declared = &parsed["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(declared["Namespace"], "Siltstone");
        assert_eq!(declared["Metrics"][1], json!({"Name": "Bytes", "Unit": "Bytes"}));
        assert_eq!((parsed["Records"].as_f64(), parsed["Bytes"].as_f64()), (Some(3.0), Some(9.0)));
        assert_eq!(declared["Dimensions"], json!([["Function", "Table"]]));
        assert!(!line.contains('\n'));
    }
}
