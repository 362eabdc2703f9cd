//! Stores that take their time, and a clock that jumps to whoever waits the shortest: a hundred invocations side by side in one thread.

#![allow(unreachable_pub, reason = "shared by test programs")]

use std::{
    future::Future,
    ops::Range,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use siltstone_store::{
    clock::Clock,
    item::{Item, ItemCondition, ItemPage, ItemResult, ItemStore},
    object::{ETag, ListPage, Object, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload},
};

/// Time that passes only while everybody waits.
#[derive(Debug)]
pub struct Time(Mutex<(i64, Vec<(i64, Waker)>)>);

impl Time {
    pub fn new(now_ms: i64) -> Self {
        Self(Mutex::new((now_ms, Vec::new())))
    }

    pub async fn wait(&self, ms: i64) {
        let until = self.now_ms() + ms;
        std::future::poll_fn(|context| {
            let mut state = self.0.lock().unwrap();
            if state.0 >= until {
                return Poll::Ready(());
            }
            state.1.push((until, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Wakes those whose time comes next.
    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        let next = state.1.iter().map(|(until, _)| *until).min().expect("somebody waits for the time");
        state.0 = state.0.max(next);
        let (due, waiting) = std::mem::take(&mut state.1).into_iter().partition(|(until, _)| *until <= next);
        state.1 = waiting;
        drop(state);
        let due: Vec<(i64, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

#[async_trait]
impl Clock for Time {
    fn now_ms(&self) -> i64 {
        self.0.lock().unwrap().0
    }

    async fn sleep(&self, duration: Duration) {
        self.wait(i64::try_from(duration.as_millis()).unwrap()).await;
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a future in which everything waits for this time.
pub fn run<T>(time: &Time, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending if woken.0.swap(false, Ordering::SeqCst) => {}
            Poll::Pending => time.pass(),
        }
    }
}

/// A store each of whose requests takes so long: half of it there, half of it back.
#[derive(Debug)]
pub struct Slow<S> {
    inner: S,
    time: Arc<Time>,
    ms: i64,
}

impl<S> Slow<S> {
    pub fn new(inner: S, time: Arc<Time>, ms: i64) -> Self {
        Self { inner, time, ms }
    }

    async fn take<T>(&self, request: impl Future<Output = T>) -> T {
        self.time.wait(self.ms / 2).await;
        let answer = request.await;
        self.time.wait(self.ms - self.ms / 2).await;
        answer
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Slow<S> {
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        self.take(self.inner.get(key)).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        self.take(self.inner.get_range(key, range)).await
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        self.take(self.inner.head(key)).await
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        self.take(self.inner.put(key, bytes, mode)).await
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        self.take(self.inner.upload(key)).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        self.take(self.inner.list(prefix, start_after, limit)).await
    }
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        self.take(self.inner.list_dirs(prefix)).await
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        self.take(self.inner.delete(keys)).await
    }
}

#[async_trait]
impl<S: ItemStore> ItemStore for Slow<S> {
    fn table(&self) -> &str {
        self.inner.table()
    }
    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        self.take(self.inner.get(partition, sort)).await
    }
    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        self.take(self.inner.put(item, condition)).await
    }
    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        self.take(self.inner.add(partition, sort, attribute, delta)).await
    }
    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        self.take(self.inner.delete(partition, sort, condition)).await
    }
    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        self.take(self.inner.query(partition, sort_prefix, start_after, limit)).await
    }
}
