//! What a lease holder does: folds the staged changes that apply into one snapshot, publishes it, answers their writers.
//!
//! Neighbours: `super` decides who holds, `fold` decides what applies, `build` writes, `tip` and `publish` guard the names.
//! Invariants: 1. the pointer is read before the staged items, and every attempt reads both again (see `steps`, stage 7); 2. a change is folded
//! only if it applies to the pointer's own state *and* to what was folded before it: so a conflict with that state is the same for everybody who
//! evaluates on it; 3. what only conflicts with its neighbours waits for the next fold; 4. `Committed` is written after publication (5); 5. kinds
//! never share a snapshot (20), and take turns; 6. a fold is bounded: changes, files, ids.

use std::collections::BTreeMap;

use super::Folds;
use crate::{
    changes::{Change, ChangeKind},
    codec,
    context::TableContext,
    error::CommitError,
    fold::{Accumulated, Folded, fits, fold as apply, needs_live, validate},
    io::{Effect, Io, ItemName, ItemRecord, StagedName},
    manifests::{Names, Scope},
    pointer::Pointer,
    protocol::{
        build, commit::read_live, contention::LastFold, group::lease::Held, packed::load_others, publish, tip,
        tip::Swap,
    },
    staged::{self, Content, Staged, State},
    steps,
};

/// Most changes of one fold.
const FOLD_CHANGES: usize = 2_000;
/// Most files of one fold, unless one change has more.
const FOLD_FILES: usize = 50_000;
/// Most changes without a shard range in one fold: each takes one of the pointer's remembered ids, and those of several folds must be there.
const FOLD_IDS: usize = 16;
/// An answer that nobody came for is deleted after this time, ms: long after every write that could still be on its way.
const ANSWER_MS: i64 = 3_600_000;
/// Old answers deleted by one fold.
const CLEAN_MOST: usize = 64;

/// A staged change that waits.
struct Waiting {
    name: StagedName,
    rev: u64,
    staged: Staged,
    /// `None` if it cannot be read or could never be right.
    change: Option<Change>,
}

/// What becomes of a waiting change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// In the table: now, or before.
    Committed { already: bool },
    /// It does not apply.
    Released,
    /// Another time.
    Later,
}

/// One fold. Nothing waits: nothing is written.
pub(crate) async fn fold(
    io: &Io,
    context: &TableContext,
    names: &mut Names,
    lease: &mut Held,
) -> Result<Folds, CommitError> {
    let started_ms = pace(io, context).await?;
    for attempt in 1..=context.settings.max_attempts.max(1) {
        let pointer = tip::load_pointer(io, steps::FOLD_POINTER, context).await?;
        let mut staged = read_staged(io, started_ms).await?;
        let waiting = open(io, context, choose(&pointer, std::mem::take(&mut staged.waiting))).await?;
        let (state, verdicts) = evaluate(io, context, &pointer, &waiting).await?;
        let runs = build::new_runs(&pointer, &state.files);
        let next = match state.applied {
            0 => None,
            _ => Some(build::next_pointer(io, context, names, &pointer, state, started_ms).await?),
        };
        // Only now must the name of the snapshot before be there: its author had all that time to publish it.
        let settled = tip::settle_from(io, context, Some(pointer.clone())).await?;
        let current = match next {
            None => settled,
            Some(_) if settled.rev != pointer.rev => {
                io.pause(attempt).await;
                continue;
            }
            Some(next) => {
                let next = Pointer { published: settled.published, ..next };
                match tip::swap(io, steps::FOLD_SWAP, context, &settled, &next).await? {
                    Swap::Swapped => {}
                    Swap::Moved { .. } => {
                        io.pause(attempt).await;
                        continue;
                    }
                    Swap::Unknown => return Ok(Folds::default()),
                }
                lease.give_back(io).await;
                if next.version() != pointer.version() {
                    publish::publish(io, context, &next).await?;
                }
                next
            }
        };
        let answered = answer(io, &current, &waiting, &verdicts, started_ms).await?;
        io.try_all(steps::FOLD_CLEAN, staged.outlived).await?;
        return Ok(Folds { runs, cleaned: staged.cleaned, ..answered });
    }
    Err(CommitError::Contended { protocol: "fold", attempts: context.settings.max_attempts })
}

