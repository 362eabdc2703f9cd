//! Counts what is billed: requests and bytes by kind, DynamoDB and Kinesis units, Lambda memory-time.
//! Above: `silt`, functions' metrics, benchmarks. Below: any store. `cost` turns a usage into money.
//! Invariants: 1. put below `retry`, it sees every attempt; 2. counts only grow; 3. a request that the service refused
//! (throttled, unavailable) is counted as refused, not as billed; one without an answer is counted as billed.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    item::{Item, ItemCondition, ItemError, ItemPage, ItemResult, ItemStore},
    object::{
        ETag, LIST_LIMIT, ListPage, Object, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload,
    },
    stream::{
        Put, PutFailure, PutRecord, Records, ShardIterator, ShardStart, StreamErrorKind, StreamReader, StreamResult,
        StreamWriter,
    },
};

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// S3 PutObject (PUT class).
    S3Put,
    /// S3 CreateMultipartUpload (PUT class).
    S3CreateUpload,
    /// S3 UploadPart (PUT class).
    S3Part,
    /// S3 CompleteMultipartUpload (PUT class).
    S3Complete,
    /// S3 CopyObject (PUT class).
    S3Copy,
    /// S3 ListObjectsV2 (PUT class).
    S3List,
    /// S3 GetObject, whole or a range (GET class).
    S3Get,
    /// S3 HeadObject (GET class).
    S3Head,
    /// S3 DeleteObjects and AbortMultipartUpload (free).
    S3Delete,
    /// DynamoDB GetItem and Query.
    DynamoRead,
    /// DynamoDB PutItem, UpdateItem and DeleteItem, failed conditions included.
    DynamoWrite,
    /// Kinesis PutRecords.
    KinesisPut,
    /// Kinesis GetShardIterator and GetRecords (free of charge, five per second and shard).
    KinesisGet,
    /// A Lambda invocation.
    LambdaInvoke,
}

impl RequestKind {
    /// Billed as an S3 PUT, COPY, POST or LIST request.
    pub fn is_s3_put_class(self) -> bool {
        use RequestKind::{S3Complete, S3Copy, S3CreateUpload, S3List, S3Part, S3Put};
        matches!(self, S3Put | S3CreateUpload | S3Part | S3Complete | S3Copy | S3List)
    }

    /// Billed as an S3 GET (and all other) request.
    pub fn is_s3_get_class(self) -> bool {
        matches!(self, Self::S3Get | Self::S3Head)
    }
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Billed requests, also those that failed on a condition or whose answer was lost.
    pub requests: u64,
    /// Refused requests: throttled or unavailable. Not billed.
    pub refused: u64,
    /// Payload bytes, sent for writes, received for reads.
    pub bytes: u64,
}

/// What was used between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// By kind; kinds never used are absent.
    pub counts: BTreeMap<RequestKind, Count>,
    /// DynamoDB read request units: 4 KB, strongly consistent.
    pub read_units: u64,
    /// DynamoDB write request units: 1 KB of the whole item.
    pub write_units: u64,
    /// Kinesis PUT payload units: 25 KB per record.
    pub put_payload_units: u64,
    /// Kinesis record bytes accepted.
    pub stream_bytes: u64,
    /// Lambda memory-time, MB x ms. 1 GB-second is 1,024,000.
    pub lambda_mb_ms: u64,
}

