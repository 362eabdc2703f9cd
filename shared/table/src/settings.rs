//! What a use-case is told by its caller: plain data, parsed and checked once at start.
//!
//! Neighbours: functions fill it from environment variables, `silt` from options. Components (stores, clock, ids) are in `ports`.

use siltstone_decode::DecoderConfig;
use siltstone_store::item::{Attr, Item, ItemCondition};

use crate::{
    error::{Result, TableError},
    name::{TableName, TableRef},
    ports::Ports,
};

/// Sort key of the item that says what feeds a table.
pub const FEED_ITEM: &str = "feed";

/// What feeds a table: kept as an item beside the pointer, so that every ingest function and `silt` agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// ARN of the Kinesis stream.
    pub stream_arn: String,
    /// How its records are decoded.
    pub decoder: DecoderConfig,
}

impl Feed {
    /// Reads a table's feed.
    ///
    /// # Errors
    /// [`TableError::NotFound`] when the table has none; [`TableError::Corrupt`] when it cannot be read.
    pub async fn load(ports: &Ports, at: &TableRef) -> Result<Self> {
        let item = ports.items.get(&at.partition(), FEED_ITEM).await?.ok_or_else(|| {
            TableError::NotFound(format!(
                "table {} has no stream: `silt table feed {} --stream NAME` sets one",
                at.name, at.name
            ))
        })?;
        let text = |name: &str| item.attributes.get(name).and_then(Attr::as_s).unwrap_or_default();
        let decoder = serde_json::from_str(text("decoder"))
            .map_err(|e| TableError::Corrupt(format!("the decoder configuration of {} is damaged: {e}", at.name)))?;
        Ok(Self { stream_arn: text("stream").to_owned(), decoder })
    }

    /// Writes a table's feed, replacing an older one.
    ///
    /// # Errors
    /// When the item store refuses or does not answer.
    pub async fn save(&self, ports: &Ports, at: &TableRef) -> Result<()> {
        let decoder = serde_json::to_string(&self.decoder).map_err(|e| TableError::Bug(e.to_string()))?;
        let item = Item::new(at.partition(), FEED_ITEM, 1)
            .with("stream", Attr::S(self.stream_arn.clone()))
            .with("decoder", Attr::S(decoder));
        Ok(ports.items.put(&item, ItemCondition::None).await?)
    }
}

/// How late a row may come and still meet every newer delete of its key, ms (rule 7).
pub const LATENESS_MS: i64 = 3_600_000;

/// Limits of one ingest invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Time kept back for the commit, ms: an invocation that has less left before it starts writing fails at once.
    pub reserve_ms: i64,
    /// Files uploaded side by side.
    pub parallel_uploads: usize,
    /// How long a warm function goes on with a schema and a feed before it asks for newer ones, ms.
    pub schema_interval_ms: i64,
    /// Rows older than this (ms) are counted as late: what compactions keep deletes for, so it is to be the same as theirs.
    pub lateness_ms: i64,
    /// How long a warm function trusts the recorded event source mapping before it looks again, ms; `None` asks for none.
    pub mapping_trusted_ms: Option<i64>,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            reserve_ms: 2_000,
            parallel_uploads: 8,
            schema_interval_ms: 10_000,
            lateness_ms: LATENESS_MS,
            mapping_trusted_ms: None,
        }
    }
}

/// Limits of one compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactLimits {
    /// Memory of the whole process in bytes (of the function, as Lambda counts it). Blocks, batches and row groups shrink with the number of runs
    /// that are merged at once; where the smallest do not fit, fewer runs are, in several passes.
    pub memory_bytes: u64,
    /// Time kept back for the commit, ms: when less is left, the job stops, gives up the group of files it is at, and commits what is done.
    pub reserve_ms: i64,
    /// Deletes younger than this stay (ms): a late redelivery of an older row must not bring the row back.
    pub lateness_ms: i64,
}

impl Default for CompactLimits {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, reserve_ms: 20_000, lateness_ms: LATENESS_MS }
    }
}

