//! The ports, with every request counted on a meter.
//! Neighbours: `super` (the meter), `retry` (goes above). Invariant: 1. a wrapper changes no argument and no answer.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Billing, Meter, RequestKind, read_units, write_units};
use crate::{
    item::{Item, ItemCondition, ItemError, ItemPage, ItemResult, ItemStore},
    object::{ETag, LIST_LIMIT, ListPage, Object, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload},
    stream::{
        Put, PutFailure, PutRecord, Records, Shard, ShardIterator, ShardStart, StreamAdmin, StreamDescription,
        StreamErrorKind, StreamReader, StreamResult, StreamWriter,
    },
};

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

impl<S> Metered<S> {
    async fn administered<T>(&self, call: impl Future<Output = StreamResult<T>> + Send) -> StreamResult<T> {
        let result = call.await;
        self.meter.request(RequestKind::KinesisAdmin, stream_billing(&result), 0);
        result
    }
}

/// Each call is counted as one request, also a listing of several pages.
#[async_trait]
impl<S: StreamAdmin> StreamAdmin for Metered<S> {
    async fn create(&self, stream: &str, shards: u32) -> StreamResult<()> {
        self.administered(self.inner.create(stream, shards)).await
    }
    async fn describe(&self, stream: &str) -> StreamResult<StreamDescription> {
        self.administered(self.inner.describe(stream)).await
    }
    async fn list_shards(&self, stream: &str) -> StreamResult<Vec<Shard>> {
        self.administered(self.inner.list_shards(stream)).await
    }
    async fn split(&self, stream: &str, shard: &str, hash_start: u128) -> StreamResult<()> {
        self.administered(self.inner.split(stream, shard, hash_start)).await
    }
    async fn merge(&self, stream: &str, shard: &str, adjacent: &str) -> StreamResult<()> {
        self.administered(self.inner.merge(stream, shard, adjacent)).await
    }
    async fn delete(&self, stream: &str) -> StreamResult<()> {
        self.administered(self.inner.delete(stream)).await
    }
    async fn set_retention(&self, stream: &str, retention: Duration) -> StreamResult<()> {
        self.administered(self.inner.set_retention(stream, retention)).await
    }
}