impl Usage {
    /// The count of a kind.
    pub fn count(&self, kind: RequestKind) -> Count {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// Billed requests of all kinds for which `select` holds.
    pub fn requests(&self, select: impl Fn(RequestKind) -> bool) -> u64 {
        self.counts.iter().filter(|(kind, _)| select(**kind)).map(|(_, count)| count.requests).sum()
    }

    /// S3 requests billed as PUT, COPY, POST or LIST.
    pub fn s3_put_class(&self) -> u64 {
        self.requests(RequestKind::is_s3_put_class)
    }

    /// S3 requests billed as GET and all other.
    pub fn s3_get_class(&self) -> u64 {
        self.requests(RequestKind::is_s3_get_class)
    }

    /// DynamoDB requests, reads and writes.
    pub fn dynamo(&self) -> u64 {
        self.requests(|kind| matches!(kind, RequestKind::DynamoRead | RequestKind::DynamoWrite))
    }

    /// Lambda memory-time in GB-seconds.
    pub fn gb_seconds(&self) -> f64 {
        self.lambda_mb_ms as f64 / 1_024_000.0
    }

    /// What was used since an earlier snapshot of the same meter.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().map(|(kind, now)| {
            let then = earlier.count(*kind);
            let count = Count {
                requests: now.requests.saturating_sub(then.requests),
                refused: now.refused.saturating_sub(then.refused),
                bytes: now.bytes.saturating_sub(then.bytes),
            };
            (*kind, count)
        });
        Self {
            counts: counts.filter(|(_, count)| *count != Count::default()).collect(),
            read_units: self.read_units.saturating_sub(earlier.read_units),
            write_units: self.write_units.saturating_sub(earlier.write_units),
            put_payload_units: self.put_payload_units.saturating_sub(earlier.put_payload_units),
            stream_bytes: self.stream_bytes.saturating_sub(earlier.stream_bytes),
            lambda_mb_ms: self.lambda_mb_ms.saturating_sub(earlier.lambda_mb_ms),
        }
    }

    /// Adds another usage, as of another function.
    pub fn add(&mut self, other: &Self) {
        for (kind, more) in &other.counts {
            let count = self.counts.entry(*kind).or_default();
            count.requests += more.requests;
            count.refused += more.refused;
            count.bytes += more.bytes;
        }
        self.read_units += other.read_units;
        self.write_units += other.write_units;
        self.put_payload_units += other.put_payload_units;
        self.stream_bytes += other.stream_bytes;
        self.lambda_mb_ms += other.lambda_mb_ms;
    }
}

/// The one meter of a process, shared by all its stores.
#[derive(Default)]
pub struct Meter(Mutex<Usage>);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

/// How a request ended, as far as the bill goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Billing {
    Billed,
    Refused,
}

impl Meter {
    /// At zero, shared.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// All used so far.
    pub fn snapshot(&self) -> Usage {
        self.usage().clone()
    }

