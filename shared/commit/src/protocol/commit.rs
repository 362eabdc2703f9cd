//! Commits one change: rules 1, 2, 3, 5, 6, 7 of architecture.md section 3, in the order of `steps`.
//!
//! Neighbours: `tip` before it, `fold` decides, `build` makes the objects, `publish` after it, `group` when others are at it too, `bare` without
//! a pointer. Invariants: 1. everything the new state names is durable before the swap (11); 2. `Conflict` is answered only while no write of
//! this change can still take effect (7); 3. `Committed` is answered only when the snapshot is published (5); 4. a loser deletes nothing.

use super::{build, contention, group, packed::load_others, publish, tip, tip::Swap};
use crate::{
    changes::{Change, ChangeId, CommitReport, Outcome},
    context::TableContext,
    error::CommitError,
    fold::{Accumulated, Folded, fits, fold, needs_live},
    io::Io,
    manifests::{self, Names, Scope},
    pointer::Pointer,
    staged, steps,
};

/// How long a change waits for a lease holder unless its caller says otherwise, ms.
const PATIENCE_MS: i64 = 60_000;

/// One change on its way.
pub(crate) struct Writer {
    pub(crate) io: Io,
    pub(crate) context: TableContext,
    pub(crate) change: Change,
    pub(crate) names: Names,
    /// Before this time every object that the run writes was not there.
    pub(crate) started_ms: i64,
    /// After this time it waits for nobody.
    pub(crate) until_ms: i64,
    /// The youngest id that the pointer remembered before the first write whose end is not known.
    maybe_since: Option<Option<ChangeId>>,
    /// So far.
    pub(crate) report: CommitReport,
}

/// With `planned_on` the first attempt starts from that reading of the pointer instead of another one: its tip is looked at again, and
/// the swap fails if the pointer has moved.
pub(crate) async fn run(
    io: Io,
    context: TableContext,
    change: Change,
    mut planned_on: Option<Pointer>,
    until_ms: Option<i64>,
) -> Result<CommitReport, CommitError> {
    crate::fold::validate(&change)?;
    let started_ms = io.now(steps::COMMIT_TIME).await?;
    let names = Names::new(io.uuid(steps::COMMIT_TIME).await?);
    let until_ms = until_ms.unwrap_or(started_ms.saturating_add(PATIENCE_MS));
    let report = CommitReport::plain(Outcome::Unknown { expected_rev: 0 });
    let mut writer = Writer { io, context, change, names, started_ms, until_ms, maybe_since: None, report };
    if let Some(pointer) = &planned_on
        && writer.stages_at_once(pointer)?
    {
        if let Some(outcome) = group::run(&mut writer, pointer, group::Pace::Wait).await? {
            return Ok(writer.end(outcome));
        }
        planned_on = None;
    }
    writer.race(planned_on).await
}

/// What became of one attempt.
enum Attempt {
    Ended(Outcome),
    /// Another write came between.
    Lost(Pointer),
    /// The change met a conflict that may pass, and a staged twin of it may be waiting.
    Refused(Pointer),
}

impl Writer {
    fn end(self, outcome: Outcome) -> CommitReport {
        CommitReport { outcome, ..self.report }
    }

    /// Others commit by the dozen: racing them would only cost objects that nobody names.
    fn stages_at_once(&self, planned_on: &Pointer) -> Result<bool, CommitError> {
        let busy = self.may_stage() && !needs_live(&self.change) && contention::is_busy(planned_on, self.started_ms);
        Ok(busy && fits(&self.context, &Accumulated::new(planned_on, None), &self.change)? == Folded::Applied)
    }

    /// Whether the change may be staged, and there is time to wait for its answer.
    fn may_stage(&self) -> bool {
        staged::stageable(&self.change) && self.started_ms < self.until_ms
    }

