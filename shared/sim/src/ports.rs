//! The ports of one process: every call waits at its [`Desk`] for a verdict, then takes effect in the [`World`], or not.
//!
//! Neighbours: `store::retry` stands above, as on AWS; the in-memory stores below. Invariants: 1. nothing takes effect without a verdict;
//! 2. an effect and what the world thinks of it are one step; 3. an answer that is lost is `Unknown`, whatever happened.

use std::{future::pending, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use siltstone_store::{
    clock::Clock,
    ids::SeededIds,
    item::{Item, ItemCondition, ItemContext, ItemError, ItemPage, ItemResult, ItemStore},
    meter::{Meter, Metered, read_units, write_units},
    object::{
        ETag, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload,
    },
    retry::{Retry, RetryPolicy, Retrying},
    stream::{Shard, StreamAdmin, StreamDescription, StreamError, StreamErrorKind, StreamResult},
};
use siltstone_table::Ports;

use crate::{
    process::{Call, Desk, Verdict},
    world::{Late, World},
};

/// What every port of a process shares.
#[derive(Debug, Clone)]
struct Seat {
    world: World,
    desk: Arc<Desk>,
    skew_ms: i64,
}

/// The ports of a new sandbox, its retries, and what it sees of the stream.
#[must_use]
pub fn ports_of(world: &World, desk: &Arc<Desk>, skew_ms: i64, seed: u64) -> (Ports, Arc<Retry>, Arc<dyn StreamAdmin>) {
    metered_ports_of(world, desk, skew_ms, seed, &Meter::new())
}

/// The same, with every request counted.
#[must_use]
pub fn metered_ports_of(
    world: &World,
    desk: &Arc<Desk>,
    skew_ms: i64,
    seed: u64,
    meter: &Arc<Meter>,
) -> (Ports, Arc<Retry>, Arc<dyn StreamAdmin>) {
    let seat = Seat { world: world.clone(), desk: desk.clone(), skew_ms };
    let clock: Arc<dyn Clock> = Arc::new(SimClock(seat.clone()));
    let ids = Arc::new(SeededIds::new(seed));
    let retry = Retry::new(RetryPolicy::default(), clock.clone(), ids.clone());
    let ports = Ports {
        objects: Arc::new(Retrying::new(Metered::new(SimObjects(seat.clone()), meter.clone()), retry.clone())),
        items: Arc::new(Retrying::new(Metered::new(SimItems(seat.clone()), meter.clone()), retry.clone())),
        clock,
        ids,
    };
    (ports, retry, Arc::new(SimStreams(seat)))
}

impl Seat {
    fn call(
        &self,
        operation: &'static str,
        key: &str,
        write: bool,
        conditional: bool,
    ) -> impl Future<Output = Verdict> + use<> {
        self.desk.call(Call { key: key.to_owned(), write, conditional, ..call_of(operation) })
    }

    fn item(
        &self,
        operation: &'static str,
        (partition, sort): (&str, &str),
        units: u64,
        conditional: bool,
    ) -> impl Future<Output = Verdict> + use<> {
        let write = !matches!(operation, "get_item" | "query_items");
        let (key, partition) = (sort.to_owned(), partition.to_owned());
        self.desk.call(Call { key, partition, units, write, conditional, ..call_of(operation) })
    }
}

/// How a call ended that was not simply performed.
enum Broken {
    Throttled,
    Conflict,
    Unavailable,
    Unknown,
}

/// Does what the verdict says. `late` is what is performed later; `part` is what a process gets done that dies in the middle.
async fn obey<T>(
    seat: &Seat,
    call: impl Future<Output = Verdict>,
    perform: impl FnOnce() -> T,
    late: Option<Late>,
    part: impl FnOnce(),
) -> Result<T, Broken> {
    match call.await {
        Verdict::Perform => Ok(perform()),
        Verdict::LoseAnswer => {
            perform();
            Err(Broken::Unknown)
        }
        Verdict::LoseRequest => Err(Broken::Unknown),
        Verdict::Late => {
            if let Some(late) = late {
                seat.world.later(late);
            }
            Err(Broken::Unknown)
        }
        Verdict::Throttle => Err(Broken::Throttled),
        Verdict::Conflict => Err(Broken::Conflict),
        Verdict::Unavailable | Verdict::Dead => Err(Broken::Unavailable),
        Verdict::PerformAndDie => {
            perform();
            pending().await
        }
        Verdict::PartAndDie => {
            part();
            pending().await
        }
    }
}

/// A bucket of S3.
#[derive(Debug, Clone)]
struct SimObjects(Seat);

impl SimObjects {
    async fn read<T>(
        &self,
        operation: &'static str,
        key: &str,
        perform: impl FnOnce() -> ObjectResult<T>,
    ) -> ObjectResult<T> {
        let call = self.0.call(operation, key, false, false);
        obey(&self.0, call, perform, None, || ())
            .await
            .unwrap_or_else(|broken| Err(object_error(&broken, operation, key)))
    }
}

fn object_error(broken: &Broken, operation: &'static str, key: &str) -> Box<ObjectError> {
    let kind = match broken {
        Broken::Throttled => ObjectErrorKind::Throttled,
        Broken::Conflict => ObjectErrorKind::Conflict,
        Broken::Unavailable => ObjectErrorKind::Unavailable,
        Broken::Unknown => ObjectErrorKind::Unknown,
    };
    ObjectError::new(kind, operation, "lake", key, "simulated")
}

/// The in-memory stores answer at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory never waits")
}