    /// Counts one invocation of a function. `billed` is its duration, rounded up to whole milliseconds.
    pub fn invocation(&self, memory_mb: u32, billed: Duration) {
        let ms = u64::try_from(billed.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let mut usage = self.usage();
        usage.counts.entry(RequestKind::LambdaInvoke).or_default().requests += 1;
        usage.lambda_mb_ms = usage.lambda_mb_ms.saturating_add(ms.saturating_mul(u64::from(memory_mb)));
    }

    /// Counts requests made elsewhere, as by a server that sees every client.
    pub fn record(&self, kind: RequestKind, requests: u64, bytes: u64) {
        let mut usage = self.usage();
        let count = usage.counts.entry(kind).or_default();
        count.requests += requests;
        count.bytes += bytes;
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, kind: RequestKind, billing: Billing, bytes: usize) {
        let mut usage = self.usage();
        let count = usage.counts.entry(kind).or_default();
        match billing {
            Billing::Billed => {
                count.requests += 1;
                count.bytes += bytes as u64;
            }
            Billing::Refused => count.refused += 1,
        }
    }

    fn object<T>(&self, kind: RequestKind, result: &ObjectResult<T>, bytes: usize) {
        let refused =
            matches!(result, Err(e) if matches!(e.kind(), ObjectErrorKind::Throttled | ObjectErrorKind::Unavailable));
        self.request(kind, if refused { Billing::Refused } else { Billing::Billed }, bytes);
    }

    fn item<T>(&self, kind: RequestKind, result: &ItemResult<T>, bytes: usize, units: u64) {
        use ItemError::{Denied, Invalid, Throttled, TooLarge, Unavailable};
        if matches!(result, Err(Throttled(_) | Unavailable(_) | Denied(_) | Invalid(_) | TooLarge(_))) {
            return self.request(kind, Billing::Refused, 0);
        }
        self.request(kind, Billing::Billed, bytes);
        let mut usage = self.usage();
        match kind {
            RequestKind::DynamoRead => usage.read_units += units,
            _ => usage.write_units += units,
        }
    }
}

/// Read units of so many bytes read with strong consistency: at least one.
pub fn read_units(bytes: usize) -> u64 {
    bytes.div_ceil(4_096).max(1) as u64
}

/// Write units of an item of so many bytes: at least one.
pub fn write_units(bytes: usize) -> u64 {
    bytes.div_ceil(1_024).max(1) as u64
}

/// A store whose every request is counted. Put it below `Retrying`.
///
/// A successful put is counted at the new item's size, though the bill takes the larger of the old and the new; `add` and a successful `delete` as
/// one unit, since their items' sizes are not known. For items that shrink or are larger than 1 KB that is a lower bound.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    /// Counts a store's requests on a meter.
    pub fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S> Metered<S> {
    async fn counted<T: Send>(
        &self,
        kind: RequestKind,
        call: impl Future<Output = ObjectResult<T>> + Send,
        bytes: impl FnOnce(&T) -> usize + Send,
    ) -> ObjectResult<T> {
        let result = call.await;
        let size = result.as_ref().map_or(0, bytes);
        self.meter.object(kind, &result, size);
        result
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Metered<S> {
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        self.counted(RequestKind::S3Get, self.inner.get(key), |o| o.bytes.len()).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        self.counted(RequestKind::S3Get, self.inner.get_range(key, range), Bytes::len).await
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        self.counted(RequestKind::S3Head, self.inner.head(key), |_| 0).await
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        let size = bytes.len();
        self.counted(RequestKind::S3Put, self.inner.put(key, bytes, mode), |_| size).await
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        let inner = self.counted(RequestKind::S3CreateUpload, self.inner.upload(key), |_| 0).await?;
        Ok(Box::new(MeteredUpload { inner, meter: self.meter.clone() }))
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        self.counted(RequestKind::S3List, self.inner.list(prefix, start_after, limit), |_| 0).await
    }
    /// Counted as one request per 1,000 directories: objects beside them, which take room on the pages too, are not seen here.
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        let result = self.inner.list_dirs(prefix).await;
        self.meter.object(RequestKind::S3List, &result, 0);
        let further = result.as_ref().map_or(0, |dirs| dirs.len().saturating_sub(1) / LIST_LIMIT);
        self.meter.record(RequestKind::S3List, further as u64, 0);
        result
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        if keys.is_empty() {
            return self.inner.delete(keys).await;
        }
        let result = self.inner.delete(keys).await;
        self.meter.object(RequestKind::S3Delete, &result, 0);
        let further = keys.len().saturating_sub(1) / LIST_LIMIT;
        self.meter.record(RequestKind::S3Delete, further as u64, 0);
        result
    }
}

#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn Upload>,
    meter: Arc<Meter>,
}

#[async_trait]
impl Upload for MeteredUpload {
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()> {
        let size = bytes.len();
        let result = self.inner.part(bytes).await;
        self.meter.object(RequestKind::S3Part, &result, if result.is_ok() { size } else { 0 });
        result
    }
    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag> {
        let result = self.inner.complete(mode).await;
        self.meter.object(RequestKind::S3Complete, &result, 0);
        result
    }
    async fn abort(&mut self) -> ObjectResult<()> {
        let result = self.inner.abort().await;
        self.meter.object(RequestKind::S3Delete, &result, 0);
        result
    }
}