/// What every function is told by its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSettings {
    /// `SILTSTONE_BUCKET`
    pub bucket: String,
    /// `SILTSTONE_ITEMS_TABLE`
    pub items_table: String,
    /// `SILTSTONE_WAREHOUSE` and `SILTSTONE_TABLE`
    pub table: TableRef,
    /// `SILTSTONE_FUNCTION_INGEST`: the function whose event source mapping `maintain` checks.
    pub ingest_function: Option<String>,
    /// `SILTSTONE_REQUIRE_MAPPING`: `false` lets `ingest` run without a checked mapping (tests, one-off invocations).
    pub require_mapping: bool,
    /// `SILTSTONE_LATENESS_MS`: deletes younger than this survive compactions; rows older than this are counted as late.
    pub lateness_ms: i64,
    /// `SILTSTONE_SWEEP`: `delete` lets `maintain` delete orphans; otherwise it only counts them.
    pub sweep_deletes: bool,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`, MiB.
    pub memory_mb: u64,
}

impl FunctionSettings {
    /// Reads the settings through `lookup` (the environment).
    ///
    /// # Errors
    /// All faults together, one sentence each.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> std::result::Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut needed = |name: &str| match lookup(name).filter(|v| !v.is_empty()) {
            Some(value) => value,
            None => {
                faults.push(format!("{name} is not set"));
                String::new()
            }
        };
        let (bucket, table) = (needed("SILTSTONE_BUCKET"), needed("SILTSTONE_TABLE"));
        let items_table = lookup("SILTSTONE_ITEMS_TABLE").unwrap_or_else(|| "siltstone".to_owned());
        let warehouse = lookup("SILTSTONE_WAREHOUSE").unwrap_or_else(|| "warehouse".to_owned());
        let mut number = |name: &str, default: i64| match lookup(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| {
                faults.push(format!("{name} is `{text}`, not a whole number"));
                default
            }),
        };
        let lateness_ms = number("SILTSTONE_LATENESS_MS", LATENESS_MS).max(0);
        let memory_mb = u64::try_from(number("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 512)).unwrap_or(512);
        let name = match table.parse::<TableName>() {
            Ok(name) => Some(name),
            Err(_) if table.is_empty() => None,
            Err(error) => {
                faults.push(format!("SILTSTONE_TABLE: {error}"));
                None
            }
        };
        let sweep = lookup("SILTSTONE_SWEEP").unwrap_or_else(|| "dry-run".to_owned());
        if sweep != "delete" && sweep != "dry-run" {
            faults.push(format!("SILTSTONE_SWEEP is `{sweep}`: write `dry-run` or `delete`"));
        }
        match name {
            Some(name) if faults.is_empty() => Ok(Self {
                bucket,
                items_table,
                table: TableRef::new(&warehouse, name),
                ingest_function: lookup("SILTSTONE_FUNCTION_INGEST"),
                require_mapping: lookup("SILTSTONE_REQUIRE_MAPPING").is_none_or(|v| v != "false"),
                lateness_ms,
                sweep_deletes: sweep == "delete",
                memory_mb,
            }),
            _ => Err(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_of_the_environment_are_told_together() {
        let lookup = |name: &str| match name {
            "SILTSTONE_TABLE" => Some("no dot".to_owned()),
            "SILTSTONE_LATENESS_MS" => Some("soon".to_owned()),
            "SILTSTONE_SWEEP" => Some("yes".to_owned()),
            _ => None,
        };
        assert_eq!(FunctionSettings::read(lookup).unwrap_err().len(), 4);
    }

    #[test]
    fn defaults_fill_what_is_not_set() {
        let lookup = |name: &str| match name {
            "SILTSTONE_TABLE" => Some("demo.orders".to_owned()),
            "SILTSTONE_BUCKET" => Some("lake".to_owned()),
            _ => None,
        };
        let settings = FunctionSettings::read(lookup).unwrap();
        assert_eq!(settings.table.location(), "warehouse/demo.db/orders");
        assert!(settings.require_mapping && !settings.sweep_deletes);
    }
}
