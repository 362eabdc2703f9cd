//! The ports a use-case runs over, bundled: objects, items, clock, ids.
//!
//! Neighbours: functions and `silt` build a [`Ports`] from AWS adapters, tests from in-memory versions; every use-case takes one.

use std::sync::Arc;

use siltstone_store::{clock::Clock, ids::Ids, item::ItemStore, object::ObjectStore};

/// Everything outside that a use-case may touch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The bucket of the warehouse.
    pub objects: Arc<dyn ObjectStore>,
    /// The DynamoDB table of pointers, slots and hints. A bare warehouse has none: an in-memory one stands in and is never asked.
    pub items: Arc<dyn ItemStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// UUIDs and jitter.
    pub ids: Arc<dyn Ids>,
}