/// Size of the item that a failed condition returned.
fn current_size<T>(result: &ItemResult<T>) -> usize {
    match result {
        Err(ItemError::ConditionFailed { current: Some(item), .. }) => item.size(),
        _ => 0,
    }
}

#[async_trait]
impl<S: ItemStore> ItemStore for Metered<S> {
    fn table(&self) -> &str {
        self.inner.table()
    }
    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        let result = self.inner.get(partition, sort).await;
        let size = result.as_ref().ok().and_then(Option::as_ref).map_or(0, Item::size);
        self.meter.item(RequestKind::DynamoRead, &result, size, read_units(size));
        result
    }
    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        let result = self.inner.put(item, condition).await;
        let size = item.size();
        self.meter.item(RequestKind::DynamoWrite, &result, size, write_units(size.max(current_size(&result))));
        result
    }
    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        let result = self.inner.add(partition, sort, attribute, delta).await;
        self.meter.item(RequestKind::DynamoWrite, &result, 0, 1);
        result
    }
    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        let result = self.inner.delete(partition, sort, condition).await;
        self.meter.item(RequestKind::DynamoWrite, &result, 0, write_units(current_size(&result)));
        result
    }
    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        let result = self.inner.query(partition, sort_prefix, start_after, limit).await;
        let size = result.as_ref().map_or(0, |page| page.items.iter().map(Item::size).sum());
        self.meter.item(RequestKind::DynamoRead, &result, size, read_units(size));
        result
    }
}

fn stream_billing<T>(result: &StreamResult<T>) -> Billing {
    match result {
        Err(e) if e.kind() != StreamErrorKind::Unknown => Billing::Refused,
        _ => Billing::Billed,
    }
}

#[async_trait]
impl<S: StreamWriter> StreamWriter for Metered<S> {
    async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>> {
        let result = self.inner.put_records(stream, records).await;
        let accepted = |n: usize| match &result {
            Ok(puts) => puts.get(n).is_some_and(Result::is_ok),
            Err(e) => e.kind() == StreamErrorKind::Unknown,
        };
        let sizes: Vec<usize> =
            records.iter().enumerate().filter(|(n, _)| accepted(*n)).map(|(_, r)| r.data.len()).collect();
        let bytes = sizes.iter().sum();
        self.meter.request(RequestKind::KinesisPut, stream_billing(&result), bytes);
        let mut usage = self.meter.usage();
        usage.stream_bytes += bytes as u64;
        usage.put_payload_units += sizes.iter().map(|size| size.div_ceil(25 << 10).max(1) as u64).sum::<u64>();
        drop(usage);
        result
    }
}

#[async_trait]
impl<S: StreamReader> StreamReader for Metered<S> {
    async fn iterator(&self, stream: &str, shard: &str, start: ShardStart) -> StreamResult<ShardIterator> {
        let result = self.inner.iterator(stream, shard, start).await;
        self.meter.request(RequestKind::KinesisGet, stream_billing(&result), 0);
        result
    }
    async fn get_records(&self, stream: &str, iterator: &ShardIterator, limit: u32) -> StreamResult<Records> {
        let result = self.inner.get_records(stream, iterator, limit).await;
        let bytes = result.as_ref().map_or(0, |r| r.records.iter().map(|x| x.data.len()).sum());
        self.meter.request(RequestKind::KinesisGet, stream_billing(&result), bytes);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        item::Attr,
        memory::{Fault, FaultPlan, Faulty, MemoryItemStore, MemoryObjectStore, MemoryStreams},
        stream::StreamAdmin,
    };