#[async_trait]
impl ObjectStore for SimObjects {
    fn bucket(&self) -> &str {
        "lake"
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        self.read("get", key, || now(self.0.world.objects().get(key))).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        self.read("get_range", key, || now(self.0.world.objects().get_range(key, range))).await
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        self.read("head", key, || now(self.0.world.objects().head(key))).await
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        let world = &self.0.world;
        let call = self.0.call("put", key, true, mode != PutMode::Overwrite);
        let late = Late::Put { key: key.to_owned(), bytes: bytes.clone(), mode: mode.clone() };
        obey(&self.0, call, || world.put(key, bytes, mode), Some(late), || ())
            .await
            .unwrap_or_else(|broken| Err(object_error(&broken, "put", key)))
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        Err(ObjectError::new(ObjectErrorKind::Invalid, "upload", "lake", key, "no file of a simulation is that large"))
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        self.read("list", prefix, || now(self.0.world.objects().list(prefix, start_after, limit))).await
    }
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        self.read("list_dirs", prefix, || now(self.0.world.objects().list_dirs(prefix))).await
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        let world = &self.0.world;
        let first = keys.first().map_or("", String::as_str);
        let call = self.0.call("delete", first, true, false);
        let late = Late::Delete(keys.to_vec());
        let part = || drop(world.delete(&keys[..keys.len() / 2]));
        obey(&self.0, call, || world.delete(keys), Some(late), part)
            .await
            .unwrap_or_else(|broken| Err(object_error(&broken, "delete", first)))
    }
}

/// A table of DynamoDB.
#[derive(Debug, Clone)]
struct SimItems(Seat);

fn item_error(broken: &Broken, operation: &'static str, partition: &str, sort: &str) -> ItemError {
    let context = ItemContext::new(operation, "siltstone", partition, sort, "simulated");
    match broken {
        Broken::Throttled | Broken::Conflict => ItemError::Throttled(context),
        Broken::Unavailable => ItemError::Unavailable(context),
        Broken::Unknown => ItemError::Unknown(context),
    }
}

