//! The stores of a warehouse on AWS as every caller wants them: retried above, metered below; and the streams, metered.
//!
//! Neighbours: functions and `silt` build one at start. Invariant: 1. the meter counts what is billed: every attempt, not every call.

use std::sync::Arc;

use siltstone_store::{
    clock::Clock,
    ids::Ids,
    item::ItemStore,
    meter::{Meter, Metered},
    object::ObjectStore,
    retry::{Retry, RetryPolicy, Retrying},
};

use crate::{Clients, DynamoItems, KinesisStream, S3Store};

/// Objects and items of one warehouse, and streams.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The bucket.
    pub objects: Arc<dyn ObjectStore>,
    /// The DynamoDB table.
    pub items: Arc<dyn ItemStore>,
    /// Streams of the account and region.
    pub streams: Arc<Metered<KinesisStream>>,
    /// Counts requests and bytes.
    pub meter: Arc<Meter>,
    /// Bounds retries; a function sets its deadline here for each invocation.
    pub retry: Arc<Retry>,
}

impl Stores {
    /// Stores over `clients`.
    #[must_use]
    pub fn new(clients: &Clients, bucket: &str, items_table: &str, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        let meter = Meter::new();
        let retry = Retry::new(RetryPolicy::default(), clock, ids);
        let objects = Metered::new(S3Store::new(clients.s3.clone(), bucket), meter.clone());
        let items = Metered::new(DynamoItems::new(clients.dynamodb.clone(), items_table), meter.clone());
        let streams = Metered::new(KinesisStream::new(clients.kinesis.clone()), meter.clone());
        Self {
            streams: Arc::new(streams),
            objects: Arc::new(Retrying::new(objects, retry.clone())),
            items: Arc::new(Retrying::new(items, retry.clone())),
            meter,
            retry,
        }
    }
}
