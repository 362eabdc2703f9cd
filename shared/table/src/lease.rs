//! The lease of a bucket: one compactor at a time.
//!
//! Neighbours: `task`. For thrift only: the commit's checks are what makes two compactors safe. Invariants: 1. a lease that is not renewed is
//! free after [`LEASE_MS`]; 2. one that was taken over is neither renewed nor freed by its former holder.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use siltstone_store::item::{Attr, Item, ItemCondition, ItemError};

use crate::{error::Result, table::Table};

/// A lease that is not renewed is taken over after this long, ms: so long a bucket waits after its compactor died.
const LEASE_MS: i64 = 15_000;
/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A lease that is held.
pub(crate) struct Lease<'a> {
    table: &'a Table,
    sort: String,
    rev: AtomicU64,
}

impl<'a> Lease<'a> {
    /// Takes the lease of `bucket`, as in `dt=1/bucket-0`, if it is free or has run out.
    pub(crate) async fn take(table: &'a Table, bucket: &str) -> Result<Option<Self>> {
        let sort = format!("lease#{bucket}");
        let (rev, condition) = match table.ports.items.get(&table.at.partition(), &sort).await? {
            None => (1, ItemCondition::Absent),
            Some(item) => {
                let until = item.attributes.get("until").and_then(Attr::as_n).unwrap_or(0);
                if until > table.ports.clock.now_ms() {
                    return Ok(None);
                }
                (item.rev + 1, ItemCondition::RevIs(item.rev))
            }
        };
        let lease = Self { table, sort, rev: AtomicU64::new(rev) };
        match table.ports.items.put(&lease.item(rev), condition).await {
            Ok(()) => Ok(Some(lease)),
            Err(ItemError::ConditionFailed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Renews the lease for as long as this is polled. One that was taken over is let go: the commit's checks decide between the two.
    pub(crate) async fn keep(&self) -> Infallible {
        loop {
            self.table.ports.clock.sleep(RENEW_EVERY).await;
            let rev = self.rev.load(Ordering::Relaxed);
            match self.table.ports.items.put(&self.item(rev + 1), ItemCondition::RevIs(rev)).await {
                Ok(()) => self.rev.store(rev + 1, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, lease = self.sort, "a lease was not renewed"),
            }
        }
    }

    /// Frees the lease, unless somebody has taken it over.
    pub(crate) async fn free(self) {
        let condition = ItemCondition::RevIs(self.rev.into_inner());
        let freed = self.table.ports.items.delete(&self.table.at.partition(), &self.sort, condition).await;
        if let Err(error) = freed {
            tracing::warn!(%error, lease = self.sort, "a lease was not freed; it runs out by itself");
        }
    }

    fn item(&self, rev: u64) -> Item {
        let until = self.table.ports.clock.now_ms() + LEASE_MS;
        Item::new(self.table.at.partition(), &self.sort, rev).with("until", Attr::N(until))
    }
}
