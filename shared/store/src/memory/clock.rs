//! A clock that only a test moves. Sleeping moves it by the time slept, at once: nothing waits.
//! Neighbours: `clock` (the port). Invariant: 1. `now_ms` changes only by `set`, `advance` and `sleep`.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;

use crate::clock::Clock;

/// Time under a test's control.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicI64,
    slept_ms: AtomicI64,
}

impl ManualClock {
    /// Starts at a time, milliseconds since 1970 UTC.
    pub fn new(now_ms: i64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms), slept_ms: AtomicI64::new(0) }
    }

    /// Jumps to a time, also backwards.
    pub fn set(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// All time slept so far.
    pub fn slept(&self) -> Duration {
        Duration::from_millis(self.slept_ms.load(Ordering::SeqCst).unsigned_abs())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    async fn sleep(&self, duration: Duration) {
        self.advance(duration);
        self.slept_ms.fetch_add(millis(duration), Ordering::SeqCst);
        // Lets other tasks of the test run, as a real sleep would.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleeping_moves_the_clock_at_once() {
        let clock = ManualClock::new(1_000);
        clock.sleep(Duration::from_secs(5)).await;
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.now_ms(), 6_001);
        assert_eq!(clock.slept(), Duration::from_secs(5));
    }
}
