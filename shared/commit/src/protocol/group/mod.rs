//! Group commit: what a writer does once it has lost a race, or sees that others commit by the dozen (architecture.md section 3).
//!
//! Neighbours: `commit` races first and comes here; `holder` folds what is staged; `lease` says who; `staged` has the items as values.
//! Invariants: 1. only `rev` decides: a holder without lease, two of them, or one that wakes up late can only fail; 2. a writer answers
//! `Committed` when an item says so that was written after publication, and looks at the pointer itself in every other case, a missing item
//! included; 3. a conflict that may pass is answered only after the change was released (see `steps`, stage 7); 4. nobody waits beyond its
//! deadline: the outcome is unknown then, and the same change again finds out.

mod holder;
pub(super) mod lease;

use siltstone_format::id::SnapshotId;

use super::{commit::Writer, contention::LastFold, need_pointer};
use crate::{
    changes::{Change, ChangeId, NewRuns, Outcome},
    context::TableContext,
    error::CommitError,
    io::{Effect, FailureKind, Io, ItemName, Reply},
    manifests::Names,
    pointer::Pointer,
    staged::{self, Content, Staged, State},
    steps,
};

/// From a fold's start to its last answer, nearly always, ms.
const ANSWERED_MS: i64 = 500;
/// Looks are spread over so long, so that those who wait for one fold do not ask at once, ms.
const SPREAD_MS: u128 = 128;
/// Latest first look of a scout, ms after staging: a holder that is there early waits for the fold's time.
const SCOUT_POLL_MS: i64 = 500;
/// Further looks, ms.
const POLL_MS: i64 = 500;
/// Time that a fold may take: who has less left leaves the lease to others, ms.
const FOLD_MS: i64 = 2_000;

/// Whether a writer expects a holder to be at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It has just lost a race: it looks at the lease at once.
    Hurry,
    /// The pointer says that folds go on.
    Wait,
}

/// What a lease holder's folds did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folds {
    /// Changes committed.
    pub folded: u64,
    /// Changes handed back to their writers: they did not apply.
    pub released: u64,
    /// Old answers deleted.
    pub cleaned: u64,
    /// Level-0 files that came in.
    pub runs: Vec<NewRuns>,
}

/// A change's own share of the time over which looks are spread, ms.
fn spread_ms(id: ChangeId) -> i64 {
    i64::try_from(id.0 % SPREAD_MS).unwrap_or(0)
}

/// Stages the change, then waits for its answer, or folds. `None`: it is not staged (any more), look at the pointer. The change applies to
/// `pointer`.
pub(crate) async fn run(writer: &mut Writer, pointer: &Pointer, pace: Pace) -> Result<Option<Outcome>, CommitError> {
    let unknown = Outcome::Unknown { expected_rev: pointer.rev };
    writer.may_be_in(pointer);
    if !stage(writer, pointer).await? {
        return Ok(Some(unknown));
    }
    writer.report.staged = true;
    let (id, last) = (writer.change.id, LastFold::of(pointer).filter(|_| pace == Pace::Wait));
    let mut now_ms = writer.io.now(steps::STAGE_WAIT).await?;
    // A fold that is a little late is no reason for everybody to ask for the lease.
    let (mut wait_ms, mut folds) = match last {
        None => (0, true),
        Some(last) if last.has_scout(id) => (last.due_in_ms(now_ms).min(SCOUT_POLL_MS), true),
        Some(last) => (last.due_in_ms(now_ms) + ANSWERED_MS + spread_ms(id), false),
    };
    loop {
        let left = writer.until_ms.saturating_sub(now_ms);
        if left <= 0 {
            return Ok(Some(unknown));
        }
        if wait_ms > 0 {
            writer.io.wait(steps::STAGE_WAIT, wait_ms.min(left)).await;
            match poll(&writer.io, &writer.change).await? {
                Seen::Waiting => {}
                Seen::Committed(snapshot, rev) => {
                    return Ok(Some(Outcome::Committed { snapshot, rev, already: false }));
                }
                Seen::Nothing => return Ok(None),
            }
        }
        if left > FOLD_MS && std::mem::replace(&mut folds, true) {
            fold_if_free(writer).await?;
        }
        wait_ms = POLL_MS + spread_ms(id);
        now_ms = writer.io.now(steps::STAGE_WAIT).await?;
    }
}

/// Puts the change where a holder finds it; false if no answer says that it is there.
async fn stage(writer: &mut Writer, pointer: &Pointer) -> Result<bool, CommitError> {
    let (io, change) = (&writer.io, &writer.change);
    let now = io.now(steps::STAGE_ITEM).await?;
    let packed = staged::pack(change)?;
    let incarnation = pointer.incarnation.clone();
    let state = State::Pending(Content::Inline(packed.clone()));
    let mut item = Staged { id: change.id, kind: change.kind, incarnation, at_ms: now, state };
    if !item.fits() {
        let name = staged::object_name(&io.uuid(steps::STAGE_OBJECT).await?);
        io.put_new(steps::STAGE_OBJECT, vec![(writer.context.key(&name), packed)]).await?;
        item.state = State::Pending(Content::Object(name));
    }
    put_item(io, change, &item).await
}

