//! The event source mapping of Lambda: batches of each shard in order, one at a time, again until they succeed, parents before children.
//!
//! Neighbours: `run` starts an invocation for each batch and says how it ended. Invariants: 1. a record is passed over only after a batch
//! that held it was acknowledged; 2. a batch that failed comes again from the same record on: as it was, halved, or cut anew.

use futures::FutureExt;
use siltstone_commit::testing::Random;
use siltstone_store::{
    memory::MemoryStreams,
    stream::{Shard, ShardStart, StreamAdmin, StreamReader, StreamRecord},
};
use siltstone_table::ingest::{StreamBatch, StreamRecord as Delivered};

/// One shard as the mapping sees it.
#[derive(Debug)]
struct Reading {
    shard: Shard,
    records: Vec<StreamRecord>,
    /// Records that were acknowledged.
    done: usize,
    /// Records of the batch that has to come again.
    again: Option<usize>,
    busy: bool,
    not_before_ms: i64,
}

/// The mapping.
#[derive(Debug)]
pub struct Mapping {
    arn: String,
    stream: String,
    shards: Vec<Reading>,
}

/// A batch that was handed out.
#[derive(Debug, Clone)]
pub struct Handed {
    /// The shard's place in the mapping.
    pub shard: usize,
    /// Records.
    pub count: usize,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a stream in memory never waits")
}

fn parents(reading: &Reading) -> impl Iterator<Item = &String> {
    reading.shard.parent.iter().chain(&reading.shard.adjacent_parent)
}

impl Mapping {
    /// Reads a stream from its beginning.
    #[must_use]
    pub fn new(arn: &str) -> Self {
        let stream = arn.rsplit('/').next().unwrap_or(arn).to_owned();
        Self { arn: arn.to_owned(), stream, shards: Vec::new() }
    }

    /// Takes in what is new in the stream.
    pub fn refresh(&mut self, streams: &MemoryStreams) {
        for shard in now(streams.list_shards(&self.stream)).unwrap_or_default() {
            match self.shards.iter_mut().find(|reading| reading.shard.id == shard.id) {
                Some(known) => known.shard = shard,
                None => self.shards.push(Reading {
                    shard,
                    records: Vec::new(),
                    done: 0,
                    again: None,
                    busy: false,
                    not_before_ms: 0,
                }),
            }
        }
        for reading in &mut self.shards {
            let start = match reading.records.last() {
                Some(last) => ShardStart::AfterSequence(last.sequence.clone()),
                None => ShardStart::TrimHorizon,
            };
            let iterator = now(streams.iterator(&self.stream, &reading.shard.id, start));
            let read = iterator.and_then(|iterator| now(streams.get_records(&self.stream, &iterator, 10_000)));
            reading.records.extend(read.map(|read| read.records).unwrap_or_default());
        }
    }

    /// Read to its end, which begins once its parents are: a shard that never had a record ends no sooner than they do.
    fn ended(&self, id: &str) -> bool {
        let found = self.shards.iter().find(|reading| reading.shard.id == id);
        found.is_none_or(|r| {
            r.shard.is_closed() && r.done == r.records.len() && !r.busy && parents(r).all(|parent| self.ended(parent))
        })
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.shards.iter().all(|reading| reading.done == reading.records.len() && !reading.busy)
    }

    /// Shards that a batch could be taken from at a time.
    #[must_use]
    pub fn ready(&self, now_ms: i64) -> Vec<usize> {
        let ready = |reading: &Reading| {
            !reading.busy
                && reading.done < reading.records.len()
                && now_ms >= reading.not_before_ms
                && parents(reading).all(|parent| self.ended(parent))
        };
        self.shards.iter().enumerate().filter(|(_, reading)| ready(reading)).map(|(place, _)| place).collect()
    }

    /// When a failed batch comes again at the earliest.
    #[must_use]
    pub fn next_ms(&self) -> Option<i64> {
        let waiting = self.shards.iter().filter(|r| !r.busy && r.done < r.records.len());
        waiting.map(|reading| reading.not_before_ms).min()
    }

    /// Hands out the next batch of a shard.
    pub fn take(&mut self, shard: usize, batch_max: u64, r: &mut Random) -> Option<(Handed, StreamBatch)> {
        let reading = self.shards.get_mut(shard)?;
        let fresh = usize::try_from(1 + r.below(batch_max)).unwrap_or(1);
        let rest = reading.records.get(reading.done..)?;
        let count = reading.again.unwrap_or(fresh).min(rest.len());
        let records = rest.iter().take(count).map(|record| Delivered {
            sequence: record.sequence.clone(),
            arrival_ms: record.arrival_ms,
            partition_key: record.partition_key.clone(),
            data: record.data.clone(),
        });
        let batch =
            StreamBatch { stream_arn: self.arn.clone(), shard: reading.shard.id.clone(), records: records.collect() };
        reading.busy = true;
        reading.again = Some(count);
        Some((Handed { shard, count }, batch))
    }

    /// The batch was acknowledged. Now and then the mapping forgets it, and some before it: delivery is at least once.
    pub fn succeeded(&mut self, handed: &Handed, r: &mut Random) {
        let Some(reading) = self.shards.get_mut(handed.shard) else { return };
        reading.busy = false;
        reading.again = None;
        reading.done += handed.count;
        if r.per_mille(40) {
            let back = usize::try_from(1 + r.below(12)).unwrap_or(1);
            reading.done = reading.done.saturating_sub(back);
        }
    }

    /// The batch failed: it comes again as it was, halved, or cut anew.
    pub fn failed(&mut self, handed: &Handed, now_ms: i64, r: &mut Random) {
        let Some(reading) = self.shards.get_mut(handed.shard) else { return };
        reading.busy = false;
        reading.not_before_ms = now_ms + i64::try_from(r.below(3_000)).unwrap_or(0);
        reading.again = match r.below(4) {
            0 | 1 => Some(handed.count),
            2 => Some(handed.count.div_ceil(2)),
            _ => None,
        };
    }

    /// Shards that take records.
    #[must_use]
    pub fn open_shards(&self) -> Vec<Shard> {
        self.shards.iter().map(|reading| reading.shard.clone()).filter(|shard| !shard.is_closed()).collect()
    }
}
