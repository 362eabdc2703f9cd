//! Data streams in memory, with shards, splits and merges. Neighbours: `stream` (the ports), `contract::stream` (what it must satisfy).
//! Invariants: 1. open shards of a stream partition the 128-bit hash space; 2. sequence numbers ascend over the whole stream, have 56
//! digits as Kinesis', and do not repeat when a stream is deleted and made again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use md5::{Digest, Md5};

use super::lock;
use crate::{
    clock::{Clock, SystemClock},
    stream::{
        PUT_RECORDS_MAX, Put, PutFailure, PutRecord, Records, Shard, ShardIterator, ShardStart, StreamAdmin,
        StreamDescription, StreamError, StreamErrorKind, StreamReader, StreamRecord, StreamResult, StreamState,
        StreamWriter,
    },
};

const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 3_600);
const READ_BYTES_MAX: usize = 10 << 20;
const RECORD_BYTES_MAX: usize = 1 << 20;

/// All streams of one account, in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryStreams {
    clock: Arc<dyn Clock>,
    streams: Arc<Mutex<BTreeMap<String, Stream>>>,
    next_sequence: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Stream {
    created_ms: i64,
    retention: Duration,
    shards: Vec<MemoryShard>,
}

#[derive(Debug)]
struct MemoryShard {
    shard: Shard,
    records: Vec<StreamRecord>,
}

impl Default for MemoryStreams {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStreams {
    /// No streams, dated by the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// No streams, dated by a given clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, streams: Arc::default(), next_sequence: Arc::new(AtomicU64::new(1)) }
    }

    fn sequence(&self) -> String {
        format!("49600{:051}", self.next_sequence.fetch_add(1, Ordering::SeqCst))
    }

    fn with<T>(
        &self,
        operation: &'static str,
        name: &str,
        f: impl FnOnce(&mut Stream) -> StreamResult<T>,
    ) -> StreamResult<T> {
        match lock(&self.streams).get_mut(name) {
            Some(stream) => f(stream),
            None => Err(StreamError::new(StreamErrorKind::NotFound, operation, name, "no such stream")),
        }
    }

    fn child(&self, stream: &mut Stream, range: (u128, u128), parent: Option<String>, adjacent_parent: Option<String>) {
        let id = format!("shardId-{:012}", stream.shards.len());
        let shard = Shard {
            id,
            parent,
            adjacent_parent,
            hash_start: range.0,
            hash_end: range.1,
            first_sequence: self.sequence(),
            last_sequence: None,
        };
        stream.shards.push(MemoryShard { shard, records: Vec::new() });
    }

    fn write(&self, stream: &mut Stream, record: &PutRecord) -> Result<Put, PutFailure> {
        let hash = record.explicit_hash_key.unwrap_or_else(|| partition_hash(&record.partition_key));
        let target = stream
            .shards
            .iter_mut()
            .find(|s| !s.shard.is_closed() && (s.shard.hash_start..=s.shard.hash_end).contains(&hash));
        let Some(target) = target else {
            return Err(PutFailure { code: "InternalFailure".into(), message: "no open shard holds the hash".into() });
        };
        let sequence = self.sequence();
        target.records.push(StreamRecord {
            sequence: sequence.clone(),
            data: record.data.clone(),
            partition_key: record.partition_key.clone(),
            arrival_ms: self.clock.now_ms(),
        });
        Ok(Put { shard: target.shard.id.clone(), sequence })
    }
}