    /// Swaps the pointer itself; stages the change once a race is lost.
    async fn race(mut self, mut planned_on: Option<Pointer>) -> Result<CommitReport, CommitError> {
        let attempts = self.context.settings.max_attempts.max(1);
        // Another run of the same change may have staged it.
        let mut released = !staged::stageable(&self.change);
        for attempt in 1..=attempts {
            match self.attempt(planned_on.take(), !released).await? {
                Attempt::Ended(outcome) => return Ok(self.end(outcome)),
                Attempt::Refused(pointer) => {
                    group::release(&self, &pointer).await?;
                    released = true;
                }
                Attempt::Lost(pointer) if self.may_stage() => {
                    if let Some(outcome) = group::run(&mut self, &pointer, group::Pace::Hurry).await? {
                        return Ok(self.end(outcome));
                    }
                    released = false;
                }
                Attempt::Lost(_) => self.io.pause(attempt).await,
            }
        }
        Err(CommitError::Contended { protocol: "commit", attempts })
    }

    async fn attempt(&mut self, planned_on: Option<Pointer>, may_be_staged: bool) -> Result<Attempt, CommitError> {
        let (io, context) = (&self.io, &self.context);
        let pointer = tip::settle_from(io, context, planned_on).await?;
        // An own write that could not be seen any more would be applied twice.
        let forgotten = self.maybe_since.is_some_and(|newest| !pointer.remembers_since(newest));
        if forgotten && self.change.ranges.is_empty() {
            return Ok(Attempt::Ended(Outcome::Unknown { expected_rev: pointer.rev }));
        }
        let state = match evaluate(io, context, &pointer, &self.change).await? {
            (_, Folded::Already) => return Ok(Attempt::Ended(committed(&pointer, true))),
            (_, Folded::Rejected(conflict)) if conflict.is_final() || !may_be_staged => {
                return Ok(Attempt::Ended(Outcome::Conflict(conflict)));
            }
            (_, Folded::Rejected(_)) => return Ok(Attempt::Refused(pointer)),
            (state, _) => state,
        };
        let runs = build::new_runs(&pointer, &state.files);
        let next = build::next_pointer(io, context, &mut self.names, &pointer, state, self.started_ms).await?;
        match tip::swap(io, steps::COMMIT_SWAP, context, &pointer, &next).await? {
            Swap::Swapped => {
                if next.version() != pointer.version() {
                    publish::publish(io, context, &next).await?;
                }
                self.report.runs.extend(runs);
                Ok(Attempt::Ended(committed(&next, false)))
            }
            Swap::Moved { maybe, .. } => {
                if maybe {
                    self.may_be_in(&pointer);
                }
                Ok(Attempt::Lost(pointer))
            }
            Swap::Unknown => Ok(Attempt::Ended(Outcome::Unknown { expected_rev: pointer.rev })),
        }
    }

    /// From here on the change may be in the table without this run's knowing.
    pub(crate) fn may_be_in(&mut self, pointer: &Pointer) {
        self.maybe_since.get_or_insert(pointer.newest_id());
    }
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
    let mut folded = fits(context, &state, change)?;
    if folded == Folded::NeedsCheckpoints {
        load_others(io, steps::COMMIT_READ, context, &mut state.checkpoints).await?;
        folded = fits(context, &state, change)?;
    }
    if folded != Folded::Applied {
        return Ok((state, folded));
    }
    if needs_live(change) {
        let live = read_live(io, context, pointer, &Scope::of(&change.files)).await?;
        state = state.with_live(live);
    }
    let folded = fold(context, &mut state, change)?;
    Ok((state, folded))
}

/// What is live in some buckets, for the checks of compactions.
pub(crate) async fn read_live(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    scope: &Scope,
) -> Result<manifests::Live, CommitError> {
    let manifests = match &pointer.snapshot {
        Some(snapshot) => manifests::read_manifests(io, steps::COMMIT_READ, context, snapshot).await?.all(),
        None => Vec::new(),
    };
    manifests::read_live(io, steps::COMMIT_READ, context, &manifests, scope).await
}