    #[tokio::test]
    async fn object_requests_are_counted_by_class_with_their_bytes() {
        let meter = Meter::new();
        let store = Metered::new(MemoryObjectStore::new(), meter.clone());
        store.put("a", Bytes::from_static(b"12345"), PutMode::IfAbsent).await.unwrap();
        store.put("a", Bytes::from_static(b"12345"), PutMode::IfAbsent).await.unwrap_err();
        store.get("a").await.unwrap();
        store.get_range("a", 1..3).await.unwrap();
        store.head("none").await.unwrap_err();
        store.list("", None, 10).await.unwrap();
        let mut upload = store.upload("u").await.unwrap();
        upload.part(Bytes::from_static(b"xyz")).await.unwrap();
        upload.complete(PutMode::Overwrite).await.unwrap();
        let keys: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
        store.delete(&keys).await.unwrap();
        let usage = meter.snapshot();
        assert_eq!(usage.count(RequestKind::S3Put), Count { requests: 2, refused: 0, bytes: 5 });
        assert_eq!(usage.count(RequestKind::S3Part), Count { requests: 1, refused: 0, bytes: 3 });
        assert_eq!(usage.count(RequestKind::S3Get), Count { requests: 2, refused: 0, bytes: 7 });
        assert_eq!((usage.s3_put_class(), usage.s3_get_class()), (6, 3));
        assert_eq!(usage.count(RequestKind::S3Delete).requests, 2);
    }

    #[tokio::test]
    async fn refused_requests_are_not_billed_and_lost_ones_are() {
        let meter = Meter::new();
        let plan = FaultPlan::none().at(1, Fault::Throttle).at(2, Fault::LoseAnswer);
        let store = Metered::new(Faulty::new(MemoryObjectStore::new(), plan), meter.clone());
        for _ in 0..2 {
            store.put("k", Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap_err();
        }
        assert_eq!(meter.snapshot().count(RequestKind::S3Put), Count { requests: 1, refused: 1, bytes: 0 });
    }

    #[tokio::test]
    async fn item_units_follow_the_whole_item_also_when_the_condition_fails() {
        let meter = Meter::new();
        let store = Metered::new(MemoryItemStore::new(), meter.clone());
        let large = Item::new("p", "s", 1).with("x", Attr::B(Bytes::from(vec![0; 5_000])));
        store.put(&large, ItemCondition::Absent).await.unwrap();
        assert_eq!(meter.snapshot().write_units, 5);
        let before = meter.snapshot();
        store.put(&Item::new("p", "s", 2), ItemCondition::RevIs(9)).await.unwrap_err();
        assert_eq!(meter.snapshot().since(&before).write_units, 5);
        store.get("p", "s").await.unwrap();
        store.get("p", "none").await.unwrap();
        store.query("p", "", None, 10).await.unwrap();
        store.add("p", "n", "n", 1).await.unwrap();
        let usage = meter.snapshot().since(&before);
        assert_eq!((usage.read_units, usage.write_units, usage.dynamo()), (2 + 1 + 2, 6, 5));
    }

    #[tokio::test]
    async fn stream_units_are_25_kb_per_record() {
        let meter = Meter::new();
        let streams = MemoryStreams::new();
        streams.create("s", 1).await.unwrap();
        let store = Metered::new(streams, meter.clone());
        let record = |size| PutRecord {
            data: Bytes::from(vec![0; size]),
            partition_key: "k".to_owned(),
            explicit_hash_key: None,
        };
        store.put_records("s", &[record(10), record(25_600), record(25_601)]).await.unwrap();
        let usage = meter.snapshot();
        assert_eq!((usage.put_payload_units, usage.stream_bytes), (4, 51_211));
    }

    #[test]
    fn invocations_add_up_to_gb_seconds_and_usages_to_one_another() {
        let meter = Meter::new();
        meter.invocation(512, Duration::from_micros(1_999_500));
        let mut usage = meter.snapshot();
        assert!((usage.gb_seconds() - 1.0).abs() < 1e-9, "{}", usage.gb_seconds());
        usage.add(&meter.snapshot());
        assert_eq!(usage.count(RequestKind::LambdaInvoke).requests, 2);
        assert_eq!(usage.lambda_mb_ms, 2 * 1_024_000);
    }
}