/// MD5 of the partition key, as an integer.
fn partition_hash(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

impl Stream {
    fn shard(&mut self, operation: &'static str, name: &str, id: &str) -> StreamResult<&mut MemoryShard> {
        self.shards
            .iter_mut()
            .find(|s| s.shard.id == id)
            .ok_or_else(|| StreamError::new(StreamErrorKind::NotFound, operation, name, format!("no such shard {id}")))
    }

    fn open_shard(&mut self, operation: &'static str, name: &str, id: &str) -> StreamResult<&mut MemoryShard> {
        let shard = self.shard(operation, name, id)?;
        if shard.shard.is_closed() {
            return Err(invalid(operation, name, format!("shard {id} is closed")));
        }
        Ok(shard)
    }
}

fn invalid(operation: &'static str, name: &str, reason: impl Into<String>) -> StreamError {
    StreamError::new(StreamErrorKind::Invalid, operation, name, reason)
}

#[async_trait]
impl StreamWriter for MemoryStreams {
    async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>> {
        if records.is_empty() || records.len() > PUT_RECORDS_MAX {
            return Err(invalid("put_records", stream, format!("{} records, 1 to 500 fit", records.len())));
        }
        for record in records {
            if record.partition_key.is_empty() || record.partition_key.chars().count() > 256 {
                return Err(invalid("put_records", stream, "a partition key has 1 to 256 characters"));
            }
            if record.data.len() + record.partition_key.len() > RECORD_BYTES_MAX {
                return Err(invalid("put_records", stream, "a record has more than 1 MiB"));
            }
        }
        self.with("put_records", stream, |s| Ok(records.iter().map(|r| self.write(s, r)).collect()))
    }
}

#[async_trait]
impl StreamAdmin for MemoryStreams {
    async fn create(&self, stream: &str, shards: u32) -> StreamResult<()> {
        if shards == 0 || stream.is_empty() {
            return Err(invalid("create", stream, "a name and at least one shard are needed"));
        }
        let mut streams = lock(&self.streams);
        if streams.contains_key(stream) {
            return Err(StreamError::new(StreamErrorKind::InUse, "create", stream, "the stream exists"));
        }
        let mut new = Stream { created_ms: self.clock.now_ms(), retention: DEFAULT_RETENTION, shards: Vec::new() };
        let width = u128::MAX / u128::from(shards);
        for n in 0..u128::from(shards) {
            let end = if n + 1 == u128::from(shards) { u128::MAX } else { (n + 1) * width - 1 };
            self.child(&mut new, (n * width, end), None, None);
        }
        streams.insert(stream.to_owned(), new);
        Ok(())
    }

    async fn describe(&self, stream: &str) -> StreamResult<StreamDescription> {
        self.with("describe", stream, |s| {
            Ok(StreamDescription {
                name: stream.to_owned(),
                arn: format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}"),
                state: StreamState::Active,
                retention: s.retention,
                created_ms: s.created_ms,
                record_bytes_max: None,
            })
        })
    }

    async fn list_shards(&self, stream: &str) -> StreamResult<Vec<Shard>> {
        self.with("list_shards", stream, |s| Ok(s.shards.iter().map(|m| m.shard.clone()).collect()))
    }

    async fn split(&self, stream: &str, shard: &str, hash_start: u128) -> StreamResult<()> {
        self.with("split", stream, |s| {
            let last = self.sequence();
            let parent = s.open_shard("split", stream, shard)?;
            let (start, end) = (parent.shard.hash_start, parent.shard.hash_end);
            if hash_start <= start || hash_start > end {
                return Err(invalid("split", stream, format!("{hash_start} does not split {start}..={end}")));
            }
            parent.shard.last_sequence = Some(last);
            self.child(s, (start, hash_start - 1), Some(shard.to_owned()), None);
            self.child(s, (hash_start, end), Some(shard.to_owned()), None);
            Ok(())
        })
    }

    async fn merge(&self, stream: &str, shard: &str, adjacent: &str) -> StreamResult<()> {
        self.with("merge", stream, |s| {
            let a = s.open_shard("merge", stream, shard)?.shard.clone();
            let b = s.open_shard("merge", stream, adjacent)?.shard.clone();
            let touch =
                a.hash_end.checked_add(1) == Some(b.hash_start) || b.hash_end.checked_add(1) == Some(a.hash_start);
            if !touch {
                return Err(invalid("merge", stream, format!("shards {shard} and {adjacent} are not adjacent")));
            }
            for id in [shard, adjacent] {
                let last = self.sequence();
                s.open_shard("merge", stream, id)?.shard.last_sequence = Some(last);
            }
            let range = (a.hash_start.min(b.hash_start), a.hash_end.max(b.hash_end));
            self.child(s, range, Some(shard.to_owned()), Some(adjacent.to_owned()));
            Ok(())
        })
    }

    async fn delete(&self, stream: &str) -> StreamResult<()> {
        match lock(&self.streams).remove(stream) {
            Some(_) => Ok(()),
            None => Err(StreamError::new(StreamErrorKind::NotFound, "delete", stream, "no such stream")),
        }
    }

    async fn set_retention(&self, stream: &str, retention: Duration) -> StreamResult<()> {
        let hours = retention.as_secs() / 3_600;
        if !retention.as_secs().is_multiple_of(3_600) || !(24..=8_760).contains(&hours) {
            return Err(invalid("set_retention", stream, "retention is 24 to 8760 whole hours"));
        }
        self.with("set_retention", stream, |s| {
            s.retention = retention;
            Ok(())
        })
    }
}

#[async_trait]
impl StreamReader for MemoryStreams {
    async fn iterator(&self, stream: &str, shard: &str, start: ShardStart) -> StreamResult<ShardIterator> {
        self.with("iterator", stream, |s| {
            let records = &s.shard("iterator", stream, shard)?.records;
            let position = match start {
                ShardStart::TrimHorizon => 0,
                ShardStart::Latest => records.len(),
                // All sequence numbers have 56 digits, so their text sorts as they do.
                ShardStart::AtSequence(n) => records.partition_point(|r| r.sequence < n),
                ShardStart::AfterSequence(n) => records.partition_point(|r| r.sequence <= n),
                ShardStart::AtTimestamp(ms) => records.partition_point(|r| r.arrival_ms < ms),
            };
            Ok(ShardIterator(format!("{position}:{shard}:{stream}")))
        })
    }

    async fn get_records(&self, stream: &str, iterator: &ShardIterator, limit: u32) -> StreamResult<Records> {
        if !(1..=10_000).contains(&limit) {
            return Err(invalid("get_records", stream, "limit is 1 to 10000"));
        }
        let mut fields = iterator.0.splitn(3, ':');
        let (position, shard, name) =
            match (fields.next().and_then(|p| p.parse::<usize>().ok()), fields.next(), fields.next()) {
                (Some(position), Some(shard), Some(name)) => (position, shard, name),
                _ => return Err(invalid("get_records", stream, "not an iterator of this store")),
            };
        let now_ms = self.clock.now_ms();
        self.with("get_records", name, |s| {
            let shard_now = s.shard("get_records", name, shard)?;
            let rest = shard_now.records.get(position..).unwrap_or_default();
            let mut bytes = 0;
            let records: Vec<StreamRecord> = rest
                .iter()
                .take(limit as usize)
                .take_while(|r| {
                    bytes += r.data.len();
                    bytes <= READ_BYTES_MAX
                })
                .cloned()
                .collect();
            let behind_ms = rest.get(records.len()).map_or(0, |r| (now_ms - r.arrival_ms).max(1));
            let ended = shard_now.shard.is_closed() && records.len() == rest.len();
            let next = (!ended).then(|| ShardIterator(format!("{}:{shard}:{name}", position + records.len())));
            Ok(Records { records, next, behind_ms })
        })
    }
}
