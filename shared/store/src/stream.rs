//! The stream ports: a Kinesis data stream seen by its producers, its owner and its readers.
//! Above: `silt produce`, the local stack's mapping, tests. Below: `memory` and the Kinesis adapter.
//! Invariants: 1. a record goes to the one open shard whose hash range holds its hash key;
//! 2. sequence numbers of a shard strictly ascend as integers; 3. a child shard's records come after its closed parents'.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

/// Most records of one [`StreamWriter::put_records`] call, as Kinesis.
pub const PUT_RECORDS_MAX: usize = 500;

/// One record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRecord {
    /// The payload, at most 1 MiB unless the stream allows more.
    pub data: Bytes,
    /// 1 to 256 characters; its MD5 is the hash key unless one is given.
    pub partition_key: String,
    /// Hash key that decides the shard, instead of the partition key's MD5.
    pub explicit_hash_key: Option<u128>,
}

/// Where a record went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Shard id.
    pub shard: String,
    /// Sequence number, a decimal integer of up to 128 bits and more: compare as an integer.
    pub sequence: String,
}

/// Why one record of a batch was not written, though the call succeeded. Send it again, after the ones before it of the same key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record not written: {code}: {message}")]
pub struct PutFailure {
    /// As in `ProvisionedThroughputExceededException` or `InternalFailure`.
    pub code: String,
    /// The service's words.
    pub message: String,
}

/// State of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// Not usable yet.
    Creating,
    /// Usable.
    Active,
    /// Usable; a split, merge or retention change is in progress.
    Updating,
    /// Going away.
    Deleting,
}

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDescription {
    /// Name.
    pub name: String,
    /// Amazon resource name.
    pub arn: String,
    /// State.
    pub state: StreamState,
    /// How long records are kept.
    pub retention: Duration,
    /// Creation, milliseconds since 1970 UTC: tells a re-created stream of the same name.
    pub created_ms: i64,
    /// Largest record the stream takes, bytes; `None` if the service did not say (then 1 MiB).
    pub record_bytes_max: Option<u64>,
}

/// One shard, open or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// As in `shardId-000000000000`.
    pub id: String,
    /// The shard it was split from, or the first of the two it was merged from.
    pub parent: Option<String>,
    /// The second of the two it was merged from.
    pub adjacent_parent: Option<String>,
    /// First hash key of its range.
    pub hash_start: u128,
    /// Last hash key of its range, inclusive.
    pub hash_end: u128,
    /// No record has a smaller sequence number.
    pub first_sequence: String,
    /// `Some` once closed: no record has a larger sequence number.
    pub last_sequence: Option<String>,
}

impl Shard {
    /// True if it takes no more records.
    pub fn is_closed(&self) -> bool {
        self.last_sequence.is_some()
    }
}

/// Where reading a shard begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardStart {
    /// The oldest kept record.
    TrimHorizon,
    /// Only records written after the call.
    Latest,
    /// At this sequence number.
    AtSequence(String),
    /// After this sequence number.
    AfterSequence(String),
    /// The first record that arrived at or after this time, milliseconds since 1970 UTC.
    AtTimestamp(i64),
}

/// Opaque place in a shard. Valid for five minutes on Kinesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIterator(pub String);

/// One record read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Sequence number, as [`Put::sequence`].
    pub sequence: String,
    /// Payload.
    pub data: Bytes,
    /// As given by the producer.
    pub partition_key: String,
    /// Approximate arrival, milliseconds since 1970 UTC.
    pub arrival_ms: i64,
}

/// One answer of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// In order of their sequence numbers. May be empty though more follow.
    pub records: Vec<StreamRecord>,
    /// Where to go on; `None` at the end of a closed shard.
    pub next: Option<ShardIterator>,
    /// How far behind the tip of the shard, milliseconds.
    pub behind_ms: i64,
}

/// What a caller can do about a failed stream call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamErrorKind {
    /// No such stream or shard.
    NotFound,
    /// Throughput or request rate exceeded: wait and try again.
    Throttled,
    /// The iterator is older than five minutes: take a new one.
    ExpiredIterator,
    /// The stream exists already, is not active, or is at a limit.
    InUse,
    /// Time-out or lost connection: the call may have taken effect.
    Unknown,
    /// No permission.
    Denied,
    /// The request itself is wrong.
    Invalid,
    /// The service cannot answer now.
    Unavailable,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} stream {stream}: {kind:?} ({reason})")]
