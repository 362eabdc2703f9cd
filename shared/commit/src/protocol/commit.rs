//! Commits one change: rules 1, 2, 3, 5, 6, 7 of architecture.md section 3, in the order of `steps`.
//!
//! Neighbours: `tip` before it, `fold` decides, `build` makes the objects, `publish` after it, `bare` without a pointer.
//! Invariants: 1. everything the new state names is durable before the swap (11); 2. `Conflict` is answered only while no write of this
//! change can still take effect (7); 3. `Committed` is answered only when the snapshot is published (5); 4. a loser deletes nothing.

use super::{build, packed::load_others, publish, tip, tip::Swap};
use crate::{
    changes::{Change, Outcome},
    context::TableContext,
    error::CommitError,
    fold::{Accumulated, Folded, fold, needs_live},
    io::Io,
    manifests::{self, Names, Scope},
    pointer::{CHANGE_IDS, Pointer},
    steps,
};

/// With `planned_on` the first attempt starts from that reading of the pointer instead of another one: its tip is looked at again, and
/// the swap fails if the pointer has moved.
pub(crate) async fn run(
    io: Io,
    context: TableContext,
    change: Change,
    mut planned_on: Option<Pointer>,
) -> Result<Outcome, CommitError> {
    crate::fold::validate(&change)?;
    let started = io.now(steps::COMMIT_TIME).await?;
    let mut names = Names::new(io.uuid(steps::COMMIT_TIME).await?);
    let mut maybe_since = None;
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let pointer = tip::settle_from(&io, &context, planned_on.take()).await?;
        // An own write that could not be seen any more would be applied twice.
        let forgotten = maybe_since.is_some_and(|rev: u64| pointer.rev - rev.min(pointer.rev) >= CHANGE_IDS as u64);
        if let (true, Some(expected_rev), true) = (forgotten, maybe_since, change.ranges.is_empty()) {
            return Ok(Outcome::Unknown { expected_rev });
        }
        let state = match evaluate(&io, &context, &pointer, &change).await? {
            (_, Folded::Already) => return Ok(committed(&pointer, true)),
            (_, Folded::Rejected(conflict)) => return Ok(Outcome::Conflict(conflict)),
            (state, _) => state,
        };
        let next = build::next_pointer(&io, &context, &mut names, &pointer, state, started).await?;
        match tip::swap(&io, steps::COMMIT_SWAP, &context, &pointer, &next).await? {
            Swap::Swapped => {
                if next.version() != pointer.version() {
                    publish::publish(&io, &context, &next).await?;
                }
                return Ok(committed(&next, false));
            }
            Swap::Moved { maybe, .. } => {
                if maybe && maybe_since.is_none() {
                    maybe_since = Some(pointer.rev);
                }
            }
            Swap::Unknown => return Ok(Outcome::Unknown { expected_rev: pointer.rev }),
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "commit", attempts: context.settings.max_attempts })
}

pub(crate) fn committed(pointer: &Pointer, already: bool) -> Outcome {
    Outcome::Committed { snapshot: pointer.snapshot.as_ref().map(|s| s.id), rev: pointer.rev, already }
}

/// Reads what the checks need, then folds the change onto the pointer's state.
async fn evaluate(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    change: &Change,
) -> Result<(Accumulated, Folded), CommitError> {
    let mut state = Accumulated::new(pointer, None);
    let mut folded = fold(context, &mut state.clone(), change)?;
    if folded == Folded::NeedsCheckpoints {
        load_others(io, steps::COMMIT_READ, context, &mut state.checkpoints).await?;
        folded = fold(context, &mut state.clone(), change)?;
    }
    if folded != Folded::Applied {
        return Ok((state, folded));
    }
    if needs_live(change) {
        let manifests = match &pointer.snapshot {
            Some(snapshot) => manifests::read_manifests(io, steps::COMMIT_READ, context, snapshot).await?.all(),
            None => Vec::new(),
        };
        let scope = Scope::of(&change.files);
        let live = manifests::read_live(io, steps::COMMIT_READ, context, &manifests, &scope).await?;
        state = state.with_live(live);
    }
    let folded = fold(context, &mut state, change)?;
    Ok((state, folded))
}
