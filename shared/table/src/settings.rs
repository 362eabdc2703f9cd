//! What a use-case is told by its caller: plain data, parsed and checked once at start.
//!
//! Neighbours: functions fill it from environment variables, `silt` from options. Components (stores, clock, ids) are in `ports`.

use siltstone_decode::DecoderConfig;
use siltstone_store::item::{Attr, Item, ItemCondition};

use crate::{
    error::{Result, TableError},
    name::TableRef,
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
            TableError::NotFound(format!("table {} has no stream: set one with `silt table create --stream`", at.name))
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

/// Limits of one ingest invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Time kept back for the commit, ms: an invocation that has less left before it starts writing fails at once.
    pub reserve_ms: i64,
    /// Files uploaded side by side.
    pub parallel_uploads: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self { reserve_ms: 2_000, parallel_uploads: 8 }
    }
}

/// Limits of one compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactLimits {
    /// Memory of the merge in bytes: open blocks, pages and the row group being written.
    pub memory_bytes: u64,
    /// Time kept back for the commit, ms: when less is left, the job stops between two sections and commits what is done.
    pub reserve_ms: i64,
    /// Deletes younger than this stay (ms): a late redelivery of an older row must not bring the row back.
    pub lateness_ms: i64,
}

impl Default for CompactLimits {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, reserve_ms: 20_000, lateness_ms: 3_600_000 }
    }
}