/// Under load the next fold waits for its time, and gathers meanwhile. Returns when it begins, ms.
async fn pace(io: &Io, context: &TableContext) -> Result<i64, CommitError> {
    let now_ms = io.now(steps::FOLD_TIME).await?;
    let pointer = tip::load_pointer(io, steps::FOLD_POINTER, context).await?;
    let wait_ms = LastFold::of(&pointer).map_or(0, |last| {
        let due_ms = last.at_ms.saturating_add(last.every_ms());
        due_ms.saturating_sub(now_ms).clamp(0, last.every_ms())
    });
    if wait_ms == 0 {
        return Ok(now_ms);
    }
    io.wait(steps::FOLD_TIME, wait_ms).await;
    io.now(steps::FOLD_TIME).await
}

/// The staged items, sorted out.
struct Sorted {
    waiting: Vec<Waiting>,
    /// Deletes of answers that are old.
    outlived: Vec<Effect>,
    cleaned: u64,
}

async fn read_staged(io: &Io, now_ms: i64) -> Result<Sorted, CommitError> {
    let mut sorted = Sorted { waiting: Vec::new(), outlived: Vec::new(), cleaned: 0 };
    for (name, record) in io.list_staged(steps::FOLD_STAGED).await? {
        // An item of another build is that build's to answer.
        let Some(staged) = Staged::from_record(&record) else { continue };
        let rev = record.rev;
        if matches!(staged.state, State::Pending(_)) {
            sorted.waiting.push(Waiting { name, rev, staged, change: None });
        } else if now_ms.saturating_sub(staged.at_ms) > ANSWER_MS && sorted.outlived.len() < CLEAN_MOST {
            sorted.outlived.push(Effect::DeleteItem { name: ItemName::Staged(name), expected_rev: rev });
            sorted.cleaned += 1;
        }
    }
    Ok(sorted)
}

/// The changes of one kind, oldest first. Where both kinds wait, it is the turn of the one that the current snapshot is not.
fn choose(pointer: &Pointer, mut waiting: Vec<Waiting>) -> Vec<Waiting> {
    use siltstone_format::snapshot::CommitKind;
    let waits = |kind| waiting.iter().any(|w| w.staged.kind == kind);
    let compacted = pointer.snapshot.as_ref().is_some_and(|s| s.commit_kind == CommitKind::Compact);
    let kind = match (waits(ChangeKind::Append), waits(ChangeKind::Compact)) {
        (true, true) if compacted => ChangeKind::Append,
        (_, true) => ChangeKind::Compact,
        (_, false) => ChangeKind::Append,
    };
    waiting.retain(|w| w.staged.kind == kind);
    waiting.sort_by_key(|w| (w.staged.at_ms, w.name));
    waiting.truncate(FOLD_CHANGES);
    waiting
}

/// Reads the changes: from their items, the larger ones from their objects.
async fn open(io: &Io, context: &TableContext, mut waiting: Vec<Waiting>) -> Result<Vec<Waiting>, CommitError> {
    let object_of = |w: &Waiting| match &w.staged.state {
        State::Pending(Content::Object(name)) => Some(context.key(name)),
        _ => None,
    };
    let keys: Vec<String> = waiting.iter().filter_map(object_of).collect();
    let objects = io.get_all(steps::FOLD_OBJECTS, keys.clone()).await?;
    let bodies: BTreeMap<String, _> = keys.into_iter().zip(objects).filter_map(|(k, o)| Some((k, o?.body))).collect();
    for place in &mut waiting {
        let packed = match &place.staged.state {
            State::Pending(Content::Inline(packed)) => Some(packed.clone()),
            _ => object_of(place).and_then(|key| bodies.get(&key).cloned()),
        };
        place.change = packed.and_then(|packed| read(context, &place.staged, &packed));
    }
    Ok(waiting)
}