pub struct StreamError {
    /// What the caller can do about it.
    pub kind: StreamErrorKind,
    /// The method.
    pub operation: &'static str,
    /// The stream.
    pub stream: String,
    /// The text of the underlying error.
    pub reason: String,
}

impl StreamError {
    /// All fields at once.
    pub fn new(
        kind: StreamErrorKind,
        operation: &'static str,
        stream: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self { kind, operation, stream: stream.into(), reason: reason.into() }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> StreamErrorKind {
        self.kind
    }
}

/// Result of a stream call.
pub type StreamResult<T> = Result<T, StreamError>;

/// What producers do.
#[async_trait]
pub trait StreamWriter: Send + Sync + fmt::Debug {
    /// Writes 1 to [`PUT_RECORDS_MAX`] records, at most 5 MiB (10 MiB where the stream allows it). One result per record, in the same order: a success of the call
    /// may hold failures of records, and a later record may be written though an earlier one was not.
    /// After an error of kind `Unknown` any of them may have been written: sending again may double them.
    async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>>;
}

/// What a stream's owner does. Changes are asynchronous: poll [`StreamAdmin::describe`] until the state is active.
#[async_trait]
pub trait StreamAdmin: Send + Sync + fmt::Debug {
    /// Creates a provisioned stream with equal hash ranges. `InUse` if it exists.
    async fn create(&self, stream: &str, shards: u32) -> StreamResult<()>;
    /// Describes one stream. `NotFound` if there is none.
    async fn describe(&self, stream: &str) -> StreamResult<StreamDescription>;
    /// All shards, open and closed (while their records are kept), ascending by id.
    async fn list_shards(&self, stream: &str) -> StreamResult<Vec<Shard>>;
    /// Splits an open shard: the upper child starts at `hash_start`. Closes the shard.
    async fn split(&self, stream: &str, shard: &str, hash_start: u128) -> StreamResult<()>;
    /// Merges two open shards with adjacent ranges into one. Closes both.
    async fn merge(&self, stream: &str, shard: &str, adjacent: &str) -> StreamResult<()>;
    /// Deletes a stream with all records.
    async fn delete(&self, stream: &str) -> StreamResult<()>;
    /// Sets how long records are kept: whole hours, 24 to 8,760.
    async fn set_retention(&self, stream: &str, retention: Duration) -> StreamResult<()>;
}

/// What readers do.
#[async_trait]
pub trait StreamReader: Send + Sync + fmt::Debug {
    /// A place in a shard to read from.
    async fn iterator(&self, stream: &str, shard: &str, start: ShardStart) -> StreamResult<ShardIterator>;
    /// Reads at most `limit` (1 to 10,000) records and at most 10 MB. `stream` is for messages only.
    async fn get_records(&self, stream: &str, iterator: &ShardIterator, limit: u32) -> StreamResult<Records>;
}

#[async_trait]
impl<T: StreamWriter + ?Sized> StreamWriter for Arc<T> {
    async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>> {
        (**self).put_records(stream, records).await
    }
}

#[async_trait]
impl<T: StreamReader + ?Sized> StreamReader for Arc<T> {
    async fn iterator(&self, stream: &str, shard: &str, start: ShardStart) -> StreamResult<ShardIterator> {
        (**self).iterator(stream, shard, start).await
    }
    async fn get_records(&self, stream: &str, iterator: &ShardIterator, limit: u32) -> StreamResult<Records> {
        (**self).get_records(stream, iterator, limit).await
    }
}

#[async_trait]
impl<T: StreamAdmin + ?Sized> StreamAdmin for Arc<T> {
    async fn create(&self, stream: &str, shards: u32) -> StreamResult<()> {
        (**self).create(stream, shards).await
    }
    async fn describe(&self, stream: &str) -> StreamResult<StreamDescription> {
        (**self).describe(stream).await
    }
    async fn list_shards(&self, stream: &str) -> StreamResult<Vec<Shard>> {
        (**self).list_shards(stream).await
    }
    async fn split(&self, stream: &str, shard: &str, hash_start: u128) -> StreamResult<()> {
        (**self).split(stream, shard, hash_start).await
    }
    async fn merge(&self, stream: &str, shard: &str, adjacent: &str) -> StreamResult<()> {
        (**self).merge(stream, shard, adjacent).await
    }
    async fn delete(&self, stream: &str) -> StreamResult<()> {
        (**self).delete(stream).await
    }
    async fn set_retention(&self, stream: &str, retention: Duration) -> StreamResult<()> {
        (**self).set_retention(stream, retention).await
    }
}
