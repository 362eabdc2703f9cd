//! Breaks a port on plan: refusals, conflicts, lost requests, lost answers, crashes, and acts of others in between.
//! Above: crash tests and simulation, which share one [`FaultPlan`] among all stores of a process. Below: any store.
//! Invariants: 1. operations are counted from 1 in the order in which they begin; 2. after a crash nothing takes effect;
//! 3. a lost answer took effect (or failed) inside and is `Unknown` outside; 4. the log holds every operation, also refused ones.

use std::{
    fmt,
    future::Future,
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::lock;
use crate::{
    item::{Item, ItemCondition, ItemContext, ItemError, ItemPage, ItemResult, ItemStore},
    object::{
        ETag, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload,
    },
    stream::{Put, PutFailure, PutRecord, StreamError, StreamErrorKind, StreamResult, StreamWriter},
};

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused as throttled, without effect.
    Throttle,
    /// Refused as 409 conflict, without effect. Items and streams know no 409 and are throttled.
    Conflict,
    /// Refused as unavailable, without effect.
    Unavailable,
    /// `Unknown`, without effect: the request got lost.
    LoseRequest,
    /// `Unknown`, with effect: the answer got lost.
    LoseAnswer,
    /// The process ends before this operation takes effect: it and every later one fail.
    CrashBefore,
    /// The process ends after this operation took effect: its answer is lost and every later one fails.
    CrashAfter,
}

/// One operation as it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// From 1.
    pub number: u64,
    /// As in `put`, `head`, `complete`.
    pub name: &'static str,
    /// The key of an object, `partition/sort` of an item, or the stream.
    pub key: String,
    /// True if it changes something.
    pub write: bool,
    /// What the plan did to it.
    pub fault: Option<Fault>,
}

type Act = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

enum Action {
    Fault(Fault),
    Act(Act),
}

/// An operation by number, or the n-th that matches a name and part of a key.
enum Trigger {
    Number(u64),
    Match { name: &'static str, key_part: String, remaining: u64 },
}

#[derive(Default)]
struct State {
    rules: Vec<(Trigger, Action)>,
    writes_only: bool,
    crashed: bool,
    count: u64,
    log: Vec<Operation>,
}

/// What happens to which operation. Clones share one count, log and fate: give one to all stores of a simulated process.
#[derive(Clone, Default)]
pub struct FaultPlan(Arc<Mutex<State>>);

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0);
        write!(f, "FaultPlan {{ rules: {}, count: {}, crashed: {} }}", state.rules.len(), state.count, state.crashed)
    }
}

impl FaultPlan {
    /// Nothing goes wrong; operations are counted and logged.
    pub fn none() -> Self {
        Self::default()
    }

    /// The first `n` operations take effect and are answered; every later one fails.
    pub fn crash_after(n: u64) -> Self {
        Self::none().at(n + 1, Fault::CrashBefore)
    }

    /// The first `n` operations take effect; the answer of the `n`-th is lost, and every later one fails.
    pub fn crash_losing_answer(n: u64) -> Self {
        Self::none().at(n, Fault::CrashAfter)
    }

    /// A fault at the `n`-th operation, from 1.
    #[must_use]
    pub fn at(self, n: u64, fault: Fault) -> Self {
        lock(&self.0).rules.push((Trigger::Number(n), Action::Fault(fault)));
        self
    }

    /// A fault at the `nth` (from 1) operation of this name whose key contains `key_part`.
    #[must_use]
    pub fn on(self, name: &'static str, key_part: impl Into<String>, nth: u64, fault: Fault) -> Self {
        let trigger = Trigger::Match { name, key_part: key_part.into(), remaining: nth };
        lock(&self.0).rules.push((trigger, Action::Fault(fault)));
        self
    }

    /// Someone else acts just before the `nth` operation of this name whose key contains `key_part`.
    #[must_use]
    pub fn act_before<F>(
        self,
        name: &'static str,
        key_part: impl Into<String>,
        nth: u64,
        act: impl FnOnce() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let trigger = Trigger::Match { name, key_part: key_part.into(), remaining: nth };
        lock(&self.0).rules.push((trigger, Action::Act(Box::new(move || Box::pin(act())))));
        self
    }

    /// Numbers count writes only: a crash between two reads is a crash after the write before them.
    #[must_use]
    pub fn counting_writes(self) -> Self {
        lock(&self.0).writes_only = true;
        self
    }

    /// Operations counted so far.
    pub fn count(&self) -> u64 {
        lock(&self.0).count
    }

    /// True once a crash has come.
    pub fn crashed(&self) -> bool {
        lock(&self.0).crashed
    }

    /// Every operation so far, in the order in which they began.
    pub fn log(&self) -> Vec<Operation> {
        lock(&self.0).log.clone()
    }

    async fn enter(&self, name: &'static str, key: String, write: bool) -> Option<Fault> {
        let (fault, acts) = lock(&self.0).enter(name, key, write);
        for act in acts {
            act().await;
        }
        fault
    }
}

