//! In-memory versions of every port, deterministic, for tests and simulation; and `fault`, which breaks any of them on plan.
//! Each passes the contract suite of its port. Invariant: 1. no call waits, so a test's schedule is its own.

mod clock;
pub mod fault;
mod item;
mod mapping;
mod object;
mod stream;

pub use clock::ManualClock;
pub use fault::{Fault, FaultPlan, Faulty, Operation};
pub use item::MemoryItemStore;
pub use mapping::MemoryMappings;
pub use object::MemoryObjectStore;
pub use stream::MemoryStreams;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder panicked in a test still holds sound data: every change below is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract;

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_objects_keep_the_contract() {
        contract::object::run(Arc::new(MemoryObjectStore::new())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_items_keep_the_contract() {
        contract::item::run(Arc::new(MemoryItemStore::new())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_streams_keep_the_contract() {
        contract::stream::run(Arc::new(MemoryStreams::new())).await;
    }
}