async fn put_item(io: &Io, change: &Change, item: &Staged) -> Result<bool, CommitError> {
    let name = ItemName::Staged(staged::name_of(change));
    // A time as revision: an answer to what stood here before does not fit.
    let rev = item.at_ms.unsigned_abs();
    for attempt in 1..=crate::effects::TRIES {
        let record = item.to_record(rev);
        // One shard's writers replace each other; a change without range has the item for itself, and a write of it that comes late must
        // find it taken.
        let effect = if change.ranges.is_empty() {
            Effect::CreateItem { name, record }
        } else {
            Effect::PutItem { name, record }
        };
        match io.ask(steps::STAGE_ITEM, effect).await {
            Reply::Done => return Ok(true),
            Reply::Failed(failure) => match failure.kind {
                FailureKind::PreconditionFailed => return stage_again(io, name, item).await,
                FailureKind::Denied => {
                    return Err(CommitError::effect(steps::STAGE_ITEM, name.to_string(), failure));
                }
                _ => io.pause(attempt).await,
            },
            _ => return Err(crate::effects::unfit(steps::STAGE_ITEM)),
        }
    }
    Ok(false)
}

/// The item of a change without range is there already: waiting, answered, or released.
async fn stage_again(io: &Io, name: ItemName, item: &Staged) -> Result<bool, CommitError> {
    let Some(record) = io.load_item(steps::STAGE_POLL, name).await? else { return Ok(false) };
    if Staged::from_record(&record).is_none_or(|there| there.state != State::Released) {
        return Ok(true);
    }
    let effect = Effect::SwapItem { name, expected_rev: record.rev, record: item.to_record(record.rev + 1) };
    Ok(io.ask(steps::STAGE_ITEM, effect).await == Reply::Done)
}

/// What a writer sees of its item.
enum Seen {
    Waiting,
    Committed(Option<SnapshotId>, u64),
    /// Another change, a released one, or no item at all: it proves nothing.
    Nothing,
}

async fn poll(io: &Io, change: &Change) -> Result<Seen, CommitError> {
    let record = io.load_item(steps::STAGE_POLL, ItemName::Staged(staged::name_of(change))).await?;
    let item = record.as_ref().and_then(Staged::from_record).filter(|item| item.id == change.id);
    Ok(match item.map(|item| item.state) {
        Some(State::Pending(_)) => Seen::Waiting,
        Some(State::Committed { snapshot, rev }) => Seen::Committed(snapshot, rev),
        Some(State::Released) | None => Seen::Nothing,
    })
}

/// Makes sure that no holder folds the change: its item says so before the pointer is read again. An item that was never there is made, so that a
/// late write of it finds it taken. That of a change with a shard's range does not: it is staged by a write without condition, and one that
/// takes effect after the release may be folded. Its positions keep such a change from being in the table twice.
pub(crate) async fn release(writer: &Writer, pointer: &Pointer) -> Result<(), CommitError> {
    let (io, change) = (&writer.io, &writer.change);
    let name = ItemName::Staged(staged::name_of(change));
    for attempt in 1..=crate::effects::TRIES {
        let at_ms = io.now(steps::STAGE_RELEASE).await?;
        let incarnation = pointer.incarnation.clone();
        let item = Staged { id: change.id, kind: change.kind, incarnation, at_ms, state: State::Released };
        let effect = match io.load_item(steps::STAGE_RELEASE, name).await? {
            None => Effect::CreateItem { name, record: item.to_record(at_ms.unsigned_abs()) },
            Some(record) => match Staged::from_record(&record) {
                Some(there) if there.id == change.id && matches!(there.state, State::Pending(_)) => {
                    Effect::SwapItem { name, expected_rev: record.rev, record: item.to_record(record.rev + 1) }
                }
                _ => return Ok(()),
            },
        };
        if io.ask(steps::STAGE_RELEASE, effect).await == Reply::Done {
            return Ok(());
        }
        io.pause(attempt).await;
    }
    Err(CommitError::Contended { protocol: "release of a staged change", attempts: crate::effects::TRIES })
}

/// Folds what is staged, the writer's own change among it, if nobody else does.
async fn fold_if_free(writer: &mut Writer) -> Result<(), CommitError> {
    let Some(mut held) = lease::take(&writer.io).await? else { return Ok(()) };
    let folds = holder::fold(&writer.io, &writer.context, &mut writer.names, &mut held).await;
    held.give_back(&writer.io).await;
    let folds = folds?;
    writer.report.folded += folds.folded;
    writer.report.runs.extend(folds.runs);
    Ok(())
}

/// See [`super::fold_staged`].
pub(crate) async fn fold_staged(io: Io, context: TableContext) -> Result<Folds, CommitError> {
    need_pointer(&context)?;
    let mut all = Folds::default();
    if !lease::was_taken(&io, steps::STAGE_LEASE).await? || io.list_staged(steps::FOLD_STAGED).await?.is_empty() {
        return Ok(all);
    }
    let mut names = Names::new(io.uuid(steps::FOLD_TIME).await?);
    // One round for each kind of change, and one that finds nothing.
    for _ in 0..3 {
        let Some(mut held) = lease::take(&io).await? else { break };
        let folds = holder::fold(&io, &context, &mut names, &mut held).await;
        held.give_back(&io).await;
        let folds = folds?;
        let done = folds.folded + folds.released == 0;
        all.folded += folds.folded;
        all.released += folds.released;
        all.cleaned += folds.cleaned;
        all.runs.extend(folds.runs);
        if done {
            break;
        }
    }
    Ok(all)
}
