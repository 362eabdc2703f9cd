//! The clock port, and the system's clock. Everything that waits or dates takes a [`Clock`].
//! Neighbours: `ids` (randomness), `memory::ManualClock` (time that a test moves).
//! Invariant: 1. this file is the only place of the crate that asks the system for the time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

/// Time of day and waiting.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970 UTC. May step backwards, as system clocks do: never derive order from it alone.
    fn now_ms(&self) -> i64;
    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock, and tokio's timer.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one seam to the system's clock")]
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the one seam to the system's timer")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now_ms(&self) -> i64 {
        (**self).now_ms()
    }
    async fn sleep(&self, duration: Duration) {
        (**self).sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn system_clock_moves_on_while_sleeping() {
        let before = SystemClock.now_ms();
        SystemClock.sleep(Duration::from_millis(5)).await;
        assert!(SystemClock.now_ms() >= before + 4);
    }
}
