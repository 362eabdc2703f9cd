//! What every protocol begins with: the pointer, and a tip on S3 that agrees with it (rules 3 and 8).
//!
//! Neighbours: `publish` puts a snapshot whose author died, `adopt` believes or refuses a foreign one, `commit` and the others go on from here.
//! Invariants: 1. when this returns, the pointer's snapshot was published with its own uuid (8) and nothing stood above it; 2. a
//! published snapshot that is gone is never put again; 3. every write here is a swap on `rev` of the pointer that was judged.

use siltstone_format::{
    id::{SequenceNumber, SnapshotId},
    path::ObjectName,
    snapshot::Snapshot,
};

use super::{adopt, publish};
use crate::{
    codec,
    context::TableContext,
    error::CommitError,
    io::{Effect, FailureKind, Io, ItemName, Reply},
    pointer::{Pointer, TableState},
    steps::{self, StepName},
};

/// Reloads before a protocol says that the table is too busy.
const ROUNDS: u32 = 20;

/// Reads the pointer and checks that it is the caller's table.
pub(crate) async fn load_pointer(io: &Io, step: StepName, context: &TableContext) -> Result<Pointer, CommitError> {
    find_pointer(io, step, context)
        .await?
        .ok_or_else(|| CommitError::NoTable { table: context.location.root().to_owned() })
}

/// Reads the pointer, if there is one.
pub(crate) async fn find_pointer(
    io: &Io,
    step: StepName,
    context: &TableContext,
) -> Result<Option<Pointer>, CommitError> {
    let Some(record) = io.load_item(step, ItemName::Pointer).await? else { return Ok(None) };
    let pointer = Pointer::from_record(&record, &context.location)?;
    match &context.incarnation {
        Some(expected) if *expected != pointer.incarnation => Err(CommitError::Incarnation {
            table: context.location.root().to_owned(),
            found: pointer.incarnation.to_string(),
            expected: expected.to_string(),
        }),
        _ => Ok(Some(pointer)),
    }
}

/// Reads the pointer and brings S3 in line with it: publishes, adopts, or refuses to go on.
pub(crate) async fn settle(io: &Io, context: &TableContext) -> Result<Pointer, CommitError> {
    settle_from(io, context, None).await
}

/// As [`settle`], beginning with a reading of the pointer that the caller has: a stale one is as harmless as a pointer that moves
/// between its reading and the look at the tip.
pub(crate) async fn settle_from(
    io: &Io,
    context: &TableContext,
    mut known: Option<Pointer>,
) -> Result<Pointer, CommitError> {
    let mut foreign = SnapshotId(0);
    for round in 1..=ROUNDS {
        let pointer = match known.take() {
            Some(pointer) => pointer,
            None => load_pointer(io, steps::SETTLE_POINTER, context).await?,
        };
        if pointer.state == TableState::Forked {
            let reason = "a foreign snapshot stands in place of ours".to_owned();
            return Err(CommitError::Forked {
                table: context.location.root().to_owned(),
                at: pointer.version(),
                reason,
            });
        }
        if let Some(settled) = settle_once(io, context, pointer, &mut foreign).await? {
            return Ok(settled);
        }
        io.pause(round).await;
    }
    Err(CommitError::Contended { protocol: "settle", attempts: ROUNDS })
}

/// `None`: look again, something moved.
async fn settle_once(
    io: &Io,
    context: &TableContext,
    pointer: Pointer,
    foreign: &mut SnapshotId,
) -> Result<Option<Pointer>, CommitError> {
    let version = pointer.version();
    let above = context.location.snapshot(version.next());
    let Some(snapshot) = &pointer.snapshot else {
        // Others may have begun the table, and have expired snapshot 1 since.
        return match list_snapshots(io, steps::SETTLE_TIP, context).await?.first() {
            None => Ok(Some(pointer)),
            Some((first, _)) if *first == version.next() => adopt::adopt_next(io, context, &pointer, foreign).await,
            Some(_) => adopt::adopt_first(io, context, &pointer).await,
        };
    };
    let key = context.location.snapshot(version);
    let (tip, grown) = io.get_and_head(steps::SETTLE_TIP, key.clone(), above).await?;
    match tip {
        None => {
            if adopt::may_publish(io, context, &pointer).await? {
                publish::publish(io, context, &pointer).await?;
            }
            Ok(None)
        }
        Some(object) if !same_snapshot(&codec::decode_snapshot(&key, &object.body)?, snapshot) => {
            if unchanged(io, context, &pointer).await? {
                mark_forked(io, context, &pointer).await?;
            }
            Ok(None)
        }
        Some(_) if grown => adopt::adopt_next(io, context, &pointer, foreign).await,
        Some(_) => Ok(Some(published(pointer))),
    }
}