impl State {
    fn enter(&mut self, name: &'static str, key: String, write: bool) -> (Option<Fault>, Vec<Act>) {
        let counted = write || !self.writes_only;
        self.count += u64::from(counted);
        let (mut fault, mut acts) = (self.crashed.then_some(Fault::CrashBefore), Vec::new());
        let mut kept = Vec::with_capacity(self.rules.len());
        for (mut trigger, action) in self.rules.drain(..) {
            let fires = match &mut trigger {
                Trigger::Number(n) => counted && *n == self.count,
                Trigger::Match { name: want, key_part, remaining } => {
                    let matches = *want == name && key.contains(key_part.as_str());
                    *remaining -= u64::from(matches && *remaining > 0);
                    matches && *remaining == 0
                }
            };
            match (fires, action) {
                (false, action) => kept.push((trigger, action)),
                (true, Action::Fault(f)) => fault = fault.or(Some(f)),
                (true, Action::Act(act)) => acts.push(act),
            }
        }
        self.rules = kept;
        self.crashed |= matches!(fault, Some(Fault::CrashBefore | Fault::CrashAfter));
        self.log.push(Operation { number: self.count, name, key, write, fault });
        (fault, acts)
    }
}

/// A store under a plan.
#[derive(Debug, Clone)]
pub struct Faulty<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> Faulty<S> {
    /// Puts a store under a plan.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }

    /// The plan, shared.
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }
}

/// Runs one call under the plan: refused before, run and answered, or run and its answer dropped.
async fn under<T, E>(
    plan: &FaultPlan,
    operation: (&'static str, String, bool),
    call: impl Future<Output = Result<T, E>>,
    error: impl FnOnce(Fault) -> E,
) -> Result<T, E> {
    let (name, key, write) = operation;
    match plan.enter(name, key, write).await {
        None => call.await,
        Some(fault @ (Fault::LoseAnswer | Fault::CrashAfter)) => {
            drop(call.await);
            Err(error(fault))
        }
        Some(fault) => Err(error(fault)),
    }
}

fn object_error(fault: Fault, name: &'static str, bucket: &str, key: &str) -> Box<ObjectError> {
    let kind = match fault {
        Fault::Throttle => ObjectErrorKind::Throttled,
        Fault::Conflict => ObjectErrorKind::Conflict,
        Fault::Unavailable | Fault::CrashBefore => ObjectErrorKind::Unavailable,
        Fault::LoseRequest | Fault::LoseAnswer | Fault::CrashAfter => ObjectErrorKind::Unknown,
    };
    ObjectError::new(kind, name, bucket, key, format!("planned fault {fault:?}"))
}

impl<S: ObjectStore> Faulty<S> {
    async fn object<T>(
        &self,
        name: &'static str,
        key: &str,
        write: bool,
        call: impl Future<Output = ObjectResult<T>>,
    ) -> ObjectResult<T> {
        let operation = (name, key.to_owned(), write);
        under(&self.plan, operation, call, |fault| object_error(fault, name, self.inner.bucket(), key)).await
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Faulty<S> {
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        self.object("get", key, false, self.inner.get(key)).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        self.object("get_range", key, false, self.inner.get_range(key, range)).await
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        self.object("head", key, false, self.inner.head(key)).await
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        self.object("put", key, true, self.inner.put(key, bytes, mode)).await
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        let inner = self.object("upload", key, true, self.inner.upload(key)).await?;
        let (bucket, key) = (self.inner.bucket().to_owned(), key.to_owned());
        Ok(Box::new(FaultyUpload { inner, plan: self.plan.clone(), bucket, key }))
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        self.object("list", prefix, false, self.inner.list(prefix, start_after, limit)).await
    }
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        self.object("list_dirs", prefix, false, self.inner.list_dirs(prefix)).await
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        self.object("delete", &keys.join(","), true, self.inner.delete(keys)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn Upload>,
    plan: FaultPlan,
    bucket: String,
    key: String,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()> {
        let error = |fault| object_error(fault, "part", &self.bucket, &self.key);
        under(&self.plan, ("part", self.key.clone(), true), self.inner.part(bytes), error).await
    }
    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag> {
        let error = |fault| object_error(fault, "complete", &self.bucket, &self.key);
        under(&self.plan, ("complete", self.key.clone(), true), self.inner.complete(mode), error).await
    }
    async fn abort(&mut self) -> ObjectResult<()> {
        let error = |fault| object_error(fault, "abort", &self.bucket, &self.key);
        under(&self.plan, ("abort", self.key.clone(), true), self.inner.abort(), error).await
    }
}

impl<S: ItemStore> Faulty<S> {
    async fn item<T>(
        &self,
        name: &'static str,
        (partition, sort): (&str, &str),
        write: bool,
        call: impl Future<Output = ItemResult<T>>,
    ) -> ItemResult<T> {
        let operation = (name, format!("{partition}/{sort}"), write);
        let error = |fault| {
            let reason = format!("planned fault {fault:?}");
            let context = ItemContext::new(name, self.inner.table(), partition, sort, reason);
            match fault {
                Fault::Throttle | Fault::Conflict => ItemError::Throttled(context),
                Fault::Unavailable | Fault::CrashBefore => ItemError::Unavailable(context),
                Fault::LoseRequest | Fault::LoseAnswer | Fault::CrashAfter => ItemError::Unknown(context),
            }
        };
        under(&self.plan, operation, call, error).await
    }
}

#[async_trait]
impl<S: ItemStore> ItemStore for Faulty<S> {
    fn table(&self) -> &str {
        self.inner.table()
    }
    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        self.item("get_item", (partition, sort), false, self.inner.get(partition, sort)).await
    }
    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        self.item("put_item", (&item.partition, &item.sort), true, self.inner.put(item, condition)).await
    }
    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        self.item("add_item", (partition, sort), true, self.inner.add(partition, sort, attribute, delta)).await
    }
    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        self.item("delete_item", (partition, sort), true, self.inner.delete(partition, sort, condition)).await
    }
    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        let call = self.inner.query(partition, sort_prefix, start_after, limit);
        self.item("query_items", (partition, sort_prefix), false, call).await
    }
}

