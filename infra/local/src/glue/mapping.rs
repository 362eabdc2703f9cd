//! Event source mapping: the records of a stream into a function, as AWS delivers them.
//!
//! Neighbours: `kinesis` is read, a [`Function`] is invoked. One poller per shard, one batch at a time, in order; a failed batch is tried again
//! until it succeeds (smaller with `bisect`), and nothing behind it is delivered before. Invariants: 1. a shard is polled only when its
//! parents are read to their end; 2. the checkpoint is written after the function's success, so a crash in between redelivers; 3. an event
//! never exceeds Lambda's 6 MB; 4. checkpoints are of one stream, not of a name: one that is created again is read from its beginning.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use siltstone_store::{Clock, SystemClock};
use tokio::task::{JoinHandle, JoinSet};

use super::Function;
use crate::{Kinesis, REGION, kinesis::Rec};

/// Lambda's limit of a payload, with room for the brackets.
const PAYLOAD_BYTES: usize = 6_000_000;
/// About what a record's fields beside the data take in an event.
const RECORD_FIELDS: usize = 600;
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(500);

/// Settings of a mapping; those that Siltstone does not allow to be changed are fixed (see `maintain`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingConfig {
    /// Stream.
    pub stream: String,
    /// Records of a batch, at the most 10,000.
    pub batch_size: usize,
    /// How long a batch is gathered after its first record.
    pub window: Duration,
    /// Halve a batch that fails.
    pub bisect: bool,
    /// Where checkpoints are kept; in memory without.
    pub checkpoints: Option<PathBuf>,
}

/// What a mapping did.
#[derive(Debug, Default)]
pub struct MappingCounts {
    /// Batches delivered.
    pub batches: AtomicU64,
    /// Records in them.
    pub records: AtomicU64,
    /// Invocations that failed and were tried again.
    pub retries: AtomicU64,
    /// Age of the last delivered record, ms.
    pub iterator_age_ms: AtomicI64,
}

/// How far a shard was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
struct Delivered {
    after: Option<String>,
    done: bool,
}

/// What is kept: the checkpoints of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
struct Kept {
    /// [`Kinesis::identity`] of the stream; shards of another one have the same names.
    stream: String,
    shards: BTreeMap<String, Delivered>,
}

#[derive(Debug)]
struct Checkpoints {
    file: Option<PathBuf>,
    kept: Mutex<Kept>,
}

