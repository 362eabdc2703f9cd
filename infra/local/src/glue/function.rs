//! A function as Lambda sees it: a payload in, a payload out, within a time.
//!
//! Neighbours: `mapping`, `notify`, `schedule`, `control_api` invoke; `process` runs real processes. Invariants: 1. an invocation that runs out
//! of time is dropped where it stands, like a killed sandbox; 2. at most the cap runs at once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use siltstone_store::{Clock, SystemClock};
use tokio::sync::{Semaphore, watch};

use super::lineage;

/// Why an invocation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// The function answered with an error.
    #[error("{0}")]
    Handled(String),
    /// The process died, or was killed.
    #[error("the function's process ended: {0}")]
    Crashed(String),
    /// Time was over.
    #[error("the function did not answer within {0:?}")]
    TimedOut(Duration),
}

/// Something that can be invoked.
#[async_trait]
pub trait Function: Send + Sync + fmt::Debug {
    /// Name.
    fn name(&self) -> &str;

    /// Runs one invocation to its end.
    async fn invoke(&self, payload: Bytes) -> Result<Bytes, FunctionError>;
}

/// Counts of a function.
#[derive(Debug, Default)]
pub struct Counts {
    /// Invocations begun.
    pub invocations: AtomicU64,
    /// Invocations that failed.
    pub errors: AtomicU64,
    /// Milliseconds of all together.
    pub millis: AtomicU64,
}

impl Counts {
    pub(crate) fn add(&self, failed: bool, millis: i64) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.millis.fetch_add(u64::try_from(millis).unwrap_or(0), Ordering::Relaxed);
    }
}

/// A handler: payload and deadline (ms since 1970) in.
pub type Handler = Arc<dyn Fn(Bytes, i64) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// A handler of this process, invoked as Lambda would.
pub struct InProcess {
    name: String,
    handler: Handler,
    timeout: Duration,
    permits: Semaphore,
    kills: watch::Sender<u64>,
    /// Counts.
    pub counts: Counts,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("name", &self.name).finish_non_exhaustive()
    }
}

impl InProcess {
    /// A function that runs at most `concurrency` invocations at once.
    #[must_use]
    pub fn new(name: impl Into<String>, handler: Handler, timeout: Duration, concurrency: usize) -> Self {
        Self {
            name: name.into(),
            handler,
            timeout,
            permits: Semaphore::new(concurrency.max(1)),
            kills: watch::Sender::new(0),
            counts: Counts::default(),
        }
    }

    /// Drops what runs now, as a killed sandbox does: no further I/O, no answer.
    pub fn kill_running(&self) {
        self.kills.send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl Function for InProcess {
    fn name(&self) -> &str {
        &self.name
    }

    async fn invoke(&self, payload: Bytes) -> Result<Bytes, FunctionError> {
        let _permit = self.permits.acquire().await.map_err(|e| FunctionError::Crashed(e.to_string()))?;
        let started = SystemClock.now_ms();
        let deadline = started + i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
        let mut kills = self.kills.subscribe();
        let running = lineage::at_depth(lineage::depth(), (self.handler)(payload, deadline));
        let result = tokio::select! {
            answer = running => answer.map_err(FunctionError::Handled),
            () = tokio::time::sleep(self.timeout) => Err(FunctionError::TimedOut(self.timeout)),
            _ = kills.changed() => Err(FunctionError::Crashed("killed".to_owned())),
        };
        self.counts.add(result.is_err(), SystemClock.now_ms() - started);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow() -> Handler {
        Arc::new(|_, _| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(Bytes::new())
            })
        })
    }

    #[tokio::test]
    async fn an_invocation_ends_at_its_time_or_when_killed() {
        let function = Arc::new(InProcess::new("f", slow(), Duration::from_millis(20), 1));
        assert!(matches!(function.invoke(Bytes::new()).await, Err(FunctionError::TimedOut(_))));
        let function = Arc::new(InProcess::new("f", slow(), Duration::from_secs(60), 1));
        let running = tokio::spawn({
            let function = function.clone();
            async move { function.invoke(Bytes::new()).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        function.kill_running();
        assert!(matches!(running.await.unwrap(), Err(FunctionError::Crashed(_))));
        assert_eq!(function.counts.errors.load(Ordering::Relaxed), 1);
    }
}