#[async_trait]
impl<S: StreamWriter> StreamWriter for Faulty<S> {
    async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>> {
        let error = |fault| {
            let kind = match fault {
                Fault::Throttle | Fault::Conflict => StreamErrorKind::Throttled,
                Fault::Unavailable | Fault::CrashBefore => StreamErrorKind::Unavailable,
                Fault::LoseRequest | Fault::LoseAnswer | Fault::CrashAfter => StreamErrorKind::Unknown,
            };
            StreamError::new(kind, "put_records", stream, format!("planned fault {fault:?}"))
        };
        let call = self.inner.put_records(stream, records);
        under(&self.plan, ("put_records", stream.to_owned(), true), call, error).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryItemStore, MemoryObjectStore};

    async fn put(store: &dyn ObjectStore, key: &str) -> Result<(), ObjectErrorKind> {
        store.put(key, Bytes::from_static(b"x"), PutMode::IfAbsent).await.map(drop).map_err(|e| e.kind())
    }

    #[tokio::test]
    async fn crash_after_n_lets_n_operations_of_all_stores_take_effect() {
        let (objects, items) = (MemoryObjectStore::new(), MemoryItemStore::new());
        let plan = FaultPlan::crash_after(2);
        let faulty_objects = Faulty::new(objects.clone(), plan.clone());
        let faulty_items = Faulty::new(items.clone(), plan.clone());
        put(&faulty_objects, "1").await.unwrap();
        faulty_items.put(&Item::new("p", "s", 1), ItemCondition::Absent).await.unwrap();
        assert_eq!(put(&faulty_objects, "3").await, Err(ObjectErrorKind::Unavailable));
        assert!(matches!(faulty_items.get("p", "s").await, Err(ItemError::Unavailable(_))));
        assert!(plan.crashed());
        objects.head("1").await.unwrap();
        assert_eq!(objects.head("3").await.unwrap_err().kind(), ObjectErrorKind::NotFound);
        assert!(items.get("p", "s").await.unwrap().is_some());
        let names: Vec<_> = plan.log().into_iter().map(|o| (o.number, o.name)).collect();
        assert_eq!(names, [(1, "put"), (2, "put_item"), (3, "put"), (4, "get_item")]);
    }

    #[tokio::test]
    async fn lost_answer_takes_effect_and_lost_request_does_not() {
        let objects = MemoryObjectStore::new();
        let plan = FaultPlan::none().at(1, Fault::LoseAnswer).on("put", "lost", 1, Fault::LoseRequest);
        let faulty = Faulty::new(objects.clone(), plan.clone());
        assert_eq!(put(&faulty, "took").await, Err(ObjectErrorKind::Unknown));
        assert_eq!(put(&faulty, "lost").await, Err(ObjectErrorKind::Unknown));
        put(&faulty, "lost again").await.unwrap();
        objects.head("took").await.unwrap();
        assert_eq!(objects.head("lost").await.unwrap_err().kind(), ObjectErrorKind::NotFound);
        assert!(!plan.crashed());
    }

    #[tokio::test]
    async fn someone_else_acts_between_two_operations() {
        let objects = MemoryObjectStore::new();
        let other = objects.clone();
        let plan = FaultPlan::none().act_before("put", "k", 1, move || async move {
            other.put("k", Bytes::from_static(b"theirs"), PutMode::IfAbsent).await.unwrap();
        });
        assert_eq!(put(&Faulty::new(objects, plan), "k").await, Err(ObjectErrorKind::PreconditionFailed));
    }

    #[tokio::test]
    async fn counting_writes_skips_reads() {
        let faulty = Faulty::new(MemoryObjectStore::new(), FaultPlan::crash_after(1).counting_writes());
        assert_eq!(faulty.head("none").await.unwrap_err().kind(), ObjectErrorKind::NotFound);
        put(&faulty, "1").await.unwrap();
        faulty.head("1").await.unwrap();
        assert_eq!(put(&faulty, "2").await, Err(ObjectErrorKind::Unavailable));
    }
}
