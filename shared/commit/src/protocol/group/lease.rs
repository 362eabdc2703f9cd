//! The lease of the group commit: who folds, so that not everybody does.
//!
//! Neighbours: `super` takes it, `holder` works under it. Invariant: 1. it is for thrift only: every failure here means "not the holder" or
//! "not given back", and both are safe.

use crate::{
    error::CommitError,
    io::{Effect, Io, ItemName, Reply},
    staged::Lease,
    steps::{self, StepName},
};

/// How long a lease lasts unless it is given back, ms: a fold with its waiting takes less than two seconds.
const LEASE_MS: i64 = 5_000;

/// A lease that was taken.
#[derive(Debug)]
pub(crate) struct Held {
    holder: String,
    rev: u64,
    given_back: bool,
}

/// Takes the lease if it is free or has run out.
pub(crate) async fn take(io: &Io) -> Result<Option<Held>, CommitError> {
    let now = io.now(steps::STAGE_LEASE).await?;
    let there = io.load_item(steps::STAGE_LEASE, ItemName::Lease).await?;
    if there.as_ref().is_some_and(|record| Lease::until(record) > now) {
        return Ok(None);
    }
    let holder = io.uuid(steps::STAGE_TAKE).await?;
    let rev = there.as_ref().map_or(1, |record| record.rev + 1);
    let record = Lease { holder: holder.clone(), until_ms: now.saturating_add(LEASE_MS) }.to_record(rev);
    let name = ItemName::Lease;
    let effect = match there {
        None => Effect::CreateItem { name, record },
        Some(there) => Effect::SwapItem { name, expected_rev: there.rev, record },
    };
    let taken = io.ask(steps::STAGE_TAKE, effect).await == Reply::Done;
    Ok(taken.then_some(Held { holder, rev, given_back: false }))
}

/// False on a table that never saw contention: one reading tells that nothing is staged, but by a writer that died in its first second.
pub(crate) async fn was_taken(io: &Io, step: StepName) -> Result<bool, CommitError> {
    Ok(io.load_item(step, ItemName::Lease).await?.is_some())
}

impl Held {
    /// Lets the next holder begin.
    pub(crate) async fn give_back(&mut self, io: &Io) {
        if !std::mem::replace(&mut self.given_back, true) {
            let record = Lease { holder: self.holder.clone(), until_ms: 0 }.to_record(self.rev + 1);
            drop(
                io.ask(steps::FOLD_LEASE, Effect::SwapItem { name: ItemName::Lease, expected_rev: self.rev, record })
                    .await,
            );
        }
    }
}