#[async_trait]
impl ItemStore for SimItems {
    fn table(&self) -> &str {
        "siltstone"
    }
    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        let size = now(self.0.world.items().get(partition, sort)).ok().flatten().map_or(0, |item| item.size());
        let call = self.0.item("get_item", (partition, sort), read_units(size), false);
        let perform = || now(self.0.world.items().get(partition, sort));
        obey(&self.0, call, perform, None, || ())
            .await
            .unwrap_or_else(|broken| Err(item_error(&broken, "get", partition, sort)))
    }
    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        let (units, conditional) = (write_units(item.size()), condition != ItemCondition::None);
        let call = self.0.item("put_item", (&item.partition, &item.sort), units, conditional);
        let late = Late::PutItem { item: item.clone(), condition };
        obey(&self.0, call, || self.0.world.put_item(item, condition), Some(late), || ())
            .await
            .unwrap_or_else(|broken| Err(item_error(&broken, "put", &item.partition, &item.sort)))
    }
    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        let call = self.0.item("add_item", (partition, sort), 1, false);
        let perform = || now(self.0.world.items().add(partition, sort, attribute, delta));
        obey(&self.0, call, perform, None, || ())
            .await
            .unwrap_or_else(|broken| Err(item_error(&broken, "add", partition, sort)))
    }
    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        let call = self.0.item("delete_item", (partition, sort), 1, condition != ItemCondition::None);
        let perform = || now(self.0.world.items().delete(partition, sort, condition));
        obey(&self.0, call, perform, None, || ())
            .await
            .unwrap_or_else(|broken| Err(item_error(&broken, "delete", partition, sort)))
    }
    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        let page = now(self.0.world.items().query(partition, sort_prefix, start_after, limit));
        let size = page.map_or(0, |page| page.items.iter().map(Item::size).sum());
        let call = self.0.item("query_items", (partition, sort_prefix), read_units(size), false);
        let perform = || now(self.0.world.items().query(partition, sort_prefix, start_after, limit));
        obey(&self.0, call, perform, None, || ())
            .await
            .unwrap_or_else(|broken| Err(item_error(&broken, "query", partition, sort_prefix)))
    }
}

/// The world's time, a little wrong.
#[derive(Debug, Clone)]
struct SimClock(Seat);

#[async_trait]
impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.0.world.now_ms() + self.0.skew_ms
    }
    async fn sleep(&self, duration: Duration) {
        let until = self.0.world.now_ms() + i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let call = Call { not_before_ms: until, verdict: Some(Verdict::Perform), ..call_of("sleep") };
        self.0.desk.call(call).await;
    }
}

fn call_of(operation: &'static str) -> Call {
    let (key, partition) = (String::new(), String::new());
    Call { operation, key, partition, units: 0, write: false, conditional: false, not_before_ms: 0, verdict: None }
}

/// What a function asks of Kinesis itself: the shards.
#[derive(Debug, Clone)]
struct SimStreams(Seat);

fn not_here(operation: &'static str, stream: &str) -> StreamError {
    StreamError::new(StreamErrorKind::Invalid, operation, stream, "no function does this")
}

#[async_trait]
impl StreamAdmin for SimStreams {
    async fn create(&self, stream: &str, _: u32) -> StreamResult<()> {
        Err(not_here("create", stream))
    }
    async fn describe(&self, stream: &str) -> StreamResult<StreamDescription> {
        Err(not_here("describe", stream))
    }
    async fn list_shards(&self, stream: &str) -> StreamResult<Vec<Shard>> {
        let call = self.0.call("list_shards", stream, false, false);
        let failed = |kind| Err(StreamError::new(kind, "list_shards", stream, "simulated"));
        match obey(&self.0, call, || now(self.0.world.streams().list_shards(stream)), None, || ()).await {
            Ok(shards) => shards,
            Err(Broken::Throttled | Broken::Conflict) => failed(StreamErrorKind::Throttled),
            Err(Broken::Unavailable) => failed(StreamErrorKind::Unavailable),
            Err(Broken::Unknown) => failed(StreamErrorKind::Unknown),
        }
    }
    async fn split(&self, stream: &str, _: &str, _: u128) -> StreamResult<()> {
        Err(not_here("split", stream))
    }
    async fn merge(&self, stream: &str, _: &str, _: &str) -> StreamResult<()> {
        Err(not_here("merge", stream))
    }
    async fn delete(&self, stream: &str) -> StreamResult<()> {
        Err(not_here("delete", stream))
    }
    async fn set_retention(&self, stream: &str, _: Duration) -> StreamResult<()> {
        Err(not_here("set_retention", stream))
    }
}