/// Notes that the current snapshot was seen; written with whatever is written next.
pub(crate) fn published(mut pointer: Pointer) -> Pointer {
    pointer.published = pointer.published.max(pointer.version());
    pointer
}

/// True if the pointer is still what was judged; nobody wrote meanwhile.
pub(crate) async fn unchanged(io: &Io, context: &TableContext, pointer: &Pointer) -> Result<bool, CommitError> {
    Ok(load_pointer(io, steps::SETTLE_PROVE, context).await?.rev == pointer.rev)
}

/// Whether two readings are of one snapshot object. Old writers give no uuid; then the lists and the author decide.
pub(crate) fn same_snapshot(one: &Snapshot, other: &Snapshot) -> bool {
    if one.uuid.is_some() || other.uuid.is_some() {
        return one.uuid == other.uuid && one.id == other.id;
    }
    let identity = |s: &Snapshot| {
        let lists = (s.base_manifest_list.clone(), s.delta_manifest_list.clone());
        (s.id, lists, s.commit_user.clone(), s.commit_identifier, s.time_millis)
    };
    identity(one) == identity(other)
}

/// Writes the state `forked`: no commit until `silt repair` has run.
pub(crate) async fn mark_forked(io: &Io, context: &TableContext, pointer: &Pointer) -> Result<(), CommitError> {
    let next = Pointer { rev: pointer.rev + 1, state: TableState::Forked, ..pointer.clone() };
    swap(io, steps::SETTLE_SWAP, context, pointer, &next).await.map(|_| ())
}

/// What became of a swap.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Swap {
    /// The pointer is, or was, exactly what was to be written.
    Swapped,
    /// Another write came between, or ours did and others on top: read again and evaluate again (rule 2).
    Moved {
        /// True if ours may be among them.
        maybe: bool,
        /// What the pointer says now.
        rev: u64,
    },
    /// No answer, and no read that decides.
    Unknown,
}

/// Replaces the pointer on its `rev`. An unknown answer is looked up; while the revision is the expected one, the very same
/// write is sent again, which can only happen once.
pub(crate) async fn swap(
    io: &Io,
    step: StepName,
    context: &TableContext,
    current: &Pointer,
    next: &Pointer,
) -> Result<Swap, CommitError> {
    current.check_successor(next)?;
    let record = next.to_record(&context.location)?;
    let mut maybe = false;
    for attempt in 1..=crate::effects::TRIES {
        let effect = Effect::SwapItem { name: ItemName::Pointer, expected_rev: current.rev, record: record.clone() };
        let failure = match io.ask(step, effect).await {
            Reply::Done => return Ok(Swap::Swapped),
            Reply::Failed(failure) => failure,
            _ => return Err(crate::effects::unfit(step)),
        };
        match failure.kind {
            FailureKind::Unknown | FailureKind::PreconditionFailed => {
                maybe = true; // a failed condition may be the echo of our own write, repeated below us
                match io.load_item(steps::COMMIT_LOOK_UP, ItemName::Pointer).await {
                    Ok(Some(now)) if now == record => return Ok(Swap::Swapped),
                    Ok(Some(now)) if now.rev != current.rev => return Ok(Swap::Moved { maybe, rev: now.rev }),
                    Ok(None) => return Err(CommitError::NoTable { table: context.location.root().to_owned() }),
                    Ok(Some(_)) => {}
                    Err(_) if attempt == crate::effects::TRIES => return Ok(Swap::Unknown),
                    Err(_) => {}
                }
            }
            kind if crate::effects::wrote_nothing(kind) => {}
            _ if maybe => return Ok(Swap::Unknown),
            _ => return Err(CommitError::effect(step, ItemName::Pointer.to_string(), failure)),
        }
        io.pause(attempt).await;
    }
    if maybe {
        return Ok(Swap::Unknown);
    }
    let busy = crate::io::Failure::new(FailureKind::Unavailable, "throttled at every attempt");
    Err(CommitError::effect(step, ItemName::Pointer.to_string(), busy))
}

/// The floor after files of a foreign writer: its next number, max + 1, must stay below ours (architecture.md section 4).
pub(crate) fn raised_floor(floor: SequenceNumber, files: impl Iterator<Item = SequenceNumber>) -> SequenceNumber {
    files.map(crate::sequence::padded).fold(floor, SequenceNumber::max)
}

/// Snapshot ids that exist, ascending, with the time of their writing. Names that are no snapshots are passed over.
pub(crate) async fn list_snapshots(
    io: &Io,
    step: StepName,
    context: &TableContext,
) -> Result<Vec<(SnapshotId, i64)>, CommitError> {
    let mut ids = Vec::new();
    for object in io.list(step, context.location.snapshot_prefix()).await? {
        if let ObjectName::Snapshot(id) = context.location.parse(None, &object.key) {
            ids.push((id, object.last_modified_ms));
        }
    }
    ids.sort_unstable();
    Ok(ids)
}
