//! What of a stream is not in its table yet, shard by shard.
//!
//! Neighbours: `silt drain` waits until nothing is. Reads one record of each shard at most, and takes none: the event source mapping goes on.
//! Invariant: 1. a shard counts as drained only if the stream itself says that nothing follows the table's checkpoint.

use siltstone_commit::checkpoint::{Lookup, ShardId};
use siltstone_store::stream::{Records, ShardStart, StreamAdmin, StreamError, StreamReader, StreamResult};

use crate::{
    error::{Result, TableError},
    quarantine::checkpoints,
    table::Table,
};

/// Empty pages of a shard that are followed before it is asked again later.
const EMPTY_PAGES_MAX: u32 = 20;

/// A shard with records that the table does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardBacklog {
    /// Its id.
    pub shard: String,
    /// How far the table's checkpoint is behind the shard's tip, ms.
    pub behind_ms: i64,
}

/// The shards of `stream` with records above the table's checkpoints.
///
/// # Errors
/// When the stream or the table cannot be read.
pub async fn backlog(
    table: &Table,
    streams: &(impl StreamAdmin + StreamReader),
    stream: &str,
) -> Result<Vec<ShardBacklog>> {
    let told = |e: StreamError| TableError::Unavailable(format!("stream {stream} cannot be read: {e}"));
    let checkpoints = checkpoints(table).await?;
    let mut behind = Vec::new();
    for shard in streams.list_shards(stream).await.map_err(told)? {
        let start = match checkpoints.get(&ShardId::new(&shard.id)?) {
            Lookup::Found(checkpoint) => {
                ShardStart::AfterSequence(checkpoint.position.with_sub_sequence(0).to_string())
            }
            Lookup::Absent | Lookup::NotLoaded => ShardStart::TrimHorizon,
        };
        let first = first_page(streams, stream, &shard.id, start).await.map_err(told)?;
        if !first.records.is_empty() || (first.next.is_some() && first.behind_ms > 0) {
            behind.push(ShardBacklog { shard: shard.id, behind_ms: first.behind_ms });
        }
    }
    Ok(behind)
}

/// The first page with a record, or the last that was looked at.
async fn first_page(
    streams: &impl StreamReader,
    stream: &str,
    shard: &str,
    start: ShardStart,
) -> StreamResult<Records> {
    let mut iterator = streams.iterator(stream, shard, start).await?;
    let mut page = streams.get_records(stream, &iterator, 1).await?;
    for _ in 0..EMPTY_PAGES_MAX {
        match page.next.take_if(|_| page.records.is_empty() && page.behind_ms > 0) {
            Some(next) => iterator = next,
            None => break,
        }
        page = streams.get_records(stream, &iterator, 1).await?;
    }
    Ok(page)
}
