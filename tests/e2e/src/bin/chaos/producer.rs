//! Puts the load into the stream, splits and merges its shards, and tells the oracle what the stream took.
//!
//! Neighbours: `source` makes records, `drive` holds what is shared. Invariants: 1. no call is under way when the stack is killed, so the oracle
//! knows of each record whether the stream has it; 2. a record that was refused is put again before any later one of its key; 3. the stream is
//! ahead of what was read back by a bounded number of records.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use siltstone_store::{
    Clock, SystemClock,
    stream::{PutRecord, Shard, StreamAdmin, StreamError, StreamErrorKind, StreamState, StreamWriter},
};

use crate::{
    drive::Shared,
    source::{Changes, Oracle, Record},
};

/// Name of the stream.
pub(crate) const STREAM: &str = "changes";
/// Open shards at the start.
pub(crate) const SHARDS: u32 = 6;
/// From two to twelve: of so many shards, one more is made.
const SHARDS_WANTED: std::ops::Range<usize> = 2..12;
const CALL: usize = 500;
const RESHARD_MS: std::ops::Range<u64> = 4_000..12_000;
/// Records ahead of what was read back, in seconds of the rate.
const AHEAD_SECONDS: u64 = 20;
const WAIT: Duration = Duration::from_millis(10);

/// How much, how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) records: u64,
    pub(crate) rate: u64,
}

/// Produces until the time is over or the records are put; what the table must hold then.
pub(crate) async fn produce(shared: &Shared, load: Load) -> Result<Oracle, String> {
    let (mut changes, mut oracle) = (Changes::new(load.seed), Oracle::default());
    let mut rng = SmallRng::seed_from_u64(!load.seed);
    let (began, mut reshard_at) = (Instant::now(), Duration::ZERO);
    loop {
        let (elapsed, produced) = (began.elapsed(), oracle.changes + oracle.malformed);
        if elapsed >= load.time || produced >= load.records {
            return Ok(oracle);
        }
        if elapsed >= reshard_at {
            reshard(shared, &mut rng).await?;
            reshard_at = elapsed + Duration::from_millis(rng.random_range(RESHARD_MS));
        }
        let due = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(load.rate) / 1_000;
        let ahead = oracle.changes.saturating_sub(shared.witnessed.load(Ordering::Relaxed));
        if produced > due || ahead > load.rate * AHEAD_SECONDS {
            SystemClock.sleep(WAIT).await;
            continue;
        }
        put(shared, changes.call(CALL), &mut oracle).await?;
        shared.produced.store(oracle.changes + oracle.malformed, Ordering::Relaxed);
    }
}

/// Puts the records of one call; those that are refused again.
async fn put(shared: &Shared, mut records: Vec<Record>, oracle: &mut Oracle) -> Result<(), String> {
    while !records.is_empty() {
        let entry = |record: &Record| PutRecord {
            data: record.payload().into(),
            partition_key: record.partition_key(),
            explicit_hash_key: None,
        };
        let entries: Vec<PutRecord> = records.iter().map(entry).collect();
        let up = shared.up.lock().await;
        let answer = shared.streams.put_records(STREAM, &entries).await;
        drop(up);
        let refused = match answer {
            Ok(results) => {
                let (taken, refused): (Vec<_>, Vec<_>) = records.into_iter().zip(results).partition(|(_, r)| r.is_ok());
                taken.iter().for_each(|(record, _)| oracle.apply(record));
                refused.into_iter().map(|(record, _)| record).collect()
            }
            Err(error) if passes(&error) => records,
            Err(error) => return Err(format!("the stream may or may not have taken records: {error}")),
        };
        records = refused;
        if !records.is_empty() {
            SystemClock.sleep(WAIT * 5).await;
        }
    }
    Ok(())
}

/// Nothing was written, and it may be tried again.
fn passes(error: &StreamError) -> bool {
    matches!(error.kind(), StreamErrorKind::Throttled | StreamErrorKind::Unavailable)
}

/// Splits a shard in the middle, or merges two neighbours.
async fn reshard(shared: &Shared, rng: &mut SmallRng) -> Result<(), String> {
    let _up = shared.up.lock().await;
    let words = |e: StreamError| format!("shards cannot be changed: {e}");
    let streams = &shared.streams;
    let mut shards = streams.list_shards(STREAM).await.map_err(words)?;
    shards.retain(|shard| !shard.is_closed());
    shards.sort_by_key(|shard| shard.hash_start);
    // The fewer there are, the more likely one more; never less nor more than wanted.
    if rng.random_range(SHARDS_WANTED) >= shards.len() {
        let Some(Shard { id, hash_start, hash_end, .. }) = shards.choose(rng) else { return Ok(()) };
        streams.split(STREAM, id, hash_start + (hash_end - hash_start) / 2 + 1).await.map_err(words)?;
        shared.splits.fetch_add(1, Ordering::Relaxed);
    } else {
        let pairs: Vec<_> = shards.windows(2).collect();
        let Some([one, other]) = pairs.choose(rng) else { return Ok(()) };
        streams.merge(STREAM, &one.id, &other.id).await.map_err(words)?;
        shared.merges.fetch_add(1, Ordering::Relaxed);
    }
    while streams.describe(STREAM).await.map_err(words)?.state != StreamState::Active {
        SystemClock.sleep(WAIT).await;
    }
    shared.shards.store(shards.len() as u64, Ordering::Relaxed);
    Ok(())
}
