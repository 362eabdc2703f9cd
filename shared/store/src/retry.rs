//! Retries above the ports: jittered exponential backoff, within attempts, a time budget and a deadline.
//! Above: use-cases. Below: any store; `clock` and `ids` are injected.
//! Invariants: 1. only what is safe is sent again; 2. once a conditional write may have happened, no later answer is reported as its failure:
//! the outcome is `Unknown` unless a read shows exactly what was to be written; 3. no attempt begins after the deadline.

use std::{
    future::Future,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    clock::Clock,
    ids::Ids,
    item::{Item, ItemCondition, ItemContext, ItemError, ItemPage, ItemResult, ItemStore},
    object::{
        ETag, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload,
    },
};

/// How often, how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Upper bound of the first wait; it doubles with each attempt.
    pub base: Duration,
    /// Upper bound of any wait.
    pub cap: Duration,
    /// Upper bound of the time from the first attempt to the beginning of the last.
    pub budget: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts in at most 30 s: about 3 s of waiting on average, for a store that throttles for a moment.
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
            budget: Duration::from_secs(30),
        }
    }
}

/// Policy, time and randomness, and the deadline of the work at hand; shared by all stores of a process.
#[derive(Debug)]
pub struct Retry {
    policy: RetryPolicy,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    deadline_ms: AtomicI64,
}

impl Retry {
    /// Without a deadline.
    pub fn new(policy: RetryPolicy, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Arc<Self> {
        Arc::new(Self { policy, clock, ids, deadline_ms: AtomicI64::new(i64::MAX) })
    }

    /// No attempt begins at or after this time (milliseconds since 1970 UTC): set it at the start of each invocation.
    pub fn set_deadline_ms(&self, deadline_ms: i64) {
        self.deadline_ms.store(deadline_ms, Ordering::SeqCst);
    }

    fn start(&self) -> Attempts<'_> {
        Attempts { retry: self, made: 1, started_ms: self.clock.now_ms() }
    }
}

/// The attempts of one operation.
struct Attempts<'a> {
    retry: &'a Retry,
    made: u32,
    started_ms: i64,
}

impl Attempts<'_> {
    /// Waits before another attempt; false, at once, if there is to be none.
    async fn again(&mut self) -> bool {
        let Retry { policy, clock, ids, deadline_ms } = self.retry;
        if self.made >= policy.attempts {
            return false;
        }
        let bound = policy.base.saturating_mul(1_u32.checked_shl(self.made - 1).unwrap_or(u32::MAX)).min(policy.cap);
        let wait = bound.mul_f64(ids.jitter().clamp(0.0, 1.0));
        let then_ms = clock.now_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let budget_ms = i64::try_from(policy.budget.as_millis()).unwrap_or(i64::MAX);
        if then_ms >= deadline_ms.load(Ordering::SeqCst) || then_ms.saturating_sub(self.started_ms) > budget_ms {
            return false;
        }
        clock.sleep(wait).await;
        self.made += 1;
        true
    }
}

/// A store that retries what is safe. Put it above `Metered` and `Faulty`.
///
/// - Reads, listings, deletes without condition, starting an upload, and sending a part: after every transient error.
/// - Puts without condition: likewise. They suit keys that one writer owns: a request that was lost on the way may still arrive later.
/// - Conditional writes: likewise, but after `Unknown` or `Conflict` the outcome is in doubt. A condition that then fails is answered by
///   reading: if what is there equals what was to be written, byte for byte, it is a success; everything else is `Unknown`. Content that must be told
///   from another writer's therefore carries its writer's id.
/// - `ItemStore::add`: only after errors that say that nothing was written.
#[derive(Debug, Clone)]
pub struct Retrying<S> {
    inner: S,
    retry: Arc<Retry>,
}

impl<S> Retrying<S> {
    /// Puts retries above a store.
    pub fn new(inner: S, retry: Arc<Retry>) -> Self {
        Self { inner, retry }
    }
}

async fn retry_objects<T, F>(retry: &Retry, mut call: impl FnMut() -> F + Send) -> ObjectResult<T>
where
    F: Future<Output = ObjectResult<T>> + Send,
{
    let mut attempts = retry.start();
    loop {
        match call().await {
            Err(e) if e.kind().is_transient() && attempts.again().await => {}
            answer => return answer,
        }
    }
}

/// True if the outcome of this attempt leaves room for doubt about a later answer.
fn leaves_doubt(kind: ObjectErrorKind) -> bool {
    matches!(kind, ObjectErrorKind::Unknown | ObjectErrorKind::Conflict)
}

/// The same error as an unknown outcome.
fn in_doubt(mut error: Box<ObjectError>) -> Box<ObjectError> {
    if error.kind != ObjectErrorKind::Unknown {
        error.reason =
            format!("an earlier attempt got no certain answer, the last one: {} ({:?})", error.reason, error.kind);
        error.kind = ObjectErrorKind::Unknown;
    }
    error
}

impl<S: ObjectStore> Retrying<S> {
    async fn put_conditional(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        let mut attempts = self.retry.start();
        let mut doubt = false;
        loop {
            let error = match self.inner.put(key, bytes.clone(), mode.clone()).await {
                Ok(tag) => return Ok(tag),
                Err(error) => error,
            };
            let kind = error.kind();
            if doubt && kind == ObjectErrorKind::PreconditionFailed {
                return self.look_up(key, &bytes, error).await;
            }
            doubt |= leaves_doubt(kind);
            if !(kind.is_transient() && attempts.again().await) {
                // A conflict that was never followed by another attempt wrote nothing: it stays what it is.
                let certain = !doubt || (kind == ObjectErrorKind::Conflict && attempts.made == 1);
                return Err(if certain { error } else { in_doubt(error) });
            }
        }
    }