/// One bad change is handed back and does not sink the fold.
fn read(context: &TableContext, staged: &Staged, packed: &[u8]) -> Option<Change> {
    let change = staged::unpack(packed).ok()?;
    let named = change.id == staged.id && change.kind == staged.kind;
    let entries = change.files.iter().chain(&change.changelog).cloned().collect::<Vec<_>>();
    let right = validate(&change).is_ok() && codec::check_entries(context, "a staged change", &entries).is_ok();
    Some(change).filter(|_| named && right)
}

/// Says of each change what becomes of it, and folds those that apply.
async fn evaluate(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    waiting: &[Waiting],
) -> Result<(Accumulated, Vec<Verdict>), CommitError> {
    let base = base(io, context, pointer, waiting).await?;
    let mut state = base.clone();
    let verdicts = waiting.iter().map(|waiting| {
        let Some(change) = waiting.change.as_ref().filter(|_| waiting.staged.incarnation == pointer.incarnation) else {
            return Ok(Verdict::Released);
        };
        match fits(context, &base, change)? {
            Folded::Already => Ok(Verdict::Committed { already: true }),
            Folded::Rejected(_) => Ok(Verdict::Released),
            Folded::NeedsCheckpoints => Err(CommitError::bug("the other checkpoints were not read before a fold")),
            Folded::Applied if is_full(&state, change) => Ok(Verdict::Later),
            Folded::Applied => match apply(context, &mut state, change)? {
                Folded::Applied => Ok(Verdict::Committed { already: false }),
                _ => Ok(Verdict::Later),
            },
        }
    });
    let verdicts = verdicts.collect::<Result<_, CommitError>>()?;
    Ok((state, verdicts))
}

fn is_full(state: &Accumulated, change: &Change) -> bool {
    let files = state.files.len() + change.files.len() > FOLD_FILES;
    let ids = change.ranges.is_empty() && state.ids.len() >= FOLD_IDS;
    state.applied > 0 && (files || ids)
}

/// The pointer's state with all that the checks of these changes need.
async fn base(
    io: &Io,
    context: &TableContext,
    pointer: &Pointer,
    waiting: &[Waiting],
) -> Result<Accumulated, CommitError> {
    let mut base = Accumulated::new(pointer, None);
    let changes = || waiting.iter().filter_map(|w| w.change.as_ref());
    let files: Vec<_> = changes().filter(|change| needs_live(change)).flat_map(|c| c.files.iter().cloned()).collect();
    for change in changes() {
        if fits(context, &base, change)? == Folded::NeedsCheckpoints {
            load_others(io, steps::COMMIT_READ, context, &mut base.checkpoints).await?;
            break;
        }
    }
    if files.is_empty() {
        return Ok(base);
    }
    let live = read_live(io, context, pointer, &Scope::of(&files)).await?;
    Ok(base.with_live(live))
}

/// Writes what became of the changes into their items, under the revision that was read: a writer may have put another change there.
async fn answer(
    io: &Io,
    current: &Pointer,
    waiting: &[Waiting],
    verdicts: &[Verdict],
    now_ms: i64,
) -> Result<Folds, CommitError> {
    let (mut folds, mut writes) = (Folds::default(), Vec::new());
    for (waiting, verdict) in waiting.iter().zip(verdicts) {
        let state = match verdict {
            Verdict::Later => continue,
            Verdict::Released => {
                folds.released += 1;
                State::Released
            }
            Verdict::Committed { already } => {
                folds.folded += u64::from(!already);
                State::Committed { snapshot: current.snapshot.as_ref().map(|s| s.id), rev: current.rev }
            }
        };
        let staged = Staged { at_ms: now_ms, state, ..waiting.staged.clone() };
        writes.push(swap(waiting.name, waiting.rev, staged.to_record(waiting.rev + 1)));
    }
    io.try_all(steps::FOLD_ANSWER, writes).await?;
    Ok(folds)
}

const fn swap(name: StagedName, expected_rev: u64, record: ItemRecord) -> Effect {
    Effect::SwapItem { name: ItemName::Staged(name), expected_rev, record }
}