impl Checkpoints {
    fn open(file: Option<PathBuf>) -> Self {
        let kept =
            file.as_ref().and_then(|f| std::fs::read(f).ok()).and_then(|text| serde_json::from_slice(&text).ok());
        Self { file, kept: Mutex::new(kept.unwrap_or_default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_of(&self, stream: &str) -> bool {
        self.lock().stream == stream
    }

    /// Forgets the stream before.
    fn start_over(&self, stream: String) {
        self.write(|kept| *kept = Kept { stream, shards: BTreeMap::new() });
    }

    fn get(&self, shard: &str) -> Delivered {
        self.lock().shards.get(shard).cloned().unwrap_or_default()
    }

    fn set(&self, shard: &str, delivered: Delivered) {
        self.write(|kept| {
            kept.shards.insert(shard.to_owned(), delivered);
        });
    }

    fn write(&self, change: impl FnOnce(&mut Kept)) {
        let mut kept = self.lock();
        change(&mut kept);
        if let Some(file) = &self.file {
            let draft = file.with_extension("new");
            let written = serde_json::to_vec(&*kept).map_err(std::io::Error::from).and_then(|text| {
                std::fs::write(&draft, text)?;
                std::fs::rename(&draft, file)
            });
            if let Err(error) = written {
                tracing::error!(%error, "the mapping's checkpoints cannot be written");
            }
        }
    }
}

/// A running mapping. Dropping it ends it.
#[derive(Debug)]
pub struct Mapping {
    /// Settings.
    pub config: MappingConfig,
    /// Name of the function.
    pub function: String,
    /// Counts.
    pub counts: Arc<MappingCounts>,
    task: JoinHandle<()>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mapping {
    /// Starts to deliver the records of a stream to `function`.
    #[must_use]
    pub fn start(config: MappingConfig, kinesis: Kinesis, function: Arc<dyn Function>) -> Self {
        let counts = Arc::new(MappingCounts::default());
        let name = function.name().to_owned();
        let checkpoints = Arc::new(Checkpoints::open(config.checkpoints.clone()));
        let poller = Poller { config: config.clone(), kinesis, function, counts: counts.clone(), checkpoints };
        Self { config, function: name, counts, task: tokio::spawn(discover(poller)) }
    }
}

#[derive(Debug, Clone)]
struct Poller {
    config: MappingConfig,
    kinesis: Kinesis,
    function: Arc<dyn Function>,
    counts: Arc<MappingCounts>,
    checkpoints: Arc<Checkpoints>,
}

/// Starts a poller for each shard whose parents are done; all anew for a stream that was created again.
async fn discover(poller: Poller) {
    let mut pollers = JoinSet::new();
    let mut started: Vec<String> = Vec::new();
    let mut changes = poller.kinesis.changes();
    loop {
        if let Some(stream) = poller.kinesis.identity(&poller.config.stream)
            && !poller.checkpoints.are_of(&stream)
        {
            // Their end first: a poller writes the checkpoint of the stream before.
            pollers.shutdown().await;
            started.clear();
            poller.checkpoints.start_over(stream);
        }
        for shard in poller.kinesis.shards(&poller.config.stream) {
            let ready = shard.parents.iter().all(|parent| poller.checkpoints.get(parent).done);
            if ready && !started.contains(&shard.id) && !poller.checkpoints.get(&shard.id).done {
                started.push(shard.id.clone());
                pollers.spawn(poll(poller.clone(), shard.id));
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = pollers.join_next(), if !pollers.is_empty() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn poll(poller: Poller, shard: String) {
    let mut changes = poller.kinesis.changes();
    let mut delivered = poller.checkpoints.get(&shard);
    let (mut limit, mut failures) = (poller.config.batch_size, 0u32);
    loop {
        changes.borrow_and_update();
        let read = poller.read(&shard, &delivered, limit).await;
        if read.records.is_empty() {
            if read.end_of_shard {
                delivered.done = true;
                poller.checkpoints.set(&shard, delivered);
                return;
            }
            let _ = tokio::time::timeout(POLL, changes.changed()).await;
            continue;
        }
        let records = within_payload(read.records);
        match poller.deliver(&shard, &records).await {
            Ok(through) => {
                if let Some(through) = through {
                    delivered.after = Some(through);
                    poller.checkpoints.set(&shard, delivered.clone());
                }
                (limit, failures) = (poller.config.batch_size, 0);
            }
            Err(error) => {
                poller.counts.retries.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(shard, records = records.len(), %error, "a batch failed and is tried again");
                if poller.config.bisect {
                    limit = (records.len() / 2).max(1);
                }
                failures += 1;
                tokio::time::sleep((Duration::from_millis(50) * 2u32.pow(failures.min(8))).min(BACKOFF_MAX)).await;
            }
        }
    }
}

impl Poller {
    /// Reads a batch, waiting for the window to fill it.
    async fn read(&self, shard: &str, delivered: &Delivered, limit: usize) -> crate::kinesis::ReadResult {
        let read =
            || self.kinesis.read(&self.config.stream, shard, delivered.after.as_deref(), limit, PAYLOAD_BYTES / 4 * 3);
        let first = read();
        if first.records.is_empty()
            || first.records.len() >= limit
            || self.config.window.is_zero()
            || first.end_of_shard
        {
            return first;
        }
        tokio::time::sleep(self.config.window).await;
        read()
    }

    /// Invokes the function; the answer is the last sequence number that was taken, if any.
    async fn deliver(&self, shard: &str, records: &[Rec]) -> Result<Option<String>, String> {
        let arn = Kinesis::arn(&self.config.stream);
        let event = json!({"Records": records.iter().map(|r| event_record(shard, &arn, r)).collect::<Vec<_>>()});
        let payload = Bytes::from(serde_json::to_vec(&event).map_err(|e| e.to_string())?);
        let answer = self.function.invoke(payload).await.map_err(|e| e.to_string())?;
        self.counts.batches.fetch_add(1, Ordering::Relaxed);
        let failed = lowest_failure(&answer, records)?;
        let taken = failed.unwrap_or(records.len());
        self.counts.records.fetch_add(taken as u64, Ordering::Relaxed);
        if let Some(last) = records.last() {
            self.counts.iterator_age_ms.store(SystemClock.now_ms() - last.arrival_ms, Ordering::Relaxed);
        }
        match (failed, taken.checked_sub(1).and_then(|i| records.get(i))) {
            (Some(_), None) => Err("the function refused the whole batch".to_owned()),
            (_, last) => Ok(last.map(|r| r.sequence.clone())),
        }
    }
}

/// Place of the lowest record that a partial answer names; none for a plain success.
fn lowest_failure(answer: &[u8], records: &[Rec]) -> Result<Option<usize>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        batch_item_failures: Option<Vec<Item>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        item_identifier: String,
    }
    let Ok(Answer { batch_item_failures: Some(items) }) = serde_json::from_slice::<Answer>(answer) else {
        return Ok(None);
    };
    let mut lowest = None;
    for item in items {
        let place = records.iter().position(|r| r.sequence == item.item_identifier);
        let place = place.ok_or("the function names a record that is not in the batch")?;
        lowest = Some(lowest.map_or(place, |l: usize| l.min(place)));
    }
    Ok(lowest)
}

fn within_payload(records: Vec<Rec>) -> Vec<Rec> {
    let mut bytes = 0;
    let mut kept = records;
    let fits = kept
        .iter()
        .take_while(|r| {
            bytes += r.data.len().div_ceil(3) * 4 + r.partition_key.len() + RECORD_FIELDS;
            bytes <= PAYLOAD_BYTES
        })
        .count();
    kept.truncate(fits.max(1));
    kept
}

/// One record of a Lambda Kinesis event.
fn event_record(shard: &str, arn: &str, record: &Rec) -> serde_json::Value {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit 53 bits")]
    let arrival = record.arrival_ms as f64 / 1000.0;
    json!({
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": record.partition_key, "sequenceNumber": record.sequence,
            "data": STANDARD.encode(&record.data), "approximateArrivalTimestamp": arrival},
        "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": format!("{shard}:{}", record.sequence),
        "eventName": "aws:kinesis:record", "invokeIdentityArn": format!("arn:aws:iam::{}:role/local", crate::ACCOUNT),
        "awsRegion": REGION, "eventSourceARN": arn,
    })
}

#[cfg(test)]
mod tests;