    /// After a failed condition in doubt: our own content means that an earlier attempt succeeded.
    async fn look_up(&self, key: &str, bytes: &Bytes, error: Box<ObjectError>) -> ObjectResult<ETag> {
        match self.get(key).await {
            Ok(now) if now.bytes == *bytes => Ok(now.meta.etag),
            _ => Err(in_doubt(error)),
        }
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Retrying<S> {
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        retry_objects(&self.retry, || self.inner.get(key)).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        retry_objects(&self.retry, || self.inner.get_range(key, range.clone())).await
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        retry_objects(&self.retry, || self.inner.head(key)).await
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        if mode == PutMode::Overwrite {
            return retry_objects(&self.retry, || self.inner.put(key, bytes.clone(), PutMode::Overwrite)).await;
        }
        self.put_conditional(key, bytes, mode).await
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        let inner = retry_objects(&self.retry, || self.inner.upload(key)).await?;
        Ok(Box::new(RetryingUpload { inner, retry: self.retry.clone() }))
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        retry_objects(&self.retry, || self.inner.list(prefix, start_after, limit)).await
    }
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        retry_objects(&self.retry, || self.inner.list_dirs(prefix)).await
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        retry_objects(&self.retry, || self.inner.delete(keys)).await
    }
}

#[derive(Debug)]
struct RetryingUpload {
    inner: Box<dyn Upload>,
    retry: Arc<Retry>,
}

#[async_trait]
impl Upload for RetryingUpload {
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()> {
        let mut attempts = self.retry.start();
        loop {
            match self.inner.part(bytes.clone()).await {
                Err(e) if e.kind().is_transient() && attempts.again().await => {}
                answer => return answer,
            }
        }
    }

    /// An earlier attempt whose answer was lost makes any later failure `Unknown`: a spent upload cannot be told from a lost one.
    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag> {
        let mut attempts = self.retry.start();
        let mut doubt = false;
        loop {
            let error = match self.inner.complete(mode.clone()).await {
                Ok(tag) => return Ok(tag),
                Err(error) => error,
            };
            doubt |= error.kind() == ObjectErrorKind::Unknown || (attempts.made > 1 && leaves_doubt(error.kind()));
            if !(error.kind().is_transient() && attempts.again().await) {
                return Err(if doubt { in_doubt(error) } else { error });
            }
        }
    }

    async fn abort(&mut self) -> ObjectResult<()> {
        let mut attempts = self.retry.start();
        loop {
            match self.inner.abort().await {
                Err(e) if e.kind().is_transient() && attempts.again().await => {}
                answer => return answer,
            }
        }
    }
}

async fn retry_items<T, F>(
    retry: &Retry,
    safe: impl Fn(&ItemError) -> bool + Send,
    mut call: impl FnMut() -> F + Send,
) -> ItemResult<T>
where
    F: Future<Output = ItemResult<T>> + Send,
{
    let mut attempts = retry.start();
    loop {
        match call().await {
            Err(e) if safe(&e) && attempts.again().await => {}
            answer => return answer,
        }
    }
}

impl<S: ItemStore> Retrying<S> {
    /// A conditional write; `ours` says whether what is there now is what this write would have left.
    async fn write_item<F>(
        &self,
        context: impl Fn(String) -> Box<ItemContext> + Send,
        ours: impl Fn(Option<&Item>) -> bool + Send,
        mut call: impl FnMut() -> F + Send,
    ) -> ItemResult<()>
    where
        F: Future<Output = ItemResult<()>> + Send,
    {
        let mut attempts = self.retry.start();
        let mut doubt = false;
        loop {
            let error = match call().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let (true, ItemError::ConditionFailed { current, .. }) = (doubt, &error)
                && ours(current.as_ref())
            {
                return Ok(());
            }
            doubt |= matches!(error, ItemError::Unknown(_));
            if !(error.is_transient() && attempts.again().await) {
                return Err(match error {
                    error if !doubt => error,
                    ItemError::Unknown(context) => ItemError::Unknown(context),
                    last => {
                        ItemError::Unknown(context(format!("an earlier attempt got no answer, the last one: {last}")))
                    }
                });
            }
        }
    }
}

#[async_trait]
impl<S: ItemStore> ItemStore for Retrying<S> {
    fn table(&self) -> &str {
        self.inner.table()
    }
    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        retry_items(&self.retry, ItemError::is_transient, || self.inner.get(partition, sort)).await
    }
    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        if condition == ItemCondition::None {
            return retry_items(&self.retry, ItemError::is_transient, || self.inner.put(item, condition)).await;
        }
        let context = |reason| ItemContext::new("put", self.inner.table(), &item.partition, &item.sort, reason);
        self.write_item(context, |current| current == Some(item), || self.inner.put(item, condition)).await
    }
    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        let safe = |e: &ItemError| e.is_transient() && !matches!(e, ItemError::Unknown(_));
        retry_items(&self.retry, safe, || self.inner.add(partition, sort, attribute, delta)).await
    }
    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        if condition == ItemCondition::None {
            let call = || self.inner.delete(partition, sort, condition);
            return retry_items(&self.retry, ItemError::is_transient, call).await;
        }
        let context = |reason| ItemContext::new("delete", self.inner.table(), partition, sort, reason);
        // That the item is gone does not show who deleted it.
        self.write_item(context, |_| false, || self.inner.delete(partition, sort, condition)).await
    }
    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        let call = || self.inner.query(partition, sort_prefix, start_after, limit);
        retry_items(&self.retry, ItemError::is_transient, call).await
    }
}

#[cfg(test)]
mod tests;
