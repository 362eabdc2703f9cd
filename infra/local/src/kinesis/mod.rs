//! Kinesis on loopback, and the same streams for pollers in this process.
//! Neighbours: `stack` (starts it), the glue (reads by the handle). Inside: `http`, `api`, `state` (pure), `db`.
//! Invariants: 1. what is answered is in the file before; 2. a change that cannot be kept is undone in memory too; 3. who waits on
//! `changes` before reading misses nothing.

mod api;
mod db;
mod http;
mod state;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde_json::Value;
use siltstone_store::{Clock, SystemClock};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};

use crate::StackError;
use state::{Answer, Refusal, Sequence, Streams, refuse};

/// One shard, open or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// As in `shardId-000000000000`.
    pub id: String,
    /// None, the split shard, or the two merged ones.
    pub parents: Vec<String>,
    /// Takes no more records.
    pub closed: bool,
    /// The first hash that it covers.
    pub start_hash: u128,
    /// The last hash that it covers.
    pub end_hash: u128,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    /// 56 digits; their text sorts as they do.
    pub sequence: String,
    /// As it was put.
    pub partition_key: String,
    /// As it was put.
    pub data: Bytes,
    /// Milliseconds since 1970.
    pub arrival_ms: i64,
}

/// What a read found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadResult {
    /// In order.
    pub records: Vec<Rec>,
    /// The shard is closed, and nothing comes after these.
    pub end_of_shard: bool,
}

/// The embedded Kinesis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kinesis {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
    /// Whether calls touch a file, and so leave the threads of the runtime.
    file: bool,
    clock: Arc<dyn Clock>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Book {
    streams: Streams,
    db: Option<db::Db>,
}

fn service(refusal: Refusal) -> StackError {
    StackError::Service { service: "Kinesis", reason: format!("{}: {}", refusal.code, refusal.message) }
}

impl Kinesis {
    /// Opens the file, or starts empty in memory. Blocking.
    pub fn open(path: Option<&Path>) -> Result<Self, StackError> {
        let (mut streams, mut db) = (Streams::default(), None);
        if let Some(path) = path {
            let sql = |e| StackError::database("Kinesis", Some(path), e);
            let opened = db::Db::open(path).map_err(sql)?;
            streams = opened.load().map_err(sql)?;
            db = Some(opened);
        }
        let (file, clock, changes) = (db.is_some(), Arc::new(SystemClock), watch::Sender::new(0));
        Ok(Self { inner: Arc::new(Inner { book: Mutex::new(Book { streams, db }), file, clock, changes }) })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts under the lock, keeps what changed, then wakes those who wait.
    fn act<T>(&self, act: impl FnOnce(&mut Streams, i64) -> Answer<T>) -> Answer<T> {
        let now_ms = self.inner.clock.now_ms();
        let mut book = self.book();
        let Book { streams, db } = &mut *book;
        let result = act(streams, now_ms);
        let changes = std::mem::take(&mut streams.changes);
        if changes.is_empty() {
            return result;
        }
        if let Some(db) = db
            && let Err(error) = db.keep(streams, &changes)
        {
            tracing::error!(%error, "the streams cannot be written");
            let limits = streams.limits;
            if let Ok(kept) = db.load() {
                *streams = Streams { limits, ..kept };
            }
            return refuse("InternalFailure", format!("the streams cannot be written: {error}"));
        }
        drop(book);
        self.inner.changes.send_modify(|version| *version += 1);
        result
    }

    /// One call by its name, as a client makes it.
    #[cfg(test)]
    pub(crate) async fn request(&self, operation: &str, input: Value) -> Result<Value, String> {
        self.call(operation.to_owned(), input).await.map_err(|e| format!("{}: {}", e.code, e.message))
    }

    async fn call(&self, operation: String, input: Value) -> Answer<Value> {
        let kinesis = self.clone();
        let call = move || kinesis.act(|streams, now_ms| api::call(streams, &operation, &input, now_ms));
        if !self.inner.file {
            return call();
        }
        match tokio::task::spawn_blocking(call).await {
            Ok(result) => result,
            Err(error) => refuse("InternalFailure", error.to_string()),
        }
    }

    /// Serves until `stop` is sent or dropped.
    pub(crate) async fn serve(self, listener: TcpListener, stop: oneshot::Receiver<()>) {
        http::serve(self, listener, stop).await;
    }

    /// Wakes at each change: records, reshards, created and deleted streams.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Creates a provisioned stream.
    pub fn create_stream(&self, name: &str, shards: u32) -> Result<(), StackError> {
        self.act(|streams, now_ms| streams.create(name, shards, false, now_ms)).map_err(service)
    }

    /// Whether each shard takes 1 MiB and 1,000 records a second only, as in AWS. Off at start: a laptop need not be throttled.
    pub fn set_shard_limits(&self, on: bool) {
        self.book().streams.limits = on;
    }

    /// The ARN of a stream, whether it exists or not.
    pub fn arn(stream: &str) -> String {
        api::arn(stream)
    }

    /// All streams by name.
    pub fn streams(&self) -> Vec<String> {
        self.book().streams.streams.keys().cloned().collect()
    }

    /// All shards, closed ones included, parents before children. Empty for a missing stream.
    pub fn shards(&self, stream: &str) -> Vec<ShardInfo> {
        let book = self.book();
        let shards = book.streams.streams.get(stream).map(|s| s.shards.as_slice()).unwrap_or_default();
        let info = |s: &state::Shard| ShardInfo {
            id: s.id.clone(),
            parents: s.parents.clone(),
            closed: s.closed(),
            start_hash: s.start_hash,
            end_hash: s.end_hash,
        };
        shards.iter().map(info).collect()
    }

    /// Tells a stream from an earlier one of its name, as its creation time does on AWS: the first sequence number of its first shard.
    pub fn identity(&self, stream: &str) -> Option<String> {
        let book = self.book();
        book.streams.streams.get(stream)?.shards.first().map(|shard| shard.first.text())
    }

    /// The sequence number given out last, over all streams: reading after it is reading from `LATEST`.
    pub fn latest(&self) -> String {
        self.book().streams.sequence.text()
    }

    /// Records after `after` (from the oldest without), at least one if there is any. Neither records nor an end of the shard for
    /// a missing stream or shard.
    pub fn read(
        &self,
        stream: &str,
        shard: &str,
        after: Option<&str>,
        max_records: usize,
        max_bytes: usize,
    ) -> ReadResult {
        let from = match after {
            None => Sequence::default(),
            Some(text) => match Sequence::parse(text) {
                Some(sequence) => sequence.next(),
                None => return ReadResult::default(),
            },
        };
        let book = self.book();
        let Some(shard) = book.streams.stream(stream).ok().and_then(|s| s.shard(shard).ok()) else {
            return ReadResult::default();
        };
        let (records, rest) = api::take(shard, from, max_records, max_bytes);
        let record = |r: &state::Record| Rec {
            sequence: r.sequence.text(),
            partition_key: r.partition_key.clone(),
            data: r.data.clone(),
            arrival_ms: r.arrival_ms,
        };
        let end_of_shard = rest.is_none() && shard.closed();
        ReadResult { records: records.into_iter().map(record).collect(), end_of_shard }
    }
}
