//! What goes wrong on purpose: `ingest` killed between commit and publication, shards split and merged, malformed records.
//!
//! Neighbours: `demo` calls these by its plan; the stack's gate stops a request exactly where it is wanted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use siltstone_local::{
    GateDecision, S3,
    host::{Hosted, Role},
};
use siltstone_store::stream::{Shard, StreamAdmin, StreamState};

use crate::failure::Failure;

/// How long a kill waits for a commit to happen.
const CATCH: Duration = Duration::from_secs(5);

/// Records that no decoder takes, each bad in its own way.
pub(crate) const MALFORMED: [&[u8]; 8] = [
    b"\xff\xfe not text",
    b"{\"op\":\"c\",\"after\":",
    b"[1,2,3]",
    br#"{"op":"c","after":{"o_custkey":1}}"#,
    br#"{"op":"c","after":{"o_orderkey":"seven"}}"#,
    br#"{"op":"c","after":{"o_orderkey":99999999999999999999}}"#,
    br#"{"op":"c","after":{"o_orderkey":-7,"o_totalprice":"12345678901234.56"}}"#,
    br#"{"op":"z","after":{"o_orderkey":-7}}"#,
];

/// Stops the next publication (the put of a snapshot) of the table and kills whoever works on it, `SIGKILL` and all: the commit is done, its
/// snapshot is not on S3, and Lambda never hears of success. True if there was one to kill.
pub(crate) async fn kill_before_publication(s3: &S3, hosted: &Hosted) -> bool {
    let (caught, snapshots) =
        (Arc::new(AtomicBool::new(false)), format!("{}/snapshot/snapshot-", hosted.at.location()));
    let hit = caught.clone();
    s3.set_gate(Some(Arc::new(move |method: &str, _bucket: &str, key: &str| {
        if method == "PUT" && key.starts_with(&snapshots) && !hit.swap(true, Ordering::SeqCst) {
            GateDecision::Hang
        } else {
            GateDecision::Pass
        }
    })));
    let waiting = async {
        while !caught.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let stopped = tokio::time::timeout(CATCH, waiting).await.is_ok();
    if stopped {
        hosted.runner(Role::Ingest).kill_running();
        hosted.runner(Role::Compact).kill_running();
    }
    s3.set_gate(None);
    stopped
}

/// Waits until a stream takes changes.
async fn active(streams: &dyn StreamAdmin, stream: &str) -> Result<(), Failure> {
    while streams.describe(stream).await?.state != StreamState::Active {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn open_shards(streams: &dyn StreamAdmin, stream: &str) -> Result<Vec<Shard>, Failure> {
    let mut shards = streams.list_shards(stream).await?;
    shards.retain(|s| !s.is_closed());
    shards.sort_by_key(|s| s.hash_start);
    Ok(shards)
}

/// Splits the first open shard in the middle.
pub(crate) async fn split(streams: &dyn StreamAdmin, stream: &str) -> Result<String, Failure> {
    active(streams, stream).await?;
    let shards = open_shards(streams, stream).await?;
    let first = shards.first().ok_or_else(|| Failure::Problem("the stream has no open shard".to_owned()))?;
    let middle = first.hash_start + (first.hash_end - first.hash_start) / 2 + 1;
    streams.split(stream, &first.id, middle).await?;
    active(streams, stream).await?;
    Ok(format!("shard {} split in two", short(&first.id)))
}

/// Merges the first two open shards.
pub(crate) async fn merge(streams: &dyn StreamAdmin, stream: &str) -> Result<String, Failure> {
    active(streams, stream).await?;
    let shards = open_shards(streams, stream).await?;
    let [first, second, ..] = shards.as_slice() else {
        return Err(Failure::Problem("the stream has only one open shard".to_owned()));
    };
    streams.merge(stream, &first.id, &second.id).await?;
    active(streams, stream).await?;
    Ok(format!("shards {} and {} merged", short(&first.id), short(&second.id)))
}

fn short(shard: &str) -> &str {
    shard.trim_start_matches("shardId-").trim_start_matches('0').get(..).filter(|s| !s.is_empty()).unwrap_or("0")
}
